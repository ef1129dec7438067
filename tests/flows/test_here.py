"""Little work is done in the command's own process, without Prefect."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.here import FEW, is_little
from flows.runner import precision
from sola_model.recipes import DEMO
from tasks.own_video import DATASET, SPLIT
from tasks.own_video.outputs import Outputs
from tasks.own_video.segmenting import Segmenting, prepare
from tasks.runs import find_run
from tasks.stage import Plan
from tasks.stages.evaluate import EVALUATE
from tasks.stages.ingest import ingest_split
from tasks.stages.label import label_plan
from tasks.stages.precompute import track_plan
from tests.tasks import stages
from tests.untrained import publish_untrained
from warehouse import Key, Warehouse
from warehouse.demo_data import write_dataset

RECIPE = replace(DEMO, tau=0.01, extraction=replace(DEMO.extraction, max_tracks=2))
SEGMENT = """
import sys
from flows.cli import app
try:
    app(sys.argv[1:])
finally:
    print([name for name in ("prefect", "sam2") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"valid_u": 1}, seed=3, frames=6)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Warehouse:
    """A video with tracks and a run."""
    store = Warehouse.create(tmp_path_factory.mktemp("w"))
    ingest_split(store.url, "demo", str(data), "valid_u")
    stages.precompute(store, "demo", "valid_u", RECIPE)
    publish_untrained(store, RECIPE)
    return store


@pytest.fixture(scope="module")
def clip(data: Path) -> Path:
    return data / "valid_u" / "JPEGImages" / "valid_u_0000"


def sola(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def asked(store: Warehouse, clip: Path, sentence: str, **how: str) -> Segmenting:
    return prepare(store.url, str(clip), [sentence], None, Outputs(), precision(), **how)


def test_a_new_sentence_loads_neither_prefect_nor_sam2(
    store: Warehouse, clip: Path, tmp_path: Path
) -> None:
    """The frames are those of a data set's video, whose tracks are taken over."""
    out = tmp_path / "v.json"
    command = ["segment", clip, "a new sentence", "--json", out, "--warehouse", store.url]
    done = subprocess.run(
        [sys.executable, "-c", SEGMENT, *map(str, command)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n"), done.stdout
    (part,) = json.loads(out.read_text())["clips"]
    assert part["expressions"][0]["expression"] == "a new sentence"
    assert asked(store, clip, "a new sentence").scores.missing() == []


def test_new_tracks_are_no_little_work(store: Warehouse, data: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, {"valid_u": 1}, seed=4, frames=6)
    other = tmp_path / "valid_u" / "JPEGImages" / "valid_u_0000"
    assert not asked(store, other, "a bar").has_tracks()
    known = data / "valid_u" / "JPEGImages" / "valid_u_0000"
    assert asked(store, known, "a bar").has_tracks()
    assert not asked(store, known, "a bar", detector="demo").has_tracks()  # boxes are to be found


def test_little_are_nothing_and_the_scores_of_a_few_videos(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tracked,) = store.current("precompute", dataset="demo")
    run = find_run(store, None)
    scores = Plan(EVALUATE, store, [tracked.of(run_id=run.run_id)], run)
    track_set = stages.default_set(store, "demo", "valid_u")
    tracks = track_plan(store, "demo", "valid_u", [tracked.video_id], track_set)
    labels = label_plan(store, "demo", "valid_u", track_set.name, RECIPE)
    assert is_little(tracks) and labels.missing() and not is_little(labels)
    for count, little in ((FEW, True), (FEW + 1, False)):
        missing = {Key(video_id=str(number)): "f" for number in range(count)}
        monkeypatch.setattr(scores, "to_make", lambda missing=missing: missing)
        assert is_little(scores) is little


def test_what_is_there_needs_no_server(store: Warehouse, no_server: None) -> None:
    stages.label(store, "demo", "valid_u", RECIPE)
    at = ["--dataset", "demo", "--split", "valid_u", "--warehouse", store.url]
    for line in (["evaluate", *at], ["label", *at, "--recipe", "demo"]):
        result = sola(*line)
        assert result.exit_code == 0, (line, result.output)
    assert "J&F" in sola("evaluate", *at).output


def test_scores_that_fail_here_end_as_those_of_workers(
    store: Warehouse, clip: Path, tmp_path: Path, no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no scores today")

    monkeypatch.setattr("sola_model.selector.inference.alignment_scores", broken)
    at = ["--warehouse", store.url]
    result = sola("segment", clip, "a sentence that fails", "--json", tmp_path / "v.json", *at)
    assert result.exit_code == 1 and "no scores today" in result.output
    assert "run the same command again" in " ".join(result.output.lower().split())
    status = sola("status", *at)
    assert "after mending the cause: the same `sola segment` command again" in status.output
    assert "precompute --warehouse" not in status.output.partition("after mending")[2]
    failed = store.failures("evaluate")
    assert {(key.dataset, key.split) for key in failed} == {(DATASET, SPLIT)}
