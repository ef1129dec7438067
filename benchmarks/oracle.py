"""The certified best union of tracks: beside all unions, and beside the search without a bound.

    python -m benchmarks.oracle        # or: make bench

Tracks are made of the true masks of embedded clips, much worse than a tracker's: a track follows
one object, or a part of it, for a while, then another or nothing, with holes and seams, and some
follow nothing that is there. The best unions of 12 of them are compared with all 4,096 unions,
whose J and F are computed. Then there are more of them, and larger frames. Seconds of processor
time.
"""

import time
from itertools import chain, combinations

import numpy as np
from pycocotools import mask as coco

from sola_model.masks.runs import RunTrack, empty_track, pack, union
from sola_model.metrics.best_union import EXACT, best_unions
from sola_model.metrics.jf import j_and_f_many
from sola_model.metrics.oracle import oracle_selection, video_cells
from warehouse.demo_data import random_scene, render_frames

CLIPS, FRAMES = 6, 24
FEW, MANY = 12, (16, 32, 64)
LARGE = 5  # a demo's frame, 112 x 144, so many times as high and wide


def main() -> None:
    best_unions(*clip(0, 4, 1, FRAMES), None, range(4))  # compiles
    seconds = np.zeros(2)
    for seed in range(CLIPS):
        tracks, target = clip(seed, FEW, 1, FRAMES)
        started = time.process_time()
        found = best_unions(tracks, target, None, range(FEW))
        between = time.process_time()
        best_j, best_jf = of_all(tracks, target)
        seconds += between - started, time.process_time() - between
        assert abs(found.j.value - best_j) < EXACT and found.j.certified
        assert abs(found.jf.value - best_jf) < EXACT and found.jf.certified
    print(f"{FEW} tracks: {seconds[0] / CLIPS:.3f} s, all unions {seconds[1] / CLIPS:.1f} s, "
          f"{seconds[1] / seconds[0]:.0f}x")  # fmt: skip
    for count in MANY:
        measure(count, 1, FRAMES)
    measure(MANY[1], LARGE, 2 * FRAMES)


def measure(count: int, scale: int, frames: int) -> None:
    seconds, certified, gaps, lost = [], [], [], []
    for seed in range(CLIPS):
        tracks, target = clip(seed, count, scale, frames)
        started = time.process_time()
        found = best_unions(tracks, target, None, range(count))
        seconds.append(time.process_time() - started)
        certified.append((found.j.certified, found.jf.certified))
        gaps.append(100 * (found.jf.bound - found.jf.value))
        chosen = oracle_selection(video_cells(tracks, [target]), 0, range(count))
        greedy = union([empty_track(target.height, target.width, len(target))]
                       + [tracks[n] for n in chosen])  # fmt: skip
        lost.append(100 * (found.jf.value - j_and_f_many(target, [greedy])[0].jf))
    j, jf = np.mean(certified, axis=0)
    print(f"{count} tracks, {frames} frames of {target.height}x{target.width}: certain by J "
          f"{100 * j:.0f} %, by J&F {100 * jf:.0f} %, J&F gap up to {max(gaps):.2f}; "
          f"{np.mean(seconds):.2f} s, at most {max(seconds):.2f} s; without a bound J&F is "
          f"{np.mean(lost):.2f} lower, at most {max(lost):.2f}")  # fmt: skip


def of_all(tracks: list[RunTrack], target: RunTrack) -> tuple[float, float]:
    """The highest mean J and J&F of all unions."""
    nothing = empty_track(target.height, target.width, len(target))
    sets = chain.from_iterable(combinations(tracks, size) for size in range(len(tracks) + 1))
    scores = j_and_f_many(target, [union([nothing, *some]) for some in sets])
    return max(score.j for score in scores), max(score.jf for score in scores)


def clip(seed: int, count: int, scale: int, frames: int) -> tuple[list[RunTrack], RunTrack]:
    """So many tracks of a clip, and a target of one or two of its objects."""
    rng = np.random.default_rng(seed)
    _, masks_NTHW = render_frames(random_scene(rng, frames))
    masks_NTHW = np.kron(masks_NTHW, np.ones((scale, scale), masks_NTHW.dtype)) > 0
    target_THW = masks_NTHW[: 1 + seed % 2].any(axis=0)
    tracks = [packed(broken(rng, masks_NTHW)) for _ in range(count)]
    return tracks, packed(target_THW)


def broken(rng: np.random.Generator, masks_NTHW: np.ndarray) -> np.ndarray:
    """A track (T, H, W) that follows parts of objects, one after another."""
    count, frames, height, width = masks_NTHW.shape
    track_THW = np.zeros((frames, height, width), bool)
    start = 0
    while start < frames:
        end = start + int(rng.integers(frames // 4, frames + 1))
        if rng.random() < 0.75:
            part = masks_NTHW[rng.integers(count), start:end]
            part = np.roll(part, rng.integers(-2, 3, 2) * (height // 112), (1, 2))
            if rng.random() < 0.5:
                part &= np.roll(part, rng.integers(-12, 13, 2) * (height // 112), (1, 2))
            track_THW[start:end] = part
        else:
            y, x = (int(rng.integers(0, size)) for size in (height, width))
            track_THW[start:end, y : y + height // 12, x : x + width // 12] = True
        start = end
    return track_THW


def packed(masks_THW: np.ndarray) -> RunTrack:
    return pack([coco.encode(np.asfortranarray(mask_HW, np.uint8)) for mask_HW in masks_THW])


if __name__ == "__main__":
    main()
