"""A run's predictions for whole videos, as submissions and exports write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE
from tasks.stages.evaluate import find_run
from tasks.tables import Expression, read_expressions, read_mask_tracks, read_video
from warehouse import Commit, Warehouse, WarehouseError


@dataclass(frozen=True, kw_only=True)
class EvaluatedVideo:
    """Where the predictions of a video are."""

    warehouse: str
    ingested: Commit
    tracks: tuple[Commit, ...]  # of the grid and, if there are any, of boxes
    evaluated: Commit


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


def evaluated_videos(
    store: Warehouse, run: str | None, dataset: str, split: str
) -> list[EvaluatedVideo]:
    """All videos of a split with the predictions of a run, by default the newest.

    Raises WarehouseError when the run or the split is not there, or a video has no predictions.
    """
    run_id = find_run(store, run)["run_id"]
    where = {"dataset": dataset, "split": split}
    ingested = store.current("ingest", **where)
    tracks = [store.current(stage, **where) for stage in ("precompute", "box_tracks")]
    evaluated = store.current("evaluate", run_id=run_id, **where)
    known = {replace(key, run_id=run_id) for key in ingested}
    known |= {
        replace(key, run_id=run_id)
        for key in store.failures("ingest")
        if (key.dataset, key.split) == (dataset, split)
    }
    missing = sorted(key.video_id for key in known - set(evaluated))
    if missing or not known:
        named = f" ({', '.join(missing[:5])}{', ...' if missing[5:] else ''})" if missing else ""
        raise WarehouseError(
            f"{dataset}/{split}: {len(missing)} of {len(known)} videos have no predictions of run "
            f"{run_id}{named}. See `sola status`, then run "
            f"`sola evaluate --dataset {dataset} --split {split} --run {run_id}`."
        )
    return [
        EvaluatedVideo(
            warehouse=store.url,
            ingested=ingested[video],
            tracks=tuple(commits[video] for commits in tracks if video in commits),
            evaluated=commit,
        )
        for video, commit in ((replace(key, run_id=""), c) for key, c in evaluated.items())
    ]


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
