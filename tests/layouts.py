"""Small data sets in every layout that `warehouse.sources` reads, drawn by the embedded generator.

Each `write_*(root, splits, frames, seed)` writes `splits[split]` videos of each split under `root`
and returns what it wrote, so that a test can compare: {split: [Clip]}. The same arguments give the
same files. Frames are 112 x 144 (height x width), masks those of the generator, pixel for pixel.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from warehouse.demo_data import describe, random_scene, render_frames
from warehouse.demo_data.language import Description
from warehouse.sources.pascal_voc import CLASSES
from warehouse.sources.ref_davis17 import VARIANTS

EMBLEMS = {"circle": "person", "square": "cat", "triangle": "dog", "star": "bird", "bar": "boat"}
PALETTE = [value for colour in range(256) for value in (colour, 37 * colour % 256, 255 - colour)]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video as it was drawn; object n of the masks has the number n + 1 in label images."""

    video_id: str
    frames: tuple[str, ...]
    frames_THW3: np.ndarray
    masks_NTHW: np.ndarray
    descriptions: tuple[Description, ...]
    kinds: tuple[str, ...]  # of each object

    @property
    def labels_THW(self) -> np.ndarray:
        """Object numbers, 0 background; the masks do not overlap."""
        numbers_N = np.arange(1, len(self.masks_NTHW) + 1, dtype=np.uint8)
        return (self.masks_NTHW * numbers_N[:, None, None, None]).sum(0).astype(np.uint8)


def write_mevis(
    root: Path,
    splits: dict[str, int] | None = None,
    frames: int = 6,
    seed: int = 0,
    *,
    no_target: bool = False,
    meta_name: str = "meta_expressions.json",
) -> dict[str, list[Clip]]:
    """MeViS: splits train and valid_u labelled, valid not. Anno ids count through a split."""
    written = _clips(splits or {"train": 2, "valid_u": 1, "valid": 1}, frames, seed)
    for split, clips in written.items():
        labelled, meta, masks = split not in ("valid", "test"), {}, {}
        for clip in clips:
            _write_frames(root / split / "JPEGImages", clip)
            first, expressions = len(masks), {}
            for d in clip.descriptions:
                if d.targets or no_target:
                    ids = {"obj_id": [*d.targets], "anno_id": [first + n for n in d.targets]}
                    fields = {"exp": d.text} | (ids if labelled else {})
                    expressions[str(len(expressions))] = fields
            meta[clip.video_id] = {"expressions": expressions, "frames": [*clip.frames]}
            for masks_THW in clip.masks_NTHW:
                masks[str(len(masks))] = [_rle(mask_HW) for mask_HW in masks_THW]
        name = meta_name if labelled else meta_name.replace("_v2", "_v2_release")
        write_json(root / split / name, {"videos": meta})
        if labelled:
            write_json(root / split / "mask_dict.json", masks)
    return written


def write_mevis_v2(
    root: Path, splits: dict[str, int] | None = None, frames: int = 6, seed: int = 0
) -> dict[str, list[Clip]]:
    """MeViS v2: as MeViS, with no-target expressions and other file names."""
    name = "meta_expressions_v2.json"
    return write_mevis(root, splits, frames, seed, no_target=True, meta_name=name)


def write_ref_youtube_vos(
    root: Path,
    splits: dict[str, int] | None = None,
    frames: int = 6,
    seed: int = 0,
    *,
    valid_labelled: bool = True,
) -> dict[str, list[Clip]]:
    """Ref-YouTube-VOS: train, valid and test; every 5th frame is listed and annotated.

    The JSON of valid lists the videos of test, too, whose images lie in valid. The files of
    train hold images between the listed frames.
    """
    written = _clips(splits or {"train": 2, "valid": 1, "test": 1}, frames, seed, step=5)
    videos: dict[str, dict[str, Any]] = {split: {} for split in written}
    for split, clips in written.items():
        labelled = split == "train" or (split == "valid" and valid_labelled)
        images = root / ("valid" if split == "test" else split)
        for clip in clips:
            _write_frames(images / "JPEGImages", clip)
            if split == "train":
                between = images / "JPEGImages" / clip.video_id / "00001.jpg"
                Image.fromarray(clip.frames_THW3[0]).save(between)
            if labelled:
                write_labels(images / "Annotations", clip, clip.labels_THW)
            expressions = {
                str(index): {"exp": d.text}
                | ({"obj_id": str(d.targets[0] + 1)} if labelled else {})
                for index, d in enumerate(_single(clip))
            }
            videos[split][clip.video_id] = {"expressions": expressions, "frames": [*clip.frames]}
    if "valid" in videos:
        videos["valid"] |= videos.get("test", {})
    for split in written:
        write_json(root / "meta_expressions" / split / "meta_expressions.json",
                   {"videos": videos[split]})  # fmt: skip
    return written


def write_ref_davis17(
    root: Path, splits: dict[str, int] | None = None, frames: int = 6, seed: int = 0
) -> dict[str, list[Clip]]:
    """Ref-DAVIS17: train and val, void pixels around objects, one of the texts in Latin-1."""
    written = _clips(splits or {"train": 2, "val": 1}, frames, seed)
    texts = {name: [] for name in VARIANTS}
    for split, clips in written.items():
        write_lines(root / f"ImageSets/2017/{split}.txt", (clip.video_id for clip in clips))
        for clip in clips:
            _write_frames(root / "JPEGImages/480p", clip)
            labels_THW = with_void(clip.labels_THW)
            write_labels(root / "Annotations_unsupervised/480p", clip, labels_THW)
            for variant, name in enumerate(VARIANTS):
                for number, kind in enumerate(clip.kinds, start=1):
                    texts[name].append(f'{clip.video_id} {number} "{variant}: the {kind}, déjà vu"')
    for name, lines in texts.items():
        encoding = "latin-1" if name == "Davis17_annot2.txt" else "utf-8"
        write_lines(root / "davis_text_annotations" / name, lines, encoding)
    return written


def write_pascal_voc(
    root: Path, splits: dict[str, int] | None = None, seed: int = 0
) -> dict[str, list[Clip]]:
    """PASCAL VOC: one frame a video; the kinds of shapes stand for classes, see EMBLEMS."""
    written = _clips(splits or {"train": 3, "val": 2}, 1, seed)
    for split, clips in written.items():
        write_lines(root / f"ImageSets/Segmentation/{split}.txt", (clip.video_id for clip in clips))
        for clip in clips:
            objects_HW = with_void(clip.labels_THW)[0]
            numbers = [0, *(CLASSES.index(EMBLEMS[kind]) + 1 for kind in clip.kinds)]
            classes_HW = np.full_like(objects_HW, 255)
            for number, value in enumerate(numbers):
                classes_HW[objects_HW == number] = value
            folders = ("JPEGImages", "SegmentationObject", "SegmentationClass")
            for name in folders:
                (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(clip.frames_THW3[0]).save(root / f"JPEGImages/{clip.video_id}.jpg")
            for name, labels_HW in zip(folders[1:], (objects_HW, classes_HW), strict=True):
                write_label_image(root / name / f"{clip.video_id}.png", labels_HW)
    return written


def write_folder(
    root: Path, videos: int = 2, frames: int = 6, seed: int = 0, texts: str | None = "json"
) -> dict[str, list[Clip]]:
    """A user's videos: a frame folder, then video files; texts in "json", "csv" or None."""
    written = _clips({"all": videos}, frames, seed)
    for number, clip in enumerate(written["all"]):
        if number == 0:
            _write_frames(root, clip)
        else:
            write_video(root / f"{clip.video_id}.mp4", clip.frames_THW3)
    found = {clip.video_id: [d.text for d in clip.descriptions] for clip in written["all"]}
    if texts == "json":
        write_json(root / "expressions.json", found)
    elif texts == "csv":
        with (root / "expressions.csv").open("w", newline="") as stream:
            lines = csv.writer(stream)
            lines.writerow(["video_id", "text"])
            lines.writerows([video_id, text] for video_id in found for text in found[video_id])
    return written


def with_void(labels: np.ndarray) -> np.ndarray:
    """Label images (..., H, W) whose objects' left edges are void (255)."""
    left = np.pad(labels, [(0, 0)] * (labels.ndim - 1) + [(1, 0)])[..., :-1]
    return np.where((labels > 0) & (left == 0), 255, labels).astype(np.uint8)


def write_labelled(
    root: Path, splits: dict[str, int] | None = None, frames: int = 6, seed: int = 0
) -> dict[str, list[Clip]]:
    """A user's own, no-target sentences included: masks of train are label images, of other splits
    masks.json. The last video of a split is a file.
    """
    written = _clips(splits or {"train": 2, "val": 2}, frames, seed)
    for split, clips in written.items():
        for clip in clips[:-1]:
            _write_frames(root / split / "videos", clip)
        (root / split / "videos").mkdir(parents=True, exist_ok=True)
        write_video(root / split / f"videos/{clips[-1].video_id}.mp4", clips[-1].frames_THW3)
        if split == "train":
            for clip in clips:
                write_labels(root / split / "masks", clip, clip.labels_THW)
        else:
            write_json(root / split / "masks.json", coco_masks(clips))
        with (root / split / "expressions.csv").open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(("video", "sentence", "objects", "id", "tags"))
            for clip in clips:
                seen_N = clip.masks_NTHW.any((1, 2, 3))
                for n, d in enumerate(clip.descriptions):
                    if all(seen_N[target] for target in d.targets):
                        objects = "; ".join(str(target + 1) for target in d.targets)
                        lines.writerow((clip.video_id, d.text, objects, f"e{n}", "one; two words"))
    return written


def coco_masks(clips: Iterable[Clip]) -> dict[str, list[Any]]:
    """YouTube-VIS: an annotation of each object, which `object_id` names."""
    content: dict[str, list[Any]] = {"videos": [], "annotations": []}
    for number, clip in enumerate(clips, start=1):
        files = [f"{clip.video_id}/{frame}.jpg" for frame in clip.frames]
        content["videos"].append({"id": number, "file_names": files})
        for n, masks_THW in enumerate(clip.masks_NTHW, start=1):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "video_id": number,
                    "object_id": n,
                    "segmentations": [_rle(mask_HW) for mask_HW in masks_THW],
                }
            )
    return content


def write_label_image(file: Path, labels_HW: np.ndarray) -> None:
    """A palette PNG."""
    image = Image.fromarray(labels_HW, mode="P")
    image.putpalette(PALETTE)
    image.save(file)


def write_video(file: Path, frames_THW3: np.ndarray) -> None:
    """A video file of the frames, compressed."""
    _, height, width, _ = frames_THW3.shape
    with av.open(str(file), "w") as container:
        stream = container.add_stream(
            "mpeg4", rate=10, width=width, height=height, pix_fmt="yuv420p"
        )
        for frame_HW3 in frames_THW3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HW3, format="rgb24")))
        container.mux(stream.encode())


def write_json(file: Path, content: Any) -> None:
    """JSON, its folder made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def write_lines(file: Path, lines: Iterable[str], encoding: str = "utf-8") -> None:
    """Lines of text, the file's folder made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)


def _clips(splits: dict[str, int], frames: int, seed: int, step: int = 1) -> dict[str, list[Clip]]:
    return {
        split: [_clip(f"{split}_{n}", [seed, s, n], frames, step) for n in range(count)]
        for s, (split, count) in enumerate(splits.items())
    }


def _clip(video_id: str, seed: list[int], frames: int, step: int) -> Clip:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, max(frames, 4))
    frames_THW3, masks_NTHW = render_frames(scene, range(frames))
    return Clip(
        video_id=video_id,
        frames=tuple(f"{step * t:05d}" for t in range(frames)),
        frames_THW3=frames_THW3,
        masks_NTHW=masks_NTHW,
        descriptions=tuple(describe(scene, rng)),
        kinds=tuple(shape.kind for shape in scene.shapes),
    )


def _single(clip: Clip) -> list[Description]:
    """The descriptions of one object that can be seen."""
    seen_N = clip.masks_NTHW.any((1, 2, 3))
    return [d for d in clip.descriptions if len(d.targets) == 1 and seen_N[d.targets[0]]]


def _write_frames(folder: Path, clip: Clip) -> None:
    (folder / clip.video_id).mkdir(parents=True)
    for name, frame_HW3 in zip(clip.frames, clip.frames_THW3, strict=True):
        Image.fromarray(frame_HW3).save(folder / clip.video_id / f"{name}.jpg", quality=95)


def write_labels(folder: Path, clip: Clip, labels_THW: np.ndarray) -> None:
    (folder / clip.video_id).mkdir(parents=True)
    for name, labels_HW in zip(clip.frames, labels_THW, strict=True):
        write_label_image(folder / clip.video_id / f"{name}.png", labels_HW)


def _rle(mask_HW: np.ndarray) -> dict[str, Any] | None:
    if not mask_HW.any():
        return None
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
