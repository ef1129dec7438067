"""The mask codec against numpy."""

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from warehouse.masks import mask_columns, rles_from_table


def encode(mask_HW: np.ndarray) -> dict:
    return coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))


def test_columns_match_numpy_and_round_trip() -> None:
    rng = np.random.default_rng(0)
    masks_NHW = rng.random((20, 7, 9)) > np.linspace(0.3, 1.0, 20)[:, None, None]
    table = pa.table(mask_columns([encode(mask_HW) for mask_HW in masks_NHW]))
    assert not masks_NHW[-1].any()
    for mask_HW, row in zip(masks_NHW, table.to_pylist(), strict=True):
        rows, columns = np.nonzero(mask_HW)
        box = (0, 0, 0, 0)
        if len(rows):
            x, y = columns.min(), rows.min()
            box = (x, y, columns.max() - x + 1, rows.max() - y + 1)
        assert (row["height"], row["width"]) == (7, 9)
        assert row["area"] == mask_HW.sum()
        assert (row["x"], row["y"], row["w"], row["h"]) == box
    decoded_HWN = coco.decode(rles_from_table(table))
    assert np.array_equal(decoded_HWN.transpose(2, 0, 1), masks_NHW)


def test_text_and_bytes_counts_are_the_same_and_none_is_allowed() -> None:
    rle = encode(np.eye(4))
    text = {"size": rle["size"], "counts": rle["counts"].decode()}
    assert mask_columns([rle]) == mask_columns([text])
    assert all(column == [] for column in mask_columns([]).values())


def test_more_masks_than_pycocotools_can_measure_at_once() -> None:
    mask = encode(np.eye(4))
    assert mask_columns([mask] * 300)["area"] == [4] * 300
