"""A warehouse of format 2 on an object store; tests/tasks/test_upgrade.py has all the rest."""

from pathlib import Path

import pytest

from tasks.upgrade.format_2 import upgrade
from tests.format_2.old_warehouse import EXPECTED, unpack
from tests.warehouse.conftest import new_bucket
from warehouse import Warehouse
from warehouse.storage import open_storage
from warehouse.verify import verify


def test_the_upgrade_on_an_object_store(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOLA_CACHE", str(tmp_path / "cache"))
    root, url = unpack(tmp_path / "w"), f"s3://{new_bucket()}/a/prefix"
    there = open_storage(url)
    for file in (file for file in root.rglob("*") if file.is_file()):
        there.write(file.relative_to(root).as_posix(), file.read_bytes())
    assert upgrade(url) > 0
    assert upgrade(url) == 0
    store = Warehouse(url)
    assert there.files("commits") == [] and verify(store, in_flight=0) == []
    connection = store.connect(checked=False)
    assert connection.sql("SELECT * FROM commits WHERE stale").fetchall() == []
    for table in ("tokens", "predictions", "runs"):
        rows = connection.sql(f"SELECT count(*) FROM {table}").fetchall()
        assert rows == [(EXPECTED["rows"][table],)], table
