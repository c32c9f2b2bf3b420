"""When a student has paid for itself, over the runs of a group, and two ways of counting what runs share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smallmodels.records import Payback, RunRecord, Unfinished, costs_per_use, whole_sum
from smallmodels.report import formats, pictures, single, words
from smallmodels.report.comparing import Comparisons, signed, signed_interval
from smallmodels.report.evidence import Evidence
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import MAX_ROWS, Block, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.pictures.payback import Way
from smallmodels.report.systems import (
    System,
    by_measurement,
    debt,
    is_one_bill,
    phase_cost,
    phases_cost,
    replaced_by,
)
from smallmodels.report.words import Unit

if TYPE_CHECKING:
    from smallmodels.metrics import PaybackEstimate

USES_PER_DAY = 1000.0
"""Where nobody said how many uses there are."""

_DIGITS = 4
"""Significant ones in which two debts to a cache are equal if they are for one entry."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The payback of a student under one way of counting what was paid."""

    system: System
    replaces: str
    unit: Unit
    way: str
    """What is counted, in words."""
    build: float
    """Mean over runs, or the one bill."""
    estimate: "PaybackEstimate"
    is_within_margin: bool
    """Whether it is shown that the student is not worse by more than the margin; the point has to be in any case."""
    missed: str = ""
    """By how much its quality is below what it replaces and what was allowed, where that is what hinders it."""


def paybacks(comparisons: Comparisons, group: Sequence[RunRecord], evidence: Evidence) -> list[Counted]:
    """For each student of a group: one run with and without what caches owe, and every run that was made."""
    found = []
    bills = {unit: whole_bill(group, evidence.unfinished, unit) for unit in ("J", "CPU-s")}
    for system in comparisons.systems:
        known = _recorded(system)
        if not known:
            continue
        bill, what = bills[known[0].unit]
        own = _builds_without_caches(system, known)
        found.append(_counted(comparisons, system, known, [p.build for p in known], "one run, caches included"))
        if own != [p.build for p in known]:
            found.append(_counted(comparisons, system, known, own, "one run, caches that runs share left out"))
        if len(group) > 1 or evidence.unfinished:
            found.append(_counted(comparisons, system, known, [bill] * len(known), what))
    return found


def _recorded(system: System) -> list[Payback]:
    """What the runs of a student recorded; empty where one has nothing, or they replace or count different things."""
    if any((main := words.main_result(r)) is None or main.role != system.role for r in system.records):
        return []
    found = [r.payback for r in system.records if r.payback is not None and r.payback.saved_per_use is not None]
    if len(found) < len(system.records) or any(r.smoke for r in system.records):
        return []
    return found if len({(p.unit, p.replaces) for p in found}) == 1 else []


def _builds_without_caches(system: System, known: Sequence[Payback]) -> list[float]:
    """What each run took to build its student, less its debts to caches and what others of its runs owe it for them."""
    shared = {phase.name for record in system.records for phase in record.phases if debt(phase, known[0].unit)}
    found = []
    for record, payback in zip(system.records, known, strict=True):
        main = words.main_result(record)
        names = shared & {*main.built_by, *main.teacher_phases} if main else set()
        paid = [phase.name for phase in record.phases if phase.name in names and not debt(phase, payback.unit)]
        found.append(payback.build_without_shared - (phases_cost(record, paid, payback.unit, caches=False) or 0.0))
    return found


def _counted(
    comparisons: Comparisons, system: System, known: Sequence[Payback], builds: Sequence[float], way: str
) -> Counted:
    from smallmodels import metrics

    first, margin = known[0], comparisons.margin
    other = replaced_by(system, comparisons.systems)
    difference = comparisons.difference(system, other) if other is not None else None
    good = within = True
    missed = ""
    if margin is not None and difference is not None:
        good = difference.value >= -margin
        within = metrics.is_within(difference, margin=margin)
        if not good:
            ends = signed_interval(comparisons.metric, difference) if difference.low is not None else "not known"
            allowed = formats.difference(comparisons.metric, margin)
            missed = (
                f"It is {signed(comparisons.metric, difference.value)} from it (95\u00a0% interval {ends}), and the "
                f"margin is {allowed}"
            )
    if len(known) == 1 and builds[0] == first.build:  # the run's own windows give an interval
        estimate = metrics.PaybackEstimate(
            saved_per_use=first.saved_per_use or 0.0, uses=first.uses, low=first.low, high=first.high,
            reason=first.reason,
        )  # fmt: skip
    else:
        estimate = metrics.payback_over_runs(
            builds,
            _savings(system, first.replaces),
            windows=(_repeats(system, first.replaces, first.unit), _repeats(system, system.role, first.unit)),
            quality_ok=good,
            unit=first.unit,
            replaces=first.replaces,
        )
    return Counted(
        system=system,
        replaces=first.replaces,
        unit=first.unit,
        way=way,
        build=_mean(builds),
        estimate=estimate,
        is_within_margin=within,
        missed=missed,
    )


def _savings(system: System, replaces: str) -> list[float]:
    """What a use saves, for each measurement: runs that share one of either model have one saving together."""
    apart = min((by_measurement(system.records, role) for role in (replaces, system.role)), key=len)
    found = [[r.payback.saved_per_use for r in runs if r.payback is not None] for runs in apart]
    return [_mean([saved for saved in each if saved is not None]) for each in found]


def _repeats(system: System, role: str, unit: Unit) -> list[float]:
    """Cost of a use in each measurement; in each window of it where there is one alone, empty where that is unknown."""
    uses = [runs[0].inference_of(role) for runs in by_measurement(system.records, role)]
    costs = [costs_per_use(use.windows, "energy_j" if unit == "J" else "cpu_s") if use else [] for use in uses]
    if len(costs) == 1:
        return costs[0]
    return [_mean(each) for each in costs] if all(costs) else []


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def whole_bill(group: Sequence[RunRecord], unfinished: Sequence[Unfinished], unit: Unit) -> tuple[float, str]:
    """What all runs of a group paid to build and evaluate students, those that never ended included; and what that is.

    Work that runs share is counted once: by the run that paid it, or as a debt where that one is not in the report.
    """
    own = [
        r.payback.build_without_shared
        if r.payback is not None and r.payback.unit == unit
        else (r.energy_j if unit == "J" else r.cpu_s)
        for r in group
    ]
    failed = [u.energy_j if unit == "J" else u.cpu_s for u in unfinished]
    costs = [*own, *failed, *outside_debts(group, unit)]
    known = [cost for cost in costs if cost is not None]
    what = f"all {len(group)} runs here"
    if unfinished:
        what += f" and {len(unfinished)} that never ended"
    if len(known) < len(costs):
        what += f", at least: the cost of {len(costs) - len(known)} is not known"
    return sum(known), what


def outside_debts(group: Sequence[RunRecord], unit: Unit) -> list[float]:
    """What runs that are not in the group paid for caches, each entry once.

    Records do not say who paid an entry. Debts of one phase that are equal are taken for one entry; where that phase of
    a run of the group cost as much and owed nothing, that run is taken for the one that paid.
    """
    debts: dict[tuple[str, str], float] = {}
    paid = []
    for record in group:
        for phase in record.phases:
            if owed := debt(phase, unit):
                debts[phase.name, f"{owed:.{_DIGITS}g}"] = owed
            else:
                paid.append((phase.name, phase_cost(phase, unit)))
    return [
        owed
        for (name, _), owed in debts.items()
        if not any(name == other and is_one_bill(owed, cost, unit) for other, cost in paid)
    ]


def sections(
    found: Sequence[Counted], evidence: Evidence, title: str, name: str, warning: Sequence[Text] = ()
) -> list[Section]:
    """The paybacks as a picture and a table; nothing where no run measured one."""
    if not found:
        return []
    table = table_of(found, evidence)
    lead = "The student is repaid when what its uses save is what it took to build it" + (
        "." if all(each.unit == "J" for each in found) else ", counted in CPU-seconds: joules are estimates here."
    )
    panel = pictures.payback.panel_of_several([way for each in found if (way := _drawn(each)) is not None], name)
    if panel is not None:
        lead += (
            " The lines are what a use costs with its share of the building, as a part of a use of what it replaces: "
            "below 100\u00a0% the building is repaid. A faint line is never repaid, for the reason in the last column."
        )
    block = Picture([panel], table) if panel is not None else table
    return [Section(formats.heading(title, "when it has paid for itself"), [Text(lead), *warning, block])]


def table_of(found: Sequence[Counted], evidence: Evidence) -> Table:
    """A row for each payback."""
    rate = evidence.uses_per_day or USES_PER_DAY
    rows: list[Row] = []
    for each in found[:MAX_ROWS]:
        uses = each.estimate.uses
        rows.append(
            [
                each.system.label,
                words.role_name(each.replaces),
                each.way,
                f"{number(each.build)} {each.unit}",
                "never" if uses is None else words.rounded_large(uses),
                interval_words(each.estimate),
                "never" if uses is None else single.days_words(uses / rate),
                reason(each),
            ]
        )
    return Table(
        caption="Uses until the student has paid for itself",
        head=["Model", "instead of", "counting", "was paid", "uses", "95\u00a0% interval",
              f"at {rate:,.15g} uses a day", "why"],
        rows=rows,
        text_columns=(1, 2, 7),
        note="Paid is the making of teacher, caches and student and their evaluation; controls and baselines of the "
        "same runs are not counted, nor is pre-training by others. The interval is Fieller's over runs and over the "
        "measurements of their uses; where these were measured once, over the windows of that. What runs "
        "have from one entry of a cache is one bill, in which there is no chance. "
        + cut_note(len(found), MAX_ROWS),
    )  # fmt: skip


def _drawn(each: Counted) -> Way | None:
    """What its line needs; None where the cost of a use is not known."""
    use, estimate = each.system.use(each.unit), each.estimate
    if use is None:
        return None
    says = f"never repaid: {reason(each)}"
    if estimate.uses is not None:
        known = interval_words(estimate)
        interval = f" (95\u00a0% interval {known})" if known != MISSING else ""
        says = f"repaid after about {words.rounded_large(estimate.uses)} uses{interval}"
    return Way(
        label=each.system.label,
        way=each.way,
        build=each.build,
        student=use.value / 1000,
        saved=estimate.saved_per_use,
        uses=estimate.uses,
        says=says,
    )


def reason(each: Counted) -> str:
    """Why a payback is what it is, with what is not shown of the quality."""
    said = formats.capital(formats.clean(each.estimate.reason, 400).removeprefix("Never: ").rstrip(". "))
    if each.estimate.uses is not None and not each.is_within_margin:
        said += ". That its quality is within the margin is not shown: the interval reaches further"
    return f"{said}. {each.missed}" if each.missed else said


def interval_words(estimate: "PaybackEstimate") -> str:
    """The interval of a number of uses."""
    if estimate.low is None and estimate.high is None:
        return MISSING
    low = words.rounded_large(estimate.low) if estimate.low is not None else "0"
    return f"{low}–{words.rounded_large(estimate.high)}" if estimate.high is not None else f"{low} or more"


# --- what runs share --------------------------------------------------------------------------------------------------


def shared_section(group: Sequence[RunRecord], unit: Unit, title: str) -> Section | None:
    """Both ways of counting work that runs took from caches: the first pays, or each owes it; None where none did."""
    units = words.shown_units(unit)
    if not any(p.shared_cpu_s or p.shared_energy_j for r in group for p in r.phases):
        return None
    rows: list[Row] = []
    sums: list[list[float | None]] = []
    for record in group:
        names = [p.name for p in record.phases]
        costs: list[float | None] = []
        for u in units:
            paid, whole = (phases_cost(record, names, u, caches=caches) for caches in (False, True))
            owed = whole - paid if whole is not None and paid is not None else None
            costs += [paid, owed, whole]
        sums.append(costs)
        if len(rows) < MAX_ROWS:
            rows.append([record.run_id, *map(_cost, costs)])
    rows.append(["All runs", *(_cost(whole_sum(column)) for column in zip(*sums, strict=True))])
    heads = [f"{'CPU-s' if u == 'CPU-s' else 'J' if group[0].energy_is_counted else 'estimated J'}" for u in units]
    table = Table(
        caption="Two ways of counting what runs share",
        head=[
            "Run",
            *(f"{head}{what}" for head in heads for what in (" paid by itself", " owed to caches", " with both")),
        ],
        rows=rows,
        strong=(len(rows) - 1,),
        note=cut_note(len(group), MAX_ROWS),
    )
    blocks: list[Block] = [
        Text(
            "A fine-tuned teacher and its stored signal are made once and used by every run that needs the same. "
            "Counted the first way, the run that made them has paid and the others had them for nothing: the column "
            "sums to what was really spent. Counted the second way, each run owes what it used, as if it were alone: "
            "that is what building its student costs, and what models are compared by."
        ),
        table,
    ]
    return Section(formats.heading(title, "what runs share"), blocks)


def _cost(value: float | None) -> str:
    return number(value) if value is None or math.isfinite(value) else MISSING
