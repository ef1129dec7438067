"""Select tracks for every expression with a trained selector, and score what they cover."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from scipy.special import logit

from sola_model.selector.base import Selector
from sola_model.selector.calibration import Calibration
from sola_model.selector.checkpoints import load_selector
from sola_model.selector.inference import alignment_scores
from sola_model.text.cache import CachedTextEncoder
from tasks.stages.label import annotations
from tasks.stages.outcome import Outcome, publish_each
from tasks.stages.scoring import score_tables
from tasks.tables import (
    Expression,
    read_candidates,
    read_expressions,
    read_mask_tracks,
    read_objects,
    read_track_features,
    read_video,
    rows,
    track_commits,
)
from tasks.worker import device
from warehouse import Key, Warehouse, WarehouseError, fingerprint

VERSION = 3  # raise it when the same run and tracks give other predictions or scores


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
            f"there is no run {run_id or ''} in {store.url}. It has: "
            f"{runs or 'none yet; train one with `sola train`'}."
        )
    return store.read("runs", chosen).to_pylist()[0]


def wanted_scores(store: Warehouse, run: dict, dataset: str, split: str) -> dict[Key, str]:
    """What the scores of each precomputed video depend on; `run` is a row of `runs`."""
    ingested = store.current("ingest", dataset=dataset, split=split)
    precomputed = store.current("precompute", dataset=dataset, split=split)
    boxed = store.current("box_tracks", dataset=dataset, split=split)
    return {
        replace(key, run_id=run["run_id"]): fingerprint(
            run=run["run_id"],
            tracks=[
                commits[key].files[table].sha256
                for commits in (precomputed, boxed)
                if key in commits
                for table in ("tokens", "masks")
            ],
            annotations=annotations(ingested[key]),
            version=VERSION,
        )
        for key in precomputed
    }


@task(cache_policy=NO_CACHE)
def evaluate_videos(warehouse: str, wanted: dict[Key, str], run: dict) -> list[Outcome]:
    """Publish the predictions of each video and, where it is labelled, their scores."""
    store = Warehouse(warehouse)
    videos = [replace(key, run_id="") for key in wanted]
    ingested = store.current("ingest", videos)
    config = json.loads(run["config"])
    calibration = calibration_of(run)
    tau, text_encoder = config["tau"], config["text_encoder"]
    selector_path = str(store.local_copy(run["weights"]))

    def tables(key: Key) -> dict[str, pa.Table]:
        video = replace(key, run_id="")
        sources, tracks = ingested[video], track_commits(store, video)
        expressions = read_expressions(store, sources)
        scores_EN = alignment_scores(
            _selector(selector_path, device()),
            _text_encoder(text_encoder, str(store.work_folder() / "cache" / "text"), device()),
            read_track_features(store, *tracks, token_features=config["token_features"]),
            [expression.text for expression in expressions],
            read_candidates(
                store,
                tracks,
                [e.expression_id for e in expressions],
                background=config["background_in_inference"],
            ),
        )
        return {
            "predictions": _predictions(key, expressions, scores_EN, tau, calibration),
            **score_tables(
                key,
                read_video(store, sources),
                expressions,
                read_mask_tracks(store, *tracks),
                read_objects(store, sources),
                scores_EN,
                tau,
            ),
        }

    return publish_each(store, "evaluate", wanted, tables)


def calibration_of(run: dict) -> Calibration | None:
    """What makes probabilities of the scores of a run, a row of `runs`."""
    return None if run["temperature"] is None else Calibration(run["temperature"], run["bias"])


@lru_cache(maxsize=1)
def _selector(path: str, where: str) -> Selector:
    """One selector per worker process."""
    return load_selector(Path(path)).to(where)


@lru_cache(maxsize=1)
def _text_encoder(name: str, cache: str, where: str) -> CachedTextEncoder:
    """One text encoder per worker process, loaded for texts that are new to the warehouse."""
    return CachedTextEncoder(name, cache, where)


def _predictions(
    key: Key,
    expressions: list[Expression],
    scores_EN: np.ndarray,
    tau: float,
    calibration: Calibration | None,
) -> pa.Table:
    """A row per expression and candidate track."""
    expression_K, track_K = np.nonzero(~np.isnan(scores_EN))
    score_K = scores_EN[expression_K, track_K]
    columns: dict[str, Any] = {
        "expression_id": [expressions[e].expression_id for e in expression_K],
        "track_id": track_K,
        "score": score_K,
        "selected": score_K > tau,
    }
    if calibration is not None:
        columns["probability"] = calibration.probability(logit(score_K.astype(np.float64)))
    return rows("predictions", key, columns)
