"""Precompute: videos -> prompt masks -> mask tracks and object tokens (Figure 2, left).

sola precompute --dataset mevis --root DIR --split train --sam2 sam2.1_hiera_large.pt
"""

from prefect import flow

from flows.runtime import Summary, over_videos
from sola_model.recipes import recipe_by_name
from tasks.ingest import ingest_split
from tasks.precompute import extract_videos, wanted_tracks
from warehouse import Warehouse


@flow
def precompute(
    warehouse: str,
    dataset: str,
    root: str,
    split: str,
    recipe: str = "release",
    sam2: str | None = None,
    limit: int | None = None,
    workers: int | None = None,
) -> Summary:
    """Ingest a split and extract the tracks of its videos that have none of this recipe yet.

    `sam2` replaces the recipe's checkpoint (path, hub id or "demo"); `limit` takes the first
    videos only; `workers` is the number of processes (default: one per GPU or CPU core).
    """
    settings = recipe_by_name(recipe, sam2)
    ingested = ingest_split(warehouse, dataset, root, split, limit)
    store = Warehouse(warehouse)
    readable = [outcome.video_id for outcome in ingested if outcome.status == "done"]
    wanted = wanted_tracks(store, dataset, split, readable, settings)
    return over_videos("precompute", store, wanted, extract_videos, settings, workers, ingested)
