"""Warehouses of format 2: their commit records, which `tasks.upgrade` writes anew.

Data files are the same in both formats. Records of format 2 lie in a folder of their own, and have
no track set. Their `parts` are 12 digits of each part of the fingerprint: they tell what a commit
was made from when one knows what it may have been.

    commits/<stage>/<xx>/<record>.json        commits/<stage>/packs/<name>.parquet

The new records lie beside them, unseen, until the marker says the new format: in a single step.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from warehouse.commits import STAGES, Commit, Record, any_record, readable, record_name
from warehouse.names import (
    RECORDS,
    TEMPORARY,
    is_data,
    is_pack,
    is_record,
    is_temporary,
    is_weights,
)
from warehouse.packs import check_record, explained, read_pack
from warehouse.reading import MARKER, format_of, write_marker
from warehouse.schemas import FORMAT_VERSION, NewerError, WarehouseError
from warehouse.storage import Storage, open_storage
from warehouse.store import Warehouse

FORMAT = 2
FOLDER = "commits"


@dataclass(frozen=True, kw_only=True)
class OldCommit:
    """A commit of format 2: its key has no track set. `version`: of its record."""

    commit: Commit
    version: int
    parts: Mapping[str, str]

    def differs(self, expected: Mapping[str, Any]) -> set[str]:
        """The parts of its fingerprint that are not these values."""
        return {name for name, value in expected.items() if self.parts.get(name) != digest(value)}


def digest(value: Any) -> str:
    """What `parts` has of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Upgraded(Warehouse):
    """The new records of a warehouse of format 2, which does not show them yet."""

    format = FORMAT

    def __init__(self, place: str | Path) -> None:
        super().__init__(place)
        self._old = _paths(self.storage)  # as they are before any of them is read
        self._own = f"{RECORDS}/.{uuid.uuid4().hex}.tmp"  # there until another upgrade starts

    def start(self) -> None:
        """Forget the records of an upgrade that was interrupted.

        Raises:
            WarehouseError: another upgrade has just finished.
        """
        self.storage.write(self._own, b"")
        written = [file.path for file in self.storage.files(RECORDS) if file.path != self._own]
        for path in filter(is_temporary, written):
            self.storage.delete(path)
        # In this order: an upgrade that does not notice that its file is gone has finished by now.
        if format_of(self.storage) != self.format:
            raise WarehouseError(f"another command has upgraded {self.url} meanwhile.")
        for path in filter(is_record, written):
            self.storage.delete(path)

    def add(self, stage: str, commits: Iterable[tuple[int, Commit]]) -> None:
        """Write records of these versions, in one step."""
        named = {record_name(commit, version): commit for version, commit in commits}
        if named:
            self.log.append_pack(stage, named)

    def finish(self) -> None:
        """Let the new records be those of the warehouse.

        Raises:
            WarehouseError: something else has written records meanwhile.
        """
        self._require_alone()
        write_marker(self.storage)
        try:
            self._require_alone()
        except WarehouseError:
            write_marker(self.storage, self.format)
            raise
        self.storage.delete(self._own)

    def _require_alone(self) -> None:
        if _paths(self.storage) != self._old or not self.storage.existing([self._own]):
            raise WarehouseError(
                f"something else writes to {self.url} while it is upgraded. Nothing was changed. "
                "Stop all other commands, then run the same again."
            )


def format_2(place: str | Path) -> Upgraded | None:
    """A warehouse of format 2 to upgrade; None when it has the format of today.

    Raises:
        WarehouseError: it has another format, or is no warehouse.
    """
    found = format_of(open_storage(place))
    if found not in (FORMAT, FORMAT_VERSION):
        raise WarehouseError(
            f"{place} has format {found}; this version upgrades format {FORMAT} to "
            f"{FORMAT_VERSION}. Use another version."
        )
    return Upgraded(place) if found == FORMAT else None


def old_commits(storage: Storage) -> dict[str, list[OldCommit]]:
    """What readers take of each key, by stage: the current commit, and a failure after it.

    Raises:
        WarehouseError: a record is damaged, or of a stage that there was not in format 2.
    """
    found: dict[str, list[OldCommit]] = {stage: [] for stage in STAGES}
    for stage, records in _records(storage).items():
        by_slug: dict[str, list[Record]] = {}
        for record in records:
            by_slug.setdefault(record.slug, []).append(record)
        chosen = [each for some in by_slug.values() for each in readable(sorted(some))]
        found[stage] = list(storage.each(partial(_old_commit, storage), chosen))
    return found


def remove_old(store: Warehouse) -> None:
    """Remove the records of format 2, and the files that only they name.

    The files go first: a kill leaves the records, which tell the rest. Only files with names of
    ours go, none through a link.

    Raises:
        WarehouseError: there are records of format 2 that came after the upgrade: they stay.
    """
    storage = store.storage
    records = [file for file in storage.files(FOLDER) if _is_own(file.path)]
    if not records:
        return
    (marker,) = (file for file in storage.files("", recursive=False) if file.path == MARKER)
    carried = {file.path for file in records if file.modified <= marker.modified}
    named: set[str] = set()
    for some in _records(storage).values():
        for record in (record for record in some if record.place in carried):
            with suppress(WarehouseError):  # superseded and damaged: `sola gc` finds its files
                named |= _files(_old_commit(storage, record).commit)
    for stage in STAGES:
        for _, commit in store.readable_records(stage):
            named -= _files(commit)
    unused = {path for path in named if is_data(path) or is_weights(path)}
    for paths in (storage.existing(unused), carried):
        own = sorted(paths - storage.linked(paths))
        list(storage.each(storage.delete, own))
    storage.prune(FOLDER)
    if late := sorted({file.path for file in records} - carried):
        raise WarehouseError(
            f"an earlier version has written to {store.url} after its upgrade: {late[0]}"
            f"{f' and {len(late) - 1} more' if len(late) > 1 else ''}, unknown to this one. "
            f"Stop it, remove the folder {FOLDER}, and run its commands with this version."
        )


def _files(commit: Commit) -> set[str]:
    return {*commit.paths, *commit.weights}


def _paths(storage: Storage) -> set[str]:
    return {file.path for file in storage.files(FOLDER)}


def _is_own(path: str) -> bool:
    """Whether a file in the folder of records has a name that format 2 gave."""
    name = path.rpartition("/")[2]
    return is_pack(path) or bool(TEMPORARY.fullmatch(name) or any_record(name, path))


def _records(storage: Storage) -> dict[str, list[Record]]:
    """All records by stage; other files are passed over."""
    found: dict[str, list[Record]] = {}
    for file in storage.files(FOLDER):
        stage = file.path.split("/")[1]
        if is_pack(file.path):
            names = read_pack(storage, file.path).names
        else:
            names = [file.path.rpartition("/")[2]]
        records = [record for name in names if (record := any_record(name, file.path))]
        if records and stage not in STAGES:
            raise NewerError(f"{storage.url} has commits of {stage}, which format 2 had not.")
        found.setdefault(stage, []).extend(records)
    return found


def _old_commit(storage: Storage, record: Record) -> OldCommit:
    if is_pack(record.place):
        content = read_pack(storage, record.place).content(record)
    else:
        content = storage.read(record.place)
    with explained(storage, record.place):
        commit = replace(Commit.from_json(content), newer=False)
        check_record(record, commit)
    parts = json.loads(content).get("parts", {})
    return OldCommit(commit=commit, version=record.version, parts=parts)
