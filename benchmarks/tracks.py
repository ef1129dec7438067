"""Grid prompts and tracking of a video, against the release's procedure and against the floor.

    python -m benchmarks.tracks        # or: make bench

Plain: the official mask generator and predictor as the release drives them, which encode a frame
again for every use. Floor: every frame encoded once, the grid decoded, and one batch of exactly
the prompts that become tracks, known in advance. One thread; seconds of processor time, so that
other work on the machine matters little.

Measured twice. sam2.1_hiera_tiny at image size 256 with random weights, where an encoding costs 2.8
times an object's step, as with SAM2-L at 1024 (2.9): prompts are the objects' true masks there, and
the grid is small, so that decoding it costs about two encodings, as there. And the embedded model
with its own prompts, whose encodings cost next to nothing.
"""

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks import models
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import grid_prompts, mask_prompts
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.tracks import track_prompts
from sola_model.masks.rle import encode_masks
from sola_model.parity import official
from sola_model.parity.compare import dense_prompts, generator_settings
from sola_model.recipes import DEMO, Extraction, GridPrompts
from warehouse.demo_data import random_scene, render_frames

DENSE = GridPrompts(points_per_side=8, stride=2)  # for two dozen tracks in a short clip


class Timer:
    """Processor seconds of a `with` block, in `seconds`."""

    def __enter__(self) -> "Timer":
        self._started = time.process_time()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = time.process_time() - self._started


def measure(sam2, seed: int, frames: int, settings: Extraction, given: bool) -> tuple:
    """(plain / ours, ours / floor - 1) of a clip. `given`: prompts are the objects' true masks."""
    model, predictor = sam2
    frames_THW3, masks_NTHW = render_frames(random_scene(np.random.default_rng(seed), frames))
    true_masks = mask_prompts(
        {str(n): encode_masks(torch.from_numpy(m)) for n, m in enumerate(masks_NTHW > 0)},
        settings.grid.stride,
    )
    encodings: list[int] = []
    counter = model.image_encoder.register_forward_hook(lambda *_: encodings.append(1))
    with tempfile.TemporaryDirectory() as name:
        decoded = official.save_frames(Path(name), frames_THW3)
        with Timer() as ours:
            video = EncodedVideo(model, decoded)
            found = grid_prompts(model, video, settings.grid)
            prompts = true_masks if given else found
            extracted = track_prompts(model, video, prompts, settings)
        encoded = len(encodings)
        tracked = [p.mask for p in extracted.prompts if p.fate == "tracked"]
        with Timer() as floor:
            video = EncodedVideo(model, decoded)
            grid_prompts(model, video, settings.grid)
            propagate(model, [Request(video, mask.frame_index, mask.rle) for mask in tracked])
        with Timer() as plain:
            for frame_HW3 in decoded[:: settings.grid.stride]:
                official.grid_masks(predictor, frame_HW3, generator_settings(settings.grid))
            state = official.start(predictor, Path(name))
            expected = official.grid_tracks(
                predictor, state, dense_prompts(prompts), settings.max_tracks
            )
    counter.remove()
    assert [p.fate for p in extracted.prompts] == [fate for fate, _, _ in expected.fates]
    ratio, overhead = plain.seconds / ours.seconds, ours.seconds / floor.seconds - 1
    print(
        f"  clip {seed}: {len(prompts)} prompts, {len(tracked)} tracks, {encoded} encodings of "
        f"{frames} frames; plain {plain.seconds:.1f} s, ours {ours.seconds:.1f} s ({ratio:.2f}x), "
        f"floor {floor.seconds:.1f} s ({overhead:+.0%})"
    )
    return ratio, overhead


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    runs = {
        "sam2.1_hiera_tiny at 256, random weights": (
            models.random_tiny(256), 1, 16, Extraction(grid=DENSE), True
        ),
        "embedded model": (models.demo_models(), 5, 24, DEMO.extraction, False),
    }  # fmt: skip
    for name, (sam2, clips, frames, settings, given) in runs.items():
        print(name)
        measured = [measure(sam2, seed, frames, settings, given) for seed in range(clips)]
        ratio, overhead = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"  median {ratio:.2f}x the plain loop, {overhead:+.0%} over the floor")


if __name__ == "__main__":
    main()
