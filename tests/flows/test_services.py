"""`make up` and `make down`, and deployed flows on the server and worker they start."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from warehouse import Warehouse
from warehouse.demo_data import write_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Services up on a free port, in a folder of their own; down afterwards."""
    folder = tmp_path_factory.mktemp("services")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = clean | {
        "SOLA_SERVICES": str(folder),
        "SOLA_PORT": port,
        "CUDA_VISIBLE_DEVICES": "",
        "DO_NOT_TRACK": "1",
    }
    try:
        services(environment, "up")
        prefect = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        yield environment | prefect | {"PREFECT_HOME": str(folder / "prefect")}
    finally:
        services(environment, "down")
    assert not list(folder.glob("*.pid"))
    shown = subprocess.check_output(["ps", "-A", "-o", "command="], text=True)
    assert f"--port {port}" not in shown


def services(environment: dict[str, str], command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.services", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def refresh(environment: dict[str, str], warehouse: Path, root: Path) -> int:
    """Run the deployment as its users do, and wait for its end; gives the command's exit code."""
    parameters = {
        "warehouse": warehouse, "dataset": "demo", "root": root, "recipe": "demo", "workers": 1,
    }  # fmt: skip
    given = [f"--param={name}={value}" for name, value in parameters.items()]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "prefect",
            "deployment",
            "run",
            "refresh/refresh",
            "--watch",
            *given,
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(done.stdout, Path(environment["SOLA_SERVICES"], "worker.log").read_text()[-3000:])
    return done.returncode


def states(environment: dict[str, str]) -> dict[str, list[str | None]]:
    """Of each flow run, by its name: the names of its state, the older run's first."""
    runs_of = f"{environment['PREFECT_API_URL']}/flow_runs/filter"
    asked = Request(runs_of, b'{"sort": "START_TIME_ASC"}', {"Content-Type": "application/json"})
    named: dict[str, list[str | None]] = {}
    for run in json.load(urlopen(asked)):
        named.setdefault(run["name"], []).append(run["state_name"])
    return named


def test_refresh_does_what_is_new(environment: dict[str, str], tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"train": 2, "valid_u": 1}, seed=2, frames=5)
    assert refresh(environment, tmp_path / "warehouse", tmp_path / "data") == 0
    store = Warehouse(tmp_path / "warehouse")
    before = store.current("precompute")
    assert len(before) == 3
    assert len(store.current("train")) == len(store.current("evaluate")) == 1

    write_dataset(tmp_path / "more", {"train": 4, "valid_u": 1}, seed=2, frames=5)
    broken = sorted((tmp_path / "more/train/JPEGImages").iterdir())[-1]
    (broken / "00003.jpg").write_bytes(b"no picture")
    assert refresh(environment, tmp_path / "warehouse", tmp_path / "more") != 0
    after = Warehouse(tmp_path / "warehouse").current("precompute")
    assert {key: after[key] for key in before} == before  # nothing was extracted again
    assert len(after) == 4
    assert len(store.current("train")) == 2
    found = states(environment)
    assert found["refresh demo"] == ["Completed", "Failed"]
    assert found["precompute demo/train"] == ["Completed", "Completed with failures"]
    assert found["evaluate demo/valid_u"] == ["Completed", "Completed"]


def test_a_second_up_says_what_is_running(environment: dict[str, str]) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "flows.services", "up"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 1
    assert "running already; `make down` stops it" in again.stderr
