"""Train a track selector on frozen object tokens and text features.

A step is up to `expressions_per_step` expressions of one video. After every epoch the whole state
goes to one checkpoint file; a run that finds it continues as if it had never stopped. Axes as in
`sola_model.selector`.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from sola_model.losses import Losses, total_loss
from sola_model.recipes import Recipe, TrainingConfig
from sola_model.selector import TrackSelector, mean_over_words, pad_texts, replacing

VALIDATION_EXPRESSIONS = 8  # of one video at a time; bounds memory, changes no result
WARM_UP = 0.05  # part of all steps, cosine schedule


@dataclass(frozen=True, kw_only=True)
class TrainingVideo:
    """One video's frozen inputs and its pseudo-labels.

    texts: features (W, C) of each expression. labels_EN: 1 for a positive track, else 0.
    """

    video_id: str
    tokens_NTD: Tensor
    texts: list[Tensor]
    labels_EN: Tensor

    def __post_init__(self) -> None:
        expected = (len(self.texts), len(self.tokens_NTD))
        if tuple(self.labels_EN.shape) != expected:
            raise ValueError(
                f"Video {self.video_id}: labels have shape {tuple(self.labels_EN.shape)}, "
                f"its expressions and tracks ask for {expected}."
            )
        if not ((self.labels_EN == 0) | (self.labels_EN == 1)).all():
            raise ValueError(
                f"Video {self.video_id}: labels must be 0 or 1; compare mIoU with the recipe's "
                "label_threshold first."
            )


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Means over expressions; validation values are None without validation videos.

    learning_rate: of the epoch's last step. validation_f1: F1 of "score above tau" against the
    labels, all validation (expression, track) pairs together.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_bce: float
    train_alignment: float
    validation_loss: float | None = None
    validation_bce: float | None = None
    validation_alignment: float | None = None
    validation_f1: float | None = None


def train_selector(
    videos: Sequence[TrainingVideo],
    validation: Sequence[TrainingVideo],
    recipe: Recipe,
    checkpoint: Path,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    device: str = "cpu",
) -> tuple[TrackSelector, list[EpochMetrics]]:
    """The selector after the recipe's last epoch (evaluation mode) and every epoch's metrics.

    Videos without tracks or expressions are skipped. `checkpoint` is replaced atomically after
    each epoch, before `on_epoch` is called with its metrics; if it exists at the start, training
    resumes from it (on the CPU: bit for bit), without calling `on_epoch` for the epochs it holds.
    Every epoch draws its order and dropout from seed + epoch; the caller's random state is kept.

    Raises ValueError when no label is positive, and for a checkpoint of another recipe or of
    other training data.
    """
    videos, validation = _usable(videos), _usable(validation)
    if not any(video.labels_EN.any() for video in videos):
        raise ValueError(
            f"Nothing to learn from: {_describe(videos)}. Look at the label threshold "
            f"({recipe.label_threshold}) and at the tracks' mIoU with the ground truth."
        )
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        run = _Run(recipe, videos, device)
        if checkpoint.exists():
            run.load(checkpoint)
        for epoch in range(len(run.metrics) + 1, recipe.training.epochs + 1):
            run.metrics.append(run.epoch(epoch, videos, validation))
            run.save(checkpoint)
            if on_epoch is not None:
                on_epoch(run.metrics[-1])
    return run.selector.eval(), run.metrics


class _Run:
    """All that changes while training: selector, optimiser, schedule and metrics so far."""

    def __init__(self, recipe: Recipe, videos: list[TrainingVideo], device: str) -> None:
        config = recipe.training
        self.recipe, self.device = recipe, device
        self.identity = {"recipe": asdict(recipe), "training data": _describe(videos)}
        self.metrics: list[EpochMetrics] = []
        torch.manual_seed(config.seed)
        self.selector = TrackSelector(recipe.selector)
        if recipe.selector.whitening is not None:
            self.selector.fit_whitening(torch.cat([v.tokens_NTD.flatten(0, 1) for v in videos]))
        self.selector.to(device)
        self.optimizer = torch.optim.AdamW(
            self.selector.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps = sum(math.ceil(len(v.texts) / config.expressions_per_step) for v in videos)
        self.schedule = _schedule(self.optimizer, config, steps * config.epochs)

    def epoch(
        self, epoch: int, videos: list[TrainingVideo], validation: list[TrainingVideo]
    ) -> EpochMetrics:
        """Train one epoch and measure it."""
        config = self.recipe.training
        seed = config.seed + epoch
        order = epoch_order([len(v.texts) for v in videos], config.expressions_per_step, seed)
        torch.manual_seed(seed)
        self.selector.train()
        sums_3 = torch.zeros(3, dtype=torch.float64)
        for index, expressions in order:
            learning_rate = self.optimizer.param_groups[0]["lr"]
            losses, _, _ = self._losses(videos[index], expressions)
            self.optimizer.zero_grad()
            losses.total.backward()
            nn.utils.clip_grad_norm_(
                self.selector.parameters(), config.gradient_clip, error_if_nonfinite=True
            )
            self.optimizer.step()
            if isinstance(self.schedule, LambdaLR):
                self.schedule.step()
            sums_3 += len(expressions) * _as_row(losses)
        loss, bce, alignment = (sums_3 / sum(len(v.texts) for v in videos)).tolist()
        measured = self._validate(validation) if validation else {}
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(measured.get("validation_loss", loss))
        return EpochMetrics(
            epoch=epoch,
            learning_rate=learning_rate,
            train_loss=loss,
            train_bce=bce,
            train_alignment=alignment,
            **measured,
        )

    @torch.no_grad()
    def _validate(self, videos: list[TrainingVideo]) -> dict[str, float]:
        self.selector.eval()
        sums_3 = torch.zeros(3, dtype=torch.float64)
        hits = selected_plus_positive = 0
        for video in videos:
            for expressions in torch.arange(len(video.texts)).split(VALIDATION_EXPRESSIONS):
                losses, logits_EN, labels_EN = self._losses(video, expressions.tolist())
                sums_3 += len(expressions) * _as_row(losses)
                selected_EN, positive_EN = logits_EN.sigmoid() > self.recipe.tau, labels_EN > 0
                hits += int((selected_EN & positive_EN).sum())
                selected_plus_positive += int(selected_EN.sum() + positive_EN.sum())
        loss, bce, alignment = (sums_3 / sum(len(v.texts) for v in videos)).tolist()
        return {
            "validation_loss": loss,
            "validation_bce": bce,
            "validation_alignment": alignment,
            "validation_f1": 2 * hits / selected_plus_positive if selected_plus_positive else 1.0,
        }

    def _losses(
        self, video: TrainingVideo, expressions: list[int]
    ) -> tuple[Losses, Tensor, Tensor]:
        """Losses, logits and labels of some expressions of a video."""
        text_EWC, mask_EW = pad_texts(
            [video.texts[e].to(self.device, torch.float32) for e in expressions]
        )
        labels_EN = video.labels_EN[expressions].to(self.device)
        logits_EN, objects_ENC = self.selector(video.tokens_NTD.to(self.device), text_EWC, mask_EW)
        losses = total_loss(
            logits_EN,
            objects_ENC,
            mean_over_words(text_EWC, mask_EW),
            self.selector.negative_token.weight,
            labels_EN,
            self.recipe.loss,
        )
        return losses, logits_EN, labels_EN

    def save(self, checkpoint: Path) -> None:
        """Replace the checkpoint atomically."""
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            **self.identity,
            "metrics": [asdict(metrics) for metrics in self.metrics],
            "selector": self.selector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        with replacing(checkpoint) as file:
            torch.save(state, file)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint; raises ValueError if it belongs to another run."""
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, ours in self.identity.items():
            if state[name] != ours:
                raise ValueError(
                    f"Checkpoint {checkpoint} was made with another {name}. Continue it with the "
                    f"one it was made with, or choose a new path to start again. It holds:\n"
                    f"{state[name]}\nthis run has:\n{ours}"
                )
        self.metrics = [EpochMetrics(**metrics) for metrics in state["metrics"]]
        self.selector.load_state_dict(state["selector"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def epoch_order(
    expressions: Sequence[int], expressions_per_step: int, seed: int
) -> list[tuple[int, list[int]]]:
    """The steps of one epoch: (video index, expression indices), shuffled by `seed` alone.

    expressions: number of expressions of each video, at least 1.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = [
        (video, chunk.tolist())
        for video, count in enumerate(expressions)
        for chunk in torch.randperm(count, generator=generator).split(expressions_per_step)
    ]
    return [steps[step] for step in torch.randperm(len(steps), generator=generator)]


def _schedule(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int
) -> LambdaLR | ReduceLROnPlateau:
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    warm_up = math.ceil(WARM_UP * steps)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    return LambdaLR(optimizer, factor)


def _usable(videos: Sequence[TrainingVideo]) -> list[TrainingVideo]:
    return [video for video in videos if video.labels_EN.numel()]


def _describe(videos: list[TrainingVideo]) -> str:
    """The training data in a line: counts, and a checksum of video ids and labels."""
    checksum = 0
    for video in videos:
        checksum = zlib.crc32(video.video_id.encode(), checksum)
        checksum = zlib.crc32(video.labels_EN.bool().cpu().numpy().tobytes(), checksum)
    return (
        f"{len(videos)} videos with tracks and expressions, "
        f"{sum(len(v.texts) for v in videos)} expressions, "
        f"{sum(v.labels_EN.numel() for v in videos)} pairs of expression and track, "
        f"{sum(int(v.labels_EN.sum()) for v in videos)} of them positive (checksum {checksum:08x})"
    )


def _as_row(losses: Losses) -> Tensor:
    return torch.stack([losses.total, losses.bce, losses.alignment]).detach().cpu()
