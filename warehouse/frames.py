"""Frames of one video, from a folder of images or from a video file: read, count, fingerprint.

`path` is a folder of images or a video file; `frames` are the frame names in order (file stems
in a folder, zero-padded indices in a video file). Images are read as stored (an EXIF orientation
is not applied: masks are drawn on the stored pixels); a video file's display rotation is applied.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from warehouse.regular import check_regular, open_regular
from warehouse.video_index import read_index, seek_before

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # in order of preference; upper case counts as well
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
# Whatever a file is named, its content is one of these: others may run programs or open files.
IMAGE_FORMATS = ("JPEG", "PNG")  # Pillow's names
VIDEO_FORMATS = "mov,matroska,avi"  # FFmpeg's names
CUT_OFF_S = 0.5  # a Matroska file that ends so much before its declared end is cut off
JPEG_END = b"\xff\xd9"
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class FrameError(ValueError):
    """Frames that are missing, unreadable, or differ in size; the message names the file."""


def read_frames(path: Path, frames: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the frames in order, lazily, each uint8 RGB [H, W, 3].

    Any ordered selection of a video's frames will do; a video file is decoded from its start.
    Raises FrameError when a frame is missing, does not decode, or differs in size from the first.
    """
    images = _decode_images(path, frames) if path.is_dir() else _decode_video(path, frames)
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
    size, _ = image_header(file)
    return size


def image_header(file: Path) -> tuple[tuple[int, int], str]:
    """(height, width) in pixels and Pillow's mode of an image, decoding nothing.

    Raises FrameError when the file does not open as an image.
    """
    with open_image(file) as image:
        return (image.height, image.width), image.mode


def check_image(file: Path, *, decode: bool = False) -> tuple[int, int]:
    """(height, width) of an image that is whole; raises FrameError when it is not.

    An image that ends as its format asks for is taken to be whole, unless `decode` is set.
    """
    with open_image(file) as image:
        if decode or not _ends(file):
            image.load()
        return image.height, image.width


def count_frames(path: Path) -> int:
    """Number of frames that decode from a video file (containers' own counts are not reliable).

    Raises FrameError when the file does not open or has no video stream.
    """
    with _open_video(path) as container:
        return sum(1 for _ in _video_frames(container, path))


def video_length(path: Path) -> tuple[int, Fraction]:
    """Number of frames, and frames per second (on average), of a video file.

    Where its packets tell the number nothing is decoded, so damage is found when frames are read.
    Raises FrameError when the file does not open or has no video stream.
    """
    with _open_video(path) as container:
        rate = container.streams.video[0].average_rate or Fraction(25)
        index = read_index(container)
    return len(index.times) if index else count_frames(path), rate


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
    """SHA-256 (hex) over the bytes of the frames' files in order, or of the video file."""
    digest = hashlib.sha256()
    for file in frame_files(path, frames):
        with open_regular(file) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def stat_signature(path: Path, frames: Sequence[str]) -> str:
    """`files_signature` of the frames' files, or of the video file."""
    return files_signature(frame_files(path, frames))


def files_signature(files: Iterable[Path]) -> str:
    """SHA-256 (hex) over name, size and mtime of each file: unchanged means nothing was touched."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _decode_images(folder: Path, frames: Sequence[str]) -> Iterator[np.ndarray]:
    for file in frame_files(folder, frames):
        with open_image(file) as image:
            image_HW3 = np.array(image.convert("RGB"))
        yield image_HW3


@contextmanager
def open_image(file: Path) -> Iterator[Image.Image]:
    """An opened image; FrameError when it does not open, or fails to decode in the block."""
    try:
        with open_regular(file) as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FrameError(f"{file}: is not a readable image ({error})") from error


def _ends(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - len(PNG_END), 0))
        return stream.read().endswith((PNG_END, JPEG_END))


def _decode_video(path: Path, frames: Sequence[str]) -> Iterator[np.ndarray]:
    wanted = {int(frame) for frame in frames}
    for index, frame in _numbered(path, min(wanted, default=0)):
        if index in wanted:
            # av gives the rotation to apply in degrees, counter-clockwise, as np.rot90 turns.
            image_HW3 = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            yield np.ascontiguousarray(image_HW3)


def _numbered(path: Path, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with their indices, from `first` or an earlier one on."""
    with _open_video(path) as container:
        if first and (start := seek_before(container, first)):
            index, time = start
            frames = dropwhile(
                lambda f: f.pts is not None and f.pts < time, _video_frames(container, path)
            )
            found = None
            with suppress(FrameError):  # some streams show nothing for a while after a jump
                found = next(frames, None)
            if found is not None and found.pts == time:
                yield index, found
                yield from enumerate(frames, index + 1)
                return
    with _open_video(path) as container:
        yield from enumerate(_video_frames(container, path))


def _open_video(path: Path) -> av.container.InputContainer:
    try:
        check_regular(path)
        container = av.open(str(path), options={"format_whitelist": VIDEO_FORMATS})
    except (av.FFmpegError, OSError) as error:
        raise FrameError(f"{path}: does not open as a video ({error})") from error
    if not container.streams.video:
        container.close()
        raise FrameError(f"{path}: has no video stream")
    container.streams.video[0].thread_type = "AUTO"
    return container


def _video_frames(container: av.container.InputContainer, path: Path) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    end = 0.0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise FrameError(f"{path}: is cut off or damaged after {end:.1f} s; copy it again")
            for frame in packet.decode():
                shown_until = (frame.pts or 0) + frame.duration
                end = max(end, float(shown_until * (frame.time_base or 0)))
                yield frame
    except av.FFmpegError as error:
        raise FrameError(f"{path}: stops decoding after {end:.1f} s ({error})") from error
    declared = _matroska_duration(stream)
    if end + CUT_OFF_S < declared:
        raise FrameError(
            f"{path}: ends after {end:.1f} of {declared:.1f} s; it is cut off, copy it again"
        )


def _matroska_duration(stream: av.VideoStream) -> float:
    """Seconds that the file declares for the stream; 0 where it does not (only Matroska does)."""
    parts = stream.metadata.get("DURATION", "0").split(":")
    return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))


def _wh(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} (width x height)"
