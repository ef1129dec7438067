"""What a union of mask tracks scores with a target, and what any union of some can score.

A set of tracks that are chosen, and one of those that may be, chosen ones among them: the value is
of the chosen ones, the bound of them with any of the others. Frame by frame:

    J   the other tracks that add fewer pixels outside the target than some limit add no more
        inside than they cover together, and one of them adds that many outside: the best limit
    F   the union's boundary is where it must be, away from the target's, and wherever it can be
        near the target's (sola_model/metrics/corners.py)

Axes: N mask tracks, T frames, C cells and K corners of all frames, G groups of the target's
boundary pixels, W words of a set of tracks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sola_model.masks.runs import ONE, RunTrack, compiled, popcount
from sola_model.metrics.corners import frame_corners
from sola_model.metrics.oracle import Cells


class ScoredVideo(NamedTuple):
    """What unions of tracks score with a target: cells and corners of all frames in a row.

    `_first_` has for each frame, or group, where its first one is, and their number at the end.
    """

    tracks: int
    target_T: NDArray[np.int64]
    cell_first_T1: NDArray[np.int64]
    cell_area_C: NDArray[np.int64]
    inside_C: NDArray[np.bool_]
    cell_covers_CW: NDArray[np.uint64]
    corner_first_T1: NDArray[np.int64]
    corner_covers_K4W: NDArray[np.uint64]
    near_K: NDArray[np.bool_]
    count_K: NDArray[np.int64]
    boundary_T: NDArray[np.int64]
    group_first_T1: NDArray[np.int64]
    group_count_G: NDArray[np.int64]
    around_first_G1: NDArray[np.int64]
    around: NDArray[np.int64]

    def cost(self, with_f: bool) -> int:
        """What one score visits."""
        words = self.cell_covers_CW.shape[1]
        visited = 2 * words * len(self.cell_area_C)
        if with_f:
            visited += 4 * words * len(self.near_K) + len(self.around)
        return max(visited, 1)


def scored_video(
    cells: Cells, tracks: Sequence[RunTrack], target: RunTrack, void: RunTrack | None
) -> ScoredVideo:
    """Of these tracks, at least one, and their cells with the target."""
    frames, words = len(target), -(-len(tracks) // 64)
    inside_C = cells.in_target_CG[:, 0]
    frame_C = np.repeat(np.arange(frames), np.diff(cells.first_T1))
    covers_CB = np.zeros((len(inside_C), 8 * words), np.uint8)
    bytes_CB = np.packbits(cells.in_track_CN > 0, axis=1, bitorder="little")
    covers_CB[:, : bytes_CB.shape[1]] = bytes_CB
    corners = list(frame_corners(tracks, target, void))
    corner_first_T1 = _starts([len(frame.near_K) for frame in corners])
    around_sizes = np.concatenate([frame.group_size_G for frame in corners])
    numbered = zip(corners, corner_first_T1, strict=False)
    return ScoredVideo(
        tracks=len(tracks),
        target_T=np.bincount(frame_C, cells.area_C * inside_C, frames).astype(np.int64),
        cell_first_T1=cells.first_T1,
        cell_area_C=cells.area_C.astype(np.int64),
        inside_C=inside_C,
        cell_covers_CW=covers_CB.view(np.uint64),
        corner_first_T1=corner_first_T1,
        corner_covers_K4W=np.concatenate([frame.covers_K4W for frame in corners]),
        near_K=np.concatenate([frame.near_K for frame in corners]),
        count_K=np.concatenate([frame.count_K for frame in corners]),
        boundary_T=np.array([frame.group_count_G.sum() for frame in corners]),
        group_first_T1=_starts([len(frame.group_count_G) for frame in corners]),
        group_count_G=np.concatenate([frame.group_count_G for frame in corners]),
        around_first_G1=_starts(around_sizes),
        around=np.concatenate([frame.around + first for frame, first in numbered]),
    )


def _starts(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


@compiled
def flipped(video, chosen_W, with_f):
    """The value of each set that differs by one track (N,)."""
    value_N = np.empty(video.tracks)
    set_W = chosen_W.copy()
    for n in range(video.tracks):
        bit = ONE << np.uint64(n & 63)
        set_W[n >> 6] ^= bit
        value_N[n] = score(video, set_W, set_W, with_f)[0]
        set_W[n >> 6] ^= bit
    return value_N


@compiled
def probe(video, chosen_W, open_W, with_f):
    """For each open track: the value of the chosen with it; bounds with it and without it (N,)."""
    value_N = np.full(video.tracks, -np.inf)
    with_N, without_N = np.full(video.tracks, np.inf), np.full(video.tracks, np.inf)
    chosen_W, may_W = chosen_W.copy(), chosen_W | open_W
    for n in range(video.tracks):
        w, bit = n >> 6, ONE << np.uint64(n & 63)
        if open_W[w] & bit:
            chosen_W[w] |= bit
            value_N[n], with_N[n] = score(video, chosen_W, may_W, with_f)
            chosen_W[w] ^= bit
            may_W[w] ^= bit
            without_N[n] = score(video, chosen_W, may_W, with_f)[1]
            may_W[w] |= bit
    return value_N, with_N, without_N


@compiled
def score(video, chosen_W, may_W, with_f):
    """The value of the chosen tracks, and a bound of it with any of those that it may have."""
    frames = len(video.target_T)
    value, bound = _j(video, chosen_W, may_W)
    if with_f:
        f, f_bound = _f(video, chosen_W, may_W)
        value, bound = (value + f) / 2, (bound + f_bound) / 2
    return value / frames, bound / frames


@compiled
def _j(video, chosen_W, may_W):
    """The sum of J over frames, and its bound."""
    value, bound = 0.0, 0.0
    words = len(chosen_W)
    cost_N, gain_N = np.zeros(video.tracks, np.int64), np.zeros(video.tracks, np.int64)
    state_C = np.zeros(len(video.cell_area_C), np.int8)  # 2: covered, 1: may be
    for t in range(len(video.target_T)):
        first, last = video.cell_first_T1[t], video.cell_first_T1[t + 1]
        inside, outside, more = 0, 0, False
        cost_N[:] = 0
        gain_N[:] = 0
        for c in range(first, last):
            state_C[c] = _state(video.cell_covers_CW[c], chosen_W, may_W)
            if state_C[c] == 2:
                if video.inside_C[c]:
                    inside += video.cell_area_C[c]
                else:
                    outside += video.cell_area_C[c]
            elif state_C[c] == 1:
                if video.inside_C[c]:
                    more = True
                else:
                    for w in range(words):
                        bits = video.cell_covers_CW[c, w] & may_W[w]
                        while bits:
                            cost_N[64 * w + _lowest(bits)] += video.cell_area_C[c]
                            bits &= bits - ONE
        whole = video.target_T[t] + outside
        now = inside / whole if whole else 1.0
        value += now
        most = now
        if more:
            for c in range(first, last):
                if state_C[c] == 1 and video.inside_C[c]:
                    cheapest = -1
                    for w in range(words):
                        bits = video.cell_covers_CW[c, w] & may_W[w]
                        while bits:
                            n = 64 * w + _lowest(bits)
                            if cheapest < 0 or cost_N[n] < cost_N[cheapest]:
                                cheapest = n
                            bits &= bits - ONE
                    gain_N[cheapest] += video.cell_area_C[c]
            while True:
                cheapest = -1
                for n in range(video.tracks):
                    if gain_N[n] and (cheapest < 0 or cost_N[n] < cost_N[cheapest]):
                        cheapest = n
                if cheapest < 0:
                    break
                inside += gain_N[cheapest]
                gain_N[cheapest] = 0
                most = max(most, inside / (whole + cost_N[cheapest]))
        bound += most
    return value, bound


@compiled
def _state(covers_W, chosen_W, may_W):
    """2: one of the chosen tracks is among these, 1: one that may be chosen, 0: none."""
    state = 0
    for w in range(len(chosen_W)):
        if covers_W[w] & chosen_W[w]:
            return 2
        if covers_W[w] & may_W[w]:
            state = 1
    return state


@compiled
def _lowest(bits):
    """The position of the lowest bit that is set."""
    return np.int64(popcount((bits & (~bits + ONE)) - ONE))


@compiled
def _f(video, chosen_W, may_W):
    """The sum of F over frames, and its bound."""
    value, bound = 0.0, 0.0
    is_K, may_K = np.zeros(len(video.near_K), np.bool_), np.zeros(len(video.near_K), np.bool_)
    for t in range(len(video.target_T)):
        near, far, near_may, far_must, must = 0, 0, 0, 0, 0
        for k in range(video.corner_first_T1[t], video.corner_first_T1[t + 1]):
            is_K[k], may_K[k], must_be = _drawn(video.corner_covers_K4W[k], chosen_W, may_W)
            count = video.count_K[k]
            must += must_be * count
            if video.near_K[k]:
                near += is_K[k] * count
                near_may += may_K[k] * count
            else:
                far += is_K[k] * count
                far_must += must_be * count
        if not video.boundary_T[t]:
            value += near + far == 0
            bound += must == 0
            continue
        matched, matched_may = 0, 0
        for g in range(video.group_first_T1[t], video.group_first_T1[t + 1]):
            there, possible = False, False
            for i in range(video.around_first_G1[g], video.around_first_G1[g + 1]):
                there |= is_K[video.around[i]]
                possible |= may_K[video.around[i]]
            matched += there * video.group_count_G[g]
            matched_may += possible * video.group_count_G[g]
        value += _f_measure(near, far, matched, video.boundary_T[t])
        bound += _f_measure(near_may, far_must, matched_may, video.boundary_T[t])
    return value, bound


@compiled
def _f_measure(matched, unmatched, target_matched, target):
    """F of boundary pixels of a prediction, and of its target."""
    if not matched or not target_matched:
        return 0.0
    precision, recall = matched / (matched + unmatched), target_matched / target
    return 2 * precision * recall / (precision + recall)


@compiled
def _drawn(covers_4W, chosen_W, may_W):
    """Whether a corner is on the chosen tracks' boundary; whether it may be, and must be, on that
    of them with others that may be chosen."""
    covered, uncovered, never = False, False, False
    splits = False
    for q in range(4):
        state = _state(covers_4W[q], chosen_W, may_W)
        if state == 2:
            covered = True
            continue
        uncovered = True
        never |= state == 0
        for w in range(len(chosen_W)):
            others = covers_4W[0, w] | covers_4W[1, w] | covers_4W[2, w] | covers_4W[3, w]
            splits |= (others & may_W[w] & ~covers_4W[q, w]) != 0
    return covered and uncovered, splits, covered and never
