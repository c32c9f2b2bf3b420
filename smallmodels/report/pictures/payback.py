"""When a student has paid for itself: its cost with its building against that of what it replaces."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smallmodels.records import Payback, RunRecord
from smallmodels.report import axes, figures, formats, words
from smallmodels.report.drawing import COLOURS
from smallmodels.report.figures import Series
from smallmodels.report.formats import number
from smallmodels.report.page import Panel, Row, Table

MAX_LINES = 30
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
    axis = words.cost_name(record, payback.unit)
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
    axis = words.cost_name(record, costs.payback.unit)
    return Table(
        caption=f"{formats.capital(axis)} after so many uses",
        head=["Uses", "Student, building included", role],
        rows=rows,
    )


# --- several runs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Way:
    """The payback of one model under one way of counting what was paid."""

    label: str
    way: str
    build: float
    student: float
    """Cost of one use of the student."""
    saved: float
    """By one use of it instead of one of what it replaces."""
    uses: float | None
    says: str


def panel_of_several(ways: Sequence[Way], name: str) -> Panel | None:
    """What a use costs when the building is shared among all uses, as a part of that of a use of what is replaced.

    Models have their colours and ways of counting their dashes; None where no cost is known.
    """
    known = [way for way in ways if way.build > 0 and way.student + way.saved > 0][:MAX_LINES]
    if not known:
        return None
    models, counted = (list(dict.fromkeys(names)) for names in zip(*[(w.label, w.way) for w in known], strict=True))
    centres = [w.uses or w.build / (w.student + w.saved) for w in known]
    ends = min(centres) / 5, max(centres) * 50
    sides = axes.across(), axes.upwards()
    series = []
    for way in known:
        style = models.index(way.label) % len(COLOURS) + len(COLOURS) * counted.index(way.way)
        names = [way.label] * (len(models) > 1) + [way.way] * (len(counted) > 1 or len(models) == 1)
        label = ", ".join(names)
        series.append(_ratio_series(way, label, style, ends))
    said = "; ".join(each.says for each in series[:8]) + (f"; and {len(series) - 8} more" if len(series) > 8 else "")
    figure = figures.lines(
        series,
        x_label="uses",
        y_label="cost of a use, building included",
        x=axes.logarithmic(ends, start=sides[0][0], end=sides[0][1]),
        y=axes.linear(0.0, _HIGHEST, start=sides[1][0], end=sides[1][1]),
        y_words=lambda value: f"{100 * value:.0f}\u00a0%",
        levels=[("what a use costs now", 1.0)],
        signs=False,
    )
    return Panel(name=name, heading="Cost of a use, building included", alt=f"{said}.", figure=figure)


def _ratio_series(way: Way, label: str, style: int, ends: tuple[float, float]) -> Series:
    """A line from where it enters the picture; the number of uses that repays the building is marked."""
    low, high = ends
    replaced = way.student + way.saved
    first = max(low, way.build / max(_HIGHEST * replaced - way.student, 1e-30))
    first = min(first, high)
    xs = [first * (high / first) ** (i / (_PLACES - 1)) for i in range(_PLACES)]
    if way.uses is not None:
        xs = sorted({*xs, way.uses})
    return Series(
        label=label,
        xs=xs,
        ys=[(way.build / n + way.student) / replaced for n in xs],
        says=f"{way.label}, {way.way}: {way.says}",
        row=way.label,
        style=style,
        marked=None if way.uses is None else xs.index(way.uses),
        faint=way.uses is None,
    )
