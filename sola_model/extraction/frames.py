"""Frames as SAM2 takes them: resized as Pillow does, normalised as the official predictor does.

Both to the bit, and faster. Pillow's arithmetic is that of integers: rounded weights, one
direction after the other, bytes in between. `_weighted_rows` does the same on whole rows, and
Pillow has the last word: where it would give another result, it resizes. A normalised pixel is one
of 256 values for each channel, which a table has; so it is the same on every device.

Source: `sam2.utils.misc.load_video_frames_from_jpg_images`; Pillow's `Resample.c`.
H and W: rows and columns of the video; S: the side of the model's image.
"""

from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sola_model.masks.runs import compiled

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
BITS = 22  # of a weight's fraction
TAPS = 4  # rows that are weighted at once


def resize(frame_HW3: np.ndarray, side: int) -> np.ndarray:
    """A frame (uint8 RGB) at the model's size (S, S, 3), as `PIL.Image.resize` makes it."""
    columns_first = _columns_first(frame_HW3.shape[:2], side)
    if columns_first is None:
        return np.array(Image.fromarray(frame_HW3).resize((side, side)))
    return _resized(frame_HW3, side, columns_first)


def normalise(image_SS3: Tensor) -> Tensor:
    """The model's input (3, S, S) of a resized frame (uint8), on the frame's device."""
    if image_SS3.device.type == "cpu":
        return torch.from_numpy(_looked_up(image_SS3.numpy(), _table().numpy())).permute(2, 0, 1)
    return _looked_up_anywhere(image_SS3)


def _looked_up_anywhere(image_SS3: Tensor) -> Tensor:
    """`normalise` on any device, though slow on a CPU."""
    place_SS3 = 3 * image_SS3.int() + torch.arange(3, device=image_SS3.device)
    values = _table().to(image_SS3.device).flatten()
    return values.index_select(0, place_SS3.flatten()).view(image_SS3.shape).permute(2, 0, 1)


@lru_cache(maxsize=1)
def _table() -> Tensor:
    """What becomes of each of the 256 values of a channel (256, 3)."""
    # As in the official predictor: 64 bits up to here, 32 from here on, on the CPU.
    value_V1 = (torch.arange(256, dtype=torch.float64) / 255.0).float()[:, None]
    return (value_V1 - torch.tensor(MEAN)) / torch.tensor(STD)


@lru_cache(maxsize=64)
def _columns_first(size: tuple[int, int], side: int) -> bool | None:
    """Whether Pillow combines columns before rows at this size; None if it does something else.

    Its versions choose differently, so it is asked, with noise, where any difference shows.
    """
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected_SS3 = np.asarray(Image.fromarray(noise_HW3).resize((side, side)))
    for columns_first in (True, False):
        if np.array_equal(_resized(noise_HW3, side, columns_first), expected_SS3):
            return columns_first
    return None


def _resized(image_HW3: np.ndarray, side: int, columns_first: bool) -> np.ndarray:
    for columns in (columns_first, not columns_first):
        height, width, _ = image_HW3.shape
        rows = np.ascontiguousarray(image_HW3).reshape(height, -1)
        if columns:  # become rows of three channels each, and columns again
            rows = cv2.transpose(rows).reshape(width, -1)
            rows = _weighted_rows(rows, *_weights(width, side)).reshape(3 * side, height)
            image_HW3 = cv2.transpose(rows).reshape(height, side, 3)
        else:
            rows = _weighted_rows(rows, *_weights(height, side))
            image_HW3 = rows.reshape(side, width, 3)
    return image_HW3


@lru_cache(maxsize=64)
def _weights(length: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Bicubic interpolation (a = -0.5): the first row that each new row is made of, and weights_SK
    of the K from there on, in units of 2^-22."""
    scale = length / side
    spread = max(scale, 1.0)
    centre_S = (np.arange(side) + 0.5) * scale
    first_S = np.maximum((centre_S - 2 * spread + 0.5).astype(int), 0)
    last_S = np.minimum((centre_S + 2 * spread + 0.5).astype(int), length)
    taps = -(-(last_S - first_S).max() // TAPS) * TAPS
    row_SK = first_S[:, None] + np.arange(taps)
    x = np.abs((row_SK - centre_S[:, None] + 0.5) * (1 / spread))
    near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    weights_SK = np.where(x < 1, near, far) * ((x < 2) & (row_SK < last_S[:, None]))
    weights_SK /= np.cumsum(weights_SK, axis=1)[:, -1:]  # adds one after the other, as C does
    return first_S, np.trunc(weights_SK * 2**BITS + np.copysign(0.5, weights_SK)).astype(np.int32)


@compiled
def _weighted_rows(rows, first, weights):
    """Row i of the result is the sum of weights[i, k] times row first[i] + k, rounded, in bytes."""
    count, width = rows.shape
    result = np.empty((len(first), width), np.uint8)
    sums = np.empty(width, np.int32)
    for i in range(len(first)):
        sums[:] = 1 << (BITS - 1)
        for k in range(0, weights.shape[1], TAPS):
            w0, w1, w2, w3 = weights[i, k], weights[i, k + 1], weights[i, k + 2], weights[i, k + 3]
            r0 = rows[min(first[i] + k, count - 1)]
            r1 = rows[min(first[i] + k + 1, count - 1)]
            r2 = rows[min(first[i] + k + 2, count - 1)]
            r3 = rows[min(first[i] + k + 3, count - 1)]
            for x in range(width):
                sums[x] += w0 * r0[x] + w1 * r1[x] + w2 * r2[x] + w3 * r3[x]
        for x in range(width):
            result[i, x] = min(max(sums[x] >> BITS, 0), 255)
    return result


@compiled
def _looked_up(image_HW3, table_V3):
    result = np.empty(image_HW3.shape, np.float32)
    for y in range(image_HW3.shape[0]):
        for x in range(image_HW3.shape[1]):
            for c in range(3):
                result[y, x, c] = table_V3[image_HW3[y, x, c], c]
    return result
