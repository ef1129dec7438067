"""A user's own masks as prompts, beside the grid's."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import DEMO
from tasks.stage import Outcome, Plan
from tasks.stages.ingest import ingest_split
from tasks.stages.own_masks import import_masks
from tasks.stages.precompute import BOX_TRACKS
from tasks.tables import read_candidates, read_mask_tracks, read_objects
from tasks.track_sets import TrackSet, remember, track_set_of
from tests.tasks import stages
from warehouse import Commit, Key, Warehouse
from warehouse.demo_data import write_dataset

KEY = Key(dataset="demo", split="train", video_id="train_0000")
OTHER = KEY.of(video_id="train_0001")
RECIPE = stages.with_tracks(DEMO, max_tracks=4)
PROMPTED = 2  # the frame that has a label image


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Warehouse:
    """Two ingested and precomputed videos of 6 frames."""
    folder = tmp_path_factory.mktemp("own")
    write_dataset(folder / "data", {"train": 2}, seed=3, frames=6)
    root = str(folder / "warehouse")
    ingest_split(root, "demo", str(folder / "data"), "train")
    store = Warehouse(root)
    assert all(o.status == "done" for o in stages.precompute(store, "demo", "train", RECIPE))
    return store


@pytest.fixture
def masks(store: Warehouse, tmp_path) -> Path:
    """The ground truth of the first video in one frame, object n as pixel value n + 1."""
    folder = tmp_path / "masks"
    labels_HW = sum(
        np.where(coco.decode(rles[PROMPTED]), n + 1, 0) for n, rles in enumerate(objects(store))
    )
    save(folder / KEY.video_id, labels_HW)
    return folder


def objects(store: Warehouse) -> list[list]:
    return list(read_objects(store, store.current("ingest")[KEY]).values())


def save(folder: Path, labels_HW: np.ndarray, name: str = f"{PROMPTED:05}") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels_HW.astype(np.uint8)).save(folder / f"{name}.png")


def imported(store: Warehouse, folder: Path) -> tuple[TrackSet, list[Outcome]]:
    track_set = track_set_of(RECIPE, masks=str(folder))
    remember(store, "demo", "train", track_set)
    keys = [key.of(track_set=track_set.name) for key in (KEY, OTHER)]
    return track_set, import_masks(store, keys, track_set, str(folder))


def tracked(store: Warehouse, folder: Path) -> tuple[Commit, Commit]:
    track_set, outcomes = imported(store, folder)
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    stages.precompute(store, "demo", "train", RECIPE, masks=str(folder))
    keys = [key.of(track_set=track_set.name) for key in (KEY, OTHER)]
    made = stages.make(Plan(BOX_TRACKS, store, keys, track_set))
    assert all(outcome.status == "done" for outcome in made), made
    return store.current("precompute")[keys[0]], store.current("box_tracks")[keys[0]]


def test_each_object_has_a_track_that_every_expression_may_select(store, masks):
    commits = tracked(store, masks)
    prompts = store.read("prompts", commits).to_pylist()
    own = [p for p in prompts if p["source"] == "own"]
    visible = [rles for rles in objects(store) if coco.area(rles[PROMPTED])]
    assert {p["frame_index"] for p in own} == {PROMPTED}
    assert sorted(p["object_id"] for p in own) == [str(n + 1) for n in range(len(visible))]
    tracks = read_mask_tracks(store, *commits)
    for prompt in own:
        assert prompt["fate"] == "tracked"
        truth = objects(store)[int(prompt["object_id"]) - 1]
        overlaps = track_overlaps([tracks[prompt["track_id"]]], [truth])
        assert overlaps.miou_NO[0, 0] > 0.7
    candidates_EN = read_candidates(store, commits, ["0", "1"])
    assert candidates_EN.all()
    assert read_candidates(store, commits, ["0"], background=False).sum() == len(own)


def test_masks_that_change_are_imported_again(store, masks):
    before = tracked(store, masks)[1]
    assert tracked(store, masks)[1].fingerprint == before.fingerprint
    save(masks / KEY.video_id, np.where(coco.decode(objects(store)[0][0]), 7, 0), "00000")
    after = tracked(store, masks)[1]
    assert after.fingerprint != before.fingerprint
    assert "7" in {row["object_id"] for row in store.read("prompts", [after]).to_pylist()}


def test_bad_masks_fail_their_video_alone(store, masks):
    other = masks / OTHER.video_id
    save(other, np.ones((8, 8)), "99999")
    assert "no such frame; its frames are 00000 to 00005" in _failure(store, masks)
    (other / "99999.png").unlink()
    save(other, np.ones((8, 8)))
    assert "its size [height, width] is [8, 8]" in _failure(store, masks)
    Image.new("RGB", (8, 8)).save(other / f"{PROMPTED:05}.png")
    assert "must be a palette or grey-value image" in _failure(store, masks)


def _failure(store: Warehouse, folder: Path) -> str:
    first, second = imported(store, folder)[1]
    assert (first.status, second.status) == ("done", "failed")
    return second.message


def test_a_folder_of_other_videos_is_refused(store, tmp_path):
    save(tmp_path / "other" / "cat", np.ones((8, 8)))
    with pytest.raises(ValueError, match=r"has masks of none of the videos .*there is: 1 \.png"):
        imported(store, tmp_path / "other")
