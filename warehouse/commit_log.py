"""The commit records of a warehouse: one file each when published, many in a pack after compaction.

    records/<stage>/<xx>/<record>.json       xx: two digits of the key's digest
    records/<stage>/packs/<name>.parquet     columns record (its name, sorted), commit (its JSON)
                                             and those of warehouse/commit_table.py

Neither ever changes. A record may be in several files; it is the same record in all of them. The
name of each ends in a checksum: of the commit in a record's, of the whole file in a pack's.
"""

import hashlib
import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.commit_table import (
    chosen,
    current,
    distinct,
    not_withdrawn,
    table_of,
    unordered,
)
from warehouse.commits import (
    Commit,
    DataFile,
    Key,
    Record,
    parse_record,
    record_name,
    tables_of,
)
from warehouse.names import RECORDS, is_pack
from warehouse.packs import (
    Pack,
    commit_of,
    explained,
    known_record,
    packed,
    read_pack,
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
        slugs = None if keys is None else {key.slug for key in keys}
        # Packs are listed last: a record that moves into one meanwhile is seen there.
        found = self._loose(stage, slugs)
        for pack in self.packs(stage):
            with explained(self.storage, pack.path):
                for record in pack.records(slugs):
                    found.setdefault(record.slug, []).append(record)
        return {slug: sorted(records) for slug, records in found.items()}

    def table(self, stage: str, contents: Sequence[str], where: Mapping[str, str]) -> pa.Table:
        """The current commit of each key that has data, as a row, see warehouse/commit_table.py.

        `contents`: those to have a column of. `where`: only keys with these values of fields.
        Mostly every record is the only one of its key, in a pack: then less is read of it.

        Raises:
            FileNotFoundError: a file was removed since it was listed: list again.
            WarehouseError: a record or a pack is damaged, or of a newer version.
        """
        none = table_of([], contents)
        if not self._newest_loose(stage):
            parts = [rows for _, rows in self._packed(stage, contents, where, named=False)]
            rows = pa.concat_tables([none.select(unordered(none.column_names)), *parts])
            if distinct(rows):
                return not_withdrawn(rows)
        loose, parts = self._packed_and_loose(stage, contents, where)
        found = list(zip(loose, self.load(loose), strict=True))
        rows = current(pa.concat_tables([*parts, chosen(table_of(found, contents), where)]))
        return rows.select(unordered(rows.column_names))

    def unpacked(self, stage: str) -> int:
        """How many keys have their current record in a file of its own alone.

        Raises FileNotFoundError and WarehouseError as `table` does.
        """
        return len(self._packed_and_loose(stage, (), {})[0])

    def _packed_and_loose(
        self, stage: str, contents: Sequence[str], where: Mapping[str, str]
    ) -> tuple[list[Record], list[pa.Table]]:
        """The newest done records that no pack has or supersedes, and the rows of each pack."""
        loose = self._newest_loose(stage)
        parts = []
        for path, rows in self._packed(stage, contents, where, named=True):
            for record in _of_slugs(rows["record"], loose, path):
                if record.slug in loose and record.order >= loose[record.slug].order:
                    del loose[record.slug]
            parts.append(rows.drop_columns("record"))
        return list(loose.values()), parts

    def _newest_loose(self, stage: str) -> dict[str, Record]:
        done = {slug: [r for r in found if r.done] for slug, found in self._loose(stage).items()}
        return {slug: max(records) for slug, records in done.items() if records}

    def _packed(
        self, stage: str, contents: Sequence[str], where: Mapping[str, str], named: bool
    ) -> Iterator[tuple[str, pa.Table]]:
        """The rows of each pack, after its path; it is let go once it was read."""
        for path in self._pack_paths(stage):
            with explained(self.storage, path):
                rows = Pack(path, self.storage.read(path)).rows(contents, where, named)
            yield path, rows

    def packs(self, stage: str) -> list["Pack"]:
        """The packs of a stage, read once each."""
        while True:
            paths = self._pack_paths(stage)
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
        contents = {name: commit.to_json() for name, commit in commits.items()}
        return self._write_pack(stage, contents, commits)

    def copy_to_pack(self, stage: str, records: Iterable[Record]) -> str:
        """Publish records, as they are, in one pack, too; returns its path.

        Raises as `load` does.
        """
        records = list(records)
        contents, commits = {}, {}
        for record, content in zip(records, self.storage.each(self._content, records), strict=True):
            with explained(self.storage, record.place):
                commits[record.name] = commit_of(record, content)
            contents[record.name] = content
        return self._write_pack(stage, contents, commits)

    def _write_pack(
        self, stage: str, contents: Mapping[str, bytes], commits: Mapping[str, Commit]
    ) -> str:
        made = packed(contents, commits)
        name = f"{uuid.uuid4().hex}-{hashlib.sha256(made).hexdigest()[:32]}"
        path = f"{RECORDS}/{stage}/{PACKS}/{name}.parquet"
        self.storage.write(path, made)
        return path

    def _loose(self, stage: str, slugs: Collection[str] | None = None) -> dict[str, list[Record]]:
        """The records in a file of their own by slug, of all keys or of those with these slugs."""
        tables_of(stage)
        folder = f"{RECORDS}/{stage}"
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
        return found

    def _pack_paths(self, stage: str) -> list[str]:
        files = self.storage.files(f"{RECORDS}/{stage}/{PACKS}", recursive=False)
        return [file.path for file in files if is_pack(file.path)]

    def _load(self, record: Record) -> Commit:
        cached = self._parsed.get((record.place, record.name))
        if cached is None:
            content = self._content(record)
            with explained(self.storage, record.place):
                cached = commit_of(record, content)
            self._parsed[record.place, record.name] = cached
        return cached

    def _content(self, record: Record) -> bytes:
        """The JSON of a record. Raises FileNotFoundError, and as `Pack` does."""
        if is_pack(record.place):
            with explained(self.storage, record.place):
                return read_pack(self.storage, record.place).content(record)
        return self.storage.read(record.place)


def _of_slugs(names: pa.ChunkedArray, slugs: Collection[str], place: str) -> list[Record]:
    """Those of the records in a pack that are of keys with these slugs."""
    if not slugs:
        return []
    own = pc.struct_field(pc.extract_regex(names, "^(?P<slug>[^.]*)"), "slug")
    found = names.filter(pc.is_in(own, pa.array(sorted(slugs), pa.string())))
    return [known_record(name, place) for name in found.to_pylist()]


def _shard(slug: str) -> str:
    return slug[-16:-14]
