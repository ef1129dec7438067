"""Which processes compute where, on machines that are said to have GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner

from flows.runtime import video_workers, worker_count
from tasks.stages import ALL
from tasks.worker import bind, devices
from tests.waiting import wait_for

CORES = 16


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Says how many GPUs there are, and what SOLA_DEVICE is."""

    def of(gpus: int, chosen: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(os, "cpu_count", lambda: CORES)
        monkeypatch.delenv("SOLA_DEVICE", raising=False)
        if chosen is not None:
            monkeypatch.setenv("SOLA_DEVICE", chosen)

    return of


def places(uses_gpu: bool, asked: int | None = None) -> list[str]:
    """Where each worker process computes."""
    runner = video_workers(worker_count(uses_gpu, asked), uses_gpu)
    assert isinstance(runner, ProcessPoolTaskRunner)
    _, given, _ = runner._initargs
    return [given[number % len(given)] for number in range(runner._max_workers)]


def gpus(*numbers: int) -> list[str]:
    return [f"cuda:{number}" for number in numbers]


@pytest.mark.parametrize(
    ("count", "chosen", "default", "one", "sixteen"),
    [
        (0, None, ["cpu"] * CORES, ["cpu"], ["cpu"] * 16),
        (1, None, gpus(0), gpus(0), gpus(0)),
        (4, None, gpus(0, 1, 2, 3), gpus(0), gpus(0, 1, 2, 3)),
        (4, "", gpus(0, 1, 2, 3), gpus(0), gpus(0, 1, 2, 3)),
        (4, "cuda", gpus(0, 1, 2, 3), gpus(0), gpus(0, 1, 2, 3)),
        (1, "cuda", gpus(0), gpus(0), gpus(0)),
        (4, "cuda:1", gpus(1), gpus(1), gpus(1)),
        (2, "cuda:1", gpus(1), gpus(1), gpus(1)),
        (0, "mps", ["mps"], ["mps"], ["mps"]),
        (4, "cpu", ["cpu"] * CORES, ["cpu"], ["cpu"] * 16),
    ],
)
def test_work_for_gpus_has_one_process_on_each(
    machine, count: int, chosen: str | None, default: list, one: list, sixteen: list
) -> None:
    machine(count, chosen)
    assert places(True) == default
    assert places(True, asked=1) == one
    assert places(True, asked=16) == sixteen


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("chosen", [None, "cpu", "cuda", "cuda:1", "mps"])
def test_other_work_follows_the_cores(machine, count: int, chosen: str | None) -> None:
    machine(count, chosen)
    assert places(False) == ["cpu"] * CORES
    assert places(False, asked=3) == ["cpu"] * 3
    assert places(False, asked=40) == ["cpu"] * 40


@pytest.mark.parametrize(
    ("count", "chosen", "valid"),
    [
        (0, "cuda", "cpu, mps"),
        (1, "cuda:1", "cpu, cuda, cuda:0, mps"),
        (2, "gpu", "cpu, cuda, cuda:0, cuda:1, mps"),
    ],
)
def test_a_device_that_is_not_there_is_refused(machine, count: int, chosen: str, valid: str):
    machine(count, chosen)
    with pytest.raises(ValueError, match=rf"'{chosen}'; valid on this machine are: {valid}$"):
        devices()


def test_which_stages_use_a_gpu() -> None:
    """Those whose time goes into networks. Most of `evaluate` is, on a CPU, J&F and a selector."""
    users = {stage.name for stage in ALL if stage.uses_gpu}
    assert users == {"detect", "precompute", "box_tracks", "baseline", "search"}


def test_a_bound_process_has_its_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("SOLA_DEVICE", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    bind("cuda:1")
    assert (chosen, os.environ["CUDA_VISIBLE_DEVICES"]) == (["cuda:1"], "2,3")
    bind("cpu")
    assert (chosen, os.environ["CUDA_VISIBLE_DEVICES"]) == (["cuda:1"], "")


@task
def where_it_runs(folder: str, processes: int) -> tuple[int, str, str]:
    """Of a task that waits until as many processes as there should be have one."""
    Path(folder, str(os.getpid())).touch()
    wait_for(lambda: len(os.listdir(folder)) == processes)
    return os.getpid(), os.environ["SOLA_DEVICE"], os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def test_real_processes_keep_their_device_whatever_the_parents_is(
    prefect_server: str, machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect hands the parent's environment to workers with each task."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")

    @flow
    def run(uses_gpu: bool, processes: int) -> list[tuple[int, str, str]]:
        folder = tmp_path / f"{uses_gpu}-{processes}-{os.environ['SOLA_DEVICE']}"
        folder.mkdir()
        with video_workers(2, uses_gpu) as runner:
            tasks = [
                runner.submit(where_it_runs, {"folder": str(folder), "processes": processes})
                for _ in range(2)
            ]
            return [each.result() for each in tasks]

    machine(2, "cuda")
    assert sorted(ended[1:] for ended in run(True, 2)) == [("cuda:0", "5,6"), ("cuda:1", "5,6")]
    machine(2, "cuda:1")
    assert {ended[1:] for ended in run(True, 1)} == {("cuda:1", "5,6")}
    assert [ended[1:] for ended in run(False, 2)] == [("cpu", "")] * 2


def test_a_command_on_the_cpu_sees_no_gpu() -> None:
    code = "import os, flows; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"
    for chosen, seen in (("cpu", "''"), ("cuda:1", "'5,6'")):
        given = {**os.environ, "SOLA_DEVICE": chosen, "CUDA_VISIBLE_DEVICES": "5,6"}
        python = [sys.executable, "-c", code]
        found = subprocess.run(python, env=given, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == seen
