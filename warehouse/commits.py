"""Commits: what a stage made for a key, which data files hold it, and how their records are named.

A record is named <key>.<generation>.<fingerprint>.<status>.<version>-<unique>.json and never
changes. The generation is one more than the highest the writer saw for the key, so a later
configuration supersedes an earlier one whatever the clocks say; compaction leaves it as it is and
raises the version. Readers take, of each key, the last done record in this order. The unique part
is a checksum of the commit; in format 2 it was 16 digits of chance.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, NamedTuple

from warehouse.schemas import DamagedError, NewerError, WarehouseError

STAGES: dict[str, tuple[str, ...]] = {
    "ingest": ("videos", "expressions", "ground_truth"),
    "detect": ("detections",),
    "own_masks": ("own_masks",),
    "precompute": ("prompts", "tracks", "masks", "tokens"),
    "box_tracks": ("prompts", "tracks", "masks", "tokens"),
    "label": ("pseudo_labels",),
    "train": ("runs", "training_metrics"),
    "evaluate": ("predictions", "scores", "threshold_scores"),
    "oracle": ("oracles", "object_coverage"),
    "baseline": ("frame_predictions", "scores"),
    "experiment": ("experiments",),
    "track_set": ("track_sets",),
    "default_tracks": ("default_tracks",),
    "plan": ("plans",),
    "search_references": ("search_references",),
    "search": ("search_vectors",),
}
RECORD_NAME = re.compile(
    r"([A-Za-z0-9_-]+)\.(\d+)\.([A-Za-z0-9_-]+)\.(done|failed)\.(\d+)-([0-9a-f]+)\.json"
)
CHECKSUM_DIGITS = 32
WITHDRAWN = "withdrawn"  # the fingerprint of a commit that took out what its key had
ABSENT = ""
CHANGED = "its checksum is not the one it was published with"


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """What a commit is about: a video of a split, and its track set and run, or an experiment."""

    dataset: str = ""
    split: str = ""
    video_id: str = ""
    run_id: str = ""
    experiment: str = ""
    track_set: str = ""

    @property
    def slug(self) -> str:
        """A readable file-name part that no two keys share; it ends in 16 hexadecimal digits."""
        named = [self.dataset, self.split, self.video_id, self.run_id]
        named += [self.experiment] if self.experiment else []
        identity = [*named, [self.track_set]] if self.track_set else named
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        return "-".join([*(file_safe(value) for value in named if value), digest])

    def of(self, **changes: str) -> "Key":
        """The key with other values, such as `key.of(run_id="")`."""
        return replace(self, **changes)


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
class Input:
    """A commit that another was made from.

    `contents` names what was read of it, see `Commit.content`: while it has the same contents, what
    was made from them is current. The fingerprint is ABSENT where there was none, and it would have
    been read: while there is none, what was made without it is current.
    """

    stage: str
    key: Key
    fingerprint: str
    contents: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """How a commit was made, and what that cost.

    settings: everything that the stage was told, as JSON. version: of the stage. code: version of
    this package. precision: of the model, where one ran. Seconds are of the one key; host_bytes and
    device_bytes are the most memory that its process has had so far. left_out: what was asked for
    and could not be made, such as an expression, each with why.
    """

    settings: Any = None
    version: int = 0
    code: str = ""
    host: str = ""
    device: str = ""
    precision: str = ""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    host_bytes: int = 0
    device_bytes: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
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
    weights: dict[str, str] = field(default_factory=dict)  # path of a file beside them -> sha256
    contents: dict[str, str] = field(default_factory=dict)  # besides the rows: see `content`
    inputs: tuple[Input, ...] = ()
    making: Making = Making()
    newer: bool = field(default=False, compare=False)  # its record has fields not known here

    @property
    def withdrawn(self) -> bool:
        """Whether it is done and has nothing: what its key had was taken out."""
        return self.status == "done" and not self.files

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files.values())

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files.values()]

    def content(self, name: str) -> str:
        """What names the rows of a table, or other contents, wherever they are stored.

        Raises KeyError when it has none of this name.
        """
        return self.contents[name] if name in self.contents else self.files[name].sha256

    @property
    def checksum(self) -> str:
        """The checksum that the name of its record has."""
        return _checksum(self._fields())

    def to_json(self) -> bytes:
        return json.dumps(self._fields()).encode()

    def _fields(self) -> dict[str, Any]:
        default = Making()
        made = {n: v for n, v in _asdict(self.making).items() if v != getattr(default, n)}
        inputs = [_asdict(given) | {"key": _given(given.key)} for given in self.inputs]
        return {
            **{name: getattr(self, name) for name in FIELDS},
            "key": _given(self.key),
            "files": {table: _asdict(file) for table, file in self.files.items()},
            "inputs": inputs,
            "making": made,
        }

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
            if checksum and _checksum(found) != checksum:
                raise DamagedError(CHANGED)
            unknown: set[str] = set()
            given = _known(found, cls, unknown)
            files = {t: DataFile(**_known(f, DataFile, unknown)) for t, f in found["files"].items()}
            inputs = [_known(each, Input, unknown) for each in found.get("inputs", ())]
            making = Making(**_known(found.get("making", {}), Making, unknown))
            for value in (given, *inputs):
                if strange := set(value["key"]) - set(Key.__slots__):
                    raise NewerError(f"its key has {', '.join(sorted(strange))}")
                value["key"] = Key(**value["key"])
            given |= {"files": files, "making": making, "newer": bool(unknown)}
            return cls(**given | {"inputs": tuple(Input(**each) for each in inputs)})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, WarehouseError):
                raise
            raise (DamagedError if checksum else WarehouseError)(
                f"it is not a commit record ({error!r})"
            ) from error


KEY_FIELDS: tuple[str, ...] = Key.__slots__
FIELDS = tuple(field.name for field in fields(Commit) if field.name != "newer")


def _asdict(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are (`asdict` copies what they hold, slowly)."""
    return {name: getattr(value, name) for name in value.__slots__}


def _given(key: Key) -> dict[str, str]:
    return {name: value for name, value in _asdict(key).items() if value}


def _known(found: Mapping[str, Any], kind: type, unknown: set[str]) -> dict[str, Any]:
    """The fields that the dataclass `kind` has; names of others are added to `unknown`."""
    names = set(FIELDS) if kind is Commit else set(kind.__slots__)  # type: ignore[attr-defined]
    unknown |= set(found) - names
    return {name: found[name] for name in names if name in found}


def _checksum(given: Mapping[str, Any]) -> str:
    """Of all fields of a record, those of a newer version too."""
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


def parse_record(name: str, place: str) -> Record | None:
    """The record of this name; None when it is not a record's name."""
    record = any_record(name, place)
    return record if record and len(record.unique) == CHECKSUM_DIGITS else None


def any_record(name: str, place: str) -> Record | None:
    """The record of a name that this format or an earlier one gave."""
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


def fingerprint(**parts: Any) -> str:
    """20 hexadecimal digits that change when any part does (JSON values or dataclasses)."""
    return _digest(parts)[:20]


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
