"""The best union of tracks is that of all unions, and what is not certain says so."""

from itertools import chain, combinations

import numpy as np
import pytest
from pycocotools import mask as coco

from sola_model.masks.runs import RunTrack, empty_track, pack, union
from sola_model.metrics.best_union import best_unions
from sola_model.metrics.jf import Score, j_and_f_many
from tests.sola_model.column_masks import columns

LEFT, RIGHT, BOTH, EMPTY = columns(0, 4), columns(4, 8), columns(0, 8), columns(0, 0)


def packed(masks_THW) -> RunTrack:
    return pack([coco.encode(np.asfortranarray(mask_HW, np.uint8)) for mask_HW in masks_THW])


def shape(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Nothing, a rectangle, or one with another taken out or added."""
    mask_HW = np.zeros(size, np.uint8)
    if rng.random() < 0.15:
        return mask_HW
    for _ in range(rng.integers(1, 3)):
        y, x = (rng.integers(0, side) for side in size)
        down, right = (rng.integers(1, side) for side in size)
        mask_HW[y : y + down, x : x + right] ^= 1
    return mask_HW


def instance(rng: np.random.Generator) -> tuple[list[RunTrack], RunTrack, RunTrack | None]:
    """Up to 12 tracks of up to four frames, some near the target; the target; void pixels."""
    size, frames = tuple(rng.integers(3, 14, 2)), int(rng.integers(1, 5))
    truth = [shape(rng, size) for _ in range(frames)]
    tracks = []
    for _ in range(rng.integers(1, 13)):
        kind = rng.random()
        if kind < 0.4:
            tracks.append([mask & shape(rng, size) for mask in truth])
        elif kind < 0.5:
            noise = rng.random(size) < 0.5
            tracks.append([mask | (shape(rng, size) & noise) for mask in truth])
        else:
            tracks.append([shape(rng, size) for _ in truth])
    void = [shape(rng, size) * (rng.random() < 0.5) for _ in truth]
    hidden = packed(void) if rng.random() < 0.3 else None
    return [packed(track) for track in tracks], packed(truth), hidden


def all_scores(
    tracks: list[RunTrack], target: RunTrack, void: RunTrack | None
) -> dict[tuple[int, ...], Score]:
    nothing = empty_track(target.height, target.width, len(target))
    names = range(len(tracks))
    sets = list(chain.from_iterable(combinations(names, k) for k in range(len(tracks) + 1)))
    unions = [union([nothing, *(tracks[n] for n in chosen)]) for chosen in sets]
    return dict(zip(sets, j_and_f_many(target, unions, void), strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_they_are_the_best_of_all_unions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        tracks, target, void = instance(rng)
        found = best_unions(tracks, target, void, range(len(tracks)))
        scores = all_scores(tracks, target, void)
        for best, name in ((found.j, "j"), (found.jf, "jf")):
            highest = max(getattr(score, name) for score in scores.values())
            assert best.certified
            assert best.value == pytest.approx(highest, abs=1e-9)
            assert getattr(scores[best.tracks], name) == pytest.approx(highest, abs=1e-9)


def test_a_search_that_may_do_no_work_still_bounds_what_there_is() -> None:
    rng, open_bounds = np.random.default_rng(0), 0
    for _ in range(100):
        tracks, target, void = instance(rng)
        found = best_unions(tracks, target, void, range(len(tracks)), work=1)
        scores = all_scores(tracks, target, void)
        for best, name in ((found.j, "j"), (found.jf, "jf")):
            highest = max(getattr(score, name) for score in scores.values())
            assert best.value <= highest + 1e-9 and best.bound >= highest - 1e-9
            assert best.value == pytest.approx(getattr(scores[best.tracks], name), abs=1e-9)
            open_bounds += not best.certified
    assert open_bounds > 10


def test_only_candidates_are_in_a_union_and_ids_are_theirs() -> None:
    tracks = [pack(masks) for masks in ([BOTH] * 2, [RIGHT] * 2, [EMPTY] * 2, [LEFT] * 2)]
    found = best_unions(tracks, pack([BOTH] * 2), None, [3, 1, 2])
    assert found.j.tracks == found.jf.tracks == (1, 3)
    assert found.j == found.jf == ((1, 3), 1.0, 1.0)


def test_without_target_or_tracks_no_track_is_best() -> None:
    nothing, some = pack([EMPTY, EMPTY]), pack([LEFT, EMPTY])
    assert best_unions([some], nothing, None, [0]).jf == ((), 1.0, 1.0)
    assert best_unions([], some, None, []).j == ((), 0.5, 0.5)
    assert best_unions([some], pack([LEFT, EMPTY]), pack([LEFT, EMPTY]), [0]).jf == ((), 1.0, 1.0)


def test_tracks_beyond_those_that_are_searched_are_in_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sola_model.metrics.best_union.MOST", 2)
    rng = np.random.default_rng(5)
    for _ in range(100):
        tracks, target, void = instance(rng)
        found = best_unions(tracks, target, void, range(len(tracks)))
        scores = all_scores(tracks, target, void).values()
        assert found.j.bound >= max(score.j for score in scores) - 1e-9
        assert found.jf.bound >= max(score.jf for score in scores) - 1e-9


def test_ten_thousand_tracks_take_bounded_work() -> None:
    rng = np.random.default_rng(0)
    target = packed([shape(rng, (12, 12)) | 1 for _ in range(2)])
    tracks = [packed([shape(rng, (12, 12)) for _ in range(2)]) for _ in range(10_000)]
    found = best_unions(tracks, target, None, range(10_000), work=10_000_000)
    assert found.j.value > 0.9 and found.jf.bound >= found.jf.value
