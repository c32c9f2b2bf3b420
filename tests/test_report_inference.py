"""Inference in detail in every form of a report, and the ranking of uses that share a measurement."""

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from hostile import Reader
from sample_records import classifier_record, compared_records

from smallmodels import cards, records, report
from smallmodels.records import Inference, InferenceVariant, InferenceWindow, Metric, RunRecord, TokenCosts
from smallmodels.report import several, single
from smallmodels.report.page import Page, Picture, Table
from smallmodels.report.terminal import print_page

KINDS = [
    (kind, form, size)
    for size in (1, 16)
    for kind, form in (("typical", "fp32"), ("short", "fp32"), ("long", "fp32"), ("typical", "bf16"))
]


def variant(use: Inference, kind: str, number_format: str, batch_size: int) -> InferenceVariant:
    factor = {"typical": 1.0, "short": 0.5, "long": 3.0}[kind] / (4 if batch_size > 1 else 1)
    return InferenceVariant(
        texts=kind,
        mean_characters=60.0 * factor,
        mean_tokens=15.0 * factor,
        number_format=number_format,
        batch_size=batch_size,
        latency_p50_s=0.004 * factor * batch_size,
        latency_p95_s=0.006 * factor * batch_size,
        throughput_per_s=250.0 / factor,
        energy_j_per_1000=None if number_format == "bf16" else use.energy_j_per_1000 * factor,
        cpu_s_per_1000=use.cpu_s_per_1000 * factor,
        label=use.label,
        num_windows=10 if kind == "typical" and number_format == "fp32" else 3,
        duration_s=50.0,
    )


def in_full(record: RunRecord, **changes) -> RunRecord:
    """The same run under the full protocol, its student, controls and untrained student being of one shape."""
    uses = []
    for use in record.inference:
        is_student = use.role in ("student", "label_only", "untrained_student")
        about = {"measured_as": "student" if is_student else use.role, "start_up_s": 4.2 if is_student else None}
        variants = [variant(use, *kind) for kind in KINDS] if use.role != "majority" else []
        uses.append(dataclasses.replace(use, protocol="full", variants=variants, **about, **changes))
    return dataclasses.replace(record, inference=uses)


def tables_of(page: Page) -> dict[str, Table]:
    """By caption; the first of those that share one."""
    blocks = [block for section in page.sections for block in section.blocks]
    found: dict[str, Table] = {}
    for block in blocks:
        if isinstance(block, (Table, Picture)):
            table = block.table if isinstance(block, Picture) else block
            found.setdefault(table.caption, table)
    return found


def sharing(count: int) -> list[RunRecord]:
    """Runs with several seeds, all but the first of which took the measurement of the first from the cache."""
    made = []
    for seed in range(count):
        record = compared_records((2.0,), count)[seed]
        uses = in_full(classifier_record(), measured_in=made[0].run_id if made else None).inference
        made.append(dataclasses.replace(record, inference=uses))
    return made


def test_page_of_a_run_shows_each_shape_once_with_all_its_kinds_of_use() -> None:
    page = single.page(in_full(classifier_record()))
    assert [s.title for s in page.sections][1:3] == ["What using it costs", "Inference in detail"]
    table = tables_of(page)["One use and the best batch"]
    assert "estimated J per 1,000" in table.head
    names = [str(row[0]) for row in table.rows]
    assert list(dict.fromkeys(names)) == ["Teacher", "Student", "TF-IDF"]
    assert len(names) == 3 * len(KINDS)
    shown = dict(zip(table.head, table.rows[len(KINDS)], strict=True))
    assert shown | {"estimated J per 1,000": ""} == {
        "Model": "Student", "texts": "typical", "characters": "60.0", "tokens": "15.0", "number format": "fp32",
        "batch": "1", "p50": "4.00\u00a0ms", "p95": "6.00\u00a0ms", "inputs per second": "250",
        "estimated J per 1,000": "", "CPU-s per 1,000": "3.30", "joules are": "modelled", "windows": "10",
    }  # fmt: skip
    assert table.note == "Of the same shape, so measured once: Labels only, Untrained student: as Student."
    start = tables_of(page)["Size and start"]
    assert [row[2:] for row in start.rows] == [
        ["–", "in this run"],
        ["4.20\u00a0s", "in this run"],
        ["–", "in this run"],
    ]


def in_tokens(record: RunRecord) -> RunRecord:
    """The same run of language models."""

    def cost(value: float) -> Metric:
        return Metric(value=value, low=0.9 * value, high=1.1 * value, n=3)

    tokens = TokenCosts(
        num_read=73.0,
        num_written=32.0,
        energy_j_per_read=cost(0.0031),
        energy_j_per_written=None,
        cpu_s_per_read=cost(0.0002),
        cpu_s_per_written=cost(0.0004),
        reading_windows=[],
    )
    writers = ("teacher", "student")
    uses = [dataclasses.replace(use, tokens=tokens if use.role in writers else None) for use in record.inference]
    return dataclasses.replace(record, inference=uses)


def test_page_card_and_terminal_say_what_a_token_costs(tmp_path: Path, capsys) -> None:
    from rich.console import Console

    record = in_tokens(classifier_record())
    table = tables_of(single.page(record))["Cost of a token"]
    assert [row[0] for row in table.rows] == ["Teacher", "Student"]
    assert dict(zip(table.head, table.rows[1], strict=True)) == {
        "Model": "Student", "tokens read in a use": "73.0", "written": "32.0",
        "CPU-s per read token": "0.000200 (0.000180–0.000220)",
        "CPU-s per written token": "0.000400 (0.000360–0.000440)",
        "estimated J per read token": "0.00310 (0.00279–0.00341)", "estimated J per written token": "–",
        "how joules were obtained": "modelled",
    }  # fmt: skip
    print_page(single.page(record), Console(width=80))
    assert "CPU-s per written token 0.000400" in " ".join(capsys.readouterr().out.split())
    assert report.further_sentences(record)[-1] == (
        "A use reads 73.0 tokens and writes 32.0; a read token takes 0.000200 CPU-s; "
        "a written token takes 0.000400 CPU-s."
    )
    assert not any("A use reads" in said for said in report.further_sentences(classifier_record()))
    card = cards.model_card(record)
    assert "| Student | 73.0 | 32.0 | 0.000200 (0.000180–0.000220) |" in card
    assert "per written token" not in cards.model_card(classifier_record())
    records.write_record(tmp_path, record)
    assert records.read_record(tmp_path).inference == record.inference


def test_page_of_a_run_names_the_run_that_measured_for_it() -> None:
    page = single.page(in_full(classifier_record(), measured_in="run-0"))
    assert {row[3] for row in tables_of(page)["Size and start"].rows} == {"in run run-0"}


def test_run_without_the_full_protocol_has_no_such_section() -> None:
    page = single.page(classifier_record())
    assert "Inference in detail" not in [s.title for s in page.sections]
    assert "Inference in detail" not in [s.title for s in several.page(compared_records()).sections]


def test_page_of_several_runs_averages_over_measurements_that_are_distinct() -> None:
    shared = tables_of(several.page(sharing(3)))
    assert {row[-1] for row in shared["One use and the best batch"].rows} == {"10", "3"}
    own = [in_full(record) for record in compared_records((2.0,), 3)]
    table = tables_of(several.page(own))["One use and the best batch"]
    assert {row[-1] for row in table.rows} == {"30", "9"}
    costs = [u.cpu_s_per_1000 for r in own for u in r.inference if u.role == "teacher"]
    assert float(str(table.rows[0][table.head.index("CPU-s per 1,000")])) == pytest.approx(sum(costs) / 3, abs=0.005)


def test_every_form_of_a_report_says_it(tmp_path: Path, capsys) -> None:
    from rich.console import Console

    found = [in_tokens(record) for record in sharing(3)]
    paths = {path.name: path for path in report.write_report(found, tmp_path)}
    for text in (Reader(paths["index.html"].read_text()).text, paths["report.md"].read_text()):
        assert "Inference in detail" in text
        assert "the median of a few" in text
    print_page(several.page(sharing(3)), Console(width=80))
    shown = capsys.readouterr().out
    assert "Inference in detail" in shown
    assert max(map(len, shown.splitlines())) <= 80
    results = csv.DictReader(io.StringIO(paths["results.csv"].read_text()))
    told = {row["role"]: (row["cpu_s_per_written_token"], row["energy_j_per_written_token"]) for row in results}
    assert (told["student"], told["tfidf"]) == (("0.0004", ""), ("", ""))
    rows = list(csv.DictReader(io.StringIO(paths["inference.csv"].read_text())))
    assert len(rows) == 3 * 5 * len(KINDS)  # the majority class was not measured
    assert {row["measured_in"] for row in rows} == {"", sharing(3)[0].run_id}
    assert rows[0]["latency_p50_s"] == "0.004"
    assert "inference.csv" not in {path.name for path in report.write_report(compared_records(), tmp_path / "plain")}


def test_uses_that_share_a_measurement_are_ranked_with_an_interval_over_its_windows() -> None:
    runs = sharing(3)
    table = tables_of(several.page(runs))["Mean over seeds"]
    places = {str(row[0]): str(row[-1]) for row in table.rows}
    assert places["TF-IDF"].startswith("on the front")
    assert not [place for place in places.values() if "indicative" in place]
    cost = {str(row[0]): str(row[5]) for row in table.rows}["Student"]
    assert cost == "3.30 (SD 0.13, 2.97–3.63, n 1)"  # windows of 97, 100 and 105 %, Student-t with n - 1 = 2


def test_measurement_that_only_some_seeds_share_counts_once() -> None:
    own = [in_full(record) for record in compared_records((2.0,), 3)]
    taken = in_full(own[0], measured_in=own[0].run_id).inference
    table = tables_of(several.page([own[0], dataclasses.replace(own[1], inference=taken), own[2]]))["Mean over seeds"]
    cost = {str(row[0]): str(row[5]) for row in table.rows}["Student"]
    assert cost == "3.33 (SD 0.047, 2.91–3.75, n 2)"  # of 3.30 and 3.366, Student-t with n - 1 = 1
    assert "over distinct measurements" in table.note


def test_uses_that_were_measured_for_each_seed_keep_their_interval_over_seeds() -> None:
    runs = [in_full(record) for record in compared_records((2.0,), 3)]
    cost = {str(row[0]): str(row[5]) for row in tables_of(several.page(runs))["Mean over seeds"].rows}["Student"]
    assert "SD 0.033" in cost


def test_interval_of_a_cost_does_not_reach_below_nothing() -> None:
    own = [in_full(record) for record in compared_records((2.0,), 3)]
    dear = [dataclasses.replace(u, cpu_s_per_1000=3 * (u.cpu_s_per_1000 or 0.0)) for u in own[2].inference]
    taken = in_full(own[0], measured_in=own[0].run_id).inference
    runs = [own[0], dataclasses.replace(own[1], inference=taken), dataclasses.replace(own[2], inference=dear)]
    cost = {str(row[0]): str(row[5]) for row in tables_of(several.page(runs))["Mean over seeds"].rows}["Student"]
    assert cost == "6.70 (SD 4.8, 0–49.9, n 2)"


def test_record_with_variants_is_read_back(tmp_path: Path) -> None:
    record = in_full(classifier_record(), measured_in="run-0")
    window = InferenceWindow(duration_s=5.0, num_examples=10, energy_j=None, cpu_s=1.0)
    uses = [dataclasses.replace(use, windows=[window] * 10) for use in record.inference]
    written = records.write_record(tmp_path, dataclasses.replace(record, inference=uses))
    assert records.read_record(tmp_path) == written
    assert written.inference == uses
