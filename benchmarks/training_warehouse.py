"""A warehouse of videos of MeViS's sizes with random tokens and labels, for benchmarks."""

from pathlib import Path

import numpy as np

from tasks.tables import rows
from warehouse import TABLES, Key, Warehouse

VIDEOS, EXPRESSIONS, TRACKS, FRAMES, WIDTH = 8, 10, 40, 60, 256
TRACK_SET = "sam2-hiera-large-grid-0123abcd"


def write_videos(root: Path) -> Warehouse:
    """Publish the tables that training reads; the other tables of their stages are empty."""
    store = Warehouse.create(root)
    rng = np.random.default_rng(0)
    for v in range(VIDEOS):
        key = Key(dataset="random", split="train", video_id=f"video{v}")
        tracks = key.of(track_set=TRACK_SET)
        tables = _tables(tracks, rng)
        for stage, names in {
            "ingest": ("videos", "expressions", "ground_truth"),
            "precompute": ("prompts", "tracks", "masks", "tokens"),
            "label": ("pseudo_labels",),
        }.items():
            every = {name: tables.get(name, TABLES[name].empty_table()) for name in names}
            own = key if stage == "ingest" else tracks
            store.publish(stage, own, "benchmark", every)
    return store


def _tables(key: Key, rng: np.random.Generator) -> dict:
    expressions = [str(e) for e in range(EXPRESSIONS)]
    nothing = [None] * TRACKS
    return {
        "expressions": rows("expressions", key, {
            "expression_id": expressions,
            "text": [f"the object number {e} moving to the left" for e in expressions],
            "object_ids": [["0"]] * EXPRESSIONS,
            "tags": [[]] * EXPRESSIONS,
        }),
        "prompts": rows("prompts", key, {
            "prompt_id": range(TRACKS),
            "frame_index": [0] * TRACKS,
            "source": ["grid"] * TRACKS,
            **{name: nothing for name in ("expression_id", "object_id")},
            **{name: [1] * TRACKS for name in ("height", "width", "area")},
            "counts": ["01"] * TRACKS,
            **{name: nothing for name in ("predicted_iou", "stability", "iou")},
            "fate": ["tracked"] * TRACKS,
            "track_id": range(TRACKS),
        }),
        "tokens": rows("tokens", key, {
            "track_id": np.repeat(np.arange(TRACKS), FRAMES),
            "frame_index": np.tile(np.arange(FRAMES), TRACKS),
            "token": list(rng.normal(size=(TRACKS * FRAMES, WIDTH)).astype(np.float16)),
        }),
        "pseudo_labels": rows("pseudo_labels", key, {
            "expression_id": np.repeat(expressions, TRACKS),
            "track_id": np.tile(np.arange(TRACKS), EXPRESSIONS),
            **{name: np.zeros(TRACKS * EXPRESSIONS) for name in ("miou", "precision", "recall")},
            "label": rng.random(TRACKS * EXPRESSIONS) < 0.1,
        }),
    }  # fmt: skip
