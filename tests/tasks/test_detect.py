"""The stage `detect`: what a detector finds becomes rows of `detections`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sola_model.detection.detector import detect, load_detector, normal_caption
from sola_model.recipes import DEMO, Recipe
from tasks.stage import Plan
from tasks.stages.detect import DETECT
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from tasks.tables import read_expressions, read_video
from tasks.track_sets import track_set_of
from tests.tasks import stages
from warehouse import Key, Warehouse
from warehouse.demo_data import write_dataset
from warehouse.frames import read_frames

RECIPE = replace(DEMO, detector="demo")
VIDEOS = [Key(dataset="demo", split="valid_u", video_id=f"valid_u_000{n}") for n in range(3)]


def keys(recipe: Recipe) -> list[Key]:
    return [key.of(track_set=track_set_of(recipe).name) for key in VIDEOS]


def detections(store: Warehouse, recipe: Recipe) -> Plan:
    return Plan(DETECT, store, keys(recipe), track_set_of(recipe))


KEYS = keys(RECIPE)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Three videos, of which the second has an empty expression and the third a very long one."""
    folder = tmp_path_factory.mktemp("detect")
    write_dataset(folder / "data", {"valid_u": 3}, seed=3, frames=6)
    meta = folder / "data" / "valid_u" / "meta_expressions.json"
    content = json.loads(meta.read_text())
    for key, text in zip(KEYS[1:], (" . ", "star " * 300), strict=True):
        content["videos"][key.video_id]["expressions"]["0"]["exp"] = text
    meta.write_text(json.dumps(content))
    ingest_split(str(folder / "warehouse"), "demo", str(folder / "data"), "valid_u")
    store = Warehouse(folder / "warehouse")
    outcomes = stages.make(detections(store, RECIPE))
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    return store


def test_rows_are_what_the_detector_finds_in_the_prompt_frames(store: Warehouse) -> None:
    ingested, detected = store.current("ingest")[VIDEOS[0]], store.current("detect")[KEYS[0]]
    video, expressions = read_video(store, ingested), read_expressions(store, ingested)
    images = list(read_frames(Path(video["path"]), video["frames"]))
    texts = [expression.text for expression in expressions]
    prompted = [(t, images[t]) for t in (0, 4)]
    detector = load_detector("demo")
    expected = [
        (expression.expression_id, t, box.phrase, pytest.approx(box.token_scores))
        for t, found in detect(detector, prompted, texts, RECIPE.detection)
        for expression, boxes in zip(expressions, found, strict=True)
        for box in boxes
    ]
    rows = store.read("detections", [detected]).to_pylist()
    columns = ("expression_id", "frame_index", "phrase", "token_scores")
    assert [tuple(row[name] for name in columns) for row in rows] == expected
    lengths = {
        e.expression_id: len(detector.tokenizer(normal_caption(e.text))["input_ids"])
        for e in expressions
    }
    for row in rows:
        assert len(row["token_scores"]) == lengths[row["expression_id"]]
        assert max(row["token_scores"]) == row["score"] > RECIPE.detection.box_threshold


def test_the_word_that_a_box_was_found_by_can_be_asked_for(store: Warehouse) -> None:
    strongest = "SELECT list_max(token_scores) = score FROM detections"
    assert set(store.connect().sql(strongest).fetchall()) == {(True,)}


@pytest.mark.parametrize(
    ("key", "message"),
    [(KEYS[1], "is empty: remove the expression"), (KEYS[2], "takes at most 256: shorten")],
)
def test_a_caption_that_cannot_be_is_left_out(store: Warehouse, key: Key, message: str) -> None:
    """Its video's others have the boxes that they have without it."""
    detected = store.current("detect")[key]
    (left_out,) = detected.making.left_out
    assert left_out.startswith("0: caption ") and message in left_out
    ingested = store.current("ingest")[key.of(track_set="")]
    video, expressions = read_video(store, ingested), read_expressions(store, ingested)
    images = list(read_frames(Path(video["path"]), video["frames"]))
    others = [expression for expression in expressions if expression.expression_id != "0"]
    texts = [expression.text for expression in others]
    prompted = [(t, images[t]) for t in (0, 4)]
    expected = [
        (expression.expression_id, t, box.phrase)
        for t, found in detect(load_detector("demo"), prompted, texts, RECIPE.detection)
        for expression, boxes in zip(others, found, strict=True)
        for box in boxes
    ]
    rows = store.read("detections", [detected]).to_pylist()
    assert [(r["expression_id"], r["frame_index"], r["phrase"]) for r in rows] == expected


def test_without_boxes_the_grid_alone_has_tracks(store: Warehouse) -> None:
    nothing = replace(RECIPE, detection=replace(RECIPE.detection, box_threshold=0.999))
    nothing = replace(nothing, extraction=replace(nothing.extraction, max_tracks=2))
    track_set, key = track_set_of(nothing), keys(nothing)[0]
    assert Plan(DETECT, store, [key], track_set).missing() == [key]
    for stage in (DETECT, PRECOMPUTE, BOX_TRACKS):
        (outcome,) = stages.make(Plan(stage, store, [key], track_set))
        assert outcome.status == "done"
    tables = store.current("box_tracks")[key].files
    assert {table.rows for table in tables.values()} == {0}
