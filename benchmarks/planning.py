"""Planning at scale: seeing that nothing is missing, as a flow does first.

    python -m benchmarks.planning                       # 10,000 and 100,000 videos
    python -m benchmarks.planning --videos 1000000 --packed     # needs 12 GB of memory

From one record file per video, as it is when videos were just published, and from packs of up to
100,000, as it is after compaction. Records are generated; data files are empty, for only their
names count.
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.warehouse import timed
from warehouse import Key, Warehouse
from warehouse.commit_log import _pack
from warehouse.commits import STAGES, Commit, DataFile, record_name

FINGERPRINT = "0123456789abcdef0123"
TABLES = STAGES["precompute"]
SHARED = 50  # videos to a merged file
PACKED = 100_000  # records to a pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--packed", action="store_true", help="only from packs")
    options = parser.parse_args()
    for videos in options.videos:
        print(f"{videos} videos, {len(TABLES)} tables")
        keys = [Key("mevis", "train", f"video{index:07}") for index in range(videos)]
        for packed in (True,) if options.packed else (False, True):
            with tempfile.TemporaryDirectory() as folder:
                how = "packed and merged" if packed else "as published"
                Warehouse.create(folder)
                in_a_process(generate, folder, keys, packed)
                in_a_process(report, folder, keys, how)


def in_a_process(function: Callable[..., None], *arguments: Any) -> None:
    """Call it in a process of its own, whose memory is that of this call alone."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, function


def generate(folder: str, keys: list[Key], packed: bool) -> None:
    """Commits of every key: in a file each, or in packs and SHARED to a data file."""
    store = Warehouse(folder)
    commits: dict[str, Commit] = {}
    for index, key in enumerate(keys):
        own, first, total = (
            (f"merged-{index // SHARED:08}", index % SHARED, SHARED)
            if packed
            else (key.video_id, 0, 1)
        )
        paths = {table: f"data/{table}/mevis/train/{own}.parquet" for table in TABLES}
        commit = Commit(
            stage="precompute",
            key=key,
            fingerprint=FINGERPRINT,
            status="done",
            generation=1,
            created_at="2026-01-01T00:00:00.000000+00:00",
            files={table: data_file(path, first, total) for table, path in paths.items()},
        )
        name = record_name(commit, 0)
        for path in paths.values() if first == 0 else ():
            touch(store.root / path)
        if packed:
            commits[name] = commit
            if len(commits) == PACKED:
                store.log.append_pack("precompute", commits)
                commits = {}
        else:
            record = store.root / "records" / "precompute" / key.slug[-16:-14] / name
            touch(record)
            record.write_bytes(commit.to_json())
    if commits:
        store.log.append_pack("precompute", commits)


def data_file(path: str, first_row: int, file_rows: int) -> DataFile:
    return DataFile(
        path=path,
        rows=1,
        sha256=os.urandom(32).hex(),
        first_row=first_row,
        file_rows=file_rows,
        file_sha256=hashlib.sha256(path.encode()).hexdigest(),
    )


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def report(folder: str, keys: list[Key], how: str) -> None:
    def plan(some: list[Key]) -> None:
        assert not Warehouse(folder).missing("precompute", dict.fromkeys(some, FINGERPRINT))

    def plan_first() -> None:
        _pack.cache_clear()  # as in a process that has just started
        plan(keys)

    records = Warehouse(folder).storage.files("records")
    planned, _ = timed(plan_first)
    chunk, _ = timed(lambda: plan(keys[:16]))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"  {how}: {len(records)} files of records, {sum(f.size for f in records) / 1e6:.1f} MB; "
        f"planning {planned:.2f} s, {planned / len(keys) * 1e6:.0f} us a video; then 16 videos in "
        f"{chunk * 1e3:.0f} ms; peak memory {memory:.0f} MB"
    )


if __name__ == "__main__":
    main()
