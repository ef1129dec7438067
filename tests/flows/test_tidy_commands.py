"""`sola verify`, `sola compact` and `sola gc`: what they print, and their exit codes."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from warehouse import TABLES, Key, Warehouse

KEYS = [Key("mevis", "valid u", f"v{index}", track_set="grid") for index in range(3)]


def sola(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "100"})


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """Labels of three videos, the first superseded once."""
    store = Warehouse.create(tmp_path / "warehouse")
    for key in [KEYS[0], *KEYS]:
        named = ("dataset", "split", "video_id", "track_set")
        row = {name: getattr(key, name) for name in named}
        row |= {"expression_id": "0", "track_id": 0, "miou": 0.5, "precision": 0.5, "recall": 0.5}
        table = pa.Table.from_pylist([row | {"label": True}], schema=TABLES["pseudo_labels"])
        again = len(store.current("label"))
        store.publish("label", key, f"f{again}", {"pseudo_labels": table})
    return store


def test_tidying_up(store: Warehouse) -> None:
    where = ("--warehouse", store.url)
    assert "every file is sound" in sola("verify", *where, "--older-than", "0s").output
    assert "moved 3 commits from 3 to 1 data files" in sola("compact", *where).output
    assert "nothing to merge" in sola("compact", *where).output
    assert "removed 0 files" in sola("gc", *where).output
    wanted = "8 files"  # four of data, and the records that named them
    assert f"would remove {wanted}" in sola("gc", *where, "--older-than", "0m", "--dry-run").output
    assert f"removed {wanted}" in sola("gc", *where, "--older-than", "0d").output
    assert sola("verify", *where, "--older-than", "0s").exit_code == 0
    assert len(store.current("label")) == 3


def test_problems_and_what_mends_them(store: Warehouse) -> None:
    where = ("--warehouse", store.url)
    gone, damaged = (store.current("label")[key].files["pseudo_labels"].path for key in KEYS[:2])
    (store.root / gone).unlink()
    (store.root / damaged).write_bytes(b"PAR1")
    orphan = f"data/pseudo_labels/{'0' * 32}.parquet"
    (store.root / orphan).touch()
    result = sola("verify", *where, "--older-than", "0s")
    label = f"sola label --warehouse {store.url} --dataset mevis --split 'valid u' --tracks grid"
    again = f"mend with: {label}"
    assert result.exit_code == 1
    assert f"{gone}: is gone (mevis/valid u/v0/grid)" in result.output
    assert "its checksum is not the one it was published with" in result.output
    assert again in result.output and "3 problems" in result.output

    found = json.loads(sola("verify", *where, "--older-than", "0s", "--format", "json").output)
    commands = {problem["path"]: problem["commands"] for problem in found}
    assert commands[orphan] == [f"sola gc --warehouse {store.url}"]
    assert commands[damaged] == [
        f"sola verify --warehouse {store.url} --delete-damaged",
        again.removeprefix("mend with: "),
    ]
    assert found[1]["keys"] == [asdict(KEYS[0])] or found[1]["keys"] == [asdict(KEYS[1])]

    left = sola("verify", *where, "--delete-damaged", "--older-than", "1h")
    assert left.exit_code == 1 and "2 problems" in left.output
    assert not (store.root / damaged).exists()
    assert set(store.missing("label", {key: "f2" for key in KEYS})) >= set(KEYS[:2])


def test_what_cannot_be_done_is_explained(store: Warehouse, tmp_path: Path) -> None:
    cases = [
        (["gc", "--warehouse", store.url, "--older-than", "soon"], "'soon' is no duration"),
        (["gc", "--warehouse", tmp_path], "is not a warehouse"),
        (["verify", "--warehouse", store.url, "--format", "xml"], "there is no format 'xml'"),
        (["compact", "--warehouse", "s4://bucket/w"], "Cannot use s4://bucket/w"),
    ]
    for arguments, message in cases:
        result = sola(*arguments)
        assert result.exit_code == 1 and message in " ".join(result.output.split()), arguments
