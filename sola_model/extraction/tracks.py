"""Mask tracks and object tokens: which prompt masks are propagated, in which order.

Paper, section 3.3 and supplement D: prompts are propagated from the largest to the smallest,
forward and backward, and a prompt that a track already covers at its own frame is left out.
Prompts that can filter each other form a chain: those of the grid, those of the boxes of one
expression (or of all, see `BoxPrompts.shared`), those of a user, those of the ground truth. Each
chain is replayed in the release's order, one after another as in the release, or with
`Extraction.merged` in step: what a chain asks for is propagated together with what others ask for
at the time.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from sola_model.extraction.chains import Chain, MaskTrack, Prompt, Replay
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.engine import AUTOMATIC, Engine
from sola_model.extraction.prompts import PromptMask, grid_prompts
from sola_model.extraction.propagation import Request, propagate
from sola_model.extraction.sam2_models import SAM2Base
from sola_model.masks.runs import RLE
from sola_model.recipes import Extraction


@dataclass(frozen=True, kw_only=True)
class VideoTracks:
    """Everything extracted from a video; `track_id`s index `tracks`, prompt ids `prompts`.

    Prompts and tracks of the grid come first, then those of boxes, those of a user's own masks and
    those of ground truth.
    Where there were tracks already, the ids of the new ones go on from theirs.
    """

    size: tuple[int, int]
    prompts: list[Prompt]
    tracks: list[MaskTrack]


def extract_tracks(
    model: SAM2Base, frames_HW3: Iterable[np.ndarray], settings: Extraction
) -> VideoTracks:
    """Encode a video, prompt it with a grid of points and propagate the distinct prompt masks.

    Args:
        frames_HW3: RGB uint8 frames of one size.

    Raises:
        ValueError: there are no frames, or they differ in size.
    """
    video = EncodedVideo(model, frames_HW3, prompt_features=settings.prompt_features)
    return track_prompts(model, video, grid_prompts(model, video, settings.grid), settings)


def track_prompts(
    model: SAM2Base,
    video: EncodedVideo,
    prompts: Sequence[PromptMask],
    settings: Extraction,
    existing: Sequence[list[RLE] | None] = (),
    *,
    engine: Engine = AUTOMATIC,
) -> VideoTracks:
    """Propagate the distinct ones of a video's prompt masks.

    Args:
        existing: the masks of tracks that the video has already. With `settings.boxes.shared`
            they leave out boxes like new ones; None for a track that shall not.

    Raises:
        ValueError: a prompt's frame does not exist, or its mask has another size than the video.
    """
    return _run(model, _extraction(video, prompts, settings, existing), engine)


def track_videos(
    model: SAM2Base,
    items: Sequence[tuple[EncodedVideo, Sequence[PromptMask]]],
    settings: Extraction,
    *,
    engine: Engine = AUTOMATIC,
) -> list[VideoTracks]:
    """`track_prompts` for several videos in step, so that batches are full (see `merged`)."""
    videos = [_extraction(video, prompts, settings, ()) for video, prompts in items]
    return _run(model, _together(videos), engine)


def _run(model: SAM2Base, replay: Replay, engine: Engine) -> Any:
    produced: Any = None  # starts the generator
    while True:
        try:
            requests = replay.send(produced)
        except StopIteration as end:
            return end.value
        produced = propagate(model, requests, engine)


def _in_turn(replays: Sequence[Replay]) -> Replay:
    """Several replays one after another: every batch is one of the release's."""
    results = []
    for replay in replays:
        results.append((yield from replay))
    return results


def _together(replays: Sequence[Replay]) -> Replay:
    """Several replays in step: what they ask for at a time is asked for at once."""
    results: list[Any] = [None] * len(replays)
    asked: dict[int, list[Request]] = {}

    def send(n: int, produced: Any) -> None:
        asked.pop(n, None)
        try:
            asked[n] = replays[n].send(produced)
        except StopIteration as end:
            results[n] = end.value

    for n in range(len(replays)):
        send(n, None)
    while asked:
        produced = iter((yield [request for n in sorted(asked) for request in asked[n]]))
        for n in sorted(asked):
            send(n, list(islice(produced, len(asked[n]))))
    return results


def _extraction(
    video: EncodedVideo,
    prompts: Sequence[PromptMask],
    settings: Extraction,
    existing: Sequence[list[RLE] | None],
) -> Replay:
    """Everything about one video; returns its `VideoTracks`."""
    _check(video, prompts)
    by_source = defaultdict(list)
    for prompt in prompts:
        by_source[prompt.source].append(prompt)
    by_expression = defaultdict(list)
    for prompt in by_source["box"]:
        by_expression[prompt.expression_id].append(prompt)
    grid = Chain(video, by_source["grid"], settings)
    given = [Chain(video, by_source[source], settings) for source in ("own", "mask")]
    alone = [chain.replay() for chain in given]
    run = _together if settings.merged else _in_turn
    if settings.boxes.shared:
        pooled = Chain(video, by_source["box"], settings)
        boxes = [pooled]
        yield from run([_grid_then_boxes(grid, pooled, existing), *alone])
    else:
        boxes = [Chain(video, masks, settings) for masks in by_expression.values()]
        yield from run([grid.replay(), *(chain.replay_boxes() for chain in boxes), *alone])
    return _assembled(video, [grid, *boxes, *given], len(existing))


def _grid_then_boxes(grid: Chain, pooled: Chain, existing: Sequence[list[RLE] | None]) -> Replay:
    yield from grid.replay()
    known = dict(enumerate([*existing, *(track.masks for track in grid.tracks)]))
    yield from pooled.replay_shared({n: masks for n, masks in known.items() if masks}, len(known))


def _assembled(video: EncodedVideo, chains: list[Chain], first_track: int) -> VideoTracks:
    """Prompts and tracks of all chains, with ids that are unique in the video."""
    prompts: list[Prompt] = []
    tracks: list[MaskTrack] = []
    for chain in chains:
        shift = first_track + len(tracks) - chain.first_track
        tracks += [replace(t, prompt_id=t.prompt_id + len(prompts)) for t in chain.tracks]
        prompts += [
            p if p.track_id is None else replace(p, track_id=p.track_id + shift)
            for p in chain.prompts
        ]
    return VideoTracks(size=video.size, prompts=prompts, tracks=tracks)


def _check(video: EncodedVideo, prompts: Sequence[PromptMask]) -> None:
    for prompt in prompts:
        named = f"a prompt of source {prompt.source!r} on frame {prompt.frame_index}"
        if not 0 <= prompt.frame_index < len(video):
            raise ValueError(f"{named}: the video has frames 0 to {len(video) - 1}")
        if tuple(prompt.rle["size"]) != tuple(video.size):
            raise ValueError(
                f"{named}: its mask has (height, width) {tuple(prompt.rle['size'])}, the video "
                f"{tuple(video.size)}; prompt masks must have the size of the video"
            )
