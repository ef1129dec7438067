"""Masks at the size at which the release compares them, against resizing dense masks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco

from sola_model.masks.compared import at_compared_size, pairwise_iou
from sola_model.masks.rle import encode_masks
from sola_model.masks.runs import RLE, RunTrack, words_of

SIZES = [
    (480, 854), (720, 1280), (1080, 1920), (1920, 1080), (540, 960), (541, 961), (112, 144),
    (65, 65), (97, 33), (1, 5), (2, 3), (1, 1),
]  # fmt: skip


def masks_of(size: tuple[int, int]) -> list[RLE]:
    """Smooth ones, large to small, noise, a full and an empty one."""
    random = torch.Generator().manual_seed(0)
    coarse_3188 = torch.randn(3, 1, 8, 8, generator=random)
    smooth_3HW = F.interpolate(coarse_3188, size, mode="bicubic")[:, 0]
    smooth_3HW = smooth_3HW > torch.tensor([-0.5, 0.5, 1.5])[:, None, None]
    noise_1HW = torch.rand(1, *size, generator=random) > 0.5
    full_1HW = torch.ones(1, *size, dtype=torch.bool)
    return encode_masks(torch.cat([smooth_3HW, noise_1HW, full_1HW, ~full_1HW]))


def dense_resized(rle: RLE, nearest: bool) -> np.ndarray:
    """As in the release's scripts."""
    height, width = rle["size"]
    compared = (540, 960) if height < width else (960, 540)
    mask_11HW = torch.from_numpy(coco.decode(rle))[None, None].float()
    if nearest:
        return (F.interpolate(mask_11HW, compared, mode="nearest")[0, 0] > 0).numpy()
    return (F.interpolate(mask_11HW, compared, mode="bilinear")[0, 0] > 0.5).numpy()


def dense(track: RunTrack) -> np.ndarray:
    """Masks (T, H, W) of runs."""
    column = 64 * words_of(track)
    bits = np.zeros((len(track), track.width * column), bool)
    for t in range(len(track)):
        for start, end in track.edges[track.offsets[t] : track.offsets[t + 1]].reshape(-1, 2):
            bits[t, start:end] = True
    return bits.reshape(len(track), track.width, column)[..., : track.height].swapaxes(1, 2)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_runs_are_those_of_the_resized_masks(size, nearest):
    masks = masks_of(size)
    expected = [dense_resized(rle, nearest) for rle in masks]
    np.testing.assert_array_equal(dense(at_compared_size(masks, nearest=nearest)), expected)


@pytest.mark.parametrize("size", [(1080, 1920), (97, 33)])
def test_iou_is_that_of_pycocotools(size):
    """To the bit, but 1 where both are empty; and 0 only where it is not above the bound."""
    masks = masks_of(size)
    prompts = [at_compared_size([rle], nearest=True) for rle in masks]
    tracks = [
        at_compared_size(masks[:2], nearest=False),
        at_compared_size(masks[2:], nearest=False),
    ]
    resized = [
        encode_masks(torch.from_numpy(np.stack([dense_resized(rle, nearest) for rle in masks])))
        for nearest in (True, False)
    ]
    expected = coco.iou(*resized, [0] * len(masks))
    expected[-1, -1] = 1.0
    np.testing.assert_array_equal(pairwise_iou(prompts, tracks), expected)
    bounded = pairwise_iou(prompts, tracks, above=0.3)
    left_out = bounded != expected
    assert left_out.any()
    assert (bounded[left_out] == 0).all()
    assert (expected[left_out] <= 0.3).all()


@pytest.mark.parametrize(
    ("size", "compared"),
    [
        ((90, 160), (540, 960)),
        ((160, 90), (960, 540)),
        ((65, 65), (960, 540)),
        ((64, 65), (540, 960)),
    ],
)
def test_only_landscape_masks_are_compared_lying(size, compared):
    """`height < width` decides, so a square mask stands."""
    rle = encode_masks(torch.from_numpy(np.ones((1, *size), bool)))[0]
    for nearest in (False, True):
        resized = at_compared_size([rle], nearest=nearest)
        assert (resized.height, resized.width) == compared
