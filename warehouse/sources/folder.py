"""A user's own videos: a folder of frame folders and/or video files, or one of either.

Images are .jpg, .jpeg or .png, in natural order of their names; video files .mp4, .mov, .avi,
.mkv or .webm. The video id is the folder's name or the file's stem. An optional
`expressions.json` in the folder, `{video id: ["text", ...]}`, gives the expressions.
"""

import itertools
import re
from pathlib import Path
from typing import Any

from warehouse.frames import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FrameError,
    count_frames,
    image_files,
)
from warehouse.sources.base import (
    BadVideo,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_path_name,
    check_video_id,
    read_json_object,
)


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos under `root`, unlabelled, in natural order; `split` is only a label here.

    Raises SourceError when there is no video at all or `expressions.json` is malformed. A fault
    of one video (unreadable, empty, or a video id met before) makes a BadVideo.
    """
    entries = _list_entries(root)
    texts = {}
    if (root / "expressions.json").is_file():
        texts = read_json_object(root / "expressions.json")

    result: list[SourceVideo | BadVideo] = []
    seen: dict[str, Path] = {}
    for path in entries:
        video_id = _video_id(path)
        first = seen.setdefault(video_id, path)
        try:
            if first is not path:
                raise SourceError(f"{path}: has the same video id as {first}; rename one of them")
            result.append(_read_video(path, video_id, texts.get(video_id, [])))
        except (SourceError, FrameError) as error:
            result.append(BadVideo(video_id=video_id, error=str(error)))
    for video_id in texts:
        if video_id not in seen:
            error = f"{root / 'expressions.json'}: {video_id!r} is no frame folder or video file"
            result.append(BadVideo(video_id=video_id, error=error))
    return result


def _list_entries(root: Path) -> list[Path]:
    """Frame folders and video files that `root` is or holds, in natural order."""
    if root.name in ("", ".."):
        root = root.resolve()  # so that "." has a name
    if root.is_file() and root.suffix.lower() in VIDEO_SUFFIXES:
        return [root]
    if not root.is_dir():
        problem = "is not a video file" if root.exists() else "no such file or folder"
        raise SourceError(
            f"{root}: {problem}; give a folder of frame folders and video files, one frame folder "
            f"({', '.join(IMAGE_SUFFIXES)}) or one video file ({', '.join(VIDEO_SUFFIXES)})"
        )
    entries = [
        path
        for path in root.iterdir()
        if not path.name.startswith(".")
        and (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES)
    ]
    images = image_files(root)
    if images and entries:
        raise SourceError(
            f"{root}: holds both images ({images[0].name}) and folders or videos "
            f"({min(entries).name}); put the images into a folder of their own"
        )
    if not images and not entries:
        raise SourceError(
            f"{root}: holds no images ({', '.join(IMAGE_SUFFIXES)}), frame folders or video files "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    return [root] if images else sorted(entries, key=lambda path: _natural(path.name))


def _video_id(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _read_video(path: Path, video_id: str, texts: Any) -> SourceVideo:
    check_video_id(video_id)
    if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
        raise SourceError(
            f"expressions.json: video {video_id!r}: must be a list of texts, got {texts!r}"
        )
    frames = _list_frames(path) if path.is_dir() else _index_frames(path)
    if not frames:
        raise SourceError(f"{path}: has no frames")
    return SourceVideo(
        video_id=video_id,
        path=path,
        frames=frames,
        expressions=tuple(
            SourceExpression(expression_id=str(index), text=text, object_ids=None)
            for index, text in enumerate(texts)
        ),
        ground_truth={},
    )


def _list_frames(folder: Path) -> tuple[str, ...]:
    frames = sorted((file.stem for file in image_files(folder)), key=_natural)
    for frame, following in itertools.pairwise(frames):
        if frame == following:
            raise SourceError(f"{folder}: has two images named {frame}; remove one")
    for frame in frames:
        check_path_name(frame, f"{folder}: frame name")
    return tuple(frames)


def _index_frames(video: Path) -> tuple[str, ...]:
    return tuple(f"{index:05d}" for index in range(count_frames(video)))


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
