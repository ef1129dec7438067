"""Planning at scale: seeing that nothing is missing, as a flow does first.

    python -m benchmarks.planning                       # 10,000 and 100,000 videos
    python -m benchmarks.planning --videos 1000000 --packed

The stages precompute, label and evaluate, each planned in a process of its own: from one record
file per video, as it is when videos were just published, and from packs of up to 100,000, as it is
after compaction. Records are generated; data files are empty, for only their names count.
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sola_model.recipes import RECIPES
from tasks.runs import TRAIN, Run
from tasks.stage import Plan, Stage
from tasks.stages.evaluate import EVALUATE, score_plan
from tasks.stages.ingest import INGEST
from tasks.stages.label import LABEL, label_plan
from tasks.stages.precompute import PRECOMPUTE, track_plan
from tasks.track_sets import track_set_of
from warehouse import Key, Warehouse
from warehouse.commit_table import keys_of, video_keys
from warehouse.commits import Commit, DataFile, record_name
from warehouse.planning import current_keys

DATASET, SPLIT = "mevis", "train"
SHARED = 50  # videos to a merged file
PACKED = 100_000  # records to a pack
CHUNK = 16  # videos that a worker asks for
RECIPE = RECIPES["demo"]
TRACKS = track_set_of(RECIPE, precision="float32")
RUN = Run(
    run_id="run",
    parent=None,
    dataset=DATASET,
    split=SPLIT,
    recipe=RECIPE,
    tau_videos=None,
    parameters=0,
    epochs=0,
    best_epoch=0,
    weights="selectors/run",
    calibration=None,
    train_videos=0,
    train_expressions=0,
    videos=frozenset(),
    track_sets=(TRACKS,),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--packed", action="store_true", help="only from packs")
    options = parser.parse_args()
    for videos in options.videos:
        for packed in (True,) if options.packed else (False, True):
            with tempfile.TemporaryDirectory() as folder:
                Warehouse.create(folder)
                print(f"{videos} videos, {'packed and merged' if packed else 'as published'}")
                for stage in (INGEST, TRAIN, PRECOMPUTE, LABEL, EVALUATE):
                    in_a_process(generate, folder, stage.name, videos, packed)
                for stage in (PRECOMPUTE, LABEL, EVALUATE):
                    in_a_process(report, folder, stage.name, videos)


def in_a_process(function: Callable[..., None], *arguments: Any) -> None:
    """Call it in a process of its own, whose memory is that of this call alone."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, function


def video_ids(videos: int) -> list[str]:
    return [f"video{index:07}" for index in range(videos)]


def plan_of(stage: Stage, store: Warehouse, videos: int) -> Plan:
    """The plan of everything, as the stage's flow makes it."""
    if stage is PRECOMPUTE:
        return track_plan(store, DATASET, SPLIT, video_ids(videos), TRACKS)
    if stage is LABEL:
        return label_plan(store, DATASET, SPLIT, TRACKS.name, RECIPE)
    return score_plan(store, RUN, DATASET, SPLIT, TRACKS.name)


def wanted_of(stage: Stage, store: Warehouse, videos: int) -> Mapping[Key, str]:
    """What is to be generated."""
    if stage is TRAIN:
        return {Key(run_id=RUN.run_id): "trained"}
    if stage is INGEST:
        keys = keys_of(video_keys(video_ids(videos), dataset=DATASET, split=SPLIT))
        return dict.fromkeys(keys, "ingested")
    if stage is LABEL:  # `label_plan` looks into the data of what has no labels yet
        return Plan(LABEL, store, current_keys(store, "precompute"), RECIPE).wanted
    return plan_of(stage, store, videos).wanted


def generate(folder: str, name: str, videos: int, packed: bool) -> None:
    """Commits of every key: in a file each, or in packs and SHARED to a data file."""
    store, stage = Warehouse(folder), stage_named(name)
    commits: dict[str, Commit] = {}
    for index, (key, fingerprint) in enumerate(wanted_of(stage, store, videos).items()):
        own, first, total = (
            (f"merged-{index // SHARED:08}", index % SHARED, SHARED)
            if packed
            else (f"{key.run_id}-{key.video_id}", 0, 1)
        )
        paths = {table: f"data/{table}/mevis/train/{own}.parquet" for table in stage.publishes}
        commit = Commit(
            stage=stage.name,
            key=key,
            fingerprint=fingerprint,
            status="done",
            generation=1,
            created_at="2026-01-01T00:00:00.000000+00:00",
            files={table: data_file(path, first, total) for table, path in paths.items()},
            contents={"frames": os.urandom(32).hex()} if stage is INGEST else {},
        )
        record = record_name(commit, 0)
        for path in paths.values() if first == 0 else ():
            touch(store.root / path)
        if packed:
            commits[record] = commit
            if len(commits) == PACKED:
                store.log.append_pack(stage.name, commits)
                commits = {}
        else:
            file = store.root / "records" / stage.name / key.slug[-16:-14] / record
            touch(file)
            file.write_bytes(commit.to_json())
    if commits:
        store.log.append_pack(stage.name, commits)


def stage_named(name: str) -> Stage:
    return next(s for s in (INGEST, TRAIN, PRECOMPUTE, LABEL, EVALUATE) if s.name == name)


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


def report(folder: str, name: str, videos: int) -> None:
    store, stage = Warehouse(folder), stage_named(name)
    records = store.storage.files(f"records/{name}")
    before, started, worked = peak_memory(), time.perf_counter(), time.process_time()
    plan = plan_of(stage, store, videos)
    assert plan.missing() == [] and plan.keys.num_rows == videos
    planned, worked = time.perf_counter() - started, time.process_time() - worked
    peak, started = peak_memory(), time.perf_counter()
    some = plan.keys.slice(videos // 2, CHUNK)
    assert Plan(stage, store, some, plan.subject).missing() == []
    chunk = time.perf_counter() - started
    print(
        f"  {name}: {len(records)} files of records, {sum(f.size for f in records) / 1e6:.0f} MB; "
        f"planning {planned:.1f} s ({worked:.1f} s of CPU), peak memory {peak:.0f} MB, of which "
        f"{before:.0f} MB before; then {CHUNK} videos in {chunk * 1e3:.0f} ms, "
        f"{peak_memory():.0f} MB",
        flush=True,
    )


def peak_memory() -> float:
    """In MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
