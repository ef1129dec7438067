"""Region similarity J, boundary accuracy F, and the overlaps behind the pseudo-labels.

A mask track is one COCO RLE per frame, or the same as runs (sola_model/masks/runs.py): pack once
what is scored many times. Nothing here decodes a mask. Runs: numpy; numba in runs.py, boundary.py.

Axes: N mask tracks, O objects, P predictions, T frames, H and W in pixels.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from sola_model.masks.runs import (
    RLE,
    MaskTrack,
    areas_of,
    check_same_frames,
    intersections_of,
    pack,
)
from sola_model.metrics.boundary import PixelCounts, count_pixels

__all__ = [
    "RLE",
    "MaskTrack",
    "Overlaps",
    "Score",
    "boundary_accuracy",
    "check_same_frames",
    "empty_rle",
    "j_and_f",
    "j_and_f_many",
    "no_target_accuracy",
    "ratio_or_one",
    "region_similarity",
    "target_accuracy",
    "track_overlaps",
]


class Score(NamedTuple):
    """Means over the frames of one expression, each in [0, 1]; jf = (j + f) / 2."""

    j: float
    f: float
    jf: float


class Overlaps(NamedTuple):
    """Means over frames for every mask track and object, float32 (N, O)."""

    miou_NO: NDArray[np.float32]
    precision_NO: NDArray[np.float32]
    recall_NO: NDArray[np.float32]


def empty_rle(height: int, width: int) -> RLE:
    """The mask without a pixel."""
    return coco.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width)


def ratio_or_one(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """part / whole for pixel counts, 1 where the whole is empty."""
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))


def region_similarity(
    ground_truth: MaskTrack, prediction: MaskTrack, void: MaskTrack | None = None
) -> NDArray[np.float64]:
    """J of every frame: intersection over union, 1 where both masks are empty (DAVIS).

    Pixels of `void` are left out of both masks, as in the DAVIS 2017 evaluation.
    Returns float64 (T,). Raises ValueError when frames or sizes differ.
    """
    return _j(_counts(ground_truth, [prediction], void))[0]


def boundary_accuracy(
    ground_truth: MaskTrack, prediction: MaskTrack, void: MaskTrack | None = None
) -> NDArray[np.float64]:
    """F of every frame: F-measure of the boundary pixels matched within a tolerance (DAVIS).

    The tolerance is ceil(0.008 * frame diagonal) pixels. Both boundaries empty gives 1, one
    empty gives 0. A mask that fills the frame has no boundary, just as an empty one. Pixels of
    `void` are left out of both masks before their boundaries are drawn.

    Returns float64 (T,). Raises ValueError when frames or sizes differ.
    """
    return _f(_counts(ground_truth, [prediction], void))[0]


def j_and_f(ground_truth: MaskTrack, prediction: MaskTrack, void: MaskTrack | None = None) -> Score:
    """Mean J, mean F and J&F of one expression over all its frames.

    A no-target expression (ground truth empty everywhere) scores 1 on frames without a predicted
    pixel and 0 on the others. J is exactly that; F is too, but for a prediction that fills the
    frame, which has no boundary to be wrong: there J stands for F.

    Raises ValueError when frames or sizes differ.
    """
    return j_and_f_many(ground_truth, [prediction], void)[0]


def j_and_f_many(
    ground_truth: MaskTrack, predictions: Sequence[MaskTrack], void: MaskTrack | None = None
) -> list[Score]:
    """`j_and_f` of several predictions for one target; its boundary is drawn once."""
    if not predictions:
        return []
    counts = _counts(ground_truth, predictions, void)
    j_PT = _j(counts)
    f_PT = _f(counts) if counts.target.any() else j_PT
    return [
        Score(j=j, f=f, jf=(j + f) / 2)
        for j, f in zip(j_PT.mean(axis=1).tolist(), f_PT.mean(axis=1).tolist(), strict=True)
    ]


def _counts(
    ground_truth: MaskTrack, predictions: Sequence[MaskTrack], void: MaskTrack | None
) -> PixelCounts:
    check_same_frames([ground_truth, *predictions, *([] if void is None else [void])])
    packed = [pack(prediction) for prediction in predictions]
    return count_pixels(pack(ground_truth), packed, None if void is None else pack(void))


def _j(counts: PixelCounts) -> NDArray[np.float64]:
    """J (P, T)."""
    return ratio_or_one(counts.shared, counts.target + counts.prediction - counts.shared)


def _f(counts: PixelCounts) -> NDArray[np.float64]:
    """F (P, T)."""
    both_empty = (counts.prediction_boundary == 0) & (counts.target_boundary == 0)
    precision = counts.prediction_matched / np.maximum(counts.prediction_boundary, 1)
    recall = counts.target_matched / np.maximum(counts.target_boundary, 1)
    matched = np.where(precision + recall == 0, 1, precision + recall)
    return np.where(both_empty, 1.0, 2 * precision * recall / matched)


def no_target_accuracy(has_target: Sequence[bool], predicted: Sequence[bool]) -> float | None:
    """N-acc: the share of no-target expressions with an empty prediction; None without any.

    One entry per expression: whether it has a target, and whether any pixel of any frame was
    predicted for it (MeViS v2, after GRES: Liu et al., CVPR 2023).
    """
    return _share([not p for h, p in zip(has_target, predicted, strict=True) if not h])


def target_accuracy(has_target: Sequence[bool], predicted: Sequence[bool]) -> float | None:
    """T-acc: the share of expressions with a target whose prediction is not empty everywhere."""
    return _share([p for h, p in zip(has_target, predicted, strict=True) if h])


def _share(right: list[bool]) -> float | None:
    return sum(right) / len(right) if right else None


def track_overlaps(
    tracks: Sequence[MaskTrack],
    objects: Sequence[MaskTrack],
    empty_frames: Literal["count", "skip"] = "count",
) -> Overlaps:
    """Mean IoU, precision and recall of every mask track against every object of a video.

    Per frame: IoU is 1 when both masks are empty, precision is 1 when the track is empty, recall
    is 1 when the object is empty. With "count" all frames count (recipe `release`): a track that
    is empty everywhere has mIoU 0.75 with an object that is visible in a quarter of the frames.
    With "skip" (recipe `paper`) the means of a pair run over the frames in which its track or its
    object is visible; if there are none, they are 0: nothing there can be a positive.

    Raises ValueError when frames or sizes differ.
    """
    check_same_frames([*tracks, *objects])
    if not tracks or not objects:
        return Overlaps(*np.zeros((3, len(tracks), len(objects)), np.float32))
    packed, truths = [pack(track) for track in tracks], [pack(masks) for masks in objects]
    shared_TNO = intersections_of(packed, truths)
    track_TN1 = np.stack([areas_of(track) for track in packed], axis=1)[:, :, None]
    object_T1O = np.stack([areas_of(masks) for masks in truths], axis=1)[:, None, :]
    union_TNO = track_TN1 + object_T1O - shared_TNO
    parts = [ratio_or_one(shared_TNO, whole) for whole in (union_TNO, track_TN1, object_T1O)]
    values_T3NO = np.stack(parts, axis=1).astype(np.float32)
    if empty_frames == "count":
        return Overlaps(*values_T3NO.mean(axis=0))
    visible_TNO = union_TNO > 0
    frames_NO = np.maximum(visible_TNO.sum(axis=0), 1)
    return Overlaps(
        *((values_T3NO * visible_TNO[:, None]).sum(axis=0) / frames_NO).astype(np.float32)
    )
