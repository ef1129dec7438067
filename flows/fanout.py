"""Fan-out over videos: what is missing, in chunks of equal work, to worker processes."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from flows.artifacts import show_outcomes
from flows.chunks import run_chunks
from flows.runtime import video_workers, worker_count
from tasks.stage import Outcome, Plan, make_each
from tasks.stages import STAGES
from warehouse import Key, Warehouse, WarehouseError
from warehouse.compact import compact_pile

CHUNK = 16  # videos per task at most: Prefect's server stores about 15 task runs a second
CHUNKS_PER_WORKER = 4  # at least, so that workers end together


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
    """Make what the plan's stage wants and the warehouse does not have; see `over_videos`.

    Failures in `before`, the outcomes of an earlier stage, count.
    """
    missing, work = plan.to_make(), (plan.stage.name, plan.subject)
    failed = _run(plan.stage.name, plan.store, missing, make_videos, work, workers)
    return Summary(
        done=len(missing) - failed,
        present=plan.keys.num_rows - len(missing),
        failed=failed + _failures(before),
    )


@task(cache_policy=NO_CACHE)
def make_videos(
    warehouse: str, wanted: Mapping[Key, str], stage_and_subject: tuple[str, Any]
) -> list[Outcome]:
    """Make and publish a stage's data of each key: the work of a worker process."""
    return _make_videos(warehouse, wanted, *stage_and_subject)


def _make_videos(
    warehouse: str, wanted: Mapping[Key, str], stage: str, subject: Any
) -> list[Outcome]:
    # A function of its own: a task's is sent to workers with all that it refers to, and a stage
    # must be one object in a process.
    return make_each(STAGES[stage], Warehouse(warehouse), wanted, subject)


def over_videos(
    stage: str,
    store: Warehouse,
    wanted: Mapping[Key, str],
    task: Task[..., list[Outcome]],
    settings: Any,
    workers: int | None = None,
) -> Summary:
    """Run a task, as `flows.chunks` has them, on the videos whose data is not there.

    `wanted`: the fingerprint of each. `workers` processes share the videos, see
    `flows.runtime.worker_count`. Small files that have piled up are merged.
    """
    missing = {key: wanted[key] for key in store.missing(stage, wanted)}
    failed = _run(stage, store, missing, task, settings, workers)
    return Summary(done=len(missing) - failed, present=len(wanted) - len(missing), failed=failed)


def _run(
    stage: str,
    store: Warehouse,
    missing: Mapping[Key, str],
    task: Task[..., list[Outcome]],
    settings: Any,
    workers: int | None,
) -> int:
    """Run the task on these videos; how many failed."""
    if not missing:
        return 0
    uses_gpu = STAGES[stage].uses_gpu
    workers = worker_count(uses_gpu, workers)
    work = video_work(store, list(missing))
    parts = balanced(work, workers)
    chunks = [{key: missing[key] for key in keys} for keys in parts]
    runner = video_workers(workers, uses_gpu)
    outcomes = run_chunks(stage, task, store, chunks, settings, runner, workers, work)
    show_outcomes(stage, store, outcomes)
    _compact(store, stage)
    return _failures(outcomes.values())


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
