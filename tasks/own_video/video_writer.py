"""Write pictures as an H.264 video."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from warehouse.submissions import replacing

# Without B-frames, since MP4 counts a duration in the order of decoding.
OPTIONS = {"preset": "veryfast", "crf": "20", "bf": "0"}
LARGEST_SIDE = 8192  # pixels; H.264 has no level for more
TICKS = 360_000  # in a second: whole numbers for 24, 25, 30 and 60 frames, and for 1001ths of them
ONE_PICTURE_RATE = Fraction(24)  # in a second, of a picture alone


def evenly(count: int, rate: Fraction) -> list[Fraction]:
    """Seconds at which so many pictures are shown, `rate` of them in a second."""
    return [n / rate for n in range(count)]


@contextmanager
def h264_video(path: Path, times: Sequence[Fraction]) -> Iterator[Callable[[np.ndarray], None]]:
    """An MP4 file; yields what to call with each picture (H, W, 3), RGB uint8, all of one size.

    `times`: of each picture, seconds at which it is shown, ascending; the last is shown for their
    mean distance. The file is there when the block ends, complete, and not at all after an
    error. Pictures of more than `LARGEST_SIDE` pixels are shrunk. An odd side loses its last row or
    column, since H.264 has even sides here.
    """
    ticks = [round(time * TICKS) for time in times]
    rate = ONE_PICTURE_RATE
    if len(ticks) > 1:
        rate = Fraction((len(ticks) - 1) * TICKS, ticks[-1] - ticks[0]).limit_denominator(1001)
    shown = iter(ticks)
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(rate, Fraction(1)), options=OPTIONS)
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.time_base = Fraction(1, TICKS)
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709

        def write(picture_HW3: np.ndarray) -> None:
            picture_HW3 = _shrunk(picture_HW3)
            height, width = (side // 2 * 2 for side in picture_HW3.shape[:2])
            if not codec.is_open:
                stream.height, stream.width = height, width
            even_HW3 = np.ascontiguousarray(picture_HW3[:height, :width])
            frame = av.VideoFrame.from_ndarray(even_HW3, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            frame.time_base = codec.time_base
            frame.pts = next(shown)
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode())


def _shrunk(picture_HW3: np.ndarray) -> np.ndarray:
    """By a whole number, so that no side is longer than `LARGEST_SIDE`."""
    height, width = picture_HW3.shape[:2]
    divisor = math.ceil(max(height, width) / LARGEST_SIDE)
    if divisor == 1:
        return picture_HW3
    size = max(width // divisor, 2), max(height // divisor, 2)
    return cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA)
