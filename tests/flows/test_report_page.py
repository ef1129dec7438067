"""The page of `sola report`: its structure, numbers, SQL, and what it escapes."""

import base64
import hashlib
import html
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from tests.flows.report_page_sample import MARKUP, RUN, TAG, write_sample
from warehouse import TABLES, Warehouse
from warehouse.queries import load_query

VOID = {"meta", "link", "img", "input", "br", "hr"}
REFERENCES = ("for", "aria-labelledby", "aria-describedby", "aria-controls")


class Node:
    """An element with its attributes, children and text."""

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Node | str] = []

    def all(self, tag: str, kind: str = "") -> "list[Node]":
        return [
            node
            for node in self.walk()
            if node.tag == tag and kind in ("", *(node.attributes.get("class") or "").split())
        ]

    def walk(self) -> "Iterator[Node]":
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def by_id(self, name: str) -> "Node":
        (node,) = (node for node in self.walk() if node.attributes.get("id") == name)
        return node


class Tree(HTMLParser):
    """Elements by nesting; fails on a tag that closes another than the open one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open = [Node("", {})]
        self.feed(page)
        assert len(self.open) == 1, f"not closed: {[node.tag for node in self.open]}"
        self.root = self.open[0]

    def handle_starttag(self, tag: str, attrs: list) -> None:
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def sola_report(store: Warehouse, out: Path, *arguments: str) -> Result:
    command = ["report", RUN, "--warehouse", store.url, "--out", str(out), "--workers", "1"]
    return CliRunner().invoke(app, [*command, *arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return write_sample(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(store: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    result = sola_report(store, out)
    assert result.exit_code == 0, result.output
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(page: str) -> Node:
    return Tree(page).root


def test_ids_are_unique_and_every_reference_finds_one(tree: Node) -> None:
    ids = Counter(node.attributes["id"] for node in tree.walk() if "id" in node.attributes)
    assert max(ids.values()) == 1
    links = [node.attributes["href"] for node in tree.all("a")]
    named = [node.attributes.get(name) for node in tree.walk() for name in REFERENCES]
    assert all(link.startswith("#") for link in links)
    assert {link[1:] for link in links} | {i for n in named if n for i in n.split()} <= set(ids)


def test_the_page_needs_no_network(page: str, tree: Node) -> None:
    for node in tree.walk():
        for name in ("src", "href", "srcset", "action", "data"):
            assert (node.attributes.get(name) or "#").startswith(("#", "data:")), node.tag
    style = tree.all("style")[0].text
    assert "url(" not in style and "@import" not in style
    assert not re.findall(r"https?://(?!www\.w3\.org)", page)


def test_text_from_data_is_never_markup(page: str, tree: Node) -> None:
    (script,) = tree.all("script")
    assert "alert" not in script.text
    assert not [node for node in tree.all("img") if "onerror" in node.attributes]
    assert any(node.text == MARKUP for node in tree.all("q"))
    assert any(node.text == TAG for node in tree.all("span", "tag"))
    (policy,) = (n.attributes["content"] for n in tree.all("meta") if "http-equiv" in n.attributes)
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_the_sql_that_is_shown_gives_the_numbers_beside_it(store: Warehouse, tree: Node) -> None:
    connection = store.connect()
    compared = 0
    for details in tree.all("details", "source"):
        (code,) = details.all("code", "sql")
        answer = connection.sql(code.text).fetchall()
        assert answer, code.text
        for table in details.all("table"):
            shown = [[cell.text for cell in row.all("td")] for row in table.all("tr")[1:]]
            for cells, values in zip(shown, answer, strict=True):
                for cell, value in zip(cells, values, strict=True):
                    compared += 1
                    if isinstance(value, float):
                        assert float(cell) == pytest.approx(value, abs=0.00501), code.text
                    elif isinstance(value, str):
                        assert cell == value
                    elif isinstance(value, int) and not isinstance(value, bool):
                        assert int(cell.replace(",", "")) == value
    assert compared > 300


def test_the_headline_is_that_of_scores_summary(store: Warehouse, tree: Node) -> None:
    columns = "jf, j, f, oracle_jf, random_track_jf, lost_in_selection"
    (summary,) = (
        store.connect().sql(f"SELECT {columns} FROM ({load_query('scores_summary')})").fetchall()
    )
    headline = tree.by_id("s1-headline")
    assert headline.all("span", "figure")[0].text == f"{summary[0]:.2f}"
    ours = [cell.text for cell in headline.all("tr", "ours")[0].all("td")]
    assert ours == [f"{value:.2f}" for value in summary[:3]] + ["0.7 M"]
    (chart,) = headline.all("svg", "chart")
    assert {f"{summary[3]:.1f}", f"{summary[4]:.1f}"} <= {t.text for t in chart.all("text")}
    legend = [dd.text for dd in headline.all("dl", "legend")[0].all("dd")]
    assert sum(map(float, legend)) == pytest.approx(100, abs=0.02)
    assert legend[1] == f"{summary[5]:.2f}"


def test_the_oracle_is_a_section_where_it_was_measured(store: Warehouse, tree: Node) -> None:
    best, bound, better = store.connect().sql(
        "SELECT 100 * avg(oracles.jf), 100 * avg(jf_bound), 100 * avg(oracles.jf - scores.jf) "
        "FROM oracles JOIN scores USING (dataset, split, video_id, track_set, expression_id)"
    ).fetchall()[0]  # fmt: skip
    section = tree.by_id("s1-oracle")
    (said,) = section.all("p")[:1]
    assert f"has {best:.2f} on" in " ".join(said.text.split())
    assert f"more than {bound:.2f}." in " ".join(said.text.split())
    assert f"up to {better:.2f}." in " ".join(said.text.split())
    assert not any(node.attributes.get("id") == "s2-oracle" for node in tree.walk())


def test_calibration_counts_positives_by_score(store: Warehouse) -> None:
    connection = store.connect()
    pairs = connection.sql(
        "SELECT score, label FROM predictions "
        "JOIN pseudo_labels USING (dataset, split, video_id, expression_id, track_id)"
    ).fetchall()
    buckets: dict[int, list[tuple[float, bool]]] = {}
    for score, label in pairs:
        buckets.setdefault(int(score * 10), []).append((score, label))
    found = connection.sql(load_query("calibration")).to_arrow_table().to_pylist()
    assert [row["score_from"] for row in found] == [n / 10 for n in sorted(buckets)]
    error = calibrated_error = 0.0
    for row in found:
        bucket = buckets[round(row["score_from"] * 10)]
        mean, rate = (fmean(values) for values in zip(*bucket, strict=True))
        assert row["pairs"] == len(bucket)
        assert (row["mean_score"], row["positive_rate"]) == pytest.approx((mean, rate))
        error += len(bucket) * abs(mean - rate) / len(pairs)
        assert row["mean_probability"] == pytest.approx(mean / 2)
        calibrated_error += len(bucket) * abs(mean / 2 - rate) / len(pairs)
    errors = {(row["calibration_error"], row["calibrated_error"]) for row in found}
    assert list(errors) == [pytest.approx((error, calibrated_error))]


def test_the_papers_figures_are_said_to_be_for_other_data(tree: Node) -> None:
    headline = tree.by_id("s1-headline").text
    assert "demo/valid_u is other data" in headline
    assert "evaluated on MeViS valid" in headline and "48.6" in headline


def test_charts_have_titles_descriptions_and_named_axes(tree: Node) -> None:
    charts = tree.all("svg", "chart")
    assert len(charts) == 4
    for chart in charts:
        assert chart.attributes["role"] == "img"
        assert chart.all("title")[0].text and len(chart.all("desc")[0].text) > 30
        assert chart.all("text", "name")


def test_a_split_without_ground_truth_says_so_and_shows_what_is_selected(tree: Node) -> None:
    section = tree.by_id("s2")
    assert section.all("h2")[0].text == "demo/valid"
    assert "No scores." in section.text and not section.all("span", "scores")
    titles = {caption.text for caption in section.all("figcaption")}
    assert titles == {"prediction", "all tracks"}


def test_every_picture_has_a_description(tree: Node) -> None:
    pictures = tree.all("img")
    assert len(pictures) > 30
    assert all(picture.attributes["alt"] for picture in pictures)


def test_pictures_stay_within_what_they_may_take(store: Warehouse, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    assert sola_report(store, out, "--pictures", "0.2", "--split", "valid_u").exit_code == 0
    page = Tree(out.read_text()).root
    taken = sum(len(picture.attributes["src"]) for picture in page.all("img"))
    assert 50_000 < taken < 400_000  # those of the best and worst stand in two places
    assert re.search(r"pictures are there for [1-3] videos", page.text)


def test_frames_that_are_gone_cost_no_page(store: Warehouse, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    frames = Path(store.root).parent / "data" / "valid_u" / "JPEGImages" / "valid_u_0001"
    shutil.move(frames, moved)
    try:
        result = sola_report(store, tmp_path / "a.html", "--split", "valid_u")
    finally:
        shutil.move(moved, frames)
    assert result.exit_code == 0
    page = Tree((tmp_path / "a.html").read_text()).root
    notes = [note.text for note in page.all("p", "note") if "cannot be read" in note.text]
    assert notes and all("valid_u_0001" in note for note in notes)


def test_what_the_run_was_not_evaluated_on_is_an_error(store: Warehouse, tmp_path: Path) -> None:
    result = sola_report(store, tmp_path / "a.html", "--split", "test")
    assert result.exit_code == 1
    assert "It has: demo/valid, demo/valid_u" in " ".join(result.output.split())
    assert not (tmp_path / "a.html").exists()


def test_experiments_of_the_split_are_a_section(tree: Node) -> None:
    section = tree.by_id("s1-experiments")
    (line,) = section.all("tbody")[0].all("tr")
    variant, measured, paper = [cell.text for cell in line.children if isinstance(cell, Node)]
    assert (variant, measured, paper) == (MARKUP, "45.0 ± 7.1", "44.5")
    (picture,) = section.all("img")
    assert picture.attributes["src"].startswith("data:image/jpeg;base64,")
    assert not any(node.attributes.get("id") == "s2-experiments" for node in tree.walk())


def test_the_page_says_where_tau_and_probabilities_come_from(
    store: Warehouse, page: str, tmp_path: Path
) -> None:
    assert "fitted on the run's validation split" in html.unescape(" ".join(page.split()))
    assert "kept out" not in page
    kept = Warehouse(shutil.copytree(store.root, tmp_path / "w"))
    (commit,) = kept.current("train").values()
    (row,) = kept.read("runs", [commit]).to_pylist()
    config = json.loads(row["config"]) | {"training": {"kept_out": 0.1}}
    row |= {"tau_videos": 40, "config": json.dumps(config)}
    runs = pa.Table.from_pylist([row], schema=TABLES["runs"])
    metrics = TABLES["training_metrics"].empty_table()
    kept.publish("train", commit.key, "kept", {"runs": runs, "training_metrics": metrics})
    result = sola_report(kept, tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    page = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert "0.5, chosen on 40 training videos kept out for it" in page
    assert "fitted on training videos kept out for it" in page
