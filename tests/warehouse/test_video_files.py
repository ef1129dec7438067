"""Video files as a player shows them: a table of files made here, each with one peculiarity."""

import hashlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from warehouse.frames import content_hash, read_frames, stat_signature
from warehouse.images import FrameError
from warehouse.own_video import own_video
from warehouse.video_files import count_frames, video_timing

H, W, COUNT = 48, 64, 12
CODEC = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9",
         ".avi": "mpeg4"}  # fmt: skip
ONE = 1 << 16  # 1.0 in a display matrix


def picture(t: int = 0) -> np.ndarray:
    """A corner of each colour, and a bar that moves: tells order and orientation."""
    image_HW3 = np.full((H, W, 3), 60, np.uint8)
    corners = ((0, 0, (250, 250, 250)), (0, W, (220, 30, 30)), (H, 0, (30, 200, 30)),
               (H, W, (30, 30, 220)))  # fmt: skip
    for y, x, colour in corners:
        image_HW3[y and y - 12 : y or 12, x and x - 16 : x or 16] = colour
    image_HW3[20:28, 4 * t : 4 * t + 8] = 200
    return image_HW3


def noise(t: int) -> np.ndarray:
    """Packets of some size, so that a file can be cut in many places."""
    return np.random.default_rng(t).integers(0, 255, (H, W, 3), np.uint8)


def write(
    file: Path,
    frames: Sequence[np.ndarray] | None = None,
    *,
    codec: str | None = None,
    pixels: str = "yuv420p",
    stamps: Sequence[int] | None = None,
    setup: Callable[[Any], None] = lambda stream: None,
    options: dict[str, str] | None = None,
    box: dict[str, str] | None = None,
) -> Path:
    """A video of 10 frames a second, or with time `stamps` in milliseconds."""
    frames = [picture(t) for t in range(COUNT)] if frames is None else frames
    base = Fraction(1, 1000) if stamps else Fraction(1, 10)
    with av.open(str(file), "w", options=box or {}) as container:
        stream = container.add_stream(codec or CODEC[file.suffix], rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        stream.bit_rate = 4_000_000
        if stamps:
            stream.codec_context.time_base = base
        setup(stream)
        for t, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base, frame.pts = base, stamps[t] if stamps else t
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def write_yuv(file: Path, yuv: tuple[int, int, int], pixels: str, **tags: int) -> Path:
    """A frame of one colour, given as it is stored, with the tags that say what it means."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = H, W, pixels
        frame = av.VideoFrame(W, H, pixels)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        for plane, value in zip(frame.planes, yuv, strict=True):
            np.frombuffer(plane, np.uint16 if "10" in pixels else np.uint8)[:] = value
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def first(file: Path) -> np.ndarray:
    return next(read_frames(file, ("00000",))).astype(int)


def names(file: Path) -> tuple[str, ...]:
    return own_video(file).frames


# --- orientation --------------------------------------------------------------------------------

MATRICES = {  # a, b, c, d: pixel (x, y) is shown at (a x + c y, b x + d y), moved into the picture
    "as it is": (1, 0, 0, 1),
    "90 clockwise": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270 clockwise": (0, -1, 1, 0),
    "left to right": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}


def placed(image_HW3: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Each pixel where the matrix says."""
    ys, xs = np.indices(image_HW3.shape[:2])
    shown_xs, shown_ys = a * xs + c * ys, b * xs + d * ys
    shown_xs, shown_ys = shown_xs - shown_xs.min(), shown_ys - shown_ys.min()
    shown = np.zeros((shown_ys.max() + 1, shown_xs.max() + 1, 3), np.uint8)
    shown[shown_ys, shown_xs] = image_HW3
    return shown


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("name", MATRICES)
def test_rotations_and_mirrors(tmp_path: Path, name: str, suffix: str) -> None:
    a, b, c, d = MATRICES[name]
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    file = write(tmp_path / f"v{suffix}", setup=lambda s: s.set_display_matrix(matrix))
    for t, frame_HW3 in enumerate(read_frames(file, names(file))):
        expected_HW3 = placed(picture(t), a, b, c, d)
        assert frame_HW3.shape == expected_HW3.shape
        assert np.median(np.abs(frame_HW3.astype(int) - expected_HW3)) < 6
        corners = np.ix_((4, -5), (4, -5))
        assert np.abs(frame_HW3.astype(int) - expected_HW3)[corners].max() < 30
    assert t == COUNT - 1


# --- colour -------------------------------------------------------------------------------------

KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def rgb(yuv: Sequence[int], space: int, full: bool, bits: int = 8) -> np.ndarray:
    """By the definition: ITU-T H.273, matrix coefficients and ranges."""
    unit = 1 << (bits - 8)
    y, u, v = yuv
    if full:
        y, u, v = (x / (256 * unit - 1) for x in (y, u - 128 * unit, v - 128 * unit))
    else:
        y, u, v = (y - 16 * unit) / (219 * unit), *((x / unit - 128) / 224 for x in (u, v))
    kr, kb = KR_KB[space]
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return 255 * np.clip([r, (y - kr * r - kb * b) / (1 - kr - kb), b], 0, 1)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("space", KR_KB)
def test_matrix_range_and_depth(tmp_path: Path, space: int, full: bool, bits: int) -> None:
    yuv = tuple(value << (bits - 8) for value in (120, 90, 190))
    pixels = "yuv420p" if bits == 8 else "yuv420p10le"
    file = write_yuv(tmp_path / "v.mkv", yuv, pixels, colorspace=space, color_range=1 + full)
    np.testing.assert_allclose(first(file)[20, 20], rgb(yuv, space, full, bits), atol=3)


def pq(nits: float) -> int:
    """SMPTE ST 2084 code, 10 bits of limited range."""
    power = (nits / 10_000) ** (2610 / 16384)
    code = (3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)
    return round(64 + 876 * code ** (2523 / 32))


def test_hdr_is_mapped_to_an_ordinary_screen(tmp_path: Path) -> None:
    """Black stays black, diffuse white (203 nits in PQ, 75 % in HLG) is bright, mid grey is mid."""
    for trc, black, grey, white in ((16, pq(0), pq(40), pq(203)), (18, 64, 393, 721)):
        shown = []
        for n, luma in enumerate((black, grey, white)):
            file = tmp_path / f"{trc}-{n}.mkv"
            tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": trc}
            write_yuv(file, (luma, 512, 512), "yuv420p10le", **tags)
            pixel = first(file)[20, 20]
            assert np.ptp(pixel) <= 2
            shown.append(pixel[0])
        assert shown[0] < 4 and 90 < shown[1] < 165 and shown[2] > 200, (trc, shown)


# --- the shape of pixels ------------------------------------------------------------------------


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(16, 15), Fraction(8, 9), Fraction(1)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_pixels_are_square(tmp_path: Path, suffix: str, aspect: Fraction) -> None:
    def setup(stream) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    file = write(tmp_path / f"v{suffix}", setup=setup)
    frame_HW3 = first(file)
    assert frame_HW3.shape[:2] == (H, round(W * aspect))
    assert (frame_HW3[4, 4] > 200).all() and frame_HW3[4, -5, 0] > 180 > frame_HW3[4, -5, 1]


def test_the_shape_of_pixels_is_that_before_rotating(tmp_path: Path) -> None:
    def setup(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        stream.set_display_matrix([0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30])

    for suffix in (".mp4", ".mov", ".mkv"):
        assert first(write(tmp_path / f"v{suffix}", setup=setup)).shape[:2] == (2 * W, H)


# --- time ---------------------------------------------------------------------------------------

STAMPS = (0, 33, 66, 100, 400, 433, 466, 1500, 1533, 1566, 3000, 3033)  # milliseconds


@pytest.mark.parametrize(
    ("name", "codec"),
    [("v.mp4", "libx264"), ("v.mov", "libx264"), ("v.mkv", "libx264"), ("v.webm", "libvpx-vp9"),
     ("8.webm", "libvpx"), ("4.mkv", "mpeg4")],
)  # fmt: skip
def test_irregular_times(tmp_path: Path, name: str, codec: str) -> None:
    file = write(tmp_path / name, codec=codec, stamps=STAMPS)
    times, _ = video_timing(file)
    np.testing.assert_allclose([float(time) for time in times], np.array(STAMPS) / 1000, atol=1e-3)


def test_regular_times(tmp_path: Path) -> None:
    for suffix in CODEC:
        times, rate = video_timing(write(tmp_path / f"v{suffix}"))
        assert rate == 10
        np.testing.assert_allclose([float(t) for t in times], np.arange(COUNT) / 10, atol=1e-3)


# --- what ends too early ------------------------------------------------------------------------

SAID = "cut off|stops decoding|no index|does not open"


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("suffix", CODEC)
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str, kept: float) -> None:
    box = {"movflags": "faststart"} if suffix in (".mp4", ".mov") else None
    frames = [noise(t) for t in range(60)]
    file = write(tmp_path / f"v{suffix}", frames, box=box)
    assert len(names(file)) == count_frames(file) == 60
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FrameError, match=SAID):
        for _ in read_frames(file, names(file)):
            pass
    with pytest.raises(FrameError, match=SAID):
        count_frames(file)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
def test_a_file_that_is_cut_off_between_two_packets(tmp_path: Path, suffix: str) -> None:
    box = {"movflags": "faststart"} if suffix == ".mp4" else None
    file = write(tmp_path / f"v{suffix}", [noise(t) for t in range(60)], box=box)
    with av.open(str(file)) as container:
        places = [p.pos for p in container.demux(video=0) if p.size]
    file.write_bytes(file.read_bytes()[: places[25]])
    with pytest.raises(FrameError, match="cut off"):
        names(file)


def test_a_file_that_ends_with_a_long_frame_is_whole(tmp_path: Path) -> None:
    """A talk of few slides: the last one's end is not written into every file."""
    for suffix in (".mp4", ".mkv", ".webm"):
        file = write(tmp_path / f"v{suffix}", stamps=[7000 * t for t in range(COUNT)])
        assert len(names(file)) == COUNT


def test_a_recording_without_its_index(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mov"):
        file = write(tmp_path / f"v{suffix}", [noise(t) for t in range(30)])
        content = file.read_bytes()
        for kept in (len(content) // 20, len(content) // 2, content.index(b"trak") + 20):
            file.write_bytes(content[:kept])
            with pytest.raises(FrameError, match="has no index"):
                names(file)


# --- cover pictures -----------------------------------------------------------------------------


def write_song(file: Path, *, with_video: bool) -> Path:
    """Sound with a cover picture, which comes first, and perhaps a video."""
    with av.open(str(file), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = H, W, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        video = container.add_stream("libx264", rate=10) if with_video else None
        if video:
            video.height, video.width, video.pix_fmt = H, W, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.VideoFrame.from_ndarray(np.full((H, W, 3), 9, np.uint8), format="rgb24")
        container.mux(cover.encode(frame))
        container.mux(cover.encode())
        if video:
            for t in range(COUNT):
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture(t), format="rgb24")))
            container.mux(video.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 16000
        container.mux([*audio.encode(silence), *audio.encode()])
    return file


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="has no video stream, only a cover picture"):
        names(write_song(tmp_path / "song.mp4", with_video=False))
    file = write_song(tmp_path / "clip.mp4", with_video=True)
    assert len(names(file)) == count_frames(file) == COUNT
    assert (first(file)[4, 4] > 200).all()


# --- fingerprints -------------------------------------------------------------------------------


def test_only_what_was_read_otherwise_before_is_named_otherwise(tmp_path: Path) -> None:
    """Else warehouses would compute ordinary videos again, or keep wrong tracks of these."""

    def hashed(file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def mirrored(stream) -> None:
        stream.set_display_matrix([-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30])

    def rotated(stream) -> None:
        stream.set_display_matrix([0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30])

    def wide(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    frame = ("00000",)
    for name, setup in (("plain.mp4", lambda stream: None), ("rotated.mp4", rotated)):
        file = write(tmp_path / name, setup=setup)
        assert content_hash(file, frame) == hashed(file)
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    others = [
        write(tmp_path / "mirrored.mp4", setup=mirrored),
        write(tmp_path / "wide.mkv", setup=wide),
        write_yuv(tmp_path / "hdr.mkv", (500, 512, 512), "yuv420p10le", **tags),
    ]
    for file in others:
        assert content_hash(file, frame) != hashed(file)
        assert stat_signature(file, frame) == stat_signature(file, frame)
