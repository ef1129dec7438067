"""Submissions: layouts found in folders and zips, what counts as a mask, zips written whole."""

import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warehouse.submissions import (
    SubmissionError,
    encode_mask,
    label_palette,
    list_masks,
    read_mask,
    replacing,
    write_zip,
)

LABELS_HW = np.array([[0, 1, 2], [3, 0, 255]], np.uint8)


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.mark.parametrize("around", ["", "Annotations/", "submission/Annotations/"])
def test_folders_around_a_submission_are_cut_off(tmp_path: Path, around: str) -> None:
    image = Image.fromarray(LABELS_HW)
    for name in ("v1/0/00000.png", "v2/1/00000.png"):
        save(tmp_path / "masks" / f"{around}{name}", image)
    save(tmp_path / "masks/notes/plot.png", image)
    (tmp_path / "masks" / "readme.txt").write_text("not a mask")
    found = list_masks(tmp_path / "masks", {"v1", "v2"})
    assert {f"{around}v1/0/00000.png", f"{around}v2/1/00000.png"} <= set(found.values())
    assert set(found) - {"notes/plot.png"} == {"v1/0/00000.png", "v2/1/00000.png"}
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        for path in (tmp_path / "masks").rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path / "masks"))
        archive.writestr("__MACOSX/v1/0/._00000.png", b"")
    assert list_masks(tmp_path / "masks.zip", {"v1", "v2"}) == found
    stored = found["v1/0/00000.png"]
    for place in (tmp_path / "masks", tmp_path / "masks.zip"):
        np.testing.assert_array_equal(read_mask(place, stored), LABELS_HW)


def test_one_channel_of_any_depth_is_a_mask_and_colours_are_not(tmp_path: Path) -> None:
    palette = Image.fromarray(LABELS_HW)
    palette.putpalette([7] * 768)  # all of one colour: the indices count
    save(tmp_path / "palette.png", palette)
    save(tmp_path / "bits.png", Image.fromarray(LABELS_HW > 0))
    save(tmp_path / "deep.png", Image.fromarray(LABELS_HW.astype(np.uint16) * 256))
    for name in ("palette.png", "bits.png", "deep.png"):
        np.testing.assert_array_equal(read_mask(tmp_path, name) > 0, LABELS_HW > 0)
    save(tmp_path / "colour.png", Image.fromarray(np.dstack([LABELS_HW] * 3)))
    with pytest.raises(SubmissionError, match=r"colour.png: is an image of mode RGB"):
        read_mask(tmp_path, "colour.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "palette.png").read_bytes()[:60])
    with pytest.raises(SubmissionError, match=r"half.png: does not decode"):
        read_mask(tmp_path, "half.png")


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "masks.zip").write_bytes(b"not a zip")
    for place in (tmp_path / "masks.zip", tmp_path / "nothing"):
        with pytest.raises(SubmissionError, match="no folder and no readable zip"):
            list_masks(place, {"v1"})


def test_masks_are_0_and_255_and_labels_keep_their_values() -> None:
    with Image.open(io.BytesIO(encode_mask(LABELS_HW > 0))) as image:
        assert image.mode == "L"
        assert np.array(image).tolist() == [[0, 255, 255], [255, 0, 255]]
    with Image.open(io.BytesIO(encode_mask(LABELS_HW, label_palette()))) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), LABELS_HW)
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def test_a_file_is_replaced_as_the_umask_and_its_kind_ask(tmp_path: Path) -> None:
    def write(path: Path) -> int:
        with replacing(path) as stream:
            stream.write(b"new")
        return path.stat().st_mode & 0o777

    before = os.umask(0o027)
    try:
        assert write(tmp_path / "new") == 0o640
        os.umask(0o002)
        assert write(tmp_path / "shared") == 0o664
        (tmp_path / "private").touch(mode=0o600)
        assert write(tmp_path / "private") == 0o600
    finally:
        os.umask(before)
    (tmp_path / "link").symlink_to(tmp_path / "private")
    (tmp_path / "private").write_bytes(b"old")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "private").read_bytes() == b"new"
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_a_full_disk_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "masks.zip").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SubmissionError, match=r"masks\.zip: cannot be written: No space left"):
        write_zip(tmp_path / "masks.zip", [("a.png", b"new")])
    assert [path.name for path in tmp_path.iterdir()] == ["masks.zip"]
    assert (tmp_path / "masks.zip").read_bytes() == b"old"


def test_a_zip_has_the_same_bytes_each_time_and_is_whole_or_not_there(tmp_path: Path) -> None:
    files = [("v/0/00000.png", b"one"), ("v/0/00001.png", b"two")]
    assert write_zip(tmp_path / "a.zip", files) == 2
    write_zip(tmp_path / "b.zip", iter(files))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [name for name, _ in files]

    def failing():
        yield files[0]
        raise ValueError("a broken video")

    before = (tmp_path / "a.zip").read_bytes()
    with pytest.raises(ValueError, match="broken"):
        write_zip(tmp_path / "a.zip", failing())
    assert (tmp_path / "a.zip").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "b.zip"}
    with pytest.raises(SubmissionError, match="cannot be written"):
        write_zip(tmp_path / "nowhere" / "a.zip", files)
