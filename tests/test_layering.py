"""Imports run one way: flows -> tasks -> {sola_model, warehouse}."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("flows", "tasks", "sola_model", "warehouse")
ALLOWED = {
    "flows": {"tasks", "sola_model", "warehouse", "prefect"},
    "tasks": {"sola_model", "warehouse", "prefect"},
    "sola_model": set(),
    "warehouse": set(),
}
INSIDE = {
    "masks": set(),
    "metrics": {"masks"},
    "text": set(),
    "detection": set(),
    "extraction": {"masks"},
    "parity": {"extraction", "masks"},
    "selector": {"extraction", "masks", "metrics", "text"},
    "training": {"selector"},
}


def imported(file: Path) -> set[str]:
    """Top-level names of everything a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", INSIDE)
def test_the_method_has_layers(package):
    """Inside `sola_model`: each folder imports only what is named for it, and top-level modules."""
    for file in (ROOT / "sola_model" / package).rglob("*.py"):
        names = re.findall(r"from sola_model\.(\w+)\.", file.read_text())
        assert set(names) <= INSIDE[package] | {package}, file
    assert {path.parent.name for path in (ROOT / "sola_model").glob("*/*.py")} == set(INSIDE)


@pytest.mark.parametrize("package", OURS)
def test_imports_run_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        watched = imported(file) & {*OURS, "prefect"} - {package}
        assert watched <= ALLOWED[package], f"{file} imports {watched - ALLOWED[package]}"


def test_the_warehouse_needs_no_torch():
    for file in (ROOT / "warehouse").rglob("*.py"):
        assert "torch" not in imported(file), file


def test_sam2_is_imported_by_one_file():
    files = [file for name in OURS for file in (ROOT / name).rglob("*.py")]
    assert [f.name for f in files if "sam2" in imported(f)] == ["sam2_models.py"]


def test_groundingdino_is_imported_by_one_file():
    """The optional package is imported by name: strings that name its modules count, too."""
    users = []
    for file in (file for name in OURS for file in (ROOT / name).rglob("*.py")):
        if "groundingdino" in (text := file.read_text()):
            nodes = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant))
            named = any(str(node.value).startswith("groundingdino.") for node in nodes)
            if named or "groundingdino" in imported(file):
                users.append(file.name)
    assert users == ["detector_original.py"]


EACH_FIRST = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [known for known in sys.modules if known.partition(".")[0] == "tasks"]:
        del sys.modules[known]
    importlib.import_module(name)
"""


def test_every_module_of_tasks_can_be_imported_first() -> None:
    files = (file.relative_to(ROOT).with_suffix("") for file in (ROOT / "tasks").rglob("*.py"))
    names = sorted(".".join(file.parts).removesuffix(".__init__") for file in files)
    done = subprocess.run(
        [sys.executable, "-c", EACH_FIRST, *names], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
