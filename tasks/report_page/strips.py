"""Strips of frames with the masks of a video's tracks, predictions and ground truth.

Axes: H and W in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sola_model.metrics.jf import RLE
from tasks.pictures.masks_on_frames import data_uri, overlay, shown_frames, strip
from tasks.results.predictions import EvaluatedVideo, read_predictions
from tasks.tables import read_candidates, read_objects, read_video
from warehouse import Warehouse
from warehouse.frames import frames_of
from warehouse.sources import VOID

PICTURED = 2  # expressions of a video, those of lowest J&F
FRAMES = 5
HEIGHT = 96  # pixels
QUALITY = 72  # of JPEG
GREY = 110  # where the frames are not to be had

Masks = Mapping[int, Sequence[RLE]]  # T masks of each number


@dataclass(frozen=True, kw_only=True)
class VideoStrips:
    """Pictures of one video as `data:` addresses, by expression; empty after an `error`."""

    video_id: str
    frames: tuple[int, ...] = ()
    tracks: str = ""
    predictions: Mapping[str, str]
    ground_truth: Mapping[str, str]
    error: str = ""

    @property
    def size(self) -> int:
        """Bytes on the page."""
        return sum(map(len, [self.tracks, *self.predictions.values(), *self.ground_truth.values()]))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A video, and the expressions of it to draw."""

    video: EvaluatedVideo
    expression_ids: tuple[str, ...]


def draw(wanted: Wanted) -> VideoStrips:
    """The strips of one video. What cannot be read is the `error` of the result, never raised."""
    try:
        return _draw(wanted)
    except (ValueError, OSError, LookupError) as error:
        video_id = wanted.video.ingested.key.video_id
        return VideoStrips(video_id=video_id, predictions={}, ground_truth={}, error=str(error))


def _draw(wanted: Wanted) -> VideoStrips:
    store = Warehouse(wanted.video.warehouse)
    row = read_video(store, wanted.video.ingested)
    predictions = read_predictions(wanted.video)
    objects = {
        name: masks
        for name, masks in read_objects(store, wanted.video.ingested).items()
        if name != VOID
    }
    every_id = [expression.expression_id for expression in predictions.expressions]
    candidates_N = read_candidates(store, wanted.video.tracks, every_id).any(axis=0)
    shown = shown_frames(row["frame_count"], FRAMES)
    error = ""
    try:
        names = [row["frames"][t] for t in shown]
        pictures = list(frames_of(row, wanted.video.corruption, names))
    except (ValueError, OSError) as failure:
        error = f"The frames cannot be read ({failure}); masks on grey."
        pictures = [np.full((row["height"], row["width"], 3), GREY, np.uint8)] * len(shown)
    painted = partial(_painted, pictures, shown)
    asked = [e for e in predictions.expressions if e.expression_id in wanted.expression_ids]
    return VideoStrips(
        video_id=row["video_id"],
        frames=tuple(shown),
        tracks=painted({n: predictions.tracks[n] for n in np.flatnonzero(candidates_N).tolist()}),
        predictions={
            e.expression_id: painted(
                {n: predictions.tracks[n] for n in predictions.selected.get(e.expression_id, ())}
            )
            for e in asked
        },
        ground_truth={
            e.expression_id: painted(
                {n: masks for n, (name, masks) in enumerate(objects.items()) if name in meant}
            )
            for e in asked
            if (meant := e.object_ids) is not None
        },
        error=error,
    )


def _painted(pictures: Sequence[np.ndarray], shown: Sequence[int], masks: Masks) -> str:
    frames = [
        overlay(picture_HW3, {n: of_track[t] for n, of_track in masks.items()})
        for t, picture_HW3 in zip(shown, pictures, strict=True)
    ]
    return data_uri(strip(frames, HEIGHT), QUALITY)
