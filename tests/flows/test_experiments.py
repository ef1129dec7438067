"""Every experiment at tiny size: its switch does what it says, its numbers reach the warehouse."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prefect.task_runners import ThreadPoolTaskRunner
from typer.testing import CliRunner

from flows.cli import app
from flows.experiment import EXPERIMENTS, experiment
from flows.experiments import analysis, counterfactual, fresh, robustness, transfer
from sola_model.extraction.sam2_models import DEMO_CHECKPOINT
from tests.layouts import write_mevis
from warehouse import Warehouse
from warehouse.corruptions import CORRUPTIONS
from warehouse.demo_data import clip_of, write_dataset
from warehouse.queries import load_query

QUICK = ["training.epochs=1"]


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    """Videos are computed by a thread: starting processes would take longer than the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.fanout.video_workers", lambda *_: ThreadPoolTaskRunner(max_workers=1))
        patch.setattr(robustness, "SEVERITIES", (1, 5))
        patch.setattr(transfer, "LONG", {"train": 1, "valid_u": 1})
        patch.setattr(transfer, "LONG_FRAMES", 12)
        patch.setattr(analysis, "TIMED_VIDEOS", 1)
        patch.setattr(counterfactual, "PAIRS", 1)
        patch.setattr(fresh, "CLIPS", 2)
        yield


@pytest.fixture(scope="module")
def run(prefect_server: str, tmp_path_factory: pytest.TempPathFactory):
    """Runs experiments on one warehouse of 3 and 2 clips; gives their rows of `experiments`."""
    folder = tmp_path_factory.mktemp("experiments")
    write_dataset(folder / "data", {"train": 3, "valid_u": 2}, seed=1, frames=8)
    for file in folder.glob("data/*/meta_expressions.json"):
        keep_expressions(file, 5)
    root = folder / "w"

    def rows(*names: str, seeds: int = 1) -> list[dict]:
        assert not experiment(
            str(root), names, "demo", str(folder / "data"), changes=QUICK, seeds=seeds, workers=1
        )
        return ask(Warehouse(root), "SELECT * FROM experiments ORDER BY position", names)

    rows.root = root
    return rows


def keep_expressions(file: Path, count: int) -> None:
    """Leave the first of each video: with few, some tracks are background in training."""
    meta = json.loads(file.read_text())
    for video in meta["videos"].values():
        video["expressions"] = dict(list(video["expressions"].items())[:count])
    file.write_text(json.dumps(meta))


def ask(store: Warehouse, sql: str, names: tuple[str, ...] = ()) -> list[dict]:
    with store.connect() as connection:
        found = connection.sql(sql).to_arrow_table().to_pylist()
    return [row for row in found if not names or row["experiment"] in names]


def track_sets(root: Path, where: str) -> list[str]:
    """The names of the validation split's track sets."""
    sql = f"FROM track_sets WHERE dataset = 'demo' AND split = 'valid_u' AND {where} ORDER BY ALL"
    return [row["track_set"] for row in ask(Warehouse(root), sql)]


def predictions(
    root: Path, run_id: str, tracks: str | None = None, split: str = "valid_u"
) -> dict[tuple, float]:
    """The alignment score of every expression and candidate track of a split.

    Of a track set; None: of the only one that the run has selected from, or of the split's default.
    """
    if tracks is None:
        default = "SELECT track_set FROM default_tracks"
        of_split = f"WHERE dataset = 'demo' AND split = '{split}'"
        found = ask(Warehouse(root), f"{default} {of_split}") or ask(
            Warehouse(root), f"SELECT DISTINCT track_set FROM predictions {of_split}"
        )
        (tracks,) = [row["track_set"] for row in found]
    sql = f"""
        FROM predictions WHERE run_id = '{run_id}' AND dataset = 'demo' AND split = '{split}'
        AND track_set = '{tracks}'
    """
    rows = ask(Warehouse(root), sql)
    return {(r["video_id"], r["expression_id"], r["track_id"]): r["score"] for r in rows}


def by_variant(rows: list[dict]) -> dict[str, str]:
    """variant -> run id"""
    return {row["variant"]: row["run_id"] for row in rows if row["run_id"]}


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("table5a", 2),
        ("table5b", 3),
        ("tableA2b", 3),
        ("geometry", 2),
        ("alignment", 2),
        ("streams", 4),
    ],
)
def test_every_variant_of_an_ablation_scores_otherwise(run, name: str, variants: int) -> None:
    runs = by_variant(run(name))
    found = [predictions(run.root, run_id) for run_id in runs.values()]
    assert len(found) == variants and all(found)
    assert all(a.keys() == b.keys() for a in found for b in found)
    assert not any(a == b for n, a in enumerate(found) for b in found[:n])


def test_means_spread_and_the_papers_numbers(run, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in run("table5a", seeds=2) if row["metric"] == "jf"]
    assert [row["seed"] for row in rows] == [0, 1, 0, 1]
    sql = f"FROM ({load_query('experiments_summary')}) WHERE metric = 'jf'"
    without, with_it = ask(Warehouse(run.root), sql, ("table5a",))
    values = [100 * row["value"] for row in rows[2:]]
    assert with_it["variant"] == "with alignment loss" and with_it["unit"] == "%"
    assert with_it["mean"] == pytest.approx(np.mean(values), abs=1e-3)
    assert with_it["spread"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
    assert (without["paper"], with_it["paper"]) == (44.5, 48.6)
    printed = capsys.readouterr().out
    assert f"{with_it['mean']:.1f} ± {with_it['spread']:.1f}" in printed and "48.6" in printed


def test_the_results_of_all_experiments_are_one_page(run, tmp_path: Path) -> None:
    run("table5a", seeds=2)
    rows = run("learning_curve")
    command = ["experiment", "learning_curve", "--dataset", "demo", "--root",
               run.root.parent / "data", "--seeds", "1", "--set", QUICK[0], "--warehouse", run.root,
               "--out", tmp_path, "--workers", "1"]  # fmt: skip
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "README.md").read_text()
    assert page.index("## table5a") < page.index("## learning_curve")
    assert f"| {rows[0]['variant']} | {100 * rows[0]['value']:.1f} |" in page
    assert "| with alignment loss |" in page and "48.6" in page
    (picture,) = tmp_path.glob("*.png")
    assert f"]({picture.name})" in page and picture.name == "learning_curve-demo-valid_u.png"


def test_an_experiment_that_was_run_costs_nothing(run) -> None:
    run("table5a", seeds=2)
    before = sorted(run.root.rglob("*"))
    run("table5a", seeds=2)
    assert sorted(run.root.rglob("*")) == before


def test_background_is_left_out_where_it_says(run) -> None:
    runs = by_variant(run("tableA2a"))
    (boxed,) = track_sets(run.root, "sources = 'grid+boxes'")
    scores = {name: predictions(run.root, run_id, boxed) for name, run_id in runs.items()}
    prompts = ask(Warehouse(run.root), f"FROM prompts WHERE track_set = '{boxed}'")
    grid = {
        (p["video_id"], p["track_id"])
        for p in prompts
        if (p["source"], p["fate"]) == ("grid", "tracked")
    }
    own_boxes = {
        (p["video_id"], p["expression_id"], p["track_id"])
        for p in prompts
        if p["source"] == "box" and p["track_id"] is not None
    }
    for name in ("neither", "training only"):
        assert scores[f"background in {name}"].keys() == own_boxes
    for name in ("inference only", "both"):
        assert {(v, track) for v, _, track in scores[f"background in {name}"]} >= grid
    assert own_boxes < scores["background in both"].keys()
    assert scores["background in neither"] != scores["background in training only"]
    assert scores["background in inference only"] != scores["background in both"]
    used = {row["run_id"]: row["weights"] for row in ask(Warehouse(run.root), "FROM runs")}
    weights = {name: used[run_id] for name, run_id in runs.items()}
    assert weights["background in training only"] == weights["background in both"]
    assert weights["background in neither"] == weights["background in inference only"]


def test_corrupted_videos_have_other_tracks(run) -> None:
    rows = run("tableA1")
    jf = {row["variant"]: row for row in rows if row["metric"] == "jf"}
    corrupted = [f"{name} {severity}" for name in CORRUPTIONS for severity in (1, 5)]
    assert list(jf) == ["clean", *corrupted]
    assert {name: row["paper"] for name, row in jf.items() if row["paper"] is not None} == {
        "gaussian_noise 5": pytest.approx(0.444), "motion_blur 5": pytest.approx(0.398)
    }  # fmt: skip
    noisy = track_sets(run.root, "corruption = 'gaussian_noise-1'")
    blurred = track_sets(run.root, "corruption = 'motion_blur-1'")
    clean = ask(Warehouse(run.root), "FROM default_tracks WHERE split = 'valid_u'")
    assert len(noisy) == len(blurred) == 1
    sets = [*noisy, *blurred, clean[0]["track_set"]]
    sql = f"""
        SELECT track_set, list(token ORDER BY ALL) AS tokens FROM tokens
        WHERE dataset = 'demo' AND split = 'valid_u' AND track_set IN {tuple(sets)} GROUP BY ALL
    """
    tokens = ask(Warehouse(run.root), sql)
    assert len(tokens) == 3
    assert not any(a["tokens"] == b["tokens"] for n, a in enumerate(tokens) for b in tokens[:n])


def test_the_main_result_and_transfer(run) -> None:
    tables = {name: run(name) for name in ("table1", "table2", "table3", "table4")}
    runs = {row["run_id"]: row for row in ask(Warehouse(run.root), "FROM runs")}
    (size,) = [row for row in tables["table1"] if row["unit"] == "M"]
    assert size["value"] == runs[tables["table1"][0]["run_id"]]["parameters"] / 1e6
    assert size["paper"] == 32.9
    assert {row["measured_on"] for row in tables["table2"]} == {"demo-long/valid_u"}
    alone, together = by_variant(tables["table3"]).values()
    assert [runs[r]["dataset"] for r in (alone, together)] == ["demo", "demo+demo-long"]
    assert predictions(run.root, alone) != predictions(run.root, together)
    without, with_it = by_variant(tables["table4"]).values()
    assert without.startswith("detector-only") and with_it == alone


def test_similarity_of_tokens_and_what_they_tell(run) -> None:
    similarity = [row["value"] for row in run("figure4") if row["metric"] == "similarity, mean"]
    assert similarity and all(-1 <= value <= 1 for value in similarity)
    assert (run.root / "experiments/figure4-demo-valid_u.png").stat().st_size > 1000
    found = {(row["variant"], row["metric"]): row["value"] for row in run("probe")}
    assert found["position", "R^2"] != found["position", "R^2, permuted"]
    assert all(0 <= found[what, "accuracy"] <= 1 for what in ("colour", "shape"))


def test_pictures_go_from_the_worst_to_the_best(run) -> None:
    rows = run("figure5")
    scores = [row["value"] for row in rows]
    assert len(rows) == 6 and scores == sorted(scores)
    assert len(list((run.root / "experiments").glob("figure5-demo-*.jpg"))) == 6


def test_fewer_videos_bits_and_points(run) -> None:
    curve = run("learning_curve")
    runs = {row["run_id"]: row["train_videos"] for row in ask(Warehouse(run.root), "FROM runs")}
    assert [runs[run_id] for run_id in by_variant(curve).values()] == [1, 3]
    budget = {row["variant"]: row["value"] for row in run("error_budget")}
    assert sum(budget.values()) == pytest.approx(1)
    precision = run("token_precision")
    size = {row["variant"]: row["value"] for row in precision if row["metric"] == "tokens"}
    assert list(size.values()) == pytest.approx(
        [4 * min(size.values()), 2 * min(size.values()), min(size.values())]
    )
    exact = next(row["value"] for row in precision if row["metric"] == "jf")
    assert exact == pytest.approx(budget["J&F"])
    cost = run("extraction_cost")
    prompts = ask(
        Warehouse(run.root),
        """
        SELECT track_set, count(*) AS prompts,
               any_value(settings->>'$.extraction.grid.points_per_side') AS side,
               any_value(settings->>'$.extraction.grid.stride') AS stride
        FROM prompts JOIN track_sets USING (dataset, split, track_set)
        WHERE dataset = 'demo' AND split = 'valid_u' AND sources = 'grid' AND corruption IS NULL
        GROUP BY track_set
        """,
    )
    number = {(row["side"], row["stride"]): row["prompts"] for row in prompts}
    assert len(number) == 4 and number["5", "8"] < number["10", "4"]
    assert all(row["value"] > 0 for row in cost if row["metric"] == "extraction")


def test_a_run_answers_counterfactual_pairs(run) -> None:
    known = by_variant(run("table5a"))["with alignment loss"]
    given = [str(run.root), ["counterfactual"], "demo", str(run.root.parent / "data")]
    assert not experiment(*given, run=known, workers=1)
    assert "there is no run none" in experiment(*given, run="none", workers=1)["counterfactual"]
    found = ask(Warehouse(run.root), "FROM experiments ORDER BY position", ("counterfactual",))
    assert {row["run_id"] for row in found} == {known}
    shares = {(row["variant"], row["metric"].partition(",")[0]): row["value"] for row in found}
    kinds = ("reversed", "swapped", "removed")
    for variant in (known, "oracle over the tracks", "looks alone (chance)"):
        mean = np.mean([shares[variant, kind] for kind in kinds])
        assert shares[variant, "all"] == pytest.approx(mean)
    assert [shares["looks alone (chance)", kind] for kind in kinds] == [0.5, 0, 0]
    assert all(shares[known, k] <= shares["oracle over the tracks", k] for k in kinds)
    assert len({video for video, _, _ in predictions(run.root, known, split="counterfactual")}) == 6


def test_two_towers_are_beside_the_streams(run) -> None:
    rows = {row["variant"]: row for row in run("streams")}
    configs = {row["run_id"]: json.loads(row["config"])["selector"]
               for row in ask(Warehouse(run.root), "FROM runs")}  # fmt: skip
    one, separate, alone, towers = (configs[row["run_id"]] for row in rows.values())
    assert list(rows)[-1] == "two towers" and "width" in towers
    assert [each["separate_streams"] for each in (one, separate, alone)] == [False, True, True]
    assert [each["object_attention"] for each in (one, separate, alone)] == [True, True, False]


def test_fresh_clips_are_measured_and_searched(run, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [str(run.root), ["fresh"], "demo", str(run.root.parent / "data")]
    why = experiment(*given, changes=QUICK, seeds=1, workers=1)["fresh"]
    assert "no probabilities" in why and "training.kept_out" in why  # of three videos none is
    monkeypatch.setattr(fresh, "calibrated_error", lambda *_: 0.25)
    rows = run("fresh")
    assert {row["measured_on"] for row in rows} == {"demo-fresh/valid_u"}
    values = {(row["variant"], row["metric"]): row["value"] for row in rows}
    assert values["probabilities", "calibration error"] == 0.25
    assert 0 <= values["oracle", "jf"] <= 1
    (run_id,) = {row["run_id"] for row in rows}
    sql = f"""
        SELECT avg(jf) AS jf, count(DISTINCT video_id) AS videos FROM scores
        WHERE run_id = '{run_id}' AND dataset = 'demo-fresh'
    """
    (scores,) = ask(Warehouse(run.root), sql)
    assert scores == {"jf": pytest.approx(values["all expressions", "jf"]), "videos": 2}

    shape = clip_of("valid_u", 0, fresh.SEED, fresh.FRAMES)[1].shapes[0]
    direction = shape.direction if shape.motion == "moves" else None
    there = fresh.Phrase("it is there", shape.colour, shape.kind, shape.motion, direction)
    nowhere = fresh.Phrase("it is nowhere", "mauve", "rhombus", "moves", "left")
    monkeypatch.setattr(fresh, "PHRASES", (there, nowhere))
    phrase, mean = run("search")
    assert phrase["variant"].startswith("it is there (") and mean["variant"] == "all phrases"
    assert 0 <= phrase["value"] == mean["value"] <= 1 and phrase["run_id"] == run_id
    searched = Warehouse(run.root).current("search", run_id=run_id)
    assert {(key.dataset, key.split) for key in searched} == {("demo-fresh", "valid_u")}


def test_an_ablation_on_mevis_is_one_command(prefect_server: str, tmp_path: Path) -> None:
    write_mevis(tmp_path / "mevis")
    common = ["--dataset", "mevis", "--root", tmp_path / "mevis", "--warehouse", tmp_path / "w",
              "--sam2", DEMO_CHECKPOINT, "--recipe", "demo-release", "--set", QUICK[0],
              "--seeds", "1", "--workers", "1"]  # fmt: skip
    result = CliRunner().invoke(app, ["experiment", "table5b", *map(str, common)])
    assert result.exit_code == 0, result.output
    rows = ask(Warehouse(tmp_path / "w"), "FROM experiments WHERE metric = 'jf'")
    assert {row["measured_on"] for row in rows} == {"mevis/valid_u"}
    assert len({row["run_id"] for row in rows}) == 3
    config = json.loads(ask(Warehouse(tmp_path / "w"), "FROM runs")[0]["config"])
    assert config["training"]["epochs"] == 1
    result = CliRunner().invoke(app, ["experiment", "table2", *map(str, common)])
    assert result.exit_code == 1
    assert "sola precompute --dataset ref-youtube-vos" in " ".join(result.output.split())


def test_the_command_lists_experiments_and_refuses_others(prefect_server, tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["experiment"]).output
    assert all(name in listed for name in EXPERIMENTS)
    documented = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
    assert all(f"`{name}`" in documented for name in EXPERIMENTS)
    unknown = CliRunner().invoke(app, ["experiment", "table9", "--warehouse", str(tmp_path / "w")])
    assert unknown.exit_code == 1 and "there is no experiment table9" in unknown.output
