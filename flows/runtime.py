"""Prefect for the flows: an API to report to, and worker processes.

Prefect schedules and shows. It never holds results: its database may vanish at any time.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import torch
from prefect.context import refresh_global_settings_context
from prefect.events.worker import EventsWorker
from prefect.logging.configuration import setup_logging
from prefect.settings import get_current_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from flows.runner import on_ray
from flows.runner import precision as precision
from flows.server import check_answers, die_with, private_server, without_proxy

# --- the API ----------------------------------------------------------------------------------


@contextmanager
def prefect_api() -> Iterator[str]:
    """Yield the URL of a Prefect API: the configured one, else that of a private server.

    A proxy is not asked for addresses of this machine.

    The server lives as long as this block; it is gone, too, when this process is killed. Its URL
    is the PREFECT_API_URL of child processes and nested blocks. Prefect's log stays off
    the console (errors reach the caller), unless PREFECT_LOGGING_LEVEL is set.

    Raises:
        ServerError: the configured API does not answer, or the private server did not start.
    """
    settings = get_current_settings()
    chosen = settings.to_environment_variables(exclude_unset=True)
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    if "PREFECT_LOGGING_LEVEL" in chosen:
        quiet = {}
    if settings.api.url:
        with _environment(quiet | without_proxy()):
            check_answers(settings.api.url)
            yield settings.api.url
        return
    with private_server({}) as url:
        private = {"PREFECT_API_URL": url, "PREFECT_LOGGING_TO_API_ENABLED": "false"}
        with _environment(quiet | private | without_proxy()):
            assert get_current_settings().api.url == url
            try:
                yield url
            finally:
                EventsWorker.drain_all(timeout=10)  # else it would go on talking to this server


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for this block, and make Prefect read them.

    Unlike Prefect's `temporary_settings` this reaches every thread: one that finds no API URL
    starts a server of its own, and leaves it behind.
    """
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    refresh_global_settings_context()
    setup_logging()
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(before)
        refresh_global_settings_context()
        setup_logging()


# --- worker processes -------------------------------------------------------------------------


class WorkerDied(RuntimeError):
    """The process that ran a task has died; the other processes go on."""


def default_workers() -> int:
    """One process for each GPU, or for each CPU core: of this machine, or of the Ray cluster."""
    if on_ray():
        from flows.ray_workers import slots

        return slots()
    return _gpus() or os.cpu_count() or 1


def video_workers(workers: int) -> TaskRunner[Any]:
    """A task runner of `workers` spawned processes, but not more than there are GPUs, if any.

    Each process has SOLA_DEVICE in its environment: "cuda:k", a GPU of its own, or "cpu", where
    it computes with one thread. (A SOLA_DEVICE that is set already holds for all of them.) It
    dies when this process does. With SOLA_RUNNER=ray the processes are those of a Ray cluster, see
    `flows.ray_workers`.

    Use it inside a flow, as `flows.fanout` does. As the `task_runner` of a flow it would be opened
    again around every task, which is slow.

    Raises:
        ValueError: `workers` is below 1, or SOLA_RUNNER cannot be used.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; give 1 or more")
    if on_ray():
        from flows.ray_workers import RayWorkers

        return RayWorkers()
    gpus = _gpus()
    started = multiprocessing.get_context("spawn").Value("i", 0)
    return ProcessPoolTaskRunner(
        max_workers=min(workers, gpus or workers),
        initializer=_start_worker,
        initargs=(os.getpid(), gpus, started),
    )


def kill_workers() -> None:
    """End the worker processes of this machine at once, whatever they are doing."""
    for worker in multiprocessing.active_children():
        worker.kill()


def bind_to(gpu: int | None) -> None:
    """Let this process compute on this GPU, or else on SOLA_DEVICE or the CPU with one thread."""
    if gpu is None:
        os.environ.setdefault("SOLA_DEVICE", "cpu")
    else:
        os.environ["SOLA_DEVICE"] = f"cuda:{gpu}"
        if torch.cuda.is_available():
            torch.cuda.set_device(gpu)
    if os.environ["SOLA_DEVICE"] == "cpu":
        torch.set_num_threads(1)


def _gpus() -> int:
    """How many GPUs there are to share out."""
    return 0 if "SOLA_DEVICE" in os.environ else torch.cuda.device_count()


def _start_worker(parent: int, gpus: int, started: "Synchronized[int]") -> None:
    """Runs first in each worker process; `started` counts these processes, to share out GPUs."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops us
    with started.get_lock():
        number = started.value
        started.value += 1
    bind_to(number % gpus if gpus else None)
