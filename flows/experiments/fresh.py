"""Embedded clips that no choice was made on: J&F, probabilities, and what a search finds."""

from dataclasses import replace

from flows.experiments.setup import Setup, measured_scores
from flows.index_tracks import index_tracks
from tasks.experiments.measured import Measured, calibrated_error, group_means, oracle_jf
from tasks.experiments.search_precision import Phrase, search_precision
from tasks.runs import find_run
from tasks.search.vectors import searched, vector_plan
from warehouse import WarehouseError
from warehouse.demo_data import clip_of, write_dataset
from warehouse.demo_data.scene import FRAMES

DATASET, SPLIT = "demo-fresh", "valid_u"
CLIPS, SEED = 200, 2  # the demo's clips are those of seed 0, "demo-long" has seed 1
GROUPS = ("look-alike", "motion", "static", "multi-target", "no-target")
PHRASES = (
    Phrase("the red circle that turns back", "red", "circle", "turns back"),
    Phrase("the blue square standing still", "blue", "square", "stands still"),
    Phrase("the green triangle growing", "green", "triangle", "grows"),
    Phrase("the yellow star spinning", "yellow", "star", "spins"),
    Phrase("the white bar moving left", "white", "bar", "moves", "left"),
    Phrase("the cyan shape shrinking", "cyan", None, "shrinks"),
    Phrase("the purple thing circling around", "purple", None, "circles"),
    Phrase("the orange object that comes to a stop", "orange", None, "stops"),
    Phrase("the star that leaves the view and returns", None, "star", "leaves and returns"),
    Phrase("the triangle moving up", None, "triangle", "moves", "up"),
    Phrase("the red thing standing still", "red", None, "stands still"),
    Phrase("the circle that starts to move", None, "circle", "starts"),
    Phrase("the bar rotating in place", None, "bar", "spins"),
    Phrase("the blue shape moving right", "blue", None, "moves", "right"),
    Phrase("the square that gets bigger", None, "square", "grows"),
    Phrase("the yellow object going round and round", "yellow", None, "circles"),
)


def fresh(setup: Setup) -> list[Measured]:
    """J&F, its oracle and the error of probabilities on fresh embedded clips (not in the paper)."""
    fresh = _prepared(setup)
    rows = []
    for seed, run_id in enumerate(setup.full_method()):
        rows += measured_scores(fresh, "all expressions", seed, run_id)
        on = (setup.store, run_id, DATASET, SPLIT, fresh.tracks_of(run_id).name)
        groups = {"oracle": oracle_jf(*on)} | group_means(*on, GROUPS)
        rows += [_row(name, "jf", value, seed, run_id) for name, value in groups.items()]
        error = calibrated_error(*on)
        rows.append(_row("probabilities", "calibration error", error, seed, run_id))
    return rows


def search(setup: Setup) -> list[Measured]:
    """How many of the first ten results of a search are right, on fresh embedded clips."""
    _prepared(setup)
    scenes = dict(clip_of(SPLIT, index, SEED, FRAMES)[:2] for index in range(CLIPS))
    rows = []
    for seed, run_id in enumerate(setup.full_method()):
        index_tracks(setup.warehouse, run_id, DATASET, SPLIT, setup.workers)
        about = searched(setup.store, find_run(setup.store, run_id))
        plan = vector_plan(setup.store, about, DATASET, SPLIT)
        found = search_precision(plan, scenes, PHRASES)
        by_phrase = {f"{each.phrase.text} ({each.results})": each.right / each.results
                     for each in found}  # fmt: skip
        by_phrase["all phrases"] = sum(by_phrase.values()) / len(by_phrase)
        rows += [_row(name, "right", value, seed, run_id) for name, value in by_phrase.items()]
        if sure := sum(each.sure for each in found):
            right = sum(each.sure_right for each in found) / sure
            rows.append(_row("results of 95 % and more", "right", right, seed, run_id))
    return rows


def _row(variant: str, metric: str, value: float, seed: int, run_id: str) -> Measured:
    on = f"{DATASET}/{SPLIT}"
    return Measured(
        variant=variant, metric=metric, value=value, seed=seed, run_id=run_id, measured_on=on
    )


def _prepared(setup: Setup) -> Setup:
    """The experiment on the fresh clips, with tracks of detected boxes as in the demo.

    Raises WarehouseError for another data set than the embedded one.
    """
    if setup.dataset != "demo":
        raise WarehouseError(f"it is about embedded clips: --dataset demo, not {setup.dataset}")
    setup.prepare()
    root = setup.store.work_folder() / "data-set-fresh"
    write_dataset(root, {SPLIT: CLIPS}, seed=SEED)
    fresh = replace(setup, dataset=DATASET, root=str(root), detector="demo")
    fresh.prepare(SPLIT)
    return fresh
