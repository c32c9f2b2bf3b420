"""The page of several runs: what may be compared, what may not and why, and means over seeds where it may.

Runs are compared within a group: same task, metric, test rows and machine fingerprint. Within it a system is one recipe
with one config, and its runs differ in their seed; it is ranked from three seeds on.
"""

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from smallmodels import __version__
from smallmodels.records import RunRecord
from smallmodels.report import formats, fronts, origins, pictures, single, words
from smallmodels.report.figures import Point
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import MAX_ROWS, Bullets, Page, Panel, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.pictures.names import kinds
from smallmodels.report.words import Unit

MIN_SEEDS = 3
_MAX_NAMED = 6  # more names than that cover each other in a picture

# 97.5 % quantile of Student's t by degrees of freedom; between two entries the lower one is used, which is wider.
_STUDENT_T = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 12: 2.179,
    15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000,
}  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A mean over runs with its 95 % Student-t interval, None for a single run."""

    value: float
    low: float | None
    high: float | None
    n: int


def mean(values: Sequence[float]) -> Mean:
    """Mean and 95 % interval of at least one value."""
    centre = statistics.fmean(values)
    if len(values) < 2:
        return Mean(centre, None, None, len(values))
    quantile = _STUDENT_T[max(df for df in _STUDENT_T if df <= len(values) - 1)]
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Mean(centre, centre - half, centre + half, len(values))


@dataclass(frozen=True)
class System:
    """One role of the runs that share a recipe and a config but for the seed."""

    label: str
    role: str
    records: Sequence[RunRecord]

    def quality(self) -> Mean | None:
        """Mean of the metric; None where a run lacks it or it is not finite."""
        values = [words.metric_value(r.result(self.role), r.metric) for r in self.records]
        known = [v for v in values if v is not None]
        return mean(known) if len(known) == len(values) else None

    def use(self, unit: Unit) -> Mean | None:
        """Mean cost of 1,000 uses."""
        values = [words.use_cost(r.inference_of(self.role), unit) for r in self.records]
        known = [v for v in values if v is not None]
        return mean(known) if len(known) == len(values) else None

    def build(self, unit: Unit) -> Mean | None:
        """Mean cost of building it, its teacher included."""
        costs = []
        for record in self.records:
            result = record.result(self.role)
            assert result is not None, "a system is made of runs that have its role"
            joules, cpu_s = record.cost_of([*result.teacher_phases, *result.built_by])
            cost = joules if unit == "J" else cpu_s
            if cost is None or not math.isfinite(cost):
                return None
            costs.append(cost)
        return mean(costs)

    def seeds(self) -> int:
        """How many different seeds the runs have."""
        return len({json.dumps(r.config.get("seed")) for r in self.records})

    def not_comparable(self, *, use: bool) -> str:
        """Why it cannot be ranked, or an empty string.

        Args:
            use: Whether the cost is that of a use, which only the full protocol measures well enough to rank.
        """
        if why := next((w for w in map(single.not_comparable, self.records) if w), ""):
            return why
        if self.quality() is None:
            return "not comparable: quality missing"
        if self.seeds() < MIN_SEEDS:
            return f"not comparable: {self.seeds()} seed{'s' * (self.seeds() > 1)}, {MIN_SEEDS} needed"
        protocols = {i.protocol for r in self.records for i in [r.inference_of(self.role)] if i is not None}
        return "not comparable: indicative protocol" if use and protocols != {"full"} else ""


def page(records: Sequence[RunRecord]) -> Page:
    """What the page of several runs shows."""
    groups = _groups(records)
    sections = [_apart_section(groups)] if len(groups) > 1 else []
    for i, group in enumerate(groups):
        title = f"Group {i + 1}: " if len(groups) > 1 else ""
        sections += _group_sections(group, title, f"group{i + 1}")
        sections += pictures.of_group(group, title, f"group{i + 1}")
    sections += [_runs_section(records), *origins.sections(records)]
    sections.append(Section("How to read these numbers", [Bullets(_method_lines(groups))]))
    return Page(
        title=f"{len(records)} runs compared" if len(groups) == 1 else f"{len(records)} runs in {len(groups)} groups",
        kicker=", ".join(sorted({r.recipe for r in records})),
        summary=_summary(records, groups),
        notices=_notices(records),
        sections=sections,
        footer=f"Written by smallmodels {__version__} from the record.json of each run alone.",
    )


# --- what may be compared ---------------------------------------------------------------------------------------------


def _identity(record: RunRecord) -> dict[str, str]:
    """What must be equal for two runs to be compared, in words that can be shown."""
    data = [[s.name, s.fingerprint or s.sha256, s.splits.get("test")] for s in record.sources if s.kind == "dataset"]
    rows = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    return {
        "task": record.task,
        "metric": formats.metric_name(record.metric),
        "test rows": rows,
        "machine": f"{record.environment.processor} ({record.environment.fingerprint[:12]})",
        "ranked cost": words.ranking_unit(record),
    }


def _groups(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs that may be compared, in the order in which they came."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(json.dumps(_identity(record)), []).append(record)
    return list(groups.values())


def _systems(group: Sequence[RunRecord]) -> list[System]:
    """Every role of every config in the group."""
    systems = []
    for kind in kinds(group):
        roles = dict.fromkeys(r.role for record in kind.records for r in words.test_results(record))
        for role in roles:
            having = [r for r in kind.records if r.result(role) is not None]
            name = words.role_name(role) + (f" ({kind.difference})" if kind.difference else "")
            systems.append(System(name, role, having))
    return systems


# --- sections ---------------------------------------------------------------------------------------------------------


def _summary(records: Sequence[RunRecord], groups: Sequence[Sequence[RunRecord]]) -> str:
    if len(groups) > 1:
        first = (
            f"These {len(records)} runs fall into {len(groups)} groups that differ in task, metric, test rows or "
            "machine, so no number of one group is ranked against one of another."
        )
    else:
        name = formats.metric_name(records[0].metric)
        first = f"These {len(records)} runs share task, test rows and machine, and are compared by {name} and cost."
    ranked = [s for group in groups for s in _systems(group) if not s.not_comparable(use=False)]
    if not ranked:
        return f"{first} No model has the {MIN_SEEDS} seeds that a ranking needs, so none is named better than another."
    return (
        f"{first} {len(ranked)} of the models have {MIN_SEEDS} seeds or more and are ranked; the others are only shown."
    )


def _notices(records: Sequence[RunRecord]) -> list[str]:
    found: dict[str, int] = {}
    for record in records:
        for notice in words.notices(record):
            found[notice] = found.get(notice, 0) + 1
    every = len(records)
    return [
        n if count == every else f"In {count} of {every} runs: {n[:1].lower()}{n[1:]}" for n, count in found.items()
    ]


def _runs_section(records: Sequence[RunRecord]) -> Section:
    rows: list[Row] = []
    for r in records[:MAX_ROWS]:
        main = words.main_result(r)
        value = formats.quality(r.metric, words.metric_value(main, r.metric))
        quality = f"{words.role_name(main.role)} {value} {formats.metric_name(r.metric)}" if main else MISSING
        cost = [formats.duration(r.duration_s), number(r.cpu_s), formats.energy(r.energy_j), r.energy_label]
        data = ", ".join(dict.fromkeys(s.name for s in r.sources if s.kind == "dataset"))
        rows.append(
            [r.run_id, r.recipe, data, words.plain(r.config.get("seed")), quality, *cost, r.environment.processor]
        )
    head = ["Run", "recipe", "data", "seed", "result", "time", "CPU-s", "energy", "joules are", "machine"]
    note = cut_note(len(records), len(rows))
    table = Table(caption="Runs", head=head, rows=rows, text_columns=(1, 2, 4, 8, 9), note=note)
    return Section("The runs", [table])


def _apart_section(groups: Sequence[Sequence[RunRecord]]) -> Section:
    """Why the groups are not compared with each other."""
    identities = [_identity(group[0]) for group in groups]
    differing = [key for key in identities[0] if len({i[key] for i in identities}) > 1]
    rows: list[Row] = [
        [f"Group {n + 1}", ", ".join(r.run_id for r in group[:10]), *[identity[key] for key in differing]]
        for n, (group, identity) in enumerate(zip(groups, identities, strict=True))
    ]
    columns = tuple(range(1, len(differing) + 2))
    table = Table(caption="What differs", head=["Group", "runs", *differing], rows=rows, text_columns=columns)
    return Section("Why they are not ranked together", [table])


def _group_sections(group: Sequence[RunRecord], title: str, name: str) -> list[Section]:
    unit = words.ranking_unit(group[0])
    systems = _systems(group)
    sections = []
    for use, heading, what in ((True, "cost of a use", "per 1,000 uses"), (False, "cost of building", "to build it")):
        points, verdict = _placed(systems, unit, use=use)
        if not points and not any(s.build(unit) for s in systems):
            continue
        panels = _panels(group[0], systems, points, unit, f"{name}-{'use' if use else 'build'}", what, use=use)
        table = _systems_table(group[0], systems, unit, verdict, what, use=use)
        heading = formats.capital(f"{title}quality against {heading}")
        sections.append(Section(heading, [Text(_lead(points)), Picture(panels, table)]))
    return sections


def _lead(points: Sequence[Point]) -> str:
    if any(p.on_front for p in points):
        return (
            "Filled signs are on the Pareto front: no other ranked model is at least as good and as cheap. Lines are "
            "95\u00a0% intervals over seeds; where those of quality overlap, no difference is claimed."
        )
    return "Nothing is ranked here; the column at the end says why. Lines are 95\u00a0% intervals over seeds."


def _placed(systems: Sequence[System], unit: Unit, *, use: bool) -> tuple[list[Point], list[str]]:
    """A point for each system whose cost and quality are known, and for every system its verdict."""
    points: dict[int, Point] = {}
    verdict = [system.not_comparable(use=use) for system in systems]
    for i, system in enumerate(systems):
        cost, quality = system.use(unit) if use else system.build(unit), system.quality()
        if cost is None or quality is None:
            verdict[i] = "not comparable: cost missing" if quality is not None else "not comparable: quality missing"
            continue
        points[i] = Point(
            label=system.label,
            role=system.role,
            x=cost.value,
            x_low=cost.low,
            x_high=cost.high,
            **single.goodness_of(system.records[0].metric, quality.value, quality.low, quality.high),
        )
    ranked = [i for i in points if not verdict[i]]
    if len(ranked) < 2:
        for i in ranked:
            verdict[i] = "not comparable: nothing beside it"
    else:
        chosen = [points[i] for i in ranked]
        places = zip(ranked, fronts.pareto_front(chosen), fronts.verdicts(chosen), strict=True)
        for i, on_front, said in places:
            points[i], verdict[i] = dataclasses.replace(points[i], on_front=on_front), said
    return list(points.values()), verdict


def _panels(
    record: RunRecord, systems: Sequence[System], points: list[Point], unit: Unit, name: str, what: str, *, use: bool
) -> list[Panel]:
    """The ranked cost; beside it the estimated joules where they are not what is ranked."""
    panels = []
    points = _short_names(points, systems)
    axis = "joules" if unit == "J" else "CPU-seconds"
    if points:
        ranks = any(p.on_front for p in points)
        panels.append(single.cost_panel(record.metric, points, f"{name}-{unit.lower()}", axis, what, ranks=ranks))
    if unit != "J":
        joules = _short_names(_placed(systems, "J", use=use)[0], systems)
        front = {p.label for p in points if p.on_front}
        marked = [dataclasses.replace(p, on_front=p.label in front) for p in joules]
        if marked:
            panels.append(single.cost_panel(record.metric, marked, f"{name}-j", "estimated joules", what, ranks=False))
    return panels


def _short_names(points: Sequence[Point], systems: Sequence[System]) -> list[Point]:
    """Where there are many, the numbers of the table's rows instead of names, which would cover each other."""
    names = [system.label for system in systems]
    if len(names) <= _MAX_NAMED:
        return list(points)
    return [dataclasses.replace(p, label=str(names.index(p.label) + 1), name=p.label) for p in points]


def _systems_table(
    record: RunRecord, systems: Sequence[System], unit: Unit, verdict: Sequence[str], what: str, *, use: bool
) -> Table:
    other: Unit = "CPU-s" if unit == "J" else "J"
    rows: list[Row] = []
    numbered = len(systems) > _MAX_NAMED
    for i, system in enumerate(systems[:MAX_ROWS]):
        quality = system.quality()
        costs = [system.use(u) if use else system.build(u) for u in (unit, other)]
        bounds = formats.interval(record.metric, quality.low, quality.high) if quality else MISSING
        first = f"{i + 1} · {system.label}" if numbered else system.label
        cells = [formats.quality(record.metric, quality.value if quality else None), bounds, str(system.seeds())]
        cells += [_mean_words(costs[0]), _mean_words(costs[1])]
        rows.append([first, *cells, verdict[i]])
    joules = "J" if record.energy_is_counted else "estimated J"
    names = {"J": f"{joules} {what}", "CPU-s": f"CPU-s {what}"}
    head = [
        "Model",
        formats.metric_name(record.metric),
        "95\u00a0% interval",
        "seeds",
        names[unit],
        names[other],
        "place",
    ]
    note = cut_note(len(systems), len(rows))
    return Table(caption="Mean over seeds", head=head, rows=rows, text_columns=(6,), note=note)


def _mean_words(value: Mean | None) -> str:
    if value is None:
        return MISSING
    spread = "" if value.low is None else f" ± {number(value.value - value.low, 2)}"
    return f"{number(value.value)}{spread}"


def _method_lines(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    lines = [
        "Runs are ranked together only with the same task, metric, test rows and machine fingerprint.",
        f"Intervals are Student-t over runs that differ in their seed; a model is ranked from {MIN_SEEDS} seeds on.",
        "Cost of a use is ranked only under the full protocol; an indicative measurement is shown and not ranked.",
    ]
    if any(words.ranking_unit(group[0]) == "CPU-s" for group in groups):
        lines.append("Where joules are computed from nominal powers, CPU-seconds are ranked and joules are only shown.")
    return [*lines, words.COVERAGE, words.REBOUND]
