"""SQL of others: it reads the warehouse, and there is no way to anything else."""

import os
import tempfile
from pathlib import Path

import duckdb
import pytest

from tests.warehouse.samples import KEY, labels, paths
from warehouse import Key, Warehouse, WarehouseError
from warehouse.queries import check_reads

WRITE = "(FORMAT parquet, USE_TMP_FILE false)"
# `{secret}` is a text file, `{new}` a path where nothing is, `{own}` a data file of the warehouse.
READS = (
    "FROM read_text('{secret}')",
    "FROM read_blob('{secret}')",
    "FROM read_csv('{secret}')",
    "FROM sniff_csv('{secret}')",
    "FROM read_json('{secret}')",
    "FROM read_parquet('{secret}')",
    "FROM parquet_metadata('{secret}')",
    "FROM read_text('file://{secret}')",
    "FROM read_text('{folder}/./secret.txt')",
    "FROM read_text('warehouse://../secret.txt')",
    "FROM read_text('warehouse://{secret}')",
    "FROM '{secret}'",
    "FROM glob('{folder}/*')",
    "FROM query_table('{secret}')",
    "FROM query('FROM read_text(''{secret}'')')",
    "/* SELECT */ FROM read_text('{secret}') -- SELECT",
    "SELECT getenv('HOME')",
    "SELECT * FROM a_python_variable",
    "FROM read_csv('http://127.0.0.1:9/a.csv')",
    "FROM 's3://bucket/a.parquet'",
)
WRITES = (
    "COPY (SELECT 'changed' AS x) TO '{own}'",
    "COPY (SELECT 'changed' AS x) TO '{own}' " + WRITE,
    "COPY (SELECT 'changed' AS x) TO '{new}'",
    "COPY commits FROM '{secret}'",
    "COPY (SELECT 1) TO '/dev/stdout' (FORMAT csv)",
    "WITH a AS (COPY (SELECT 'changed' AS x) TO '{new}') FROM a",
    "WITH a AS (COPY (SELECT 'changed' AS x) TO '{own}' " + WRITE + ") FROM a",
    "FROM query('WITH a AS (COPY (SELECT 1) TO ''{own}'' " + WRITE + ") FROM a')",
    "EXPLAIN ANALYZE COPY (SELECT 'changed' AS x) TO '{own}' " + WRITE,
    "SELECT 1; COPY (SELECT 'changed' AS x) TO '{own}' " + WRITE,
    "ATTACH '{new}' AS n",
    "EXPORT DATABASE '{new}'",
    "IMPORT DATABASE '{folder}'",
    "CREATE PERSISTENT SECRET s (TYPE http)",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{secret}'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "SET allowed_paths = ['{secret}']",
    "SET profiling_output = '{new}'",
    "SET log_query_path = '{new}'",
    "PRAGMA enable_profiling",
    "PRAGMA profiling_output = '{new}'",
    "CALL enable_logging(storage = 'file', storage_path = '{new}')",
)
a_python_variable = duckdb.connect().sql("SELECT 1 AS x").to_arrow_table()


def fill(sql: str, warehouse: Warehouse, folder: Path, prefix: str) -> str:
    (own,) = paths(warehouse, "data")
    names = {"folder": folder, "secret": folder / "secret.txt", "new": folder / "new"}
    return sql.format(**names, own=prefix + own)


@pytest.mark.parametrize("sql", [*READS, *WRITES])
def test_sql_reaches_the_rows_of_the_warehouse_and_nothing_else(tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    warehouse = Warehouse.create(tmp_path / "it's [a] warehouse*")
    warehouse.publish("label", KEY, "a", labels(0.5))
    (data,) = paths(warehouse, "data")
    before = (warehouse.root / data).read_bytes()
    with warehouse.connect(read_only=True) as connection:
        for prefix in ("warehouse://", f"{warehouse.url}/".replace("'", "''")):
            with pytest.raises(duckdb.Error):
                connection.execute(fill(sql, warehouse, tmp_path, prefix)).fetchall()
        assert connection.sql("SELECT miou FROM pseudo_labels").fetchall() == [(0.5,)]
    assert (warehouse.root / data).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [warehouse.root.name, "secret.txt"]


def test_it_reads_whatever_storage_there_is(warehouse: Warehouse) -> None:
    warehouse.publish("label", KEY, "a", labels(0.25, rows=3))
    for _ in range(2):
        with warehouse.connect(read_only=True) as connection:
            sql = "SELECT count(*), avg(miou) FROM pseudo_labels JOIN commits USING (video_id)"
            assert connection.sql(sql).fetchall() == [(3, 0.25)]


def test_more_files_than_a_process_may_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse.create(tmp_path / "warehouse")
    for number in range(60):
        key = Key("mevis", "train", f"v{number}")
        warehouse.publish("label", key, "a", labels(0.5, key))
    monkeypatch.setattr("warehouse.storage.Disk.keep_open", 8)
    before = len(os.listdir("/dev/fd"))
    with warehouse.connect(read_only=True) as connection:
        for _ in range(2):
            sql = "SELECT count(*), sum(miou) FROM pseudo_labels"
            assert connection.sql(sql).fetchall() == [(60, 30.0)]
        assert len(os.listdir("/dev/fd")) - before < 30


def test_memory_is_limited_and_what_exceeds_it_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr("warehouse.queries.MEMORY_LIMIT", "64MB")
    (tmp_path / "tmp").mkdir()
    warehouse = Warehouse.create(tmp_path / "warehouse")
    with warehouse.connect(read_only=True) as connection:
        sql = "SELECT current_setting('memory_limit'), current_setting('temp_directory')"
        ((memory, folder),) = connection.sql(sql).fetchall()
        assert memory == "61.0 MiB" and Path(folder).parent == tmp_path / "tmp"
        sql = "SELECT * FROM range(6000000) r(i) ORDER BY hash(i)"
        relation = connection.sql(sql).to_arrow_reader(1000)
        relation.read_next_batch()
        assert list(Path(folder).iterdir())
        del relation
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    "sql", ["", "SELECT 1; SELECT 2", "SELECT 1;; SET threads = 1", "CALL x()"]
)
def test_one_statement_that_asks_for_rows(sql: str) -> None:
    with duckdb.connect() as connection, pytest.raises(WarehouseError, match="valid is one that"):
        check_reads(connection, sql)


@pytest.mark.parametrize(
    "sql", ["SELECT 1;", "FROM commits -- all", "DESCRIBE commits", "PIVOT commits ON stage"]
)
def test_every_way_to_ask_for_rows(tmp_path: Path, sql: str) -> None:
    warehouse = Warehouse.create(tmp_path / "warehouse")
    warehouse.publish("label", KEY, "a", labels(0.5))
    with warehouse.connect(read_only=True) as connection:
        check_reads(connection, sql)
        assert connection.sql(sql).fetchall()
