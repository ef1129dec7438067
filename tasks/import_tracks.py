"""Import mask tracks of any method as a track set: tables prompts, tracks, masks and tokens."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from sola_model.metrics.jf import RLE, empty_rle
from sola_model.recipes import Recipe
from tasks.given_tracks import given_tables
from tasks.parallel import Progress, each_video
from tasks.stage import Outcome, Plan, publish_each
from tasks.stages.ingest import INGEST
from tasks.stages.precompute import PRECOMPUTE, worker_sam2
from tasks.tables import read_video
from tasks.track_sets import GivenTracks, TrackSet, made_given, remember
from tasks.worker import device
from warehouse import Key, Warehouse
from warehouse.commit_table import video_keys
from warehouse.frames import frames_of
from warehouse.sources.base import Masks, SourceError, collected
from warehouse.track_files import identity, open_tracks, read_tracks

Job = tuple[Key, str, list[Masks]]  # a video, what names its tracks, and the tracks


def import_tracks(
    warehouse: str,
    dataset: str,
    split: str,
    file: Path,
    name: str | None,
    sam2: Recipe | None,
    workers: int | None,
    progress: Progress,
) -> tuple[TrackSet, list[Outcome]]:
    """Publish the tracks that a file has of ingested videos; gives their set and what was made.

    Nothing is published unless all of the file is sound. `sam2`: the recipe whose SAM2 makes the
    tokens, see `sola_model.extraction.given_masks`; None: the tracks have no tokens. `name`: of the
    method, default the file's.

    Raises SourceError (ValueError) with all that is wrong with the file.
    """
    store = Warehouse(warehouse)
    ingested = store.current("ingest", dataset=dataset, split=split)
    rows = {key.video_id: read_video(store, commit) for key, commit in ingested.items()}
    tracks = open_tracks(file, list(rows))
    given = GivenTracks(name=name or file.stem, identity=identity(file), tokens=sam2 is not None)
    track_set = made_given(given, sam2)
    keys = video_keys(tracks.videos, dataset=dataset, split=split, track_set=track_set.name)
    errors: list[str] = []
    jobs: list[Job] = []
    for key, named in sorted(Plan(PRECOMPUTE, store, keys, track_set).to_make().items()):
        row = rows[key.video_id]
        with collected(errors):
            size = (row["height"], row["width"])
            jobs.append((key, named, read_tracks(tracks, key.video_id, row["frames"], size)))
    if errors:
        raise SourceError(*errors)
    remember(store, dataset, split, track_set, sam2.name if sam2 else None)
    function = partial(_import_video, warehouse, track_set)
    made = each_video(function, jobs, workers, "import", progress) if jobs else ()
    return track_set, [outcome for outcomes in made for outcome in outcomes]


def _import_video(warehouse: str, track_set: TrackSet, job: Job) -> list[Outcome]:
    store, (key, named, tracks) = Warehouse(warehouse), job
    plan = Plan(PRECOMPUTE, store, [key], track_set)

    def tables(key: Key) -> dict[str, pa.Table]:
        row = read_video(store, plan.unit(key).commit(INGEST))
        size = (row["height"], row["width"])
        whole = [[empty_rle(*size) if rle is None else rle for rle in track] for track in tracks]
        tokens_NTD = _tokens(track_set, row, whole) if track_set.has_tokens else None
        return given_tables(key, tracks, size, tokens_NTD)

    return publish_each(store, PRECOMPUTE.name, {key: named}, tables, plan.provenance)


def _tokens(track_set: TrackSet, row: dict, tracks: list[list[RLE]]) -> np.ndarray:
    from sola_model.extraction.encoding import EncodedVideo
    from sola_model.extraction.given_masks import given_tokens

    model = worker_sam2(track_set.checkpoint, device(), track_set.weights)
    return given_tokens(model, EncodedVideo(model, frames_of(row)), tracks)
