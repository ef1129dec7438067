"""Mask tracks and object tokens of videos, by the frozen SAM2."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from sola_model.recipes import Recipe
from sola_model.sam2_models import SAM2Base, checkpoint_identity, load_sam2
from sola_model.tracks import extract_tracks
from tasks.outcome import Outcome, publish_each
from tasks.tables import read_video, track_tables
from tasks.worker import device
from warehouse import Key, Warehouse, fingerprint
from warehouse.frames import read_frames

VERSION = 1  # raise it when the same frames, weights and settings give other tracks


def wanted_tracks(
    store: Warehouse, dataset: str, split: str, video_ids: Sequence[str], recipe: Recipe
) -> dict[Key, str]:
    """What the tracks of ingested videos depend on: frames, weights, settings and this code."""
    weights, settings = checkpoint_identity(recipe.sam2), asdict(recipe.extraction)
    ingested = store.current("ingest", dataset=dataset, split=split)
    keys = [Key(dataset=dataset, split=split, video_id=video_id) for video_id in video_ids]
    frames = store.read("videos", [ingested[key] for key in keys])["content_hash"].to_pylist()
    return {
        key: fingerprint(frames=content, weights=weights, settings=settings, version=VERSION)
        for key, content in zip(keys, frames, strict=True)
    }


@task(cache_policy=NO_CACHE)
def extract_videos(warehouse: str, wanted: dict[Key, str], recipe: Recipe) -> list[Outcome]:
    """Extract the tracks of each video and publish them."""
    store = Warehouse(warehouse)
    ingested = store.current("ingest")

    def tables(key: Key) -> dict[str, pa.Table]:
        video = read_video(store, ingested[key])
        frames_HW3 = read_frames(Path(video["path"]), video["frames"])
        return track_tables(
            key, extract_tracks(_sam2(recipe.sam2, device()), frames_HW3, recipe.extraction)
        )

    return publish_each(store, "precompute", wanted, tables)


@lru_cache(maxsize=1)
def _sam2(name: str, where: str) -> SAM2Base:
    """One model per worker process."""
    return load_sam2(name, where)
