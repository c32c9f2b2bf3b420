"""When a student has paid for itself: its cost with its building against that of what it replaces."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smallmodels.records import Payback, RunRecord
from smallmodels.report import axes, figures, formats, words
from smallmodels.report.figures import Series
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import Panel, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.pictures.names import Kind, kinds, seed_names

MAX_LINES = 30
_MAX_ROWS = 200
_PLACES = 32
_HIGHEST = 2.0  # of the picture of several runs, in costs of a use of what is replaced


@dataclass(frozen=True)
class _Costs:
    """What one use costs, in the unit of the payback."""

    payback: Payback
    student: float
    replaced: float

    def crossing(self) -> float | None:
        """Uses after which both have cost the same, whatever the quality; None where that never happens."""
        saved = self.replaced - self.student
        return self.payback.build / saved if saved > 0 else None


def _costs(record: RunRecord) -> _Costs | None:
    payback = record.payback
    if payback is None or record.smoke:
        return None
    student = words.use_cost(record.inference_of("student"), payback.unit)
    replaced = words.use_cost(record.inference_of(payback.replaces), payback.unit)
    if student is None or not replaced or not math.isfinite(payback.build) or payback.build <= 0:
        return None
    return _Costs(payback, student / 1000, replaced / 1000)


# --- one run ----------------------------------------------------------------------------------------------------------


def panel_of_one(record: RunRecord) -> Panel | None:
    """Two lines from nothing on: uses of what is replaced, and uses of the student on top of its building."""
    costs = _costs(record)
    if costs is None:
        return None
    payback, crossing = costs.payback, costs.crossing()
    axis = _axis(record, payback)
    most = 2 * (crossing or payback.build / costs.replaced)
    role = words.role_name(payback.replaces)
    ends = {"Student": (payback.build, payback.build + most * costs.student), role: (0.0, most * costs.replaced)}
    sides = axes.across(), axes.upwards()
    x = axes.linear(0.0, most * 1.02, start=sides[0][0], end=sides[0][1])
    y = axes.linear(0.0, max(max(pair) for pair in ends.values()) * 1.06, start=sides[1][0], end=sides[1][1])
    each = number(1000 * costs.student)
    says = {
        "Student": f"Student: {number(payback.build)} {axis} to build it, then {each} per 1,000 uses",
        role: f"{role}: {number(1000 * costs.replaced)} {axis} per 1,000 uses",
    }
    series = [
        Series(label=name, xs=[0.0, most], ys=list(pair), says=says[name], style=style)
        for style, (name, pair) in enumerate(ends.items())
    ]
    meeting = f"They meet after {words.rounded_large(crossing)} uses" if crossing else "They do not meet"
    if payback.uses is not None:
        paid = payback.build + payback.uses * costs.student
        said = f"Paid for itself after {words.uses_words(payback)}"
        series.append(Series(label="", xs=[payback.uses] * 2, ys=[paid] * 2, says=said, style=2, marked=0))
    verdict = "" if payback.uses is not None else f"; but never: {words.reason_words(payback)}"
    return Panel(
        name="payback",
        heading=f"{formats.capital(axis)} after so many uses",
        alt=f"{'. '.join(says.values())}. {meeting}{verdict}.",
        figure=figures.lines(series, x_label="uses", y_label=axis, x=x, y=y, signs=False),
    )


def table_of_one(record: RunRecord) -> Table | None:
    """The lines in numbers, for a student that never pays for itself."""
    costs = _costs(record)
    if costs is None:
        return None
    role = words.role_name(costs.payback.replaces)
    rows: list[Row] = [
        [f"{uses:,}", number(costs.payback.build + uses * costs.student), number(uses * costs.replaced)]
        for uses in (1_000, 10_000, 100_000, 1_000_000)
    ]
    axis = _axis(record, costs.payback)
    return Table(
        caption=f"{formats.capital(axis)} after so many uses",
        head=["Uses", "Student, building included", role],
        rows=rows,
    )


def _axis(record: RunRecord, payback: Payback) -> str:
    if payback.unit == "CPU-s":
        return "CPU-seconds"
    return "joules" if record.energy_is_counted else "estimated joules"


# --- several runs -----------------------------------------------------------------------------------------------------


def section(group: Sequence[RunRecord], title: str, name: str) -> Section | None:
    """A line per run that falls below 100 % where its student has paid for itself; None where no run tells."""
    known = [(kind, record, label) for kind in kinds(group) for record, label in _named(kind) if _costs(record)]
    if not known:
        return None
    lead = (
        "What a use of the student costs when its building is shared among all uses, as a part of what a use of the "
        "model that it replaces costs. Below 100\u00a0% it has paid for itself, provided that its quality is close "
        "enough; the last column says where it is not."
    )
    heading = formats.capital(f"{title}on the way to payback")
    panel = _ratio_panel(known[:MAX_LINES], f"{name}-payback")
    return Section(heading, [Text(lead), Picture([panel], _ratio_table([record for _, record, _ in known]))])


def _named(kind: Kind) -> list[tuple[RunRecord, str]]:
    return list(zip(kind.records, seed_names(kind.records), strict=True))


def _ratio_panel(known: Sequence[tuple[Kind, RunRecord, str]], name: str) -> Panel:
    styles = list(dict.fromkeys(kind.name for kind, _, _ in known))
    found = [(kind, record, label, costs) for kind, record, label in known if (costs := _costs(record)) is not None]
    centres = [costs.crossing() or costs.payback.build / costs.replaced for *_, costs in found]
    low, high = min(centres) / 5, max(centres) * 50
    sides = axes.across(), axes.upwards()
    x = axes.logarithmic([low, high], start=sides[0][0], end=sides[0][1])
    y = axes.linear(0.0, _HIGHEST, start=sides[1][0], end=sides[1][1])
    series = [
        _ratio_series(costs, f"{kind.name}, {label}", kind.name, styles.index(kind.name), record, (low, high))
        for kind, record, label, costs in found
    ]
    said = "; ".join(each.says for each in series[:8]) + (f"; and {len(series) - 8} more" if len(series) > 8 else "")
    figure = figures.lines(
        series,
        x_label="uses",
        y_label="cost of a use, building included",
        x=x,
        y=y,
        y_words=lambda value: f"{100 * value:.0f}\u00a0%",
        levels=[("what a use costs now", 1.0)],
        signs=False,
    )
    return Panel(name=name, heading="Cost of a use, building included", alt=f"{said}.", figure=figure)


def _ratio_series(
    costs: _Costs, who: str, label: str, style: int, record: RunRecord, ends: tuple[float, float]
) -> Series:
    low, high = ends
    first = max(low, costs.payback.build / max(_HIGHEST * costs.replaced - costs.student, 1e-30))
    first = min(first, high)
    xs = [first * (high / first) ** (i / (_PLACES - 1)) for i in range(_PLACES)]
    ys = [(costs.payback.build / n + costs.student) / costs.replaced for n in xs]
    payback = costs.payback
    says = f"after {words.uses_words(payback)}" if payback.uses else f"never, because {words.reason_words(payback)}"
    return Series(
        label=label, xs=xs, ys=ys, says=f"{who}: {says}", row=formats.clean(record.run_id), style=style,
        faint=payback.uses is None,
    )  # fmt: skip


def _ratio_table(group: Sequence[RunRecord]) -> Table:
    rows: list[Row] = []
    for record in group[:_MAX_ROWS]:
        payback = record.payback
        assert payback is not None, "only runs with a payback have a line"
        uses = f"{words.rounded_large(payback.uses)}" if payback.uses else "never"
        interval = words.uses_interval(payback) if words.has_interval(payback) else MISSING
        saved = MISSING if payback.saved_per_use is None else number(1000 * payback.saved_per_use)
        cells = [words.role_name(payback.replaces), number(payback.build), saved, payback.unit, uses, interval]
        rows.append([record.run_id, *cells, formats.capital(words.reason_words(payback))])
    head = [
        "Run",
        "replaces",
        "building",
        "saved per 1,000 uses",
        "unit",
        "uses until repaid",
        "95\u00a0% interval",
        "why",
    ]
    note = cut_note(len(group), len(rows))
    return Table(caption="Payback, run by run", head=head, rows=rows, text_columns=(1, 4, 7), note=note)
