"""MeViS reader (Ding et al., ICCV 2023): `{root}/{split}/` with `JPEGImages/<video>/<frame>.jpg`,
`meta_expressions.json` and, in labelled splits, `mask_dict.json`.

Splits named "valid" and "test" are unlabelled; every other split needs `mask_dict.json`.
An object id is the annotation id (`anno_id`) as a string; an empty `anno_id` list is a no-target
expression (MeViS v2). An expression may carry `tags`, a list of strings: an extension of ours.
"""

from pathlib import Path
from typing import Any

import numpy as np

from warehouse.frames import FrameError, frame_size
from warehouse.sources.base import (
    BadVideo,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_path_name,
    check_video_id,
    read_json_object,
)

UNLABELLED_SPLITS = ("valid", "test")


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos of a split in the order of `meta_expressions.json`.

    Raises SourceError when the split, `meta_expressions.json` or a needed `mask_dict.json` is
    missing or malformed. A fault of one video (frames, expressions or masks) makes a BadVideo.
    """
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder; give the folder that holds the splits")
    folder = root / split
    if not folder.is_dir():
        found = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise SourceError(f"{root}: has no split {split!r}; it has {', '.join(found) or 'none'}")
    meta_file = folder / "meta_expressions.json"
    videos = read_json_object(meta_file).get("videos")
    if not isinstance(videos, dict):
        raise SourceError(f'{meta_file}: must hold {{"videos": {{video id: ...}}}}')
    masks = None if split in UNLABELLED_SPLITS else read_json_object(folder / "mask_dict.json")

    result: list[SourceVideo | BadVideo] = []
    for video_id, meta in videos.items():
        try:
            result.append(_read_video(folder, video_id, meta, masks))
        except (SourceError, FrameError) as error:
            result.append(BadVideo(video_id=video_id, error=str(error)))
    return result


def _read_video(
    folder: Path, video_id: str, meta: Any, masks: dict[str, Any] | None
) -> SourceVideo:
    """One checked video; `masks` is the split's mask_dict, None where the split is unlabelled."""
    where = f"{folder / 'meta_expressions.json'}: video {video_id!r}"
    check_video_id(video_id)
    if not (isinstance(meta, dict) and isinstance(meta.get("expressions"), dict)):
        raise SourceError(f'{where}: "expressions" must be an object of expressions by id')
    path = folder / "JPEGImages" / video_id
    frames = _read_frame_names(path, meta.get("frames"), where)
    expressions = tuple(
        _read_expression(expression_id, fields, masks, f"{where}, expression {expression_id!r}")
        for expression_id, fields in meta["expressions"].items()
    )
    ground_truth: dict[str, list[dict[str, Any] | None]] = {}
    if masks is not None:
        size = frame_size(path, frames)
        object_ids = (object_id for e in expressions for object_id in e.object_ids or ())
        for object_id in dict.fromkeys(object_ids):
            where = f"{folder / 'mask_dict.json'}: video {video_id!r}, object {object_id!r}"
            _check_masks(masks[object_id], frames, size, where)
            ground_truth[object_id] = masks[object_id]
    return SourceVideo(
        video_id=video_id,
        path=path,
        frames=frames,
        expressions=expressions,
        ground_truth=ground_truth,
    )


def _read_frame_names(path: Path, frames: Any, where: str) -> tuple[str, ...]:
    if not (isinstance(frames, list) and frames):
        raise SourceError(f'{where}: empty video: "frames" lists no frames')
    for frame in frames:
        check_path_name(frame, f"{where}: frame name")
    if len(set(frames)) < len(frames):
        raise SourceError(f'{where}: "frames" lists a frame twice')
    if not path.is_dir():
        raise SourceError(f"{path}: the frame folder is missing")
    present = {file.name for file in path.iterdir()}
    missing = [f"{frame}.jpg" for frame in frames if f"{frame}.jpg" not in present]
    if missing:
        raise SourceError(
            f"{path / missing[0]}: the frame file is missing "
            f"({len(missing)} of {len(frames)} listed frames are)"
        )
    return tuple(frames)


def _read_expression(
    expression_id: str, fields: Any, masks: dict[str, Any] | None, where: str
) -> SourceExpression:
    check_path_name(expression_id, f"{where}: id")
    if not isinstance(fields, dict):
        raise SourceError(f"{where}: must be a JSON object")
    text, anno_ids, tags = fields.get("exp"), fields.get("anno_id"), fields.get("tags", [])
    if not (isinstance(text, str) and text.strip()):
        raise SourceError(f'{where}: has no text ("exp" is missing or blank)')
    if not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        raise SourceError(f'{where}: "tags" must be a list of strings, got {tags!r}')
    object_ids = None
    if masks is not None:
        if not isinstance(anno_ids, list):
            raise SourceError(f'{where}: "anno_id" must be a list of annotation ids')
        object_ids = tuple(str(anno_id) for anno_id in anno_ids)
        unknown = [object_id for object_id in object_ids if object_id not in masks]
        if unknown:
            raise SourceError(f"{where}: names anno_id {unknown[0]}, absent from mask_dict.json")
    return SourceExpression(
        expression_id=expression_id, text=text, object_ids=object_ids, tags=tuple(tags)
    )


def _check_masks(rles: Any, frames: tuple[str, ...], size: tuple[int, int], where: str) -> None:
    """Raise SourceError unless `rles` has, per frame, None or a sound RLE of the frame's size."""
    if not isinstance(rles, list) or len(rles) != len(frames):
        got = len(rles) if isinstance(rles, list) else "no list of"
        raise SourceError(f"{where}: {got} masks for {len(frames)} frames")
    for frame, rle in zip(frames, rles, strict=True):
        if rle is None:
            continue
        if not isinstance(rle, dict) or not isinstance(rle.get("counts"), str):
            raise SourceError(
                f'{where}, frame {frame}: must be null or {{"size": [h, w], "counts": string}}'
            )
        if rle.get("size") != [*size]:
            raise SourceError(
                f"{where}, frame {frame}: the mask's size [height, width] is {rle.get('size')}, "
                f"but the video's frames are {[*size]}"
            )
        if not _decodes(rle["counts"], size[0] * size[1]):
            raise SourceError(f"{where}, frame {frame}: the RLE counts do not decode to a mask")


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
