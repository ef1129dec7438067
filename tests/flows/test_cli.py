"""The command line: help, query formats, status, and errors that say what to do."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from flows.cli import app
from warehouse import TABLES, Key, Warehouse
from warehouse.demo_data import write_dataset
from warehouse.queries import VIEWS, named_queries

COMMANDS = [
    "demo",
    "doctor",
    "check",
    "plan",
    "precompute",
    "import-tracks",
    "label",
    "train",
    "import-checkpoint",
    "evaluate",
    "baseline",
    "segment",
    "compare",
    "experiment",
    "report",
    "oracle",
    "submit",
    "score",
    "export",
    "label-export",
    "search",
    "query",
    "status",
    "tracks",
    "remove",
    "upgrade",
    "verify",
    "compact",
    "gc",
]


def sola(*arguments: str) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "100"})


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """Two rows of training metrics and a failed video."""
    store = Warehouse.create(tmp_path / "warehouse")
    rows = [{"run_id": "r", "epoch": e, "metric": "loss", "value": 1.0 / e} for e in (1, 2)]
    metrics = (
        TABLES["training_metrics"]
        .empty_table()
        .from_pylist(rows, schema=TABLES["training_metrics"])
    )
    store.publish("train", Key(run_id="r"), "f",
                  {"runs": TABLES["runs"].empty_table(), "training_metrics": metrics})  # fmt: skip
    bad = Key(dataset="mevis", split="train", video_id="v1")
    store.publish_failure("precompute", bad, "f", "FrameError: 00003.jpg is not an image")
    return store.root


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example_and_fits_a_screen(command: str) -> None:
    result = sola(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: sola {command}" in " ".join(result.output.split())
    lines = result.output.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 100


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_examples_of_help_parse(command: str) -> None:
    group = get_command(app)
    help = (group.commands[command] if command else group).help
    examples = re.findall("`(.+?)`", help.partition("Example: ")[2].partition("\n\n")[0])
    assert examples
    for example in examples:
        _, name, *arguments = shlex.split(example)
        assert name == command or not command
        group.commands[name].make_context(name, arguments)


def test_every_command_takes_one_line_of_the_list() -> None:
    rows = [line[2:].split()[0] for line in sola("--help").output.splitlines() if "│" in line]
    after_options = rows[rows.index("--help") + 1 :]
    assert sorted(after_options) == sorted(COMMANDS)


def test_no_command_is_undocumented() -> None:
    names = {command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    assert names == set(COMMANDS)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for command in COMMANDS:
        assert f"sola {command}" in readme or f"make {command}" in readme, command


def test_query_formats(warehouse: Path, tmp_path: Path) -> None:
    sql = "SELECT epoch, value FROM training_metrics ORDER BY epoch"
    text = sola("query", "--warehouse", warehouse, "--format", "csv", sql).output
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"epoch": "1", "value": "1.0"}, {"epoch": "2", "value": "0.5"}]  # fmt: skip
    text = sola("query", "--warehouse", warehouse, "--format", "json", sql).output
    assert json.loads(text) == [{"epoch": 1, "value": 1.0}, {"epoch": 2, "value": 0.5}]
    out = tmp_path / "result.parquet"
    sola("query", "--warehouse", warehouse, "--format", "parquet", "--out", out, sql)
    assert pq.read_table(out).to_pylist() == json.loads(text)
    assert "0.5" in sola("query", "--warehouse", warehouse, sql).output


@pytest.mark.parametrize("name", named_queries())
def test_every_named_query_runs(warehouse: Path, name: str) -> None:
    assert sola("query", "--warehouse", warehouse, "--format", "csv", name).exit_code == 0


def test_query_without_sql_lists_tables_views_and_queries(warehouse: Path) -> None:
    output = sola("query", "--warehouse", warehouse).output
    assert all(name in output for name in (*TABLES, "commits", *VIEWS, *named_queries()))
    assert "One row per run and scored expression" in output


def test_a_named_query_is_a_view_in_sql(warehouse: Path) -> None:
    sql = "SELECT stage, failed FROM status WHERE failed > 0"
    text = sola("query", "--warehouse", warehouse, "--format", "csv", sql).output
    assert list(csv.DictReader(io.StringIO(text))) == [{"stage": "precompute", "failed": "1"}]


def test_status_names_failures_and_what_mends_them(warehouse: Path) -> None:
    result = sola("status", "--warehouse", warehouse)
    assert result.exit_code == 2
    assert "v1: FrameError: 00003.jpg is not an image" in result.output
    assert "sola precompute" in result.output and "--split train" in result.output


@pytest.mark.parametrize("name", ["clips[front]", "a[/b]", "x[red]y", "[link=http://a]z", ":cat:"])
def test_names_are_shown_as_they_are(tmp_path: Path, name: str) -> None:
    store = Warehouse.create(tmp_path / "w")
    key = Key(dataset="mevis", split=name, video_id="v")
    store.publish("label", key, "f", {"pseudo_labels": TABLES["pseudo_labels"].empty_table()})
    result = sola("status", "--warehouse", store.url)
    assert result.exit_code == 0
    assert f"{name} " in result.stdout


def test_the_warehouse_may_come_from_the_environment(warehouse: Path) -> None:
    result = CliRunner().invoke(app, ["status"], env={"SOLA_WAREHOUSE": str(warehouse)})
    assert "precompute" in result.output


def test_names_that_the_terminal_cannot_show_are_escaped(warehouse: Path) -> None:
    name = Key(dataset="mevis", split="train", video_id="café")
    Warehouse(warehouse).publish_failure("precompute", name, "f", "no frames")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "status", "--warehouse", warehouse],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    assert rb"mevis/train/caf\xe9: no frames" in done.stdout


def test_a_query_only_reads_unless_it_is_unsafe(warehouse: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    for sql in (
        f"COPY (SELECT 42 AS x) TO '{new}'",
        "SELECT 1; SELECT 2",
        f"FROM read_text('{new}')",
    ):
        refused = sola("query", "--warehouse", warehouse, sql)
        assert refused.exit_code == 1 and "--unsafe" in refused.output
        assert not new.exists()
    sql = f"COPY (SELECT 42 AS x) TO '{new}'; FROM read_csv('{new}')"
    allowed = sola("query", "--warehouse", warehouse, "--unsafe", sql)
    assert allowed.output.split() == ["x", "42"]
    assert (
        sola("query", "--warehouse", warehouse, "--unsafe", f"COPY (SELECT 1) TO '{new}'").exit_code
        == 0
    )


def test_a_result_that_fails_replaces_no_file(warehouse: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("before")
    sql = "SELECT CASE WHEN i < 99999 THEN i ELSE error('the end') END FROM range(100000) r(i)"
    options = ["--format", "csv", "--out", tmp_path / "out.csv"]
    failed = sola("query", "--warehouse", warehouse, sql, *options)
    assert failed.exit_code == 1 and "the end" in failed.output
    assert (tmp_path / "out.csv").read_text() == "before"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "SELECT nothing FROM nowhere"], "nowhere"),
        (["query", "--format", "xml", "SELECT 1"], "there is no format 'xml'"),
        (["query", "--format", "parquet", "SELECT 1"], "--out"),
    ],
)
def test_query_errors(warehouse: Path, arguments: list[str], message: str) -> None:
    result = sola(*arguments, "--warehouse", warehouse)
    assert result.exit_code == 1
    assert message in result.output


def test_paths_in_messages_stay_whole(tmp_path: Path) -> None:
    """However long: a terminal wraps them, but they can be copied and searched for."""
    folder = tmp_path / ("a long name " * 10)
    for arguments in (["status", "--warehouse", folder], ["check", folder]):
        result = sola(*arguments)
        assert result.exit_code == 1 and str(folder) in result.output, result.output


def test_flow_errors_end_in_their_message(prefect_server: str, tmp_path: Path) -> None:
    data, blocked = tmp_path / "data", tmp_path / "file"
    write_dataset(data, {"train": 1, "valid_u": 1}, frames=4)
    (data / "valid_u" / "mask_dict.json").unlink()
    blocked.write_text("")
    fake = tmp_path / "sam2.1_hiera_tiny.pt"
    fake.write_bytes(b"no checkpoint")
    demo = ["--root", data, "--dataset", "demo", "--recipe", "demo", "--workers", "1"]
    store = ["--warehouse", tmp_path / "w"]
    cases = [
        (["precompute", *demo, *store, "--split", "valid_u"], "mask_dict.json", 1),
        (["precompute", *demo, *store, "--root", tmp_path / "none"], "none", 1),
        (["precompute", *demo, "--warehouse", blocked / "w"], str(blocked), 1),
        (["precompute", *demo, *store, "--recipe", "best"], "valid are: release, ", 1),
        (["precompute", *demo, *store, "--sam2", "sam9"], "no SAM2 checkpoint file 'sam9'", 1),
        (["precompute", *demo, *store, "--sam2", fake], "is not a SAM2 checkpoint", 1),
        (["train", "--dataset", "demo", *store], "sola precompute", 1),
        (["evaluate", "--dataset", "demo", *store], "sola precompute", 1),
        (["label", "--warehouse", tmp_path / "empty"], "is not a warehouse", 1),
    ]
    for arguments, message, code in cases:
        result = sola(*arguments)
        assert message in " ".join(result.output.split()), (arguments, result.output)
        assert result.exit_code == code, (arguments, result.output)
        assert "Traceback" not in result.output


def test_lines_are_not_broken_where_no_screen_ends_them(tmp_path: Path) -> None:
    """A path in a message, and the cells of a table, can be copied and searched for in a pipe."""
    place = tmp_path / "a folder with a long name" / ("x" * 90)
    command = [sys.executable, "-m", "flows.cli", "query"]
    said = subprocess.run([*command, "SELECT 1", "--warehouse", place], capture_output=True)
    assert f"{place} is not a warehouse" in said.stderr.decode()
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    description = TABLES["scores"].metadata[b"description"].decode()
    assert description in listed and len(description) > 80


def test_the_version() -> None:
    result = sola("--version")
    assert result.exit_code == 0 and re.fullmatch(r"sola \d+\.\d+\.\d+\n", result.output)


def test_a_misspelt_query_is_named(tmp_path: Path) -> None:
    store = Warehouse.create(tmp_path / "w")
    for name, meant in (("worst_expresions", "worst_expressions"), ("videoss", "videos")):
        result = sola("query", name, "--warehouse", store.url)
        assert result.exit_code == 1
        assert f"there is no query named '{name}'; is it {meant}?" in result.output
    assert sola("query", "FROM videos", "--warehouse", store.url).exit_code == 0
    assert 'ask "FROM videos"' in sola("query", "videos", "--warehouse", store.url).output
    assert "`sola query` lists" in sola("query", "xyz", "--warehouse", store.url).output


def test_a_broken_prefect_profile_is_named(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text("garbage [[[")
    result = subprocess.run(
        [sys.executable, "-m", "flows.cli", "demo", "--warehouse", str(tmp_path / "w")],
        env=os.environ | {"PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "error: a settings file of Prefect is not TOML" in result.stderr
    assert "profiles.toml in PREFECT_HOME" in result.stderr


def test_an_empty_name_is_no_default(warehouse: Path) -> None:
    """It is what a shell's variable gives that is not set."""
    asked = ("--dataset", "mevis", "--split", "train", "--default", "")
    result = sola("tracks", *asked, "--warehouse", str(warehouse))
    assert result.exit_code == 1
    assert "no track set ''" in result.output
