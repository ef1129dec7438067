"""What object tokens carry: classes, place and motion by linear read-out (paper section 4.5).

Axes: N tracks, T frames, K samples, D token channels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sola_model.probe import linear_accuracy, read_out
from tasks.experiments.measured import Measured
from tasks.paper import CLASS_ACCURACY
from tasks.pictures.masks_on_frames import shown_frames
from tasks.tables import read_expressions, read_tokens
from warehouse import Key, Warehouse, WarehouseError
from warehouse.demo_data.scene import COLOURS, KINDS
from warehouse.sources.pascal_voc import CLASSES

SPAN = 4  # frames that a displacement is measured over
FRAMES = 6  # at most, of each track; neighbouring frames say little new

PROPERTIES: dict[str, dict[str, tuple[str, ...]]] = {
    "demo": {"colour": tuple(COLOURS), "shape": KINDS},
    "demo-long": {"colour": tuple(COLOURS), "shape": KINDS},
    "pascal-voc": {"class": CLASSES},
}
"""What the expressions of a data set say about an object, and in which words."""


class Motions(NamedTuple):
    """places_K2: centre of the mask's box, in widths and heights of the frame; moves_K2: its
    displacement since SPAN frames earlier, whose tokens are `earlier_KD`."""

    tokens_KD: np.ndarray
    earlier_KD: np.ndarray
    places_K2: np.ndarray
    moves_K2: np.ndarray


def probe_tokens(
    store: Warehouse, dataset: str, splits: Mapping[str, str], seeds: int
) -> list[Measured]:
    """Accuracies and R^2 on the second of two splits of heads fitted on the first.

    `splits`: their names, with the track set of each.

    Beside each the same with the targets of the samples fitted on permuted, for every seed.

    Raises:
        WarehouseError: a split has no track of a known class.
    """
    split, validation = splits
    rows: list[Measured] = []

    def add(
        variant: str,
        metric: str,
        unit: str,
        fit: Callable[[np.ndarray, np.ndarray, np.ndarray], float | np.ndarray],
        tokens_KD: np.ndarray,
        targets_K: np.ndarray,
        train_K: np.ndarray,
    ) -> None:
        paper = CLASS_ACCURACY.get(dataset) if metric == "accuracy" else None
        found: list[tuple[str, int | None, np.ndarray, float | None]]
        found = [(metric, None, targets_K, paper)]
        for seed in range(seeds):
            permuted_K = targets_K.copy()
            permuted_K[train_K] = np.random.default_rng(seed).permutation(targets_K[train_K])
            found.append((f"{metric}, permuted", seed, permuted_K, None))
        rows.extend(
            Measured(
                variant=variant,
                metric=name,
                unit=unit,
                seed=seed,
                paper=paper,
                value=float(np.mean(fit(tokens_KD, given_K, train_K))),
                measured_on=f"{dataset}/{validation}",
            )
            for name, seed, given_K, paper in found
        )

    for name, words in PROPERTIES.get(dataset, {}).items():
        parts = [classified_tokens(store, dataset, *part, words) for part in splits.items()]
        if not all(len(classes_K) for _, classes_K in parts):
            raise WarehouseError(f"{split} or {validation} has no track of a known {name}")
        tokens_KD, classes_K = (np.concatenate(each) for each in zip(*parts, strict=True))
        train_K = np.arange(len(classes_K)) < len(parts[0][1])
        add(name, "accuracy", "share", linear_accuracy, tokens_KD, classes_K, train_K)
    found = (motion_tokens(store, dataset, *part) for part in splits.items())
    motions = [of_split for of_split in found if of_split is not None]
    if len(motions) < len(splits):  # images
        return rows
    tokens_KD, earlier_KD, places_K2, moves_K2 = (
        np.concatenate(each) for each in zip(*motions, strict=True)
    )
    train_K = np.arange(len(tokens_KD)) < len(motions[0].tokens_KD)
    both_KD = np.concatenate([tokens_KD, earlier_KD], axis=1)
    for name, given_KD, targets_K2 in (
        ("position", tokens_KD, places_K2),
        (f"motion over {SPAN} frames, from both tokens", both_KD, moves_K2),
        (f"motion over {SPAN} frames, from the last token", tokens_KD, moves_K2),
    ):
        add(name, "R^2", "", read_out, given_KD, targets_K2, train_K)
    return rows


def classified_tokens(
    store: Warehouse, dataset: str, split: str, tracks: str, words: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (K, D) of tracks of known class, up to FRAMES of each, and the classes (K,).

    A track is of a class when its pseudo-label is positive for an expression that begins with the
    class's name ("the red circle ..."), and for none that begins with another's.
    """
    ingested = store.current("ingest", dataset=dataset, split=split)
    labelled = store.current("label", dataset=dataset, split=split, track_set=tracks)
    tokens, classes = [], []
    for key, commit in labelled.items():
        texts = {
            e.expression_id: e.text for e in read_expressions(store, ingested[key.of(track_set="")])
        }
        named: dict[int, set[int]] = {}
        for row in store.read("pseudo_labels", [commit]).to_pylist():
            found = _word(texts[row["expression_id"]], words)
            if row["label"] and found is not None:
                named.setdefault(row["track_id"], set()).add(found)
        tokens_NTD, visible_NT, _ = _tracks(store, key)
        for n, kinds in sorted(named.items()):
            seen = np.flatnonzero(visible_NT[n])
            if len(kinds) == 1 and len(seen):
                chosen = seen[shown_frames(len(seen), FRAMES)]
                tokens.append(tokens_NTD[n, chosen])
                classes += [*kinds] * len(chosen)
    return np.concatenate(tokens) if tokens else np.empty((0, 0)), np.array(classes, np.int64)


def motion_tokens(store: Warehouse, dataset: str, split: str, tracks: str) -> Motions | None:
    """Tokens of all tracks, up to FRAMES of each, with where the mask is and how it moved.

    None when no track is seen for SPAN frames.
    """
    samples: list[tuple[np.ndarray, ...]] = []
    for key in store.current("precompute", dataset=dataset, split=split, track_set=tracks):
        tokens_NTD, visible_NT, places_NT2 = _tracks(store, key)
        for tokens_TD, visible_T, places_T2 in zip(tokens_NTD, visible_NT, places_NT2, strict=True):
            both = np.flatnonzero(visible_T[SPAN:] & visible_T[:-SPAN]) + SPAN
            if len(both):
                now = both[shown_frames(len(both), FRAMES)]
                before = now - SPAN
                moves = places_T2[now] - places_T2[before]
                samples.append((tokens_TD[now], tokens_TD[before], places_T2[now], moves))
    if not samples:
        return None
    return Motions(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))


def _word(text: str, words: Sequence[str]) -> int | None:
    """The index of the word that the text begins with, article apart, in singular or plural."""
    start = text.lower().split()[:3]
    found = [w for w, word in enumerate(words) if word in start or f"{word}s" in start]
    return found[0] if len(found) == 1 else None


def _tracks(store: Warehouse, key: Key) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tokens_NTD, visible_NT, places_NT2 of a video's grid tracks."""
    commit = store.current("precompute", [key])[key]
    tokens_NTD = read_tokens(store, commit)
    masks = store.read("masks", [commit]).sort_by(
        [("track_id", "ascending"), ("frame_index", "ascending")]
    )
    x, y, w, h, area, width, height = (
        masks[name].to_numpy().reshape(tokens_NTD.shape[:2]).astype(np.float64)
        for name in ("x", "y", "w", "h", "area", "width", "height")
    )
    places_NT2 = np.stack([(x + w / 2) / width, (y + h / 2) / height], axis=-1)
    return tokens_NTD, area > 0, places_NT2
