"""Data that was withdrawn: nobody sees it, and its rows leave every file."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.warehouse.samples import labels, paths, stage_tables
from warehouse import Key, Warehouse, WarehouseError
from warehouse.collect import collect_garbage, find_garbage
from warehouse.commits import RECORD_NAME
from warehouse.compact import RECORD_FILES, compact
from warehouse.verify import verify

KEYS = [Key("mevis", "train", f"v{index}", track_set="grid") for index in range(4)]
GONE, *STAY = KEYS
MIOUS = {key: 0.25 * index for index, key in enumerate(KEYS, start=1)}


def fill(store: Warehouse) -> None:
    for key in KEYS:
        store.publish("label", key, "a", labels(MIOUS[key], key, rows=2))


def check_gone(place: str) -> None:
    """Nothing that readers ask has the key; everything else is there."""
    store = Warehouse(place)
    assert list(store.current("label")) == STAY
    assert list(store.current("label", [GONE])) == []
    assert [commit.key for commit in store.latest("label")] == STAY
    assert store.missing("label", dict.fromkeys(KEYS, "a")) == [GONE]
    assert store.missing("label", {GONE: "withdrawn"}) == [GONE]
    assert store.failures("label") == {}
    with store.connect() as connection:
        for view in ("pseudo_labels", "commits"):
            found = connection.sql(f"SELECT DISTINCT video_id FROM {view} ORDER BY 1").fetchall()
            assert found == [(key.video_id,) for key in STAY]
    assert {problem.mend for problem in verify(store, 0)} <= {"collect"}


def rows_in_files(store: Warehouse) -> list[str]:
    """The videos of all rows in all data files, whatever records say."""
    tables = [
        pq.read_table(pa.BufferReader(store.storage.read(path))) for path in paths(store, "data")
    ]
    return sorted({video for table in tables for video in table["video_id"].to_pylist()})


@pytest.mark.parametrize("merged", [False, True])
def test_withdrawn_data_is_nowhere(warehouse: Warehouse, merged: bool) -> None:
    fill(warehouse)
    if merged:
        compact(warehouse)
        collect_garbage(warehouse, 0)
    warehouse.withdraw(warehouse.current("label")[GONE])
    check_gone(warehouse.url)
    compact(warehouse)
    check_gone(warehouse.url)
    collect_garbage(warehouse, 0)
    check_gone(warehouse.url)
    assert rows_in_files(warehouse) == [key.video_id for key in STAY]
    assert find_garbage(warehouse, 0).files == [] and verify(warehouse, 0) == []


def test_its_rows_leave_files_that_are_large_enough(warehouse: Warehouse) -> None:
    """Three quarters of such a file are current: by its size alone it would stay as it is."""
    fill(warehouse)
    compact(warehouse)
    collect_garbage(warehouse, 0)
    warehouse.withdraw(warehouse.current("label")[GONE])
    (size,) = (file.size for file in warehouse.storage.files("data/pseudo_labels"))
    assert compact(warehouse, target_bytes=size).commits == 3
    collect_garbage(warehouse, 0)
    assert rows_in_files(warehouse) == [key.video_id for key in STAY]
    assert compact(warehouse, target_bytes=size).commits == 0


def test_it_stays_gone_when_records_are_packed(warehouse: Warehouse) -> None:
    fill(warehouse)
    warehouse.withdraw(warehouse.current("label")[GONE])
    more = [Key("mevis", "valid", f"v{index}", track_set="grid") for index in range(RECORD_FILES)]
    for key in more:
        warehouse.publish("label", key, "a", labels(0.5, key))
    for _ in range(2):
        compact(warehouse)
        collect_garbage(warehouse, 0)
        store = Warehouse(warehouse.url)
        assert list(store.current("label")) == [*STAY, *sorted(more)]
        assert verify(store, 0) == []


def test_it_can_be_published_and_used_again(warehouse: Warehouse) -> None:
    fill(warehouse)
    warehouse.withdraw(warehouse.current("label")[GONE])
    assert warehouse.reuse("label", GONE, "a")
    assert list(warehouse.current("label")) == KEYS
    warehouse.withdraw(warehouse.current("label")[GONE])
    collect_garbage(warehouse, 0)
    assert warehouse.reuse("label", GONE, "a") is None
    warehouse.publish("label", GONE, "a", labels(0.5, GONE))
    assert list(warehouse.current("label")) == KEYS
    assert warehouse.missing("label", dict.fromkeys(KEYS, "a")) == []


def test_a_failure_after_it_is_shown_and_one_before_is_not(warehouse: Warehouse) -> None:
    fill(warehouse)
    warehouse.publish_failure("label", GONE, "b", "no memory left")
    assert list(warehouse.failures("label")) == [GONE]
    warehouse.withdraw(warehouse.current("label")[GONE])
    check_gone(warehouse.url)
    warehouse.publish_failure("label", GONE, "b", "no memory left")
    assert list(warehouse.failures("label")) == [GONE]
    assert list(warehouse.current("label")) == STAY


def test_a_compaction_at_the_same_time_does_not_bring_it_back(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(warehouse)
    other, append_pack = Warehouse(warehouse.url), warehouse.log.append_pack

    def withdrawn_meanwhile(*arguments: Any) -> str:
        other.withdraw(other.current("label")[GONE])
        monkeypatch.setattr(warehouse.log, "append_pack", append_pack)
        return append_pack(*arguments)

    monkeypatch.setattr(warehouse.log, "append_pack", withdrawn_meanwhile)
    assert compact(warehouse).commits == len(KEYS)
    check_gone(warehouse.url)
    compact(warehouse)
    collect_garbage(warehouse, 0)
    check_gone(warehouse.url)
    assert rows_in_files(warehouse) == [key.video_id for key in STAY]


@pytest.mark.parametrize("withdrawn_last", [True, False])
def test_of_a_publish_at_the_same_moment_every_reader_sees_nothing(
    warehouse: Warehouse, withdrawn_last: bool
) -> None:
    """Both have seen the same records: they have one generation, and none is the later."""
    fill(warehouse)
    commit = warehouse.current("label")[GONE]
    with pytest.MonkeyPatch.context() as at_once:
        seen = {GONE.slug: warehouse.log.of_key("label", GONE)}
        at_once.setattr(warehouse.log, "of_key", lambda stage, key: seen[key.slug])
        writes = [
            lambda: warehouse.publish("label", GONE, "f" * 20, labels(0.5, GONE)),
            lambda: warehouse.withdraw(commit),
        ]
        for write in writes if withdrawn_last else reversed(writes):
            write()
    names = [path.rpartition("/")[2] for path in paths(warehouse, "records/label")]
    named = [RECORD_NAME.fullmatch(name) for name in names if name.startswith(GONE.slug)]
    assert sorted(int(match[2]) for match in named if match) == [1, 2, 2]
    check_gone(warehouse.url)


def test_weights_of_a_withdrawn_run_are_garbage(warehouse: Warehouse, tmp_path: Path) -> None:
    folder = tmp_path / "last"
    folder.mkdir()
    (folder / "selector.json").write_text("{}")
    run = Key(run_id="run")
    weights = warehouse.put_folder("selectors/run/last", folder)
    commit = warehouse.publish("train", run, "a", stage_tables("train", run), weights)
    assert find_garbage(warehouse, 0).files == []
    warehouse.withdraw(commit)
    path = "selectors/run/last/selector.json"
    assert path in {problem.path for problem in verify(warehouse, 0)}
    assert [file.path for file in collect_garbage(warehouse, 0).weights] == [path]
    assert verify(warehouse, 0) == []
    with pytest.raises(WarehouseError, match="is gone"):
        Warehouse(warehouse.url).local_copy("selectors/run/last")
