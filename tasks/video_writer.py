"""Write pictures as an H.264 video."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from warehouse.submissions import replacing

OPTIONS = {"preset": "veryfast", "crf": "20"}


@contextmanager
def h264_video(path: Path, rate: Fraction) -> Iterator[Callable[[np.ndarray], None]]:
    """An MP4 file; yields what to call with each picture (H, W, 3), RGB uint8, all of one size.

    `rate` is in pictures per second. The file is there when the block ends, complete, and not at
    all after an error. An odd side loses its last row or column, since H.264 has even sides here.
    """
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=OPTIONS)
        stream.pix_fmt = "yuv420p"

        def write(picture_HW3: np.ndarray) -> None:
            height, width = (side // 2 * 2 for side in picture_HW3.shape[:2])
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            even_HW3 = np.ascontiguousarray(picture_HW3[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even_HW3, format="rgb24")))

        yield write
        container.mux(stream.encode())
