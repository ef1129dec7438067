"""Language search over every mask track of the warehouse, with the selector of a run.

Each track has a vector, whose product with a query is its score logit, or with the paper's module
an estimate of it (`sola_model.selector.search`); then the most promising videos are scored exactly.
Searched are the tracks that inference selects from: those of the grid. Tracks of boxes belong to
the expression they were detected for, those of ground-truth masks to training.

Axes: N mask tracks, T frames, D token channels, K channels of a vector, V videos.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from scipy.special import expit
from torch import Tensor

from sola_model.selector.base import Selector
from sola_model.selector.checkpoints import load_selector
from sola_model.selector.search import is_exact, query_of, text_logits, track_vectors
from sola_model.text.cache import CachedTextEncoder
from sola_model.text.encoder import TextEncoder
from tasks.evaluate import calibration_of
from tasks.outcome import Outcome, publish_each
from tasks.search_index import SearchIndex, search_index
from tasks.tables import read_candidates, read_track_features, rows
from tasks.worker import device
from warehouse import Commit, Key, Warehouse, WarehouseError, fingerprint

VERSION = 1  # raise it when the same run, texts and tracks give other vectors
REFERENCES = 256
LONGEST_REFERENCE = 200  # characters


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A track that was found; the score is exact, that of an expression without boxes.

    probability: calibrated, that the text means the track; None if the run has no calibration.
    """

    dataset: str
    split: str
    video_id: str
    track_id: int
    score: float
    probability: float | None
    visible_frames: int
    frame_count: int

    @property
    def confidence(self) -> float:
        """What people see: the probability, or without one the score."""
        return self.score if self.probability is None else self.probability


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

    While the warehouse has fewer, what is new joins them, and all vectors are made again. A
    selector whose vectors need none has none.
    """
    if is_exact(scorer_of(store, run).selector):
        return []
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
        replace(key, run_id=run["run_id"]): _vectors_fingerprint(
            run["run_id"], references, *(commit.files[t].sha256 for t in ("tokens", "masks"))
        )
        for key, commit in precomputed.items()
    }


@cache
def _vectors_fingerprint(run_id: str, references: str, *tracks: str) -> str:
    """What a video's vectors depend on; kept, as every query of a process asks for all of them."""
    return fingerprint(run=run_id, references=references, tracks=tracks, version=VERSION)


@task(cache_policy=NO_CACHE)
def embed_videos(
    warehouse: str, wanted: dict[Key, str], run_and_texts: tuple[dict, list[str]]
) -> list[Outcome]:
    """Publish the vectors of each video's tracks."""
    store = Warehouse(warehouse)
    run, texts = run_and_texts
    precomputed = store.current("precompute", [replace(key, run_id="") for key in wanted])
    scorer = scorer_of(store, run)
    references = scorer.encode(texts)

    def tables(key: Key) -> dict[str, pa.Table]:
        tracks_N, tokens_NTD = scorer.tracks(store, precomputed[replace(key, run_id="")])
        vectors = track_vectors(scorer.selector, tokens_NTD, references) if len(tracks_N) else ()
        vectors_16 = [vector_K.astype(np.float16) for vector_K in vectors]
        columns = {"track_id": tracks_N.tolist(), "vector": vectors_16}
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
    are computed by the selector where products are but estimates; at least `top`.

    Raises ValueError for a text that is empty, or longer than the run's encoder takes, and
    (WarehouseError) when there is no track at all.
    """
    scorer = scorer_of(store, run)
    (text_WC,) = scorer.encode([text])
    commits = list(store.current("search", run_id=run["run_id"]).values())
    index = search_index(store, run["run_id"], commits)
    asked_V = np.array([wanted.get(commit.key) == commit.fingerprint for commit in commits], bool)
    asked_N = asked_V[index.video_N]
    if not asked_N.any():
        raise WarehouseError(f"{len(wanted)} videos have no track to search, see `sola status`.")
    videos = np.unique(index.video_N[asked_N])
    if is_exact(scorer.selector):
        logits_N = index.logits(query_of(scorer.selector, text_WC, ()))
        scored = _best_products(index, np.where(asked_N, logits_N, -np.inf), top)
    else:
        if texts:
            query = query_of(scorer.selector, text_WC, scorer.encode(texts))
            estimates_N = np.where(asked_N, index.logits(query), -np.inf)
            videos = promising_videos(index.video_N, estimates_N, max(exact, top))
        scored = _selector_scores(store, scorer, [index.keys[v] for v in videos], text_WC)
    return Found(
        text=text,
        run_id=run["run_id"],
        tracks=int(asked_N.sum()),
        videos=len(np.unique(index.video_N[asked_N])),
        scored=len(videos),
        hits=tuple(_hits(store, run, scored[:top])),
    )


Scored = tuple[float, Key, int]
"""(score logit, video, track id)"""


def _best_products(index: SearchIndex, logits_N: np.ndarray, top: int) -> list[Scored]:
    """The tracks of the highest logits, highest first; never those of -inf."""
    count = min(top, int(np.isfinite(logits_N).sum()))
    best = np.argpartition(-logits_N, count - 1)[:count]
    best = best[np.argsort(-logits_N[best], kind="stable")]
    keys = [replace(index.keys[v], run_id="") for v in index.video_N[best]]
    return list(zip(logits_N[best].tolist(), keys, index.track_N[best].tolist(), strict=True))


def _selector_scores(
    store: Warehouse, scorer: "Scorer", keys: Sequence[Key], text_WC: Tensor
) -> list[Scored]:
    """All tracks of these videos with the logits that the selector gives them, highest first."""
    videos = [replace(key, run_id="") for key in keys]
    precomputed = store.current("precompute", videos)
    scored: list[Scored] = []
    for key in videos:
        tracks_N, tokens_NTD = scorer.tracks(store, precomputed[key])
        logits_N1 = text_logits(scorer.selector, tokens_NTD, [text_WC])
        scored += [(float(x), key, int(n)) for x, n in zip(logits_N1[:, 0], tracks_N, strict=True)]
    return sorted(scored, key=lambda each: -each[0])


def promising_videos(video_N: np.ndarray, estimates_N: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` videos, those of the highest estimates first."""
    best_V = np.full(video_N.max() + 1, -np.inf)
    np.maximum.at(best_V, video_N, estimates_N)
    first_V = np.argsort(-best_V, kind="stable")[:count]
    return first_V[np.isfinite(best_V[first_V])]


def _hits(store: Warehouse, run: dict, scored: Sequence[Scored]) -> list[Hit]:
    calibration = calibration_of(run)
    keys = {key for _, key, _ in scored}
    ingested, precomputed = store.current("ingest", keys), store.current("precompute", keys)
    videos = store.read("videos", ingested.values()).to_pylist()
    frames = {_video(row): row["frame_count"] for row in videos}
    tracks = store.read("tracks", precomputed.values()).to_pylist()
    visible = {(_video(row), row["track_id"]): row["visible_frames"] for row in tracks}
    return [
        Hit(
            dataset=key.dataset,
            split=key.split,
            video_id=key.video_id,
            track_id=n,
            score=float(expit(logit)),
            probability=calibration and float(calibration.probability(logit)),
            visible_frames=visible[key, n],
            frame_count=frames[key],
        )
        for logit, key, n in scored
    ]


def _video(row: dict) -> Key:
    """The video that a row of a table is about."""
    return Key(row["dataset"], row["split"], row["video_id"])


# --- the model --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scorer:
    """A run's selector and text encoder, and what it reads of a track."""

    selector: Selector
    encode: Callable[[Sequence[str]], list[Tensor]]
    token_features: str

    def tracks(self, store: Warehouse, precomputed: Commit) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a video's grid tracks, and what the selector reads of them (N, T, D)."""
        candidates_N = read_candidates(store, (precomputed,), [""])[0]
        features_NTD = read_track_features(store, precomputed, token_features=self.token_features)
        return np.flatnonzero(candidates_N), features_NTD[candidates_N]


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
    cached = CachedTextEncoder(encoder, cache, where)
    encode = partial(cached.encode, words=selector.config.reads_words)
    return Scorer(selector, encode, token_features)
