"""Geometry channels of mask tracks on tracks whose motion is known."""

import numpy as np

from sola_model.geometry import CHANNELS, SCALE, geometry


def test_a_track_that_moves_right_grows_and_disappears():
    boxes = np.array([[[10 * t, 20, 8 + t, 8] for t in range(6)]])
    areas = boxes[..., 2] * boxes[..., 3]
    areas[0, 5] = 0
    found = geometry(boxes, areas, (40, 100))
    assert found.shape == (1, 6, CHANNELS) and found.dtype == np.float32
    x, y, w, h, dx, dy, dw, _, visible, from_x, from_y, fill = (found / SCALE)[0].T
    centre = 10 * np.arange(5) + (8 + np.arange(5)) / 2
    np.testing.assert_allclose(x[:5], 2 * centre / 100 - 1, atol=1e-6)
    np.testing.assert_allclose(y[:5], 2 * 24 / 40 - 1, atol=1e-6)
    assert (np.diff(w[:5]) > 0).all() and np.ptp(h[:5]) == 0
    np.testing.assert_allclose(dx[2], x[4] - x[0], atol=1e-6)
    np.testing.assert_allclose(from_x[:5], x[:5] - x[0], atol=1e-6)
    assert dw[2] > 0 and not dy.any() and not from_y.any()
    np.testing.assert_allclose(fill[:5], 0.3, atol=1e-6)
    assert visible.tolist() == [1, 1, 1, 1, 1, 0]
    assert not found[0, 5].any()
    assert dx[3] == 0  # its later neighbour cannot be seen


def test_a_track_that_is_never_visible_and_no_tracks():
    assert not geometry(np.zeros((1, 3, 4)), np.zeros((1, 3)), (10, 10)).any()
    assert geometry(np.zeros((0, 3, 4)), np.zeros((0, 3)), (10, 10)).shape == (0, 3, CHANNELS)
