"""What readers of a warehouse see, whatever writers do: on disk and on an object store."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.warehouse.samples import KEY, labels, one_row, paths, stage_tables, visible_mious
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.commits import STAGES
from warehouse.compact import compact
from warehouse.queries import DERIVED
from warehouse.verify import verify


@pytest.mark.parametrize("stage", STAGES)
def test_every_table_round_trips(warehouse: Warehouse, stage: str) -> None:
    key = Key("mevis", "train", "v1", "run")
    tables = stage_tables(stage, key)
    commit = warehouse.publish(stage, key, "a", tables)
    again = Warehouse(warehouse.url)
    assert again.current(stage) == {key: commit}
    with again.connect() as connection:
        for name, table in tables.items():
            read = again.read(name, [commit])
            assert read.schema.equals(TABLES[name], check_metadata=True)
            assert read.equals(table)
            row = (*table.to_pylist()[0].values(), *([False] if name in DERIVED else []))
            assert connection.table(name).fetchall() == [row]  # the last column: not stale


def test_empty_tables_have_their_types(warehouse: Warehouse) -> None:
    key = Key("mevis", "train", "v1")
    with warehouse.connect() as before:
        types_before = {name: before.table(name).types for name in TABLES}
        assert before.table("tokens").fetchall() == []
    for stage, tables in STAGES.items():
        warehouse.publish(stage, key, "a", {name: TABLES[name].empty_table() for name in tables})
    with warehouse.connect() as after:
        assert {name: after.table(name).types for name in TABLES} == types_before
    assert warehouse.read("masks", []).schema == TABLES["masks"]


def test_later_supersedes_earlier_and_reuse_points_back(warehouse: Warehouse) -> None:
    first = warehouse.publish("label", KEY, "zzz", labels(0.25))
    second = warehouse.publish("label", KEY, "aaa", labels(0.5))
    assert (first.generation, second.generation) == (1, 2)
    assert visible_mious(warehouse) == [0.5]

    back = warehouse.reuse("label", KEY, "zzz")
    assert back and back.generation == 3
    assert back.files["pseudo_labels"].sha256 == first.files["pseudo_labels"].sha256
    assert set(back.paths).isdisjoint(first.paths)  # a copy: gc may be removing the first
    assert visible_mious(warehouse) == [0.25]
    assert warehouse.reuse("label", KEY, "zzz") == back
    assert warehouse.reuse("label", KEY, "never made") is None

    warehouse.storage.delete(second.files["pseudo_labels"].path)
    assert warehouse.reuse("label", KEY, "aaa") is None


def test_same_fingerprint_writes_nothing_more(warehouse: Warehouse) -> None:
    commit = warehouse.publish("label", KEY, "a", labels(0.25))
    before = paths(warehouse)
    assert warehouse.publish("label", KEY, "a", labels(0.25)) == commit
    assert paths(warehouse) == before


def test_missing_is_what_differs_failed_or_was_deleted(warehouse: Warehouse) -> None:
    keys = [Key("mevis", "train", f"v{index}") for index in range(5)]
    for key in keys[:3]:
        warehouse.publish("label", key, "a", labels(0.5, key))
    warehouse.publish("label", keys[1], "b", labels(0.5, keys[1]))
    warehouse.publish_failure("label", keys[3], "a", "unreadable")
    lost = warehouse.current("label")[keys[2]].files["pseudo_labels"].path
    warehouse.storage.delete(lost)
    assert warehouse.missing("label", dict.fromkeys(keys, "a")) == keys[1:]
    with pytest.raises(WarehouseError, match=r"is gone.*Run the label stage again"):
        warehouse.connect()
    warehouse.publish("label", keys[2], "a", labels(0.5, keys[2]))
    assert warehouse.missing("label", {keys[2]: "a"}) == []


def test_failure_shows_but_hides_no_data(warehouse: Warehouse) -> None:
    warehouse.publish("label", KEY, "a", labels(0.25))
    warehouse.publish_failure("label", KEY, "b", "no memory left")
    assert visible_mious(warehouse) == [0.25]
    assert warehouse.failures("label")[KEY].error == "no memory left"
    with warehouse.connect() as connection:
        latest = connection.sql("SELECT video_id, fingerprint, status, error, rows FROM commits")
        assert latest.fetchall() == [("v1", "b", "failed", "no memory left", 0)]

    warehouse.publish("label", KEY, "b", labels(0.5))
    assert visible_mious(warehouse) == [0.5]
    assert warehouse.failures("label") == {}
    with warehouse.connect() as connection:
        latest = connection.sql("SELECT status, rows, created_at::DATE > '2000-01-01' FROM commits")
        assert latest.fetchall() == [("done", 1, True)]


def test_success_and_failure_of_one_generation(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers on one video, neither seeing the other: the one that succeeded counts."""
    warehouse.publish_failure("label", KEY, "a", "lost its GPU")
    other = Warehouse(warehouse.url)
    monkeypatch.setattr(other.log, "of_key", lambda stage, key: [])
    other.publish("label", KEY, "a", labels(0.5))
    assert len(paths(warehouse, "records/label")) == 2
    assert warehouse.failures("label") == {}
    assert warehouse.missing("label", {KEY: "a"}) == []


def publish_when_all_are_ready(place: str | Path, barrier: Any, miou: float) -> None:
    warehouse = Warehouse.create(place)
    barrier.wait()
    for index in range(10):
        key = Key("mevis", "train", f"v{index}")
        warehouse.publish("label", key, "same", labels(miou, key))


def test_two_processes_publish_the_same_keys(place: str | Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=publish_when_all_are_ready, args=(place, barrier, miou))
        for miou in (0.25, 0.5)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    warehouse = Warehouse(place)
    assert len(visible_mious(warehouse)) == 10
    assert warehouse.missing("label", dict.fromkeys(warehouse.current("label"), "same")) == []
    with warehouse.connect() as connection:
        assert connection.sql("SELECT count(*) FROM pseudo_labels").fetchall() == [(10,)]


def test_of_a_race_every_reader_takes_the_same(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Warehouse(warehouse.url)
    first = warehouse.publish("label", KEY, "a", labels(0.25))
    monkeypatch.setattr(other, "_if_latest", lambda *_: None)  # it looked before `first`
    monkeypatch.setattr(other.log, "of_key", lambda stage, key: [])
    second = other.publish("label", KEY, "a", labels(0.5))
    assert (first.generation, second.generation) == (1, 1)
    seen = {tuple(visible_mious(Warehouse(warehouse.url))) for _ in range(3)}
    assert len(seen) == 1 and seen < {(0.25,), (0.5,)}
    assert warehouse.missing("label", {KEY: "a"}) == []


def test_what_a_kill_leaves_is_invisible(warehouse: Warehouse) -> None:
    commit = warehouse.publish("label", KEY, "a", labels(0.25))
    storage, data = warehouse.storage, commit.files["pseudo_labels"].path
    content = storage.read(data)
    (record,) = paths(warehouse, "records/label")
    folder, shard = data.rpartition("/")[0], record.rpartition("/")[0]
    storage.write(f"{folder}/v2-orphan.parquet", content)
    storage.write(f"{folder}/.half.tmp", content[:50])
    storage.write(f"{shard}/.half.tmp", storage.read(record)[:50])
    storage.write(f"{shard}/notes.txt", b"not a record")
    again = Warehouse(warehouse.url)
    assert visible_mious(again) == [0.25]
    with again.connect() as connection:
        assert connection.sql("SELECT count(*) FROM pseudo_labels").fetchall() == [(1,)]


def test_a_kill_before_the_record_publishes_nothing(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    warehouse.publish("label", KEY, "a", labels(0.25))
    monkeypatch.setattr(warehouse.log, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        warehouse.publish("label", KEY, "b", labels(0.5))
    again = Warehouse(warehouse.url)
    assert visible_mious(again) == [0.25]
    assert again.missing("label", {KEY: "b"}) == [KEY]


def test_nothing_is_overwritten_and_readers_keep_their_view(warehouse: Warehouse) -> None:
    def contents() -> dict[str, bytes]:
        return {path: warehouse.storage.read(path) for path in paths(warehouse)}

    warehouse.publish("label", KEY, "a", labels(0.25))
    connection = warehouse.connect()
    for step, miou in enumerate((0.5, 0.75)):
        before = contents()
        warehouse.publish("label", KEY, f"b{step}", labels(miou))
        warehouse.publish_failure("label", KEY, f"c{step}", "failed")
        warehouse.reuse("label", KEY, "a")
        assert contents().items() > before.items()
        assert connection.sql("SELECT miou FROM pseudo_labels").fetchall() == [(0.25,)]
    connection.close()


def test_any_name_and_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "it's [1] *?" / "x=1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    warehouse = Warehouse.create("w")
    names = ["a*[b]?'c", "../../etc", ".", "v.1", "v_1", "V_1", "é" * 200, "x" * 300]
    keys = [Key("it's", "a/b", name, "run*") for name in names]
    for key in keys:
        warehouse.publish("label", key, "a", labels(0.5, key))
    monkeypatch.chdir(tmp_path)
    assert set(warehouse.current("label")) == set(keys)
    inside = (folder / "w").resolve()
    for commit in warehouse.current("label").values():
        assert inside in (inside / commit.files["pseudo_labels"].path).resolve().parents
    with warehouse.connect() as connection:
        videos = connection.sql("SELECT video_id FROM pseudo_labels").fetchall()
        assert sorted(videos) == sorted((name,) for name in names)


def test_a_folder_whose_name_is_a_pattern(tmp_path: Path) -> None:
    """It is not the pattern: a copy beside it, which it fits, is not read, too."""
    for name, fits in (("w*", "w1"), ("w?", "w2"), ("w[34]", "w3")):
        warehouse = Warehouse.create(tmp_path / name)
        warehouse.publish("label", KEY, "a", labels(0.5))
        shutil.copytree(tmp_path / name, tmp_path / fits)
        with warehouse.connect() as connection:
            assert connection.sql("SELECT count(*) FROM pseudo_labels").fetchall() == [(1,)]


def test_names_that_are_not_unicode(warehouse: Warehouse) -> None:
    """They are spelled out where a failure is recorded, and refused where rows would have them."""
    bad = Key("mevis", "train", "caf\udce9")
    with pytest.raises(WarehouseError, match=r"caf\\\\udce9.* is not Unicode"):
        warehouse.publish("label", bad, "a", labels(0.5))
    warehouse.publish_failure("label", bad, "a", "cannot read caf\udce9")
    warehouse.log.append("ingest", bad, "a", error="as an earlier version recorded it: \udce9")
    with Warehouse(warehouse.url).connect() as connection:
        seen = connection.sql("SELECT DISTINCT video_id FROM commits").fetchall()
    assert seen == [("caf\\udce9",)]
    assert verify(warehouse) == []


def test_current_filters_by_key(warehouse: Warehouse) -> None:
    keys = [Key("mevis", split, "v1") for split in ("train", "valid_u")]
    for key in keys:
        warehouse.publish("label", key, "a", labels(0.5, key))
    assert list(warehouse.current("label", dataset="mevis", split="valid_u")) == [keys[1]]
    with pytest.raises(WarehouseError, match="Unknown key field video"):
        warehouse.current("label", video="v1")


def test_publish_refuses_what_does_not_belong(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match=r"Unknown stage 'lable'. Stages are: ingest"):
        warehouse.publish("lable", KEY, "a", labels(0.5))
    with pytest.raises(WarehouseError, match="publishes exactly predictions, scores"):
        warehouse.publish("evaluate", KEY, "a", labels(0.5))
    with pytest.raises(WarehouseError, match="video_id = 'v2', but the key says 'v1'"):
        warehouse.publish("label", KEY, "a", labels(0.5, Key("mevis", "train", "v2")))
    with pytest.raises(WarehouseError, match=r"Column 'miou' of table 'pseudo_labels'"):
        bad = labels(0.5)["pseudo_labels"].drop(["miou"]).append_column("miou", pa.array(["x"]))
        warehouse.publish("label", KEY, "a", {"pseudo_labels": bad})
    with pytest.raises(WarehouseError, match=r"Not a fingerprint: '\.\./a'"):
        warehouse.publish("label", KEY, "../a", labels(0.5))
    assert warehouse.current("label") == {}


def test_read_says_what_a_commit_has(warehouse: Warehouse) -> None:
    commit = warehouse.publish("label", KEY, "a", labels(0.5))
    with pytest.raises(WarehouseError, match=r"no table 'masks'. It has: pseudo_labels"):
        warehouse.read("masks", [commit])


def test_files_of_an_earlier_version_read_with_nulls(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that may be null may be new, and columns may have become ones that may be null."""
    earlier_form = {
        "detections": pa.schema(f for f in TABLES["detections"] if f.name != "token_scores"),
        "frame_predictions": TABLES["frame_predictions"],
        "scores": pa.schema(f.with_nullable(False) for f in TABLES["scores"]),
    }
    with monkeypatch.context() as earlier:
        for name, schema in earlier_form.items():
            earlier.setitem(TABLES, name, schema)
        old = [warehouse.publish(s, KEY, "a", stage_tables(s, KEY)) for s in ("detect", "baseline")]
    other = Key("mevis", "train", "v2")
    scores = one_row("scores", other).to_pylist()[0] | {"oracle_jf": None}
    without = {"scores": pa.Table.from_pylist([scores], schema=TABLES["scores"])}
    warehouse.publish("detect", other, "a", stage_tables("detect", other))
    warehouse.publish("baseline", other, "a", stage_tables("baseline", other) | without)
    assert warehouse.read("detections", old[:1]).to_pylist()[0]["token_scores"] is None
    assert warehouse.read("scores", old[1:]).schema.equals(TABLES["scores"])

    def seen() -> list[tuple]:
        with Warehouse(warehouse.url).connect() as connection:
            return connection.sql(
                "SELECT video_id, token_scores, oracle_jf "
                "FROM detections JOIN scores USING (video_id) ORDER BY video_id"
            ).fetchall()

    assert seen() == [("v1", None, 1.5), ("v2", [1.5, 1.5], None)]
    assert verify(warehouse, 0) == []
    compact(warehouse)
    assert seen() == [("v1", None, 1.5), ("v2", [1.5, 1.5], None)]
    assert verify(warehouse, 0) == []
