"""Measure the embedded Grounding DINO on held-out clips, with the recipe's thresholds.

python scripts/measure_demo_detector.py --clips 60     # prints the table of docs/models.md
"""

import argparse
from collections import defaultdict

import numpy as np
import torch
from demo_detection import VISIBLE, Sample, box, phrases
from torchvision.ops import box_iou

from sola_model.detection.detector import Detection, Detector, detect, load_detector
from sola_model.recipes import DetectorSettings
from warehouse.demo_data import Scene, describe, random_scene, render_frames
from warehouse.demo_data.scene import COLOURS, HEIGHT, KINDS, WIDTH

SEED = 777  # apart from the training script's and the demo's
STRIDE = 4


def samples(clip: int) -> list[Sample]:
    """Every fourth frame of a clip."""
    scene = random_scene(np.random.default_rng([SEED, clip]))
    found = []
    for t in range(0, scene.frames, STRIDE):
        (image_HW3,), masks_N1HW = render_frames(scene, range(t, t + 1))
        boxes = {n: box(m[0]) for n, m in enumerate(masks_N1HW) if m.sum() >= VISIBLE}
        found.append(Sample(image_HW3=image_HW3, scene=scene, boxes=boxes))
    return found


def captions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Captions of a clip, each with its sort."""
    shapes = scene.shapes
    looks = {f"{s.colour} {s.kind}" for s in shapes}
    absent = sorted(set(COLOURS) - {s.colour for s in shapes})
    mixed = {f"{s.colour} {kind}" for s in shapes for kind in KINDS} - looks
    return [
        *((look, "look") for look in sorted(looks)),
        *((kind, "kind") for kind in sorted({s.kind for s in shapes})),
        *((f"{colour} {rng.choice(KINDS)}", "colour not there") for colour in absent),
        *((look, "kind not there") for look in sorted(mixed)),
        *((d.text, "expression") for d in describe(scene, rng)),
    ]


def hits(found: list[Detection], sample: Sample, text: str) -> np.ndarray:
    """Whether each box (rows) covers each shape that the caption names (columns) by IoU 0.5."""
    targets = sorted({n for phrase in phrases(text, sample) for n in phrase.targets})
    truth = torch.tensor([sample.boxes[n] for n in targets], dtype=torch.float32).view(-1, 4)
    boxes = torch.tensor([d.xyxy for d in found], dtype=torch.float32).view(-1, 4)
    return (box_iou(boxes, truth * torch.tensor([WIDTH, HEIGHT] * 2)) > 0.5).numpy()


def measure(detector: Detector, settings: DetectorSettings, clips: int) -> dict[str, float]:
    """The rows of the table."""
    recall, right, best, count, quiet = (defaultdict(list) for _ in range(5))
    for clip in range(clips):
        frames = samples(clip)
        asked = captions(frames[0].scene, np.random.default_rng([SEED, clip, 1]))
        images = enumerate(sample.image_HW3 for sample in frames)
        found = detect(detector, images, [text for text, _ in asked], settings)
        for sample, (_, found_E) in zip(frames, found, strict=True):
            for (text, sort), boxes in zip(asked, found_E, strict=True):
                hit = hits(boxes, sample, text)
                quiet[sort].append(not boxes)
                recall[sort] += hit.any(0).tolist()
                right[sort] += hit.any(1).tolist()
                if hit.shape[1]:
                    best[sort].append(bool(hit[:1].any()))
                    count[sort].append(len(boxes) / hit.shape[1])
    rows = {}
    for sort, example in (("look", "red circle"), ("kind", "circle"), ("expression", "whole")):
        rows[f"{sort} ({example}): shapes found"] = np.mean(recall[sort])
        rows[f"{sort} ({example}): boxes that are right"] = np.mean(right[sort])
        rows[f"{sort} ({example}): best box is right"] = np.mean(best[sort])
    rows["boxes for each shape of a look"] = np.mean(count["look"])
    for sort in ("colour not there", "kind not there"):
        rows[f"{sort}: no box"] = np.mean(quiet[sort])
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--detector", default="demo")
    parser.add_argument("--threshold", type=float, default=DetectorSettings.box_threshold)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shown = DetectorSettings(box_threshold=options.threshold, short_side=HEIGHT, long_side=WIDTH)
    rows = measure(load_detector(options.detector), shown, options.clips)
    print(f"| {options.clips} held-out clips, IoU 0.5 | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.3f} |")
