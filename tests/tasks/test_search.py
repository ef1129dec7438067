"""Search by text: exact scores, estimates that are worth something, vectors that are made once.

`indexed` has a run of two towers, whose products are exact; `estimated` one of the paper's
selector, whose products are estimates, and whose results have probabilities.
"""

import json
import re
import shutil
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import app
from sola_model.selector.checkpoints import load_selector
from sola_model.selector.search import reference_weights, text_logits
from sola_model.text.cache import CachedTextEncoder
from tasks.runs import find_run
from tasks.search.page import write_page
from tasks.search.track_search import Hit, search
from tasks.search.vectors import Searched, searched, unmade_vectors, vector_plan
from tasks.stage import Plan
from tests.tasks import stages
from tests.tasks.conftest import add_split
from warehouse import Key, Warehouse, WarehouseError
from warehouse.collect import collect_garbage
from warehouse.compact import compact
from warehouse.demo_data import write_dataset
from warehouse.verify import verify

TEXT = "a square turning back"


@pytest.fixture(scope="module")
def indexed(evaluated_demo: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return with_vectors(evaluated_demo, tmp_path_factory.mktemp("indexed") / "w")


@pytest.fixture(scope="module")
def estimated(evaluated_release: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return with_vectors(evaluated_release, tmp_path_factory.mktemp("estimated") / "w")


@pytest.fixture(params=["indexed", "estimated"])
def either(request: pytest.FixtureRequest) -> Warehouse:
    return request.getfixturevalue(request.param)


def with_vectors(store: Warehouse, root: Path) -> Warehouse:
    """A copy of the warehouse with the search vectors of its run."""
    shutil.copytree(store.root, root)
    outcomes = stages.make(plan(Warehouse(root)))
    assert [outcome.status for outcome in outcomes] == ["done"] * 7, outcomes
    return Warehouse(root)


def plan(store: Warehouse, **where: str) -> Plan:
    """The vectors wanted; its subject is the run and its reference texts."""
    return vector_plan(store, searched(store, find_run(store, None)), **where)


def found(store: Warehouse, text: str = TEXT, top: int = 20, exact: int = 50, **where: str):
    return search(plan(store, **where), text, top, exact)


def sola(*arguments: str | Path):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "100"})


def test_scores_are_those_of_evaluation(either: Warehouse) -> None:
    sql = """
        SELECT text, video_id, track_id, score, probability FROM predictions
        JOIN expressions USING (dataset, split, video_id, expression_id) ORDER BY text
    """
    predictions = either.connect().sql(sql).fetchall()
    tolerance = 1e-5 if plan(either).subject.texts else 1e-3  # vectors are float16, scores are not
    for text in {predictions[0][0], predictions[-1][0]}:
        hits = found(either, text, top=100, dataset="demo", split="valid_u").hits
        by_track = {(hit.video_id, hit.track_id): hit for hit in hits}
        assert len(by_track) == len(hits)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        for _, video, track, score, probability in (p for p in predictions if p[0] == text):
            hit = by_track[video, track]
            assert hit.score == pytest.approx(score, abs=tolerance)
            assert hit.probability == (probability and pytest.approx(probability, abs=tolerance))


def test_people_see_the_probability_or_without_one_the_score(
    indexed: Warehouse, estimated: Warehouse
) -> None:
    for hit in found(indexed).hits:
        assert hit.probability is None and hit.confidence == hit.score
    hits = found(estimated).hits
    assert all(hit.confidence == hit.probability for hit in hits)
    assert any(abs(hit.probability - hit.score) > 1e-3 for hit in hits)


def test_every_grid_track_is_searched_and_no_other(either: Warehouse) -> None:
    everything = found(either, top=1000)
    sql = "FROM prompts SELECT video_id, track_id WHERE fate = 'tracked' AND source = 'grid'"
    grid = set(either.connect().sql(sql).fetchall())
    assert {(hit.video_id, hit.track_id) for hit in everything.hits} == grid
    assert (everything.tracks, everything.videos, everything.scored) == (len(grid), 7, 7)
    masks = either.connect().sql("SELECT count(*) FROM tracks").fetchall()
    assert masks[0][0] > len(grid), "there are tracks of ground-truth masks, too"
    sql = (
        "SELECT count(*) FILTER (area > 0), count(*) FROM masks WHERE video_id = ? AND track_id = ?"
    )
    best = everything.hits[0]
    (counts,) = either.connect().execute(sql, [best.video_id, best.track_id]).fetchall()
    assert counts == (best.visible_frames, best.frame_count)


def test_a_narrow_search_sees_its_part_alone(either: Warehouse) -> None:
    assert {hit.split for hit in found(either, split="valid_u").hits} == {"valid_u"}
    assert found(either, split="valid_u").videos == 3
    with pytest.raises(WarehouseError, match=r"no mask tracks of mevis.*sola precompute"):
        found(either, dataset="mevis")


def test_a_product_is_exact_whatever_is_asked_for(indexed: Warehouse) -> None:
    assert plan(indexed).subject.texts == ()  # no reference texts
    one = found(indexed, top=1, exact=1)
    assert (one.scored, one.videos) == (7, 7)
    assert one.hits == found(indexed, top=1000).hits[:1]


def test_few_exact_videos_are_those_with_the_best_estimates(estimated: Warehouse) -> None:
    texts = plan(estimated).subject.texts
    few = found(estimated, texts[3], top=1, exact=2)
    assert few.scored == 2
    everything = found(estimated, texts[3], top=1000)
    best = list(dict.fromkeys(hit.video_id for hit in everything.hits))[:2]
    (top,) = few.hits
    assert top == everything.hits[0] and top.video_id in best


def test_known_texts_are_estimated_nearly_exactly(estimated: Warehouse) -> None:
    run, texts = plan(estimated).subject
    features = CachedTextEncoder("demo", estimated.work_folder() / "cache" / "text").encode(texts)
    selector = load_selector(estimated.local_copy(run.weights))
    width = run.recipe.selector.token_dim
    tokens_NTD = np.random.default_rng(0).normal(size=(5, 8, width)).astype(np.float32)
    logits_NK = text_logits(selector, tokens_NTD, features)
    assert logits_NK.shape == (5, len(texts))
    errors_N = logits_NK @ reference_weights(features, features[5]) - logits_NK[:, 5]
    assert np.abs(errors_N).max() < 0.3 * logits_NK.std(axis=1).max()


def test_new_videos_add_their_vectors_alone(either: Warehouse, tmp_path: Path) -> None:
    root = tmp_path / "w"
    shutil.copytree(either.root, root)
    run, texts = plan(either).subject
    assert unmade_vectors(plan(either)) == (set(), set())
    write_dataset(tmp_path / "data", {"train": 1}, seed=9, frames=8)
    (tmp_path / "data/train").rename(tmp_path / "data/more")
    meta = tmp_path / "data/more/meta_expressions.json"
    # New texts would be reference texts as well, where there are any.
    known = f'"exp": {json.dumps(texts[0] if texts else TEXT)}'
    meta.write_text(re.sub(r'"exp": "[^"]*"', known, meta.read_text()))
    add_split(str(root), "demo", tmp_path / "data", "more")
    name = stages.default_set(Warehouse(root), "demo", "more").name
    new = Key("demo", "more", "train_0000", run.run_id, track_set=name)
    now = plan(Warehouse(root))
    assert now.subject.texts == texts
    assert unmade_vectors(now) == ({new}, set())
    stages.make(now)
    assert unmade_vectors(now) == (set(), set())
    assert found(Warehouse(root), split="more").videos == 1


def test_vectors_survive_compaction_and_collection(either: Warehouse, tmp_path: Path) -> None:
    root = tmp_path / "w"
    shutil.copytree(either.root, root)
    before = found(Warehouse(root)).hits
    compact(Warehouse(root))
    collect_garbage(Warehouse(root), 0)
    assert verify(Warehouse(root)) == []
    assert found(Warehouse(root)).hits == before


def test_without_expressions_all_scores_are_exact(estimated: Warehouse) -> None:
    run = find_run(estimated, None)
    without = vector_plan(estimated, Searched(run, ()))
    stages.make(without)
    hits = search(without, TEXT, top=5, exact=1).hits
    stages.make(plan(estimated))
    assert hits == found(estimated, top=5).hits


class Images(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_shows_each_hit_and_needs_no_network(either: Warehouse, tmp_path: Path) -> None:
    result = replace(found(either, top=3), text="<b>a & b</b>")
    write_page(either, result, tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text()
    sources = Images(page).sources
    assert len(sources) == 3 and all(s.startswith("data:image/jpeg;base64,") for s in sources)
    assert "&lt;b&gt;a &amp; b" in page and "<b>" not in page
    for hit in result.hits:
        name = f"{hit.split}/{hit.video_id}, track {hit.track_id}"
        assert re.search(rf"<li>{100 * hit.confidence:.1f} %: \w+/{name},", page)


@pytest.mark.parametrize(
    ("warehouse", "shown"), [("evaluated_demo", "score"), ("evaluated_release", "probability")]
)
def test_the_command_prepares_once_and_finds(
    prefect_server: str,
    warehouse: str,
    shown: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    root = tmp_path / "w"
    shutil.copytree(request.getfixturevalue(warehouse).root, root)
    arguments = ["search", TEXT, "--warehouse", root, "--top", "2", "--split", "valid_u"]
    first = sola(*arguments, "--workers", "1", "--html", tmp_path / "found.html")
    assert first.exit_code == 0, first.output
    assert "3 of 3 videos have no search vectors yet" in first.output
    assert (tmp_path / "found.html").exists()
    again = sola(*arguments, "--format", "json")
    assert "search vectors" not in again.output
    hits = json.loads(again.stdout)
    assert [list(hit) for hit in hits] == [[field.name for field in fields(Hit)]] * 2
    table = first.stdout[first.stdout.index(f"{shown:>11}  video") :].splitlines()
    for hit, line in zip(hits, table[1:3], strict=True):
        assert line.split()[0] == f"{100 * hit[shown]:.1f}"
    lines = sola(*arguments, "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("dataset,split,video_id") and len(lines) == 3
    status = sola("status", "--warehouse", root)
    assert re.search(r"search +│ demo +│ valid_u +│ \S+ +│ 3 ", status.output), status.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "is empty"),
        (["word " * 100], "tokens, this encoder takes at most 64"),
        ([TEXT, "--run", "nobody"], "there is no run nobody"),
        ([TEXT, "--dataset", "mevis"], "no mask tracks of dataset mevis"),
        ([TEXT, "--format", "xml"], "there is no format 'xml'"),
        ([TEXT, "--html", "no/such/folder.html"], "there is no folder"),
    ],
)
def test_errors_say_what_to_do(indexed: Warehouse, arguments: list[str], message: str) -> None:
    result = sola("search", "--warehouse", indexed.root, *arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_videos_of_another_sam2_are_left_out(indexed: Warehouse, tmp_path: Path) -> None:
    """Their failure is recorded and not tried at every search."""
    root = tmp_path / "w"
    shutil.copytree(indexed.root, root)
    store = Warehouse(root)
    ((key, commit),) = store.current("precompute", split="valid").items()
    tables = {name: store.read(name, [commit]) for name in commit.files}
    token = [row[:32] for row in tables["tokens"]["token"].to_pylist()]
    names = tables["tokens"].column_names
    tables["tokens"] = tables["tokens"].set_column(names.index("token"), "token", [token])
    store.publish("precompute", key, "other", tables)
    scored = key.of(run_id=find_run(store, None).run_id)
    assert unmade_vectors(plan(store)) == ({scored}, set())
    (outcome,) = stages.make(plan(store))
    assert "Use the SAM2 model it was trained on" in outcome.message
    assert unmade_vectors(plan(store)) == (set(), {scored})
    result = sola("search", TEXT, "--warehouse", root)
    assert result.exit_code == 0, result.output
    assert "1 videos are left out" in result.output
    assert "of 6 videos" in result.output
