"""The oracle: which tracks of a video, taken together, cover a target best.

Trying a union of tracks must be cheap. All masks of a frame cut it into cells, the sets of pixels
that exactly the same masks cover; any union's intersection with any target is a sum of cell
areas. One sweep over the runs makes the cells of a video, for all its tracks and targets.

Axes: N mask tracks, G targets, K masks of any kind, T frames, C cells of all frames, M run ends,
W words of a signature.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sola_model.masks.runs import MaskTrack, check_same_frames, flat, pack, words_of
from sola_model.metrics.jf import ratio_or_one

WORD = 63  # masks in one word of a cell's signature
PER_TRACK = 1e-9  # of mean J: of equal unions that of fewer tracks is the better
ROUNDING = 1e-12


class Cells(NamedTuple):
    """Cells of a video, frame by frame; pixels outside all masks and void pixels are in none."""

    first_T1: NDArray[np.int64]
    """The first cell of each frame, and their number."""
    area_C: NDArray[np.float64]
    in_track_CN: NDArray[np.float64]
    """1 where the track covers the cell, else 0."""
    in_target_CG: NDArray[np.bool_]


def video_cells(
    tracks: Sequence[MaskTrack], targets: Sequence[MaskTrack], void: MaskTrack | None = None
) -> Cells:
    """The cells of a video with these mask tracks and (at least one) target.

    Pixels of `void` do not count. Raises ValueError when frames or sizes differ.
    """
    masks = [pack(mask) for mask in (*tracks, *targets, *([] if void is None else [void]))]
    check_same_frames(masks)
    frames, count = len(masks[0]), len(masks)
    frame_size = words_of(masks[0]) * 64 * masks[0].width
    edges_M, offsets = flat(masks)
    masks_of_M, frame_M = np.divmod(np.repeat(np.arange(count * frames), np.diff(offsets)), frames)
    position_M = frame_M * frame_size + edges_M
    order_M = np.argsort(position_M, kind="stable")
    frame_M, length_M = frame_M[order_M], np.diff(position_M[order_M], append=0)
    # An edge flips its mask's bit: a running XOR says which masks cover the pixels up to the next.
    word_M, bit_M = np.divmod(masks_of_M[order_M], WORD)
    bits_MW = np.zeros((len(edges_M), -(-count // WORD)), np.int64)
    bits_MW[np.arange(len(edges_M)), word_M] = np.int64(1) << bit_M
    bits_MW = np.bitwise_xor.accumulate(bits_MW)
    counted_M = (length_M > 0) & bits_MW.any(axis=1)
    if void is not None:
        counted_M &= ~_covered(bits_MW, [count - 1])[:, 0]
    frame_M, length_M, bits_MW = frame_M[counted_M], length_M[counted_M], bits_MW[counted_M]
    some_C, cell_M = _distinct_rows(np.column_stack([frame_M, bits_MW]))
    covered_CK = _covered(bits_MW[some_C], range(count))
    return Cells(
        first_T1=np.searchsorted(frame_M[some_C], np.arange(frames + 1)),
        area_C=np.asarray(np.bincount(cell_M, length_M, len(some_C)), np.float64),
        in_track_CN=covered_CK[:, : len(tracks)].astype(np.float64),
        in_target_CG=covered_CK[:, len(tracks) : len(tracks) + len(targets)],
    )


def _covered(bits_XW: NDArray[np.int64], masks: Sequence[int]) -> NDArray[np.bool_]:
    """Whether these masks have their bits set (X, len(masks))."""
    word, bit = np.divmod(np.asarray(masks), WORD)
    return (bits_XW[:, word] >> bit) & 1 == 1


def _distinct_rows(values_MX: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An index of each distinct row, ordered by the first column, and each row's place there."""
    some, place_M = np.unique(values_MX[:, 0], return_index=True, return_inverse=True)[1:]
    for values_M in values_MX.T[1:]:
        _, value_M = np.unique(values_M, return_inverse=True)
        pair_M = place_M * len(values_MX) + value_M
        _, some, place_M = np.unique(pair_M, return_index=True, return_inverse=True)
    return some, place_M


def oracle_selection(cells: Cells, target: int, candidates: Sequence[int]) -> list[int]:
    """Those of the candidate tracks whose union has a high mean J with the target, sorted.

    Adding, removing or swapping one track does not improve it further. Searched from the empty
    selection and from all tracks that lie mostly inside the target; of equals the fewer tracks are
    taken. A lower bound of the best union, which takes an exponential search. For a target that is
    empty everywhere it is the best one, no track.
    """
    in_target_C = cells.in_target_CG[:, target]
    hit_N, all_N = (
        weight_C @ cells.in_track_CN for weight_C in (cells.area_C * in_target_C, cells.area_C)
    )
    useful = [n for n in candidates if hit_N[n] > 0]
    search = _Search(cells, in_target_C, useful)
    inside = [place for place, n in enumerate(useful) if 2 * hit_N[n] > all_N[n]]
    _, chosen = max((search.improved(start) for start in ([], inside)), key=lambda found: found[0])
    return sorted(useful[place] for place in chosen)


class _Search:
    """Mean J of unions of the useful tracks with one target."""

    def __init__(self, cells: Cells, in_target_C: NDArray[np.bool_], useful: list[int]) -> None:
        self.first_T1, self.area_C, self.in_target_C = cells.first_T1, cells.area_C, in_target_C
        # The last column is the empty track: adding it changes nothing.
        self.in_track_CU = np.pad(cells.in_track_CN[:, useful], ((0, 0), (0, 1)))
        self.target_T = self._per_frame(in_target_C, np.ones((len(self.area_C), 1)))[:, 0]

    def improved(self, chosen: list[int]) -> tuple[float, list[int]]:
        """The selection, changed by one track at a time while that helps, after its value."""
        none = self.in_track_CU.shape[1] - 1
        best = self.value_with_each(chosen)[none]
        while True:
            bases = [chosen, *([n for n in chosen if n != gone] for gone in chosen)]
            value_BU = np.array([self.value_with_each(base) for base in bases])
            base, added = np.unravel_index(value_BU.argmax(), value_BU.shape)
            if value_BU[base, added] <= best + ROUNDING:
                return best, chosen
            best = value_BU[base, added]
            chosen = [*bases[base], *([] if added == none else [int(added)])]

    def value_with_each(self, chosen: list[int]) -> NDArray[np.float64]:
        """Mean J of the chosen tracks together with each one of the useful (U,), less PER_TRACK."""
        covered_C = np.logical_or.reduce(self.in_track_CU[:, chosen], axis=1)
        covered_C1 = covered_C[:, None].astype(np.float64)
        inside_T1 = self._per_frame(self.in_target_C, covered_C1)
        outside_T1 = self._per_frame(~self.in_target_C, covered_C1)
        inside_TU = inside_T1 + self._per_frame(self.in_target_C & ~covered_C, self.in_track_CU)
        outside_TU = outside_T1 + self._per_frame(~self.in_target_C & ~covered_C, self.in_track_CU)
        j_U = ratio_or_one(inside_TU, self.target_T[:, None] + outside_TU).mean(axis=0)
        tracks_U = np.full(len(j_U), len(chosen) + 1)
        tracks_U[-1] -= 1
        return j_U - PER_TRACK * tracks_U

    def _per_frame(
        self, which_C: NDArray[np.bool_], weight_CX: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Pixels of the cells `which`, weighted, summed by frame (T, X)."""
        cells = len(self.area_C)
        frames = csr_array(
            (self.area_C * which_C, np.arange(cells), self.first_T1),
            shape=(len(self.first_T1) - 1, cells),
        )
        return frames @ weight_CX
