"""Measure the embedded Grounding DINO on held-out clips, with the recipe's thresholds.

python scripts/measure_demo_detector.py --clips 60     # prints the table of docs/models.md
"""

import argparse

import numpy as np
import torch
from demo_detection import VISIBLE, Sample, box, phrases
from torchvision.ops import box_iou

from sola_model.detector import Detection, Detector, DetectorSettings, detect, load_detector
from warehouse.demo_data import describe, random_scene, render_frames
from warehouse.demo_data.scene import COLOURS, HEIGHT, KINDS, WIDTH

SEED = 777  # apart from the training script's and the demo's
STRIDE = 4


def samples(clip: int) -> list[tuple[Sample, list[str], list[str]]]:
    """Every fourth frame of a clip, the looks it shows (or none shows), and its expressions."""
    rng = np.random.default_rng([SEED, clip])
    scene = random_scene(rng)
    texts = [d.text for d in describe(scene, rng)]
    looks = {f"{s.colour} {s.kind}" for s in scene.shapes}
    others = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    absent = [str(look) for look in rng.permutation(others) if look not in looks][:3]
    # The hardest: the colour of one shape with the kind of another.
    mixed = {f"{a.colour} {b.kind}" for a in scene.shapes for b in scene.shapes} - looks
    found = []
    for t in range(0, scene.frames, STRIDE):
        (image_HW3,), masks_N1HW = render_frames(scene, range(t, t + 1))
        boxes = {n: box(m[0]) for n, m in enumerate(masks_N1HW) if m.sum() >= VISIBLE}
        sample = Sample(image_HW3=image_HW3, scene=scene, boxes=boxes)
        found.append((sample, sorted(looks) + absent + sorted(mixed), texts))
    return found


def hits(found: list[Detection], sample: Sample, text: str) -> np.ndarray:
    """Whether each box (rows) covers each shape that the caption names (columns) by IoU 0.5."""
    targets = sorted({n for phrase in phrases(text, sample) for n in phrase.targets})
    truth = torch.tensor([sample.boxes[n] for n in targets], dtype=torch.float32).view(-1, 4)
    boxes = torch.tensor([d.xyxy for d in found], dtype=torch.float32).view(-1, 4)
    return (box_iou(boxes, truth * torch.tensor([WIDTH, HEIGHT] * 2)) > 0.5).numpy()


def measure(detector: Detector, settings: DetectorSettings, clips: int) -> dict[str, float]:
    """The rows of the table."""
    recall, precise, top, quiet, spoken, several = ([] for _ in range(6))
    for clip in range(clips):
        for sample, looks, texts in samples(clip):
            frame = [(0, sample.image_HW3)]
            ((_, found),) = detect(detector, frame, [*looks, *texts], settings)
            for text, boxes in zip([*looks, *texts], found, strict=True):
                hit = hits(boxes, sample, text)
                if text in texts:
                    spoken += hit.any(0).tolist()
                elif hit.shape[1]:
                    recall += hit.any(0).tolist()
                    precise += hit.any(1).tolist()
                    top.append(bool(hit[:1].any()))
                    several.append(len(boxes) / hit.shape[1])
                else:
                    quiet.append(not boxes)
    return {
        "recall of visible shapes": np.mean(recall),
        "precision of boxes": np.mean(precise),
        "boxes per shape that is named": np.mean(several),
        "best box is right": np.mean(top),
        "looks that are not there: no box": np.mean(quiet),
        "recall of shapes that whole expressions name": np.mean(spoken),
    }


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
