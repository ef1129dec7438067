"""Select tracks for every expression with a trained selector, and score what they cover."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from sola_model.metrics import RLE, Score, j_and_f
from sola_model.selection import (
    all_tracks,
    largest_track,
    merge,
    oracle_selection,
    random_track,
)
from sola_model.selector import TrackSelector, load_selector, pad_texts
from sola_model.text import TextEncoder
from tasks.label import annotations
from tasks.outcome import Outcome, publish_each
from tasks.tables import (
    Expression,
    read_expressions,
    read_mask_tracks,
    read_objects,
    read_track_features,
    read_video,
    rows,
)
from tasks.worker import device
from warehouse import TABLES, Key, Warehouse, WarehouseError, fingerprint

VERSION = 1  # raise it when the same run and tracks give other predictions or scores


def find_run(store: Warehouse, run_id: str | None) -> dict:
    """The row of `runs` with this id, or of the newest run.

    Raises:
        WarehouseError: there is no such run.
    """
    commits = sorted(store.current("train").values(), key=lambda commit: commit.created_at)
    chosen = [c for c in commits if run_id is None or c.key.run_id == run_id][-1:]
    if not chosen:
        runs = ", ".join(commit.key.run_id for commit in commits)
        raise WarehouseError(
            f"there is no run {run_id or ''} in {store.root}. It has: "
            f"{runs or 'none yet; train one with `sola train`'}."
        )
    return store.read("runs", chosen).to_pylist()[0]


def wanted_scores(store: Warehouse, run: dict, dataset: str, split: str) -> dict[Key, str]:
    """What the scores of each precomputed video depend on; `run` is a row of `runs`."""
    ingested = store.current("ingest", dataset=dataset, split=split)
    precomputed = store.current("precompute", dataset=dataset, split=split)
    return {
        replace(key, run_id=run["run_id"]): fingerprint(
            run=run["run_id"],
            tokens=commit.files["tokens"].sha256,
            masks=commit.files["masks"].sha256,
            annotations=annotations(ingested[key]),
            version=VERSION,
        )
        for key, commit in precomputed.items()
    }


@task(cache_policy=NO_CACHE)
def evaluate_videos(warehouse: str, wanted: dict[Key, str], run: dict) -> list[Outcome]:
    """Publish the predictions of each video and, where it is labelled, their scores."""
    store = Warehouse(warehouse)
    ingested, precomputed = store.current("ingest"), store.current("precompute")
    config = json.loads(run["config"])
    tau, text_encoder = config["tau"], config["text_encoder"]
    selector_path = str(store.root / run["weights"])

    def tables(key: Key) -> dict[str, pa.Table]:
        sources, tracks = ingested[replace(key, run_id="")], precomputed[replace(key, run_id="")]
        video = read_video(store, sources)
        expressions = read_expressions(store, sources)
        masks = read_mask_tracks(store, tracks)
        probabilities_EN = alignment_scores(
            _selector(selector_path, device()),
            _text_encoder(text_encoder, device()),
            read_track_features(store, tracks, config["token_features"]),
            [expression.text for expression in expressions],
        )
        objects = read_objects(store, sources)
        selected_EN = probabilities_EN > tau
        return {
            "predictions": _predictions(key, expressions, probabilities_EN, selected_EN),
            "scores": _scores(key, video, expressions, masks, objects, selected_EN),
        }

    return publish_each(store, "evaluate", wanted, tables)


@lru_cache(maxsize=1)
def _selector(path: str, where: str) -> TrackSelector:
    """One selector per worker process."""
    return load_selector(Path(path)).to(where)


@lru_cache(maxsize=1)
def _text_encoder(name: str, where: str) -> TextEncoder:
    """One text encoder per worker process."""
    return TextEncoder(name, where)


@torch.inference_mode()
def alignment_scores(
    selector: TrackSelector, encoder: TextEncoder, tokens_NTD: np.ndarray, texts: Sequence[str]
) -> np.ndarray:
    """The alignment score of every expression with every track (E, N), in 0..1 (paper, Eq. 5)."""
    if not len(texts) or not len(tokens_NTD):
        return np.zeros((len(texts), len(tokens_NTD)), np.float32)
    where = next(selector.parameters()).device
    text_EWC, mask_EW = pad_texts(encoder.encode(texts))
    logits_EN, _ = selector(
        torch.from_numpy(tokens_NTD).to(where), text_EWC.to(where), mask_EW.to(where)
    )
    return logits_EN.sigmoid().cpu().numpy()


def _predictions(
    key: Key, expressions: list[Expression], scores_EN: np.ndarray, selected_EN: np.ndarray
) -> pa.Table:
    count = scores_EN.shape[1]
    columns = {
        "expression_id": [e.expression_id for e in expressions for _ in range(count)],
        "track_id": list(range(count)) * len(expressions),
        "score": scores_EN.ravel(),
        "selected": selected_EN.ravel(),
    }
    return rows("predictions", key, columns)


def _scores(
    key: Key,
    video: dict,
    expressions: list[Expression],
    tracks: list[list[RLE]],
    objects: dict[str, list[RLE]],
    selected_EN: np.ndarray,
) -> pa.Table:
    """J, F and J&F of the selected tracks, beside the oracle's and those of trivial selectors."""
    size, frames = (video["height"], video["width"]), video["frame_count"]
    found = []
    for expression, selected_N in zip(expressions, selected_EN, strict=True):
        if expression.object_ids is None:
            continue
        meant = [objects[i] for i in expression.object_ids if i in objects]
        target = merge(meant, range(len(meant)), size, frames)

        def score(chosen: Sequence[int], target: list[RLE] = target) -> Score:
            return j_and_f(target, merge(tracks, chosen, size, frames))

        chosen = np.nonzero(selected_N)[0].tolist()
        ours, oracle = score(chosen), score(oracle_selection(tracks, target))
        identity = f"{key.dataset}/{key.split}/{key.video_id}/{expression.expression_id}"
        found.append(
            {
                "expression_id": expression.expression_id,
                "tracks_selected": len(chosen),
                "j": ours.j,
                "f": ours.f,
                "jf": ours.jf,
                "oracle_j": oracle.j,
                "oracle_f": oracle.f,
                "oracle_jf": oracle.jf,
                "all_tracks_jf": score(all_tracks(tracks)).jf,
                "largest_track_jf": score(largest_track(tracks)).jf,
                "random_track_jf": score(random_track(tracks, identity)).jf,
            }
        )
    names = [name for name in TABLES["scores"].names if name not in asdict(key)]
    return rows("scores", key, {name: [row[name] for row in found] for name in names})
