"""COCO-style video instances: the JSON of YouTube-VIS."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from sola_model.metrics.jf import RLE
from warehouse.submissions import replacing

Row = dict[str, Any]


def write_coco(out: Path, by_video: Iterable[tuple[Row, Mapping[str, list[Row]]]]) -> int:
    """Write videos, and lists of what is about them, numbered from 1; returns the annotations.

    `by_video` has of each video its row, and by the list's name, "annotations" and others, the
    rows about it; all without their numbers.
    """
    content: dict[str, list[Row]] = {"videos": [], "annotations": []}
    for video, lists in by_video:
        number = len(content["videos"]) + 1
        content["videos"].append({"id": number, **video})
        for name, rows in lists.items():
            listed = content.setdefault(name, [])
            listed += [
                {"id": n, "video_id": number, **row} for n, row in enumerate(rows, len(listed) + 1)
            ]
    content["categories"] = [{"id": 1, "name": "object", "supercategory": "object"}]
    with replacing(out) as stream:
        stream.write(json.dumps(content).encode())
    return len(content["annotations"])


def segmentations(masks: Sequence[RLE]) -> Row:
    """Per frame the mask, its pixels and its box x, y, width, height; null where it is empty."""
    areas = [int(coco.area(rle)) for rle in masks]
    visible = [rle if area else None for rle, area in zip(masks, areas, strict=True)]
    return {
        "category_id": 1,
        "iscrowd": 0,
        "segmentations": [rle and {**rle, "counts": _text(rle["counts"])} for rle in visible],
        "areas": [area or None for area in areas],
        "bboxes": [rle and coco.toBbox(rle).tolist() for rle in visible],
    }


def _text(counts: str | bytes) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
