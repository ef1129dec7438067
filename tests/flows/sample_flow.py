"""A flow for test_runtime.py: in a module of its own, because worker processes import it.

As a program it starts a private server and two workers that never finish.
"""

import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import torch
from prefect import flow, task

from flows.fanout import Summary, over_videos
from flows.runtime import prefect_api
from tasks.stage import Outcome, publish_each
from tasks.stages import STAGES
from tasks.worker import device
from warehouse import TABLES, Key, Warehouse
from warehouse.commits import Making

FRAMES = 8


@task
def work(warehouse: str, wanted: dict[Key, str], settings: tuple[str, str]) -> list[Outcome]:
    """Publish empty tables of a stage and leave a note of where that was done."""
    videos = [key.video_id for key in wanted]
    if "crash" in videos:
        raise RuntimeError("out of memory")
    if "bad" in videos:
        return [Outcome("bad", "failed", "no frames")]
    if "forgotten" in videos:
        return []
    if "killer" in videos:
        os.kill(os.getpid(), signal.SIGKILL)
    stage, folder = settings
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    note = f"{os.getppid()} {device()} {torch.get_num_threads()} {seen or 'no'} GPUs"
    Path(folder, str(os.getpid())).write_text(note)
    if "endless" in videos[0]:
        signal.pause()
    if "slowest" in videos:
        wait_for_the_others(Warehouse(warehouse), stage)
    empty = {name: TABLES[name].empty_table() for name in STAGES[stage].publishes}
    return publish_each(Warehouse(warehouse), stage, wanted, lambda _: empty, of_nothing)


def of_nothing(_: Key) -> dict:
    """Provenance of tables that are made from nothing."""
    return {"inputs": (), "making": Making()}


def wait_for_the_others(store: Warehouse, stage: str) -> None:
    deadline = time.monotonic() + 600
    while len(store.current(stage)) < len(store.current("ingest")) - 1:
        if time.monotonic() > deadline:
            raise TimeoutError("the others do not get on")
        time.sleep(0.2)


def ingested(key: Key) -> dict[str, pa.Table]:
    """The tables of an ingested video of FRAMES frames."""
    video = asdict(key) | {
        "path": "",
        "frames": [f"{t:05d}" for t in range(FRAMES)],
        "frame_count": FRAMES,
        "height": 90,
        "width": 120,
        "content_hash": "",
    }
    video = {name: video[name] for name in TABLES["videos"].names}
    return {
        "videos": pa.Table.from_pylist([video], schema=TABLES["videos"]),
        "expressions": TABLES["expressions"].empty_table(),
        "ground_truth": TABLES["ground_truth"].empty_table(),
    }


@flow
def sample(videos: list[str], folder: str, workers: int, stage: str = "label") -> Summary:
    store = Warehouse.create(Path(folder, "warehouse"))
    wanted = {Key(dataset="demo", split="train", video_id=video): "print" for video in videos}
    for key in wanted:
        store.publish("ingest", key, "print", ingested(key))
    return over_videos(stage, store, wanted, work, (stage, folder), workers)


if __name__ == "__main__":
    with prefect_api():
        sample(["endless-0", "endless-1"], sys.argv[1], 2)
