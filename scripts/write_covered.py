"""Write tests/golden/covered.json: each stage's version and a digest of the code it speaks for.

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


def code_of(source: str) -> str:
    """Python code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.unparse(tree)


if __name__ == "__main__":
    COVERED.write_text(json.dumps(covered(), indent=1) + "\n")
