"""The flows on a tiny data set: a real Prefect server, worker processes, the embedded models."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from flows.evaluate import evaluate
from flows.label import label
from flows.precompute import precompute
from flows.train import train
from warehouse import TABLES, Warehouse
from warehouse.demo_data import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"train": 4, "valid_u": 2}, seed=1, frames=8)
    return str(root)


def run_all(warehouse: str, data: str) -> str:
    """All flows; returns the run id."""
    for split, detector in (("train", None), ("valid_u", "demo")):
        precompute(warehouse, "demo", data, split, "demo", detector=detector, workers=2)
        label(warehouse, "demo", split, recipe="demo", workers=1)
    run_id = train(warehouse, "demo", recipe="demo")
    evaluate(warehouse, "demo", "valid_u", run_id, workers=1)
    return run_id


@pytest.fixture(scope="module")
def finished(prefect_server: str, tmp_path_factory: pytest.TempPathFactory, data: str) -> Warehouse:
    root = tmp_path_factory.mktemp("finished") / "warehouse"
    run_all(str(root), data)
    return Warehouse(root)


def content(store: Warehouse) -> dict[str, pa.Table]:
    """Every table's rows, in an order that does not depend on who wrote them when."""
    connection = store.connect()
    return {
        name: connection.sql(f"SELECT * FROM {name} ORDER BY ALL").to_arrow_table()
        for name in TABLES
    }


def test_the_flows_fill_every_table(finished: Warehouse) -> None:
    for name, table in content(finished).items():
        assert table.num_rows, name
    scores = finished.connect().sql("SELECT j, f, jf, oracle_jf FROM scores").fetchall()
    assert all(0 <= value <= 1 for row in scores for value in row)
    assert all(jf == pytest.approx((j + f) / 2) for j, f, jf, _ in scores)


def test_a_second_run_makes_nothing(finished: Warehouse, data: str) -> None:
    before = sorted(finished.root.rglob("*"))
    started = time.monotonic()
    run_all(str(finished.root), data)
    assert sorted(finished.root.rglob("*")) == before
    assert time.monotonic() - started < 30  # no worker process was started


def test_a_lost_file_is_made_again(finished: Warehouse, data: str) -> None:
    before = content(finished)
    commit = next(iter(finished.current("precompute", split="train").values()))
    (finished.root / commit.files["tokens"].path).unlink()
    root = str(finished.root)
    summary = precompute(root, "demo", data, "train", recipe="demo", workers=1)
    assert (summary.done, summary.present, summary.failed) == (1, 3, 0)
    assert content(Warehouse(root)) == before


def test_a_killed_run_continues_to_the_same_content(
    finished: Warehouse, data: str, tmp_path: Path
) -> None:
    root = tmp_path / "warehouse"
    command = [sys.executable, "-m", "flows.cli", "precompute", "--warehouse", str(root),
               "--root", data, "--dataset", "demo", "--split", "train", "--recipe", "demo",
               "--workers", "1"]  # fmt: skip
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    commits = root / "commits" / "precompute"
    deadline = time.monotonic() + 120
    while not (commits.is_dir() and any(commits.iterdir())):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = len(Warehouse(root).current("precompute"))
    assert done >= 1
    run_all(str(root), data)
    assert content(Warehouse(root)) == content(finished)
