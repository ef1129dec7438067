"""Geometry channels of mask tracks on tracks whose motion and shape are known."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from sola_model.masks.geometry import CHANNELS, SCALE, geometry


def track(masks_THW: np.ndarray) -> list[dict]:
    return [coco.encode(np.asfortranarray(mask_HW, np.uint8)) for mask_HW in masks_THW]


def test_a_track_that_moves_right_grows_and_disappears():
    masks_THW = np.zeros((6, 40, 100), np.uint8)
    for t in range(5):
        masks_THW[t, 20:28, 10 * t : 11 * t + 8] = 1
        masks_THW[t, 20:24, 10 * t : 10 * t + 2] = 0
    found = geometry([track(masks_THW)])
    assert found.shape == (1, 6, CHANNELS) and found.dtype == np.float32
    x, y, w, h, dx, dy, dw, _, visible, from_x, from_y, fill, *_ = (found / SCALE)[0].T
    centre = 10 * np.arange(5) + (8 + np.arange(5)) / 2
    np.testing.assert_allclose(x[:5], 2 * centre / 100 - 1, atol=1e-6)
    np.testing.assert_allclose(y[:5], 2 * 24 / 40 - 1, atol=1e-6)
    assert (np.diff(w[:5]) > 0).all() and np.ptp(h[:5]) == 0
    np.testing.assert_allclose(dx[2], x[4] - x[0], atol=1e-6)
    np.testing.assert_allclose(from_x[:5], x[:5] - x[0], atol=1e-6)
    assert dw[2] > 0 and not dy.any() and not from_y.any()
    np.testing.assert_allclose(fill[:5], 1 - 8 / (8 * (8 + np.arange(5))) - 0.7, atol=1e-6)
    assert visible.tolist() == [1, 1, 1, 1, 1, 0]
    assert not found[0, 5].any()
    assert dx[3] == 0  # its later neighbour cannot be seen


def drawn(kind: str, angle: float) -> np.ndarray:
    mask_HW = np.zeros((200, 240), np.uint8)
    if kind == "disc":
        cv2.circle(mask_HW, (120, 100), 60, 1, -1)
    else:
        width, height = {"square": (100, 100), "bar": (120, 30)}[kind]
        corners = cv2.boxPoints(((120, 100), (width, height), angle))
        cv2.fillPoly(mask_HW, [np.round(corners).astype(np.int32)], 1)
    return mask_HW


@pytest.mark.parametrize("angle", [0, 20, 45])
@pytest.mark.parametrize(
    ("kind", "compactness", "axes", "rectangle"),
    [
        ("disc", 1, 1, np.pi / 4),
        ("square", 3 / np.pi, 1, 1),
        ("bar", 6 / np.pi * 4 / 17, 1 / 4, 1),
    ],
)
def test_shape_is_the_same_whichever_way_it_is_turned(kind, angle, compactness, axes, rectangle):
    *_, compact, ratio, hull, box = geometry([track(drawn(kind, angle)[None])])[0, 0] / SCALE
    found = compact + 0.85, ratio + 0.8, hull + 0.95, box + 0.75
    np.testing.assert_allclose(found, (compactness, axes, 1, rectangle), atol=0.06)


def test_a_mask_with_a_notch_leaves_room_in_its_hull():
    mask_HW = np.zeros((60, 60), np.uint8)
    mask_HW[10:50, 10:50] = 1
    mask_HW[10:30, 20:40] = 0
    hull = (geometry([track(mask_HW[None])])[0, 0] / SCALE)[14] + 0.95
    np.testing.assert_allclose(hull, 0.75, atol=1e-6)


def test_a_track_that_is_never_visible():
    assert not geometry([track(np.zeros((3, 10, 10)))]).any()
