"""Every layout from its files to a submission that scores what the warehouse says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sola_model.recipes import DEMO
from tasks.results.score import score_submission
from tasks.results.submission import write_submission
from tasks.runs import Run
from tasks.stages.ingest import ingest_split
from tests.layouts import (
    write_labelled,
    write_mevis,
    write_mevis_v2,
    write_pascal_voc,
    write_ref_davis17,
    write_ref_youtube_vos,
)
from tests.tasks import stages
from warehouse import Warehouse

RECIPE = replace(
    DEMO,
    training=replace(DEMO.training, epochs=1),
    extraction=replace(DEMO.extraction, max_tracks=4),
    tau=0.3,
)


@contextmanager
def no_progress(stage: str, total: int) -> Iterator[Callable[[int, int], None]]:
    yield lambda videos, failed: None


def run_all(root: str, dataset: str, data: Path, split: str, validation: str) -> Run:
    """The stages of both splits; returns the run."""
    for part in (split, validation):
        outcomes = ingest_split(root, dataset, str(data), part)
        assert {o.status for o in outcomes} == {"done"}, outcomes
        store = Warehouse(root)
        tracks = stages.precompute(store, dataset, part, RECIPE)
        assert {o.status for o in tracks} == {"done"}, tracks
        labels = stages.label(store, dataset, part, RECIPE)
        assert labels and {o.status for o in labels} == {"done"}, labels
    run = stages.train(store, [(dataset, split)], [(dataset, validation)], RECIPE)
    outcomes = stages.evaluate(store, run, dataset, validation)
    assert {o.status for o in outcomes} == {"done"}, outcomes
    return run


@pytest.mark.parametrize(
    ("dataset", "write", "validation", "scored_in"),
    [
        ("mevis", write_mevis, "valid_u", "valid_u"),
        ("mevis-v2", write_mevis_v2, "valid_u", "valid_u"),
        ("ref-youtube-vos", write_ref_youtube_vos, "valid", "valid"),
        ("ref-davis17", write_ref_davis17, "val", "."),
        ("pascal-voc", write_pascal_voc, "val", None),
        ("labelled", write_labelled, "val", "val"),
    ],
)
def test_from_files_to_a_submission(dataset, write, validation, scored_in, tmp_path):
    write(tmp_path / "data")
    root = str(tmp_path / "warehouse")
    run = run_all(root, dataset, tmp_path / "data", "train", validation)
    rows = Warehouse(root).connect().sql("SELECT * FROM scores").to_arrow_table().to_pylist()
    expected = {(row["video_id"], row["expression_id"]): row["jf"] for row in rows}
    assert expected
    out = tmp_path / "submission.zip"
    assert write_submission(root, run.run_id, dataset, validation, out, 1, no_progress) > 0
    if scored_in is None:  # no benchmark of expressions
        return
    submission = score_submission(tmp_path / "data" / scored_in, out, None, 1, no_progress)
    scored = {(e.video_id, e.expression_id): e.jf for e in submission.expressions}
    if dataset == "ref-davis17":  # scored by objects, after matching them
        assert set(scored) == set(expected)
    else:
        assert scored == pytest.approx(expected)
