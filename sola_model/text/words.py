"""Which words a text has, beside the features of its words.

A selector with learned words (`TwoTowerConfig.vocabulary`) reads the id of each text token, too. It
travels as two channels more, its digits to the base `BASE`: they are exact in float16, as features
are stored. Axes: W text tokens, C text channels.
"""

import torch
from torch import Tensor

BASE = 1024
CHANNELS = 2


def with_words(features_WC: Tensor, ids_W: Tensor) -> Tensor:
    """Features (..., W, C + 2) that tell the ids."""
    digits = torch.stack([ids_W // BASE, ids_W % BASE], dim=-1)
    return torch.cat([features_WC, digits.to(features_WC)], dim=-1)


def split_words(text_WC: Tensor) -> tuple[Tensor, Tensor]:
    """The features (..., W, C) and the ids (..., W) of what `with_words` made."""
    high_W, low_W = text_WC[..., -2].long(), text_WC[..., -1].long()
    return text_WC[..., :-CHANNELS], high_W * BASE + low_W
