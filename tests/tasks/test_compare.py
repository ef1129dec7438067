"""Two runs compared, and what the commands print of their scores."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.printing import print_evaluation
from sola_model.recipes import DEMO
from tasks.results.compare import compare_runs
from tasks.track_sets import remember, track_set_of
from tests.tasks import stages
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.commits import STAGES, Making

VIDEOS, EXPRESSIONS = 6, 4
TRACKS = track_set_of(DEMO)
OTHER = track_set_of(stages.with_tracks(DEMO, max_tracks=2))
TARGETS = {"0": ["1"], "1": ["1", "2"], "2": [], "3": ["2"]}


def filled(table: str, records: list[dict]) -> pa.Table:
    """Rows of `table`; columns not given are 0 or empty."""
    zeros = {
        field.name: []
        if pa.types.is_list(field.type)
        else pa.array(["0"]).cast(field.type)[0].as_py()
        for field in TABLES[table]
        if not field.nullable
    }
    return pa.Table.from_pylist([zeros | record for record in records], schema=TABLES[table])


def jf(run: str, video: int, expression: int) -> float:
    """Run b is 0.1 better than a on expression 1, 0.2 worse on expression 3 of video 0."""
    base = 0.3 + 0.05 * video + 0.02 * expression
    if run == "b" and expression == 1:
        return base + 0.1
    return base - 0.2 * (run == "b" and expression == 3 and video == 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Warehouse.create(tmp_path_factory.mktemp("w"))
    for run in ("a", "b", "elsewhere"):
        record = {"run_id": run, "dataset": "mevis", "split": "train"}
        record |= {"config": json.dumps(asdict(DEMO)), "tau_videos": None}
        tables = {"runs": [record], "training_metrics": []}
        store.publish("train", Key(run_id=run), "f", {n: filled(n, r) for n, r in tables.items()})
    for split in ("valid_u", "train"):
        remember(store, "ref-davis17", split, TRACKS)
    for video in range(VIDEOS):
        for split, runs in (("valid_u", ("a", "b")), ("train", ("elsewhere",))):
            name = {"dataset": "ref-davis17", "split": split, "video_id": f"v{video}"}
            ingest = {
                "videos": [name | {"frame_count": 8}],
                "expressions": [
                    name | {"expression_id": e, "object_ids": ids, "text": f"text {e}"}
                    for e, ids in TARGETS.items()
                ],
                "ground_truth": [],
            }
            tables = {n: filled(n, r) for n, r in ingest.items()}
            store.publish("ingest", Key(**name), "f", tables)
            name |= {"track_set": TRACKS.name}
            for run in runs:
                scores = [
                    name | {"run_id": run, "expression_id": str(e), "jf": jf(run, video, e),
                            "j": jf(run, video, e), "f": jf(run, video, e), "oracle_jf": 0.9}
                    for e in range(EXPRESSIONS)
                ]  # fmt: skip
                by_tau = [
                    {n: v for n, v in s.items() if n != "oracle_jf"} | {"tau": tau, "jf": tau}
                    for s in scores for tau in (0.25, 0.75)
                ]  # fmt: skip
                made = {"predictions": [], "scores": scores, "threshold_scores": by_tau}
                tables = {n: filled(n, r) for n, r in made.items()}
                store.publish("evaluate", Key(**name, run_id=run), "f", tables)
    return store.root


def test_the_paired_difference(root: Path) -> None:
    found = compare_runs(Warehouse(root), "a", "b", "ref-davis17", "valid_u")
    overall, cells = found.overall, [(v, e) for v in range(VIDEOS) for e in range(EXPRESSIONS)]
    assert (overall.expressions, overall.videos) == (24, 6)
    assert overall.jf_a == pytest.approx(np.mean([jf("a", *cell) for cell in cells]))
    assert overall.difference == pytest.approx((6 * 0.1 - 0.2) / 24)
    # Video 0 has mean -0.025, the others 0.025.
    assert -0.025 < overall.low < overall.difference < overall.high == pytest.approx(0.025)
    by_slice = {(each.slice, each.value): each for each in found.slices}
    assert by_slice["targets", "2"].difference == pytest.approx(0.1)
    assert (by_slice["targets", "2"].low, by_slice["targets", "2"].high) == pytest.approx(
        (0.1,) * 2
    )
    assert by_slice["targets", "0"].difference == 0
    assert by_slice["targets", "1"].expressions == 12
    assert [(p.video_id, p.expression_id, p.text) for p in found.worse] == [("v0", "3", "text 3")]
    assert len(found.better) == 6 and {p.expression_id for p in found.better} == {"1"}


def test_two_track_sets_of_a_run(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "w")
    store = Warehouse(tmp_path / "w")
    remember(store, "ref-davis17", "valid_u", OTHER)
    for video in range(VIDEOS):
        key = Key(dataset="ref-davis17", split="valid_u", video_id=f"v{video}")
        name = {"dataset": key.dataset, "split": key.split, "video_id": key.video_id}
        name |= {"track_set": OTHER.name, "run_id": "a"}
        scores = [
            name | {"expression_id": str(e), "jf": jf("a", video, e), "oracle_jf": oracle}
            for e, oracle in enumerate((0.9, 0.5 if video == 2 else 0.9, 0.95, 0.9))
        ]
        made = {"predictions": [], "scores": scores, "threshold_scores": []}
        tables = {n: filled(n, r) for n, r in made.items()}
        store.publish("evaluate", key.of(track_set=OTHER.name, run_id="a"), "f", tables)
        for track_set, seconds in ((TRACKS, 8.0), (OTHER, 2.0 + video)):
            tables = {n: filled(n, []) for n in STAGES["precompute"]}
            making = Making(wall_seconds=seconds)
            of_set = key.of(track_set=track_set.name)
            store.publish("precompute", of_set, "f", tables, making=making)
    found = compare_runs(
        store, "a", "a", "ref-davis17", "valid_u", tracks_a=TRACKS.name, tracks_b=OTHER.name
    )
    assert found.overall.difference == 0
    of_tracks = found.of_tracks
    assert of_tracks.oracle.difference == pytest.approx((6 * 0.05 - 0.4) / 24)
    assert [(p.video_id, p.expression_id) for p in of_tracks.worse] == [("v2", "1")]
    assert {p.expression_id for p in of_tracks.better} == {"2"} and len(of_tracks.better) == 6
    assert (of_tracks.seconds_a, of_tracks.seconds_b) == (8.0, 4.5)
    asked = ["--dataset", "ref-davis17", "--tracks-a", TRACKS.name, "--tracks-b", OTHER.name]
    shown = sola("compare", "a", "a", *asked, "--warehouse", store.url)
    assert "took 8 s in A, 4.5 s in B" in shown
    assert re.search(r"oracle most worse in B.*v2 .* 90\.00 .* 50\.00", shown, re.S)


def test_a_run_against_itself_does_not_differ(root: Path) -> None:
    found = compare_runs(Warehouse(root), "a", "a", "ref-davis17", "valid_u")
    assert (found.overall.difference, found.overall.low, found.overall.high) == (0, 0, 0)
    assert found.worse == found.better == []
    assert found.of_tracks is None


def test_nothing_in_common(root: Path) -> None:
    with pytest.raises(
        WarehouseError, match=r"Scored are: a on ref-davis17/valid_u, tracks \S+ \(24\), elsewh"
    ):
        compare_runs(Warehouse(root), "a", "elsewhere", "ref-davis17", "valid_u")
    with pytest.raises(WarehouseError, match=r"none of theirs.*sola evaluate --dataset mevis"):
        compare_runs(Warehouse(root), "x", "y", "mevis", "train")


def sola(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_the_command_prints_a_table_or_json(root: Path) -> None:
    where = ["compare", "--warehouse", str(root), "--dataset", "ref-davis17"]
    text = sola(*where, "a", "b")
    for part in ("A = a, B = b", "+1.67", "+10.00", "most worse in B", "text 3"):
        assert part in text
    found = json.loads(sola(*where, "--format", "json", "a", "b"))
    assert found["overall"]["difference"] == pytest.approx(0.4 / 24)
    assert found["worse"][0]["jf_a"] == pytest.approx(jf("a", 0, 3))
    assert "error: runs a and x have no scores" in sola(*where, "a", "x")
    assert "valid are: table, json" in sola(*where, "--format", "csv", "a", "b")


def test_the_summary_after_evaluate(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(root, "a", "ref-davis17", "valid_u")
    text = capsys.readouterr().out
    for part in (
        "a on ref-davis17/valid_u in percent (zero-shot, trained on mevis/train)",
        "N-acc 0.00, T-acc 100.00",
        "lost in tracks 10.00",
        "best threshold on this split 0.75: J&F 75.00, an optimistic number",
        "sola submit --dataset ref-davis17 --split valid_u --run a --out FILE.zip",
    ):
        assert part in " ".join(text.split()), part
    print_evaluation(root, "b", "ref-davis17", "train")
    assert "ref-davis17/train has no scores of b" in capsys.readouterr().out
