"""A video file, frame by frame as a player shows it, and when each frame is shown.

The display matrix is applied (rotated and mirrored), pixels are square, HDR (PQ and HLG) is mapped
to the range of ordinary screens. Transparency does not count.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.codec.context import ThreadType
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from warehouse.images import FrameError, Orientation
from warehouse.regular import check_regular
from warehouse.video_index import (
    Span,
    find_video_stream,
    packet_span,
    read_index,
    seek_before,
    video_stream,
)

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
# Whatever a file is named, its content is one of these: others may open further files.
VIDEO_FORMATS = "mov,matroska,avi"  # FFmpeg's names
HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
CUT_OFF_S = 0.5  # a file that ends so much before its declared end is cut off
FALLBACK_RATE = Fraction(25)  # frames per second, of a file that says nothing


class Timing(NamedTuple):
    """Seconds from the first frame at which each frame is shown, and frames per second."""

    times: tuple[Fraction, ...]
    rate: Fraction


def video_timing(path: Path) -> Timing:
    """When the frames of a video file are shown; how many there are.

    Where its packets tell, nothing is decoded, so damage is found when frames are read. A file
    without usable time stamps has its frames at equal distances.
    Raises FrameError when the file does not open, has no video stream or is cut off.
    """
    with open_video(path) as container:
        stream = video_stream(container)
        rate = stream.average_rate or FALLBACK_RATE
        index = read_index(container)
        if index:
            _check_whole(container, path, index.packets)
            stamps = [_seconds(time, stream.time_base) for time in index.times]
    if not index:
        with open_video(path) as container:
            stamps = [
                _seconds(frame.pts, frame.time_base) for frame in video_frames(container, path)
            ]
    times = [stamp for stamp in stamps if stamp is not None]
    if len(times) < len(stamps) or any(after <= before for before, after in pairwise(times)):
        return Timing(tuple(n / rate for n in range(len(stamps))), rate)
    return Timing(tuple(time - times[0] for time in times), rate)


def _seconds(stamp: int | None, unit: Fraction | None) -> Fraction | None:
    """A time stamp or duration in seconds, where the file has it and its unit."""
    return None if stamp is None or unit is None else stamp * unit


def count_frames(path: Path) -> int:
    """Number of frames that decode from a video file (containers' own counts are not reliable).

    Raises FrameError when the file does not open, has no video stream or is cut off.
    """
    with open_video(path) as container:
        return sum(1 for _ in video_frames(container, path))


def decode_video(path: Path, wanted: set[int]) -> Iterator[np.ndarray]:
    """The frames of these indices that there are, in order, as they are shown, uint8 RGB.

    Raises FrameError when the file does not open, has no video stream or does not decode.
    """
    reformatter = VideoReformatter()  # one for all: it keeps what HDR takes long to make
    for index, frame, aspect in _numbered(path, min(wanted, default=0)):
        if index in wanted:
            yield _shown(frame, aspect, reformatter, path)


def video_treatments(path: Path) -> set[str]:
    """What is done to show the first frame, beyond decoding and rotating it; nothing for most.

    The words are part of what names frames (`content_hash`): another word computes them again.
    Raises FrameError as `decode_video`.
    """
    for _, frame, aspect in _numbered(path, 0):
        treatments = {
            "mirrored": _orientation(frame).mirrored,
            "pixel aspect": _shown_width(frame, aspect) != frame.width,
            "HDR": frame.color_trc in HDR,
        }
        return {name for name, done in treatments.items() if done}
    return set()


def open_video(path: Path) -> av.container.InputContainer:
    """The opened file; raises FrameError when it does not open or has no video stream."""
    try:
        check_regular(path)
        container = av.open(str(path), options={"format_whitelist": VIDEO_FORMATS})
    except (av.FFmpegError, OSError) as error:
        if path.is_file() and _lacks_index(path):
            raise FrameError(f"{path}: {NO_INDEX}") from error
        raise FrameError(f"{path}: does not open as a video ({error})") from error
    stream = find_video_stream(container)
    if stream is None:
        problem = "has no video stream"
        if container.streams.video:
            problem += ", only a cover picture"
        elif _lacks_index(path):
            problem = NO_INDEX
        container.close()
        raise FrameError(f"{path}: {problem}")
    stream.thread_type = ThreadType.AUTO
    return container


def video_frames(container: av.container.InputContainer, path: Path) -> Iterator[av.VideoFrame]:
    """The frames as they decode; FrameError where that fails, or ends before the declared end."""
    stream = video_stream(container)
    end = 0.0
    packets: list[Span] = []
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise FrameError(f"{path}: is cut off or damaged after {end:.1f} s; copy it again")
            if packet.size:
                packets.append(packet_span(packet))
            for frame in packet.decode():
                until = _seconds((frame.pts or 0) + frame.duration, frame.time_base)
                end = max(end, float(until or 0))
                yield frame
    except av.FFmpegError as error:
        raise FrameError(f"{path}: stops decoding after {end:.1f} s ({error})") from error
    _check_whole(container, path, packets)


def _numbered(path: Path, first: int) -> Iterator[tuple[int, av.VideoFrame, Fraction]]:
    """Frames with their indices, from `first` or an earlier one on; the aspect of their pixels."""
    with open_video(path) as container:
        aspect = video_stream(container).sample_aspect_ratio or Fraction(1)  # width to height
        if first and (start := seek_before(container, first)):
            index, time = start
            frames = dropwhile(
                lambda frame: frame.pts is not None and frame.pts < time,
                video_frames(container, path),
            )
            found = None
            with suppress(FrameError):  # some streams show nothing for a while after a jump
                found = next(frames, None)
            if found is not None and found.pts == time:
                yield index, found, aspect
                for later, frame in enumerate(frames, index + 1):
                    yield later, frame, aspect
                return
    with open_video(path) as container:
        for index, frame in enumerate(video_frames(container, path)):
            yield index, frame, aspect


# --- as a player shows it ---------------------------------------------------------------------


def _shown(
    frame: av.VideoFrame, aspect: Fraction, reformatter: VideoReformatter, path: Path
) -> np.ndarray:
    width, hdr = _shown_width(frame, aspect), frame.color_trc in HDR
    if hdr and frame.color_primaries == ColorPrimaries.UNSPECIFIED:
        frame.color_primaries = ColorPrimaries.BT2020
    try:
        image_HW3 = reformatter.reformat(
            frame,
            width=width,
            format="rgb24",
            interpolation="BICUBIC" if width != frame.width else None,
            dst_color_trc=ColorTrc.IEC61966_2_1 if hdr else None,  # sRGB
            dst_color_primaries=ColorPrimaries.BT709 if hdr else None,
        ).to_ndarray()
    except av.FFmpegError as error:
        raise FrameError(f"{path}: its colours are of an unknown kind ({error})") from error
    return np.ascontiguousarray(_orientation(frame).apply(image_HW3))


def _shown_width(frame: av.VideoFrame, aspect: Fraction) -> int:
    """Width in square pixels, before it is rotated; the height stays."""
    return max(round(frame.width * aspect), 1)


def _orientation(frame: av.VideoFrame) -> Orientation:
    """Of the display matrix: (x, y) is shown at (a x + c y, b x + d y), moved into the picture."""
    side_data = cast(SideDataContainer, frame.side_data)  # PyAV's types say a dictionary
    matrix = side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return Orientation()
    a, b, _, c, d = map(int, np.frombuffer(matrix, np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, flipped_x=c < 0, flipped_y=b < 0)
    return Orientation(flipped_x=a < 0, flipped_y=d < 0)


# --- cut off ----------------------------------------------------------------------------------


NO_INDEX = (
    "has no index (box 'moov'), which is written last: the recording was stopped or the copy cut "
    "off. Copy it again, or restore the index from a sound file of the same camera (untrunc)"
)


def _lacks_index(path: Path) -> bool:
    """Whether it is an MP4 or QuickTime file without a whole box that says where its frames are."""
    total = path.stat().st_size
    boxes: list[tuple[bytes, bool]] = []  # kind, and whether the box is whole
    with path.open("rb") as file:
        while len(header := file.read(8)) == 8 and all(whole for _, whole in boxes):
            size, kind = int.from_bytes(header[:4]), header[4:]
            if size == 1:  # a 64-bit size follows
                size = int.from_bytes(file.read(8)) - 8
            boxes.append((kind, size >= 8 and file.tell() - 8 + size <= total))
            file.seek(max(size - 8, 0), 1)
    first = boxes[0][0] if boxes else b""
    return first in (b"ftyp", b"wide", b"mdat") and (b"moov", True) not in boxes


def _check_whole(
    container: av.container.InputContainer, path: Path, packets: Sequence[Span]
) -> None:
    """Raise FrameError when the file, of which these are all packets, ends too early."""
    stream = video_stream(container)
    end = max((packet.end for packet in packets), default=0.0)
    if "mov" in container.format.name:  # it says where in the file each frame is
        needed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if needed > container.size:
            raise FrameError(
                f"{path}: ends after {end:.1f} s, {needed - container.size} bytes too early; it is "
                "cut off, copy it again"
            )
        return
    starts = sorted(packet.start for packet in packets)
    gap = max((after - before for before, after in pairwise(starts)), default=0.0)
    declared = _declared_end(container)
    if end + max(CUT_OFF_S, gap) < declared:
        raise FrameError(
            f"{path}: ends after {end:.1f} of {declared:.1f} s; it is cut off, copy it again"
        )


def _declared_end(container: av.container.InputContainer) -> float:
    """Seconds after which the file says that its video ends; 0 where it does not say."""
    stream = video_stream(container)
    if "matroska" in container.format.name:
        if declared := stream.metadata.get("DURATION"):
            parts = reversed(declared.split(":"))
            return sum(float(part) * 60**power for power, part in enumerate(parts))
        if len(container.streams) == 1 and container.duration:
            return container.duration / av.time_base
    if "avi" in container.format.name and stream.frames:
        return float(_seconds(stream.duration, stream.time_base) or 0)
    return 0.0
