"""Write the embedded data set in MeViS's layout on disk.

    {root}/{split}/JPEGImages/<video>/<frame>.jpg, meta_expressions.json, mask_dict.json

`valid` has no masks and no object ids, as MeViS has none there. Each expression carries one key
more than MeViS's, `tags`, which our MeViS reader passes on.
"""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from warehouse.demo_data.language import describe
from warehouse.demo_data.render import render_frames
from warehouse.demo_data.scene import FRAMES, random_scene

SPLITS = ("train", "valid_u", "valid")


def write_dataset(root: Path, videos: dict[str, int], seed: int = 0, frames: int = FRAMES) -> None:
    """Write `videos[split]` videos of each split; the same arguments give the same bytes.

    A split that is there already is left as it is: its `meta_expressions.json` comes last.
    """
    assert set(videos) <= set(SPLITS), videos
    for split, count in videos.items():
        if not (root / split / "meta_expressions.json").exists():
            _write_split(root / split, split, count, seed, frames)


def _write_split(folder: Path, split: str, count: int, seed: int, frames: int) -> None:
    labelled = split != "valid"
    meta: dict[str, dict] = {}
    masks: dict[str, list] = {}
    for index in range(count):
        video_id = f"{split}_{index:04d}"
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        scene = random_scene(rng, frames)
        frames_THW3, masks_NTHW = render_frames(scene)
        names = [f"{t:05d}" for t in range(frames)]
        images = folder / "JPEGImages" / video_id
        images.mkdir(parents=True, exist_ok=True)
        for name, frame in zip(names, frames_THW3, strict=True):
            Image.fromarray(frame).save(images / f"{name}.jpg", quality=95, subsampling=0)
        first_id = len(masks)
        expressions = {}
        for number, description in enumerate(describe(scene, rng)):
            expression: dict = {"exp": description.text, "tags": list(description.tags)}
            if labelled:
                expression["obj_id"] = list(description.targets)
                expression["anno_id"] = [first_id + n for n in description.targets]
            expressions[str(number)] = expression
        meta[video_id] = {"expressions": expressions, "frames": names}
        for masks_THW in masks_NTHW:
            masks[str(len(masks))] = [_rle(mask) for mask in masks_THW]
    if labelled:
        _write_json(folder / "mask_dict.json", masks)
    _write_json(folder / "meta_expressions.json", {"videos": meta})


def _rle(mask_HW: np.ndarray) -> dict | None:
    """COCO RLE, or None where the object cannot be seen, as MeViS writes it."""
    if not mask_HW.any():
        return None
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
