"""Ground truth exported and read again: exact masks, ids and sentences; data sets of own names."""

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from flows.printing import redo
from tasks.results.export import export
from tasks.results.score import score_submission
from tasks.stages.ingest import ingest_split, layout_of
from tests import layouts
from warehouse import Key, Warehouse, WarehouseError
from warehouse.sources import SourceError, SourceVideo, read_split
from warehouse.sources.check import check_dataset

SPLITS = {
    "mevis-v2": ("train", "train/JPEGImages"),
    "ref-davis17": ("val", "JPEGImages/480p"),
    "labelled": ("train", "train/videos"),
}


@contextmanager
def quiet(stage: str, total: int) -> Iterator[Any]:
    yield lambda videos, failed: None


def export_truth(store: Warehouse, dataset: str, split: str, form: str, out: Path) -> int:
    return export(store.url, None, dataset, split, "ground-truth", form, out, 1, quiet)


@pytest.fixture(scope="module", params=SPLITS)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(data set, split, its videos, folder of their frames, warehouse)"""
    dataset = request.param
    split, images = SPLITS[dataset]
    root = tmp_path_factory.mktemp("original")
    layouts_of = {
        "mevis-v2": layouts.write_mevis_v2,
        "ref-davis17": layouts.write_ref_davis17,
        "labelled": layouts.write_labelled,
    }
    layouts_of[dataset](root, {split: 2}, 4)
    store = str(root / "w")
    ingest_split(store, dataset, str(root), split)
    return dataset, split, read_split(dataset, root, split), root / images, Warehouse(store)


def exported(original: Any, form: str, root: Path) -> list[SourceVideo]:
    """The export, read by the reader of labelled data; `sola check` finds nothing wrong with it."""
    dataset, split, _, images, store = original
    folder = root / "again"
    folder.mkdir()
    (folder / "videos").symlink_to(images)
    if form == "coco":
        assert export_truth(store, dataset, split, form, folder / "masks.json") > 0
    else:
        count = export_truth(store, dataset, split, form, root / "truth.zip")
        with zipfile.ZipFile(root / "truth.zip") as archive:
            assert count == sum(name.endswith(".png") for name in archive.namelist())
            archive.extractall(folder)
    (found,) = check_dataset("labelled", root, ["again"], quiet, full=True)
    assert found.problems == ()
    return read_split("labelled", root, "again")


def sentences(video: SourceVideo) -> list[tuple[Any, ...]]:
    return [(e.expression_id, e.text, e.tags) for e in video.expressions]


def meant(video: SourceVideo) -> list[np.ndarray]:
    """The union of the masks that each sentence names."""
    masks = {name: pixels(rles) for name, rles in video.ground_truth.items() if any(rles)}
    nothing = np.zeros_like(next(iter(masks.values())))
    return [
        np.any([nothing, *(masks[name] for name in e.object_ids if name in masks)], axis=0)
        for e in video.expressions
    ]


def pixels(rles: list[Any]) -> np.ndarray:
    size = next(rle["size"] for rle in rles if rle is not None)
    return np.stack([np.zeros(size, bool) if rle is None else coco.decode(rle) > 0 for rle in rles])


def test_coco_is_read_again_exactly(original: Any, tmp_path: Path) -> None:
    for before, after in zip(original[2], exported(original, "coco", tmp_path), strict=True):
        assert (after.video_id, after.frames) == (before.video_id, before.frames)
        assert after.expressions == before.expressions
        shown = {name: rles for name, rles in before.ground_truth.items() if any(rles)}
        assert dict(after.ground_truth) == shown


def test_label_images_are_read_again_exactly(original: Any, tmp_path: Path) -> None:
    for before, after in zip(original[2], exported(original, "png", tmp_path), strict=True):
        assert sentences(after) == sentences(before)
        assert np.array_equal(meant(after), meant(before))
        if {*before.ground_truth} <= {"1", "2", "3", "4", "void"}:  # not the ids of MeViS
            assert after.expressions == before.expressions
            assert dict(after.ground_truth) == dict(before.ground_truth)
        assert ("void" in after.ground_truth) == ("void" in before.ground_truth)


def test_ids_that_are_no_pixel_values_are_numbered(tmp_path: Path) -> None:
    layouts.write_labelled(tmp_path, {"val": 2}, 3)
    file = tmp_path / "val/masks.json"
    file.write_text(file.read_text().replace('"object_id": 1,', '"object_id": "dog",'))
    table = tmp_path / "val/expressions.csv"
    table.write_text("video,text,objects\nval_0,the dog,dog\nval_1,no cat,\n")
    store = Warehouse.create(str(tmp_path / "w"))
    ingest_split(store.url, "labelled", str(tmp_path), "val")
    export_truth(store, "labelled", "val", "png", tmp_path / "truth.zip")
    shutil.unpack_archive(tmp_path / "truth.zip", tmp_path / "again")
    assert (tmp_path / "again/expressions.csv").read_text() == (
        "video_id,text,objects,expression_id,tags\nval_0,the dog,1,0,\nval_1,no cat,,0,\n"
    )


def test_what_has_no_ground_truth_is_refused(tmp_path: Path) -> None:
    layouts.write_folder(tmp_path / "videos", 1, 2)
    store = Warehouse.create(str(tmp_path / "w"))
    with pytest.raises(WarehouseError, match="folder/all: is not in the warehouse"):
        export_truth(store, "folder", "all", "coco", tmp_path / "truth.json")
    ingest_split(store.url, "folder", str(tmp_path / "videos"), "all")
    with pytest.raises(WarehouseError, match="folder/all: is unlabelled"):
        export_truth(store, "folder", "all", "coco", tmp_path / "truth.json")


def test_objects_that_overlap_need_coco(tmp_path: Path) -> None:
    layouts.write_labelled(tmp_path, {"val": 1}, 2)
    file = tmp_path / "val/masks.json"
    square = '"segmentations": [[[1, 1, 9, 1, 9, 9, 1, 9]], null], "was": ['
    file.write_text(file.read_text().replace('"segmentations": [', square))
    store = Warehouse.create(str(tmp_path / "w"))
    ingest_split(store.url, "labelled", str(tmp_path), "val")
    with pytest.raises(ValueError, match=r"val_0, frame 0: .* overlaps another.* export as coco"):
        export_truth(store, "labelled", "val", "png", tmp_path / "truth.zip")
    assert not (tmp_path / "truth.zip").exists()
    assert export_truth(store, "labelled", "val", "coco", tmp_path / "truth.json") > 1


def test_a_data_set_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    layouts.write_ref_davis17(tmp_path, {"val": 1}, 2)
    root = str(tmp_path / "w")
    outcomes = ingest_split(root, "ref-davis17", str(tmp_path), "val", name="mydogs")
    assert {outcome.status for outcome in outcomes} == {"done"}
    store = Warehouse(root)
    assert store.connect().sql("SELECT dataset FROM videos").fetchall() == [("mydogs",)]
    assert layout_of(store, "mydogs", "val") == "ref-davis17"
    assert "--dataset ref-davis17 --dataset-name mydogs --split val" in redo(
        root, "precompute", Key("mydogs", "val")
    )
    assert "--dataset mydogs --split val" in redo(root, "label", Key("mydogs", "val"))
    for name in ("", "a/b", "mevis"):
        with pytest.raises(SourceError, match="data set name"):
            ingest_split(root, "folder", str(tmp_path), "val", name=name)
    with pytest.raises(SourceError, match="--dataset folder --dataset-name mydogs"):
        ingest_split(root, "mydogs", str(tmp_path), "val")


def test_a_named_data_set_of_which_nothing_could_be_read(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/broken.mp4").write_bytes(b"?")
    root = str(tmp_path / "w")
    ingest_split(root, "folder", str(tmp_path / "videos"), "all", name="mydogs")
    assert layout_of(Warehouse(root), "mydogs", "all") == "folder"
    with pytest.raises(WarehouseError, match="mydogs/all: 1 of 1 videos could not be read"):
        export_truth(Warehouse(root), "mydogs", "all", "png", tmp_path / "truth.zip")


def test_void_pixels_of_own_masks_do_not_count(tmp_path: Path) -> None:
    """A prediction that reaches into void is right; one that reaches beyond it is not."""
    (clip,) = layouts.write_labelled(tmp_path / "data", {"train": 1}, 2)["train"]
    split = tmp_path / "data/train"
    (split / "expressions.csv").write_text(f"video,text,objects\n{clip.video_id},it,1\n")
    labels_THW = layouts.with_void(clip.labels_THW)
    assert (labels_THW == 255).any()
    masks = {"void": np.isin(labels_THW, (1, 255)), "all": labels_THW >= 0}
    for frame, labels_HW in zip(clip.frames, labels_THW, strict=True):
        layouts.write_label_image(split / f"masks/{clip.video_id}/{frame}.png", labels_HW)
    scores = {}
    for name, mask_THW in masks.items():
        folder = tmp_path / name / clip.video_id / "0"
        folder.mkdir(parents=True)
        for frame, mask_HW in zip(clip.frames, mask_THW, strict=True):
            layouts.write_label_image(folder / f"{frame}.png", mask_HW.astype(np.uint8))
        scores[name] = score_submission(split, tmp_path / name, None, 1, quiet).mean.jf
    assert scores["void"] == 1 and scores["all"] < 0.5
