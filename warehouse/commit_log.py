"""The commit records of a warehouse: one file each when published, many in a pack after compaction.

    records/<stage>/<xx>/<record>.json       xx: two digits of the key's digest
    records/<stage>/packs/<name>.parquet     columns record (its name, sorted) and commit (its JSON)

Neither ever changes. A record may be in several files; it is the same record in all of them. The
name of each ends in a checksum: of the commit in a record's, of the whole file in a pack's.
"""

import hashlib
import re
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.commits import (
    CHANGED,
    Commit,
    DataFile,
    Key,
    Record,
    parse_record,
    record_name,
    tables_of,
)
from warehouse.names import RECORDS, digest_in, is_inside, is_pack
from warehouse.schemas import DamagedError, NewerError, WarehouseError
from warehouse.storage import Storage, mend_damage

PACKS = "packs"


class CommitLog:
    """The commit records in a storage. Parsed ones are kept: they never change."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._parsed: dict[tuple[str, str], Commit] = {}

    def of_key(self, stage: str, key: Key) -> list[Record]:
        """The records of one key, oldest first."""
        return self.by_slug(stage, [key]).get(key.slug, [])

    def by_slug(self, stage: str, keys: Iterable[Key] | None = None) -> dict[str, list[Record]]:
        """The records of each key (or of these) by its slug, oldest first.

        Other files in the folders are passed over.
        """
        tables_of(stage)
        folder = f"{RECORDS}/{stage}"
        slugs = None if keys is None else {key.slug for key in keys}
        # Packs are listed last: a record that moves into one meanwhile is seen there.
        if slugs is None:
            files = self.storage.files(folder)
        else:
            shards = sorted({_shard(slug) for slug in slugs})
            files = [file for shard in shards for file in self.storage.files(f"{folder}/{shard}")]
        found: dict[str, list[Record]] = {}
        for file in files:
            record = parse_record(file.path.rpartition("/")[2], file.path)
            if record and (slugs is None or record.slug in slugs):
                found.setdefault(record.slug, []).append(record)
        for pack in self.packs(stage):
            for record in pack.records(slugs):
                found.setdefault(record.slug, []).append(record)
        return {slug: sorted(records) for slug, records in found.items()}

    def packs(self, stage: str) -> list["Pack"]:
        """The packs of a stage, read once each."""
        while True:
            files = self.storage.files(f"{RECORDS}/{stage}/{PACKS}", recursive=False)
            paths = [file.path for file in files if is_pack(file.path)]
            try:
                return list(self.storage.each(lambda path: read_pack(self.storage, path), paths))
            except FileNotFoundError:  # collected since it was listed: newer ones hold its records
                continue

    def load(self, records: Iterable[Record]) -> list[Commit]:
        """The commits of records, in order.

        Raises WarehouseError when a record is damaged and FileNotFoundError when its file was
        removed since it was listed: list again, the record is elsewhere or superseded.
        """
        return list(self.storage.each(self._load, records))

    def append(
        self,
        stage: str,
        key: Key,
        fingerprint: str,
        *,
        files: dict[str, DataFile] | None = None,
        weights: Mapping[str, str] | None = None,
        error: str = "",
        **provenance: Any,
    ) -> Commit:
        """Publish a record: done with `files`, failed without.

        `provenance`: `contents`, `inputs` and `making` of the commit.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", fingerprint):
            raise WarehouseError(
                f"Not a fingerprint: {fingerprint!r}. Make it with warehouse.fingerprint(...)."
            )
        made = Commit(
            stage=stage,
            key=key,
            fingerprint=fingerprint,
            status="failed" if files is None else "done",
            generation=1 + max((r.generation for r in self.of_key(stage, key)), default=0),
            created_at=datetime.now(UTC).isoformat(),
            error=error,
            files=files or {},
            weights=dict(weights or {}),
            **provenance,
        )
        commit = Commit.from_json(made.to_json())  # as readers will have it
        name = record_name(commit, 0)
        self.storage.write(f"{RECORDS}/{stage}/{_shard(key.slug)}/{name}", commit.to_json())
        return commit

    def append_pack(self, stage: str, commits: dict[str, Commit]) -> str:
        """Publish many records, by their names, in one step; returns the pack's path."""
        return self._write_pack(stage, {n: commit.to_json() for n, commit in commits.items()})

    def copy_to_pack(self, stage: str, records: Iterable[Record]) -> str:
        """Publish records, as they are, in one pack, too; returns its path.

        Raises as `load` does.
        """
        records = list(records)
        contents = {}
        for record, content in zip(records, self.storage.each(self._content, records), strict=True):
            with explained(self.storage, record.place):
                commit_of(record, content)
            contents[record.name] = content
        return self._write_pack(stage, contents)

    def _write_pack(self, stage: str, contents: Mapping[str, bytes]) -> str:
        names = sorted(contents)
        columns = {"record": names, "commit": [contents[name].decode() for name in names]}
        content = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), content, compression="zstd", write_page_checksum=True)
        made = content.getvalue().to_pybytes()
        name = f"{uuid.uuid4().hex}-{hashlib.sha256(made).hexdigest()[:32]}"
        path = f"{RECORDS}/{stage}/{PACKS}/{name}.parquet"
        self.storage.write(path, made)
        return path

    def _load(self, record: Record) -> Commit:
        cached = self._parsed.get((record.place, record.name))
        if cached is None:
            content = self._content(record)
            with explained(self.storage, record.place):
                cached = commit_of(record, content)
            self._parsed[record.place, record.name] = cached
        return cached

    def _content(self, record: Record) -> bytes:
        """The JSON of a record. Raises FileNotFoundError."""
        if is_pack(record.place):
            return read_pack(self.storage, record.place).content(record)
        return self.storage.read(record.place)


class Pack:
    """A file of many records, read once.

    Raises DamagedError when its content is not what it was, and WarehouseError when it is no pack.
    """

    def __init__(self, path: str, content: bytes) -> None:
        digest = digest_in(path)
        if digest and hashlib.sha256(content).hexdigest()[: len(digest)] != digest:
            raise DamagedError(CHANGED)
        try:
            table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
            self.path = path
            self.names: list[str] = table["record"].to_pylist()
            self._commits = table["commit"].combine_chunks()
        except (pa.ArrowException, OSError, KeyError) as error:
            damaged = "CRC checksum" in str(error)  # of a page
            raise (DamagedError if damaged else WarehouseError)(
                f"it is no file of commit records ({error})"
            ) from error

    def records(self, slugs: Iterable[str] | None = None) -> Iterator[Record]:
        """Its records, or those of the keys with these slugs."""
        for name in self.names if slugs is None else self._of(slugs):
            if not (record := parse_record(name, self.path)):
                raise NewerError(
                    f"{self.path} has a record named {name!r}, which this version does not know. "
                    "Use the version that wrote it."
                )
            yield record

    def content(self, record: Record) -> bytes:
        """The JSON of one of its records."""
        return self._commits[bisect_left(self.names, record.name)].as_py().encode()

    def _of(self, slugs: Iterable[str]) -> Iterator[str]:
        for slug in slugs:
            for index in range(bisect_left(self.names, f"{slug}."), len(self.names)):
                if not self.names[index].startswith(f"{slug}."):
                    break
                yield self.names[index]


def commit_of(record: Record, content: bytes) -> Commit:
    """The commit that a record holds.

    Raises DamagedError and NewerError as `Commit.from_json` does, and as `check_record` does.
    """
    commit = Commit.from_json(content, record.unique)
    check_record(record, commit)
    return commit


def check_record(record: Record, commit: Commit) -> None:
    """Raise WarehouseError for a commit that is not the one that its record's name says.

    And for one that names files outside of the warehouse.
    """
    status = "done" if record.done else "failed"
    named = (record.slug, record.generation, record.fingerprint, status)
    if named != (commit.key.slug, commit.generation, commit.fingerprint, commit.status):
        raise WarehouseError(f"{record.name} holds another commit, of {commit.key}")
    for path in (*commit.paths, *commit.weights):
        if not is_inside(path):
            raise WarehouseError(f"{record.name} names {path!r}, which is not in the warehouse")


@lru_cache(maxsize=256)
def read_pack(storage: Storage, path: str) -> Pack:
    """The pack at a path, read once."""
    content = storage.read(path)
    with explained(storage, path):
        return Pack(path, content)


@contextmanager
def explained(storage: Storage, path: str) -> Iterator[None]:
    """Errors about a file of commit records say which it is, and what to do about it."""
    where = f"The commit record {storage.url}/{path}"
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{where} is damaged: {error}. {mend_damage(storage)}") from error
    except NewerError as error:
        raise NewerError(
            f"{where} was written by a newer version: {error}. Use that version, or a newer one."
        ) from error
    except WarehouseError as error:
        raise WarehouseError(
            f"{where} is not what it should be: {error}. Nothing proves what it was, so nothing "
            "deletes it: run `sola verify`, look at the file, and move it away."
        ) from error


def _shard(slug: str) -> str:
    return slug[-16:-14]
