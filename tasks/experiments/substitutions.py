"""Scores of a split when one part of the method is replaced: other tokens, perfect prompts.

Axes: E expressions, N tracks, T frames, D token channels.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import grid_prompts
from sola_model.extraction.trackers import load_tracker
from sola_model.extraction.tracks import track_prompts
from sola_model.selector.checkpoints import load_selector
from sola_model.selector.inference import alignment_scores
from sola_model.text.cache import CachedTextEncoder
from tasks.runs import Run
from tasks.stages.scoring import score_tables
from tasks.tables import (
    Expression,
    read_candidates,
    read_expressions,
    read_mask_tracks,
    read_objects,
    read_tokens,
    read_track_features,
    read_video,
    taken,
)
from tasks.track_sets import TrackSet
from tasks.worker import device
from warehouse import Commit, Key, Warehouse
from warehouse.frames import frames_of
from warehouse.masks import RLE


def rounded(tokens_NTD: np.ndarray, bits: int) -> np.ndarray:
    """Tokens as whole numbers of so many bits, with one scale for each channel of a video."""
    top = 2 ** (bits - 1) - 1
    scale_D = np.abs(tokens_NTD).max((0, 1), initial=1e-9) / top
    return (np.rint(tokens_NTD / scale_D) * scale_D).astype(np.float32)


def jf_with_tokens(
    store: Warehouse,
    run: Run,
    dataset: str,
    split: str,
    track_set: TrackSet,
    change: Callable[[np.ndarray], np.ndarray],
) -> float:
    """Mean J&F of a run when the object tokens (N, T, D) of every video are changed first."""
    recipe = run.recipe
    selector = load_selector(store.local_copy(run.weights)).to(device())
    cache = str(store.work_folder() / "cache" / "text")
    encoder = CachedTextEncoder(recipe.text_encoder, cache, device())
    scores = []
    for ingested, tracks in _tracked(store, dataset, split, track_set):
        key, expressions = tracks[0].key, read_expressions(store, ingested)
        texts = [expression.text for expression in expressions]
        faults = encoder.faults(texts, words=selector.config.reads_words)
        expressions = taken(expressions, faults, [])  # as the run was evaluated
        features_NTD = read_track_features(store, *tracks, token_features=recipe.token_features)
        width = read_tokens(store, *tracks).shape[2]
        changed_NTD = np.concatenate(
            [change(features_NTD[..., :width]), features_NTD[..., width:]], axis=2
        )
        candidates_EN = read_candidates(
            store,
            tracks,
            [e.expression_id for e in expressions],
            background=recipe.background_in_inference,
        )
        texts = [expression.text for expression in expressions]
        scores_EN = alignment_scores(selector, encoder, changed_NTD, texts, candidates_EN)
        masks = read_mask_tracks(store, *tracks)
        scores.append(_scores(store, key, ingested, expressions, masks, scores_EN, run.tau))
    return _mean(scores, "jf")


def oracle_of_ground_truth_prompts(
    store: Warehouse, dataset: str, split: str, track_set: TrackSet
) -> float:
    """Mean J&F of the best union of the tracks that ground-truth masks prompted."""
    scores = []
    for ingested, (tracks,) in _tracked(store, dataset, split, track_set):
        prompts = store.read("prompts", [tracks]).to_pylist()
        given = {p["track_id"] for p in prompts if p["fate"] == "tracked" and p["source"] == "mask"}
        masks = read_mask_tracks(store, tracks)
        expressions = read_expressions(store, ingested)
        scores_EN = np.full((len(expressions), len(masks)), np.nan)
        scores_EN[:, sorted(given)] = 0.0
        scores.append(_scores(store, tracks.key, ingested, expressions, masks, scores_EN))
    return _mean(scores, "oracle_jf")


def extraction_seconds(
    store: Warehouse, dataset: str, split: str, track_set: TrackSet, videos: int
) -> float:
    """Seconds a frame to make grid tracks, over the first videos, in this process, one at a time.

    Of CPU time on a CPU, of time on a GPU. The first video is computed once before, uncounted.
    """
    model = load_tracker(track_set.tracker, track_set.checkpoint, device())
    settings = track_set.extraction
    clock = time.process_time if device() == "cpu" else time.perf_counter
    spent, frames = 0.0, 0
    chosen = _tracked(store, dataset, split, track_set)[:videos]
    for number, (ingested, _) in enumerate([chosen[0], *chosen]):
        row = read_video(store, ingested)
        start = clock()
        video = EncodedVideo(model, frames_of(row), prompt_features=settings.prompt_features)
        track_prompts(model, video, grid_prompts(model, video, settings.grid), settings)
        if number:
            spent += clock() - start
            frames += row["frame_count"]
    return spent / frames


def _tracked(
    store: Warehouse, dataset: str, split: str, track_set: TrackSet
) -> list[tuple[Commit, tuple[Commit, ...]]]:
    """The videos of a split that have tracks: how they were ingested, and where the tracks are."""
    ingested = store.current("ingest", dataset=dataset, split=split)
    made = [
        store.current(stage, dataset=dataset, split=split, track_set=track_set.name)
        for stage in ("precompute", "box_tracks")
    ]
    return [
        (ingested[key.of(track_set="")], tuple(each[key] for each in made if key in each))
        for key in made[0]
    ]


def _scores(
    store: Warehouse,
    key: Key,
    ingested: Commit,
    expressions: Sequence[Expression],
    masks: Sequence[Sequence[RLE]],
    scores_EN: np.ndarray,
    tau: float = 0.5,
) -> pa.Table:
    """The table `scores` of one video."""
    video, objects = read_video(store, ingested), read_objects(store, ingested)
    return score_tables(key, video, expressions, masks, objects, scores_EN, tau)["scores"]


def _mean(scores: Sequence[pa.Table], column: str) -> float:
    return pc.mean(pa.concat_tables(scores)[column]).as_py()
