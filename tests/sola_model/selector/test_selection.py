"""Merging tracks into a prediction, and the trivial selectors."""

import numpy as np
import pytest

from sola_model.selector.selection import largest_track, merge, random_track
from tests.sola_model.column_masks import BOTH, EMPTY, LEFT, MIDDLE, RIGHT, SIZE


def test_merge_is_the_union_per_frame() -> None:
    tracks = [[LEFT, EMPTY], [RIGHT, RIGHT], [MIDDLE, MIDDLE]]
    assert merge(tracks, [0, 1], SIZE, 2) == [BOTH, RIGHT]
    assert merge(tracks, np.array([True, True, False]), SIZE, 2) == [BOTH, RIGHT]
    assert merge(tracks, np.array([0]), SIZE, 2) == [LEFT, EMPTY]


@pytest.mark.parametrize("selected", [[], np.array([False])])
def test_none_selected_is_the_empty_prediction(selected) -> None:
    assert merge([[LEFT] * 3], selected, SIZE, 3) == [EMPTY] * 3


def test_merge_without_tracks_is_the_empty_prediction() -> None:
    assert merge([], [], SIZE, 2) == [EMPTY] * 2


def test_merge_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 booleans for 1 tracks"):
        merge([[LEFT]], np.array([True, False]), SIZE, 1)
    with pytest.raises(ValueError, match=r"selected is \[1\]"):
        merge([[LEFT]], [1], SIZE, 1)
    with pytest.raises(ValueError, match="frames"):
        merge([[LEFT]], [0], SIZE, 2)
    with pytest.raises(ValueError, match="sizes"):
        merge([[LEFT]], [0], (24, 12), 1)


def test_the_largest_candidate() -> None:
    area_N = [20.0, 30.0, 30.0, 50.0]
    assert largest_track(area_N, [0, 1, 2]) == [1]  # equal to track 2, and before it
    assert largest_track(area_N, range(4)) == [3]


def test_random_track_depends_on_the_key_and_the_candidates_alone() -> None:
    chosen = [random_track([0, 1, 2, 3], f"video/{expression}")[0] for expression in range(200)]
    assert chosen[:4] == [3, 2, 3, 1]  # fixed: the same in every run
    assert min(np.bincount(chosen, minlength=4)) > 25
    assert random_track([5, 7, 8, 9], "video/0") == [9]


def test_without_candidates_nothing_is_selected() -> None:
    assert largest_track([], []) == random_track([], "video/0") == []
