"""What a place holds instead of the files that were looked for, for messages."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

KINDS = 4  # that a message names


def names_in(folder: Path) -> list[str]:
    """The files in a folder and in the folders in it, by their paths from it, hidden ones not."""
    return sorted(
        os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
        for place, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )


def described(names: Iterable[str]) -> str:
    """How many files there are of each ending, with an example: "3 .jpg (0/00000.jpg)"."""
    by_kind: dict[str, list[str]] = {}
    for name in sorted(names):
        kind = PurePosixPath(name.replace("\\", "/")).suffix or "without an ending"
        by_kind.setdefault(kind, []).append(name)
    most_first = sorted(by_kind, key=lambda kind: -len(by_kind[kind]))
    found = [f"{len(by_kind[kind])} {kind} ({by_kind[kind][0]})" for kind in most_first[:KINDS]]
    return ", ".join(found + ["..."] * (len(by_kind) > KINDS)) or "no files"
