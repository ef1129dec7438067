"""What plans read of many commits at once: the same as `Warehouse.current` gives one by one."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.warehouse.samples import labels
from warehouse import Key, Warehouse
from warehouse.collect import collect_garbage
from warehouse.commit_table import RECORD, content_column, key_table, keys_of
from warehouse.compact import compact, compact_pile
from warehouse.planning import commits_named, current_keys, rows_of

KEYS = [Key("mevis", f"train{n % 2}", f"v{n:02}", track_set=f"t{n % 3}") for n in range(12)]


@pytest.fixture(params=[True, False], ids=["columns", "one by one"])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether keys are read from columns or, as few are, one by one."""
    monkeypatch.setattr("warehouse.planning.FEW", 0 if request.param else 1000)
    return bool(request.param)


def test_rows_are_those_of_current(warehouse: Warehouse, columns: bool) -> None:
    """After any sequence of what can happen to a warehouse."""
    chance = random.Random(0)
    for step in range(60):
        key, named = chance.choice(KEYS), chance.choice("abc")
        done = chance.choice(["publish", "publish", "publish", "fail", "withdraw", "tidy"])
        if done == "publish":
            warehouse.publish("label", key, named, labels(chance.random(), key))
        elif done == "fail":
            warehouse.publish_failure("label", key, named, "error")
        elif done == "withdraw" and key in (current := warehouse.current("label")):
            warehouse.withdraw(current[key])
        elif done == "tidy":
            compact(warehouse)
            if chance.random() < 0.5:
                collect_garbage(warehouse, 0)
        if step % 5 == 0:
            require_same(warehouse)
    require_same(warehouse)


def require_same(store: Warehouse) -> None:
    current = store.current("label")
    assert list(keys_of(current_keys(store, "label"))) == list(current)
    some = store.current("label", split="train1")
    assert list(keys_of(current_keys(store, "label", split="train1"))) == list(some)
    rows = rows_of(store, "label", key_table(KEYS), ["pseudo_labels"])
    found = [current.get(key) for key in KEYS]
    assert rows["fingerprint"].to_pylist() == [c and c.fingerprint for c in found]
    named = rows[content_column("pseudo_labels")].to_pylist()
    assert named == [c and c.content("pseudo_labels") for c in found]
    for name in "abc":
        fits = {key for key, commit in current.items() if commit.fingerprint == name}
        missing = store.missing("label", dict.fromkeys(KEYS, name))
        assert missing == [key for key in KEYS if key not in fits]
        assert set(commits_named(store, "label", [name])) == ({name} if fits else set())


def test_data_without_a_file_is_missing(warehouse: Warehouse, columns: bool) -> None:
    for key in KEYS:
        warehouse.publish("label", key, "a", labels(0.5, key))
    warehouse.storage.delete(warehouse.current("label")[KEYS[3]].paths[0])
    assert warehouse.missing("label", dict.fromkeys(KEYS, "a")) == [KEYS[3]]


@pytest.mark.parametrize("change", ["without", "another"])
def test_packs_without_our_columns_are_read_by_their_records(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Those that lack them, and those of a newer version that has more."""
    write = pq.write_table

    def other(table: pa.Table, *arguments: object, **options: object) -> None:
        if change == "without":
            table = table.select([name for name, _ in RECORD])
        else:
            table = table.append_column("language", pa.nulls(table.num_rows, pa.string()))
        write(table, *arguments, **options)

    for key in KEYS:
        warehouse.publish("label", key, "a", labels(0.5, key))
    monkeypatch.setattr("warehouse.packs.pq.write_table", other)
    compact(warehouse)
    collect_garbage(warehouse, 0)
    monkeypatch.setattr("warehouse.planning.FEW", 0)
    require_same(warehouse)


def test_small_files_are_merged_when_they_have_piled_up(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.compact.PILE", 3)
    for key in KEYS[:2]:
        warehouse.publish("label", key, "a", labels(0.5, key))
    assert compact_pile(warehouse, "label") is None
    warehouse.publish("label", KEYS[2], "a", labels(0.5, KEYS[2]))
    done = compact_pile(warehouse, "label")
    assert done is not None and done.commits > 1
    assert compact_pile(warehouse, "label") is None  # the small ones are there until gc
    assert warehouse.missing("label", dict.fromkeys(KEYS[:3], "a")) == []
