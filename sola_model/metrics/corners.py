"""Corners: what F of any union of tracks is a sum over.

Whether a pixel lies on a mask's boundary is decided by the pixel and its east, south and
south-east neighbour (sola_model/metrics/boundary.py), so for a union of tracks by which tracks
cover each of the four. Pixels alike in that, and in whether they lie near the target's boundary,
are one corner of a frame. A boundary pixel of the target is matched when one of the corners
within the tolerance is on the union's boundary; those with the same corners around are one group.

Axes: K corners and G groups of a frame, P and X pixels, R pixels of the target's boundary, V words
of a row that is compared, W words of the set of tracks that cover a pixel, as bits.
"""

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sola_model.masks.runs import ONE, RunTrack, compiled, empty_track, flat, tolerance, words_of


class FrameCorners(NamedTuple):
    """The corners of a frame, and the groups of the target's boundary pixels."""

    covers_K4W: NDArray[np.uint64]
    """The tracks that cover the pixel and each of its three neighbours."""
    near_K: NDArray[np.bool_]
    """Whether its pixels are within the tolerance of the target's boundary."""
    count_K: NDArray[np.int64]
    group_count_G: NDArray[np.int64]
    group_size_G: NDArray[np.int64]
    """How many corners are around each group."""
    around: NDArray[np.int64]
    """These corners by number, group after group."""


def frame_corners(
    tracks: Sequence[RunTrack], target: RunTrack, void: RunTrack | None = None
) -> Iterator[FrameCorners]:
    """The corners of each frame of these tracks, at least one; void pixels are in no mask.

    Frames and sizes must agree.
    """
    height, width, column = target.height, target.width, 64 * words_of(target)
    void = empty_track(height, width, len(target)) if void is None else void
    radius = tolerance(height, width)
    reach = np.array([isqrt(radius**2 - dx**2) for dx in range(radius + 1)])
    size = (height, width, column)
    edges, offsets = flat(tracks)
    words = -(-len(tracks) // 64)
    image_PW = np.zeros((width * column, words), np.uint64)
    target_P1 = np.zeros((width * column, 1), np.uint64)
    near_P, corner_P = np.zeros(width * column, np.bool_), np.full(width * column, -1)
    for t in range(len(target)):
        hidden = void.edges[void.offsets[t] : void.offsets[t + 1]]
        shown = target.edges[target.offsets[t] : target.offsets[t + 1]]
        _cover(image_PW, edges, offsets, t, len(target), hidden)
        _cover(target_P1, shown, np.array([0, len(shown)]), 0, 1, hidden)
        pixel_X, covers_X4W = _changes(image_PW, size)
        boundary_R = _changes(target_P1, size)[0]
        _mark(near_P, boundary_R, reach, size)
        near_X = near_P[pixel_X]
        rows_XV = np.column_stack([near_X, covers_X4W.reshape(len(pixel_X), 4 * words)])
        some_K, corner_X, count_K = _distinct(rows_XV)
        corner_P[pixel_X[near_X]] = corner_X[near_X]
        around_RV = _around(corner_P, boundary_R, reach, size, len(some_K))
        some_G, _, group_count_G = _distinct(around_RV)
        bits_GK = np.unpackbits(around_RV[some_G].view(np.uint8), axis=1, bitorder="little")
        yield FrameCorners(
            covers_K4W=covers_X4W[some_K],
            near_K=near_X[some_K],
            count_K=count_K,
            group_count_G=group_count_G,
            group_size_G=bits_GK.sum(axis=1, dtype=np.int64),
            around=np.nonzero(bits_GK)[1],
        )
        for pixels in (image_PW, target_P1, near_P):
            pixels[:] = 0
        corner_P[:] = -1


def _distinct(
    rows_XV: NDArray[np.uint64],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """An index of each distinct row, each row's place among them, and how many are alike."""
    order_X = np.lexsort(rows_XV.T)
    sorted_XV = rows_XV[order_X]
    new_X = np.ones(len(rows_XV), bool)
    new_X[1:] = (sorted_XV[1:] != sorted_XV[:-1]).any(axis=1)
    place_X = np.empty(len(rows_XV), np.intp)
    place_X[order_X] = np.cumsum(new_X) - 1
    return order_X[new_X], place_X, np.bincount(place_X, minlength=int(new_X.sum()))


@compiled
def _cover(image_PW, edges, offsets, t, frames, hidden):
    """Set the bits of the tracks' runs in frame t, and clear those of hidden pixels."""
    for n in range((len(offsets) - 1) // frames):
        bit = ONE << np.uint64(n & 63)
        first, last = offsets[n * frames + t], offsets[n * frames + t + 1]
        for i in range(first, last, 2):
            for p in range(edges[i], edges[i + 1]):
                image_PW[p, n >> 6] |= bit
    for i in range(0, len(hidden), 2):
        image_PW[hidden[i] : hidden[i + 1]] = np.uint64(0)


@compiled
def _changes(image_PW, size):
    """Pixels (X,) that differ from a neighbour; what covers each and its three neighbours."""
    height, width, column = size
    words = image_PW.shape[1]
    differs_P = np.zeros(len(image_PW), np.bool_)
    count = 0
    for x in range(width):
        east = column if x < width - 1 else 0
        for y in range(height):
            p, south = x * column + y, 1 if y < height - 1 else 0
            for w in range(words):
                here = image_PW[p, w]
                if (
                    image_PW[p + east, w] != here
                    or image_PW[p + south, w] != here
                    or image_PW[p + east + south, w] != here
                ):
                    differs_P[p] = True
            count += differs_P[p]
    pixel_X, covers_X4W = np.empty(count, np.int64), np.empty((count, 4, words), np.uint64)
    filled = 0
    for x in range(width):
        east = column if x < width - 1 else 0
        for y in range(height):
            p, south = x * column + y, 1 if y < height - 1 else 0
            if differs_P[p]:
                pixel_X[filled] = p
                covers_X4W[filled, 0] = image_PW[p]
                covers_X4W[filled, 1] = image_PW[p + east]
                covers_X4W[filled, 2] = image_PW[p + south]
                covers_X4W[filled, 3] = image_PW[p + east + south]
                filled += 1
    return pixel_X, covers_X4W


@compiled
def _mark(near_P, boundary_R, reach, size):
    """Mark the pixels in the disk around each boundary pixel; `reach` is its height at dx."""
    height, width, column = size
    radius = len(reach) - 1
    for r in boundary_R:
        x, y = r // column, r % column
        for other in range(max(x - radius, 0), min(x + radius + 1, width)):
            high = reach[abs(other - x)]
            for p in range(max(y - high, 0), min(y + high + 1, height)):
                near_P[other * column + p] = True


@compiled
def _around(corner_P, boundary_R, reach, size, corners):
    """Bits of the corners in the disk around each boundary pixel (R, V)."""
    height, width, column = size
    radius = len(reach) - 1
    around_RV = np.zeros((len(boundary_R), corners // 64 + 1), np.uint64)
    for n in range(len(boundary_R)):
        x, y = boundary_R[n] // column, boundary_R[n] % column
        for other in range(max(x - radius, 0), min(x + radius + 1, width)):
            high = reach[abs(other - x)]
            for p in range(max(y - high, 0), min(y + high + 1, height)):
                corner = corner_P[other * column + p]
                if corner >= 0:
                    around_RV[n, corner >> 6] |= ONE << np.uint64(corner & 63)
    return around_RV
