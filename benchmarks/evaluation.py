"""Evaluation of a whole split, the size of MeViS's valid_u, against the plain way.

    python -m benchmarks.evaluation        # or: make bench

50 videos of 80 frames at 540x960, 20 mask tracks and 6 objects in each, 793 expressions, a
selector with random weights. `sola evaluate` on 2 processes, from start to published tables: text,
alignment scores, oracle, J&F of the selection, of the trivial ones and at 19 thresholds. The
plain way computes each of these predictions and its J&F with numpy and cv2 on decoded masks; it is
timed on a few expressions, without the decoding.
"""

import cProfile
import json
import pstats
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import ceil, hypot
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from pycocotools import mask as coco

from flows.evaluate import evaluate
from flows.runtime import prefect_api
from sola_model.recipes import DEMO, SelectorConfig
from sola_model.selector.checkpoints import save_selector
from sola_model.selector.network import TrackSelector
from sola_model.selector.selection import THRESHOLDS
from tasks.runs import find_run
from tasks.stage import Plan
from tasks.stages.evaluate import EVALUATE, score_plan
from tasks.tables import read_expressions, read_mask_tracks, read_objects, rows
from tasks.track_sets import remember, track_set_of
from warehouse import TABLES, Key, Warehouse
from warehouse.masks import mask_columns

VIDEOS, EXPRESSIONS, FRAMES, TRACKS, OBJECTS = 50, 793, 80, 20, 6
SIZE = HEIGHT, WIDTH = 540, 960
TOKEN_DIM = 64
PLAIN_EXPRESSIONS, PLAIN_FRAMES = 4, 20
WORDS = [
    "the",
    "red",
    "blue",
    "small",
    "large",
    "dog",
    "bird",
    "circle",
    "moving",
    "turning",
    "left",
    "away",
    "still",
    "that",
    "which",
]
RECIPE = replace(
    DEMO,
    token_features="pointer",
    selector=SelectorConfig(token_dim=TOKEN_DIM, text_dim=128),
)
TRACK_SET = track_set_of(RECIPE)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, prefect_api():
        store = Warehouse.create(folder)
        rng = np.random.default_rng(0)
        remember(store, "bench", "valid_u", TRACK_SET)
        for index, expressions in enumerate(_shared_out(EXPRESSIONS, VIDEOS)):
            key = Key("bench", "valid_u", f"v{index:02d}", track_set=TRACK_SET.name)
            publish_video(store, key, expressions, rng)
        publish_run(store)
        started, cpu_started = time.perf_counter(), cpu_seconds()
        evaluate(folder, "bench", "valid_u", workers=2)
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu_started
        store = Warehouse(folder)
        distinct = store.connect().sql(
            """
            SELECT avg(sets) FROM (
                SELECT count(DISTINCT tracks_selected) AS sets
                FROM threshold_scores
                GROUP BY video_id, expression_id
            )
            """
        )
        print(f"{VIDEOS} videos, {EXPRESSIONS} expressions, 2 processes: {seconds:.1f} s")
        print(f"{cpu:.1f} s of CPU time, start of the processes included (two cores share it)")
        print(f"different selections at the 19 thresholds: {distinct.fetchall()[0][0]:.1f}")
        print_shares(store)
        plain = plain_seconds_per_expression(store)
        print(f"plain: {plain:.1f} s of CPU time per expression", end=", ")
        print(f"{plain * EXPRESSIONS / cpu:.0f}x the CPU time of ours")


def cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _shared_out(total: int, parts: int) -> list[int]:
    return [total // parts + (index < total % parts) for index in range(parts)]


def publish_video(store: Warehouse, key: Key, expressions: int, rng: np.random.Generator) -> None:
    """A video of moving outlines; its tracks are objects seen unsteadily, and other things."""
    outlines = [_Outline(rng) for _ in range(TRACKS)]
    objects = [outline.masks(rng, 1.0) for outline in outlines[:OBJECTS]]
    tracks = [outline.masks(rng, rng.uniform(0.9, 1.1)) for outline in outlines]
    seen = [(o, t, m) for o, masks in enumerate(objects) for t, m in enumerate(masks)]
    truth = mask_columns([mask for _, _, mask in seen])
    flat = mask_columns([mask for masks in tracks for mask in masks])
    visible_NT = np.array(flat["area"]).reshape(TRACKS, FRAMES)
    by_frame = {
        "track_id": np.repeat(np.arange(TRACKS), FRAMES),
        "frame_index": np.tile(np.arange(FRAMES), TRACKS),
    }
    meant = [rng.choice(OBJECTS, rng.integers(1, 4), replace=False) for _ in range(expressions)]
    ids = [str(e) for e in range(expressions)]
    tokens = rng.normal(size=(TRACKS * FRAMES, TOKEN_DIM)).astype(np.float16)
    stages: dict[str, dict[str, dict[str, Any]]] = {
        "ingest": {
            "videos": {
                "path": [""],
                "frames": [[f"{t:05d}" for t in range(FRAMES)]],
                "frame_count": [FRAMES],
                "height": [HEIGHT],
                "width": [WIDTH],
                "content_hash": [key.video_id],
            },
            "expressions": {
                "expression_id": ids,
                "text": [" ".join(rng.choice(WORDS, 7)) for _ in ids],
                "object_ids": [[str(o) for o in each] for each in meant],
                "tags": [[] for _ in ids],
            },
            "ground_truth": {
                "object_id": [str(o) for o, _, _ in seen],
                "frame_index": [t for _, t, _ in seen],
                **{name: truth[name] for name in ("height", "width", "counts", "area")},
            },
        },
        "precompute": {
            "prompts": {
                "prompt_id": range(TRACKS),
                "frame_index": [0] * TRACKS,
                "source": ["grid"] * TRACKS,
                "expression_id": [None] * TRACKS,
                "object_id": [None] * TRACKS,
                **{name: flat[name][::FRAMES] for name in ("height", "width", "counts", "area")},
                "predicted_iou": [None] * TRACKS,
                "stability": [None] * TRACKS,
                "fate": ["tracked"] * TRACKS,
                "track_id": range(TRACKS),
                "iou": [None] * TRACKS,
            },
            "tracks": {
                "track_id": range(TRACKS),
                "prompt_id": range(TRACKS),
                "prompt_frame": [0] * TRACKS,
                "visible_frames": (visible_NT > 0).sum(axis=1),
                "mean_area": visible_NT.mean(axis=1),
            },
            "masks": {**by_frame, **flat},
            "tokens": {**by_frame, "token": list(tokens)},
        },
    }
    for stage, tables in stages.items():
        own = key.of(track_set="") if stage == "ingest" else key
        store.publish(stage, own, "bench", {n: rows(n, own, c) for n, c in tables.items()})


class _Outline:
    """A wobbling star-shaped region that drifts through the frame for some of the frames."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.centre = rng.uniform((80, 80), (WIDTH - 80, HEIGHT - 80))
        self.velocity = rng.uniform(-3, 3, 2)
        self.angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        self.radii = rng.uniform(25, 110) * (1 + 0.25 * rng.uniform(-1, 1, 48))
        first, length = rng.integers(0, FRAMES // 2), rng.integers(FRAMES // 2, FRAMES + 1)
        self.frames = range(first, min(first + length, FRAMES))

    def masks(self, rng: np.random.Generator, scale: float) -> list[dict]:
        """One RLE per frame."""
        return [self._mask(rng, scale, t) for t in range(FRAMES)]

    def _mask(self, rng: np.random.Generator, scale: float, t: int) -> dict:
        if t not in self.frames:
            runs = {"size": list(SIZE), "counts": [HEIGHT * WIDTH]}
            return coco.frPyObjects(runs, HEIGHT, WIDTH)
        radii = scale * self.radii * (1 + 0.05 * rng.normal(size=48))
        rays = np.stack([np.cos(self.angles), np.sin(self.angles)], axis=1)
        points = self.centre + self.velocity * t + radii[:, None] * rays
        return coco.frPyObjects([np.clip(points, 0, (WIDTH, HEIGHT)).ravel().tolist()], *SIZE)[0]


def publish_run(store: Warehouse) -> None:
    """A selector with random weights, under run id "random"."""
    torch.manual_seed(0)
    selector = TrackSelector(RECIPE.selector)
    save_selector(selector, store.root / "selectors" / "random")
    run = {
        "run_id": "random",
        "parent": None,
        "dataset": "bench",
        "split": "train",
        "recipe": RECIPE.name,
        "config": json.dumps(asdict(RECIPE)),
        "seed": 0,
        "parameters": sum(p.numel() for p in selector.parameters()),
        "epochs": 0,
        "best_epoch": 0,
        "weights": "selectors/random",
        "train_videos": 0,
        "train_expressions": 0,
        "videos": [],
    }
    tables = {
        "runs": pa.Table.from_pylist([run], schema=TABLES["runs"]),
        "training_metrics": TABLES["training_metrics"].empty_table(),
    }
    store.publish("train", Key(run_id="random"), "bench", tables)


def print_shares(store: Warehouse) -> None:
    """Where the time goes, in one process, on a few videos that are scored again."""
    run = find_run(store, None)
    plan = score_plan(store, run, "bench", "valid_u", TRACK_SET.name)
    keys = list(plan.wanted)[:5]
    _score(plan, keys[:1])  # warm
    profile = cProfile.Profile()
    profile.runcall(_score, plan, keys)
    cumulative = {
        name: seconds for (_, _, name), (_, _, _, seconds, _) in pstats.Stats(profile).stats.items()
    }
    total = cumulative["_score"]
    for name in (
        "alignment_scores", "read_mask_tracks", "read_objects", "pack", "video_cells",
        "oracle_selection", "union", "j_and_f_many",
    ):  # fmt: skip
        print(f"  {name:18s} {100 * cumulative[name] / total:5.1f} %")


def _score(plan: Plan, keys: Sequence[Key]) -> None:
    assert EVALUATE.make
    for key in keys:
        EVALUATE.make(plan.unit(key))


def plain_seconds_per_expression(store: Warehouse) -> float:
    """CPU seconds for one expression whose video is decoded already; every prediction is scored.

    Timed on the first frames; all steps are linear in the frames.
    """
    key = Key("bench", "valid_u", "v00")
    tracked = key.of(track_set=TRACK_SET.name)
    ingested, precomputed = store.current("ingest")[key], store.current("precompute")[tracked]
    tracks_NTHW = np.stack([decoded(track) for track in read_mask_tracks(store, precomputed)])
    objects = {name: decoded(masks) for name, masks in read_objects(store, ingested).items()}
    scored = store.current("evaluate")[tracked.of(run_id="random")]
    table = store.read("predictions", [scored]).to_pandas()
    expressions = read_expressions(store, ingested)[:PLAIN_EXPRESSIONS]
    started = time.process_time()
    for expression in expressions:
        target_THW = np.any([objects[o] for o in expression.object_ids or ()], axis=0)
        score_N = table[table.expression_id == expression.expression_id].score.to_numpy()
        chosen = [np.flatnonzero(score_N > tau).tolist() for tau in (RECIPE.tau, *THRESHOLDS)]
        chosen += [plain_oracle(tracks_NTHW, target_THW), list(range(TRACKS)), [0], [1]]
        for indices in chosen:
            plain_j_and_f(target_THW, tracks_NTHW[indices].any(axis=0))
    seconds = (time.process_time() - started) / len(expressions)
    return seconds * FRAMES / PLAIN_FRAMES


def decoded(masks: Sequence[dict]) -> np.ndarray:
    """The first frames as booleans."""
    return np.stack([coco.decode(mask) for mask in masks[:PLAIN_FRAMES]]).astype(bool)


def plain_oracle(tracks_NTHW: np.ndarray, target_THW: np.ndarray) -> list[int]:
    """Greedy: add the track that raises the mean J most, until none does."""
    chosen: list[int] = []
    merged_THW, best = np.zeros_like(target_THW), 0.0
    while True:
        j_N = [plain_j(target_THW, merged_THW | track_THW) for track_THW in tracks_NTHW]
        if max(j_N) <= best:
            return chosen
        best, added = max(j_N), int(np.argmax(j_N))
        chosen.append(added)
        merged_THW |= tracks_NTHW[added]


def plain_j(target_THW: np.ndarray, mask_THW: np.ndarray) -> float:
    """Mean J."""
    union_T = (target_THW | mask_THW).sum((1, 2))
    shared_T = (target_THW & mask_THW).sum((1, 2))
    return float(np.where(union_T == 0, 1, shared_T / np.maximum(union_T, 1)).mean())


def plain_j_and_f(target_THW: np.ndarray, mask_THW: np.ndarray) -> float:
    """J&F by whole-frame arrays."""
    radius = ceil(0.008 * hypot(*SIZE))
    offset = np.arange(-radius, radius + 1)
    disk = (offset**2 + offset[:, None] ** 2 <= radius**2).astype(np.uint8)
    f = []
    for target_HW, mask_HW in zip(target_THW, mask_THW, strict=True):
        a, b = _boundary(target_HW), _boundary(mask_HW)
        if not a.any() or not b.any():
            f.append(float(a.any() == b.any()))
            continue
        precision = (b & cv2.dilate(a, disk)).sum() / b.sum()
        recall = (a & cv2.dilate(b, disk)).sum() / a.sum()
        f.append(2 * precision * recall / max(precision + recall, 1e-12))
    return (plain_j(target_THW, mask_THW) + float(np.mean(f))) / 2


def _boundary(mask_HW: np.ndarray) -> np.ndarray:
    padded = np.pad(mask_HW.astype(np.uint8), ((0, 1), (0, 1)), mode="edge")
    here, east, south, both = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (here ^ east) | (here ^ south) | (here ^ both)


if __name__ == "__main__":
    main()
