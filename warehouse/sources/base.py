"""What every data set reader returns, and the checks they share.

A reader is a module of two functions: `read_split(root, split) -> list[SourceVideo | BadVideo]`
and `list_splits(root) -> list[str]`. A fault of one video makes it a BadVideo, which carries all
its errors, and the others go on. A fault of the whole split raises SourceError, which carries all
of them and whatever could be read.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warehouse.contents import described, names_in
from warehouse.frames import image_files
from warehouse.images import IMAGE_SUFFIXES, FrameError
from warehouse.masks import RLE
from warehouse.regular import open_regular

VOID = "void"  # object id of the pixels that count neither as object nor as background
ERRORS_SHOWN = 5  # of one video; `sola check` shows all

Masks = list[RLE | None]  # per frame; None: the object is absent


@dataclass(frozen=True, kw_only=True)
class SourceExpression:
    """One referring expression and the objects it refers to."""

    expression_id: str  # unique within its video
    text: str
    object_ids: tuple[str, ...] | None  # None: unlabelled split; (): no target
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceVideo:
    """One video of a split, with everything the data set says about it."""

    video_id: str
    path: Path  # frame folder or video file
    frames: tuple[str, ...]  # frame names in order
    expressions: Sequence[SourceExpression]
    # object id -> COCO RLE {"size": [h, w], "counts": str} or None (absent) per frame; {} where
    # unlabelled. LabelImages decode when first looked into, and raise SourceError then.
    ground_truth: Mapping[str, Masks]


@dataclass(frozen=True, kw_only=True)
class BadVideo:
    """A video that cannot be used. Its id is as found: it may be unsafe as a path component."""

    video_id: str
    errors: tuple[str, ...]
    found: SourceVideo | None = None  # what there is of it, for a check of its images

    @property
    def error(self) -> str:
        """The errors in one text, the first few of many."""
        more = len(self.errors) - ERRORS_SHOWN
        shown = "; ".join(self.errors[:ERRORS_SHOWN])
        return f"{shown}; and {more} more, which `sola check` lists" if more > 0 else shown


class SourceError(ValueError):
    """A data set that cannot be read; each error names the file and what to do.

    `videos` is what could be read of the split nevertheless.
    """

    def __init__(self, *errors: str, videos: Sequence[SourceVideo | BadVideo] = ()) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors
        self.videos = tuple(videos)


@contextmanager
def collected(errors: list[str]) -> Iterator[None]:
    """The block ends at the first SourceError or FrameError, which goes to `errors`."""
    try:
        yield
    except SourceError as error:
        errors.extend(error.errors)
    except FrameError as error:
        errors.append(str(error))


def good_or_bad(video: SourceVideo, errors: Sequence[str]) -> SourceVideo | BadVideo:
    """The video, or a BadVideo where there are errors."""
    if not errors:
        return video
    distinct = tuple(dict.fromkeys(errors))
    return BadVideo(video_id=video.video_id, errors=distinct, found=video)


def check_video_id(video_id: str) -> None:
    """Raise SourceError unless the id is one safe path component, without '..' in it."""
    check_path_name(video_id, "video id")
    if ".." in video_id:
        raise SourceError(f"video id {video_id!r} has '..' in it, which is not allowed; rename it")


def check_path_name(name: object, what: str) -> None:
    """Raise SourceError unless `name` is a string that is safe as one path component."""
    safe = (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cs") for c in name)
    )
    if not safe:
        raise SourceError(
            f"{what} {name!r} is not usable as a file name: it must be a non-empty string, not "
            "'.' or '..', without '/', '\\' and control characters; rename it"
        )


def check_root(root: Path) -> None:
    """Raise SourceError unless the data set's folder is there."""
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder; give the folder that holds the splits")


def check_split(root: Path, split: str, splits: Sequence[str]) -> None:
    """Raise SourceError unless the data set's folder is there and has the split."""
    check_root(root)
    if split not in splits:
        raise SourceError(f"{root}: has no split {split!r}; it has {', '.join(splits) or 'none'}")


def present_frames(path: Path, frames: Sequence[str], errors: list[str]) -> tuple[str, ...]:
    """The `frames` that have an image in the folder `path`; an error for each that has none."""
    if not path.is_dir():
        errors.append(f"{path}: the frame folder is missing")
        return ()
    stems = {file.stem for file in image_files(path)}
    missing = [frame for frame in frames if frame not in stems]
    instead = "" if stems or not missing else f"; {images_wanted(path)}"
    errors.extend(
        f"{path / frame}.jpg: the frame file is missing "
        f"({len(missing)} of {len(frames)} listed frames are){instead}"
        for frame in missing
    )
    return tuple(frame for frame in frames if frame in stems)


def listed_frames(path: Path, errors: list[str]) -> tuple[str, ...]:
    """Names of the images in the folder `path`, in natural order; an error if there are none."""
    if not path.is_dir():
        errors.append(f"{path}: the frame folder is missing")
        return ()
    frames = sorted((file.stem for file in image_files(path)), key=natural)
    if not frames:
        errors.append(f"{path}: has no frames; {images_wanted(path)}")
    for frame, count in Counter(frames).items():
        with collected(errors):
            check_path_name(frame, f"{path}: frame name")
            if count > 1:
                raise SourceError(f"{path}: has two images named {frame}; remove one")
    return tuple(dict.fromkeys(frames))


def images_wanted(folder: Path) -> str:
    """Which images are read, and what the folder has instead."""
    return (
        f"images are read that end in {', '.join(IMAGE_SUFFIXES)}, and there is: "
        f"{described(names_in(folder))}"
    )


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts frame2 before frame10, and -2 before -1.

    A minus sign is one where no letter or digit is before it: in frame-2 it joins two parts.
    """
    parts = re.split(r"((?:(?<![^\W_])-)?[0-9]+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


class _Repeated:
    def __repr__(self) -> str:
        return "a key that is there twice"


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; raises SourceError (with the line) when there is none.

    A key that occurs twice in an object has no usable value: it is of no JSON type.
    """
    content = _content(file)
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise SourceError(f"{file}, line {error.lineno}: malformed JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{file}: is not UTF-8 text ({error})") from error
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of 5,000 digits
        raise SourceError(f"{file}: is not the JSON of a data set ({error})") from error
    if not isinstance(value, dict):
        raise SourceError(f"{file}: must hold a JSON object, but holds a {type(value).__name__}")
    return value


def _content(file: Path) -> bytes:
    try:
        with open_regular(file) as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise SourceError(f"{file}: no such file") from error
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror or error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        value |= {name: _Repeated() for name in value if names.count(name) > 1}
    return value


def read_lines(file: Path) -> list[tuple[int, str]]:
    """(line number, text) of the non-blank lines of a UTF-8, else Latin-1 text file.

    Raises SourceError when there is no such file.
    """
    content = _content(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = enumerate(text.split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_names(file: Path) -> list[str | BadVideo]:
    """The video ids in a text file of one per line; a line that is not usable is a BadVideo.

    Raises SourceError when there is no such file, or nothing in it.
    """
    lines = read_lines(file)
    if not lines:
        raise SourceError(f"{file}: lists no videos")
    first: dict[str, int] = {}
    names: list[str | BadVideo] = []
    for number, name in lines:
        errors: list[str] = []
        with collected(errors):
            check_video_id(name)
            if first.setdefault(name, number) != number:
                raise SourceError(f"{name!r} is in line {first[name]}, too; remove one")
        where = f"{file}, line {number}"
        bad = BadVideo(video_id=name, errors=tuple(f"{where}: {error}" for error in errors))
        names.append(bad if errors else name)
    return names
