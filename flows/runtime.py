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

from prefect.context import refresh_global_settings_context
from prefect.events.worker import EventsWorker
from prefect.logging.configuration import setup_logging
from prefect.settings import get_current_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from flows.runner import on_ray
from flows.runner import precision as precision
from flows.server import check_answers, die_with, private_server, without_proxy
from tasks.worker import BINDING, bind, devices

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


class _Pool(ProcessPoolTaskRunner):
    """Prefect gives workers our environment with each task; which device is theirs stays."""

    def _resolve_futures_and_submit(self, *arguments: Any, **named: Any) -> Any:
        given = named["env"].items()
        named["env"] = {name: value for name, value in given if name not in BINDING}
        return super()._resolve_futures_and_submit(*arguments, **named)


def worker_count(uses_gpu: bool, asked: int | None = None) -> int:
    """How many processes to start, of this machine or of the Ray cluster.

    For work that uses GPUs, where there are any, one for each GPU at most; else one for each CPU
    core, or as many as are asked for.

    Raises:
        ValueError: `asked` is below 1, or SOLA_DEVICE or SOLA_RUNNER cannot be used.
    """
    if asked is not None and asked < 1:
        raise ValueError(f"workers is {asked}; give 1 or more")
    if on_ray():
        from flows.ray_workers import slots

        return asked or slots(uses_gpu)
    if uses_gpu and (gpus := len(devices())):
        return min(asked or gpus, gpus)
    return asked or os.cpu_count() or 1


def video_workers(workers: int, uses_gpu: bool) -> TaskRunner[Any]:
    """A task runner of `workers` spawned processes, as many as `worker_count` gives at most.

    Each process has SOLA_DEVICE in its environment: "cuda:k", a GPU of its own, where the work uses
    one and there is one; else "cpu", where it computes with one thread and sees no GPU. It dies
    when this process does. With SOLA_RUNNER=ray the processes are those of a Ray cluster, see
    `flows.ray_workers`.

    Use it inside a flow, as `flows.fanout` does. As the `task_runner` of a flow it would be opened
    again around every task, which is slow.

    Raises:
        ValueError: as `worker_count` does.
    """
    workers = worker_count(uses_gpu, workers)
    if on_ray():
        from flows.ray_workers import RayWorkers

        return RayWorkers(uses_gpu)
    places = (devices() if uses_gpu else []) or ["cpu"]
    started = multiprocessing.get_context("spawn").Value("i", 0)
    return _Pool(
        max_workers=workers,
        initializer=_start_worker,
        initargs=(os.getpid(), places, started),
    )


def kill_workers() -> None:
    """End the worker processes of this machine at once, whatever they are doing."""
    for worker in multiprocessing.active_children():
        worker.kill()


def _start_worker(parent: int, places: list[str], started: "Synchronized[int]") -> None:
    """Runs first in each worker process; `started` counts these processes, to share out GPUs."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops us
    with started.get_lock():
        number = started.value
        started.value += 1
    bind(places[number % len(places)])
