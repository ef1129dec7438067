"""Frozen configurations: read back from JSON, and changed field by field.

A configuration is a frozen dataclass whose fields are numbers, texts, None or configurations.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_choices(config: Any) -> None:
    """ValueError when a field with a list of valid values has another one."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            valid = " or ".join(map(repr, get_args(kind)))
            raise ValueError(f"{name}={value!r}: choose {valid}.")


def essential(value: Any) -> Any:
    """A configuration as JSON values, without the fields that have their default.

    What names results by their settings uses it: a field that is new, and whose default is what was
    done before, gives no new names.
    """
    if is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in fields(value)}
        return {
            field.name: essential(given[field.name])
            for field in fields(value)
            if field.default != given[field.name]
            and (field.default_factory is MISSING or field.default_factory() != given[field.name])
        }
    if isinstance(value, Mapping):
        return {name: essential(member) for name, member in value.items()}
    return [essential(member) for member in value] if isinstance(value, list | tuple) else value


def from_dict(config: Mapping[str, Any], kind: Any) -> Any:
    """The frozen configuration of type `kind` that `dataclasses.asdict` made `config` of.

    Where a field takes one of several configurations, it is the one that has all of the names.

    Raises ValueError for a name that the type does not have.
    """
    for member in get_args(kind) or (kind,):
        kinds = get_type_hints(member)
        if config.keys() <= kinds.keys():
            return member(
                **{
                    name: from_dict(value, kinds[name]) if isinstance(value, Mapping) else value
                    for name, value in config.items()
                }
            )
    raise ValueError(f"No settings of {kind} have the names {', '.join(config)}.")


def changed(config: Any, names: Sequence[str], path: str, text: str) -> Any:
    """A frozen configuration with the field at `names`, the end of `path`, set to `text`.

    Raises ValueError for a field that is not there and for a value that does not fit it.
    """
    kinds = {n: kind for n, kind in get_type_hints(type(config)).items() if n != "name"}
    sections = {n for n in kinds if is_dataclass(getattr(config, n))}
    name, *deeper = names
    if name not in kinds or (name in sections) != bool(deeper):
        valid = ", ".join(f"{n}.<field>" if n in sections else n for n in kinds)
        raise ValueError(f"There is no setting {path!r}. {type(config).__name__} has: {valid}.")
    if deeper:
        return replace(config, **{name: changed(getattr(config, name), deeper, path, text)})
    return replace(config, **{name: _parsed(text, kinds[name], path)})


def _parsed(text: str, kind: Any, path: str) -> Any:
    """`text` as a value of the type (Literal, bool, int, float, str; or one of them | None)."""
    if NoneType in get_args(kind):
        if text == "none":
            return None
        (kind,) = set(get_args(kind)) - {NoneType}
    if get_origin(kind) is Literal:
        return text  # checked by the configuration itself
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind in (int, float, str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if kind is str or math.isfinite(value):
            return value
    valid = {bool: "true or false", int: "a whole number", float: "a number"}
    raise ValueError(f"{path}={text!r}: this setting is {valid.get(kind, 'not one to change')}.")
