"""Geometry beside the pointer: where a track's mask is, how large, and how both change.

An option of ours (`Recipe.token_features`), not the paper's: it costs nothing, since the masks are
there, and says plainly what object tokens carry only in part. Axes: N tracks, T frames, G = 12.
"""

import numpy as np

CHANNELS = 12
SPAN = 2  # frames to either side that a difference is taken over
# Pointers have tens of channels of size about 1: so scaled, the 12 weigh about as much together.
SCALE = np.array([4, 4, 3, 3, 12, 12, 12, 12, 3, 6, 6, 8], np.float32)


def geometry(boxes_NT4: np.ndarray, areas_NT: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """geometry_NTG (float32) of mask tracks; all 0 in frames where a mask is empty.

    Channels: centre x, y (-1..1 over the frame); log width, height relative to the frame; the
    differences of these four over `SPAN` frames to either side; visibility; displacement (x, y)
    since the first visible frame; share of the box that the mask fills. Scaled by `SCALE`.

    Args:
        boxes_NT4: x, y, width, height in pixels.
        areas_NT: pixels of each mask.
        size: (height, width) of the video in pixels.
    """
    height, width = size
    x, y, w, h = np.moveaxis(boxes_NT4.astype(np.float32), -1, 0)
    visible_NT = areas_NT > 0
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
    fill_NT = areas_NT / np.maximum(w * h, 1)
    channels_NTG = np.concatenate(
        [
            place_NT4,
            change_NT4,
            np.ones_like(place_NT4[..., :1]),
            place_NT4[..., :2] - start_N12,
            fill_NT[..., None] - 0.7,
        ],
        axis=-1,
    )
    return (channels_NTG * SCALE * visible_NT[..., None]).astype(np.float32)
