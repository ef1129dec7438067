"""Training on a warehouse: what it reads, what it refuses, what it leaves behind."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import DEMO, override
from tasks.evaluate import evaluate_videos, find_run, wanted_scores
from tasks.ingest import ingest_split
from tasks.judge import SelectionJudge
from tasks.label import label_videos, wanted_labels
from tasks.precompute import extract_videos, wanted_tracks
from tasks.tables import read_mask_tracks, read_objects, read_track_features
from tasks.train import run_metrics, run_recipe, train_run
from tasks.training_set import training_set
from warehouse import TABLES, Warehouse, WarehouseError
from warehouse.commits import STAGES
from warehouse.demo_data import write_dataset

RECIPE = replace(
    DEMO,
    training=replace(DEMO.training, epochs=2),
    extraction=replace(DEMO.extraction, max_tracks=4, ground_truth=True),
)
TRAIN, VALID = [("demo", "train")], [("demo", "valid_u")]


def prepare(root, data, split, dataset="demo"):
    """Ingest, precompute and label what is missing."""
    ingest_split.fn(str(root), dataset, str(data), split)
    store = Warehouse(root)
    ids = [key.video_id for key in store.current("ingest", dataset=dataset, split=split)]
    wanted = wanted_tracks(store, dataset, split, ids, RECIPE)
    missing = store.missing("precompute", wanted)
    extract_videos.fn(str(root), {key: wanted[key] for key in missing}, RECIPE)
    wanted = wanted_labels(Warehouse(root), dataset, split, RECIPE)
    missing = Warehouse(root).missing("label", wanted)
    label_videos.fn(str(root), {key: wanted[key] for key in missing}, RECIPE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A labelled warehouse without a run; the data set's second half is not in it yet."""
    data = tmp_path_factory.mktemp("data")
    write_dataset(data / "more", {"train": 4, "valid_u": 2}, seed=1, frames=8)
    write_dataset(data / "some", {"train": 2, "valid_u": 2}, seed=1, frames=8)
    root = tmp_path_factory.mktemp("w") / "w"
    for split in ("train", "valid_u"):
        prepare(root, data / "some", split)
    return root, data


@pytest.fixture
def warehouse(prepared, tmp_path):
    return shutil.copytree(prepared[0], tmp_path / "w")


def test_a_training_set_holds_the_warehouse_s_tokens_texts_and_labels(warehouse):
    store = Warehouse(warehouse)
    keys = list(store.current("label", split="train"))
    data = training_set(store, keys, RECIPE, warehouse / "cache", inference=False)
    files = {path: path.stat().st_mtime_ns for path in (warehouse / "cache").rglob("*")}
    again = training_set(Warehouse(warehouse), keys, RECIPE, warehouse / "cache", inference=False)
    assert files == {path: path.stat().st_mtime_ns for path in (warehouse / "cache").rglob("*")}
    for key, video, same in zip(keys, data.videos, again.videos, strict=True):
        precomputed = store.current("precompute")[key]
        expected_NTD = read_track_features(store, precomputed, token_features=RECIPE.token_features)
        np.testing.assert_array_equal(video.tokens_NTD, expected_NTD.astype(np.float16))
        labels = store.read("pseudo_labels", [store.current("label")[key]])
        assert video.labels_EN.flatten().tolist() == labels["label"].to_pylist()
        assert same.labels_EN.equal(video.labels_EN) and same.tokens_NTD.equal(video.tokens_NTD)
        video.tokens_NTD.zero_()  # of this mapping alone
    assert not data.videos[0].tokens_NTD.any() and again.videos[0].tokens_NTD.any()


def test_tracks_of_ground_truth_and_background_are_left_out_where_they_must_be(warehouse):
    store, cache = Warehouse(warehouse), warehouse / "cache"
    keys = list(store.current("label", split="train"))
    every = training_set(store, keys, RECIPE, cache, inference=False)
    given = training_set(store, keys, RECIPE, cache, inference=True)
    foreground = replace(RECIPE, background_in_training=False)
    positive = training_set(store, keys, foreground, cache, inference=False)
    for v, key in enumerate(keys):
        prompts = store.read("prompts", [store.current("precompute")[key]]).to_pylist()
        source = {p["track_id"]: p["source"] for p in prompts if p["fate"] == "tracked"}
        assert set(source.values()) == {"grid", "mask"}
        assert every.tracks[v] == sorted(source)
        assert given.tracks[v] == [n for n in sorted(source) if source[n] == "grid"]
        assert positive.videos[v].labels_EN.any(dim=0).all()
        assert positive.tracks[v] == np.flatnonzero(every.videos[v].labels_EN.any(dim=0)).tolist()


def test_validation_jf_is_what_evaluation_finds(warehouse):
    run_id = train_run.fn(str(warehouse), TRAIN, VALID, RECIPE)
    store = Warehouse(warehouse)
    run = find_run(store, run_id)
    evaluate_videos.fn(str(warehouse), wanted_scores(store, run, "demo", "valid_u"), run)
    scores = Warehouse(warehouse).connect().sql("SELECT avg(jf) FROM scores").fetchall()
    assert run_metrics(str(warehouse), run_id)["validation_jf"] == pytest.approx(
        scores[0][0],
        abs=0.02,  # geometry is float16 in training, float32 in evaluation
    )
    assert run["weights"] == f"selectors/{run_id}/last"
    assert (warehouse / "selectors" / run_id / "best" / "selector.safetensors").is_file()
    assert (run["parent"], run["seed"], run["epochs"]) == (None, 0, 2)
    # Of the split that a calibration was fitted on the mean probability is the positive rate.
    rates = """
        SELECT avg(probability), avg(label::INTEGER)
        FROM predictions
        JOIN pseudo_labels USING (dataset, split, video_id, expression_id, track_id)
    """
    ((probability, positive),) = Warehouse(warehouse).connect().sql(rates).fetchall()
    assert probability == pytest.approx(positive, abs=0.01) and 0 < positive < 1
    assert run_recipe(str(warehouse), run_id) == RECIPE


def test_the_judge_scores_a_selection_by_the_expression_s_objects(warehouse):
    store = Warehouse(warehouse)
    keys = list(store.current("label", split="valid_u"))
    data = training_set(store, keys, RECIPE, warehouse / "cache", inference=True)
    judge = SelectionJudge(store, data)
    tracks = read_mask_tracks(store, store.current("precompute")[keys[1]])
    objects = read_objects(store, store.current("ingest")[keys[1]])
    rows = store.read("expressions", [store.current("ingest")[keys[1]]]).to_pylist()
    e, row = next((e, row) for e, row in enumerate(rows) if len(row["object_ids"]) == 1)
    ids = data.tracks[1]
    miou_N1 = track_overlaps([tracks[n] for n in ids], [objects[row["object_ids"][0]]]).miou_NO
    best, worst = int(miou_N1.argmax()), int(miou_N1.argmin())
    assert judge(1, e, (best,)) > judge(1, e, (worst,)) > -1
    assert judge(1, e, (best,)) == judge(1, e, (best,)) >= miou_N1.max() / 2
    nothing = next(e for e, row in enumerate(rows) if not row["object_ids"])
    assert judge(1, nothing, ()) == 1.0 and judge(1, nothing, (best,)) < 1.0


def test_a_run_continues_from_another_with_what_is_new(warehouse, prepared):
    first = train_run.fn(str(warehouse), TRAIN, VALID, RECIPE)
    with pytest.raises(WarehouseError, match=f"nothing is new in demo/train since run {first}"):
        train_run.fn(str(warehouse), TRAIN, VALID, RECIPE, parent=first)
    prepare(warehouse, prepared[1] / "more", "train")
    second = train_run.fn(str(warehouse), TRAIN, VALID, RECIPE, parent=first)
    whole = train_run.fn(str(warehouse), TRAIN, VALID, RECIPE, parent=first, everything=True)
    store = Warehouse(warehouse)
    runs = [find_run(store, run_id) for run_id in (first, second, whole)]
    assert [run["parent"] for run in runs] == [None, first, first]
    assert [run["train_videos"] for run in runs] == [2, 2, 4]
    assert [len(run["videos"]) for run in runs] == [2, 4, 4]
    with pytest.raises(WarehouseError, match="nothing is new"):
        train_run.fn(str(warehouse), TRAIN, VALID, RECIPE, parent=second)
    with pytest.raises(ValueError, match="one configuration"):
        other = override(RECIPE, ["selector.layers=1"])
        train_run.fn(str(warehouse), TRAIN, VALID, other, parent=first, everything=True)


def test_data_sets_train_together(warehouse, prepared):
    prepare(warehouse, prepared[1] / "more", "train", dataset="mevis")
    both = [*TRAIN, ("mevis", "train")]
    run = find_run(Warehouse(warehouse), train_run.fn(str(warehouse), both, VALID, RECIPE))
    assert (run["dataset"], run["split"]) == ("demo+mevis", "train")
    assert run["train_videos"] == 2 + 4
    first = train_run.fn(str(warehouse), both, VALID, RECIPE, limit=1)
    assert find_run(Warehouse(warehouse), first)["train_videos"] == 2


def test_labels_of_other_tracks_are_refused(warehouse):
    store = Warehouse(warehouse)
    fewer = replace(RECIPE, extraction=replace(RECIPE.extraction, max_tracks=2))
    ids = [key.video_id for key in store.current("ingest", split="train")]
    wanted = wanted_tracks(store, "demo", "train", ids[:1], fewer)
    extract_videos.fn(str(warehouse), wanted, fewer)
    message = r"labels of 1 of 2 videos of demo/train \(train_0000\).*sola label --dataset demo"
    with pytest.raises(WarehouseError, match=message):
        train_run.fn(str(warehouse), TRAIN, VALID, fewer)
    strict = replace(RECIPE, label_threshold=0.9)
    with pytest.raises(WarehouseError, match="labels of 2 of 2 videos"):
        train_run.fn(str(warehouse), TRAIN, VALID, strict)


def test_tokens_that_are_not_finite_are_refused_and_leave_nothing_behind(warehouse):
    store = Warehouse(warehouse)
    (key, commit), *_ = store.current("precompute", split="train").items()
    tables = {name: store.read(name, [commit]) for name in commit.files}
    rows = tables["tokens"].to_pylist()
    rows[0]["token"][0] = float("nan")
    tables["tokens"] = type(tables["tokens"]).from_pylist(rows, schema=TABLES["tokens"])
    store.publish("precompute", key, "spoilt", tables)
    with pytest.raises(ValueError, match=r"demo/train/train_0000 contain NaN.*sola precompute"):
        train_run.fn(str(warehouse), TRAIN, VALID, RECIPE)
    assert not any((warehouse / "cache" / "training").iterdir())


def test_a_split_without_positive_labels_is_refused(warehouse):
    strict = replace(RECIPE, label_threshold=1.0)
    wanted = wanted_labels(Warehouse(warehouse), "demo", "train", strict)
    label_videos.fn(str(warehouse), wanted, strict)
    with pytest.raises(ValueError, match=r"Nothing to learn from: 2 videos.*threshold \(1.0"):
        train_run.fn(str(warehouse), TRAIN, [], strict)


def test_a_text_that_is_too_long_is_left_out_and_named(warehouse, caplog):
    """Of training and of validation; the others keep their labels."""
    store = Warehouse(warehouse)
    for split in ("train", "valid_u"):
        key = min(store.current("ingest", split=split), key=str)
        commit = store.current("ingest")[key]
        tables = {name: store.read(name, [commit]) for name in STAGES["ingest"]}
        rows = tables["expressions"].to_pylist()
        rows[1]["text"] = "the red circle " * 200
        tables["expressions"] = pa.Table.from_pylist(rows, schema=TABLES["expressions"])
        store.publish("ingest", key, f"{commit.fingerprint}-long", tables)
        wanted = wanted_labels(Warehouse(warehouse), "demo", split, RECIPE)
        label_videos.fn(str(warehouse), wanted, RECIPE)
        data = training_set(store, [key], RECIPE, warehouse / "cache", inference=split != "train")
        assert data.expressions == [[0, *range(2, len(rows))]]
        (video,) = data.videos
        labels = store.read("pseudo_labels", [store.current("label")[key]])["label"].to_numpy()
        labels_EN = labels.reshape(len(rows), -1)[np.ix_(data.expressions[0], data.tracks[0])]
        np.testing.assert_array_equal(video.labels_EN, labels_EN)
        assert len(video.texts) == len(rows) - 1
        assert f"{key.video_id}/{rows[1]['expression_id']}: left out" in caplog.text
    assert caplog.text.count("tokens, this encoder takes at most") == 2
    run = train_run.fn(str(warehouse), TRAIN, VALID, RECIPE)
    assert 0 <= run_metrics(str(warehouse), run)["validation_jf"] <= 1
