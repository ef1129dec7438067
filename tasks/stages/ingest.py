"""Read a split of a data set into the warehouse: videos, expressions, ground truth."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.shards import in_shard
from tasks.stages.outcome import Outcome, publish_each
from tasks.tables import source_tables
from warehouse import Key, Warehouse, fingerprint
from warehouse.commits import printable
from warehouse.corruptions import base_split
from warehouse.frames import content_hash, frame_size, stat_signature
from warehouse.sources import read_split
from warehouse.sources.base import BadVideo, SourceVideo
from warehouse.sources.labels import LabelImages


@task(cache_policy=NO_CACHE)
def ingest_split(
    warehouse: str,
    dataset: str,
    root: str,
    split: str,
    limit: int | None = None,
    shard: str | None = None,
) -> list[Outcome]:
    """Publish the videos of a split that are new or changed; say how every video of it is now.

    Of a `shard`, see `tasks.shards`, or of the first `limit` videos only.

    Raises:
        SourceError: the split as a whole cannot be read.
        ValueError: there is no such shard.
    """
    chosen = in_shard(shard)
    store = Warehouse.create(warehouse)
    found = [_in_unicode(v) for v in read_split(dataset, Path(root).resolve(), base_split(split))]
    found = [video for video in found if chosen(video.video_id)][:limit]
    videos = {
        Key(dataset=dataset, split=split, video_id=video.video_id): video
        for video in found
        if isinstance(video, SourceVideo)
    }
    bad = [video for video in found if isinstance(video, BadVideo)]
    outcomes = [Outcome(video.video_id, "failed", video.error) for video in bad]
    for video in bad:
        key = Key(dataset=dataset, split=split, video_id=video.video_id)
        if key not in videos:  # else the good one of the two of this id counts
            store.publish_failure("ingest", key, "unreadable", video.error)
    wanted = {
        key: fingerprint(
            files=stat_signature(video.path, video.frames),
            path=str(video.path),
            **_annotations(video),
        )
        for key, video in videos.items()
    }

    def tables(key: Key) -> dict[str, pa.Table]:
        path, frames = videos[key].path, videos[key].frames
        size = frame_size(path, frames)
        return source_tables(key, videos[key], size, content_hash(path, frames))

    missing = set(store.missing("ingest", wanted))
    outcomes += [Outcome(key.video_id, "done") for key in wanted if key not in missing]
    changed = {key: current for key, current in wanted.items() if key in missing}
    return outcomes + publish_each(store, "ingest", changed, tables)


def _in_unicode(video: SourceVideo | BadVideo) -> SourceVideo | BadVideo:
    """The video, or why it cannot be used when one of its names or texts is not Unicode.

    Names of files in another encoding, such as Latin-1, have lone surrogates, as has "\\ud800" in
    JSON: no column of a table can hold them.
    """
    if isinstance(video, BadVideo):
        return replace(
            video,
            video_id=printable(video.video_id),
            errors=tuple(printable(error) for error in video.errors),
        )
    texts = [video.video_id, str(video.path), *video.frames]
    if isinstance(video.expressions, tuple):
        for expression in video.expressions:
            texts += [expression.expression_id, expression.text, *expression.tags]
            texts += expression.object_ids or ()
    if not isinstance(video.ground_truth, LabelImages):
        texts += video.ground_truth
    errors = [
        f"{printable(text)} is not Unicode: rename the file, or mend the text"
        for text in texts
        if printable(text) != text
    ]
    return BadVideo(video_id=printable(video.video_id), errors=tuple(errors)) if errors else video


def _annotations(video: SourceVideo) -> dict[str, Any]:
    """What the annotations are, or the state of the files they will be decoded from."""
    given = isinstance(video.expressions, tuple)  # else they are found in the label images
    expressions = [asdict(e) for e in video.expressions] if given else []
    truth = video.ground_truth
    state = truth.signature() if isinstance(truth, LabelImages) else truth
    return {"expressions": expressions, "ground_truth": state}
