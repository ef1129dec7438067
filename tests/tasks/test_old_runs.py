"""A run of the time before there were two towers, videos kept out and track sets is used as it was.

Its files lack what came later: columns of `runs`, settings of its recipe and of its weights. Its
warehouse, of format 2, goes through the upgrade.
"""

import html
from contextlib import nullcontext
from pathlib import Path

import pytest

from tasks import stages
from tasks.report_page.page import write_report
from tasks.runs import Run, find_run
from tasks.search.track_search import search
from tasks.search.vectors import SEARCH, searched, unmade_vectors, vector_plan
from tasks.stage import Plan, make_each
from tasks.stages.evaluate import score_plan
from tasks.training.train import run_recipe
from tasks.upgrade.format_2 import upgrade
from tests.format_2.old_warehouse import unpack
from warehouse import Warehouse

TABLES = ("predictions", "scores", "threshold_scores")


@pytest.fixture
def old(tmp_path: Path) -> Warehouse:
    root = unpack(tmp_path / "w")
    upgrade(str(root))
    return Warehouse(root)


def quiet(stage: str, total: int) -> nullcontext:
    return nullcontext(lambda videos, failed: None)


def scores_of(old: Warehouse, run: Run) -> Plan:
    return score_plan(old, run, "demo", "valid_u", run.tracks_of(old, "demo", "valid_u").name)


def test_its_recipe_is_complete_and_its_scores_are_up_to_date(old: Warehouse) -> None:
    run = find_run(old, None)
    assert run.tau_videos is None and run.calibration is not None
    assert old.connect().sql("SELECT tau_videos FROM runs").fetchall() == [(None,)]
    recipe = run_recipe(old.url, run.run_id)
    assert (recipe.name, recipe.tau) == ("demo+epochs=2", 0.5)
    assert recipe.selector.separate_streams is False and recipe.training.kept_out == 0
    assert scores_of(old, run).missing() == []


def test_it_scores_and_finds_what_it_did(old: Warehouse) -> None:
    run = find_run(old, None)
    queries = [f"SELECT * FROM {table} ORDER BY ALL" for table in TABLES]
    before = [old.connect().sql(query).fetchall() for query in queries]
    for commit in old.current("evaluate").values():
        old.withdraw(commit)
    plan = scores_of(old, run)
    assert {o.status for o in make_each(stages.EVALUATE, old, plan.wanted, run)} == {"done"}
    now = [old.connect().sql(query).fetchall() for query in queries]
    for rows_before, rows_now in zip(before, now, strict=True):
        assert len(rows_before) == len(rows_now) > 0
        for row_before, row_now in zip(rows_before, rows_now, strict=True):
            assert row_now == pytest.approx(row_before, abs=1e-5)
    vectors = vector_plan(old, searched(old, run), split="valid_u")
    make_each(SEARCH, old, vectors.wanted, vectors.subject)
    assert unmade_vectors(vectors) == (set(), set())
    sql = "FROM predictions JOIN expressions USING (dataset, split, video_id, expression_id)"
    sql += " JOIN prompts USING (dataset, split, video_id, track_set, track_id)"
    sql = f"SELECT text, video_id, track_id, score {sql} WHERE source = 'grid'"
    rows = old.connect().sql(sql).fetchall()
    text = min(rows)[0]
    scores = {(video, track): score for of, video, track, score in rows if of == text}
    hits = search(vectors, text, top=100, exact=50).hits
    found = {(hit.video_id, hit.track_id): hit.score for hit in hits}
    assert {place: found[place] for place in scores} == pytest.approx(scores, abs=1e-5)


def test_its_report_says_where_its_probabilities_come_from(old: Warehouse, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    write_report(old.url, None, "demo", ["valid_u"], out, 1.0, 1, quiet)
    page = html.unescape(out.read_text(encoding="utf-8"))
    assert "the run's validation split" in page and "kept out" not in page
