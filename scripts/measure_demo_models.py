"""Measure the embedded SAM2 on held-out clips: prompts, tracks, and what object tokens carry.

python scripts/measure_demo_models.py --clips 50     # prints the tables of docs/models.md
python scripts/measure_demo_models.py --drawn 10
"""

import argparse

import numpy as np
import torch
from pycocotools import mask as coco
from user_clips import BACKGROUNDS, FOUND, best_overlaps

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import grid_prompts
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.sam2_models import load_sam2
from sola_model.metrics.jf import track_overlaps
from sola_model.probe import read_out
from sola_model.recipes import DEMO
from warehouse.demo_data import random_scene, render_frames

SEED = 777  # apart from the training script's and the demo's
VISIBLE = 60  # pixels from which an object counts


def rles(masks_THW: np.ndarray) -> list[dict]:
    """One COCO RLE per frame."""
    return [coco.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks_THW]


def geometry(masks_THW: np.ndarray) -> np.ndarray:
    """x, y, log width, log height per frame (T, 4), NaN where the object cannot be seen."""
    found = np.full((len(masks_THW), 4), np.nan)
    for t, mask in enumerate(masks_THW):
        if mask.sum() >= VISIBLE:
            ys, xs = np.nonzero(mask)
            found[t] = [xs.mean(), ys.mean(), np.log(np.ptp(xs) + 1), np.log(np.ptp(ys) + 1)]
    return found


def main(clips: int) -> None:
    torch.set_num_threads(1)
    model = load_sam2("demo")
    found, precise, ious, twins, tokens, positions, motion_tokens, motions, owners = (
        [] for _ in range(9)
    )
    motion_owners: list[int] = []
    for clip in range(clips):
        scene = random_scene(np.random.default_rng([SEED, clip]))
        frames_THW3, masks_NTHW = render_frames(scene)
        video = EncodedVideo(model, frames_THW3)
        looks = [(s.colour, s.kind) for s in scene.shapes]
        objects = [rles(masks_THW) for masks_THW in masks_NTHW]
        prompts = grid_prompts(model, video, DEMO.extraction.grid)
        for t in range(0, len(video), DEMO.extraction.grid.stride):
            visible = [
                o[t] for o, m in zip(objects, masks_NTHW, strict=True) if m[t].sum() >= VISIBLE
            ]
            masks = [p.rle for p in prompts if p.frame_index == t]
            if masks and visible:
                overlap = coco.iou(masks, visible, [0] * len(visible)) > 0.7
                found += overlap.any(0).tolist()
                precise += overlap.any(1).tolist()
            else:
                found += [False] * len(visible)
        for n, masks_THW in enumerate(masks_NTHW):
            start = int(np.argmax(masks_THW.sum((1, 2))))
            (track,) = propagate(model, [Request(video, start, objects[n][start])])
            tokens_TD = track.tokens_TD
            ious.append(track_overlaps([track.masks], [objects[n]]).miou_NO[0, 0])
            twins.append(looks.count(looks[n]) > 1)
            place_T4 = geometry(masks_THW)
            seen = ~np.isnan(place_T4[:, 0]) & (np.arange(len(place_T4)) != start)
            tokens.append(tokens_TD[seen])
            positions.append(place_T4[seen])
            owners += [clip] * seen.sum()
            both = seen[4:] & seen[:-4]
            motion_tokens.append(np.concatenate([tokens_TD[4:], tokens_TD[:-4]], axis=1)[both])
            motions.append((place_T4[4:, :2] - place_T4[:-4, :2])[both])
            motion_owners += [clip] * both.sum()
    ious, twins = np.array(ious), np.array(twins)
    position = read_out(
        np.concatenate(tokens), np.concatenate(positions), np.array(owners) % 2 == 0
    )
    motion = read_out(
        np.concatenate(motion_tokens), np.concatenate(motions), np.array(motion_owners) % 2 == 0
    )
    rows = {
        "grid prompts: recall at IoU 0.7": np.mean(found),
        "grid prompts: precision at IoU 0.7": np.mean(precise),
        "track IoU from a mask prompt, mean": ious.mean(),
        "track IoU from a mask prompt, median": np.median(ious),
        "track IoU, twins only": ious[twins].mean(),
        "tokens, linear read-out: x, y (R^2)": position[:2].mean(),
        "tokens, linear read-out: width, height (R^2)": position[2:].mean(),
        "tokens, linear read-out: motion over 4 frames (R^2)": motion.mean(),
    }
    print(f"| {clips} held-out clips, {len(ious)} objects | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.3f} |")


def measure_drawn(clips: int) -> None:
    """How many clips of plain shapes have a track for every shape, by background."""
    torch.set_num_threads(1)
    model = load_sam2("demo")
    print(f"| background | of {clips} clips | mean best IoU |\n|---|---|---|")
    for background in BACKGROUNDS:
        best = [best_overlaps(model, background, seed) for seed in range(clips)]
        whole = sum(bool((iou_N >= FOUND).all()) for iou_N in best)
        print(f"| {background} | {whole} | {np.concatenate(best).mean():.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--drawn", type=int, help="clips of plain shapes, of each background")
    options = parser.parse_args()
    if options.drawn:
        measure_drawn(options.drawn)
    else:
        main(options.clips)
