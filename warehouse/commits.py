"""Commits: what a stage made for a key, which data files hold it, and how their records are named.

A record is named <key>.<generation>.<fingerprint>.<status>.<version>-<unique>.json and never
changes. The generation is one more than the highest the writer saw for the key, so a later
configuration supersedes an earlier one whatever the clocks say; compaction leaves it as it is and
raises the version. Readers take, of each key, the last done record in this order. The unique part
is a checksum of the commit; in records of earlier versions it is 16 digits of chance.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, NamedTuple

from warehouse.schemas import DamagedError, NewerError, WarehouseError

STAGES: dict[str, tuple[str, ...]] = {
    "ingest": ("videos", "expressions", "ground_truth"),
    "detect": ("detections",),
    "precompute": ("prompts", "tracks", "masks", "tokens"),
    "box_tracks": ("prompts", "tracks", "masks", "tokens"),
    "label": ("pseudo_labels",),
    "train": ("runs", "training_metrics"),
    "evaluate": ("predictions", "scores", "threshold_scores"),
    "baseline": ("frame_predictions", "scores"),
    "experiment": ("experiments",),
    "search_references": ("search_references",),
    "search": ("search_vectors",),
}
RECORD_NAME = re.compile(
    r"([A-Za-z0-9_-]+)\.(\d+)\.([A-Za-z0-9_-]+)\.(done|failed)\.(\d+)-([0-9a-f]+)\.json"
)
CHECKSUM_DIGITS = 32
CHANGED = "its checksum is not the one it was published with"


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """What a commit is about: a video of a split, a run, a run on a video, or an experiment."""

    dataset: str = ""
    split: str = ""
    video_id: str = ""
    run_id: str = ""
    experiment: str = ""

    @property
    def slug(self) -> str:
        """A readable file-name part that no two keys share; it ends in 16 hexadecimal digits."""
        fields = [self.dataset, self.split, self.video_id, self.run_id]
        fields += [self.experiment] if self.experiment else []
        digest = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]
        return "-".join([*(file_safe(value) for value in fields if value), digest])


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """The rows of one table of a commit: a Parquet file, or a part of one that several share.

    `path` is relative to the warehouse. `sha256` names the rows: it is that of the file they were
    first published in, and stays when compaction moves them. `file_sha256` is the file's own.
    """

    path: str
    rows: int
    sha256: str
    first_row: int
    file_rows: int
    file_sha256: str

    @property
    def span(self) -> tuple[int, int]:
        """The rows [start, stop) of the file."""
        return self.first_row, self.first_row + self.rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What a stage made for a key (`files`: table -> DataFile), or the error it failed with."""

    stage: str
    key: Key
    fingerprint: str
    status: Literal["done", "failed"]
    generation: int
    created_at: str  # UTC, ISO 8601
    parts: dict[str, str] = field(default_factory=dict)  # of the fingerprint
    error: str = ""
    files: dict[str, DataFile] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)  # path of a file beside them -> sha256
    newer: bool = field(default=False, compare=False)  # its record has fields not known here

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files.values())

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files.values()]

    @property
    def checksum(self) -> str:
        """The checksum that the name of its record has."""
        return _checksum(self._fields())

    def to_json(self) -> bytes:
        return json.dumps(self._fields()).encode()

    def _fields(self) -> dict[str, Any]:
        key = {name: value for name, value in asdict(self.key).items() if value}
        files = {
            table: {name: getattr(file, name) for name in FILE_FIELDS}
            for table, file in self.files.items()
        }
        return {name: getattr(self, name) for name in FIELDS} | {"key": key, "files": files}

    @classmethod
    def from_json(cls, content: bytes, checksum: str = "") -> "Commit":
        """The commit of a record. Fields that are not known, of a newer version, are passed over.

        Raises:
            DamagedError: it is not the commit of this checksum.
            NewerError: its key is one that this version cannot tell from others.
            WarehouseError: it is no commit record.
        """
        try:
            found = json.loads(content)
            given = {name: found[name] for name in FIELDS if name in found}
            given["files"] = {
                table: {name: file[name] for name in FILE_FIELDS}
                for table, file in found["files"].items()
            }
            newer = len(given) < len(found) or any(
                len(file) > len(FILE_FIELDS) for file in found["files"].values()
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise (DamagedError if checksum else WarehouseError)(
                f"it is not a commit record ({error!r})"
            ) from error
        if checksum and _checksum(given) != checksum:
            raise DamagedError(CHANGED)
        try:
            if unknown := set(given["key"]) - set(asdict(Key())):
                raise NewerError(f"its key has {', '.join(sorted(unknown))}")
            given["key"] = Key(**given["key"])
            given["files"] = {table: DataFile(**file) for table, file in given["files"].items()}
            return cls(**given, newer=newer)
        except (KeyError, TypeError, AttributeError) as error:
            raise WarehouseError(f"it is not a commit record ({error!r})") from error


# The checksum of a record is one of these: a field that is added later needs one of its own.
FILE_FIELDS = tuple(field.name for field in fields(DataFile))
FIELDS = tuple(field.name for field in fields(Commit) if field.name != "newer")


def _checksum(given: Mapping[str, Any]) -> str:
    content = json.dumps(given, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:CHECKSUM_DIGITS]


class Record(NamedTuple):
    """The name of a commit record, taken apart. Sorts oldest first, done above failed."""

    generation: int
    fingerprint: str
    done: bool
    version: int
    unique: str
    name: str
    place: str  # the file that holds it

    @property
    def order(self) -> tuple[int, str, bool, int, str]:
        """What it is sorted by; copies of one record are equal in it."""
        return self[:5]

    @property
    def slug(self) -> str:
        return self.name.partition(".")[0]

    @property
    def checksum(self) -> str:
        """The checksum of its commit; "" for a record of an earlier version, which has none."""
        return self.unique if len(self.unique) == CHECKSUM_DIGITS else ""


def parse_record(name: str, place: str) -> Record | None:
    """The record of this name; None when it is not a record's name."""
    if not (match := RECORD_NAME.fullmatch(name)):
        return None
    _, generation, fingerprint, status, version, unique = match.groups()
    done = status == "done"
    return Record(int(generation), fingerprint, done, int(version), unique, name, place)


def record_name(commit: Commit, version: int) -> str:
    """The name of a commit's record."""
    return (
        f"{commit.key.slug}.{commit.generation:08d}.{commit.fingerprint}.{commit.status}"
        f".{version}-{commit.checksum}.json"
    )


def readable(records: list[Record]) -> list[Record]:
    """Of a key's records, oldest first, those that readers take: the current, a failure after."""
    done = [record for record in records if record.done][-1:]
    return done if done == records[-1:] else [*done, records[-1]]


class Fingerprint(str):
    """20 hexadecimal digits that name what something was made from; `parts`: 12 for each part."""

    parts: dict[str, str]


def fingerprint(**parts: Any) -> Fingerprint:
    """A fingerprint that changes when any part does (JSON values or dataclasses)."""
    made = Fingerprint(_digest(parts)[:20])
    made.parts = {name: _digest(part)[:12] for name, part in parts.items()}
    return made


def _digest(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    except TypeError as error:
        raise WarehouseError(
            f"Cannot fingerprint {value!r}: {error}. Pass strings, numbers, lists, dicts or "
            "dataclasses."
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()


def tables_of(stage: str) -> tuple[str, ...]:
    """The tables a stage publishes. Raises WarehouseError for an unknown stage."""
    if stage not in STAGES:
        raise WarehouseError(f"Unknown stage {stage!r}. Stages are: {', '.join(STAGES)}.")
    return STAGES[stage]


def printable(text: str) -> str:
    """`text` as Unicode: lone surrogates, from file names in another encoding, are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def file_safe(text: str) -> str:
    """`text` as part of a file name: no separators, dots, quotes or glob characters."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:30]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
