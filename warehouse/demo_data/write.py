"""Write the embedded data set in MeViS's layout on disk.

    {root}/{split}/JPEGImages/<video>/<frame>.jpg, meta_expressions.json, mask_dict.json

`valid` has no masks and no object ids, as MeViS has none there. Each expression carries one key
more than MeViS's, `tags`, which our MeViS reader passes on.

`paraphrase` has the videos and masks of `valid_u` (links to them) and each of its expressions
twice: "3" as it is, with the tag `training words`, and "3p" in other words, tag `paraphrase`. So
the two compare with the same tracks to choose from, and figures of `valid_u` stay as they are.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from warehouse.demo_data.language import Description, describe
from warehouse.demo_data.paraphrases import paraphrase
from warehouse.demo_data.render import render_frames
from warehouse.demo_data.scene import FRAMES, Scene, random_scene

SPLITS = ("train", "valid_u", "valid")
PARAPHRASED = "valid_u"


def write_dataset(root: Path, videos: dict[str, int], seed: int = 0, frames: int = FRAMES) -> None:
    """Write `videos[split]` videos of each split; the same arguments give the same bytes.

    A split that is there already is left as it is: its `meta_expressions.json` comes last.
    """
    assert set(videos) <= {*SPLITS, "paraphrase"}, videos
    assert videos.get("paraphrase", 0) <= videos.get(PARAPHRASED, 0), videos
    for split, count in videos.items():
        if (root / split / "meta_expressions.json").exists():
            continue
        if split == "paraphrase":
            _write_paraphrases(root / split, count, seed, frames)
        else:
            _write_split(root / split, split, count, seed, frames)


def _write_split(folder: Path, split: str, count: int, seed: int, frames: int) -> None:
    labelled = split != "valid"
    meta: dict[str, dict] = {}
    masks: dict[str, list] = {}
    for index in range(count):
        video_id, scene, descriptions, _ = clip_of(split, index, seed, frames)
        frames_THW3, masks_NTHW = render_frames(scene)
        names = write_frames(folder / "JPEGImages" / video_id, frames_THW3)
        expressions = {}
        for number, description in enumerate(descriptions):
            expression: dict = {"exp": description.text, "tags": list(description.tags)}
            if labelled:
                expression |= object_fields(description.targets, len(masks))
            expressions[str(number)] = expression
        meta[video_id] = {"expressions": expressions, "frames": names}
        add_masks(masks, masks_NTHW)
    if labelled:
        write_json(folder / "mask_dict.json", masks)
    write_json(folder / "meta_expressions.json", {"videos": meta})


def _write_paraphrases(folder: Path, count: int, seed: int, frames: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("JPEGImages", "mask_dict.json"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..", PARAPHRASED, name))
    meta: dict[str, dict] = {}
    objects = 0
    for index in range(count):
        video_id, scene, descriptions, rng = clip_of(PARAPHRASED, index, seed, frames)
        expressions = {}
        for number, description in enumerate(descriptions):
            for name, text, tag in (
                (f"{number}", description.text, "training words"),
                (f"{number}p", paraphrase(description, rng), "paraphrase"),
            ):
                tags = [*description.tags, tag]
                fields = object_fields(description.targets, objects)
                expressions[name] = {"exp": text, "tags": tags, **fields}
        meta[video_id] = {"expressions": expressions, "frames": frame_names(frames)}
        objects += len(scene.shapes)
    write_json(folder / "meta_expressions.json", {"videos": meta})


def clip_of(
    split: str, index: int, seed: int, frames: int
) -> tuple[str, Scene, list[Description], np.random.Generator]:
    """Video id, scene and expressions of a clip, and the generator after them."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = random_scene(rng, frames)
    return f"{split}_{index:04d}", scene, describe(scene, rng), rng


def frame_names(count: int) -> list[str]:
    """The names of so many frames, as MeViS has them."""
    return [f"{t:05d}" for t in range(count)]


def write_frames(folder: Path, frames_THW3: np.ndarray) -> list[str]:
    """Write RGB frames as JPEG files into a folder; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = frame_names(len(frames_THW3))
    for name, frame in zip(names, frames_THW3, strict=True):
        Image.fromarray(frame).save(folder / f"{name}.jpg", quality=95, subsampling=0)
    return names


def object_fields(targets: Sequence[int], first_object: int) -> dict[str, list[int]]:
    """MeViS's keys for an expression's targets; its clip's masks start at `first_object`."""
    return {"obj_id": list(targets), "anno_id": [first_object + n for n in targets]}


def add_masks(masks: dict[str, list], masks_NTHW: np.ndarray) -> None:
    """Add a clip's masks to the content of `mask_dict.json`."""
    for masks_THW in masks_NTHW:
        masks[str(len(masks))] = [_rle(mask) for mask in masks_THW]


def _rle(mask_HW: np.ndarray) -> dict | None:
    """COCO RLE, or None where the object cannot be seen, as MeViS writes it."""
    if not mask_HW.any():
        return None
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
