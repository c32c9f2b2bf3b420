import base64
import csv
import dataclasses
import hashlib
import io
import itertools
import math
import re
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hostile import MARKUP, Reader, with_attack, with_hostile_classes
from markdown_it import MarkdownIt
from sample_records import (
    classifier_record,
    counted_record,
    dataset,
    inference,
    metric,
    phase,
    result,
    retriever_record,
)

from benchmarks import readme
from smallmodels import records, report
from smallmodels.errors import InputError
from smallmodels.records import Metric, Result, RunRecord
from smallmodels.report import axes, drawing, figures, formats, fronts, idling, labels, png, several, single, svg, words
from smallmodels.report.figures import Point
from smallmodels.report.page import Page, Picture, Table, Text

ROOT = Path(__file__).resolve().parents[1]


def table_of(page: Page, caption: str) -> Table:
    blocks = [b for section in page.sections for b in section.blocks]
    tables = [b for b in blocks if isinstance(b, Table)] + [b.table for b in blocks if isinstance(b, Picture)]
    return next(t for t in tables if t.caption == caption)


def cells(table: Table, column: str) -> dict[str, str]:
    place = table.head.index(column)
    return {str(row[0]): getattr(row[place], "text", row[place]) for row in table.rows}


def seeds(count: int, *, protocol: str = "full", **changes: Any) -> list[RunRecord]:
    """The same run with several seeds, each with qualities and costs of its own."""
    made = []
    for seed in range(count):
        base = classifier_record(**changes)
        results = [
            dataclasses.replace(r, metrics={"accuracy": metric(r.metrics["accuracy"].value + 0.001 * seed)})
            for r in base.results[:4]
        ]
        uses = [
            dataclasses.replace(i, protocol=protocol, cpu_s_per_1000=i.cpu_s_per_1000 * (1 + 0.01 * seed))
            for i in base.inference
        ]
        made.append(
            dataclasses.replace(
                base, run_id=f"run-{seed}", results=results, inference=uses, config=base.config | {"seed": seed}
            )
        )
    return made


# --- words and numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.00523, "0.00523"), (12.345, "12.3"), (999.6, "1,000"), (1234567.0, "1,230,000"), (None, "–"),
     (math.nan, "–"), (math.inf, "–"), (-0.5, "-0.500")],
)  # fmt: skip
def test_number_has_three_digits_and_no_exponent(value: float | None, shown: str) -> None:
    assert formats.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0042, "4.20 ms"), (9.1, "9.10 s"), (59.97, "1 min 00 s"), (252.2, "4 min 12 s"), (3599.8, "1 h 00 min"),
     (7384, "2 h 03 min"), (None, "–")],
)  # fmt: skip
def test_duration_uses_the_unit_that_fits(seconds: float | None, shown: str) -> None:
    assert formats.duration(seconds).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("joules", "shown"), [(12.0, "12.0 J"), (359.0, "359 J"), (3600.0, "1.00 Wh"), (7.2e6, "2.00 kWh"), (None, "–")]
)
def test_energy_turns_into_watt_hours(joules: float | None, shown: str) -> None:
    assert formats.energy(joules).replace("\u00a0", " ") == shown


def test_metric_names_are_those_of_prose() -> None:
    assert [formats.metric_name(k) for k in ("mrr_at_10", "macro_f1", "recall_at_1", "accuracy")] == [
        "MRR@10", "macro F1", "recall@1", "accuracy",
    ]  # fmt: skip


def test_summary_is_two_sentences_with_quality_and_cost() -> None:
    said = report.summary(classifier_record()).replace("\u00a0", " ")
    assert said == (
        "The student reaches 92.1 % accuracy on 3,080 test items, 0.5 points below the teacher (92.6 %), and a use of "
        "it takes 52 % of the processor time. The run took 5 min 14 s, 596 CPU-s and an estimated 2.44 Wh (a model, "
        "not a measurement); building the student pays for itself after about 120,000 uses."
    )


def test_summary_calls_a_difference_that_rounds_to_nothing_level() -> None:
    results = [result("teacher", 0.92377, []), result("student", 0.92349, [])]
    said = report.summary(classifier_record(results=results)).replace("\u00a0", " ")
    assert "92.3 % accuracy on 3,080 test items, level with the teacher (92.4 %)" in said


def test_summary_says_never_and_why() -> None:
    said = report.summary(retriever_record())
    assert "never pays for itself, because the student's quality is not close enough" in said
    assert "Never:" not in said


def test_summary_of_counted_energy_has_no_estimate() -> None:
    said = report.summary(counted_record())
    assert "estimated" not in said
    assert "52\u00a0% of the energy" in said


def test_summary_of_unmeasured_energy_names_no_joules() -> None:
    said = report.summary(classifier_record(energy_j=None, energy_label="missing"))
    assert "an energy that could not be measured" in said


def test_summary_of_a_smoke_run_claims_no_payback() -> None:
    assert "pays for itself" not in report.summary(classifier_record(smoke=True))


def test_e6_modelled_energy_ranks_cpu_seconds_and_counted_energy_joules() -> None:
    assert words.ranking_unit(classifier_record()) == "CPU-s"
    assert words.ranking_unit(counted_record()) == "J"
    gpu = dataclasses.replace(classifier_record().environment, energy_labels={"cpu": "modelled", "gpu": "counter"})
    assert words.ranking_unit(classifier_record(environment=gpu)) == "J"


# --- the front --------------------------------------------------------------------------------------------------------


def point(name: str, x: float, y: float, half: float | None = 0.01) -> Point:
    bounds = (None, None) if half is None else (y - half, y + half)
    return Point(label=name, role=name, x=x, y=y, y_low=bounds[0], y_high=bounds[1])


def test_pareto_front_keeps_what_nothing_beats() -> None:
    points = [point("a", 1, 0.5), point("b", 2, 0.9), point("c", 3, 0.8), point("d", 3, 0.95), point("e", 2, 0.9)]
    assert fronts.pareto_front(points) == [True, True, False, True, True]


def test_pareto_front_agrees_with_its_definition_on_a_grid() -> None:
    points = [point(f"{x}{y}", x, y) for x, y in itertools.product(range(4), range(4))]
    expected = [not any(q.x <= p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y) for q in points) for p in points]
    assert fronts.pareto_front(points) == expected


def test_verdicts_claim_no_difference_where_intervals_overlap() -> None:
    said = fronts.verdicts([point("small", 1, 0.90), point("large", 2, 0.905), point("third", 3, 0.895)])
    assert said[0] == "on the front: nothing is cheaper"
    assert said[1] == "on the front, but indistinguishable from small, which costs less"
    assert said[2] == "indistinguishable from small, which costs less"


def test_verdicts_say_which_model_is_better_where_intervals_are_apart() -> None:
    said = fronts.verdicts([point("good", 1, 0.9), point("bad", 2, 0.5)])
    assert said[1] == "good is better and costs less"


def test_verdicts_without_intervals_claim_nothing() -> None:
    assert "indistinguishable" in fronts.verdicts([point("good", 1, 0.9, None), point("bad", 2, 0.5, None)])[1]


# --- the page of one run ----------------------------------------------------------------------------------------------


def test_page_of_modelled_energy_ranks_cpu_seconds_and_marks_joules_as_estimates() -> None:
    page = single.page(classifier_record())
    headings = {p.name: p.heading for p in page.panels()}
    assert headings["use-cpu-s"].endswith(", ranked")
    assert headings["use-j"] == "Estimated joules per 1,000 uses, not ranked"
    assert headings["build-j"].endswith("not ranked")
    assert any("estimated, not measured" in n for n in page.notices)
    run = next(f for f in page.facts if f.label == "The whole run")
    assert run.value == "5\u00a0min 14\u00a0s"
    assert list(run.notes) == ["596\u00a0CPU-s", "estimated 2.44\u00a0Wh, not a measurement"]


def test_page_of_counted_energy_ranks_joules_only() -> None:
    page = single.page(counted_record())
    assert [p.name for p in page.panels()] == ["use-j", "build-j", "payback", "curve", "phases-j"]
    assert not page.notices
    assert next(f for f in page.facts if f.label == "The whole run").value == "2.44\u00a0Wh"
    assert "0.137\u00a0g CO2e" in next(f for f in page.facts if f.label == "The whole run").notes


def test_page_marks_the_front_in_both_panels_of_an_estimated_cost() -> None:
    use = {p.name: p for p in single.page(classifier_record()).panels()}
    assert "On the front: Teacher, Student, TF-IDF, Majority class" in use["use-cpu-s"].alt
    assert "On the front" not in use["use-j"].alt
    points = {p.role: p for p in single.use_points(classifier_record(), "CPU-s")}
    assert points["student"].x_low == pytest.approx(3.3 * 0.97)
    assert points["student"].x_high == pytest.approx(3.3 * 1.05)


def test_build_costs_count_the_teacher_and_the_caches() -> None:
    record = classifier_record()
    phases = [
        dataclasses.replace(p, shared_cpu_s=50.0, shared_energy_j=700.0) if p.name == "cache" else p
        for p in record.phases
    ]
    points = {p.role: p.x for p in single.build_points(dataclasses.replace(record, phases=phases), "CPU-s")}
    cost = {p.name: p.cpu_s for p in record.phases}
    assert points["student"] == pytest.approx(cost["teacher"] + cost["cache"] + 50.0 + cost["train"])
    assert points["teacher"] == pytest.approx(cost["teacher"])
    assert points["majority"] == 0.0


def test_build_cost_without_joules_of_a_phase_is_unknown_not_partial() -> None:
    phases = [dataclasses.replace(p, energy_j=None) if p.name == "train" else p for p in classifier_record().phases]
    record = classifier_record(phases=phases)
    assert "student" not in {p.role for p in single.build_points(record, "J")}
    assert (
        cells(table_of(single.page(record), "Cost of making each model"), "estimated J, teacher included")["Student"]
        == "–"
    )


def test_phases_table_shares_and_totals() -> None:
    record = classifier_record()
    table = table_of(single.page(record), "Cost of each phase")
    shares = cells(table, "share of CPU-s")
    assert shares["train"] == "27\u00a0%"
    assert [row[0] for row in table.rows] == [*[p.name for p in record.phases], "Whole run"]
    assert cells(table, "CPU-s")["Whole run"] == "596"


def test_labels_table_gives_the_share_of_joules_under_each_label() -> None:
    table = table_of(single.page(classifier_record()), "How the joules were obtained")
    assert cells(table, "share") == {"CPU": "29\u00a0%", "RAM": "71\u00a0%"}
    assert cells(table, "label") == {"CPU": "modelled", "RAM": "constant"}
    assert "not a measurement" in cells(table, "which means")["CPU"]


def test_payback_section_gives_days_and_the_share_of_caches() -> None:
    page = single.page(counted_record())
    assert cells(table_of(page, "Time to repay"), "repaid after") == {
        "100": "3.1 years", "1,000": "3.8 months", "10,000": "12 days", "100,000": "2 days",
    }  # fmt: skip
    section = next(s for s in page.sections if s.title == "When it has paid for itself")
    assert isinstance(section.blocks[0], Text)
    assert "earlier runs paid 1,190 through caches" in section.blocks[0].text
    assert "95\u00a0% interval 100,000–130,000" in section.blocks[0].text


def test_payback_never_is_said_with_its_reason() -> None:
    page = single.page(retriever_record())
    fact = next(f for f in page.facts if f.label == "Pays for itself")
    assert fact.value == "Never"
    assert list(fact.notes) == ["The student's quality is not close enough to the teacher's to replace it"]


def test_curve_is_drawn_against_joules_too_where_they_are_estimates() -> None:
    assert classifier_record().curve[0].energy_j is not None
    panels = {p.name: p.heading for p in single.page(classifier_record()).panels() if p.name.startswith("curve")}
    assert panels == {
        "curve": "Validation accuracy against CPU-seconds",
        "curve-j": "Validation accuracy against estimated joules",
    }


def test_what_a_search_recommends_stands_beside_the_advice_in_page_and_terminal() -> None:
    event = records.Event(
        time_utc="2026-11-29T12:48:00Z", kind="recommended", message="layers_3 is recommended", details={}
    )
    record = dataclasses.replace(counted_record(), events=[event])
    said = "Of what was tried, layers_3 is recommended."
    assert said in report.further_sentences(record)
    (section,) = (s for s in report.page_of([record]).sections if s.title == "Should you distil at all?")
    assert [block.text for block in section.blocks][-1] == said


def test_curve_table_is_thinned_and_keeps_the_best_point() -> None:
    base = classifier_record()
    curve = [
        dataclasses.replace(base.curve[0], step=i, cpu_s=float(i), value=0.5 + (0.3 if i == 137 else 0.0))
        for i in range(1, 401)
    ]
    table = table_of(single.page(dataclasses.replace(base, curve=curve)), "Validation during training")
    steps = [row[0] for row in table.rows]
    assert len(steps) <= 14
    assert {"1", "137", "400"} <= set(steps)
    assert steps[table.strong[0]] == "137"
    assert "more are left out" in table.note


def test_p6_nan_metric_is_not_comparable_and_not_drawn() -> None:
    record = classifier_record()
    results = [
        dataclasses.replace(r, metrics={"accuracy": Metric(value=math.nan, low=None, high=None, n=1)})
        if r.role == "student"
        else r
        for r in record.results
    ]
    page = single.page(dataclasses.replace(record, results=results))
    assert cells(table_of(page, "Cost of 1,000 uses"), "place in this run")["Student"].startswith("not comparable")
    assert "Student" not in page.panels()[0].alt.replace("Untrained student", "")
    assert "nan" not in Reader(report.run_page(dataclasses.replace(record, results=results))).text.lower().split()


@pytest.mark.parametrize("change", [{"smoke": True}, {"contended": True}])
def test_p6_smoke_and_shared_machine_show_no_front(change: dict[str, bool]) -> None:
    page = single.page(classifier_record(**change))
    places = cells(table_of(page, "Cost of 1,000 uses"), "place in this run").values()
    assert all(p.startswith("not comparable") for p in places)
    assert all("not ranked" in p.heading for p in page.panels() if p.name.startswith(("use", "build")))


def test_p6_missing_energy_leaves_joules_out_and_ranks_cpu_seconds() -> None:
    record = counted_record()
    uses = [dataclasses.replace(i, energy_j_per_1000=None, label="missing") for i in record.inference]
    record = dataclasses.replace(record, inference=uses, energy_j=None, energy_label="missing")
    page = single.page(record)
    assert [p.name for p in page.panels() if p.name.startswith("use")] == ["use-cpu-s"]
    assert set(cells(table_of(page, "Cost of 1,000 uses"), "estimated J per 1,000 uses").values()) == {"–"}
    assert "Energy was not measured" in " ".join(page.notices)
    assert report.run_page(record)


def test_p6_one_model_without_joules_is_not_comparable() -> None:
    record = counted_record()
    uses = [
        dataclasses.replace(i, energy_j_per_1000=None, label="missing") if i.role == "student" else i
        for i in record.inference
    ]
    page = single.page(dataclasses.replace(record, inference=uses))
    places = cells(table_of(page, "Cost of 1,000 uses"), "place in this run")
    assert places["Student"] == "not comparable: not measured"
    assert places["TF-IDF"].startswith("on the front")
    assert "Student 48.5" not in page.panels()[0].alt


def test_e6_counted_processor_with_assumed_memory_is_ranked_and_called_partly_estimated() -> None:
    record = counted_record(energy_label="constant")
    assert words.ranking_unit(record) == "J"
    assert "2.44\u00a0Wh, partly estimated" in report.summary(record)
    assert any("A part of the joules is estimated" in n for n in words.notices(record))
    fact = next(f for f in single.page(record).facts if f.label == "The whole run")
    assert (fact.value, fact.notes[0]) == ("2.44\u00a0Wh", "partly estimated")


def test_work_table_says_where_and_how_fast_models_worked() -> None:
    table = table_of(single.page(classifier_record()), "Work of each phase")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["train"] == ["cpu", "675,000", "98\u00a0%", "8,040", "24\u00a0%", "1.24\u00a0GB"]
    assert rows["baseline"] == ["–", "–", "–", "–", "–", "1.24\u00a0GB"]


def test_an_almost_empty_record_still_has_a_page() -> None:
    record = classifier_record(
        results=[], curve=[], inference=[], phases=[], payback=None, examples=[], sources=[], events=[], files={},
        limits=[], command="", git_commit=None,
    )  # fmt: skip
    assert "The run gave no accuracy on its test split" in Reader(report.run_page(record)).text
    assert report.terminal_table(record).row_count == 0


def test_run_page_says_what_a_trustworthy_report_must_contain() -> None:
    text = Reader(report.run_page(classifier_record())).text
    for said in (
        "Power-supply" not in text and "Losses of the power supply",
        "models that cost less tend to be used more",
        "read once, after every choice",
        "smallmodels run distill_text_classifier --seed 0",
        "Fingerprint",
        "cc-by-4.0",
        "Majority class",
        "Protocol: indicative",
        "No grams of CO2e",
        "a difference of less than 1.0 points in accuracy counts as equal",
        "dropped 2 empty texts",
        "My card still has not arrived after two weeks",
        "overlap train test 3",
    ):
        assert isinstance(said, str)
        assert said in text


def test_every_picture_has_a_text_alternative_and_a_table() -> None:
    page = single.page(classifier_record())
    pictures = [b for s in page.sections for b in s.blocks if isinstance(b, Picture)]
    assert len(pictures) == 5
    assert all(p.table.rows and panel.alt for p in pictures for panel in p.panels)
    labels = [
        v
        for tag, name, v in Reader(report.run_page(classifier_record())).attributes
        if (tag, name) == ("svg", "aria-label")
    ]
    assert labels == [panel.alt for panel in page.panels()]


def test_run_page_is_the_same_each_time() -> None:
    assert report.run_page(classifier_record()) == report.run_page(classifier_record())


def test_ids_are_unique_in_the_page() -> None:
    ids = [v for _, name, v in Reader(report.run_page(classifier_record())).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_p9_run_page_can_fetch_nothing() -> None:
    page = report.run_page(classifier_record())
    reader = Reader(page)
    policies = [v for tag, name, v in reader.attributes if (tag, name) == ("meta", "content") and "default-src" in v]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policies[0]
    assert not re.search(r"\beval\b|innerHTML|fetch|XMLHttpRequest|import\b|new Function|localStorage", script[0])
    assert not reader.unsafe()
    assert not {"iframe", "object", "embed", "link", "form", "base", "img"} & set(reader.tags)
    assert "@import" not in page
    assert re.findall(r"https?://[^\s\"'<]*", page) == []


def test_p1_script_is_the_same_whatever_the_record_says() -> None:
    pages = [report.run_page(r) for r in (classifier_record(), with_attack(classifier_record()))]
    scripts = {re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-1] for page in pages}
    assert len(scripts) == 1


def test_p1_hostile_strings_are_inert_in_html() -> None:
    plain = Reader(report.run_page(classifier_record()))
    hostile = Reader(report.run_page(with_hostile_classes(with_attack(classifier_record()))))
    assert hostile.tags == plain.tags
    assert not hostile.unsafe()
    assert "<script>alert(1)</script>" in hostile.text  # shown as text, so the attack did arrive
    assert "{{7*7}}" in hostile.text
    assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", " ".join(hostile.words))


BIDI_CONTROLS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def test_p1_no_control_of_direction_reaches_a_page_or_a_cell() -> None:
    marks = "".join(c for c in map(chr, range(0x110000)) if unicodedata.bidirectional(c) in BIDI_CONTROLS)
    marks += "\u061c\u200e\u200f"
    assert len(set(marks)) == 12
    for shown in (formats.clean(marks), formats.markdown(marks), str(formats.csv_cell(marks))):
        assert not set(marks) & set(shown)


def test_p1_hostile_roles_and_metrics_are_inert() -> None:
    record = classifier_record()
    results = [
        dataclasses.replace(r, role=r.role + MARKUP, metrics={k + MARKUP: v for k, v in r.metrics.items()})
        for r in record.results
    ]
    uses = [dataclasses.replace(i, role=i.role + MARKUP) for i in record.inference]
    record = dataclasses.replace(record, results=results, inference=uses, metric=record.metric + MARKUP, payback=None)
    reader = Reader(report.run_page(record))
    assert not reader.unsafe()
    assert "img" not in reader.tags
    assert reader.tags["script"] == 1
    assert "alert(1)" in reader.text


def test_p5_a_hundred_thousand_classes_are_cut_and_counted() -> None:
    record = classifier_record()
    row = record.results[1].per_class[0]
    many = [row | {"label": f"class {i}"} for i in range(100_000)]
    results = [dataclasses.replace(r, per_class=many if r.role == "student" else []) for r in record.results]
    page = report.run_page(dataclasses.replace(record, results=results))
    assert len(page) < 1_000_000
    assert "99,500 more are left out here" in page
    assert "All 100,000 classes" in page


def test_p5_ten_megabytes_of_text_are_cut_and_counted() -> None:
    long = "long " * 2_000_000
    examples = [{"input": long, "answers": [long]}]
    record = classifier_record(title=long, command=long, limits=[long], config={"x": long}, examples=examples)
    page = report.run_page(record)
    assert len(page) < 1_000_000
    assert "more characters)" in page


# --- figures ----------------------------------------------------------------------------------------------------------


def test_p10_hostile_names_are_text_in_svg() -> None:
    points = [point("a" + MARKUP[:40], 1, 0.5), point("$\\frac{1", 2, 0.6), point("]]><script>", 40, 0.9)]
    figure = figures.scatter(points, x_label="<b>" + MARKUP, y_label="$x^{$", draw_front=True, percent=False)
    for text in (svg.to_file(figure, title=MARKUP), svg.inline(figure, says=MARKUP)):
        root = ET.fromstring(text)
        names = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert names <= {"svg", "title", "style", "rect", "defs", "g", "path", "text", "pattern", "circle"}
        assert not [k for element in root.iter() for k in element.attrib if k.startswith("on")]
        words_drawn = "".join(root.itertext())
        assert "$\\frac{1" in words_drawn
        assert "]]><script>" in words_drawn
    assert png.to_png(figure)[:4] == b"\x89PNG"


def test_svg_file_has_both_themes_and_no_date() -> None:
    series = figures.Series(label="", xs=[1, 2, 3], ys=[0.1, 0.2, 0.15], says="a line")
    figure = figures.curves([series], x_label="x", y_label="y", percent=True)
    text = svg.to_file(figure, title="a curve")
    assert "prefers-color-scheme:dark" in text
    assert "metadata" not in text
    assert not re.search(r"20\d\d-\d\d-\d\d", text)


@pytest.mark.parametrize("costs", [[0.0], [0.0, 0.0], [1.0, 1.0], [1e-6, 1e6], [0.0, 5.0, 500.0], [3.0, 3.1]], ids=str)
def test_scatter_draws_any_costs(costs: list[float]) -> None:
    points = [point(str(i), x, 0.5 + 0.01 * i) for i, x in enumerate(costs)]
    figure = figures.scatter(points, x_label="J", y_label="accuracy", draw_front=True, percent=True)
    places = [mark.touch[0] for mark in figure.marks()]
    assert len(places) == len(costs)
    assert all(58 <= x <= 386 and 26 <= y <= 274 for x, y in places)
    assert [x for x, _ in places] == sorted(x for x, _ in places)


def test_curve_of_one_run_begins_at_no_cost_and_says_each_value() -> None:
    record = classifier_record()
    panel = next(p for p in single.page(record).panels() if p.name == "curve")
    marks = panel.figure.marks()
    assert len(marks) == len(record.curve)
    assert [mark.says for mark in marks if mark.says.endswith(", the best")] == [
        max(zip([p.value for p in record.curve], [mark.says for mark in marks], strict=True))[1]
    ]
    start, _ = axes.across()
    steps = [(mark.touch[0][0] - start) / point.cpu_s for mark, point in zip(marks, record.curve, strict=True)]
    assert steps == pytest.approx([steps[0]] * len(steps))


def test_scatter_has_a_logarithmic_cost() -> None:
    points = [point(str(i), 10.0**i, 0.5 + 0.01 * i) for i in range(4)]
    figure = figures.scatter(points, x_label="J", y_label="accuracy", draw_front=True, percent=True)
    xs = [mark.touch[0][0] for mark in figure.marks()]
    steps = [b - a for a, b in itertools.pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 3)


def test_scatter_keeps_room_for_models_near_the_best() -> None:
    points = [point("majority", 0.1, 0.01), point("student", 1, 0.91), point("teacher", 2, 0.92)]
    figure = figures.scatter(points, x_label="J", y_label="accuracy", draw_front=False, percent=True)
    ticks = [float(w.text.removesuffix("\u00a0%")) for w in figure.words() if w.text.endswith("\u00a0%")]
    assert min(ticks) > 50
    assert "majority (1.0\u00a0%, 0.100)" in [w.text for w in figure.words()]
    assert "accuracy 1.0\u00a0%" in figure.marks()[0].says


def test_scatter_of_thousands_names_the_front_and_keeps_the_rest_as_dots() -> None:
    points = [point(str(i), 1 + i, 0.5 + 1e-4 * i) for i in range(5000)]
    points = [dataclasses.replace(p, on_front=i % 1000 == 0) for i, p in enumerate(points)]
    figure = figures.scatter(points, x_label="J", y_label="accuracy", draw_front=True, percent=True)
    assert len(figure.marks()) == 100
    assert sum("on the front" in mark.says for mark in figure.marks()) == 5
    assert "small dots: 4,900 more models" in [w.text for w in figure.words()]
    assert len(svg.inline(figure, says="many")) < 200_000


def test_labels_of_points_do_not_cover_each_other() -> None:
    names = [w for w in single.page(classifier_record()).panels()[0].figure.words() if w.colour == "ink"]
    assert len(names) == 6
    boxes = []
    for w in names:
        long = drawing.text_width(w.text)
        left = w.x - {"start": 0.0, "middle": long / 2, "end": long}[w.anchor]
        boxes.append((left, w.y - 11, left + long, w.y + 3))
    assert not [1 for a, b in itertools.combinations(boxes, 2) if labels.overlap(a, b) > 0]


def test_drawing_says_in_its_marks_what_it_shows() -> None:
    said = {mark.row: mark.says for mark in single.page(classifier_record()).panels()[0].figure.marks()}
    quality, cost = "accuracy 92.1 % (95 % interval 91.1–93.1 %)", "3.30 CPU-seconds per 1,000 uses (3.20–3.46)"
    assert said["Student"].replace("\u00a0", " ") == f"Student: {quality}, {cost}, on the front"


def language_model_record() -> RunRecord:
    """The classifier's record with bits per byte, in which the better model has fewer."""
    base = classifier_record()
    bits = {"teacher": 1.9, "student": 2.1, "label_only": 2.3}

    def result(r: Result) -> Result:
        value = bits.get(r.role, 8.0)
        found = Metric(value=value, low=value - 0.05, high=value + 0.02, n=500)
        return dataclasses.replace(r, metrics={"bits_per_byte": found})

    curve = [dataclasses.replace(p, value=-3.0 + 0.1 * i) for i, p in enumerate(base.curve)]
    return dataclasses.replace(
        base, metric="bits_per_byte", results=[result(r) for r in base.results], curve=curve, payback=None
    )


def test_metric_in_which_less_is_better_is_ranked_drawn_and_told_that_way() -> None:
    record = language_model_record()
    page = single.page(record)
    use = {p.name: p for p in page.panels()}["use-cpu-s"]
    assert "Teacher 6.40 CPU-seconds, 1.900" in use.alt
    assert "On the front: Teacher, Student" in use.alt
    assert "Labels only" not in use.alt.partition("On the front")[2]
    shown = [w.text for w in use.figure.words()]
    assert "2" in shown
    assert not [text for text in shown if text.startswith("-")]
    depths = {mark.row: mark.touch[0][1] for mark in use.figure.marks()}
    assert depths["Teacher"] < depths["Student"]
    assert any("(8.00" in text for text in shown)
    words_of_curve = {p.name: p for p in page.panels()}["curve"].alt
    last = 3.0 - 0.1 * (len(record.curve) - 1)
    assert "starts at 3.000 after" in words_of_curve
    assert f"is best, {last:.3f}," in words_of_curve


def test_curve_of_another_metric_than_the_one_that_ranks_is_named_and_drawn_as_its_own() -> None:
    base = classifier_record()
    curve = [dataclasses.replace(p, value=-3.0 + 0.1 * i) for i, p in enumerate(base.curve)]
    page = single.page(dataclasses.replace(base, curve=curve, curve_of="perplexity"))
    panel = {p.name: p for p in page.panels()}["curve"]
    assert panel.heading == "Validation perplexity against CPU-seconds"
    assert "starts at 3.000 after" in panel.alt
    assert table_of(page, "Validation during training").head[-1] == "perplexity"
    with pytest.raises(StopIteration):  # the teacher has no such value
        table_of(page, "Cost to come near the teacher")


def test_interval_of_such_a_metric_has_its_better_end_on_top() -> None:
    assert single.goodness_of("bits_per_byte", 2.0, 1.5, 3.0) == {"y": -2.0, "y_low": -3.0, "y_high": -1.5}
    assert single.goodness_of("accuracy", 0.5, 0.4, None) == {"y": 0.5, "y_low": 0.4, "y_high": None}


# --- several runs -----------------------------------------------------------------------------------------------------


def test_several_ranks_from_three_seeds_on_under_the_full_protocol() -> None:
    page = several.page(seeds(3))
    places = cells(table_of(page, "Mean over seeds"), "place")
    assert places["TF-IDF"] == "on the front: nothing is cheaper"
    assert not [p for p in places.values() if "not comparable" in p]
    assert page.panels()[0].heading.endswith(", ranked")


def test_p6_two_seeds_are_not_comparable_and_show_no_front() -> None:
    page = several.page(seeds(2))
    assert set(cells(table_of(page, "Mean over seeds"), "place").values()) == {"not comparable: 2 seeds, 3 needed"}
    costs = [p for p in page.panels() if "-use-" in p.name or "-build-" in p.name]
    assert costs
    assert all("not ranked" in p.heading for p in costs)
    assert "none is named better" in page.summary


def test_several_does_not_rank_an_indicative_cost_of_use() -> None:
    page = several.page(seeds(3, protocol="indicative"))
    tables = [b.table for s in page.sections for b in s.blocks if isinstance(b, Picture)]
    assert set(cells(tables[0], "place").values()) == {"not comparable: indicative protocol"}
    assert not [p for p in cells(tables[1], "place").values() if "not comparable" in p]


def test_several_repeats_of_one_seed_count_once() -> None:
    runs = [dataclasses.replace(r, config=r.config | {"seed": 0}) for r in seeds(3)]
    assert set(cells(table_of(several.page(runs), "Mean over seeds"), "seeds").values()) == {"1"}


def test_several_never_ranks_different_machines_together() -> None:
    other = dataclasses.replace(classifier_record().environment, fingerprint="ab" * 32)
    page = several.page([*seeds(3), *seeds(3, environment=other)])
    assert page.title == "6 runs in 2 groups"
    assert table_of(page, "What differs").head == ["Group", "runs", "machine"]
    assert [s.title for s in page.sections if "cost of a use" in s.title] == [
        "PolyAI/banking77 (1): quality against cost of a use",
        "PolyAI/banking77 (2): quality against cost of a use",
    ]


def test_several_names_groups_by_their_data_where_each_has_its_own() -> None:
    others = [
        dataclasses.replace(r, sources=[dataset("other/data", "mit", {"test": 100})], run_id=f"x{r.run_id}")
        for r in seeds(3)
    ]
    found = [s.title for s in several.page([*seeds(3), *others]).sections if "cost of a use" in s.title]
    assert found == [f"{name}: quality against cost of a use" for name in ("PolyAI/banking77", "other/data")]


def test_gross_idle_and_net_are_told_and_net_called_meaningless_where_joules_are_modelled() -> None:
    def plain(text: str) -> str:
        return " ".join(text.split())

    for make, counted in ((counted_record, True), (classifier_record, False)):
        base = make()
        watched = dataclasses.replace(phase("idle", 60.0), energy_j=600.0, label="counter")
        record = dataclasses.replace(base, phases=[watched, *base.phases], energy_j=10_000.0, duration_s=400.0)
        found = idling.of(record)
        assert found is not None
        assert (found.power_w, found.idle_j, found.net_j) == pytest.approx((10.0, 4000.0, 6000.0))
        (said,) = words.beside_sentences(record)
        assert "The idle machine took 10.0 W in 1 min 00 s" in plain(said)
        assert "idle: net 1.67 Wh." in plain(said)
        assert ("says nothing here" in said) is not counted
        assert plain(said) in plain(Reader(report.run_page(record)).text)
    assert idling.of(classifier_record()) is None


def test_several_separates_other_test_rows() -> None:
    record = classifier_record()
    sources = [dataclasses.replace(s, fingerprint="00" * 32) for s in record.sources]
    assert "2 groups" in several.page([*seeds(3), *seeds(3, sources=sources)]).title


def test_several_names_systems_by_what_varies() -> None:
    runs = seeds(3) + [
        dataclasses.replace(r, config=r.config | {"temperature": 4.0}, run_id=r.run_id + "b") for r in seeds(3)
    ]
    table = table_of(several.page(runs), "Mean over seeds")
    names = [str(row[0]) for row in table.rows]
    assert names == [
        "Teacher", "Student (temperature 2)", "Labels only (temperature 2)", "TF-IDF", "Student (temperature 4)",
        "Labels only (temperature 4)",
    ]  # fmt: skip
    assert set(cells(table, "seeds").values()) == {"3"}  # of the teacher too, which both configs share


def test_write_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one record"):
        report.write_report([], tmp_path)


def test_write_report_writes_every_form(tmp_path: Path) -> None:
    paths = report.write_report(seeds(3), tmp_path / "new" / "folder")
    names = {p.name for p in paths}
    assert {"index.html", "report.md", "results.csv", "group1-use-cpu-s.svg", "group1-use-cpu-s.png"} <= names
    assert all(p.stat().st_size > 100 for p in paths)
    shown = set(re.findall(r"\]\(([^)]*\.svg)\)", (tmp_path / "new/folder/report.md").read_text()))
    assert shown == {n for n in names if n.endswith(".svg")}


def test_write_report_removes_pictures_of_groups_that_are_gone_and_nothing_else(tmp_path: Path) -> None:
    other = dataclasses.replace(classifier_record().environment, fingerprint="ab" * 32)
    elsewhere = [dataclasses.replace(r, environment=other, run_id=f"other-{r.run_id}") for r in seeds(3)]
    before = {p.name for p in report.write_report([*seeds(3), *elsewhere], tmp_path)}
    assert {"group2-use-j.svg", "group2-curve-cpu-s.png", "group2-phases-j.png"} <= before
    mine = {"group2.svg", "group2-notes.svg", "group2-use-j.txt", "my-group2-use-j.svg", "picture.png"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    after = {p.name for p in report.write_report(seeds(3), tmp_path)}
    assert {p.name for p in tmp_path.iterdir()} == after | mine


def test_p1_hostile_strings_are_inert_in_a_comparison(tmp_path: Path) -> None:
    runs = [with_attack(r) for r in seeds(3)]
    reader = Reader(report.write_report(runs, tmp_path)[0].read_text())
    assert reader.tags == Reader(report.write_report(seeds(3), tmp_path / "plain")[0].read_text()).tags
    assert "<script>alert(1)</script>" in reader.text
    assert not reader.unsafe()


def test_p2_hostile_strings_stay_in_one_markdown_cell_without_links(tmp_path: Path) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    for name, runs in (("one", [classifier_record()]), ("many", seeds(3))):
        plain = report.write_report(runs, tmp_path / name)[1].read_text()
        hostile = report.write_report([with_attack(r, MARKUP + "\n# x\n| y |") for r in runs], tmp_path / f"{name}x")[1]
        page, expected = Reader(parser.render(hostile.read_text())), Reader(parser.render(plain))
        counted = {tag: page.tags[tag] for tag in ("table", "tr", "td", "th", "h1", "h2", "a", "img", "script", "pre")}
        assert counted == {tag: expected.tags[tag] for tag in counted}
        assert {v for t, n, v in page.attributes if n == "src"} == {
            p.name for p in (tmp_path / f"{name}x").glob("*.svg")
        }


def test_p3_csv_cells_cannot_be_formulas(tmp_path: Path) -> None:
    starts = ("=1+1", "+1", "-1", "@x", "\t=1", " =1", "\uff1d1", "\u00a0=1")
    runs = [dataclasses.replace(classifier_record(curve=[]), run_id=start + "cmd", recipe=start) for start in starts]
    rows = list(csv.DictReader(io.StringIO(report.write_report(runs, tmp_path)[2].read_text())))
    assert {r["run_id"] for r in rows} == {f"'{start}cmd" for start in starts}
    assert {r["recipe"] for r in rows} == {f"'{start}" for start in starts}
    assert float(rows[0]["value"]) == 0.926


def test_csv_holds_every_metric_unrounded(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(report.write_report([counted_record()], tmp_path)[2].read_text())))
    assert len(rows) == 12
    student = next(r for r in rows if r["role"] == "student" and r["metric"] == "accuracy")
    assert float(student["cpu_s_per_1000"]) == 3.3
    assert student["number_format"] == counted_record().inference[0].number_format
    assert float(student["build_cpu_s_with_teacher"]) - float(student["build_cpu_s"]) == pytest.approx(1.9 * 96)


# --- terminal and import ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [classifier_record(), counted_record(), retriever_record()], ids=lambda r: r.recipe)
def test_terminal_table_fits_eighty_columns_whole(record: RunRecord) -> None:
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    console.print(report.terminal_table(record))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    student = next(line for line in lines if line.strip().startswith("Student"))
    assert "3.3" in student
    assert "49" in student


def test_terminal_table_shows_markup_as_text() -> None:
    from rich.console import Console

    record = classifier_record(
        title="[bold]x[/bold] [link=http://evil]y[/link]\n\x1b[31mz", inference=[inference("[red]", 1, 1, 1)]
    )
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    console.print(report.terminal_table(dataclasses.replace(record, results=[
        dataclasses.replace(record.results[0], role="[red]r[/red]")])))  # fmt: skip
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]x[/bold]" in shown
    assert "[red]r[/red]" in shown
    assert "\x1b[31m" not in shown


def test_report_and_cards_import_without_heavy_packages() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib', 'sklearn', 'datasets', 'jinja2', 'rich', 'numpy'}"
    code = f"import sys; import smallmodels.report, smallmodels.cards; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the README -------------------------------------------------------------------------------------------------------


def make_clone(folder: Path) -> Path:
    for name, record in (("banking77", classifier_record()), ("quickstart", retriever_record())):
        (folder / "benchmarks" / "results" / name).mkdir(parents=True)
        records.write_record(folder / "benchmarks" / "results" / name, record)
    speed = f"{readme.SPEED_BEGIN}\n{readme.SPEED_END}"
    small = f"{readme.SMALL_BEGIN}\n{readme.SMALL_END}"
    results = f"{readme.BEGIN}\nold\n{readme.END}\n\n{small}\n\n{speed}\n\n{readme.FAULTS_BEGIN}\n{readme.FAULTS_END}"
    (folder / "README.md").write_text(f"# Before\n\n{results}\n\nAfter\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "faults.md").write_text("# Faults\n")
    return folder


def test_readme_results_are_written_from_records(tmp_path: Path) -> None:
    root = make_clone(tmp_path)
    assert readme.main(["--root", str(root), "--check"]) == 1
    assert readme.main(["--root", str(root)]) == 0
    assert readme.main(["--root", str(root), "--check"]) == 0
    text = (root / "README.md").read_text()
    assert text.count("Not measured yet.") == 2
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nAfter\n")
    assert "old" not in text
    assert "| Student | 92.1\u00a0% | 91.1–93.1\u00a0% |" in text
    assert "| Student | 0.622 |" in text
    picture = ET.fromstring((root / "benchmarks" / "results" / readme.PICTURE).read_text())
    assert "distill_text_classifier" in "".join(picture.itertext())


def test_readme_shows_the_summary_of_the_page_about_peers(tmp_path: Path) -> None:
    root = make_clone(tmp_path)
    page = f"# Peers\n\n{readme.SPEED_BEGIN}\n\n| job | 5 times |\n\n{readme.SPEED_END}\n\nand much more\n"
    (root / "benchmarks" / "results" / readme.PEERS).write_text(page)
    assert readme.main(["--root", str(root)]) == 0
    text = (root / "README.md").read_text()
    assert f"{readme.SPEED_BEGIN}\n\n| job | 5 times |\n\n{readme.SPEED_END}" in text
    assert "and much more" not in text


def test_readme_check_notices_a_figure_typed_by_hand(tmp_path: Path) -> None:
    root = make_clone(tmp_path)
    readme.main(["--root", str(root)])
    path = root / "README.md"
    path.write_text(path.read_text().replace("92.1", "95.1"))
    assert readme.main(["--root", str(root), "--check"]) == 1


def test_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="each once"):
        readme.rewritten("# nothing", "text")


def test_readme_of_this_repository_says_what_its_records_say() -> None:
    if readme.read_results(ROOT / "benchmarks" / "results"):
        assert readme.main(["--check"]) == 0
