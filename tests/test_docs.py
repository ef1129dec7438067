"""The documents are true: commands parse, and every block runs or says why not.

A block that a `<!-- not run: why -->` precedes is only parsed. The others run at tiny size, with
the embedded models and data in MeViS's layout, document by document, each in its own copy of what
the first of them in README, from a data set to scores, has made.
"""

import re
import shutil
from importlib.util import find_spec
from inspect import signature
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name

import nbformat
import numpy as np
import pytest
import typer
import yaml
from prefect.task_runners import ThreadPoolTaskRunner
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import app
from flows.experiment import EXPERIMENTS
from scripts.run_notebook import execute
from sola_model.recipes import RELEASE, TWO_TOWER, Recipe, override, recipe_by_name
from tests.documents import (
    DOCUMENTS,
    NOTEBOOK,
    REFERENCE,
    ROOT,
    Block,
    blocks,
    commands,
    in_backticks,
    prose,
    read,
)
from tests.layouts import write_labelled, write_labels, write_video
from warehouse import Warehouse, read_video
from warehouse.demo_data import write_dataset
from warehouse.queries import named_queries

COMMANDS = get_command(app).commands
ASSIGNMENT = re.compile(r"(\w+)=(.*)")
SHELL = re.compile(r"(sola|make|python -m|pip|\w+=\S+) ")

# The models of recipe `release` are not here, and two clips are too few to learn from: the weight
# makes scores high, so that something is selected.
MODELS = ("--recipe", "demo")
TINY = {
    "precompute": MODELS,
    "label": MODELS,
    "train": (*MODELS, "--set", "loss.positive_weight=100"),
    "baseline": (*MODELS, "--detector", "demo"),
    "experiment": ("--recipe", "demo-release", "--seeds", "1"),
}


# --- what is written --------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_what_it_is(document: str) -> None:
    found = blocks(document)
    assert len(found) * 2 == len(re.findall("^```", read(document), re.M)), "a fence is not closed"
    markers = re.findall("^<!-- not run", read(document), re.M)
    assert len(markers) == sum(b.not_run is not None for b in found), "a marker without its block"
    for block in found:
        assert block.language in ("sh", "python", "sql", "text"), block.place
        if block.language == "text":
            assert not block.not_run, f"{block.place}: a text is never run"
            assert not re.search(r"^(\$ )?(sola|make|pip|export) ", block.text, re.M), block.place
    indented = re.search(r"\n\n {4}.*", prose(document))
    assert not indented, f"{document}: fence this block: {indented[0]}"


@pytest.mark.parametrize("document", [*DOCUMENTS, REFERENCE, NOTEBOOK])
def test_every_command_exists(document: str) -> None:
    for block in blocks(document):
        if block.language == "sh":
            for words in commands(block.text):
                check(words, block.place)
    for code in in_backticks(document):
        for words in commands(code) if SHELL.match(code) else ():
            check(words, document, mention=True)


def check(words: list[str], place: str, mention: bool = False) -> None:
    """Fail if the command does not exist or does not take these arguments.

    A mention in prose may leave arguments out.
    """
    while words and (ASSIGNMENT.fullmatch(words[0]) or words[0] == "do"):
        words = words[1:]
    where = f"{place}: {' '.join(words)}"
    match words:
        case ["sola", name, *arguments]:
            assert name in COMMANDS, where
            try:
                values = COMMANDS[name].make_context(name, arguments).params
            except typer.BadParameter as error:
                assert mention and type(error).__name__ == "MissingParameter", f"{where}: {error}"
            except Exception as error:
                raise AssertionError(f"{where}: {error}") from error
            else:
                check_values(values, where)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), where
        case ["python", "-m", module, *arguments]:
            source = Path(find_spec(module).origin).read_text()
            assert all(a in source for a in arguments if a.startswith("--")), where
        case [".venv/bin/prefect", "deployment", "run", name, *arguments]:
            deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
            (deployment,) = [d for d in deployments if name == f"{d['name']}/{d['name']}"]
            flow = resolve_name(deployment["entrypoint"].replace(".py", "").replace("/", "."))
            given = {a.partition("=")[0] for a in arguments if a != "--param"}
            assert given <= signature(flow).parameters.keys(), where


def check_values(values: dict, where: str) -> None:
    """Settings, recipes, experiments and queries in a command's arguments exist."""
    if values.get("changes") != ["FIELD=VALUE"]:
        override(recipe_by_name(values.get("recipe") or "release"), values.get("changes") or [])
    assert set(values.get("names") or ()) <= EXPERIMENTS.keys(), where
    if (sql := values.get("sql")) and " " not in sql and sql != "SQL":
        assert sql in named_queries(), where


@pytest.mark.parametrize(
    "command",
    [
        "sola trian",
        "sola train --epochs 3",
        "sola train --seeds 0",
        "sola train --set selector.depth=3",
        "sola evaluate --run",
        "sola report a b",
        "sola experiment table9",
        "sola query no_such_query",
        "make tea",
        "python -m benchmarks.chaos --kittens 200",
        ".venv/bin/prefect deployment run refresh/refresh --param folder=mevis",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(command.split(), "here", mention=True)


@pytest.mark.parametrize("document", [*DOCUMENTS, REFERENCE, NOTEBOOK])
def test_every_option_setting_and_link_exists(document: str) -> None:
    options = {name for c in COMMANDS.values() for p in c.params for name in p.opts}
    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for code in in_backticks(document):
        if code.startswith("--"):
            for option in re.findall(r"--[\w-]+", code):
                assert option in options or f'"{option}"' in benchmarks, f"{document}: {code}"
        if re.fullmatch(r"(extraction|selector|loss|training|detection)\.(?!md|py)[\w.]+", code):
            assert any(has(recipe, code) for recipe in (RELEASE, TWO_TOWER)), f"{document}: {code}"
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(document)):
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{document}: {target}"


def has(recipe: Recipe, setting: str) -> bool:
    try:
        attrgetter(setting)(recipe)
    except AttributeError:
        return False
    return True


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives headings."""
    headings = re.findall(r"^#+ (.*)", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- what runs --------------------------------------------------------------------------------


def runnable(document: str) -> list[Block]:
    return [b for b in blocks(document) if b.language != "text" and not b.not_run]


def placeholders(word: str) -> str:
    """A word of a command with this test's values for the reader's own."""
    if re.fullmatch(r"RUN(_[AB])?", word):
        runs = Warehouse("sola-warehouse").current("train").values()
        return max(runs, key=lambda commit: commit.created_at).key.run_id
    if word.startswith("detector-only-"):
        connection = Warehouse("sola-warehouse").connect()
        runs_of_scores = connection.sql("SELECT DISTINCT run_id FROM scores").fetchall()
        return next(run_id for (run_id,) in runs_of_scores if run_id.startswith("detector-only-"))
    if word in ("VIDEO", "TRACKS"):
        key = next(iter(Warehouse("sola-warehouse").current("precompute", split="train")))
        return key.video_id if word == "VIDEO" else key.track_set
    others = {"sam2.1_hiera_large.pt": "demo", "ROOT": "MEVIS", "NAME": "mevis", "SPLIT": "train"}
    return others.get(word, word)


def run(block: Block, environment: dict[str, str], names: dict) -> None:
    """Run a block in the current folder; `environment` and `names` are those of its document."""
    if block.language == "python":
        exec(compile(block.text, block.place, "exec"), names)
    if block.language == "sql":
        Warehouse("sola-warehouse").connect().sql(block.text).fetchall()
    for words in commands(block.text) if block.language == "sh" else ():
        if words[0] == "export":
            environment |= (ASSIGNMENT.fullmatch(word).groups() for word in words[1:])
            continue
        assert words[0] == "sola", f"{block.place}: mark as not run: {words}"
        _, name, *arguments = map(placeholders, words)
        arguments += TINY.get(name, ())
        if "--workers" in {option for p in COMMANDS[name].params for option in p.opts}:
            arguments += ["--workers", "1"]
        result = CliRunner().invoke(app, [name, *arguments], env=environment)
        assert result.exit_code == 0, f"{block.place}: {words}\n{result.output}\n{result.exception}"


@pytest.fixture(scope="module")
def in_this_process() -> None:
    """Flows run their tasks in threads: to start processes would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.fanout.video_workers", ThreadPoolTaskRunner)
        yield


@pytest.fixture(scope="module")
def made(
    prefect_server: str, in_this_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with what the documents talk about, and what README's first block has made."""
    root = tmp_path_factory.mktemp("documents")
    write_dataset(root / "MEVIS", {"train": 2, "valid_u": 1, "valid": 1}, seed=1, frames=8)
    (root / "mevis").symlink_to(root / "MEVIS")
    (clip,) = write_labelled(root / "mydogs", {"train": 2, "val": 1}, frames=8)["val"]
    write_labels(root / "dog-masks", clip, clip.labels_THW)
    (root / "demo-warehouse").symlink_to("sola-warehouse")
    shutil.copy(ROOT / "tests/golden/selector_0.pth", root / "epoch_15.pth")
    video = next((root / "MEVIS/valid/JPEGImages").iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_video(root / "clip.mp4", np.stack(list(read_video(video))))
        run(runnable("README.md")[0], {}, {})
        submit = "sola submit --dataset mevis --split valid_u --out masks.zip"
        run(Block("test_docs.py", "sh", submit, None), {}, {})
        shutil.copy("masks.zip", "submission.zip")
    return root


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if runnable(name)])
def test_every_block_runs(
    document: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOLA_WAREHOUSE", raising=False)
    environment: dict[str, str] = {}
    names: dict = {}
    for block in runnable(document)[document == "README.md" :]:
        run(block, environment, names)


def test_sql_in_the_prose_runs(made: Path) -> None:
    found = [c for name in DOCUMENTS for c in in_backticks(name) if c.startswith("SELECT ")]
    for sql in found:
        Warehouse(made / "sola-warehouse").connect().sql(sql).fetchall()
    assert found


def test_the_notebook_runs(made: Path) -> None:
    cells = [cell for cell in execute(made / "sola-warehouse").cells if cell.cell_type == "code"]
    assert "8 frames" in str(cells), "of this warehouse"


def test_the_notebook_has_been_run_and_names_no_folder_of_a_machine() -> None:
    notebook = nbformat.read(ROOT / NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(str(outputs)) < 600_000
    pictures = [o.data.pop("image/jpeg") for o in outputs if "image/jpeg" in o.get("data", {})]
    assert len(pictures) == 3
    found = re.findall(r"(?<![\w.<])/\w+/\S*|\b[A-Z]:\\\S*|~/\S*", str([cells, notebook.metadata]))
    assert not found, "run `python -m scripts.run_notebook --warehouse demo-warehouse`"
