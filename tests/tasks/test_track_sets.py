"""Results know their tracks: other weights, settings and precision make another set beside them.

One video of the embedded data, tracked with the embedded SAM2 and with one that differs from it in
a weight, and an untrained run that says it was trained on the first one's tracks.
"""

import json
import re
import shlex
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sola_model.extraction.sam2_models import DEMO_CHECKPOINT
from sola_model.recipes import DEMO, chosen_recipe
from tasks.own_video.clips import segment_tracks
from tasks.report_page.page import write_report
from tasks.results.compare import compare_runs
from tasks.results.export import export
from tasks.results.label_export import export_labels
from tasks.results.submission import write_submission
from tasks.runs import Run, find_run
from tasks.search.track_search import search
from tasks.search.vectors import searched, vector_plan
from tasks.stage import make_each
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import worker_sam2
from tasks.track_sets import TrackSet, track_set_of, tracks_for
from tests.tasks import stages
from tests.untrained import publish_untrained
from warehouse import Warehouse, WarehouseError
from warehouse.demo_data import write_dataset

RECIPE = replace(DEMO, tau=0.01, extraction=replace(DEMO.extraction, max_tracks=3))
SPLIT = ("demo", "valid_u")


def quiet(stage: str, total: int) -> nullcontext:
    return nullcontext(lambda videos, failed: None)


def another_sam2(folder: Path, factor: float = 1.05) -> str:
    """The embedded SAM2 with one weight a little larger, as a file of its own."""
    state = torch.load(DEMO_CHECKPOINT, weights_only=True)["model"]
    name = next(name for name, weight in state.items() if weight.is_floating_point())
    state[name] = factor * state[name]
    torch.save({"model": state}, folder / "another.pt")
    shutil.copy(DEMO_CHECKPOINT.with_suffix(".yaml"), folder / "another.yaml")
    return str(folder / "another.pt")


@pytest.fixture(scope="module")
def first() -> TrackSet:
    return track_set_of(RECIPE)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, first: TrackSet) -> Warehouse:
    """The video with tracks of the embedded SAM2, and the run's predictions on them."""
    folder = tmp_path_factory.mktemp("sets")
    write_dataset(folder / "data", {"valid_u": 1}, seed=3, frames=4)
    store = Warehouse.create(folder / "w")
    ingest_split(store.url, "demo", str(folder / "data"), "valid_u")
    stages.precompute(store, *SPLIT, RECIPE)
    stages.label(store, *SPLIT, RECIPE)
    publish_untrained(store, RECIPE, tracks=json.dumps([first.as_known()]))
    stages.evaluate(store, find_run(store, None), *SPLIT)
    return store


@pytest.fixture
def store(evaluated: Warehouse, tmp_path: Path) -> Warehouse:
    """A copy of it."""
    return Warehouse(shutil.copytree(evaluated.root, tmp_path / "w"))


@pytest.fixture
def second(store: Warehouse, tmp_path: Path) -> TrackSet:
    """The tracks of another SAM2, which are the default from now on."""
    recipe = replace(RECIPE, sam2=another_sam2(tmp_path))
    assert [outcome.status for outcome in stages.precompute(store, *SPLIT, recipe)] == ["done"]
    return stages.default_set(store, *SPLIT)


def written(store: Warehouse, folder: Path, tracks: str | None = None) -> dict[str, bytes]:
    """What each command writes about the run, by the command's name."""
    folder.mkdir()
    made = {name: folder / name for name in ("submit.zip", "coco.json", "png.zip", "labels")}
    asked = (store.url, None, *SPLIT)
    write_submission(store.url, None, *SPLIT, made["submit.zip"], 1, quiet, tracks)
    export(*asked, "tracks", "coco", made["coco.json"], 1, quiet, tracks)
    export(*asked, "predictions", "png", made["png.zip"], 1, quiet, tracks)
    export_labels(*asked, 0.0, made["labels"], "auto", 1, quiet, tracks)
    files = [*made.values(), made["labels"] / "auto" / "mask_dict.json"]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def test_predictions_stay_those_of_their_own_tracks(
    store: Warehouse, first: TrackSet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = written(store, tmp_path / "before")
    second = request.getfixturevalue("second")
    assert second.name != first.name and second.weights != first.weights
    assert written(store, tmp_path / "after") == before
    assert compare_runs(store, "run", "run", *SPLIT).tracks_a == first.name
    plan = vector_plan(store, searched(store, find_run(store, None)), *SPLIT)
    stages.make(plan)
    assert {hit.track_set for hit in search(plan, "a square", 9, 9).hits} == {first.name}
    write_report(store.url, None, *SPLIT[:1], SPLIT[1:], tmp_path / "r.html", 1.0, 1, quiet)
    page = (tmp_path / "r.html").read_text()
    assert first.name in page and second.name not in page


def test_tracks_without_predictions_are_refused_with_what_makes_them(
    store: Warehouse, second: TrackSet, tmp_path: Path
) -> None:
    message = rf"`sola evaluate --dataset demo --split valid_u --run run --tracks {second.name}`"
    with pytest.raises(WarehouseError, match=message):
        written(store, tmp_path / "out", second.name)
    with pytest.raises(WarehouseError, match="no scores of the same expressions"):
        compare_runs(store, "run", "run", *SPLIT, tracks_b=second.name)
    stages.evaluate(store, find_run(store, None), *SPLIT, second.name)
    assert written(store, tmp_path / "now", second.name)
    assert compare_runs(store, "run", "run", *SPLIT, tracks_b=second.name).tracks_b == second.name


def test_replaced_tracks_are_refused_with_what_makes_them_current(
    store: Warehouse, first: TrackSet, tmp_path: Path
) -> None:
    """The frames are others since, and no command has looked at the tracks."""
    (key,) = store.current("ingest")
    commit = store.current("ingest")[key]
    tables = {name: store.read(name, [commit]) for name in commit.files}
    store.publish("ingest", key, "frames", tables, contents={"frames": "others"})
    message = (
        rf"`sola precompute --root DIR --dataset demo --split valid_u` with the settings of track "
        rf"set {first.name}, then `sola evaluate --dataset demo --split valid_u --run run --tracks"
    )
    with pytest.raises(WarehouseError, match=message):
        written(store, tmp_path / "out")
    with pytest.raises(WarehouseError, match=message):
        compare_runs(store, "run", "run", *SPLIT)
    with pytest.raises(WarehouseError, match="`sola precompute --root DIR"):
        vector_plan(store, searched(store, find_run(store, None)), *SPLIT)
    with pytest.raises(WarehouseError, match=r"frames that were replaced .*`sola precompute"):
        stages.train(store, [SPLIT], [], RECIPE)
    with pytest.raises(WarehouseError, match="replaced since"):
        write_report(store.url, None, *SPLIT[:1], SPLIT[1:], tmp_path / "r.html", 1.0, 1, quiet)


def test_tracks_of_boxes_that_came_later_are_not_left_out(store: Warehouse, tmp_path: Path) -> None:
    ((key, commit),) = store.current("precompute").items()
    tables = {name: store.read(name, [commit]).slice(0, 0) for name in commit.files}
    store.publish("box_tracks", key, "f", tables)
    with pytest.raises(WarehouseError, match=r"run `sola evaluate --dataset demo .* --run run"):
        written(store, tmp_path / "out")
    stages.evaluate(store, find_run(store, None), *SPLIT)
    assert written(store, tmp_path / "now")


def test_what_failed_again_is_still_stale_in_the_report(store: Warehouse, tmp_path: Path) -> None:
    """A failure after it hides a commit from the view `commits`, not its rows from the tables."""
    ((key, commit),) = store.current("precompute").items()
    tables = {name: store.read(name, [commit]) for name in commit.files}
    tables["masks"] = tables["masks"].slice(0, 4)
    store.publish("precompute", key, "replaced", tables)
    store.publish_failure("evaluate", key.of(run_id="run"), "f", "no memory")
    with pytest.raises(WarehouseError, match="replaced since"):
        write_report(store.url, None, *SPLIT[:1], SPLIT[1:], tmp_path / "r.html", 1.0, 1, quiet)


def test_sets_stand_side_by_side_in_sql(store: Warehouse, second: TrackSet) -> None:
    stages.evaluate(store, find_run(store, None), *SPLIT, second.name)
    sql = "SELECT track_set, avg(oracle_jf), avg(jf) FROM scores GROUP BY ALL"
    with store.connect() as connection:
        assert len(connection.sql(sql).fetchall()) == 2
        for table in ("masks", "predictions", "scores"):
            each = f"SELECT DISTINCT track_set, stale FROM {table}"
            assert {stale for _, stale in connection.sql(each).fetchall()} == {False}, table


def run_on(tokens_of: TrackSet, store: Warehouse) -> Run:
    run_id = f"on-{tokens_of.name}"
    publish_untrained(store, RECIPE, run_id, tracks=json.dumps([tokens_of.as_known()]))
    return find_run(store, run_id)


def test_a_run_is_used_on_tracks_that_are_made_as_its_own(
    store: Warehouse, first: TrackSet, second: TrackSet
) -> None:
    assert find_run(store, "run").tracks_of(store, *SPLIT).name == first.name
    assert run_on(second, store).tracks_of(store, *SPLIT) == second
    third = track_set_of(stages.with_tracks(RECIPE, max_tracks=2))
    third_run = run_on(third, store)
    with pytest.raises(WarehouseError, match=r"max_tracks 2, not 3.*sola precompute.*--tracks"):
        third_run.tracks_of(store, *SPLIT)
    assert third_run.tracks_of(store, *SPLIT, first.name).name == first.name
    with pytest.raises(WarehouseError, match=f"no track set 'x'. It has: {second.name}"):
        third_run.tracks_of(store, *SPLIT, "x")
    with pytest.raises(WarehouseError, match="no track set ''"):  # not the default
        third_run.tracks_of(store, *SPLIT, "")


def test_segment_takes_the_sam2_of_the_run(
    store: Warehouse, first: TrackSet, second: TrackSet, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, sam2=second.checkpoint)
    known = json.dumps([second.as_known()])
    publish_untrained(store, recipe, "another", tracks=known)
    run = find_run(store, "another")
    assert segment_tracks(run, None, None, "float32").weights == second.weights
    another_sam2(tmp_path, factor=1.1)  # the file is another now
    with pytest.raises(WarehouseError, match=r"weights \w{12}, not \w{12}.*--sam2 .*another\.pt"):
        segment_tracks(run, None, None, "float32")
    assert segment_tracks(run, second.checkpoint, None, "float32").weights != second.weights
    assert segment_tracks(run, "demo", None, "float32").weights == first.weights
    Path(second.checkpoint).unlink()
    with pytest.raises(ValueError, match=r"(?s)no SAM2 checkpoint file .*another\.pt.*--sam2"):
        segment_tracks(run, None, None, "float32")


def test_a_mixture_is_trained_on_only_if_asked_for(
    store: Warehouse, first: TrackSet, second: TrackSet, tmp_path: Path
) -> None:
    write_dataset(tmp_path / "data", {"train": 1}, seed=4, frames=4)
    ingest_split(store.url, "demo", str(tmp_path / "data"), "train")
    stages.precompute(store, "demo", "train", RECIPE)
    stages.label(store, "demo", "train", RECIPE)
    stages.label(store, *SPLIT, RECIPE)
    message = r"in different ways: weights \w{12}, not \w{12}.*--tracks .*--mixed"
    with pytest.raises(WarehouseError, match=message):
        stages.train(store, [("demo", "train")], [SPLIT], RECIPE)
    alike = stages.train(store, [("demo", "train")], [SPLIT], RECIPE, tracks=[first.name])
    assert alike.tokens == first.tokens
    mixed = stages.train(store, [("demo", "train"), SPLIT], [], RECIPE, mixed=True)
    assert mixed.tokens is None and len(mixed.track_sets) == 2


def test_the_advice_to_label_leads_to_labels_that_train(store: Warehouse) -> None:
    recipe = replace(RECIPE, label_threshold=0.6)
    with pytest.raises(WarehouseError, match="other tracks, annotations or settings") as refused:
        stages.train(store, [SPLIT], [], recipe)
    (command,) = re.findall(r"`(sola label .*?)`", str(refused.value))
    words = shlex.split(command)
    changes = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
    tracks = words[words.index("--tracks") + 1]
    stages.label(store, *SPLIT, chosen_recipe("release", changes, "label"), tracks)
    assert stages.train(store, [SPLIT], [], recipe).recipe.label_threshold == 0.6


def test_another_precision_is_another_set_and_its_workers_refuse(store: Warehouse) -> None:
    on_gpu = track_set_of(RECIPE, precision="bfloat16")
    assert on_gpu.name != track_set_of(RECIPE, precision="float32").name
    plan = stages.tracks_of(store, *SPLIT, RECIPE, precision="bfloat16")
    (key,) = plan.missing()
    assert key.track_set == on_gpu.name
    (outcome,) = make_each(plan.stage, store, plan.wanted, plan.subject)
    assert outcome.status == "failed"
    assert re.search(r"is of bfloat16.*in float32.*SOLA_DEVICE=cpu", outcome.message)
    assert tracks_for(store, *SPLIT, on_gpu.name).precision == "bfloat16"


def test_a_worker_with_other_weights_refuses(
    store: Warehouse, second: TrackSet, tmp_path: Path
) -> None:
    recipe = stages.with_tracks(replace(RECIPE, sam2=second.checkpoint), max_tracks=2)
    plan = stages.tracks_of(store, *SPLIT, recipe)
    another_sam2(tmp_path, factor=1.2)
    worker_sam2.cache_clear()
    (outcome,) = stages.make(plan)
    assert outcome.status == "failed"
    assert "copy the same file to all workers" in outcome.message


def test_a_name_is_of_weights_and_settings_not_of_where_the_file_lies(tmp_path: Path) -> None:
    there, elsewhere = tmp_path / "a", tmp_path / "b"
    there.mkdir()
    name = track_set_of(replace(RECIPE, sam2=another_sam2(there))).name
    shutil.copytree(there, elsewhere)
    assert track_set_of(replace(RECIPE, sam2=str(elsewhere / "another.pt"))).name == name
    assert track_set_of(replace(RECIPE, sam2="demo")).name != name
    corrupted = track_set_of(RECIPE, corruption="gaussian_noise-3")
    assert "gaussian_noise-3" in corrupted.name != track_set_of(RECIPE).name
