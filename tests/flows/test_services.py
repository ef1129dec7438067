"""`make up` and `make down`, and deployed flows on the server and worker they start."""

import base64
import json
import os
import random
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.waiting import PATIENCE_S, wait_for
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

ROOT = Path(__file__).parents[2]
ENDS = {"Completed", "Failed", "Crashed"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Services up on a free port, in a folder of their own; down afterwards."""
    folder = tmp_path_factory.mktemp("services")
    port = str(free_port())
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = clean | {
        "SOLA_SERVICES": str(folder),
        "SOLA_PORT": port,
        "CUDA_VISIBLE_DEVICES": "",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",  # sees our schedule in time
        "DO_NOT_TRACK": "1",
    }
    try:
        services(environment, "up")
        lines = (folder / "env.sh").read_text().splitlines()
        prefect = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        yield environment | prefect | {"PREFECT_HOME": str(folder / "prefect")}
    finally:
        services(environment, "down")
    assert not folder.exists()
    shown = subprocess.check_output(["ps", "-A", "-o", "command="], text=True)
    assert f"--port {port}" not in shown


def free_port() -> int:
    """A port that is free, and not of those that the system hands out: it stays free for us."""
    for port in random.sample(range(15_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("a hundred ports are taken")


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


def refresh(environment: dict[str, str], parameters: dict[str, object]) -> int:
    """Run the deployment as its users do, and wait for its end; gives the command's exit code."""
    given = [f"--param={name}={value}" for name, value in parameters.items()]
    command = ["deployment", "run", "refresh/refresh", "--watch", *given]
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    print(done.stdout, Path(environment["SOLA_SERVICES"], "worker.log").read_text()[-3000:])
    return done.returncode


def refresh_on_schedule(environment: dict[str, str], parameters: dict[str, object]) -> None:
    """Let a schedule start the deployment, a moment from now, and wait for its end."""
    deployment = ask(environment, "deployments/name/refresh/refresh")["id"]
    soon = datetime.now(UTC) + timedelta(seconds=20)
    daily = {"interval": 24 * 3600, "anchor_date": soon.isoformat()}
    schedules = [{"schedule": daily, "parameters": parameters}]
    ask(environment, f"deployments/{deployment}/schedules", schedules)
    wait_for(lambda: set(states(environment).get("refresh demo", [])) & ENDS)


def ask(environment: dict[str, str], path: str, body: object = None) -> Any:
    """What the server's API answers, to a GET, or to a POST of a body."""
    data = None if body is None else json.dumps(body).encode()
    url = f"{environment['PREFECT_API_URL']}/{path}"
    password = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {password}"}
    return json.load(urlopen(Request(url, data, headers)))


def states(environment: dict[str, str]) -> dict[str, list[str | None]]:
    """Of each flow run, by its name: the names of its state, the older run's first."""
    named: dict[str, list[str | None]] = {}
    for run in ask(environment, "flow_runs/filter", {"sort": "START_TIME_ASC"}):
        named.setdefault(run["name"], []).append(run["state_name"])
    return named


def test_refresh_does_what_is_new(environment: dict[str, str], tmp_path: Path) -> None:
    data, store = tmp_path / "data", Warehouse.create(tmp_path / "warehouse")
    parameters: dict[str, object] = {
        "warehouse": store.url,
        "dataset": "demo",
        "root": str(data),
        "recipe": "demo",
        "workers": 1,
    }
    write_dataset(data, {"train": 2, "valid_u": 1}, seed=2, frames=5)
    refresh_on_schedule(environment, parameters)
    first = store.current("precompute")
    assert len(first) == 3
    assert len(store.current("train")) == len(store.current("evaluate")) == 1

    data = tmp_path / "more"
    write_dataset(data, {"train": 3, "valid_u": 1}, seed=2, frames=5)
    assert refresh(environment, parameters | {"root": data}) == 0
    second = store.current("precompute")
    assert len(second) == 4
    assert {key: second[key] for key in first} == first  # nothing was extracted again
    assert len(store.current("train")) == 2

    data = tmp_path / "broken"
    write_dataset(data, {"train": 5, "valid_u": 1}, seed=2, frames=5)
    broken = sorted((data / "train/JPEGImages").iterdir())[-1]
    (broken / "00003.jpg").write_bytes(b"no picture")
    assert refresh(environment, parameters | {"root": data}) != 0
    third = store.current("precompute")
    assert len(third) == 5
    assert {key: third[key] for key in second} == second
    assert len(store.current("train")) == 3
    found = states(environment)
    assert found["refresh demo"] == ["Completed", "Completed", "Failed"]
    assert found["precompute demo/train"] == ["Completed"] * 2 + ["Completed with failures"]
    assert found["evaluate demo/valid_u"] == ["Completed"] * 3


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


def test_the_server_answers_nobody_without_the_password(environment: dict[str, str]) -> None:
    folder, url = Path(environment["SOLA_SERVICES"]), environment["PREFECT_API_URL"]
    assert (folder / "env.sh").stat().st_mode & 0o777 == 0o600
    wrong = {"Authorization": f"Basic {base64.b64encode(b'sola:guess').decode()}"}
    for headers in ({}, wrong):
        request = Request(f"{url}/flows/", b'{"name": "x"}', headers)
        with pytest.raises(HTTPError) as refused:
            urlopen(request)
        assert refused.value.code == 401
    asked = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    with pytest.raises(HTTPError) as refused:  # what a browser asks before it lets a page ask
        urlopen(Request(f"{url}/flows/", headers=asked, method="OPTIONS"))
    assert refused.value.code == 400
    assert "Access-Control-Allow-Origin" not in refused.value.headers


def alone(folder: Path, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`make up` or `make down` in a folder where nothing runs."""
    return subprocess.run(
        [sys.executable, "-m", "flows.services", command],
        cwd=ROOT,
        env=os.environ | {"SOLA_SERVICES": str(folder)} | settings,
        capture_output=True,
        text=True,
    )


def test_a_port_of_another_program_is_left_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = alone(tmp_path / "services", "up", SOLA_PORT=port)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()  # nobody has even asked
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr and "SOLA_PORT" in done.stderr
    assert not (tmp_path / "services").exists()


def test_down_stops_no_other_program_and_removes_what_is_ours(tmp_path: Path) -> None:
    other = subprocess.Popen(
        ["bash", "-c", "exec -a my-own-prefect-worker sleep 1000"], start_new_session=True
    )
    try:
        pids = {
            "server": f"{other.pid} another-boot 1",  # the id is used again
            "worker": str(other.pid),
            "worker-gpu0": "",  # power was lost
            "worker-gpu1": "\0" * 8,
            "worker-gpu2": f"{2**22 + 1} another-boot 1",
        }
        for name, content in pids.items():
            (tmp_path / f"{name}.pid").write_text(content)
        (tmp_path / "worker.log").write_text("log")
        (tmp_path / "notes.txt").write_text("not ours")
        done = alone(tmp_path, "down")
        assert (done.returncode, done.stdout) == (0, "")
        assert other.poll() is None
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
        assert alone(tmp_path / "nothing", "down").returncode == 0
    finally:
        other.kill()
        other.wait()
