"""What every data set reader returns, and the checks they share.

A reader is a function `read_split(root, split) -> list[SourceVideo | BadVideo]`: a problem of the
whole split raises SourceError; a problem of one video makes it a BadVideo and the others go on.
"""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class SourceError(ValueError):
    """A data set that cannot be read; the message names the file and what to do."""


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
    expressions: tuple[SourceExpression, ...]
    # object id -> COCO RLE {"size": [h, w], "counts": str} or None (absent) per frame
    ground_truth: dict[str, list[dict[str, Any] | None]]  # {} where unlabelled


@dataclass(frozen=True, kw_only=True)
class BadVideo:
    """A video that cannot be used. Its id is as found: it may be unsafe as a path component."""

    video_id: str
    error: str


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


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; raises SourceError (with the line) when there is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError(f"{file}: no such file") from error
    except json.JSONDecodeError as error:
        raise SourceError(f"{file}, line {error.lineno}: malformed JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{file}: is not UTF-8 text ({error})") from error
    if not isinstance(value, dict):
        raise SourceError(f"{file}: must hold a JSON object, but holds a {type(value).__name__}")
    return value
