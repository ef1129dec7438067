"""The flows on a Ray cluster of this machine, which is told that it has two GPUs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytest.importorskip("prefect_ray")

from ray.cluster_utils import Cluster  # noqa: E402

from flows.fanout import Summary  # noqa: E402
from flows.precompute import precompute  # noqa: E402
from flows.runtime import precision, video_workers, worker_count  # noqa: E402
from warehouse import TABLES, Warehouse  # noqa: E402
from warehouse.demo_data import write_dataset  # noqa: E402

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of the cluster, to which this process is not connected yet."""
    paths = pytest.MonkeyPatch()
    paths.setenv("PYTHONPATH", str(HERE))  # the machines of the cluster can import sample_flow
    machine = {"num_cpus": 2, "num_gpus": 2, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=machine)
    try:
        yield started.address
    finally:
        paths.undo()
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def configured(cluster: str, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a user sets."""
    monkeypatch.setenv("SOLA_RUNNER", "ray")
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    monkeypatch.syspath_prepend(HERE)


def test_the_warehouse_is_that_of_local_processes(
    configured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "data", {"train": 4}, seed=1, frames=5)
    monkeypatch.setenv("SOLA_DEVICE", "cpu")

    def content(name: str) -> dict[str, list[tuple]]:
        where = str(tmp_path / name)
        summary = precompute(where, "demo", str(tmp_path / "data"), "train", "demo", workers=2)
        assert summary == Summary(done=4, present=0, failed=0)
        connection = Warehouse(where).connect()
        ordered = (f"SELECT * FROM {table} ORDER BY ALL" for table in TABLES)
        return {sql: connection.sql(sql).to_arrow_table() for sql in ordered}

    on_ray = content("ray")
    monkeypatch.setenv("SOLA_RUNNER", "processes")
    assert content("local") == on_ray


def test_each_process_has_a_gpu_where_work_uses_one(configured: None, tmp_path: Path) -> None:
    from sample_flow import sample

    def notes(videos: list[str], stage: str) -> list[list[str]]:
        folder = tmp_path / stage
        folder.mkdir()
        sample(videos, str(folder), workers=2, stage=stage)
        return [note.read_text().split() for note in folder.iterdir() if note.is_file()]

    assert worker_count(uses_gpu=True) == 2  # as many as the cluster has GPUs
    detected = notes(["slowest", "a", "b", "c"], "detect")
    assert os.getpid() not in {int(parent) for parent, *_ in detected}
    assert {device for _, device, *_ in detected} == {"cuda:0", "cuda:1"}
    labelled = notes(["a", "b"], "label")
    assert {tuple(where) for _, *where in labelled} == {("cpu", "1", "no", "GPUs")}


def test_only_the_video_that_kills_its_worker_fails(configured: None, tmp_path: Path) -> None:
    from sample_flow import sample

    videos = ["killer", *(f"v{number}" for number in range(9))]
    assert sample(videos, str(tmp_path), workers=2) == Summary(done=9, present=0, failed=1)
    store = Warehouse(tmp_path / "warehouse")
    assert len(store.current("label")) == 9
    ((key, commit),) = store.failures("label").items()
    assert key.video_id == "killer"
    assert "WorkerCrashedError" in commit.error


def test_ray_chooses_the_gpus(configured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen, kind in (("cpu", "float32"), ("cuda", "bfloat16")):
        monkeypatch.setenv("SOLA_DEVICE", chosen)
        assert (worker_count(uses_gpu=True), precision()) == (2, kind)  # cores, and GPUs
    monkeypatch.setenv("SOLA_DEVICE", "cuda:1")
    with pytest.raises(
        ValueError, match=r"SOLA_DEVICE is 'cuda:1', and Ray .*valid are: cpu, cuda"
    ):
        worker_count(uses_gpu=True)


def test_what_cannot_be_used_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLA_RUNNER", "dask")
    with pytest.raises(ValueError, match="SOLA_RUNNER is 'dask'; valid are: processes, ray"):
        video_workers(1, uses_gpu=True)


def test_a_cluster_of_its_own_listens_on_the_loopback_alone() -> None:
    environment = {name: os.environ[name] for name in os.environ if name != "RAY_ADDRESS"}
    found = subprocess.run(
        [sys.executable, "-c", LISTENING],
        env=environment | {"SOLA_RUNNER": "ray"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    addresses = [ip_address(line.removeprefix("::ffff:")) for line in found.stdout.split()]
    assert addresses and all(address.is_loopback for address in addresses), found.stdout


LISTENING = """
import psutil
from flows.runtime import worker_count
assert worker_count(uses_gpu=True) >= 1
for process in psutil.Process().children(recursive=True):
    for socket in process.net_connections("inet"):
        if socket.status == psutil.CONN_LISTEN:
            print(socket.laddr.ip)
"""
