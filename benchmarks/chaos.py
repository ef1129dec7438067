"""Kill the writers of a warehouse at random points, again and again: is anything lost or doubled?

    python -m benchmarks.chaos --kills 200
    python -m benchmarks.chaos --kills 200 --warehouse s3://bucket/prefix

Two publishers make the same videos at once, configuration after configuration; two more
compact and collect garbage without pause. All four are killed with SIGKILL and started again,
while a DuckDB reader checks that it never sees an error, a part of a video, or an older state
than before. At the end the warehouse must equal one that was never disturbed.
"""

import argparse
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import pyarrow as pa
from tasks.stages.outcome import publish_each

from warehouse import TABLES, Key, Warehouse
from warehouse.collect import collect_garbage, find_garbage
from warehouse.commits import STAGES
from warehouse.compact import compact
from warehouse.verify import verify

VIDEOS, ROWS = 12, 3
MADE = ("precompute", "label")
VERSION_COLUMN = {  # holds the number of the configuration that made a row
    "prompts": "area",
    "tracks": "visible_frames",
    "masks": "area",
    "tokens": "frame_index",
    "pseudo_labels": "miou",
}


Seen = dict[tuple[str, ...], int]  # what a reader has seen so far, as its look numbers it
Look = Callable[[Any, Seen], list[str]]  # (connection, seen) -> errors


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of chaos came to. `lost` and `duplicates` are rows, `removed` files."""

    kills: int
    configurations: int
    queries: int
    errors: list[str]
    lost: int
    duplicates: int
    removed: int
    orphans: int
    problems: int

    @property
    def sound(self) -> bool:
        wrong = (self.errors, self.lost, self.duplicates, self.orphans, self.problems)
        return not any(wrong)


def keys() -> list[Key]:
    return [Key("chaos", "train", f"v{index:02}") for index in range(VIDEOS)]


def tables(stage: str, key: Key, version: int) -> dict[str, pa.Table]:
    """ROWS rows for each table of the stage, which say what version they are."""
    return {name: _table(name, key, version) for name in STAGES[stage]}


def _table(name: str, key: Key, version: int) -> pa.Table:
    schema = TABLES[name]
    plain = {pa.string(): "x", pa.bool_(): True}
    row = {
        field.name: [1.0] if pa.types.is_list(field.type) else plain.get(field.type, 1)
        for field in schema
    }
    row |= {"dataset": key.dataset, "split": key.split, "video_id": key.video_id}
    rows = [row | {"track_id": n, VERSION_COLUMN[name]: version} for n in range(ROWS)]
    return pa.Table.from_pylist(rows, schema=schema)


def publisher(place: str, version: int, seed: int) -> None:
    """Publish what is missing of a configuration, in an order of its own, until nothing is."""
    store, chance = Warehouse.create(place), random.Random(seed)
    for stage in MADE:
        wanted = dict.fromkeys(keys(), f"c{version}")
        while missing := store.missing(stage, wanted):
            chance.shuffle(missing)
            part = {key: wanted[key] for key in missing[:4]}
            publish_each(store, stage, part, lambda key, s=stage: tables(s, key, version))


def tidier(place: str, grace: float) -> None:
    """Compact and collect garbage, without end."""
    while True:
        compact(Warehouse(place))
        collect_garbage(Warehouse(place), grace)


def reader(place: str, grace: float, look: Look, stop: Any, report: Any) -> None:
    """Look until told to stop, then send how often, and the errors that were seen."""
    seen: Seen = {}
    queries, errors = 0, []
    while not stop.is_set():
        started = time.monotonic()
        try:
            with Warehouse(place).connect() as connection:
                for _ in range(2):  # the second time long after: files may be superseded by then
                    errors += look(connection, seen)
                    queries += 1
                    time.sleep(min(1.0, grace / 4))
        except Exception as error:
            if time.monotonic() - started < grace:  # a reader may hold its view only so long
                errors.append(f"{type(error).__name__}: {error}")
    report.put((queries, errors))


def look_at_versions(connection: Any, seen: Seen) -> list[str]:
    """What is wrong with what is visible; `seen` has the version of each stage and video so far."""
    errors, visible = [], {}
    for stage in MADE:
        parts = " UNION ALL ".join(
            f"SELECT '{name}' AS name, video_id, {VERSION_COLUMN[name]}::INTEGER AS version "
            f"FROM {name}"
            for name in STAGES[stage]
        )
        found = connection.sql(
            "SELECT video_id, min(version), max(version), count(*), count(DISTINCT name) "
            f"FROM ({parts}) GROUP BY video_id"
        ).fetchall()
        for video, lowest, highest, rows, names in found:
            visible[stage, video] = lowest
            count = len(STAGES[stage])
            if (lowest, rows, names) != (highest, count * ROWS, count):
                errors.append(f"{stage} {video}: {rows} rows of versions {lowest} to {highest}")
    for what, version in seen.items():
        if visible.get(what, -1) < version:
            errors.append(f"{what}: version {visible.get(what)} after {version}")
    seen |= visible
    return errors


def chaos(place: str, kills: int, grace: float, seed: int, pause: float = 0.5) -> Outcome:
    """Kill `kills` times, up to `pause` seconds apart; then finish, tidy up and compare."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.stages.outcome", "warehouse.verify", "duckdb"])
    chance = random.Random(seed)
    Warehouse.create(place)
    stop, report = context.Event(), context.Queue()
    watching = context.Process(target=reader, args=(place, grace, look_at_versions, stop, report))
    watching.start()

    def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = context.Process(target=target, args=arguments, daemon=True)
        process.start()
        return process

    killed, version, errors = 0, 0, []
    tidying = [start(tidier, place, grace) for _ in range(2)]
    while killed < kills and not errors:
        version += 1
        running = [start(publisher, place, version, chance.random()) for _ in range(2)]
        while any(process.exitcode != 0 for process in running) and not errors:
            time.sleep(chance.uniform(0, pause))
            if killed < kills:
                victim = chance.choice([*running, *tidying])
                killed += victim.is_alive()
                victim.kill()
                victim.join()
            ended = [p.exitcode for p in [*running, *tidying] if p.exitcode not in (None, 0)]
            errors += [f"a writer ended with {code}" for code in ended if code != -signal.SIGKILL]
            for index, process in enumerate(running):
                if process.exitcode:
                    running[index] = start(publisher, place, version, chance.random())
            for index, process in enumerate(tidying):
                if process.exitcode is not None:
                    tidying[index] = start(tidier, place, grace)
    for process in tidying:
        process.kill()
        process.join()
    stop.set()
    queries, seen_errors = report.get()
    watching.join()
    with tempfile.TemporaryDirectory() as undisturbed:
        publisher(undisturbed, version, seed=0)
        return judge(place, undisturbed, version, killed, queries, errors + seen_errors)


def judge(
    place: str, undisturbed: str, versions: int, kills: int, queries: int, errors: list[str]
) -> Outcome:
    """Collect garbage and compare with a warehouse that nobody disturbed."""
    store = Warehouse(place)
    removed = len(collect_garbage(store, 0).files)
    named = {path for s in STAGES for commit in store.current(s).values() for path in commit.paths}
    orphans = {file.path for file in store.storage.files("data")} - named
    expected, found = content(Warehouse(undisturbed)), content(store)
    return Outcome(
        kills=kills,
        configurations=versions,
        queries=queries,
        errors=errors,
        lost=(expected - found).total(),
        duplicates=(found - expected).total(),
        removed=removed,
        orphans=len(orphans) + len(find_garbage(store, 0).files),
        problems=len(verify(store, 0)),
    )


def content(store: Warehouse) -> Counter[str]:
    """Every row of every table, with how often it is there."""
    with store.connect() as connection:
        return Counter(
            f"{name} {row}" for name in TABLES for row in connection.table(name).fetchall()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--warehouse", help="a new place; default: a temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = options.warehouse or f"{folder}/warehouse"
        outcome = chaos(place, options.kills, grace=10, seed=options.seed)
    print(f"{time.monotonic() - started:.0f} s: {outcome}")
    sys.exit(not outcome.sound)


if __name__ == "__main__":
    main()
