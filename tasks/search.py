"""Language search over every mask track of the warehouse, with the selector of a run.

Each track has a vector: its logits with some reference texts (`sola_model.selector.search`). A
query estimates all scores from the vectors, and computes those of the most promising videos
exactly. Searched are the tracks that inference selects from: those of the grid. Tracks of boxes
belong to the expression they were detected for, those of ground-truth masks to training.

Axes: N mask tracks, T frames, D token channels, K reference texts, V videos.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from sola_model.selector.checkpoints import load_selector
from sola_model.selector.network import TrackSelector
from sola_model.selector.search import reference_weights, text_logits
from sola_model.text.cache import CachedTextEncoder
from sola_model.text.encoder import TextEncoder
from tasks.outcome import Outcome, publish_each
from tasks.tables import read_candidates, read_track_features, rows
from tasks.worker import device
from warehouse import Commit, Key, Warehouse, WarehouseError, fingerprint

VERSION = 1  # raise it when the same run, texts and tracks give other vectors
REFERENCES = 256
LONGEST_REFERENCE = 200  # characters


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A track that was found; the score is exact, that of an expression without boxes."""

    dataset: str
    split: str
    video_id: str
    track_id: int
    score: float
    visible_frames: int
    frame_count: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best tracks first; `scored` of the `videos` were scored exactly."""

    text: str
    run_id: str
    tracks: int
    videos: int
    scored: int
    hits: tuple[Hit, ...]


# --- the vectors ------------------------------------------------------------------------------


def reference_texts(store: Warehouse, run: dict) -> list[str]:
    """The run's reference texts: up to 256 expressions of the warehouse, chosen once.

    While the warehouse has fewer, what is new joins them, and all vectors are made again.
    """
    key = Key(run_id=run["run_id"])
    known: list[str] = []
    if current := store.current("search_references", [key]).get(key):
        table = store.read("search_references", [current])
        known = table.sort_by("position")["text"].to_pylist()
    if len(known) == REFERENCES:
        return known
    expressions = store.read("expressions", store.current("ingest").values())
    texts = {text for text in expressions["text"].to_pylist() if len(text) <= LONGEST_REFERENCE}
    if len(known) == len(texts):
        return known
    encoder = TextEncoder(json.loads(run["config"])["text_encoder"], device())

    def taken(text: str) -> bool:
        try:
            encoder.encode([text])
        except ValueError:  # too long after all
            return False
        return True

    shuffled = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    chosen = list(islice(filter(taken, shuffled), REFERENCES))
    columns = {"position": range(len(chosen)), "text": chosen}
    tables = {"search_references": rows("search_references", key, columns)}
    store.publish("search_references", key, fingerprint(texts=chosen), tables)
    return chosen


def wanted_vectors(
    store: Warehouse,
    run: dict,
    texts: Sequence[str],
    dataset: str | None = None,
    split: str | None = None,
) -> dict[Key, str]:
    """What the vectors of each precomputed video depend on, of all or of a data set or split.

    `texts` are the reference texts.

    Raises:
        WarehouseError: there are no tracks.
    """
    where = {n: v for n, v in (("dataset", dataset), ("split", split)) if v is not None}
    precomputed = store.current("precompute", **where)
    if not precomputed:
        named = "/".join(where.values()) or "any data set"
        raise WarehouseError(
            f"there are no mask tracks of {named} in {store.url}. See `sola status`, then run "
            "`sola precompute`."
        )
    references = fingerprint(texts=texts)
    return {
        replace(key, run_id=run["run_id"]): fingerprint(
            run=run["run_id"],
            references=references,
            tracks=[commit.files[table].sha256 for table in ("tokens", "masks")],
            version=VERSION,
        )
        for key, commit in precomputed.items()
    }


@task(cache_policy=NO_CACHE)
def embed_videos(
    warehouse: str, wanted: dict[Key, str], run_and_texts: tuple[dict, list[str]]
) -> list[Outcome]:
    """Publish the vectors of each video's tracks."""
    store = Warehouse(warehouse)
    run, texts = run_and_texts
    precomputed = store.current("precompute", [replace(key, run_id="") for key in wanted])
    scorer = scorer_of(store, run)
    features = scorer.encode(texts)

    def tables(key: Key) -> dict[str, pa.Table]:
        commit = precomputed[replace(key, run_id="")]
        tracks_N, logits_NK = scorer.logits(store, commit, features)
        columns = {"track_id": tracks_N.tolist(), "vector": list(logits_NK.astype(np.float16))}
        return {"search_vectors": rows("search_vectors", key, columns)}

    return publish_each(store, "search", wanted, tables)


def unmade_vectors(store: Warehouse, wanted: dict[Key, str]) -> tuple[set[Key], set[Key]]:
    """The videos without up-to-date vectors: those to make, and those that failed as they are."""
    missing, failures = set(store.missing("search", wanted)), store.failures("search")
    failed = {k for k in missing if k in failures and failures[k].fingerprint == wanted[k]}
    return missing - failed, failed


# --- a query ----------------------------------------------------------------------------------


def check_text(store: Warehouse, run: dict, text: str) -> None:
    """Raise ValueError for a text that is empty, or longer than the run's encoder takes."""
    scorer_of(store, run).encode([text])


def search(
    store: Warehouse,
    run: dict,
    texts: Sequence[str],
    wanted: dict[Key, str],
    text: str,
    top: int,
    exact: int,
) -> Found:
    """The `top` tracks for a text among those of `wanted` with up-to-date vectors.

    `texts` are the reference texts. `exact`: of how many videos, the most promising first, scores
    are computed exactly; at least `top`.

    Raises ValueError for a text that is empty, or longer than the run's encoder takes, and
    (WarehouseError) when there is no track at all.
    """
    scorer = scorer_of(store, run)
    (text_WC,) = scorer.encode([text])
    current = store.current("search", list(wanted))
    commits = [c for key, c in current.items() if wanted.get(key) == c.fingerprint]
    video_N, vectors_NK = read_vectors(store, commits)
    if not len(video_N):
        raise WarehouseError(f"{len(wanted)} videos have no track to search, see `sola status`.")
    chosen = np.unique(video_N)
    if texts:
        estimates_N = vectors_NK @ reference_weights(scorer.encode(texts), text_WC)
        chosen = promising_videos(video_N, estimates_N, max(exact, top))
    keys = [replace(commits[v].key, run_id="") for v in chosen]
    precomputed = store.current("precompute", keys)
    scored = []
    for key in keys:
        tracks_N, logits_N1 = scorer.logits(store, precomputed[key], [text_WC])
        scored += [(logit, key, n) for n, logit in zip(tracks_N, logits_N1[:, 0], strict=True)]
    scored.sort(key=lambda each: -each[0])
    return Found(
        text=text,
        run_id=run["run_id"],
        tracks=len(video_N),
        videos=len(np.unique(video_N)),
        scored=len(keys),
        hits=tuple(_hits(store, scored[:top])),
    )


def read_vectors(store: Warehouse, commits: Sequence[Commit]) -> tuple[np.ndarray, np.ndarray]:
    """The video of each track, by its place in `commits`, and the vectors (N, K), float32."""
    table = store.read("search_vectors", commits)
    counts = [commit.files["search_vectors"].rows for commit in commits]
    video_N = np.repeat(np.arange(len(commits)), counts)
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    width = len(flat) // max(len(video_N), 1)
    return video_N, flat.reshape(len(video_N), width).astype(np.float32)


def promising_videos(video_N: np.ndarray, estimates_N: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` videos, those of the highest estimates first."""
    best_V = np.full(video_N.max() + 1, -np.inf)
    np.maximum.at(best_V, video_N, estimates_N)
    first_V = np.argsort(-best_V, kind="stable")[:count]
    return first_V[np.isfinite(best_V[first_V])]


def _hits(store: Warehouse, scored: Sequence[tuple[float, Key, int]]) -> list[Hit]:
    keys = {key for _, key, _ in scored}
    ingested, precomputed = store.current("ingest", keys), store.current("precompute", keys)
    frames = {k: store.read("videos", [c])["frame_count"][0].as_py() for k, c in ingested.items()}
    visible = {
        (key, row["track_id"]): row["visible_frames"]
        for key, commit in precomputed.items()
        for row in store.read("tracks", [commit]).to_pylist()
    }
    return [
        Hit(
            dataset=key.dataset,
            split=key.split,
            video_id=key.video_id,
            track_id=int(n),
            score=float(1 / (1 + np.exp(-np.float64(logit)))),
            visible_frames=visible[key, n],
            frame_count=frames[key],
        )
        for logit, key, n in scored
    ]


# --- the model --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scorer:
    """A run's selector and text encoder, and what it reads of a track."""

    selector: TrackSelector
    encode: Callable[[Sequence[str]], list[Tensor]]
    token_features: str

    def logits(
        self, store: Warehouse, precomputed: Commit, texts: Sequence[Tensor]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a video's grid tracks, and their logits with the texts, (N, texts)."""
        candidates_N = read_candidates(store, (precomputed,), [""])[0]
        if not candidates_N.any():
            return np.flatnonzero(candidates_N), np.empty((0, len(texts)), np.float32)
        features_NTD = read_track_features(store, precomputed, token_features=self.token_features)
        logits = text_logits(self.selector, features_NTD[candidates_N], texts)
        return np.flatnonzero(candidates_N), logits


def scorer_of(store: Warehouse, run: dict) -> Scorer:
    """The models of a run."""
    config = json.loads(run["config"])
    return _load(
        str(store.local_copy(run["weights"])),
        config["text_encoder"],
        config["token_features"],
        str(store.work_folder() / "cache" / "text"),
        device(),
    )


@lru_cache(maxsize=1)
def _load(path: str, encoder: str, token_features: str, cache: str, where: str) -> Scorer:
    """One selector and text encoder per process; the encoder is loaded for texts that are new."""
    selector = load_selector(Path(path)).to(where)
    return Scorer(selector, CachedTextEncoder(encoder, cache, where).encode, token_features)
