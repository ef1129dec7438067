"""A run of the time before there were two towers and videos kept out is used as it was.

Its files lack what came later: columns of `runs`, settings of its recipe and of its weights.
"""

import hashlib
import html
import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.report_page.page import write_report
from tasks.runs import find_run
from tasks.search.track_search import search
from tasks.search.vectors import searched, unmade_vectors, vector_plan
from tasks.training.train import run_recipe
from tests.tasks import stages
from tests.tasks.conftest import RELEASE
from tests.tasks.test_label_export import quiet
from warehouse import Warehouse


@pytest.fixture
def old(evaluated_release: Warehouse, tmp_path: Path) -> Warehouse:
    """The warehouse with its run as it would have been written then."""
    root = shutil.copytree(evaluated_release.root, tmp_path / "w")
    (commit,) = Warehouse(root).current("train").values()
    table = pq.ParquetFile(root / commit.files["runs"].path).read().drop_columns("tau_videos")
    (row,) = table.to_pylist()
    config = json.loads(row["config"])
    del config["selector"]["separate_streams"], config["training"]["kept_out"]
    config_column = pa.array([json.dumps(config)], table.schema.field("config").type)
    place = table.column_names.index("config")
    runs = root / f"data/runs/{uuid.uuid4().hex}.parquet"  # without a checksum in the name
    pq.write_table(table.set_column(place, "config", config_column), runs)
    weights = f"{row['weights']}/selector.json"
    settings = json.loads((root / weights).read_text())
    del settings["separate_streams"]
    (root / weights).write_text(json.dumps(settings))
    file = replace(
        commit.files["runs"],
        path=runs.relative_to(root).as_posix(),
        sha256=_sha256(runs),
        file_sha256=_sha256(runs),
    )
    Warehouse(root).log.append(
        "train",
        commit.key,
        commit.fingerprint,
        files=commit.files | {"runs": file},
        weights=dict(commit.weights) | {weights: _sha256(root / weights)},
    )
    return Warehouse(root)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_its_recipe_is_complete_and_its_scores_are_up_to_date(old: Warehouse) -> None:
    run = find_run(old, None)
    assert run.tau_videos is None and run.calibration is not None
    assert old.connect().sql("SELECT tau_videos FROM runs").fetchall() == [(None,)]
    assert run_recipe(old.url, run.run_id) == stages.with_tracks(RELEASE, ground_truth=True)
    assert stages.scores_of(old, run, "demo", "valid_u").missing() == []


def test_it_scores_and_finds_what_it_did(evaluated_release: Warehouse, old: Warehouse) -> None:
    run = find_run(old, None)
    plan = stages.scores_of(old, run, "demo", "valid_u")
    for commit in old.current("evaluate").values():
        old.withdraw(commit)
    assert {o.status for o in stages.make(plan)} == {"done"}
    for table in ("predictions", "scores", "threshold_scores"):
        sql = f"SELECT * FROM {table} ORDER BY ALL"
        before, now = (store.connect().sql(sql).fetchall() for store in (evaluated_release, old))
        assert now == before
    vectors = vector_plan(old, searched(old, run), split="valid_u")
    stages.make(vectors)
    assert unmade_vectors(vectors) == (set(), set())
    sql = "FROM predictions JOIN expressions USING (dataset, split, video_id, expression_id)"
    rows = old.connect().sql(f"SELECT text, video_id, track_id, score {sql}").fetchall()
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
