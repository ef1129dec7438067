"""Chunks of videos in worker processes, whatever happens to any of them.

A chunk's task is called as `task(warehouse, {key: fingerprint, ...}, settings)` and gives an
outcome for each of its videos.
"""

import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from flows.artifacts import progress_shown
from flows.progress import video_progress
from flows.runtime import WorkerDied, kill_workers
from tasks.costs import Running
from tasks.stage import Outcome
from warehouse import Key, Warehouse

FAILURES_SHOWN = 5

Chunk = Mapping[Key, str]
Future = PrefectFuture[list[Outcome]]


def run_chunks(
    stage: str,
    task: Task[..., list[Outcome]],
    store: Warehouse,
    chunks: Sequence[Chunk],
    settings: Any,
    runner: TaskRunner[Any],
    workers: int,
    work: Mapping[Key, float] | None = None,
) -> dict[Key, Outcome]:
    """Run the task on every chunk; return an outcome for every video.

    `work`: of each video, to tell from what is done what the rest will cost.

    Nothing stops the run. When a task raises, its videos failed with that error. When a worker
    dies (killed, out of memory), what it may have been running is run again at the end, one video
    alone, so that only the video that kills its worker fails. (With a process pool, that is all
    that was running: the pool does not say who died, and is started again.) Failures are
    recorded in the warehouse; progress and the first failures go to standard error. Call it
    inside a flow: the task runs belong to the flow run.
    """
    total, running = sum(map(len, chunks)), Running(work or {})
    arguments = inspect.signature(task.fn).bind
    pool = isinstance(runner, ProcessPoolTaskRunner)
    with video_progress(stage, total) as advance, progress_shown(stage, total) as show:

        def submit(chunk: Chunk) -> Future:
            return runner.submit(task, dict(arguments(store.url, chunk, settings).arguments))

        def on_ended(ended: Mapping[Key, Outcome]) -> None:
            failed = sum(outcome.status == "failed" for outcome in ended.values())
            running.add((key, outcome.seconds) for key, outcome in ended.items())
            advance(len(ended), failed, running.in_words(), running.seconds_left(workers))
            show(len(ended), failed, running.in_words())

        run = _Chunks(chunks, submit, on_ended)
        while run.waiting or run.alone:
            with runner:
                if run.waiting:
                    run.run_waiting(2 * workers if pool else workers)
                else:
                    run.run_alone(1 if pool else workers)
    wanted = {key: fingerprint for chunk in chunks for key, fingerprint in chunk.items()}
    _record(stage, store, wanted, run.outcomes)
    return run.outcomes


class _Chunks:
    """The chunks that wait, those that run, and the outcomes of the videos that are done.

    waiting: as they were planned.
    alone: single videos that a worker which died may have been running.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        submit: Callable[[Chunk], Future],
        on_ended: Callable[[Mapping[Key, Outcome]], None],
    ) -> None:
        self.waiting, self.alone = deque(chunks), deque[Chunk]()
        self.outcomes: dict[Key, Outcome] = {}
        self._running: dict[Future, Chunk] = {}
        self._submit, self._on_ended = submit, on_ended

    def run_waiting(self, at_once: int) -> None:
        """Run the chunks that wait, until they have ended or the process pool has broken.

        What a worker that died may have been running will be run alone.
        """

        def died(chunk: Chunk, _: Exception) -> None:
            self.alone += _one_by_one(chunk)

        try:
            self._run(self.waiting, at_once, died)
        except BrokenProcessPool:
            self._run_alone_later()

    def run_alone(self, at_once: int) -> None:
        """Run the single videos likewise; one whose worker dies has failed."""

        def died(video: Chunk, error: Exception) -> None:
            self._end(_all_failed(video, error))

        try:
            self._run(self.alone, at_once, died)
        except BrokenProcessPool as error:
            if self._running:
                died(self._running.popitem()[1], error)
            self._run_alone_later()

    def _run(
        self, queue: deque[Chunk], at_once: int, died: Callable[[Chunk, Exception], None]
    ) -> None:
        try:
            while queue or self._running:
                while queue and len(self._running) < at_once:
                    future = self._submit(queue[0])  # may find a broken pool
                    self._running[future] = queue.popleft()
                future = next(as_completed(list(self._running)))
                try:
                    ended = _outcomes(self._running[future], future)
                except WorkerDied as error:
                    died(self._running.pop(future), error)
                else:
                    del self._running[future]
                    self._end(ended)
        except BaseException:  # a broken pool, Ctrl-C, or cancelled; what is published stays
            kill_workers()  # one may wait for ever for a lock that a dead one held
            raise

    def _run_alone_later(self) -> None:
        for chunk in self._running.values():
            self.alone += _one_by_one(chunk)
        self._running.clear()

    def _end(self, ended: dict[Key, Outcome]) -> None:
        self.outcomes |= ended
        self._on_ended(ended)


def _outcomes(chunk: Chunk, future: Future) -> dict[Key, Outcome]:
    """The outcome of each video of a chunk whose task has ended.

    Raises:
        BrokenProcessPool: a worker process died; maybe this one.
        WorkerDied: this one's did.
    """
    failed = _all_failed(chunk, RuntimeError("the task returned no outcome for it"))
    try:
        returned = {outcome.video_id: outcome for outcome in future.result()}
    except (BrokenProcessPool, WorkerDied):
        raise
    except Exception as error:
        return _all_failed(chunk, error)
    return {key: returned.get(key.video_id, failed[key]) for key in chunk}


def _one_by_one(chunk: Chunk) -> Iterable[Chunk]:
    return ({key: fingerprint} for key, fingerprint in chunk.items())


def _all_failed(chunk: Chunk, error: Exception) -> dict[Key, Outcome]:
    message = f"{type(error).__name__}: {error}"
    return {key: Outcome(key.video_id, "failed", message) for key in chunk}


def _record(stage: str, store: Warehouse, wanted: Chunk, outcomes: Mapping[Key, Outcome]) -> None:
    """Put the failures that no worker could record into the warehouse; show the first ones."""
    failed = {key: outcome for key, outcome in outcomes.items() if outcome.status == "failed"}
    recorded = store.failures(stage)
    for number, (key, outcome) in enumerate(failed.items()):
        if key not in recorded or recorded[key].fingerprint != wanted[key]:
            store.publish_failure(stage, key, wanted[key], outcome.message)
        if number < FAILURES_SHOWN:
            print(f"{stage}: {outcome.video_id} failed: {outcome.message}", file=sys.stderr)
    if len(failed) > FAILURES_SHOWN:
        print(f"{stage}: {len(failed) - FAILURES_SHOWN} more failed", file=sys.stderr)
