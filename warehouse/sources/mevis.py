"""MeViS reader (Ding et al., ICCV 2023): `{root}/{split}/` with `JPEGImages/<video>/<frame>.jpg`,
`meta_expressions.json` and, in labelled splits, `mask_dict.json`.

    {"videos": {video: {"expressions": {id: {"exp": text, "anno_id": [int]}}, "frames": [name]}}}
    {anno_id: [null or COCO RLE per frame]}

Splits named "valid" and "test" are unlabelled; every other split needs `mask_dict.json`.
An object id is the annotation id (`anno_id`) as a string; an empty `anno_id` list is a no-target
expression (MeViS v2). An expression may carry `tags`, a list of strings: an extension of ours.
The layout is that of the README of github.com/henghuiding/MeViS.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from warehouse.frames import frame_size
from warehouse.sources.base import (
    BadVideo,
    Masks,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_path_name,
    check_split,
    check_video_id,
    collected,
    good_or_bad,
    present_frames,
    read_json_object,
)

UNLABELLED_SPLITS = ("valid", "test")
META_FILES = ("meta_expressions.json",)


def list_splits(root: Path) -> list[str]:
    """The folders of `root` that hold anything of a split."""
    parts = ("JPEGImages", "mask_dict.json", "meta_expressions*.json")
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted(path.name for path in folders if any(any(path.glob(part)) for part in parts))


def read_split(
    root: Path, split: str, meta_files: Sequence[str] = META_FILES
) -> list[SourceVideo | BadVideo]:
    """Videos of a split in the order of `meta_expressions.json`.

    Of `meta_files` the first that is there counts. Raises SourceError when the split, the
    expressions or a needed `mask_dict.json` is missing or malformed. A fault of one video
    (frames, expressions or masks) makes a BadVideo.
    """
    check_split(root, split, list_splits(root))
    folder = root / split
    files = [folder / name for name in meta_files]
    meta_file = next((file for file in files if file.exists()), files[0])
    videos = read_videos(meta_file)
    errors: list[str] = []
    masks: dict[str, Any] | None = None
    if split not in UNLABELLED_SPLITS:
        with collected(errors):
            masks = read_json_object(folder / "mask_dict.json")
    result = [_read_video(meta_file, video_id, meta, masks) for video_id, meta in videos.items()]
    if errors:
        raise SourceError(*errors, videos=result)
    return result


def read_videos(meta_file: Path) -> dict[str, Any]:
    """What a file of expressions says, by video id; raises SourceError where it is malformed."""
    videos = read_json_object(meta_file).get("videos")
    if not isinstance(videos, dict):
        raise SourceError(f'{meta_file}: must hold {{"videos": {{video id: ...}}}}')
    if not videos:
        raise SourceError(f"{meta_file}: lists no videos")
    return videos


def read_texts(meta: dict[str, Any], where: str, errors: list[str]) -> dict[str, dict[str, Any]]:
    """The expressions of a video that have an id and a text; an error for each other one."""
    if not isinstance(meta.get("expressions"), dict):
        errors.append(f'{where}: "expressions" must be an object of expressions by id')
        return {}
    good = {}
    for expression_id, fields in meta["expressions"].items():
        at = f"{where}, expression {expression_id!r}"
        with collected(errors):
            check_path_name(expression_id, f"{at}: id")
            if not isinstance(fields, dict):
                raise SourceError(f"{at}: must be a JSON object, not {fields!r}")
            text = fields.get("exp")
            if not (isinstance(text, str) and text.strip()):
                raise SourceError(f'{at}: has no text ("exp" is missing or blank)')
            good[expression_id] = fields
    return good


def read_frame_names(meta: dict[str, Any], where: str, errors: list[str]) -> tuple[str, ...]:
    """The frame names of a video that are usable; an error for each other one."""
    frames = meta.get("frames")
    if not (isinstance(frames, list) and frames):
        errors.append(f'{where}: empty video: "frames" lists no frames')
        return ()
    good: dict[str, None] = {}
    for frame in frames:
        with collected(errors):
            check_path_name(frame, f"{where}: frame name")
            if frame in good:
                raise SourceError(f'{where}: "frames" lists a frame twice: {frame}')
            good[frame] = None
    return tuple(good)


def _read_video(
    meta_file: Path, video_id: str, meta: Any, masks: dict[str, Any] | None
) -> SourceVideo | BadVideo:
    """One checked video; `masks` is the split's mask_dict, None where there is none."""
    where = f"{meta_file}: video {video_id!r}"
    folder = meta_file.parent
    errors: list[str] = []
    with collected(errors):
        check_video_id(video_id)
        if not isinstance(meta, dict):
            raise SourceError(f"{where}: must be a JSON object, not {meta!r}")
    if errors:
        return BadVideo(video_id=video_id, errors=tuple(errors))
    path = folder / "JPEGImages" / video_id
    listed = read_frame_names(meta, where, errors)
    sound_frames = not errors
    frames = present_frames(path, listed, errors)
    expressions = tuple(
        _read_expression(
            expression_id, fields, masks, f"{where}, expression {expression_id!r}", errors
        )
        for expression_id, fields in read_texts(meta, where, errors).items()
    )
    size = None
    if frames and masks is not None:
        with collected(errors):
            size = frame_size(path, frames)
    ground_truth: dict[str, Masks] = {}
    object_ids = (object_id for e in expressions for object_id in e.object_ids or ())
    for object_id in dict.fromkeys(object_ids):
        assert masks is not None, "without them expressions name no objects"
        at = f"{folder / 'mask_dict.json'}: video {video_id!r}, object {object_id!r}"
        _check_masks(masks[object_id], listed if sound_frames else None, size, at, errors)
        ground_truth[object_id] = masks[object_id]
    video = SourceVideo(
        video_id=video_id,
        path=path,
        frames=frames,
        expressions=expressions,
        ground_truth=ground_truth,
    )
    return good_or_bad(video, errors)


def _read_expression(
    expression_id: str,
    fields: dict[str, Any],
    masks: dict[str, Any] | None,
    where: str,
    errors: list[str],
) -> SourceExpression:
    anno_ids, tags = fields.get("anno_id"), fields.get("tags", [])
    if not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        errors.append(f'{where}: "tags" must be a list of strings, got {tags!r}')
        tags = []
    object_ids = None
    if masks is not None:
        if not isinstance(anno_ids, list):
            errors.append(f'{where}: "anno_id" must be a list of annotation ids')
            anno_ids = []
        known = [str(anno_id) for anno_id in anno_ids if str(anno_id) in masks]
        errors.extend(
            f"{where}: names anno_id {anno_id}, absent from mask_dict.json"
            for anno_id in anno_ids
            if str(anno_id) not in masks
        )
        object_ids = tuple(known)
    return SourceExpression(
        expression_id=expression_id, text=fields["exp"], object_ids=object_ids, tags=tuple(tags)
    )


def _check_masks(
    rles: Any,
    frames: Sequence[str] | None,
    size: tuple[int, int] | None,
    where: str,
    errors: list[str],
) -> None:
    """An error for each of `rles` that is not None or a sound RLE of the frames' size.

    `frames` and `size` are None where they are not known.
    """
    if not isinstance(rles, list) or len(rles) != len(frames or rles):
        got = len(rles) if isinstance(rles, list) else "no list of"
        errors.append(f"{where}: {got} masks for {len(frames or ())} frames")
        return
    frames = frames or [str(index) for index in range(len(rles))]
    for frame, rle in zip(frames, rles, strict=True):
        if rle is None:
            continue
        with collected(errors):
            check_rle(rle, size, f"{where}, frame {frame}")


def check_rle(rle: Any, size: tuple[int, int] | None, where: str) -> None:
    """Raise SourceError unless it is a compressed RLE of `size` (height, width), if known."""
    if not isinstance(rle, dict) or not isinstance(rle.get("counts"), str):
        raise SourceError(f'{where}: must be null or {{"size": [h, w], "counts": string}}')
    if size is not None and rle.get("size") != [*size]:
        raise SourceError(
            f"{where}: the mask's size [height, width] is {rle.get('size')}, but the video's "
            f"frames are {[*size]}"
        )
    if size is not None and not _decodes(rle["counts"], size[0] * size[1]):
        raise SourceError(f"{where}: the RLE counts do not decode to a mask")


def _decodes(counts: str, area: int) -> bool:
    """Whether a COCO compressed RLE string holds runs that fill exactly `area` pixels.

    pycocotools does not tell: from counts that end early it decodes uninitialised memory.
    The format (cocoapi, maskApi.c, rleFrString): numbers in groups of 5 bits, lowest first, 48
    added to each; bit 5 says that the number goes on, bit 4 of its last group is the sign; from
    the fourth run on, a number is the difference to the run before the previous one.
    """
    codes = np.frombuffer(counts.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return False
    ends = np.flatnonzero((codes & 32) == 0)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 7:  # 35 bits: more than any run, and safe from overflow
        return False
    starts = ends - lengths + 1
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= ((codes[ends] >> 4) & 1) << (5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return bool(runs.min() >= 0 and runs.sum() == area)
