"""Inference in detail: one text and the best batch, short and long texts, number formats, the start of a process.

Only the full protocol measures these; models of one shape share a measurement, which is shown once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smallmodels.records import Inference, InferenceVariant, RunRecord, whole_sum
from smallmodels.report import formats, words
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import MAX_ROWS, Row, Section, Table, Text, cut_note

if TYPE_CHECKING:
    from smallmodels.report.systems import System

TITLE = "Inference in detail"
CSV_HEAD = (
    *("run_id", "recipe", "seed", "role", "texts", "mean_characters", "mean_tokens", "number_format", "batch_size"),
    *("latency_p50_s", "latency_p95_s", "throughput_per_s", "energy_j_per_1000", "cpu_s_per_1000", "energy_label"),
    *("num_windows", "duration_s", "start_up_s", "size_bytes", "measured_as", "measured_in"),
)
_LEAD = (
    "The full protocol: after a warm-up, windows of all models and kinds that a run measures, in turn, tokenising "
    "included. Short and long texts are the shortest and the longest tenth of the texts; the batch beside "
    "1 is the one that gave the most typical texts per second. p50 and p95 are of one call with a whole batch."
)
_START_NOTE = (
    "Start-up: from the start of a new process until it has imported the library, loaded the saved model and answered "
    "one text; the median of a few."
)


@dataclass(frozen=True)
class _Measured:
    """Models that share their measurements."""

    names: list[str]
    uses: list[tuple[str, Inference]]
    """Each distinct measurement, with the id of the run that took it."""

    @property
    def name(self) -> str:
        """Of the first of them."""
        return self.names[0]


def section_of_run(record: RunRecord) -> Section | None:
    """What the page of one run shows; None where the run has no such measurement."""
    roles = dict.fromkeys([r.role for r in words.test_results(record)] + [i.role for i in record.inference])
    found = ((words.role_name(role), [(record.run_id, record.inference_of(role))]) for role in roles)
    return _section(_merged(found), TITLE, is_counted=record.energy_is_counted, own=record.run_id)


def section_of_group(systems: Sequence["System"], title: str) -> Section | None:
    """What the page of several runs shows of a group; None where no run has such a measurement.

    Args:
        systems: Of the group.
        title: In front of the heading.
    """
    found = ((s.label, [(record.run_id, record.inference_of(s.role)) for record in s.records]) for s in systems)
    is_counted = all(record.energy_is_counted for system in systems for record in system.records)
    return _section(_merged(found), f"{title}{TITLE}", is_counted=is_counted, own=None)


def _merged(found: Iterable[tuple[str, Sequence[tuple[str, Inference | None]]]]) -> list[_Measured]:
    """Models with the same measurements together, in the order in which they came."""
    merged: dict[frozenset[Any], _Measured] = {}
    for name, uses in found:
        distinct: dict[Any, tuple[str, Inference]] = {}
        for run_id, use in uses:
            if use is not None and use.variants:
                distinct.setdefault(tuple(use.variants), (use.measured_in or run_id, use))
        if distinct:
            merged.setdefault(frozenset(distinct), _Measured([], [*distinct.values()])).names.append(name)
    return list(merged.values())


def _section(found: Sequence[_Measured], title: str, *, is_counted: bool, own: str | None) -> Section | None:
    if not found:
        return None
    rows = [row for each in found for row in _rows(each)]
    joules = "J" if is_counted else "estimated J"
    head = ["Model", "texts", "characters", "tokens", "number format", "batch", "p50", "p95", "inputs per second"]
    shared = [f"{', '.join(each.names[1:])}: as {each.name}" for each in found if len(each.names) > 1]
    note = f"Of the same shape, so measured once: {'; '.join(shared)}. " if shared else ""
    table = Table(
        caption="One use and the best batch",
        head=[*head, f"{joules} per 1,000", "CPU-s per 1,000", "joules are", "windows"],
        rows=rows[:MAX_ROWS],
        text_columns=(1, 4, 11),
        note=f"{formats.clean(note)}{cut_note(len(rows), MAX_ROWS)}".strip(),
    )
    return Section(title, [Text(_LEAD), table, _start_table(found, own)])


def _rows(measured: _Measured) -> list[Row]:
    """One row for each kind of texts, number format and batch, averaged over the measurements that have it."""
    kinds: dict[tuple[str, str, int], list[InferenceVariant]] = {}
    for _, use in measured.uses:
        for each in use.variants:
            kinds.setdefault((each.texts, each.number_format, each.batch_size), []).append(each)
    return [[measured.name, texts, *_cells(kind, form, size)] for (texts, form, size), kind in kinds.items()]


def _cells(found: Sequence[InferenceVariant], number_format: str, batch_size: int) -> list[str]:
    def mean(name: str) -> float | None:
        total = whole_sum(getattr(each, name) for each in found)
        return None if total is None else total / len(found)

    return [
        number(mean("mean_characters")),
        number(mean("mean_tokens")),
        number_format,
        f"{batch_size:,}",
        formats.duration(mean("latency_p50_s")),
        formats.duration(mean("latency_p95_s")),
        number(mean("throughput_per_s")),
        number(mean("energy_j_per_1000")),
        number(mean("cpu_s_per_1000")),
        ", ".join(sorted({each.label for each in found})),
        f"{sum(each.num_windows for each in found):,}",
    ]


def _start_table(found: Sequence[_Measured], own: str | None) -> Table:
    """Bytes, start-up time and origin of each measurement."""
    rows: list[Row] = []
    for each in found:
        for run_id, use in each.uses:
            where = "in this run" if run_id == own else f"in run {run_id}"
            start = MISSING if use.start_up_s is None else formats.duration(use.start_up_s)
            rows.append([each.name, formats.size(use.size_bytes), start, where])
    return Table(
        caption="Size and start",
        head=["Model", "on disk", "start-up", "measured"],
        rows=rows[:MAX_ROWS],
        text_columns=(3,),
        note=f"{_START_NOTE} {cut_note(len(rows), MAX_ROWS)}".strip(),
    )


def csv_rows(records: Sequence[RunRecord]) -> list[list[object]]:
    """One row for each run, model and kind of use, unrounded, under `CSV_HEAD`."""
    return [
        [
            *(record.run_id, record.recipe, record.config.get("seed"), use.role),
            *(each.texts, each.mean_characters, each.mean_tokens, each.number_format, each.batch_size),
            *(each.latency_p50_s, each.latency_p95_s, each.throughput_per_s, each.energy_j_per_1000),
            *(each.cpu_s_per_1000, each.label, each.num_windows, each.duration_s),
            *(use.start_up_s, use.size_bytes, use.measured_as, use.measured_in),
        ]
        for record in records
        for use in record.inference
        for each in use.variants
    ]
