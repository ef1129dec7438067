"""Write docs/reference.md: every command, table, view, query and setting, from the code.

python -m scripts.write_reference
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import cleandoc
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
from typer.main import get_command

from flows.cli import app
from sola_model.recipes import RECIPES, Recipe
from warehouse import TABLES, Warehouse
from warehouse.queries import DUCKDB_TYPES, SQL_FOLDER, VIEWS, named_queries

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"
COMMITS = "FROM commits"
HEADER = """\
# Reference

[Commands](#commands), [tables](#tables), [views](#views), [named queries](#named-queries) and
[settings of the recipes](#settings), as they are in the code. `python -m scripts.write_reference`
writes this page; a test compares it.
"""


def main() -> None:
    REFERENCE.write_text(reference(), encoding="utf-8")


def reference() -> str:
    """The page, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse.create(Path(folder) / "warehouse")
        parts = [HEADER, *_commands(), *_tables(), *_queries(warehouse), *_settings()]
    return "\n".join(parts)


def _rows(*rows: Iterable[str]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# --- commands ---------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    commands = get_command(app).commands
    yield "## Commands\n"
    yield _rows(
        ("command", ""),
        *((f"[`sola {n}`](#sola-{n})", c.help.split("\n\n")[0]) for n, c in commands.items()),
    )
    for name, command in commands.items():
        kinds = get_type_hints(command.callback)
        yield f"### `sola {name}`\n"
        yield f"{cleandoc(command.help)}\n"
        yield _rows(
            ("argument or option", "value", "default", ""),
            *((_names(p), _value(p, kinds[p.name]), _default(p), p.help) for p in command.params),
        )


def _names(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    return ", ".join(f"`{name}`" for name in (parameter.opts if option else [parameter.name]))


def _value(parameter: Any, kind: Any) -> str:
    if kind is bool:
        return "flag"
    (kind,) = {*get_args(kind)} - {NoneType} if NoneType in get_args(kind) else {kind}
    (item,) = get_args(kind) if get_origin(kind) is list else (kind,)
    least = "" if parameter.min is None else f", {parameter.min:g} or more"
    return _kind(item) + least + (", repeated" if item is not kind else "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or value == []:
        return ""
    shown = f"`{' '.join(value) if isinstance(value, list) else value}`"
    return shown + (f" or `{parameter.envvar}`" if parameter.envvar else "")


# --- tables, views, queries -------------------------------------------------------------------


def _tables() -> Iterator[str]:
    yield "## Tables\n"
    as_read = ", ".join(f"{_arrow(ours)} as {theirs}" for ours, theirs in DUCKDB_TYPES.items())
    yield f"Types are Arrow's. DuckDB reads {as_read}.\n"
    yield _rows(
        ("table", "rows"), *((f"[`{n}`](#table-{n})", _described(s)) for n, s in TABLES.items())
    )
    for name, schema in TABLES.items():
        yield f"### Table `{name}`\n"
        yield f"{_described(schema)}\n"
        yield _rows(
            ("column", "type", ""), *((f"`{f.name}`", _type(f), _described(f)) for f in schema)
        )


def _described(thing: pa.Field | pa.Schema) -> str:
    return thing.metadata[b"description"].decode()


def _type(field: pa.Field) -> str:
    return _arrow(field.type) + (" or null" if field.nullable else "")


def _arrow(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_arrow(kind.value_type)}"
    return f"float{kind.bit_width}" if pa.types.is_floating(kind) else str(kind)


def _queries(warehouse: Warehouse) -> Iterator[str]:
    connection = warehouse.connect()

    def row(file: Path, title: str = "") -> tuple[str, str, str]:
        sql = file.read_text(encoding="utf-8")
        comment = re.match(r"(-- .*\n)+", sql)[0].replace("-- ", "").strip()
        more = comment.removeprefix(title).strip()
        return (
            f"`{file.stem}`",
            f"{title}. {more}" if title and more else title or more,
            columns(sql),
        )

    def columns(sql: str) -> str:
        return ", ".join(f"`{column}`" for column in connection.sql(sql).columns)

    yield "## Views\n"
    yield _rows(
        ("view", "", "columns"),
        ("`commits`", "One row per unit of work, as its latest record has it.", columns(COMMITS)),
        *(row(SQL_FOLDER / "views" / f"{name}.sql") for name in VIEWS),
    )
    yield "## Named queries\n"
    yield "`sola query scores_summary` asks one by its name.\n"
    queries = named_queries().items()
    yield _rows(("query", "", "columns"), *(row(SQL_FOLDER / f"{n}.sql", t) for n, t in queries))


# --- settings ---------------------------------------------------------------------------------


def _settings() -> Iterator[str]:
    yield "## Settings\n"
    yield (
        "`--set` changes them ([recipes](recipes.md)). Where a recipe has nothing it has the value "
        "of the first.\n"
    )
    yield from _section(Recipe, "", RECIPES, "")


def _section(kind: type, path: str, recipes: Mapping[str, Recipe], title: str) -> Iterator[str]:
    """The settings of a part of these recipes, and then of its parts."""
    types, explained = get_type_hints(kind), field_docs(kind)
    parts = {f.name: _parts(types[f.name]) for f in fields(kind)}
    if title:
        yield f"### Settings {title}\n"
    yield f"{cleandoc(kind.__doc__).partition(chr(10) * 2)[0]}\n"
    yield _rows(
        ("setting", "value", f"`{next(iter(recipes))}`", "`paper`", "others", ""),
        *(
            (
                f"`{path}{name}`",
                _kind(types[name]),
                *_values(path + name, recipes),
                explained[name],
            )
            for name in parts
            if not parts[name] and name != "name"
        ),
    )
    for name in parts:
        value = attrgetter(path + name)
        for number, part in enumerate(parts[name]):
            of_kind = {n: recipe for n, recipe in recipes.items() if type(value(recipe)) is part}
            title = f"`{path}{name}`" + (f" of a `{part.__name__}`" if number else "")
            yield from _section(part, f"{path}{name}.", of_kind, title)


def _parts(kind: Any) -> tuple[type, ...]:
    """The dataclasses that a setting is one of; none where it is a value."""
    return tuple(part for part in get_args(kind) or (kind,) if is_dataclass(part))


def field_docs(kind: type) -> dict[str, str]:
    """What the docstring of a dataclass says of each field, as `name: text` or `a, b: text`."""
    found = {}
    for entry in re.split(r"\n(?=\S)", cleandoc(kind.__doc__)):
        if match := re.match(r"(\w+(?:, \w+)*): (.*)", entry, re.S):
            for name in match[1].split(", "):
                found[name] = " ".join(match[2].split())
    return found


def _kind(kind: Any) -> str:
    """The values of a type, in words."""
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if NoneType in get_args(kind):
        return " or ".join(_kind(part) for part in get_args(kind))
    names = {bool: "`true` or `false`", int: "whole number", float: "number", NoneType: "`none`"}
    return names.get(kind, "path" if kind is Path else "text")


def _values(path: str, recipes: Mapping[str, Recipe]) -> tuple[str, str, str]:
    """A setting in the first recipe; in `paper`, and in the others, where it differs."""
    values = {name: attrgetter(path)(recipe) for name, recipe in recipes.items()}
    first = next(iter(values.values()))
    other = {name: _written(value) for name, value in values.items() if value != first}
    paper = other.pop("paper", "")
    return (
        _written(first),
        paper,
        "; ".join(f"`{name}`: {value}" for name, value in other.items()),
    )


def _written(value: Any) -> str:
    """A value as `--set` takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
