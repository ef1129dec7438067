"""Masks that are whole columns of a small frame."""

import numpy as np
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE

SIZE = (12, 24)


def columns(first: int, last: int) -> RLE:
    """Columns first..last-1 of the frame; nothing when they are equal."""
    mask_HW = np.zeros(SIZE, np.uint8, order="F")
    mask_HW[:, first:last] = 1
    return coco.encode(mask_HW)


EMPTY = columns(0, 0)
LEFT, RIGHT, MIDDLE = columns(0, 6), columns(18, 24), columns(9, 12)
BOTH = coco.merge([LEFT, RIGHT])
