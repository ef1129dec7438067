"""A text that the encoder does not take costs its own expression, and no other."""

import shutil
from pathlib import Path

import pytest

from flows.printing import print_evaluation, print_status
from tasks.experiments.substitutions import jf_with_tokens
from tasks.runs import Run, find_run
from tasks.search.vectors import AT_MOST, searched
from tests.tasks import stages
from warehouse import Commit, Key, Warehouse
from warehouse.commits import STAGES

TOO_LONG = "the red circle " * 200
VIDEO = Key("demo", "valid_u", "valid_u_0001")


def copied(store: Warehouse, folder: Path) -> Warehouse:
    shutil.copytree(store.root, folder / "w")
    return Warehouse(folder / "w")


def evaluated(store: Warehouse, run: Run) -> Commit:
    """What the run has of VIDEO now, after what is missing was made."""
    outcomes = stages.evaluate(store, run, VIDEO.dataset, VIDEO.split)
    assert {outcome.status for outcome in outcomes} <= {"done"}
    (commit,) = store.current("evaluate", video_id=VIDEO.video_id, run_id=run.run_id).values()
    return commit


def by_expression(store: Warehouse, table: str, commit: Commit) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in store.read(table, [commit]).to_pylist():
        found.setdefault(row["expression_id"], []).append(row)
    return found


def test_the_others_are_scored_as_without_it(
    evaluated_demo: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = copied(evaluated_demo, tmp_path)
    run = find_run(store, None)
    before = evaluated(store, run)
    assert before.making.left_out == []
    rows = stages.with_texts(store, VIDEO, {1: TOO_LONG})
    after, name = evaluated(store, run), rows[1]["expression_id"]
    for table in STAGES["evaluate"]:
        expected = by_expression(store, table, before)
        assert expected.pop(name)
        assert by_expression(store, table, after) == expected
    (left_out,) = after.making.left_out
    assert left_out.startswith(f"{name}: The text 'the red circle") and "tokens" in left_out
    named = f"evaluate left out demo/valid_u/{VIDEO.video_id}/{left_out}"
    assert print_status(store.url) == 0
    assert named in capsys.readouterr().out
    print_evaluation(store.url, run.run_id, "demo", "valid_u")
    assert named in capsys.readouterr().out
    # Experiments score the expressions that the run was scored on.
    tracks = stages.default_set(store, "demo", "valid_u")
    mean = store.connect().sql("SELECT avg(jf) FROM scores").fetchall()[0][0]
    found = jf_with_tokens(store, run, "demo", "valid_u", tracks, lambda tokens_NTD: tokens_NTD)
    assert found == pytest.approx(mean)


def test_no_text_of_a_video_is_taken(evaluated_demo: Warehouse, tmp_path: Path) -> None:
    store = copied(evaluated_demo, tmp_path)
    count = len(store.read("expressions", [store.current("ingest")[VIDEO]]))
    stages.with_texts(store, VIDEO, dict.fromkeys(range(count), TOO_LONG))
    commit = evaluated(store, find_run(store, None))
    assert len(commit.making.left_out) == count
    assert {file.rows for file in commit.files.values()} == {0}


def test_references_of_search_are_texts_that_the_encoder_takes(
    evaluated_release: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.search.vectors.LONGEST_REFERENCE", 10**6)
    store = copied(evaluated_release, tmp_path)
    stages.with_texts(store, VIDEO, {1: TOO_LONG})
    expressions = store.read("expressions", store.current("ingest").values())
    texts = set(expressions["text"].to_pylist())
    chosen = searched(store, find_run(store, None)).texts
    assert TOO_LONG in texts and len(texts) < AT_MOST
    assert set(chosen) == texts - {TOO_LONG}
