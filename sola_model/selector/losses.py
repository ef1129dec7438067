"""The training loss of the track selector: BCE of the scores plus an alignment or contrast loss.

All functions but `contrast_loss` take one expression or a leading axis E of several; they then
return the mean of the expressions' own losses. tracks_EN is False where an expression has no such
track (padding of a batch of videos, see `sola_model.selector.batches`). Axes as in
`sola_model.selector.network`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sola_model.recipes import LossConfig
from sola_model.selector.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Scalar tensors; total = bce + alignment_weight * alignment (+ contrast_weight * contrast)."""

    bce: Tensor
    alignment: Tensor
    total: Tensor


def selection_loss(
    logits_EN: Tensor, labels_EN: Tensor, tracks_EN: Tensor, config: LossConfig
) -> Tensor:
    """Binary cross-entropy of the score logits, positives weighted (paper Eq. 6)."""
    loss_EN = F.binary_cross_entropy_with_logits(
        logits_EN,
        labels_EN,
        pos_weight=logits_EN.new_tensor(config.positive_weight),
        reduction="none",
    )
    return _mean(loss_EN, tracks_EN)


def alignment_loss(
    objects_ENC: Tensor,
    anchor_EC: Tensor,
    negatives_AC: Tensor,
    labels_EN: Tensor,
    tracks_EN: Tensor,
    config: LossConfig,
) -> Tensor:
    """Pull positive tracks to the text, each other track to its closest negative anchor.

    The anchors are the mean text token and the learnable vectors. "paper" is Eq. 7-8 without the
    minus sign that Eq. 7 prints: with it, minimising would push positive tracks off their text.
    "release" puts scaled dot products with the anchors through one BCE each, in place of 1 - cos.
    """
    if config.alignment == "paper":
        near_EN = 1 - F.cosine_similarity(objects_ENC, anchor_EC[..., None, :], dim=-1)
        far_ENA = 1 - F.cosine_similarity(objects_ENC[..., None, :], negatives_AC, dim=-1)
        far_EN, closest_EN = far_ENA.sum(dim=-1), far_ENA.amin(dim=-1)
        positive_EN = near_EN - far_EN
        negative_EN = closest_EN - near_EN - (far_EN - closest_EN)
        return _mean(labels_EN * positive_EN + (1 - labels_EN) * negative_EN, tracks_EN)
    scale = math.exp(config.alignment_log_scale)
    positive_EN = scale * (objects_ENC @ anchor_EC[..., None]).squeeze(-1)
    negative_ENA = scale * (objects_ENC @ negatives_AC.T)
    closest_ENA = F.one_hot(negative_ENA.argmax(dim=-1), len(negatives_AC))
    targets_ENA = closest_ENA * (1 - labels_EN)[..., None]
    to_text_EN = F.binary_cross_entropy_with_logits(positive_EN, labels_EN, reduction="none")
    to_negatives_ENA = F.binary_cross_entropy_with_logits(
        negative_ENA, targets_ENA, reduction="none"
    )
    return _mean(
        config.alignment_positive_weight * to_text_EN + to_negatives_ENA.mean(dim=-1), tracks_EN
    )


def contrast_loss(logits_EVN: Tensor, labels_EN: Tensor, batch: Batch) -> Tensor:
    """How far positive tracks are from coming before all tracks of the batch's other videos.

    Source: InfoNCE (van den Oord et al., Representation Learning with Contrastive Predictive
    Coding, 2018), the cross-entropy of each positive track among itself and those. Whether an
    expression is true of another video is not known, but it rarely is. Only an order is asked for:
    a constant added to an expression's logits changes nothing, so the BCE alone says how high they
    are. Mean over expressions of the mean over positive tracks, 0 where there are none, and for a
    batch of one video.
    """
    if len(batch.tracks) == 1:
        return logits_EVN.new_zeros(())
    own_EV = F.one_hot(batch.video_E, len(batch.tracks)).bool()
    others_EVN = ~own_EV[..., None] & batch.tracks_VN
    others_E = logits_EVN.masked_fill(~others_EVN, -torch.inf).flatten(1).logsumexp(dim=1)
    loss_EN = F.softplus(others_E[:, None] - batch.of_own_video(logits_EVN))
    return ((loss_EN * labels_EN).sum(dim=1) / labels_EN.sum(dim=1).clamp(min=1)).mean()


def total_loss(
    logits_EN: Tensor,
    objects_ENC: Tensor,
    anchor_EC: Tensor,
    negatives_AC: Tensor | None,
    labels_EN: Tensor,
    config: LossConfig,
    tracks_EN: Tensor | None = None,
) -> Losses:
    """The loss of a selector's output.

    logits_EN and objects_ENC are what the selector returned; anchor_EC the mean text token of
    each expression (negative anchors not counted); negatives_AC the selector's
    `negative_token.weight`, which only the alignment loss needs; labels_EN 1 for a positive track,
    else 0 (bool or number); tracks_EN a batch's `tracks_EN`, None without padding. With
    alignment_weight 0 the alignment loss is not computed, and 0.

    Raises ValueError when there is no track to take a loss over.
    """
    if labels_EN.shape != logits_EN.shape or labels_EN.numel() == 0:
        raise ValueError(
            f"Labels of shape {tuple(labels_EN.shape)} for logits of shape "
            f"{tuple(logits_EN.shape)}: one label per score, and at least one, is needed."
        )
    labels_EN = labels_EN.to(logits_EN.dtype)
    if tracks_EN is None:
        tracks_EN = torch.ones_like(labels_EN, dtype=torch.bool)
    bce = selection_loss(logits_EN, labels_EN, tracks_EN, config)
    if config.alignment_weight == 0:
        return Losses(bce=bce, alignment=torch.zeros_like(bce), total=bce)
    assert negatives_AC is not None
    alignment = alignment_loss(objects_ENC, anchor_EC, negatives_AC, labels_EN, tracks_EN, config)
    return Losses(bce=bce, alignment=alignment, total=bce + config.alignment_weight * alignment)


def _mean(loss_EN: Tensor, tracks_EN: Tensor) -> Tensor:
    """Mean over expressions of the mean over each one's tracks."""
    return ((loss_EN * tracks_EN).sum(dim=-1) / tracks_EN.sum(dim=-1)).mean()
