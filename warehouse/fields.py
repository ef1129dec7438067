"""Columns that tables share, each with its unit and shape; what schemas are made of."""

import pyarrow as pa


def field(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def schema(description: str, *fields: pa.Field) -> pa.Schema:
    return pa.schema(fields, metadata={"description": description})


STRINGS = pa.list_(pa.string())
DATASET = field("dataset", pa.string(), "data set, for example mevis")
SPLIT = field("split", pa.string(), "split of the data set, for example valid_u")
VIDEO = field("video_id", pa.string(), "video, unique within its split")
EXPRESSION = field("expression_id", pa.string(), "expression, unique within its video")
TRACK = field("track_id", pa.int32(), "mask track, unique within its video and track set, from 0")
TRACK_SET = field("track_set", pa.string(), "how the tracks were made, see `track_sets`")
FRAME = field("frame_index", pa.int32(), "position in the video's frames, from 0")
RUN = field("run_id", pa.string(), "training run, or baseline: detector-only-...")
HEIGHT = field("height", pa.int32(), "mask height in pixels")
WIDTH = field("width", pa.int32(), "mask width in pixels")
COUNTS = field("counts", pa.string(), "COCO compressed RLE of the mask")
AREA = field("area", pa.int32(), "mask area in pixels")


def selection(name: str, description: str) -> pa.Field:
    description = f"{description}, in [0, 1]; null: a baseline, which selects among no tracks"
    return field(name, pa.float64(), description, nullable=True)


def union(name: str, value: str) -> tuple[pa.Field, pa.Field, pa.Field]:
    return (
        field(name, pa.float64(), f"highest {value} of a union of tracks found, in [0, 1]"),
        field(f"{name}_bound", pa.float64(), "no union has more; equal: found for certain"),
        field(f"{name}_tracks", pa.list_(pa.int32()), "the tracks of that union, by id"),
    )


BOX = (
    field("x0", pa.float32(), "left edge in pixels of the video"),
    field("y0", pa.float32(), "top edge in pixels"),
    field("x1", pa.float32(), "right edge in pixels"),
    field("y1", pa.float32(), "bottom edge in pixels"),
    field("score", pa.float32(), "the detector's confidence, in [0, 1]"),
)

PREDICTION = (
    field("tracks_selected", pa.int32(), "number of tracks in the prediction; 0 of a baseline"),
    field("predicted_empty", pa.bool_(), "true: the prediction has no pixel in any frame"),
    field("j", pa.float64(), "region similarity J, in [0, 1]"),
    field("f", pa.float64(), "boundary accuracy F, in [0, 1]"),
    field("jf", pa.float64(), "J&F = (J + F) / 2, in [0, 1]"),
)
