"""Region similarity J, boundary accuracy F, and the overlaps behind the pseudo-labels.

Masks are COCO RLE, one per frame; areas and intersections come straight from the runs, and only
the boundary measure decodes, inside the box that holds both masks. Runs: pycocotools, cv2.

Axes: N mask tracks, O objects, T frames, H and W in pixels.
"""

from collections.abc import Iterable, Sequence
from math import ceil, hypot
from typing import NamedTuple, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


class RLE(TypedDict):
    """A compressed COCO run-length mask: size is [height, width]."""

    size: list[int]
    counts: str | bytes


MaskTrack = Sequence[RLE]
"""One mask per frame: a mask track, an object's ground truth or a prediction."""


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


def check_same_frames(mask_tracks: Iterable[MaskTrack]) -> None:
    """Raise ValueError unless all have the same number of frames (at least one) and one size."""
    mask_tracks = list(mask_tracks)
    lengths = {len(masks) for masks in mask_tracks}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"masks cover {sorted(lengths)} frames; all must cover the same frames, at least one. "
            "Give an empty RLE for every frame in which there is no mask."
        )
    sizes = {tuple(mask["size"]) for masks in mask_tracks for mask in masks}
    if len(sizes) > 1:
        raise ValueError(
            f"masks have sizes (height, width) {sorted(sizes)}; all must have the video's size. "
            "Resize them to it first."
        )


def areas(masks: Sequence[RLE]) -> NDArray[np.float64]:
    """Pixels of each mask, whole numbers, float64 so that sums and differences are safe."""
    # One by one: pycocotools' `area` fails on a list of more than 255.
    return np.array([coco.area(mask) for mask in masks], dtype=np.float64)


def intersections(masks_A: Sequence[RLE], masks_B: Sequence[RLE]) -> NDArray[np.float64]:
    """Pixels that each mask of A shares with each of B, whole numbers, float64 (A, B)."""
    if not masks_A or not masks_B:
        return np.zeros((len(masks_A), len(masks_B)))
    # For a "crowd" pycocotools divides by the area of A alone; 0 / 0 gives nan.
    fraction_AB = np.nan_to_num(coco.iou(list(masks_A), list(masks_B), [True] * len(masks_B)))
    return np.rint(fraction_AB * areas(masks_A)[:, None])


def ratio_or_one(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole for pixel counts, 1 where the whole is empty."""
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))


def region_similarity(ground_truth: MaskTrack, prediction: MaskTrack) -> NDArray[np.float64]:
    """J of every frame: intersection over union, 1 where both masks are empty (DAVIS).

    Returns float64 (T,). Raises ValueError when frames or sizes differ.
    """
    check_same_frames([ground_truth, prediction])
    pairs = zip(ground_truth, prediction, strict=True)
    intersection_T = np.array([intersections([truth], [mask])[0, 0] for truth, mask in pairs])
    union_T = areas(ground_truth) + areas(prediction) - intersection_T
    return ratio_or_one(intersection_T, union_T)


def boundary_accuracy(ground_truth: MaskTrack, prediction: MaskTrack) -> NDArray[np.float64]:
    """F of every frame: F-measure of the boundary pixels matched within a tolerance (DAVIS).

    The tolerance is ceil(0.008 * frame diagonal) pixels. Both boundaries empty gives 1, one
    empty gives 0. A mask that fills the frame has no boundary, just as an empty one.

    Returns float64 (T,). Raises ValueError when frames or sizes differ.
    """
    check_same_frames([ground_truth, prediction])
    radius = ceil(0.008 * hypot(*ground_truth[0]["size"]))
    offset = np.arange(-radius, radius + 1)
    disk = (offset**2 + offset[:, None] ** 2 <= radius**2).astype(np.uint8)
    pairs = zip(ground_truth, prediction, strict=True)
    return np.array([_boundary_f(truth, mask, disk) for truth, mask in pairs])


def _boundary_f(truth: RLE, mask: RLE, disk: NDArray[np.uint8]) -> float:
    box = _joint_box(truth, mask)
    truth_boundary, mask_boundary = _boundary(truth, box), _boundary(mask, box)
    truth_pixels, mask_pixels = truth_boundary.sum(), mask_boundary.sum()
    if truth_pixels == 0 or mask_pixels == 0:
        return float(truth_pixels == mask_pixels)
    precision = (mask_boundary & cv2.dilate(truth_boundary, disk)).sum() / mask_pixels
    recall = (truth_boundary & cv2.dilate(mask_boundary, disk)).sum() / truth_pixels
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _joint_box(truth: RLE, mask: RLE) -> tuple[slice, slice]:
    """Rows and columns that hold both masks and one pixel around them, within the frame.

    All boundary pixels lie inside, and so does every pixel that decides about one: the box needs
    no tolerance added, since matches are counted at boundary pixels only.
    """
    left, top, width, height = coco.toBbox(coco.merge([truth, mask])).astype(int)
    return (
        slice(max(top - 1, 0), top + height + 1),
        slice(max(left - 1, 0), left + width + 1),
    )


def _boundary(mask: RLE, box: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Pixels that differ from their east, south or south-east neighbour, 0 or 1."""
    mask_HW = np.ascontiguousarray(coco.decode(mask)[box])
    padded = np.pad(mask_HW, ((0, 1), (0, 1)), mode="edge")
    east, south, south_east = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask_HW ^ east) | (mask_HW ^ south) | (mask_HW ^ south_east)


def j_and_f(ground_truth: MaskTrack, prediction: MaskTrack) -> Score:
    """Mean J, mean F and J&F of one expression over all its frames.

    A no-target expression (ground truth empty everywhere) scores 1 on frames without a predicted
    pixel and 0 on the others. J is exactly that; F is too, but for a prediction that fills the
    frame, which has no boundary to be wrong: there J stands for F.

    Raises ValueError when frames or sizes differ.
    """
    j_T = region_similarity(ground_truth, prediction)
    no_target = not areas(ground_truth).any()
    f_T = j_T if no_target else boundary_accuracy(ground_truth, prediction)
    j, f = float(j_T.mean()), float(f_T.mean())
    return Score(j=j, f=f, jf=(j + f) / 2)


def track_overlaps(tracks: Sequence[MaskTrack], objects: Sequence[MaskTrack]) -> Overlaps:
    """Mean IoU, precision and recall of every mask track against every object of a video.

    Per frame: IoU is 1 when both masks are empty, precision is 1 when the track is empty, recall
    is 1 when the object is empty. All frames count (recipe `release`): a track that is empty
    everywhere has mIoU 0.75 with an object that is visible in a quarter of the frames.

    Raises ValueError when frames or sizes differ.
    """
    check_same_frames([*tracks, *objects])
    if not tracks or not objects:
        return Overlaps(*np.zeros((3, len(tracks), len(objects)), np.float32))
    by_frame = zip(zip(*tracks, strict=True), zip(*objects, strict=True), strict=True)
    frames = [_frame_overlaps(tracks_N, objects_O) for tracks_N, objects_O in by_frame]
    return Overlaps(*np.array(frames, np.float32).mean(axis=0))


def _frame_overlaps(tracks_N: Sequence[RLE], objects_O: Sequence[RLE]) -> NDArray[np.float64]:
    """IoU, precision and recall in one frame, (3, N, O)."""
    intersection_NO = intersections(tracks_N, objects_O)
    track_area_N1, object_area_1O = areas(tracks_N)[:, None], areas(objects_O)[None, :]
    union_NO = track_area_N1 + object_area_1O - intersection_NO
    wholes = (union_NO, track_area_N1, object_area_1O)
    return np.stack([ratio_or_one(intersection_NO, whole) for whole in wholes])
