"""Between tables and what the model takes and gives: the one place that joins the two.

Axes: N tracks, T frames, D channels, E expressions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sola_model.masks.geometry import geometry
from sola_model.metrics.jf import RLE, empty_rle
from warehouse import TABLES, Commit, Key, Warehouse
from warehouse.masks import mask_columns, rles_from_table
from warehouse.sources.base import SourceVideo

if TYPE_CHECKING:  # extraction is slow to import
    from sola_model.extraction.prompts import Box
    from sola_model.extraction.tracks import VideoTracks


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A row of `expressions`; `object_ids` is None in an unlabelled split, () without target."""

    expression_id: str
    text: str
    object_ids: tuple[str, ...] | None


def rows(table: str, key: Key, columns: Mapping[str, Sequence | np.ndarray]) -> pa.Table:
    """A table of one video (and run): the key's columns repeated beside the given ones.

    Columns that may be null are, if they are not given.
    """
    schema = TABLES[table]
    count = len(next(iter(columns.values())))
    identity = {
        name: [getattr(key, name) or None] * count
        for name in ("run_id", "dataset", "split", "video_id", "track_set")
        if name in schema.names
    }
    unknown = {field.name: pa.nulls(count, field.type) for field in schema if field.nullable}
    return pa.table({**unknown, **identity, **columns}, schema=schema)


def source_tables(
    key: Key, video: SourceVideo, size: tuple[int, int], content_hash: str
) -> dict[str, pa.Table]:
    """The tables of the stage "ingest" for one video."""
    seen = [
        (object_id, frame_index, rle)
        for object_id, masks in video.ground_truth.items()
        for frame_index, rle in enumerate(masks)
        if rle is not None
    ]
    masks = mask_columns([rle for _, _, rle in seen])
    return {
        "videos": rows(
            "videos",
            key,
            {
                "path": [str(video.path)],
                "frames": [list(video.frames)],
                "frame_count": [len(video.frames)],
                "height": [size[0]],
                "width": [size[1]],
                "content_hash": [content_hash],
            },
        ),
        "expressions": rows(
            "expressions",
            key,
            {
                "expression_id": [e.expression_id for e in video.expressions],
                "text": [e.text for e in video.expressions],
                "object_ids": [
                    None if e.object_ids is None else list(e.object_ids) for e in video.expressions
                ],
                "tags": [list(e.tags) for e in video.expressions],
            },
        ),
        "ground_truth": rows(
            "ground_truth",
            key,
            {
                "object_id": [object_id for object_id, _, _ in seen],
                "frame_index": [frame_index for _, frame_index, _ in seen],
                **{name: masks[name] for name in ("height", "width", "counts", "area")},
            },
        ),
    }


def track_tables(
    key: Key, extracted: "VideoTracks", first_prompt: int = 0, first_track: int = 0
) -> dict[str, pa.Table]:
    """The tables of the stages "precompute" and "box_tracks" for one video.

    The ids of prompts and new tracks go on from `first_prompt` and `first_track`.
    """
    prompts, tracks = extracted.prompts, extracted.tracks
    prompt_masks = mask_columns([p.mask.rle for p in prompts])
    frames = len(tracks[0].masks) if tracks else 0
    masks = mask_columns([rle for track in tracks for rle in track.masks])
    areas_NT = np.array(masks["area"]).reshape(len(tracks), frames)
    track_ids = np.arange(first_track, first_track + len(tracks))
    by_frame = {
        "track_id": np.repeat(track_ids, frames),
        "frame_index": np.tile(np.arange(frames), len(tracks)),
    }
    tokens = [token_D for track in tracks for token_D in track.tokens_TD.astype(np.float16)]
    return {
        "prompts": rows(
            "prompts",
            key,
            {
                "prompt_id": range(first_prompt, first_prompt + len(prompts)),
                "frame_index": [p.mask.frame_index for p in prompts],
                "source": [p.mask.source for p in prompts],
                "expression_id": [p.mask.expression_id for p in prompts],
                "object_id": [p.mask.object_id for p in prompts],
                **{name: prompt_masks[name] for name in ("height", "width", "counts", "area")},
                "predicted_iou": [p.mask.predicted_iou for p in prompts],
                "stability": [p.mask.stability for p in prompts],
                "fate": [p.fate for p in prompts],
                "track_id": [p.track_id for p in prompts],
                "iou": [p.iou for p in prompts],
            },
        ),
        "tracks": rows(
            "tracks",
            key,
            {
                "track_id": track_ids,
                "prompt_id": [first_prompt + track.prompt_id for track in tracks],
                "prompt_frame": [prompts[t.prompt_id].mask.frame_index for t in tracks],
                "visible_frames": (areas_NT > 0).sum(1).astype(np.int32),
                "mean_area": areas_NT.mean(1) if frames else [],
            },
        ),
        "masks": rows("masks", key, {**by_frame, **masks}),
        "tokens": rows("tokens", key, {**by_frame, "token": tokens}),
    }


def read_mask_tracks(store: Warehouse, *precomputed: Commit) -> list[list[RLE]]:
    """The mask tracks of a video, N lists of T masks, ordered by track id."""
    table = store.read("masks", precomputed).sort_by(
        [("track_id", "ascending"), ("frame_index", "ascending")]
    )
    rles = rles_from_table(table)
    count = len(pc.unique(table["track_id"]))
    frames = len(rles) // max(count, 1)
    return [rles[n * frames : (n + 1) * frames] for n in range(count)]


def read_tokens(store: Warehouse, *precomputed: Commit) -> np.ndarray:
    """The object tokens of a video, tokens_NTD float32; N may be 0."""
    table = store.read("tokens", precomputed).sort_by(
        [("track_id", "ascending"), ("frame_index", "ascending")]
    )
    if not table.num_rows:
        return np.empty((0, 1, 0), np.float32)
    count = len(pc.unique(table["track_id"]))
    flat = table["token"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(count, table.num_rows // count, -1)


def read_track_features(store: Warehouse, *precomputed: Commit, token_features: str) -> np.ndarray:
    """What a selector reads of a video's tracks (N, T, D): tokens, with geometry if asked for."""
    tokens_NTD = read_tokens(store, *precomputed)
    if token_features == "pointer" or not len(tokens_NTD):
        return tokens_NTD
    geometry_NTG = geometry(read_mask_tracks(store, *precomputed))
    return np.concatenate([tokens_NTD, geometry_NTG], axis=-1)


def read_candidates(
    store: Warehouse,
    tracks: Sequence[Commit],
    expression_ids: Sequence[str],
    *,
    background: bool = True,
) -> np.ndarray:
    """Which tracks each expression may select (E, N), by track id, as inference does it.

    All grid tracks (the background, sola_model/selector/background.py), those of a user's own
    masks, given ones, and those of the expression's own boxes; never the tracks of ground-truth
    masks, which are for training only. `tracks` are the video's commits of "precompute" and, if
    there is one, "box_tracks".

    Raises ValueError when without the background there are no tracks: the video has no boxes.
    """
    if len(tracks) == 1 and not background:
        raise ValueError(
            "background_in_inference=false leaves the grid's tracks out, and this split has no "
            "tracks of boxes. Precompute it with boxes of a detector, too."
        )
    prompts = store.read("prompts", tracks).to_pylist()
    count = sum(prompt["fate"] == "tracked" for prompt in prompts)
    candidates_EN = np.zeros((len(expression_ids), count), bool)
    row = {expression_id: e for e, expression_id in enumerate(expression_ids)}
    for_all = ("grid", "own", "given") if background else ("own", "given")
    for prompt in prompts:
        if prompt["source"] in for_all:
            if prompt["fate"] == "tracked":
                candidates_EN[:, prompt["track_id"]] = True
        elif prompt["expression_id"] in row and prompt["track_id"] is not None:
            candidates_EN[row[prompt["expression_id"]], prompt["track_id"]] = True
    return candidates_EN


def read_boxes(store: Warehouse, detected: Commit) -> "list[Box]":
    """The detected boxes of a video."""
    from sola_model.extraction.prompts import Box

    return [
        Box(
            frame_index=row["frame_index"],
            xyxy=(row["x0"], row["y0"], row["x1"], row["y1"]),
            score=row["score"],
            expression_id=row["expression_id"],
        )
        for row in store.read("detections", [detected]).to_pylist()
    ]


def read_video(store: Warehouse, ingested: Commit) -> dict:
    """The row of `videos` of one video."""
    return store.read("videos", [ingested]).to_pylist()[0]


def read_expressions(store: Warehouse, ingested: Commit) -> list[Expression]:
    """The expressions of a video in the order of the data set."""
    return [
        Expression(
            expression_id=row["expression_id"],
            text=row["text"],
            object_ids=None if row["object_ids"] is None else tuple(row["object_ids"]),
        )
        for row in store.read("expressions", [ingested]).to_pylist()
    ]


def taken(
    expressions: Sequence[Expression], faults: Mapping[str, str], left_out: list[str]
) -> list[Expression]:
    """The expressions whose text a model takes.

    `faults`: the texts that it does not take, with why. Their expressions join `left_out`.
    """
    left_out += [f"{e.expression_id}: {faults[e.text]}" for e in expressions if e.text in faults]
    return [expression for expression in expressions if expression.text not in faults]


def read_objects(store: Warehouse, ingested: Commit) -> dict[str, list[RLE]]:
    """The ground truth of a video: T masks of each object, empty where it is absent."""
    return masks_of_objects(store.read("ground_truth", [ingested]), read_video(store, ingested))


def masks_of_objects(table: pa.Table, video: dict) -> dict[str, list[RLE]]:
    """T masks of each object in rows of "ground_truth" or "own_masks" of a video."""
    absent = empty_rle(video["height"], video["width"])
    objects: dict[str, list[RLE]] = {}
    for object_id, frame_index, rle in zip(
        table["object_id"].to_pylist(),
        table["frame_index"].to_pylist(),
        rles_from_table(table),
        strict=True,
    ):
        objects.setdefault(object_id, [absent] * video["frame_count"])[frame_index] = rle
    return objects
