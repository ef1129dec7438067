"""A run's predictions for whole videos, as submissions and exports write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE
from tasks.runs import Run
from tasks.stages import to_mend
from tasks.stages.evaluate import EVALUATE
from tasks.tables import Expression, read_expressions, read_mask_tracks, read_video
from tasks.track_sets import TrackSet
from warehouse import Commit, Key, Warehouse, WarehouseError


@dataclass(frozen=True, kw_only=True)
class EvaluatedVideo:
    """Where the predictions of a video are, and the tracks that they select from."""

    warehouse: str
    ingested: Commit
    tracks: tuple[Commit, ...]  # of the grid and, if there are any, of boxes
    evaluated: Commit
    corruption: str | None  # of the frames that the tracks were made from


@dataclass(frozen=True, kw_only=True)
class VideoPredictions:
    """A video, its mask tracks, and which of them each expression selects, with what score."""

    video_id: str
    frames: tuple[str, ...]
    size: tuple[int, int]
    expressions: tuple[Expression, ...]
    tracks: Sequence[Sequence[RLE]]
    selected: Mapping[str, Mapping[int, float]]  # expression id -> track id -> alignment score

    def masks(self, expression_id: str, t: int) -> dict[int, np.ndarray]:
        """The selected tracks' masks (H, W) bool in frame t, by track id."""
        chosen = self.selected.get(expression_id, {})
        return {n: coco.decode(self.tracks[n][t]).astype(bool) for n in chosen}

    def mask(self, expression_id: str, t: int) -> np.ndarray:
        """The predicted mask (H, W) bool of frame t, the union of the selected tracks."""
        mask_HW = np.zeros(self.size, bool)
        for track_HW in self.masks(expression_id, t).values():
            mask_HW |= track_HW
        return mask_HW


@dataclass(frozen=True, kw_only=True)
class TrackedVideo:
    """Where a video and its tracks are."""

    warehouse: str
    ingested: Commit
    tracks: tuple[Commit, ...]  # of the grid and, if there are any, of boxes


def tracked_videos(
    store: Warehouse, dataset: str, split: str, track_set: TrackSet
) -> list[TrackedVideo]:
    """All videos of a split that have tracks of this set.

    Raises WarehouseError when tracks are of frames that were replaced since.
    """
    where = {"dataset": dataset, "split": split}
    ingested = store.current("ingest", **where)
    found: dict[Key, list[Commit]] = {}
    for stage in ("precompute", "box_tracks"):
        for key, commit in store.current(stage, track_set=track_set.name, **where).items():
            found.setdefault(key.of(track_set=""), []).append(commit)
    if stale := store.stale([commit for commits in found.values() for commit in commits]):
        raise WarehouseError(
            f"{dataset}/{split}: the tracks {track_set.name} of {len(stale)} videos are of frames "
            f"that were replaced since. Run {to_mend(store, stale)}."
        )
    return [
        TrackedVideo(warehouse=store.url, ingested=ingested[key], tracks=tuple(commits))
        for key, commits in found.items()
        if key in ingested
    ]


def evaluated_videos(
    store: Warehouse, run: Run, dataset: str, split: str, track_set: TrackSet
) -> list[EvaluatedVideo]:
    """All videos of a split with the predictions of a run on a track set.

    Raises WarehouseError when the split is not there, or a video has no predictions, or has some
    whose tracks or expressions have been replaced since.
    """
    found = predicted_videos(store, run.run_id, dataset, split, track_set)
    known = {key.video_id for key in store.current("ingest", dataset=dataset, split=split)}
    known |= {
        key.video_id
        for key in store.failures("ingest")
        if (key.dataset, key.split) == (dataset, split)
    }
    key = Key(dataset=dataset, split=split, run_id=run.run_id, track_set=track_set.name)
    missing = known - set(found)
    if missing or not known:
        _refuse(key, "have no predictions", missing, len(known), EVALUATE.redo(key))
    stale = store.stale([video.evaluated for video in found.values()])
    if stale:
        what = "have predictions of tracks or expressions that were replaced since"
        wrong = {commit.key.video_id for commit in stale}
        _refuse(key, what, wrong, len(known), to_mend(store, stale))
    return list(found.values())


def predicted_videos(
    store: Warehouse, run_id: str, dataset: str, split: str, track_set: TrackSet
) -> dict[str, EvaluatedVideo]:
    """The videos of a split that a run has predictions of, by id, current or not."""
    where = {"dataset": dataset, "split": split}
    ingested = store.current("ingest", **where)
    tracks = [
        store.current(stage, track_set=track_set.name, **where)
        for stage in ("precompute", "box_tracks")
    ]
    evaluated = store.current("evaluate", run_id=run_id, track_set=track_set.name, **where)
    return {
        key.video_id: EvaluatedVideo(
            warehouse=store.url,
            ingested=ingested[key.of(run_id="", track_set="")],
            tracks=tuple(c[key.of(run_id="")] for c in tracks if key.of(run_id="") in c),
            evaluated=commit,
            corruption=track_set.corruption,
        )
        for key, commit in evaluated.items()
        if key.of(run_id="", track_set="") in ingested
    }


def _refuse(key: Key, what: str, wrong: set[str], known: int, mend: str) -> NoReturn:
    named = ", ".join(sorted(wrong)[:5]) + (", ..." if len(wrong) > 5 else "")
    raise WarehouseError(
        f"{key.dataset}/{key.split}: {len(wrong)} of {known} videos {what}"
        f"{f' ({named})' if named else ''}, run {key.run_id}, tracks {key.track_set}. See "
        f"`sola status`, then run {mend}."
    )


def read_predictions(video: EvaluatedVideo) -> VideoPredictions:
    """The predictions of one video."""
    store = Warehouse(video.warehouse)
    row = read_video(store, video.ingested)
    selected: dict[str, dict[int, float]] = {}
    for prediction in store.read("predictions", [video.evaluated]).to_pylist():
        if prediction["selected"]:
            of_expression = selected.setdefault(prediction["expression_id"], {})
            of_expression[prediction["track_id"]] = prediction["score"]
    return VideoPredictions(
        video_id=row["video_id"],
        frames=tuple(row["frames"]),
        size=(row["height"], row["width"]),
        expressions=tuple(read_expressions(store, video.ingested)),
        tracks=read_mask_tracks(store, *video.tracks),
        selected=selected,
    )
