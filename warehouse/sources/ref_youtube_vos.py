"""Ref-YouTube-VOS reader (Seo et al., "URVOS", ECCV 2020), the layout of the challenge's files:

    {root}/meta_expressions/{train,valid,test}/meta_expressions.json
    {root}/{train,valid,test}/JPEGImages/<video>/<frame>.jpg
    {root}/train/Annotations/<video>/<frame>.png, pixel value = object id

    {"videos": {video: {"expressions": {id: {"exp": text, "obj_id": "1"}}, "frames": [name]}}}

`frames` lists the annotated frames, every 5th of the film; other images are left alone. The
expressions of `valid` list 507 videos; those that `test` lists, too, do not count: 202 are left.
`valid` is labelled where its annotations, published after the challenge, are in
`valid/Annotations` and its expressions carry `obj_id`. Images of `test` may lie in `valid`.
The layout and the 202 videos are as in docs/data.md and inference_ytvos.py of
github.com/wjn922/ReferFormer.
"""

from pathlib import Path
from typing import Any

from warehouse.sources.base import (
    BadVideo,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_root,
    check_split,
    check_video_id,
    collected,
    good_or_bad,
    present_frames,
)
from warehouse.sources.labels import label_images
from warehouse.sources.mevis import read_frame_names, read_texts, read_videos

VIDEOS_WITH_TEST = 507  # of `valid`


def list_splits(root: Path) -> list[str]:
    """The folders of `meta_expressions`."""
    folder = root / "meta_expressions"
    return (
        sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    )


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos of a split in the order of its `meta_expressions.json`.

    Raises SourceError when the split, its expressions or train's annotations are missing or
    malformed. A fault of one video makes a BadVideo.
    """
    check_root(root)
    if not (root / "meta_expressions").is_dir():
        raise SourceError(
            f"{root / 'meta_expressions'}: no such folder; give the folder that holds "
            "meta_expressions, train and valid"
        )
    check_split(root, split, list_splits(root))
    meta_file = root / "meta_expressions" / split / "meta_expressions.json"
    videos = read_videos(meta_file)
    if split == "valid":
        videos = without_test(root, videos, meta_file)
    annotations = root / split / "Annotations"
    labelled = split == "train" or (annotations.is_dir() and _name_objects(videos))
    result = [
        _read_video(root, split, video_id, meta, annotations if labelled else None, meta_file)
        for video_id, meta in videos.items()
    ]
    if labelled and not annotations.is_dir():
        raise SourceError(f"{annotations}: the folder of annotations is missing", videos=result)
    return result


def without_test(root: Path, videos: dict[str, Any], meta_file: Path) -> dict[str, Any]:
    test_file = root / "meta_expressions" / "test" / "meta_expressions.json"
    if test_file.is_file():
        test = read_videos(test_file)
        return {video_id: meta for video_id, meta in videos.items() if video_id not in test}
    if len(videos) == VIDEOS_WITH_TEST:
        raise SourceError(
            f"{meta_file}: lists all {len(videos)} videos, but only 202 count; add {test_file}, "
            "which names the others"
        )
    return videos


def _name_objects(videos: dict[str, Any]) -> bool:
    """Whether any expression says which object it refers to."""
    return any(
        "obj_id" in fields
        for meta in videos.values()
        if isinstance(meta, dict)
        for fields in read_texts(meta, "", []).values()
    )


def _read_video(
    root: Path, split: str, video_id: str, meta: Any, annotations: Path | None, meta_file: Path
) -> SourceVideo | BadVideo:
    """One checked video; `annotations` is None where the split is unlabelled."""
    where = f"{meta_file}: video {video_id!r}"
    errors: list[str] = []
    with collected(errors):
        check_video_id(video_id)
        if not isinstance(meta, dict):
            raise SourceError(f"{where}: must be a JSON object, not {meta!r}")
    if errors:
        return BadVideo(video_id=video_id, errors=tuple(errors))
    path = root / split / "JPEGImages" / video_id
    if split == "test" and not path.is_dir() and (root / "valid/JPEGImages" / video_id).is_dir():
        path = root / "valid/JPEGImages" / video_id
    listed = read_frame_names(meta, where, errors)
    frames = present_frames(path, listed, errors)
    expressions = tuple(
        SourceExpression(
            expression_id=expression_id,
            text=fields["exp"],
            object_ids=None
            if annotations is None
            else object_ids(fields, f"{where}, expression {expression_id!r}", errors),
        )
        for expression_id, fields in read_texts(meta, where, errors).items()
    )
    video = SourceVideo(
        video_id=video_id,
        path=path,
        frames=frames,
        expressions=expressions,
        ground_truth={}
        if annotations is None
        else label_images(path, frames, listed, annotations / video_id, expressions, errors),
    )
    return good_or_bad(video, errors)


def object_ids(fields: dict[str, Any], where: str, errors: list[str]) -> tuple[str, ...]:
    object_id = str(fields.get("obj_id"))
    if object_id.isascii() and object_id.isdecimal() and 0 < int(object_id) < 256:
        return (str(int(object_id)),)
    errors.append(
        f'{where}: "obj_id" must be an object number, "1" to "255", got {fields.get("obj_id")!r}'
    )
    return ()
