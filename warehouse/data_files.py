"""The Parquet files of the warehouse: writing tables, and reading the rows of commits.

A file's name ends in the CRC-32 of its content, and its record has the SHA-256. A file is checked
when it is first opened: by the CRC-32, which is the faster, or by the SHA-256 where an earlier
version has written no CRC-32. `sola verify` checks the SHA-256 of every file.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.commits import CHANGED, Commit, DataFile, Key, file_safe
from warehouse.conform import completed
from warehouse.names import crc_in, crc_of
from warehouse.schemas import DamagedError, NewerError, WarehouseError, schema_of
from warehouse.storage import Storage, mend_damage

ROW_GROUP_BYTES = 4 << 20  # in memory; a row group ends where a part does
MERGED = "merged"


def write_table(storage: Storage, name: str, key: Key, table: pa.Table) -> DataFile:
    """Write a key's rows of the table `name` to a file of their own."""
    content = _encode(name, [table])
    path = _path(name, key, (key.run_id, key.video_id), content)
    storage.write(path, content)
    digest, rows = hashlib.sha256(content).hexdigest(), table.num_rows
    return DataFile(
        path=path, rows=rows, sha256=digest, first_row=0, file_rows=rows, file_sha256=digest
    )


def merge_files(storage: Storage, name: str, commits: Sequence[Commit]) -> list[DataFile]:
    """Write the rows of a table of many commits to one file, and say where in it each one's are.

    The file lies where the others of the first one's split do. Raises FileNotFoundError, and
    NewerError for files with columns that this version does not know, which the new one would lose.
    """
    content = _encode(name, read_rows(storage, name, commits, whole_rows=True))
    path = _path(name, commits[0].key, (MERGED,), content)
    storage.write(path, content)
    files = [commit.files[name] for commit in commits]
    digest, ends = hashlib.sha256(content).hexdigest(), list(accumulate(f.rows for f in files))
    return [
        DataFile(
            path=path,
            rows=file.rows,
            sha256=file.sha256,
            first_row=end - file.rows,
            file_rows=ends[-1],
            file_sha256=digest,
        )
        for file, end in zip(files, ends, strict=True)
    ]


def read_rows(
    storage: Storage, name: str, commits: Iterable[Commit], *, whole_rows: bool = False
) -> list[pa.Table]:
    """The rows that each of the commits has of table `name`, in its schema.

    Raises FileNotFoundError, DamagedError for a file that is not what was written, and, with
    `whole_rows`, NewerError for one with columns that this version does not know.
    """
    by_path = [list(same) for _, same in groupby(commits, key=lambda c: c.files[name].path)]

    def read(same: Sequence[Commit]) -> list[pa.Table]:
        path = same[0].files[name].path
        try:
            tables = _read(storage, [commit.files[name] for commit in same])
            unknown = set(tables[0].column_names) - set(schema_of(name).names)
            if whole_rows and unknown:
                raise NewerError(f"{path} has the columns {', '.join(sorted(unknown))}")
            return [
                completed(name, table, commit.key.track_set)
                for table, commit in zip(tables, same, strict=True)
            ]
        except (pa.ArrowException, KeyError) as error:
            raise WarehouseError(
                f"{storage.url}/{path} has its checksum, but is no file of table "
                f"{name!r} as this version knows it: {error}. Use the version that wrote it."
            ) from error

    return [table for tables in storage.each(read, by_path) for table in tables]


def read_checked(storage: Storage, file: DataFile) -> bytes:
    """The content of a file. Raises FileNotFoundError, and DamagedError when it has changed."""
    content = storage.read(file.path)
    expected = crc_in(file.path)
    same = (
        crc_of(content) == expected
        if expected
        else hashlib.sha256(content).hexdigest() == file.file_sha256
    )
    if not same:
        raise DamagedError(
            f"{storage.url}/{file.path} is damaged: {CHANGED}. {mend_damage(storage)}"
        )
    storage.checked.add(file.path)
    return content


def _read(storage: Storage, files: Sequence[DataFile]) -> list[pa.Table]:
    """The rows of parts of one file. Once it was checked, only their row groups are read."""
    first = files[0]
    whole = sum(file.rows for file in files) >= first.file_rows
    if whole or first.path not in storage.checked:
        return _parts(pa.BufferReader(read_checked(storage, first)), files)
    return storage.retrying(lambda: _parts(storage.open(first.path), files))


def _parts(source: pa.NativeFile, files: Sequence[DataFile]) -> list[pa.Table]:
    with pq.ParquetFile(source) as parquet:
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        stops = list(accumulate(sizes))
        spans = [file.span for file in files]
        needed = [
            index
            for index, (size, stop) in enumerate(zip(sizes, stops, strict=True))
            if any(start < stop and stop - size < end for start, end in spans)
        ]
        # Many small files: reading each in this thread is faster than sharing out its columns.
        table = parquet.read_row_groups(needed, use_threads=False)
    skipped = list(accumulate(0 if i in set(needed) else size for i, size in enumerate(sizes)))
    tables = []
    for start, end in spans:
        group = next((i for i, stop in enumerate(stops) if start < stop), None)
        offset = 0 if group is None or start == end else start - skipped[group]
        tables.append(table.slice(offset, end - start))
    return tables


def _encode(name: str, parts: Iterable[pa.Table]) -> bytes:
    schema, content = schema_of(name), pa.BufferOutputStream()
    # These do not repeat: a dictionary would only make them larger, and slower to read.
    repeating = [column for column in schema.names if column not in ("token", "vector")]
    group, size = [schema.empty_table()], 0
    with pq.ParquetWriter(content, schema, compression="zstd", use_dictionary=repeating) as writer:
        for part in parts:
            group.append(part)
            size += part.nbytes
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(group))
                group, size = [schema.empty_table()], 0
        if size:
            writer.write_table(pa.concat_tables(group))
    return content.getvalue().to_pybytes()


def _path(name: str, key: Key, parts: Sequence[str], content: bytes) -> str:
    """Where a file of table `name` goes, in the folder of the key's split."""
    folders = [file_safe(part) for part in (key.dataset, key.split) if part]
    own = "".join(f"{file_safe(part)}-" for part in parts if part)
    return "/".join(["data", name, *folders, f"{own}{uuid.uuid4().hex}-{crc_of(content)}.parquet"])
