"""Sentences of a user's own, one a line in CSV: a header names the columns, in any order.

    video_id (or video), text (or sentence), objects, expression_id (or id), tags

Other columns are left alone. Objects are separated by spaces or semicolons, tags by semicolons.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from warehouse.sources.base import SourceError

ALIASES = {"video": "video_id", "sentence": "text", "id": "expression_id"}


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence about a video; `where` is its file and line, or key."""

    where: str
    text: str
    objects: tuple[str, ...] = ()
    expression_id: str = ""  # "": none is given
    tags: tuple[str, ...] = ()


def read_sentences(
    file: Path, needed: Sequence[str]
) -> tuple[dict[str, list[Sentence]], dict[str, list[str]]]:
    """The sentences of each video, and the faults of lines, both by video id.

    `needed` are the columns that must be there; a video id and a text may not be blank.
    Raises SourceError when the file or one of these columns is missing, or it is not CSV in UTF-8.
    """
    sentences: dict[str, list[Sentence]] = {}
    faults: dict[str, list[str]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.DictReader(stream, strict=True)
            header = [ALIASES.get(name.strip(), name.strip()) for name in lines.fieldnames or ()]
            lines.fieldnames = header
            _check_header(header, needed, file)
            for row in lines:
                where = f"{file}, line {lines.line_num}"
                fault = _fault(row, needed)
                video_id = (row["video_id"] or "").strip()
                if fault is None:
                    sentences.setdefault(video_id, []).append(_sentence(row, where))
                else:
                    faults.setdefault(video_id, []).append(f"{where}: {fault}")
    except FileNotFoundError as error:
        raise SourceError(f"{file}: no such file") from error
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{file}: is not CSV in UTF-8 ({error})") from error
    return sentences, faults


def split_ids(cell: str) -> tuple[str, ...]:
    """The object ids in a cell, each once."""
    return tuple(dict.fromkeys(re.findall(r"[^\s;]+", cell)))


def _check_header(header: Sequence[str], needed: Sequence[str], file: Path) -> None:
    if not {*needed} <= {*header}:
        named = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise SourceError(
            f"{file}, line 1: must name the columns {named}, separated by commas, got "
            f"{', '.join(header) or 'nothing'}"
        )
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise SourceError(f"{file}, line 1: names the column {twice[0]} twice; remove one")


def _fault(row: dict[str, str], needed: Sequence[str]) -> str | None:
    if None in row:
        return 'has more columns than line 1; put a text with commas into ""'
    if any(row[name] is None for name in needed):
        return "has fewer columns than line 1"
    for name in ("video_id", "text"):
        if not row[name].strip():
            return f"has no {name}"
    return None


def _sentence(row: dict[str, str], where: str) -> Sentence:
    return Sentence(
        where=where,
        text=row["text"].strip(),
        objects=split_ids(row.get("objects") or ""),
        expression_id=(row.get("expression_id") or "").strip(),
        tags=tuple(tag.strip() for tag in (row.get("tags") or "").split(";") if tag.strip()),
    )
