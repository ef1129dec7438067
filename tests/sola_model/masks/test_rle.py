"""Masks at the size at which the release compares them."""

import numpy as np
import pytest
import torch

from sola_model.masks.rle import at_compared_size, encode_masks


@pytest.mark.parametrize(
    ("size", "compared"),
    [
        ((90, 160), [540, 960]),
        ((160, 90), [960, 540]),
        ((65, 65), [960, 540]),
        ((64, 65), [540, 960]),
    ],
)
def test_only_landscape_masks_are_compared_lying(size, compared):
    """`height < width` decides, so a square mask stands."""
    rle = encode_masks(torch.from_numpy(np.ones((1, *size), bool)))[0]
    for nearest in (False, True):
        assert at_compared_size(rle, nearest)["size"] == compared
