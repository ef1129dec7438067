"""J, F and overlaps: golden values of the official code, a plain reference, the edge rules."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from sola_model.masks.runs import pack
from sola_model.metrics.jf import (
    RLE,
    boundary_accuracy,
    empty_rle,
    j_and_f,
    j_and_f_many,
    no_target_accuracy,
    region_similarity,
    target_accuracy,
    track_overlaps,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "masks.json"
VIDEOS = json.loads(GOLDEN.read_text())["videos"]
BoolMask = NDArray[np.bool_]


def encode(mask_HW: BoolMask) -> RLE:
    return coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))


def columns(width: int) -> RLE:
    mask_HW = np.zeros((480, 854), bool)
    mask_HW[:, :width] = True
    return encode(mask_HW)


EMPTY, FULL = empty_rle(20, 30), encode(np.ones((20, 30), bool))
SQUARE = encode(np.pad(np.ones((8, 8), bool), ((4, 8), (6, 16))))


# The golden file


@pytest.mark.parametrize("video", VIDEOS)
def test_golden_j_and_f(video: dict) -> None:
    for result in video["results"]:
        truth = video["ground_truth"][result["ground_truth"]]
        prediction = video["predictions"][result["prediction"]]
        np.testing.assert_allclose(
            region_similarity(truth, prediction), result["J"], rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(
            boundary_accuracy(truth, prediction), result["F"], rtol=0, atol=1e-12
        )
        score = j_and_f(truth, prediction)
        assert score.j == pytest.approx(np.mean(result["J"]))
        assert score.f == pytest.approx(np.mean(result["F"]))
        assert score.jf == pytest.approx((score.j + score.f) / 2)


@pytest.mark.parametrize("video", VIDEOS)
def test_golden_overlaps(video: dict) -> None:
    overlaps = track_overlaps(video["predictions"], video["ground_truth"])
    names = ("miou", "mean_precision", "mean_recall")
    for values_NO, name in zip(overlaps, names, strict=True):
        assert values_NO.dtype == np.float32
        for result in video["results"]:
            value = values_NO[result["prediction"], result["ground_truth"]]
            assert value == pytest.approx(result[name], abs=2e-7), name


# A plain reference on whole frames


def plain_boundary(mask_HW: BoolMask) -> BoolMask:
    height, width = mask_HW.shape
    boundary_HW = np.zeros_like(mask_HW)
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            around = (mask_HW[y, right], mask_HW[below, x], mask_HW[below, right])
            boundary_HW[y, x] = any(value != mask_HW[y, x] for value in around)
    return boundary_HW


def plain_f(truth_HW: BoolMask, mask_HW: BoolMask) -> float:
    truth_points = np.argwhere(plain_boundary(truth_HW))
    mask_points = np.argwhere(plain_boundary(mask_HW))
    if not len(truth_points) or not len(mask_points):
        return float(len(truth_points) == len(mask_points))
    radius = np.ceil(0.008 * np.linalg.norm(truth_HW.shape))
    squared = ((truth_points[:, None] - mask_points[None]) ** 2).sum(-1)
    near = squared <= radius**2
    recall, precision = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def plain_j(truth_HW: BoolMask, mask_HW: BoolMask) -> float:
    union = (truth_HW | mask_HW).sum()
    return (truth_HW & mask_HW).sum() / union if union else 1.0


@st.composite
def masks(draw: st.DrawFn, size: tuple[int, int]) -> BoolMask:
    """Empty, full, one pixel, noise, or a rectangle that may touch or cross the border."""
    height, width = size
    kind = draw(st.sampled_from(["empty", "full", "pixel", "noise", "rectangle"]))
    mask_HW = np.full(size, kind == "full")
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    if kind == "pixel":
        mask_HW[top, left] = True
    if kind == "noise":
        seed, density = draw(st.integers(0, 2**16)), draw(st.floats(0, 1))
        mask_HW = np.random.default_rng(seed).random(size) < density
    if kind == "rectangle":
        bottom, right = draw(st.integers(top, height)), draw(st.integers(left, width))
        mask_HW[top:bottom, left:right] = True
    return mask_HW


# A radius of 1, 2, 3 and 6 pixels; odd sizes; frames of one pixel, one row and one column; columns
# of whole 64-bit words.
sizes = st.sampled_from(
    [(1, 1), (1, 9), (7, 1), (2, 3), (13, 8), (21, 30), (5, 131), (240, 21), (64, 9), (700, 2)]
)
mask_pairs = sizes.flatmap(lambda size: st.tuples(masks(size), masks(size)))
mask_triples = sizes.flatmap(lambda size: st.tuples(masks(size), masks(size), masks(size)))


@given(mask_pairs)
@example((np.ones((3, 5), bool), np.zeros((3, 5), bool)))
@settings(max_examples=120)
def test_equals_the_plain_reference(pair: tuple[BoolMask, BoolMask]) -> None:
    truth, mask = [encode(pair[0])], [encode(pair[1])]
    assert region_similarity(truth, mask)[0] == plain_j(*pair)
    assert boundary_accuracy(truth, mask)[0] == pytest.approx(plain_f(*pair), abs=1e-12)
    overlaps = track_overlaps([mask], [truth])
    assert overlaps.miou_NO[0, 0] == np.float32(plain_j(*pair))


@given(mask_triples)
@settings(max_examples=60)
def test_void_pixels_are_in_no_mask(triple: tuple[BoolMask, BoolMask, BoolMask]) -> None:
    truth, mask, void = ([encode(mask_HW)] for mask_HW in triple)
    counted = triple[0] & ~triple[2], triple[1] & ~triple[2]
    assert region_similarity(truth, mask, void)[0] == plain_j(*counted)
    assert boundary_accuracy(truth, mask, void)[0] == pytest.approx(plain_f(*counted), abs=1e-12)


def test_many_predictions_score_as_each_alone() -> None:
    rng = np.random.default_rng(3)
    noise = [[encode(rng.random((70, 50)) < p) for p in (0, 0.01, 0.5, 1)] for _ in range(4)]
    (target, *predictions), void = noise, [encode(rng.random((70, 50)) < 0.1)] * 4
    for left_out in (None, void):
        alone = [j_and_f(target, prediction, left_out) for prediction in predictions]
        assert j_and_f_many(target, predictions, left_out) == alone
        assert j_and_f_many(pack(target), [pack(p) for p in predictions], left_out) == alone
    assert j_and_f_many(target, []) == []


# Edge rules


def test_tolerance_is_a_radius_in_pixels() -> None:
    # 0.008 * ||(480, 854)|| = 7.84: boundaries 8 pixels apart match, 9 do not.
    wider = [columns(408), columns(409)]
    assert boundary_accuracy([columns(400)] * 2, wider).tolist() == [1.0, 0.0]


def test_no_target_scores_one_on_empty_frames_and_zero_on_the_others() -> None:
    score = j_and_f([EMPTY] * 4, [EMPTY, SQUARE, FULL, EMPTY])
    assert (score.j, score.f, score.jf) == (0.5, 0.5, 0.5)


def test_a_full_frame_has_no_boundary_when_there_is_a_target() -> None:
    score = j_and_f([SQUARE, EMPTY], [SQUARE, FULL])
    assert (score.j, score.f) == (0.5, 1.0)


def test_overlaps_of_empty_masks() -> None:
    tracks = [[EMPTY] * 4, [SQUARE] * 4]
    overlaps = track_overlaps(tracks, [[EMPTY, EMPTY, EMPTY, SQUARE]])
    assert overlaps.miou_NO[:, 0].tolist() == [0.75, 0.25]
    assert overlaps.precision_NO[:, 0].tolist() == [1.0, 0.25]
    assert overlaps.recall_NO[:, 0].tolist() == [0.75, 1.0]


def test_overlaps_can_skip_frames_in_which_both_are_empty() -> None:
    tracks = [[EMPTY] * 4, [SQUARE] * 4, [SQUARE, EMPTY, EMPTY, SQUARE]]
    objects = [[EMPTY, EMPTY, EMPTY, SQUARE], [EMPTY] * 4]
    overlaps = track_overlaps(tracks, objects, empty_frames="skip")
    assert overlaps.miou_NO.tolist() == [[0, 0], [0.25, 0], [0.5, 0]]
    assert overlaps.precision_NO.tolist() == [[1, 0], [0.25, 0], [0.5, 0]]
    assert overlaps.recall_NO.tolist() == [[0, 0], [1, 1], [1, 1]]
    assert overlaps.miou_NO.dtype == np.float32


def test_accuracies_of_mevis_v2() -> None:
    has_target = [True, True, True, False, False]
    predicted = [True, True, False, False, True]
    assert no_target_accuracy(has_target, predicted) == 1 / 2
    assert target_accuracy(has_target, predicted) == 2 / 3
    assert no_target_accuracy([True], [True]) is None
    assert target_accuracy([False], [True]) is None


def test_overlaps_without_tracks_or_objects() -> None:
    assert track_overlaps([], [[SQUARE]]).miou_NO.shape == (0, 1)
    assert track_overlaps([[SQUARE]], []).recall_NO.shape == (1, 0)


def test_counts_may_be_text_or_bytes() -> None:
    as_text = RLE(size=SQUARE["size"], counts=SQUARE["counts"].decode())
    assert j_and_f([as_text], [SQUARE]).jf == 1.0


@pytest.mark.parametrize("score", [region_similarity, boundary_accuracy, j_and_f])
def test_unequal_frames_or_sizes_are_refused(score) -> None:
    with pytest.raises(ValueError, match=r"cover \[1, 2\] frames"):
        score([SQUARE], [SQUARE, SQUARE])
    with pytest.raises(ValueError, match=r"cover \[0\] frames"):
        score([], [])
    with pytest.raises(ValueError, match=r"\(20, 30\), \(30, 20\)"):
        score([SQUARE], [empty_rle(30, 20)])


def test_unequal_tracks_and_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="frames"):
        track_overlaps([[SQUARE], [SQUARE, SQUARE]], [[SQUARE]])
    with pytest.raises(ValueError, match="sizes"):
        track_overlaps([[SQUARE]], [[empty_rle(30, 20)]])


def test_more_tracks_and_frames_than_pycocotools_can_measure_at_once() -> None:
    mask = coco.encode(np.asfortranarray(np.eye(4, dtype=np.uint8)))
    overlaps = track_overlaps([[mask] * 30] * 10, [[mask] * 30])
    assert (overlaps.miou_NO == 1).all()
