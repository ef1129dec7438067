"""`sola check`: every fault that docs/data-sets.md names, planted alone and all at once."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import app
from tests import layouts
from warehouse.sources import SourceError
from warehouse.sources.check import check_dataset

Plant = Callable[[Path], object]
SIZE = (112, 144)


@contextmanager
def quiet(stage: str, total: int):
    yield lambda done, failed: None


def problems(dataset: str, root: Path, *splits: str, full: bool = False) -> list[str]:
    checks = check_dataset(dataset, root, splits, quiet, full=full)
    return [problem.message for check in checks for problem in check.problems]


def edit(file: str, *change: Any) -> Plant:
    """Set value[k0][k1]... in a JSON file to the last argument, or delete it if that is `...`."""
    *path, last, new = change

    def plant(root: Path) -> None:
        document = value = json.loads((root / file).read_text())
        for key in path:
            value = value[key]
        value[last] = new
        if new is ...:
            del value[last]
        (root / file).write_text(json.dumps(document))

    return plant


def replace(file: str, old: str, new: str, encoding: str = "utf-8") -> Plant:
    def plant(root: Path) -> None:
        text = (root / file).read_text(encoding)
        assert old in text
        (root / file).write_text(text.replace(old, new, 1), encoding)

    return plant


def write(file: str, content: bytes = b"") -> Plant:
    def plant(root: Path) -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)

    return plant


def image(file: str, mode: str, size: tuple[int, int] = SIZE) -> Plant:
    return lambda root: Image.new(mode, size[::-1]).save(root / file)


def remove(path: str) -> Plant:
    def plant(root: Path) -> None:
        shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()

    return plant


def cut(file: str) -> Plant:
    """The end of a file is lost."""
    return lambda root: write(file, (root / file).read_bytes()[:-60])(root)


def drop_lines(folder: str, word: str) -> Plant:
    """Every line with the word is taken out of the text files of a folder."""

    def plant(root: Path) -> None:
        for file in (root / folder).iterdir():
            lines = file.read_bytes().splitlines(keepends=True)
            file.write_bytes(b"".join(line for line in lines if word.encode() not in line))

    return plant


def blank_text(file: str, start: str) -> Plant:
    def plant(root: Path) -> None:
        text = (root / file).read_text()
        (root / file).write_text(re.sub(f"{start} .*", f'{start} ""', text))

    return plant


def relabel(folder: str, old: int, new: int) -> Plant:
    def plant(root: Path) -> None:
        for file in (root / folder).glob("*.png"):
            labels_HW = np.array(Image.open(file))
            assert (labels_HW == old).any()
            layouts.write_label_image(file, np.where(labels_HW == old, new, labels_HW))

    return plant


def mevis(meta: str) -> list[tuple[Plant, str]]:
    """Faults of MeViS and MeViS v2, whose file of expressions is `meta`."""
    train, masks = f"train/{meta}.json", "train/mask_dict.json"
    jpegs = "train/JPEGImages"

    def video(number: int) -> tuple[str, str, str]:
        return train, "videos", f"train_{number}"

    return [
        (remove("valid/JPEGImages/valid_0"), "valid_0: the frame folder is missing"),
        (write("valid_u/mask_dict.json", b'{"0": [\n"a'), r"mask_dict\.json, line 2: malformed"),
        (edit(train, "videos", "../up", {}), "video id '../up' is not usable as a file name"),
        (edit(*video(1), "expressions", []), "'train_1': \"expressions\" must be an object"),
        (edit(*video(2), "frames", []), "'train_2': empty video"),
        (edit(*video(3), "frames", ["00000", "00001", "00001"]), "lists a frame twice: 00001"),
        (remove(f"{jpegs}/train_4/00001.jpg"), "train_4/00001.jpg: the frame file is missing"),
        (write(f"{jpegs}/train_4/00002.jpg", b"?"), "train_4/00002.jpg: is not a readable image"),
        (cut(f"{jpegs}/train_5/00001.jpg"), "train_5/00001.jpg: .*truncated"),
        (image(f"{jpegs}/train_5/00002.jpg", "RGB", (8, 9)), r"00002.jpg: .*\[8, 9\], but the vid"),
        (edit(*video(6), "expressions", "0", "exp", " "), "'train_6', expression '0': has no text"),
        (edit(*video(6), "expressions", "1", "lone"), "'train_6', expression '1': must be a JSON"),
        (edit(*video(6), "expressions", "2", "anno_id", 3), "expression '2': \"anno_id\" must be"),
        (edit(*video(6), "expressions", "3", "anno_id", [999]), "names anno_id 999, absent from"),
        (edit(*video(6), "expressions", "a/b", {"exp": "x", "anno_id": []}), "'a/b' is not usable"),
        (edit(masks, "0", 0, ...), "object '0': 2 masks for 3 frames"),
        (edit(masks, "1", 0, "counts"), "'train_0', object '1', frame 00000: must be null or"),
        (edit(masks, "1", 1, {"size": [9, 9], "counts": "1"}), r"frame 00001: .*\[9, 9\], but the"),
        (edit(masks, "1", 2, {"size": [*SIZE], "counts": "1"}), "frame 00002: the RLE counts do n"),
        (replace(train, '"train_7": {', '"train_7": 1, "train_7": {'), "'train_7': .* is there tw"),
    ]


YOUTUBE = "meta_expressions/train/meta_expressions.json"
LISTS = "ImageSets/2017"
TEXTS = "davis_text_annotations/Davis17_annot"
VOC = "ImageSets/Segmentation"

FAULTS: dict[str, list[tuple[Plant, str]]] = {
    "mevis": mevis("meta_expressions"),
    "mevis-v2": mevis("meta_expressions_v2"),
    "ref-youtube-vos": [
        (write("meta_expressions/test/meta_expressions.json", b"[]"), "must hold a JSON object"),
        (edit(YOUTUBE, "videos", "train_0", 5), "'train_0': must be a JSON object, not 5"),
        (edit(YOUTUBE, "videos", "train_1", "frames", ...), "'train_1': empty video"),
        (remove("train/JPEGImages/train_2/00005.jpg"), "00005.jpg: the frame file is missing"),
        (remove("train/Annotations/train_2/00010.png"), "00010.png: the annotation is missing"),
        (remove("train/Annotations/train_3"), "train_3: the folder of annotations is missing"),
        (write("train/Annotations/train_4/00000.png", b""), "00000.png: is not a readable image"),
        (cut("train/Annotations/train_4/00005.png"), "train_4/00005.png: is not a readable image"),
        (image("train/Annotations/train_4/00010.png", "RGB"), "00010.png: must be a palette"),
        (image("train/Annotations/train_5/00005.png", "P", (5, 4)), r"00005.png: .*\[5, 4\], but"),
        (edit(YOUTUBE, "videos", "train_6", "expressions", "0", "obj_id", ...), '"obj_id" must be'),
        (edit(YOUTUBE, "videos", "train_6", "expressions", "1", "obj_id", "x"), "got 'x'"),
        (edit(YOUTUBE, "videos", "train_6", "expressions", "2", "exp", ""), "'2': has no text"),
        (edit(YOUTUBE, "videos", "train_7", "expressions", "0", "obj_id", "77"), "object '77', wh"),
    ],
    "ref-davis17": [
        (remove(f"{TEXTS}1_full_video.txt"), "Davis17_annot1_full_video.txt: no such file"),
        (replace(f"{LISTS}/val.txt", "val_0", "val_0\nval_0"), "val.txt, line 2: 'val_0' is in li"),
        (replace(f"{LISTS}/train.txt", "train_0", "tr\\0"), r"train.txt, line 1: .* is not usable"),
        (replace(f"{LISTS}/train.txt", "train_1\n", "train_1\ngone\n"), "gone: the frame folder"),
        (write(f"{LISTS}/empty.txt", b"\n"), "empty.txt: lists no videos"),
        (replace(f"{TEXTS}1.txt", 'train_2 1 "', 'train_2 "'), 'annot1.txt, line .*: must be: vid'),
        (replace(f"{TEXTS}1.txt", "train_1 2 ", "train_1 1 "), "object 1 of train_1 has a text al"),
        (replace(f"{TEXTS}2.txt", "train_3 1", "tram_3 1", "latin-1"), "annot2.txt: has no text"),
        (write("JPEGImages/480p/train_4/00001.jpg", b"?"), "00001.jpg: is not a readable image"),
        (remove("Annotations_unsupervised/480p/train_5/00001.png"), "00001.png: the annotation is"),
        (image("Annotations_unsupervised/480p/train_5/00009.png", "P"), "there is no such frame"),
        (relabel("Annotations_unsupervised/480p/train_6", 1, 50), "object '1', which none of the"),
        (blank_text(f"{TEXTS}1.txt", "val_0 1"), "annot1.txt, line .*: has no text"),
        (drop_lines("davis_text_annotations", "train_8"), "has no expressions of video 'train_8'"),
        (remove("Annotations_unsupervised/480p/train_7"), "train_7: the folder of annotations is"),
    ],
    "pascal-voc": [
        (replace(f"{VOC}/val.txt", "val_0", "../x"), r"val.txt, line 1: .* is not usable"),
        (remove("JPEGImages/train_0.jpg"), "JPEGImages/train_0.jpg: no such file"),
        (remove("SegmentationObject/train_1.png"), "SegmentationObject/train_1.png: no such file"),
        (remove("SegmentationClass/train_2.png"), "SegmentationClass/train_2.png: no such file"),
        (write("JPEGImages/train_3.jpg", b"?"), "train_3.jpg: is not a readable image"),
        (image("SegmentationObject/train_4.png", "P", (3, 4)), r"train_4.png: .*\[3, 4\], but the"),
        (image("SegmentationClass/train_5.png", "P"), "train_5.png: no class, 1 to 20"),
        (image("SegmentationObject/train_6.png", "RGBA"), "train_6.png: must be a palette"),
        (cut("SegmentationClass/train_7.png"), "SegmentationClass/train_7.png: is not a readable"),
    ],
    "folder": [
        (write("broken.mp4", b"?"), "broken.mp4: does not open as a video"),
        (lambda root: (root / "empty").mkdir(), "empty: has no frames"),
        (lambda root: shutil.copytree(root / "all_0", root / "all_1"), "has the same video id as"),
        (image("all_0/00001.png", "RGB"), "has two images named 00001"),
        (write("all_0/00002.jpg", b"?"), "00002.jpg: is not a readable image"),
        (edit("expressions.json", "all_2", "no list"), "'all_2': must be a list of texts"),
        (edit("expressions.json", "all_9", ["x"]), "'all_9' is no frame folder or video file"),
        (write("expressions.csv", b"video_id,text"), "there is expressions.csv, too"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound data set of each layout, eight videos and some more."""
    roots = {dataset: tmp_path_factory.mktemp(dataset) / "root" for dataset in FAULTS}
    splits = {"train": 8, "valid_u": 1, "valid": 1}
    layouts.write_mevis(roots["mevis"], splits, 3)
    layouts.write_mevis_v2(roots["mevis-v2"], splits, 3)
    layouts.write_ref_youtube_vos(roots["ref-youtube-vos"], {"train": 8, "valid": 1, "test": 1}, 3)
    layouts.write_ref_davis17(roots["ref-davis17"], {"train": 9, "val": 1}, 3)
    layouts.write_pascal_voc(roots["pascal-voc"], {"train": 8, "val": 1})
    layouts.write_folder(roots["folder"], 3, 3)
    return roots


CASES = [(d, n) for d, faults in FAULTS.items() for n in range(len(faults))]


@pytest.mark.parametrize("dataset", FAULTS)
@pytest.mark.parametrize("full", [False, True])
def test_a_sound_data_set_has_no_problem(
    pristine: dict[str, Path], dataset: str, full: bool
) -> None:
    assert problems(dataset, pristine[dataset], full=full) == []


@pytest.mark.parametrize(("dataset", "number"), CASES)
def test_a_fault_is_reported_once(
    pristine: dict[str, Path], tmp_path: Path, dataset: str, number: int
) -> None:
    root = shutil.copytree(pristine[dataset], tmp_path / "root")
    plant, message = FAULTS[dataset][number]
    plant(root)
    found = problems(dataset, root)
    assert len(found) == 1 and re.search(message, found[0]), found


@pytest.mark.parametrize("dataset", FAULTS)
def test_all_faults_at_once_are_all_reported(
    pristine: dict[str, Path], tmp_path: Path, dataset: str
) -> None:
    root = shutil.copytree(pristine[dataset], tmp_path / "root")
    for plant, _ in FAULTS[dataset]:
        plant(root)
    found = problems(dataset, root)
    for _, message in FAULTS[dataset]:
        assert any(re.search(message, text) for text in found), (message, found)
    assert len(found) == len(FAULTS[dataset]), found


def test_a_split_may_be_chosen(pristine: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(pristine["mevis"], tmp_path / "root")
    remove("train/mask_dict.json")(root)
    assert problems("mevis", root, "valid_u", "valid") == []
    (found,) = problems("mevis", root, "train")
    assert found.endswith("mask_dict.json: no such file")
    assert "has no split 'trian'" in problems("mevis", root, "trian")[0]


def test_only_a_full_check_finds_what_headers_do_not_tell(
    pristine: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(pristine["ref-davis17"], tmp_path / "root")
    file = root / "Annotations_unsupervised/480p/train_0/00001.png"
    content = bytearray(file.read_bytes())
    content[-20] ^= 255
    file.write_bytes(content)
    assert problems("ref-davis17", root) == []
    (found,) = problems("ref-davis17", root, full=True)
    assert "00001.png: is not a readable image" in found


CSV_FAULTS = {
    "video_id,words\nall_0,a": ["line 1: must name the columns video_id and text"],
    "video_id,text\nall_0,a, b\nall_0,\n,a\nall_7,a": [
        "line 2: has more columns than line 1",
        "line 3: has no text",
        "line 4: has no video_id",
        "'all_7' is no frame folder or video file",
    ],
    "video_id,text\nall_0,\xe4": ["is not CSV in UTF-8"],
}


@pytest.mark.parametrize("content", CSV_FAULTS)
def test_faults_of_a_file_of_expressions(tmp_path: Path, content: str) -> None:
    layouts.write_folder(tmp_path, 2, 2, texts=None)
    (tmp_path / "expressions.csv").write_bytes(content.encode("latin-1"))
    found = problems("folder", tmp_path)
    assert len(found) == len(CSV_FAULTS[content])
    for message in CSV_FAULTS[content]:
        assert any(message in text and "expressions.csv" in text for text in found), found


def test_faults_of_a_list_of_videos(tmp_path: Path) -> None:
    layouts.write_folder(tmp_path / "clips", 2, 2, texts=None)
    lines = ["# mine", "clips/all_0", "", "clips/gone", "clips/all_0", "list.txt"]
    layouts.write_lines(tmp_path / "list.txt", lines)
    found = problems("folder", tmp_path / "list.txt")
    messages = ["line 4: .*gone: no such file", "line 5: .*is there twice", "line 6: .*not a video"]
    assert [bool(re.search(m, f)) for m, f in zip(messages, found, strict=True)] == [True] * 3


def test_a_labelled_valid_of_ref_youtube_vos_and_all_its_507_videos(tmp_path: Path) -> None:
    layouts.write_ref_youtube_vos(tmp_path, {"train": 1, "valid": 1}, 2)
    file = "meta_expressions/valid/meta_expressions.json"
    many = {f"v{n}": {} for n in range(506)} | json.loads((tmp_path / file).read_text())["videos"]
    edit(file, "videos", many)(tmp_path)
    (found,) = problems("ref-youtube-vos", tmp_path, "valid")
    assert "lists all 507 videos, but only 202 count" in found
    remove("valid/Annotations/valid_0/00005.png")(tmp_path)
    test = {"videos": {video_id: {} for video_id in many if video_id != "valid_0"}}
    layouts.write_json(tmp_path / "meta_expressions/test/meta_expressions.json", test)
    (found,) = problems("ref-youtube-vos", tmp_path, "valid")
    assert "00005.png: the annotation is missing" in found


def test_faults_of_a_whole_data_set(tmp_path: Path) -> None:
    for dataset in ("mevis", "ref-youtube-vos", "ref-davis17", "pascal-voc"):
        with pytest.raises(SourceError, match=f"no split of {dataset} is there"):
            problems(dataset, tmp_path)
    with pytest.raises(SourceError, match="gone: no such folder"):
        problems("mevis", tmp_path / "gone")
    with pytest.raises(SourceError, match="unknown data set 'mevsi'"):
        problems("mevsi", tmp_path)
    (found,) = problems("folder", tmp_path)
    assert "holds no images" in found


def sola_check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def test_the_command(pristine: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(pristine["pascal-voc"], tmp_path / "root")
    sound = sola_check(root, "--dataset", "pascal-voc", "--full")
    assert sound.exit_code == 0
    assert re.fullmatch(r"train: 8 videos, \d+ expressions, 8 frames, 0 problems\nval: 1 .*\n",
                        sound.stdout)  # fmt: skip
    remove("JPEGImages/train_3.jpg")(root)
    bad = sola_check(root, "--dataset", "pascal-voc")
    assert bad.exit_code == 1
    assert bad.stdout.startswith(f"train/train_3: {root}/JPEGImages/train_3.jpg: no such file\n")
    bad = sola_check(root, "--dataset", "pascal-voc", "--split", "train", "--format", "json")
    (split,) = json.loads(bad.stdout)["splits"]
    assert (split["split"], split["videos"], split["frames"]) == ("train", 8, 7)
    (problem,) = split["problems"]
    assert (problem["split"], problem["video_id"]) == ("train", "train_3")
    for arguments in ([root, "--dataset", "voc"], [root, "--format", "xml"]):
        wrong = sola_check(*arguments)
        assert wrong.exit_code == 1 and "valid" in wrong.output


def test_texts_that_are_too_long_for_a_recipe_are_named(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "clip" / "0.png")
    texts = {"clip": ["a bar", "the red circle " * 200]}
    (tmp_path / "expressions.json").write_text(json.dumps(texts))
    command = ["check", str(tmp_path), "--dataset", "folder"]
    assert CliRunner().invoke(app, command).exit_code == 0
    result = CliRunner().invoke(app, [*command, "--recipe", "demo"])
    assert result.exit_code == 1 and "all: 1 videos, 2 expressions" in result.output
    assert "all/clip: expression '1': The text 'the red circle" in result.output
