"""Language search over 100,000 mask tracks against scores of all of them by the selector.

    python -m benchmarks.search                        # or: make bench
    python -m benchmarks.search --tracks 10000000      # the product alone, over so many vectors

2,500 generated videos of 40 tracks; search vectors in a file per video, then compacted. A query
with a two-tower selector (recipe `demo`, random weights) is timed whole, as a running process asks
it: from the text to the hits, the plan of what is current included. With the paper's selector
(recipe `release`) its parts are: reading the vectors of 256 reference texts, estimating, and the
scores of 50 videos. Scores by the selector are timed on one video, in one thread, and multiplied by
the number of videos. Seconds are CPU time of all threads: other processes do not count.
How often the estimate finds the best tracks is measured by `benchmarks/search_recall.py`.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch

from benchmarks.warehouse import rows
from sola_model.recipes import DEMO, RELEASE, Recipe
from sola_model.selector.checkpoints import save_selector
from sola_model.selector.modules import new_selector
from sola_model.selector.search import (
    TEXTS_AT_ONCE,
    ReferenceQuery,
    WordQuery,
    reference_weights,
    text_logits,
)
from tasks.runs import Run, find_run
from tasks.search.index import SearchIndex, search_index
from tasks.search.track_search import promising_videos, search
from tasks.search.vectors import AT_MOST, Searched, vector_plan
from tasks.track_sets import remember, track_set_of
from warehouse import Key, Warehouse
from warehouse.commits import STAGES
from warehouse.compact import compact

VIDEOS, TRACKS, WORDS, EXACT = 2500, 40, 10, 50
TEXTS = tuple(f"text {n}" for n in range(AT_MOST))
TRACK_SET = track_set_of(DEMO)
T = TypeVar("T")


def main() -> None:
    torch.set_num_threads(1)
    demo, release = video_seconds(DEMO, 24), video_seconds(RELEASE, 60)
    os.fsync = lambda _: None  # what is generated need not survive a power failure
    with tempfile.TemporaryDirectory() as folder:
        store = Warehouse.create(Path(folder) / "warehouse")
        two_tower = Searched(publish_run(store, DEMO), ())
        paper = Searched(publish_run(store, RELEASE), TEXTS)
        publish_videos(store)
        publish_vectors(store, two_tower, 3 * DEMO.selector.width)
        publish_vectors(store, paper, AT_MOST)
        for state in ("a file per video", "compacted"):
            ask = partial(query, Warehouse(store.url), two_tower)
            first, _ = cpu_seconds(ask, repeats=1)
            again, _ = cpu_seconds(ask)
            print(f"{VIDEOS * TRACKS} tracks, {state}, two towers: query {again:.2f} s, ", end="")
            print(
                f"the first of a process {first:.2f} s; by the selector {VIDEOS * demo:.0f} s, "
                f"{VIDEOS * demo / again:.0f}x"
            )
            read, index = cpu_seconds(partial(load, store.url, paper.run))
            asked, _ = cpu_seconds(partial(estimate, index))
            ours, plain = read + asked + EXACT * release, VIDEOS * release
            print(
                f"  release: vectors read in {read:.2f} s, estimated in {asked:.3f} s, {EXACT} "
                f"videos by the selector {EXACT * release:.1f} s; all {plain:.0f} s, "
                f"{plain / ours:.0f}x"
            )
            compact(store)


def product(tracks: int) -> None:
    """Seconds and memory of one product with so many vectors of recipe `demo`, on disk."""
    width = 3 * DEMO.selector.width
    chance = np.random.default_rng(0)
    query = WordQuery(torch.randn(WORDS, width), torch.zeros(WORDS))
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file = Path(folder) / "vectors.f16"
        part = chance.normal(size=(min(tracks, 100_000), width)).astype(np.float16).tobytes()
        with file.open("wb") as stream:
            for _ in range(-(-tracks // 100_000)):
                stream.write(part)
        vectors_NK = np.memmap(file, np.float16, mode="c", shape=(tracks, width))
        nothing_N = np.empty(0, np.int32)
        index = SearchIndex(keys=[], video_N=nothing_N, track_N=nothing_N, vectors_NK=vectors_NK)
        for name in ("first", "again"):
            started = time.perf_counter()
            index.logits(query)
            seconds = time.perf_counter() - started
            print(f"{tracks} tracks, {file.stat().st_size / 1e9:.1f} GB, {name}: {seconds:.2f} s")


def video_seconds(recipe: Recipe, frames: int) -> float:
    """Seconds for the selector's scores of one video with one text."""
    torch.manual_seed(0)
    selector = new_selector(recipe.selector).eval()
    tokens_NTD = np.random.default_rng(0).normal(size=(TRACKS, frames, recipe.selector.token_dim))
    text_WC = torch.rand(WORDS, recipe.selector.text_channels)
    seconds, _ = cpu_seconds(
        lambda: text_logits(selector, tokens_NTD.astype(np.float32), [text_WC] * TEXTS_AT_ONCE)
    )
    return seconds / TEXTS_AT_ONCE


def cpu_seconds(work: Callable[[], T], repeats: int = 3) -> tuple[float, T]:
    """The least of some runs, and what it gave."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def publish_run(store: Warehouse, recipe: Recipe) -> Run:
    """A run with random weights."""
    key = Key(run_id=f"{recipe.name}-0123abcd")
    with tempfile.TemporaryDirectory() as folder:
        save_selector(new_selector(recipe.selector).eval(), Path(folder))
        checksums = store.put_folder(f"selectors/{key.run_id}", Path(folder))
    given = {
        "dataset": ["mevis"],
        "split": ["train"],
        "config": [json.dumps(asdict(recipe))],
        "weights": [f"selectors/{key.run_id}"],
    }
    tables = {
        "runs": rows("runs", key, 1, **given),
        "training_metrics": rows("training_metrics", key, 0),
    }
    store.publish("train", key, "f", tables, checksums)
    return find_run(store, key.run_id)


def publish_videos(store: Warehouse) -> None:
    """Videos with tracks of one frame: a search reads none of it but the hits' lengths."""
    moments = {"track_id": np.arange(TRACKS), "frame_index": np.zeros(TRACKS, int)}
    token = pa.ListArray.from_arrays(np.arange(TRACKS + 1, dtype=np.int32), np.ones(TRACKS))
    given = {
        "tokens": {"token": token} | moments,
        "masks": moments,
        "tracks": {"track_id": np.arange(TRACKS)},
    }
    remember(store, "mevis", "train", TRACK_SET)
    for index in range(VIDEOS):
        video = Key("mevis", "train", f"video{index:06}")
        tracks = video.of(track_set=TRACK_SET.name)
        for stage, key, count in (("ingest", video, 1), ("precompute", tracks, TRACKS)):
            tables = {name: rows(name, key, count, **given.get(name, {})) for name in STAGES[stage]}
            store.publish(stage, key, "f", tables)


def publish_vectors(store: Warehouse, about: Searched, width: int) -> None:
    chance = np.random.default_rng(0)
    offsets = np.arange(0, TRACKS * width + 1, width, dtype=np.int32)
    for key, fingerprint in vector_plan(store, about).wanted.items():
        values = chance.normal(size=TRACKS * width).astype(np.float16)
        vector = pa.ListArray.from_arrays(offsets, values)
        table = rows("search_vectors", key, TRACKS, track_id=np.arange(TRACKS), vector=vector)
        store.publish("search", key, fingerprint, {"search_vectors": table})


def query(store: Warehouse, about: Searched) -> None:
    found = search(vector_plan(store, about), "a red circle", 20, EXACT)
    assert found.tracks == VIDEOS * TRACKS and len(found.hits) == 20


def load(url: str, run: Run) -> SearchIndex:
    store = Warehouse(url)
    commits = store.current("search", run_id=run.run_id)
    return search_index(store, run.run_id, list(commits.values()))


def estimate(index: SearchIndex) -> np.ndarray:
    features = [torch.randn(WORDS, RELEASE.selector.text_dim) for _ in TEXTS]
    query = ReferenceQuery(torch.from_numpy(reference_weights(features, features[0])).float())
    return promising_videos(index.video_N, index.logits(query), EXACT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, help="time the product alone, over so many")
    if tracks := parser.parse_args().tracks:
        product(tracks)
    else:
        main()
