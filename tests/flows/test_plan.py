"""`sola plan` says what `sola precompute` will cost, and keeps what it made and said."""

import json
from pathlib import Path

import pytest
from prefect.task_runners import ThreadPoolTaskRunner
from typer.testing import CliRunner

from flows.cli import app
from flows.plan import plan_split
from flows.precompute import asked_tracks, precompute
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

VIDEOS, FRAMES = 5, 6
FEWER = ("extraction.grid.points_per_side=4", "extraction.max_tracks=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"valid_u": VIDEOS}, seed=3, frames=FRAMES)
    return root


def arguments(data: Path, warehouse: Path) -> list[str]:
    changes = [word for change in FEWER for word in ("--set", change)]
    where = ["--root", str(data), "--dataset", "demo", "--split", "valid_u"]
    return [*where, "--recipe", "demo", "--warehouse", str(warehouse), *changes]


def cost_by_stage(store: Warehouse) -> dict[str, dict]:
    found = store.connect().sql("FROM cost_by_stage").to_arrow_table().to_pylist()
    return {row["stage"]: row for row in found}


def test_a_plan_and_the_truth(
    prefect_server: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = [*arguments(data, tmp_path), "--gpu-hour-price", "7200", "--workers", "2"]
    done = CliRunner().invoke(app, ["plan", *asked])
    assert done.exit_code == 0, done.output
    assert f"{VIDEOS} videos, {VIDEOS * FRAMES} frames; 3 videos are done, on cpu" in done.stdout
    for line in ("in all:", "price:", "time left:", "disk:", "memory:", "90 % intervals"):
        assert f"\n{line}" in done.stdout
    assert "from 3 videos of precompute" in done.stdout

    store = Warehouse(tmp_path)
    (plan,) = store.read("plans", store.current("plan").values()).to_pylist()
    measured = [c.making for c in store.current("precompute").values()]
    assert len(measured) == 3 and plan["measured"] == 3 and plan["videos"] == VIDEOS
    for name in ("wall_seconds", "cpu_seconds"):
        spent = sum(getattr(making, name) for making in measured)
        assert plan[name] == pytest.approx(spent * VIDEOS / 3)  # all have as many frames
        assert spent <= plan[f"{name}_low"] <= plan[name] <= plan[f"{name}_high"]
    files = sum(file.stat().st_size for table in ("prompts", "tracks", "masks", "tokens")
                for file in (tmp_path / "data" / table).rglob("*.parquet"))  # fmt: skip
    assert plan["bytes"] == pytest.approx(files * VIDEOS / 3)

    again = CliRunner().invoke(app, ["plan", *asked, "--json"])
    values = json.loads(again.stdout)
    assert values["done"] == 3, "nothing was measured again"
    assert values["wall"]["value"] == pytest.approx(plan["wall_seconds"])
    assert values["price"]["value"] == pytest.approx(2 * plan["wall_seconds"])
    left = plan["wall_seconds"] - sum(making.wall_seconds for making in measured)
    assert values["time_left"]["value"] == pytest.approx(left / 2)
    assert values["stages"][0]["host"] >= max(making.host_bytes for making in measured)

    before = cost_by_stage(store)["precompute"]
    assert before["videos"] == 3 and before["planned_videos"] == VIDEOS
    monkeypatch.setattr(
        "flows.fanout.video_workers", lambda *_: ThreadPoolTaskRunner(max_workers=1)
    )
    summary = precompute(
        str(tmp_path), "demo", str(data), "valid_u", "demo", changes=FEWER, workers=1
    )
    assert (summary.done, summary.present) == (VIDEOS - 3, 3), "what was measured is kept"
    assert "precompute: 2/2 videos, 0 failed" in (shown := capfd.readouterr().err)
    assert "worker-seconds in all" in shown
    costs = cost_by_stage(store)
    truth = sum(c.making.wall_seconds for c in store.current("precompute").values())
    assert costs["precompute"]["videos"] == VIDEOS
    assert costs["precompute"]["worker_hours"] == pytest.approx(truth / 3600, abs=1e-4)
    assert costs["precompute"]["planned_worker_hours"] == before["planned_worker_hours"]
    assert costs["ingest"]["planned_videos"] is None


def test_stages_of_boxes_are_planned_too(data: Path, tmp_path: Path) -> None:
    planned = plan_split(
        str(tmp_path), "demo", str(data), "valid_u", "demo", FEWER, detector="demo", measured=2
    )
    assert [costs.stage for costs in planned.stages] == ["precompute", "detect", "box_tracks"]
    assert {costs.measured for costs in planned.stages} == {2}
    assert planned.done == 2 and planned.start > 0
    parts = [costs.wall.value for costs in planned.stages]
    assert planned.wall.value == pytest.approx(sum(parts)) and min(parts) > 0
    store = Warehouse(tmp_path)
    track_set = asked_tracks("demo", FEWER, detector="demo")
    assert {key.track_set for key in store.current("box_tracks")} == {track_set.name}
    assert not store.current("default_tracks"), "a plan makes no default"


def test_a_wrong_argument_is_refused(tmp_path: Path, data: Path) -> None:
    asked = arguments(data, tmp_path / "w")
    done = CliRunner().invoke(app, ["plan", *asked, "--split", "nosplit"])
    assert done.exit_code == 1 and "nosplit" in done.output
    assert not (tmp_path / "w").exists()


def test_what_cannot_be_made_is_said(tmp_path: Path, data: Path) -> None:
    broken = tmp_path / "broken"
    write_dataset(broken, {"valid_u": 1}, seed=3, frames=2)
    (frame, _) = sorted(broken.rglob("*.jpg"))
    frame.write_bytes(frame.read_bytes()[:700])
    done = CliRunner().invoke(app, ["plan", *arguments(broken, tmp_path / "w")])
    assert done.exit_code == 1 and "error: no" in done.output
