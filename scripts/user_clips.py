"""Clips as a user would try them first: solid shapes that move over a plain background, 640 x 360.

`measure_demo_models.py --drawn` and a test ask whether the embedded SAM2 finds every shape. Nothing
is trained on them: `drawn_clips.py` draws what it learns from. Lengths in pixels, colours in RGB.
"""

import cv2
import numpy as np
import torch

from sola_model.extraction.sam2_models import SAM2Base
from sola_model.extraction.tracks import extract_tracks
from sola_model.masks.rle import encode_masks
from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import DEMO

WIDTH, HEIGHT, FRAMES = 640, 360, 16
BACKGROUNDS = ("dark", "light", "gradient", "noisy")
KINDS = ("circle", "ellipse", "square", "triangle", "star")
COLOURS = (
    (220, 30, 30),
    (30, 180, 50),
    (40, 80, 220),
    (240, 220, 40),
    (240, 140, 30),
    (150, 50, 190),
    (60, 200, 220),
    (250, 250, 250),
    (10, 10, 10),
)
APART = 70  # least difference of a shape's colour from any part of the background, in one channel
FOUND = 0.8  # mean IoU from which a track counts as the shape's


def user_clip(background: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """frames_THW3 (uint8) and masks_NTHW (bool, what can be seen) of two or three shapes."""
    rng = np.random.default_rng([4711, seed, BACKGROUNDS.index(background)])
    ground_HW3 = _ground(rng, background)
    tones_K3 = ground_HW3[::40, ::40].reshape(-1, 3)
    usable = [c for c in COLOURS if np.abs(tones_K3 - c).max(axis=1).min() > APART]
    count = int(rng.integers(2, 4))
    colours = [usable[i] for i in rng.permutation(len(usable))[:count]]
    columns = rng.permutation(count)
    shapes = []
    for column, colour in zip(columns, colours, strict=True):
        radius = rng.uniform(40, 60)
        start = (column + 0.5) * WIDTH / count, rng.uniform(radius + 5, HEIGHT - radius - 5)
        kind, velocity = KINDS[rng.integers(len(KINDS))], rng.uniform(-8, 8, 2)
        angle, spin = rng.uniform(0, 2 * np.pi), rng.uniform(-0.05, 0.05)
        shapes.append((kind, radius, np.array(start), velocity, angle, spin, colour))
    frames_THW3 = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    masks_NTHW = np.zeros((count, FRAMES, HEIGHT, WIDTH), bool)
    for t in range(FRAMES):
        canvas_HW3 = ground_HW3.copy()
        for n, (kind, radius, start, velocity, angle, spin, colour) in enumerate(shapes):
            centre = _reflected(start + velocity * t, radius)
            corners = _outline(kind, radius, angle + spin * t) + centre
            mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.fillPoly(mask_HW, [np.round(corners).astype(np.int32)], 1)
            canvas_HW3[mask_HW > 0] = colour
            masks_NTHW[:n, t] &= mask_HW == 0
            masks_NTHW[n, t] = mask_HW > 0
        if background == "noisy":
            canvas_HW3 = canvas_HW3 + rng.normal(0, 25, canvas_HW3.shape)
        frames_THW3[t] = np.clip(canvas_HW3, 0, 255)
    return frames_THW3, masks_NTHW


def best_overlaps(model: SAM2Base, background: str, seed: int) -> np.ndarray:
    """Of each shape of a clip the highest mean IoU with a track that recipe `demo` makes (N,)."""
    frames_THW3, masks_NTHW = user_clip(background, seed)
    tracks = extract_tracks(model, frames_THW3, DEMO.extraction).tracks
    if not tracks:
        return np.zeros(len(masks_NTHW))
    objects = [encode_masks(torch.from_numpy(masks_THW)) for masks_THW in masks_NTHW]
    return track_overlaps([track.masks for track in tracks], objects).miou_NO.max(axis=0)


def _ground(rng: np.random.Generator, background: str) -> np.ndarray:
    """A background, float (H, W, 3)."""
    if background == "gradient":
        first_3, last_3 = rng.integers(0, 256, (2, 3))
        along = (
            np.linspace(0, 1, WIDTH)[None, :]
            if rng.random() < 0.5
            else (np.linspace(0, 1, HEIGHT)[:, None])
        )
        along_HW1 = np.broadcast_to(along, (HEIGHT, WIDTH))[..., None]
        return first_3 + (last_3 - first_3) * along_HW1
    low, high = {"dark": (0, 40), "light": (215, 256), "noisy": (60, 190)}[background]
    return np.full((HEIGHT, WIDTH, 3), rng.integers(low, high, 3), float)


def _reflected(centre: np.ndarray, radius: float) -> np.ndarray:
    """A place outside the frame as if the shape had turned back at the edge."""
    room = np.array([WIDTH, HEIGHT]) - 2 * radius
    folded = (centre - radius) % (2 * room)
    return radius + np.minimum(folded, 2 * room - folded)


def _outline(kind: str, radius: float, angle: float) -> np.ndarray:
    """Corners (K, 2) of a shape around (0, 0)."""
    corners = {"circle": 60, "ellipse": 60, "square": 4, "triangle": 3, "star": 10}[kind]
    turn = np.arange(corners) * 2 * np.pi / corners
    reach = np.where(np.arange(corners) % 2 == 0, 1.0, 0.5) if kind == "star" else 1.0
    points = np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.reshape(reach, (-1, 1))
    if kind == "ellipse":
        points *= [1.0, 0.7]
    cos, sin = np.cos(angle), np.sin(angle)
    return radius * points @ np.array([[cos, sin], [-sin, cos]])
