"""Overlays paint masks where they are; strips and JPEG keep the picture."""

import base64
import io

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from tasks.pictures.masks_on_frames import GAP, PALETTE, data_uri, overlay, shown_frames, strip


def test_overlay_paints_inside_the_mask_alone():
    frame_HW3 = np.full((20, 30, 3), 100, np.uint8)
    mask_HW = np.zeros((20, 30), np.uint8, order="F")
    mask_HW[5:15, 10:20] = 1
    painted = overlay(frame_HW3, {1: coco.encode(mask_HW)})
    assert (painted[mask_HW == 0] == 100).all()
    assert (painted[5, 10] == PALETTE[1]).all()  # the outline
    assert (painted[10, 15] == (0.45 * 100 + 0.55 * PALETTE[1]).astype(np.uint8)).all()
    assert (frame_HW3 == 100).all()


def test_an_empty_mask_paints_nothing():
    frame_HW3 = np.zeros((8, 8, 3), np.uint8)
    empty = coco.encode(np.zeros((8, 8), np.uint8, order="F"))
    assert (overlay(frame_HW3, {0: empty}) == frame_HW3).all()


def test_shown_frames_reach_both_ends():
    assert shown_frames(24, 6) == [0, 4, 9, 13, 18, 23]
    assert shown_frames(3, 6) == [0, 1, 2]
    assert shown_frames(1, 6) == [0]


def test_a_strip_is_a_jpeg_in_the_page():
    pictures = [np.full((10, 20, 3), value, np.uint8) for value in (0, 250)]
    joined = strip(pictures, 40)
    assert joined.shape == (40, 2 * 80 + GAP, 3)
    prefix, text = data_uri(joined).split(",")
    assert prefix == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(text))).size == (164, 40)
