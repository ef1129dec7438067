"""Training on a warehouse: what it reads, what it refuses, what it leaves behind."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from sola_model.metrics.jf import track_overlaps
from sola_model.recipes import DEMO, DEMO_RELEASE, override
from sola_model.selector.selection import THRESHOLDS
from sola_model.text.cache import CachedTextEncoder
from tasks.runs import Run, find_run
from tasks.stages.ingest import ingest_split
from tasks.tables import read_mask_tracks, read_objects, read_track_features
from tasks.training import train as module
from tasks.training.judge import SelectionJudge
from tasks.training.train import run_metrics, run_recipe
from tasks.training.training_set import training_set
from tests.tasks import stages
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.demo_data import write_dataset

RECIPE = replace(
    DEMO,
    training=replace(DEMO.training, epochs=2),
    extraction=replace(DEMO.extraction, max_tracks=4, ground_truth=True),
)
# The paper's selector on the same tracks, at the learning rate that it has.
RELEASE = replace(
    DEMO_RELEASE,
    training=replace(DEMO_RELEASE.training, epochs=2),
    extraction=RECIPE.extraction,
)
TRAIN, VALID = [("demo", "train")], [("demo", "valid_u")]
KEPT = ["train_0037", "train_0038", "train_0011", "train_0014"]


def prepare(root, data, split, dataset="demo"):
    """Ingest, precompute and label what is missing."""
    ingest_split(str(root), dataset, str(data), split)
    store = Warehouse(root)
    stages.precompute(store, dataset, split, RECIPE)
    stages.label(store, dataset, split, RECIPE)


def train(root, training, validation, recipe, **asked) -> Run:
    return stages.train(Warehouse(root), training, validation, recipe, **asked)


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


@pytest.mark.parametrize("recipe", [RECIPE, RELEASE], ids=["words", "no words"])
def test_texts_in_the_cache_need_no_encoder(warehouse, recipe, monkeypatch):
    store = Warehouse(warehouse)
    keys = list(store.current("label", split="train"))
    training_set(store, keys, recipe, warehouse / "first", inference=False)
    monkeypatch.setattr("sola_model.text.cache.TextEncoder", None)
    training_set(store, keys, recipe, warehouse / "again", inference=False)


def test_texts_are_encoded_on_the_device(warehouse, monkeypatch):
    devices = []

    class Encoder(CachedTextEncoder):
        def __init__(self, name: str, folder: str, device: str) -> None:
            devices.append(device)
            super().__init__(name, folder)

    monkeypatch.setattr("tasks.training.training_set.CachedTextEncoder", Encoder)
    monkeypatch.setenv("SOLA_DEVICE", "cuda:1")
    store = Warehouse(warehouse)
    keys = list(store.current("label", split="train"))
    training_set(store, keys, RECIPE, warehouse / "gpu", inference=False)
    assert devices == ["cuda:1"]


def test_a_damaged_training_set_is_written_again(warehouse):
    store, cache = Warehouse(warehouse), warehouse / "cache"
    keys = list(store.current("label", split="train"))
    expected = (
        training_set(store, keys, RECIPE, cache, inference=False).videos[0].tokens_NTD.clone()
    )
    for name in ("tokens.f16", "index.json"):
        (file,) = cache.glob(f"*/{name}")
        whole = file.read_bytes()
        file.write_bytes(
            whole.replace(b'"frames": 8', b'"frames": 4')
            if name[0] == "i"
            else bytes([whole[0] ^ 1]) + whole[1:]
        )
        assert file.read_bytes() != whole
        again = training_set(store, keys, RECIPE, cache, inference=False)
        assert again.videos[0].tokens_NTD.equal(expected)


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


@pytest.mark.parametrize("recipe", [RECIPE, RELEASE], ids=lambda recipe: recipe.name)
def test_validation_jf_is_what_evaluation_finds(warehouse, recipe):
    run = train(warehouse, TRAIN, VALID, recipe)
    stages.evaluate(Warehouse(warehouse), run, "demo", "valid_u")
    run_id = run.run_id
    scores = Warehouse(warehouse).connect().sql("SELECT avg(jf) FROM scores").fetchall()
    assert run_metrics(str(warehouse), run_id)["validation_jf"] == pytest.approx(
        scores[0][0],
        abs=0.02,  # geometry is float16 in training, float32 in evaluation
    )
    assert run.weights == f"selectors/{run_id}/last"
    assert (warehouse / "selectors" / run_id / "best" / "selector.safetensors").is_file()
    assert (run.parent, run.recipe.training.seed, run.epochs) == (None, 0, 2)
    assert run_recipe(str(warehouse), run_id) == recipe


RATES = """
    SELECT avg(probability), avg(label::INTEGER)
    FROM predictions
    JOIN pseudo_labels USING (dataset, split, video_id, expression_id, track_id)
"""


def test_where_probabilities_are_fitted_their_mean_is_the_positive_rate(warehouse):
    """That is the validation split, where the recipe keeps no training videos out."""
    recipe = override(RELEASE, ["training.epochs=6"])  # so that scores tell something
    run = train(warehouse, TRAIN, VALID, recipe)
    stages.evaluate(Warehouse(warehouse), run, "demo", "valid_u")
    ((probability, positive),) = Warehouse(warehouse).connect().sql(RATES).fetchall()
    assert probability == pytest.approx(positive, abs=0.01) and 0 < positive < 1
    assert run.tau_videos is None


def test_the_judge_scores_a_selection_by_the_expression_s_objects(warehouse):
    store = Warehouse(warehouse)
    keys = list(store.current("label", split="valid_u"))
    data = training_set(store, keys, RECIPE, warehouse / "cache", inference=True)
    judge = SelectionJudge(store, data)
    tracks = read_mask_tracks(store, store.current("precompute")[keys[1]])
    ingested = store.current("ingest")[keys[1].of(track_set="")]
    objects = read_objects(store, ingested)
    rows = store.read("expressions", [ingested]).to_pylist()
    e, row = next((e, row) for e, row in enumerate(rows) if len(row["object_ids"]) == 1)
    ids = data.tracks[1]
    miou_N1 = track_overlaps([tracks[n] for n in ids], [objects[row["object_ids"][0]]]).miou_NO
    best, worst = int(miou_N1.argmax()), int(miou_N1.argmin())
    assert judge(1, e, (best,)) > judge(1, e, (worst,)) > -1
    assert judge(1, e, (best,)) == judge(1, e, (best,)) >= miou_N1.max() / 2
    nothing = next(e for e, row in enumerate(rows) if not row["object_ids"])
    assert judge(1, nothing, ()) == 1.0 and judge(1, nothing, (best,)) < 1.0


def test_a_run_continues_from_another_with_what_is_new(warehouse, prepared):
    first = train(warehouse, TRAIN, VALID, RECIPE).run_id
    with pytest.raises(WarehouseError, match=f"nothing is new in demo/train since run {first}"):
        train(warehouse, TRAIN, VALID, RECIPE, parent=first)
    prepare(warehouse, prepared[1] / "more", "train")
    second = train(warehouse, TRAIN, VALID, RECIPE, parent=first)
    whole = train(warehouse, TRAIN, VALID, RECIPE, parent=first, everything=True)
    runs = [find_run(Warehouse(warehouse), first), second, whole]
    assert [run.parent for run in runs] == [None, first, first]
    assert [run.train_videos for run in runs] == [2, 2, 4]
    assert [len(run.videos) for run in runs] == [2, 4, 4]
    with pytest.raises(WarehouseError, match="nothing is new"):
        train(warehouse, TRAIN, VALID, RECIPE, parent=second.run_id)
    with pytest.raises(ValueError, match="one configuration"):
        other = override(RECIPE, ["selector.width=64"])
        train(warehouse, TRAIN, VALID, other, parent=first, everything=True)


@pytest.fixture(scope="module")
def six(prepared, tmp_path_factory):
    """A warehouse with six training videos of two data sets: one of them is kept out."""
    root = shutil.copytree(prepared[0], tmp_path_factory.mktemp("six") / "w")
    prepare(root, prepared[1] / "more", "train", dataset="mevis")
    return root


BOTH = [*TRAIN, ("mevis", "train")]


def test_data_sets_train_together(six, tmp_path):
    root = shutil.copytree(six, tmp_path / "w")
    run = train(root, BOTH, VALID, RECIPE)
    assert (run.dataset, run.split) == ("demo+mevis", "train")
    assert (run.train_videos, run.tau_videos) == (2 + 4 - 1, 1)
    assert train(root, BOTH, VALID, RECIPE, limit=1).train_videos == 2


def fitted(root, recipe, monkeypatch, **arguments):
    """A run, and for each step of its training the videos that it was given."""
    given = {}

    def watch(step, place):
        original = getattr(module, step)

        def watched(*positional, **named):
            given[step] = {video.video_id for video in positional[place]}
            return original(*positional, **named)

        patch.setattr(module, step, watched)

    with monkeypatch.context() as patch:
        watch("train_selector", 0)
        watch("choose_tau", 1)
        watch("calibrate", 1)
        run = train(root, BOTH, VALID, recipe, **arguments)
    return run, given


def test_tau_and_probabilities_come_from_videos_that_are_not_trained_on(six, tmp_path, monkeypatch):
    root = shutil.copytree(six, tmp_path / "w")
    recipe = override(RECIPE, ["training.kept_out=0.34"])
    run, given = fitted(root, recipe, monkeypatch)
    assert (run.train_videos, run.tau_videos) == (4, 2)
    assert len(given["train_selector"]) == 4 and len(given["choose_tau"]) == 2
    assert given["calibrate"] == given["choose_tau"]
    assert not given["train_selector"] & given["choose_tau"]
    assert run.tau in THRESHOLDS
    assert run_recipe(str(root), run.run_id) == recipe, "what trains again chooses again"
    again = override(recipe, ["training.seed=1"])
    assert fitted(root, again, monkeypatch)[1]["choose_tau"] == given["choose_tau"]


def test_a_tau_that_is_given_is_not_chosen(six, tmp_path, monkeypatch):
    root = shutil.copytree(six, tmp_path / "w")
    run, given = fitted(root, override(RECIPE, ["tau=0.4"]), monkeypatch)
    assert run.tau == 0.4 and run.tau_videos is None
    assert run_recipe(str(root), run.run_id).tau == 0.4
    assert "choose_tau" not in given
    assert len(given["calibrate"]) == 1 and not given["calibrate"] & given["train_selector"]


def test_of_fewer_than_five_videos_none_is_kept_out(six, tmp_path, monkeypatch):
    root = shutil.copytree(six, tmp_path / "w")
    run, given = fitted(root, RECIPE, monkeypatch, limit=2)
    assert (run.train_videos, run.tau_videos) == (4, 0)
    assert not given["calibrate"] and run.calibration is None
    assert run.tau == 0.5


def test_which_videos_are_kept_out_is_by_their_names_alone():
    keys = [Key("demo", "train", f"train_{n:04d}") for n in range(40)]
    kept = module._kept_out(keys, 0.1)
    assert len(kept) == 4 and kept.keys() <= set(keys)
    assert module._kept_out(keys[::-1], 0.1).keys() == kept.keys()
    assert kept.keys() != set(keys[:4]), "not the first of them"
    others = module._kept_out([key.of(track_set="other") for key in keys], 0.1)
    assert [key.of(track_set="") for key in others] == list(kept)
    assert [key.video_id for key in kept] == KEPT, "as in 0.3"
    fewer = [key for key in keys if key not in kept][:9] + list(kept)[:1]
    assert list(module._kept_out(fewer, 0.1)) == list(kept)[:1]
    assert len(module._kept_out(keys[:5], 0.1)) == 1
    assert not module._kept_out(keys[:4], 0.1) and not module._kept_out(keys, 0.0)


def test_labels_of_other_tracks_are_refused(warehouse):
    store = Warehouse(warehouse)
    (key, commit), *_ = store.current("precompute", split="train").items()
    tables = {name: store.read(name, [commit]) for name in commit.files}
    masks = tables["masks"].to_pylist()
    masks[0] |= {"counts": masks[-1]["counts"], "area": masks[-1]["area"]}
    tables["masks"] = pa.Table.from_pylist(masks, schema=TABLES["masks"])
    store.publish("precompute", key, "replaced", tables)
    message = r"labels of 1 of 2 videos of demo/train \(train_0000\).*sola label --dataset demo"
    with pytest.raises(WarehouseError, match=message):
        train(warehouse, TRAIN, VALID, RECIPE)
    store.publish(
        "precompute", key, commit.fingerprint, {n: store.read(n, [commit]) for n in tables}
    )
    strict = replace(RECIPE, label_threshold=0.9)
    with pytest.raises(WarehouseError, match="labels of 2 of 2 videos"):
        train(warehouse, TRAIN, VALID, strict)


def test_tokens_that_are_not_finite_are_refused_and_leave_nothing_behind(warehouse):
    store = Warehouse(warehouse)
    (key, commit), *_ = store.current("precompute", split="train").items()
    tables = {name: store.read(name, [commit]) for name in commit.files}
    rows = tables["tokens"].to_pylist()
    rows[0]["token"][0] = float("nan")
    tables["tokens"] = type(tables["tokens"]).from_pylist(rows, schema=TABLES["tokens"])
    store.publish("precompute", key, "spoilt", tables)
    with pytest.raises(ValueError, match=r"demo/train/train_0000 contain NaN.*sola precompute"):
        train(warehouse, TRAIN, VALID, RECIPE)
    assert not any((warehouse / "cache" / "training").iterdir())


def test_a_split_without_positive_labels_is_refused(warehouse):
    strict = replace(RECIPE, label_threshold=1.0)
    stages.label(Warehouse(warehouse), "demo", "train", strict)
    with pytest.raises(ValueError, match=r"Nothing to learn from: 2 videos.*threshold \(1.0"):
        train(warehouse, TRAIN, [], strict)


def test_an_encoder_that_does_not_fit_names_the_setting_before_anything_is_encoded(warehouse):
    narrow = override(RECIPE, ["selector.text_dim=64"])
    with pytest.raises(
        ValueError, match=r"'demo' gives 128 channels.* 64: set selector.text_dim=128"
    ):
        train(warehouse, TRAIN, VALID, narrow)
    assert not (warehouse / "cache").exists()
    train(warehouse, TRAIN, VALID, override(narrow, ["selector.text_dim=128"]))


def test_a_text_that_is_too_long_is_left_out_and_named(warehouse):
    """Of training and of validation; the others keep their labels."""
    store = Warehouse(warehouse)
    for split in ("train", "valid_u"):
        key = min(store.current("ingest", split=split), key=str)
        rows = stages.with_texts(store, key, {1: "the red circle " * 200})
        stages.precompute(store, "demo", split, RECIPE)  # of ground truth, which was replaced
        stages.label(store, "demo", split, RECIPE)
        (labelled,) = store.current("label", split=split, video_id=key.video_id)
        data = training_set(
            store, [labelled], RECIPE, warehouse / "cache", inference=split != "train"
        )
        assert data.expressions == [[0, *range(2, len(rows))]]
        (video,) = data.videos
        labels = store.read("pseudo_labels", [store.current("label")[labelled]])["label"].to_numpy()
        labels_EN = labels.reshape(len(rows), -1)[np.ix_(data.expressions[0], data.tracks[0])]
        np.testing.assert_array_equal(video.labels_EN, labels_EN)
        assert len(video.texts) == len(rows) - 1
        (left_out,) = data.left_out
        assert left_out.startswith(f"demo/{split}/{key.video_id}/{rows[1]['expression_id']}: The ")
    run = train(warehouse, TRAIN, VALID, RECIPE)
    (trained,) = store.current("train", run_id=run.run_id).values()
    assert [text.split("/")[1] for text in trained.making.left_out] == ["train", "valid_u"]
    assert 0 <= run_metrics(str(warehouse), run.run_id)["validation_jf"] <= 1
