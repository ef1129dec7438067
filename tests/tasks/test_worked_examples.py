"""The stage and the tracker that CONTRIBUTING.md shows do what it says, as they stand there."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tasks.stages
import warehouse.schemas
from sola_model.recipes import DEMO, chosen_recipe
from tasks.results.why import why
from tasks.stage import Plan, adopt
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import TRACKERS
from tasks.tables import read_tokens
from tests.documents import blocks
from tests.tasks import stages
from warehouse import TABLES, Warehouse, read_video
from warehouse.commits import STAGES
from warehouse.demo_data import write_dataset

STAGE, REGISTERED, TRACKER, KNOWN = [
    block for block in blocks("CONTRIBUTING.md") if block.language == "python"
]


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """Two ingested videos."""
    write_dataset(tmp_path / "data", {"train": 2}, seed=1, frames=3)
    store = Warehouse.create(tmp_path / "w")
    ingest_split(store.url, "demo", str(tmp_path / "data"), "train")
    return store


def module(name: str, code: str) -> ModuleType:
    """A file of the project, as it would be."""
    made = ModuleType(name)
    exec(compile(code, f"{name}.py", "exec"), vars(made))
    return made


def test_the_stage(store: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brightness = module("tasks.stages.brightness", STAGE.text).BRIGHTNESS
    for known in (TABLES, STAGES):
        monkeypatch.setitem(known, "brightness", None)  # what is there before comes back
    places = vars(warehouse.schemas) | {"STAGES": STAGES, "ALL": tasks.stages.ALL}
    exec(compile(REGISTERED.text, REGISTERED.place, "exec"), places | {"BRIGHTNESS": brightness})
    monkeypatch.setattr("tasks.results.why.ALL", (*tasks.stages.ALL, brightness))
    plan = Plan(brightness, store, list(store.current("ingest")), None)
    assert [outcome.status for outcome in stages.make(plan)] == ["done"] * 2
    assert not plan.missing()
    for key, commit in store.current("brightness").items():
        video = tmp_path / "data/train/JPEGImages" / key.video_id
        means = [frame_HW3.mean() for frame_HW3 in read_video(video)]
        table = store.read("brightness", [commit])
        np.testing.assert_allclose(table["mean"], means, rtol=1e-6)
    assert "brightness demo/train/train_0000: up to date" in why(store, "train_0000")
    (key, commit), *_ = store.current("ingest").items()
    tables = {name: store.read(name, [commit]) for name in commit.files}
    store.publish("ingest", key, "frames", tables, contents={"frames": "others"})
    changed = next(line for line in why(store, key.video_id) if line.startswith("brightness"))
    assert "stale" in changed and "frames of ingest" in changed
    assert Plan(brightness, store, [key], None).missing() == [key]


def test_the_tracker(store: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = module("tasks.stages.corners", TRACKER.text).corner_tracks
    with pytest.raises(ValueError, match="no tracker 'corners'; valid are: sam2"):
        stages.tracks_of(store, "demo", "train", replace(DEMO, tracker="corners"))
    monkeypatch.setitem(TRACKERS, "corners", None)
    exec(KNOWN.text, {"TRACKERS": TRACKERS, "corner_tracks": tracks})
    recipe = chosen_recipe("demo", ["tracker=corners"], "precompute")
    plan = stages.tracks_of(store, "demo", "train", recipe)
    adopt(plan)
    assert [outcome.status for outcome in stages.make(plan)] == ["done"] * 2
    assert stages.default_set(store, "demo", "train").tracker == "corners"
    for commit in store.current("precompute").values():
        assert read_tokens(store, commit).shape == (1, 3, 3)
    assert stages.tracks_of(store, "demo", "train", DEMO).missing(), "SAM2's are others"
