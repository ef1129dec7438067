"""Tracks of a 1280x720 video with the embedded model, against masks that are enlarged first.

    python -m benchmarks.segment       # or: make bench

Plain: the official mask generator, which enlarges every candidate to the size of the video before
it judges it, and every mask of a track enlarged before it is encoded; all else is ours, and every
frame is encoded once. Results must be equal to the bit. Clips of the embedded data, enlarged, under
recipe `demo`. One thread; seconds of processor time.
"""

import statistics
from contextlib import ExitStack
from unittest.mock import patch

import cv2
import numpy as np
import torch

from benchmarks.tracks import Timer
from sola_model.extraction import prompts, propagation
from sola_model.extraction.sam2_models import SAM2AutomaticMaskGenerator, SAM2Base, load_sam2
from sola_model.extraction.tracks import VideoTracks, extract_tracks
from sola_model.masks.enlarged import enlarge
from sola_model.masks.rle import encode_masks
from sola_model.recipes import DEMO
from warehouse.demo_data import random_scene, render_frames

CLIPS, FRAMES, SIZE = 3, 40, (1280, 720)


def enlarged_first(logits_HW: torch.Tensor, size: tuple[int, int]) -> dict:
    """`encode_enlarged`, the plain way."""
    return encode_masks(enlarge(logits_HW[None], size) > 0)[0]


def measure(model: SAM2Base, seed: int) -> float:
    """Plain / ours of a clip."""
    scene = random_scene(np.random.default_rng(seed), FRAMES)
    frames_THW3 = [
        cv2.resize(frame_HW3, SIZE, interpolation=cv2.INTER_CUBIC)
        for frame_HW3 in render_frames(scene)[0]
    ]
    with Timer() as ours:
        extracted = extract_tracks(model, frames_THW3, DEMO.extraction)
    with ExitStack() as stack, Timer() as plain:
        stack.enter_context(patch.object(prompts, "_SmallLogits", SAM2AutomaticMaskGenerator))
        stack.enter_context(patch.object(propagation, "encode_enlarged", enlarged_first))
        expected = extract_tracks(model, frames_THW3, DEMO.extraction)
    assert_equal(extracted, expected)
    ratio = plain.seconds / ours.seconds
    print(
        f"  clip {seed}: {len(extracted.prompts)} prompts, {len(extracted.tracks)} tracks; a frame "
        f"{plain.seconds / FRAMES:.3f} s plain, {ours.seconds / FRAMES:.3f} s ours ({ratio:.1f}x)"
    )
    return ratio


def assert_equal(ours: VideoTracks, plain: VideoTracks) -> None:
    assert ours.prompts == plain.prompts
    for one, other in zip(ours.tracks, plain.tracks, strict=True):
        assert one.masks == other.masks
        np.testing.assert_array_equal(one.tokens_TD, other.tokens_TD)


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = load_sam2("demo")
    extract_tracks(model, np.zeros((1, 720, 1280, 3), np.uint8), DEMO.extraction)  # compiles
    print(f"{FRAMES} frames of {SIZE[0]}x{SIZE[1]}")
    ratio = statistics.median(measure(model, seed) for seed in range(CLIPS))
    print(f"  median {ratio:.1f}x")


if __name__ == "__main__":
    main()
