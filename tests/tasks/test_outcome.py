"""The loop that all stages share: what is tried again, what is recorded, what stops it."""

import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.stage import publish_each
from tests.warehouse.samples import labels, visible_mious
from warehouse import Key, Warehouse, WarehouseError
from warehouse.commits import Making
from warehouse.verify import verify

KEYS = [Key("mevis", "train", name) for name in ("v1", "v2", "v3")]
WANTED = dict.fromkeys(KEYS, "a")


def unknown(_: Key) -> dict[str, Any]:
    """Nothing is known of what they are made from."""
    return {"inputs": (), "making": Making()}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.stage.PAUSES_S", (0.0, 0.0))


def test_what_the_system_refuses_is_tried_again(tmp_path: Path) -> None:
    store, asked = Warehouse.create(tmp_path), list[Key]()

    def make(key: Key) -> dict[str, pa.Table]:
        asked.append(key)
        if key == KEYS[0] and asked.count(key) < 3:
            raise OSError("stale file handle")
        if key == KEYS[1]:
            raise OSError("input/output error")
        return labels(0.5, key)

    outcomes = publish_each(store, "label", WANTED, make, unknown)
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert [asked.count(key) for key in KEYS] == [3, 3, 1]
    assert store.failures("label")[KEYS[1]].error == "OSError: input/output error"
    assert store.missing("label", WANTED) == [KEYS[1]]


def test_a_full_disk_stops_the_loop_and_the_next_run_heals(tmp_path: Path) -> None:
    store = Warehouse.create(tmp_path)
    publish_each(
        store, "label", dict.fromkeys(KEYS, "before"), lambda key: labels(0.25, key), unknown
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make(key: Key) -> dict[str, pa.Table]:
        if key == KEYS[1]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))  # nothing fits any more
        return labels(0.5, key)

    try:
        with pytest.raises(WarehouseError, match=r"Cannot write.*that it has space"):
            publish_each(store, "label", WANTED, make, unknown)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert visible_mious(store) == [0.5, 0.25, 0.25]
    assert store.missing("label", WANTED) == KEYS[1:]
    publish_each(store, "label", WANTED, lambda key: labels(0.5, key), unknown)
    assert visible_mious(store) == [0.5, 0.5, 0.5]
    assert verify(store) == []
