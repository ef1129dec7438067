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
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse.commit_table import (
    RECORD,
    REPEATING,
    chosen,
    contents_of,
    current,
    distinct,
    not_withdrawn,
    packed_rows,
    table_of,
    unordered,
)
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
GROUP = 2048  # records of a pack that are read together


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


class Pack:
    """A file of many records, whose texts are read when they are asked for.

    Raises DamagedError when its content is not what it was, and WarehouseError when it is no pack.
    """

    def __init__(self, path: str, content: bytes) -> None:
        digest = digest_in(path)
        if digest and hashlib.sha256(content).hexdigest()[: len(digest)] != digest:
            raise DamagedError(CHANGED)
        self.path, self._content = path, pa.py_buffer(content)
        with self._opened() as file:
            self._metadata = file.metadata
            self._columns = set(file.schema_arrow.names)
            if lacking := {name for name, _ in RECORD} - self._columns:
                raise KeyError(f"no column {', '.join(sorted(lacking))}")
            groups = map(self._metadata.row_group, range(file.num_row_groups))
            self._ends = list(accumulate(group.num_rows for group in groups))
        self._last: tuple[int, pa.Array] = (-1, None)  # the texts that were read last, their group

    @cached_property
    def names(self) -> list[str]:
        """The names of its records, sorted."""
        with self._opened() as file:
            names: list[str] = file.read(["record"])["record"].to_pylist()
        return names

    def records(self, slugs: Iterable[str] | None = None) -> Iterator[Record]:
        """Its records, or those of the keys with these slugs."""
        for name in self.names if slugs is None else self._of(slugs):
            yield known_record(name, self.path)

    def content(self, record: Record) -> bytes:
        """The JSON of one of its records."""
        index = bisect_left(self.names, record.name)
        group = bisect_right(self._ends, index)
        text: str = self._texts(group)[index - self._ends[group]].as_py()  # from the group's end
        return text.encode()

    def rows(self, contents: Sequence[str], where: Mapping[str, str], named: bool) -> pa.Table:
        """Its rows as `packed_rows` gives them."""
        with self._opened(repeating=True) as file:
            rows = packed_rows(file, contents, where, named)
        if rows is None:
            done = [record for record in self.records() if record.done]
            found = [(record, commit_of(record, self.content(record))) for record in done]
            names = pa.array([record.name for record in done], pa.string())
            rows = chosen(table_of(found, contents).add_column(0, "record", names), where)
            rows = rows if named else rows.select(unordered(rows.column_names[1:]))
        return rows

    def _texts(self, group: int) -> pa.Array:
        known, texts = self._last  # together: threads may read other groups meanwhile
        if known != group:
            with self._opened() as file:
                texts = file.read_row_group(group, ["commit"])["commit"].combine_chunks()
            self._last = group, texts
        return texts

    @contextmanager
    def _opened(self, repeating: bool = False) -> Iterator[pq.ParquetFile]:
        """The file; with `repeating`, columns of REPEATING are read as dictionaries."""
        try:
            with pq.ParquetFile(
                pa.BufferReader(self._content),
                metadata=getattr(self, "_metadata", None),
                read_dictionary=sorted(self._columns & REPEATING) if repeating else None,
                page_checksum_verification=True,
            ) as file:
                yield file
        except (pa.ArrowException, OSError, KeyError) as error:
            damaged = "CRC checksum" in str(error)  # of a page
            raise (DamagedError if damaged else WarehouseError)(
                f"it is no file of commit records ({error})"
            ) from error

    def _of(self, slugs: Iterable[str]) -> Iterator[str]:
        for slug in slugs:
            for index in range(bisect_left(self.names, f"{slug}."), len(self.names)):
                if not self.names[index].startswith(f"{slug}."):
                    break
                yield self.names[index]


def packed(contents: Mapping[str, bytes], commits: Mapping[str, Commit]) -> bytes:
    """The content of a pack of these commits and their JSON, by the names of their records."""
    names = sorted(commits)
    found = [(known_record(name), commits[name]) for name in names]
    columns = [[contents[name].decode() for name in names], names]
    table = table_of(found, contents_of(commits.values()))
    for (name, kind), column in zip(reversed(RECORD), columns, strict=True):
        table = table.add_column(0, name, pa.array(column, kind))
    content = pa.BufferOutputStream()
    pq.write_table(
        table, content, row_group_size=GROUP, compression="zstd", write_page_checksum=True
    )
    made: bytes = content.getvalue().to_pybytes()
    return made


def known_record(name: str, place: str = "") -> Record:
    """The record of a name in a pack. Raises NewerError when it is not of this version."""
    if not (record := parse_record(name, place)):
        raise NewerError(f"it has a record named {name!r}, which this version does not know")
    return record


def _of_slugs(names: pa.ChunkedArray, slugs: Collection[str], place: str) -> list[Record]:
    """Those of the records in a pack that are of keys with these slugs."""
    if not slugs:
        return []
    own = pc.struct_field(pc.extract_regex(names, "^(?P<slug>[^.]*)"), "slug")
    found = names.filter(pc.is_in(own, pa.array(sorted(slugs), pa.string())))
    return [known_record(name, place) for name in found.to_pylist()]


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
