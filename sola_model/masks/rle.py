"""Masks as COCO RLE: encode, compare."""

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor

from sola_model.masks.enlarged import enlarged_runs
from sola_model.masks.runs import RLE

COMPARED_AT = (540, 960)  # masks are compared at this (height, width), turned unless landscape


def encode_masks(masks_NHW: Tensor) -> list[RLE]:
    """COCO RLE of N boolean masks on any device."""
    columns_first = masks_NHW.to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()
    return [
        {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}
        for rle in coco.encode(columns_first.transpose(2, 1, 0))
    ]


def encode_enlarged(logits_HW: Tensor, size: tuple[int, int]) -> RLE:
    """COCO RLE at `size` (height, width) of where the enlarged logits are positive."""
    runs = {"size": list(size), "counts": enlarged_runs(logits_HW, size)}
    rle = coco.frPyObjects(runs, *size)
    return {"size": list(size), "counts": rle["counts"].decode()}


def at_compared_size(rle: RLE, nearest: bool = False) -> RLE:
    """A mask at the release's size for comparisons: prompts by nearest, tracks by bilinear."""
    height, width = COMPARED_AT if rle["size"][0] < rle["size"][1] else COMPARED_AT[::-1]
    mask_11HW = torch.from_numpy(coco.decode(rle))[None, None].float()
    mode = {"mode": "nearest"} if nearest else {"mode": "bilinear", "align_corners": False}
    return encode_masks(F.interpolate(mask_11HW, (height, width), **mode)[0] > 0.5)[0]


def pairwise_iou(a: list[RLE], b: list[RLE]) -> np.ndarray:
    """IoU of every pair of masks (len(a), len(b)); 1 where both are empty."""
    empty_a, empty_b = (np.array([coco.area(rle) == 0 for rle in rles]) for rles in (a, b))
    both_empty = empty_a[:, None] & empty_b[None]
    return np.where(both_empty, 1.0, coco.iou(a, b, [0] * len(b)))
