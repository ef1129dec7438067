"""The best union of mask tracks for a target, certified: branch and bound on mean J, or on J&F.

A node of the search has tracks that are in the union, tracks that are not, and open ones. Its
bound is, frame by frame:

    J   the open tracks that add fewer pixels outside the target than some limit can add no more
        inside than they cover together, while one of them adds that many outside: the best limit
    F   the union's boundary is where it must be, whatever is open, away from the target's; and
        near the target's it is wherever it can be (sola_model/metrics/corners.py)

In every node each open track is tried in and out. Where one of the two cannot beat the best union
found, the other is settled; else the search branches on the track that lowers both bounds most.
Nodes are taken by their bound, highest first, so that of the highest one left is a bound of all.

Axes: N mask tracks, T frames, C cells and K corners of all frames, W words of a set of tracks.
"""

import heapq
from collections.abc import Iterable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sola_model.masks.runs import (
    ONE,
    RunTrack,
    areas_of,
    compiled,
    empty_track,
    intersections_of,
    popcount,
)
from sola_model.metrics.corners import video_corners
from sola_model.metrics.jf import j_and_f, ratio_or_one
from sola_model.metrics.oracle import Cells, oracle_selection, video_cells

EXACT = 1e-9  # a bound this little above what was found certifies it
WORK = 100_000_000  # cells and corners that a search visits: about a second
MOST = 256  # tracks that are searched; of more, those that by themselves have the highest J


class BestUnion(NamedTuple):
    """Tracks, ascending; what their union scores; and what no union of the candidates exceeds."""

    tracks: tuple[int, ...]
    value: float
    bound: float

    @property
    def certified(self) -> bool:
        """Whether no union is better."""
        return self.bound <= self.value + EXACT


class BestUnions(NamedTuple):
    """The best unions by mean J and by J&F, and what the search without a certificate found."""

    j: BestUnion
    jf: BestUnion
    greedy: tuple[int, ...]


class _Video(NamedTuple):
    """What unions of the searched tracks score with a target; see Cells and Corners."""

    tracks: int
    target_T: NDArray[np.int64]
    first_T1: NDArray[np.int64]
    area_C: NDArray[np.int64]
    inside_C: NDArray[np.bool_]
    covers_CW: NDArray[np.uint64]
    corner_first_T1: NDArray[np.int64]
    corner_covers_K4W: NDArray[np.uint64]
    near_K: NDArray[np.bool_]
    count_K: NDArray[np.int64]
    group_first_T1: NDArray[np.int64]
    group_count_G: NDArray[np.int64]
    around_first_G1: NDArray[np.int64]
    around: NDArray[np.int64]
    boundary_T: NDArray[np.int64]

    def cost(self, with_f: bool) -> int:
        """What one score visits."""
        visited = len(self.area_C) * self.covers_CW.shape[1]
        if with_f:
            visited += 4 * self.covers_CW.shape[1] * len(self.near_K) + len(self.around)
        return max(visited, 1)


def best_unions(
    tracks: Sequence[RunTrack],
    target: RunTrack,
    void: RunTrack | None,
    candidates: Sequence[int],
    *,
    work: int = WORK,
    with_f: bool = True,
) -> BestUnions:
    """The best unions of candidate tracks for a target. J&F is (mean J + mean F) / 2.

    Without `with_f` only mean J is searched, and the union of its best stands for that of J&F.
    Void pixels do not count. A search ends at the latest when it has done so much `work`; then
    `bound` exceeds `value`. For a target that is empty everywhere no track is best.

    Raises ValueError when frames or sizes differ.
    """
    searched, left_out = _searched(tracks, target, void, candidates)
    some = [tracks[n] for n in searched]
    if not some or not video_cells([], [target], void).area_C.any():
        empty = empty_track(target.height, target.width, len(target))
        score = j_and_f(target, empty, void)
        j, jf = (BestUnion((), value, value) for value in (score.j, score.jf))
        return BestUnions(j, jf, ())
    cells = video_cells(some, [target], void)
    video = _video(cells, some, target, void)
    greedy = oracle_selection(cells, 0, range(len(some)))
    found_j = _search(video, False, _set(greedy), work)
    found_jf = _search(video, True, found_j[0], work) if with_f else found_j
    beyond = max(left_out, default=0.0)
    j = _named(found_j, searched, beyond)
    jf = _named(found_jf, searched, (beyond + 1) / 2 if left_out else 0.0)
    return BestUnions(j, jf, tuple(searched[n] for n in greedy))


def _named(found: tuple[int, float, float], searched: Sequence[int], beyond: float) -> BestUnion:
    """What a search found, by track ids; unions that it left out have at most `beyond`."""
    chosen, value, bound = found
    tracks = tuple(name for n, name in enumerate(searched) if chosen >> n & 1)
    return BestUnion(tracks, value, max(bound, value, beyond))


def _searched(
    tracks: Sequence[RunTrack],
    target: RunTrack,
    void: RunTrack | None,
    candidates: Sequence[int],
) -> tuple[list[int], list[float]]:
    """The candidates to search, ascending, and what mean J a union with each other one can have."""
    if len(candidates) <= MOST:
        return sorted(candidates), []
    given = [tracks[n] for n in candidates]
    hit_TN = intersections_of(given, [target])[:, :, 0]
    area_TN = np.stack([areas_of(track) for track in given], axis=1)
    hidden_TN = 0 if void is None else intersections_of(given, [void])[:, :, 0]
    target_T1 = areas_of(target)[:, None]
    alone_N = ratio_or_one(hit_TN, target_T1 + area_TN - hit_TN).mean(axis=0)
    outside_TN = np.maximum(area_TN - hit_TN - hidden_TN, 0)
    most_N = ratio_or_one(target_T1, target_T1 + outside_TN).mean(axis=0)
    order = np.argsort(-alone_N, kind="stable")
    return sorted(candidates[n] for n in order[:MOST]), most_N[order[MOST:]].tolist()


def _video(
    cells: Cells, tracks: Sequence[RunTrack], target: RunTrack, void: RunTrack | None
) -> _Video:
    frames, words = len(target), -(-len(tracks) // 64)
    inside_C = cells.in_target_CG[:, 0]
    frame_C = np.repeat(np.arange(frames), np.diff(cells.first_T1))
    covers_CB = np.zeros((len(inside_C), 8 * words), np.uint8)
    bytes_CB = np.packbits(cells.in_track_CN > 0, axis=1, bitorder="little")
    covers_CB[:, : bytes_CB.shape[1]] = bytes_CB
    corners = video_corners(tracks, target, void)
    return _Video(
        tracks=len(tracks),
        target_T=np.bincount(frame_C, cells.area_C * inside_C, frames).astype(np.int64),
        first_T1=cells.first_T1,
        area_C=cells.area_C.astype(np.int64),
        inside_C=inside_C,
        covers_CW=covers_CB.view(np.uint64),
        corner_first_T1=corners.first_T1,
        corner_covers_K4W=corners.covers_K4W,
        near_K=corners.near_K,
        count_K=corners.count_K,
        group_first_T1=corners.first_group_T1,
        group_count_G=corners.group_count_G,
        around_first_G1=corners.group_first_G1,
        around=corners.around,
        boundary_T=corners.boundary_T,
    )


def _set(tracks: Iterable[int]) -> int:
    return sum(1 << int(n) for n in tracks)


def _words(tracks: int, video: _Video) -> NDArray[np.uint64]:
    """A set of tracks as the compiled functions take it (W,)."""
    count = video.covers_CW.shape[1]
    return np.frombuffer(tracks.to_bytes(8 * count, "little"), np.uint64)


def _search(video: _Video, with_f: bool, start: int, work: int) -> tuple[int, float, float]:
    """The best set of tracks found, its value, and a bound of all sets' values."""
    limit = max(work // video.cost(with_f), 4 * video.tracks)  # of scores
    best, value, done = _climbed(video, with_f, start)
    numbers = count()  # of equal bounds the first goes first
    nodes = [(-np.inf, next(numbers), 0, (1 << video.tracks) - 1)]
    while nodes and -nodes[0][0] > value + EXACT:
        bound, _, chosen, left = heapq.heappop(nodes)
        while left:
            if done > limit:
                return best, value, min(-bound, 1.0)
            value_N, with_N, without_N = _probe(
                video, _words(chosen, video), _words(left, video), with_f
            )
            done += 2 * left.bit_count()
            n = int(value_N.argmax())
            if value_N[n] > value:
                best, value = chosen | 1 << n, float(value_N[n])
            out, into = (
                left & _set(np.flatnonzero(bound_N <= value + EXACT))
                for bound_N in (with_N, without_N)
            )
            if out & into:
                break
            if not out | into:
                n = int(np.lexsort((with_N + without_N, np.maximum(with_N, without_N)))[0])
                left &= ~(1 << n)
                for child, its in ((chosen | 1 << n, with_N[n]), (chosen, without_N[n])):
                    heapq.heappush(nodes, (max(bound, -its), next(numbers), child, left))
                break
            chosen, left = chosen | into, left & ~(out | into)
            reached = _score(video, _words(chosen, video), _words(chosen, video), with_f)[0]
            if reached > value:
                best, value = chosen, reached
    return best, value, value


def _climbed(video: _Video, with_f: bool, chosen: int) -> tuple[int, float, int]:
    """The set, changed by one track at a time while that helps; its value; scores computed."""
    value, done = _score(video, _words(chosen, video), _words(chosen, video), with_f)[0], 1
    while True:
        value_N = _flipped(video, _words(chosen, video), with_f)
        done += video.tracks
        n = int(value_N.argmax())
        if value_N[n] <= value + EXACT:
            return chosen, value, done
        chosen, value = chosen ^ 1 << n, float(value_N[n])


@compiled
def _flipped(video, chosen_W, with_f):
    """The value of each set that differs by one track (N,)."""
    value_N = np.empty(video.tracks)
    set_W = chosen_W.copy()
    for n in range(video.tracks):
        bit = ONE << np.uint64(n & 63)
        set_W[n >> 6] ^= bit
        value_N[n] = _score(video, set_W, set_W, with_f)[0]
        set_W[n >> 6] ^= bit
    return value_N


@compiled
def _probe(video, chosen_W, open_W, with_f):
    """For each open track: the value of the chosen with it; bounds with it and without it (N,)."""
    value_N = np.full(video.tracks, -np.inf)
    with_N, without_N = np.full(video.tracks, np.inf), np.full(video.tracks, np.inf)
    chosen_W, may_W = chosen_W.copy(), chosen_W | open_W
    for n in range(video.tracks):
        w, bit = n >> 6, ONE << np.uint64(n & 63)
        if open_W[w] & bit:
            chosen_W[w] |= bit
            value_N[n], with_N[n] = _score(video, chosen_W, may_W, with_f)
            chosen_W[w] ^= bit
            may_W[w] ^= bit
            without_N[n] = _score(video, chosen_W, may_W, with_f)[1]
            may_W[w] |= bit
    return value_N, with_N, without_N


@compiled
def _score(video, chosen_W, may_W, with_f):
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
    state_C = np.zeros(len(video.area_C), np.int8)  # 2: covered, 1: may be
    for t in range(len(video.target_T)):
        first, last = video.first_T1[t], video.first_T1[t + 1]
        inside, outside, more = 0, 0, False
        cost_N[:] = 0
        gain_N[:] = 0
        for c in range(first, last):
            state_C[c] = _state(video.covers_CW[c], chosen_W, may_W)
            if state_C[c] == 2:
                if video.inside_C[c]:
                    inside += video.area_C[c]
                else:
                    outside += video.area_C[c]
            elif state_C[c] == 1:
                if video.inside_C[c]:
                    more = True
                else:
                    for w in range(words):
                        bits = video.covers_CW[c, w] & may_W[w]
                        while bits:
                            cost_N[64 * w + _lowest(bits)] += video.area_C[c]
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
                        bits = video.covers_CW[c, w] & may_W[w]
                        while bits:
                            n = 64 * w + _lowest(bits)
                            if cheapest < 0 or cost_N[n] < cost_N[cheapest]:
                                cheapest = n
                            bits &= bits - ONE
                    gain_N[cheapest] += video.area_C[c]
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
