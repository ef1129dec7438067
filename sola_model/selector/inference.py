"""A trained selector on the mask tracks of a video: alignment scores, and the masks they select.

Axes: E expressions, N mask tracks, T frames, D token channels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sola_model.masks.geometry import geometry
from sola_model.metrics.jf import RLE
from sola_model.recipes import Recipe
from sola_model.selector.base import Selector
from sola_model.selector.batches import pad_texts
from sola_model.selector.selection import merge

if TYPE_CHECKING:  # SAM2 is slow to import, and has done its part
    from sola_model.extraction.tracks import VideoTracks


class Encoder(Protocol):
    """`TextEncoder` or `CachedTextEncoder`."""

    def encode(self, texts: Sequence[str], *, words: bool = False) -> list[Tensor]: ...


class Selected(NamedTuple):
    """scores_EN: alignment scores in 0..1. masks_ET: the union of the selected tracks, COCO RLE.

    A video without tracks has no scores (E, 0) and no masks (E empty lists).
    """

    scores_EN: np.ndarray
    masks_ET: list[list[RLE]]


def select(
    selector: Selector,
    encoder: Encoder,
    tracks: "VideoTracks",
    texts: Sequence[str],
    recipe: Recipe,
) -> Selected:
    """Score the tracks of a video for each text, and merge those that score above `recipe.tau`.

    `recipe` is the one that the selector was trained with; tokens are rounded to float16, as the
    warehouse keeps them. Raises ValueError for an empty text (paper, section 3.5), and for a recipe
    whose tau is not chosen yet.
    """
    if recipe.tau is None:
        raise ValueError(
            f"recipe {recipe.name!r} has no tau, it is chosen in training: use the recipe that the "
            "run's column config holds (recipe_from), or set one with dataclasses.replace."
        )
    features_NTD = track_features(tracks, recipe.token_features)
    everything_EN = np.ones((len(texts), len(features_NTD)), bool)
    scores_EN = alignment_scores(selector, encoder, features_NTD, texts, everything_EN)
    masks = [track.masks for track in tracks.tracks]
    if not masks:
        return Selected(scores_EN, [[] for _ in texts])
    return Selected(
        scores_EN,
        [merge(masks, scores_N > recipe.tau, tracks.size, len(masks[0])) for scores_N in scores_EN],
    )


def track_features(tracks: "VideoTracks", token_features: str) -> np.ndarray:
    """What a selector reads of tracks (N, T, D): tokens, with geometry if the recipe has it so."""
    if not tracks.tracks:
        return np.empty((0, 1, 0), np.float32)
    tokens_NTD = np.stack([track.tokens_TD for track in tracks.tracks])
    tokens_NTD = tokens_NTD.astype(np.float16).astype(np.float32)
    if token_features == "pointer":
        return tokens_NTD
    geometry_NTG = geometry([track.masks for track in tracks.tracks])
    return np.concatenate([tokens_NTD, geometry_NTG], axis=-1)


@torch.inference_mode()
def alignment_scores(
    selector: Selector,
    encoder: Encoder,
    tokens_NTD: np.ndarray,
    texts: Sequence[str],
    candidates_EN: np.ndarray,
) -> np.ndarray:
    """The alignment score of every expression with its candidate tracks (E, N), in 0..1; else NaN.

    A score of the paper's module depends on the tracks it is computed with (section 3.5), so the
    expressions with the same candidates run together, with these tracks alone.
    """
    scores_EN = np.full((len(texts), len(tokens_NTD)), np.nan, np.float32)
    if not scores_EN.size:
        return scores_EN
    where = next(selector.parameters()).device
    tokens = torch.from_numpy(tokens_NTD)
    text_EWC, mask_EW = pad_texts(encoder.encode(texts, words=selector.config.reads_words))
    for candidates_N in np.unique(candidates_EN, axis=0):
        if candidates_N.any():
            members_E = (candidates_EN == candidates_N).all(axis=1)
            logits_EN, _ = selector(
                tokens[candidates_N].to(where),
                text_EWC[members_E].to(where),
                mask_EW[members_E].to(where),
            )
            scores_EN[np.ix_(members_E, candidates_N)] = logits_EN.sigmoid().cpu().numpy()
    return scores_EN
