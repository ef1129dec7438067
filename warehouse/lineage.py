"""What a commit was made from: whether that is still what there is, and its row of `commits`."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from warehouse.commits import Commit, Key, printable

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
            if current is None or self(current):
                return True
            if any(current.content(name) != was for name, was in given.contents.items()):
                return True
        return False


def commit_row(commit: Commit, stale: bool) -> dict[str, Any]:
    """The row of the view `commits`, see `warehouse.store.COMMITS`."""
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
        "inputs": [
            {"stage": given.stage, **printable_key(given.key), "fingerprint": given.fingerprint}
            for given in commit.inputs
        ],
    }


def printable_key(key: Key) -> dict[str, str]:
    """The fields of a key as Unicode."""
    return {name: printable(value) for name, value in asdict(key).items()}
