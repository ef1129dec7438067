"""Language search over every mask track of the warehouse, with the selector of a run.

Each track has a vector, whose product with a query is its score logit, or with the paper's module
an estimate of it (`sola_model.selector.search`); then the most promising videos are scored exactly.
Searched are the tracks that inference selects from: those of the grid. Tracks of boxes belong to
the expression they were detected for, those of ground-truth masks to training.

Axes: N mask tracks, T frames, D token channels, K channels of a vector, V videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from torch import Tensor

from sola_model.selector.search import is_exact, query_of, text_logits
from tasks.runs import Run
from tasks.search.index import SearchIndex, search_index
from tasks.search.vectors import Scorer, scorer_of
from tasks.stage import Plan
from warehouse import Key, Warehouse, WarehouseError


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A track that was found; the score is exact, that of an expression without boxes.

    probability: calibrated, that the text means the track; None if the run has no calibration.
    """

    dataset: str
    split: str
    video_id: str
    track_set: str
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


# --- a query ----------------------------------------------------------------------------------


def check_text(store: Warehouse, run: Run, text: str) -> None:
    """Raise ValueError for a text that is empty, or longer than the run's encoder takes."""
    scorer_of(store, run).encode([text])


def search(plan: Plan, text: str, top: int, exact: int) -> Found:
    """The `top` tracks for a text among those of a plan of `vector_plan` with up-to-date vectors.

    `exact`: of how many videos, the most promising first, scores
    are computed by the selector where products are but estimates; at least `top`.

    Raises ValueError for a text that is empty, or longer than the run's encoder takes, and
    (WarehouseError) when there is no track at all.
    """
    store, wanted, (run, texts) = plan.store, plan.wanted, plan.subject
    scorer = scorer_of(store, run)
    (text_WC,) = scorer.encode([text])
    made = plan.stage.settings(plan.subject)  # vectors of other texts have other channels
    found = store.current("search", run_id=run.run_id).values()
    commits = [commit for commit in found if commit.making.settings == made]
    index = search_index(store, run.run_id, commits)
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
        run_id=run.run_id,
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
    keys = [index.keys[v].of(run_id="") for v in index.video_N[best]]
    return list(zip(logits_N[best].tolist(), keys, index.track_N[best].tolist(), strict=True))


def _selector_scores(
    store: Warehouse, scorer: Scorer, keys: Sequence[Key], text_WC: Tensor
) -> list[Scored]:
    """All tracks of these videos with the logits that the selector gives them, highest first."""
    videos = [key.of(run_id="") for key in keys]
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


def _hits(store: Warehouse, run: Run, scored: Sequence[Scored]) -> list[Hit]:
    keys = {key for _, key, _ in scored}
    ingested = store.current("ingest", {key.of(track_set="") for key in keys})
    precomputed = store.current("precompute", keys)
    videos = store.read("videos", ingested.values()).to_pylist()
    frames = {_key(row): row["frame_count"] for row in videos}
    tracks = store.read("tracks", precomputed.values()).to_pylist()
    visible = {(_key(row), row["track_id"]): row["visible_frames"] for row in tracks}
    return [
        Hit(
            dataset=key.dataset,
            split=key.split,
            video_id=key.video_id,
            track_set=key.track_set,
            track_id=n,
            score=float(expit(logit)),
            probability=run.calibration and float(run.calibration.probability(logit)),
            visible_frames=visible[key, n],
            frame_count=frames[key.of(track_set="")],
        )
        for logit, key, n in scored
    ]


def _key(row: dict) -> Key:
    """The video, and the track set, that a row of a table is about."""
    return Key(row["dataset"], row["split"], row["video_id"], track_set=row.get("track_set", ""))
