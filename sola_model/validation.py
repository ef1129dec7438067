"""How good a selector is on videos it was not trained on, after an epoch of training."""

from collections.abc import Callable, Sequence

import torch

from sola_model.batch_losses import as_row, batch_losses
from sola_model.recipes import Recipe
from sola_model.selector import TrackSelector
from sola_model.training_data import Part, TrainingVideo, load_part

Judge = Callable[[int, int, tuple[int, ...]], float]
"""J&F in [0, 1] of (video, expression, selected tracks), by index."""

EXPRESSIONS = 16  # of one video at a time; bounds memory, changes no result


@torch.no_grad()
def validate(
    selector: TrackSelector,
    videos: Sequence[TrainingVideo],
    usable: Sequence[int],
    recipe: Recipe,
    judge: Judge | None,
    device: str,
) -> dict[str, float]:
    """Metrics by name, means over the expressions of the `usable` videos (tracks and expressions).

    validation_jf is measured on every k-th expression, at most `validation_expressions` of them.
    """
    selector.eval()
    config = recipe.training
    total = sum(len(videos[v].texts) for v in usable)
    judge = judge if config.validation_expressions else None
    stride = -(-total // max(1, config.validation_expressions))
    chunks = [
        (v, chunk.tolist())
        for v in usable
        for chunk in torch.arange(len(videos[v].texts)).split(EXPRESSIONS)
    ]
    sums_3 = torch.zeros(3, dtype=torch.float64)
    hits = selected_plus_positive = seen = 0
    jf = []
    for i in range(0, len(chunks), config.videos_at_once):
        part: Part = chunks[i : i + config.videos_at_once]
        batch, labels_EN = load_part(videos, part)
        losses, logits_EN = batch_losses(selector, batch.to(device), labels_EN.to(device), recipe)
        sums_3 += len(labels_EN) * as_row(losses)
        selected_EN = (logits_EN.sigmoid().cpu() > recipe.tau) & batch.tracks_EN
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
