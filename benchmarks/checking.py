"""What it costs to check files when they are opened, against not checking, side by side.

    python -m benchmarks.checking

The training set: tokens, labels and expressions of 8 videos (40 tracks of 60 frames, D = 256), as
`sola train` reads them. SQL: QUERIES over 16 videos of MeViS's sizes, as published and compacted,
each in a connection of its own, so that every one pays for the check. Beside them the speeds of
SHA-256, which the records have, and of CRC-32. CPU seconds of one thread, best of three, files
cached by the system.
"""

import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.training_warehouse import write_videos
from benchmarks.warehouse import publish_video
from warehouse import Key, Warehouse
from warehouse.collect import collect_garbage
from warehouse.compact import compact
from warehouse.data_files import read_checked
from warehouse.queries import load_query

REPEATS, SQL_VIDEOS, EXPRESSIONS = 3, 16, 14
QUERIES = ("calibration", "token_similarity_by_iou", "scores_summary", "tracks_per_video")
TRAINING = {"ingest": "expressions", "precompute": "tokens", "label": "pseudo_labels"}


def main() -> None:
    os.fsync = lambda _: None  # what is generated need not survive a power failure
    content = os.urandom(64 << 20)
    for name, function in (("SHA-256", hashlib.sha256), ("CRC-32", zlib.crc32)):
        seconds = min(cpu(lambda f=function: f(content)) for _ in range(REPEATS))
        print(f"{name}: {len(content) / seconds / 1e9:.1f} GB/s")
    with tempfile.TemporaryDirectory() as folder:
        store = write_videos(Path(folder, "training"))
        show("training set", lambda checked: read_training(store.url, checked))
    with tempfile.TemporaryDirectory() as folder:
        store = publish(Path(folder, "sql"))
        for state in ("as published", "compacted"):
            show(f"SQL, {state}", lambda checked: ask(store, checked))
            compact(store)
            collect_garbage(store, 0)


def show(name: str, seconds: Callable[[bool], float]) -> None:
    """Both in turn, so that a slow moment of the machine meets both."""
    pairs = [(seconds(True), seconds(False)) for _ in range(REPEATS)]
    checked, unchecked = (min(column) for column in zip(*pairs, strict=True))
    print(
        f"{name}: {checked:.3f} s checked, {unchecked:.3f} s unchecked, "
        f"{100 * (checked / unchecked - 1):+.0f} %"
    )


def cpu(work: Callable[[], object]) -> float:
    """The CPU seconds that `work` takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def read_training(place: str, checked: bool) -> float:
    """The rows of every video, one video after another; tokens as numbers."""

    def read() -> None:
        for stage, table in TRAINING.items():
            for commit in store.current(stage).values():
                rows = store.read(table, [commit])
                if table == "tokens":
                    rows["token"].combine_chunks().flatten().to_numpy().astype(np.float32)

    store = Warehouse(place)
    reader = read_checked if checked else lambda storage, file: storage.read(file.path)
    with patch("warehouse.data_files.read_checked", reader):
        return cpu(read)


def publish(folder: Path) -> Warehouse:
    store, chance = Warehouse.create(folder), np.random.default_rng(0)
    for index in range(SQL_VIDEOS):
        key = Key("mevis", "train", f"video{index:06}")
        publish_video(store, key, EXPRESSIONS, chance)
    return store


def ask(store: Warehouse, checked: bool) -> float:
    """Each of QUERIES, in a new connection, which is made before the clock starts."""
    seconds = 0.0
    for name in QUERIES:
        with store.connect(checked=checked) as connection:
            connection.execute("SET threads = 1")
            sql = load_query(name)
            seconds += cpu(lambda c=connection, q=sql: c.sql(q).to_arrow_table())
    return seconds


if __name__ == "__main__":
    main()
