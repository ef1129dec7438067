"""Fan-out over videos: chunks of them to worker processes, whatever happens to any of them.

A chunk's task is called as `task(warehouse, {key: fingerprint, ...}, settings)` and gives an
outcome for each of its videos.
"""

import inspect
import math
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Completed, Failed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from flows.artifacts import progress_shown, show_outcomes
from flows.progress import video_progress
from flows.runtime import WorkerDied, default_workers, kill_workers, video_workers
from tasks.stage import Outcome, Plan
from tasks.stages import make_videos
from warehouse import Key, Warehouse, WarehouseError
from warehouse.compact import compact_pile

CHUNK = 16  # videos per task at most: Prefect's server stores about 15 task runs a second
CHUNKS_PER_WORKER = 4  # at least, so that workers end together
FAILURES_SHOWN = 5

Chunk = Mapping[Key, str]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How many videos of a flow were made now, were there already, and failed."""

    done: int
    present: int
    failed: int

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(
            done=self.done + other.done,
            present=self.present + other.present,
            failed=self.failed + other.failed,
        )


def carry_out(plan: Plan, workers: int | None = None, before: Sequence[Outcome] = ()) -> Summary:
    """Make what the plan's stage wants and the warehouse does not have.

    `workers` processes share the videos; the default is one per GPU, or per CPU core. Failures in
    `before`, the outcomes of an earlier stage, count. Small files that have piled up are merged.
    """
    store, stage, missing = plan.store, plan.stage.name, plan.to_make()
    outcomes: dict[Key, Outcome] = {}
    if missing:
        workers = workers or default_workers()
        chunks = [
            {key: missing[key] for key in keys}
            for keys in balanced(video_work(store, list(missing)), workers)
        ]
        work, runner = (stage, plan.subject), video_workers(workers)
        outcomes = run_chunks(stage, make_videos, store, chunks, work, runner, workers)
        show_outcomes(stage, store, outcomes)
        _compact(store, stage)
    failed = _failures(outcomes.values())
    return Summary(
        done=len(outcomes) - failed,
        present=plan.keys.num_rows - len(missing),
        failed=failed + _failures(before),
    )


def _compact(store: Warehouse, stage: str) -> None:
    """Merge the stage's small files when they have piled up; that is no reason to fail."""
    try:
        if done := compact_pile(store, stage):
            files = f"from {done.files_before} to {done.files_after} data files"
            print(f"{stage}: compacted {done.commits} commits {files}", file=sys.stderr)
    except WarehouseError as error:
        print(f"{stage}: not compacted: {error}", file=sys.stderr)


def ended(result: object, failed: int) -> Any:
    """What a flow returns: its result, in a state that shows that videos failed.

    A deployed run ends as Failed. What called a flow itself (the command line, another flow) gets
    the result all the same.
    """
    if not failed:
        return result
    message = f"{failed} videos failed, the others are done; `sola status` names them"
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None, "a flow calls this"
    if context.flow_run.deployment_id:
        return Failed(message=message, data=result)
    return Completed(name="Completed with failures", message=message, data=result)


def run_chunks(
    stage: str,
    task: Task[..., list[Outcome]],
    store: Warehouse,
    chunks: Sequence[Chunk],
    settings: Any,
    runner: TaskRunner[Any],
    workers: int,
) -> dict[Key, Outcome]:
    """Run the task on every chunk; return an outcome for every video.

    Nothing stops the run. When a task raises, its videos failed with that error. When a worker
    dies (killed, out of memory), what it may have been running is run again at the end, one video
    alone, so that only the video that kills its worker fails. (With a process pool, that is all
    that was running: the pool does not say who died, and is started again.) Failures are
    recorded in the warehouse; progress and the first failures go to standard error. Call it
    inside a flow: the task runs belong to the flow run.
    """
    outcomes: dict[Key, Outcome] = {}
    waiting, alone = deque(chunks), deque[Chunk]()
    pool = isinstance(runner, ProcessPoolTaskRunner)
    at_once, alone_at_once = (2 * workers, 1) if pool else (workers, workers)
    arguments = inspect.signature(task.fn).bind
    total = sum(map(len, chunks))
    with video_progress(stage, total) as advance, progress_shown(stage, total) as show:

        def ended(new: dict[Key, Outcome]) -> None:
            outcomes.update(new)
            advance(len(new), _failures(new.values()))
            show(len(new), _failures(new.values()))

        while waiting or alone:
            queue, most = (waiting, at_once) if waiting else (alone, alone_at_once)
            running: dict[PrefectFuture[list[Outcome]], Chunk] = {}
            with runner:
                try:
                    while queue or running:
                        while queue and len(running) < most:
                            bound = arguments(store.url, queue[0], settings).arguments
                            future = runner.submit(task, dict(bound))  # may find a broken pool
                            running[future] = queue.popleft()
                        future = next(as_completed(list(running)))
                        try:
                            new = _outcomes(running[future], future)
                        except WorkerDied as error:
                            if queue is alone:
                                new = _all_failed(running[future], error)
                            else:
                                new = {}
                                alone += _one_by_one([running[future]])
                        del running[future]
                        ended(new)
                except BrokenProcessPool as error:
                    kill_workers()  # one may wait for ever for a lock that the dead one held
                    if queue is alone and running:
                        ended(_all_failed(running.popitem()[1], error))
                    alone += _one_by_one(running.values())
                except BaseException:  # Ctrl-C, or cancelled: leave; what is published stays
                    kill_workers()
                    raise
    failed = {key: outcome for key, outcome in outcomes.items() if outcome.status == "failed"}
    _record(stage, store, {key: print for chunk in chunks for key, print in chunk.items()}, failed)
    return outcomes


def _outcomes(chunk: Chunk, future: PrefectFuture[list[Outcome]]) -> dict[Key, Outcome]:
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


def _one_by_one(chunks: Iterable[Chunk]) -> list[Chunk]:
    return [{key: chunk[key]} for chunk in chunks for key in chunk]


def _all_failed(chunk: Chunk, error: Exception) -> dict[Key, Outcome]:
    message = f"{type(error).__name__}: {error}"
    return {key: Outcome(key.video_id, "failed", message) for key in chunk}


def _record(stage: str, store: Warehouse, wanted: Chunk, failed: Mapping[Key, Outcome]) -> None:
    """Put the failures that no worker could record into the warehouse; show the first ones."""
    recorded = store.failures(stage)
    for number, (key, outcome) in enumerate(failed.items()):
        if key not in recorded or recorded[key].fingerprint != wanted[key]:
            store.publish_failure(stage, key, wanted[key], outcome.message)
        if number < FAILURES_SHOWN:
            print(f"{stage}: {outcome.video_id} failed: {outcome.message}", file=sys.stderr)
    if len(failed) > FAILURES_SHOWN:
        print(f"{stage}: {len(failed) - FAILURES_SHOWN} more failed", file=sys.stderr)


def _failures(outcomes: Iterable[Outcome]) -> int:
    return sum(outcome.status == "failed" for outcome in outcomes)


def video_work(store: Warehouse, keys: Sequence[Key]) -> dict[Key, int]:
    """The work on each video: its frames times its tracks, or those of an earlier extraction.

    While some video was never extracted, just its frames.
    """
    tracks = [key.of(run_id="") for key in keys]
    tracked = store.current("precompute", set(tracks))
    if tracked.keys() == set(tracks):
        work = [tracked[key].files["masks"].rows for key in tracks]
    else:
        videos = [key.of(run_id="", track_set="") for key in keys]
        ingested = store.current("ingest", set(videos))
        commits = [ingested[video] for video in videos]
        work = store.read("videos", commits)["frame_count"].to_pylist()
    return dict(zip(keys, work, strict=True))


def balanced(work: Mapping[Key, int], workers: int) -> list[list[Key]]:
    """Chunks of about equal work for so many workers, the longest videos first."""
    limit = math.ceil(sum(work.values()) / (CHUNKS_PER_WORKER * workers))
    chunks: list[list[Key]] = []
    room = 0
    for key in sorted(work, key=lambda key: (-work[key], key)):
        if not chunks or work[key] > room or len(chunks[-1]) == CHUNK:
            chunks.append([])
            room = limit
        chunks[-1].append(key)
        room -= work[key]
    return chunks
