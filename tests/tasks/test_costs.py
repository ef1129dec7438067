"""Estimates of costs: their value, their interval, and what they are made from."""

import math

import numpy as np
import pytest

from tasks.costs import NOTHING, Estimate, Running, estimate, line_through, spanning, together
from warehouse import Key


def test_costs_in_proportion_are_known_exactly() -> None:
    found = estimate([10, 20, 40], [5, 10, 20], [100, 60])
    assert (found.value, found.low, found.high) == pytest.approx((80, 80, 80))
    assert found + 35 == Estimate(value=115, low=pytest.approx(115), high=pytest.approx(115))
    assert (found * 2).value == 160
    assert estimate([10], [5], []) == NOTHING


def test_one_video_says_nothing_of_the_error() -> None:
    found = estimate([10], [5], [100])
    assert (found.value, found.low, found.high) == (pytest.approx(50), 0, math.inf)


def test_an_interval_by_hand() -> None:
    """Costs 1 and 3 of work 1 and 1: unit 2, errors -1 and 1; t(1 degree, 0.95) is 6.3138."""
    found = estimate([1, 1], [1, 3], [1])
    of_unit, of_video = 2 / 2, 2
    reach = 6.313752 * math.sqrt(of_unit + of_video)
    assert found.value == 2 and found.low == 0
    assert found.high == pytest.approx(2 + reach)


def test_nine_of_ten_intervals_have_the_truth() -> None:
    """Videos of mixed length whose cost per frame varies by a quarter, as embedded clips' does."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(500):
        frames = rng.integers(6, 40, 120).astype(float)
        costs = frames * rng.gamma(16, 1 / 16, 120)
        known = spanning(frames.tolist(), 12)
        rest = [n for n in range(120) if n not in known]
        found = estimate(frames[known].tolist(), costs[known].tolist(), frames[rest].tolist())
        inside += found.low <= costs[rest].sum() <= found.high
    assert 0.85 <= inside / 500 <= 0.95


def test_what_is_measured_spans_the_work() -> None:
    assert spanning([5, 1, 4, 2, 3, 6], 3) == [3, 2, 5]  # works 2, 4 and 6
    assert spanning([7], 3) == [0]
    assert spanning([], 3) == []


def test_memory_of_the_longest_video() -> None:
    assert line_through([10, 20, 30], [110, 120, 130], 100) == pytest.approx(200)
    assert line_through([10, 20], [130, 110], 100) == 120, "it does not fall"
    assert line_through([10], [130], 100) == 130


def test_a_run_converges_to_what_it_cost() -> None:
    keys = [Key(video_id=str(n)) for n in range(6)]
    run = Running(dict(zip(keys, [10, 10, 20, 20, 30, 10], strict=True)))
    assert run.seconds_left(2) is None and run.in_words() == ""
    run.add([(keys[0], 3600.0)])
    assert run.in_words() == "", "of one there is no interval"
    run.add([(keys[1], 5400.0), (keys[5], 0.0)])  # the last one failed
    found = run.in_all()
    assert found.value == pytest.approx(9000 + 450 * 70)  # two of 10 frames: the mean
    assert run.in_words().startswith("11.2 (")
    assert run.seconds_left(2) == pytest.approx(450 * 70 / 2)
    run.add([(keys[2], 9000.0), (keys[3], 9000.0), (keys[4], 13500.0)])
    found = run.in_all()
    assert (found.value, found.low, found.high) == (40500, 40500, 40500)
    assert run.in_words() == "11.2 worker-hours in all"
    assert run.seconds_left(2) == 0


def test_stages_err_the_same_way() -> None:
    parts = [Estimate(value=2, low=1, high=4), Estimate(value=10, low=9, high=12)]
    assert together(parts) == Estimate(value=12, low=10, high=16)
