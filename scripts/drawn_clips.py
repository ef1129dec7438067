"""Clips as people draw them: plain, gradient, noisy or cluttered ground, solid or textured shapes.

The embedded data set has one kind of background and one size of frame. A SAM2 that has seen
nothing else finds no object on a plain one, so `train_demo_sam2.py` mixes these in. A clip is drawn
straight onto the model's square image, squeezed as a frame of its width and height would be.

Lengths are in units of the frame's short side, colours are RGB from 0 to 255.
"""

import cv2
import numpy as np

from warehouse.demo_data.render import outline, random_background
from warehouse.demo_data.scene import COLOURS, KINDS

ASPECTS = (16 / 9, 16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)  # width / height
APART = 60.0  # least distance of a shape's colour from the background and from other shapes
BACKGROUNDS = {  # and how often each is drawn
    "dark": 0.1,
    "light": 0.15,
    "plain": 0.1,
    "gradient": 0.35,
    "noise": 0.25,
    "clutter": 0.05,
}
UNNAMED = -1  # in place of the index of a colour or kind that has no name
SUBPIXEL_BITS = 4


def drawn_clip(
    rng: np.random.Generator, frames: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random clip: frames_THW3 (uint8), masks_NTHW (bool, what can be seen) and looks_N2.

    looks_N2: index of each shape's colour and kind, `UNNAMED` where it is none of the data set's.
    """
    aspect = float(rng.choice(ASPECTS))
    extent_2 = np.array([max(aspect, 1.0), max(1 / aspect, 1.0)])
    background_HW3 = _background(rng, size)
    shapes = _shapes(rng, frames, extent_2, background_HW3.reshape(-1, 3))
    flicker = rng.choice([0.0, rng.uniform(0, 14)])
    blur = rng.choice([0.0, rng.uniform(0.3, 0.9)])
    frames_THW3 = np.empty((frames, size, size, 3), np.uint8)
    masks_NTHW = np.zeros((len(shapes), frames, size, size), bool)
    for t in range(frames):
        canvas_HW3 = background_HW3.copy()
        for n, shape in enumerate(shapes):
            alpha_HW = _alpha(shape["corners_TK2"][t] / extent_2 * size, size)
            masks_NTHW[:n, t] &= alpha_HW <= 127
            masks_NTHW[n, t] = alpha_HW > 127
            alpha_HW1 = alpha_HW[..., None] / 255.0
            paint_HW3 = _paint(shape, t, extent_2, size)
            canvas_HW3 = (1 - alpha_HW1) * canvas_HW3 + alpha_HW1 * paint_HW3
        if blur:
            canvas_HW3 = cv2.GaussianBlur(canvas_HW3, (0, 0), blur)
        noise_HW3 = rng.normal(0, flicker, canvas_HW3.shape) if flicker else 0.0
        frames_THW3[t] = np.clip(canvas_HW3 + noise_HW3, 0, 255)
    return frames_THW3, masks_NTHW, np.array([shape["look"] for shape in shapes])


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Plain (dark, light or any), gradient, noise or clutter, float (H, W, 3)."""
    kind = rng.choice([*BACKGROUNDS], p=[*BACKGROUNDS.values()])
    if kind == "clutter":
        return cv2.resize(random_background(rng), (size, size))
    low, high = {"dark": (0, 45), "light": (210, 256)}.get(kind, (0, 256))
    tone_3 = rng.uniform(low, high) + rng.normal(0, 25 if kind in ("plain", "noise") else 6, 3)
    ground_HW3 = np.full((size, size, 3), np.clip(tone_3, 0, 255))
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:size, 0:size] / size - 0.5
        along_HW = np.cos(angle) * x + np.sin(angle) * y
        ground_HW3 += along_HW[..., None] * rng.uniform(-280, 280, 3)
    elif kind == "noise":
        cells = int(rng.choice([size, size // 2, size // 4]))
        noise_HW3 = rng.normal(0, rng.uniform(3, 25), (cells, cells, 3))
        ground_HW3 += cv2.resize(noise_HW3, (size, size))
    return np.clip(ground_HW3, 0, 255)


def _shapes(
    rng: np.random.Generator, frames: int, extent_2: np.ndarray, background_K3: np.ndarray
) -> list[dict]:
    """One to four shapes: corners in each frame, colour, stripes and look."""
    shapes: list[dict] = []
    used_K3 = background_K3[:: len(background_K3) // 64]
    for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.1, 0.35, 0.35, 0.2]))):
        kind = str(rng.choice(KINDS))
        colour_3, name = _colour(rng, used_K3)
        used_K3 = np.concatenate([used_K3, colour_3[None]])
        squash = rng.uniform(0.55, 1.0) if rng.random() < 0.25 else 1.0
        corners_K2 = outline(kind) * [1.0, squash]
        centre_T2, angle_T, scale_T = _motion(rng, frames, extent_2)
        turn_T22 = np.stack(
            [np.cos(angle_T), np.sin(angle_T), -np.sin(angle_T), np.cos(angle_T)], axis=1
        ).reshape(-1, 2, 2)
        corners_TK2 = corners_K2 @ turn_T22 * scale_T[:, None, None] + centre_T2[:, None]
        shapes.append(
            {
                "corners_TK2": corners_TK2,
                "centre_T2": centre_T2,
                "colour_3": colour_3,
                "stripes": rng.uniform(0.08, 0.2) if rng.random() < 0.3 else 0.0,
                "look": (name, KINDS.index(kind) if squash == 1.0 else UNNAMED),
            }
        )
    return shapes


def _colour(rng: np.random.Generator, used_K3: np.ndarray) -> tuple[np.ndarray, int]:
    """A colour that stands out from those in use, and its index in `COLOURS`."""
    for _ in range(50):
        name = UNNAMED
        if rng.random() < 0.6:
            name = int(rng.integers(len(COLOURS)))
            colour_3 = np.clip(
                np.array([*COLOURS.values()][name]) * rng.uniform(0.85, 1.15), 0, 255
            )
        else:
            colour_3 = rng.choice([0.0, 255.0, rng.uniform(0, 255)], 3)
        if np.linalg.norm(used_K3 - colour_3, axis=1).min() > APART:
            break
    return colour_3, name


def _motion(
    rng: np.random.Generator, frames: int, extent_2: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (T, 2), angle (T,) and radius (T,): straight ways that may turn back or leave."""
    radius = rng.uniform(0.09, 0.22)
    time_T = np.arange(frames) - rng.integers(frames)
    if rng.random() < 0.2:
        time_T = np.abs(time_T)
    heading = rng.uniform(0, 2 * np.pi)
    speed = rng.choice([0.0, rng.uniform(0, 0.045)], p=[0.2, 0.8])
    reach = 0.5 * radius if rng.random() < 0.2 else radius
    start_2 = rng.uniform(reach, extent_2 - reach)
    centre_T2 = start_2 + speed * time_T[:, None] * [np.cos(heading), np.sin(heading)]
    if rng.random() < 0.8:  # turns back at the edges
        room_2 = extent_2 - 2 * reach
        folded_T2 = (centre_T2 - reach) % (2 * room_2)
        centre_T2 = reach + np.minimum(folded_T2, 2 * room_2 - folded_T2)
    spin = rng.choice([0.0, rng.normal(0, 0.1)])
    angle_T = rng.uniform(0, 2 * np.pi) + spin * time_T
    growth = rng.choice([0.0, rng.uniform(-0.03, 0.03)], p=[0.7, 0.3])
    return centre_T2, angle_T, radius * np.exp(growth * time_T)


def _alpha(corners_K2: np.ndarray, size: int) -> np.ndarray:
    """Coverage of a polygon, uint8 (H, W), with anti-aliased edges."""
    points = np.round(corners_K2 * 2**SUBPIXEL_BITS).astype(np.int32)
    alpha_HW = np.zeros((size, size), np.uint8)
    cv2.fillPoly(alpha_HW, [points], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return alpha_HW


def _paint(shape: dict, t: int, extent_2: np.ndarray, size: int) -> np.ndarray:
    """The shape's colour everywhere, or stripes of it that move and turn with the shape."""
    if not shape["stripes"]:
        return shape["colour_3"]
    corners_K2, centre_2 = shape["corners_TK2"][t], shape["centre_T2"][t]
    axis_2 = corners_K2[0] - centre_2
    y, x = np.mgrid[0:size, 0:size] / size
    along_HW = (x * extent_2[0] - centre_2[0]) * axis_2[0] + (
        y * extent_2[1] - centre_2[1]
    ) * axis_2[1]
    wave_HW = np.sign(np.sin(9 * along_HW / (axis_2 @ axis_2)))
    return (1 + shape["stripes"] * wave_HW[..., None]) * shape["colour_3"]
