"""The track selector: which mask tracks does an expression mean? (SOLA, section 3.5)

A short-term motion encoder shortens each track's object tokens in time; alignment layers then let
tracks look at each other, at their own motion and at the language tokens; a score per track comes
out. Parameter names are those of the released checkpoints, which load with `load_state_dict`.

Several videos and expressions of different sizes run in one padded step (`forward_batch`) with the
results of one by one: padding is masked out of attention, norms and means, and padded frames are
zero before every convolution, as if the video ended there.

Axes: V videos, N mask tracks, T frames (time steps after the motion encoder), E expressions,
W words, A negative anchors, D token channels, C text channels, L any length. B is any batch; in
the alignment layers it is V until language has been read, E from then on.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sola_model.masks.geometry import CHANNELS
from sola_model.recipes import SelectorConfig
from sola_model.selector.base import Selector, whitening_of
from sola_model.selector.batches import Batch, first
from sola_model.selector.streams import Look, Shape, parts_of

NORM_GROUPS = 8


class StandardizedConv1d(nn.Conv1d):
    """1-D convolution whose filters have mean 0 and deviation 1 (weight standardisation)."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        # torch.std_mean is the same, and three times as slow on the CPU.
        centred = self.weight - self.weight.mean(dim=(1, 2), keepdim=True)
        norm = torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True)
        weight = centred / (norm / math.sqrt(centred[0].numel() - 1) + 1e-5)
        return F.conv1d(x_BCT, weight, self.bias, self.stride, self.padding)


class Attention(nn.Module):
    """Multi-head attention; queries of a video serve the keys of all its expressions."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        queries_BLC: Tensor,
        keys_BKC: Tensor,
        values_BKC: Tensor,
        mask_BK: Tensor | None,
        video_E: Tensor | None = None,
    ) -> Tensor:
        queries, keys, values = (
            projection(x_BLC).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x_BLC in (
                (self.q_proj, queries_BLC),
                (self.k_proj, keys_BKC),
                (self.v_proj, values_BKC),
            )
        )
        attended = F.scaled_dot_product_attention(
            queries if video_E is None else per_expression(queries, video_E),
            keys,
            values,
            attn_mask=None if mask_BK is None else mask_BK[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Real(NamedTuple):
    """What is not padding: the tracks and the time steps of each video, or of each expression.

    is_padded: whether anything else is there; without, attention and norms need no masks.
    """

    tracks_BN: Tensor
    times_BT: Tensor
    is_padded: bool

    def per_expression(self, video_E: Tensor) -> "Real":
        tracks_EN, times_ET = (per_expression(mask, video_E) for mask in self[:2])
        return Real(tracks_EN, times_ET, self.is_padded)


class AlignmentLayer(nn.Module):
    """Inter-object, motion and object-to-language attention, each with a residual and a norm.

    The norms take their statistics over all objects of a time step, all times of a track, and all
    objects and times: a track's score depends on the set of tracks it is computed with. An
    attention that the configuration leaves out has no parameters; its input passes unchanged.
    """

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        C = config.text_dim
        attention = (C, config.heads, config.attention_dropout)
        used = (config.object_attention, config.motion_attention, True)
        self.obj_attn = Attention(*attention) if config.object_attention else None
        self.motion_attn = Attention(*attention) if config.motion_attention else None
        self.object2lang_attn = Attention(*attention)
        self.norm: Any = nn.ModuleList(
            nn.GroupNorm(NORM_GROUPS, C) if u else nn.Identity() for u in used
        )

    def forward(
        self,
        x_BNTC: Tensor,
        real: Real,
        position_TC: Tensor,
        language_EWC: Tensor,
        words_EW: Tensor,
        video_E: Tensor,
    ) -> Tensor:
        """x_ENTC from x_BNTC, which is of videos (in the first layer) or of expressions."""
        B, N, T, _ = x_BNTC.shape
        mask_LN = mask_LT = mask_EL = None
        if real.is_padded:
            mask_LN = real.tracks_BN.repeat_interleave(T, dim=0)
            mask_LT = real.times_BT.repeat_interleave(N, dim=0)
            mask_BNT = real.tracks_BN[:, :, None] & real.times_BT[:, None, :]
            mask_EL = per_expression(mask_BNT.flatten(1), video_E)
        if self.obj_attn is not None:
            x_LNC = x_BNTC.transpose(1, 2).flatten(0, 1)
            x_LNC = x_LNC + self.obj_attn(x_LNC, x_LNC, x_LNC, mask_LN)
            x_LNC = group_norm(self.norm[0], x_LNC, mask_LN)
            x_BNTC = x_LNC.unflatten(0, (B, T)).transpose(1, 2)
        if self.motion_attn is not None:
            x_LTC = x_BNTC.flatten(0, 1)
            where_LTC = x_LTC + position_TC
            x_LTC = x_LTC + self.motion_attn(where_LTC, where_LTC, x_LTC, mask_LT)
            x_LTC = group_norm(self.norm[1], x_LTC, mask_LT)
            x_BNTC = x_LTC.unflatten(0, (B, N))
        x_BLC = x_BNTC.flatten(1, 2)
        read_ELC = self.object2lang_attn(x_BLC, language_EWC, language_EWC, words_EW, video_E)
        x_ELC = group_norm(self.norm[2], per_expression(x_BLC, video_E) + read_ELC, mask_EL)
        return x_ELC.unflatten(1, (N, T))


class TrackSelector(Selector):
    """Scores every mask track of a video against expressions (paper section 3.5, Eq. 3-5)."""

    config: SelectorConfig

    positional_encoding_gaussian_matrix: Tensor
    token_mean: Tensor
    token_whitening: Tensor

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.config = config
        self.object_dim = config.text_dim
        D, C = config.token_dim, config.text_dim
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(1, C // 2))
        if config.separate_streams:
            self.look, self.shape = Look(D - CHANNELS, C), Shape(C)
            self.motion_norm = nn.LayerNorm(C)
            D = CHANNELS
        elif config.whitening is not None:
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

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        video_E, words_EW, language_EWC = batch.video_E, batch.words_EW, batch.text_EWC
        if self.config.negatives_in_language:
            negatives_EAC = self.negative_token.weight.expand(len(language_EWC), -1, -1)
            language_EWC = torch.cat([language_EWC, negatives_EAC], dim=1)
            words_EW = F.pad(words_EW, (0, negatives_EAC.shape[1]), value=True)

        tracks_VN = batch.tracks_VN
        x_BNTC, times_VT = self._encode_tracks(batch)
        real = Real(tracks_VN, times_VT, batch.is_padded)
        position_TC = self._positions(x_BNTC.shape[2])
        for layer in self.object_lang_align_layers:
            x_BNTC = layer(x_BNTC, real, position_TC, language_EWC, words_EW, video_E)
            real = real.per_expression(video_E)
        return self._aggregate(x_BNTC, real, mean_over_words(language_EWC, words_EW))

    def _encode_tracks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Short-term motion of each track, x_VNTC, and which of its time steps are real (V, T)."""
        x_VNTD = batch.tokens_VNTD.to(batch.text_EWC.dtype)  # stored tokens are float16
        if self.config.separate_streams:
            tokens = parts_of(x_VNTD)
            x_VNTC, times_VT = self._encode_motion(tokens.geometry / 2, batch)
            static_VNC = self.look(tokens) + self.shape(tokens)
            return self.motion_norm(x_VNTC) + static_VNC[:, :, None], times_VT
        if self.config.whitening is not None:
            x_VNTD = (x_VNTD - self.token_mean) @ self.token_whitening
        return self._encode_motion(x_VNTD, batch)

    def _encode_motion(self, x_VNTD: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        V, N = x_VNTD.shape[:2]
        x_BCT = x_VNTD.flatten(0, 1).transpose(1, 2)
        steps_V = torch.tensor(batch.frames, device=x_BCT.device)
        times_VT, mask_BT = first(steps_V, x_BCT.shape[2]), None
        for module in self.short_motion_encoder:
            if isinstance(module, nn.GroupNorm):
                x_BCT = group_norm(module, x_BCT.transpose(1, 2), mask_BT).transpose(1, 2)
                continue
            if isinstance(module, nn.Conv1d) and batch.is_padded:
                x_BCT = x_BCT * times_VT.repeat_interleave(N, dim=0)[:, None]
            x_BCT = module(x_BCT)
            if isinstance(module, nn.Conv1d):
                steps_V = (steps_V + module.stride[0] - 1) // module.stride[0]
                times_VT = first(steps_V, x_BCT.shape[2])
                mask_BT = times_VT.repeat_interleave(N, dim=0) if batch.is_padded else None
        return x_BCT.transpose(1, 2).unflatten(0, (V, N)), times_VT

    def _aggregate(self, x_ENTC: Tensor, real: Real, word_EC: Tensor) -> tuple[Tensor, Tensor]:
        """Language-aligned object aggregation: logits_EN and objects_ENC (paper Eq. 4-5).

        The mean over words of O E^T is O times the mean word.
        """
        times_E1T = real.times_BT[:, None]
        similarity_ENT = torch.einsum("entc,ec->ent", x_ENTC, word_EC)
        weights_ENT = similarity_ENT.masked_fill(~times_E1T, -math.inf).softmax(dim=-1)
        objects_ENC = torch.einsum("ent,entc->enc", weights_ENT, x_ENTC)
        if self.config.aggregation == "release":
            logits_EN = torch.einsum("enc,ec->en", objects_ENC, word_EC)
        else:
            steps_E1 = times_E1T.sum(dim=-1)
            logits_EN = (similarity_ENT * times_E1T).sum(dim=-1) / steps_E1
            objects_ENC = objects_ENC / steps_E1[..., None]
        return logits_EN * real.tracks_BN, objects_ENC * real.tracks_BN[..., None]

    def fit_inputs(self, tokens_KD: Tensor) -> None:
        if self.config.separate_streams:
            self.look.fit(tokens_KD)
            self.shape.fit(tokens_KD)
        elif self.config.whitening is not None:
            mean_D, whitening_DD = whitening_of(tokens_KD, self.config.whitening)
            self.token_mean.copy_(mean_D)
            self.token_whitening.copy_(whitening_DD)

    def _positions(self, steps: int) -> Tensor:
        matrix = self.positional_encoding_gaussian_matrix
        time_T1 = torch.arange(steps, device=matrix.device)[:, None] / 100
        angle = 2 * math.pi * time_T1 * matrix
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def per_expression(x_B: Tensor, video_E: Tensor) -> Tensor:
    """Rows of videos as rows of their expressions; rows that are of expressions stay."""
    if len(x_B) == 1:
        return x_B.expand(len(video_E), *x_B.shape[1:])
    return x_B if len(x_B) == len(video_E) else x_B[video_E]


def group_norm(norm: nn.GroupNorm, x_BLC: Tensor, mask_BL: Tensor | None) -> Tensor:
    """`norm` over the places where the mask is True (None: all); the others come out finite."""
    if mask_BL is None:
        return norm(x_BLC.transpose(1, 2)).transpose(1, 2)
    x_BLC = x_BLC.to(torch.promote_types(x_BLC.dtype, torch.float32))  # under autocast
    real_BL1 = mask_BL[..., None]
    size = norm.num_channels // norm.num_groups
    count_B1 = mask_BL.sum(dim=1, keepdim=True) * size

    def mean_of_group(values_BLC: Tensor) -> Tensor:
        sum_BG = (values_BLC * real_BL1).sum(dim=1).unflatten(-1, (-1, size)).sum(dim=-1)
        return (sum_BG / count_B1).repeat_interleave(size, dim=1)[:, None]

    centred_BLC = x_BLC - mean_of_group(x_BLC)
    scale_B1C = (mean_of_group(centred_BLC.square()) + norm.eps).rsqrt() * norm.weight
    return centred_BLC * scale_B1C + norm.bias


def mean_over_words(text_EWC: Tensor, words_EW: Tensor) -> Tensor:
    """Mean vector (E, C) of each expression's words, padding left out."""
    summed_EC = (text_EWC * words_EW[..., None]).sum(dim=1)
    return summed_EC / words_EW.sum(dim=1, keepdim=True)
