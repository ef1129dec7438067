"""Corrupted frames: ImageNet-C's constants, each frame alike whenever it is read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warehouse.corruptions import (
    BLUR,
    CORRUPTIONS,
    NOISE,
    check_corruption,
    corrupt,
    motion_kernel,
)
from warehouse.frames import frames_of

GREY = np.full((64, 96, 3), 128, np.uint8)


def test_a_corruption_is_a_kind_and_a_severity() -> None:
    assert check_corruption(None) is None
    assert check_corruption("motion_blur-5") == ("motion_blur", 5)
    for wrong in ("motion_blur-6", "motion_blur", "snow-1", "", "motion_blur-", "-1"):
        with pytest.raises(ValueError, match="gaussian_noise and motion_blur with a severity"):
            check_corruption(wrong)


@pytest.mark.parametrize("severity", [1, 2])  # beyond, grey is clipped
def test_noise_has_the_published_spread_in_every_channel(severity: int) -> None:
    noisy = corrupt(GREY, "gaussian_noise", severity, np.random.default_rng(0))
    assert (noisy / 255).std((0, 1)) == pytest.approx([NOISE[severity - 1]] * 3, rel=0.05)


@pytest.mark.parametrize(("radius", "sigma"), BLUR)
def test_a_motion_kernel_is_half_a_gaussian_along_a_line(radius: int, sigma: float) -> None:
    kernel = motion_kernel(radius, sigma, angle=0)
    middle = 2 * radius
    trail = kernel[middle, middle : middle + 2 * radius + 1]
    assert kernel.sum() == pytest.approx(1) and trail.sum() == pytest.approx(1)
    assert trail[1] / trail[0] == pytest.approx(np.exp(-1 / (2 * sigma**2)))
    down = np.argwhere(motion_kernel(radius, sigma, angle=45))[-1] - middle
    assert down[0] == down[1] > 0


def test_blur_spreads_a_bright_column_and_leaves_flat_colour() -> None:
    frame_HW3 = np.zeros((64, 96, 3), np.uint8)
    frame_HW3[:, 48] = 255
    blurred = corrupt(frame_HW3, "motion_blur", 5, np.random.default_rng(0))
    assert 0 < blurred[32, 44].max() < 255 and blurred[32, 48].max() < 255
    assert (
        np.abs(corrupt(GREY, "motion_blur", 5, np.random.default_rng(0)).astype(int) - 128).max()
        <= 1
    )


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_frames_are_corrupted_each_in_its_own_way_and_always_alike(
    corruption: str, tmp_path: Path
) -> None:
    texture = np.random.default_rng(1).integers(0, 255, GREY.shape, np.uint8)
    for name in ("0", "1"):
        Image.fromarray(texture).save(tmp_path / f"{name}.png")
    video = {"path": str(tmp_path), "frames": ["0", "1"], "content_hash": "hash of the frames"}
    clean = list(frames_of(video))
    assert all(np.array_equal(frame, texture) for frame in clean)
    first, second = frames_of(video, f"{corruption}-3")
    assert not np.array_equal(first, texture) and not np.array_equal(first, second)
    assert np.array_equal(next(frames_of(video, f"{corruption}-3", ["1"])), second)
    renamed = video | {"video_id": "other", "split": "other"}
    assert np.array_equal(next(frames_of(renamed, f"{corruption}-3")), first)
    assert not np.array_equal(next(frames_of(video, f"{corruption}-5")), first)
    other = video | {"content_hash": "that of others"}
    assert not np.array_equal(next(frames_of(other, f"{corruption}-3")), first)
