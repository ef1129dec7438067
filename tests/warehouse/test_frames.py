"""Frames from folders and video files: content, order, sizes, fingerprints, and every error."""

import hashlib
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from warehouse.frames import (
    content_hash,
    frame_files,
    frame_size,
    read_frames,
    stat_signature,
)
from warehouse.images import FrameError
from warehouse.video_files import count_frames

NAMES = tuple(f"{t:05d}" for t in range(5))


def picture(t: int, height: int, width: int) -> np.ndarray:
    """Left half dark, right half brighter with t: tells order, orientation and channel order."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    image_HW3[:, width // 2 :] = ((40 * t + 50) % 256, 20, 60)
    return image_HW3


def write_images(folder: Path, height: int = 32, width: int = 48, suffix: str = ".png") -> Path:
    folder.mkdir()
    for t, name in enumerate(NAMES):
        Image.fromarray(picture(t, height, width)).save(folder / f"{name}{suffix}")
    return folder


def write_video(file: Path, height: int = 32, width: int = 48, count: int = 5) -> Path:
    options = {"movflags": "faststart"} if file.suffix == ".mp4" else {}
    with av.open(str(file), "w", options=options) as container:
        stream = container.add_stream(
            "mpeg4", rate=10, width=width, height=height, pix_fmt="yuv420p", bit_rate=4_000_000
        )
        for t in range(count):
            frame = av.VideoFrame.from_ndarray(picture(t, height, width), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def rotate_header(file: Path) -> None:
    """Set the mp4's display matrix as a phone held upright does: 90 degrees clockwise."""
    data = bytearray(file.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # the matrix of a version-0 track header
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert data[start : start + 36] == identity
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30)
    data[start : start + 36] = turned
    file.write_bytes(data)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32)])
def test_images_come_back_exactly_and_in_order(tmp_path: Path, height: int, width: int) -> None:
    folder = write_images(tmp_path / "v", height, width)
    for t, image_HW3 in enumerate(read_frames(folder, NAMES)):
        np.testing.assert_array_equal(image_HW3, picture(t, height, width))
    assert t == 4
    assert frame_size(folder, NAMES) == (height, width)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32)])
def test_a_video_file_comes_back_in_order(tmp_path: Path, height: int, width: int) -> None:
    video = write_video(tmp_path / "v.mp4", height, width)
    images = list(read_frames(video, NAMES))
    assert len(images) == count_frames(video) == 5
    for t, image_HW3 in enumerate(images):
        assert image_HW3.dtype == np.uint8
        difference = image_HW3.astype(int) - picture(t, height, width)
        assert np.abs(difference).mean() < 8
    assert frame_size(video, NAMES) == (height, width)


def test_a_selection_of_frames_is_the_same_from_images_and_video(tmp_path: Path) -> None:
    sources = write_images(tmp_path / "v"), write_video(tmp_path / "v.mp4")
    for source in sources:
        images = list(read_frames(source, NAMES[1::2]))
        assert [round(int(image[16, 40, 0]), -1) for image in images] == [90, 170]


def test_a_phone_video_is_turned_upright(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", 32, 48)
    rotate_header(video)
    assert frame_size(video, NAMES) == (48, 32)
    image_HW3 = next(read_frames(video, NAMES))
    assert image_HW3[:20].mean() < 10 < image_HW3[28:].mean()  # clockwise: left goes up


def test_other_extensions_are_found_and_jpg_is_preferred(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "v", suffix=".JPEG")
    assert [file.name for file in frame_files(folder, NAMES[:2])] == ["00000.JPEG", "00001.JPEG"]
    Image.fromarray(picture(0, 8, 8)).save(folder / "00000.jpg")
    assert frame_files(folder, NAMES)[0].name == "00000.jpg"


def test_reading_is_lazy(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "v")
    (folder / "00004.png").write_bytes(b"not an image")
    assert next(read_frames(folder, NAMES)).shape == (32, 48, 3)


@pytest.mark.parametrize("broken", [b"not an image", b""])
def test_a_frame_that_is_no_image_is_named(tmp_path: Path, broken: bytes) -> None:
    folder = write_images(tmp_path / "v")
    (folder / "00000.png").write_bytes(broken)
    with pytest.raises(FrameError, match=r"00000\.png: is not a readable image"):
        list(read_frames(folder, NAMES))
    with pytest.raises(FrameError, match=r"00000\.png: is not a readable image"):
        frame_size(folder, NAMES)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_frame_is_named(tmp_path: Path, suffix: str) -> None:
    folder = write_images(tmp_path / "v", 200, 300, suffix)
    file = folder / f"00003{suffix}"
    file.write_bytes(file.read_bytes()[:-150])
    with pytest.raises(FrameError, match=f"00003{suffix}: is not a readable image"):
        list(read_frames(folder, NAMES))


@pytest.mark.parametrize(("chunk", "length"), [(b"IHDR", 5), (b"IDAT", 20)])
def test_a_png_with_a_wrong_chunk_length_is_named(
    tmp_path: Path, chunk: bytes, length: int
) -> None:
    folder = write_images(tmp_path / "v")
    data = bytearray((folder / "00003.png").read_bytes())
    data[data.index(chunk) - 1] = length
    (folder / "00003.png").write_bytes(data)
    with pytest.raises(FrameError, match=r"00003\.png: is not a readable image"):
        list(read_frames(folder, NAMES))


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "v")
    (folder / "00002.png").unlink()
    with pytest.raises(FrameError, match=r"frame 00002 has no image \(1 of 5 missing"):
        list(read_frames(folder, NAMES))


def test_a_change_of_size_is_told_with_both_sizes(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "v", 32, 48)
    Image.fromarray(picture(2, 48, 32)).save(folder / "00002.png")
    with pytest.raises(FrameError, match=r"frame 00002 is 32x48 .* first frame is 48x32"):
        list(read_frames(folder, NAMES))


def test_a_video_that_is_too_short(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", count=3)
    with pytest.raises(FrameError, match=r"v\.mp4: the video ends before frame 00003 \(of 5\)"):
        list(read_frames(video, NAMES))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_file_that_is_cut_off(tmp_path: Path, suffix: str) -> None:
    video = write_video(tmp_path / f"v{suffix}", count=48)
    assert count_frames(video) == 48
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    with pytest.raises(FrameError, match=rf"v{suffix}: .* cut off"):
        count_frames(video)


def test_files_that_are_no_video(tmp_path: Path) -> None:
    file = tmp_path / "v.mp4"
    with pytest.raises(FrameError, match=r"v\.mp4: does not open as a video"):
        count_frames(file)
    file.write_bytes(b"not a video")
    with pytest.raises(FrameError, match=r"v\.mp4: does not open as a video"):
        frame_size(file, NAMES)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux([*stream.encode(silence), *stream.encode()])
    with pytest.raises(FrameError, match=r"v\.mp4: has no video stream"):
        count_frames(file)


def test_no_frames_have_no_size(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="has no frames"):
        frame_size(tmp_path, ())


def test_content_hash_is_of_the_bytes_in_order(tmp_path: Path) -> None:
    folder, video = write_images(tmp_path / "v"), write_video(tmp_path / "v.mp4")
    assert content_hash(video, NAMES) == hashlib.sha256(video.read_bytes()).hexdigest()
    joined = b"".join((folder / f"{name}.png").read_bytes() for name in NAMES)
    assert content_hash(folder, NAMES) == hashlib.sha256(joined).hexdigest()
    assert content_hash(folder, NAMES[::-1]) != content_hash(folder, NAMES)
    with pytest.raises(FrameError, match="no such frame folder or video file"):
        content_hash(tmp_path / "gone", NAMES)


def test_stat_signature_changes_when_a_file_is_touched(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "v")
    before = stat_signature(folder, NAMES)
    assert stat_signature(folder, NAMES) == before
    os.utime(folder / "00003.png", ns=(1, 1))
    assert stat_signature(folder, NAMES) != before
    assert stat_signature(folder, NAMES[:3]) != before
