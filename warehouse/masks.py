"""Between mask rows and COCO run-length encodings {"size": [height, width], "counts": str}."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco


class RLE(TypedDict):
    """A compressed COCO run-length mask: size is [height, width]."""

    size: list[int]
    counts: str | bytes


def mask_columns(rles: Sequence[RLE]) -> dict[str, list[Any]]:
    """Columns height, width, counts, area, x, y, w, h (pixels), one entry per mask.

    `counts` may be str or bytes. An empty mask has area 0 and a zero box.
    """
    boxes = np.array(coco.toBbox(list(rles)), dtype=np.int32).reshape(-1, 4)
    x, y, w, h = boxes.T.tolist()
    return {
        "height": [rle["size"][0] for rle in rles],
        "width": [rle["size"][1] for rle in rles],
        "counts": [_text(rle["counts"]) for rle in rles],
        "area": [int(coco.area(rle)) for rle in rles],  # one by one: it fails on over 255
        "x": x,
        "y": y,
        "w": w,
        "h": h,
    }


def rles_from_table(table: pa.Table) -> list[RLE]:
    """The masks of a table with the columns height, width and counts, in row order."""
    rows = table.select(["height", "width", "counts"]).to_pylist()
    return [{"size": [row["height"], row["width"]], "counts": row["counts"]} for row in rows]


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
