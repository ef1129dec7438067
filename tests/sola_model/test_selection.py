"""Merging tracks into a prediction, the oracle and the trivial selectors."""

import numpy as np
import pytest
from pycocotools import mask as coco

from sola_model.metrics import RLE, j_and_f, region_similarity
from sola_model.selection import all_tracks, largest_track, merge, oracle_selection, random_track

SIZE = (12, 24)


def columns(first: int, last: int) -> RLE:
    """Columns first..last-1 of the frame; nothing when they are equal."""
    mask_HW = np.zeros(SIZE, np.uint8, order="F")
    mask_HW[:, first:last] = 1
    return coco.encode(mask_HW)


EMPTY = columns(0, 0)
LEFT, RIGHT, MIDDLE = columns(0, 6), columns(18, 24), columns(9, 12)
BOTH = coco.merge([LEFT, RIGHT])


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


def test_oracle_chooses_the_two_tracks_that_make_up_the_target() -> None:
    tracks = [[MIDDLE] * 3, [RIGHT, RIGHT, EMPTY], [LEFT, LEFT, LEFT]]
    target = [BOTH, BOTH, LEFT]
    selected = oracle_selection(tracks, target)
    assert selected == [2, 1]
    assert j_and_f(target, merge(tracks, selected, SIZE, 3)).jf == 1.0


def test_oracle_stops_when_another_track_would_cost_more_than_it_adds() -> None:
    # The second track adds one column of the target and five beside it; the third adds nothing.
    tracks = [[columns(0, 5)], [columns(5, 11)], [columns(1, 4)]]
    assert oracle_selection(tracks, [LEFT]) == [0]


def test_oracle_weighs_all_frames() -> None:
    # Right in the first frame, wrong in the two frames where the target is absent.
    assert oracle_selection([[LEFT, LEFT, LEFT]], [LEFT, EMPTY, EMPTY]) == []
    assert oracle_selection([[LEFT, LEFT, EMPTY]], [LEFT, LEFT, EMPTY]) == [0]


def test_oracle_of_a_no_target_expression_is_the_empty_prediction() -> None:
    assert oracle_selection([[LEFT, EMPTY], [MIDDLE, RIGHT]], [EMPTY, EMPTY]) == []
    assert oracle_selection([], [LEFT]) == []


def test_oracle_is_a_lower_bound() -> None:
    # A third of the target each, and a false alarm in the last frame: no single track beats the
    # empty prediction, all three together would (0.75 over 0.25).
    parts = [columns(0, 4), columns(4, 8), columns(8, 12)]
    tracks = [[part, part, part, part] for part in parts]
    target = [columns(0, 12)] * 3 + [EMPTY]
    assert oracle_selection(tracks, target) == []
    assert region_similarity(target, merge(tracks, all_tracks(tracks), SIZE, 4)).mean() == 0.75


def test_oracle_never_loses_to_a_single_track_and_matches_plain_greedy() -> None:
    random = np.random.default_rng(0)
    starts = random.integers(0, 20, (8, 5))
    tracks = [[columns(start, start + 5) for start in row] for row in starts]
    target = [columns(0, 12)] * 4 + [EMPTY]

    def mean_j(selected: list[int]) -> float:
        return region_similarity(target, merge(tracks, selected, SIZE, 5)).mean()

    plain: list[int] = []
    best = max(range(8), key=lambda n: mean_j([n]))
    while mean_j([*plain, best]) > mean_j(plain):
        plain.append(best)
        best = max(range(8), key=lambda n: mean_j([*plain, n]))
    selected = oracle_selection(tracks, target)
    assert selected == plain
    assert len(selected) > 1
    assert mean_j(selected) >= max(mean_j([n]) for n in range(8))


def test_trivial_selectors() -> None:
    tracks = [[MIDDLE, LEFT], [LEFT, LEFT], [EMPTY, BOTH]]
    assert all_tracks(tracks) == [0, 1, 2]
    assert largest_track(tracks) == [1]  # equal to track 2, and before it
    assert largest_track([*tracks, [BOTH, MIDDLE]]) == [3]


def test_random_track_depends_on_the_key_alone() -> None:
    tracks = [[LEFT]] * 4
    chosen = [random_track(tracks, f"video/{expression}")[0] for expression in range(200)]
    assert chosen[:4] == [3, 2, 3, 1]  # fixed: the same in every run
    assert min(np.bincount(chosen, minlength=4)) > 25


def test_without_tracks_nothing_is_selected() -> None:
    assert all_tracks([]) == largest_track([]) == random_track([], "video/0") == []
