"""Commit records, fingerprints, and opening a warehouse."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from warehouse import Key, Warehouse, WarehouseError, fingerprint


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.create(tmp_path / "warehouse")


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(WarehouseError, match=r"is not a warehouse.*Warehouse.create"):
            Warehouse(place)
    (tmp_path / "a file").touch()
    with pytest.raises(WarehouseError, match=r"Cannot write .*run again"):
        Warehouse.create(tmp_path / "a file" / "warehouse")
    (tmp_path / "warehouse.json").write_text('{"format": 99}')
    with pytest.raises(WarehouseError, match="has format 99; this version reads format 1"):
        Warehouse(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_create_in_an_unwritable_place(tmp_path: Path) -> None:
    root = Warehouse.create(tmp_path / "w").root
    root.chmod(0o555)
    with pytest.raises(WarehouseError, match="Cannot write"):
        Warehouse.create(root)


def test_create_is_idempotent(warehouse: Warehouse) -> None:
    before = (warehouse.root / "warehouse.json").stat()
    again = Warehouse.create(warehouse.root)
    assert again.root == warehouse.root
    assert [path.name for path in again.root.iterdir()] == ["warehouse.json"]
    assert (again.root / "warehouse.json").stat().st_ino == before.st_ino


def test_a_damaged_record_is_named(warehouse: Warehouse) -> None:
    warehouse.publish_failure("label", Key("mevis"), "a", "failed")
    (record,) = (warehouse.root / "commits" / "label").iterdir()
    record.write_text(json.dumps({"stage": "label"}))
    with pytest.raises(WarehouseError, match=rf"{record.name} is damaged.*Delete it"):
        Warehouse(warehouse.root).failures("label")


@dataclass(frozen=True)
class Settings:
    tau: float = 0.5


def test_fingerprint_depends_on_content_only() -> None:
    assert fingerprint(a=1, b={"x": 1, "y": 2}) == fingerprint(b={"y": 2, "x": 1}, a=1)
    assert fingerprint(a=Settings()) == fingerprint(a={"tau": 0.5})
    assert len({fingerprint(a=1), fingerprint(a=2), fingerprint(b=1), fingerprint(a="1")}) == 4
    assert len(fingerprint()) == 20
    with pytest.raises(WarehouseError, match="set has no JSON form"):
        fingerprint(a={1, 2})
