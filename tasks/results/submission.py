"""Write a run's predictions as the zip that a benchmark's server takes."""

from functools import partial
from pathlib import Path

import numpy as np

from sola_model.metrics.protocols import merge_objects
from tasks.parallel import Progress, each_video
from tasks.results.predictions import (
    EvaluatedVideo,
    VideoPredictions,
    evaluated_videos,
    read_predictions,
)
from tasks.runs import find_run
from tasks.stages.ingest import layout_of
from warehouse import Warehouse
from warehouse.annotations import VARIANTS
from warehouse.outputs import check_output, files_of
from warehouse.sources import PROTOCOL
from warehouse.submissions import encode_mask, label_palette, write_zip


def write_submission(
    warehouse: str,
    run: str | None,
    dataset: str,
    split: str,
    out: Path,
    workers: int | None,
    progress: Progress,
    tracks: str | None = None,
) -> int:
    """Write the zip, whole or not at all; returns the number of masks in it.

    Masks are 0 and 255. Of Ref-DAVIS17 they are labels: per pixel the object whose selected tracks
    have the highest alignment score there.

    Raises ValueError (WarehouseError, OutputError) when predictions are missing or `out` cannot be
    written.
    """
    store = Warehouse(warehouse)
    check_output(out, files_of(store, out))
    found = find_run(store, run)
    track_set = found.tracks_of(store, dataset, split, tracks)
    videos = evaluated_videos(store, found, dataset, split, track_set)
    protocol = PROTOCOL[layout_of(store, dataset, split)]
    by_video = each_video(partial(_masks, protocol), videos, workers, "submit", progress)
    return write_zip(out, (file for files in by_video for file in files))


def _masks(protocol: str, video: EvaluatedVideo) -> list[tuple[str, bytes]]:
    predictions = read_predictions(video)
    if protocol == "davis":
        return _davis_masks(predictions)
    top = "Annotations/" if protocol == "ref-youtube-vos" else ""
    return [
        (
            f"{top}{predictions.video_id}/{expression.expression_id}/{frame}.png",
            encode_mask(predictions.mask(expression.expression_id, t)),
        )
        for expression in predictions.expressions
        for t, frame in enumerate(predictions.frames)
    ]


def _davis_masks(predictions: VideoPredictions) -> list[tuple[str, bytes]]:
    palette = label_palette()
    objects = 1 + max(int(e.expression_id) for e in predictions.expressions) // VARIANTS
    files = []
    for variant in range(VARIANTS):
        for t, frame in enumerate(predictions.frames):
            scores_OHW = np.zeros((objects, *predictions.size), np.float32)
            for n, scores_HW in enumerate(scores_OHW):
                expression_id = str(VARIANTS * n + variant)
                for track_id, mask_HW in predictions.masks(expression_id, t).items():
                    score = predictions.selected[expression_id][track_id]
                    scores_HW[mask_HW] = np.maximum(scores_HW[mask_HW], score)
            name = f"anno_{variant}/{predictions.video_id}/{frame}.png"
            files.append((name, encode_mask(merge_objects(scores_OHW), palette)))
    return files
