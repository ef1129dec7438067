"""The training loss of the track selector: BCE of the scores plus an alignment loss.

All functions take one expression or a leading axis E of several expressions of one video; they
then return the mean of the expressions' own losses. Axes as in `sola_model.selector`.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sola_model.recipes import LossConfig


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Scalar tensors; total = bce + alignment_weight * alignment."""

    bce: Tensor
    alignment: Tensor
    total: Tensor


def selection_loss(logits_EN: Tensor, labels_EN: Tensor, config: LossConfig) -> Tensor:
    """Binary cross-entropy of the score logits, positives weighted (paper Eq. 6)."""
    positive_weight = logits_EN.new_tensor(config.positive_weight)
    return F.binary_cross_entropy_with_logits(logits_EN, labels_EN, pos_weight=positive_weight)


def alignment_loss(
    objects_ENC: Tensor,
    anchor_EC: Tensor,
    negatives_AC: Tensor,
    labels_EN: Tensor,
    config: LossConfig,
) -> Tensor:
    """Pull positive tracks to the text, each other track to its closest negative anchor.

    Released form of paper Eq. 7-8: scaled dot products with the positive anchor (the mean text
    token) and with the negative anchors go through one BCE each, in place of 1 - cos.
    """
    scale = math.exp(config.alignment_log_scale)
    positive_EN = scale * (objects_ENC @ anchor_EC[..., None]).squeeze(-1)
    negative_ENA = scale * (objects_ENC @ negatives_AC.T)
    closest_ENA = F.one_hot(negative_ENA.argmax(dim=-1), len(negatives_AC))
    targets_ENA = closest_ENA * (1 - labels_EN)[..., None]
    positive = F.binary_cross_entropy_with_logits(positive_EN, labels_EN)
    negative = F.binary_cross_entropy_with_logits(negative_ENA, targets_ENA)
    return config.alignment_positive_weight * positive + negative


def total_loss(
    logits_EN: Tensor,
    objects_ENC: Tensor,
    anchor_EC: Tensor,
    negatives_AC: Tensor,
    labels_EN: Tensor,
    config: LossConfig,
) -> Losses:
    """The loss of a selector's output.

    logits_EN and objects_ENC are what the selector returned; anchor_EC the mean text token of
    each expression (negative anchors not counted); negatives_AC the selector's
    `negative_token.weight`; labels_EN 1 for a positive track, else 0 (bool or number).

    Raises ValueError when there is no track to take a loss over.
    """
    if labels_EN.shape != logits_EN.shape or labels_EN.numel() == 0:
        raise ValueError(
            f"Labels of shape {tuple(labels_EN.shape)} for logits of shape "
            f"{tuple(logits_EN.shape)}: one label per score, and at least one, is needed."
        )
    labels_EN = labels_EN.to(logits_EN.dtype)
    bce = selection_loss(logits_EN, labels_EN, config)
    alignment = alignment_loss(objects_ENC, anchor_EC, negatives_AC, labels_EN, config)
    return Losses(bce=bce, alignment=alignment, total=bce + config.alignment_weight * alignment)
