"""Kill the flows at random points, again and again: is anything lost or doubled?

    python -m benchmarks.chaos_flows --kills 200

Two runs of precompute, label, train and evaluate, with the embedded models on tiny clips, work
on one warehouse at once, configuration after configuration; a third process compacts and collects
garbage without pause. Killed with SIGKILL and started again are: a whole run, its flow alone, one
of its worker processes, a run in the middle of a write, the tidier, and Prefect's server; while a
DuckDB reader checks that it never sees an error, a part of a video, or less than before. At the
end the warehouse must equal one where the same runs were never disturbed.

Processes are forked with everything imported, worker processes, too: spawned ones would spend
their short lives on imports.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from prefect.context import refresh_global_settings_context

from benchmarks.chaos import Outcome, Seen, judge, reader, tidier
from flows.evaluate import evaluate
from flows.label import label
from flows.precompute import precompute
from flows.runtime import prefect_api
from flows.server import private_server
from flows.train import train
from sola_model.recipes import DEMO, RECIPES, Recipe
from warehouse import Warehouse
from warehouse.commits import STAGES
from warehouse.demo_data import write_dataset

CLIPS, FRAMES = {"train": 4, "valid_u": 2}, 5
MADE = ("ingest", "precompute", "label", "train", "evaluate")
PRELOADED = ["flows.evaluate", "flows.label", "flows.precompute", "flows.train", "duckdb"]
WAYS = {"run": 4, "flow": 3, "worker": 9, "writing": 9, "tidier": 1, "server": 1}  # how often
SPARED = {"start": 0.6, "precompute": 0.4}  # else few runs come to training
WRITES = 25  # a kill in the middle of a write comes at one of the next so many
WRITING_S = 4.0  # for so long we wait for it
VIDEO = "dataset, split, video_id"
TRACKS = f"{VIDEO}, track_set"
KEYS = {"ingest": VIDEO, "train": "run_id", "evaluate": f"{TRACKS}, run_id"}


def recipe(version: int) -> Recipe:
    """A small recipe, other tracks and another selector for each version."""
    grid = replace(DEMO.extraction.grid, points_per_side=4, stability=0.7 + version / 1e4)
    return replace(
        DEMO,
        name=f"chaos-{version}",
        extraction=replace(DEMO.extraction, grid=grid, max_tracks=3),
        training=replace(DEMO.training, epochs=3, seed=version),
        label_threshold=0.5 + version / 1e4,
    )


def run(place: str, data: str, url: str, version: int, doing: Any, writes: Any, log: str) -> None:
    """All flows, as a script that stops at the first command that reports a failed video."""
    os.setsid()
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 2)
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # for the pool of worker processes
    _count_writes(writes)
    os.environ |= {"PREFECT_API_URL": url, "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    refresh_global_settings_context()
    name = recipe(version).name
    RECIPES[name] = recipe(version)

    def step(stage: str, flow: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        doing.value = stage.encode()
        result = flow(place, *arguments, **options)
        if getattr(result, "failed", 0):
            sys.exit(2)
        return result

    with prefect_api():
        for split in ("train", "valid_u"):
            truth = split == "train"
            step("precompute", precompute, "demo", data, split, name, ground_truth=truth, workers=2)
            step("label", label, "demo", split, name, workers=1)
        run_id = step("train", train, "demo", recipe=name)
        step("evaluate", evaluate, "demo", "valid_u", run_id, workers=1)


def _count_writes(left: Any) -> None:
    """Kill this process's group before the `left`-th file from now is safe on disk, if not 0."""
    sync = os.fsync

    def counted(descriptor: int) -> None:
        if left.value:
            left.value -= 1
            if not left.value:
                os.killpg(0, signal.SIGKILL)
        sync(descriptor)

    os.fsync = counted


def serve(address: Any) -> None:
    """Prefect's server, until this process is killed."""
    with private_server({}) as url:
        address.send(url)
        signal.pause()


def look(connection: Any, seen: Seen) -> list[str]:
    """What is wrong with what is visible; `seen` is what was visible so far."""
    errors = []
    for stage in MADE:
        columns = KEYS.get(stage, TRACKS)
        tables = " UNION ALL ".join(f"SELECT {columns} FROM {name}" for name in STAGES[stage])
        found = connection.sql(
            f"SELECT {columns}, count(*) FROM ({tables}) GROUP BY ALL"
        ).fetchall()
        rows = {(stage, *key): count for *key, count in found}
        recorded = connection.sql(
            f"SELECT {columns}, rows FROM commits WHERE stage = '{stage}' AND status = 'done'"
        ).fetchall()
        errors += [
            f"{stage} {key}: {rows.get((stage, *key), 0)} rows of {count}"
            for *key, count in recorded
            if rows.get((stage, *key), 0) != count
        ]
        errors += [f"{key} has vanished" for key in seen if key[0] == stage and key not in rows]
        seen |= rows
    counts = " JOIN ".join(
        f"(SELECT {TRACKS}, count(*) AS {name}_seen FROM {name} GROUP BY ALL) "
        f"USING ({VIDEO if name == 'masks' else TRACKS})"
        for name in ("masks", "tokens", "tracks")
    )
    mixed = connection.sql(
        f"SELECT video_id FROM videos JOIN {counts} "
        "WHERE masks_seen != tokens_seen OR masks_seen != tracks_seen * frame_count"
    ).fetchall()
    return errors + [f"tables of different tracks: {video}" for (video,) in mixed]


class Chaos:
    """Two runs, a tidier and a server in `folder`, which are killed and started again.

    With the `url` of a Prefect API that one is used, and not killed. `clips` are how many a split
    has. `kills` counts (way, stage).
    """

    def __init__(
        self,
        folder: Path,
        *,
        clips: dict[str, int],
        grace: float,
        seed: int,
        url: str | None = None,
    ) -> None:
        self.place, self.data, self.log = (
            str(folder / name) for name in ("warehouse", "data", "log")
        )
        write_dataset(Path(self.data), clips, frames=FRAMES)
        Warehouse.create(self.place)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.chance, self.grace = random.Random(seed), grace
        self.version, self.errors = 0, list[str]()
        self.kills: Counter[tuple[str, str]] = Counter()
        self.doing = [self.context.RawArray("c", 16) for _ in range(2)]
        self.writes = [self.context.RawValue("i") for _ in range(2)]
        self.stranded = set[int | None]()  # process ids of runs whose server was killed
        self.server = None if url else self.start_server()
        self.url = url or self.url
        self.tidying = self.start(tidier, self.place, grace)

    def start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = self.context.Process(target=target, args=arguments)
        process.start()
        return process

    def start_server(self) -> BaseProcess:
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.start(serve, sender)
        self.url = receiver.recv()
        return process

    def start_run(self, place: str, version: int, slot: int) -> BaseProcess:
        doing, writes = self.doing[slot], self.writes[slot]
        doing.value, writes.value = b"start", 0
        return self.start(run, place, self.data, self.url, version, doing, writes, self.log)

    def round(self, kills: int, pause: float) -> None:
        """Two runs of a new configuration, disturbed until there were so many kills in all.

        Kills come up to `pause` seconds apart.
        """
        self.version += 1
        self.runs = [self.start_run(self.place, self.version, slot) for slot in range(2)]
        while any(process.exitcode != 0 for process in self.runs) and not self.errors:
            time.sleep(self.chance.uniform(0, pause))
            if self.kills.total() < kills:
                self.strike()
            for slot, process in enumerate(self.runs):
                code = process.exitcode
                if code not in (None, 0, 2, -signal.SIGKILL) and process.pid not in self.stranded:
                    self.errors.append(f"a run ended with {code}, see {self.log}")
                if code:
                    self.runs[slot] = self.start_run(self.place, self.version, slot)
            if self.tidying.exitcode not in (None, -signal.SIGKILL):
                self.errors.append(f"the tidier ended with {self.tidying.exitcode}")
            if self.tidying.exitcode:
                self.tidying = self.start(tidier, self.place, self.grace)

    def strike(self) -> None:
        """Kill something, unless it ends before."""
        (way,) = self.chance.choices(list(WAYS), list(WAYS.values()))
        alive = [slot for slot, process in enumerate(self.runs) if process.is_alive()]
        if way == "tidier":
            _kill(self.tidying)
            self.kills[way, ""] += 1
        elif way == "server" and self.server:
            _kill(self.server)
            self.kills[way, ""] += 1
            self.stranded |= {process.pid for process in self.runs}
            self.server = self.start_server()
        elif way != "server" and alive:
            slot = self.chance.choice(alive)
            spared = SPARED.get(self.doing[slot].value.decode(), 0)
            if self.chance.random() >= spared and self.strike_run(way, slot):
                self.kills[way, self.doing[slot].value.decode()] += 1

    def strike_run(self, way: str, slot: int) -> bool:
        """Kill a run in one of the ways; gives whether that came to pass."""
        process = self.runs[slot]
        assert process.pid
        if way == "writing":
            self.writes[slot].value = self.chance.randint(1, WRITES)
            process.join(timeout=WRITING_S)
            self.writes[slot].value = 0
            return process.exitcode == -signal.SIGKILL
        if way == "worker":
            if workers := _children(process.pid):
                os.kill(self.chance.choice(workers), signal.SIGKILL)
            return bool(workers)
        if way == "run":
            with suppress(ProcessLookupError):  # it has not yet a group of its own
                os.killpg(process.pid, signal.SIGKILL)
        _kill(process)  # alone: its workers notice, and end themselves
        return True

    def finish(self, folder: str) -> None:
        """End the tidier and, in `folder`, do all runs again in peace."""
        _kill(self.tidying)
        Warehouse.create(folder)
        for version in range(1, self.version + 1):
            process = self.start_run(folder, version, 0)
            process.join()
            if process.exitcode:
                self.errors.append(f"undisturbed, a run ended with {process.exitcode}")
        if self.server:
            _kill(self.server)


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _children(process: int) -> list[int]:
    """The process ids of a process's children (Linux)."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it ends meanwhile
        for file in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, file.read_text().split())
    return found


def chaos(folder: Path, kills: int, *, pause: float, **options: Any) -> tuple[Outcome, Chaos]:
    """Kill `kills` times in rounds of `Chaos`, then finish, tidy up and compare."""
    chaos = Chaos(folder, **options)
    stop, report = chaos.context.Event(), chaos.context.Queue()
    watching = chaos.start(reader, chaos.place, chaos.grace, look, stop, report)
    while chaos.kills.total() < kills and not chaos.errors:
        started = time.monotonic()
        chaos.round(kills, pause)
        seconds = time.monotonic() - started
        print(
            f"configuration {chaos.version}: {seconds:.0f} s, {chaos.kills.total()} kills so far",
            flush=True,
        )
    stop.set()
    queries, errors = report.get()
    watching.join()
    with tempfile.TemporaryDirectory() as undisturbed:
        chaos.finish(undisturbed)
        errors += chaos.errors
        outcome = judge(
            chaos.place, undisturbed, chaos.version, chaos.kills.total(), queries, errors
        )
    return outcome, chaos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pause", type=float, default=5, help="longest, between kills, seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome, killed = chaos(
            Path(folder),
            options.kills,
            pause=options.pause,
            clips=CLIPS,
            grace=30,
            seed=options.seed,
        )
        if not outcome.sound:
            print(Path(killed.log).read_text()[-4000:])
    for name, index in (("way", 0), ("stage", 1)):
        spread = Counter[str]()
        for what, count in killed.kills.items():
            spread[what[index]] += count
        print(f"kills by {name}: {dict(spread)}")
    print(f"{time.monotonic() - started:.0f} s: {outcome}")
    sys.exit(not outcome.sound)


if __name__ == "__main__":
    main()
