"""Quality on validation against the cost of training, over every run, and what it cost to come near the teacher."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smallmodels import records
from smallmodels.records import RunRecord
from smallmodels.report import figures, formats, words
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
    "level is a share of what the teacher reaches on {split}, where smaller is better the teacher's value over the "
    "share."
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


def teacher_level(record: RunRecord) -> tuple[float, str] | None:
    """What the teacher reaches and on which split: validation, where the curve is from, else test."""
    for split in ("validation", "test"):
        value = words.metric_value(record.result("teacher", split), record.metric)
        if value is not None and value > 0:
            return value, split
    return None


def reached(record: RunRecord, unit: Unit) -> list[Reached]:
    """For each of `SHARES`; empty where the run has no teacher or no curve."""
    from smallmodels import metrics

    teacher, curve = teacher_level(record), curve_of(record, unit)
    if teacher is None or not curve:
        return []
    lower, before = record.metric in records.LOWER_IS_BETTER, _before_training(record, unit)
    found = []
    for share in SHARES:
        level = teacher[0] / share if lower else teacher[0] * share
        cost = metrics.cost_to_reach(curve, records.goodness(record.metric, level))
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


def run_table(record: RunRecord, unit: Unit) -> Table | None:
    """The table of one run."""
    teacher, columns = teacher_level(record), _columns(record, unit)
    found = {u: reached(record, u) for u, _, _ in columns}
    if not found[unit] or teacher is None:
        return None
    rows: list[Row] = []
    for place, each in enumerate(found[unit]):
        costs = [getattr(found[u][place], field) if found[u] else None for u, field, _ in columns]
        shown = ["not reached"] * len(costs) if each.training is None else [number(cost) for cost in costs]
        level = formats.quality(record.metric, each.level)
        rows.append([f"{100 * each.share:.0f}\u00a0% of the teacher", level, *shown])
    return Table(
        caption="Cost to come near the teacher",
        head=["Level", "which is", *(head for _, _, head in columns)],
        rows=rows,
        note=NOTE.format(split=teacher[1]),
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
    panels = [p for u in dict.fromkeys((unit, *_JOULES)) if (p := _panel(main, u, f"{name}-curve-{u.lower()}"))]
    rows = [row for s in main for row in _rows(s, unit)]
    if not panels:
        return None
    record = main[0].records[0]
    teacher = teacher_level(record)
    heads = [head for _, _, head in _columns(record, unit)]
    table = Table(
        caption="Cost to come near the teacher",
        head=["Model", "level", "which is", "runs that reach it", *heads],
        rows=rows[:MAX_ROWS],
        text_columns=(1,),
        note=" ".join([NOTE.format(split=teacher[1]) if teacher else "", cut_note(len(rows), MAX_ROWS)]).strip(),
    )
    count = sum(len(curve_of(r, unit)) > 1 for s in main for r in s.records)
    cut = f" Of {count:,} runs, the first {MAX_LINES} have a line; the table is of all." if count > MAX_LINES else ""
    blocks: list[Block] = [
        Text(
            "Each line is one run. Cost is counted from the start of training; models were chosen by these values, "
            f"not by the test split. The mean over runs is given only where every run reaches the level.{cut}"
        ),
        Picture(panels, table),
    ]
    return Section(formats.heading(title, "how they learned"), blocks)


def _panel(systems: Sequence[System], unit: Unit, name: str) -> Panel | None:
    """The curve of every run in one unit; None where no run has two points of known cost."""
    lines = [
        _series(s, r, curve, unit, style)
        for style, s in enumerate(systems)
        for r in s.records
        if len(curve := curve_of(r, unit)) > 1
    ][:MAX_LINES]
    if not lines:
        return None
    record = systems[0].records[0]
    metric, names = formats.metric_name(record.metric), words.cost_name(record, unit)
    levels = [(f"{100 * r.share:.0f} % of teacher", records.goodness(record.metric, r.level))
              for r in reached(record, unit)]  # fmt: skip
    figure = figures.curves(
        lines,
        levels,
        x_label=f"{names} of training",
        y_label=f"validation {metric}",
        percent=formats.is_share(record.metric),
        lower_is_better=record.metric in records.LOWER_IS_BETTER,
    )
    said = "; ".join(
        f"{line.label} ends at {formats.quality(record.metric, records.goodness(record.metric, line.ys[-1]))} after "
        f"{number(line.xs[-1])}"
        for line in lines[:12]
    )
    heading = f"Validation {metric} against {names}"
    return Panel(
        name=name, heading=heading, alt=f"{heading}, a line for each of {len(lines)} runs: {said}.", figure=figure
    )


def _series(system: System, record: RunRecord, curve: Sequence[tuple[float, float]], unit: Unit, style: int) -> Series:
    """A line with the best value marked, by which the model was chosen."""
    best = max(range(len(curve)), key=lambda i: curve[i][1])
    value = formats.quality(record.metric, records.goodness(record.metric, curve[best][1]))
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
    """One row for each level of one system."""
    columns = _columns(system.records[0], unit)
    runs = {u: [found for r in system.records if (found := reached(r, u))] for u, _, _ in columns}
    rows: list[Row] = []
    for place, share in enumerate(SHARES if runs[unit] else ()):
        each = [found[place] for found in runs[unit]]
        level = sum(r.level for r in each) / len(each)
        cells = [_mean_cost([getattr(found[place], field) for found in runs[u]]) for u, field, _ in columns]
        count = f"{sum(r.training is not None for r in each)} of {len(each)}"
        shown = formats.quality(system.records[0].metric, level)
        rows.append([system.label, f"{100 * share:.0f}\u00a0% of the teacher", shown, count, *cells])
    return rows


def _mean_cost(costs: Sequence[float | None]) -> str:
    """The mean over runs, where each has a cost."""
    from smallmodels import metrics

    known = [cost for cost in costs if cost is not None]
    return spread_words(metrics.spread(known)) if known and len(known) == len(costs) else MISSING


def spread_words(found: "Spread | None") -> str:
    """`3.30 (SD 0.033, 3.22–3.38, n 3)`; only the value and n where there is one run."""
    if found is None:
        return MISSING
    if found.sd is None or found.low is None:
        return f"{number(found.value)} (n {found.n})"
    return f"{number(found.value)} (SD {number(found.sd, 2)}, {number(found.low)}–{number(found.high)}, n {found.n})"
