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
from tasks.own_video import DATASET, SPLIT
from tasks.own_video.clips import CLIP_FRAMES, FAILED
from tasks.own_video.outputs import Found, Outputs
from tasks.own_video.segmenting import prepare
from warehouse import WarehouseError


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
    asked = prepare(
        warehouse,
        video,
        sentences,
        run,
        Outputs(**{name: Path(path) for name, path in paths.items() if path}),
        precision(),
        sam2=sam2,
        detector=detector,
        every=every,
        clip_frames=clip_frames,
        fps=fps,
    )
    store, track_set = asked.store, asked.track_set
    _check(track_videos(store, DATASET, SPLIT, asked.clips, track_set, workers))
    _check(carry_out(asked.scores, workers))
    with frame_progress("write", asked.frame_count()) as on_frame:
        return asked.write(on_frame)


def _check(summary: Summary) -> None:
    if summary.failed:
        raise WarehouseError(FAILED.format(count=summary.failed))
