"""Prefect for the flows: real servers, real worker processes, the real prefect.yaml."""

import importlib
import inspect
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from prefect import flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.schedules import CronSchedule
from prefect.task_runners import ThreadPoolTaskRunner

from flows.chunks import run_chunks
from flows.fanout import Summary, balanced, ended, video_work
from flows.runtime import prefect_api, video_workers
from flows.server import ServerError, check_answers, private_server, without_proxy
from tasks.stage import Outcome
from tests.waiting import wait_for
from tests.warehouse.samples import stage_tables
from warehouse import TABLES, Key, Warehouse

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.fixture(autouse=True)
def importable_sample_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)  # worker processes start with this sys.path


def processes() -> dict[int, int]:
    """Process id -> parent's id of every process that is not a zombie."""
    listing = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,stat="], text=True)
    rows = [line.split() for line in listing.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if state[0] != "Z"}


def test_chunks_are_balanced_by_frames() -> None:
    frames = {
        Key(video_id=name): count for name, count in zip("abcdefgh", [1] * 7 + [9], strict=True)
    }
    chunks = balanced(frames, workers=1)
    assert [key.video_id for key in chunks[0]] == ["h"]  # the longest first, by itself
    assert sorted(key.video_id for chunk in chunks for key in chunk) == list("abcdefgh")
    assert max(len(chunk) for chunk in chunks[1:]) == 4
    many = balanced({Key(video_id=str(number)): 1 for number in range(1000)}, workers=1)
    assert {len(chunk) for chunk in many[:-1]} == {16}


def test_work_is_frames_times_tracks_as_soon_as_there_are_tracks(tmp_path: Path) -> None:
    from sample_flow import FRAMES, ingested

    store = Warehouse.create(tmp_path / "warehouse")
    keys = [Key("demo", "train", name) for name in "ab"]
    scored = [replace(key, run_id="run") for key in keys]
    for key in keys:
        store.publish("ingest", key, "print", ingested(key))
    assert video_work(store, scored) == dict.fromkeys(scored, FRAMES)
    for tracks, key in enumerate(keys):
        made = stage_tables("precompute", key)
        masks = pa.concat_tables([made["masks"]] * FRAMES * tracks or [made["masks"].slice(1)])
        store.publish("precompute", key, "print", made | {"masks": masks})
        assert video_work(store, scored)[scored[0]] == (0 if tracks else FRAMES)
    assert video_work(store, scored) == dict(zip(scored, [0, FRAMES], strict=True))
    assert balanced({}, workers=2) == []


def test_workers_must_be_positive() -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        video_workers(0, uses_gpu=True)


def test_a_configured_api_is_used(prefect_server: str) -> None:
    with prefect_api() as url:
        assert url == prefect_server == os.environ["PREFECT_API_URL"]


def test_a_server_that_cannot_start_shows_its_log() -> None:
    settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "no address"}
    with (
        pytest.raises(ServerError, match=r"ended with code [\s\S]*not parse SQLAlchemy URL"),
        private_server(settings),
    ):
        pass


def test_a_configured_api_that_is_down_is_an_error_at_once(prefect_server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    with pytest.raises(ServerError, match=rf"no Prefect server answers at {dead} .*refused"):
        check_answers(dead)
    check_answers(prefect_server)
    check_answers(prefect_server + "/no-such-path")


def test_hosts_without_a_proxy_are_added_to_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org, 10.0.0.5")
    value = "example.org,10.0.0.5,127.0.0.1,localhost"
    assert without_proxy("10.0.0.5") == {"NO_PROXY": value, "no_proxy": value}


PROFILE = """
active = "mine"
[profiles.mine]
PREFECT_SERVER_DATABASE_CONNECTION_URL = "sqlite+aiosqlite:///{mine}"
PREFECT_SERVER_API_AUTH_STRING = "a:b"
PREFECT_SERVER_API_BASE_PATH = "/x"
"""


def test_neither_a_profile_nor_a_proxy_reaches_the_private_server(tmp_path: Path) -> None:
    (tmp_path / ".prefect").mkdir()
    profile = PROFILE.format(mine=tmp_path / "mine.db")
    (tmp_path / ".prefect/profiles.toml").write_text(profile)
    environment = {name: os.environ[name] for name in os.environ if "PREFECT_" not in name}
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    code = """
from flows.runtime import prefect_api
from prefect import flow, get_client
with prefect_api():
    flow(lambda: 7, name="seven")()
    with get_client(sync_client=True) as client:
        print(len(client.read_flow_runs()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | proxies | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert not (tmp_path / "mine.db").exists()


NOBODY = """
import os, pwd
def getpwuid(user):
    raise KeyError(user)
pwd.getpwuid = getpwuid
import flows
home = os.environ["HOME"]
print(home, os.listdir(home))
"""


def test_a_user_without_a_home_folder_gets_an_empty_one(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    python = [sys.executable, "-c", NOBODY]
    done = subprocess.run(python, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home, content = done.stdout.split()
    assert content == "[]" and Path(home).parent == tmp_path
    assert not Path(home).exists()


def test_nothing_stops_a_run(
    prefect_server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sample_flow import work

    store = Warehouse.create(tmp_path / "warehouse")
    chunks = [{Key(video_id=video): "print"} for video in ("crash", "bad", "forgotten")]

    @flow
    def three() -> dict[Key, Outcome]:
        runner = ThreadPoolTaskRunner(max_workers=2)
        return run_chunks("label", work, store, chunks, ("label", ""), runner, workers=2)

    assert {outcome[:3] for outcome in three().values()} == {
        ("crash", "failed", "RuntimeError: out of memory"),
        ("bad", "failed", "no frames"),
        ("forgotten", "failed", "RuntimeError: the task returned no outcome for it"),
    }
    assert len(store.failures("label")) == 3
    printed = capfd.readouterr().err
    assert "label: 3/3 videos, 3 failed" in printed
    assert "label: bad failed: no frames\n" in printed


def test_failures_show_in_the_state_and_the_caller_goes_on(prefect_server: str) -> None:
    @flow
    def some(failed: int) -> str:
        return ended("result", failed)

    assert some(0) == some(2) == "result"
    names = [some(failed, return_state=True).name for failed in (0, 2)]
    assert names == ["Completed", "Completed with failures"]


def test_a_slow_video_does_not_stall_the_others(prefect_server: str, tmp_path: Path) -> None:
    from sample_flow import sample

    videos = ["slowest", *(f"v{number}" for number in range(9))]
    assert sample(videos, str(tmp_path), workers=2) == Summary(done=10, present=0, failed=0)


def test_only_the_video_that_kills_its_worker_fails(prefect_server: str, tmp_path: Path) -> None:
    from sample_flow import sample

    videos = ["killer", *(f"v{number}" for number in range(9))]
    assert sample(videos, str(tmp_path), workers=2) == Summary(done=9, present=0, failed=1)
    store = Warehouse(tmp_path / "warehouse")
    assert len(store.current("label")) == 9
    ((key, commit),) = store.failures("label").items()
    assert key.video_id == "killer"
    assert "terminated abruptly" in commit.error


def test_workers_and_resuming(
    prefect_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from sample_flow import sample

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    empty = {"pseudo_labels": TABLES["pseudo_labels"].empty_table()}
    present = Key(dataset="demo", split="train", video_id="a")
    Warehouse.create(tmp_path / "warehouse").publish("label", present, "print", empty)

    first = sample(["a", "b", "c", "crash"], str(tmp_path), workers=2)
    assert first == Summary(done=2, present=1, failed=1)
    notes = [note.read_text() for note in tmp_path.iterdir() if note.is_file()]
    assert notes and set(notes) == {f"{os.getpid()} cpu 1 no GPUs"}  # our children, CPU, one thread

    monkeypatch.setattr("flows.fanout.video_workers", lambda *_: pytest.fail("nothing to do"))
    again = sample(["a", "b", "c"], str(tmp_path), workers=2)
    assert again == Summary(done=0, present=3, failed=0)
    assert "INFO" not in capfd.readouterr().err


def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    environment = {name: os.environ[name] for name in os.environ if name != "PREFECT_API_URL"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, HERE / "sample_flow.py", tmp_path], env=environment, cwd=tmp_path
    )
    try:
        notes = tmp_path.glob
        wait_for(lambda: run.poll() is not None or len(list(notes("[0-9]*"))) == 2)
        children = {pid for pid, parent in processes().items() if parent == run.pid}
        assert len(children) >= 3  # the server and two workers
        assert {int(note.name) for note in notes("[0-9]*")} < children
        assert list(notes("sola-prefect-*"))
        os.kill(run.pid, signal.SIGKILL)
        wait_for(lambda: not children & set(processes()))
        assert not list(notes("sola-prefect-*"))
    finally:
        run.kill()
        run.wait()


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_deployments_fit_their_flows(deployment: dict) -> None:
    file, name = deployment["entrypoint"].split(":")
    assert (file, name) == (f"flows/{deployment['name']}.py", deployment["name"])
    deployed = getattr(importlib.import_module(f"flows.{name}"), name)
    inspect.signature(deployed.fn).bind(**deployment["parameters"])  # all that it needs
    deployed.validate_parameters(deployment["parameters"])
    for schedule in deployment.get("schedules", []):
        CronSchedule(**schedule)


def test_deploying_schedules_the_nightly_flow(prefect_server: str) -> None:
    """The user's commands, on a real server. Wrong versions of fastapi or SQLAlchemy fail here."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="sola", type="process"))
        subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        deployed = {d.name: d for d in client.read_deployments()}
        assert set(deployed) == {deployment["name"] for deployment in DEPLOYMENTS}
        (pull,) = deployed["train"].pull_steps
        assert pull == {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
        nightly = {"any_": [deployed["precompute"].id]}
        scheduled = FlowRunFilter(deployment_id=nightly, state={"type": {"any_": ["SCHEDULED"]}})
        wait_for(lambda: client.read_flow_runs(flow_run_filter=scheduled))
