"""Propagation on features encoded once, against the official predictor, side by side.

    python -m benchmarks.tracks        # or: make bench

Both propagate the same batches of prompt masks over the same clips; the official predictor, as the
release drives it, encodes every frame again for every batch.
"""

import contextlib
import io
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco

from benchmarks.official import propagate as official_propagate
from benchmarks.official import video_predictor
from sola_model.encoding import EncodedVideo
from sola_model.sam2_models import load_sam2
from sola_model.tracks import propagate
from warehouse.demo_data import random_scene, render_frames

CLIPS, FRAMES, BATCHES = 5, 24, (0, 4, 8, 12, 16)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.cuda.is_available = lambda: False  # the predictor's state asks for CUDA by name
    model, predictor = load_sam2("demo"), video_predictor()
    ratios = []
    for seed in range(CLIPS):
        frames_THW3, masks_NTHW = render_frames(random_scene(np.random.default_rng(seed), FRAMES))
        batches = {
            t: [coco.encode(np.asfortranarray(m[t], dtype=np.uint8)) for m in masks_NTHW]
            for t in BATCHES
        }
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            for t, frame in enumerate(frames_THW3):
                Image.fromarray(frame).save(Path(folder, f"{t:05d}.jpg"))
            started = time.perf_counter()
            for t, prompts in batches.items():
                official_propagate(predictor, Path(folder), t, prompts)
            plain = time.perf_counter() - started
        started = time.perf_counter()
        video = EncodedVideo(model, frames_THW3)
        for t, prompts in batches.items():
            propagate(model, video, t, prompts)
        ours = time.perf_counter() - started
        ratios.append(plain / ours)
        print(f"clip {seed}: official {plain:.2f} s, ours {ours:.2f} s, {plain / ours:.2f}x")
    print(f"median {statistics.median(ratios):.2f}x")


if __name__ == "__main__":
    main()
