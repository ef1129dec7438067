"""Select tracks for every expression with a trained selector, and score what they cover."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.special import logit

from sola_model.selector.calibration import Calibration
from tasks.runs import TRAIN, Run
from tasks.stage import Plan, Stage, Unit
from tasks.stages.ingest import INGEST
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
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
    taken,
)
from tasks.worker import device
from warehouse import Key, Warehouse
from warehouse.commit_table import with_fields
from warehouse.planning import current_keys

if TYPE_CHECKING:  # they load torch: only what scores does it
    from sola_model.selector.base import Selector
    from sola_model.text.cache import CachedTextEncoder


def score_plan(store: Warehouse, run: Run, dataset: str, split: str, track_set: str) -> Plan:
    """The predictions and scores of a run for each video that has tracks of this set."""
    tracked = current_keys(store, "precompute", dataset=dataset, split=split, track_set=track_set)
    return Plan(EVALUATE, store, with_fields(tracked, run_id=run.run_id), run)


def _scores(unit: Unit) -> dict[str, pa.Table]:
    """The predictions for a video's expressions and, where it is labelled, their scores.

    An expression whose text the encoder does not take is left out.
    """
    from sola_model.selector.inference import alignment_scores

    store, key, run = unit.store, unit.key, unit.subject
    recipe, ingested = run.recipe, unit.commit(INGEST)
    tracks = unit.tracks(PRECOMPUTE, BOX_TRACKS)
    selector = _selector(str(store.local_copy(run.weights)), device())
    cache = str(store.work_folder() / "cache" / "text")
    encoder = _text_encoder(recipe.text_encoder, cache, device())
    expressions = read_expressions(store, ingested)
    texts = [expression.text for expression in expressions]
    faults = encoder.faults(texts, words=selector.config.reads_words)
    expressions = taken(expressions, faults, unit.left_out)
    scores_EN = alignment_scores(
        selector,
        encoder,
        read_track_features(store, *tracks, token_features=recipe.token_features),
        [expression.text for expression in expressions],
        read_candidates(
            store,
            tracks,
            [expression.expression_id for expression in expressions],
            background=recipe.background_in_inference,
        ),
    )
    return {
        "predictions": _predictions(key, expressions, scores_EN, run.tau, run.calibration),
        **score_tables(
            key,
            read_video(store, ingested),
            expressions,
            read_mask_tracks(store, *tracks),
            read_objects(store, ingested),
            scores_EN,
            run.tau,
        ),
    }


EVALUATE = Stage(
    name="evaluate",
    command="evaluate",
    keyed_by=("dataset", "split", "video_id", "run_id", "track_set"),
    reads=lambda _: {
        INGEST: ("expressions", "ground_truth"),
        PRECOMPUTE: ("prompts", "masks", "tokens"),
        BOX_TRACKS: ("prompts", "masks", "tokens"),
        TRAIN: (),
    },
    optional=(BOX_TRACKS,),
    settings=lambda run: {"run": run.run_id},
    make=_scores,
    version=3,
    covers=(
        "tasks.stages.evaluate",
        "tasks.stages.scoring",
        "tasks.tables",
        "sola_model.selector",
        "sola_model.text",
        "sola_model.metrics",
        "sola_model.masks",
    ),
)


@lru_cache(maxsize=1)
def _selector(path: str, where: str) -> "Selector":
    """One selector per worker process."""
    from sola_model.selector.checkpoints import load_selector

    return load_selector(Path(path)).to(where)


@lru_cache(maxsize=1)
def _text_encoder(name: str, cache: str, where: str) -> "CachedTextEncoder":
    """One text encoder per worker process, loaded for texts that are new to the warehouse."""
    from sola_model.text.cache import CachedTextEncoder

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
