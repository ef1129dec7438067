"""The best union of mask tracks for a target, certified: branch and bound on mean J, or on J&F.

A node of the search has tracks that are in the union, tracks that are not, and open ones, and a
bound of what its unions score (sola_model/metrics/union_scores.py).
In every node each open track is tried in and out. Where one of the two cannot beat the best union
found, the other is settled; else the search branches on the track that lowers both bounds most.
Nodes are taken by their bound, highest first, so that of the highest one left is a bound of all.

Axes: N mask tracks, T frames, W words of a set of tracks.
"""

import heapq
from collections.abc import Iterable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sola_model.masks.runs import RunTrack, areas_of, empty_track, intersections_of
from sola_model.metrics.jf import j_and_f, ratio_or_one
from sola_model.metrics.oracle import video_cells
from sola_model.metrics.union_scores import ScoredVideo, flipped, probe, score, scored_video

EXACT = 1e-9  # a bound this little above what was found certifies it
WORK = 200_000_000  # cells and corners that a search visits: about a second
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
    """The best unions by mean J and by J&F."""

    j: BestUnion
    jf: BestUnion


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
        return BestUnions(j, jf)
    cells = video_cells(some, [target], void)
    video = scored_video(cells, some, target, void)
    found_j = _search(video, False, 0, work)
    found_jf = _search(video, True, found_j[0], work) if with_f else found_j
    beyond = max(left_out, default=0.0)
    j = _named(found_j, searched, beyond)
    jf = _named(found_jf, searched, (beyond + 1) / 2 if left_out else 0.0)
    return BestUnions(j, jf)


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


def _set(tracks: Iterable[int]) -> int:
    return sum(1 << int(n) for n in tracks)


def _words(tracks: int, video: ScoredVideo) -> NDArray[np.uint64]:
    """A set of tracks as the compiled functions take it (W,)."""
    count = video.cell_covers_CW.shape[1]
    return np.frombuffer(tracks.to_bytes(8 * count, "little"), np.uint64)


def _search(video: ScoredVideo, with_f: bool, start: int, work: int) -> tuple[int, float, float]:
    """The best set of tracks found, its value, and a bound of all sets' values."""
    limit = max(work // video.cost(with_f), 4 * video.tracks)  # of scores
    best, value, done = _climbed(video, with_f, start)
    numbers = count()  # of equal bounds the first goes first
    everything = (1 << video.tracks) - 1
    nothing, bound = score(video, _words(0, video), _words(everything, video), with_f)
    if nothing > value:
        best, value = 0, nothing
    nodes = [(-bound, next(numbers), 0, everything)]
    while nodes and -nodes[0][0] > value + EXACT:
        bound, _, chosen, left = heapq.heappop(nodes)
        while left:
            if done > limit:
                return best, value, min(float(-bound), 1.0)
            value_N, with_N, without_N = probe(
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
            reached = score(video, _words(chosen, video), _words(chosen, video), with_f)[0]
            if reached > value:
                best, value = chosen, reached
    return best, value, value


def _climbed(video: ScoredVideo, with_f: bool, chosen: int) -> tuple[int, float, int]:
    """The set, changed by one track at a time while that helps; its value; scores computed."""
    value, done = score(video, _words(chosen, video), _words(chosen, video), with_f)[0], 1
    while True:
        value_N = flipped(video, _words(chosen, video), with_f)
        done += len(value_N)
        n = int(value_N.argmax())
        if value_N[n] <= value + EXACT:
            return chosen, value, done
        chosen, value = chosen ^ 1 << n, float(value_N[n])
