"""A result of SQL as a table to look at, CSV, JSON or Parquet: row by row, every value whole."""

import re
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

if TYPE_CHECKING:
    import duckdb

ROWS = 2048  # in memory at once
ROW_GROUP = 64 << 20  # bytes in Arrow of a Parquet file's row group
TABLE_ROWS = 60  # of a longer result a table shows the first and the last
CELL = 200  # characters that a table shows of a value
NOT_IN_ARROW = re.compile(r"\b(U?HUGEINT|BIT|VARIANT|INTERVAL|TIME WITH TIME ZONE|UNION)\b")
NO_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')  # and strings, in which it may stand


def write_csv(result: "duckdb.DuckDBPyRelation", stream: BinaryIO) -> None:
    """DuckDB's CSV: NULL is nothing, an empty text "", lists are written as DuckDB writes them."""
    import duckdb

    texts = result.project("COLUMNS(*)::VARCHAR").to_arrow_reader(ROWS)
    with duckdb.connect(config={"threads": 1}) as writer:  # in order, without waiting rows
        writer.register_filesystem(_Sink(stream))
        writer.register("texts", texts)
        writer.execute("COPY texts TO 'sink://' (FORMAT csv, HEADER true, USE_TMP_FILE false)")


def write_json(result: "duckdb.DuckDBPyRelation", stream: BinaryIO) -> None:
    """An array with an object a row. NaN and infinities, which JSON has not, become strings."""
    alias = f"row {uuid.uuid4()}"  # no column has this name
    rows = result.set_alias(alias).project(f'to_json("{alias}")').to_arrow_reader(ROWS)
    between = b"["
    for batch in rows:
        for text in batch.column(0).to_pylist():
            if "NaN" in text or "Infinity" in text:
                text = NO_JSON.sub(lambda m: m[0] if m[0][0] == '"' else f'"{m[0]}"', text)
            stream.write(between + text.encode())
            between = b",\n"
    stream.write(b"[]\n" if between == b"[" else b"]\n")


def write_parquet(result: "duckdb.DuckDBPyRelation", stream: BinaryIO) -> None:
    """Arrow's Parquet; types that it does not have become decimal numbers or texts."""
    rows = _in_arrow(result).to_arrow_reader(ROWS)
    with pq.ParquetWriter(stream, rows.schema) as writer:
        group: list[pa.RecordBatch] = []
        for batch in rows:
            group.append(batch)
            if sum(part.nbytes for part in group) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        writer.write_table(pa.Table.from_batches(group, rows.schema))


def write_table(result: "duckdb.DuckDBPyRelation", stream: BinaryIO) -> None:
    """For people: columns side by side; of many rows and of long values a part."""
    reader, half, count = _in_arrow(result).to_arrow_reader(ROWS), TABLE_ROWS // 2, 0
    rows = reader.schema.empty_table()
    for batch in reader:
        count += len(batch)
        rows = pa.concat_tables([rows, pa.Table.from_batches([batch])])
        if len(rows) > TABLE_ROWS:
            rows = pa.concat_tables([rows[:half], rows[-half:]])
    columns = [[name, *map(_cell, rows[i].to_pylist())] for i, name in enumerate(result.columns)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        " ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in zip(*columns, strict=True)
    ]
    if count > TABLE_ROWS:
        lines.insert(1 + half, f"... {count - TABLE_ROWS} more rows ...")
    stream.write("".join(f"{line}\n" for line in lines).encode())


WRITERS: dict[str, Callable[["duckdb.DuckDBPyRelation", BinaryIO], None]] = {
    "table": write_table,
    "csv": write_csv,
    "json": write_json,
    "parquet": write_parquet,
}


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= CELL else f"{text[: CELL - 3]}..."


def _in_arrow(result: "duckdb.DuckDBPyRelation") -> "duckdb.DuckDBPyRelation":
    """The same values in types that Arrow and Parquet have: their conversion may lose some."""
    result = result.project("*")  # of two columns of one name it renames one
    columns = []
    for name, kind in zip(result.columns, map(str, result.types), strict=True):
        column = '"' + name.replace('"', '""') + '"'
        if NOT_IN_ARROW.search(kind):
            column += f"::{'DECIMAL(38, 0)' if kind == 'HUGEINT' else 'VARCHAR'} AS {column}"
        columns.append(column)
    return result.project(", ".join(columns))


class _Sink(AbstractFileSystem):
    """Where DuckDB writes to a stream of Python: `sink://`."""

    protocol = "sink"
    cachable = False

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        raise FileNotFoundError(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_Open":
        return _Open(self._stream)


class _Open:
    """The stream as DuckDB has it open: it stays open when DuckDB closes it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.write = stream.write
        self.flush = stream.flush

    def close(self) -> None:
        pass
