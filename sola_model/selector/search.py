"""Scores of the mask tracks of many videos with a text, as one product with all their vectors.

Each track has a vector, and a text becomes a query. A two-tower selector has both by itself, and
gives a track's score logit from them alone. The paper's module has neither: a track's score depends
on the other tracks of its video, and the selector reads language from its first layer on. Its logit
is nearly linear in the mean text feature, though: a track's vector then holds its logits with some
reference texts, from which those with any other text follow by ridge regression, as an estimate.

Axes: N mask tracks, T frames, D token channels, K channels of a vector (or reference texts),
W words, C text channels, E texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sola_model.selector.base import Selector
from sola_model.selector.batches import pad_texts
from sola_model.selector.two_tower import TwoTower, product_of_experts

TEXTS_AT_ONCE = 16  # bounds memory
RIDGE = 0.003  # of the reference texts' mean square distance from their mean


class Query(Protocol):
    """What a text asks of tracks."""

    def logits(self, vectors_NK: Tensor) -> Tensor:
        """The score logit of each track (N,), or its estimate, from their vectors, float32."""
        ...


@dataclass(frozen=True)
class WordQuery:
    """Of a two-tower selector: the query and bias of every word."""

    query_WK: Tensor
    bias_W: Tensor

    def logits(self, vectors_NK: Tensor) -> Tensor:
        fits_NW = vectors_NK @ self.query_WK.T + self.bias_W
        return product_of_experts(fits_NW, torch.ones_like(self.bias_W))


@dataclass(frozen=True)
class ReferenceQuery:
    """Of the paper's module: weights of the logits with the reference texts."""

    weights_K: Tensor

    def logits(self, vectors_NK: Tensor) -> Tensor:
        return vectors_NK @ self.weights_K


def is_exact(selector: Selector) -> bool:
    """Whether a query gives the selector's own logits; no reference texts are needed then."""
    return isinstance(selector, TwoTower)


@torch.inference_mode()
def track_vectors(
    selector: Selector, tokens_NTD: np.ndarray, references: Sequence[Tensor]
) -> np.ndarray:
    """The vectors (N, K), float32, of the tracks of one video, N >= 1.

    Raises ValueError for tokens that do not fit the selector.
    """
    if not isinstance(selector, TwoTower):
        return text_logits(selector, tokens_NTD, references)
    tokens_1NTD = torch.from_numpy(tokens_NTD)[None].to(next(selector.parameters()).device)
    selector.check_tokens(tokens_1NTD, axes=4)
    return selector.encode_tracks(tokens_1NTD, tokens_1NTD.shape[2:3])[0].cpu().numpy()


@torch.inference_mode()
def query_of(selector: Selector, text_WC: Tensor, references: Sequence[Tensor]) -> Query:
    """The query of a text with features text_WC; of the reference texts likewise."""
    if not isinstance(selector, TwoTower):
        weights_K = reference_weights(references, text_WC)
        return ReferenceQuery(torch.from_numpy(weights_K.astype(np.float32)))
    query_1WK, bias_1W = selector.text(text_WC[None].to(next(selector.parameters()).device))
    return WordQuery(query_1WK[0].cpu(), bias_1W[0].cpu())


@torch.inference_mode()
def text_logits(selector: Selector, tokens_NTD: np.ndarray, texts: Sequence[Tensor]) -> np.ndarray:
    """The score logits (N, E) of the tracks of one video with texts of features text_WC."""
    logits_EN = [np.empty((0, len(tokens_NTD)), np.float32)]
    where = next(selector.parameters()).device
    tokens = torch.from_numpy(tokens_NTD).to(where)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        text_EWC, words_EW = pad_texts(texts[start : start + TEXTS_AT_ONCE])
        logits, _ = selector(tokens, text_EWC.to(where), words_EW.to(where))
        logits_EN.append(logits.cpu().numpy())
    return np.concatenate(logits_EN).T


def reference_weights(references: Sequence[Tensor], text_WC: Tensor) -> np.ndarray:
    """weights_K with which a track's logits with the references give its logit with the text.

    Ridge regression on the mean text features, centred and scaled, with a constant.
    """
    means_KC = np.stack([reference.numpy().mean(axis=0, dtype=float) for reference in references])
    centre_C = means_KC.mean(axis=0)
    scale = np.sqrt(np.square(means_KC - centre_C).sum(axis=1).mean()) or 1.0
    known_KC = (means_KC - centre_C) / scale
    asked_C = (text_WC.numpy().mean(axis=0, dtype=float) - centre_C) / scale
    kernel_KK = known_KC @ known_KC.T + 1 + RIDGE * np.eye(len(known_KC))
    return np.linalg.solve(kernel_KK, known_KC @ asked_C + 1)
