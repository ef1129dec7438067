"""What the documents hold: fenced blocks with the marker before them, and code in backticks."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = "docs/reference.md"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
    if path != ROOT / REFERENCE
)
FENCED = re.compile(
    r"^(?:<!-- not run: (?P<why>\S[^>]*) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
IN_BACKTICKS = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block; `place` is its document and line, `not_run` the reason of its marker."""

    place: str
    language: str
    text: str
    not_run: str | None


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = read(document)
    return [
        Block(
            f"{document}:{text.count(chr(10), 0, match.start('text'))}",
            match["language"],
            match["text"],
            match["why"],
        )
        for match in FENCED.finditer(text)
    ]


def in_backticks(document: str) -> list[str]:
    """The code in the prose of a document, each on one line."""
    return [" ".join(code.split()) for code in IN_BACKTICKS.findall(prose(document))]


def prose(document: str) -> str:
    """A document without its fenced blocks."""
    return FENCED.sub("", read(document))


def commands(script: str) -> list[list[str]]:
    """The words of each command of a shell script, without comments; several may share a line."""
    found: list[list[str]] = []
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=";&")
        words.whitespace_split = True
        found.append([])
        for word in words:
            if word in (";", "&&"):
                found.append([])
            else:
                found[-1].append(word)
    return [command for command in found if command]
