"""Geometry beside the pointer: where a track's mask is, how large, how both change, what shape.

An option of ours (`Recipe.token_features`), not the paper's: it costs little, since the masks are
there, and says plainly what object tokens carry only in part. Axes: N mask tracks, T frames,
G = 16 channels, R runs of pixels.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from sola_model.masks.runs import MaskTrack, RunTrack, pack, words_of

CHANNELS = 16
VISIBLE = 8  # the channel that is above 0 where the mask is not empty
SHAPE = slice(11, 16)  # the channels that do not change when the mask moves or turns
SPAN = 2  # frames to either side that a difference is taken over
# Pointers have tens of channels of size about 1: so scaled, these weigh about as much together.
SCALE = np.array([4, 4, 3, 3, 12, 12, 12, 12, 3, 6, 6, 8, 10, 5, 12, 8], np.float32)


def geometry(tracks: Sequence[MaskTrack]) -> np.ndarray:
    """geometry_NTG (float32) of at least one mask track; all 0 in frames where a mask is empty.

    Channels: centre x, y of the box (-1..1 over the frame); log width, height relative to the
    frame; the differences of these four over `SPAN` frames to either side; visibility;
    displacement (x, y) since the first visible frame; share of the box that the mask fills;
    and, whichever way the mask is turned: compactness (1 for a disc), ratio of its principal axes,
    shares of its convex hull and of its smallest rectangle that it fills. Scaled by `SCALE`.

    Raises ValueError for masks that are no RLE or differ in size.
    """
    packed = [pack(track) for track in tracks]
    height, width = packed[0].height, packed[0].width
    boxes_NT4, shapes_NTS = (np.stack(parts) for parts in zip(*map(_measured, packed), strict=True))
    x, y, w, h = np.moveaxis(boxes_NT4, -1, 0)
    visible_NT = w > 0
    place_NT4 = np.stack(
        [
            2 * (x + w / 2) / width - 1,
            2 * (y + h / 2) / height - 1,
            np.log(np.maximum(w, 1) / width) + 1.5,
            np.log(np.maximum(h, 1) / height) + 1.5,
        ],
        axis=-1,
    )
    frames = np.arange(place_NT4.shape[1])
    before, after = np.maximum(frames - SPAN, 0), np.minimum(frames + SPAN, frames[-1])
    both_NT1 = (visible_NT[:, before] & visible_NT[:, after])[..., None]
    change_NT4 = (place_NT4[:, after] - place_NT4[:, before]) * both_NT1
    first_N = visible_NT.argmax(axis=1)
    start_N12 = place_NT4[np.arange(len(place_NT4)), first_N][:, None, :2]
    channels_NTG = np.concatenate(
        [
            place_NT4,
            change_NT4,
            np.ones_like(place_NT4[..., :1]),
            place_NT4[..., :2] - start_N12,
            shapes_NTS - np.array([0.7, 0.85, 0.8, 0.95, 0.75]),
        ],
        axis=-1,
    )
    return (channels_NTG * SCALE * visible_NT[..., None]).astype(np.float32)


def _measured(track: RunTrack) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (T, 4) in pixels and the five ratios of shape (T, S); both 0 where a mask is empty."""
    column = 64 * words_of(track)
    x_R, top_R = np.divmod(track.edges[::2].astype(np.int64), column)
    bottom_R = top_R + track.edges[1::2] - track.edges[::2]
    corners_RC2 = np.stack(
        [np.stack([x_R + dx, y_R], -1) for dx in (0, 1) for y_R in (top_R, bottom_R)], 1
    ).astype(np.int32)
    moments_RM = _moments(x_R, top_R, bottom_R)
    boxes_T4 = np.zeros((len(track), 4))
    shapes_TS = np.zeros((len(track), 5))
    for t, (start, end) in enumerate(zip(track.offsets // 2, track.offsets[1:] // 2, strict=False)):
        if start == end:
            continue
        area, sx, sy, sxx, syy, sxy = moments_RM[start:end].sum(0)
        cxx, cyy = sxx / area - (sx / area) ** 2, syy / area - (sy / area) ** 2
        cxy = sxy / area - sx * sy / area**2
        spread, root = cxx + cyy, np.hypot(cxx - cyy, 2 * cxy)
        hull = cv2.convexHull(corners_RC2[start:end].reshape(-1, 2))[:, 0]
        _, sides, _ = cv2.minAreaRect(hull)
        boxes_T4[t] = *hull.min(0), *np.ptp(hull, axis=0)
        shapes_TS[t] = (
            area / (boxes_T4[t, 2] * boxes_T4[t, 3]),
            area / (2 * np.pi * spread),
            np.sqrt((spread - root) / (spread + root)),
            area / cv2.contourArea(hull),
            area / (sides[0] * sides[1]),
        )
    return boxes_T4, shapes_TS


def _moments(x_R: np.ndarray, top_R: np.ndarray, bottom_R: np.ndarray) -> np.ndarray:
    """Integrals of 1, x, y, xx, yy, xy over the pixels of each run (R, 6)."""
    length_R = bottom_R - top_R
    y_R = (bottom_R**2 - top_R**2) / 2
    yy_R = (bottom_R**3 - top_R**3) / 3
    middle_R = x_R + 0.5
    xx_R = (middle_R**2 + 1 / 12) * length_R
    return np.stack([length_R, middle_R * length_R, y_R, xx_R, yy_R, middle_R * y_R], -1)
