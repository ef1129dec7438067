"""Packs: Parquet files of many commit records, and what makes a record sound.

Columns record (its name, sorted), commit (its JSON) and those of warehouse/commit_table.py. The
name of a pack ends in a checksum of the whole file.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.commit_table import (
    RECORD,
    REPEATING,
    chosen,
    contents_of,
    packed_rows,
    table_of,
    unordered,
)
from warehouse.commits import CHANGED, Commit, Record, parse_record
from warehouse.names import digest_in, is_inside
from warehouse.schemas import DamagedError, NewerError, WarehouseError
from warehouse.storage import Storage, mend_damage

GROUP = 2048  # records of a pack that are read together


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
