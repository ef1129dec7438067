"""Box tracks of 14 expressions: propagated for every expression (release) or shared.

    python -m benchmarks.shared_tracks        # or: make bench

An expression means one object; its boxes are those of the object's true masks on the prompt frames,
each side moved at random, and sometimes another object's, as a detector's are. Expressions are
propagated in turn (release), or merged into common batches, or their boxes are shared
among themselves, and then with the grid's tracks as well. Clips of the embedded data, embedded
model, one thread, seconds of processor time. An object step is one object on one frame. J&F is
that of the best of the tracks that an expression may select: the grid's and its own.
"""

import warnings
from collections import defaultdict

import numpy as np
import torch

from benchmarks.tracks import Timer
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import Box, box_prompts, grid_prompts
from sola_model.extraction.sam2_models import load_sam2
from sola_model.extraction.tracks import VideoTracks, track_prompts
from sola_model.masks.rle import encode_masks
from sola_model.metrics.jf import j_and_f_many
from sola_model.recipes import DEMO, BoxPrompts, Extraction
from warehouse.demo_data import random_scene, render_frames

CLIPS, FRAMES, EXPRESSIONS, STRIDE = 5, 24, 14, 4
JITTER, MISTAKES = 0.06, 0.2  # of a side; share of frames with a box of another object, too


def detections(masks_NTHW: np.ndarray, rng: np.random.Generator) -> tuple[list[Box], list[int]]:
    """Boxes of all expressions, and the object that each expression means."""
    means = [int(n) for n in rng.integers(len(masks_NTHW), size=EXPRESSIONS)]
    boxes = []
    for expression, target in enumerate(means):
        for t in range(0, masks_NTHW.shape[1], STRIDE):
            found = [target]
            if rng.random() < MISTAKES:
                found.append(int(rng.integers(len(masks_NTHW))))
            for n in found:
                ys, xs = np.nonzero(masks_NTHW[n, t])
                if len(ys) < 30:
                    continue
                corners = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)
                sides = np.tile(corners[2:] - corners[:2], 2)
                corners += rng.normal(size=4) * JITTER * sides
                boxes.append(
                    Box(
                        frame_index=t,
                        xyxy=tuple(corners.tolist()),
                        score=0.5,
                        expression_id=str(expression),
                    )
                )
    return boxes, means


def best_tracks(
    grid: list[list[dict]], extracted: VideoTracks, true_masks: list[list[dict]], means: list[int]
) -> list[float]:
    """Per expression the J&F of the best of the tracks it may select."""
    masks = [*grid, *(track.masks for track in extracted.tracks)]
    scores = {
        n: [score.jf for score in j_and_f_many(true_masks[n], masks)] for n in sorted(set(means))
    }
    best = []
    for expression, n in enumerate(means):
        own = {p.track_id for p in extracted.prompts if p.mask.expression_id == str(expression)}
        best.append(max(scores[n][k] for k in {*range(len(grid)), *(own - {None})}))
    return best


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = load_sam2("demo")
    measured = defaultdict(list)
    for seed in range(CLIPS):
        rng = np.random.default_rng(seed)
        frames_THW3, masks_NTHW = render_frames(random_scene(rng, FRAMES))
        boxes, means = detections(masks_NTHW > 0, rng)
        true_masks = [encode_masks(torch.from_numpy(m > 0)) for m in masks_NTHW]
        video = EncodedVideo(model, frames_THW3)
        found = grid_prompts(model, video, DEMO.extraction.grid)
        grid = [t.masks for t in track_prompts(model, video, found, DEMO.extraction).tracks]
        prompts = box_prompts(model, video, boxes, BoxPrompts())
        track_prompts(model, video, prompts[:1], Extraction())  # warm
        hidden = [None] * len(grid)
        ways = {
            "in turn": (False, False, grid),
            "merged": (False, True, grid),
            "shared": (True, True, hidden),
            "shared with grid": (True, True, grid),
        }
        print(f"clip {seed}: {len(prompts)} box prompts, {len(grid)} grid tracks")
        for way, (shared, merged, existing) in ways.items():
            settings = Extraction(boxes=BoxPrompts(shared=shared), merged=merged)
            with Timer() as timer:
                extracted = track_prompts(model, video, prompts, settings, existing)
            jf = 100 * float(np.mean(best_tracks(grid, extracted, true_masks, means)))
            measured[way].append((FRAMES * len(extracted.tracks), timer.seconds, jf))
            print("  {}: {} object steps, {:.2f} s, J&F {:.1f}".format(way, *measured[way][-1]))
    steps, seconds, jf = (np.array(column) for column in zip(*measured["in turn"], strict=True))
    for way in ("merged", "shared", "shared with grid"):
        own_steps, own_seconds, own_jf = np.array(measured[way]).T
        print(
            f"{way}: {own_steps.sum():.0f} object steps instead of {steps.sum():.0f}, median "
            f"{np.median(seconds / own_seconds):.1f}x faster, J&F {(own_jf - jf).mean():+.1f}"
        )


if __name__ == "__main__":
    main()
