"""Submissions: one PNG mask for every expression and frame, in a folder or a zip.

    MeViS              <video>/<expression>/<frame>.png
    Ref-YouTube-VOS    Annotations/<video>/<expression>/<frame>.png
    Ref-DAVIS17        anno_<0..3>/<video>/<frame>.png, pixel value = object, counted from 1

Folders around these are ignored when reading. The layouts are those of the two servers and of
ReferFormer's scripts; masks are 0 and 255.
"""

import errno
import io
import lzma
import os
import shutil
import uuid
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from warehouse.regular import check_regular, open_regular

LARGEST = (
    64 << 20
)  # bytes of a mask's file, which is some kB: a zip may hold less and unpack to more
SINGLE_CHANNEL = ("1", "L", "P", "I", "I;16")  # Pillow's modes
# What a damaged zip, an encrypted one (RuntimeError) or an unknown compression raises.
ZIP_ERRORS = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OLDEST = (1980, 1, 1, 0, 0, 0)  # of a zip's clock: the same masks give the same bytes
DEPTH = 3  # folders that may lie around a submission


class SubmissionError(ValueError):
    """A submission that cannot be read or written; the message names the file."""


def list_masks(path: Path, tops: Collection[str]) -> dict[str, str]:
    """The PNG files: name within the submission -> name within the folder or zip.

    `tops` are the names that a submission's first level may have; what lies around is cut off.
    Raises SubmissionError when there is no such folder or zip.
    """
    stored = list_files(path)
    files = [name for name in stored if name.endswith(".png") and "__MACOSX" not in name]
    parts = [name.split("/") for name in files]
    for depth in range(DEPTH):
        around = Counter(
            tuple(names[:depth]) for names in parts if len(names) > depth and names[depth] in tops
        )
        if around:
            (common, _), *_ = around.most_common(1)
            start = sum(len(name) + 1 for name in common)
            return {
                name[start:]: name
                for name, names in zip(files, parts, strict=True)
                if tuple(names[:depth]) == common
            }
    return {name: name for name in files}


def list_files(path: Path) -> list[str]:
    """All files of a folder or zip. Raises SubmissionError when there is no such folder or zip."""
    if path.is_dir():
        return [
            os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/")
            for folder, _, names in os.walk(path)
            for name in names
        ]
    return [name for name in _zip(path).namelist() if not name.endswith("/")]


def read_mask(path: Path, stored: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Pixel values (H, W) of a PNG of one channel, of a palette image its indices.

    Raises SubmissionError when it does not decode, has several channels or another (height,
    width) than `size`; then nothing is decoded.
    """
    where = f"{path}: {stored}" if path.is_file() else f"{path / stored}"
    try:
        content = _content(path, stored)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if size is not None and (image.height, image.width) != size:
                raise SubmissionError(
                    f"{where}: the mask is {image.height} x {image.width}, but the ground truth is "
                    f"{size[0]} x {size[1]} (height x width). Resize the masks to the size of the "
                    "video's frames, by nearest neighbour"
                )
            image.load()
            mode, values = image.mode, np.array(image)
    except SubmissionError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SubmissionError(f"{where}: does not decode as a PNG image: {error}") from error
    if mode not in SINGLE_CHANNEL:
        raise SubmissionError(
            f"{where}: is an image of mode {mode}; a mask has one channel, in which every value "
            "but 0 is foreground. Convert it to grey values or a palette"
        )
    return values


def _content(path: Path, stored: str) -> bytes:
    """The bytes of a mask. Raises OSError when there is no such file, or it cannot be a mask's."""
    if path.is_dir():
        with open_regular(path / stored) as file:
            content = file.read(LARGEST + 1)
    else:
        try:
            with _zip(path).open(stored) as file:
                content = file.read(LARGEST + 1)
        except ZIP_ERRORS as error:
            raise OSError(f"the zip cannot be unpacked here ({error}); make it anew") from error
    if len(content) > LARGEST:
        raise OSError(f"has more than {LARGEST >> 20} MB, which no mask has")
    return content


@lru_cache(maxsize=1)
def _zip(path: Path) -> zipfile.ZipFile:
    try:
        check_regular(path)
        return zipfile.ZipFile(path)
    except (*ZIP_ERRORS, UnicodeDecodeError) as error:
        raise SubmissionError(
            f"{path}: is no folder and no readable zip file ({error}); give the folder or zip of "
            "the predicted masks"
        ) from error


def encode_mask(mask_HW: np.ndarray, palette: bytes | None = None) -> bytes:
    """A PNG: grey values 0 and 255 of a mask, or with a palette the labels as they are."""
    image = Image.fromarray(mask_HW.astype(np.uint8) * (255 if palette is None else 1))
    if palette is not None:
        image.putpalette(palette)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def label_palette() -> bytes:
    """PASCAL VOC's 256 colours, which DAVIS and YouTube-VOS use, too: the bits of a label, from
    the lowest, go in turn to red, green and blue, from the highest bit of each."""
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((np.arange(256) >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours.tobytes()


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Write the files, all or none, replacing a zip that is there; returns their number.

    Equal files in equal order give equal bytes. Raises SubmissionError when the place cannot be
    written to.
    """
    count = 0
    with replacing(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(name, OLDEST)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
            count += 1
    return count


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file when the block ends, and is dropped on an error.

    A file that is there keeps its mode, a new one has what the umask leaves. Links are followed.
    A device or FIFO, as /dev/null, is written to. Raises SubmissionError when the place cannot be
    written to, or is full.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                yield stream
            return
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        if error.filename in (str(target), str(temporary)) or error.errno in FULL:
            raise SubmissionError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
