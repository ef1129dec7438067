"""Mask tracks and object tokens of videos, by a frozen tracker."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sola_model.extraction.trackers import VIDEO_MODELS, load_tracker, weights_identity
from sola_model.masks.runs import RLE
from tasks.stage import Plan, Reads, Stage, Unit
from tasks.stages.detect import DETECT
from tasks.stages.ingest import INGEST
from tasks.stages.own_masks import OWN_MASKS
from tasks.tables import (
    masks_of_objects,
    read_boxes,
    read_mask_tracks,
    read_objects,
    read_video,
    track_tables,
)
from tasks.track_sets import TrackSet
from tasks.worker import device, precision
from warehouse import Commit, Warehouse
from warehouse.commit_table import video_keys
from warehouse.frames import frames_of
from warehouse.sources.base import VOID

if TYPE_CHECKING:  # SAM2 is slow to import: only what tracks does it
    from sola_model.extraction.sam2_models import SAM2Base
    from sola_model.extraction.tracks import VideoTracks

TRACK_KEY = ("dataset", "split", "video_id", "track_set")
Objects = Mapping[str, Sequence[RLE | None]]


def sam2_tracks(
    frames: Iterator[np.ndarray], objects: Objects, track_set: TrackSet
) -> "VideoTracks":
    """The tracks of the grid's prompts, and of the masks of `objects` (ground truth).

    By SAM2, or by a model of its kind, see `sola_model.extraction.trackers`.
    """
    from sola_model.extraction.encoding import EncodedVideo
    from sola_model.extraction.prompts import grid_prompts, mask_prompts
    from sola_model.extraction.tracks import track_prompts

    model, settings = _sam2(track_set), track_set.extraction
    video = EncodedVideo(model, frames, prompt_features=settings.prompt_features)
    prompts = grid_prompts(model, video, settings.grid)
    prompts += mask_prompts(objects, settings.grid.stride)
    return track_prompts(model, video, prompts, settings)


TRACKERS: Mapping[str, Callable[[Iterator[np.ndarray], Objects, TrackSet], "VideoTracks"]] = {
    "sam2": sam2_tracks,
    **dict.fromkeys(VIDEO_MODELS, sam2_tracks),
}
"""Recipe.tracker -> what makes the tracks of a video's frames."""


def track_plan(
    store: Warehouse, dataset: str, split: str, video_ids: Sequence[str], track_set: TrackSet
) -> Plan:
    """The tracks of these videos."""
    check_tracker(track_set.tracker)
    keys = video_keys(video_ids, dataset=dataset, split=split, track_set=track_set.name)
    return Plan(PRECOMPUTE, store, keys, track_set)


def check_tracker(name: str) -> None:
    """Raise ValueError when there is no tracker of this name."""
    if name not in TRACKERS:
        raise ValueError(f"there is no tracker {name!r}; valid are: {', '.join(TRACKERS)}")


def _reads(track_set: TrackSet) -> Reads:
    truth = ("expressions", "ground_truth") if track_set.extraction.ground_truth else ()
    return {INGEST: ("frames", *truth)}


def _tracks(unit: Unit) -> dict[str, pa.Table]:
    track_set: TrackSet = unit.subject
    _check_precision(track_set)
    ingested = unit.commit(INGEST)
    objects = {}
    if track_set.extraction.ground_truth:
        objects = read_objects(unit.store, ingested)
        objects.pop(VOID, None)
    frames = frames_of(read_video(unit.store, ingested), track_set.corruption)
    return track_tables(unit.key, TRACKERS[track_set.tracker](frames, objects, track_set))


def _reads_beside(track_set: TrackSet) -> Reads:
    boxes = {DETECT: ("detections",)} if track_set.boxes else {}
    own = {OWN_MASKS: ("own_masks",)} if track_set.masks else {}
    return {INGEST: ("frames",), PRECOMPUTE: ("prompts", "masks"), **boxes, **own}


def _box_tracks(unit: Unit) -> dict[str, pa.Table]:
    """Tracks of boxes and of a user's own masks; their ids go on from those of the grid."""
    from sola_model.extraction.encoding import EncodedVideo
    from sola_model.extraction.prompts import box_prompts, mask_prompts
    from sola_model.extraction.tracks import VideoTracks, track_prompts

    track_set: TrackSet = unit.subject
    _check_precision(track_set)
    precomputed = unit.commit(PRECOMPUTE)
    prompts = unit.store.read("prompts", [precomputed])
    existing = _grid_tracks(unit.store, precomputed)
    row = read_video(unit.store, unit.commit(INGEST))
    boxes = read_boxes(unit.store, unit.commit(DETECT)) if track_set.boxes else []
    own = unit.store.read("own_masks", unit.tracks(OWN_MASKS))
    extracted = VideoTracks(size=(0, 0), prompts=[], tracks=[])
    if boxes or own.num_rows:
        model, settings = _sam2(track_set), track_set.extraction
        frames = frames_of(row, track_set.corruption)
        # Where the grid's tracks cover all boxes, no other frame is looked at.
        shared = {box.frame_index for box in boxes} if settings.boxes.shared else None
        video = EncodedVideo(
            model, frames, prompt_features=settings.prompt_features, at_once=shared
        )
        found = box_prompts(model, video, boxes, settings.boxes)
        found += mask_prompts(masks_of_objects(own, row), stride=1, source="own")
        extracted = track_prompts(model, video, found, settings, existing)
    return track_tables(unit.key, extracted, prompts.num_rows, len(existing))


def _grid_tracks(store: Warehouse, precomputed: Commit) -> list[list[RLE] | None]:
    """The mask tracks that may cover a box: None for those of ground-truth masks."""
    given = {
        prompt["track_id"]
        for prompt in store.read("prompts", [precomputed]).to_pylist()
        if prompt["source"] == "mask" and prompt["fate"] == "tracked"
    }
    masks = read_mask_tracks(store, precomputed)
    return [None if n in given else track for n, track in enumerate(masks)]


def _check_precision(track_set: TrackSet) -> None:
    if track_set.precision not in (None, precision()):
        raise ValueError(
            f"the track set is of {track_set.precision}, and this worker, on {device()}, computes "
            f"in {precision()}: tracks of both would be mixed. Run all workers on GPUs, or all "
            "with SOLA_DEVICE=cpu."
        )


def _load(track_set: TrackSet) -> None:
    """What the tracks of a set need in this process."""
    if TRACKERS[track_set.tracker] is sam2_tracks:
        _check_precision(track_set)
        _sam2(track_set)


def _sam2(track_set: TrackSet) -> "SAM2Base":
    weights = track_set.weights
    return worker_sam2(track_set.checkpoint, device(), weights, track_set.tracker)


@lru_cache(maxsize=1)
def worker_sam2(
    name: str, where: str, weights: str | None = None, tracker: str = "sam2"
) -> "SAM2Base":
    """One model per worker process; of these weights (sha256), where they are known."""
    if weights and (found := weights_identity(tracker, name)) != weights:
        raise ValueError(
            f"{name} has the weights {found[:12]} on this worker, and the track set is of "
            f"{weights[:12]}: copy the same file to all workers, and run the same command again."
        )
    return load_tracker(tracker, name, where)


PRECOMPUTE = Stage(
    name="precompute",
    command="precompute --root DIR",
    keyed_by=TRACK_KEY,
    reads=_reads,
    settings=TrackSet.without_boxes,
    make=_tracks,
    uses_gpu=True,
    warm_up=_load,
    version=3,
    covers=(
        "tasks.stages.precompute",
        "tasks.tables",
        "sola_model.extraction",
        "sola_model.masks",
        "warehouse.frames",
        "warehouse.images",
        "warehouse.corruptions",
    ),
)
BOX_TRACKS = Stage(
    name="box_tracks",
    command="precompute --root DIR",
    keyed_by=TRACK_KEY,
    reads=_reads_beside,
    settings=TrackSet.unnamed,
    make=_box_tracks,
    uses_gpu=True,
    warm_up=_load,
    version=3,
    covers=PRECOMPUTE.covers,
)
