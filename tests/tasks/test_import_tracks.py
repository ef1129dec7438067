"""Tracks that are exported and imported are the same; without tokens they are of limited use."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from sola_model.recipes import DEMO
from tasks.runs import find_run
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import PRECOMPUTE
from tasks.tables import read_mask_tracks, read_tokens
from tasks.track_sets import sets_of, tracks_for
from tests.tasks import stages
from tests.untrained import publish_untrained
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

RECIPE = replace(DEMO, tau=0.01, extraction=replace(DEMO.extraction, max_tracks=3))
SPLIT = ["--dataset", "demo", "--split", "valid_u"]


def sola(store: Warehouse, command: str, *arguments: str | Path) -> Result:
    parts = [command, *arguments, *SPLIT, "--warehouse", store.url, "--workers", "1"]
    return CliRunner().invoke(app, [str(part) for part in parts], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Two videos with tracks and a run."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"valid_u": 2}, seed=3, frames=6)
    store = Warehouse.create(tmp_path_factory.mktemp("w"))
    ingest_split(store.url, "demo", str(root), "valid_u")
    stages.precompute(store, "demo", "valid_u", RECIPE)
    publish_untrained(store, RECIPE)
    return store


@pytest.fixture(scope="module")
def exported(store: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "tracks.json"
    result = sola(store, "export", "--what", "all-tracks", "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def imported(store: Warehouse, exported: Path) -> str:
    """The name of the set, with tokens."""
    result = sola(store, "import-tracks", exported, "--recipe", "demo")
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def bare(store: Warehouse, exported: Path) -> str:
    """The name of the set without tokens."""
    result = sola(store, "import-tracks", exported, "--no-tokens", "--name", "bare")
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1]


def oracle(store: Warehouse, tracks: str) -> dict:
    result = sola(store, "oracle", "--tracks", tracks, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_masks_come_back_bit_for_bit_and_tokens_are_alike(store, imported, bare) -> None:
    original = tracks_for(store, "demo", "valid_u").name
    assert not original.startswith("given-")  # the default is as it was
    similar = []
    for key, commit in store.current("precompute", track_set=original).items():
        for name in (imported, bare):
            given = store.current("precompute")[key.of(track_set=name)]
            assert read_mask_tracks(store, given) == read_mask_tracks(store, commit)
        tokens, same = (
            read_tokens(store, each)
            for each in (commit, store.current("precompute")[key.of(track_set=imported)])
        )
        assert tokens.shape == same.shape
        lengths = np.linalg.norm(tokens, axis=-1) * np.linalg.norm(same, axis=-1)
        similar.append((tokens * same).sum(axis=-1) / lengths)
    assert np.mean(np.concatenate(similar)) > 0.8


def test_the_token_of_a_prompted_frame_is_that_of_its_prompt(store, exported, tmp_path) -> None:
    """Where a track's mask is SAM2's prompt itself, both ways are one: to float16."""
    from sola_model.extraction.encoding import EncodedVideo
    from sola_model.extraction.given_masks import given_tokens
    from sola_model.extraction.propagation import Request, propagate
    from sola_model.extraction.sam2_models import load_sam2
    from sola_model.metrics.jf import empty_rle
    from tasks.tables import read_video
    from warehouse.frames import frames_of

    model = load_sam2("demo")
    row = read_video(store, next(iter(store.current("ingest").values())))
    video = EncodedVideo(model, frames_of(row))
    (commit, *_) = store.current("precompute").values()
    track = read_mask_tracks(store, commit)[0]
    (result,) = propagate(model, [Request(video, 2, track[2])])
    nothing = empty_rle(row["height"], row["width"])
    tokens_NTD = given_tokens(model, video, [track, [nothing] * len(track)])
    np.testing.assert_allclose(tokens_NTD[0, 2], result.tokens_TD[2], atol=1e-5)
    np.testing.assert_allclose(tokens_NTD[1, 0], model.no_obj_ptr[0].numpy(), atol=1e-6)
    assert np.ptp(tokens_NTD[1], axis=0).max() < 1e-6


def test_the_oracle_is_the_same(store, imported, bare) -> None:
    default = oracle(store, tracks_for(store, "demo", "valid_u").name)
    for name in (imported, bare):
        found = oracle(store, name)
        assert found["slices"] == default["slices"] and found["coverage"] == default["coverage"]


def test_a_run_selects_from_them_when_they_are_named(store, imported) -> None:
    refused = sola(store, "evaluate", "--tracks", "given-none")
    assert refused.exit_code == 1
    result = sola(store, "evaluate", "--tracks", imported)
    assert result.exit_code == 0, result.output
    assert {
        row["track_set"]
        for row in store.read("scores", store.current("evaluate").values()).to_pylist()
    } == {imported}


def test_without_tokens_training_and_evaluation_refuse(store, bare) -> None:
    for command in (["evaluate"], ["train", "--validation", "none"], ["search", "a bar"]):
        result = sola_plain(store, *command, *SPLIT, "--tracks", bare)
        assert result.exit_code == 1, command
        said = " ".join(result.output.split())
        assert f"the tracks {bare} were imported without tokens" in said, command
        assert "--no-tokens" in said


def sola_plain(store: Warehouse, *arguments: str) -> Result:
    command = [*arguments, "--warehouse", store.url]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


def test_without_tokens_they_can_be_exported_again(store, exported, bare, tmp_path) -> None:
    out = tmp_path / "again.json"
    result = sola(store, "export", "--what", "all-tracks", "--tracks", bare, "--out", out)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text()) == json.loads(exported.read_text())
    refused = sola(store, "export", "--what", "all-tracks", "--format", "png", "--out", out)
    assert refused.exit_code == 1 and "export as coco" in refused.output


def test_the_same_file_is_imported_once(store, exported, imported) -> None:
    before = store.current("precompute", track_set=imported)
    result = sola(store, "import-tracks", exported, "--recipe", "demo", "--name", "tracks")
    assert result.stdout.splitlines()[-1] == imported
    assert store.current("precompute", track_set=imported) == before


def test_a_fault_of_one_video_imports_nothing(store, exported, tmp_path) -> None:
    document = json.loads(exported.read_text())
    document["annotations"][-1]["segmentations"][0] = {"size": [1, 1], "counts": "1"}
    (tmp_path / "bad.json").write_text(json.dumps(document))
    result = sola(store, "import-tracks", tmp_path / "bad.json", "--no-tokens")
    assert result.exit_code == 1 and "[1, 1]" in result.output
    assert not any("bad" in name for name in sets_of(store, "demo", "valid_u"))


def test_what_mends_them_is_the_import(store, bare) -> None:
    (key, *_) = store.current("precompute", track_set=bare)
    assert PRECOMPUTE.redo(key) == (
        "`sola import-tracks FILE --dataset demo --split valid_u` with the settings of track set "
        f"{bare}"
    )


def test_a_run_of_these_tracks_knows_them(store, imported) -> None:
    """A set comes back from what is stored about it."""
    found = sets_of(store, "demo", "valid_u")[imported]
    assert found.given and found.given.tokens and found.name == imported
    assert found.sources == "given" and found.weights
    assert find_run(store, None).tracks_of(store, "demo", "valid_u", imported) == found
