"""Nobody changes what a stage computes without looking at its version."""

import importlib.util
import json
import textwrap
from pathlib import Path

import pytest

from scripts.write_covered import COVERED, code_of, covered
from tasks.stage import Stage
from tasks.stages import ALL

LOOK = (
    "The code that stage {stage!r} covers has changed: {modules}. Look whether it gives other "
    "results for the same inputs and settings. If so, raise the `version` of the stage. Then run "
    "`python -m scripts.write_covered`."
)


def test_the_code_of_each_stage_was_looked_at() -> None:
    known = json.loads(COVERED.read_text())
    for stage, now in covered().items():
        before = known.get(stage, {"version": None, "code": {}})
        modules = [m for m, code in now["code"].items() if before["code"].get(m) != code]
        assert not modules, LOOK.format(stage=stage, modules=", ".join(modules))
    assert known == covered(), "run `python -m scripts.write_covered`"


@pytest.mark.parametrize("stage", [s for s in ALL if s.make], ids=lambda stage: stage.name)
def test_a_stage_covers_the_code_that_its_module_computes_with(stage: Stage) -> None:
    """Of `sola_model` and the tasks, all that the module of its `make` imports."""
    assert stage.make
    module = importlib.util.find_spec(stage.make.__module__)
    assert module and module.origin
    used = {
        line.split()[1]
        for line in map(str.strip, Path(module.origin).read_text().splitlines())
        if line.startswith(("from sola_model.", "from tasks.tables", "from tasks.stages.scoring"))
    }
    settings = ("sola_model.recipe", "sola_model.settings")
    for name in sorted(used):
        if not name.startswith(settings):
            assert name.startswith(stage.covers), f"{stage.name} computes with {name}"


def test_comments_and_docstrings_are_no_code() -> None:
    source = '''
    """A module."""
    def twice(x):
        """2 x"""
        return 2 * x  # exact
    '''
    code = code_of(textwrap.dedent(source))
    assert code == code_of("def twice(x): return (2 * x)")
    assert code != code_of("def twice(x): return 3 * x")
