"""Masks at the size at which the release compares prompts with tracks, and their IoU.

The release resizes masks with `F.interpolate`: those of prompts by nearest neighbour, those of
tracks bilinearly, above 0.5. Here runs become runs. A bilinear pixel is decided by four neighbours:
which of their 16 patterns are inside is asked of `F.interpolate` itself, once for each size, so
ties are decided as there. H and W, rows and columns of the video; Y and X, of the size compared at.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sola_model.masks.enlarged import neighbours
from sola_model.masks.runs import RLE, RunTrack, compiled, empty_track, flat, pack, words_of

COMPARED_AT = (540, 960)  # (height, width), turned unless the mask is wider than it is high


def at_compared_size(masks: Sequence[RLE], *, nearest: bool) -> RunTrack:
    """Masks of one size (at least one) at the size for comparisons.

    Raises ValueError as `pack` does.
    """
    packed = pack(masks)
    height, width = COMPARED_AT if packed.height < packed.width else COMPARED_AT[::-1]
    maps = (_nearest if nearest else _bilinear)((packed.height, packed.width), (height, width))
    column, new_column = 64 * words_of(packed), 64 * words_of(empty_track(height, width, 0))
    edges, offsets = _resized(
        packed.edges, packed.offsets, packed.height, column, new_column, *maps
    )
    return RunTrack(height=height, width=width, edges=edges, offsets=offsets)


def pairwise_iou(
    a: Sequence[RunTrack], b: Sequence[RunTrack], above: float = -1.0
) -> NDArray[np.float64]:
    """IoU of every mask of `a` with every mask of `b`; 1 where both are empty.

    Args:
        above: a pair whose areas say that its IoU is not above this has 0 instead.
    """
    return _iou(*flat(a), *flat(b), above)


@lru_cache(maxsize=8)
def _nearest(size: tuple[int, int], compared: tuple[int, int]) -> tuple[NDArray, ...]:
    """The pixel nearest to each row and column, twice, as `_bilinear` has two."""
    row_Y, column_X = (
        F.interpolate(torch.arange(n).float()[None, None], m)[0, 0].long().numpy()
        for n, m in zip(size, compared, strict=True)
    )
    return row_Y, row_Y, column_X, column_X, np.zeros((1, 1), np.uint16)


@lru_cache(maxsize=8)
def _bilinear(size: tuple[int, int], compared: tuple[int, int]) -> tuple[NDArray, ...]:
    """The neighbours of each row (above, below) and column (left, right), and inside_XY.

    Bit p of inside_XY says whether a pixel with the pattern p of neighbours is inside, where p has
    the bits above left, below left, above right, below right, lowest first.
    """
    (above_Y, below_Y), (left_X, right_X) = map(neighbours, size, compared)
    inside_YX = np.zeros(compared, np.uint16)
    for pattern in range(16):
        # Repeated over the frame, two by two pixels give every pixel one of the patterns. Columns
        # are contiguous, as in a mask that pycocotools decodes.
        tile_22 = (pattern >> np.arange(4) & 1).astype(np.uint8).reshape(2, 2)
        tiled = np.tile(tile_22, [side // 2 + 1 for side in size])
        mask_HW = np.asfortranarray(tiled[: size[0], : size[1]])
        value_11YX = F.interpolate(
            torch.from_numpy(mask_HW)[None, None].float(),
            compared, mode="bilinear", align_corners=False,
        )  # fmt: skip
        pattern_YX = sum(
            mask_HW[np.ix_(rows, columns)].astype(np.uint16) << bit
            for bit, (columns, rows) in enumerate(
                (columns, rows) for columns in (left_X, right_X) for rows in (above_Y, below_Y)
            )
        )
        inside_YX |= (value_11YX[0, 0] > 0.5).numpy().astype(np.uint16) << pattern_YX
    return above_Y, below_Y, left_X, right_X, np.ascontiguousarray(inside_YX.T)


@compiled
def _resized(edges, offsets, height, column, new_column, above_Y, below_Y, left_X, right_X, inside):
    """Edges and offsets of the resized masks; columns have so many bits, before and after."""
    masks, rows, columns = len(offsets) - 1, len(above_Y), len(left_X)
    found = np.empty(masks * columns * (rows + 1), np.int32)
    found_offsets = np.zeros(masks + 1, np.int64)
    first_below = np.searchsorted(below_Y, np.arange(height + 1))
    first_above = np.searchsorted(above_Y, np.arange(height + 1))
    # Of the left and the right column: at each pixel the end of its run, 0 outside; where they lie.
    ends_2H = np.zeros((2, height), np.int32)
    extent_22 = np.zeros((2, 2), np.int64)
    count = 0
    for m in range(masks):
        begin = offsets[m]
        for x in range(columns):
            while begin < offsets[m + 1] and edges[begin] < left_X[x] * column:
                begin += 2
            low, high = height, 0
            for side, at in enumerate((left_X[x], right_X[x])):
                ends_2H[side, extent_22[side, 0] : extent_22[side, 1]] = 0
                first, last = height, 0
                i = begin
                while i < offsets[m + 1] and edges[i] < (at + 1) * column:
                    if edges[i] >= at * column:
                        start, last = edges[i] - at * column, edges[i + 1] - at * column
                        first = min(first, start)
                        ends_2H[side, start:last] = last
                    i += 2
                extent_22[side] = first, max(first, last)
                low, high = min(low, first), max(high, last)
            if low >= high:
                continue
            left_H, right_H = ends_2H
            within = False
            y, stop = first_below[low], first_above[high]
            while y < stop:
                above, below = above_Y[y], below_Y[y]
                pattern = (
                    np.int64(left_H[above] > 0)
                    | np.int64(left_H[below] > 0) << 1
                    | np.int64(right_H[above] > 0) << 2
                    | np.int64(right_H[below] > 0) << 3
                )
                now = pattern == 15 or (pattern > 0 and inside[x, y] >> pattern & 1 == 1)
                if now != within:
                    found[count] = x * new_column + y
                    count, within = count + 1, now
                y += 1
                if pattern == 15:  # and so on, as long as both runs last
                    y = max(y, first_below[min(left_H[below], right_H[below])])
            if within:
                found[count] = x * new_column + stop
                count += 1
        found_offsets[m + 1] = count
    return found[:count].copy(), found_offsets


@compiled
def _iou(a_edges, a_offsets, b_edges, b_offsets, above):
    iou_AB = np.zeros((len(a_offsets) - 1, len(b_offsets) - 1))
    a_areas, b_areas = _areas(a_edges, a_offsets), _areas(b_edges, b_offsets)
    for a, area in enumerate(a_areas):
        for b, other in enumerate(b_areas):
            if area == 0 and other == 0:
                iou_AB[a, b] = 1.0
            elif min(area, other) / max(area, other) > above:
                i, j, shared = a_offsets[a], b_offsets[b], 0
                while i < a_offsets[a + 1] and j < b_offsets[b + 1]:
                    start, end = max(a_edges[i], b_edges[j]), min(a_edges[i + 1], b_edges[j + 1])
                    shared += max(0, end - start)
                    if a_edges[i + 1] < b_edges[j + 1]:
                        i += 2
                    else:
                        j += 2
                iou_AB[a, b] = shared / (area + other - shared)
    return iou_AB


@compiled
def _areas(edges, offsets):
    areas = np.zeros(len(offsets) - 1, np.int64)
    for n in range(len(areas)):
        for i in range(offsets[n], offsets[n + 1], 2):
            areas[n] += edges[i + 1] - edges[i]
    return areas
