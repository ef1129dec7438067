"""Scores of mask tracks with a text, exactly and, for many videos at once, estimated.

A track's score depends on the other tracks of its video, and the selector reads language from its
first layer on, so an exact score needs the selector. The logit is nearly linear in the mean text
feature, though: from the logits with some reference texts, kept for each track, those with any
other text follow by ridge regression, as one product of a matrix and a vector.

Axes: N mask tracks, T frames, D token channels, K reference texts, W words, C text channels,
E texts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sola_model.selector.batches import pad_texts
from sola_model.selector.network import TrackSelector

TEXTS_AT_ONCE = 16  # bounds memory
RIDGE = 0.003  # of the reference texts' mean square distance from their mean


@torch.inference_mode()
def text_logits(
    selector: TrackSelector, tokens_NTD: np.ndarray, texts: Sequence[Tensor]
) -> np.ndarray:
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
