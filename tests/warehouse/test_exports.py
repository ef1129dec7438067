"""Results of SQL as CSV, JSON, Parquet and tables: nothing is lost, nothing waits in memory."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from warehouse.exports import TABLE_ROWS, WRITERS

LONG = "SELECT range(1500) AS n, ['a', '', NULL] AS t, {'x': 'NaN'::FLOAT, 'y': NULL} AS s"
NUMBERS = """
    SELECT * FROM (VALUES
        (1, 9007199254740993, true, 'nan'::FLOAT, 1.10::DECIMAL(9, 2), 5::HUGEINT, ''),
        (NULL, NULL, NULL, '-inf'::FLOAT, NULL, NULL, NULL),
        (NULL, NULL, NULL, NULL, NULL, NULL, 'say "NaN", \\ -Infinity')
    ) t(i, big, flag, f, d, huge, text)
"""


def export(sql: str, format: str) -> bytes:
    stream = io.BytesIO()
    with duckdb.connect() as connection:
        WRITERS[format](connection.sql(sql), stream)
    return stream.getvalue()


def strict_json(sql: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(export(sql, "json"), parse_constant=refuse)


def parquet(sql: str) -> list[dict[str, object]]:
    return pq.read_table(io.BytesIO(export(sql, "parquet"))).to_pylist()


def test_lists_are_whole() -> None:
    (row,) = csv.DictReader(io.StringIO(export(LONG, "csv").decode()))
    assert json.loads(row["n"]) == list(range(1500))
    assert (row["t"], row["s"]) == ("[a, '', NULL]", "{'x': nan, 'y': NULL}")
    (found,) = strict_json(LONG)
    assert found == {
        "n": list(range(1500)), "t": ["a", "", None], "s": {"x": "NaN", "y": None}}  # fmt: skip
    (found,) = parquet(LONG)
    assert found["n"] == list(range(1500)) and found["t"] == ["a", "", None]


def test_null_nan_and_an_empty_text_are_three_things_and_integers_stay() -> None:
    assert export(NUMBERS, "csv").decode().splitlines() == [
        "i,big,flag,f,d,huge,text",
        '1,9007199254740993,true,nan,1.10,5,""',
        ",,,-inf,,,",
        ',,,,,,"say ""NaN"", \\ -Infinity"',
    ]
    first, second, third = strict_json(NUMBERS)
    assert first == {
        "i": 1, "big": 9007199254740993, "flag": True, "f": "NaN", "d": 1.1, "huge": 5, "text": "",
    }  # fmt: skip
    assert set(second.values()) == {None, "-Infinity"}
    assert third["text"] == 'say "NaN", \\ -Infinity' and third["f"] is None
    found = parquet(NUMBERS)
    assert (found[0]["big"], found[0]["huge"]) == (9007199254740993, Decimal(5))
    assert found[0]["text"] == "" and found[1]["text"] is None
    table = export(NUMBERS, "table").decode().splitlines()
    assert table[1].split() == ["1", "9007199254740993", "True", "nan", "1.10", "5"]
    assert table[2].split() == ["NULL", "NULL", "NULL", "-inf", "NULL", "NULL", "NULL"]


def test_types_that_arrow_does_not_have_are_whole() -> None:
    most = 2**128 - 1
    sql = f"SELECT {most}::UHUGEINT AS u, [{most}::UHUGEINT] AS l, INTERVAL 1 DAY AS i, 1 AS u"
    assert export(sql, "csv").decode().splitlines()[1] == f"{most},[{most}],1 day,1"
    assert strict_json(sql) == [{"u": most, "l": [most], "i": "1 day", "u_1": 1}]
    assert parquet(sql) == [{"u": str(most), "l": f"[{most}]", "i": "1 day", "u_1": 1}]
    assert export(sql, "table").decode().splitlines()[1] == f"{most} [{most}] 1 day 1"


def test_a_result_without_rows_has_its_columns() -> None:
    sql = "SELECT 1 AS a, [2] AS b WHERE false"
    assert export(sql, "csv").split() == [b"a,b"]
    assert strict_json(sql) == []
    assert pq.read_table(io.BytesIO(export(sql, "parquet"))).column_names == ["a", "b"]
    assert export(sql, "table").split() == [b"a", b"b"]


def test_a_table_shows_the_first_and_the_last_rows_and_what_it_leaves_out() -> None:
    lines = export("SELECT i, repeat('x', 900) AS t FROM range(10000) r(i)", "table").splitlines()
    shown = [line.split()[0].decode() for line in lines]
    half = TABLE_ROWS // 2
    assert shown == ["i", *map(str, range(half)), "...", *map(str, range(10000 - half, 10000))]
    assert b" 9940 more rows " in lines[1 + half]
    assert lines[1].endswith(b"xxx...")


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_rows_leave_before_the_last_is_there(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warehouse.exports.ROW_GROUP", 1 << 20)
    sql = """SELECT CASE WHEN i = 99999 THEN error('the end') ELSE repeat(md5(i::VARCHAR), 20) END
        FROM range(100000) r(i)"""
    stream = io.BytesIO()
    with duckdb.connect() as connection, pytest.raises(Exception, match="the end"):
        WRITERS[format](connection.sql(sql), stream)
    assert len(stream.getvalue()) > 1e6
