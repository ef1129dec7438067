"""Outputs that would destroy what a command reads, or that cannot be written, are refused first."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from sola_model.recipes import DEMO
from tests.untrained import publish_untrained
from tests.warehouse.samples import KEY, stage_tables
from warehouse import Warehouse
from warehouse.outputs import OutputError, check_output, files_of

COMMANDS = {  # each writes the file named last, and reads the warehouse
    "export": ["export", "--dataset", "mevis", "--out"],
    "submit": ["submit", "--dataset", "mevis", "--out"],
    "report": ["report", "--out"],
    "search": ["search", "a bar", "--html"],
    "query": ["query", "SELECT 1", "--out"],
    "query parquet": ["query", "SELECT 1", "--format", "parquet", "--out"],
}


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """With a run, and a video that is a file beside the warehouse."""
    store = Warehouse.create(tmp_path / "w")
    publish_untrained(store, DEMO)
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    tables = stage_tables("ingest", KEY)
    videos = tables["videos"]
    path = videos.schema.get_field_index("path")
    tables["videos"] = videos.set_column(path, videos.schema[path], [[str(tmp_path / "clip.mp4")]])
    store.publish("ingest", KEY, "f", tables)
    return store


def run(store: Warehouse, command: str, out: Path) -> str:
    result = CliRunner().invoke(app, [*COMMANDS[command], str(out), "--warehouse", store.url])
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, AssertionError)
    return " ".join(result.output.split())


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_destroys_what_it_reads(store, tmp_path, command, link) -> None:
    (weights,) = store.root.glob("selectors/*/selector.safetensors")
    for read in (weights, store.root / "warehouse.json", tmp_path / "clip.mp4"):
        out, before = read, read.read_bytes()
        if link:
            out = tmp_path / f"link-{read.name}"
            getattr(out, link)(read)
        assert f"would destroy {read}" in run(store, command, out)
        assert read.read_bytes() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_said_at_once(store, tmp_path, command) -> None:
    assert "there is no folder" in run(store, command, tmp_path / "none" / "out")
    assert "is a folder" in run(store, command, tmp_path)


def test_files_of_earlier_runs_are_replaced(store, tmp_path) -> None:
    old = tmp_path / "old.html"
    old.write_text("an earlier report")
    check_output(old, files_of(store, old))
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "copy.mp4")
    check_output(tmp_path / "copy.mp4", files_of(store, tmp_path / "copy.mp4"))


def test_frames_of_a_folder_are_read(tmp_path) -> None:
    (tmp_path / "frames").mkdir()
    frame, link = tmp_path / "frames" / "0.png", tmp_path / "link.png"
    frame.write_bytes(b"an image")
    link.symlink_to(frame)
    with pytest.raises(OutputError, match="would destroy"):
        check_output(link, [tmp_path / "frames"])


def test_a_checkpoint_is_not_replaced_by_what_is_made_of_it(tmp_path) -> None:
    checkpoint = tmp_path / "epoch_15.pth"
    checkpoint.write_bytes(b"weights")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "selector.safetensors").hardlink_to(checkpoint)
    command = ["import-checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and "would destroy" in " ".join(result.output.split())
