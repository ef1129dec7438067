"""Compaction and garbage collection: less files, the same rows, and nobody disturbed."""

import os
import random
from pathlib import Path

import pytest

from tests.warehouse.samples import KEY, labels, paths, stage_tables, visible_mious
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.collect import collect_garbage, find_garbage
from warehouse.commits import STAGES
from warehouse.compact import compact
from warehouse.schemas import DamagedError
from warehouse.verify import verify

UUID = "0" * 32
KEYS = [Key("mevis", split, f"v{index}") for split in ("train", "valid_u") for index in range(4)]


def content(store: Warehouse) -> dict[str, list[dict]]:
    """Every row that DuckDB sees, and that `read` gives, in order."""
    with store.connect() as connection:
        seen = {name: connection.table(name).to_arrow_table().to_pylist() for name in TABLES}
    assert not any(row.pop("stale", False) for rows in seen.values() for row in rows)
    read: dict[str, list[dict]] = {name: [] for name in TABLES}
    for stage, tables in STAGES.items():
        current = list(store.current(stage).values())
        for name in tables:
            read[name] += store.read(name, current).to_pylist()
        for commit in current[:2]:
            assert store.read(tables[0], [commit]).num_rows == commit.files[tables[0]].rows
    assert {n: sorted(r, key=str) for n, r in read.items()} == {
        n: sorted(r, key=str) for n, r in seen.items()
    }
    return {name: sorted(rows, key=str) for name, rows in seen.items()}


def publish_all(store: Warehouse, fingerprint: str = "a", miou: float = 0.5) -> None:
    for index, key in enumerate(KEYS):
        store.publish("label", key, fingerprint, labels(miou, key, rows=index % 4))
        store.publish("precompute", key, fingerprint, stage_tables("precompute", key))


def data_paths(store: Warehouse) -> set[str]:
    return {path for stage in STAGES for c in store.current(stage).values() for path in c.paths}


def test_compaction_keeps_content_and_identity(warehouse: Warehouse) -> None:
    publish_all(warehouse)
    warehouse.publish_failure("label", KEYS[0], "b", "no memory left")
    before, commits = content(warehouse), warehouse.current("label")
    done = compact(warehouse)
    assert done.commits == 16 and (done.files_before, done.files_after) == (40, 10)
    assert content(warehouse) == before
    assert content(Warehouse(warehouse.url)) == before
    after = warehouse.current("label")
    for key, commit in commits.items():
        assert after[key].fingerprint == commit.fingerprint
        assert after[key].files["pseudo_labels"].sha256 == commit.files["pseudo_labels"].sha256
    assert list(warehouse.failures("label")) == [KEYS[0]]
    assert warehouse.missing("precompute", dict.fromkeys(KEYS, "a")) == []
    files = paths(warehouse)
    assert compact(warehouse).commits == 0
    assert paths(warehouse) == files
    assert verify(warehouse, 0) == []


def test_what_comes_after_compaction_supersedes_part_of_a_file(warehouse: Warehouse) -> None:
    publish_all(warehouse)
    compact(warehouse)
    warehouse.publish("label", KEYS[3], "b", labels(0.75, KEYS[3]))
    expected = content(warehouse)
    assert sum(row["miou"] == 0.75 for row in expected["pseudo_labels"]) == 1
    assert len(expected["pseudo_labels"]) == 2 * (0 + 1 + 2 + 3) - 3 + 1
    for _ in range(2):
        compact(warehouse)
        assert content(warehouse) == expected
        collect_garbage(warehouse, 0)
        assert content(warehouse) == expected
    assert warehouse.reuse("label", KEYS[3], "a") is None  # superseded, and collected
    assert warehouse.missing("label", dict.fromkeys(KEYS, "a")) == [KEYS[3]]


def test_compaction_respects_the_target_size(warehouse: Warehouse) -> None:
    publish_all(warehouse)
    before, sizes = content(warehouse), [f.size for f in warehouse.storage.files("data")]
    target = 5 * max(sizes)
    compact(warehouse, target)
    collect_garbage(warehouse, 0)
    merged = warehouse.storage.files("data")
    assert content(warehouse) == before
    assert 10 < len(merged) < len(sizes)
    assert max(file.size for file in merged) <= target
    compact(warehouse)
    collect_garbage(warehouse, 0)
    assert content(warehouse) == before
    assert len(paths(warehouse, "data")) == 10


def test_compaction_never_undoes_a_publish(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another configuration is published while the old one is being moved."""
    publish_all(warehouse)
    other, append_pack = Warehouse(warehouse.url), warehouse.log.append_pack

    def published_meanwhile(*arguments: object) -> str:
        other.publish("label", KEYS[1], "0", labels(0.9, KEYS[1]))
        return append_pack(*arguments)

    monkeypatch.setattr(warehouse.log, "append_pack", published_meanwhile)
    compact(warehouse)
    assert other.current("label")[KEYS[1]].fingerprint == "0"
    assert verify(warehouse, 0) == []


def test_two_compactions_at_once_are_harmless(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_all(warehouse)
    before, other = content(warehouse), Warehouse(warehouse.url)
    append_pack = warehouse.log.append_pack

    def both(*arguments: object) -> str:
        monkeypatch.setattr(warehouse.log, "append_pack", append_pack)
        compact(other)
        return append_pack(*arguments)

    monkeypatch.setattr(warehouse.log, "append_pack", both)
    compact(warehouse)
    assert content(Warehouse(warehouse.url)) == before
    collect_garbage(warehouse, 0)
    assert content(Warehouse(warehouse.url)) == before
    assert set(paths(warehouse, "data")) == data_paths(warehouse)


def test_many_record_files_become_one(warehouse: Warehouse) -> None:
    keys = [Key("mevis", "train", f"v{index}") for index in range(20)]
    for key in keys:
        warehouse.publish_failure("label", key, "a", "no memory left")
    compact(warehouse)
    collect_garbage(warehouse, 0)
    assert len(paths(warehouse, "records")) == 1
    assert list(Warehouse(warehouse.url).failures("label")) == sorted(keys)
    assert warehouse.publish("label", keys[0], "a", labels(0.5, keys[0])).generation == 2


def test_collection_leaves_what_is_readable_recent_or_in_flight(warehouse: Warehouse) -> None:
    first = warehouse.publish("label", KEY, "a", labels(0.25))
    connection = warehouse.connect()
    warehouse.publish("label", KEY, "b", labels(0.5))
    warehouse.storage.write(f"data/pseudo_labels/mevis/train/v1-{UUID}.parquet", b"")
    warehouse.storage.write(f"data/pseudo_labels/mevis/train/.{UUID}.tmp", b"")
    assert collect_garbage(warehouse, 3600).files == []
    assert connection.sql("SELECT miou FROM pseudo_labels").fetchall() == [(0.25,)]
    connection.close()
    garbage = collect_garbage(warehouse, 0)
    assert len(garbage.records) == 1 and len(garbage.temporary) == 1 and len(garbage.data) == 2
    assert set(first.paths).isdisjoint(paths(warehouse))
    assert visible_mious(warehouse) == [0.5]
    assert find_garbage(warehouse, 0).files == []


def test_collection_keeps_weights_of_runs(warehouse: Warehouse, tmp_path) -> None:
    for run in ("kept", "abandoned"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "selector.json").write_text(run)
        warehouse.put_folder(f"selectors/{run}", tmp_path / run)
        warehouse.storage.write(f"checkpoints/{run}.pt", b"")
    key = Key(run_id="kept")
    warehouse.publish("train", key, "a", stage_tables("train", key))
    collect_garbage(warehouse, 0)
    left = paths(warehouse, "selectors") + paths(warehouse, "checkpoints")
    assert left == ["selectors/kept/selector.json", "checkpoints/abandoned.pt"]
    assert (warehouse.local_copy("selectors/kept") / "selector.json").read_text() == "kept"
    with pytest.raises(WarehouseError, match="selectors/abandoned is gone"):
        warehouse.local_copy("selectors/abandoned")


def test_collection_takes_half_made_training_sets(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path)
    left, busy = f".left.{UUID}.tmp", f".busy.{UUID}.tmp"
    for file in ("made/tokens.f16", f"{left}/tokens.f16", f"{busy}/tokens.f16"):
        warehouse.storage.write(f"cache/training/{file}", b"")
        os.utime(tmp_path / "cache/training" / file, (0, 0))
    warehouse.storage.write(f"cache/training/{busy}/text.f16", b"")  # it is being written
    assert len(collect_garbage(warehouse, 3600).temporary) == 1
    assert paths(warehouse, "cache") == [
        f"cache/training/{busy}/text.f16",
        f"cache/training/{busy}/tokens.f16",
        "cache/training/made/tokens.f16",
    ]


def test_collection_refuses_what_it_does_not_understand(warehouse: Warehouse) -> None:
    warehouse.publish("label", KEY, "a", labels(0.5))
    with pytest.raises(WarehouseError, match="older_than is -1"):
        collect_garbage(warehouse, -1)
    warehouse.storage.write("records/segment/00/x.json", b"{}")
    with pytest.raises(WarehouseError, match="commits of segment"):
        collect_garbage(warehouse, 0)
    warehouse.storage.delete("records/segment/00/x.json")
    (record,) = [p for p in paths(warehouse, "records") if p.endswith(".json")]
    warehouse.storage.write(record, b"{}")
    with pytest.raises(DamagedError):
        collect_garbage(Warehouse(warehouse.url), 0)
    assert len(paths(warehouse, "data")) == 1


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_operations_keeps_the_latest(warehouse: Warehouse, seed: int) -> None:
    """What is visible is what was published last, through any sequence of everything else."""
    chance, expected = random.Random(seed), {}
    keys = KEYS[:4]
    for step in range(20):
        key, other = chance.choice(keys), Warehouse(warehouse.url)
        action = chance.choice(["publish", "publish", "fail", "compact", "collect", "reuse"])
        if action == "publish":
            other.publish("label", key, f"f{step}", labels(step / 100, key, rows=2))
            expected[key] = step
        elif action == "fail":
            other.publish_failure("label", key, f"f{step}", "failed")
        elif action == "compact":
            compact(other)
        elif action == "collect":
            collect_garbage(other, 0)
        elif action == "reuse" and key in expected:
            assert other.reuse("label", key, f"f{expected[key]}")
        with other.connect() as connection:
            seen = connection.sql("SELECT video_id, split, miou FROM pseudo_labels").fetchall()
        assert sorted((v, s, round(100 * m)) for v, s, m in seen) == sorted(
            (key.video_id, key.split, step) for key, step in expected.items() for _ in range(2)
        )
    collect_garbage(warehouse, 0)
    assert set(paths(warehouse, "data")) == data_paths(warehouse)
    assert verify(warehouse, 0) == []
