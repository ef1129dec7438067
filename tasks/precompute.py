"""Mask tracks and object tokens of videos, by the frozen SAM2."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import box_prompts, grid_prompts, mask_prompts
from sola_model.extraction.sam2_models import SAM2Base, checkpoint_identity, load_sam2
from sola_model.extraction.tracks import VideoTracks, track_prompts
from sola_model.masks.runs import RLE
from sola_model.recipes import Extraction, Recipe
from tasks.label import annotations
from tasks.outcome import Outcome, publish_each
from tasks.tables import read_boxes, read_mask_tracks, read_objects, read_video, track_tables
from tasks.worker import device
from warehouse import Commit, Key, Warehouse, fingerprint
from warehouse.commits import STAGES
from warehouse.corruptions import corruption_of, frames_of
from warehouse.sources.base import VOID

VERSION = 3  # raise it when the same frames, weights and settings give other tracks


def wanted_tracks(
    store: Warehouse, dataset: str, split: str, video_ids: Sequence[str], recipe: Recipe
) -> dict[Key, str]:
    """What the tracks of ingested videos depend on: frames, weights, settings and this code.

    And the ground truth, where its masks are propagated.
    """
    ground_truth = recipe.extraction.ground_truth
    weights = checkpoint_identity(recipe.sam2)
    settings = asdict(recipe.extraction)
    del settings["boxes"]  # of the stage "box_tracks"
    ingested = store.current("ingest", dataset=dataset, split=split)
    keys = [Key(dataset=dataset, split=split, video_id=video_id) for video_id in video_ids]
    frames = store.read("videos", [ingested[key] for key in keys])["content_hash"].to_pylist()
    return {
        key: fingerprint(
            frames=content,
            weights=weights,
            settings=settings,
            ground_truth=annotations(ingested[key]) if ground_truth else None,
            version=VERSION,
        )
        for key, content in zip(keys, frames, strict=True)
    }


def adopt_tracks(store: Warehouse, wanted: dict[Key, str]) -> None:
    """Publish wanted tracks that the warehouse has of the same frames under another key.

    Frames of a corrupted split are its own: their fingerprint does not tell how they are corrupted.
    """
    missing = [
        key for key in store.missing("precompute", wanted) if corruption_of(key.split) is None
    ]
    if not missing:
        return
    there = {
        commit.fingerprint: commit
        for key, commit in store.current("precompute").items()
        if corruption_of(key.split) is None
    }
    for key in missing:
        commit = there.get(wanted[key])
        if commit and store.intact([commit]):
            tables = {name: _of(store.read(name, [commit]), key) for name in STAGES["precompute"]}
            store.publish("precompute", key, wanted[key], tables)


def _of(table: pa.Table, key: Key) -> pa.Table:
    """The rows as those of another video."""
    for name in ("dataset", "split", "video_id"):
        values = pa.array([getattr(key, name)] * table.num_rows, pa.string())
        table = table.set_column(table.column_names.index(name), name, values)
    return table


@task(cache_policy=NO_CACHE)
def extract_videos(warehouse: str, wanted: dict[Key, str], recipe: Recipe) -> list[Outcome]:
    """Extract and publish the grid tracks of each video, and those of its ground truth if asked."""
    store = Warehouse(warehouse)
    ingested = store.current("ingest", wanted)
    model, settings = worker_sam2(recipe.sam2, device()), recipe.extraction

    def tables(key: Key) -> dict[str, pa.Table]:
        video = _encoded(store, ingested[key], model, settings)
        prompts = grid_prompts(model, video, settings.grid)
        if settings.ground_truth:
            objects = read_objects(store, ingested[key])
            objects.pop(VOID, None)
            prompts += mask_prompts(objects, settings.grid)
        return track_tables(key, track_prompts(model, video, prompts, settings))

    return publish_each(store, "precompute", wanted, tables)


def wanted_box_tracks(store: Warehouse, wanted: dict[Key, str], recipe: Recipe) -> dict[Key, str]:
    """What the box tracks depend on, for those videos of `wanted` that have detected boxes.

    Their ids go on from those of the video's other tracks, which may also cover a box.
    """
    detected, precomputed = store.current("detect", wanted), store.current("precompute", wanted)
    return {
        key: fingerprint(
            tracks=current,
            masks=precomputed[key].files["masks"].sha256,
            detections=detected[key].files["detections"].sha256,
            settings=asdict(recipe.extraction),
            version=VERSION,
        )
        for key, current in wanted.items()
        if key in detected and key in precomputed
    }


@task(cache_policy=NO_CACHE)
def extract_box_tracks(warehouse: str, wanted: dict[Key, str], recipe: Recipe) -> list[Outcome]:
    """Prompt SAM2 with the detected boxes of each video and publish the tracks."""
    store = Warehouse(warehouse)
    ingested, detected = store.current("ingest", wanted), store.current("detect", wanted)
    precomputed = store.current("precompute", wanted)
    model, settings = worker_sam2(recipe.sam2, device()), recipe.extraction

    def tables(key: Key) -> dict[str, pa.Table]:
        prompts = store.read("prompts", [precomputed[key]])
        existing = _grid_tracks(store, precomputed[key])
        boxes = read_boxes(store, detected[key])
        extracted = VideoTracks(size=(0, 0), prompts=[], tracks=[])
        if boxes:
            video = _encoded(store, ingested[key], model, settings)
            found = box_prompts(model, video, boxes, settings.boxes)
            extracted = track_prompts(model, video, found, settings, existing)
        return track_tables(key, extracted, prompts.num_rows, len(existing))

    return publish_each(store, "box_tracks", wanted, tables)


def _grid_tracks(store: Warehouse, precomputed: Commit) -> list[list[RLE] | None]:
    """The mask tracks that may cover a box: None for those of ground-truth masks."""
    given = {
        prompt["track_id"]
        for prompt in store.read("prompts", [precomputed]).to_pylist()
        if prompt["source"] == "mask" and prompt["fate"] == "tracked"
    }
    masks = read_mask_tracks(store, precomputed)
    return [None if n in given else track for n, track in enumerate(masks)]


def _encoded(
    store: Warehouse, ingested: Commit, model: SAM2Base, settings: Extraction
) -> EncodedVideo:
    frames_HW3 = frames_of(read_video(store, ingested))
    return EncodedVideo(model, frames_HW3, prompt_features=settings.prompt_features)


@lru_cache(maxsize=1)
def worker_sam2(name: str, where: str) -> SAM2Base:
    """One model per worker process."""
    return load_sam2(name, where)
