"""The two-tower selector: vectors of mask tracks that see no language, and queries of words.

A track's vector says what it looks like, what shape it has and how it moves
(`sola_model.selector.streams`), and sees no other track: it is the same in any company, so it can
be kept, and a text is searched for by one product with all vectors there are.

Every word of an expression is an expert on tracks: from the product of a track's vector and the
word's query it gives the probability that the track fits the word. A track fits the expression when
it fits all of its words. A word is its encoder's feature and a learned vector together.

Not the paper's module: docs/training.md compares them. Axes: V videos, N mask tracks, T frames,
E expressions, W words, D token channels, C text channels, K channels of a vector.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sola_model.masks.geometry import CHANNELS
from sola_model.recipes import TwoTowerConfig
from sola_model.selector.base import Selector
from sola_model.selector.batches import Batch
from sola_model.selector.streams import Look, Motion, Shape, parts_of
from sola_model.text.words import split_words

WORD_DROPOUT = 0.1  # words that an expression goes without
LEARNED_DROPOUT = 0.2  # words of which the encoder's feature alone is heard
FEATURE_DROPOUT = 0.3  # channels of the features
LEARNED_SCALE = 15.0  # learned vectors start at 0 and grow so many times as fast as other weights
INDIFFERENT = 2.0  # logit of a word that says nothing: most words fit most tracks
SUREST = -1e-4  # log-probability, for a finite logit


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

    def forward_everywhere(self, batch: Batch) -> Tensor:
        """Score logits (E, V, N) of every expression with the tracks of all the batch's videos.

        Those of padding mean nothing. Raises ValueError as `forward` does.
        """
        self.check_batch(batch)
        return self._everywhere(batch)[0]

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_EVN, tracks_VNK = self._everywhere(batch)
        tracks_ENK = tracks_VNK[batch.video_E] * batch.tracks_EN[..., None]
        return batch.of_own_video(logits_EVN) * batch.tracks_EN, tracks_ENK

    def _everywhere(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tracks_VNK = self.encode_tracks(batch.tokens_VNTD, batch.frames)
        query_EWK, bias_EW = self.text(batch.text_EWC)
        words_EW = self._heard(batch.words_EW)
        fits_EVNW = torch.einsum("vnk,ewk->evnw", tracks_VNK, query_EWK) + bias_EW[:, None, None]
        return product_of_experts(fits_EVNW, words_EW[:, None, None]), tracks_VNK

    def encode_tracks(self, tokens_VNTD: Tensor, frames: Sequence[int]) -> Tensor:
        """The vectors tracks_VNK of mask tracks; `frames` of each video are no padding."""
        tokens = parts_of(tokens_VNTD.to(self.text.query.weight.dtype))
        streams = (self.look(tokens), self.shape(tokens), self.motion(tokens, frames))
        return torch.cat(streams, dim=-1)

    def fit_inputs(self, tokens_KD: Tensor) -> None:
        self.look.fit(tokens_KD)
        self.shape.fit(tokens_KD)

    def _heard(self, words_EW: Tensor) -> Tensor:
        """The words that count: in training some are left out, but never all of a text."""
        if not self.training:
            return words_EW
        heard_EW = words_EW & (torch.rand(words_EW.shape, device=words_EW.device) > WORD_DROPOUT)
        return torch.where(heard_EW.any(dim=1, keepdim=True), heard_EW, words_EW)


class TextTower(nn.Module):
    """Queries of words: fit of a track and a word = track vector * query + bias, as a logit."""

    def __init__(self, config: TwoTowerConfig, object_dim: int) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(config.text_dim)
        self.feature_dropout = nn.Dropout(FEATURE_DROPOUT)
        self.project = nn.Linear(config.text_dim, width)
        self.word = nn.Embedding(config.vocabulary, width)
        nn.init.zeros_(self.word.weight)  # a word that training never saw adds nothing
        self.query = nn.Linear(width, object_dim)
        self.bias = nn.Linear(width, 1)

    def forward(self, text_EWC: Tensor) -> tuple[Tensor, Tensor]:
        """query_EWK and bias_EW of text features with their word ids (`sola_model.text.words`).

        Raises ValueError for an id beyond the vocabulary.
        """
        features_EWC, ids_EW = split_words(text_EWC)
        if (highest := int(ids_EW.max())) >= self.word.num_embeddings:
            raise ValueError(
                f"The text encoder has a word of id {highest}, and selector.vocabulary is "
                f"{self.word.num_embeddings}: set it to the size of the encoder's vocabulary."
            )
        learned_EWC = LEARNED_SCALE * self.word(ids_EW)
        if self.training:
            kept_EW = torch.rand(ids_EW.shape, device=ids_EW.device) > LEARNED_DROPOUT
            learned_EWC = learned_EWC * kept_EW[..., None]
        word_EWC = learned_EWC + self.project(self.feature_dropout(self.norm(features_EWC)))
        query_EWK = self.query(word_EWC) / math.sqrt(self.query.out_features)
        return query_EWK, self.bias(word_EWC)[..., 0]


def product_of_experts(fits_NW: Tensor, words_NW: Tensor) -> Tensor:
    """The score logit (..., N) of tracks from what each word says of them, logits (..., N, W).

    The probability of a track is the product of its words' probabilities; words_NW, which may
    broadcast, is False for padding.
    """
    log_fits_NW = F.logsigmoid(fits_NW + INDIFFERENT)
    log_probability_N = (log_fits_NW * words_NW).sum(dim=-1)
    return log_probability_N - torch.log1p(-log_probability_N.clamp(max=SUREST).exp())
