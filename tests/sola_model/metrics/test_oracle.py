"""The cells of a video, and the oracle over its tracks."""

from itertools import chain, combinations

import numpy as np
import pytest
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE, region_similarity
from sola_model.metrics.oracle import oracle_selection, video_cells
from sola_model.selector.selection import merge
from tests.sola_model.column_masks import BOTH, EMPTY, LEFT, MIDDLE, RIGHT, SIZE, columns


def oracle(tracks, target, void=None, candidates=None) -> list[int]:
    cells = video_cells(tracks, [target], void)
    return oracle_selection(cells, 0, range(len(tracks)) if candidates is None else candidates)


def mean_j(tracks, chosen, target, void=None) -> float:
    union = merge(tracks, chosen, SIZE, len(target))
    return float(region_similarity(target, union, void).mean())


def random_track(random: np.random.Generator, frames: int) -> list[RLE]:
    masks_THW = np.zeros((frames, *SIZE), np.uint8)
    for mask_HW in masks_THW:
        y, x = random.integers(0, 8), random.integers(0, 18)
        mask_HW[y : y + random.integers(0, 8), x : x + random.integers(0, 12)] = 1
    return [coco.encode(np.asfortranarray(mask_HW)) for mask_HW in masks_THW]


@pytest.mark.parametrize("tracks", [0, 5, 70])  # 70 masks take more than one word of bits
def test_cells_hold_every_union(tracks: int) -> None:
    random = np.random.default_rng(tracks)
    masks = [random_track(random, 3) for _ in range(tracks)]
    targets = [random_track(random, 3) for _ in range(2)]
    void = random_track(random, 3)
    cells = video_cells(masks, targets, void)
    for _ in range(5):
        chosen = [n for n in range(tracks) if random.random() < 0.4]
        covered_C = cells.in_track_CN[:, chosen].any(axis=1)
        for g, target in enumerate(targets):
            j_T = []
            for first, last in zip(cells.first_T1, cells.first_T1[1:], strict=False):
                area_C = cells.area_C[first:last]
                inside_C, mine_C = cells.in_target_CG[first:last, g], covered_C[first:last]
                union = area_C[inside_C | mine_C].sum()
                j_T.append(area_C[inside_C & mine_C].sum() / union if union else 1)
            assert np.mean(j_T) == pytest.approx(mean_j(masks, chosen, target, void), abs=1e-12)


def test_the_two_tracks_that_make_up_the_target() -> None:
    tracks = [[MIDDLE] * 3, [RIGHT, RIGHT, EMPTY], [LEFT, LEFT, LEFT]]
    assert oracle(tracks, [BOTH, BOTH, LEFT]) == [1, 2]


def test_another_track_would_cost_more_than_it_adds() -> None:
    # The second track adds one column of the target and five beside it; the third adds nothing.
    tracks = [[columns(0, 5)], [columns(5, 11)], [columns(1, 4)]]
    assert oracle(tracks, [LEFT]) == [0]


def test_all_frames_are_weighed() -> None:
    # Right in the first frame, wrong in the two frames where the target is absent.
    assert oracle([[LEFT, LEFT, LEFT]], [LEFT, EMPTY, EMPTY]) == []
    assert oracle([[LEFT, LEFT, EMPTY]], [LEFT, LEFT, EMPTY]) == [0]


def test_no_target_is_the_empty_prediction() -> None:
    assert oracle([[LEFT, EMPTY], [MIDDLE, RIGHT]], [EMPTY, EMPTY]) == []
    assert oracle([], [LEFT]) == []


def test_only_candidates_are_taken() -> None:
    tracks = [[LEFT], [columns(0, 5)], [RIGHT]]
    assert oracle(tracks, [LEFT]) == [0]
    assert oracle(tracks, [LEFT], candidates=[1, 2]) == [1]
    assert oracle(tracks, [LEFT], candidates=[]) == []


def test_void_pixels_do_not_count() -> None:
    tracks = [[columns(0, 9)], [columns(0, 4)]]
    assert oracle(tracks, [LEFT]) == [0]  # 6/9, tied with 4/6: the first
    assert oracle(tracks, [LEFT], void=[columns(4, 6)]) == [1]
    assert oracle(tracks, [LEFT], void=[columns(6, 24)]) == [0]


def test_parts_that_are_worth_it_only_together_are_found() -> None:
    # A third of the target each, and a false alarm in the last frame: no single track beats the
    # empty prediction (0.25), all three together do (0.75).
    parts = [columns(0, 4), columns(4, 8), columns(8, 12)]
    tracks = [[part, part, part, part] for part in parts]
    assert oracle(tracks, [columns(0, 12)] * 3 + [EMPTY]) == [0, 1, 2]


@pytest.mark.parametrize("last", [10, 13])
def test_a_first_choice_is_given_up(last: int) -> None:
    # The track over the middle is the best single one; the two halves make it superfluous (or,
    # when it ends at column 13, harmful).
    tracks = [[columns(2, last)], [columns(0, 6)], [columns(6, 12)]]
    assert oracle(tracks, [columns(0, 12)]) == [1, 2]


def test_close_to_the_best_of_all_unions() -> None:
    """No single track is better; among 40 small cases the best union is nearly always found."""
    found = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        tracks = [random_track(random, 3) for _ in range(6)]
        target = random_track(random, 3)
        mine = mean_j(tracks, oracle(tracks, target), target)
        subsets = chain.from_iterable(combinations(range(6), k) for k in range(7))
        best = max(mean_j(tracks, list(subset), target) for subset in subsets)
        assert mine >= max(mean_j(tracks, [n], target) for n in range(6)) - 1e-12
        found += mine >= best - 1e-12
    assert found >= 37


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="frames"):
        video_cells([[LEFT, LEFT]], [[LEFT]])
