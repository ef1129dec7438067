"""Tracks of detected boxes and of ground-truth masks beside those of the grid."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from sola_model.extraction.encoding import EncodedVideo
from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import DEMO, BoxPrompts, Recipe
from tasks.stage import Outcome, Plan, adopt
from tasks.stages.detect import BOX_SCHEMA, _read_boxes, import_boxes
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from tasks.tables import read_candidates, read_expressions, read_mask_tracks, read_objects
from tasks.track_sets import TrackSet, track_set_of
from tests.tasks import stages
from warehouse import Commit, Key, Warehouse
from warehouse.demo_data import write_dataset

KEY = Key(dataset="demo", split="train", video_id="train_0000")
SHARED = replace(DEMO, extraction=replace(DEMO.extraction, max_tracks=4, ground_truth=True))
RECIPE = replace(SHARED, extraction=replace(SHARED.extraction, boxes=BoxPrompts(shared=False)))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Warehouse:
    """One ingested and precomputed video of 6 frames."""
    folder = tmp_path_factory.mktemp("boxes")
    write_dataset(folder / "data", {"train": 1}, seed=3, frames=6)
    root = str(folder / "warehouse")
    ingest_split(root, "demo", str(folder / "data"), "train")
    store = Warehouse(root)
    (outcome,) = stages.precompute(store, "demo", "train", RECIPE)
    assert (outcome.video_id, outcome.status) == (KEY.video_id, "done")
    return store


@pytest.fixture(scope="module")
def boxes(store: Warehouse, tmp_path_factory) -> Path:
    """A box around the first object of each expression with a target, in the first frame."""
    ingested = store.current("ingest")[KEY]
    objects = read_objects(store, ingested)
    file = tmp_path_factory.mktemp("boxes") / "boxes.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["video_id", "expression_id", "frame_index", "x0", "y0", "x1", "y1", "score"]
        )
        for expression in read_expressions(store, ingested):
            for object_id in (expression.object_ids or ())[:1]:
                x, y, w, h = coco.toBbox(objects[object_id][0])
                if w:
                    row = [expression.expression_id, 0, x, y, x + w, y + h, 0.9]
                    writer.writerow([KEY.video_id, *row])
    return file


def with_boxes(file: Path, recipe: Recipe) -> TrackSet:
    return track_set_of(recipe, boxes=str(file))


def planned(store: Warehouse, track_set: TrackSet) -> tuple[Plan, Plan]:
    """The tracks of the grid, and those of boxes."""
    key = KEY.of(track_set=track_set.name)
    return Plan(PRECOMPUTE, store, [key], track_set), Plan(BOX_TRACKS, store, [key], track_set)


def imported(store: Warehouse, file: Path, recipe: Recipe = RECIPE) -> list[Outcome]:
    track_set = with_boxes(file, recipe)
    return import_boxes(store, [KEY.of(track_set=track_set.name)], track_set, str(file))


def extract_boxes(store: Warehouse, file: Path, recipe: Recipe) -> tuple[Commit, Commit]:
    track_set = with_boxes(file, recipe)
    adopt(planned(store, track_set)[0])  # of the set without boxes
    assert not planned(store, track_set)[0].missing()
    assert [outcome.status for outcome in imported(store, file, recipe)] == ["done"]
    plan = planned(store, track_set)[1]
    stages.make(plan)
    assert not plan.missing()
    key = KEY.of(track_set=track_set.name)
    return store.current("precompute")[key], store.current("box_tracks")[key]


@pytest.mark.parametrize("recipe", [RECIPE, SHARED], ids=["per expression", "shared"])
def test_expressions_select_from_the_grid_and_their_own_boxes(store, boxes, recipe):
    precomputed, boxed = extract_boxes(store, boxes, recipe)
    prompts = store.read("prompts", [precomputed, boxed]).to_pylist()
    assert [p["prompt_id"] for p in prompts] == list(range(len(prompts)))
    tracks = store.read("tracks", [precomputed, boxed])["track_id"].to_pylist()
    assert tracks == list(range(len(tracks)))
    masks = read_mask_tracks(store, precomputed, boxed)
    assert len(masks) == len(tracks)

    expressions = [e.expression_id for e in read_expressions(store, store.current("ingest")[KEY])]
    candidates_EN = read_candidates(store, (precomputed, boxed), expressions)
    for prompt in prompts:
        if prompt["track_id"] is None:
            continue
        selectable_E = candidates_EN[:, prompt["track_id"]]
        if prompt["source"] == "grid":
            assert selectable_E.all()
        elif prompt["source"] == "mask":
            assert not selectable_E.any()
            assert prompt["object_id"] is not None
        else:
            assert selectable_E[expressions.index(prompt["expression_id"])]
    own = [p for p in prompts if p["source"] == "box" and p["fate"] == "tracked"]
    if recipe is RECIPE:
        assert own
        for prompt in own:
            assert candidates_EN[:, prompt["track_id"]].sum() == 1
    else:
        alone = sum(p["source"] == "box" for p in prompts)
        assert len(own) < alone

    boxes_EN = read_candidates(store, (precomputed, boxed), expressions, background=False)
    assert boxes_EN.any() and (boxes_EN <= candidates_EN).all()
    assert (boxes_EN.sum(axis=1) < candidates_EN.sum(axis=1)).all()
    with pytest.raises(ValueError, match="no tracks of boxes"):
        read_candidates(store, (precomputed,), expressions, background=False)


def test_where_every_box_is_covered_only_frames_with_boxes_are_encoded(
    store, boxes, tmp_path, monkeypatch
):
    shutil.copytree(store.root, tmp_path / "w")
    other = Warehouse(tmp_path / "w")
    loose = replace(SHARED, extraction=replace(SHARED.extraction, duplicate_iou=0.01))
    stages.precompute(other, "demo", "train", loose)
    encode, calls = EncodedVideo._encode, []
    monkeypatch.setattr(EncodedVideo, "_encode", lambda *a: calls.append(1) or encode(*a))
    _, boxed = extract_boxes(other, boxes, loose)
    fates = other.read("prompts", [boxed])["fate"].to_pylist()
    assert fates and set(fates) == {"filtered"}
    assert len(calls) == 1  # all boxes are in the first frame


def test_ground_truth_gives_tracks_of_its_objects(store):
    precomputed = store.current("precompute")[KEY.of(track_set=track_set_of(RECIPE).name)]
    objects = read_objects(store, store.current("ingest")[KEY])
    masks = read_mask_tracks(store, precomputed)
    given = [
        prompt
        for prompt in store.read("prompts", [precomputed]).to_pylist()
        if prompt["source"] == "mask" and prompt["fate"] == "tracked"
    ]
    assert given
    for prompt in given:
        overlaps = track_overlaps([masks[prompt["track_id"]]], [objects[prompt["object_id"]]])
        assert overlaps.miou_NO[0, 0] > 0.5


def test_box_tracks_depend_on_boxes_and_on_tracks(store, boxes, tmp_path):
    extract_boxes(store, boxes, RECIPE)
    grid, boxed = planned(store, with_boxes(boxes, RECIPE))
    assert not grid.missing() and not boxed.missing()
    lines = boxes.read_text().splitlines(keepends=True)
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("".join(lines[:-1]))
    for file, recipe in ((boxes, SHARED), (fewer, RECIPE)):
        other = with_boxes(file, recipe)
        grid, _ = planned(store, other)
        adopt(grid)
        assert not grid.missing()  # what boxes change is not the grid's
        imported(store, file, recipe)
        _, others = planned(store, other)
        assert set(others.wanted.values()).isdisjoint(boxed.wanted.values())
    same = shutil.copy(boxes, tmp_path / "renamed.csv")
    assert with_boxes(same, RECIPE).name == with_boxes(boxes, RECIPE).name
    imported(store, same)
    assert not planned(store, with_boxes(same, RECIPE))[1].missing()


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("video_id,expression_id,frame_index", "train_0000,0,0", "must have the columns"),
        (None, "elsewhere,0,0,1,1,9,9,0.5", "but none of this split"),
        (None, "train_0000,0,zero,1,1,9,9,0.5", "zero"),
    ],
)
def test_a_file_that_does_not_fit_is_an_error(store, tmp_path, header, row, message):
    file = tmp_path / "boxes.csv"
    header = header or "video_id,expression_id,frame_index,x0,y0,x1,y1,score"
    file.write_text(f"{header}\n{row}\n")
    with pytest.raises(ValueError, match=message):
        imported(store, file)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("train_0000,none,0,1,1,9,9,0.5", "of no expression"),
        ("train_0000,0,6,1,1,9,9,0.5", "on no frame"),
    ],
)
def test_a_box_that_does_not_fit_fails_its_video(store, tmp_path, row, message):
    file = tmp_path / "boxes.csv"
    file.write_text(f"video_id,expression_id,frame_index,x0,y0,x1,y1,score\n{row}\n")
    (outcome,) = imported(store, file)
    assert outcome.status == "failed"
    assert message in outcome.message


IDS = ["0001", "1", "1e5", "TRUE", "2024-1-2", "NULL", "12:30", "12345678901234567890123", "1.10"]


NAMES = ["a.csv", "a.json", "lines.json", "a.parquet", "a[1].csv", "a*.csv"]
NAMES += ["video_id=x/a.csv", "video_id=x/a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_ids_stay_as_they_are_written(tmp_path, name):
    """No types are guessed from values or from file names, which are no patterns, either."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    (tmp_path / "a1.csv").write_text("a neighbour that a pattern would find")
    numbers = {"frame_index": 0, "x0": 0, "y0": 0.5, "x1": 4, "y1": 4, "score": 0.5}
    boxes = [{"video_id": i, "expression_id": i} | numbers for i in IDS]
    if name.endswith(".json"):
        lines = [json.dumps(box) for box in boxes]
        file.write_text("\n".join(lines) if name == "lines.json" else f"[{','.join(lines)}]")
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(boxes), file)
    else:
        rows = [",".join(str(value) for value in box.values()) for box in boxes]
        file.write_text("\n".join([",".join(boxes[0]), *rows]))
    read = _read_boxes(file)
    assert read.select(["video_id", "expression_id", "y0"]).to_pylist() == [
        {"video_id": i, "expression_id": i, "y0": 0.5} for i in IDS
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", f"{','.join(BOX_SCHEMA.names)}\nv,0,,1,1,9,9,0.5", "no frame_index"),
        ("a.json", '[{"video_id": 1.5, "expression_id": "0"}]', "video_id is 1.5; an id is"),
        ("a.json", '[{"video_id": "v"}]', "expression_id"),
        ("a.json", "[" * 100_000, "must have the columns"),
        ("a.parquet", "PAR1", "must have the columns"),
    ],
)
def test_a_box_file_that_does_not_read_is_an_error(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        _read_boxes(tmp_path / name)


def test_only_known_kinds_of_file_are_read(store, tmp_path):
    with pytest.raises(ValueError, match=r"\.parquet"):
        import_boxes(store, [], track_set_of(RECIPE), str(tmp_path / "boxes.txt"))
