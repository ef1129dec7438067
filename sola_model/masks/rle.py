"""Masks as COCO RLE: encode."""

import torch
from pycocotools import mask as coco
from torch import Tensor

from sola_model.masks.enlarged import enlarged_runs
from sola_model.masks.runs import RLE


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
