"""Masks as runs and as bits: what the metrics compute with, without ever decoding to arrays.

A COCO mask lists its runs of pixels down the columns. Here every column is padded to whole 64-bit
words, by at least the tolerance of the boundary measure, so that shifting a mask up or down by so
much keeps its columns apart. A run is [start, end) in the padded order. Painting the runs gives
one bit per pixel, and operations on masks are operations on words. The compiled functions take a
track's runs as flat arrays: frame t has the starts and ends edges[offsets[t] : offsets[t + 1]],
alternating and ascending.

Axes: N mask tracks, O objects, T frames, H and W in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

ALL = np.uint64(2**64 - 1)
ONE = np.uint64(1)


class RLE(TypedDict):
    """A compressed COCO run-length mask: size is [height, width]."""

    size: list[int]
    counts: str | bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class RunTrack:
    """One mask per frame, as runs; `len` is the number of frames T. `pack` makes it of RLE."""

    height: int
    width: int
    edges: NDArray[np.int32]
    offsets: NDArray[np.int64]  # (T + 1,)

    def __len__(self) -> int:
        return len(self.offsets) - 1


MaskTrack = Sequence[RLE] | RunTrack
"""One mask per frame: a mask track, an object's ground truth or a prediction."""


def pack(track: MaskTrack) -> RunTrack:
    """The track as runs; one that is runs already is returned as it is.

    Raises ValueError for a track without frames, with several sizes, or with RLE counts that are
    malformed or do not fill the mask.
    """
    if isinstance(track, RunTrack):
        return track
    check_same_frames([track])
    height, width = track[0]["size"]
    texts = [
        mask["counts"].encode() if isinstance(mask["counts"], str) else mask["counts"]
        for mask in track
    ]
    bounds = np.cumsum([0, *map(len, texts)])
    codes = np.frombuffer(b"".join(texts), np.uint8)
    edges, offsets, bad = _parse(codes, bounds, height, width, 64 * _words(height, width))
    if bad >= 0:
        raise ValueError(
            f"frame {bad}: the RLE counts are no mask of {height} x {width} pixels "
            "(height x width); encode it again, with pycocotools for example."
        )
    return RunTrack(height=height, width=width, edges=edges, offsets=offsets)


def empty_track(height: int, width: int, frames: int) -> RunTrack:
    """A track without a pixel."""
    offsets = np.zeros(frames + 1, np.int64)
    return RunTrack(height=height, width=width, edges=np.empty(0, np.int32), offsets=offsets)


def union(tracks: Sequence[MaskTrack]) -> RunTrack:
    """Per frame the union of the tracks, at least one. Raises ValueError as `pack` does, and
    when frames or sizes differ."""
    packed = [pack(track) for track in tracks]
    check_same_frames(packed)
    if len(packed) == 1:
        return packed[0]
    height, width = packed[0].height, packed[0].width
    edges, offsets = _unions(*flat(packed), len(packed[0]), words_of(packed[0]) * width)
    return RunTrack(height=height, width=width, edges=edges, offsets=offsets)


def areas_of(track: RunTrack) -> NDArray[np.int64]:
    """Pixels of each frame's mask (T,)."""
    pixels = np.cumsum(track.edges[1::2] - track.edges[::2], dtype=np.int64)
    return np.diff(np.concatenate([[0], pixels])[track.offsets // 2])


def intersections_of(tracks: Sequence[RunTrack], objects: Sequence[RunTrack]) -> NDArray[np.int64]:
    """Pixels that each track shares with each object (T, N, O); frames and sizes must agree."""
    first = objects[0]
    counts = (len(first), len(tracks), len(objects))
    size = words_of(first) * first.width
    return _intersections(*flat(tracks), *flat(objects), counts, size)


def check_same_frames(mask_tracks: Sequence[MaskTrack]) -> None:
    """Raise ValueError unless all have the same number of frames (at least one) and one size."""
    lengths = {len(masks) for masks in mask_tracks}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"masks cover {sorted(lengths)} frames; all must cover the same frames, at least one. "
            "Give an empty RLE for every frame in which there is no mask."
        )
    sizes: set[tuple[int, int]] = set()
    for masks in mask_tracks:
        if isinstance(masks, RunTrack):
            sizes.add((masks.height, masks.width))
        else:
            sizes.update((height, width) for height, width in (mask["size"] for mask in masks))
    if len(sizes) > 1:
        raise ValueError(
            f"masks have sizes (height, width) {sorted(sizes)}; all must have the video's size. "
            "Resize them to it first."
        )


def tolerance(height: int, width: int) -> int:
    """The radius in pixels within which boundaries match: 0.008 of the frame's diagonal, up."""
    return int(np.ceil(0.008 * np.linalg.norm((height, width))))


def words_of(track: RunTrack) -> int:
    """64-bit words in a padded column."""
    return _words(track.height, track.width)


def _words(height: int, width: int) -> int:
    return (height + tolerance(height, width) + 63) // 64


def flat(tracks: Sequence[RunTrack]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Edges of all tracks in a row, and offsets (len(tracks) * T + 1,) into them."""
    starts = np.cumsum([0, *(len(track.edges) for track in tracks)])
    parts = [track.offsets[:-1] + start for track, start in zip(tracks, starts, strict=False)]
    return np.concatenate([t.edges for t in tracks]), np.concatenate([*parts, starts[-1:]])


def compiled(function: Callable) -> Callable:
    """Compile with numba; keep the machine code for later processes if any folder allows it."""
    try:
        return njit(function, nogil=True, cache=True)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return njit(function, nogil=True)


@intrinsic
def popcount(_, word):
    """The number of bits set in a 64-bit word."""
    return types.uint64(types.uint64), lambda _, builder, signature, args: builder.ctpop(args[0])


@compiled
def _parse(codes, bounds, height, width, column):
    """Edges and offsets of the masks with compressed counts codes[bounds[t] : bounds[t + 1]].

    `column` is the padded height. The third result is the first frame whose counts do not fill it
    exactly, or -1. The format (cocoapi, maskApi.c, rleFrString): numbers in groups of 5 bits,
    lowest first, 48 added to each; bit 5 says that the number goes on, bit 4 of its last group is
    the sign; from the fourth run on, a number is the difference to the run before the previous
    one.
    """
    frames = len(bounds) - 1
    edges = np.empty(len(codes) + 2 * frames * (width + 1), np.int32)
    offsets = np.zeros(frames + 1, np.int64)
    filled = 0
    for t in range(frames):
        x, y, total = 0, 0, 0
        length, before, previous, runs = 0, 0, 0, 0
        shift = 0
        for i in range(bounds[t], bounds[t + 1]):
            code = np.int64(codes[i]) - 48
            if code < 0 or code > 63 or shift > 30:
                return edges, offsets, t
            length |= (code & 31) << shift
            shift += 5
            if code & 32:
                continue
            if code & 16:
                length -= 1 << shift
            if runs > 2:
                length += before
            total += length
            if length < 0 or total > height * width:
                return edges, offsets, t
            before, previous = previous, length
            foreground = runs & 1
            rest = length
            while rest > 0:
                step = min(rest, height - y)
                if foreground:
                    edges[filled] = x * column + y
                    edges[filled + 1] = x * column + y + step
                    filled += 2
                y += step
                rest -= step
                if y == height:
                    x, y = x + 1, 0
            runs += 1
            length, shift = 0, 0
        if shift or total != height * width:
            return edges, offsets, t
        offsets[t + 1] = filled
    return edges[:filled].copy(), offsets, -1


@compiled
def paint(bits, edges, first, last):
    """Set the bits of the runs edges[first:last]."""
    for i in range(first, last, 2):
        start, final = edges[i], edges[i + 1] - 1
        word, last_word = start >> 6, final >> 6
        head = ALL << np.uint64(start & 63)
        tail = ALL >> np.uint64(63 - (final & 63))
        if word == last_word:
            bits[word] |= head & tail
        else:
            bits[word] |= head
            bits[word + 1 : last_word] = ALL
            bits[last_word] |= tail


@compiled
def _unions(edges, offsets, frames, size):
    """Edges and offsets of the union, in each frame, of all tracks in `flat` arrays."""
    bits = np.zeros(size, np.uint64)
    merged = np.empty(len(edges), np.int32)
    merged_offsets = np.zeros(frames + 1, np.int64)
    filled = 0
    for t in range(frames):
        low, high = size, 0
        for n in range(t, len(offsets) - 1, frames):
            if offsets[n] < offsets[n + 1]:
                paint(bits, edges, offsets[n], offsets[n + 1])
                low = min(low, edges[offsets[n]] >> 6)
                high = max(high, (edges[offsets[n + 1] - 1] - 1 >> 6) + 1)
        carry = np.uint64(0)
        for i in range(low, high):
            word = bits[i]
            changes = word ^ (word << ONE | carry)
            carry = word >> np.uint64(63)
            bits[i] = np.uint64(0)
            while changes:
                lowest = changes & (~changes + ONE)
                merged[filled] = i * 64 + np.int64(popcount(lowest - ONE))
                filled += 1
                changes ^= lowest
        if carry:
            merged[filled] = high * 64
            filled += 1
        merged_offsets[t + 1] = filled
    return merged[:filled].copy(), merged_offsets


@compiled
def _intersections(track_edges, track_offsets, object_edges, object_offsets, counts, size):
    frames, tracks, objects = counts
    shared = np.zeros((frames, tracks, objects), np.int64)
    bits = np.zeros(size, np.uint64)
    for t in range(frames):
        for o in range(objects):
            first, last = object_offsets[o * frames + t], object_offsets[o * frames + t + 1]
            if first == last:
                continue
            paint(bits, object_edges, first, last)
            left, right = object_edges[first], object_edges[last - 1]
            for n in range(tracks):
                begin, end = track_offsets[n * frames + t], track_offsets[n * frames + t + 1]
                shared[t, n, o] = _painted(bits, track_edges, begin, end, left, right)
            bits[left >> 6 : (right >> 6) + 1] = np.uint64(0)
    return shared


@compiled
def _painted(bits, edges, first, last, left, right):
    """How many bits of the runs edges[first:last] are set; all set bits are in [left, right)."""
    count = np.uint64(0)
    for i in range(first, last, 2):
        start, final = edges[i], edges[i + 1] - 1
        if final < left:
            continue
        if start >= right:
            break
        word, last_word = start >> 6, final >> 6
        head = ALL << np.uint64(start & 63)
        tail = ALL >> np.uint64(63 - (final & 63))
        if word == last_word:
            count += popcount(bits[word] & head & tail)
        else:
            count += popcount(bits[word] & head) + popcount(bits[last_word] & tail)
            for k in range(word + 1, last_word):
                count += popcount(bits[k])
    return np.int64(count)
