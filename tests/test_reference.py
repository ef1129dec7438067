"""docs/reference.md is what the code says, and the code says something of everything."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

from typer.main import get_command

from flows.cli import app
from scripts.write_reference import REFERENCE, field_docs, reference
from sola_model.recipes import Recipe


def test_the_committed_page_is_up_to_date() -> None:
    committed = REFERENCE.read_text(encoding="utf-8")
    assert committed == reference(), "run `python -m scripts.write_reference` and commit the page"


def test_every_option_has_help() -> None:
    for name, command in get_command(app).commands.items():
        assert not [p.name for p in command.params if not p.help], name


def test_every_setting_has_a_description() -> None:
    assert not list(undescribed(Recipe))


def undescribed(kind: type) -> Iterator[str]:
    described = field_docs(kind)
    for name, part in get_type_hints(kind).items():
        sections = [section for section in get_args(part) or (part,) if is_dataclass(section)]
        for section in sections:
            yield from undescribed(section)
        if sections:
            continue
        if name not in described and name != "name":
            yield f"{kind.__name__}.{name}"
    yield from (f"{kind.__name__}: {n}" for n in described.keys() - {f.name for f in fields(kind)})
