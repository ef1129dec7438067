"""Whatever the arguments of a command: an answer, and no traceback."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import flows.runtime
from flows.cli import app
from warehouse import Warehouse

LINES = 500
COMMANDS = get_command(app).commands
WORDS = [
    "", " ", "0", "-1", "1e999", "nan", "99999999999999999999", "true", "[red]", "a/b", "..",
    "../../x", "*", "a\nb", "é", "x" * 300, "'", '"', "%s", "{}", "--", "demo", "mevis",
    "train", "valid_u", "release", "folder", "labelled", "json", "csv", "SELECT 1", "SELEC", "all",
    "selector.layers=x", "extraction.grid=1", "=", "a=b", "1/2", "3/2", "gaussian_noise-9",
]  # fmt: skip


class Started(Exception):
    """The arguments are good: the work of a flow would begin."""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[str]:
    """A warehouse without data, an empty folder, files of several kinds, and nothing."""
    folder = tmp_path_factory.mktemp("fuzz")
    Warehouse.create(folder / "warehouse")
    (folder / "empty").mkdir()
    contents = {"clip.mp4": b"no video", "masks.zip": b"PK\3\4", "x.json": b"{", "x.csv": b"a,b\n1"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    names = ["warehouse", "empty", "none", "none/below", *contents]
    return [str(folder / name) for name in names]


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch, tmp_path) -> None:
    @contextmanager
    def started() -> Iterator[None]:
        raise Started
        yield

    monkeypatch.setattr(flows.runtime, "prefect_api", started)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("part", range(10))
def test_every_line_has_an_answer(places: list[str], part: int) -> None:
    chance = random.Random(100 + part)
    for _ in range(LINES // 10):
        name = chance.choice(sorted(COMMANDS))
        line = [name, *arguments(chance, COMMANDS[name], places)]
        result = CliRunner().invoke(app, line)
        assert isinstance(result.exception, None | SystemExit | Started), (line, result.exception)
        if result.exit_code == 1 and not isinstance(result.exception, Started):
            assert result.output.strip(), line
        assert "Traceback" not in result.output, line


def arguments(chance: random.Random, command: click.Command, places: list[str]) -> list[str]:
    """Values for what is required, and for some of the options; the warehouse is one of places."""
    line = ["--warehouse", chance.choice(places)] if takes(command, "warehouse") else []
    for parameter in command.params:
        if parameter.name in ("warehouse", "help"):
            continue
        if not parameter.required and chance.random() > 0.3:
            continue
        value = chance.choice([chance.choice(WORDS), chance.choice(places)])
        if parameter.param_type_name == "argument":
            line.append(value)
        elif parameter.is_flag:
            line.append(parameter.opts[-1])
        else:
            line += [parameter.opts[-1], value]
    return line


def takes(command: click.Command, name: str) -> bool:
    return any(parameter.name == name for parameter in command.params)
