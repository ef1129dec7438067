"""Why each stage of a video is up to date, stale or missing."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sola_model.recipes import Recipe
from tasks.stages.evaluate import find_run, wanted_scores
from tasks.stages.label import wanted_labels
from tasks.stages.precompute import wanted_box_tracks, wanted_tracks
from tasks.tables import read_video
from warehouse import Key, Warehouse, WarehouseError, fingerprint
from warehouse.commits import Fingerprint
from warehouse.frames import stat_signature
from warehouse.images import FrameError


def why(store: Warehouse, video_id: str, recipe: Recipe, run: str | None) -> list[str]:
    """A line for each stage of each ingested video of this id, under a recipe and for a run.

    Raises:
        WarehouseError: no such video, or no such run.
    """
    found = [key for key in store.current("ingest") if key.video_id == video_id]
    if not found:
        raise WarehouseError(
            f'{store.url} has no video {video_id!r}; `sola query "SELECT video_id FROM videos"` '
            "lists those it has"
        )
    return [line for key in found for line in _of_video(store, key, recipe, run)]


def _of_video(store: Warehouse, key: Key, recipe: Recipe, run: str | None) -> list[str]:
    where = (key.dataset, key.split)
    tracks = {}
    for ground_truth in (True, False):  # as they were made; the default where there are none yet
        extraction = replace(recipe.extraction, ground_truth=ground_truth)
        settings = replace(recipe, extraction=extraction)
        tracks = wanted_tracks(store, *where, [key.video_id], settings)
        if not store.missing("precompute", tracks):
            break
    wanted: dict[str, Mapping[Key, str]] = {
        "ingest": {key: _source(store, key)},
        "precompute": tracks,
        "box_tracks": wanted_box_tracks(store, tracks, settings),
        "label": wanted_labels(store, *where, recipe),
    }
    lines = [
        _line(store, stage, key, of_stage[key])
        for stage, of_stage in wanted.items()
        if key in of_stage
    ]
    if run or store.current("train"):
        row = find_run(store, run)
        scored = replace(key, run_id=row["run_id"])
        scores = wanted_scores(store, row, *where)
        if scored in scores:
            lines.append(_line(store, "evaluate", scored, scores[scored]))
    return lines


def _source(store: Warehouse, key: Key) -> Fingerprint:
    """The frames' files as they are now; what the annotations say now only `ingest` can tell."""
    video = read_video(store, store.current("ingest")[key])
    try:
        return fingerprint(files=stat_signature(Path(video["path"]), video["frames"]))
    except (FrameError, OSError) as error:
        return fingerprint(files=str(error))


def _line(store: Warehouse, stage: str, key: Key, wanted: str) -> str:
    named = f"{stage} {key.dataset}/{key.split}/{key.video_id} {key.run_id}".strip()
    failure = store.failures(stage).get(key)
    if failure and failure.fingerprint == wanted:
        return f"{named}: failed: {failure.error}"
    current = store.current(stage).get(key)
    if not current:
        return f"{named}: missing"
    parts = getattr(wanted, "parts", {})
    changed = [name for name, part in parts.items() if current.parts.get(name) != part]
    if changed:
        return f"{named}: stale: changed since {current.created_at[:19]}: {', '.join(changed)}"
    return f"{named}: up to date"
