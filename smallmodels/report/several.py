"""The page of several runs: what may be compared, what may not and why, and what the numbers say where it may.

`systems` has the rules of what may be compared, `comparing` the verdicts, `learning` the curves, `paying` the payback,
`advice` the sentence at the top.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smallmodels import __version__
from smallmodels.records import RunRecord, Unfinished
from smallmodels.report import (
    advice,
    comparing,
    details,
    formats,
    fronts,
    inference,
    learning,
    origins,
    paying,
    pictures,
    single,
    words,
)
from smallmodels.report.comparing import Comparisons
from smallmodels.report.evidence import NO_EVIDENCE, Evidence
from smallmodels.report.figures import Point
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import MAX_ROWS, Bullets, Page, Panel, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.paying import Counted
from smallmodels.report.systems import MIN_SEEDS, System, groups_of, identity, systems_of
from smallmodels.report.words import Unit

if TYPE_CHECKING:
    from smallmodels.metrics import Spread

_MAX_NAMED = 6  # more names than that cover each other in a picture, and are not read in a table


ADVICE_TITLE = "Should you distil at all?"


@dataclass(frozen=True)
class Group:
    """Runs that may be compared, and what is worked out of them once."""

    records: Sequence[RunRecord]
    evidence: Evidence
    """With those unfinished runs alone that belong here."""
    systems: Sequence[System]
    comparisons: Comparisons
    counted: Sequence[Counted]
    title: str
    """In front of headings; empty where there is one group."""
    name: str
    """Of its pictures."""

    @property
    def unit(self) -> Unit:
        """The cost that is ranked."""
        return words.ranking_unit(self.records[0])

    @functools.cached_property
    def advice(self) -> str:
        """Whether to distil at all, and which model to ship; empty where there is nothing to choose."""
        return advice.sentence(self.comparisons, self.counted, self.unit)

    @property
    def is_advised_against(self) -> bool:
        """Whether that is not to distil."""
        return advice.AGAINST in self.advice

    @property
    def warning(self) -> Sequence[Text]:
        """Beside a payback: that a student is repaid is no reason to ship it."""
        is_repaid = any(each.estimate.uses is not None for each in self.counted)
        if not is_repaid or not self.is_advised_against:
            return ()
        return (Text(f"That a student is repaid does not make it the model to ship. {self.advice}"),)


def analysed(records: Sequence[RunRecord], evidence: Evidence = NO_EVIDENCE) -> list[Group]:
    """The groups of runs that may be compared, in the order in which they came."""
    found = groups_of(learning.with_teachers(records, evidence))
    labels, unfinished = _labels(found), _assigned(found, evidence.unfinished)
    groups = []
    for i, (runs, others) in enumerate(zip(found, unfinished, strict=True)):
        own = dataclasses.replace(evidence, unfinished=others)
        systems = systems_of(runs)
        comparisons = Comparisons(runs, systems, own)
        counted = paying.paybacks(comparisons, runs, own)
        title = f"{labels[i]}: " if len(found) > 1 else ""
        groups.append(Group(runs, own, systems, comparisons, counted, title, f"group{i + 1}"))
    return groups


def _labels(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """A name for each group: its data, with a number where several have the same; a number alone where that is none."""
    found = [", ".join(dict.fromkeys(s.name for s in g[0].sources if s.kind == "dataset")) for g in groups]
    clear = [formats.clean(name, 80) for name in found]
    if all(name and ": " not in name for name in clear):
        count = collections.Counter(clear)
        return [f"{n} ({clear[: i + 1].count(n)})" if count[n] > 1 else n for i, n in enumerate(clear)]
    return [f"Group {i + 1}" for i in range(len(groups))]


def _assigned(groups: Sequence[Sequence[RunRecord]], unfinished: Sequence[Unfinished]) -> list[list[Unfinished]]:
    """Runs without a record by their group: that of the same sweep, else of the same recipe, else the only one.

    Where there are several, one that fits none is in the page's account alone, and in no bill of a group.
    """
    assigned: list[list[Unfinished]] = [[] for _ in groups]
    for run in unfinished:
        same_sweep = [i for i, g in enumerate(groups) if run.sweep_id and run.sweep_id in {r.sweep_id for r in g}]
        same_recipe = [i for i, g in enumerate(groups) if run.recipe in {r.recipe for r in g}]
        fitting = [*same_sweep, *same_recipe, *([0] if len(groups) == 1 else [])]
        if fitting:
            assigned[fitting[0]].append(run)
    return assigned


def page(records: Sequence[RunRecord], evidence: Evidence = NO_EVIDENCE) -> Page:
    """What the page of several runs shows."""
    groups = analysed(records, evidence)
    advised = [f"{group.title}{said}" for group in groups if (said := group.advice)]
    sections: list[Section] = []
    if len(groups) > 1:  # of one group, the summary says it
        sections += [Section(ADVICE_TITLE, [Bullets(advised)])] if advised else []
        sections.append(_apart_section(groups))
    for group in groups:
        sections += _group_sections(group)
        sections += pictures.of_group(group.records, group.title, group.name)
    sections += [_runs_section(records), *_account_sections(records, evidence), *origins.sections(records)]
    sections.append(Section("How to read these numbers", [Bullets(_method_lines(groups))]))
    used = "record.json and predictions of each run" if evidence.predictions else "record.json of each run alone"
    return Page(
        title=f"{len(records)} runs compared" if len(groups) == 1 else f"{len(records)} runs in {len(groups)} groups",
        kicker=", ".join(sorted({r.recipe for r in records})),
        summary=_summary(records, groups),
        notices=_notices(records),
        sections=sections,
        footer=f"Written by smallmodels {__version__} from the {used}.",
    )


def page_of_one(record: RunRecord, evidence: Evidence = NO_EVIDENCE) -> Page:
    """The page of one run, with what the comparison of several says of it: whether to distil, and what it took."""
    found, (group,) = single.page(record), analysed([record], evidence)
    sections = list(found.sections)
    for i, each in enumerate(sections):
        more = learning.run_block(group.records[0], group.unit) if each.title == single.CURVE_TITLE else None
        if each.title == single.PAYBACK_TITLE and group.counted and (evidence.uses_per_day or evidence.unfinished):
            more = paying.table_of(group.counted, group.evidence)
        warning = group.warning if each.title == single.PAYBACK_TITLE else ()
        if more is not None or warning:
            sections[i] = dataclasses.replace(each, blocks=[*each.blocks, *warning, *([more] if more else [])])
    if evidence.predictions:
        sections[1:1] = comparing.sections(group.comparisons, group.unit, "")
    sections += _account_sections([record], evidence)
    if said := [sentence for sentence in (group.advice, *words.recommendations(record)) if sentence]:
        sections.insert(0, Section(ADVICE_TITLE, [Text(sentence) for sentence in said]))
    return dataclasses.replace(found, sections=sections)


# --- sections ---------------------------------------------------------------------------------------------------------


def _summary(records: Sequence[RunRecord], groups: Sequence[Group]) -> str:
    """The answer, and what it rests on."""
    ranked = sum(not s.not_comparable(use=False) for group in groups for s in group.systems)
    rank = f"{ranked} models with {MIN_SEEDS} seeds or more are ranked, the others only shown."
    if not ranked:
        rank = f"no model has the {MIN_SEEDS} seeds that a ranking needs, so none is named better than another."
    if len(groups) > 1:
        basis = (
            f"These {len(records)} runs fall into {len(groups)} groups that differ in task, metric, test rows, "
            "machine, threads, device or in how their joules were obtained, so no number of one group is ranked "
            f"against one of another; {rank}"
        )
    else:
        name = formats.metric_name(records[0].metric)
        basis = (
            f"These {len(records)} runs share task, test rows and machine, and are compared by {name} and cost; {rank}"
        )
    return f"{answer(groups)} {basis}".strip()


def answer(groups: Sequence[Group]) -> str:
    """Which model to ship, or in how many groups a student is one to ship; empty where nothing is known of it."""
    said_of_all = [said for group in groups if (said := group.advice)]
    if len(groups) == 1:
        return "".join(said_of_all)
    advised = [said for said in said_of_all if not said.startswith(advice.NO_STUDENT)]
    if not advised:
        return "The first section says which model to ship now in each group, and why." if said_of_all else ""
    against = sum(group.is_advised_against for group in groups)
    not_shown = sum(advice.NOT_SHOWN in said for said in advised)
    undecided = sum(said.startswith(advice.UNDECIDED) for said in advised)
    rest = f", in {not_shown} of these because the evidence does not suffice" if not_shown else ""
    rest += f", and in {undecided} that is not decided" if undecided else ""
    return (
        f"Of {len(advised)} groups with a student, distilling is advised in {len(advised) - against - undecided} and "
        f"advised against in {against}{rest}: the first section says which model to ship now in each, and why."
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
        label = f"{r.energy_label}, machine shared" if r.contended else r.energy_label
        cost = [formats.duration(r.duration_s), number(r.cpu_s), formats.energy(r.energy_j), label]
        data = ", ".join(dict.fromkeys(s.name for s in r.sources if s.kind == "dataset"))
        rows.append(
            [r.run_id, r.recipe, data, words.plain(r.config.get("seed")), quality, *cost, r.environment.processor]
        )
    head = ["Run", "recipe", "data", "seed", "result", "time", "CPU-s", "energy", "joules are", "machine"]
    note = cut_note(len(records), len(rows))
    table = Table(caption="Runs", head=head, rows=rows, text_columns=(1, 2, 4, 8, 9), note=note)
    return Section("The runs", [table])


def _apart_section(groups: Sequence[Group]) -> Section:
    """Why the groups are not compared with each other."""
    identities = [{**identity(group.records[0]), **_machine_facts(group.records[0])} for group in groups]
    keys = dict.fromkeys(key for each in identities for key in each)
    differing = [key for key in keys if len({each.get(key) for each in identities}) > 1]
    rows: list[Row] = [
        [
            group.title.removesuffix(": "),
            _first_names([r.run_id for r in group.records], 1),
            *[found.get(key, "not recorded") for key in differing],
        ]
        for group, found in zip(groups, identities, strict=True)
    ]
    columns = tuple(range(1, len(differing) + 2))
    table = Table(caption="What differs", head=["Group", "runs", *differing], rows=rows, text_columns=columns)
    return Section("Why they are not ranked together", [table])


def _machine_facts(record: RunRecord) -> dict[str, str]:
    """What a fingerprint is of, each by its name; what `identity` names has a column there."""
    facts = details.machine_facts(record.environment)
    del facts["Processor"]
    return {
        name if name.isupper() else name.lower(): fact for name, fact in facts.items()
    } | record.environment.versions


def _account_sections(records: Sequence[RunRecord], evidence: Evidence) -> list[Section]:
    """What the records themselves do not tell of costs: which runs shared a machine, and which left no record."""
    found = []
    if shared := [(r, names) for r in records if (names := evidence.beside.get(r.run_id))]:
        found.append(_shared_section(shared))
    if evidence.unfinished:
        found.append(_unfinished_section(evidence.unfinished))
    return found


def _shared_section(shared: Sequence[tuple[RunRecord, Sequence[str]]]) -> Section:
    """Runs of a sweep that were on one machine at the same time."""
    rows: list[Row] = [
        [r.run_id, MISSING if r.energy_j is None else "of all that ran there", _first_names(names)]
        for r, names in shared[:MAX_ROWS]
    ]
    table = Table(
        caption="Runs that shared a machine",
        head=["Run", "its joules are", "cells that ran beside it"],
        rows=rows,
        text_columns=(1, 2),
        note=cut_note(len(shared), len(rows)),
    )
    lead = (
        "Cells of the sweep ran on one machine at the same time. One of them measured the joules of all; the others "
        "have none. Neither joules nor times of these runs are ranked; their quality is."
    )
    return Section("Who shared a machine", [Text(lead), table])


def _first_names(names: Sequence[str], most: int = _MAX_NAMED) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _unfinished_section(unfinished: Sequence[Unfinished]) -> Section:
    """Runs that left no record and cost something all the same."""
    rows: list[Row] = [
        [run.run_id, run.recipe, number(run.cpu_s), formats.energy(run.energy_j), run.energy_label or MISSING]
        for run in unfinished[:MAX_ROWS]
    ]
    table = Table(
        caption="Runs without a record",
        head=["Run", "recipe", "CPU-s", "energy", "joules are"],
        rows=rows,
        text_columns=(1, 4),
        note=cut_note(len(unfinished), MAX_ROWS),
    )
    lead = "They failed, were stopped, or have not ended. What their journals say they cost is part of the whole bill."
    return Section("What never ended", [Text(lead), table])


def _group_sections(group: Group) -> list[Section]:
    unit, systems = group.unit, group.systems
    sections = comparing.sections(group.comparisons, unit, group.title)
    for use, heading, what in ((True, "cost of a use", "per 1,000 uses"), (False, "cost of building", "to build it")):
        points, verdict = _placed(group, unit, use=use)
        if not points and not any(s.use(unit) if use else s.build(unit) for s in systems):
            continue
        panels = _panels(group, points, unit, f"{group.name}-{'use' if use else 'build'}", what, use=use)
        table = _systems_table(group.records[0], systems, unit, verdict, what, use=use)
        heading = formats.heading(group.title, f"quality against {heading}")
        sections.append(Section(heading, [Text(_lead(points)), Picture(panels, table)]))
    in_detail = inference.section_of_group(systems, group.title)
    sections += [in_detail] if in_detail else []
    learned = learning.section(systems, unit, group.title, group.name)
    shared = paying.shared_section(group.records, unit, group.title)
    paid = paying.sections(group.counted, group.evidence, group.title, f"{group.name}-payback", group.warning)
    return [*sections, *([learned] if learned else []), *paid, *([shared] if shared else [])]


def _lead(points: Sequence[Point]) -> str:
    if any(p.on_front for p in points):
        return (
            "Filled signs are on the Pareto front: no other ranked model is at least as good and as cheap. Lines are "
            "95\u00a0% intervals over seeds; models whose quality is not told apart are called indistinguishable."
        )
    return "Nothing is ranked here; the column at the end says why. Lines are 95\u00a0% intervals over seeds."


def _placed(group: Group, unit: Unit, *, use: bool) -> tuple[list[Point], list[str]]:
    """A point for each system whose cost and quality are known, and for every system its verdict."""
    systems = group.systems
    points: dict[int, Point] = {}
    verdict = [system.not_comparable(use=use) for system in systems]
    if not use:
        because = "not comparable: a shared machine made what it has from the cache"
        owing = [system.owes_to_shared_machine(group.records, unit) for system in systems]
        verdict = [why or because * owes for why, owes in zip(verdict, owing, strict=True)]
    apart = _other_labels(systems) if use and unit == "J" else {}
    for i, system in enumerate(systems):
        verdict[i] = verdict[i] or apart.get(i, "")
        cost, quality = system.use(unit) if use else system.build(unit), system.quality()
        if cost is None or quality is None:
            verdict[i] = "not comparable: cost missing" if quality is not None else "not comparable: quality missing"
            continue
        low, high = _quality_ends(system, quality)
        points[i] = Point(
            label=system.label,
            role=system.role,
            x=cost.value,
            x_low=cost.low,
            x_high=cost.high,
            **single.goodness_of(system.records[0].metric, quality.value, low, high),
        )
    ranked = [i for i in points if not verdict[i]]
    all_ranked = len(ranked) == len(systems)
    if len(ranked) < 2:
        for i in ranked:
            verdict[i] = "not comparable: nothing beside it"
        return list(points.values()), verdict
    chosen = [points[i] for i in ranked]

    def better(one: int, two: int) -> bool:
        return group.comparisons.is_clearly_better(systems[ranked[one]], systems[ranked[two]])

    told = fronts.verdicts(chosen, better=better, all_ranked=all_ranked)
    for i, on_front, said in zip(ranked, fronts.pareto_front(chosen), told, strict=True):
        points[i], verdict[i] = dataclasses.replace(points[i], on_front=on_front), said
    return list(points.values()), verdict


def _other_labels(systems: Sequence[System]) -> dict[int, str]:
    """Systems whose joules of a use were obtained otherwise than those of the student, which are not ranked with it."""
    labels = [system.use_labels() - {"missing"} for system in systems]
    of_students = [found for system, found in zip(systems, labels, strict=True) if system.role == "student"]
    wanted = next((found for found in (*of_students, *labels) if found), set())
    return {
        i: f"not comparable: joules are {', '.join(sorted(found))}, not {', '.join(sorted(wanted))}"
        for i, found in enumerate(labels)
        if found and found != wanted
    }


def _quality_ends(system: System, quality: "Spread") -> tuple[float | None, float | None]:
    """The interval over seeds, or over test items where all seeds have the same model."""
    if not quality.is_constant:
        return quality.low, quality.high
    over_items = system.quality_of_items
    return (over_items.low, over_items.high) if over_items is not None else (None, None)


def _panels(group: Group, points: list[Point], unit: Unit, name: str, what: str, *, use: bool) -> list[Panel]:
    """The ranked cost; beside it the estimated joules where they are not what is ranked."""
    panels = []
    metric, systems = group.records[0].metric, group.systems
    points = _short_names(points, systems)
    axis = "joules" if unit == "J" else "CPU-seconds"
    if points:
        ranks = any(p.on_front for p in points)
        panels.append(single.cost_panel(metric, points, f"{name}-{unit.lower()}", axis, what, ranks=ranks))
    if unit != "J":
        joules = _short_names(_placed(group, "J", use=use)[0], systems)
        front = {p.label for p in points if p.on_front}
        marked = [dataclasses.replace(p, on_front=p.label in front) for p in joules]
        if marked:
            panels.append(single.cost_panel(metric, marked, f"{name}-j", "estimated joules", what, ranks=False))
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
        first = f"{i + 1} · {system.label}" if numbered else system.label
        cells = _quality_cells(record.metric, system, quality)
        rows.append([first, *cells, *map(learning.spread_words, costs), verdict[i]])
    joules = "J" if record.energy_is_counted else "estimated J"
    names = {"J": f"{joules} {what}", "CPU-s": f"CPU-s {what}"}
    head = ["Model", formats.metric_name(record.metric), "SD", "95\u00a0% interval", "seeds"]
    note = (
        "SD, interval (Student-t) and n are over seeds. Where all seeds give one value, the interval is over test "
        f"items instead, marked with {_OVER_ITEMS}. {_MEASUREMENTS * use}{_left_out_note(systems)}"
        f"{cut_note(len(systems), len(rows))}"
    )
    return Table(
        caption="Mean over seeds",
        head=[*head, names[unit], names[other], "place"],
        rows=rows,
        text_columns=(7,),
        note=note.strip(),
    )


_OVER_ITEMS = "†"
_MEASUREMENTS = (
    "Of a use they are over distinct measurements, which seeds may share; where all share one, over its windows. "
)


def _left_out_note(systems: Sequence[System]) -> str:
    """Whose costs are those of fewer runs than their quality."""
    if not any(len(s.costed) < len(s.records) for s in systems):
        return ""
    return (
        f"Runs that shared their machine are left out of the costs of models that have {MIN_SEEDS} seeds without them. "
    )


def _quality_cells(metric: str, system: System, quality: "Spread | None") -> list[str]:
    """Mean, standard deviation, interval and number of seeds."""
    if quality is None:
        return [MISSING, MISSING, MISSING, str(system.seeds())]
    deviation = MISSING if quality.sd is None else formats.difference(metric, quality.sd)
    bounds = formats.interval(metric, *_quality_ends(system, quality))
    bounds += _OVER_ITEMS if quality.is_constant and bounds != MISSING else ""
    return [formats.quality(metric, quality.value), deviation, bounds, str(quality.n)]


def _method_lines(groups: Sequence[Group]) -> list[str]:
    lines = [
        "Runs are ranked together only with the same task, metric, test rows, machine fingerprint, threads, device and "
        "label of their joules; number formats are models of their own.",
        f"Intervals are Student-t over runs that differ in their seed; a model is ranked from {MIN_SEEDS} seeds on.",
        "Differences between models have intervals over seeds and test items, joined as those of two causes that know "
        "nothing of each other; on the same test items, the bootstrap draws items with what both models did on them.",
        "Which student is the best is chosen on validation; whether it is good enough is then said by the test items.",
        "Cost of a use is ranked only under the full protocol; an indicative measurement is shown and not ranked. Runs "
        "with a model of the same shape may share a measurement, which counts once; of a single one that several runs "
        "share, the interval is over its windows.",
    ]
    if any(group.unit == "CPU-s" for group in groups):
        lines.append("Where joules are computed from nominal powers, CPU-seconds are ranked and joules are only shown.")
    return [*lines, words.COVERAGE, words.REBOUND]
