"""Fourteen captions on a frame encoded once, against fourteen calls of the plain pipeline.

    python -m benchmarks.detector      # or: make bench

The plain way is the one in the documentation of `transformers`: processor, model, post-processing,
for one caption at a time. CPU seconds of one thread, both ways by turns: the embedded detector, and
a network of grounding-dino-tiny's size with random weights and a small image.
"""

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor, GroundingDinoConfig, GroundingDinoForObjectDetection

from sola_model.detection.detector import DEMO_DETECTOR, detect, load_detector
from sola_model.recipes import DetectorSettings
from warehouse.demo_data import describe, random_scene, render_frames

CAPTIONS = 14


def plain(model, processor, image: np.ndarray, captions: list[str], settings) -> None:
    """One call of the pipeline for each caption."""
    size = {"shortest_edge": settings.short_side, "longest_edge": settings.long_side}
    for caption in captions:
        inputs = processor(images=image, text=caption + ".", return_tensors="pt", size=size)
        with torch.no_grad():
            outputs = model(**inputs)
        processor.post_process_grounded_object_detection(
            outputs,
            threshold=settings.box_threshold,
            text_threshold=settings.text_threshold,
            target_sizes=[image.shape[:2]],
        )


def compare(name: str, folder: Path, settings: DetectorSettings, rounds: int) -> None:
    """Print the times of both ways and their ratio."""
    scene = random_scene(np.random.default_rng(0))
    (image,), _ = render_frames(scene, range(1))
    captions = [d.text for d in describe(scene, np.random.default_rng(0))][:CAPTIONS]
    assert len(captions) == CAPTIONS
    model = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    processor, detector = AutoProcessor.from_pretrained(folder), load_detector(folder)
    plain(model, processor, image, captions[:1], settings)
    list(detect(detector, [(0, image)], captions[:1], settings))
    times = []
    for _ in range(rounds):
        started = time.process_time()
        plain(model, processor, image, captions, settings)
        middle = time.process_time()
        list(detect(detector, [(0, image)], captions, settings))
        times.append((middle - started, time.process_time() - middle))
    slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{name}: plain {slow:.2f} s, ours {fast:.2f} s, {slow / fast:.2f}x")


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    compare("embedded", DEMO_DETECTOR, DetectorSettings(short_side=112, long_side=144), rounds=15)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        GroundingDinoForObjectDetection(GroundingDinoConfig()).save_pretrained(folder)
        AutoProcessor.from_pretrained(DEMO_DETECTOR).save_pretrained(folder)
        settings = DetectorSettings(short_side=240, long_side=400)
        compare("grounding-dino-tiny's size, 240 x 308", Path(folder), settings, rounds=1)


if __name__ == "__main__":
    main()
