"""Write tests/golden/covered.json: of each stage the version, and what the code is that it covers.

python -m scripts.write_covered

Run it when you have looked whether a change of that code changes the stage's results, and raised
the stage's `version` if it does.
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.stages import ALL

ROOT = Path(__file__).parents[1]
COVERED = ROOT / "tests" / "golden" / "covered.json"


def covered() -> dict[str, dict[str, Any]]:
    """Stage -> its version, and the digest of each module that it covers."""
    return {
        stage.name: {
            "version": stage.version,
            "code": {module: digest(module) for module in stage.covers},
        }
        for stage in ALL
        if stage.covers
    }


def digest(module: str) -> str:
    """16 hexadecimal digits of a module's code, or a package's, without comments and docstrings.

    Raises FileNotFoundError when there is no such module.
    """
    path = ROOT / module.replace(".", "/")
    files: Iterable[Path] = sorted(path.rglob("*.py")) or [path.with_suffix(".py")]
    code = [[file.relative_to(ROOT).as_posix(), code_of(file.read_text("utf-8"))] for file in files]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def code_of(source: str) -> Any:
    """Python code as JSON values, without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return _plain(tree)


def _plain(node: Any) -> Any:
    """A syntax tree as JSON values, the same in every version of Python."""
    if isinstance(node, ast.AST):
        found = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
        return [type(node).__name__, {name: _plain(value) for name, value in found.items()}]
    return [_plain(each) for each in node] if isinstance(node, list) else repr(node)


if __name__ == "__main__":
    COVERED.write_text(json.dumps(covered(), indent=1) + "\n")
