"""What two settings of extraction change and cost: which frames the grid prompts, on what features.

    python -m benchmarks.prompt_settings [FOLDER ...]      # of JPEG frames; or: make bench

The default (every fourth frame, the video's features) against the release's evaluation frames
(`extraction.grid.frames=halves`) and the release's features (`extraction.prompt_features=image`).
Clips of the embedded data under recipe `demo`, and those given, with a denser grid and a lower bar,
since the embedded model is sure of little that it sees in photographs. One thread, seconds of
processor time. A mask has a counterpart when one of the other way's, on its frame, has IoU above
0.9 with it; a track, when that holds for the mean over frames. J is the mean IoU of an object with
its best track over the frames that show either.
"""

import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco

from benchmarks.tracks import Timer
from sola_model.extraction.sam2_models import load_sam2
from sola_model.extraction.tracks import VideoTracks, extract_tracks
from sola_model.masks.rle import encode_masks
from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import DEMO, Extraction, GridPrompts
from warehouse.demo_data import random_scene, render_frames

CLIPS, FRAMES = 20, 25  # an odd number of frames has the release prompt the last one, too
SAME = 0.9

PHOTOGRAPHS = GridPrompts(points_per_side=32, predicted_iou=0.5, stability=0.5)


def ways(grid: GridPrompts) -> dict[str, Extraction]:
    """The settings to compare."""
    settings = replace(DEMO.extraction, grid=grid)
    return {
        "default": settings,
        "grid.frames=halves": replace(settings, grid=replace(grid, frames="halves")),
        "prompt_features=image": replace(settings, prompt_features="image"),
    }


def shared_masks(some: VideoTracks, others: VideoTracks) -> list[bool]:
    """Of each prompt mask of `some` whether `others` has a counterpart."""
    found = []
    for prompt in some.prompts:
        at = prompt.mask.frame_index
        masks = [p.mask.rle for p in others.prompts if p.mask.frame_index == at]
        ious = coco.iou([prompt.mask.rle], masks, [0] * len(masks)) if masks else np.zeros(1)
        found.append(bool(np.max(ious) > SAME))
    return found


def shared_tracks(some: VideoTracks, others: VideoTracks) -> list[bool]:
    """Of each track of `some` whether `others` has a counterpart."""
    tracks, other = ([track.masks for track in each.tracks] for each in (some, others))
    if not other:
        return [False] * len(tracks)
    return (track_overlaps(tracks, other, "skip").miou_NO > SAME).any(1).tolist()


def measure(model, grid: GridPrompts, clips: Iterable) -> None:
    """Print a row for each way, over all clips: pairs of frames and true masks, if known."""
    results: dict[str, list] = {name: [] for name in ways(grid)}
    for frames_THW3, objects in clips:
        made, seconds = {}, {}
        for name, settings in ways(grid).items():
            with Timer() as timer:
                made[name] = extract_tracks(model, frames_THW3, settings)
            seconds[name] = timer.seconds
        for name, tracks in made.items():
            best = [np.nan]
            if objects:
                overlaps = track_overlaps([t.masks for t in tracks.tracks], objects, "skip")
                best = overlaps.miou_NO.max(0).tolist() if tracks.tracks else [0.0] * len(objects)
            results[name].append((tracks, made["default"], seconds[name], best))
    print("| | prompts | tracks | default has of its masks, tracks | it has of the default's |"
          " seconds | J |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name, rows in results.items():
        counts = (sum(len(getattr(row[0], what)) for row in rows) for what in ("prompts", "tracks"))
        pairs = [(made, default) for made, default, *_ in rows]
        forth, back = (
            ", ".join(
                f"{np.mean([same for pair in pairs for same in shared(*pair[::step])]):.0%}"
                for shared in (shared_masks, shared_tracks)
            )
            for step in (1, -1)
        )
        spent, best = sum(row[2] for row in rows), np.mean([j for row in rows for j in row[3]])
        numbers = " | ".join(map(str, counts))
        shown = "" if np.isnan(best) else f"{100 * best:.1f}"
        print(f"| {name} | {numbers} | {forth} | {back} | {spent:.1f} | {shown} |")


def embedded():
    """Frames and true masks of clips of the embedded data."""
    for seed in range(CLIPS):
        scene = random_scene(np.random.default_rng([900, seed]), FRAMES)
        frames_THW3, masks_NTHW = render_frames(scene)
        yield frames_THW3, [encode_masks(torch.from_numpy(m > 0)) for m in masks_NTHW]


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = load_sam2("demo")
    scene = random_scene(np.random.default_rng(0))
    extract_tracks(model, render_frames(scene)[0], DEMO.extraction)  # compiles
    print(f"{CLIPS} clips of the embedded data, {FRAMES} frames")
    measure(model, DEMO.extraction.grid, embedded())
    for folder in folders:
        files = sorted(Path(folder).glob("*.jpg"))
        frames_THW3 = [np.array(Image.open(file).convert("RGB")) for file in files]
        print(f"{folder}, {len(files)} frames")
        measure(model, PHOTOGRAPHS, [(frames_THW3, [])])


if __name__ == "__main__":
    main(sys.argv[1:])
