"""Pages in a real browser: headless Chromium opens them from the disk, as their readers do.

Skipped, with a word, where playwright, axe or Chromium is not installed: `pip install -e '.[browser]'` and the
browser of the system.
"""

import dataclasses
import itertools
import re
import time
from pathlib import Path

import pytest
from hostile import MARKUP, with_attack, with_hostile_classes
from sample_records import classifier_record, compared_records, many_records

from benchmarks import large_page
from smallmodels import report

pytestmark = pytest.mark.browser

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
MANY = 1000


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = large_page.chromium()
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as tools:
        found = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Written once: the page of one run, and those of comparisons."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "one": [classifier_record()],
        "several": compared_records(),
        "hostile": [with_hostile_classes(with_attack(record)) for record in compared_records()],
    }
    return {name: report.write_report(records, folder / name)[0] for name, records in runs.items()}


class Visit:
    """An open page that remembers what went wrong and what it asked for."""

    def __init__(self, browser, path: Path, **settings) -> None:
        self.context = browser.new_context(viewport=settings.pop("viewport", LAPTOP), **settings)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = path.resolve().as_uri()
        self.page.goto(self.address)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_) -> None:
        self.context.close()
        if kind is None:
            assert self.wrong == []
            assert self.asked == [self.address]


def table(page, caption: str):
    return page.locator("table").filter(has=page.locator("caption", has_text=caption)).first


def column(found, name: str) -> list[str]:
    heads = [text.strip() for text in found.locator("thead th").all_inner_texts()]
    place = heads.index(name)
    rows = found.locator("tbody tr:not([hidden])")
    return rows.evaluate_all(f"rows => rows.map(row => row.cells[{place}].textContent.trim())")


def tip(page) -> str:
    return page.locator(".tip").text_content() if page.locator(".tip").is_visible() else ""


@pytest.mark.parametrize("name", ["one", "several", "hostile"])
@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_page_opens_without_an_error_asks_for_nothing_and_fits(browser, pages, name, viewport):
    with Visit(browser, pages[name], viewport=viewport) as visit:
        assert "js" in visit.page.evaluate("document.documentElement.className")  # the policy lets the script run
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        for chart in visit.page.locator("svg.chart").all()[:3]:
            assert chart.bounding_box()["width"] <= viewport["width"]


@pytest.mark.parametrize("name", ["one", "several"])
@pytest.mark.parametrize(
    ("viewport", "scheme"), [(LAPTOP, "light"), (LAPTOP, "dark"), (PHONE, "light")], ids=["laptop", "dark", "phone"]
)
def test_axe_finds_nothing_serious(browser, pages, name, viewport, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    with Visit(browser, pages[name], viewport=viewport, color_scheme=scheme) as visit:
        visit.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
        found = axe.Axe().run(visit.page, options={"resultTypes": ["violations"], **rules}).response["violations"]
        said = [(v["id"], v["impact"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found]
        assert [v for v in said if v[1] in ("serious", "critical")] == []
        assert [v for v in said if v[0] in ("target-size", "region", "heading-order", "landmark-unique")] == []


def test_columns_sort_by_value_whatever_the_unit(browser, pages):
    with Visit(browser, pages["one"]) as visit:
        found = table(visit.page, "Quality, size and speed on the test split")
        head = found.get_by_role("columnheader", name="on disk")
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert column(found, "on disk") == ["308\u00a0B", "3.30\u00a0MB", *["69.6\u00a0MB"] * 3, "90.9\u00a0MB"]
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert column(found, "Model")[0] == "Teacher"
        found.get_by_role("columnheader", name="agrees with teacher").get_by_role("button").click()
        assert column(found, "Model")[0] == "Student"  # the others have no value and stay below
        assert head.get_attribute("aria-sort") is None
        assert "Sorted by agrees with teacher" in visit.page.get_by_role("status").text_content()


def test_filter_hides_rows_and_dims_their_signs(browser, pages):
    with Visit(browser, pages["several"]) as visit:
        picture = visit.page.locator(".picture").filter(has=visit.page.locator("svg.chart")).first
        rows = picture.locator("tbody tr")
        everything = rows.count()
        field = picture.get_by_label("Filter rows")
        field.fill("student 4)")
        left = column(picture.locator("table"), "Model")
        assert 0 < len(left) < everything
        texts = picture.locator("tbody tr:not([hidden])").all_text_contents()
        assert all("student" in text.lower() and "(temperature 4)" in text for text in texts)
        assert f"{len(left)} of {everything} rows" in picture.locator(".count").text_content()
        kept = picture.locator("svg.chart").first.locator(".mark:not(.dim)")
        assert kept.count() == len(left)
        assert picture.locator("svg.chart").first.locator(".mark.dim").count() == everything - len(left)
        assert kept.first.get_attribute("tabindex") == "0"
        field.fill("")
        assert len(column(picture.locator("table"), "Model")) == everything


def test_pointing_at_a_sign_shows_its_values_and_its_row(browser, pages):
    with Visit(browser, pages["one"]) as visit:
        page = visit.page
        mark = page.locator("svg.chart").first.get_by_role("img", name=re.compile("^Student: accuracy 92.1"))
        mark.hover()
        assert re.match(
            r"Student: accuracy 92\.1\s% \(95\s% interval .*\), 3\.30 CPU-seconds per 1,000 uses", tip(page)
        )
        lit = page.locator("tr.lit")
        assert lit.locator("th").text_content() == "Student"
        page.locator(".tip").hover()  # may be pointed at itself
        page.wait_for_timeout(250)
        assert tip(page)
        page.keyboard.press("Escape")
        assert not tip(page)
        assert lit.count() == 0


def test_keyboard_reaches_every_sign_and_each_is_read_out(browser, pages):
    with Visit(browser, pages["one"]) as visit:
        page = visit.page
        chart = page.locator("svg.chart").first
        assert chart.locator(".mark[tabindex='0']").count() == 1  # one stop, then arrow keys
        chart.locator(".mark").first.focus()
        said = [tip(page)]
        for _ in range(chart.locator(".mark").count() - 1):
            page.keyboard.press("ArrowRight")
            said.append(tip(page))
        assert len(set(said)) == chart.locator(".mark").count() == 6
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == said[-1]
        outline = chart.locator(".mark").last.locator(".hit").evaluate("node => getComputedStyle(node).strokeWidth")
        assert float(outline.removesuffix("px")) >= 1  # the focus can be seen
        page.keyboard.press("Home")
        assert tip(page) == said[0]
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert tip(page) == said[0]


def test_tab_alone_reaches_the_skip_link_first(browser, pages):
    with Visit(browser, pages["several"]) as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.className") == "skip"
        assert visit.page.locator(".skip").bounding_box()["y"] >= 0


def test_hostile_names_stay_text_in_signs_rows_and_boxes(browser, pages):
    with Visit(browser, pages["hostile"]) as visit:
        page = visit.page
        marks = page.locator(".mark")
        assert "<script>alert(1)</script>" in "".join(marks.evaluate_all("marks => marks.map(m => m.textContent)"))
        for mark in marks.all()[:40]:
            mark.evaluate("mark => mark.dispatchEvent(new PointerEvent('pointerover', { bubbles: true }))")
        page.locator("input[type=search]").first.fill(MARKUP[:60])
        page.locator("button.sort").first.click()
        assert page.locator("script").count() == 1
        assert page.locator("img, iframe, object, a[href^=javascript], svg[onload]").count() == 0


def test_page_is_whole_without_its_script(browser, pages):
    with Visit(browser, pages["several"], java_script_enabled=False) as visit:
        assert visit.page.locator("button, input, select").count() == 0
        assert visit.page.locator("tbody tr").first.is_visible()
        assert visit.page.locator("svg.chart .mark[tabindex='0']").count() > 10
        assert visit.page.locator("svg.chart .mark > title").first.text_content()


def test_print_shows_everything_in_light_colours_and_no_tools(browser, pages, tmp_path):
    with Visit(browser, pages["one"], color_scheme="dark") as visit:
        page = visit.page
        dark = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--c-paper')")
        page.emulate_media(media="print", color_scheme="dark")
        light = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--c-paper')")
        assert (dark, light) == ("#161c1a", "#fefefd")
        page.set_viewport_size({"width": 688, "height": 1000})  # what A4 has between its margins
        assert page.evaluate("document.documentElement.scrollWidth") <= 688
        assert not page.locator("nav").is_visible()
        assert not page.locator(".tools").first.is_visible()
        assert page.locator("caption").first.is_visible()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.emulate_media(media="screen")
        assert page.pdf(path=tmp_path / "page.pdf", format="A4")[:4] == b"%PDF"


def test_phone_sorts_by_a_list_and_names_every_value(browser, pages):
    with Visit(browser, pages["one"], viewport=PHONE) as visit:
        found = table(visit.page, "Quality, size and speed on the test split")
        picker = visit.page.locator(".tools").first.get_by_label("Sort by")
        picker.select_option(label="accuracy, descending")
        rows = found.locator("tbody tr")
        assert rows.first.locator("th").text_content() == "Teacher"
        picker.select_option(label="parameters, ascending")
        assert rows.first.locator("th").text_content() == "Majority class"
        name = rows.first.locator("td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
        assert name == '"accuracy"'


def test_a_thousand_records_make_a_small_page_whose_work_grows_with_them_alone_and_that_stays_smooth(browser, tmp_path):
    def written(count: int) -> tuple[Path, float]:
        records = many_records(count)
        began = time.process_time()  # what others do on the machine does not count
        return report.write_report(records, tmp_path / str(count))[0], time.process_time() - began

    written(MANY // 10)  # imports what is imported once
    (_, of_few_s), (path, took_s) = written(MANY // 10), written(MANY)
    assert took_s < 30 * of_few_s  # to compare each with each would be a hundred times as much
    assert path.stat().st_size < 1_000_000
    with Visit(browser, path) as visit:
        page = visit.page
        found = page.locator("table").filter(has=page.locator("tbody tr:nth-child(100)")).first
        spent = found.evaluate(large_page.ACTS)
        assert max(spent) < 500, spent  # milliseconds, on a slow machine beside others


def test_sample_of_a_thousand_is_what_it_says():
    records = many_records(MANY)
    assert len({record.run_id for record in records}) == MANY
    by_kind = itertools.groupby(records, key=lambda record: record.config["temperature"])
    assert {len(list(runs)) for _, runs in by_kind} == {5}
    assert dataclasses.replace(records[0], run_id="") != dataclasses.replace(records[7], run_id="")


def test_a_mean_with_its_spread_breaks_between_its_parts_and_is_still_one_text(browser, pages):
    for viewport in (LAPTOP, PHONE):
        with Visit(browser, pages["several"], viewport=viewport) as visit:
            cell = visit.page.locator("td.spread").first
            assert re.fullmatch(r"[\d.,]+ \(SD [\d.,]+, [\d.,]+–[\d.,]+, n 3\)", cell.inner_text().strip())
            wide = cell.evaluate("cell => cell.getBoundingClientRect().right + 1")
            ends = cell.locator(".whole").evaluate_all("parts => parts.map(p => p.getBoundingClientRect().right)")
            assert len(ends) == 3
            assert max(ends) <= wide
