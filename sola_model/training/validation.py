"""How good a selector is on videos it was not trained on, and how sure it may be.

Axes as in `sola_model.selector.batches`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sola_model.recipes import Recipe
from sola_model.selector.base import Selector
from sola_model.selector.batches import Batch
from sola_model.selector.calibration import Calibration, fit_calibration
from sola_model.selector.losses import Losses
from sola_model.selector.selection import THRESHOLDS
from sola_model.training.batch_losses import as_row, batch_losses
from sola_model.training.data import Part, TrainingVideo, load_part

Judge = Callable[[int, int, tuple[int, ...]], float]
"""J&F in [0, 1] of (video, expression, selected tracks), by index."""

EXPRESSIONS = 16  # of one video at a time; bounds memory, changes no result
UNCHOSEN_TAU = 0.5  # where there is nothing to choose it on


class _Scored(NamedTuple):
    """Some expressions of some videos, with what a selector says of their tracks; on the CPU."""

    part: Part
    batch: Batch
    labels_EN: Tensor
    losses: Losses
    logits_EN: Tensor


def _scored(
    selector: Selector,
    videos: Sequence[TrainingVideo],
    usable: Sequence[int],
    recipe: Recipe,
    device: str,
) -> Iterator[_Scored]:
    selector.eval()
    chunks = [
        (v, chunk.tolist())
        for v in usable
        for chunk in torch.arange(len(videos[v].texts)).split(EXPRESSIONS)
    ]
    size = recipe.training.videos_at_once
    for i in range(0, len(chunks), size):
        part: Part = chunks[i : i + size]
        batch, labels_EN = load_part(videos, part)
        losses, logits_EN = batch_losses(selector, batch.to(device), labels_EN.to(device), recipe)
        yield _Scored(part, batch, labels_EN, losses, logits_EN.cpu())


@torch.no_grad()
def validate(
    selector: Selector,
    videos: Sequence[TrainingVideo],
    usable: Sequence[int],
    recipe: Recipe,
    judge: Judge | None,
    device: str,
) -> dict[str, float]:
    """Metrics by name, means over the expressions of the `usable` videos (tracks and expressions).

    validation_jf is measured on every k-th expression, at most `validation_expressions` of them. A
    tau that is not yet chosen is 0.5.
    """
    tau = UNCHOSEN_TAU if recipe.tau is None else recipe.tau
    total = sum(len(videos[v].texts) for v in usable)
    at_most = recipe.training.validation_expressions
    judge = judge if at_most else None
    stride = -(-total // max(1, at_most))
    sums_3 = torch.zeros(3, dtype=torch.float64)
    hits = selected_plus_positive = seen = 0
    jf = []
    for part, batch, labels_EN, losses, logits_EN in _scored(
        selector, videos, usable, recipe, device
    ):
        sums_3 += len(labels_EN) * as_row(losses)
        selected_EN = (logits_EN.sigmoid() > tau) & batch.tracks_EN
        hits += int((selected_EN & (labels_EN > 0)).sum())
        selected_plus_positive += int(selected_EN.sum() + labels_EN.sum())
        pairs = [(v, e) for v, expressions in part for e in expressions]
        for (v, e), selected_N in zip(pairs, selected_EN, strict=True):
            if judge is not None and seen % stride == 0:
                jf.append(judge(v, e, tuple(selected_N.nonzero()[:, 0].tolist())))
            seen += 1
    loss, bce, alignment = (sums_3 / total).tolist()
    measured = {
        "validation_loss": loss,
        "validation_bce": bce,
        "validation_alignment": alignment,
        "validation_f1": 2 * hits / selected_plus_positive if selected_plus_positive else 1.0,
    }
    return measured | ({"validation_jf": sum(jf) / len(jf)} if jf else {})


@torch.no_grad()
def choose_tau(
    selector: Selector,
    videos: Sequence[TrainingVideo],
    recipe: Recipe,
    judge: Judge,
    device: str,
) -> float:
    """A threshold of the highest mean J&F on videos that the selector was not trained on.

    Many thresholds differ by chance alone: of those whose J&F is within a standard error of the
    highest it is the one nearest to 0.5. 0.5 when the videos have no tracks and expressions.
    """
    usable = [v for v, video in enumerate(videos) if video.labels_EN.numel()]
    jf_K: list[list[float]] = []
    for part, batch, _, _, logits_EN in _scored(selector, videos, usable, recipe, device):
        pairs = [(v, e) for v, expressions in part for e in expressions]
        scores_EN = logits_EN.sigmoid().masked_fill(~batch.tracks_EN, 0.0)
        for (v, e), scores_N in zip(pairs, scores_EN, strict=True):
            selections = [(scores_N > tau).nonzero()[:, 0].tolist() for tau in THRESHOLDS]
            jf_K.append([judge(v, e, tuple(selected)) for selected in selections])
    if not jf_K:
        return UNCHOSEN_TAU
    jf_KS = np.array(jf_K)
    lost_KS = jf_KS[:, [jf_KS.mean(axis=0).argmax()]] - jf_KS
    error_S = lost_KS.std(axis=0) / np.sqrt(len(lost_KS))
    as_good = np.flatnonzero(lost_KS.mean(axis=0) <= error_S)
    return min((THRESHOLDS[s] for s in as_good), key=lambda tau: abs(tau - UNCHOSEN_TAU))


@torch.no_grad()
def calibrate(
    selector: Selector, videos: Sequence[TrainingVideo], recipe: Recipe, device: str
) -> Calibration | None:
    """What makes probabilities of a selector's scores, fitted on videos it was not trained on.

    None when these have no tracks and expressions, or when labels do not say (`fit_calibration`).
    """
    usable = [v for v, video in enumerate(videos) if video.labels_EN.numel()]
    logits, labels = [torch.empty(0)], [torch.empty(0)]
    for _, batch, labels_EN, _, logits_EN in _scored(selector, videos, usable, recipe, device):
        logits.append(logits_EN[batch.tracks_EN])
        labels.append(labels_EN[batch.tracks_EN])
    return fit_calibration(torch.cat(logits).numpy(), torch.cat(labels).numpy())
