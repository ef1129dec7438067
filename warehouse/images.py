"""One image file as a viewer shows it.

An EXIF orientation is applied, what is transparent is white, of 16 bits the upper 8 count. Colour
profiles are not applied. Label images are read as they are stored (`warehouse.sources.labels`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from warehouse.regular import open_regular

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # in order of preference; upper case counts as well
# Whatever a file is named, its content is one of these: others may run programs or open files.
IMAGE_FORMATS = ("JPEG", "PNG")  # Pillow's names
JPEG_END = b"\xff\xd9"
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
EXIF_ORIENTATION = 0x0112  # the tag


class FrameError(ValueError):
    """Frames that are missing, unreadable, or differ in size; the message names the file."""


class Orientation(NamedTuple):
    """How stored pixels are shown: rows and columns exchanged first, then mirrored."""

    transposed: bool = False
    flipped_x: bool = False  # left to right
    flipped_y: bool = False  # upside down

    @property
    def mirrored(self) -> bool:
        """Whether it is more than a rotation."""
        return sum(self) % 2 == 1

    def apply(self, image_HW3: np.ndarray) -> np.ndarray:
        """The image as it is shown; H and W change places where it is transposed."""
        if self.transposed:
            image_HW3 = image_HW3.swapaxes(0, 1)
        return image_HW3[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1]


BY_EXIF = {
    1: Orientation(),
    2: Orientation(flipped_x=True),
    3: Orientation(flipped_x=True, flipped_y=True),
    4: Orientation(flipped_y=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, flipped_x=True),
    7: Orientation(transposed=True, flipped_x=True, flipped_y=True),
    8: Orientation(transposed=True, flipped_y=True),
}


def read_image(file: Path) -> np.ndarray:
    """The image as it is shown, uint8 RGB (H, W, 3). Raises FrameError when it does not decode."""
    with open_image(file) as image:
        orientation = _orientation(image)
        if image.mode.startswith("I;16"):
            grey_HW = (np.array(image) >> 8).astype(np.uint8)
            shown_HW3 = np.repeat(grey_HW[..., None], 3, axis=2)
        elif image.has_transparency_data:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            shown_HW3 = np.array(Image.alpha_composite(white, rgba).convert("RGB"))
        else:
            shown_HW3 = np.array(image.convert("RGB"))
    return np.ascontiguousarray(orientation.apply(shown_HW3))


def image_treatments(file: Path) -> set[str]:
    """What is done to show the image, beyond decoding; nothing for most. FrameError as above.

    The words are part of what names frames (`content_hash`): another word computes them again.
    """
    with open_image(file) as image:
        treatments = {
            "orientation": _orientation(image) != Orientation(),
            "16 bits": image.mode.startswith("I;16"),
            "transparency": image.has_transparency_data
            and np.asarray(image.convert("RGBA").getchannel("A")).min() < 255,
        }
    return {name for name, done in treatments.items() if done}


def shown_size(file: Path) -> tuple[int, int]:
    """(height, width) in pixels of the image as it is shown, from its header alone.

    Raises FrameError when the file does not open as an image.
    """
    with open_image(file) as image:
        return _shown_size(image)


def image_header(file: Path) -> tuple[tuple[int, int], str]:
    """(height, width) in pixels as stored, and Pillow's mode of an image, decoding nothing.

    Raises FrameError when the file does not open as an image.
    """
    with open_image(file) as image:
        return (image.height, image.width), image.mode


def check_image(file: Path, *, decode: bool = False) -> tuple[int, int]:
    """`shown_size` of an image that is whole; raises FrameError when it is not.

    An image that ends as its format asks for is taken to be whole, unless `decode` is set.
    """
    with open_image(file) as image:
        size = _shown_size(image)
        if decode or not _ends(file):
            image.load()
        return size


@contextmanager
def open_image(file: Path) -> Iterator[Image.Image]:
    """An opened image; FrameError when it does not open, or fails to decode in the block."""
    try:
        with open_regular(file) as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
            yield image
    except FrameError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FrameError(f"{file}: is not a readable image ({error})") from error


def _orientation(image: Image.Image) -> Orientation:
    """By the header; what stands behind the pixels of a PNG does not count."""
    exif = image.getexif() if "exif" in image.info else {}
    return BY_EXIF.get(exif.get(EXIF_ORIENTATION, 1), Orientation())


def _shown_size(image: Image.Image) -> tuple[int, int]:
    height, width = image.height, image.width
    return (width, height) if _orientation(image).transposed else (height, width)


def _ends(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - len(PNG_END), 0))
        return stream.read().endswith((PNG_END, JPEG_END))
