"""The Parquet files of the warehouse: writing tables, and reading the rows of commits."""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.commits import DataFile, Key, file_safe
from warehouse.schemas import WarehouseError, completed, schema_of
from warehouse.storage import Storage

ROW_GROUP_BYTES = 4 << 20  # in memory; a row group ends where a part does
MERGED = "merged"


def write_table(storage: Storage, name: str, key: Key, table: pa.Table) -> DataFile:
    """Write a key's rows of the table `name` to a file of their own."""
    content = _encode(name, [table])
    path = f"{_folder(name, key)}/{_join(key.run_id, key.video_id)}{uuid.uuid4().hex}.parquet"
    storage.write(path, content)
    digest, rows = hashlib.sha256(content).hexdigest(), table.num_rows
    return DataFile(
        path=path, rows=rows, sha256=digest, first_row=0, file_rows=rows, file_sha256=digest
    )


def merge_files(storage: Storage, name: str, key: Key, files: Sequence[DataFile]) -> list[DataFile]:
    """Write the rows of many files to one, and say where in it each one's are.

    The file lies where the others of `key`'s split do. Raises FileNotFoundError.
    """
    content = _encode(name, read_rows(storage, name, files))
    path = f"{_folder(name, key)}/{MERGED}-{uuid.uuid4().hex}.parquet"
    storage.write(path, content)
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


def read_rows(storage: Storage, name: str, files: Iterable[DataFile]) -> list[pa.Table]:
    """The rows of each of the files, in the schema of table `name`. Raises FileNotFoundError."""
    by_path = [list(same) for _, same in groupby(files, key=lambda file: file.path)]
    try:
        found = storage.each(lambda same: storage.retrying(lambda: _read(storage, same)), by_path)
        return [completed(name, table) for tables in found for table in tables]
    except (pa.ArrowException, KeyError) as error:
        raise WarehouseError(
            f"A file of table {name!r} in {storage.url} does not read: {error}. Run `sola verify`."
        ) from error


def _read(storage: Storage, files: Sequence[DataFile]) -> list[pa.Table]:
    """The rows of parts of one file, of which only the row groups they lie in are read."""
    whole = sum(file.rows for file in files) >= files[0].file_rows
    source = pa.BufferReader(storage.read(files[0].path)) if whole else storage.open(files[0].path)
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


def _folder(name: str, key: Key) -> str:
    folders = [file_safe(part) for part in (key.dataset, key.split) if part]
    return "/".join(["data", name, *folders])


def _join(*parts: str) -> str:
    return "".join(f"{file_safe(part)}-" for part in parts if part)
