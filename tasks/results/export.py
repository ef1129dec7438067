"""Export a run's predictions, the tracks that it selects, all tracks or the ground truth.

As COCO-style video instances (the JSON of YouTube-VIS), or as palette PNGs in a zip.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from sola_model.metrics.jf import empty_rle
from tasks.parallel import Progress, each_video
from tasks.results.coco import Row, segmentations, write_coco
from tasks.results.ground_truth import (
    label_files,
    labelled_videos,
    truth_instances,
    write_labels,
)
from tasks.results.predictions import (
    EvaluatedVideo,
    TrackedVideo,
    VideoPredictions,
    evaluated_videos,
    read_predictions,
    tracked_videos,
)
from tasks.runs import find_run
from tasks.tables import read_mask_tracks, read_video
from tasks.track_sets import tracks_for
from warehouse import Warehouse
from warehouse.outputs import check_output, files_of
from warehouse.submissions import encode_mask, label_palette, write_zip

WHAT = ("predictions", "tracks", "all-tracks", "ground-truth")
FORMATS = ("coco", "png")
LABELS = 255  # of a palette image


def export(
    warehouse: str,
    run: str | None,
    dataset: str,
    split: str,
    what: str,
    format: str,
    out: Path,
    workers: int | None,
    progress: Progress,
    tracks: str | None = None,
) -> int:
    """Write `out`, a JSON file or a zip; returns the number of instances or images in it.

    Instances are the predictions, one per expression, or the tracks that an expression selects,
    with the highest of their alignment scores. Images show a selected track by its label, counted
    from 1 in the order of track ids, where tracks overlap the one with the higher score: for each
    expression, or for all tracks of a video together. All tracks of a track set, but for those of
    ground-truth masks, are instances only, and of no run, as is the ground truth, for which see
    `tasks.results.ground_truth`.

    Raises ValueError for an unknown `what` or `format`, (OutputError) when `out` cannot be written,
    (WarehouseError) when predictions are missing, and for images of more than 255 tracks.
    """
    for value, valid in ((what, WHAT), (format, FORMATS)):
        if value not in valid:
            raise ValueError(f"cannot export {value!r}; valid are: {', '.join(valid)}")
    store = Warehouse(warehouse)
    check_output(out, files_of(store, out))
    if what == "ground-truth":
        truths = labelled_videos(store, dataset, split)
        if format == "png":
            return write_labels(out, each_video(label_files, truths, workers, "export", progress))
        return write_coco(out, each_video(truth_instances, truths, workers, "export", progress))
    if what == "all-tracks":
        if format != "coco":
            raise ValueError(
                "all tracks overlap, which a palette image cannot show: export as coco"
            )
        tracked = tracked_videos(store, dataset, split, tracks_for(store, dataset, split, tracks))
        return write_coco(out, each_video(_all_tracks, tracked, workers, "export", progress))
    found = find_run(store, run)
    track_set = found.tracks_of(store, dataset, split, tracks)
    videos = evaluated_videos(store, found, dataset, split, track_set)
    if format == "png":
        images = each_video(partial(_images, what), videos, workers, "export", progress)
        return write_zip(out, (file for files in images for file in files))
    instances = each_video(partial(_instances, what), videos, workers, "export", progress)
    return write_coco(out, instances)


def _all_tracks(video: TrackedVideo) -> tuple[Row, dict[str, list[Row]]]:
    """The video and its mask tracks, without their numbers."""
    store = Warehouse(video.warehouse)
    row = read_video(store, video.ingested)
    size = {"height": row["height"], "width": row["width"], "length": row["frame_count"]}
    files = [f"{row['video_id']}/{frame}.jpg" for frame in row["frames"]]
    prompts = store.read("prompts", video.tracks).to_pylist()
    of_truth = {p["track_id"] for p in prompts if p["source"] == "mask" and p["fate"] == "tracked"}
    tracks = read_mask_tracks(store, *video.tracks)
    return {"name": row["video_id"], "file_names": files, **size}, {
        "annotations": [
            {"track_id": track_id, **segmentations(masks), **size}
            for track_id, masks in enumerate(tracks)
            if track_id not in of_truth
        ]
    }


def _instances(what: str, video: EvaluatedVideo) -> tuple[Row, dict[str, list[Row]]]:
    """The video and its instances, without their numbers."""
    predictions = read_predictions(video)
    height, width = predictions.size
    size = {"height": height, "width": width, "length": len(predictions.frames)}
    files = [f"{predictions.video_id}/{frame}.jpg" for frame in predictions.frames]
    instances = []
    if what == "tracks":
        for track_id, score in _best_scores(predictions).items():
            chosen_by = [e for e, chosen in predictions.selected.items() if track_id in chosen]
            identity = {"track_id": track_id, "expression_ids": chosen_by, "score": score}
            instances.append(identity | segmentations(predictions.tracks[track_id]) | size)
    else:
        for expression in predictions.expressions:
            chosen = predictions.selected.get(expression.expression_id, {})
            tracks = [predictions.tracks[track_id] for track_id in chosen]
            masks = [coco.merge(list(masks)) for masks in zip(*tracks, strict=True)]
            identity = {
                "expression_id": expression.expression_id,
                "expression": expression.text,
                "score": max(chosen.values(), default=0.0),
            }
            empty = [empty_rle(height, width)] * len(predictions.frames)
            instances.append(identity | segmentations(masks or empty) | size)
    video_row = {"name": predictions.video_id, "file_names": files, **size}
    return video_row, {"annotations": instances}


def _best_scores(predictions: VideoPredictions) -> dict[int, float]:
    """The tracks that an expression selects, by id, with the highest of their scores."""
    best: dict[int, float] = {}
    for chosen in predictions.selected.values():
        for track_id, score in chosen.items():
            best[track_id] = max(score, best.get(track_id, 0.0))
    return dict(sorted(best.items()))


def _images(what: str, video: EvaluatedVideo) -> list[tuple[str, bytes]]:
    predictions = read_predictions(video)
    best = _best_scores(predictions)
    if len(best) > LABELS:
        raise ValueError(
            f"video {predictions.video_id}: {len(best)} tracks are selected, but a palette image "
            f"has {LABELS} labels; export as coco"
        )
    layers: dict[str, Mapping[int, float]] = {predictions.video_id: best}
    if what == "predictions":
        layers = {
            f"{predictions.video_id}/{e.expression_id}": predictions.selected.get(
                e.expression_id, {}
            )
            for e in predictions.expressions
        }
    labels = {track_id: label for label, track_id in enumerate(best, start=1)}
    palette, files = label_palette(), []
    for folder, chosen in layers.items():
        lowest_first = sorted(chosen, key=chosen.__getitem__)
        for t, frame in enumerate(predictions.frames):
            labels_HW = np.zeros(predictions.size, np.uint8)
            for track_id in lowest_first:
                mask_HW = coco.decode(predictions.tracks[track_id][t])
                labels_HW[mask_HW > 0] = labels[track_id]
            files.append((f"{folder}/{frame}.png", encode_mask(labels_HW, palette)))
    return files
