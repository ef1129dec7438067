"""What a commit was made from: whether that is still what there is, and its row of `commits`."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import pyarrow as pa

from warehouse.commits import ABSENT, KEY_FIELDS, Commit, Input, Key, printable

COMMITS = pa.schema(
    [(name, pa.string()) for name in ("stage", *KEY_FIELDS, "fingerprint", "status", "error")]
    + [("rows", pa.int64()), ("created_at", pa.timestamp("us")), ("stale", pa.bool_())]
    + [("settings", pa.string()), ("version", pa.int64())]
    + [(name, pa.string()) for name in ("code", "host", "device", "precision")]
    + [(name, pa.float64()) for name in ("wall_seconds", "cpu_seconds")]
    + [(name, pa.int64()) for name in ("host_bytes", "device_bytes")]
    + [("left_out", pa.list_(pa.string()))]
    + [
        (
            "inputs",
            pa.list_(
                pa.struct([(name, pa.string()) for name in ("stage", *KEY_FIELDS, "fingerprint")])
            ),
        )
    ]
)

Current = Callable[[tuple[str, Key]], Commit | None]
"""(stage, key) -> the commit that is current, None when there is none."""


class Staleness:
    """Callable commit -> whether what it was made from has been replaced, or is stale itself."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._known: dict[tuple[str, Key], bool] = {}

    def __call__(self, commit: Commit) -> bool:
        if not commit.inputs:
            return False
        name = commit.stage, commit.key
        if self._current(name) != commit:  # not the one that is remembered under this name
            return self._replaced(commit)
        if name not in self._known:
            self._known[name] = self._replaced(commit)
        return self._known[name]

    def _replaced(self, commit: Commit) -> bool:
        for given in commit.inputs:
            current = self._current((given.stage, given.key))
            if given.fingerprint == ABSENT:
                if current is not None:
                    return True
            elif current is None or not _has(current, given) or self(current):
                return True
        return False


def _has(commit: Commit, given: Input) -> bool:
    """Whether the commit has the contents that were read; one of another version may lack some."""
    try:
        return all(commit.content(name) == was for name, was in given.contents.items())
    except KeyError:
        return False


def commits_table(commits: Iterable[Commit], stale: Callable[[Commit], bool]) -> pa.Table:
    """The view `commits`: the latest of each stage and key, in their order."""
    latest = {(commit.stage, commit.key): commit for commit in commits}
    rows = [_row(commit, stale(commit)) for _, commit in sorted(latest.items())]
    return pa.Table.from_pylist(rows, schema=COMMITS)


def _row(commit: Commit, stale: bool) -> dict[str, Any]:
    making = asdict(commit.making)
    settings = making.pop("settings")
    return {
        "stage": commit.stage,
        **printable_key(commit.key),
        "fingerprint": commit.fingerprint,
        "status": commit.status,
        "error": printable(commit.error),
        "rows": commit.rows,
        "created_at": datetime.fromisoformat(commit.created_at).replace(tzinfo=None),
        "stale": stale,
        "settings": None if settings is None else json.dumps(settings, sort_keys=True),
        **making,
        "left_out": [printable(text) for text in commit.making.left_out],
        "inputs": [
            {"stage": given.stage, **printable_key(given.key), "fingerprint": given.fingerprint}
            for given in commit.inputs
        ],
    }


def printable_key(key: Key) -> dict[str, str]:
    """The fields of a key as Unicode."""
    return {name: printable(value) for name, value in asdict(key).items()}
