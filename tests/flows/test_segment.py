"""`sola segment`: what it prints and writes, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from sola_model.recipes import DEMO
from tests.untrained import publish_untrained
from tests.waiting import PATIENCE_S, wait_for
from warehouse import Warehouse, read_video
from warehouse.demo_data import write_dataset

CLIPS, CLIP_FRAMES = 8, 3
RECIPE = replace(DEMO, tau=0.01, extraction=replace(DEMO.extraction, max_tracks=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"valid": 1}, seed=3, frames=CLIPS * CLIP_FRAMES)
    return root / "valid" / "JPEGImages" / "valid_0000"


def sola(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_stopped_by_ctrl_c_the_same_command_continues(
    prefect_server: str, folder: Path, tmp_path: Path
) -> None:
    store = Warehouse.create(tmp_path / "warehouse")
    publish_untrained(store, RECIPE)
    out, tracks = tmp_path / "v.mp4", tmp_path / "v.json"
    command = ["segment", folder, "the red circle", "--warehouse", store.url, "--out", out,
               "--json", tracks, "--clip-frames", CLIP_FRAMES, "--workers", 1]  # fmt: skip
    stopped = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background has SIGINT ignored, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: store.current("precompute"), stopped)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does: to all its processes
    _, said = stopped.communicate(timeout=PATIENCE_S)
    assert stopped.returncode == 130 and "the same command continues" in said
    assert "Traceback" not in said
    before = store.current("precompute")
    assert 1 <= len(before) < CLIPS and not out.exists()

    result = sola(*command)
    assert result.exit_code == 0, result.output
    after = store.current("precompute")
    assert len(after) == CLIPS and before.items() <= after.items()  # nothing was done twice
    assert '"the red circle": ' in result.output and "visible in" in result.output
    assert len(list(read_video(out))) == CLIPS * CLIP_FRAMES
    assert len(json.loads(tracks.read_text())["clips"]) == CLIPS


def test_without_a_run_it_says_how_to_get_one(prefect_server: str, folder: Path, tmp_path) -> None:
    result = sola("segment", folder, "a bar", "--warehouse", tmp_path / "none")
    assert result.exit_code == 1
    for command in ("sola demo", "sola train", "sola import-checkpoint"):
        assert command in " ".join(result.output.split())
