"""Prefect for the flows: an API server, worker processes, and fan-out over videos.

    with prefect_api():
        precompute(...)                              # a flow, which somewhere says:
            run_chunks(extract, chunked(videos, 16), video_workers(2), "tracks", config=config)

Prefect schedules and shows; it never holds results. Its database may be thrown away at any time.
"""

import inspect
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prefect import Task
from prefect.context import refresh_global_settings_context
from prefect.events.worker import EventsWorker
from prefect.futures import as_completed
from prefect.logging.configuration import setup_logging
from prefect.settings import get_current_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SERVER_START_TIMEOUT_S = 120.0
PLAIN_LINE_EVERY_S = 30.0
FAILURES_SHOWN = 5

_OFF_THE_INTERNET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


# --- the API server -------------------------------------------------------------------------


@contextmanager
def prefect_api() -> Iterator[str]:
    """Yield the URL of a Prefect API: the configured one, else a private server's.

    The private server is a child process on a free local port with a temporary database (unless
    one is configured); it ends with this block, or when this process dies in whatever way. Its
    URL is in PREFECT_API_URL meanwhile, so child processes and nested blocks use it too.
    Prefect writes only warnings to the console unless PREFECT_LOGGING_LEVEL is set.

    Raises:
        RuntimeError: the private server did not start; the message ends with its log.
    """
    settings = get_current_settings()
    configured = settings.to_environment_variables(exclude_unset=True)
    quiet = {} if "PREFECT_LOGGING_LEVEL" in configured else {_CONSOLE_LEVEL: "WARNING"}
    if settings.api.url:
        with _environment(quiet):
            yield settings.api.url
        return
    with _private_server(configured) as url:
        private = {"PREFECT_API_URL": url, "PREFECT_LOGGING_TO_API_ENABLED": "false"}
        with _environment(quiet | private):
            assert get_current_settings().api.url == url
            try:
                yield url
            finally:
                EventsWorker.drain_all(timeout=10)  # or it would keep talking to this server


_CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for this block, and have Prefect read them again.

    The environment reaches every thread and child process. Prefect's `temporary_settings` does
    not: a thread that finds no API URL starts a server of its own, which then stays behind.
    """
    before = dict(os.environ)
    os.environ.update(values)
    refresh_global_settings_context()
    setup_logging()
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]
        refresh_global_settings_context()
        setup_logging()


@contextmanager
def _private_server(configured: Mapping[str, str]) -> Iterator[str]:
    """Run a Prefect server with the `configured` settings as a child process; yield its URL."""
    home = tempfile.mkdtemp(prefix="sola-prefect-")
    environment = {
        **os.environ,
        **configured,
        **_OFF_THE_INTERNET,
        "PREFECT_HOME": home,  # the place of the database, unless that is configured
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    }
    environment.pop("PREFECT_PROFILE", None)  # already in `configured`; unknown in the new home
    log = Path(home, "server.log")
    # The port is bound here and handed down: nobody can take it before the server listens.
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listener.fileno()), str(os.getpid()), home],
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us: the flow still reports its end
        )
    try:
        _wait_until_healthy(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    what = (
        f"did not answer within {SERVER_START_TIMEOUT_S:.0f} s"
        if server.poll() is None
        else f"ended with exit code {server.returncode}"
    )
    raise RuntimeError(
        f"The private Prefect server {what}. Install the versions in constraints.txt, or start "
        f"`prefect server start` yourself and set PREFECT_API_URL. The end of its log:\n{tail}"
    )


def _serve(listener: int, parent: int, home: str) -> None:
    """Body of the server process: serve the inherited socket while the parent lives."""
    import uvicorn

    _die_with(parent, home)
    config = uvicorn.Config(
        "prefect.server.api.server:create_app", factory=True, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


def _die_with(parent: int, scratch: str | None = None) -> None:
    """End this process (and remove `scratch`) soon after its parent has died, even by kill -9."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- worker processes -----------------------------------------------------------------------

_device: str | None = None  # set once in each worker process


def video_workers(
    workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> ProcessPoolTaskRunner:
    """A task runner of `workers` spawned processes, each with a device of its own.

    With CUDA there are as many processes as GPUs at most, and each is bound to one; without,
    each computes on one CPU thread. They die with this process. `initializer(*initargs)` runs
    once in each of them, when `worker_device` already answers: the place to load a model.

    Raises:
        ValueError: `workers` is below 1.
    """
    import torch

    if workers < 1:
        raise ValueError(f"workers is {workers}; give 1 or more")
    gpus = torch.cuda.device_count()
    return ProcessPoolTaskRunner(
        max_workers=min(workers, gpus) if gpus else workers,
        initializer=_start_worker,
        initargs=(
            os.getpid(),
            gpus,
            multiprocessing.get_context("spawn").Value("i", 0),
            initializer,
            initargs,
        ),
    )


def _start_worker(
    parent: int, gpus: int, started: Any, initializer: Callable[..., None] | None, initargs: Any
) -> None:
    """First thing in a worker process; `started` counts the processes over all of them."""
    global _device
    import torch

    _die_with(parent)
    if gpus:
        with started.get_lock():
            gpu = started.value % gpus
            started.value += 1
        torch.cuda.set_device(gpu)
        _device = f"cuda:{gpu}"
    else:
        torch.set_num_threads(1)
        _device = "cpu"
    if initializer:
        initializer(*initargs)


def worker_device() -> str:
    """The torch device to compute on: this worker's own, elsewhere the first GPU or the CPU."""
    import torch

    return _device or ("cuda:0" if torch.cuda.is_available() else "cpu")


# --- fan-out over videos --------------------------------------------------------------------


class Outcome(NamedTuple):
    """What became of one video."""

    video: str
    status: Literal["done", "failed"]
    message: str = ""


def chunked(items: Sequence[str], size: int) -> list[Sequence[str]]:
    """Split `items` into runs of `size`, the last one perhaps shorter.

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"chunk size is {size}; give 1 or more (16 to 32 suit most runs)")
    return [items[start : start + size] for start in range(0, len(items), size)]


def run_chunks(
    task: Task[..., Any],
    chunks: Sequence[Sequence[str]],
    runner: TaskRunner[Any],
    describe: str,
    **parameters: Any,
) -> list[Outcome]:
    """Run `task(chunk, **parameters)` for every chunk of video ids; return one Outcome a video.

    The task returns an `Outcome` (or a plain tuple of its fields) for each video of its chunk.
    Nothing stops the run: when a task raises or its process dies, its videos count as failed,
    with the error as the message. Progress goes to standard error, and the first failures too.
    Call this inside a flow, so that the task runs belong to it.
    """
    outcomes: dict[str, Outcome] = {}
    bind = inspect.signature(task.fn).bind
    with runner, video_progress(describe, sum(map(len, chunks))) as advance:
        futures = {
            runner.submit(task, dict(bind(chunk, **parameters).arguments)): chunk
            for chunk in chunks
        }
        for future in as_completed(list(futures)):
            chunk, returned, error = futures[future], {}, "the task returned no outcome for it"
            try:
                returned = {outcome[0]: Outcome(*outcome) for outcome in future.result()}
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
            new = {video: returned.get(video, Outcome(video, "failed", error)) for video in chunk}
            outcomes |= new
            advance(len(new), sum(outcome.status == "failed" for outcome in new.values()))
    failed = [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    for outcome in failed[:FAILURES_SHOWN]:
        print(f"{describe}: {outcome.video} failed: {outcome.message}", file=sys.stderr)
    if len(failed) > FAILURES_SHOWN:
        print(f"{describe}: {len(failed) - FAILURES_SHOWN} more failed", file=sys.stderr)
    return [outcomes[video] for chunk in chunks for video in chunk]


@contextmanager
def video_progress(describe: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over `total` videos; yields `advance(videos, how_many_of_them_failed)`.

    Where standard error is no terminal, a plain line every 30 s and one at the end.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos, {task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    last_line = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        bar.add_task(describe, total=total, failed=0)
        (row,) = bar.tasks

        def advance(videos: int, failed: int) -> None:
            nonlocal last_line
            bar.update(row.id, advance=videos, failed=row.fields["failed"] + failed)
            due = row.finished or time.monotonic() - last_line > PLAIN_LINE_EVERY_S
            if due and not console.is_terminal:
                last_line = time.monotonic()
                line = f"{row.completed:.0f}/{total} videos, {row.fields['failed']} failed"
                print(f"{describe}: {line}", file=sys.stderr, flush=True)

        yield advance


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
