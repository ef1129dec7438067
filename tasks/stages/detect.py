"""Detected boxes of expressions, the second source of prompt masks."""

import json
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from tasks.stage import Outcome, Plan, Stage, Unit, publish_each
from tasks.stages.ingest import INGEST
from tasks.tables import Expression, read_expressions, read_video, rows, taken
from tasks.track_sets import TrackSet
from tasks.worker import device
from warehouse import TABLES, Key, Warehouse, fingerprint
from warehouse.frames import frames_of

if TYPE_CHECKING:  # slow to import: only what detects does it
    from sola_model.detection.detector import Detector

BOX_COLUMNS = ("expression_id", "frame_index", "x0", "y0", "x1", "y1", "score")
BOX_SCHEMA = pa.schema([TABLES["detections"].field(name) for name in ("video_id", *BOX_COLUMNS)])


def _detections(unit: Unit) -> dict[str, pa.Table]:
    """The boxes of every expression of a video, in its prompt frames.

    An expression whose text the detector does not take is left out.
    """
    from sola_model.detection.detector import detect

    track_set: TrackSet = unit.subject
    assert track_set.boxes
    ingested = unit.commit(INGEST)
    video = read_video(unit.store, ingested)
    prompted = range(0, video["frame_count"], track_set.extraction.grid.stride)
    names = [video["frames"][t] for t in prompted]
    frames = zip(prompted, frames_of(video, track_set.corruption, names), strict=True)
    detector = _load(track_set)
    expressions = captioned(detector, read_expressions(unit.store, ingested), unit.left_out)
    texts = [expression.text for expression in expressions]
    found = [
        (expression.expression_id, frame_index, *box.xyxy, box.score, box.phrase, box.token_scores)
        for frame_index, boxes_E in detect(detector, frames, texts, track_set.boxes.settings)
        for expression, boxes in zip(expressions, boxes_E, strict=True)
        for box in boxes
    ]
    fields = (*BOX_COLUMNS, "phrase", "token_scores")
    columns: Iterable[Sequence] = zip(*found, strict=True) if found else ([] for _ in fields)
    return {"detections": rows("detections", unit.key, dict(zip(fields, columns, strict=True)))}


def _load(track_set: TrackSet) -> "Detector":
    assert track_set.boxes
    return worker_detector(track_set.boxes.name, device())


def captioned(
    detector: "Detector", expressions: Sequence[Expression], left_out: list[str]
) -> list[Expression]:
    """The expressions whose text a detector takes; the others join `left_out`."""
    from sola_model.detection.detector import caption_fault

    texts = {expression.text for expression in expressions}
    faults = {text: fault for text in texts if (fault := caption_fault(detector, text))}
    return taken(expressions, faults, left_out)


def _settings(track_set: TrackSet) -> dict[str, Any]:
    assert track_set.boxes
    return {
        "detector": track_set.boxes.identity,
        "settings": track_set.boxes.settings,
        "stride": track_set.extraction.grid.stride,
        "corruption": track_set.corruption,
    }


DETECT = Stage(
    name="detect",
    command="precompute --root DIR",
    keyed_by=("dataset", "split", "video_id", "track_set"),
    reads=lambda _: {INGEST: ("frames", "expressions")},
    settings=_settings,
    make=_detections,
    uses_gpu=True,
    warm_up=_load,
    version=2,
    covers=(
        "tasks.stages.detect",
        "tasks.tables",
        "sola_model.detection",
        "warehouse.frames",
        "warehouse.images",
        "warehouse.corruptions",
    ),
)


@lru_cache(maxsize=1)
def worker_detector(name: str, where: str) -> "Detector":
    """One detector per worker process."""
    from sola_model.detection.detector import load_detector

    return load_detector(name, where)


def import_boxes(
    store: Warehouse, tracked: Collection[Key], track_set: TrackSet, file: str
) -> list[Outcome]:
    """Publish the boxes that a CSV, JSON or Parquet file has for videos, given by tracks' keys.

    Columns: video_id, expression_id, frame_index (from 0), x0, y0, x1, y1 (pixels of the video)
    and score. A box that fits no expression or frame makes its video a failure.

    Raises:
        ValueError: the file has other columns, cannot be read, or names none of the videos.
    """
    given = _read_boxes(Path(file))
    boxes = {
        key: found
        for key in tracked
        if (found := given.filter(pc.equal(given["video_id"], key.video_id))).num_rows
    }
    if not boxes:
        asked = ", ".join(key.video_id for key in list(tracked)[:3])
        raise ValueError(
            f"{file} has boxes of {', '.join(pc.unique(given['video_id']).to_pylist()[:3]) or 'no'}"
            f" videos, but none of this split ({asked}, ...). Its column video_id must hold the "
            "ids of this split."
        )
    plan = Plan(DETECT, store, boxes, track_set)
    wanted = {
        key: fingerprint(planned=planned, boxes=boxes[key].to_pylist())
        for key in boxes
        if (planned := plan.fingerprint(key))
    }

    def tables(key: Key) -> dict[str, pa.Table]:
        ingested, found = plan.unit(key).commit(INGEST), boxes[key]
        video = read_video(store, ingested)
        expressions = {e.expression_id for e in read_expressions(store, ingested)}
        for box in found.to_pylist():
            if box["expression_id"] not in expressions:
                raise ValueError(
                    f"{file}: box {box} is of no expression of {key.video_id}; valid are "
                    f"{', '.join(sorted(expressions)) or 'none'}"
                )
            if not 0 <= box["frame_index"] < video["frame_count"]:
                raise ValueError(
                    f"{file}: box {box} is on no frame of {key.video_id}; valid are 0 to "
                    f"{video['frame_count'] - 1}"
                )
        columns = {name: found[name] for name in BOX_COLUMNS}
        columns |= {name: [None] * len(found) for name in ("phrase", "token_scores")}
        return {"detections": rows("detections", key, columns)}

    return publish_each(store, DETECT.name, wanted, tables, plan.provenance)


def _read_boxes(file: Path) -> pa.Table:
    """The boxes in a file, in BOX_SCHEMA: ids stay as they are written.

    Raises ValueError for a file that is none of the three kinds, or lacks columns or values.
    """
    readers = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}
    reader = readers.get(file.suffix.lower())
    if reader is None or not file.is_file():
        raise ValueError(
            f"boxes are read from an existing file that ends in {', '.join(readers)}; got {file}"
        )
    try:
        with file.open("rb") as stream:
            boxes = reader(stream)
        for name in boxes.column_names:
            if empty := boxes[name].null_count:
                raise ValueError(f"{empty} rows have no {name}")
    except (ValueError, KeyError, TypeError, OSError, RecursionError, pa.ArrowException) as error:
        raise ValueError(
            f"{file}: {error}\nIt must have the columns {', '.join(BOX_SCHEMA.names)}."
        ) from error
    return boxes


def _read_csv(stream: BinaryIO) -> pa.Table:
    types = csv.ConvertOptions(
        column_types=BOX_SCHEMA, include_columns=BOX_SCHEMA.names, strings_can_be_null=False
    )
    quoted = csv.ParseOptions(newlines_in_values=True)
    return csv.read_csv(stream, parse_options=quoted, convert_options=types)


def _read_json(stream: BinaryIO) -> pa.Table:
    """A list of objects, or an object in each line."""
    text = stream.read().decode("utf-8-sig")
    found = json.loads(text) if text.lstrip().startswith("[") else _json_lines(text)
    return pa.Table.from_pylist([box | _ids(box) for box in found], schema=BOX_SCHEMA)


def _json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _ids(box: dict) -> dict[str, str]:
    """The ids of a JSON object as text; a whole number may stand for its digits."""
    ids = {name: box[name] for name in ("video_id", "expression_id")}
    for name, value in ids.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{name} is {value!r}; an id is a string")
    return {name: str(value) for name, value in ids.items()}


def _read_parquet(stream: BinaryIO) -> pa.Table:
    with pq.ParquetFile(stream) as parquet:
        boxes = parquet.read(BOX_SCHEMA.names).select(BOX_SCHEMA.names)
    for name in ("video_id", "expression_id"):
        if pa.types.is_floating(boxes[name].type) or pa.types.is_temporal(boxes[name].type):
            raise ValueError(f"{name} has type {boxes[name].type}; an id is a string")
    return boxes.cast(BOX_SCHEMA)
