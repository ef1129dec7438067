"""SQL over the warehouse: the named queries in warehouse/sql, and the DuckDB views they read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from warehouse.schemas import TABLES, WarehouseError

if TYPE_CHECKING:
    import duckdb

SQL_FOLDER = Path(__file__).parent / "sql"

DUCKDB_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float16(): "FLOAT",  # DuckDB has no half; it reads Parquet's float16 as FLOAT
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
}


def named_queries() -> dict[str, str]:
    """The name of each query, with the description in its first line."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()[0].removeprefix("-- ")
        for path in sorted(SQL_FOLDER.glob("*.sql"))
    }


def load_query(name: str) -> str:
    """The SQL text of a named query. Raises WarehouseError for an unknown name."""
    names = named_queries()
    if name not in names:
        raise WarehouseError(f"Unknown query {name!r}. Queries are: {', '.join(names)}.")
    return (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def open_views(
    files: Mapping[str, Sequence[Path]], commits: pa.Table
) -> "duckdb.DuckDBPyConnection":
    """An in-memory connection: each table a view over exactly its files, and `commits`.

    `files` maps table -> absolute paths; a table without files is an empty view of its types.
    """
    import duckdb  # here: a worker process that never asks SQL would report its globals as leaks

    connection = duckdb.connect()
    for name, schema in TABLES.items():
        source = _over_files(files[name]) if files.get(name) else _empty(schema)
        connection.execute(f"CREATE VIEW {name} AS {source}")
    connection.register("_commits", commits)
    connection.execute("CREATE TABLE commits AS FROM _commits")
    connection.unregister("_commits")
    return connection


def _over_files(paths: Sequence[Path]) -> str:
    # DuckDB takes a path that exists as it is, before it looks for glob characters in it.
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"SELECT * FROM read_parquet([{quoted}], hive_partitioning = false)"


def _empty(schema: pa.Schema) -> str:
    columns = ", ".join(f"NULL::{_duckdb_type(field.type)} AS {field.name}" for field in schema)
    return f"SELECT {columns} WHERE false"


def _duckdb_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return _duckdb_type(kind.value_type) + "[]"
    return DUCKDB_TYPES[kind]
