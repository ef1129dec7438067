"""Storage that fails: object stores with errors, full and read-only disks, clocks that jump."""

import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.warehouse.conftest import new_bucket
from tests.warehouse.flaky_s3 import FAULTS, flaky_s3
from tests.warehouse.samples import KEY, labels, paths, stage_tables, visible_mious
from warehouse import Key, Warehouse, WarehouseError, commit_log
from warehouse.collect import collect_garbage
from warehouse.compact import compact
from warehouse.storage import Disk, ObjectStore, open_storage
from warehouse.verify import verify

KEYS = [Key("mevis", "train", f"v{index}") for index in range(3)]


def test_errors_of_an_object_store_pass(s3_endpoint: str) -> None:
    with flaky_s3(seed=1) as server:
        server.rate = 0.25
        place = f"s3://{new_bucket()}/w?{server.url_options}"
        warehouse = Warehouse.create(place)
        for index, key in enumerate(KEYS):
            warehouse.publish("precompute", key, "a", stage_tables("precompute", key))
            warehouse.publish("label", key, "a", labels(index / 4, key))
        compact(warehouse)
        collect_garbage(warehouse, 0)
        again = Warehouse(place)
        assert sorted(visible_mious(again)) == [0, 0.25, 0.5]
        with again.connect() as connection:
            assert connection.sql("SELECT sum(miou) FROM pseudo_labels").fetchall() == [(0.75,)]
        server.rate = 0
        assert verify(again, 0) == []
        assert len(paths(again, "data")) == 5
        assert set(server.made) == set(FAULTS)


def test_a_request_that_hangs_is_made_again(s3_endpoint: str) -> None:
    with flaky_s3(seed=1) as server:
        warehouse = Warehouse.create(f"s3://{new_bucket()}/w?{server.url_options}")
        server.stall = 5  # longer than the client waits
        warehouse.publish("label", KEY, "a", labels(0.5))
        assert server.made == ["stall"]
        assert visible_mious(warehouse) == [0.5]


def test_an_object_store_that_stays_down(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last attempt nothing half-done is visible, and the next run heals."""
    monkeypatch.setattr("warehouse.storage.ATTEMPTS", 1)
    with flaky_s3(seed=1) as server:
        warehouse = Warehouse.create(f"s3://{new_bucket()}/w?{server.url_options}")
        warehouse.publish("label", KEY, "a", labels(0.25))
        server.rate = 1
        with pytest.raises((WarehouseError, OSError)):
            warehouse.publish("label", KEY, "b", labels(0.5))
        server.rate = 0
        assert visible_mious(warehouse) == [0.25]
        assert warehouse.missing("label", {KEY: "b"}) == [KEY]
        warehouse.publish("label", KEY, "b", labels(0.5))
        assert visible_mious(warehouse) == [0.5]


def test_urls_that_cannot_be_used(s3_endpoint: str) -> None:
    with pytest.raises(WarehouseError, match=r"is not a warehouse"):
        Warehouse(f"s3://{new_bucket()}/none")
    with pytest.raises(WarehouseError, match=r"Cannot use s4://bucket/w: .*Give a folder, or s3"):
        open_storage("s4://bucket/w")
    with pytest.raises(WarehouseError, match=r"s3://bucket/w: ") as raised:
        ObjectStore("s3://me:secret@bucket/w?no_such_option=1")
    assert "secret" not in str(raised.value).partition(": ")[0]
    with pytest.raises(WarehouseError, match="is not on disk"):
        _ = Warehouse.create(f"s3://{new_bucket()}/w").root


def test_folders_that_are_made_while_they_are_listed(tmp_path: Path) -> None:
    """pyarrow raises when a folder that it has not found is there a moment later."""
    disk, looking_at, over = Disk(tmp_path), [""], threading.Event()
    names = [f"folder{number}" for number in range(200)]

    def make() -> None:
        for name in names:
            while looking_at[0] != name and not over.is_set():
                pass
            (tmp_path / name).mkdir()

    making = threading.Thread(target=make)
    making.start()
    try:
        for name in names:
            looking_at[0] = name
            while not (tmp_path / name).exists():
                assert disk.files(name) == []
    finally:
        over.set()
        making.join()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing fails where a file would become larger, as on a disk that fills up just there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_at_any_point(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "w")
    warehouse.publish("precompute", KEY, "0", stage_tables("precompute", KEY))
    sizes = sorted({file.size for file in warehouse.storage.files("data")})
    outcomes = set()
    for step, limit in enumerate([0, 1, *sizes, sizes[-1] // 2, sizes[-1] + 1]):
        before = warehouse.current("precompute")
        try:
            with largest_file(limit):
                warehouse.publish("precompute", KEY, f"s{step}", stage_tables("precompute", KEY))
            outcomes.add("done")
            assert warehouse.current("precompute")[KEY].fingerprint == f"s{step}"
        except WarehouseError as error:
            outcomes.add("failed")
            assert "that it has space" in str(error)
            assert Warehouse(warehouse.url).current("precompute") == before
        with warehouse.connect() as connection:
            assert connection.sql("SELECT count(*) FROM masks").fetchall() == [(1,)]
        assert not [path for path in paths(warehouse) if path.endswith(".tmp")]
    assert outcomes == {"done", "failed"}
    collect_garbage(warehouse, 0)
    assert verify(warehouse, 0) == [] and len(paths(warehouse, "data")) == 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs a user who may mount")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_and_a_read_only_one(small_disk: Path) -> None:
    warehouse = Warehouse.create(small_disk / "w")
    published = []
    with pytest.raises(WarehouseError, match=r"No space left on device.*that it has space"):
        for index in range(1000):
            key = Key("mevis", "train", f"v{index}")
            warehouse.publish("label", key, "a", labels(0.5, key))
            published.append(key)
    assert sorted(warehouse.current("label")) == sorted(published)
    with pytest.raises(WarehouseError, match="Cannot write"):
        warehouse.publish_failure("label", KEY, "b", "x" * 10_000)
    with warehouse.connect() as connection:
        count = connection.sql("SELECT count(*) FROM pseudo_labels").fetchall()
    assert count == [(len(published),)]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WarehouseError, match="Read-only file system"):
        warehouse.publish("label", KEY, "b", labels(0.75))
    check_read_only(warehouse.url, len(published))


def check_read_only(place: str, published: int) -> None:
    """What is there can be asked and verified."""
    warehouse = Warehouse(place)
    assert len(visible_mious(warehouse)) == published
    with warehouse.connect() as connection:
        count = connection.sql("SELECT count(*) FROM pseudo_labels").fetchall()
    assert count == [(published,)]
    assert verify(warehouse) == []


@pytest.mark.skipif(not os.geteuid(), reason="root may write everywhere")
def test_folders_that_may_not_be_written_to(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "w")
    warehouse.publish("label", KEY, "a", labels(0.25))
    folders = [tmp_path / "w", *(path for path in (tmp_path / "w").rglob("*") if path.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o555)
        with pytest.raises(WarehouseError, match=r"Permission denied.*that you may write to it"):
            warehouse.publish("label", KEY, "b", labels(0.75))
        check_read_only(warehouse.url, 1)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_clocks_do_not_decide_what_is_current(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, year in enumerate((2026, 2060, 1970, 1970)):

        class Clock:
            @staticmethod
            def now(zone: object, year: int = year) -> datetime:
                return datetime(year, 1, 1, tzinfo=UTC)

        monkeypatch.setattr(commit_log, "datetime", Clock)
        warehouse.publish("label", KEY, f"f{step}", labels(step / 4))
        assert visible_mious(warehouse) == [step / 4]
        compact(warehouse)
        assert visible_mious(Warehouse(warehouse.url)) == [step / 4]


def set_age(root: Path, seconds: float) -> None:
    for file in root.rglob("*"):
        if file.is_file():
            modified = file.stat().st_mtime - seconds
            os.utime(file, (modified, modified))


def test_a_clock_that_jumps_while_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files seem a day old, and garbage collection comes before their record."""
    warehouse = Warehouse.create(tmp_path)
    warehouse.publish("label", KEY, "a", labels(0.25))
    append = warehouse.log.append

    def collected_before(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(warehouse.log, "append", append)
        set_age(tmp_path, 86_400)
        assert collect_garbage(Warehouse(tmp_path), 3600).data
        return append(*arguments, **named)

    monkeypatch.setattr(warehouse.log, "append", collected_before)
    commit = warehouse.publish("label", KEY, "b", labels(0.5))
    assert warehouse.intact([commit]) == [commit]
    assert visible_mious(warehouse) == [0.5]
    set_age(tmp_path, -10 * 86_400)  # now everything is from the future
    assert collect_garbage(warehouse, 0).files == []
    assert visible_mious(warehouse) == [0.5]


def test_a_clock_that_jumps_while_compacting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse.create(tmp_path)
    for key in KEYS:
        warehouse.publish("label", key, "a", labels(0.25, key))
    append_pack = warehouse.log.append_pack

    def collected_before(*arguments: object) -> str:
        set_age(tmp_path, 86_400)
        assert collect_garbage(Warehouse(tmp_path), 3600).data
        return append_pack(*arguments)

    monkeypatch.setattr(warehouse.log, "append_pack", collected_before)
    assert compact(warehouse).commits == 0
    assert visible_mious(Warehouse(tmp_path)) == [0.25] * 3
    assert verify(warehouse, 0) == []
