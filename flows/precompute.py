"""Precompute: videos -> prompt masks -> mask tracks and object tokens (Figure 2, left).

sola precompute --dataset mevis --root DIR --split train --sam2 sam2.1_hiera_large.pt
"""

from dataclasses import replace

from prefect import flow

from flows.fanout import Summary, ended, over_videos
from sola_model.recipes import recipe_by_name
from tasks.stages.detect import detect_videos, import_boxes, wanted_detections
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import (
    adopt_tracks,
    extract_box_tracks,
    extract_videos,
    wanted_box_tracks,
    wanted_tracks,
)
from warehouse import Warehouse


@flow(flow_run_name="precompute {dataset}/{split}")
def precompute(
    warehouse: str,
    dataset: str,
    root: str,
    split: str,
    recipe: str = "release",
    sam2: str | None = None,
    detector: str | None = None,
    boxes: str | None = None,
    ground_truth: bool = False,
    limit: int | None = None,
    workers: int | None = None,
    shard: str | None = None,
) -> Summary:
    """Ingest a split and extract the tracks of its videos that have none of this recipe yet.

    Tracks that the warehouse has of the same frames, of another split, are copied.

    `sam2` replaces the recipe's checkpoint (path, hub id or "demo"). Boxes prompt as well, for
    inference: those that `detector` (path, hub id or "demo") finds for each expression, or those
    of a file `boxes`, see `tasks.stages.detect.import_boxes`. `ground_truth` adds the tracks of its masks,
    for training. `limit` takes the first videos only; `workers` is the number of processes
    (default: one per GPU or CPU core). Several machines share a split by its `shard`s: "1/8" to
    "8/8".

    Raises:
        ValueError: there is no such shard, or boxes are to come from both a detector and a file.
    """
    if detector and boxes:
        raise ValueError(
            f"boxes come from a detector ({detector}) or from a file ({boxes}): choose"
        )
    settings = recipe_by_name(recipe, sam2)
    extraction = replace(settings.extraction, ground_truth=ground_truth)
    settings = replace(settings, detector=detector, extraction=extraction)
    ingested = ingest_split(warehouse, dataset, root, split, limit, shard)
    store = Warehouse(warehouse)
    readable = [outcome.video_id for outcome in ingested if outcome.status == "done"]
    wanted = wanted_tracks(store, dataset, split, readable, settings)
    adopt_tracks(store, wanted)
    summary = over_videos("precompute", store, wanted, extract_videos, settings, workers, ingested)
    imported = []
    if boxes:
        imported = import_boxes(warehouse, dataset, split, readable, boxes)
    if detector:
        detected = wanted_detections(store, list(wanted), settings)
        summary += over_videos("detect", store, detected, detect_videos, settings, workers)
    boxed = wanted_box_tracks(store, wanted, settings)
    summary += over_videos(
        "box_tracks", store, boxed, extract_box_tracks, settings, workers, imported
    )
    return ended(summary, summary.failed)
