"""The paired bootstrap over videos."""

import numpy as np
import pytest

from sola_model.metrics.bootstrap import bootstrap_interval


def test_the_interval_is_that_of_the_mean_when_every_video_has_one_expression() -> None:
    difference_E = np.random.default_rng(3).normal(0.1, 0.2, 400)
    low, high = bootstrap_interval(difference_E, [str(e) for e in range(400)])
    half = 1.96 * difference_E.std() / 20
    assert (low, high) == pytest.approx(
        (difference_E.mean() - half, difference_E.mean() + half), abs=0.1 * half
    )


def test_videos_are_drawn_whole() -> None:
    """Ten copies of an expression in its video tell nothing new: the interval stays as wide."""
    difference_V = np.random.default_rng(3).normal(0.1, 0.2, 40)
    videos = [str(v) for v in range(40)]
    alone = bootstrap_interval(difference_V, videos)
    copied = bootstrap_interval(np.repeat(difference_V, 10), np.repeat(videos, 10))
    assert copied == pytest.approx(alone)


def test_it_is_the_mean_over_expressions_not_over_videos() -> None:
    # Nine expressions at 1 in one video, one at 0 in the other: draws give 0, 0.9 or 1.
    low, high = bootstrap_interval([1.0] * 9 + [0.0], ["a"] * 9 + ["b"])
    assert (low, high) == (0.0, 1.0)
    assert bootstrap_interval([0.25] * 4, list("aabb")) == (0.25, 0.25)


def test_one_video_has_no_interval() -> None:
    assert bootstrap_interval([0.1, 0.3], ["a", "a"]) is None


def test_the_same_seed_gives_the_same_interval() -> None:
    difference_E = np.random.default_rng(0).normal(size=30)
    videos = [str(e // 3) for e in range(30)]
    assert bootstrap_interval(difference_E, videos) == bootstrap_interval(difference_E, videos)
    assert bootstrap_interval(difference_E, videos, seed=1) != bootstrap_interval(
        difference_E, videos
    )
