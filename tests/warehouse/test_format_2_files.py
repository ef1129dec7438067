"""Data files without the column `track_set`: their rows are of the track set of their commit."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.warehouse.samples import labels, paths, stage_tables
from warehouse import TABLES, Key, Warehouse
from warehouse.collect import collect_garbage
from warehouse.compact import compact
from warehouse.verify import verify

KEYS = [
    Key("mevis", "train", video, track_set=tracks)
    for video in ("v1", "v2")
    for tracks in ("it's", "new")
]
WITH_SETS = ("prompts", "tracks", "masks", "tokens", "pseudo_labels")


@contextmanager
def format_2() -> Iterator[None]:
    """What is published meanwhile has no column for the track set."""
    with pytest.MonkeyPatch.context() as earlier:
        for name in WITH_SETS:
            schema = TABLES[name]
            position = schema.get_field_index("track_set")
            earlier.setitem(TABLES, name, schema.remove(position))
        yield


def publish(store: Warehouse, key: Key) -> None:
    for stage, tables in (
        ("precompute", stage_tables("precompute", key)),
        ("label", labels(0.5, key, rows=2)),
    ):
        fitting = {name: table.select(TABLES[name].names) for name, table in tables.items()}
        store.publish(stage, key, "a", fitting)


def check_sets(store: Warehouse) -> None:
    """Every row has the track set of its commit, in pyarrow and in DuckDB."""
    for stage, names in (("precompute", WITH_SETS[:-1]), ("label", WITH_SETS[-1:])):
        for name in names:
            rows = 2 if name == "pseudo_labels" else 1
            expected = sorted((key.video_id, key.track_set) for key in KEYS for _ in range(rows))
            for key, commit in store.current(stage).items():
                read = store.read(name, [commit])
                assert read.schema.equals(TABLES[name])
                assert read["track_set"].to_pylist() == [key.track_set] * rows
            with store.connect() as connection:
                sql = f"SELECT video_id, track_set FROM {name} ORDER BY ALL"
                assert connection.sql(sql).fetchall() == expected
                sql = f"SELECT count(*) FROM {name} WHERE track_set = 'it''s'"
                assert connection.sql(sql).fetchall() == [(2 * rows,)]


@pytest.mark.parametrize("earlier", [KEYS, KEYS[::2], KEYS[:1]])
def test_rows_have_the_track_set_of_their_commit(warehouse: Warehouse, earlier: list[Key]) -> None:
    """All files are earlier ones, or those of a track set, or one beside newer ones of its set."""
    for key in KEYS:
        if key in earlier:
            with format_2():
                publish(warehouse, key)
        else:
            publish(warehouse, key)
    check_sets(warehouse)
    assert verify(warehouse, 0) == []
    compact(warehouse)
    check_sets(Warehouse(warehouse.url))
    collect_garbage(warehouse, 0)
    check_sets(Warehouse(warehouse.url))
    assert verify(warehouse, 0) == []
    for file in paths(warehouse, "data"):  # written by this version
        content = warehouse.storage.read(file)
        assert "track_set" in pq.read_schema(pa.BufferReader(content)).names


def test_a_merged_file_that_sets_share_reads_as_each_of_them(warehouse: Warehouse) -> None:
    """The earlier version merged them; each commit says what its rows are of."""
    with format_2():
        for key in KEYS:
            publish(warehouse, key)
        compact(warehouse)
        collect_garbage(warehouse, 0)
    assert len(paths(warehouse, "data/tokens")) == 1
    check_sets(Warehouse(warehouse.url))
    with format_2():
        rows = labels(0.75, KEYS[0], rows=2)["pseudo_labels"].select(TABLES["pseudo_labels"].names)
        warehouse.publish("label", KEYS[0], "b", {"pseudo_labels": rows})
    store = Warehouse(warehouse.url)
    check_sets(store)
    compact(store)
    check_sets(Warehouse(warehouse.url))
    collect_garbage(store, 0)
    assert verify(Warehouse(warehouse.url), 0) == []
