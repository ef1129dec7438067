"""`verify` finds every kind of damage, names how to repair it, and finds nothing in sound data."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.warehouse.samples import KEY, labels, paths, stage_tables
from warehouse import Key, Warehouse
from warehouse.collect import collect_garbage
from warehouse.compact import compact
from warehouse.names import crc_of
from warehouse.verify import Problem, delete_damaged, verify

OTHER = Key("mevis", "train", "v2")
RUN = Key(run_id="run")
UUID = "0" * 32


@pytest.fixture
def sound(warehouse: Warehouse, tmp_path: Path) -> Warehouse:
    """Labels of two videos, one superseded once and one failed later, and a run with weights."""
    for key in (KEY, OTHER):
        warehouse.publish("label", key, "a", labels(0.5, key, rows=3))
    warehouse.publish("label", KEY, "b", labels(0.75, KEY, rows=2))
    warehouse.publish_failure("label", OTHER, "b", "no memory left")
    tables = stage_tables("train", RUN)
    column = pa.array(["selectors/run/best"])
    index = tables["runs"].column_names.index("weights")
    tables["runs"] = tables["runs"].set_column(index, "weights", column)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "selector.json").write_text("{}")
    checksums = warehouse.put_folder("selectors/run/best", tmp_path / "best")
    warehouse.publish("train", RUN, "a", tables, checksums)
    return warehouse


def current_file(store: Warehouse, key: Key = KEY) -> str:
    return store.current("label")[key].files["pseudo_labels"].path


def test_sound_data_has_no_problems(sound: Warehouse) -> None:
    assert verify(sound, 0) == []
    compact(sound)
    assert verify(sound, 0) == []
    collect_garbage(sound, 0)
    assert verify(Warehouse(sound.url), 0) == []


def lose_data(store: Warehouse) -> str:
    store.storage.delete(path := current_file(store))
    return path


def flip_a_byte(store: Warehouse) -> str:
    content = bytearray(store.storage.read(path := current_file(store)))
    content[len(content) // 2] ^= 1
    store.storage.write(path, bytes(content))
    return path


def damage_a_record(store: Warehouse) -> str:
    path = next(p for p in paths(store, "records/label") if ".00000002.b.done" in p)
    store.storage.write(path, store.storage.read(path)[:-20])
    return path


def swap_two_records(store: Warehouse) -> str:
    path = next(p for p in paths(store, "records/label") if ".00000002.b.done" in p)
    other = next(p for p in paths(store, "records/label") if ".00000001.a.done" in p)
    store.storage.write(path, store.storage.read(other))
    return path


def damage_a_pack(store: Warehouse) -> str:
    compact(store)
    path = next(p for p in paths(store, "records/label") if "/packs/" in p)
    content = bytearray(store.storage.read(path))
    content[100] ^= 1
    store.storage.write(path, bytes(content))
    return path


def lose_weights(store: Warehouse) -> str:
    store.storage.delete(path := "selectors/run/best/selector.json")
    return path


def damage_weights(store: Warehouse) -> str:
    store.storage.write(path := "selectors/run/best/selector.json", b"{")
    return path


def leave_an_orphan(store: Warehouse) -> str:
    store.storage.write(path := f"data/masks/mevis/{UUID}.parquet", b"")
    return path


def leave_a_temporary(store: Warehouse) -> str:
    store.storage.write(path := f"records/label/00/.{UUID}.tmp", b"")
    return path


def leave_selectors_of_no_run(store: Warehouse) -> str:
    store.storage.write(path := "selectors/other/selector.json", b"")
    return path


def leave_a_stranger(store: Warehouse) -> str:
    store.storage.write(path := "data/notes.txt", b"")
    return path


@pytest.mark.parametrize(
    ("damage", "mend", "error"),
    [
        (lose_data, "redo", "is gone"),
        (flip_a_byte, "delete", "checksum"),
        (damage_a_record, "delete", "damaged: it is not a commit record"),
        (swap_two_records, "delete", "checksum"),
        (damage_a_pack, "delete", "checksum"),
        (lose_weights, "redo", "weights of run run are gone"),
        (damage_weights, "delete", "checksum"),
        (leave_an_orphan, "collect", "no commit record names it"),
        (leave_a_temporary, "collect", "left by a kill"),
        (leave_selectors_of_no_run, "collect", "no run has these weights"),
        (leave_a_stranger, "look", "not a file of a warehouse"),
    ],
)
def test_damage_is_found_and_mended(
    sound: Warehouse, damage: Callable[[Warehouse], str], mend: str, error: str
) -> None:
    path = damage(sound)
    (problem,) = verify(Warehouse(sound.url), 0)
    assert (problem.path, problem.mend) == (path, mend)
    assert error in problem.error
    delete_damaged(sound, [problem])
    again = Warehouse(sound.url)
    if problem.stage == "train":
        assert again.missing("train", {RUN: "a"}) == [RUN]
        again.storage.write("selectors/run/best/selector.json", b"{}")
    elif mend in ("redo", "delete"):
        wanted = {KEY: "b", OTHER: "a"}
        for key in again.missing("label", wanted):
            again.publish("label", key, wanted[key], labels(0.75, key, rows=2))
    elif mend == "look":
        again.storage.delete(path)
    collect_garbage(again, 0)
    assert verify(again, 0) == []


def rewritten(store: Warehouse, change: Callable[[pa.Table], pa.Table]) -> Problem:
    """The problem after a data file was changed, and with it the checksums in record and names."""
    commit = store.current("label")[KEY]
    file = commit.files["pseudo_labels"]
    table, sink = (
        pq.read_table(pa.BufferReader(store.storage.read(file.path))),
        pa.BufferOutputStream(),
    )
    pq.write_table(change(table), sink)
    content = sink.getvalue().to_pybytes()
    path = f"data/pseudo_labels/{UUID}-{crc_of(content)}.parquet"
    changed = replace(file, path=path, file_sha256=hashlib.sha256(content).hexdigest())
    store.storage.write(path, content)
    store.log.append("label", KEY, "b", files={"pseudo_labels": changed})
    (problem,) = (p for p in verify(Warehouse(store.url)) if p.mend != "collect")
    assert problem.path == path and problem.keys == (KEY,)
    delete_damaged(store, [problem])
    assert store.storage.existing([path])
    return problem


def test_columns_of_another_version_are_found(sound: Warehouse) -> None:
    problem = rewritten(sound, lambda table: table.drop(["miou"]))
    assert problem.mend == "newer" and "its columns are not those" in problem.error


def test_rows_of_another_key_are_found(sound: Warehouse) -> None:
    problem = rewritten(
        sound, lambda t: labels(0.5, Key("mevis", "train", "v9"), rows=2)["pseudo_labels"]
    )
    assert "video_id = 'v9'" in problem.error


def test_too_few_rows_are_found(sound: Warehouse) -> None:
    assert "1 rows, not 2" in rewritten(sound, lambda table: table.slice(1)).error


def test_what_is_in_flight_is_no_problem(sound: Warehouse) -> None:
    leave_an_orphan(sound)
    leave_a_temporary(sound)
    assert verify(sound) == []
