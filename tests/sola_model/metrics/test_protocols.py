"""DAVIS protocols: matching, padding, frames left out; merging objects to labels."""

import numpy as np
import pytest
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE, empty_rle, j_and_f
from sola_model.metrics.protocols import davis_semi_supervised, davis_unsupervised, merge_objects

FRAMES = 4
EMPTY = [empty_rle(40, 60)] * FRAMES


def box(left: int, width: int = 10, frames: int = FRAMES) -> list[RLE]:
    mask_HW = np.zeros((40, 60), np.uint8, order="F")
    mask_HW[10:30, left : left + width] = 1
    return [coco.encode(mask_HW)] * frames


def test_objects_are_matched_with_the_proposals_that_fit_best() -> None:
    objects = [box(0), box(20), box(40)]
    proposals = [box(41), EMPTY, box(0), box(22)]
    scores = davis_unsupervised(objects, proposals)
    expected = [j_and_f(o, p) for o, p in zip(objects, [box(0), box(22), box(41)], strict=True)]
    assert scores == expected
    assert scores[0].jf == 1


def test_the_matching_maximises_the_sum_not_each() -> None:
    # Alone, the second proposal is best for both objects.
    objects, proposals = [box(0), box(4)], [box(20), box(1)]
    total = sum(score.jf for score in davis_unsupervised(objects, proposals))
    alternatives = [
        j_and_f(objects[0], proposals[p]).jf + j_and_f(objects[1], proposals[1 - p]).jf
        for p in (0, 1)
    ]
    assert total == pytest.approx(max(alternatives))


def test_missing_proposals_are_empty_and_too_many_are_refused() -> None:
    scores = davis_unsupervised([box(0), box(30)], [box(30)])
    assert [score.jf for score in scores] == [0, 1]
    assert [score.jf for score in davis_unsupervised([box(0)], [])] == [0]
    with pytest.raises(ValueError, match="21 proposals"):
        davis_unsupervised([box(0)], [EMPTY] * 21)


def test_void_pixels_do_not_count() -> None:
    assert davis_unsupervised([box(0, 10)], [box(0, 14)], void=box(10, 6))[0].j == 1
    between = davis_semi_supervised([box(0, 10)], [box(0, 14)], void=box(10, 6))
    assert between[0].j == 1


def test_semi_supervised_leaves_out_first_and_last_frame_and_does_not_match() -> None:
    wrong_ends = [box(50)[0], *box(0, frames=2), box(50)[0]]
    assert davis_semi_supervised([box(0)], [wrong_ends])[0].jf == 1
    scores = davis_semi_supervised([box(0), box(30)], [box(30)])
    assert [score.jf for score in scores] == [0, 0]
    with pytest.raises(ValueError, match="2 predictions for 1 objects"):
        davis_semi_supervised([box(0)], [box(0), box(0)])
    with pytest.raises(ValueError, match="2 frames"):
        davis_semi_supervised([box(0, frames=2)], [box(0, frames=2)])


def test_objects_merge_to_the_highest_score_of_at_least_a_half() -> None:
    scores_OHW = np.array([[[0.9, 0.5, 0.6, 0.49, 0]], [[0.8, 0.2, 0.6, 0.3, 0.7]]], np.float32)
    assert merge_objects(scores_OHW).tolist() == [[1, 1, 1, 0, 2]]
