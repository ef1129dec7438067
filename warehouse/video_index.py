"""Where the decoding of a video file can start, so that late frames come without the early ones."""

from bisect import bisect_right
from typing import NamedTuple

import av
from av.stream import Disposition

# Codecs of which each packet gives one frame. (Of VP8, some packets show nothing.)
INDEXED = ("h264", "hevc", "vp9", "libdav1d", "av1")


class Span(NamedTuple):
    """Seconds from which on, and until when, the frame of a packet is shown."""

    start: float
    end: float


class VideoIndex(NamedTuple):
    """Time stamps of all frames in the order they are shown, indices of the key frames, and when
    the packets of the file are shown, in its order."""

    times: list[int]
    keyframes: list[int]
    packets: list[Span]


def find_video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first stream of video that is no cover picture, as songs have it."""
    streams = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(streams, None)


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """That stream of a container that has one."""
    stream = find_video_stream(container)
    assert stream is not None, "open_video refuses files without video"
    return stream


def packet_span(packet: av.Packet) -> Span:
    """By its time stamps, as far as it has any."""
    start = packet.dts or 0 if packet.pts is None else packet.pts
    end = start + (packet.duration or 0)
    return Span(float(start * packet.time_base), float(end * packet.time_base))


def read_index(container: av.container.InputContainer) -> VideoIndex | None:
    """The index of an opened video file, from its packets alone; nothing is decoded.

    None where packets do not tell: other codecs, missing or repeated time stamps, damage.
    """
    stream = video_stream(container)
    if stream.codec_context.name not in INDEXED:
        return None
    shown, keys, packets = [], [], []
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.is_corrupt or packet.pts is None:
                return None
            if not packet.is_discard:
                shown.append(packet.pts)
                keys.append(packet.is_keyframe)
            if packet.size:
                packets.append(packet_span(packet))
    except av.FFmpegError:
        return None
    if not shown or not keys[0] or len(set(shown)) < len(shown):
        return None
    order = sorted(range(len(shown)), key=shown.__getitem__)
    return VideoIndex(
        times=[shown[n] for n in order],
        keyframes=[index for index, n in enumerate(order) if keys[n]],
        packets=packets,
    )


def seek_before(container: av.container.InputContainer, index: int) -> tuple[int, int] | None:
    """Go to the last key frame that is not after frame `index`; gives its index and time stamp.

    Frames that come with an earlier time stamp are not whole. None where one cannot go there, and
    the file has to be opened again.
    """
    found = read_index(container)
    if found is None or index >= len(found.times):
        return None
    start = found.keyframes[max(bisect_right(found.keyframes, index) - 1, 0)]
    time = found.times[start]
    try:
        container.seek(time, stream=video_stream(container))
    except av.FFmpegError:
        return None
    return start, time
