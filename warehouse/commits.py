"""Commit records: the immutable JSON files that say which data files are the warehouse.

A record's file is commits/<stage>/<key>.<generation>.<fingerprint>.<status>.json, published whole
and never overwritten. The generation is one more than the highest the writer saw for the key, so
a later configuration supersedes an earlier one whatever the clocks say. Readers take, of each
key, the done record with the highest (generation, fingerprint).
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from warehouse.files import write_once
from warehouse.schemas import WarehouseError

STAGES: dict[str, tuple[str, ...]] = {
    "ingest": ("videos", "expressions", "ground_truth"),
    "precompute": ("prompts", "tracks", "masks", "tokens"),
    "label": ("pseudo_labels",),
    "train": ("runs", "training_metrics"),
    "evaluate": ("predictions", "scores"),
}
FILE_NAME = re.compile(r"([A-Za-z0-9_-]+)\.(\d+)\.([A-Za-z0-9_-]+)\.(done|failed)\.json")


@dataclass(frozen=True, order=True)
class Key:
    """What a commit is about: a video of a split, a run, or a run on a video."""

    dataset: str = ""
    split: str = ""
    video_id: str = ""
    run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One Parquet file of a commit; `path` is relative to the warehouse."""

    path: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What a stage made for a key (`files`: table -> DataFile), or the error it failed with."""

    stage: str
    key: Key
    fingerprint: str
    status: Literal["done", "failed"]
    generation: int
    created_at: str  # UTC, ISO 8601
    error: str = ""
    files: dict[str, DataFile] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files.values())


class Record(NamedTuple):
    """The file name of a commit record, taken apart. Sorts oldest first, done above failed."""

    generation: int
    fingerprint: str
    done: bool
    file_name: str


def fingerprint(**parts: Any) -> str:
    """20 hexadecimal digits that change when any part does (JSON values or dataclasses)."""
    try:
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    except TypeError as error:
        raise WarehouseError(
            f"Cannot fingerprint {', '.join(parts)}: {error}. Pass strings, numbers, lists, dicts "
            "or dataclasses."
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def tables_of(stage: str) -> tuple[str, ...]:
    """The tables a stage publishes. Raises WarehouseError for an unknown stage."""
    if stage not in STAGES:
        raise WarehouseError(f"Unknown stage {stage!r}. Stages are: {', '.join(STAGES)}.")
    return STAGES[stage]


def file_safe(text: str) -> str:
    """`text` as part of a file name: no separators, dots, quotes or glob characters."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:30]


class CommitLog:
    """The commit records below `folder`. Parsed records are kept: they never change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parsed: dict[tuple[str, str], Commit] = {}

    def of_key(self, stage: str, key: Key) -> list[Record]:
        """The records of one key, oldest first."""
        return self.by_key(stage, prefix=f"{_label(key)}.").get(_label(key), [])

    def by_key(self, stage: str, prefix: str = "") -> dict[str, list[Record]]:
        """The records of each key (by its label), oldest first; other files are passed over."""
        tables_of(stage)
        try:
            names = os.listdir(self.folder / stage)
        except FileNotFoundError:
            return {}
        records: dict[str, list[Record]] = {}
        for name in names:
            if name.startswith(prefix) and (match := FILE_NAME.fullmatch(name)):
                label, generation, fingerprint, status = match.groups()
                record = Record(int(generation), fingerprint, status == "done", name)
                records.setdefault(label, []).append(record)
        return {label: sorted(found) for label, found in records.items()}

    def latest(self, stage: str) -> list[Commit]:
        """The latest commit of each key, done or failed."""
        return [self.load(stage, records[-1]) for records in self.by_key(stage).values()]

    def load(self, stage: str, record: Record) -> Commit:
        """The commit of a record. Raises WarehouseError when its file is damaged."""
        cached = self._parsed.get((stage, record.file_name))
        if cached is None:
            path = self.folder / stage / record.file_name
            try:
                cached = _from_json(path.read_bytes())
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise WarehouseError(
                    f"The commit record {path} is damaged ({error}). Delete it and run the "
                    f"{stage} stage again."
                ) from error
            self._parsed[stage, record.file_name] = cached
        return cached

    def append(
        self,
        stage: str,
        key: Key,
        fingerprint: str,
        *,
        files: dict[str, DataFile] | None = None,
        error: str = "",
    ) -> Commit:
        """Publish a record: done with `files`, failed without.

        When another writer of the same fingerprint was first, the commit returned is theirs.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", fingerprint):
            raise WarehouseError(
                f"Not a fingerprint: {fingerprint!r}. Make it with warehouse.fingerprint(...)."
            )
        commit = Commit(
            stage=stage,
            key=key,
            fingerprint=fingerprint,
            status="failed" if files is None else "done",
            generation=1 + max((r.generation for r in self.of_key(stage, key)), default=0),
            created_at=datetime.now(UTC).isoformat(),
            error=error,
            files=files or {},
        )
        name = f"{_label(key)}.{commit.generation:08d}.{fingerprint}.{commit.status}.json"
        write_once(self.folder / stage / name, json.dumps(asdict(commit), indent=1).encode())
        record = Record(commit.generation, fingerprint, files is not None, name)
        return self.load(stage, record)


def _label(key: Key) -> str:
    """A readable file-name part that no two keys share."""
    fields = asdict(key).values()
    digest = hashlib.sha256(json.dumps(list(fields)).encode()).hexdigest()[:16]
    return "-".join([*(file_safe(value) for value in fields if value), digest])


def _from_json(content: bytes) -> Commit:
    fields = json.loads(content)
    fields["key"] = Key(**fields["key"])
    fields["files"] = {table: DataFile(**file) for table, file in fields["files"].items()}
    return Commit(**fields)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
