"""What a mask track looks like, what shape it has and how it moves, each by itself.

A token of recipes with `token_features = "pointer+geometry"` is an object pointer beside channels
of geometry. A module that reads both at once learns its training tracks by heart; these streams
read what their question needs and nothing else. All take any number of tracks and frames, and
padded frames, which are 0, change nothing.

Axes: V videos, N mask tracks, T frames, D token channels, C channels of a stream, K tokens of a
sample.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sola_model.masks.geometry import CHANNELS, SHAPE, VISIBLE
from sola_model.selector.base import whitening_of
from sola_model.selector.batches import first

BOTTLENECK = 16  # channels that looks pass through
LOOK_DROPOUT = 0.3  # of the channels of the pointer
DROPOUT = 0.1
SHAPE_NOISE = 0.15  # deviations
MOTION_CHANNELS = 96
KERNELS, STRIDES = (5, 3, 3), (2, 2, 1)  # of the convolutions over time
STEPS = 6  # that a track's motion is told in, however long the video


class Tokens(NamedTuple):
    """Parts of tokens (V, N, T, ...): pointers, geometry, and 1 where the mask is visible."""

    pointer: Tensor
    geometry: Tensor
    visible: Tensor

    def mean_over_visible(self, x_VNTK: Tensor) -> Tensor:
        """The mean (V, N, K) over the frames in which a track is visible; 0 if there is none."""
        return (x_VNTK * self.visible).sum(dim=2) / self.visible.sum(dim=2).clamp(min=1)


def parts_of(tokens_VNTD: Tensor) -> Tokens:
    """The parts of tokens with geometry."""
    pointer, geometry = tokens_VNTD.split([tokens_VNTD.shape[-1] - CHANNELS, CHANNELS], dim=-1)
    visible = (geometry[..., VISIBLE : VISIBLE + 1] > 0).to(tokens_VNTD.dtype)
    return Tokens(pointer, geometry, visible)


class Look(nn.Module):
    """What a track looks like: its mean pointer, decorrelated, through a bottleneck."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, pointer_dim: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(pointer_dim))
        self.register_buffer("whitening", torch.eye(pointer_dim))
        self.layers = nn.Sequential(
            nn.Dropout(LOOK_DROPOUT),
            nn.Linear(pointer_dim, BOTTLENECK),
            nn.LayerNorm(BOTTLENECK),
            nn.Linear(BOTTLENECK, width),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )

    def fit(self, tokens_KD: Tensor) -> None:
        mean, whitening = whitening_of(parts_of(tokens_KD).pointer, identity=1.0)
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)

    def forward(self, tokens: Tokens) -> Tensor:
        whitened_VNTP = (tokens.pointer - self.mean) @ self.whitening
        return self.layers(tokens.mean_over_visible(whitened_VNTP))


class Shape(nn.Module):
    """What shape a track has: the means of the ratios that `geometry` measures."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        count = SHAPE.stop - SHAPE.start
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.layers = nn.Sequential(
            nn.Linear(count, width // 2),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(width // 2, width),
            nn.LayerNorm(width),
        )

    def fit(self, tokens_KD: Tensor) -> None:
        tokens = parts_of(tokens_KD)
        ratios_KS = tokens.geometry[tokens.visible[:, 0] > 0][:, SHAPE].double()
        if len(ratios_KS) > 1:
            self.mean.copy_(ratios_KS.mean(dim=0))
            self.deviation.copy_(ratios_KS.std(dim=0).clamp(min=1e-3))

    def forward(self, tokens: Tokens) -> Tensor:
        ratios_VNS = tokens.mean_over_visible(tokens.geometry[..., SHAPE])
        ratios_VNS = (ratios_VNS - self.mean) / self.deviation
        if self.training:
            ratios_VNS = ratios_VNS + SHAPE_NOISE * torch.randn_like(ratios_VNS)
        return self.layers(ratios_VNS)


class Motion(nn.Module):
    """How a track moves: convolutions over its geometry, told in `STEPS` parts of the video."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = MOTION_CHANNELS
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, channels, kernel, stride, padding=kernel // 2)
            for inputs, kernel, stride in zip(
                (CHANNELS, channels, channels), KERNELS, STRIDES, strict=True
            )
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.convolutions)
        self.dropout = nn.Dropout(DROPOUT)
        self.position = nn.Parameter(0.3 * torch.randn(STEPS, channels))
        self.layers = nn.Sequential(
            nn.Linear(STEPS * channels, width),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )

    def forward(self, tokens: Tokens, frames: Sequence[int]) -> Tensor:
        """`frames`: how many frames of each video are real."""
        V, N = tokens.geometry.shape[:2]
        x_BTC = (tokens.geometry / 2).flatten(0, 1)
        lengths = list(frames)
        layers = zip(self.convolutions, self.norms, STRIDES, strict=True)
        for number, (convolution, norm, stride) in enumerate(layers):
            if number:
                x_BTC = self.dropout(x_BTC)
            y_BTC = F.gelu(norm(convolution(x_BTC.transpose(1, 2)).transpose(1, 2)))
            x_BTC = x_BTC + y_BTC if stride == 1 else y_BTC
            lengths = [math.ceil(length / stride) for length in lengths]
            real_VT = first(torch.tensor(lengths, device=x_BTC.device), x_BTC.shape[1])
            x_BTC = x_BTC * real_VT.repeat_interleave(N, dim=0)[..., None]
        pool_VST = torch.stack([_pooling(length, x_BTC.shape[1]) for length in lengths]).to(x_BTC)
        told_VNSC = torch.einsum("vst,vntc->vnsc", pool_VST, x_BTC.unflatten(0, (V, N)))
        return self.layers((told_VNSC + self.position).flatten(2))


def _pooling(length: int, padded: int) -> Tensor:
    """Weights (STEPS, padded) of `AdaptiveAvgPool1d(STEPS)` over the first `length` steps."""
    start_S = torch.arange(STEPS) * length // STEPS
    end_S = ((torch.arange(STEPS) + 1) * length + STEPS - 1) // STEPS
    steps_T = torch.arange(padded)
    inside_ST = (steps_T >= start_S[:, None]) & (steps_T < end_S[:, None])
    return inside_ST / (end_S - start_S)[:, None]
