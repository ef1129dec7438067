"""Corrupted frames: ImageNet-C's constants, each frame alike whenever it is read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warehouse.corruptions import (
    BLUR,
    CORRUPTIONS,
    NOISE,
    base_split,
    corrupt,
    corruption_of,
    frames_of,
    motion_kernel,
)
from warehouse.sources import SourceError

GREY = np.full((64, 96, 3), 128, np.uint8)


def test_splits_are_derived_by_name() -> None:
    assert (base_split("valid_u"), corruption_of("valid_u")) == ("valid_u", None)
    assert base_split("valid_u@motion_blur-5") == "valid_u"
    assert corruption_of("valid_u@motion_blur-5") == ("motion_blur", 5)
    assert corruption_of("valid_u@stride=8") is None
    for wrong in ("a@motion_blur-6", "a@motion_blur", "a@snow-1", "a@"):
        with pytest.raises(SourceError, match="gaussian_noise or motion_blur with a severity"):
            base_split(wrong)


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
    video = {"path": str(tmp_path), "frames": ["0", "1"], "video_id": "v", "split": "valid"}
    clean = list(frames_of(video))
    assert all(np.array_equal(frame, texture) for frame in clean)
    derived = video | {"split": f"valid@{corruption}-3"}
    first, second = frames_of(derived)
    assert not np.array_equal(first, texture) and not np.array_equal(first, second)
    assert np.array_equal(next(frames_of(derived, ["1"])), second)
    stronger = next(frames_of(video | {"split": f"valid@{corruption}-5"}))
    assert not np.array_equal(stronger, first)
