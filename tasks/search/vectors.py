"""Search vectors: for each mask track what a query is multiplied with, kept for later searches.

The product is a track's score logit, or with the paper's module an estimate of it
(`sola_model.selector.search`). Only grid tracks have vectors: see `tasks.search.track_search`.

Axes: N mask tracks, T frames, D token channels, K channels of a vector.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.runs import TRAIN, Run
from tasks.stage import Plan, Stage, Unit
from tasks.stages.precompute import PRECOMPUTE
from tasks.tables import read_candidates, read_track_features, rows
from tasks.track_sets import check_tokens, sets_of
from tasks.worker import device
from warehouse import Commit, Key, Warehouse, WarehouseError, fingerprint
from warehouse.commit_table import KEYS, keys_of, with_fields
from warehouse.planning import current_keys

if TYPE_CHECKING:  # they load torch: only what makes vectors does it
    from torch import Tensor

    from sola_model.selector.base import Selector

AT_MOST = 256  # reference texts
LONGEST_REFERENCE = 200  # characters


class Searched(NamedTuple):
    """A run and the reference texts that its vectors are made with."""

    run: Run
    texts: tuple[str, ...]


def searched(store: Warehouse, run: Run) -> Searched:
    """A run with its reference texts: up to 256 expressions of the warehouse, chosen once.

    While the warehouse has fewer, what is new joins them, and all vectors are made again. A
    selector whose vectors need none has none.
    """
    from sola_model.selector.search import is_exact
    from sola_model.text.encoder import TextEncoder

    if is_exact(scorer_of(store, run).selector):
        return Searched(run, ())
    key = Key(run_id=run.run_id)
    known: list[str] = []
    if current := store.current("search_references", [key]).get(key):
        table = store.read("search_references", [current])
        known = table.sort_by("position")["text"].to_pylist()
    if len(known) == AT_MOST:
        return Searched(run, tuple(known))
    expressions = store.read("expressions", store.current("ingest").values())
    texts = {text for text in expressions["text"].to_pylist() if len(text) <= LONGEST_REFERENCE}
    if len(known) == len(texts):
        return Searched(run, tuple(known))
    encoder = TextEncoder(run.recipe.text_encoder)  # counts tokens, encodes nothing
    shuffled = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    chosen = list(islice((text for text in shuffled if not encoder.fault(text)), AT_MOST))
    columns = {"position": range(len(chosen)), "text": chosen}
    tables = {"search_references": rows("search_references", key, columns)}
    store.publish("search_references", key, fingerprint(texts=chosen), tables)
    return Searched(run, tuple(chosen))


def vector_plan(
    store: Warehouse,
    about: Searched,
    dataset: str | None = None,
    split: str | None = None,
    tracks: str | None = None,
) -> Plan:
    """The vectors of each video with tracks, of all or of a data set or split.

    Of each split the track set is the one `named`, or as those that the run was trained on. Splits
    without such a set are left out.

    Raises:
        WarehouseError: there is nothing to search, or tracks are of frames that were replaced.
    """
    where = {n: v for n, v in (("dataset", dataset), ("split", split)) if v is not None}
    there = {(key.dataset, key.split) for key in store.current("track_set", **where)}
    chosen: dict[tuple[str, str], str] = {}
    for name in sorted(there):
        sets = sets_of(store, *name)
        like = about.run.tokens
        if tracks is None:
            fitting = [n for n, s in sets.items() if like in (None, s.tokens) and s.has_tokens]
        else:
            fitting = [check_tokens(s).name for n, s in sets.items() if n == tracks]
        chosen |= {name: fitting[0]} if fitting else {}
    of_splits = [
        current_keys(store, "precompute", dataset=name[0], split=name[1], track_set=track_set)
        for name, track_set in chosen.items()
    ]
    tracked = pa.concat_tables([KEYS.empty_table(), *of_splits])
    if not tracked.num_rows:
        named = "/".join(where.values()) or "any data set"
        raise WarehouseError(
            f"there are no mask tracks of {named} in {store.url} that run {about.run.run_id} can "
            "search. `sola tracks` lists those there are, `sola precompute` makes them."
        )
    commits = store.current(PRECOMPUTE.name, list(keys_of(tracked))).values()
    if stale := store.stale(commits):
        mend = sorted({PRECOMPUTE.redo(commit.key) for commit in stale})
        raise WarehouseError(
            f"the tracks of {len(stale)} of {len(commits)} videos to search are of frames that "
            f"were replaced since. Run {', '.join(mend)}."
        )
    return Plan(SEARCH, store, with_fields(tracked, run_id=about.run.run_id), about)


def unmade_vectors(plan: Plan) -> tuple[set[Key], set[Key]]:
    """The videos without up-to-date vectors: those to make, and those that failed as they are."""
    missing = plan.to_make()
    failures = plan.store.failures(SEARCH.name) if missing else {}
    failed = {k for k in missing if k in failures and failures[k].fingerprint == missing[k]}
    return missing.keys() - failed, failed


def _vectors(unit: Unit) -> dict[str, pa.Table]:
    from sola_model.selector.search import track_vectors

    run, texts = unit.subject
    scorer = scorer_of(unit.store, run)
    tracks_N, tokens_NTD = scorer.tracks(unit.store, unit.commit(PRECOMPUTE))
    references = _encoded(scorer, texts)
    vectors = track_vectors(scorer.selector, tokens_NTD, references) if len(tracks_N) else ()
    vectors_16 = [vector_K.astype(np.float16) for vector_K in vectors]
    columns = {"track_id": tracks_N.tolist(), "vector": vectors_16}
    return {"search_vectors": rows("search_vectors", unit.key, columns)}


@lru_cache(maxsize=1)
def _encoded(scorer: "Scorer", texts: tuple[str, ...]) -> "list[Tensor]":
    return scorer.encode(texts)


def _settings(about: Searched) -> dict[str, Any]:
    return {"run": about.run.run_id, "references": fingerprint(texts=about.texts)}


@dataclass(frozen=True)
class Scorer:
    """A run's selector and text encoder, and what it reads of a track."""

    selector: "Selector"
    encode: "Callable[[Sequence[str]], list[Tensor]]"
    token_features: str

    def tracks(self, store: Warehouse, precomputed: Commit) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a video's grid tracks, and what the selector reads of them (N, T, D)."""
        candidates_N = read_candidates(store, (precomputed,), [""])[0]
        features_NTD = read_track_features(store, precomputed, token_features=self.token_features)
        return np.flatnonzero(candidates_N), features_NTD[candidates_N]


def scorer_of(store: Warehouse, run: Run) -> Scorer:
    """The models of a run."""
    return _load(
        str(store.local_copy(run.weights)),
        run.recipe.text_encoder,
        run.recipe.token_features,
        str(store.work_folder() / "cache" / "text"),
        device(),
    )


@lru_cache(maxsize=1)
def _load(path: str, encoder: str, token_features: str, cache: str, where: str) -> Scorer:
    """One selector and text encoder per process; the encoder is loaded for texts that are new."""
    from sola_model.selector.checkpoints import load_selector
    from sola_model.text.cache import CachedTextEncoder

    selector = load_selector(Path(path)).to(where)
    cached = CachedTextEncoder(encoder, cache, where)
    encode = partial(cached.encode, words=selector.config.reads_words)
    return Scorer(selector, encode, token_features)


REFERENCES = Stage(name="search_references", command="search", keyed_by=("run_id",))
SEARCH = Stage(
    name="search",
    command="search",
    keyed_by=("dataset", "split", "video_id", "run_id", "track_set"),
    reads=lambda _: {PRECOMPUTE: ("prompts", "masks", "tokens"), TRAIN: ()},
    settings=_settings,
    make=_vectors,
    uses_gpu=True,
    version=1,
    covers=(
        "tasks.search.vectors",
        "tasks.tables",
        "sola_model.selector",
        "sola_model.masks",
        "sola_model.text",
    ),
)
