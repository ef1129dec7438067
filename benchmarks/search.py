"""Language search over 100,000 mask tracks against exact scores of all of them, side by side.

    python -m benchmarks.search        # or: make bench

2,500 generated videos of 40 tracks; search vectors of 256 reference texts in a file per video,
then compacted. Exact scores are timed on one video at the sizes of recipe `release` (60 frames,
D = 256, C = 1024) and of recipe `demo` (24 frames, embedded SAM2), in one thread, and multiplied
by the number of videos. All seconds are CPU time of all threads: other processes do not count.
How often the estimate finds the best tracks is measured by `benchmarks/search_recall.py`.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch

from benchmarks.warehouse import rows
from sola_model.recipes import DEMO, RELEASE, SelectorConfig
from sola_model.selector.network import TrackSelector
from sola_model.selector.search import TEXTS_AT_ONCE, reference_weights, text_logits
from tasks.search import REFERENCES, promising_videos, read_vectors, unmade_vectors, wanted_vectors
from warehouse import Key, Warehouse
from warehouse.commits import STAGES
from warehouse.compact import compact

VIDEOS, TRACKS, WORDS, EXACT = 2500, 40, 10, 50
T = TypeVar("T")
RUN = {"run_id": "release-0123abcd"}
TEXTS = [f"text {n}" for n in range(REFERENCES)]


def main() -> None:
    torch.set_num_threads(1)
    seconds = {
        name: exact_seconds(config, frames)
        for name, config, frames in (
            ("release", RELEASE.selector, 60),
            ("demo", DEMO.selector, 24),
        )
    }
    os.fsync = lambda _: None  # what is generated need not survive a power failure
    with tempfile.TemporaryDirectory() as folder:
        store = Warehouse.create(folder)
        publish(store)
        for state in ("a file per video", "compacted"):
            planned, wanted = cpu_seconds(partial(plan, folder))
            checked, _ = cpu_seconds(partial(check, folder, wanted))
            loaded, vectors = cpu_seconds(partial(load, folder, wanted))
            asked, _ = cpu_seconds(partial(estimate, *vectors))
            first = planned + checked + loaded + asked
            print(f"{VIDEOS * TRACKS} tracks, {state}: planned in {planned:.2f} s, ", end="")
            print(f"checked in {checked:.2f} s, read in {loaded:.2f} s, estimated in {asked:.3f} s")
            for name, (video_seconds, _) in seconds.items():
                ours, plain = first + EXACT * video_seconds, VIDEOS * video_seconds
                print(
                    f"  sizes of {name}: {EXACT} videos exactly {EXACT * video_seconds:.1f} s, "
                    f"query {ours:.1f} s; all exactly {plain:.0f} s, {plain / ours:.0f}x"
                )
            compact(store)
    for name, (video_seconds, vector_seconds) in seconds.items():
        print(
            f"{name}: vectors of a video {vector_seconds:.2f} s, once; a text {video_seconds:.3f} s"
        )


def exact_seconds(config: SelectorConfig, frames: int) -> tuple[float, float]:
    """Seconds for a video's scores with one text, and with all reference texts."""
    torch.manual_seed(0)
    selector = TrackSelector(config).eval()
    tokens_NTD = np.random.default_rng(0).normal(size=(TRACKS, frames, config.token_dim))
    texts = [torch.randn(WORDS, config.text_dim) for _ in range(TEXTS_AT_ONCE)]

    def run(count: int) -> Callable[[], np.ndarray]:
        return lambda: text_logits(selector, tokens_NTD.astype(np.float32), texts[:count])

    (one, _), (many, _) = cpu_seconds(run(1)), cpu_seconds(run(TEXTS_AT_ONCE))
    return one, many * REFERENCES / TEXTS_AT_ONCE


def cpu_seconds(work: Callable[[], T]) -> tuple[float, T]:
    """The least of three runs, and what it gave."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def publish(store: Warehouse) -> None:
    """Videos with tracks (of one frame: a search reads none of it) and their search vectors."""
    chance = np.random.default_rng(0)
    offsets = np.arange(0, TRACKS * REFERENCES + 1, REFERENCES, dtype=np.int32)
    moments = {"track_id": np.arange(TRACKS), "frame_index": np.zeros(TRACKS, int)}
    token = pa.ListArray.from_arrays(np.arange(TRACKS + 1, dtype=np.int32), np.ones(TRACKS))
    for index in range(VIDEOS):
        key = Key("mevis", "train", f"video{index:06}")
        given = {"tokens": {"token": token} | moments, "masks": moments}
        tables = {
            name: rows(name, key, TRACKS, **given.get(name, {})) for name in STAGES["precompute"]
        }
        store.publish("precompute", key, "f", tables)
    for key, fingerprint in plan(store.url).items():
        logits = chance.normal(size=TRACKS * REFERENCES).astype(np.float16)
        vector = pa.ListArray.from_arrays(offsets, logits)
        table = rows("search_vectors", key, TRACKS, track_id=np.arange(TRACKS), vector=vector)
        store.publish("search", key, fingerprint, {"search_vectors": table})


def plan(folder: str) -> dict[Key, str]:
    return wanted_vectors(Warehouse(folder), RUN, TEXTS)


def check(folder: str, wanted: dict[Key, str]) -> None:
    assert unmade_vectors(Warehouse(folder), wanted) == (set(), set())


def load(folder: str, wanted: dict[Key, str]) -> tuple[np.ndarray, np.ndarray]:
    store = Warehouse(folder)
    return read_vectors(store, list(store.current("search", list(wanted)).values()))


def estimate(video_N: np.ndarray, vectors_NK: np.ndarray) -> np.ndarray:
    features = [torch.randn(WORDS, RELEASE.selector.text_dim) for _ in TEXTS]
    return promising_videos(video_N, vectors_NK @ reference_weights(features, features[0]), EXACT)


if __name__ == "__main__":
    main()
