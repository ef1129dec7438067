"""One video of a user's own, a video file or a folder of frames, without a data set around it."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from warehouse.frames import IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_frames, video_length
from warehouse.sources.base import SourceError, listed_frames


class OwnVideo(NamedTuple):
    """Where the frames are, their names in order, and frames per second (None: of a folder)."""

    path: Path
    frames: tuple[str, ...]
    rate: Fraction | None


def own_video(path: str | Path) -> OwnVideo:
    """The video at a path.

    Raises SourceError when it is no video file and no folder of images, and FrameError when the
    file does not open.
    """
    path = Path(path).resolve()
    errors: list[str] = []
    if path.is_dir():
        video = OwnVideo(path, listed_frames(path, errors), None)
    elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        count, rate = video_length(path)
        video = OwnVideo(path, tuple(f"{index:05d}" for index in range(count)), rate)
        errors += [f"{path}: has no frames"] * (not count)
    else:
        problem = "is no video" if path.exists() else "no such file or folder"
        errors.append(
            f"{path}: {problem}; give a video file ({', '.join(VIDEO_SUFFIXES)}) or a folder of "
            f"frames ({', '.join(IMAGE_SUFFIXES)})"
        )
    if errors:
        raise SourceError(*errors)
    return video


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video file or a folder of images, in order, lazily, uint8 RGB (H, W, 3).

    Raises as `own_video` does, and FrameError for a frame that is unreadable or of another size.
    """
    video = own_video(path)
    return read_frames(video.path, video.frames)
