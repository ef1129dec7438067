"""Prefect for the flows: an API to report to, worker processes, and fan-out over videos.

Prefect schedules and shows. It never holds results: its database may vanish at any time.
"""

import inspect
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

import torch
from prefect import Task
from prefect.context import refresh_global_settings_context
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture, as_completed
from prefect.logging.configuration import setup_logging
from prefect.settings import get_current_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from flows.progress import video_progress
from flows.server import die_with, private_server
from tasks.outcome import Outcome
from warehouse import Key, Warehouse

CHUNK = 16  # videos per task: Prefect's server stores about 15 task runs a second
FAILURES_SHOWN = 5

T = TypeVar("T")


# --- the API ----------------------------------------------------------------------------------


@contextmanager
def prefect_api() -> Iterator[str]:
    """Yield the URL of a Prefect API: the configured one, else that of a private server.

    The server lives as long as this block; it is gone, too, when this process is killed. Its URL
    is the PREFECT_API_URL of child processes and nested blocks. Prefect's log stays off
    the console (errors reach the caller), unless PREFECT_LOGGING_LEVEL is set.

    Raises:
        RuntimeError: the private server did not start; the message ends with its log.
    """
    settings = get_current_settings()
    chosen = settings.to_environment_variables(exclude_unset=True)
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    if "PREFECT_LOGGING_LEVEL" in chosen:
        quiet = {}
    if settings.api.url:
        with _environment(quiet):
            yield settings.api.url
        return
    with private_server(chosen) as url:
        private = {"PREFECT_API_URL": url, "PREFECT_LOGGING_TO_API_ENABLED": "false"}
        with _environment(quiet | private):
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


def video_workers(workers: int) -> ProcessPoolTaskRunner:
    """A task runner of `workers` spawned processes, but not more than there are GPUs, if any.

    Each process has SOLA_DEVICE in its environment: "cuda:k", a GPU of its own, or "cpu", where
    it computes with one thread. (A SOLA_DEVICE that is set already holds for all of them.) It
    dies when this process does.

    Use it inside a flow, as `run_chunks` does. As the `task_runner` of a flow it would be opened
    again around every task, which is slow.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; give 1 or more")
    gpus = _gpus()
    started = multiprocessing.get_context("spawn").Value("i", 0)
    return ProcessPoolTaskRunner(
        max_workers=min(workers, gpus or workers),
        initializer=_start_worker,
        initargs=(os.getpid(), gpus, started),
    )


def _gpus() -> int:
    """How many GPUs there are to share out."""
    return 0 if "SOLA_DEVICE" in os.environ else torch.cuda.device_count()


def _start_worker(parent: int, gpus: int, started: "Synchronized[int]") -> None:
    """Runs first in each worker process; `started` counts these processes, to share out GPUs."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops us
    if gpus:
        with started.get_lock():
            gpu = started.value % gpus
            started.value += 1
        torch.cuda.set_device(gpu)
    device = os.environ.setdefault("SOLA_DEVICE", f"cuda:{gpu}" if gpus else "cpu")
    if device == "cpu":
        torch.set_num_threads(1)


# --- fan-out over videos ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How many videos of a flow were made now, were there already, and failed."""

    done: int
    present: int
    failed: int


def over_videos(
    stage: str,
    store: Warehouse,
    wanted: Mapping[Key, str],
    task: Task[..., list[Outcome]],
    settings: Any,
    workers: int | None = None,
    before: Sequence[Outcome] = (),
) -> Summary:
    """Run a stage's task on the videos whose wanted fingerprint the warehouse does not have.

    `settings` is the task's last argument. `workers` processes share the videos; the default is
    one per GPU, or per CPU core. Failures in `before`, the outcomes of an earlier stage, count.
    """
    missing = store.missing(stage, wanted)
    outcomes: list[Outcome] = []
    if missing:
        workers = workers or _gpus() or os.cpu_count() or 1
        size = min(CHUNK, math.ceil(len(missing) / (4 * workers)))  # 4 each: they end together
        chunks = [{key: wanted[key] for key in keys} for keys in chunked(missing, size)]
        runner = video_workers(workers)
        outcomes = run_chunks(stage, task, str(store.root), chunks, settings, runner)
    return Summary(
        done=len(outcomes) - _failures(outcomes),
        present=len(wanted) - len(missing),
        failed=_failures(outcomes) + _failures(before),
    )


def run_chunks(
    stage: str,
    task: Task[..., list[Outcome]],
    warehouse: str,
    chunks: Sequence[dict[Key, str]],
    settings: Any,
    runner: TaskRunner[Any],
) -> list[Outcome]:
    """Run `task(warehouse, chunk, settings)` for every chunk; return an outcome for every video.

    Nothing stops the run: when a task raises or its process dies, its videos failed, with the
    error as their message. Progress and the first failures go to standard error. Call it inside
    a flow: the task runs belong to the flow run.
    """
    outcomes: dict[Key, Outcome] = {}
    parameters = inspect.signature(task.fn).bind
    with runner, video_progress(stage, sum(map(len, chunks))) as advance:
        futures = {
            runner.submit(task, dict(parameters(warehouse, chunk, settings).arguments)): chunk
            for chunk in chunks
        }
        try:
            for future in as_completed(list(futures)):
                new = _outcomes(futures[future], future)
                outcomes |= new
                advance(len(new), _failures(new.values()))
        except BaseException:  # Ctrl-C, or cancelled: leave at once, what is published stays
            for worker in multiprocessing.active_children():
                worker.kill()
            raise
    failed = [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    for outcome in failed[:FAILURES_SHOWN]:
        print(f"{stage}: {outcome.video_id} failed: {outcome.message}", file=sys.stderr)
    if len(failed) > FAILURES_SHOWN:
        print(f"{stage}: {len(failed) - FAILURES_SHOWN} more failed", file=sys.stderr)
    return [outcomes[key] for chunk in chunks for key in chunk]


def _outcomes(chunk: Mapping[Key, str], future: PrefectFuture[list[Outcome]]) -> dict[Key, Outcome]:
    """The outcome of each video of a chunk whose task has ended, in whatever way."""
    returned, error = {}, "the task returned no outcome for it"
    try:
        returned = {outcome.video_id: outcome for outcome in future.result()}
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    failed = {key: Outcome(key.video_id, "failed", error) for key in chunk}
    return {key: returned.get(key.video_id, failed[key]) for key in chunk}


def _failures(outcomes: Iterable[Outcome]) -> int:
    return sum(outcome.status == "failed" for outcome in outcomes)


def chunked(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split `items` into runs of `size`, the last one perhaps shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]
