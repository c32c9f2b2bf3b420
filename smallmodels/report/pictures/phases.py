"""What each phase cost: a stacked bar per run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smallmodels.records import Phase, RunRecord
from smallmodels.report import figures, formats, words
from smallmodels.report.drawing import COLOURS, Pattern
from smallmodels.report.figures import Bar, Key, Part
from smallmodels.report.formats import number
from smallmodels.report.kinds import kinds_of, seed_names
from smallmodels.report.page import Panel, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.words import Unit

MAX_BARS = 30
_MAX_ROWS = 200
_NAMED = 6
_OTHER = "everything else"
_PATTERNS: tuple[Pattern, ...] = ("", "rising", "dots", "level", "lattice", "upright", "grid")

Cost = Callable[[Phase], float | None]


@dataclass(frozen=True)
class _Sum:
    """Costs of a run, or the mean of several, by the name of the phase."""

    heading: str
    label: str
    row: str
    costs: dict[str, float]


def section(group: Sequence[RunRecord], title: str, name: str) -> Section | None:
    """The bars of several runs over a table with the same numbers; None where no run has a phase."""
    unit = words.ranking_unit(group[0])
    if not any(_cost(p, unit) for r in group for p in r.phases):
        return None
    named = _most_costly(group, unit)
    panels = [p for u in _units(group) if (p := _panel(group, named, u, f"{name}-phases-{u.lower()}")) is not None]
    lead = "Each bar is one run, cut into its phases; what models took from caches of earlier runs is not in it."
    if len(group) > MAX_BARS:
        lead = "Each bar is the mean over the runs that differ only in their seed, cut into phases."
        if len(kinds_of(group)) > MAX_BARS:
            lead += f" The {MAX_BARS} most costly are drawn."
    heading = formats.heading(title, "what each phase cost")
    return Section(heading, [Text(lead), Picture(panels, _table(group, named, unit))])


def panels_of_one(record: RunRecord) -> list[Panel]:
    """The bar of one run, in the cost that may be ranked and, where they are estimates, in joules."""
    named = _most_costly([record], words.ranking_unit(record))
    return [
        p for unit in _units([record]) if (p := _panel([record], named, unit, f"phases-{unit.lower()}")) is not None
    ]


def _units(group: Sequence[RunRecord]) -> list[Unit]:
    return ["J"] if words.ranking_unit(group[0]) == "J" else ["CPU-s", "J"]


def _cost(phase: Phase, unit: Unit) -> float | None:
    cost = phase.energy_j if unit == "J" else phase.cpu_s
    return cost if cost is not None and math.isfinite(cost) else None


def _most_costly(group: Sequence[RunRecord], unit: Unit) -> list[str]:
    """Names of the phases that have a colour of their own, in the order of the runs."""
    sums: dict[str, float] = {}
    for record in group:
        for phase in record.phases:
            sums[phase.name] = sums.get(phase.name, 0.0) + (_cost(phase, unit) or 0.0)
    top = sorted(sums, key=lambda name: -sums[name])[:_NAMED]
    return [name for name in sums if name in top and name != "other"]


def _sums(group: Sequence[RunRecord], named: Sequence[str], unit: Unit) -> list[_Sum]:
    single = len(group) == 1
    found = []
    for kind in kinds_of(group):
        costs = [_by_name(record, named, unit) for record in kind.records]
        if len(group) > MAX_BARS:
            mean = {key: sum(c.get(key, 0.0) for c in costs) / len(costs) for key in [*named, _OTHER]}
            found.append(_Sum("", kind.name, "", mean))
            continue
        names = [""] if single else seed_names(kind.records)
        for record, label, cost in zip(kind.records, names, costs, strict=True):
            found.append(_Sum("" if single else kind.name, label, formats.clean(record.run_id), cost))
    if len(found) > MAX_BARS:
        found = sorted(found, key=lambda each: -sum(each.costs.values()))[:MAX_BARS]
    return found


def _by_name(record: RunRecord, named: Sequence[str], unit: Unit) -> dict[str, float]:
    costs = dict.fromkeys([*named, _OTHER], 0.0)
    for phase in record.phases:
        costs[phase.name if phase.name in named else _OTHER] += _cost(phase, unit) or 0.0
    return costs


def _panel(group: Sequence[RunRecord], named: Sequence[str], unit: Unit, name: str) -> Panel | None:
    sums = [each for each in _sums(group, named, unit) if sum(each.costs.values()) > 0]
    if not sums:
        return None
    axis = words.cost_name(group[0], unit)
    styles = {key: (COLOURS[i], _PATTERNS[i]) for i, key in enumerate([*named, _OTHER])}
    keys = [
        Key(name=formats.clean(key, 40), colour=colour, pattern=pattern) for key, (colour, pattern) in styles.items()
    ]
    bars = [_bar(each, styles, axis) for each in sums]
    said = "; ".join(_bar_words(each, axis) for each in sums[:12])
    more = f"; and {len(sums) - 12} more" if len(sums) > 12 else ""
    return Panel(
        name=name,
        heading=formats.capital(axis) + " by phase" + (", not ranked" if axis.startswith("estimated") else ""),
        alt=f"{formats.capital(axis)} by phase: {said}{more}.",
        figure=figures.stacks(bars, x_label=axis, keys=keys),
    )


def _bar(each: _Sum, styles: dict[str, tuple[str, Pattern]], axis: str) -> Bar:
    total = sum(each.costs.values())
    who = _who(each)
    parts = [
        Part(
            value=cost,
            colour=styles[key][0],
            pattern=styles[key][1],
            says=f"{who}{formats.clean(key, 60)} {number(cost)} {axis}, {100 * cost / total:.0f}\u00a0% of "
            f"{number(total)}",
        )
        for key, cost in each.costs.items()
        if cost > 0
    ]
    return Bar(heading=each.heading, label=each.label, parts=parts, total=number(total), row=each.row)


def _who(each: _Sum) -> str:
    name = ", ".join(part for part in (each.heading, each.label) if part)
    return f"{name}: " if name else ""


def _bar_words(each: _Sum, axis: str) -> str:
    costs = sorted(((cost, key) for key, cost in each.costs.items() if cost > 0), reverse=True)[:3]
    most = ", ".join(f"{formats.clean(key, 40)} {number(cost)}" for cost, key in costs)
    return f"{_who(each)}{number(sum(each.costs.values()))} {axis}, most of it {most}"


def _table(group: Sequence[RunRecord], named: Sequence[str], unit: Unit) -> Table:
    joules = "J" if group[0].energy_is_counted else "estimated J"
    rows: list[Row] = []
    for record in group[:_MAX_ROWS]:
        costs = _by_name(record, named, unit)
        cells = [number(costs[key]) for key in [*named, _OTHER]]
        totals = [number(record.energy_j), number(record.cpu_s)]
        rows.append([record.run_id, *cells, *(totals if unit == "J" else reversed(totals)), record.energy_label])
    unit_name = joules if unit == "J" else "CPU-s"
    wholes = [f"{joules}, whole run", "CPU-s, whole run"]
    head = ["Run", *[f"{name}, {unit_name}" for name in named], f"{_OTHER}, {unit_name}"]
    head += [*(wholes if unit == "J" else reversed(wholes)), "joules are"]
    return Table(
        caption="Cost by phase, run by run",
        head=head,
        rows=rows,
        text_columns=(len(head) - 1,),
        note=cut_note(len(group), len(rows)),
    )
