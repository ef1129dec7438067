"""The pixel counts behind J and F, of masks given as runs, 64 pixels at a time.

A boundary pixel differs from its east, south or south-east neighbour; the frame's last column and
row stand for the neighbours that they lack (DAVIS 2017, `_seg2bmap`). It is matched when a
boundary pixel of the other mask lies in the disk x^2 + y^2 <= radius^2 around it. A boundary is
dilated by the disk in columns: spread up and down a pixel at a time, and whenever it is as high
as the disk at distance dx, added to the columns dx to the left and right.

Axes: P predictions, T frames. `words` counts the 64-bit words of a padded column (runs.py). A box
is the range of columns that can hold pixels of a mask or its boundary.
"""

from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sola_model.masks.runs import (
    ONE,
    RunTrack,
    compiled,
    empty_track,
    flat,
    paint,
    popcount,
    tolerance,
    words_of,
)

LAST = np.uint64(63)
BLOCK = 128  # columns that are dilated at a time, in the processor's nearest caches


class PixelCounts(NamedTuple):
    """Pixels per prediction and frame, int64 (P, T) each."""

    target: NDArray[np.int64]
    prediction: NDArray[np.int64]
    shared: NDArray[np.int64]
    target_boundary: NDArray[np.int64]
    prediction_boundary: NDArray[np.int64]
    target_matched: NDArray[np.int64]
    prediction_matched: NDArray[np.int64]


def count_pixels(
    target: RunTrack, predictions: list[RunTrack], void: RunTrack | None
) -> PixelCounts:
    """Counts of every prediction against the target; the pixels of `void` are in no mask.

    Frames and sizes must agree.
    """
    height, width = target.height, target.width
    radius, words = tolerance(height, width), words_of(target)
    reach = np.array([isqrt(radius**2 - dx**2) for dx in range(radius + 1)])
    rows = np.arange(64 * words) < height - 1
    inner = np.tile(np.packbits(rows, bitorder="little").view(np.uint64), width)
    void = empty_track(height, width, len(target)) if void is None else void
    counts = _count_pixels(
        *(target.edges, target.offsets, *flat(predictions), void.edges, void.offsets),
        *(words, inner, reach),
    )
    return PixelCounts(*counts)


@compiled
def _count_pixels(
    target_edges, target_offsets, edges, offsets, void_edges, void_offsets, words, inner, reach
):
    """`inner` has the bits of all rows but the last; `reach` is the disk's height at dx."""
    frames = len(target_offsets) - 1
    predictions = (len(offsets) - 1) // frames
    width, radius = len(inner) // words, len(reach) - 1
    counts = np.zeros((7, predictions, frames), np.int64)
    # A column and a word more than the frame, for the neighbours that drawing looks at. (Rows of
    # one array would be slow: the compiler cannot tell that they do not overlap.)
    size = (width + 1) * words + 1
    target, target_boundary = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    mask, boundary = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    target_dilated, dilated = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    void = np.zeros(size, np.uint64)
    for t in range(frames):
        paint(void, void_edges, void_offsets[t], void_offsets[t + 1])
        first, last = target_offsets[t], target_offsets[t + 1]
        box = _draw(target, target_boundary, target_edges, first, last, void, words, inner)
        wide = max(box[0] - radius, 0), min(box[1] + radius, width)
        _dilate(target_boundary, target_dilated, box, wide, words, reach)
        counts[0, :, t] = _shared(target, target, box, words)
        counts[3, :, t] = _shared(target_boundary, target_boundary, box, words)
        for p in range(predictions):
            first, last = offsets[p * frames + t], offsets[p * frames + t + 1]
            box_p = _draw(mask, boundary, edges, first, last, void, words, inner)
            near = max(box_p[0], wide[0]), min(box_p[1], wide[1])
            _dilate(boundary, dilated, near, box, words, reach)
            counts[1, p, t] = _shared(mask, mask, box_p, words)
            counts[2, p, t] = _shared(target, mask, near, words)
            counts[4, p, t] = _shared(boundary, boundary, box_p, words)
            counts[5, p, t] = _shared(target_boundary, dilated, box, words)
            counts[6, p, t] = _shared(boundary, target_dilated, near, words)
            _wipe(mask, box_p, words)
            _wipe(boundary, box_p, words)
            _wipe(dilated, box, words)
        _wipe(target, box, words)
        _wipe(target_boundary, box, words)
        _wipe(target_dilated, wide, words)
        void[:] = np.uint64(0)
    return counts


@compiled
def _draw(bits, boundary, edges, first, last, void, words, inner):
    """Paint the mask without its void pixels, and its boundary; returns their box."""
    if first == last:
        return 0, 0
    paint(bits, edges, first, last)
    box = max((edges[first] >> 6) // words - 1, 0), (edges[last - 1] - 1 >> 6) // words + 1
    left, right = box[0] * words, box[1] * words
    for i in range(left, right):
        bits[i] &= ~void[i]
    if right == len(inner):
        bits[right : right + words] = bits[right - words : right]
    here, below = bits[left:right], bits[left + 1 :]
    east, below_east = bits[left + words :], bits[left + words + 1 :]
    drawn, rows = boundary[left:right], inner[left:right]
    for i in range(len(here)):
        south = here[i] >> ONE | below[i] << LAST
        south_east = east[i] >> ONE | below_east[i] << LAST
        differs = (here[i] ^ south) | (here[i] ^ south_east)
        drawn[i] = (here[i] ^ east[i]) | (differs & rows[i])
    return box


@compiled
def _dilate(boundary, dilated, box, wide, words, reach):
    """Add the boundary in the box, dilated by the disk, to the columns `wide` of `dilated`."""
    # A word of zeros at both ends, for the neighbours that spreading looks at.
    spread = np.zeros(BLOCK * words + 2, np.uint64)
    spread_next = np.zeros(BLOCK * words + 2, np.uint64)
    for left in range(box[0], box[1], BLOCK):
        right = min(left + BLOCK, box[1])
        size = (right - left) * words
        spread[1 : size + 1] = boundary[left * words : right * words]
        spread[size + 1] = spread_next[size + 1] = np.uint64(0)
        height = 0
        for dx in range(len(reach) - 1, -1, -1):
            while height < reach[dx]:
                _spread(spread[: size + 2], spread_next[1 : size + 1])
                spread, spread_next = spread_next, spread
                height += 1
            _add(spread[1 : size + 1], dilated, left - dx, wide, words)
            if dx:
                _add(spread[1 : size + 1], dilated, left + dx, wide, words)


@compiled
def _spread(bits, spread):
    """The bits between the first and last word, and those one row above and below them."""
    for i in range(len(spread)):
        here = bits[i + 1]
        spread[i] = here | here << ONE | here >> ONE | bits[i] >> LAST | bits[i + 2] << LAST


@compiled
def _add(columns, dilated, left, wide, words):
    """Add columns to those from `left` on, where they are in `wide`."""
    first = max(left, wide[0])
    last = min(left + len(columns) // words, wide[1])
    if first < last:
        source = columns[(first - left) * words :]
        target = dilated[first * words : last * words]
        for i in range(len(target)):
            target[i] |= source[i]


@compiled
def _shared(bits, others, box, words):
    """How many bits, in the box, are set in both."""
    count = np.uint64(0)
    if box[0] < box[1]:
        here, there = bits[box[0] * words : box[1] * words], others[box[0] * words :]
        for i in range(len(here)):
            count += popcount(here[i] & there[i])
    return count


@compiled
def _wipe(bits, box, words):
    bits[box[0] * words : box[1] * words] = np.uint64(0)
