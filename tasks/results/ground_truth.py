"""The ground truth of a split with its sentences, as `warehouse.sources.labelled` reads it.

COCO: the JSON of YouTube-VIS, with `object_id` in annotations and a list "expressions". PNG: a zip
of masks/<video>/<frame>.png and expressions.csv.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE
from tasks.results.coco import Row, segmentations
from tasks.tables import read_objects, read_video
from warehouse import Commit, Warehouse, WarehouseError
from warehouse.sources.base import VOID
from warehouse.sources.labelled import MASKS, SENTENCES
from warehouse.sources.labels import VOID_VALUE
from warehouse.submissions import encode_mask, label_palette, write_zip

COLUMNS = ("video_id", "text", "objects", "expression_id", "tags")
Files = list[tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True)
class LabelledVideo:
    """Where the ground truth of a video is."""

    warehouse: str
    ingested: Commit


def labelled_videos(store: Warehouse, dataset: str, split: str) -> list[LabelledVideo]:
    """All videos of a split.

    Raises WarehouseError when there are none, some could not be read, or they are unlabelled.
    """
    ingested = store.current("ingest", dataset=dataset, split=split)
    failed = [k for k in store.failures("ingest") if (k.dataset, k.split) == (dataset, split)]
    if failed:
        named = ", ".join(key.video_id for key in failed[:5]) + (", ..." if failed[5:] else "")
        raise WarehouseError(
            f"{dataset}/{split}: {len(failed)} of {len({*ingested, *failed})} videos could not be "
            f"read ({named}); see `sola status`, then run `sola precompute` again"
        )
    if not ingested:
        raise WarehouseError(
            f"{dataset}/{split}: is not in the warehouse; `sola status` says what is there"
        )
    if not any(store.read("expressions", list(ingested.values()))["object_ids"].is_valid()):
        raise WarehouseError(f"{dataset}/{split}: is unlabelled, so it has no ground truth")
    return [LabelledVideo(warehouse=store.url, ingested=commit) for commit in ingested.values()]


def truth_instances(video: LabelledVideo) -> tuple[Row, dict[str, list[Row]]]:
    """The video, its objects and its expressions, as `tasks.results.coco` writes them."""
    store = Warehouse(video.warehouse)
    row = read_video(store, video.ingested)
    size = {"height": row["height"], "width": row["width"], "length": row["frame_count"]}
    files = [f"{row['video_id']}/{frame}.jpg" for frame in row["frames"]]
    objects = read_objects(store, video.ingested)
    return {"name": row["video_id"], "file_names": files, **size}, {
        "annotations": [
            {"object_id": object_id, **segmentations(masks), **size}
            for object_id, masks in objects.items()
        ],
        "expressions": [
            {name: expression[name] for name in ("expression_id", "text", "object_ids", "tags")}
            for expression in _expressions(store, video.ingested)
        ],
    }


def label_files(video: LabelledVideo) -> tuple[Files, list[Row]]:
    """The label images of a video, and its lines of expressions.csv.

    Objects keep ids from 1 to 254 as their pixel values; where there are others, they are numbered
    from 1, in the lines, too. Void is 255.

    Raises ValueError when there are too many objects, or two of them overlap.
    """
    store = Warehouse(video.warehouse)
    row = read_video(store, video.ingested)
    objects = read_objects(store, video.ingested)
    expressions = _expressions(store, video.ingested)
    named = [object_id for e in expressions for object_id in e["object_ids"] or ()]
    values = _pixel_values(list(dict.fromkeys([*objects, *named])), row["video_id"])
    size, palette = (row["height"], row["width"]), label_palette()
    images = [
        (
            f"{MASKS}/{row['video_id']}/{frame}.png",
            encode_mask(_labels(objects, values, size, t, row["video_id"]), palette),
        )
        for t, frame in enumerate(row["frames"])
    ]
    lines = [
        {
            "video_id": row["video_id"],
            "text": expression["text"],
            "objects": " ".join(str(values[name]) for name in expression["object_ids"] or ()),
            "expression_id": expression["expression_id"],
            "tags": ";".join(expression["tags"] or ()),
        }
        for expression in expressions
    ]
    return images, lines


def write_labels(out: Path, by_video: Iterable[tuple[Files, list[Row]]]) -> int:
    """Write the zip; returns the number of images in it."""
    return write_zip(out, _with_lines(by_video)) - 1


def _with_lines(by_video: Iterable[tuple[Files, list[Row]]]) -> Iterator[tuple[str, bytes]]:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for images, lines in by_video:
        yield from images
        table.writerows(lines)
    yield SENTENCES, text.getvalue().encode()


def _expressions(store: Warehouse, ingested: Commit) -> list[Row]:
    return store.read("expressions", [ingested]).to_pylist()


def _pixel_values(object_ids: Sequence[str], video_id: str) -> dict[str, int]:
    names = [object_id for object_id in object_ids if object_id != VOID]
    if len(names) >= VOID_VALUE:
        raise ValueError(
            f"video {video_id}: {len(names)} objects, but a palette image has {VOID_VALUE - 1} "
            "labels; export as coco"
        )
    if {*names} <= {str(value) for value in range(1, VOID_VALUE)}:
        return {name: int(name) for name in names} | {VOID: VOID_VALUE}
    return {name: value for value, name in enumerate(names, start=1)} | {VOID: VOID_VALUE}


def _labels(
    objects: dict[str, list[RLE]],
    values: dict[str, int],
    size: tuple[int, int],
    t: int,
    video_id: str,
) -> np.ndarray:
    """The label image (H, W) uint8 of frame t."""
    labels_HW = np.zeros(size, np.uint8)
    for object_id, masks in objects.items():
        mask_HW = coco.decode(masks[t]) > 0
        if labels_HW[mask_HW].any():
            raise ValueError(
                f"video {video_id}, frame {t}: object {object_id} overlaps another, which a "
                "palette image cannot show; export as coco"
            )
        labels_HW[mask_HW] = values[object_id]
    return labels_HW
