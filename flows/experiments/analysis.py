"""Beyond the paper: learning curve, error budget, token precision, cost of extraction."""

from collections.abc import Callable
from functools import partial

import numpy as np

from flows.experiments.setup import Setup, Variant, measured_scores
from tasks.experiments.measured import Measured, mean_tracks, oracle_jf, token_count
from tasks.experiments.substitutions import (
    extraction_seconds,
    jf_with_tokens,
    oracle_of_ground_truth_prompts,
    rounded,
)
from tasks.pictures.figures import draw_scores
from tasks.runs import find_run
from tasks.track_sets import tracks_for

TIMED_VIDEOS = 3


def learning_curve(setup: Setup) -> list[Measured]:
    """J&F against the number of training videos: an eighth, a quarter, half, all of them."""
    setup.prepare()
    tracks = tracks_for(setup.store, setup.dataset, setup.split).name
    where = {"dataset": setup.dataset, "split": setup.split, "track_set": tracks}
    whole = len(setup.store.current("label", **where))
    whole = min(whole, setup.limit or whole)
    sizes = sorted({max(1, whole // part) for part in (8, 4, 2, 1)})
    seeds = range(setup.seeds)
    run_ids = iter(setup.trained([Variant(seed, limit=n) for n in sizes for seed in seeds]))
    rows, points = [], []
    for videos in sizes:
        found = [
            row
            for seed in seeds
            for row in measured_scores(setup, f"{videos} videos", seed, next(run_ids))
        ]
        points.append((videos, [row.value for row in found if row.metric == "jf"], ""))
        rows += found
    draw_scores(setup.picture("learning_curve", ".png"), points, "training videos", True)
    return rows


def error_budget(setup: Setup) -> list[Measured]:
    """Where J&F is lost: detection, tracking or selection, by putting in what is perfect.

    Selection: the best union of the tracks (oracle) less the selector. Detection: the oracle with
    tracks of ground-truth prompts less that. Tracking (and mask quality): what is left to 100.
    Needs `root`.
    """
    setup.prepare()
    perfect = setup.other_tracks(ground_truth=True)
    prompted = oracle_of_ground_truth_prompts(setup.store, setup.dataset, setup.validation, perfect)
    rows = []
    for seed, run_id in enumerate(setup.full_method()):
        jf = setup.scored(run_id)["jf"]
        tracks = setup.tracks_of(run_id).name
        oracle = oracle_jf(setup.store, run_id, setup.dataset, setup.validation, tracks)
        shares = {
            "J&F": jf,
            "lost in selection": oracle - jf,
            "lost in detection": prompted - oracle,
            "lost in tracking": 1 - prompted,
        }
        rows += [
            Measured(
                variant=name,
                metric="jf",
                value=value,
                seed=seed,
                run_id=run_id,
                measured_on=f"{setup.dataset}/{setup.validation}",
            )
            for name, value in shares.items()
        ]
    return sorted(rows, key=lambda row: list(shares).index(row.variant))


def token_precision(setup: Setup) -> list[Measured]:
    """J&F and size with object tokens in 16 (as stored), 8 and 4 bits; trained on 16 bits."""
    setup.prepare()
    on = f"{setup.dataset}/{setup.validation}"
    tracks = tracks_for(setup.store, setup.dataset, setup.validation)
    numbers = token_count(setup.store, setup.dataset, setup.validation, tracks.name)
    as_stored: Callable[[np.ndarray], np.ndarray] = np.asarray
    rows = []
    for variant, bits, change in (
        ("float16", 16, as_stored),
        ("int8, a scale per channel", 8, partial(rounded, bits=8)),
        ("int4, a scale per channel", 4, partial(rounded, bits=4)),
    ):
        size = numbers * bits / 8 / 1e6
        rows.append(
            Measured(variant=variant, metric="tokens", unit="MB", value=size, measured_on=on)
        )
        for seed, run_id in enumerate(setup.full_method()):
            run = find_run(setup.store, run_id)
            where = (setup.dataset, setup.validation, tracks)
            jf = jf_with_tokens(setup.store, run, *where, change)
            rows.append(
                Measured(
                    variant=variant,
                    metric="jf",
                    value=jf,
                    seed=seed,
                    run_id=run_id,
                    measured_on=on,
                )
            )
    return rows


def extraction_cost(setup: Setup) -> list[Measured]:
    """J&F against the cost of making tracks: fewer points, fewer prompt frames.

    Grid tracks alone, of the validation split; the selector is trained on the recipe's own tracks.
    Needs `root`.
    """
    setup.prepare()
    grid = setup.settings.extraction.grid
    rows, points = [], []
    for side in (grid.points_per_side, grid.points_per_side // 2):
        for stride in (grid.stride, 2 * grid.stride):
            name = f"points_per_side={side},stride={stride}"
            chosen = [f"extraction.grid.{change}" for change in name.split(",")]
            other = setup.other_tracks(*chosen)
            where = (setup.store, setup.dataset, setup.validation)
            seconds = extraction_seconds(*where, other, TIMED_VIDEOS)
            tracks = mean_tracks(*where, other.name)
            on = f"{setup.dataset}/{setup.validation}"
            found = [
                row
                for seed, run_id in enumerate(setup.full_method())
                for row in measured_scores(setup, name, seed, run_id, tracks=other)
            ]
            rows += [
                Measured(variant=name, metric="extraction", unit="s/frame", value=seconds,
                         measured_on=on),
                Measured(variant=name, metric="tracks", unit="per video", value=tracks,
                         measured_on=on),
                *found,
            ]  # fmt: skip
            points.append((seconds, [row.value for row in found if row.metric == "jf"], name))
    draw_scores(
        setup.picture("extraction_cost", ".png"), points, "extraction, seconds a frame", False
    )
    return rows
