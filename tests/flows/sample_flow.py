"""A flow for test_runtime.py: in a module of its own, because worker processes import it.

As a program it starts a private server and two workers that never finish.
"""

import os
import sys
import time
from pathlib import Path

import torch
from prefect import flow, task

from flows.runtime import Summary, over_videos, prefect_api
from tasks.outcome import Outcome, publish_each
from tasks.worker import device
from warehouse import TABLES, Key, Warehouse


@task
def work(warehouse: str, wanted: dict[Key, str], settings: str) -> list[Outcome]:
    """Publish empty labels and leave a note of where that was done."""
    videos = [key.video_id for key in wanted]
    if "crash" in videos:
        raise RuntimeError("out of memory")
    if "bad" in videos:
        return [Outcome("bad", "failed", "no frames")]
    if "forgotten" in videos:
        return []
    note = Path(settings, str(os.getpid()))
    note.write_text(f"{os.getppid()} {device()} {torch.get_num_threads()}")
    if "endless" in videos[0]:
        time.sleep(600)
    empty = {"pseudo_labels": TABLES["pseudo_labels"].empty_table()}
    return publish_each(Warehouse(warehouse), "label", wanted, lambda _: empty)


@flow
def sample(videos: list[str], folder: str, workers: int) -> Summary:
    store = Warehouse.create(Path(folder, "warehouse"))
    wanted = {Key(dataset="demo", split="train", video_id=video): "print" for video in videos}
    return over_videos("label", store, wanted, work, folder, workers)


if __name__ == "__main__":
    with prefect_api():
        sample(["endless-0", "endless-1"], sys.argv[1], 2)
