"""What Prefect, chunks and progress cost: the fan-out over videos against a plain loop.

    python -m benchmarks.orchestration        # or: make bench

500 videos at 0.5 s of (sleeping) work each, published by 2 worker processes: once by
`flows.fanout` with a private server, once by a loop over half of the videos in each of 2
processes. Compared are the seconds from the first video's start to the last one's end. What comes
before is shown beside it: the start of the processes, which import the same modules, and of the
server.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from tasks.stages.outcome import Outcome, publish_each

from benchmarks.warehouse import rows
from flows.fanout import Summary, over_videos
from flows.runtime import prefect_api
from warehouse import TABLES, Key, Warehouse
from warehouse.commits import STAGES

FRAMES = 80


def work(warehouse: str, wanted: dict[Key, str], seconds: float) -> list[Outcome]:
    """Sleep, and publish empty labels, for each video."""

    def tables(key: Key) -> dict[str, Any]:
        time.sleep(seconds)
        return {"pseudo_labels": TABLES["pseudo_labels"].empty_table()}

    return publish_each(Warehouse(warehouse), "label", wanted, tables)


@task(cache_policy=NO_CACHE)
def work_on_videos(warehouse: str, wanted: dict[Key, str], seconds: float) -> list[Outcome]:
    return work(warehouse, wanted, seconds)


@flow
def orchestrated(place: str, videos: int, seconds: float, workers: int) -> Summary:
    store = Warehouse(place)
    return over_videos("label", store, wanted(videos), work_on_videos, seconds, workers)


def plain(place: str, videos: int, seconds: float, workers: int) -> None:
    """The same, by a loop in each of so many processes."""
    context, keys = multiprocessing.get_context("spawn"), wanted(videos)
    parts = [dict(list(keys.items())[index::workers]) for index in range(workers)]
    processes = [context.Process(target=work, args=(place, part, seconds)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def wanted(videos: int) -> dict[Key, str]:
    return {Key("mevis", "train", f"v{index:04}"): "print" for index in range(videos)}


def timed(
    function: Callable[..., Any], videos: int, seconds: float, workers: int
) -> tuple[float, float]:
    """Seconds from the first video's start to the last one's end, and of everything."""
    with tempfile.TemporaryDirectory() as folder:
        store = Warehouse.create(folder)
        for key in wanted(videos):
            tables = {name: TABLES[name].empty_table() for name in STAGES["ingest"]}
            tables["videos"] = rows("videos", key, 1, frame_count=[FRAMES])
            store.publish("ingest", key, "print", tables)
        started = time.perf_counter()
        function(folder, videos, seconds, workers)
        total = time.perf_counter() - started
        assert not store.missing("label", wanted(videos))
        commits = store.current("label").values()
        ends = sorted(datetime.fromisoformat(commit.created_at) for commit in commits)
    return (ends[-1] - ends[0]).total_seconds() + seconds, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=0.5, help="of work for each video")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    arguments = (options.videos, options.seconds, options.workers)
    loop, loop_total = timed(plain, *arguments)
    started = time.perf_counter()
    with prefect_api():
        server = time.perf_counter() - started
        run, run_total = timed(orchestrated, *arguments)
    print(
        f"{options.videos} videos of {options.seconds} s by {options.workers} workers: loop "
        f"{loop:.1f} s, fan-out {run:.1f} s, {run / loop - 1:+.1%}; with the start of processes "
        f"{loop_total:.1f} s and {run_total:.1f} s, with that of a server {server:.1f} s more"
    )


if __name__ == "__main__":
    main()
