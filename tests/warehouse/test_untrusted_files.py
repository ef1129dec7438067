"""Files of others: no program starts, nothing waits, memory is bounded, and a message says why."""

import io
import os
import random
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from warehouse.frames import content_hash, count_frames, read_frames
from warehouse.images import FrameError, check_image
from warehouse.sources.base import SourceError, read_json_object, read_lines
from warehouse.submissions import LARGEST, SubmissionError, list_masks, read_mask

MASK_HW = np.eye(32, dtype=np.uint8) * 255
NAME = "v/0/00000.png"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"


def encoded(format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(MASK_HW).save(stream, format)
    return stream.getvalue()


def zipped(path: Path, content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(NAME, content)
    return path


def changed(path: Path, position: int, value: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[position : position + len(value)] = value
    path.write_bytes(content)
    return path


def claiming(side: int) -> bytes:
    """A PNG whose header says that it is so wide and high."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    png = encoded("PNG")
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of Ghostscript's name; the file it makes when it is run."""
    folder, ran = tmp_path / "bin", tmp_path / "gs-ran"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    return ran


@pytest.mark.parametrize("content", [EPS, encoded("TIFF"), encoded("BMP"), encoded("GIF")])
def test_what_a_file_is_named_does_not_choose_its_decoder(
    tmp_path: Path, ghostscript: Path, content: bytes
) -> None:
    with pytest.raises(SubmissionError, match=r"00000\.png: does not decode as a PNG"):
        read_mask(zipped(tmp_path / "masks.zip", content), NAME)
    (tmp_path / "00000.png").write_bytes(content)
    with pytest.raises(SubmissionError, match=r"00000\.png: does not decode as a PNG"):
        read_mask(tmp_path, "00000.png")
    with pytest.raises(FrameError, match=r"00000\.png: is not a readable image"):
        list(read_frames(tmp_path, ["00000"]))
    assert not ghostscript.exists()


def test_a_video_file_opens_no_others(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "real.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", 5, width=32, height=32)
        for packet in [*stream.encode(av.VideoFrame(32, 32, "yuv420p")), *stream.encode(None)]:
            container.mux(packet)
    assert count_frames(tmp_path / "real.mp4") == 1
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n"
    for content in ("ffconcat version 1.0\nfile real.mp4\n", hls):
        (tmp_path / "v.mp4").write_text(content)
        with pytest.raises(FrameError, match=r"v\.mp4: does not open as a video"):
            count_frames(tmp_path / "v.mp4")


def test_fifos_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    for name in ("00000.png", "v.mp4", "meta.json"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for stored in ("00000.png", "zero.png"):
        with pytest.raises(SubmissionError, match="not a regular file"):
            read_mask(tmp_path, stored)
        with pytest.raises(FrameError, match="not a regular file"):
            check_image(tmp_path / stored)
        with pytest.raises(OSError, match="not a regular file"):
            content_hash(tmp_path, [Path(stored).stem])
    with pytest.raises(FrameError, match="not a regular file"):
        count_frames(tmp_path / "v.mp4")
    for read in (read_json_object, read_lines):
        with pytest.raises(SourceError, match="not a regular file"):
            read(tmp_path / "meta.json")
    for place in (tmp_path / "v.mp4", Path("/dev/zero")):
        with pytest.raises(SubmissionError, match="not a regular file"):
            list_masks(place, {"v"})


def test_memory_is_bounded_whatever_a_zip_unpacks_to(tmp_path: Path) -> None:
    png = encoded("PNG")
    bomb = zipped(tmp_path / "bomb.zip", png + bytes(2 * LARGEST))
    assert bomb.stat().st_size < LARGEST / 100
    tracemalloc.start()
    with pytest.raises(SubmissionError, match="has more than 64 MB"):
        read_mask(bomb, NAME)
    assert tracemalloc.get_traced_memory()[1] < 3 * LARGEST
    tracemalloc.stop()
    (tmp_path / "wide.png").write_bytes(claiming(12000))
    with pytest.raises(SubmissionError, match="the mask is 12000 x 12000, but the ground truth is"):
        read_mask(tmp_path, "wide.png", (32, 32))
    (tmp_path / "huge.png").write_bytes(claiming(90000))
    with pytest.raises(SubmissionError, match="does not decode"):
        read_mask(tmp_path, "huge.png")


def test_encrypted_and_unknown_zips(tmp_path: Path) -> None:
    directory = zipped(tmp_path / "a.zip", encoded("PNG")).read_bytes().find(b"PK\x01\x02")
    encrypted = changed(changed(tmp_path / "a.zip", 6, b"\1"), directory + 8, b"\1")
    with pytest.raises(SubmissionError, match=r"00000\.png: .*encrypted"):
        read_mask(encrypted, NAME)
    unknown = zipped(tmp_path / "b.zip", encoded("PNG"))
    changed(changed(unknown, 8, b"\x63"), directory + 10, b"\x63")
    with pytest.raises(SubmissionError, match=r"00000\.png: .*compression"):
        read_mask(unknown, NAME)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_zip_gives_the_mask_or_a_message(tmp_path: Path, compression: int) -> None:
    sound = zipped(tmp_path / "sound.zip", encoded("PNG"), compression).read_bytes()
    rng = random.Random(compression)
    refused = 0
    for number in range(300):
        path = tmp_path / f"{number}.zip"
        position = rng.randrange(len(sound))
        path.write_bytes(sound)
        changed(path, position, bytes([sound[position] ^ 1 << rng.randrange(8)]))
        try:
            if files := list_masks(path, {"v"}):
                found = read_mask(path, next(iter(files.values())))
                np.testing.assert_array_equal(found, MASK_HW)
        except SubmissionError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "text", ["[" * 1_000_000, '{"a":' * 1_000_000, '{"a": 1' + "0" * 5000 + "}"]
)
def test_json_that_is_too_deep_or_too_long(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(SourceError, match=r"meta\.json: is not the JSON of a data set"):
        read_json_object(tmp_path / "meta.json")
