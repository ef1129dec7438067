"""A user's own videos: a folder of frame folders and/or video files, one of either, or a list.

Images are .jpg, .jpeg or .png, in natural order of their names; video files .mp4, .mov, .avi,
.mkv or .webm. The video id is the folder's name or the file's stem. A list is a .txt file of one
path per line, relative to the list's folder; lines that begin with # are comments.

Expressions are optional, in the folder (of the list), unlabelled, in one of two files:

    expressions.json    {video id: ["text", ...]}
    expressions.csv     a header line and the columns video_id and text, a line per expression
"""

from pathlib import Path
from typing import Any

from warehouse.contents import described, names_in
from warehouse.frames import image_files
from warehouse.images import IMAGE_SUFFIXES
from warehouse.sources.base import (
    BadVideo,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_video_id,
    collected,
    good_or_bad,
    listed_frames,
    natural,
    read_json_object,
    read_lines,
)
from warehouse.sources.sentences import read_sentences
from warehouse.video_files import VIDEO_SUFFIXES, count_frames

SPLIT = "all"
COLUMNS = ("video_id", "text")


def list_splits(root: Path) -> list[str]:
    """One: a folder of videos has no splits."""
    return [SPLIT]


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos under `root`, unlabelled, in natural order; `split` is only a label here.

    Raises SourceError when there is no video at all or the file of expressions is malformed. A
    fault of one video (unreadable, empty, its texts, or a video id met before) makes a BadVideo.
    """
    bad: list[BadVideo] = []
    if root.suffix.lower() == ".txt" and root.is_file():
        entries, home = _read_list(root, bad), root.parent
    else:
        entries, home = list_videos(root), root
    split_errors: list[str] = []
    texts: dict[str, Any] = {}
    faults: dict[str, list[str]] = {}
    texts_file = home / "expressions.json"
    if not texts_file.is_file():
        texts_file = home / "expressions.csv"
    elif texts_file.with_suffix(".csv").is_file():
        split_errors.append(f"{texts_file}: there is expressions.csv, too; remove one of them")
    with collected(split_errors):
        texts, faults = _read_texts(texts_file)

    result: list[SourceVideo | BadVideo] = [*bad]
    seen: dict[str, Path] = {}
    for path in entries:
        video_id = video_id_of(path)
        first = seen.setdefault(video_id, path)
        if first is path:
            result.append(_read_video(path, video_id, texts, faults.get(video_id, [])))
        else:
            error = f"{path}: has the same video id as {first}; rename one of them"
            result.append(BadVideo(video_id=video_id, errors=(error,)))
    for video_id in dict.fromkeys([*texts, *faults]):
        if video_id not in seen:
            errors = [*faults.get(video_id, [])]
            if video_id in texts and home == root:  # a list may leave videos out
                errors.append(f"{texts_file}: {video_id!r} is no frame folder or video file")
            if errors:
                result.append(BadVideo(video_id=video_id, errors=tuple(errors)))
    if split_errors:
        raise SourceError(*split_errors, videos=result)
    return result


def list_videos(root: Path) -> list[Path]:
    """Frame folders and video files that `root` is or holds, in natural order.

    Raises SourceError when there are none, or images beside them.
    """
    if root.name in ("", ".."):
        root = root.resolve()  # so that "." has a name
    if root.is_file() and root.suffix.lower() in VIDEO_SUFFIXES:
        return [root]
    if not root.is_dir():
        problem = "is not a video file" if root.exists() else "no such file or folder"
        raise SourceError(
            f"{root}: {problem}; give a folder of frame folders and video files, one frame folder "
            f"({', '.join(IMAGE_SUFFIXES)}), one video file ({', '.join(VIDEO_SUFFIXES)}), or a "
            "list of them (.txt)"
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
            f"({', '.join(VIDEO_SUFFIXES)}), but {described(names_in(root))}"
        )
    return [root] if images else sorted(entries, key=lambda path: natural(path.name))


def _read_list(file: Path, bad: list[BadVideo]) -> list[Path]:
    """The videos of a list in its order; a line that names none goes to `bad`."""
    lines = [(number, line) for number, line in read_lines(file) if not line.startswith("#")]
    if not lines:
        raise SourceError(f"{file}: lists no videos")
    paths: dict[Path, None] = {}
    for number, line in lines:
        path = file.parent / line
        error = None
        if path in paths:
            error = f"{path} is there twice; remove one"
        elif not path.is_dir() and not path.is_file():
            error = f"{path}: no such file or folder"
        elif path.is_file() and path.suffix.lower() not in VIDEO_SUFFIXES:
            error = f"{path}: is not a video file ({', '.join(VIDEO_SUFFIXES)})"
        if error is None:
            paths[path] = None
        else:
            bad.append(BadVideo(video_id=path.stem, errors=(f"{file}, line {number}: {error}",)))
    if not paths:
        raise SourceError(*(error for video in bad for error in video.errors))
    return list(paths)


def video_id_of(path: Path) -> str:
    """The name of a frame folder, or of a video file without its ending."""
    return path.name if path.is_dir() else path.stem


def _read_texts(file: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What the file of expressions, if any, says by video id, and the faults of its lines."""
    if not file.is_file():
        return {}, {}
    if file.suffix == ".json":
        return read_json_object(file), {}
    sentences, faults = read_sentences(file, COLUMNS)
    return {video_id: [s.text for s in found] for video_id, found in sentences.items()}, faults


def _read_video(
    path: Path, video_id: str, texts: dict[str, Any], faults: list[str]
) -> SourceVideo | BadVideo:
    errors = [*faults]
    own = texts.get(video_id, [])
    with collected(errors):
        check_video_id(video_id)
    if not isinstance(own, list) or not all(isinstance(t, str) and t.strip() for t in own):
        errors.append(f"expressions.json: video {video_id!r}: must be a list of texts, got {own!r}")
        own = []
    video = SourceVideo(
        video_id=video_id,
        path=path,
        frames=frame_names(path, errors),
        expressions=tuple(
            SourceExpression(expression_id=str(index), text=text, object_ids=None)
            for index, text in enumerate(own)
        ),
        ground_truth={},
    )
    return good_or_bad(video, errors)


def frame_names(path: Path, errors: list[str]) -> tuple[str, ...]:
    """Of a folder's images, else "00000" and so on of a video file; an error if there are none."""
    if path.is_dir():
        return listed_frames(path, errors)
    frames: tuple[str, ...] = ()
    with collected(errors):
        frames = tuple(f"{index:05d}" for index in range(count_frames(path)))
        if not frames:
            raise SourceError(f"{path}: has no frames")
    return frames
