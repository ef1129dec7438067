"""A video of a user's own in the warehouse: its clips as videos, the sentences as expressions.

A long video is taken in clips, each a video of data set "folder", split "segment". So memory is
bounded by a clip, and what was interrupted goes on after the last clip that was done. Tracks do not
cross clips, and each clip is scored by itself. A short video is one clip.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from sola_model.recipes import Recipe
from tasks.own_video import DATASET, SPLIT
from tasks.runs import Run, find_run
from tasks.stage import Plan
from tasks.tables import source_tables
from tasks.track_sets import TrackSet, differences, track_set_of
from warehouse import Key, Warehouse, WarehouseError, fingerprint
from warehouse.commits import file_safe
from warehouse.frames import content_hash, frame_size
from warehouse.own_video import OwnVideo, own_video
from warehouse.sources.base import SourceExpression, SourceVideo

FAILED = (
    "{count} clips failed, see above; nothing was written. Mend the cause and run the same command "
    "again: what is done stays."
)
CLIP_FRAMES = 240  # the default; MeViS's videos have 78 frames on average


def run_to_segment_with(warehouse: str | Path, run_id: str | None) -> Run:
    """The run of this id, or the newest.

    Raises:
        WarehouseError: there is none, or no warehouse; the message says how to get one.
    """
    try:
        return find_run(Warehouse(warehouse), run_id)
    except WarehouseError as error:
        raise WarehouseError(
            f"{error}\nTo segment a video there must be a run, that is, a trained selector, in the "
            "warehouse (--warehouse, --run): `sola demo` trains a small one from nothing, `sola "
            "train` one on your data, `sola import-checkpoint` takes a released one."
        ) from error


def segment_tracks(run: Run, sam2: str | None, detector: str | None, precision: str) -> TrackSet:
    """The track set that a run selects from, with another SAM2 or detector if given.

    Raises:
        WarehouseError: the run's SAM2 is not the one it was trained with, or not there, and no
            other is given.
    """
    recipe = replace(
        run.recipe,
        sam2=sam2 or run.recipe.sam2,
        detector=detector or run.recipe.detector,
        extraction=replace(run.recipe.extraction, ground_truth=False),
    )
    try:
        track_set = track_set_of(recipe, precision=precision)
    except ValueError as error:
        if sam2:
            raise
        raise WarehouseError(
            f"{error}\nRun {run.run_id} was trained with it; say where it is with --sam2."
        ) from error
    if not sam2 and run.tokens not in (None, track_set.tokens):
        raise WarehouseError(
            f"run {run.run_id} was trained on other tracks than are made now: "
            f"{differences(run.tokens, track_set.tokens)}. Name the weights that it was trained "
            f"with, or these all the same, with --sam2 {run.recipe.sam2}."
        )
    return track_set


def ingest_clips(
    warehouse: str,
    path: str,
    sentences: Sequence[str],
    every: int,
    clip_frames: int,
) -> list[Key]:
    """Publish every `every`-th frame of a video in clips of about equal length; gives their keys.

    The keys are the same whenever the file's name, its frames and the clips are.

    Raises:
        ValueError: there is no sentence, or one without words; `path` is no readable video.
    """
    if not sentences or not all(text.strip() for text in sentences):
        raise ValueError(f'the sentences are {list(sentences)}: give one or more, "in quotes"')
    store, video = Warehouse(warehouse), own_video(path)
    frames = video.frames[::every]
    count = math.ceil(len(frames) / clip_frames)
    bounds = [number * len(frames) // count for number in range(count + 1)]
    parts = [frames[start:end] for start, end in pairwise(bounds)]
    contents = _contents(video, parts)
    identity = fingerprint(contents=contents)
    name, size = f"{file_safe(video.path.stem)}-{identity[:8]}", frame_size(video.path, frames)
    expressions = tuple(
        SourceExpression(expression_id=str(number), text=text, object_ids=None)
        for number, text in enumerate(sentences)
    )
    keys = []
    for number, (part, content) in enumerate(zip(parts, contents, strict=True)):
        clip = SourceVideo(
            video_id=name if count == 1 else f"{name}-{number:03d}",
            path=video.path,
            frames=part,
            expressions=expressions,
            ground_truth={},
        )
        keys.append(Key(dataset=DATASET, split=SPLIT, video_id=clip.video_id))
        made_of = fingerprint(content=content, path=str(video.path), sentences=sentences)
        tables = source_tables(keys[-1], clip, size, content)
        store.publish("ingest", keys[-1], made_of, tables, contents={"frames": content})
    return keys


def encode_sentences(store: Warehouse, recipe: Recipe, sentences: Sequence[str]) -> None:
    """Text features into the warehouse's cache, so that a text that is too long is found now.

    On the CPU, which is quick for a few sentences: this process keeps no memory of the GPU that its
    workers use next.

    Raises:
        ValueError: the recipe's encoder does not take a sentence.
    """
    from sola_model.text.cache import CachedTextEncoder  # slow to import

    encoder = CachedTextEncoder(recipe.text_encoder, store.work_folder() / "cache" / "text")
    encoder.encode(sentences, words=recipe.selector.reads_words)


def _contents(video: OwnVideo, parts: Sequence[Sequence[str]]) -> list[str]:
    """What names the frames of each part; of a whole video as the reader of folders has it."""
    if video.path.is_dir():
        return [content_hash(video.path, part) for part in parts]
    content = content_hash(video.path, video.frames)
    return [
        content if part == video.frames else fingerprint(file=content, frames=part)
        for part in parts
    ]


def frame_count(store: Warehouse, keys: Sequence[Key]) -> int:
    """How many frames the clips have together."""
    ingested = store.current("ingest", keys)
    return sum(store.read("videos", ingested.values())["frame_count"].to_pylist())


def require_current(scores: Plan) -> None:
    """Raise WarehouseError unless the scores in the warehouse are those planned."""
    if scores.missing():
        raise WarehouseError(
            "another command segmented this video with other sentences at the same time. Run "
            "this one again: the tracks are there, only the scores are made again."
        )
