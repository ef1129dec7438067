"""Pictures of mask tracks on frames: overlays, strips, and their JPEG bytes.

Axes: H and W in pixels, RGB uint8.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from sola_model.metrics.jf import RLE

# Colours that stay apart for most colour-blind readers (Okabe and Ito), on light and dark frames.
PALETTE = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66],
     [0, 114, 178], [213, 94, 0], [204, 121, 167], [200, 200, 200]], np.uint8
)  # fmt: skip
OPACITY = 0.55
GAP = 4  # pixels between the frames of a strip


def overlay(frame_HW3: np.ndarray, masks: Mapping[int, RLE]) -> np.ndarray:
    """The frame with COCO RLE masks painted over it and outlined, each in its number's colour."""
    picture = frame_HW3.copy()
    for number, rle in masks.items():
        inside_HW = coco.decode(rle)
        colour = PALETTE[number % len(PALETTE)]
        blended = (1 - OPACITY) * picture[inside_HW > 0] + OPACITY * colour
        picture[inside_HW > 0] = blended.astype(np.uint8)
        outline, _ = cv2.findContours(inside_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outline, -1, colour.tolist(), 1)
    return picture


def shown_frames(count: int, shown: int) -> list[int]:
    """Up to `shown` frame indices of `count`, evenly spread, the first and the last among them."""
    return sorted({int(t) for t in np.linspace(0, count - 1, min(shown, count))})


def strip(pictures: Sequence[np.ndarray], height: int) -> np.ndarray:
    """Pictures of one size side by side, scaled to `height` pixels, on white."""
    scaled = [
        np.asarray(Image.fromarray(p).resize((round(p.shape[1] * height / p.shape[0]), height)))
        for p in pictures
    ]
    gap = np.full((height, GAP, 3), 255, np.uint8)
    parts = [part for picture in scaled for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def jpeg(picture_HW3: np.ndarray, quality: int = 80) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture_HW3).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def data_uri(picture_HW3: np.ndarray, quality: int = 80) -> str:
    """The picture as a `data:` address, for pages without files beside them."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture_HW3, quality)).decode()
