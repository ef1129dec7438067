"""J, F and track overlaps as one writes them down: masks decoded to arrays, one pair at a time."""

from math import ceil

import cv2
import numpy as np
from pycocotools import mask as coco


def frame_scores(truth_rle: dict, mask_rle: dict) -> tuple[float, float]:
    """J and F of one frame (DAVIS 2017)."""
    truth_HW, mask_HW = coco.decode(truth_rle).astype(bool), coco.decode(mask_rle).astype(bool)
    union = np.sum(truth_HW | mask_HW)
    j = np.sum(truth_HW & mask_HW) / union if union else 1.0
    return j, boundary_f(truth_HW, mask_HW)


def boundary_f(truth_HW: np.ndarray, mask_HW: np.ndarray) -> float:
    """F of one frame."""
    truth_HW, mask_HW = boundary(truth_HW), boundary(mask_HW)
    truth_pixels, mask_pixels = np.sum(truth_HW), np.sum(mask_HW)
    if truth_pixels == 0 or mask_pixels == 0:
        return float(truth_pixels == mask_pixels)
    radius = ceil(0.008 * np.linalg.norm(truth_HW.shape))
    offset = np.arange(-radius, radius + 1)
    disk = (offset**2 + offset[:, None] ** 2 <= radius**2).astype(np.uint8)
    precision = np.sum(mask_HW * cv2.dilate(truth_HW.astype(np.uint8), disk)) / mask_pixels
    recall = np.sum(truth_HW * cv2.dilate(mask_HW.astype(np.uint8), disk)) / truth_pixels
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask_HW: np.ndarray) -> np.ndarray:
    """Pixels that differ from their east, south or south-east neighbour."""
    padded = np.pad(mask_HW, ((0, 1), (0, 1)), mode="edge")
    east, south, south_east = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask_HW ^ east) | (mask_HW ^ south) | (mask_HW ^ south_east)


def frame_overlaps(track_rle: dict, object_rle: dict) -> tuple[float, float, float]:
    """IoU, precision and recall of one track and object in one frame."""
    track_HW, object_HW = coco.decode(track_rle), coco.decode(object_rle)
    shared = np.logical_and(track_HW, object_HW).sum()
    wholes = (np.logical_or(track_HW, object_HW).sum(), track_HW.sum(), object_HW.sum())
    return tuple(float(shared / whole) if whole else 1.0 for whole in wholes)
