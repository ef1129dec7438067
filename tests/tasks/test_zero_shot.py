"""A run on data sets that it was not trained on, from their files to the printed summary."""

from dataclasses import replace
from pathlib import Path

import pytest

from flows.printing import print_evaluation
from sola_model.recipes import DEMO
from tasks.runs import find_run
from tasks.stages.ingest import ingest_split
from tests.layouts import write_mevis_v2, write_ref_davis17
from tests.tasks import stages
from tests.untrained import publish_untrained
from warehouse import Warehouse

RECIPE = replace(DEMO, tau=0.5, extraction=replace(DEMO.extraction, max_tracks=4))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A warehouse with a selector that never was trained, but says it was, on "demo"."""
    store = Warehouse.create(tmp_path_factory.mktemp("w"))
    publish_untrained(store, RECIPE)
    return store


def evaluated(store: Warehouse, dataset: str, root: Path, split: str) -> list[tuple]:
    """Ingest, precompute and evaluate; J&F, oracle J&F, targets of every expression."""
    outcomes = ingest_split(str(store.root), dataset, str(root), split)
    outcomes += stages.precompute(store, dataset, split, RECIPE)
    outcomes += stages.evaluate(store, find_run(store, "run"), dataset, split)
    assert {outcome.status for outcome in outcomes} == {"done"}, outcomes
    sql = f"SELECT jf, oracle_jf, targets FROM expression_scores WHERE dataset = '{dataset}'"
    return store.connect().sql(sql).fetchall()


def test_no_target_expressions_have_their_accuracies(store, tmp_path, capsys) -> None:
    write_mevis_v2(tmp_path, {"valid_u": 1}, frames=4)
    rows = evaluated(store, "mevis-v2", tmp_path, "valid_u")
    assert 0 in [targets for _, _, targets in rows]
    assert all(oracle == 1 for _, oracle, targets in rows if targets == 0)
    assert all(0 <= jf <= 1 for jf, _, _ in rows)
    print_evaluation(store.root, "run", "mevis-v2", "valid_u")
    printed = capsys.readouterr().out
    assert "zero-shot, trained on demo/train" in " ".join(printed.split())
    assert "N-acc" in printed and "challenge" in printed


def test_void_pixels_do_not_count(store, tmp_path, capsys) -> None:
    write_ref_davis17(tmp_path, {"val": 1}, frames=4)
    rows = evaluated(store, "ref-davis17", tmp_path, "val")
    assert len(rows) % 4 == 0
    objects = store.connect().sql("SELECT DISTINCT object_id FROM ground_truth").fetchall()
    assert ("void",) in objects
    assert max(oracle for _, oracle, _ in rows) > 0.7
    print_evaluation(store.root, "run", "ref-davis17", "val")
    printed = capsys.readouterr().out
    assert "N-acc" not in printed and "sola submit --dataset ref-davis17" in printed
