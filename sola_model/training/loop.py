"""Train a track selector on frozen object tokens and text features.

The whole state goes to one checkpoint file, after every epoch and now and then within one; a run
that finds it continues as if it had never stopped, since every step draws its random numbers from
(seed, epoch, step) alone. Axes as in `sola_model.selector.network`.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from sola_model.files import replacing
from sola_model.recipes import Recipe, SelectorConfig, TwoTowerConfig
from sola_model.selector.base import Selector
from sola_model.selector.batches import Batch
from sola_model.selector.modules import new_selector
from sola_model.training.batch_losses import as_row, batch_losses
from sola_model.training.data import Part, TrainingVideo, describe, load_part, prefetch, usable
from sola_model.training.schedule import (
    epoch_order,
    learning_rate_schedule,
    step_seed,
    steps_per_epoch,
)
from sola_model.training.validation import Judge, validate

SMALL = 5_000_000  # parameters below which a second thread costs more than it gives
SAMPLED_TOKENS = 500_000  # at most, evenly spread over the training data, to scale inputs by


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Means over expressions; validation values are None without validation videos.

    learning_rate: of the epoch's last step. validation_f1: F1 of "score above tau" against the
    labels, all validation (expression, track) pairs together. validation_jf: J&F of the selected
    tracks in [0, 1], None without a judge.
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
    validation_jf: float | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training stands after a step, or (with its metrics) after an epoch.

    expressions: how many of `total`, all epochs together, have been trained on. loss: mean of the
    epoch so far.
    """

    epoch: int
    expressions: int
    total: int
    loss: float
    metrics: EpochMetrics | None = None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Selectors in evaluation mode, on the training device, and the metrics of every epoch."""

    last: Selector
    best: Selector
    best_epoch: int
    metrics: list[EpochMetrics]


def train_selector(
    videos: Sequence[TrainingVideo],
    validation: Sequence[TrainingVideo],
    recipe: Recipe,
    checkpoint: Path,
    *,
    start: Selector | None = None,
    judge: Judge | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    device: str = "cpu",
    checkpoint_seconds: float = 300.0,
) -> Trained:
    """Train for the recipe's epochs, from the weights of `start` if given.

    Videos without tracks or expressions are skipped. `judge` gives the J&F of a selection in
    `validation` and is asked after every epoch. `checkpoint` is replaced atomically after each
    epoch, and within one when `checkpoint_seconds` have passed since; if it exists at the start,
    training resumes from it (on the CPU: bit for bit, for the same number of threads).
    `on_progress` is called after every step and after every epoch, when that is safely on disk.
    The caller's random state is kept.

    Raises ValueError when no label is positive, for tokens that are not finite or not of the
    recipe's width, for a `start` of another configuration, and for a checkpoint of another recipe
    or of other training data.
    """
    validation_videos = [v for v, video in enumerate(validation) if video.labels_EN.numel()]
    videos = usable(videos)
    if not any(video.labels_EN.any() for video in videos):
        raise ValueError(
            f"Nothing to learn from: {describe(videos)}. Look at the label threshold "
            f"({recipe.label_threshold}) and at the tracks' mIoU with the ground truth."
        )
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(device == "cpu" or deterministic)
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
            run = _Run(recipe, videos, start, checkpoint, device)
            run.report, run.checkpoint_seconds = on_progress, checkpoint_seconds
            if sum(p.numel() for p in run.selector.parameters()) < SMALL:
                torch.set_num_threads(1)
            if checkpoint.exists():
                run.load()
            while run.epoch <= recipe.training.epochs:
                run.train_epoch(videos)
                run.finish_epoch(validation, validation_videos, judge)
            return run.trained()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


class _Run:
    """All that changes while training: selectors, optimiser, schedule, position and metrics."""

    report: Callable[[Progress], None] | None
    checkpoint_seconds: float

    def __init__(
        self,
        recipe: Recipe,
        videos: list[TrainingVideo],
        start: Selector | None,
        checkpoint: Path,
        device: str,
    ) -> None:
        config = recipe.training
        self.recipe, self.device, self.checkpoint = recipe, device, checkpoint
        self.expressions = [len(video.texts) for video in videos]
        self.identity = {
            "recipe": asdict(recipe),
            "training data": describe(videos),
            "start": _checksum(start),
        }
        self.selector = _fresh_selector(recipe, videos, start).to(device)
        self.optimizer = torch.optim.AdamW(
            self.selector.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.schedule = learning_rate_schedule(
            self.optimizer, config, steps_per_epoch(self.expressions, config) * config.epochs
        )
        self.metrics: list[EpochMetrics] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self._start_epoch(1)
        self.saved_at = time.monotonic()

    def _start_epoch(self, epoch: int) -> None:
        self.epoch, self.step, self.trained_on = epoch, 0, 0
        self.learning_rate = 0.0
        self.sums_3 = torch.zeros(3, dtype=torch.float64)

    def train_epoch(self, videos: list[TrainingVideo]) -> None:
        """The steps of the current epoch that have not been done."""
        config = self.recipe.training
        self.selector.train()
        steps = epoch_order(self.expressions, config, self.epoch)[self.step :]

        def load(step: Part) -> list[tuple[Batch, Tensor]]:
            size = config.videos_at_once
            parts = [step[i : i + size] for i in range(0, len(step), size)]
            return [load_part(videos, part) for part in parts]

        for parts in prefetch(load, steps):
            self._take_step(parts)
            self.step += 1
            if time.monotonic() - self.saved_at >= self.checkpoint_seconds:
                self.save()
            self._tell()

    def _take_step(self, parts: list[tuple[Batch, Tensor]]) -> None:
        torch.manual_seed(step_seed(self.recipe.training.seed, self.epoch, self.step))
        self.learning_rate = self.optimizer.param_groups[0]["lr"]
        expressions = sum(len(labels_EN) for _, labels_EN in parts)
        self.optimizer.zero_grad()
        for batch, labels_EN in parts:
            losses, _ = batch_losses(
                self.selector, batch.to(self.device), labels_EN.to(self.device), self.recipe
            )
            (losses.total * (len(labels_EN) / expressions)).backward()
            self.sums_3 += len(labels_EN) * as_row(losses)
        nn.utils.clip_grad_norm_(
            self.selector.parameters(),
            self.recipe.training.gradient_clip,
            error_if_nonfinite=True,
        )
        self.optimizer.step()
        if isinstance(self.schedule, LambdaLR):
            self.schedule.step()
        self.trained_on += expressions

    def finish_epoch(
        self, validation: Sequence[TrainingVideo], usable_videos: list[int], judge: Judge | None
    ) -> None:
        """Measure the epoch, remember whether it is the best, and save all."""
        loss, bce, alignment = (self.sums_3 / self.trained_on).tolist()
        measured: dict[str, Any] = {}
        if usable_videos:
            measured = validate(
                self.selector, validation, usable_videos, self.recipe, judge, self.device
            )
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(measured.get("validation_loss", loss))
        metrics = EpochMetrics(
            epoch=self.epoch,
            learning_rate=self.learning_rate,
            train_loss=loss,
            train_bce=bce,
            train_alignment=alignment,
            **measured,
        )
        if not self.metrics or _merit(metrics) > _merit(self.metrics[self.best_epoch - 1]):
            self.best_epoch = self.epoch
            self.best = {n: v.detach().cpu().clone() for n, v in self.selector.state_dict().items()}
        self.metrics.append(metrics)
        self._start_epoch(self.epoch + 1)
        self.save()
        self._tell(metrics)

    def _tell(self, metrics: EpochMetrics | None = None) -> None:
        if self.report is None:
            return
        config, count = self.recipe.training, sum(self.expressions)
        self.report(
            Progress(
                epoch=metrics.epoch if metrics else self.epoch,
                expressions=(self.epoch - 1) * count + self.trained_on,
                total=config.epochs * count,
                loss=metrics.train_loss if metrics else float(self.sums_3[0]) / self.trained_on,
                metrics=metrics,
            )
        )

    def trained(self) -> Trained:
        """What training gives."""
        best = new_selector(self.recipe.selector)
        best.load_state_dict(self.best)
        return Trained(
            last=self.selector.eval(),
            best=best.to(self.device).eval(),
            best_epoch=self.best_epoch,
            metrics=self.metrics,
        )

    def save(self) -> None:
        """Replace the checkpoint atomically."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            **self.identity,
            "metrics": [asdict(metrics) for metrics in self.metrics],
            "position": (self.epoch, self.step, self.trained_on, self.learning_rate),
            "sums": self.sums_3,
            "best epoch": self.best_epoch,
            "best": self.best,
            "selector": self.selector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        with replacing(self.checkpoint) as file:
            torch.save(state, file)
        self.saved_at = time.monotonic()

    def load(self) -> None:
        """Continue from the checkpoint; raises ValueError if it belongs to another run."""
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            theirs = {name: state[name] for name in self.identity}
        except Exception as error:  # torch.load raises whatever the damage happens to cause
            raise ValueError(
                f"Checkpoint {self.checkpoint} is damaged. Delete it to start the run again."
            ) from error
        for name, ours in self.identity.items():
            if theirs[name] != ours:
                raise ValueError(
                    f"Checkpoint {self.checkpoint} was made with another {name}. Continue it with "
                    f"the one it was made with, or choose a new path to start again. It holds:\n"
                    f"{theirs[name]}\nthis run has:\n{ours}"
                )
        self.metrics = [EpochMetrics(**metrics) for metrics in state["metrics"]]
        self.epoch, self.step, self.trained_on, self.learning_rate = state["position"]
        self.sums_3 = state["sums"]
        self.best_epoch, self.best = state["best epoch"], state["best"]
        self.selector.load_state_dict(state["selector"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def _fresh_selector(
    recipe: Recipe, videos: list[TrainingVideo], start: Selector | None
) -> Selector:
    torch.manual_seed(recipe.training.seed)
    selector = new_selector(recipe.selector)
    if start is not None:
        if _without_dropout(start.config) != _without_dropout(recipe.selector):
            raise ValueError(
                f"The weights to start from are of a selector with {start.config}, the recipe asks "
                f"for {recipe.selector}. Only selectors of one configuration continue each other."
            )
        selector.load_state_dict(start.state_dict())
    else:
        total = sum(video.tokens_NTD[..., 0].numel() for video in videos)
        stride = -(-total // SAMPLED_TOKENS)
        selector.fit_inputs(
            torch.cat([v.tokens_NTD.flatten(0, 1)[::stride].float() for v in videos])
        )
    return selector


def _without_dropout(config: SelectorConfig | TwoTowerConfig) -> dict[str, Any]:
    """The settings that weights depend on."""
    return {name: value for name, value in asdict(config).items() if "dropout" not in name}


def _merit(metrics: EpochMetrics) -> float:
    """What makes an epoch better than another: all epochs of a run are measured alike."""
    if metrics.validation_jf is not None:
        return metrics.validation_jf
    return metrics.epoch if metrics.validation_loss is None else -metrics.validation_loss


def _checksum(selector: Selector | None) -> int | None:
    if selector is None:
        return None
    checksum = 0
    for value in selector.state_dict().values():
        checksum = zlib.crc32(value.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return checksum
