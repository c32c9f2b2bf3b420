"""Quality on validation against the cost of training, over every run, and what it cost to come near the teacher."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smallmodels import records
from smallmodels.records import RunRecord
from smallmodels.report import figures, formats, words
from smallmodels.report.evidence import Evidence
from smallmodels.report.figures import Series
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import MAX_ROWS, Block, Panel, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.systems import System, phases_cost
from smallmodels.report.words import Unit

if TYPE_CHECKING:
    from smallmodels.metrics import Spread

SHARES = (0.90, 0.95, 0.99)
"""Of the teacher's quality."""

MAX_LINES = 60
"""In one picture."""

_JOULES: tuple[Unit, ...] = ("J",)
"""Drawn beside what is ranked."""

NOTE = (
    "Costs are those of the first validation that reaches the level; between two of them nothing is interpolated. The "
    "level is a share of what the teacher reaches on validation, where smaller is better the teacher's value over the "
    "share."
)
UNKNOWN = (
    "What the teacher reaches on validation is not known of {who}, so nothing is said of shares of it: its result on "
    "the test split is no measure of a curve on validation."
)


@dataclass(frozen=True)
class Reached:
    """What it took one run to reach a share of the teacher's quality."""

    share: float
    level: float
    """Of the metric itself."""
    training: float | None
    """Since training began; None where the run never reached it, or the cost is unknown."""
    whole: float | None
    """With the making of the teacher and its pass over the data, what caches owe included."""


def teacher_level(record: RunRecord) -> float | None:
    """The metric of the teacher on validation, where the curve is from; None where it is not known or has no shares."""
    found = record.teacher_on_validation
    value = records.goodness(record.curve_metric, found) if found is not None else None
    if value is None:
        value = words.metric_value(record.result("teacher", "validation"), record.curve_metric)
    return value if value is not None and formats.is_number(value) and value > 0 else None


def lacks_teacher(record: RunRecord) -> bool:
    """Whether a run has a teacher and a curve, and nothing says what the teacher reaches where that is measured."""
    return record.result("teacher") is not None and bool(record.curve) and teacher_level(record) is None


def with_teachers(found: Sequence[RunRecord], evidence: Evidence) -> list[RunRecord]:
    """Older records with what the teacher reaches on validation, as far as the metrics beside them tell it.

    A run that took its teacher from the cache has the value of the one that trained it: see `_same_teacher`.

    Args:
        found: Of one report.
        evidence: With what the runs logged that trained a teacher.
    """
    tuned = [(r, value) for r in found if (value := evidence.teachers.get(r.run_id)) is not None]

    def completed(record: RunRecord) -> RunRecord:
        if not tuned or not lacks_teacher(record):
            return record
        own = evidence.teachers.get(record.run_id)
        values = {own} if own is not None else {v for other, v in tuned if _same_teacher(record, other)}
        return dataclasses.replace(record, teacher_on_validation=values.pop()) if len(values) == 1 else record

    return [completed(record) for record in found]


_OF_TEACHER = ("teacher_train", "teacher_seed", "split_seed", "max_length")
"""Settings that its fine-tuning depends on, beside models and data."""

_EVALUATED_AGAIN = 1e-3
"""Relative difference that one teacher may show in bf16, where its texts are in other batches."""


def _same_teacher(record: RunRecord, other: RunRecord) -> bool:
    """Whether one run read back, from the cache, the teacher that the other trained.

    Records do not name the one that paid. It is taken for the one with the same base, rows, settings of the
    fine-tuning and machine, as the address in the cache has them, and with the same result on test.
    """
    if not any(event.message == "fine-tuned teacher read back" for event in record.events):
        return False

    def made(run: RunRecord) -> tuple[object, ...]:
        parts = sorted((s.role, s.fingerprint or "", sorted(s.sha256.items())) for s in run.sources)
        return run.metric, parts, [run.config.get(name) for name in _OF_TEACHER], run.environment.fingerprint

    ours, theirs = (words.metric_value(run.result("teacher"), run.metric) for run in (record, other))
    if ours is None or theirs is None or not math.isclose(ours, theirs, rel_tol=_EVALUATED_AGAIN):
        return False
    return made(record) == made(other)


def reached(record: RunRecord, unit: Unit) -> list[Reached]:
    """For each of `SHARES`; empty where the run has no curve, or no teacher whose value on validation is known."""
    from smallmodels import metrics

    teacher, curve = teacher_level(record), curve_of(record, unit)
    if teacher is None or not curve:
        return []
    lower, before = record.curve_metric in records.LOWER_IS_BETTER, _before_training(record, unit)
    found = []
    for share in SHARES:
        level = teacher / share if lower else teacher * share
        cost = metrics.cost_to_reach(curve, records.goodness(record.curve_metric, level))
        whole = cost + before if cost is not None and before is not None else None
        found.append(Reached(share, level, cost, whole))
    return found


def curve_of(record: RunRecord, unit: Unit) -> list[tuple[float, float]]:
    """Cost since the start of training, and quality with the sign that makes larger better; empty if one is unknown."""
    points = [(p.energy_j if unit == "J" else p.cpu_s, p.value) for p in record.curve if formats.is_number(p.value)]
    known = [(cost, value) for cost, value in points if cost is not None and math.isfinite(cost)]
    return known if len(known) == len(points) else []


def _before_training(record: RunRecord, unit: Unit) -> float | None:
    """What was paid for the student before the phase `train`: its teacher, the teacher's pass, and so on."""
    main = words.main_result(record)
    if main is None:
        return None
    names = [name for name in (*main.teacher_phases, *main.built_by) if name != "train"]
    return phases_cost(record, names, unit)


def _columns(record: RunRecord, unit: Unit) -> list[tuple[Unit, str, str]]:
    """Unit, field of `Reached` and head of each column of costs: the ranked unit, and joules where they are not it."""
    units = words.shown_units(unit)
    heads = (("training", "of training"), ("whole", "with teacher and its pass"))
    return [(u, field, f"{words.cost_name(record, u)} {words_}") for u in units for field, words_ in heads]


def run_block(record: RunRecord, unit: Unit) -> Table | Text | None:
    """The table of one run, or that there can be none."""
    columns = _columns(record, unit)
    found = {u: reached(record, u) for u, _, _ in columns}
    if not found[unit]:
        return Text(UNKNOWN.format(who="this run")) if lacks_teacher(record) else None
    rows: list[Row] = []
    for place, each in enumerate(found[unit]):
        costs = [getattr(found[u][place], field) if found[u] else None for u, field, _ in columns]
        shown = ["not reached"] * len(costs) if each.training is None else [number(cost) for cost in costs]
        level = formats.quality(record.curve_metric, each.level)
        rows.append([f"{100 * each.share:.0f}\u00a0% of the teacher", level, *shown])
    return Table(
        caption="Cost to come near the teacher",
        head=["Level", "which is", *(head for _, _, head in columns)],
        rows=rows,
        note=NOTE,
    )


def run_sentence(record: RunRecord, unit: Unit) -> str:
    """The same of one run as a sentence for a terminal; empty where nothing is known."""
    found = reached(record, unit)
    if not found:
        return ""
    said = [
        f"{100 * each.share:.0f}\u00a0%: {'not reached' if each.training is None else number(each.training)}"
        for each in found
    ]
    return f"{formats.capital(words.cost_name(record, unit))} of training to a share of the teacher's quality: " + (
        ", ".join(said) + "."
    )


def section(systems: Sequence[System], unit: Unit, title: str, name: str) -> Section | None:
    """The curves of every run of a group, and a table of what it took to reach each level."""
    main = [s for s in systems if (result := words.main_result(s.records[0])) is not None and result.role == s.role]
    panels = [
        panel
        for place, metric in enumerate(dict.fromkeys(s.records[0].curve_metric for s in main))
        for u in dict.fromkeys((unit, *_JOULES))
        if (panel := _panel(main, metric, u, f"{name}-curve-{u.lower()}{f'-{place}' * bool(place)}"))
    ]
    rows = [row for s in main for row in _rows(s, unit)]
    if not panels:
        return None
    record, num_runs = main[0].records[0], sum(len(s.records) for s in main)
    num_unknown = sum(lacks_teacher(r) for s in main for r in s.records)
    heads = [head for _, _, head in _columns(record, unit)]
    table = Table(
        caption="Cost to come near the teacher",
        head=["Model", "level", "which is", "runs that reach it", *heads],
        rows=rows[:MAX_ROWS],
        text_columns=(1,),
        note=" ".join([NOTE if num_unknown < num_runs else "", cut_note(len(rows), MAX_ROWS)]).strip(),
    )
    count = sum(len(curve_of(r, unit)) > 1 for s in main for r in s.records)
    cut = f" Of {count:,} runs, the first {MAX_LINES} have a line; the table is of all." if count > MAX_LINES else ""
    blocks: list[Block] = [
        Text(
            "Each line is one run. Cost is counted from the start of training; models were chosen by these values, "
            f"not by the test split. The mean over runs is given only where every run reaches the level.{cut}"
        ),
        *([Text(UNKNOWN.format(who=_these(num_unknown, num_runs)))] if num_unknown else []),
        Picture(panels, table),
    ]
    return Section(formats.heading(title, "how they learned"), blocks)


def _these(count: int, every: int) -> str:
    return "these runs" if count == every else f"{count:,} of these {every:,} runs"


def _panel(systems: Sequence[System], key: str, unit: Unit, name: str) -> Panel | None:
    """The curve of every run that has one of this metric, in one unit; None where none has two points of known cost."""
    lines = [
        _series(s, r, curve, unit, style)
        for style, s in enumerate(systems)
        for r in s.records
        if r.curve_metric == key and len(curve := curve_of(r, unit)) > 1
    ][:MAX_LINES]
    if not lines:
        return None
    record = next(r for s in systems for r in s.records if r.curve_metric == key)
    metric, names = formats.metric_name(key), words.cost_name(record, unit)
    levels = [(f"{100 * r.share:.0f} % of teacher", records.goodness(record.curve_metric, r.level))
              for r in reached(record, unit)]  # fmt: skip
    figure = figures.curves(
        lines,
        levels,
        x_label=f"{names} of training",
        y_label=f"validation {metric}",
        percent=formats.is_share(record.curve_metric),
        lower_is_better=record.curve_metric in records.LOWER_IS_BETTER,
    )
    ends = [formats.quality(record.curve_metric, records.goodness(record.curve_metric, line.ys[-1])) for line in lines]
    said = "; ".join(
        f"{line.label} ends at {end} after {number(line.xs[-1])}"
        for line, end in zip(lines[:12], ends[:12], strict=True)
    )
    heading = f"Validation {metric} against {names}"
    return Panel(
        name=name, heading=heading, alt=f"{heading}, a line for each of {len(lines)} runs: {said}.", figure=figure
    )


def _series(system: System, record: RunRecord, curve: Sequence[tuple[float, float]], unit: Unit, style: int) -> Series:
    """A line with the best value marked, by which the model was chosen."""
    best = max(range(len(curve)), key=lambda i: curve[i][1])
    value = formats.quality(record.curve_metric, records.goodness(record.curve_metric, curve[best][1]))
    cost = f"{number(curve[best][0])} {words.cost_name(record, unit)}"
    return Series(
        label=system.label,
        xs=[x for x, _ in curve],
        ys=[y for _, y in curve],
        says=f"{system.label}, seed {words.plain(record.config.get('seed'))}: best {value} after {cost}",
        row=system.label,
        style=style,
        marked=best,
    )


def _rows(system: System, unit: Unit) -> list[Row]:
    """One row for each level of one system, or one that says that they are not known."""
    columns = _columns(system.records[0], unit)
    runs = {u: [found for r in system.records if (found := reached(r, u))] for u, _, _ in columns}
    rows: list[Row] = []
    if not runs[unit] and any(lacks_teacher(r) for r in system.records):
        rows.append([system.label, "a share of the teacher: not known", MISSING, MISSING, *[MISSING] * len(columns)])
    for place, share in enumerate(SHARES if runs[unit] else ()):
        each = [found[place] for found in runs[unit]]
        level = sum(r.level for r in each) / len(each)
        cells = [_mean_cost([getattr(found[place], field) for found in runs[u]]) for u, field, _ in columns]
        count = f"{sum(r.training is not None for r in each)} of {len(each)}"
        shown = formats.quality(system.records[0].curve_metric, level)
        rows.append([system.label, f"{100 * share:.0f}\u00a0% of the teacher", shown, count, *cells])
    return rows


def _mean_cost(costs: Sequence[float | None]) -> str:
    """The mean over runs, where each has a cost."""
    from smallmodels import metrics

    known = [cost for cost in costs if cost is not None]
    if not known or len(known) < len(costs):
        return MISSING
    found = metrics.spread(known)
    return spread_words(found if found.low is None else dataclasses.replace(found, low=max(found.low, 0.0)))


def spread_words(found: "Spread | None") -> str:
    """`3.30 (SD 0.033, 3.22–3.38, n 3)`; only the value and n where there is one run."""
    if found is None:
        return MISSING
    if found.sd is None or found.low is None:
        return f"{number(found.value)} (n {found.n})"
    return f"{number(found.value)} (SD {number(found.sd, 2)}, {number(found.low)}–{number(found.high)}, n {found.n})"
