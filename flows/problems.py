"""What `sola verify` prints: everything that is wrong, and the commands that mend it."""

import json
import shlex
from dataclasses import asdict, astuple

from flows.printing import redo
from warehouse import Key, Warehouse
from warehouse.commits import printable
from warehouse.verify import (
    COLLECT,
    DELETE,
    LOOK,
    NEWER,
    RETRY,
    Problem,
    delete_damaged,
    verify,
)


def print_problems(warehouse: str, format: str, delete: bool, in_flight: float) -> int:
    """What `verify` finds and the commands that mend it; returns how many problems are left.

    Raises:
        ValueError: unknown format.
    """
    if format not in ("table", "json"):
        raise ValueError(f"there is no format {format!r}; valid are: table, json")
    store = Warehouse(warehouse)
    problems = verify(store, in_flight)
    if delete:
        delete_damaged(store, problems)
        problems = verify(Warehouse(warehouse), in_flight)
    repairs = [_repairs(warehouse, problem) for problem in problems]
    if format == "json":
        found = [asdict(p) | {"commands": m} for p, m in zip(problems, repairs, strict=True)]
        print(json.dumps(found, indent=1))
        return len(problems)
    for problem in problems:
        keys = ", ".join("/".join(filter(None, astuple(key))) for key in problem.keys[:3])
        more = f" and {len(problem.keys) - 3} more" if len(problem.keys) > 3 else ""
        about = printable(f" ({keys}{more})") if keys else ""
        print(f"{problem.path}: {printable(problem.error)}{about}")
    for command in dict.fromkeys(command for commands in repairs for command in commands):
        print(f"mend with: {command}")
    print(f"{len(problems)} problems" if problems else "every file is sound")
    return len(problems)


def _repairs(warehouse: str, problem: Problem) -> list[str]:
    """The commands that mend a problem, in order; none when somebody has to look."""
    where = f"--warehouse {shlex.quote(str(warehouse))}"
    again = sorted({redo(warehouse, problem.stage, key) for key in problem.keys})
    if problem.mend in (LOOK, NEWER, RETRY):
        return []
    if problem.mend == DELETE:
        unknown = redo(warehouse, problem.stage, Key())
        return [f"sola verify {where} --delete-damaged", *(again or [unknown])]
    return [f"sola gc {where}"] if problem.mend == COLLECT else again
