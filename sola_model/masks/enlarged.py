"""Masks at a video's size from SAM2's small logits, without enlarging the logits.

The mask is `F.interpolate(logits, size, mode="bilinear") > threshold`, to the pixel. Down a column
of the video, between two rows of logits, interpolation is linear: it changes sign once at most, and
bisection finds where. Weights are read off `F.interpolate` itself; values are in double precision.
Where one is so near the threshold that rounding to single precision might decide, the logits are
enlarged after all. N logits; H and W, rows and columns of logits; Y and X, pixels.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sola_model.masks.runs import compiled

# Interpolating rounds six times, to 2^-24 of the largest of four logits; the threshold counts, too.
ROUNDING = 8 * 2.0**-24


def enlarge(logits_NHW: Tensor, size: tuple[int, int]) -> Tensor:
    """The logits at `size` (height, width), as the official predictors enlarge them."""
    return F.interpolate(logits_NHW[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def enlarged_runs(
    logits_HW: Tensor, size: tuple[int, int], threshold: float = 0.0
) -> NDArray[np.int64]:
    """The runs of pixels, down the columns, of the enlarged logits' mask, as COCO counts them.

    The first run is outside the mask and may be empty.
    """
    edges, certain = np.empty(0, np.int64), False
    if logits_HW.device.type == "cpu" and logits_HW.dtype == torch.float32:
        starts, _, upper_Y, lower_Y = _weights(logits_HW.shape[0], size[0])
        _, left_X, nearer_X, farther_X = _weights(logits_HW.shape[1], size[1])
        edges, certain = _edges(
            logits_HW.T.contiguous().numpy(), threshold,
            starts, upper_Y, lower_Y, left_X, nearer_X, farther_X,
        )  # fmt: skip
    if not certain:
        mask_YX = enlarge(logits_HW[None], size)[0] > threshold
        edges = np.flatnonzero(np.diff(mask_YX.T.flatten().cpu().numpy(), prepend=False))
    return np.diff(edges, prepend=0, append=size[0] * size[1])


@lru_cache(maxsize=16)
def _weights(small: int, large: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """How `large` pixels lie between `small` ones: where the pixels of each begin (small + 1,);
    per pixel the first of its two neighbours, its weight, and the other's."""
    weights_SL = enlarge(torch.eye(small)[None], (small, large))[0].double().numpy()
    first_L = (weights_SL > 0).argmax(0)
    weight_L = weights_SL[first_L, np.arange(large)]
    starts = np.searchsorted(first_L, np.arange(small + 1))
    return starts, first_L, weight_L, weights_SL.sum(0) - weight_L


def neighbours(small: int, large: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The two of `small` pixels that each of `large` lies between; at the end, one twice."""
    _, first_L, _, _ = _weights(small, large)
    return first_L, np.minimum(first_L + 1, small - 1)


@compiled
def _edges(logits_WH, threshold, starts, upper_Y, lower_Y, left_X, nearer_X, farther_X):
    """Where the mask begins and ends, in pixels down the columns; and whether that is certain."""
    columns, rows = logits_WH.shape
    width, height = len(left_X), len(upper_Y)
    edges = np.empty(2 * width * rows, np.int64)
    value_H, doubt_H = np.empty(rows), np.empty(rows)
    # Whether all that is interpolated from a column lies outside, without a doubt.
    outside_W = np.empty(columns, np.bool_)
    for column in range(columns):
        most, least = logits_WH[column].max(), logits_WH[column].min()
        doubt = ROUNDING * max(abs(most), abs(least), abs(threshold))
        outside_W[column] = most - threshold < -doubt
    count, inside = 0, False
    for x in range(width):
        at, beside = left_X[x], min(left_X[x] + 1, columns - 1)
        if outside_W[at] and outside_W[beside]:
            if inside:
                edges[count] = x * height
                count, inside = count + 1, False
            continue
        left, right = logits_WH[at], logits_WH[beside]
        for row in range(rows):
            value_H[row] = nearer_X[x] * left[row] + farther_X[x] * right[row] - threshold
            doubt_H[row] = ROUNDING * max(abs(left[row]), abs(right[row]), abs(threshold))
        for row in range(rows):
            first, last = starts[row], starts[row + 1] - 1
            if last < first:
                continue
            above, below = value_H[row], value_H[min(row + 1, rows - 1)]
            doubt = max(doubt_H[row], doubt_H[min(row + 1, rows - 1)])
            begin, end = above, below
            if min(abs(above), abs(below)) <= doubt or (above > 0) != (below > 0):
                begin = upper_Y[first] * above + lower_Y[first] * below
                end = upper_Y[last] * above + lower_Y[last] * below
            nearest = min(abs(begin), abs(end))
            if (begin > 0) != inside:
                edges[count] = x * height + first
                count, inside = count + 1, not inside
            if (end > 0) != inside:
                while last - first > 1:
                    middle = (first + last) // 2
                    value = upper_Y[middle] * above + lower_Y[middle] * below
                    nearest = min(nearest, abs(value))
                    if (value > 0) == inside:
                        first = middle
                    else:
                        last = middle
                edges[count] = x * height + last
                count, inside = count + 1, not inside
            if nearest <= doubt:
                return edges[:0], False
    return edges[:count].copy(), True
