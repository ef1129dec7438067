"""Segment: a video of one's own and sentences -> overlay video, masks and tracks.

sola segment clip.mp4 "the dog running to the left" --out found.mp4
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.fanout import Summary, carry_out
from flows.precompute import track_videos
from flows.progress import frame_progress
from flows.runtime import precision
from tasks.own_video.clips import (
    CLIP_FRAMES,
    DATASET,
    SPLIT,
    encode_sentences,
    frame_count,
    ingest_clips,
    require_current,
    run_to_segment_with,
    segment_tracks,
)
from tasks.own_video.outputs import Found, Outputs, shown_times, write_outputs
from tasks.stage import Plan
from tasks.stages.evaluate import EVALUATE
from tasks.track_sets import remember
from warehouse import Warehouse, WarehouseError


@flow(flow_run_name="segment {video}")
def segment(
    warehouse: str,
    video: str,
    sentences: Sequence[str],
    run: str | None = None,
    out: str | None = None,
    masks: str | None = None,
    tracks: str | None = None,
    sam2: str | None = None,
    detector: str | None = None,
    every: int = 1,
    clip_frames: int = CLIP_FRAMES,
    fps: float | None = None,
    workers: int | None = None,
) -> list[Found]:
    """Find what each sentence means in a video file or frame folder; says what was found.

    Writes those of `out` (overlay video), `masks` (folder of PNGs) and `tracks` (JSON) that are
    given. Tracks that the warehouse has of these frames are used again; a new sentence is only
    scored. `run`: default the newest; its recipe says how tracks are made, with another `sam2` or
    `detector` if given. Only every `every`-th frame is taken. A video of more than `clip_frames`
    is segmented in clips, see `tasks.own_video.clips`. `fps`: frames per second of the overlay.

    Raises:
        ValueError: the video, a sentence or an output is not usable, there is no run, or (a
            WarehouseError) clips failed.
    """
    paths = {"video": out, "masks": masks, "tracks": tracks}
    outputs = Outputs(**{name: Path(path) for name, path in paths.items() if path})
    trained = run_to_segment_with(warehouse, run)
    store = Warehouse(warehouse)
    outputs.check(store, Path(video), len(sentences))
    track_set = segment_tracks(trained, sam2, detector, precision())
    encode_sentences(store, trained.recipe, sentences)
    keys = ingest_clips(warehouse, video, sentences, every, clip_frames)
    clips = [key.video_id for key in keys]
    remember(store, DATASET, SPLIT, track_set)
    _check(track_videos(store, DATASET, SPLIT, clips, track_set, workers))
    tracked = [key.of(track_set=track_set.name, run_id=trained.run_id) for key in keys]
    scores = Plan(EVALUATE, store, tracked, trained)
    _check(carry_out(scores, workers))
    require_current(scores)
    with frame_progress("write", frame_count(store, keys)) as on_frame:
        times = shown_times(video, every, fps)
        return write_outputs(warehouse, tracked, trained, outputs, times, on_frame)


def _check(summary: Summary) -> None:
    if summary.failed:
        raise WarehouseError(
            f"{summary.failed} clips failed, see above; nothing was written. Mend the cause and "
            "run the same command again: what is done stays."
        )
