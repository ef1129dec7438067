"""What scoring needs of a split: its expressions and their target masks. No warehouse, and no
frames but those of own masks.

    mevis, mevis-v2     FOLDER/meta_expressions.json or meta_expressions_v2.json
                        FOLDER/mask_dict.json
    mevis, own masks    FOLDER/videos, FOLDER/masks or masks.json, FOLDER/expressions.csv
    ref-youtube-vos     FOLDER/Annotations/<video>/<frame>.png
                        FOLDER/../meta_expressions/<name of FOLDER>/meta_expressions.json
    davis               FOLDER/Annotations_unsupervised/480p/<video>/<frame>.png
                        FOLDER/ImageSets/2017/val.txt; for another list FOLDER/<its name>

The layouts are those of the readers in `warehouse.sources`.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from warehouse.sources import labelled
from warehouse.sources.base import (
    VOID,
    BadVideo,
    Masks,
    SourceError,
    read_json_object,
    read_names,
)
from warehouse.sources.labels import VOID_VALUE, read_labels
from warehouse.sources.mevis import read_frame_names, read_texts, read_videos
from warehouse.sources.ref_youtube_vos import object_ids, without_test

MEVIS_FILES = {
    "mevis": ("meta_expressions.json", "meta_expressions_v2.json"),
    "mevis-v2": ("meta_expressions_v2.json", "meta_expressions.json"),
}
VARIANTS = 4  # texts of each object of Ref-DAVIS17


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """A video to score: expression id -> its objects, and their masks, as RLE or in images.

    `pairs`: expression id -> "kind/number", of expressions that are one of a pair. MeViS's layout
    has it as the key "pair", an extension of ours.
    """

    video_id: str
    frames: tuple[str, ...]
    expressions: Mapping[str, tuple[str, ...]]
    masks: Mapping[str, Masks] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)
    images: tuple[Path, ...] = ()  # label images, one per frame; where there are any, `masks` is {}
    void: bool = False  # 255 in them is no object

    def read_masks(self) -> Mapping[str, Masks]:
        """Object id -> RLE, or None where it is absent, per frame; void pixels are VOID.

        Raises FrameError for an image that does not decode, and SourceError for one that is no
        label image, and for an object that an expression names and no image shows.
        """
        if not self.images:
            return self.masks
        masks: dict[str, Masks] = {}
        for t, file in enumerate(self.images):
            labels_HW = read_labels(file)
            for value in np.unique(labels_HW[labels_HW > 0]).tolist():
                name = VOID if self.void and value == VOID_VALUE else str(value)
                rle = coco.encode(np.asfortranarray(labels_HW == value, dtype=np.uint8))
                masks.setdefault(name, [None] * len(self.images))[t] = rle
        if not self.void:
            self._check_shown(masks)
        return masks

    def _check_shown(self, masks: Mapping[str, Masks]) -> None:
        for expression_id, names in self.expressions.items():
            for name in names:
                if name not in masks:
                    raise SourceError(
                        f"{self.images[0].parent}: expression {expression_id!r} names object "
                        f"{name!r}, which none of the {len(self.images)} label images shows"
                    )


def guess_protocol(folder: Path) -> str:
    """The protocol that a split's folder is to be scored by; SourceError where nothing tells."""
    if any((folder / name).is_file() for name in (*MEVIS_FILES["mevis"], "mask_dict.json")):
        return "mevis"
    if _is_labelled(folder):
        return "mevis"
    if _youtube_meta(folder).is_file():
        return "ref-youtube-vos"
    if _davis(folder)[1].is_file():
        return "davis"
    raise SourceError(
        f"{folder}: is no split of a known layout. Give a folder with meta_expressions.json and "
        "mask_dict.json (MeViS, say MEVIS/valid_u), ROOT/valid beside ROOT/meta_expressions "
        "(Ref-YouTube-VOS), the folder with ImageSets/2017 (DAVIS), or one with videos and masks "
        "or masks.json (your own)"
    )


def read_annotations(folder: Path, protocol: str) -> list[AnnotatedVideo]:
    """The videos of a split. Raises SourceError, with all faults there are, if there is one."""
    errors: list[str] = []
    if protocol in MEVIS_FILES and _is_labelled(folder):
        videos = _read_labelled(folder, errors)
    elif protocol in MEVIS_FILES:
        videos = _read_mevis(folder, MEVIS_FILES[protocol], errors)
    elif protocol == "ref-youtube-vos":
        videos = _read_youtube(folder, errors)
    else:
        videos = _read_davis(folder, errors)
    if errors:
        raise SourceError(*errors)
    return videos


def _read_mevis(folder: Path, names: Sequence[str], errors: list[str]) -> list[AnnotatedVideo]:
    meta_file = next((folder / name for name in names if (folder / name).is_file()), None)
    if meta_file is None:
        raise SourceError(f"{folder / names[0]}: no such file; give the folder of a split")
    if not (folder / "mask_dict.json").is_file():
        raise SourceError(
            f"{folder / 'mask_dict.json'}: no such file; the split is unlabelled and only the "
            "benchmark's server can score it"
        )
    masks = read_json_object(folder / "mask_dict.json")
    videos: list[AnnotatedVideo] = []
    for video_id, meta in read_videos(meta_file).items():
        where = f"{meta_file}: video {video_id!r}"
        frames = read_frame_names(meta, where, errors)
        expressions: dict[str, tuple[str, ...]] = {}
        pairs: dict[str, str] = {}
        for expression_id, fields in read_texts(meta, where, errors).items():
            if "pair" in fields:
                pairs[expression_id] = fields["pair"]
            anno_ids = fields.get("anno_id")
            if not isinstance(anno_ids, list):
                errors.append(f'{where}, expression {expression_id!r}: "anno_id" must be a list')
                continue
            expressions[expression_id] = tuple(str(anno_id) for anno_id in anno_ids)
        named = dict.fromkeys(name for names in expressions.values() for name in names)
        for name in named:
            found = masks.get(name)
            if not isinstance(found, list) or len(found) != len(frames):
                count = len(found) if isinstance(found, list) else "no"
                errors.append(
                    f"{folder / 'mask_dict.json'}: video {video_id!r}, object {name!r}: {count} "
                    f"masks for {len(frames)} frames"
                )
            elif not all(rle is None or _is_rle(rle) for rle in found):
                errors.append(
                    f"{folder / 'mask_dict.json'}: video {video_id!r}, object {name!r}: a mask "
                    'must be null or {"size": [h, w], "counts": string}'
                )
        videos.append(
            AnnotatedVideo(
                video_id=video_id,
                frames=frames,
                expressions=expressions,
                masks={name: masks[name] for name in named if name in masks},
                pairs=pairs,
            )
        )
    errors += _pair_errors(meta_file, videos)
    return videos


def _pair_errors(meta_file: Path, videos: Sequence[AnnotatedVideo]) -> list[str]:
    """An error for each pair that is not named "kind/number" or is not of two expressions."""
    count = Counter(json.dumps(pair) for video in videos for pair in video.pairs.values())
    return [
        f"{meta_file}: pair {pair} has {members} expressions; a pair is two expressions with the "
        'same "pair", a text such as "reversed/3"'
        for pair, members in count.items()
        if members != 2 or not re.fullmatch(r'"[^/"]+/[^/"]+"', pair)
    ]


def _is_rle(mask: object) -> bool:
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
        return False
    size = mask.get("size")
    return isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)


def _is_labelled(folder: Path) -> bool:
    masks = (labelled.MASKS, labelled.MASKS_FILE)
    return (folder / labelled.VIDEOS).is_dir() and any((folder / name).exists() for name in masks)


def _read_labelled(folder: Path, errors: list[str]) -> list[AnnotatedVideo]:
    folder = folder.resolve()
    videos = []
    for video in labelled.read_split(folder.parent, folder.name):
        if isinstance(video, BadVideo):
            errors.extend(video.errors)
            continue
        videos.append(
            AnnotatedVideo(
                video_id=video.video_id,
                frames=video.frames,
                expressions={e.expression_id: e.object_ids or () for e in video.expressions},
                masks=video.ground_truth,
            )
        )
    return videos


def _youtube_meta(folder: Path) -> Path:
    folder = folder.resolve()
    return folder.parent / "meta_expressions" / folder.name / "meta_expressions.json"


def _read_youtube(folder: Path, errors: list[str]) -> list[AnnotatedVideo]:
    folder = folder.resolve()
    meta_file = _youtube_meta(folder)
    metas = read_videos(meta_file)
    if folder.name == "valid":
        metas = without_test(folder.parent, metas, meta_file)
    videos = []
    for video_id, meta in metas.items():
        where = f"{meta_file}: video {video_id!r}"
        frames = read_frame_names(meta, where, errors)
        expressions = {
            expression_id: object_ids(fields, f"{where}, expression {expression_id!r}", errors)
            for expression_id, fields in read_texts(meta, where, errors).items()
        }
        images = _images(folder / "Annotations" / video_id, frames, errors)
        videos.append(
            AnnotatedVideo(video_id=video_id, frames=frames, expressions=expressions, images=images)
        )
    return videos


def _davis(folder: Path) -> tuple[Path, Path]:
    """Where DAVIS lies, and the list of the split's videos."""
    split = "val"
    if not folder.exists():
        folder, split = folder.parent, folder.name
    if (folder / "DAVIS").is_dir():
        folder /= "DAVIS"
    return folder, folder / "ImageSets" / "2017" / f"{split}.txt"


def _read_davis(folder: Path, errors: list[str]) -> list[AnnotatedVideo]:
    """Objects are those of the first frame, 1 to the highest label, as davis2017-evaluation has it.

    Expression id = 4 * object + variant, objects counted from 0, as ReferFormer has it.
    """
    root, listed = _davis(folder)
    videos = []
    for video_id in read_names(listed):
        if isinstance(video_id, BadVideo):
            errors.extend(video_id.errors)
            continue
        annotations = root / "Annotations_unsupervised" / "480p" / video_id
        frames = tuple(sorted(file.stem for file in annotations.glob("*.png")))
        if not frames:
            errors.append(f"{annotations}: has no annotations")
            continue
        images = _images(annotations, frames, errors)
        labels_HW = read_labels(images[0])
        count = int(labels_HW[labels_HW != VOID_VALUE].max(initial=0))
        if not count:
            errors.append(f"{images[0]}: the first frame shows no object")
        expressions = {
            str(VARIANTS * n + variant): (str(n + 1),)
            for n in range(count)
            for variant in range(VARIANTS)
        }
        videos.append(
            AnnotatedVideo(
                video_id=video_id, frames=frames, expressions=expressions, images=images, void=True
            )
        )
    return videos


def _images(folder: Path, frames: Sequence[str], errors: list[str]) -> tuple[Path, ...]:
    files = tuple(folder / f"{frame}.png" for frame in frames)
    missing = [file for file in files if not file.is_file()]
    if missing:
        errors.append(f"{missing[0]}: the annotation is missing ({len(missing)} of {len(files)})")
    return files
