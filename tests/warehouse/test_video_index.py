"""Late frames of a video file: those that decoding from the start gives, without the early ones."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from warehouse.frames import read_frames
from warehouse.video_files import count_frames, video_timing
from warehouse.video_index import read_index, seek_before

COUNT = 40
CODECS = {
    "closed.mp4": ("libx264", {"g": "12"}),
    "open.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=4"}),
    "refresh.mkv": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "h265.mp4": ("libx265", {"x265-params": "keyint=12:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "lag-in-frames": "16", "auto-alt-ref": "1"}),
    "vp8.webm": ("libvpx", {"g": "12", "lag-in-frames": "16", "auto-alt-ref": "1"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}),
}


def write(file: Path, codec: str, options: dict[str, str], uneven: bool = False) -> Path:
    """A noise picture that moves, at 30 frames per second or at uneven times."""
    noise_HW3 = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=30, width=96, height=64, pix_fmt="yuv420p")
        stream.options = options
        for t in range(COUNT):
            frame = av.VideoFrame.from_ndarray(np.roll(noise_HW3, t, 1), format="rgb24")
            if uneven:
                frame.pts, frame.time_base = t * t, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


@pytest.mark.parametrize("name", [*CODECS, "uneven.mp4"])
def test_late_frames_are_those_of_decoding_from_the_start(name: str, tmp_path: Path) -> None:
    codec, options = CODECS.get(name, CODECS["closed.mp4"])
    file = write(tmp_path / name, codec, options, name == "uneven.mp4")
    count = len(video_timing(file).times)
    assert count == count_frames(file) == COUNT
    names = [f"{index:05d}" for index in range(count)]
    every = list(read_frames(file, names))
    for first in (1, 11, 12, 13, 30, COUNT - 1):
        late = list(read_frames(file, names[first : first + 5]))
        np.testing.assert_array_equal(late, every[first : first + 5])


@pytest.mark.parametrize("name", ["closed.mp4", "open.mkv", "h265.mp4", "vp9.webm"])
def test_decoding_starts_at_the_key_frame_before(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, *CODECS[name])
    with av.open(str(file)) as container:
        assert (index := read_index(container)) and index.keyframes == [0, 12, 24, 36]
    with av.open(str(file)) as container:
        assert seek_before(container, 30) == (24, index.times[24])
        first = next(container.decode(video=0))
        assert index.times[12] < first.pts <= index.times[24]


@pytest.mark.parametrize("name", ["vp8.webm", "mpeg4.avi"])
def test_where_packets_do_not_tell_there_is_no_index(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, *CODECS[name])
    with av.open(str(file)) as container:
        assert read_index(container) is None


def test_length_and_rate(tmp_path: Path) -> None:
    file = write(tmp_path / "v.mp4", *CODECS["closed.mp4"])
    assert video_timing(file) == (tuple(Fraction(t, 30) for t in range(COUNT)), 30)
