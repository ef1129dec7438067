"""In what order, in which steps and with what learning rate the selector is trained."""

import math
from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from sola_model.recipes import TrainingConfig
from sola_model.training.data import Part

WARM_UP = 0.05  # part of all steps, cosine schedule


def epoch_order(expressions: Sequence[int], config: TrainingConfig, epoch: int) -> list[Part]:
    """The steps of an epoch, shuffled by `config.seed` and `epoch` alone.

    expressions: number of expressions of each video, at least 1. Every expression is in one step.
    """
    generator = torch.Generator().manual_seed(step_seed(config.seed, epoch, 0))
    chunks = [
        (video, chunk.tolist())
        for video, count in enumerate(expressions)
        for chunk in torch.randperm(count, generator=generator).split(config.expressions_per_step)
    ]
    order = torch.randperm(len(chunks), generator=generator)
    return [[chunks[c] for c in step.tolist()] for step in order.split(config.videos_per_step)]


def steps_per_epoch(expressions: Sequence[int], config: TrainingConfig) -> int:
    """The length of `epoch_order`."""
    chunks = sum(math.ceil(count / config.expressions_per_step) for count in expressions)
    return math.ceil(chunks / config.videos_per_step)


def step_seed(seed: int, epoch: int, step: int) -> int:
    """A seed for the random numbers of one step: what has gone before does not matter."""
    return ((seed * 1_000_003 + epoch) * 1_000_003 + step) % 2**63


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int
) -> LambdaLR | ReduceLROnPlateau:
    """`config.schedule` over `steps`; a LambdaLR goes on after every step, the other by epoch."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    if config.schedule == "linear":
        return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    warm_up = math.ceil(WARM_UP * steps)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    return LambdaLR(optimizer, factor)
