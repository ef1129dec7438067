"""Tracks of other trackers go through the stages, and weights that do not fit are refused."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sola_model.extraction.trackers import VIDEO_MODELS, check_weights, weights_identity
from sola_model.recipes import DEMO, GridPrompts, Recipe, chosen_recipe
from tasks.stages.ingest import ingest_split
from tasks.tables import read_tokens
from tests.tasks import stages
from tests.tiny_video_models import KINDS, WIDTH, save_tiny
from warehouse import Warehouse
from warehouse.demo_data import write_dataset


def with_tracker(tracker: str, weights: str) -> Recipe:
    """With a grid of which every mask is taken, since weights are random, and ground truth."""
    recipe = chosen_recipe(
        "demo", [f"tracker={tracker}"], "precompute", sam2=weights, ground_truth=True
    )
    grid = GridPrompts(points_per_side=3, predicted_iou=0.0, stability=0.0, stride=4)
    return replace(recipe, extraction=replace(recipe.extraction, grid=grid, max_tracks=3))


@pytest.mark.parametrize("tracker", KINDS)
def test_tracks_are_made_and_labelled(tmp_path: Path, tracker: str) -> None:
    write_dataset(tmp_path / "data", {"train": 1}, seed=3, frames=5)
    store = Warehouse.create(tmp_path / "w")
    ingest_split(store.url, "demo", str(tmp_path / "data"), "train")
    recipe = with_tracker(tracker, save_tiny(tracker, tmp_path / "tiny"))
    for make in (stages.precompute, stages.label):
        outcomes = make(store, "demo", "train", recipe)
        assert [(outcome.status, outcome.message) for outcome in outcomes] == [("done", "")]
    track_set = stages.default_set(store, "demo", "train")
    assert (track_set.tracker, track_set.sources) == (tracker, "grid+masks")
    assert track_set.weights == weights_identity(tracker, str(tmp_path / "tiny"))
    (commit,) = store.current("precompute").values()
    assert {row["source"] for row in store.read("prompts", [commit]).to_pylist()} == {
        "grid",
        "mask",
    }
    tokens_NTD = read_tokens(store, commit)
    assert tokens_NTD.shape[1:] == (5, WIDTH) and len(tokens_NTD) > 1
    assert store.read("pseudo_labels", store.current("label").values()).num_rows
    assert stages.tracks_of(store, "demo", "train", DEMO).missing(), "those of SAM2 are others"


def test_identity_is_that_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "edgetam_video"}')
    before = weights_identity("edgetam_video", str(tmp_path))
    assert re.fullmatch("[0-9a-f]{64}", before)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert weights_identity("edgetam_video", str(tmp_path)) != before
    assert weights_identity("sam3_tracker_video", "facebook/sam3") == "facebook/sam3"
    assert weights_identity("sam2_video", "demo") == weights_identity("sam2", "demo")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "edgetam"
    folder.mkdir()
    name = str(folder)
    with pytest.raises(ValueError, match=r"'edgetam_video' cannot take .* config\.json"):
        check_weights("edgetam_video", name)
    (folder / "config.json").write_text('{"model_type": "edgetam_video"}')
    check_weights("edgetam_video", name)
    for tracker in ("sam2", "sam2_video", "sam3_tracker_video"):
        with pytest.raises(ValueError, match=r"'edgetam_video': take --set tracker=edgetam_video"):
            check_weights(tracker, name)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for tracker in ("sam2", *VIDEO_MODELS):
        with pytest.raises(ValueError, match=r"'bert': give others with --sam2"):
            check_weights(tracker, name)
    for tracker in ("edgetam_video", "sam3_tracker_video"):
        with pytest.raises(ValueError, match="cannot take 'demo'"):
            check_weights(tracker, "demo")
    with pytest.raises(ValueError, match="cannot take 'sam9'"):
        check_weights("sam2_video", "sam9")
