"""What the track selection modules have in common: how they are called, and what they refuse.

Axes as in `sola_model.selector.batches`; K sampled tokens.
"""

import torch
from torch import Tensor, nn

from sola_model.recipes import SelectorConfig, TwoTowerConfig
from sola_model.selector.batches import Batch


class Selector(nn.Module):
    """Scores every mask track of a video against expressions.

    A module computes the scores of a batch (`_score`). `object_dim` is the number of channels of
    the object vectors that come with them.
    """

    config: SelectorConfig | TwoTowerConfig
    object_dim: int

    def forward(
        self, tokens_NTD: Tensor, text: Tensor, text_mask_EW: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score logits and object vectors of the N tracks of one video, any T >= 1.

        text is one expression text_WC -> (logits_N, objects_NC), or several text_EWC with
        text_mask_EW (True = word; None = no padding) -> (logits_EN, objects_ENC). Padded words
        change nothing. A video without tracks gives empty results of these shapes.

        Raises ValueError on wrong shapes, on an expression without words, and on tokens or text
        that are not finite.
        """
        if text.ndim == 2:
            logits_EN, objects_ENC = self.forward(tokens_NTD, text[None])
            return logits_EN[0], objects_ENC[0]
        if text_mask_EW is None:
            text_mask_EW = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        self.check_tokens(tokens_NTD, axes=3)
        self._check_text(text, text_mask_EW)
        N, T, _ = tokens_NTD.shape
        E = len(text)
        if E == 0 or N == 0:
            return text.new_zeros(E, N), text.new_zeros(E, N, self.object_dim)
        return self._score(
            Batch(
                tokens_VNTD=tokens_NTD[None],
                text_EWC=text,
                words_EW=text_mask_EW,
                tracks=(N,),
                frames=(T,),
                expressions=(E,),
            )
        )

    def forward_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Score logits (E, N) and object vectors (E, N, C) for the expressions of several videos.

        E counts the expressions of all videos in the order of the batch, N the tracks of the
        video that has most; padding (`~batch.tracks_EN`) has logit 0 and vector 0. The rest, and
        all gradients, are those of `forward` video by video and expression by expression. What
        does not see language is computed once for a video.

        Raises ValueError as `forward` does.
        """
        self.check_batch(batch)
        return self._score(batch)

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def fit_inputs(self, tokens_KD: Tensor) -> None:
        """Set how inputs are scaled, from a sample of tokens: once, before training.

        Raises ValueError for fewer than two tokens and for tokens that are not finite.
        """

    def check_batch(self, batch: Batch) -> None:
        """Raise ValueError for tokens or text of another shape, and for some not finite."""
        self.check_tokens(batch.tokens_VNTD, axes=4)
        self._check_text(batch.text_EWC, batch.words_EW)

    def check_tokens(self, tokens: Tensor, *, axes: int) -> None:
        """Raise ValueError for tokens of another shape, and for some that are not finite."""
        D = self.config.token_dim
        if tokens.ndim != axes or tokens.shape[-2] == 0 or tokens.shape[-1] != D:
            raise ValueError(
                f"Object tokens have shape {tuple(tokens.shape)}; this selector takes "
                f"([videos,] tracks, frames >= 1, {D}). Use the SAM2 model it was trained on "
                "and its recipe's token features."
            )
        _check_finite("Object tokens", tokens)

    def _check_text(self, text_EWC: Tensor, words_EW: Tensor) -> None:
        C = self.config.text_channels
        if text_EWC.ndim != 3 or text_EWC.shape[-1] != C:
            raise ValueError(
                f"Text features have shape {tuple(text_EWC.shape)}; this selector takes "
                f"(expressions, words, {C}). Use the text encoder it was trained with."
            )
        if words_EW.shape != text_EWC.shape[:2] or not words_EW.any(dim=1).all():
            raise ValueError(
                f"Text features of shape {tuple(text_EWC.shape)} with a mask of shape "
                f"{tuple(words_EW.shape)}: one value per word, and at least one word in every "
                "expression, is needed."
            )
        _check_finite("Text features", text_EWC)


def _check_finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} contain NaN or infinity: compute them again.")


def whitening_of(tokens_KD: Tensor, identity: float) -> tuple[Tensor, Tensor]:
    """mean_D and whitening_DD, with which (tokens - mean) @ whitening is decorrelated.

    `identity`: share of the identity that is added to the correlations of the tokens.

    Raises ValueError for fewer than two tokens and for tokens that are not finite.
    """
    if len(tokens_KD) < 2 or not torch.isfinite(tokens_KD).all():
        raise ValueError(
            f"Whitening needs at least two finite object tokens; the {len(tokens_KD)} given "
            "are too few, or contain NaN or infinity: compute them again."
        )
    tokens_KD = tokens_KD.double()
    scale_D = tokens_KD.std(dim=0).clamp(min=1e-3)
    values_D, vectors_DD = torch.linalg.eigh(torch.cov((tokens_KD / scale_D).T))
    whitened_DD = vectors_DD / (values_D + identity).sqrt() @ vectors_DD.T
    return tokens_KD.mean(dim=0), whitened_DD / scale_D[:, None]
