"""Frames as SAM2 takes them, against Pillow and the official predictor."""

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.utils.misc import load_video_frames_from_jpg_images

from sola_model.extraction import frames
from sola_model.extraction.frames import normalise, resize

SIZES = [
    (1080, 1920), (1920, 1080), (720, 1280), (480, 854), (854, 480), (368, 480), (112, 144),
    (128, 128), (97, 33), (2000, 33), (33, 2000), (5, 2), (1, 1), (1, 300), (300, 1),
]  # fmt: skip


@pytest.mark.parametrize("side", [128, 1024])
@pytest.mark.parametrize("size", SIZES)
def test_resized_as_by_pillow(size, side):
    """Noise, and edges between the extremes, where bicubic interpolation overshoots."""
    rng = np.random.default_rng(1)
    noise_HW3 = rng.integers(0, 256, (*size, 3), np.uint8)
    for frame_HW3 in (noise_HW3, 255 * (noise_HW3 > 127).astype(np.uint8)):
        expected_SS3 = np.asarray(Image.fromarray(frame_HW3).resize((side, side)))
        np.testing.assert_array_equal(resize(frame_HW3, side), expected_SS3)


def test_pillows_arithmetic_is_found_at_every_size():
    """Else frames would be resized by Pillow: right, but slowly."""
    assert None not in [frames._columns_first(size, side) for size in SIZES for side in (128, 1024)]


def test_pillow_resizes_where_it_computes_otherwise(monkeypatch):
    monkeypatch.setattr(frames, "_columns_first", lambda *_: None)
    monkeypatch.setattr(frames, "_resized", None)
    frame_HW3 = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    expected_SS3 = np.asarray(Image.fromarray(frame_HW3).resize((32, 32)))
    np.testing.assert_array_equal(resize(frame_HW3, 32), expected_SS3)


def test_frames_in_any_memory_are_resized():
    """Mirrored, transposed and read-only ones."""
    frame_HW3 = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    for view_HW3 in (frame_HW3[:, ::-1], frame_HW3.swapaxes(0, 1), frame_HW3[::2]):
        view_HW3.flags.writeable = False
        expected_SS3 = np.asarray(Image.fromarray(view_HW3).resize((32, 32)))
        np.testing.assert_array_equal(resize(view_HW3, 32), expected_SS3)


@pytest.mark.parametrize("way", [normalise, frames._looked_up_anywhere])
def test_every_value_of_every_channel_is_normalised_as_by_the_official_predictor(way, tmp_path):
    """On the CPU, and the way that other devices take."""
    values_SS3 = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, axis=2)
    Image.fromarray(values_SS3).save(tmp_path / "0.jpg", format="PNG")  # which loses nothing
    expected_13SS, _, _ = load_video_frames_from_jpg_images(str(tmp_path), 16, True)
    assert expected_13SS.unique().numel() == 3 * 256
    found_3SS = way(torch.from_numpy(values_SS3))
    assert found_3SS.dtype == torch.float32
    assert torch.equal(found_3SS, expected_13SS[0])
