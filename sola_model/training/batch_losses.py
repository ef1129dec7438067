"""The loss of a batch of videos, for training and validation.

Axes as in `sola_model.selector.batches`.
"""

import torch
from torch import Tensor

from sola_model.recipes import Recipe
from sola_model.selector.base import Selector
from sola_model.selector.batches import Batch
from sola_model.selector.losses import Losses, contrast_loss, selection_loss, total_loss
from sola_model.selector.network import TrackSelector, mean_over_words
from sola_model.selector.two_tower import TwoTower


def batch_losses(
    selector: Selector, batch: Batch, labels_EN: Tensor, recipe: Recipe
) -> tuple[Losses, Tensor]:
    """Losses (means over the batch's expressions) and logits_EN; all on one device."""
    if recipe.loss.contrast_weight:
        assert isinstance(selector, TwoTower)
        logits_EVN = selector.forward_everywhere(batch)
        logits_EN = batch.of_own_video(logits_EVN) * batch.tracks_EN
        bce = selection_loss(logits_EN, labels_EN, batch.tracks_EN, recipe.loss)
        contrast = contrast_loss(logits_EVN, labels_EN, batch)
        total = bce + recipe.loss.contrast_weight * contrast
        return Losses(bce=bce, alignment=torch.zeros_like(bce), total=total), logits_EN
    logits_EN, objects_ENC = selector.forward_batch(batch)
    anchors = selector.negative_token.weight if isinstance(selector, TrackSelector) else None
    losses = total_loss(
        logits_EN,
        objects_ENC,
        mean_over_words(batch.text_EWC, batch.words_EW),
        anchors,
        labels_EN,
        recipe.loss,
        batch.tracks_EN,
    )
    return losses, logits_EN


def as_row(losses: Losses) -> Tensor:
    """Total, BCE and alignment loss on the CPU, without gradients."""
    return torch.stack([losses.total, losses.bce, losses.alignment]).detach().cpu()
