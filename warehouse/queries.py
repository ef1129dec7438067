"""SQL over the warehouse: the named queries in warehouse/sql, and the DuckDB views they read."""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from warehouse.commits import STAGES, Commit, DataFile
from warehouse.data_files import read_checked
from warehouse.schemas import TABLES, WarehouseError
from warehouse.storage import Storage

if TYPE_CHECKING:
    import duckdb

SQL_FOLDER = Path(__file__).parent / "sql"
VIEWS = (  # each reads earlier ones
    "expression_facts",
    "expression_slices",
    "expression_scores",
    "token_similarities",
    "expression_labels",
)

SOURCES = ("ingest", "train", "experiment", "track_set", "default_tracks", "plan")
DERIVED = {t for stage, tables in STAGES.items() if stage not in SOURCES for t in tables}

READING = ("SELECT", "EXPLAIN", "MULTI")  # DuckDB's kinds of statements; PIVOT is of several
MEMORY_LIMIT = "50%"  # of the machine's, for SQL of others; what exceeds it goes to a folder

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
        path.stem: _description(path.read_text(encoding="utf-8"))
        for path in sorted(SQL_FOLDER.glob("*.sql"))
    }


def views() -> dict[str, str]:
    """The name of each of VIEWS, with the description in its first line."""
    return {name: _description(_view(name)) for name in VIEWS}


def load_query(name: str) -> str:
    """The SQL text of a named query. Raises WarehouseError for an unknown name."""
    names = named_queries()
    if name not in names:
        raise WarehouseError(f"Unknown query {name!r}. Queries are: {', '.join(names)}.")
    return (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def _view(name: str) -> str:
    return (SQL_FOLDER / "views" / f"{name}.sql").read_text(encoding="utf-8")


def _description(sql: str) -> str:
    return sql.splitlines()[0].removeprefix("-- ")


def open_views(
    storage: Storage,
    made: Mapping[str, Sequence[Commit]],
    stale: Callable[[Commit], bool],
    commits: pa.Table,
    *,
    checked: bool = True,
    read_only: bool = False,
) -> "duckdb.DuckDBPyConnection":
    """An in-memory connection: `commits`, and as views the tables, VIEWS and the named queries.

    `made` maps table -> the commits that have rows of it, exactly those that its view has. Unless
    `checked` is False the first query of a table checks its files. With `read_only`, SQL can do
    nothing but read these files, see `_confine`.
    """
    import duckdb  # here: a worker process that never asks SQL would report its globals as leaks

    connection = duckdb.connect()
    prefix = storage.attach_read_only(connection) if read_only else storage.attach(connection)
    sources = Sources(storage, prefix)
    connection.create_function("warehouse_files", sources.names, [int], "VARCHAR[]")
    for name, schema in TABLES.items():
        source = _over_commits(sources, name, schema, made.get(name, ()), stale)
        connection.execute(f"CREATE VIEW {name} AS {source}")
    connection.register("_commits", commits)
    connection.execute("CREATE TABLE commits AS FROM _commits")
    connection.unregister("_commits")
    for name in VIEWS:
        connection.execute(f"CREATE VIEW {name} AS {_view(name)}")
    for name in named_queries():
        connection.execute(f"CREATE VIEW {name} AS {load_query(name)}")
    if read_only:
        paths = {path for of_table in made.values() for commit in of_table for path in commit.paths}
        _confine(connection, (f"{sources.prefix}{path}" for path in sorted(paths)))
    sources.unchecked = set(sources.files) if checked else set()
    return connection


class Sources:
    """The files that the views read, by number.

    A view asks for the names of its files whenever a query is bound to it: so they are checked, the
    first time, before DuckDB opens any of them.
    """

    def __init__(self, storage: Storage, prefix: str) -> None:
        self.storage, self.prefix = storage, prefix
        self.files: dict[int, list[DataFile]] = {}
        self.unchecked: set[int] = set()

    def add(self, files: Sequence[DataFile]) -> int:
        self.files[len(self.files)] = list(files)
        return len(self.files) - 1

    def names(self, number: int) -> list[str]:
        """What DuckDB opens the files of a number as. Raises DamagedError."""
        if number in self.unchecked:
            for _ in self.storage.each(self._check, self.files[number]):
                pass
            self.unchecked.discard(number)
        return [f"{self.prefix}{file.path}" for file in self.files[number]]

    def _check(self, file: DataFile) -> None:
        read_checked(self.storage, file)


def check_reads(connection: "duckdb.DuckDBPyConnection", sql: str) -> None:
    """Raise WarehouseError unless the SQL is one statement, and one that asks for rows."""
    kinds = [statement.type.name for statement in connection.extract_statements(sql)]
    if len(kinds) != 1 or kinds[0] not in READING:
        received = f"{len(kinds)} statements" if len(kinds) != 1 else f"a {kinds[0]} statement"
        raise WarehouseError(
            f"Received {received}; valid is one that asks for rows: SELECT, WITH, FROM, VALUES, "
            "DESCRIBE, SUMMARIZE, SHOW, PIVOT or EXPLAIN."
        )


def _confine(connection: "duckdb.DuckDBPyConnection", files: Iterable[str]) -> None:
    """Nothing but these files can be read, and nothing written, loaded, attached or set.

    A check of the SQL would not do: a COPY may stand in a WITH, or in a text given to query().
    DuckDB removes the temporary folder when the connection is closed.
    """
    temporary = os.path.join(tempfile.gettempdir(), f"sola-sql-{uuid.uuid4().hex}")
    for setting in (
        f"memory_limit = '{MEMORY_LIMIT}'",
        f"temp_directory = {_quoted(temporary)}",
        f"allowed_paths = [{', '.join(map(_quoted, files))}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _over_commits(
    sources: Sources,
    name: str,
    schema: pa.Schema,
    commits: Sequence[Commit],
    stale: Callable[[Commit], bool],
) -> str:
    """SELECT exactly the rows of a table that these commits have, and whether they are stale.

    Files of format 2 have no column for the track set: one that a file lacks is its commit's.
    """
    groups: dict[tuple[str, bool], list[DataFile]] = {}
    for commit in commits:
        group = groups.setdefault((commit.key.track_set, stale(commit)), [])
        group.append(commit.files[name])
    derived = name in DERIVED
    selects = []
    for (track_set, is_stale), files in sorted(groups.items()):
        if rows := _over_files(sources, schema, files, track_set):
            shown = f"*, {is_stale} AS stale" if derived else "*"
            selects.append(f"SELECT {shown} FROM ({rows})")
    return " UNION ALL ".join(selects) or _empty(schema, derived)


def _over_files(
    sources: Sources, schema: pa.Schema, files: Sequence[DataFile], track_set: str
) -> str:
    """SELECT exactly the rows of `files`; "" without any.

    Of a file that several commits share some rows may be superseded: those are left out by number.
    """
    parts: dict[str, list[DataFile]] = {}
    for file in files:
        if file.rows:
            parts.setdefault(file.path, []).append(file)
    whole = [p for p, found in parts.items() if sum(f.rows for f in found) == found[0].file_rows]
    selects = []
    if whole:
        number = sources.add([parts[path][0] for path in whole])
        selects.append(f"SELECT * FROM {_read_parquet(number, schema, track_set)}")
    for path in sorted(set(parts) - set(whole)):
        spans = [
            f"file_row_number >= {a} AND file_row_number < {b}" for a, b in _spans(parts[path])
        ]
        number = sources.add(parts[path][:1])
        selects.append(
            "SELECT * EXCLUDE (file_row_number) FROM "
            f"{_read_parquet(number, schema, track_set, row_numbers=True)} "
            f"WHERE {' OR '.join(spans)}"
        )
    return " UNION ALL ".join(selects)


def _read_parquet(number: int, schema: pa.Schema, track_set: str, row_numbers: bool = False) -> str:
    numbers = ", file_row_number = true" if row_numbers else ""
    lacking = {"track_set": _quoted(track_set)} if track_set else {}
    # The columns by name: a file of an earlier version reads as null where it has none.
    columns = ", ".join(
        f"'{field.name}': {{name: '{field.name}', type: '{_duckdb_type(field.type)}', "
        f"default_value: {lacking.get(field.name, 'NULL')}}}"
        for field in schema
    )
    return (
        f"read_parquet(warehouse_files({number}), hive_partitioning = false, "
        f"schema = MAP {{{columns}}}{numbers})"
    )


def _spans(files: Sequence[DataFile]) -> list[tuple[int, int]]:
    """The row spans of parts of one file, those that touch joined."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(file.span for file in files):
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return joined


def _empty(schema: pa.Schema, derived: bool) -> str:
    columns = ", ".join(f"NULL::{_duckdb_type(field.type)} AS {field.name}" for field in schema)
    columns += ", NULL::BOOLEAN AS stale" if derived else ""
    return f"SELECT {columns} WHERE false"


def _duckdb_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return _duckdb_type(kind.value_type) + "[]"
    return DUCKDB_TYPES[kind]
