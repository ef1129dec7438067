"""The baseline without a selector: each frame's best box, its mask, and the scores."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sola_model.detection.detector import detect
from sola_model.extraction.encoding import EncodedVideo
from sola_model.extraction.prompts import Box, box_prompts
from sola_model.metrics.jf import empty_rle, j_and_f
from sola_model.recipes import DEMO, BoxPrompts, Recipe
from sola_model.selector.selection import merge
from tasks.results.compare import compare_runs
from tasks.stages.baseline import baseline_plan, baseline_run
from tasks.stages.detect import worker_detector
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import worker_sam2
from tasks.tables import read_expressions, read_objects, read_video
from tests.tasks import stages
from warehouse import Key, Warehouse, WarehouseError
from warehouse.demo_data import write_dataset
from warehouse.frames import read_frames
from warehouse.masks import rles_from_table
from warehouse.queries import load_query
from warehouse.verify import verify

RECIPE = replace(DEMO, detector="demo")
FRAMES = 6
VIDEO = Key(dataset="demo", split="valid_u", video_id="valid_u_0000")


def surer(threshold: float) -> Recipe:
    return replace(RECIPE, detection=replace(RECIPE.detection, box_threshold=threshold))


def run_baseline(store: Warehouse, recipe: Recipe, split: str = "valid_u") -> str:
    plan = baseline_plan(store, "demo", split, recipe)
    assert {outcome.status for outcome in stages.make(plan)} <= {"done"}
    assert plan.wanted and not plan.missing()
    return baseline_run(recipe)


@pytest.fixture(scope="module")
def encoded() -> Iterator[dict[str, int]]:
    """How many images each model has encoded."""
    counts = {"detector": 0, "sam2": 0}

    def counting(name: str):
        def hook(_, inputs) -> None:
            counts[name] += len(inputs[0])

        return hook

    encoder = worker_detector("demo", "cpu").backbone.backbone.conv_encoder
    trunk = worker_sam2("demo", "cpu").image_encoder
    hooks = [
        encoder.register_forward_pre_hook(counting("detector")),
        trunk.register_forward_pre_hook(counting("sam2")),
    ]
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, encoded: dict[str, int]) -> Warehouse:
    """A labelled and an unlabelled video that are only ingested, and the baseline of the first."""
    folder = tmp_path_factory.mktemp("baseline")
    write_dataset(folder / "data", {"valid_u": 1, "valid": 1}, seed=3, frames=FRAMES)
    for split in ("valid_u", "valid"):
        ingest_split(str(folder / "warehouse"), "demo", str(folder / "data"), split)
    store = Warehouse(folder / "warehouse")
    run_baseline(store, RECIPE)
    assert encoded == {"detector": FRAMES, "sam2": FRAMES}
    return store


def predictions(store: Warehouse, recipe: Recipe = RECIPE) -> dict[tuple[str, int], dict]:
    commit = store.current("baseline", run_id=baseline_run(recipe))
    return {
        (row["expression_id"], row["frame_index"]): row
        for row in store.read("frame_predictions", commit.values()).to_pylist()
    }


def scores(store: Warehouse, recipe: Recipe = RECIPE) -> dict[str, dict]:
    commit = store.current("baseline", run_id=baseline_run(recipe), split="valid_u")
    rows = store.read("scores", commit.values()).to_pylist()
    return {row["expression_id"]: row for row in rows}


def test_every_frame_has_the_best_box_of_each_expression(store: Warehouse) -> None:
    ingested = store.current("ingest")[VIDEO]
    video, expressions = read_video(store, ingested), read_expressions(store, ingested)
    frames = enumerate(read_frames(Path(video["path"]), video["frames"]))
    texts = [expression.text for expression in expressions]
    rows = predictions(store)
    expected = {
        (expression.expression_id, t): boxes[0]
        for t, found in detect(worker_detector("demo", "cpu"), frames, texts, RECIPE.detection)
        for expression, boxes in zip(expressions, found, strict=True)
        if boxes
    }
    assert set(rows) == set(expected)
    assert {t for _, t in rows} == set(range(FRAMES))
    for at, box in expected.items():
        corners = [rows[at][name] for name in ("x0", "y0", "x1", "y1")]
        np.testing.assert_allclose(corners, box.xyxy, rtol=1e-6)
        assert rows[at]["score"] == pytest.approx(box.score)


def test_a_caption_that_the_detector_does_not_take_is_left_out(
    store: Warehouse, tmp_path: Path
) -> None:
    """The other expressions have the boxes and scores that they have beside a sound one."""
    shutil.copytree(store.root, tmp_path / "w")
    other = Warehouse(tmp_path / "w")
    name = stages.with_texts(other, VIDEO, {1: "star " * 300})[1]["expression_id"]
    run_baseline(other, RECIPE)
    (made,) = other.current("baseline", split="valid_u").values()
    assert [text.split(":")[0] for text in made.making.left_out] == [name]
    assert predictions(other) == {at: r for at, r in predictions(store).items() if at[0] != name}
    assert scores(other) == {e: row for e, row in scores(store).items() if e != name}


def test_a_mask_depends_on_its_own_frame_alone(store: Warehouse) -> None:
    video = read_video(store, store.current("ingest")[VIDEO])
    images = list(read_frames(Path(video["path"]), video["frames"]))
    model = worker_sam2("demo", "cpu")
    rows = predictions(store)
    for t in (1, 4):
        (expression_id, _), row = next(item for item in rows.items() if item[0][1] == t)
        corners = tuple(row[name] for name in ("x0", "y0", "x1", "y1"))
        box = Box(frame_index=0, xyxy=corners, score=row["score"], expression_id=expression_id)
        alone = EncodedVideo(model, [images[t]])
        (prompt,) = box_prompts(model, alone, [box], BoxPrompts(stability=0))
        assert (prompt.rle["counts"], prompt.area) == (row["counts"], row["area"])


def test_scores_are_those_of_the_masks_against_the_target(store: Warehouse) -> None:
    ingested = store.current("ingest")[VIDEO]
    size = (read_video(store, ingested)["height"], read_video(store, ingested)["width"])
    objects, rows = read_objects(store, ingested), predictions(store)
    table = store.read("frame_predictions", store.current("baseline").values())
    masks = dict(zip(rows, rles_from_table(table), strict=True))
    found = scores(store)
    expressions = read_expressions(store, ingested)
    assert list(found) == [expression.expression_id for expression in expressions]
    for expression in expressions:
        target = merge(
            [objects[name] for name in expression.object_ids],
            range(len(expression.object_ids)),
            size,
            FRAMES,
        )
        mine = [masks.get((expression.expression_id, t), empty_rle(*size)) for t in range(FRAMES)]
        row = found[expression.expression_id]
        assert (row["j"], row["f"], row["jf"]) == pytest.approx(j_and_f(target, mine))
        assert row["tracks_selected"] == 0 and not row["predicted_empty"]
        assert row["oracle_jf"] is None and row["all_tracks_jf"] is None
    assert np.mean([row["jf"] for row in found.values()]) > 0.3


def test_without_a_box_the_prediction_is_empty(store: Warehouse) -> None:
    nothing = surer(0.999)
    run_baseline(store, nothing)
    assert predictions(store, nothing) == {}
    rows = scores(store, nothing)
    expressions = read_expressions(store, store.current("ingest")[VIDEO])
    assert {e.expression_id for e in expressions if not e.object_ids}
    for expression in expressions:
        row = rows[expression.expression_id]
        assert row["predicted_empty"]
        assert (row["jf"] == 1) == (not expression.object_ids)


def test_two_baselines_stand_beside_each_other_in_every_report(store: Warehouse) -> None:
    before = scores(store)
    half = surer(0.5)
    runs = baseline_run(RECIPE), run_baseline(store, half)
    assert runs[0] != runs[1]
    assert scores(store) == before
    comparison = compare_runs(store, *runs, "demo", "valid_u")
    assert comparison.overall.jf_a == pytest.approx(np.mean([r["jf"] for r in before.values()]))
    connection = store.connect()
    for name in ("scores_summary", "scores_by_slice", "scores_by_tag", "worst_expressions"):
        rows = connection.sql(load_query(name)).to_arrow_table().to_pylist()
        assert set(runs) <= {row["run_id"] for row in rows}
        assert all(row["jf"] is not None and row["oracle_jf"] is None for row in rows)
    status = connection.sql(load_query("status")).fetchall()
    assert ("baseline", "demo", "valid_u", "done") in {(*row[:3], "done") for row in status}
    assert verify(store, 0) == []


def test_a_split_without_ground_truth_has_predictions_alone(store: Warehouse) -> None:
    run_baseline(store, RECIPE, "valid")
    (commit,) = store.current("baseline", split="valid").values()
    assert commit.files["frame_predictions"].rows and not commit.files["scores"].rows


def test_what_a_baseline_depends_on(store: Warehouse, tmp_path: Path) -> None:
    other = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": {"other": torch.zeros(1)}}, other)
    assert not baseline_plan(store, "demo", "valid_u", RECIPE).missing()
    assert baseline_run(replace(RECIPE, tau=0.1)) == baseline_run(RECIPE)
    assert baseline_run(replace(RECIPE, sam2=str(other))) != baseline_run(RECIPE)
    assert baseline_run(replace(RECIPE, detector="some/detector")) != baseline_run(RECIPE)
    with pytest.raises(WarehouseError, match=r"no videos of demo/train .* `sola precompute"):
        baseline_plan(store, "demo", "train", RECIPE)


def test_a_video_that_fails_leaves_the_others(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"valid_u": 3}, seed=3, frames=2)
    ingest_split(str(tmp_path / "warehouse"), "demo", str(tmp_path / "data"), "valid_u")
    store = Warehouse(tmp_path / "warehouse")
    next((tmp_path / "data").rglob("valid_u_0002/00001.jpg")).unlink()
    plan = baseline_plan(store, "demo", "valid_u", RECIPE)
    first, second, third = stages.make(plan)
    assert first.status == second.status == "done"
    assert third.status == "failed" and "00001" in third.message
    assert {key.video_id for key in store.failures("baseline")} == {"valid_u_0002"}
    assert [key.video_id for key in plan.missing()] == ["valid_u_0002"]
