"""Every layout through its reader and ingest into tables, masks pixel for pixel."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from tasks.stages.ingest import ingest_split
from tasks.tables import read_expressions, read_objects, read_video
from tests import layouts
from tests.layouts import Clip, with_void
from warehouse import Key, Warehouse
from warehouse.frames import read_frames
from warehouse.sources import PROTOCOL, READERS, VOID, list_splits
from warehouse.sources.pascal_voc import CLASSES

WRITERS: dict[str, Callable[..., dict[str, list[Clip]]]] = {
    "mevis": layouts.write_mevis,
    "mevis-v2": layouts.write_mevis_v2,
    "ref-youtube-vos": layouts.write_ref_youtube_vos,
    "ref-davis17": layouts.write_ref_davis17,
    "pascal-voc": layouts.write_pascal_voc,
    "folder": layouts.write_folder,
    "labelled": layouts.write_labelled,
}


def ingest(store: Path, dataset: str, root: Path, split: str) -> dict[str, tuple[str, str]]:
    outcomes = ingest_split(str(store), dataset, str(root), split)
    return {outcome.video_id: (outcome.status, outcome.message) for outcome in outcomes}


@pytest.fixture(scope="module", params=WRITERS)
def ingested(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(data set, root, what was written, warehouse after the ingest of every split)"""
    dataset = request.param
    root = tmp_path_factory.mktemp(dataset)
    written = WRITERS[dataset](root)
    store = tmp_path_factory.mktemp("store") / "w"
    for split, clips in written.items():
        assert ingest(store, dataset, root, split) == {c.video_id: ("done", "") for c in clips}
    return dataset, root, written, Warehouse(store)


def each(ingested):
    dataset, _, written, store = ingested
    for split, clips in written.items():
        for clip in clips:
            key = Key(dataset=dataset, split=split, video_id=clip.video_id)
            yield split, clip, store.current("ingest")[key], store


def test_every_split_is_found(ingested) -> None:
    dataset, root, written, _ = ingested
    assert sorted(list_splits(dataset, root)) == sorted(written)


def test_frames_are_those_written(ingested) -> None:
    for _, clip, commit, store in each(ingested):
        video = read_video(store, commit)
        images = np.stack([*read_frames(Path(video["path"]), video["frames"])])
        assert (video["frame_count"], video["height"], video["width"]) == images.shape[:3]
        assert images.shape == clip.frames_THW3.shape
        assert np.abs(images.astype(int) - clip.frames_THW3).mean() < 8  # compressed


def test_ground_truth_is_pixel_exact(ingested) -> None:
    dataset = ingested[0]
    unlabelled = {"mevis": "valid", "mevis-v2": "valid", "ref-youtube-vos": "test", "folder": "all"}
    for split, clip, commit, store in each(ingested):
        objects = read_objects(store, commit)
        found = {name: coco.decode(rles).transpose(2, 0, 1) > 0 for name, rles in objects.items()}
        if split == unlabelled.get(dataset):
            assert found == {}
        elif dataset.startswith("mevis"):
            first = min(map(int, found))
            for name, masks_THW in found.items():
                assert np.array_equal(masks_THW, clip.masks_NTHW[int(name) - first])
        else:
            void = dataset in ("ref-davis17", "pascal-voc")
            labels_THW = with_void(clip.labels_THW) if void else clip.labels_THW
            values = {str(n): labels_THW == n for n in range(1, len(clip.masks_NTHW) + 1)}
            values |= {VOID: labels_THW == 255}
            assert list(found) == [name for name in values if values[name].any()]
            for name, masks_THW in found.items():
                assert np.array_equal(masks_THW, values[name]), name


def test_expressions_mean_the_objects_written(ingested) -> None:
    dataset = ingested[0]
    for split, clip, commit, store in each(ingested):
        expressions = read_expressions(store, commit)
        assert VOID not in {i for e in expressions for i in e.object_ids or ()}
        if dataset == "ref-davis17":
            ids = [(e.expression_id, e.object_ids) for e in expressions]
            objects = range(len(clip.kinds))
            assert ids == [(str(4 * n + v), (str(n + 1),)) for n in objects for v in range(4)]
            texts = [f"{v}: the {kind}, déjà vu" for kind in clip.kinds for v in range(4)]
            assert [e.text for e in expressions] == texts
        elif dataset == "pascal-voc":
            names = {layouts.EMBLEMS[kind]: [] for kind in clip.kinds}
            for number, kind in enumerate(clip.kinds, start=1):
                if (with_void(clip.labels_THW) == number).any():
                    names[layouts.EMBLEMS[kind]].append(str(number))
            assert {e.text: [*e.object_ids] for e in expressions} == names
            assert all(CLASSES[int(e.expression_id) - 1] == e.text for e in expressions)
        else:
            described = {d.text: d.targets for d in clip.descriptions}
            for e in expressions:
                if e.object_ids is None:
                    assert split in ("valid", "test", "all")
                elif dataset == "ref-youtube-vos":
                    assert e.object_ids == (str(described[e.text][0] + 1),)
                else:
                    assert len(e.object_ids) == len(described[e.text])
            no_target = any(e.object_ids == () for e in expressions)
            assert no_target == (dataset in ("mevis-v2", "labelled") and split != "valid")


def test_a_second_ingest_decodes_nothing(tmp_path: Path) -> None:
    """Label images are spoilt behind the back of the file system's times: nobody looks."""
    for dataset in ("ref-youtube-vos", "ref-davis17", "pascal-voc"):
        root, store = tmp_path / dataset, tmp_path / f"{dataset}-w"
        written = WRITERS[dataset](root, {"train": 2})["train"]
        first = ingest(store, dataset, root, "train")
        labels = [*root.rglob(f"*{written[0].video_id}*/*.png"), *root.rglob("Seg*/train_0.png")]
        assert labels
        for file in labels:
            stat = file.stat()
            file.write_bytes(bytes(stat.st_size))
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert ingest(store, dataset, root, "train") == first
        os.utime(labels[-1])  # now it was touched
        outcomes = ingest(store, dataset, root, "train")
        status, message = outcomes.pop(written[0].video_id)
        assert status == "failed" and "png: is not a readable image" in message
        assert outcomes == {written[1].video_id: ("done", "")}


def test_valid_of_ref_youtube_vos_without_annotations_is_unlabelled(tmp_path: Path) -> None:
    layouts.write_ref_youtube_vos(tmp_path, {"valid": 2, "test": 3}, valid_labelled=False)
    (tmp_path / "valid/Annotations").mkdir()  # as of YouTube-VOS, of the first frames
    outcomes = ingest(tmp_path / "w", "ref-youtube-vos", tmp_path, "valid")
    assert [*outcomes] == ["valid_0", "valid_1"]
    table = Warehouse(tmp_path / "w").connect().sql("SELECT object_ids FROM expressions")
    assert {ids for (ids,) in table.fetchall()} == {None}


def test_the_other_places_of_davis_and_of_test_images(tmp_path: Path) -> None:
    layouts.write_ref_davis17(tmp_path / "DAVIS", {"val": 1})
    (tmp_path / "DAVIS/davis_text_annotations").rename(tmp_path / "davis_text_annotations")
    assert ingest(tmp_path / "w", "ref-davis17", tmp_path, "val") == {"val_0": ("done", "")}
    layouts.write_ref_youtube_vos(tmp_path, {"test": 1})
    (tmp_path / "valid").rename(tmp_path / "test")
    assert ingest(tmp_path / "w", "ref-youtube-vos", tmp_path, "test") == {"test_0": ("done", "")}


def test_a_list_of_videos_with_texts_in_csv(tmp_path: Path) -> None:
    (first, second, _) = layouts.write_folder(tmp_path, 3, texts="csv")["all"]
    layouts.write_lines(tmp_path / "list.txt", [f"{second.video_id}.mp4", first.video_id])
    outcomes = ingest(tmp_path / "w", "folder", tmp_path / "list.txt", "mine")
    assert [*outcomes] == [second.video_id, first.video_id]
    store = Warehouse(tmp_path / "w")
    for key, commit in store.current("ingest").items():
        clip = {c.video_id: c for c in (first, second)}[key.video_id]
        texts = [e.text for e in read_expressions(store, commit)]
        assert texts == [d.text for d in clip.descriptions]


def test_every_data_set_has_a_protocol() -> None:
    assert PROTOCOL.keys() == READERS.keys()
    assert {*PROTOCOL.values()} == {"mevis", "ref-youtube-vos", "davis"}
