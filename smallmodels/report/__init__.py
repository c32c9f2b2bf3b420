"""RunRecords to pages: the report of one run, the comparison of several, the table in the terminal.

Numbers come from records alone. Which cost is ranked follows from how the joules were obtained: counted and sampled
ones are; where they are modelled, CPU-seconds are ranked and joules are shown as estimates.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smallmodels import files
from smallmodels.errors import InputError
from smallmodels.records import Inference, RunRecord
from smallmodels.report import figures, formats, inference, learning, several, single, tokens, words
from smallmodels.report.evidence import NO_EVIDENCE, Evidence
from smallmodels.report.page import Page, to_html, to_markdown, writer
from smallmodels.report.systems import build_cost
from smallmodels.report.words import summary

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "NO_EVIDENCE",
    "Evidence",
    "answer",
    "page_of",
    "run_page",
    "summary",
    "terminal_table",
    "write_report",
    "writer",
]

_CSV_HEAD = (
    "run_id recipe seed role split metric value low high n parameters size_bytes latency_p50_s latency_p95_s "
    "batch_size throughput_per_s energy_j_per_1000 cpu_s_per_1000 inference_label protocol build_energy_j build_cpu_s "
    "build_energy_j_with_teacher build_cpu_s_with_teacher run_energy_j run_cpu_s run_energy_label contended smoke "
    "fingerprint sweep_id margin num_threads paid_build_energy_j paid_build_cpu_s number_format max_length "
    "energy_j_per_read_token energy_j_per_written_token cpu_s_per_read_token cpu_s_per_written_token"
)

_GROUP_PICTURE = re.compile(r"group[0-9]+-(payback|(use|build|curve|phases)-(j|cpu-s)(-[0-9]+)?)\.(svg|png)")
"""Name of a picture of a group of runs."""


def run_page(record: RunRecord) -> str:
    """The page of one run as self-contained HTML: no network, readable from a file, and whole without its script."""
    return to_html(several.page_of_one(record))


def write_report(records: Sequence[RunRecord], folder: Path, *, evidence: Evidence = NO_EVIDENCE) -> list[Path]:
    """Write the report of one run, or the comparison of several.

    Args:
        records: At least one.
        folder: Where to write; made if it is absent. Pictures of groups that an earlier report left there are removed.
        evidence: What belongs to them beside the records.

    Returns: The files: `index.html`, `report.md`, `results.csv`, each picture as SVG and PNG, and `inference.csv` where
        a run has measured inference in detail.
    Raises: InputError if there is no record.
    """
    if not records:
        raise InputError("a report needs at least one record, got none: name a run folder that holds a record.json")
    folder.mkdir(parents=True, exist_ok=True)
    records, page = evidence.marked(records), page_of(records, evidence)
    written = [folder / "index.html", folder / "report.md", folder / "results.csv"]
    pictures = {panel.name: f"{panel.name}.svg" for panel in page.panels()}
    files.write_text(written[0], to_html(page))
    files.write_text(written[1], to_markdown(page, pictures))
    files.write_text(written[2], _csv(records))
    for panel in page.panels():
        written += figures.write(panel.figure, folder / panel.name, title=panel.alt)
    if in_detail := inference.csv_rows(records):
        written.append(folder / "inference.csv")
        files.write_text(written[-1], _csv_text(inference.CSV_HEAD, in_detail))
    _remove_earlier(folder, written)
    return written


def _remove_earlier(folder: Path, written: Sequence[Path]) -> None:
    """Remove pictures of groups that an earlier report in the folder had and this one has not, and nothing else."""
    for path in sorted(folder.iterdir()):
        if _GROUP_PICTURE.fullmatch(path.name) and path not in written and not path.is_dir():
            path.unlink()


def page_of(records: Sequence[RunRecord], evidence: Evidence = NO_EVIDENCE) -> Page:
    """What a report says, before it is HTML, Markdown, or lines in a terminal."""
    marked = evidence.marked(records)
    return several.page_of_one(marked[0], evidence) if len(marked) == 1 else several.page(marked, evidence)


def answer(records: Sequence[RunRecord], evidence: Evidence = NO_EVIDENCE) -> str:
    """Whether to distil, as the page of several runs begins with it; empty where nothing is known of that."""
    return several.answer(several.analysed(evidence.marked(records), evidence))


def _csv(records: Sequence[RunRecord]) -> str:
    """One line per run, model and metric, unrounded, for other programs."""
    rows: list[list[object]] = []
    for record in records:
        for result in record.results:
            use = record.inference_of(result.role)
            for metric, found in result.metrics.items():
                row = [record.run_id, record.recipe, record.config.get("seed"), result.role, result.split, metric]
                row += [found.value, found.low, found.high, found.n, *_use_values(use)]
                row += [*record.cost_of(result.built_by), *record.cost_of([*result.built_by, *result.teacher_phases])]
                row += [record.energy_j, record.cpu_s, record.energy_label, record.contended, record.smoke]
                row += [record.environment.fingerprint, record.sweep_id, record.margin, record.environment.num_threads]
                row += [build_cost(record, result.role, unit, teacher=False, caches=False) for unit in ("J", "CPU-s")]
                row += [use.number_format if use else None, record.config.get("max_length")]
                rows.append([*row, *_token_values(use)])
    return _csv_text(_CSV_HEAD.split(), rows)


def _csv_text(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([formats.csv_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _use_values(use: Inference | None) -> list[float | str | None]:
    if use is None:
        return [None] * 10
    return [
        use.num_parameters, use.size_bytes, use.latency_p50_s, use.latency_p95_s, use.batch_size, use.throughput_per_s,
        use.energy_j_per_1000, use.cpu_s_per_1000, use.label, use.protocol,
    ]  # fmt: skip


def _token_values(use: Inference | None) -> list[float | None]:
    told = use.tokens if use else None
    if told is None:
        return [None] * 4
    costs = (told.energy_j_per_read, told.energy_j_per_written, told.cpu_s_per_read, told.cpu_s_per_written)
    return [cost.value if cost else None for cost in costs]


def further_sentences(record: RunRecord, uses_per_day: float | None = None) -> list[str]:
    """What one run says beyond its summary.

    Whether to distil, what a search recommends and which models are on its front, the way to the teacher, what tokens
    cost, and days to repay.
    """
    (group,) = several.analysed([record])
    said = [
        group.advice,
        *words.recommendations(record),
        learning.run_sentence(record, group.unit),
        tokens.sentence(record),
    ]
    if uses_per_day and record.payback is not None and record.payback.uses is not None and not record.smoke:
        days = single.days_words(record.payback.uses / uses_per_day)
        said.append(f"At {uses_per_day:,.15g} uses a day, building the student is repaid after {days}.")
    return [sentence for sentence in said if sentence]


def terminal_table(record: RunRecord) -> "Table":
    """The table at the end of a run and of `smallmodels show`, for 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    unit = words.ranking_unit(record)
    main = words.main_result(record)
    title = Text(formats.clean(record.title, 150).replace("\n", " "), style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1), collapse_padding=True)
    joules = "J\n/1,000" if record.energy_is_counted else "est. J\n/1,000"
    costs = ["CPU-s\n/1,000", joules] if unit == "CPU-s" else [joules, "CPU-s\n/1,000"]
    table.add_column("Model", no_wrap=True)
    for head in (formats.metric_name(record.metric)[:10], "95\u00a0%\ninterval", "on\ndisk", "one\ninput", *costs):
        table.add_column(Text(head), justify="right", no_wrap=True)
    for result in words.test_results(record):
        found, use = result.metrics.get(record.metric), record.inference_of(result.role)
        cells = [formats.number(words.use_cost(use, u), 2) for u in ("CPU-s", "J")]
        row = [
            formats.clean(words.role_name(result.role)).replace("\n", " ")[:17],
            formats.quality(record.metric, found.value if found else None),
            formats.interval(record.metric, found.low if found else None, found.high if found else None).removesuffix(
                "\u00a0%"
            ),
            formats.size(use.size_bytes if use else None, 2),
            formats.duration(use.latency_p50_s if use else None, 2),
            *(cells if unit == "CPU-s" else reversed(cells)),
        ]
        table.add_row(*[Text(cell) for cell in row], style="bold" if result is main else None)
    return table
