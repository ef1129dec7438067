"""The schema of every table, each column with its unit and shape.

The descriptions travel with the data: they are the field metadata of every Parquet file.
"""

import pyarrow as pa

from warehouse.errors import DamagedError as DamagedError
from warehouse.errors import NewerError as NewerError
from warehouse.errors import WarehouseError as WarehouseError

FORMAT_VERSION = 3  # raise it when a column changes its meaning, name or type: `sola upgrade`
# A new column that may be null needs no new version: older files read as null, see `conform.py`.


def _field(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def _schema(description: str, *fields: pa.Field) -> pa.Schema:
    return pa.schema(fields, metadata={"description": description})


STRINGS = pa.list_(pa.string())
DATASET = _field("dataset", pa.string(), "data set, for example mevis")
SPLIT = _field("split", pa.string(), "split of the data set, for example valid_u")
VIDEO = _field("video_id", pa.string(), "video, unique within its split")
EXPRESSION = _field("expression_id", pa.string(), "expression, unique within its video")
TRACK = _field("track_id", pa.int32(), "mask track, unique within its video and track set, from 0")
TRACK_SET = _field("track_set", pa.string(), "how the tracks were made, see `track_sets`")
FRAME = _field("frame_index", pa.int32(), "position in the video's frames, from 0")
RUN = _field("run_id", pa.string(), "training run, or baseline: detector-only-...")
HEIGHT = _field("height", pa.int32(), "mask height in pixels")
WIDTH = _field("width", pa.int32(), "mask width in pixels")
COUNTS = _field("counts", pa.string(), "COCO compressed RLE of the mask")
AREA = _field("area", pa.int32(), "mask area in pixels")


def _selection(name: str, description: str) -> pa.Field:
    description = f"{description}, in [0, 1]; null: a baseline, which selects among no tracks"
    return _field(name, pa.float64(), description, nullable=True)


def _union(name: str, value: str) -> tuple[pa.Field, pa.Field, pa.Field]:
    return (
        _field(name, pa.float64(), f"highest {value} of a union of tracks found, in [0, 1]"),
        _field(f"{name}_bound", pa.float64(), "no union has more; equal: found for certain"),
        _field(f"{name}_tracks", pa.list_(pa.int32()), "the tracks of that union, by id"),
    )


BOX = (
    _field("x0", pa.float32(), "left edge in pixels of the video"),
    _field("y0", pa.float32(), "top edge in pixels"),
    _field("x1", pa.float32(), "right edge in pixels"),
    _field("y1", pa.float32(), "bottom edge in pixels"),
    _field("score", pa.float32(), "the detector's confidence, in [0, 1]"),
)

PREDICTION = (
    _field("tracks_selected", pa.int32(), "number of tracks in the prediction; 0 of a baseline"),
    _field("predicted_empty", pa.bool_(), "true: the prediction has no pixel in any frame"),
    _field("j", pa.float64(), "region similarity J, in [0, 1]"),
    _field("f", pa.float64(), "boundary accuracy F, in [0, 1]"),
    _field("jf", pa.float64(), "J&F = (J + F) / 2, in [0, 1]"),
)

TABLES: dict[str, pa.Schema] = {
    "videos": _schema(
        "One row per video.",
        DATASET,
        SPLIT,
        VIDEO,
        _field("path", pa.string(), "frame folder or video file"),
        _field("frames", STRINGS, "frame names in temporal order (T)"),
        _field("frame_count", pa.int32(), "number of frames T"),
        _field("height", pa.int32(), "frame height in pixels"),
        _field("width", pa.int32(), "frame width in pixels"),
        _field("content_hash", pa.string(), "hash of the frames' bytes"),
    ),
    "expressions": _schema(
        "One row per referring expression.",
        DATASET,
        SPLIT,
        VIDEO,
        EXPRESSION,
        _field("text", pa.string(), "the expression as written"),
        _field(
            "object_ids",
            STRINGS,
            "ground-truth objects it refers to; empty: no target; null: unlabelled split",
            nullable=True,
        ),
        _field("tags", STRINGS, "groups the expression is reported under; may be empty"),
    ),
    "ground_truth": _schema(
        "One row per object and frame it is present in; an absent object has no row.",
        DATASET,
        SPLIT,
        VIDEO,
        _field("object_id", pa.string(), "ground-truth object, unique within its video"),
        FRAME,
        HEIGHT,
        WIDTH,
        COUNTS,
        AREA,
    ),
    "detections": _schema(
        "One row per box that a detector, or a file, gives for an expression in a frame.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        EXPRESSION,
        FRAME,
        *BOX,
        _field("phrase", pa.string(), "the words it answers to; null: not given", nullable=True),
        _field(
            "token_scores",
            pa.list_(pa.float32()),
            "score of each token of the caption, special tokens included, in [0, 1], the highest "
            "is `score`; null: not given",
            nullable=True,
        ),
    ),
    "own_masks": _schema(
        "One row per object and frame that a user gave a mask of, to prompt with.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        _field("object_id", pa.string(), "the user's object, unique within its video"),
        FRAME,
        HEIGHT,
        WIDTH,
        COUNTS,
        AREA,
    ),
    "track_sets": _schema(
        "One row per split and track set: all tracks of its videos that were made in one way.",
        DATASET,
        SPLIT,
        TRACK_SET,
        _field("tracker", pa.string(), "what follows objects through a video, for example sam2"),
        _field("checkpoint", pa.string(), "weights, as they were named"),
        _field("weights", pa.string(), "sha256 of the weights; null: not known", nullable=True),
        _field("sources", pa.string(), "of prompt masks: grid, boxes, masks (truth), own; given"),
        _field("precision", pa.string(), "float32 or bfloat16; null: not known", nullable=True),
        _field("corruption", pa.string(), "of the frames; null: as they are", nullable=True),
        _field("settings", pa.string(), "all of it as JSON"),
    ),
    "default_tracks": _schema(
        "One row per split: the track set that commands take unless told another.",
        DATASET,
        SPLIT,
        TRACK_SET,
    ),
    "prompts": _schema(
        "One row per prompt mask, with what became of it.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        _field("prompt_id", pa.int32(), "position in propagation order, largest area first"),
        FRAME,
        _field(
            "source",
            pa.string(),
            "grid, box, own (a user's mask), mask (a ground-truth mask, training only) or given "
            "(an imported track's first mask)",
        ),
        _field(
            "expression_id",
            pa.string(),
            "expression a box prompt was detected for; null: grid or mask",
            nullable=True,
        ),
        _field(
            "object_id",
            pa.string(),
            "object of a mask prompt, the user's or of ground truth; null: grid or box",
            nullable=True,
        ),
        HEIGHT,
        WIDTH,
        COUNTS,
        AREA,
        _field(
            "predicted_iou",
            pa.float32(),
            "SAM2's own IoU estimate in [0, 1]; null: a given mask",
            nullable=True,
        ),
        _field(
            "stability",
            pa.float32(),
            "area(logit > +1) / area(logit > -1); null: a given mask, or no logit above -1",
            nullable=True,
        ),
        _field("fate", pa.string(), "tracked, filtered or unused"),
        _field(
            "track_id",
            pa.int32(),
            "the track it became (tracked) or that covers it (filtered); null: unused",
            nullable=True,
        ),
        _field(
            "iou",
            pa.float32(),
            "IoU with that track at the prompt frame, in [0, 1]; null: not filtered",
            nullable=True,
        ),
    ),
    "tracks": _schema(
        "One row per mask track.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        TRACK,
        _field("prompt_id", pa.int32(), "the prompt mask it was propagated from"),
        _field("prompt_frame", pa.int32(), "frame index of that prompt"),
        _field("visible_frames", pa.int32(), "number of frames with a non-empty mask"),
        _field("mean_area", pa.float32(), "mean mask area over all T frames, in pixels"),
    ),
    "masks": _schema(
        "One row per mask track and frame; an empty mask has area 0 and a zero box.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        TRACK,
        FRAME,
        HEIGHT,
        WIDTH,
        COUNTS,
        AREA,
        _field("x", pa.int32(), "left edge of the mask's box in pixels"),
        _field("y", pa.int32(), "top edge of the mask's box in pixels"),
        _field("w", pa.int32(), "width of the mask's box in pixels"),
        _field("h", pa.int32(), "height of the mask's box in pixels"),
    ),
    "tokens": _schema(
        "One row per mask track and frame: SAM2's object pointer.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        TRACK,
        FRAME,
        _field("token", pa.list_(pa.float16()), "object token (D); FLOAT[] in DuckDB"),
    ),
    "pseudo_labels": _schema(
        "One row per expression and mask track: its overlap with the target.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        EXPRESSION,
        TRACK,
        _field("miou", pa.float32(), "mean IoU over frames, best target object, in [0, 1]"),
        _field("precision", pa.float32(), "mean pixel precision over frames, in [0, 1]"),
        _field("recall", pa.float32(), "mean pixel recall over frames, in [0, 1]"),
        _field("label", pa.bool_(), "true: the track is a positive of the expression"),
    ),
    "runs": _schema(
        "One row per training run.",
        RUN,
        DATASET,
        SPLIT,
        _field("parent", pa.string(), "run whose weights it started from", nullable=True),
        _field("recipe", pa.string(), "recipe, with what was changed of it"),
        _field("config", pa.string(), "the whole configuration as JSON"),
        _field("seed", pa.int64(), "seed of weights, order and dropout"),
        _field("parameters", pa.int64(), "number of trainable parameters"),
        _field("epochs", pa.int32(), "epochs trained"),
        _field("best_epoch", pa.int32(), "epoch of the highest validation J&F, from 1"),
        _field("weights", pa.string(), "weights it is evaluated with, relative to the warehouse"),
        _field("tau_videos", pa.int32(), "kept out to choose tau; null: not chosen", nullable=True),
        _field("temperature", pa.float64(), "of probabilities; null: it has none", nullable=True),
        _field("bias", pa.float64(), "sigmoid(logit / temperature + bias)", nullable=True),
        _field("train_videos", pa.int32(), "number of videos trained on"),
        _field("train_expressions", pa.int32(), "number of expressions trained on"),
        _field("videos", STRINGS, "content of each video that it or its parents trained on"),
        _field("tracks", pa.string(), "track sets trained on, as JSON", nullable=True),
    ),
    "training_metrics": _schema(
        "One row per run, epoch and metric.",
        RUN,
        _field("epoch", pa.int32(), "epoch, from 1"),
        _field("metric", pa.string(), "name of the metric, for example validation_jf"),
        _field("value", pa.float64(), "its value, in the metric's own unit"),
    ),
    "predictions": _schema(
        "One row per run, expression and candidate mask track: its alignment score.",
        RUN,
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        EXPRESSION,
        TRACK,
        _field("score", pa.float32(), "alignment score after the sigmoid, in [0, 1]"),
        _field("selected", pa.bool_(), "true: the score exceeds the threshold tau"),
        _field("probability", pa.float32(), "of a positive pseudo-label", nullable=True),
    ),
    "scores": _schema(
        "One row per run and expression: J, F and J&F beside the oracle and trivial selectors.",
        RUN,
        DATASET,
        SPLIT,
        VIDEO,
        _field("track_set", pa.string(), "what it selects from; null: a baseline", nullable=True),
        EXPRESSION,
        *PREDICTION,
        _selection("oracle_j", "J of the best union of its candidate tracks found"),
        _selection("oracle_f", "F of that selection"),
        _selection("oracle_jf", "J&F of that selection"),
        _selection("all_tracks_jf", "J&F when every candidate is selected"),
        _selection("largest_track_jf", "J&F when the largest candidate is selected"),
        _selection("random_track_jf", "J&F when one random candidate is selected"),
    ),
    "oracles": _schema(
        "One row per expression and track set: the best unions of the tracks it may select.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        EXPRESSION,
        _field("candidates", pa.int32(), "number of tracks it may select"),
        *_union("j", "mean J"),
        *_union("jf", "J&F"),
    ),
    "object_coverage": _schema(
        "One row per annotated object and track set: how well the tracks cover it.",
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        _field("object_id", pa.string(), "ground-truth object, unique within its video"),
        *_union("j", "mean J"),
        _field(
            "one_track_j",
            pa.float64(),
            "highest mean J of one track, in [0, 1]; null: there are no tracks",
            nullable=True,
        ),
        _field("duplicates", pa.int32(), "tracks with a mean J of 0.5 or more, but for the first"),
    ),
    "frame_predictions": _schema(
        "One row per baseline, expression and frame with a box: the best box and its mask.",
        RUN,
        DATASET,
        SPLIT,
        VIDEO,
        EXPRESSION,
        FRAME,
        *BOX,
        HEIGHT,
        WIDTH,
        COUNTS,
        AREA,
    ),
    "threshold_scores": _schema(
        "One row per run, expression and tau: J, F and J&F if that were the threshold.",
        RUN,
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        EXPRESSION,
        _field("tau", pa.float64(), "threshold that a selected track's score exceeds, in [0, 1]"),
        *PREDICTION,
    ),
    "experiments": _schema(
        "One row per number that an experiment measured, the paper's beside it.",
        _field("experiment", pa.string(), "name of the experiment, for example table5b"),
        _field("dataset", pa.string(), "data set that the experiment was asked for"),
        _field("split", pa.string(), "split that it validates on"),
        _field("recipe", pa.string(), "recipe that its variants are variants of"),
        _field("position", pa.int32(), "place of the row in the experiment's table, from 0"),
        _field("variant", pa.string(), "what is measured, for example without alignment loss"),
        _field("measured_on", pa.string(), "data set and split of the measurement, dataset/split"),
        _field("metric", pa.string(), "what of it, for example jf"),
        _field("unit", pa.string(), "unit of value and paper; share: a fraction in [0, 1]"),
        _field("seed", pa.int64(), "seed of the run or of chance; null: none", nullable=True),
        _field("value", pa.float64(), "the number measured, in the unit given"),
        _field("paper", pa.float64(), "the paper's number; null: it has none", nullable=True),
        _field("run_id", pa.string(), "run that was measured; null: none was", nullable=True),
    ),
    "search_references": _schema(
        "One row per run and text that search vectors are made with.",
        RUN,
        _field("position", pa.int32(), "its place in the search vectors, from 0"),
        _field("text", pa.string(), "the text, an expression of the warehouse"),
    ),
    "search_vectors": _schema(
        "One row per run and mask track: its score logits with the run's reference texts.",
        RUN,
        DATASET,
        SPLIT,
        VIDEO,
        TRACK_SET,
        TRACK,
        _field("vector", pa.list_(pa.float16()), "logit of each text (K); FLOAT[] in DuckDB"),
    ),
}


def schema_of(name: str) -> pa.Schema:
    """TABLES[name], or a WarehouseError that lists the tables."""
    if name not in TABLES:
        raise WarehouseError(f"Unknown table {name!r}. Tables are: {', '.join(TABLES)}.")
    return TABLES[name]
