"""One recipe through every step: what refresh, experiments and commands do with its changes."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows import refresh as steps
from flows.cli import app
from flows.experiments.counterfactual import counterfactual
from flows.experiments.setup import Setup
from flows.fanout import Summary
from flows.precompute import precompute
from flows.refresh import refresh
from warehouse import WarehouseError

ROOT = Path(__file__).parents[2]
DEPLOYED = {
    each["name"]: each["parameters"]
    for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
}
Calls = dict[str, list[dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What refresh calls each flow with, by the flow's name; nothing is computed."""
    made: Calls = {}
    for name in ("precompute", "label", "train", "evaluate"):
        signature = inspect.signature(getattr(steps, name).fn)

        def call(*given: Any, name: str = name, signature=signature, **named: Any) -> Any:
            bound = signature.bind(*given, **named)
            bound.apply_defaults()
            made.setdefault(name, []).append(bound.arguments)
            return "run" if name == "train" else Summary(done=0, present=0, failed=0)

        monkeypatch.setattr(steps, name, call)
    return made


def test_refresh_gives_each_step_the_changes_that_concern_it(calls: Calls) -> None:
    changes = ["extraction.grid.stride=8", "label_threshold=0.6", "training.epochs=3"]
    assert refresh.fn("w", "demo", "root", changes=changes, detector="demo") == "run"
    assert [list(call["changes"]) for call in calls["precompute"]] == [changes[:1]] * 2
    assert [list(call["changes"]) for call in calls["label"]] == [changes[1:2]] * 2
    assert [list(call["changes"]) for call in calls["train"]] == [changes[1:]]
    detectors = {call["split"]: call["detector"] for call in calls["precompute"]}
    assert detectors == {"train": None, "valid_u": "demo"}
    assert calls["evaluate"][0]["run"] == "run"


def test_refresh_refuses_what_no_step_takes_before_any_step(calls: Calls) -> None:
    with pytest.raises(ValueError, match=r"selector\.depth"):
        refresh.fn("w", "demo", "root", changes=["selector.depth=3"])
    assert not calls


def test_the_nightly_extraction_makes_the_tracks_that_refresh_takes(calls: Calls) -> None:
    refresh.fn(**DEPLOYED["refresh"])
    (of_refresh,) = [call for call in calls["precompute"] if call["split"] == "train"]
    nightly = inspect.signature(precompute.fn).bind(**DEPLOYED["precompute"])
    nightly.apply_defaults()
    assert dict(nightly.arguments) | {"changes": []} == dict(of_refresh) | {"changes": []}
    assert list(nightly.arguments["changes"]) == list(of_refresh["changes"])


def test_settings_of_a_detector_need_one(tmp_path: Path) -> None:
    given = (str(tmp_path / "w"), "demo", str(tmp_path), "train", "demo")
    with pytest.raises(ValueError, match=r"detection\.short_side=100: no detector runs"):
        precompute.fn(*given, changes=["detection.short_side=100"])
    with pytest.raises(ValueError, match=r"from a detector \(demo\) or from a file"):
        precompute.fn(*given, boxes="boxes.csv", changes=["detector=demo"])
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_measured_as_it_is_takes_no_changes(tmp_path: Path) -> None:
    given = {"warehouse": str(tmp_path), "dataset": "demo", "recipe": "demo"}
    for ignored in ({"changes": ("tau=0.4",)}, {"sam2": "demo"}):
        with pytest.raises(WarehouseError, match="--set and --sam2 change nothing"):
            counterfactual(Setup(**given, **ignored))


def test_an_imported_checkpoint_takes_no_settings_of_other_commands(tmp_path: Path) -> None:
    command = ["import-checkpoint", tmp_path / "none.pth", "--set", "extraction.grid.stride=8"]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 1
    assert "It is a setting of `sola precompute`" in " ".join(result.output.split())
