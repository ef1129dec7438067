"""J&F and pseudo-labels from COCO RLE, against plain code that decodes, side by side.

    python -m benchmarks.metrics       # or: make bench

Both get the same encoded masks and must agree. The plain code runs on a sample of the frames or
pairs, and its time is scaled up; ours runs on all.
"""

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

from benchmarks.plain_metrics import frame_overlaps, frame_scores
from sola_model.metrics.jf import boundary_accuracy, j_and_f, region_similarity, track_overlaps

SIZES = ((480, 854), (540, 960), (1080, 1920))
FRAMES, SAMPLE, ROUNDS = 80, 8, 5
TRACKS, OBJECTS, PAIRS = 64, 10, 200


def main() -> None:
    cv2.setNumThreads(1)
    for size in SIZES:
        compare_scores(size)
    compare_overlaps(SIZES[1])


def compare_scores(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    truth, other = blobs(rng, size, FRAMES), blobs(rng, size, FRAMES)
    kinds = {"close": shifted(truth, 3), "12 pixels off": shifted(truth, 12), "another": other}
    for kind, masks in kinds.items():
        some = slice(None, None, FRAMES // SAMPLE)
        pairs = list(zip(truth[some], masks[some], strict=True))
        sample_S2, plain = timed(lambda pairs=pairs: [frame_scores(*pair) for pair in pairs])
        j_S = region_similarity(truth[some], masks[some])  # compiles, too
        f_S = boundary_accuracy(truth[some], masks[some])
        np.testing.assert_allclose(np.stack([j_S, f_S], 1), sample_S2, rtol=0, atol=1e-12)
        _, ours = timed(lambda masks=masks: j_and_f(truth, masks))
        report(f"J&F {size[0]}x{size[1]}, {kind}", plain / len(pairs), ours / FRAMES, "frame")


def compare_overlaps(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    tracks = [blobs(rng, size, FRAMES) for _ in range(TRACKS)]
    objects = [blobs(rng, size, FRAMES) for _ in range(OBJECTS)]
    track_overlaps(tracks[:1], objects[:1])  # compiles
    overlaps, ours = timed(lambda: track_overlaps(tracks, objects))
    n, o, t = rng.integers([[TRACKS], [OBJECTS], [FRAMES]], size=(3, PAIRS))
    pairs = [(tracks[n[i]][t[i]], objects[o[i]][t[i]]) for i in range(PAIRS)]
    _, plain = timed(lambda: [frame_overlaps(*pair) for pair in pairs])
    one_by_one = [frame_overlaps(*pair) for pair in zip(tracks[0], objects[0], strict=True)]
    ours_00 = [values_NO[0, 0] for values_NO in overlaps]
    np.testing.assert_allclose(ours_00, np.mean(one_by_one, axis=0), rtol=0, atol=1e-6)
    count = TRACKS * OBJECTS * FRAMES
    name = f"pseudo-labels, {TRACKS} tracks x {OBJECTS} objects x {FRAMES} frames"
    report(name, plain / PAIRS * count, ours, "video")


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the seconds of the fastest of some rounds."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)


def report(name: str, plain: float, ours: float, unit: str) -> None:
    print(f"{name}: plain {1e3 * plain:.3g} ms, ours {1e3 * ours:.3g} ms a {unit}, "
          f"{plain / ours:.0f}x")  # fmt: skip


def blobs(rng: np.random.Generator, size: tuple[int, int], frames: int) -> list[dict]:
    """A wobbling shape of a fifth to half of the frame's height, which moves on a straight line."""
    height, width = size
    start, end = (rng.uniform(0.15, 0.85, 2) * (width, height) for _ in range(2))
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = height * rng.uniform(0.1, 0.25) * (1 + 0.15 * np.sin(3 * angle + rng.uniform(0, 6)))
    masks = []
    for t in np.linspace(0, 1, frames):
        grown = radius * (1 + 0.1 * np.sin(9 * t + 5 * angle))
        points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * grown[:, None]
        mask_HW = np.zeros(size, np.uint8)
        cv2.fillPoly(mask_HW, [np.int32(points + start + t * (end - start))], 1)
        masks.append(coco.encode(np.asfortranarray(mask_HW)))
    return masks


def shifted(masks: list[dict], pixels: int) -> list[dict]:
    """The masks moved down and to the right."""
    moved = [np.roll(coco.decode(rle), (pixels, pixels), (0, 1)) for rle in masks]
    return [coco.encode(np.asfortranarray(mask_HW)) for mask_HW in moved]


if __name__ == "__main__":
    main()
