"""The page of `sola report` in headless Chromium: no errors, no requests, and what it reacts to.

Skipped where playwright or chromium is not installed (`pip install playwright`, and Debian's or
any other Chromium on the path).
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.progress import video_progress
from tasks.report_page.page import write_report
from tests.flows.report_page_sample import RUN, write_sample
from warehouse import Warehouse
from warehouse.queries import load_query

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return write_sample(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(store: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(store.url, RUN, None, (), out, 10, 1, video_progress)
    return out


@pytest.fixture
def page(browser, file: Path) -> Iterator:
    """The open page; at the end nothing must have gone wrong or been asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: wrong.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert [text for text in wrong if text != file.as_uri() and not text.startswith("data:")] == []


def test_the_threshold_follows_the_slider(page, store: Warehouse) -> None:
    by_tau = {
        f"{tau:.2f}": f"{jf:.2f}"
        for tau, jf in store.connect()
        .sql(f"SELECT tau, jf FROM ({load_query('jf_by_threshold')})")
        .fetchall()
    }
    section = page.locator("#s1-thresholds")
    slider, readout = section.locator("input[type=range]"), section.locator("dl.readout dd")
    assert readout.first.text_content() == "0.50"
    places = set()
    for key in ("ArrowRight", "Home", "ArrowRight"):
        slider.press(key)
        places.add(section.locator("g.marker").get_attribute("transform"))
        tau, jf = readout.nth(0).text_content(), readout.nth(1).text_content()
        assert jf == by_tau[tau]
        assert slider.get_attribute("aria-valuetext") == f"tau {tau}, J&F {jf}"
    assert tau == "0.10" and len(places) == 3


def test_the_filter_finds_expressions_by_their_words(page) -> None:
    section = page.locator("#s1-videos")
    section.get_by_label("Words in text or video id").fill("ALERT valid_u_0000")
    found = section.get_by_role("status")
    assert re.match(r"1 of \d+ expressions, in 1 of 4 videos", found.text_content())
    assert section.locator("details.video:visible").count() == 1
    section.locator("details.video:visible summary").press("Enter")
    assert section.locator("li.expression:visible").count() == 1
    assert "<script>alert(1)</script>" in section.locator("li.expression:visible").text_content()
    section.get_by_role("button", name="Clear").click()
    page.wait_for_function(
        "document.querySelectorAll('#s1-videos details.video[hidden]').length == 0"
    )
    section.get_by_label("Words in text or video id").fill("no such words")
    assert found.text_content().startswith("0 of ")


def test_a_group_shows_its_expressions_and_their_mean(page) -> None:
    row = page.locator("#s1-groups tbody tr", has=page.get_by_role("link", name="present"))
    number, jf = row.locator("td").nth(0).text_content(), row.locator("td").nth(2).text_content()
    row.get_by_role("link").click()
    found = page.locator("#s1-videos").get_by_role("status").text_content()
    assert found.startswith(f"{number} of ")
    mean = float(re.search(r"mean J&F ([\d.]+)", found)[1])
    assert mean == pytest.approx(float(jf), abs=0.011)


def test_an_expression_leads_to_its_video(page) -> None:
    card = page.locator("#s1-worst-1")
    video = card.get_by_role("link").text_content()
    card.get_by_role("link").press("Enter")
    opened = page.locator("details.video[open]")
    assert opened.locator(".video-id").text_content() == video
    assert opened.locator("li.expression").first.is_visible()
    sizes = opened.locator("img").evaluate_all("images => images.map(i => i.naturalWidth)")
    assert len(sizes) >= 5 and min(sizes) > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_scrolling_sideways(browser, file: Path, scheme) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    page.locator("#s1-videos button.open").click()
    assert page.locator("#s1-videos details.video[open]").count() == 4
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ink, paper = page.evaluate(
        "['color', 'backgroundColor'].map(n => getComputedStyle(document.body)[n])"
    )
    dark = [sum(map(int, re.findall(r"\d+", colour))) < 384 for colour in (ink, paper)]
    assert dark == ([True, False] if scheme == "light" else [False, True])
    context.close()
