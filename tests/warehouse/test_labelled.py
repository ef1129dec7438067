"""Own masks and sentences: every fault planted alone and all at once, and both layouts of COCO."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from tests import layouts
from tests.warehouse.test_sources_check import (
    Plant,
    cut,
    edit,
    image,
    problems,
    relabel,
    remove,
    replace,
    write,
)
from warehouse.sources import BadVideo, SourceError, SourceVideo, read_split
from warehouse.sources.coco_video import rle_of

MASKS = "val/masks.json"


def line(split: str, text: str) -> Plant:
    """A further line of expressions.csv."""

    def plant(root: Path) -> None:
        with (root / split / "expressions.csv").open("a") as file:
            file.write(f"{text}\n")

    return plant


def masks(change: Callable[[dict[str, Any]], None]) -> Plant:
    """A change of val/masks.json."""

    def plant(root: Path) -> None:
        document = json.loads((root / MASKS).read_text())
        change(document)
        (root / MASKS).write_text(json.dumps(document))

    return plant


def annotation(number: int, **fields: Any) -> Plant:
    """Other fields of annotations[number]."""
    return masks(lambda document: document["annotations"][number].update(fields))


def video(number: int, **fields: Any) -> Plant:
    """Other fields of videos[number]."""
    return masks(lambda document: document["videos"][number].update(fields))


def segmentation(number: int, value: Any) -> Plant:
    """Another first segmentation of annotations[number]."""
    return masks(lambda d: d["annotations"][number]["segmentations"].__setitem__(0, value))


def without(number: int) -> Plant:
    """Neither a video nor what is about it."""

    def change(document: dict[str, Any]) -> None:
        for name, key in (("videos", "id"), ("annotations", "video_id")):
            document[name] = [each for each in document[name] if each[key] != number]

    return masks(change)


def add(name: str, /, **fields: Any) -> Plant:
    """A further video or annotation."""
    return masks(lambda document: document[name].append(fields))


GHOST = {"id": 77, "name": "ghost", "file_names": ["ghost/0.jpg"]}
NULLS = [None, None, None]

# Every message begins with the file and has the line, the key or the name of an image.
FAULTS: list[tuple[Plant, str]] = [
    (remove("train/masks/train_0"), "masks/train_0: the folder of annotations is missing"),
    (remove("train/masks/train_1/00001.png"), "train_1/00001.png: the annotation is missing"),
    (write("train/masks/train_2/00000.png"), "train_2/00000.png: is not a readable image"),
    (image("train/masks/train_2/00001.png", "RGB"), "train_2/00001.png: must be a palette"),
    (cut("train/masks/train_2/00002.png"), "train_2/00002.png: is not a readable image"),
    (image("train/masks/train_3/00001.png", "P", (5, 4)), r"train_3/00001.png: .*\[5, 4\], but"),
    (image("train/masks/train_3/9.png", "P"), "train_3/9.png: there is no such frame; .* 00000 to"),
    (relabel("train/masks/train_4", 1, 50), "masks/train_4: .*object '1', which none of the 3"),
    (write("train/masks/ghost/0.png"), "masks/ghost: 'ghost' is no video in .*; there is train_0"),
    (write("train/videos/train_5/00001.jpg", b"?"), "00001.jpg: is not a readable image"),
    (image("train/videos/train_6/00002.jpg", "RGB", (8, 9)), r"00002.jpg: .*\[8, 9\], but the vid"),
    (write("train/videos/train_8.mp4", b"?"), "train_8.mp4: does not open as a video"),
    (line("train", "train_7,,1,x0,"), r"expressions.csv, line \d+: has no text"),
    (line("train", ",the dog,1,x1,"), r"expressions.csv, line \d+: has no video_id"),
    (line("train", "train_7,the dog"), r"expressions.csv, line \d+: has fewer columns than line 1"),
    (line("train", "train_7,a, b,1,x2,,"), r"expressions.csv, line \d+: has more columns than lin"),
    (line("train", "train_7,the dog,1,e0,"), r"line \d+: expression_id 'e0' is there already"),
    (line("train", "train_7,the dog,1,a/b,"), r"line \d+: expression_id 'a/b' is not usable"),
    (line("train", "train_7,the dog,void,x3,"), r"line \d+: names 'void', which is no object"),
    (line("train", "dgo,the dog,1,x4,"), r"expressions.csv, line \d+: 'dgo' is no video in"),
    (line("val", "val_0,the dog,9,x0,"), r"csv, line \d+: names object '9', but .*: 1, 2, 3, 4"),
    (video(1, name="val_1", file_names="x"), r'masks.json: videos\[1\]: "file_names" must list'),
    (edit(MASKS, "videos", 2, "file_names", 0, "val_2/7.jpg"), "'val_2': .* has no frame '7'; its"),
    (edit(MASKS, "videos", 3, "file_names", 0, "val_3/00001.jpg"), r"videos\[3\]: .*00001. twice"),
    (segmentation(16, 5), r"annotations\[16\].segmentations\[0\]: must be null, a list of poly"),
    (segmentation(18, {"size": [9, 9], "counts": "1"}), r"\[18\].segmentations\[0\]: .*\[9, 9\],"),
    (segmentation(19, {"size": [112, 144], "counts": "1"}), r"\[19\].*: the RLE counts do not"),
    (segmentation(20, {"size": [112, 144], "counts": [5]}), r"\[20\].*: the RLE counts do not fil"),
    (segmentation(21, [[1, 2, 3, 4, 5]]), r"annotations\[21\].segmentations\[0\]: a polygon must"),
    (segmentation(22, [[1, 2, 3, 4, 5, 600]]), r"annotations\[22\].*: .* x=5, y=600 is outside"),
    (annotation(23, segmentations=NULLS[1:]), r"\[23\]: 2 segmentations for the 3 frames of 'va"),
    (annotation(26, object_id="a b"), r'annotations\[26\]: "object_id" \'a b\' has spaces'),
    (annotation(29, segmentations=NULLS), r"csv, line \d+: names object '1', which .* in no frame"),
    (without(11), '"videos" has no \'val_10\', but val_'),
    (add("videos", **GHOST), "masks.json: 'ghost' is no video in .*videos; there is val_0, val_1"),
    (add("videos", id="x", file_names=["a"]), r"videos\[\d+\]: the name, .* '' is not usable"),
    (add("annotations", id=3), r'annotations\[\d+\]: "video_id" must be a number or a text, got N'),
    (add("annotations", id=99, video_id=99), r'annotations\[\d+\]: "video_id" 99 is none of "vid'),
    (
        add("annotations", id=9, object_id=1, video_id=12, segmentations=NULLS),
        r"annotations\[\d+\]: object '1' of 'val_11' is there already",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled") / "root"
    layouts.write_labelled(root, {"train": 9, "val": 12}, 3)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "root")


def test_a_sound_data_set_has_no_problem(pristine: Path) -> None:
    assert problems("labelled", pristine, full=True) == []


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_fault_is_reported_once_and_stops_one_video(root: Path, number: int) -> None:
    plant, message = FAULTS[number]
    plant(root)
    found = problems("labelled", root)
    assert len(found) == 1 and re.search(message, found[0]), found
    videos = [video for split in ("train", "val") for video in read_split("labelled", root, split)]
    assert sum(isinstance(video, SourceVideo) for video in videos) >= 20


def test_all_faults_at_once_are_all_reported(root: Path) -> None:
    for plant, _ in FAULTS:
        plant(root)
    found = problems("labelled", root)
    for _, message in FAULTS:
        assert any(re.search(message, text) for text in found), (message, found)


OF_SPLITS: list[tuple[Plant, str]] = [
    (remove("train/videos"), "train/videos: no such folder; it holds the split's videos"),
    (write("train/videos/0.jpg"), r"videos: holds both images \(0.jpg\) and folders or videos"),
    (remove("train/masks"), "masks: no such folder, and no masks.json: .* to the data set folder"),
    (write("train/masks.json", b"{}"), "train/masks.json: there is a folder masks, too; remove"),
    (remove("train/expressions.csv"), "train/expressions.csv: no such file"),
    (write("train/expressions.csv"), "expressions.csv, line 1: must name the columns .* got nothi"),
    (replace("train/expressions.csv", ",objects", ",object"), "line 1: must name .* got .*object"),
    (replace("train/expressions.csv", ",tags", ",text"), "line 1: names the column text twice"),
    (write("train/expressions.csv", b"video,text,objects\na,\xe4,1"), "is not CSV in UTF-8"),
    (line("train", 'train_0,"never closed,1,x,'), "expressions.csv: is not CSV in UTF-8"),
    (write(MASKS, b'{"videos": [\n}'), "masks.json, line 2: malformed JSON"),
    (edit(MASKS, "annotations", {}), 'masks.json: "annotations" must be a list, got dict'),
    (edit(MASKS, "videos", ...), 'masks.json: "videos" must be a list, got NoneType'),
    (
        edit(MASKS, "expressions", [{"video_id": 1, "text": "a", "object_ids": []}]),
        "val/expressions.csv: masks.json has expressions, too",
    ),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(OF_SPLITS)))
def test_a_fault_of_a_whole_split(root: Path, number: int) -> None:
    plant, message = OF_SPLITS[number]
    plant(root)
    found = problems("labelled", root)
    assert len(found) == 1 and re.search(message, found[0]), found


def test_videos_that_are_no_folders_of_frames(root: Path) -> None:
    shutil.copytree(root / "train/videos/train_0", root / "val/videos/val_11")
    assert "has the same video id as" in problems("labelled", root, "val")[0]
    for path in (root / "train/videos").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write("train/videos/0.jpg")(root)
    assert "put those of each video into a folder in it" in problems("labelled", root, "train")[0]


def test_masks_of_another_ending_are_named(root: Path) -> None:
    folder = root / "train/masks/train_0"
    for file in folder.iterdir():
        file.rename(file.with_suffix(".bmp"))
    (found,) = problems("labelled", root, "train")
    assert found.endswith("such as 00000.png, and there is: 3 .bmp (00000.bmp)")


def test_255_is_void_unless_a_sentence_names_it(root: Path) -> None:
    relabel("train/masks/train_0", 1, 255)(root)
    table = root / "train/expressions.csv"
    lines = table.read_text().splitlines()
    others = [each for each in lines if not re.match(r"train_0,.*\b1\b.*,e", each)]
    table.write_text("\n".join(others))
    assert [*truth(root, "train_0")] == ["2", "3", "void"]
    table.write_text("\n".join([*others, "train_0,the white thing,255,x,"]))
    assert [*truth(root, "train_0")] == ["2", "3", "255"]


def truth(root: Path, video_id: str, split: str = "train") -> dict[str, Any]:
    videos = {video.video_id: video for video in read_split("labelled", root, split)}
    assert not isinstance(videos[video_id], BadVideo), videos[video_id]
    return dict(videos[video_id].ground_truth)


def test_coco_video_frame_by_frame(root: Path) -> None:
    """CocoVID: images in any order, instances frame by frame; polygons, runs and compressed RLE."""
    expected = {f"val_{n}": truth(root, f"val_{n}", "val") for n in range(12)}
    document = json.loads((root / MASKS).read_text())
    images = [
        {"id": f"{video['id']}-{t}", "video_id": video["id"], "file_name": f"x/{t:05d}.jpg"}
        for video in document["videos"]
        for t in range(3)
    ]
    annotations = [
        {
            "id": 1000 + n,
            "image_id": f"{each['video_id']}-{t}",
            "instance_id": each["object_id"],
            "segmentation": uncompressed(rle) if n % 2 else rle,
        }
        for n, each in enumerate(document["annotations"])
        for t, rle in enumerate(each["segmentations"])
        if rle is not None
    ]
    videos = [{"id": n, "name": f"val_{n - 1}"} for n in range(1, 13)]
    layouts.write_json(
        root / MASKS, {"videos": videos, "images": images[::-1], "annotations": annotations}
    )
    assert problems("labelled", root, "val") == []
    assert {f"val_{n}": truth(root, f"val_{n}", "val") for n in range(12)} == expected
    add("annotations", id=1, image_id="1-0", instance_id=1, segmentation=None)(root)
    (found,) = problems("labelled", root, "val")
    assert re.search(r"annotations\[\d+\]: object '1' has a mask in '00000' already", found)
    bad = [v.video_id for v in read_split("labelled", root, "val") if isinstance(v, BadVideo)]
    assert bad == ["val_0"]
    add("annotations", id=1, image_id="9-9", instance_id=1, segmentation=None)(root)
    found = problems("labelled", root, "val")
    assert any(re.search(r'annotations\[\d+\]: "image_id" \'9-9\' is none of', f) for f in found)
    assert len(found) == 2
    edit(MASKS, "images", 0, "file_name", ...)(root)  # of val_11, whose masks say no more
    found = problems("labelled", root, "val")
    assert len(found) == 3 and any('videos[11]: "file_names" must list' in f for f in found)
    edit(MASKS, "images", 6, "video_id", 99)(root)
    found = problems("labelled", root, "val")
    assert len(found) > 3 and any('"video_id" 99 is none of "videos"' in f for f in found)
    edit(MASKS, "images", 5, "id", "1-0")(root)
    found = problems("labelled", root, "val")
    assert any("image id '1-0' is there already" in f for f in found)


def uncompressed(rle: dict[str, Any]) -> dict[str, Any]:
    pixels = coco.decode(rle).ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *ends, len(pixels)]).tolist()
    return {"size": rle["size"], "counts": [0, *runs] if pixels[0] else runs}


def test_the_forms_of_a_segmentation() -> None:
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    mask = coco.decode(rle_of(square, (5, 6), "here"))
    assert mask.sum() == 6 and mask[1:3, 1:4].all()
    two = coco.decode(rle_of([*square, [4, 3, 6, 3, 6, 5, 4, 5]], (5, 6), "here"))
    assert two.sum() == 10 and two[3:5, 4:6].all()
    assert rle_of(None, (5, 6), "here") is None and rle_of([], (5, 6), "here") is None
    assert rle_of({"size": [5, 6], "counts": [30]}, (5, 6), "here") is None
    for wrong in ("x", 1, {}, [[]], [1, 2, 3, 4, 5, 6], [["1"] * 6], [[True] * 6], [[1e999] * 6]):
        with pytest.raises(SourceError, match=r"^here: "):
            rle_of(wrong, (5, 6), "here")
    for counts in ([30.0], [-1, 31], [True] * 30, [31], "30", None):
        with pytest.raises(SourceError, match=r"^here: "):
            rle_of({"size": [5, 6], "counts": counts}, (5, 6), "here")


def test_of_a_long_video_the_annotated_frames_count(root: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["videos"][0]["file_names"] = ["val_0/00002.jpg", "val_0/00000.jpg"]
        for each in document["annotations"][:4]:
            each["segmentations"] = [each["segmentations"][2], each["segmentations"][0]]

    before = truth(root, "val_0", "val")
    masks(change)(root)
    (video,) = [v for v in read_split("labelled", root, "val") if v.video_id == "val_0"]
    assert video.frames == ("00000", "00002")
    assert video.ground_truth == {name: [rles[0], rles[2]] for name, rles in before.items()}
