"""The commit records of a warehouse: one file each when published, many in a pack after compaction.

    commits/<stage>/<xx>/<record>.json       xx: two digits of the key's digest
    commits/<stage>/packs/<uuid>.parquet     columns record (its name, sorted) and commit (its JSON)

Neither ever changes. A record may be in several files; it is the same record in all of them.
"""

import re
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.commits import (
    Commit,
    DataFile,
    Key,
    Record,
    parse_record,
    record_name,
    tables_of,
)
from warehouse.schemas import WarehouseError
from warehouse.storage import Storage

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
        folder = f"commits/{stage}"
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
            files = self.storage.files(f"commits/{stage}/{PACKS}", recursive=False)
            paths = [file.path for file in files if is_pack(file.path)]
            try:
                return list(self.storage.each(lambda path: _pack(self.storage, path), paths))
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
    ) -> Commit:
        """Publish a record: done with `files`, failed without."""
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
            parts=getattr(fingerprint, "parts", {}),
            error=error,
            files=files or {},
            weights=dict(weights or {}),
        )
        name = record_name(commit, 0, uuid.uuid4().hex[:16])
        self.storage.write(f"commits/{stage}/{_shard(key.slug)}/{name}", commit.to_json())
        return commit

    def append_pack(self, stage: str, commits: dict[str, Commit]) -> str:
        """Publish many records, by their names, in one step; returns the pack's path."""
        names = sorted(commits)
        columns = {"record": names, "commit": [commits[n].to_json().decode() for n in names]}
        content = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), content, compression="zstd", write_page_checksum=True)
        path = f"commits/{stage}/{PACKS}/{uuid.uuid4().hex}.parquet"
        self.storage.write(path, content.getvalue().to_pybytes())
        return path

    def _load(self, record: Record) -> Commit:
        cached = self._parsed.get((record.place, record.name))
        if cached is None:
            try:
                if is_pack(record.place):
                    content = _pack(self.storage, record.place).content(record)
                else:
                    content = self.storage.read(record.place)
                cached = Commit.from_json(content)
            except WarehouseError as error:
                raise WarehouseError(
                    f"The commit record {self.storage.url}/{record.place} is damaged: {error}. Run "
                    "`sola verify --delete-damaged`, then the stage again."
                ) from error
            self._parsed[record.place, record.name] = cached
        return cached


class Pack:
    """A file of many records, read once."""

    def __init__(self, path: str, content: bytes) -> None:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        self.path = path
        self.names: list[str] = table["record"].to_pylist()
        self._commits = table["commit"].combine_chunks()

    def records(self, slugs: Iterable[str] | None = None) -> Iterator[Record]:
        """Its records, or those of the keys with these slugs."""
        for name in self.names if slugs is None else self._of(slugs):
            record = parse_record(name, self.path)
            assert record, f"{name} in {self.path} is no record"
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


def is_pack(path: str) -> bool:
    """Whether a file among the commits holds many records."""
    return path.endswith(".parquet") and path.split("/")[-2] == PACKS


@lru_cache(maxsize=256)
def _pack(storage: Storage, path: str) -> Pack:
    content = storage.read(path)
    try:
        return Pack(path, content)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise WarehouseError(
            f"The commit records in {storage.url}/{path} are damaged ({error}). Run "
            "`sola verify --delete-damaged`, then the stage again."
        ) from error


def _shard(slug: str) -> str:
    return slug[-16:-14]
