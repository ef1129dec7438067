"""The two-tower selector: vectors of mask tracks that see no language, times a query of the text.

A track's vector says what it looks like, what shape it has and how it moves
(`sola_model.selector.streams`), and sees no other track: it is the same in any company, so it can
be kept, and a text is searched for by one product with all vectors there are. An expression's words
are its encoder's features and learned vectors together, pooled by attention.

Not the paper's module: docs/training.md compares them. Axes: V videos, N mask tracks, T frames,
E expressions, W words, D token channels, C text channels, K channels of a vector.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sola_model.masks.geometry import CHANNELS
from sola_model.recipes import TwoTowerConfig
from sola_model.selector.base import Selector
from sola_model.selector.batches import Batch
from sola_model.selector.streams import Look, Motion, Shape, parts_of
from sola_model.text.words import split_words

WORD_DROPOUT = 0.1  # words that an expression goes without
FEATURE_DROPOUT = 0.3
SHARPNESS = 4.0  # of the scaled product, so that training starts with scores that differ


class TwoTower(Selector):
    """Scores every mask track of a video against expressions, each track by itself."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.object_dim = 3 * config.width
        self.look = Look(config.token_dim - CHANNELS, config.width)
        self.shape = Shape(config.width)
        self.motion = Motion(config.width)
        self.text = TextTower(config, self.object_dim)

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tracks_VNK = self.encode_tracks(batch.tokens_VNTD, batch.frames)
        query_EK, bias_E = self.text(batch.text_EWC, batch.words_EW)
        tracks_ENK = tracks_VNK[batch.video_E] * batch.tracks_EN[..., None]
        logits_EN = (tracks_ENK @ query_EK[..., None])[..., 0] + bias_E[:, None]
        return logits_EN * batch.tracks_EN, tracks_ENK

    def encode_tracks(self, tokens_VNTD: Tensor, frames: Sequence[int]) -> Tensor:
        """The vectors tracks_VNK of mask tracks; `frames` of each video are no padding."""
        tokens = parts_of(tokens_VNTD.to(self.text.query.weight.dtype))
        streams = (self.look(tokens), self.shape(tokens), self.motion(tokens, frames))
        return torch.cat(streams, dim=-1)

    def fit_inputs(self, tokens_KD: Tensor) -> None:
        self.look.fit(tokens_KD)
        self.shape.fit(tokens_KD)


class TextTower(nn.Module):
    """Queries and biases of expressions: logit = track vector * query + bias."""

    def __init__(self, config: TwoTowerConfig, object_dim: int) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(config.text_dim)
        self.feature_dropout = nn.Dropout(FEATURE_DROPOUT)
        self.project = nn.Linear(config.text_dim, width)
        self.word = nn.Embedding(config.vocabulary, width)
        nn.init.zeros_(self.word.weight)  # a word that training never saw adds nothing
        self.weight = nn.Linear(width, 1)
        self.query = nn.Linear(width, object_dim)
        self.bias = nn.Linear(width, 1)

    def forward(self, text_EWC: Tensor, words_EW: Tensor) -> tuple[Tensor, Tensor]:
        """query_EK and bias_E of text features with their word ids (`sola_model.text.words`)."""
        features_EWC, ids_EW = split_words(text_EWC)
        if (highest := int(ids_EW.max())) >= self.word.num_embeddings:
            raise ValueError(
                f"The text encoder has a word of id {highest}, and selector.vocabulary is "
                f"{self.word.num_embeddings}: set it to the size of the encoder's vocabulary."
            )
        word_EWC = self.project(self.feature_dropout(self.norm(features_EWC))) + self.word(ids_EW)
        if self.training:
            chance_EW = torch.rand(words_EW.shape, device=words_EW.device)
            heard_EW = words_EW & (chance_EW > WORD_DROPOUT)
            words_EW = torch.where(heard_EW.any(dim=1, keepdim=True), heard_EW, words_EW)
        weight_EW = self.weight(word_EWC)[..., 0].masked_fill(~words_EW, -math.inf).softmax(dim=-1)
        pooled_EC = torch.einsum("ew,ewc->ec", weight_EW, word_EWC)
        query_EK = self.query(pooled_EC)
        return query_EK * (SHARPNESS / math.sqrt(query_EK.shape[1])), self.bias(pooled_EC)[:, 0]
