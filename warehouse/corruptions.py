"""Corrupted frames: gaussian_noise-1 to -5 and motion_blur-1 to -5, the severities of ImageNet-C.

Frames are corrupted whenever they are read, each by itself, with a random state of its own that its
name and the corruption determine; nothing is written. Constants are those of ImageNet-C
(Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", 2019), for images of any size; package `imagecorruptions` (1.1.2), which has them,
needs `pkg_resources`, which current setuptools lacks. Axes: H and W in pixels.
"""

import hashlib
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of values in 0..1
BLUR = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius and sigma in pixels
CORRUPTIONS = ("gaussian_noise", "motion_blur")
SEVERITIES = (1, 2, 3, 4, 5)


def check_corruption(corruption: str | None) -> tuple[str, int] | None:
    """The kind and severity of a corruption such as "gaussian_noise-3"; None: there is none.

    Raises:
        ValueError: there is no such corruption or severity.
    """
    if corruption is None:
        return None
    kind, _, severity = corruption.rpartition("-")
    if kind not in CORRUPTIONS or severity not in map(str, SEVERITIES):
        raise ValueError(
            f"there is no corruption {corruption!r}; valid are {' and '.join(CORRUPTIONS)} with a "
            "severity from 1 to 5, such as gaussian_noise-3"
        )
    return kind, int(severity)


def corrupted(
    content: str, corruption: str, names: Iterable[str], frames: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """The frames of these names, corrupted; `content` names the video's frames."""
    found = check_corruption(corruption)
    assert found, "it is one"
    for name, frame_HW3 in zip(names, frames, strict=True):
        identity = f"{content}/{name}/{found}"
        seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8])
        yield corrupt(frame_HW3, *found, np.random.default_rng(seed))


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
