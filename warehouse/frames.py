"""Frames of one video, from a folder of images or from a video file: read, measured, fingerprinted.

`path` is a folder of images or a video file; `frames` are the frame names in order (file stems
in a folder, zero-padded indices in a video file). A frame is what a viewer or player shows, see
`warehouse.images` and `warehouse.video_files`.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from warehouse.corruptions import corrupted
from warehouse.images import IMAGE_SUFFIXES, FrameError, image_treatments, read_image, shown_size
from warehouse.regular import open_regular
from warehouse.video_files import VIDEO_SUFFIXES, decode_video, video_treatments
from warehouse.video_files import count_frames as count_frames

READERS = 4  # threads that decode the images of a folder, each one image ahead


def read_frames(path: Path, frames: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the frames in order, lazily, each uint8 RGB [H, W, 3].

    Any ordered selection of a video's frames will do; a video file is decoded from its start.
    Raises FrameError when a frame is missing, does not decode, or differs in size from the first.
    """
    images: Iterator[np.ndarray]
    if path.is_dir():
        images = _read_images(frame_files(path, frames))
    else:
        images = decode_video(path, {int(frame) for frame in frames})
    size = None
    for frame in frames:
        image = next(images, None)
        if image is None:
            raise FrameError(f"{path}: the video ends before frame {frame} (of {len(frames)})")
        size = size or image.shape[:2]
        if image.shape[:2] != size:
            raise FrameError(
                f"{path}: frame {frame} is {_wh(image.shape)}, but the first frame is {_wh(size)}; "
                "all frames of a video must have one size"
            )
        yield image


def _read_images(files: Iterable[Path]) -> Iterator[np.ndarray]:
    """The images in order, some of them read ahead (video files are decoded by threads anyway)."""
    reading: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(READERS, "read images") as pool:
        for file in files:
            reading.append(pool.submit(read_image, file))
            if len(reading) > READERS:
                yield reading.popleft().result()
        while reading:
            yield reading.popleft().result()


def frames_of(
    video: Mapping[str, Any], corruption: str | None = None, names: Sequence[str] | None = None
) -> Iterator[np.ndarray]:
    """The frames of a row of `videos`, or those named, as they are or corrupted.

    Raises FrameError as `read_frames` does.
    """
    names = video["frames"] if names is None else names
    frames = read_frames(Path(video["path"]), names)
    return corrupted(video["content_hash"], corruption, names, frames) if corruption else frames


def frame_size(path: Path, frames: Sequence[str]) -> tuple[int, int]:
    """(height, width) in pixels of the first frame; of an image only the header is read.

    Raises FrameError when there is no frame or the first does not open.
    """
    if not frames:
        raise FrameError(f"{path}: has no frames")
    if not path.is_dir():
        image = next(read_frames(path, frames[:1]))
        return image.shape[0], image.shape[1]
    (file,) = frame_files(path, frames[:1])
    return shown_size(file)


def frame_files(path: Path, frames: Sequence[str]) -> list[Path]:
    """The image file of each frame in order, or the video file alone.

    Raises FrameError naming the first frame that has no image.
    """
    if not path.is_dir():
        if not path.is_file():
            raise FrameError(f"{path}: no such frame folder or video file")
        return [path]
    jpegs = [path / f"{frame}.jpg" for frame in frames]
    if all(file.is_file() for file in jpegs):
        return jpegs  # without a look at a folder that may hold thousands of other videos' images
    by_stem = {file.stem: file for file in reversed(image_files(path))}
    missing = [frame for frame in frames if frame not in by_stem]
    if missing:
        raise FrameError(
            f"{path}: frame {missing[0]} has no image ({len(missing)} of {len(frames)} missing; "
            f"looked for {', '.join(IMAGE_SUFFIXES)})"
        )
    return [by_stem[frame] for frame in frames]


def image_files(folder: Path) -> list[Path]:
    """Images of a folder, hidden files left out; preferred extensions come first."""
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    return sorted(files, key=lambda file: (IMAGE_SUFFIXES.index(file.suffix.lower()), file.name))


def content_hash(path: Path, frames: Sequence[str]) -> str:
    """SHA-256 (hex) over the bytes of the frames' files in order, or of the video file.

    And over what is done to show them, if anything is: what is shown otherwise than by an earlier
    version is named otherwise, too.
    """
    digest = hashlib.sha256()
    files = frame_files(path, frames)
    for file in files:
        with open_regular(file) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    digest.update(_treatments(files).encode())
    return digest.hexdigest()


def stat_signature(path: Path, frames: Sequence[str]) -> str:
    """`files_signature` of the frames' files, or of the video file.

    And of what is done to show the first frame, which stands for all: headers take time.
    """
    files = frame_files(path, frames)
    signature, treatments = files_signature(files), _treatments(files[:1])
    if not treatments:
        return signature
    return hashlib.sha256(f"{signature}{treatments}".encode()).hexdigest()


def _treatments(files: Sequence[Path]) -> str:
    """What is done to show the frames of any of these files; "" for most."""
    found: set[str] = set()
    for file in files:
        treatments = video_treatments if file.suffix.lower() in VIDEO_SUFFIXES else image_treatments
        with suppress(FrameError):  # reading the frames will tell
            found |= treatments(file)
    return ", ".join(sorted(found))


def files_signature(files: Iterable[Path]) -> str:
    """SHA-256 (hex) over name, size and mtime of each file: unchanged means nothing was touched."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _wh(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} (width x height)"
