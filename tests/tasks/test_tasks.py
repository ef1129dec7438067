"""The tasks on a tiny data set with the embedded models, called without Prefect."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from sola_model.metrics.jf import j_and_f, track_overlaps
from sola_model.recipes import DEMO, DEMO_RELEASE, override
from sola_model.selector.checkpoints import load_selector
from sola_model.selector.selection import merge
from tasks.runs import find_run
from tasks.stages.ingest import ingest_split
from tasks.tables import read_mask_tracks, read_objects, read_tokens
from tasks.training.import_checkpoint import import_run
from tasks.training.train import Training, train_run
from tasks.training.training_set import training_set
from tests.tasks import stages
from warehouse import Commit, Key, Warehouse, WarehouseError
from warehouse.demo_data import write_dataset

TRAINING = replace(DEMO_RELEASE.training, epochs=2)
RECIPE = replace(
    DEMO,
    training=replace(DEMO.training, epochs=2),
    extraction=replace(DEMO.extraction, max_tracks=6),
)
SPLITS = [("demo", "train")], [("demo", "valid_u")]


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"train": 3, "valid_u": 1, "valid": 1}, seed=1, frames=8)
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory, data):
    """A warehouse that went through all stages."""
    root = str(tmp_path_factory.mktemp("warehouse") / "w")
    for split in ("train", "valid_u", "valid"):
        precompute(root, data, split)
        stages.label(Warehouse(root), "demo", split, RECIPE)
    store = Warehouse(root)
    run = stages.train(store, *SPLITS, RECIPE)
    for split in ("valid_u", "valid"):
        stages.evaluate(store, run, "demo", split)
    return Warehouse(root)


def precompute(root: str, data, split: str):
    outcomes = ingest_split(root, "demo", str(data), split)
    return outcomes, stages.precompute(Warehouse(root), "demo", split, RECIPE)


def tracks_of(store: Warehouse, video: Key) -> Commit:
    """The tracks of a video in its default set."""
    name = stages.default_set(store, video.dataset, video.split).name
    return store.current("precompute")[video.of(track_set=name)]


def test_every_table_fills(finished):
    connection = finished.connect()
    counts = {
        table: connection.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0]
        for table in ("videos", "expressions", "ground_truth", "prompts", "tracks", "masks",
                      "tokens", "pseudo_labels", "runs", "training_metrics", "predictions",
                      "scores", "threshold_scores")
    }  # fmt: skip
    assert min(counts.values()) > 0, counts
    assert counts["videos"] == 5
    assert counts["masks"] == counts["tokens"] == 8 * counts["tracks"]


def test_tokens_come_back_as_they_were_made(finished):
    for commit in finished.current("precompute").values():
        tokens_NTD = read_tokens(finished, commit)
        masks = read_mask_tracks(finished, commit)
        assert tokens_NTD.shape == (len(masks), 8, 64)
        assert np.isfinite(tokens_NTD).all()
        table = finished.read("tokens", [commit]).to_pylist()
        row = table[-1]
        stored = np.array(row["token"], np.float32)
        np.testing.assert_array_equal(tokens_NTD[row["track_id"], row["frame_index"]], stored)


def test_labels_are_the_overlap_with_the_best_object_of_the_expression(finished):
    key = Key(dataset="demo", split="train", video_id="train_0000")
    ingested = finished.current("ingest")[key]
    objects = read_objects(finished, ingested)
    tracks = read_mask_tracks(finished, tracks_of(finished, key))
    miou_NO = track_overlaps(tracks, list(objects.values())).miou_NO
    expressions = finished.read("expressions", [ingested]).to_pylist()
    labelled = finished.current("label")[key.of(track_set=tracks_of(finished, key).key.track_set)]
    labels = finished.read("pseudo_labels", [labelled]).to_pylist()
    assert len(labels) == len(expressions) * len(tracks)
    for row in labels:
        (expression,) = [e for e in expressions if e["expression_id"] == row["expression_id"]]
        columns = [list(objects).index(o) for o in expression["object_ids"]]
        best = max((miou_NO[row["track_id"], o] for o in columns), default=0.0)
        assert row["miou"] == pytest.approx(best, abs=1e-6)
        assert row["label"] == (best > 0.7)


def test_scores_are_those_of_the_selected_tracks(finished):
    rows = finished.connect().sql("SELECT * FROM scores").to_arrow_table().to_pylist()
    assert {r["split"] for r in rows} == {"valid_u"}
    key = Key(dataset="demo", split="valid_u", video_id=rows[0]["video_id"])
    ingested = finished.current("ingest")[key]
    objects = read_objects(finished, ingested)
    tracks = read_mask_tracks(finished, tracks_of(finished, key))
    predictions = finished.connect().sql("SELECT * FROM predictions").to_arrow_table().to_pylist()
    expressions = finished.read("expressions", [ingested]).to_pylist()
    for row, expression in zip(rows, expressions, strict=True):
        chosen = [
            p["track_id"]
            for p in predictions
            if p["selected"]
            and (p["video_id"], p["expression_id"]) == (key.video_id, row["expression_id"])
        ]
        size, frames = (112, 144), 8
        target = merge([objects[o] for o in expression["object_ids"]],
                       range(len(expression["object_ids"])), size, frames)  # fmt: skip
        score = j_and_f(target, merge(tracks, chosen, size, frames))
        assert (row["j"], row["f"]) == pytest.approx((score.j, score.f))
        assert row["jf"] == pytest.approx((score.j + score.f) / 2)
        assert row["oracle_j"] >= row["j"] - 1e-9 or len(chosen) > 1
        assert row["tracks_selected"] == len(chosen)


def test_an_unlabelled_split_is_predicted_but_neither_labelled_nor_scored(finished):
    count = "SELECT count(*) FROM {} WHERE split = 'valid'"
    connection = finished.connect()
    assert connection.sql(count.format("predictions")).fetchall()[0][0] > 0
    assert connection.sql(count.format("pseudo_labels")).fetchall()[0][0] == 0
    assert connection.sql(count.format("scores")).fetchall()[0][0] == 0


def test_a_second_run_finds_nothing_to_do(finished, data):
    store = Warehouse(finished.root)
    before = sorted(finished.root.rglob("*"))
    assert stages.tracks_of(store, "demo", "train", RECIPE).missing() == []
    assert stages.labels_of(store, "demo", "train", RECIPE).missing() == []
    assert stages.train(store, *SPLITS, RECIPE) == find_run(store, None)
    ingest_split(str(finished.root), "demo", str(data), "train")
    assert sorted(finished.root.rglob("*")) == before


def test_only_what_depends_on_a_change_is_done_again(finished, data, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(finished.root, root)
    store = Warehouse(root)
    fewer = stages.with_tracks(RECIPE, max_tracks=5)
    assert len(stages.tracks_of(store, "demo", "train", fewer).missing()) == 3
    strict = replace(RECIPE, label_threshold=0.9)
    assert stages.tracks_of(store, "demo", "train", strict).missing() == []
    assert len(stages.labels_of(store, "demo", "train", strict).missing()) == 3
    changed = tmp_path / "data"
    shutil.copytree(data, changed)
    frame = changed / "train/JPEGImages/train_0001/00002.jpg"
    shutil.copy(changed / "train/JPEGImages/train_0001/00003.jpg", frame)
    ingest_split(str(root), "demo", str(changed), "train")
    store = Warehouse(root)
    missing = stages.tracks_of(store, "demo", "train", RECIPE).missing()
    assert [key.video_id for key in missing] == ["train_0001"]


def test_a_bad_video_is_reported_and_the_others_go_on(data, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    folder = broken / "train" / "JPEGImages"
    (folder / "train_0000" / "00004.jpg").write_bytes(b"not an image")
    meta = json.loads((broken / "train/meta_expressions.json").read_text())
    meta["videos"]["train_0001"]["expressions"]["0"]["anno_id"] = [99]
    meta["videos"]["../escape"] = meta["videos"]["train_0002"]
    (broken / "train/meta_expressions.json").write_text(json.dumps(meta))
    root = str(tmp_path / "w")
    ingested, extracted = precompute(root, broken, "train")
    status = {o.video_id: o for o in [*ingested, *extracted] if o.status == "failed"}
    assert set(status) == {"train_0000", "train_0001", "../escape"}
    assert "00004.jpg" in status["train_0000"].message
    assert "99" in status["train_0001"].message
    assert next(o for o in extracted if o.status == "done").video_id == "train_0002"
    failures = Warehouse(root).connect().sql("SELECT count(*) FROM commits WHERE status='failed'")
    assert failures.fetchall()[0][0] == 3
    shutil.copy(folder / "train_0000/00005.jpg", folder / "train_0000/00004.jpg")
    ingested, extracted = precompute(root, broken, "train")
    assert ("train_0000", "done") in {(o.video_id, o.status) for o in extracted}


def test_training_continues_where_it_was_killed(finished, data, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(finished.root, root)
    whole = replace(RECIPE, training=replace(RECIPE.training, epochs=3))

    class Killed(BaseException):
        pass

    def kill(progress):
        if progress.epoch == 2 and progress.metrics:
            raise Killed

    asked = Training(training=SPLITS[0], validation=SPLITS[1], recipe=whole)
    epochs = []
    with pytest.raises(Killed):
        train_run.fn(str(root), asked, on_progress=kill)
    resumed = train_run.fn(str(root), asked, on_progress=lambda p: epochs.append(p.epoch))
    assert set(epochs) == {3}
    shutil.copytree(finished.root, tmp_path / "other")
    straight = train_run.fn(str(tmp_path / "other"), asked)
    assert straight == resumed
    weights = [
        (tmp_path / w / "selectors" / resumed / "last" / "selector.safetensors").read_bytes()
        for w in ("w", "other")
    ]
    assert weights[0] == weights[1]


def test_an_imported_checkpoint_scores_as_the_run_it_came_from(finished, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(finished.root, root)
    store, recipe = Warehouse(root), replace(DEMO_RELEASE, training=TRAINING)
    trained = stages.train(store, *SPLITS, recipe)
    stages.evaluate(store, trained, "demo", "valid_u")
    weights = load_selector(root / trained.weights).state_dict()
    torch.save({"model": {f"module.{n}": v for n, v in weights.items()}}, tmp_path / "c.pth")
    run_id = import_run(str(root), str(tmp_path / "c.pth"), recipe, "released")
    assert import_run(str(root), str(tmp_path / "c.pth"), recipe, "released") == run_id
    run = find_run(store, run_id)
    stages.evaluate(store, run, "demo", "valid_u")
    commits = store.current("evaluate", split="valid_u").items()
    ours, theirs = (
        store.read("predictions", [c for key, c in commits if key.run_id == wanted])["score"]
        for wanted in (run_id, trained.run_id)
    )
    assert len(ours) and ours == theirs
    with pytest.raises(ValueError, match="cannot be named"):
        import_run(str(root), str(tmp_path / "c.pth"), recipe, "a/b")
    unchosen = override(recipe, ["training.kept_out=0.1", "tau=none"])
    with pytest.raises(ValueError, match=r"an imported run is not trained.*--set tau=0\.5"):
        import_run(str(root), str(tmp_path / "c.pth"), unchosen)


def test_training_without_background_has_only_tracks_that_are_meant(finished, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(finished.root, root)
    store = Warehouse(root)
    labels = store.read("pseudo_labels", store.current("label", split="train").values())
    strict = replace(RECIPE, label_threshold=float(np.quantile(labels["miou"], 0.9)))
    stages.label(store, "demo", "train", strict)
    keys = list(store.current("label", split="train"))
    whole, foreground = (
        training_set(store, keys, recipe, tmp_path / "cache", inference=False).videos
        for recipe in (strict, replace(strict, background_in_training=False))
    )
    assert 0 < sum(len(v.tokens_NTD) for v in foreground) < sum(len(v.tokens_NTD) for v in whole)
    for all_of_it, kept in zip(whole, foreground, strict=True):
        positive_N = all_of_it.labels_EN.any(dim=0).bool()
        assert torch.equal(kept.labels_EN, all_of_it.labels_EN[:, positive_N])
        assert torch.equal(kept.tokens_NTD, all_of_it.tokens_NTD[positive_N])


def test_training_without_labels_says_what_to_run(data, tmp_path):
    store = Warehouse.create(tmp_path / "w")
    with pytest.raises(WarehouseError, match=r"sola precompute --dataset demo .* --split train"):
        stages.train(store, *SPLITS, RECIPE)
    precompute(store.url, data, "train")
    with pytest.raises(WarehouseError, match="sola label --dataset demo --split train"):
        stages.train(store, *SPLITS, RECIPE)
    with pytest.raises(WarehouseError, match="sola train"):
        find_run(store, None)
