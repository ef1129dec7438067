"""Read a split of a data set into the warehouse: videos, expressions, ground truth."""

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.shards import in_shard
from tasks.stage import Outcome, Stage, publish_each
from tasks.tables import source_tables
from warehouse import Commit, Key, Warehouse, fingerprint
from warehouse.commits import Making, printable
from warehouse.frames import content_hash, frame_size, stat_signature
from warehouse.sources import data_set_name, read_split
from warehouse.sources.base import BadVideo, SourceVideo
from warehouse.sources.labels import LabelImages


def ingest_split(
    warehouse: str,
    dataset: str,
    root: str,
    split: str,
    limit: int | None = None,
    shard: str | None = None,
    rehash: bool = False,
    name: str | None = None,
) -> list[Outcome]:
    """Publish the videos of a split that are new or changed; say how every video of it is now.

    Of a `shard`, see `tasks.shards`, or of the first `limit` videos only. `rehash`: read all
    frames, to find those that were replaced by others of the same size and time. `name` is that of
    the rows' data set; by default it is the reader's, `dataset`.

    Raises:
        SourceError: the split as a whole cannot be read, or the name cannot be one.
        ValueError: there is no such shard.
    """
    chosen, reader, dataset = in_shard(shard), dataset, data_set_name(dataset, name)
    layout = {} if dataset == reader else {"layout": reader}
    found = [_in_unicode(video) for video in read_split(reader, Path(root).resolve(), split)]
    store = Warehouse.create(warehouse)
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
            making = Making(settings=layout)
            store.publish_failure("ingest", key, "unreadable", video.error, making=making)
    current = store.current("ingest", videos)
    read = {key: _Source(video, current.get(key)) for key, video in videos.items()}
    if rehash:
        for source in read.values():
            source.look_again()
    wanted = {key: source.fingerprint for key, source in read.items()}

    def tables(key: Key) -> dict[str, pa.Table]:
        video, content = videos[key], read[key].content
        return source_tables(key, video, frame_size(video.path, video.frames), content)

    def provenance(key: Key) -> dict[str, Any]:
        making = Making(settings=read[key].settings | layout, version=INGEST.version)
        return {"contents": {"frames": read[key].content}, "inputs": (), "making": making}

    missing = set(store.missing("ingest", wanted))
    outcomes += [Outcome(key.video_id, "done") for key in wanted if key not in missing]
    changed = {key: named for key, named in wanted.items() if key in missing}
    return outcomes + publish_each(store, INGEST.name, changed, tables, provenance)


def layout_of(store: Warehouse, dataset: str, split: str) -> str:
    """The reader of a split: what its data set is named after, unless it has a name of its own."""
    found = [*store.current("ingest", dataset=dataset, split=split).values()]
    if not found:
        failures = store.failures("ingest").items()
        found = [c for key, c in failures if (key.dataset, key.split) == (dataset, split)]
    settings = [commit.making.settings or {} for commit in found[:1]]
    return settings[0].get("layout", dataset) if settings else dataset


class _Source:
    """The frames and annotations of a video as they are now, and as they were read before.

    A video is read when the size or time of a file differs, or when `look_again` has found that the
    frames differ all the same; that is remembered for as long as the files keep size and time.
    """

    def __init__(self, video: SourceVideo, before: Commit | None) -> None:
        self._video, self._before = video, before
        self.files = stat_signature(video.path, video.frames)
        known = (before and before.making.settings) or {}
        self.replaced = known.get("replaced") if known.get("files") == self.files else None

    @cached_property
    def content(self) -> str:
        """What names the frames."""
        return content_hash(self._video.path, self._video.frames)

    def look_again(self) -> None:
        if self._before and self.content != self._before.contents["frames"]:
            self.replaced = self.content

    @property
    def settings(self) -> dict[str, Any]:
        found = {"path": str(self._video.path), "files": self.files}
        return found | ({"replaced": self.replaced} if self.replaced else {})

    @property
    def fingerprint(self) -> str:
        version = {"version": INGEST.version} if INGEST.version > 1 else {}  # format 2 had none
        return fingerprint(**self.settings, **_annotations(self._video), **version)


INGEST = Stage(
    name="ingest",
    command="precompute --root DIR",
    covers=(
        "tasks.stages.ingest",
        "tasks.tables",
        "warehouse.annotations",
        "warehouse.frames",
        "warehouse.images",
        "warehouse.sources",
    ),
)


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
