"""One video of a user's own, a video file or a folder of frames, without a data set around it."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from warehouse.frames import read_frames
from warehouse.images import IMAGE_SUFFIXES
from warehouse.sources.base import SourceError, listed_frames
from warehouse.video_files import VIDEO_SUFFIXES, video_timing


class OwnVideo(NamedTuple):
    """Where the frames are, their names in order, and, of a video file, when they are shown.

    rate: frames per second on average. times: seconds from the first frame.
    """

    path: Path
    frames: tuple[str, ...]
    rate: Fraction | None = None
    times: tuple[Fraction, ...] | None = None


def own_video(path: str | Path) -> OwnVideo:
    """The video at a path.

    Raises SourceError when it is no video file and no folder of images, and FrameError when the
    file does not open.
    """
    check_own_video(path)
    path = Path(path).resolve()
    errors: list[str] = []
    if path.is_dir():
        video = OwnVideo(path, listed_frames(path, errors))
    else:
        times, rate = video_timing(path)
        video = OwnVideo(path, tuple(f"{index:05d}" for index in range(len(times))), rate, times)
        errors += [f"{path}: has no frames"] * (not times)
    if errors:
        raise SourceError(*errors)
    return video


def check_own_video(path: str | Path) -> None:
    """Raise SourceError for what is neither a folder nor named as a video file is."""
    path = Path(path).resolve()
    if not path.is_dir() and not (path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES):
        problem = "is no video" if path.exists() else "no such file or folder"
        raise SourceError(
            f"{path}: {problem}; give a video file ({', '.join(VIDEO_SUFFIXES)}) or a folder of "
            f"frames ({', '.join(IMAGE_SUFFIXES)})"
        )


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video file or a folder of images, in order, lazily, uint8 RGB (H, W, 3).

    Raises as `own_video` does, and FrameError for a frame that is unreadable or of another size.
    """
    video = own_video(path)
    return read_frames(video.path, video.frames)
