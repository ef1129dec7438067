"""The flows on a tiny data set: a real Prefect server, worker processes, the embedded models."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flows.baseline import baseline
from flows.cli import app
from flows.evaluate import evaluate
from flows.label import label
from flows.precompute import precompute
from flows.printing import print_demo_report
from flows.train import train
from tests.waiting import wait_for
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
    baseline(warehouse, "demo", "valid_u", "demo", "demo", workers=1)
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


OF_OTHER_COMMANDS = (
    "experiments", "search_references", "search_vectors", "own_masks", "plans", "oracles",
    "object_coverage",
)  # fmt: skip


def test_the_flows_fill_every_table(finished: Warehouse) -> None:
    for name, table in content(finished).items():
        assert bool(table.num_rows) == (name not in OF_OTHER_COMMANDS), name
    scores = finished.connect().sql("SELECT j, f, jf, oracle_jf FROM scores").fetchall()
    assert all(0 <= value <= 1 for row in scores for value in row if value is not None)
    assert all(jf == pytest.approx((j + f) / 2) for j, f, jf, _ in scores)
    assert sum(oracle is None for *_, oracle in scores) * 2 == len(scores)  # of the baseline


def test_the_demo_report_has_the_baseline_beside_the_selector(
    finished: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_id,) = (key.run_id for key in finished.current("train"))
    print_demo_report(finished.url, run_id)
    _, table = capsys.readouterr().out.split("Table 4")
    means = finished.connect().sql("SELECT run_id, 100 * avg(jf) FROM scores GROUP BY run_id")
    for name, jf in means.fetchall():
        (line,) = (line for line in table.splitlines() if name in line)
        assert f"{jf:.2f}" in line


def test_paraphrases_choose_from_the_tracks_that_are_there(
    finished: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_dataset(tmp_path / "data", {"valid_u": 2, "paraphrase": 2}, seed=1, frames=8)
    root = str(shutil.copytree(finished.root, tmp_path / "warehouse"))
    with monkeypatch.context() as patch:
        patch.setattr("flows.fanout.video_workers", lambda *_: pytest.fail("nothing to extract"))
        summary = precompute(root, "demo", str(tmp_path / "data"), "paraphrase", recipe="demo")
    assert (summary.done, summary.present, summary.failed) == (0, 2, 0)
    store = Warehouse(root)
    (track_set,) = {key.track_set for key in store.current("precompute", split="paraphrase")}
    assert "boxes" not in track_set  # the grid's tracks, those of `valid_u` without its boxes
    other = {"split": "paraphrase", "track_set": track_set}
    for table in ("prompts", "tracks", "masks", "tokens"):
        known, copied = (
            store.read(table, store.current("precompute", split=split).values()).to_pylist()
            for split in ("valid_u", "paraphrase")
        )
        assert [row | other for row in known] == copied and copied
    (run_id,) = (key.run_id for key in finished.current("train"))
    evaluate(root, "demo", "paraphrase", run_id, workers=1)
    print_demo_report(root, run_id)
    table, rest = capsys.readouterr().out.split("Table 4")
    numbers = {line.split("│")[1].strip(): line for line in table.splitlines() if "│" in line}
    count = numbers["all"].split("│")[2]
    assert count == numbers["paraphrase"].split("│")[2] == numbers["training words"].split("│")[2]
    assert "N-acc" in table and run_id in rest


def test_the_baseline_command_prints_its_scores_and_what_to_compare(finished: Warehouse) -> None:
    models = ["--recipe", "demo", "--detector", "demo", "--warehouse", finished.url]
    result = CliRunner().invoke(app, ["baseline", "--dataset", "demo", *models])
    assert result.exit_code == 0
    assert "sola compare detector-only-" in result.output


def test_a_second_run_makes_nothing(
    finished: Warehouse, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(finished.root.rglob("*"))
    monkeypatch.setattr("flows.fanout.video_workers", lambda *_: pytest.fail("nothing to do"))
    run_all(str(finished.root), data)
    assert sorted(finished.root.rglob("*")) == before


def test_seeds_train_side_by_side(finished: Warehouse, tmp_path: Path) -> None:
    root = shutil.copytree(finished.root, tmp_path / "warehouse")
    common = ["train", "--dataset", "demo", "--recipe", "demo", "--set", "training.epochs=1",
              "--warehouse", str(root)]  # fmt: skip
    result = CliRunner().invoke(app, [*common, "--seeds", "2", "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert "train: 2/2 runs" in result.output and "over 2 seeds" in result.output
    first, second = [line for line in result.output.splitlines() if line.startswith("demo+")]
    seeds = "SELECT run_id, seed, weights FROM runs"
    rows = {run_id: (seed, weights) for run_id, seed, weights in
            Warehouse(root).connect().sql(seeds).fetchall()}  # fmt: skip
    assert (rows[first][0], rows[second][0]) == (0, 1)
    weights = [(root / rows[run_id][1] / "selector.safetensors").read_bytes()
               for run_id in (first, second)]  # fmt: skip
    assert weights[0] != weights[1]
    alone = CliRunner().invoke(app, [*common, "--seed", "1"])
    assert second in alone.output.splitlines()  # it is there


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
    commits = root / "records" / "precompute"
    wait_for(lambda: commits.is_dir() and any(commits.iterdir()), killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = len(Warehouse(root).current("precompute"))
    assert done >= 1
    run_all(str(root), data)
    assert content(Warehouse(root)) == content(finished)
