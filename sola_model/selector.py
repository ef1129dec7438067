"""The track selector: which object tracks does an expression mean? (SOLA, section 3.5)

A short-term motion encoder shortens each track's object tokens in time; alignment layers then let
tracks look at each other, at their own motion and at the language tokens; a score per track comes
out. Parameter names are those of the released checkpoints, which load with `load_state_dict`.

Axes: E expressions of one video, N mask tracks, T frames (time steps after the motion encoder),
W words, A negative anchors, D token channels, C text channels, B any batch.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sola_model.recipes import SelectorConfig

NORM_GROUPS = 8


class StandardizedConv1d(nn.Conv1d):
    """1-D convolution whose filters have mean 0 and deviation 1 (weight standardisation)."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2), keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return F.conv1d(x_BCT, weight, self.bias, self.stride, self.padding)


class Attention(nn.Module):
    """Multi-head attention; queries of batch 1 are shared by all batches of keys."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, queries_BQC: Tensor, keys_BKC: Tensor, values_BKC: Tensor, mask_BK: Tensor | None
    ) -> Tensor:
        queries, keys, values = (
            projection(x_BLC).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x_BLC in (
                (self.q_proj, queries_BQC),
                (self.k_proj, keys_BKC),
                (self.v_proj, values_BKC),
            )
        )
        attended = F.scaled_dot_product_attention(
            queries.expand(len(keys), -1, -1, -1),
            keys,
            values,
            attn_mask=None if mask_BK is None else mask_BK[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class AlignmentLayer(nn.Module):
    """Inter-object, motion and object-to-language attention, each with a residual and a norm.

    The norms take their statistics over all objects of a time step, all times of a track, and all
    objects and times: a track's score depends on the set of tracks it is computed with.
    """

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        attention = (config.text_dim, config.heads, config.attention_dropout)
        self.obj_attn = Attention(*attention)
        self.motion_attn = Attention(*attention)
        self.object2lang_attn = Attention(*attention)
        self.norm = nn.ModuleList(nn.GroupNorm(NORM_GROUPS, config.text_dim) for _ in range(3))

    def forward(
        self, x_ENTC: Tensor, position_TC: Tensor, language_EWC: Tensor, mask_EW: Tensor
    ) -> Tensor:
        """x_ENTC may have E = 1: it then has not seen language yet and serves all expressions."""
        E, N, T, _ = x_ENTC.shape
        x_BNC = x_ENTC.transpose(1, 2).flatten(0, 1)
        x_BNC = self._norm(0, x_BNC + self.obj_attn(x_BNC, x_BNC, x_BNC, None))
        x_BTC = x_BNC.unflatten(0, (E, T)).transpose(1, 2).flatten(0, 1)
        where_BTC = x_BTC + position_TC
        x_BTC = self._norm(1, x_BTC + self.motion_attn(where_BTC, where_BTC, x_BTC, None))
        x_ELC = x_BTC.unflatten(0, (E, N)).flatten(1, 2)
        x_ELC = self._norm(
            2, x_ELC + self.object2lang_attn(x_ELC, language_EWC, language_EWC, mask_EW)
        )
        return x_ELC.unflatten(1, (N, T))

    def _norm(self, index: int, x_BLC: Tensor) -> Tensor:
        return self.norm[index](x_BLC.transpose(1, 2)).transpose(1, 2)


class TrackSelector(nn.Module):
    """Scores every mask track of a video against expressions (paper section 3.5, Eq. 3-5)."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.config = config
        D, C = config.token_dim, config.text_dim
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(1, C // 2))
        if config.whitening is not None:
            self.register_buffer("token_mean", torch.zeros(D))
            self.register_buffer("token_whitening", torch.eye(D))
        convolutions: list[nn.Module] = []
        for channels_in, channels_out, stride in (
            (D, 2 * D, 2),
            (2 * D, 2 * D, 2),
            (2 * D, 2 * D, 2),
            (2 * D, C, 1),
            (C, C, 1),
        ):
            convolutions += [
                StandardizedConv1d(channels_in, channels_out, 3, stride, padding=1),
                nn.GroupNorm(NORM_GROUPS, channels_out),
                nn.LeakyReLU(),
                nn.Dropout(config.convolution_dropout),
            ]
        self.short_motion_encoder = nn.Sequential(*convolutions, StandardizedConv1d(C, C, 1))
        self.object_lang_align_layers = nn.ModuleList(
            AlignmentLayer(config) for _ in range(config.layers)
        )
        self.negative_token = nn.Embedding(config.negative_anchors, C)

    def forward(
        self, tokens_NTD: Tensor, text: Tensor, text_mask_EW: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score logits and object vectors of the N tracks of one video, any T >= 1.

        text is one expression text_WC -> (logits_N, objects_NC), or several text_EWC with
        text_mask_EW (True = word; None = no padding) -> (logits_EN, objects_ENC). Padded words
        change nothing. A video without tracks gives empty results of these shapes.

        Raises ValueError on wrong shapes and on tokens or text that are not finite.
        """
        self._check(tokens_NTD, text)
        if text.ndim == 2:
            logits_EN, objects_ENC = self.forward(tokens_NTD, text[None])
            return logits_EN[0], objects_ENC[0]
        E, N, C = len(text), len(tokens_NTD), self.config.text_dim
        if E == 0 or N == 0:
            return text.new_zeros(E, N), text.new_zeros(E, N, C)
        if text_mask_EW is None:
            text_mask_EW = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        negatives_EAC = self.negative_token.weight.expand(E, -1, -1)
        language_EWC = torch.cat([text, negatives_EAC], dim=1)
        mask_EW = F.pad(text_mask_EW, (0, negatives_EAC.shape[1]), value=True)

        tokens_NTD = tokens_NTD.to(text.dtype)  # stored tokens are float16
        if self.config.whitening is not None:
            tokens_NTD = (tokens_NTD - self.token_mean) @ self.token_whitening
        tokens_NDT = tokens_NTD.transpose(1, 2)
        x_ENTC = self.short_motion_encoder(tokens_NDT).transpose(1, 2)[None]
        position_TC = self._positions(x_ENTC.shape[2])
        for layer in self.object_lang_align_layers:
            x_ENTC = layer(x_ENTC, position_TC, language_EWC, mask_EW)

        # The mean over words of O E^T is O times the mean word.
        word_EC = mean_over_words(language_EWC, mask_EW)
        weights_ENT = torch.einsum("entc,ec->ent", x_ENTC, word_EC).softmax(dim=-1)
        objects_ENC = torch.einsum("ent,entc->enc", weights_ENT, x_ENTC)
        return torch.einsum("enc,ec->en", objects_ENC, word_EC), objects_ENC

    def fit_whitening(self, tokens_KD: Tensor) -> None:
        """Set what decorrelates tokens from a sample of them: once, before training."""
        assert self.config.whitening is not None
        tokens_KD = tokens_KD.double()
        scale_D = tokens_KD.std(dim=0).clamp(min=1e-3)
        values_D, vectors_DD = torch.linalg.eigh(torch.cov((tokens_KD / scale_D).T))
        whitened_DD = vectors_DD / (values_D + self.config.whitening).sqrt() @ vectors_DD.T
        self.token_mean.copy_(tokens_KD.mean(dim=0))
        self.token_whitening.copy_(whitened_DD / scale_D[:, None])

    def _positions(self, steps: int) -> Tensor:
        matrix = self.positional_encoding_gaussian_matrix
        time_T1 = torch.arange(steps, device=matrix.device)[:, None] / 100
        angle = 2 * math.pi * time_T1 * matrix
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _check(self, tokens_NTD: Tensor, text: Tensor) -> None:
        D, C = self.config.token_dim, self.config.text_dim
        if tokens_NTD.ndim != 3 or tokens_NTD.shape[1] == 0 or tokens_NTD.shape[2] != D:
            raise ValueError(
                f"Object tokens have shape {tuple(tokens_NTD.shape)}; this selector takes "
                f"(tracks, frames >= 1, {D}). Use tokens of the SAM2 model it was trained on."
            )
        if text.ndim not in (2, 3) or text.shape[-1] != C:
            raise ValueError(
                f"Text features have shape {tuple(text.shape)}; this selector takes "
                f"([expressions,] words, {C}). Use the text encoder it was trained with."
            )
        for name, values in (("Object tokens", tokens_NTD), ("Text features", text)):
            if not torch.isfinite(values).all():
                raise ValueError(f"{name} contain NaN or infinity: compute them again.")


def mean_over_words(text_EWC: Tensor, mask_EW: Tensor) -> Tensor:
    """Mean vector (E, C) of each expression's words, padding left out."""
    summed_EC = (text_EWC * mask_EW[..., None]).sum(dim=1)
    return summed_EC / mask_EW.sum(dim=1, keepdim=True).clamp(min=1)


def pad_texts(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack expressions of shape (W, C) into text_EWC, zeros at the end, and its mask_EW."""
    text_EWC = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths_E1 = torch.tensor([[len(text)] for text in texts], device=text_EWC.device)
    return text_EWC, torch.arange(text_EWC.shape[1], device=text_EWC.device) < lengths_E1


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place, complete and on disk, only at the end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_selector(selector: TrackSelector, directory: Path) -> None:
    """Write selector.safetensors and selector.json into `directory` (created if missing)."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous().cpu() for name, value in selector.state_dict().items()}
    with replacing(directory / "selector.safetensors") as file:
        file.write(safetensors.torch.save(weights))
    with replacing(directory / "selector.json") as file:
        file.write(json.dumps(asdict(selector.config), indent=2).encode())


def load_selector(directory: Path) -> TrackSelector:
    """The selector saved in `directory`, on the CPU, in evaluation mode.

    Raises ValueError when the directory does not hold a selector.
    """
    try:
        config = SelectorConfig(**json.loads((directory / "selector.json").read_text()))
        selector = TrackSelector(config)
        weights = safetensors.torch.load_file(directory / "selector.safetensors")
        selector.load_state_dict(weights)
    except (OSError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{directory} is not a selector directory ({error}). It must hold selector.json and "
            "selector.safetensors as save_selector writes them."
        ) from error
    return selector.eval()
