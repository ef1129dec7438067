"""Splits derived from a data set's own: the same videos corrupted, or extracted in another way.

    valid_u@gaussian_noise-3      valid_u, every frame with ImageNet-C's noise of severity 3
    valid_u@motion_blur-5         likewise its motion blur
    valid_u@points_per_side=5     valid_u; only a name, for tracks made with other settings

Frames are corrupted whenever they are read, each by itself, with a random state of its own that its
name and the corruption determine; nothing is written. Constants are those of ImageNet-C
(Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", 2019), for images of any size; package `imagecorruptions` (1.1.2), which has them,
needs `pkg_resources`, which current setuptools lacks. Axes: H and W in pixels.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from warehouse.frames import read_frames
from warehouse.sources.base import SourceError

NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of values in 0..1
BLUR = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius and sigma in pixels
CORRUPTIONS = ("gaussian_noise", "motion_blur")
SEVERITIES = (1, 2, 3, 4, 5)


def base_split(split: str) -> str:
    """The data set's own split that a split is derived from, or the split itself.

    Raises:
        SourceError: there is no such corruption or severity.
    """
    corruption_of(split)
    return split.partition("@")[0]


def corruption_of(split: str) -> tuple[str, int] | None:
    """The corruption and severity of a split's frames; SourceError as `base_split`."""
    _, derived, name = split.partition("@")
    if not derived or "=" in name:
        return None
    found = re.fullmatch(rf"({'|'.join(CORRUPTIONS)})-([1-5])", name)
    if not found:
        raise SourceError(
            f"there is no split {split!r}: after '@' comes {' or '.join(CORRUPTIONS)} with a "
            "severity, for example gaussian_noise-5, or a setting such as points_per_side=5"
        )
    return found[1], int(found[2])


def frames_of(video: Mapping[str, Any], names: Sequence[str] | None = None) -> Iterator[np.ndarray]:
    """The frames of a row of `videos` (or those named), corrupted if its split says so.

    Raises FrameError as `read_frames` does.
    """
    names = video["frames"] if names is None else names
    corruption = corruption_of(video["split"])
    frames = read_frames(Path(video["path"]), names)
    for name, frame_HW3 in zip(names, frames, strict=True):
        if corruption:
            identity = f"{video['video_id']}/{name}/{corruption}"
            seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8])
            frame_HW3 = corrupt(frame_HW3, *corruption, np.random.default_rng(seed))
        yield frame_HW3


def corrupt(
    frame_HW3: np.ndarray, corruption: str, severity: int, rng: np.random.Generator
) -> np.ndarray:
    """A corrupted copy of an RGB uint8 frame."""
    if corruption == "gaussian_noise":
        noise = rng.normal(scale=255 * NOISE[severity - 1], size=frame_HW3.shape)
        return np.clip(frame_HW3 + noise, 0, 255).astype(np.uint8)
    assert corruption == "motion_blur", corruption
    kernel = motion_kernel(*BLUR[severity - 1], angle=rng.uniform(-45, 45))
    return cv2.filter2D(frame_HW3, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def motion_kernel(radius: int, sigma: float, angle: float) -> np.ndarray:
    """Weights of a trail that begins in the middle: half a Gaussian, 2 radius + 1 pixels long.

    `angle` in degrees, from the horizontal.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    turn = np.deg2rad(angle)
    rows = np.rint(steps * np.sin(turn)).astype(int)
    columns = np.rint(steps * np.cos(turn)).astype(int)
    kernel = np.zeros((4 * radius + 1, 4 * radius + 1))
    np.add.at(kernel, (2 * radius + rows, 2 * radius + columns), weights / weights.sum())
    return kernel
