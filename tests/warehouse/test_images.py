"""Images as a viewer shows them: orientation, transparency, 16 bits; and which are named anew."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from warehouse.frames import content_hash, frame_size, read_frames, stat_signature
from warehouse.images import check_image, read_image
from warehouse.sources.base import natural

H, W = 24, 40
RGB = np.stack(
    [np.add.outer(2 * np.arange(H), 5 * np.arange(W)) % 256, np.full((H, W), 90),
     np.add.outer(9 * np.arange(H), np.arange(W)) % 256], axis=2
).astype(np.uint8)  # fmt: skip
GREY = RGB[..., 0]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / f"0{suffix}", exif=exif.tobytes(), quality=95)
    with Image.open(tmp_path / f"0{suffix}") as image:
        expected_HW3 = np.array(ImageOps.exif_transpose(image))
    (shown_HW3,) = read_frames(tmp_path, ("0",))
    np.testing.assert_array_equal(shown_HW3, expected_HW3)
    assert frame_size(tmp_path, ("0",)) == check_image(tmp_path / f"0{suffix}") == (
        (W, H) if orientation > 4 else (H, W)
    )  # fmt: skip


def test_of_16_bits_the_upper_8_count(tmp_path: Path) -> None:
    grey, colour = tmp_path / "grey.png", tmp_path / "colour.png"
    Image.fromarray(GREY.astype(np.uint16) * 257).save(grey)
    np.testing.assert_array_equal(read_image(grey), np.repeat(GREY[..., None], 3, 2))
    cv2.imwrite(str(colour), RGB[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(colour), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_other_kinds_of_pixels(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("0.jpg" if mode == "CMYK" else "0.png")
    image = Image.fromarray(RGB).convert(mode)
    image.save(file)
    with Image.open(file) as saved:
        np.testing.assert_array_equal(read_image(file), np.array(saved.convert("RGB")))


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    """Whatever colour it has, in each way that a PNG can be transparent."""
    alpha = np.zeros((H, W), np.uint8)
    alpha[:, : W // 2] = 255
    alpha[:, W // 2 : W // 2 + 5] = 128
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([GREY, alpha])).save(tmp_path / "la.png")
    for name, kept_HW3 in (("rgba", RGB), ("la", np.repeat(GREY[..., None], 3, 2))):
        shown_HW3 = read_image(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(shown_HW3[:, : W // 2], kept_HW3[:, : W // 2])
        assert (shown_HW3[:, W // 2 + 5 :] == 255).all()
        half_HW3 = shown_HW3[:, W // 2 : W // 2 + 5].astype(int)
        expected_HW3 = (kept_HW3[:, W // 2 : W // 2 + 5].astype(int) + 255) / 2
        assert np.abs(half_HW3 - expected_HW3).max() <= 1.5
    palette = Image.fromarray((GREY > 99).astype(np.uint8))
    palette.putpalette([0, 255, 0, 9, 9, 9])
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(RGB).save(tmp_path / "key.png", transparency=tuple(RGB[3, 4].tolist()))
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png")[..., 0], np.where(GREY > 99, 9, 255)
    )
    assert (read_image(tmp_path / "key.png")[3, 4] == 255).all()


def test_only_what_was_read_otherwise_before_is_named_otherwise(tmp_path: Path) -> None:
    opaque = np.dstack([RGB, np.full((H, W), 255, np.uint8)])
    turned = Image.Exif()
    turned[0x0112] = 6
    as_before = {
        "rgb": lambda file: Image.fromarray(RGB).save(file),
        "opaque": lambda file: Image.fromarray(opaque).save(file),
        "palette": lambda file: Image.fromarray(RGB).convert("P").save(file),
        "broken": lambda file: file.write_bytes(b"no image"),
    }
    otherwise = {
        "16 bits": lambda file: Image.fromarray(GREY.astype(np.uint16) * 257).save(file),
        "transparent": lambda file: Image.fromarray(np.dstack([RGB, GREY])).save(file),
        "orientation": lambda file: Image.fromarray(RGB).save(file, exif=turned.tobytes()),
    }
    for name, save in (as_before | otherwise).items():
        folder = tmp_path / name
        folder.mkdir()
        for frame in ("0", "1"):
            save(folder / f"{frame}.png")
        content = b"".join((folder / f"{frame}.png").read_bytes() for frame in ("0", "1"))
        same = content_hash(folder, ("0", "1")) == hashlib.sha256(content).hexdigest()
        assert same == (name in as_before), name
        stat_signature(folder, ("0", "1"))


def test_an_earlier_signature_of_files_that_were_read_wrongly_is_another(tmp_path: Path) -> None:
    """So that ingest reads these again, and no others."""
    from warehouse.frames import files_signature, frame_files

    for name, image, same in (
        ("plain", Image.fromarray(RGB), True),
        ("16 bits", Image.fromarray(GREY.astype(np.uint16)), False),
    ):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.png")
        before = files_signature(frame_files(tmp_path / name, ("0",)))
        assert (stat_signature(tmp_path / name, ("0",)) == before) is same


@pytest.mark.parametrize(
    "names",
    [
        ["-2", "-1", "0", "1", "2", "10"],
        ["f_-10", "f_-9", "f_0", "f_1"],
        ["frame-1", "frame-2", "frame-10"],
        ["2024-01-05", "2024-01-15", "2024-02-01"],
        ["t0.9", "t1.0", "t1.1", "t9.5", "t10.0"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    assert sorted(reversed(names), key=natural) == names
