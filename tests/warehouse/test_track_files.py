"""Tracks in files of anybody: what is read, and what is refused with a word about it."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from warehouse.sources.base import SourceError
from warehouse.submissions import encode_mask, label_palette
from warehouse.track_files import MOST_TRACKS, identity, open_tracks, read_tracks

SIZE, FRAMES, VIDEOS = (6, 8), ("00000", "00005"), ["cat", "dog"]


def mask(left: int, right: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask_HW = np.zeros(size, np.uint8)
    mask_HW[:, left:right] = 1
    return mask_HW


def rle(left: int, right: int, size: tuple[int, int] = SIZE) -> dict:
    encoded = coco.encode(np.asfortranarray(mask(left, right, size)))
    return {**encoded, "counts": encoded["counts"].decode()}


A, B, OVER = rle(0, 3), rle(3, 8), rle(2, 5)
TRACKS = [[A, None], [B, B], [OVER, A]]


def coco_document(tracks: list = TRACKS, frames: tuple = FRAMES, video: int = 1) -> dict:
    files = [f"dog/{frame}.jpg" for frame in frames]
    return {
        "videos": [{"id": 1, "name": "dog", "file_names": files}],
        "annotations": [
            {"id": n, "video_id": video, "segmentations": masks}
            for n, masks in enumerate(tracks, start=1)
        ],
    }


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def tracks_in(path: Path) -> list:
    return read_tracks(open_tracks(path, VIDEOS), "dog", FRAMES, SIZE)


def error_of(path: Path) -> str:
    with pytest.raises(SourceError) as raised:
        tracks_in(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


def write_images(folder: Path, labels: dict[str, np.ndarray]) -> Path:
    for name, labels_HW in labels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_mask(labels_HW, label_palette()))
    return folder


def test_youtube_vis_json(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", coco_document())
    assert tracks_in(path) == TRACKS
    assert read_tracks(open_tracks(path, VIDEOS), "cat", FRAMES, SIZE) == []


def test_frames_are_found_by_name_and_others_are_passed_over(tmp_path: Path) -> None:
    more = [[A, B, None], [None, B, None]]
    path = written(tmp_path / "t.json", coco_document(more, ("00005", "00000", "00003")))
    assert tracks_in(path) == [[B, A], [B, None]]


def test_a_mask_dict_names_its_videos_or_lies_beside_what_does(tmp_path: Path) -> None:
    path = written(tmp_path / "d.json", {f"dog/{n}": track for n, track in enumerate(TRACKS)})
    assert tracks_in(path) == TRACKS
    path = written(tmp_path / "mask_dict.json", {"7": TRACKS[0], "9": TRACKS[1]})
    assert "nothing says which video the track '7' is of" in error_of(path)
    expressions = {"0": {"exp": "a dog", "anno_id": [7, 9]}}
    meta = {"videos": {"dog": {"expressions": expressions, "frames": FRAMES}}}
    written(tmp_path / "meta_expressions.json", meta)
    assert tracks_in(path) == TRACKS[:2]


def test_label_images_of_a_folder_and_of_folders_in_it(tmp_path: Path) -> None:
    first, second = mask(0, 3) + 2 * mask(3, 8), 2 * mask(3, 8)
    names = [f"dog/{frame}.png" for frame in FRAMES]
    folder = write_images(tmp_path / "a" / "masks", dict(zip(names, (first, second), strict=True)))
    assert tracks_in(folder) == tracks_in(tmp_path / "a") == TRACKS[:2]
    each = {f"dog/{n}/{frame}.png": mask(n, n + 2) for n in (0, 10, 1, 2) for frame in FRAMES}
    assert tracks_in(write_images(tmp_path / "b", each)) == [[rle(n, n + 2)] * 2 for n in (0, 1, 2)]


def test_masks_of_another_size(tmp_path: Path) -> None:
    other = rle(0, 3, (12, 16))
    for name, document in (
        ("t.json", coco_document([[other, A]])),
        ("d.json", {"dog/1": [A, other]}),
    ):
        message = error_of(written(tmp_path / name, document))
        assert "[12, 16]" in message and "[6, 8]" in message
    images = {f"dog/{frame}.png": mask(0, 3, (12, 16)) for frame in FRAMES}
    assert "12 x 16" in error_of(write_images(tmp_path / "f", images))


def test_missing_frames(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", coco_document([[A]], ("00000",)))
    assert "lacks 1 of the video's 2 frames: 00005" in error_of(path)
    assert "1 masks for the 2 frames" in error_of(written(tmp_path / "d.json", {"dog/1": [A]}))
    folder = write_images(tmp_path / "f", {"dog/00005.png": mask(0, 3)})
    assert "lacks 1 of the video's 2 frames: 00000" in error_of(folder)


def test_the_same_id_twice(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][1]["id"] = 1
    assert "object '1' of 'dog' is there already" in error_of(
        written(tmp_path / "t.json", document)
    )
    (tmp_path / "d.json").write_text('{"dog/1": [null, null], "dog/1": [null, null]}')
    assert "track 'dog/1' has no list of masks" in error_of(tmp_path / "d.json")


def test_unknown_videos(tmp_path: Path) -> None:
    document = coco_document()
    document["videos"][0]["name"] = "fox"
    assert "1 unknown videos: fox" in error_of(written(tmp_path / "t.json", document))
    assert 'none of "videos"' in error_of(written(tmp_path / "u.json", coco_document(video=3)))
    assert "1 unknown videos: fox" in error_of(written(tmp_path / "d.json", {"fox/1": [A, A]}))
    folder = write_images(
        tmp_path / "f", {"dog/00000.png": mask(0, 1), "fox/00000.png": mask(0, 1)}
    )
    assert "1 unknown videos: fox. The split's are: cat, dog" in error_of(folder)


def test_ten_thousand_tracks_of_a_video_are_too_many(tmp_path: Path) -> None:
    many = [[A, None]] * 10_000
    said = f"has 10000 tracks of the video 'dog', and at most {MOST_TRACKS} are read"
    assert said in error_of(written(tmp_path / "t.json", coco_document(many)))
    document = {f"dog/{n}": track for n, track in enumerate(many)}
    assert said in error_of(written(tmp_path / "d.json", document))


@pytest.mark.parametrize("content", ["[]", "{", '{"videos": 3}', '{"x": 1}', "\x00"])
def test_what_is_no_file_of_tracks(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    error_of(tmp_path / "t.json")


def test_a_folder_without_images_and_a_broken_zip(tmp_path: Path) -> None:
    assert "has no PNG files" in error_of(tmp_path)
    (tmp_path / "t.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="no readable zip"):
        open_tracks(tmp_path / "t.zip", VIDEOS)


def test_every_fault_is_said_at_once(tmp_path: Path) -> None:
    bad = {"size": [6, 8], "counts": "~"}
    message = error_of(written(tmp_path / "t.json", coco_document([[bad, "x"], [A, 3]])))
    assert message.count("segmentations[") == 3


def test_tracks_that_are_never_seen_are_none(tmp_path: Path) -> None:
    assert tracks_in(written(tmp_path / "t.json", coco_document([[None, None], [A, None]]))) == [
        [A, None]
    ]


def test_other_content_has_another_identity(tmp_path: Path) -> None:
    one = written(tmp_path / "a.json", {"a": 1})
    assert identity(one) == identity(written(tmp_path / "b.json", {"a": 1}))
    assert identity(one) != identity(written(tmp_path / "c.json", {"a": 2}))
    first = identity(write_images(tmp_path / "f", {"dog/0.png": mask(0, 1)}))
    assert first != identity(write_images(tmp_path / "f", {"dog/1.png": mask(0, 1)}))
