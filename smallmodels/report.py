"""RunRecords to pages: the report of one run, the comparison of several, the table in the terminal.

Pages are built as plain data (sections of text, tables and pictures) and then written by one HTML and one Markdown
template, so that both say the same. Numbers come from records alone. Which cost is ranked follows from how the joules
were obtained: counted ones are; where they are modelled, CPU-seconds are ranked and joules are shown as estimates.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from smallmodels import figures, files, pages
from smallmodels.errors import InputError
from smallmodels.pages import (
    MISSING,
    cpu_seconds,
    duration,
    energy,
    interval,
    large,
    metric_name,
    number,
    quality,
    size,
)
from smallmodels.records import COUNTED_LABELS, Carbon, Inference, Payback, Phase, Result, RunRecord, Source

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MAX_ROWS = 500
"""Rows that a page shows of a long list; what is left out is counted."""
WORST_CLASSES = 10

Unit = Literal["J", "CPU-s"]

ROLE_NAMES = {
    "teacher": "Teacher",
    "student": "Student",
    "untrained_student": "Untrained student",
    "label_only": "Labels only",
    "tfidf": "TF-IDF",
    "majority": "Majority class",
}

LABEL_MEANINGS = {
    "wall": "read from a meter at the wall socket",
    "counter": "read from an energy counter of the hardware",
    "sampled": "power read at intervals and added up",
    "user": "computed from a power that the user gave",
    "modelled": "computed from the processor's nominal power and its load; not a measurement",
    "constant": "a fixed power multiplied by time; not a measurement",
    "unknown": "obtained in a way that could not be determined",
    "missing": "not available",
}

COVERAGE = (
    "The joules cover what software can see: processor, memory and graphics processor. Losses of the power supply, fans, "
    "disks, screen and network are outside, and so is what others spent on pre-training the base model."
)
REBOUND = (
    "A cheaper use is a saving only if the number of uses stays the same: models that cost less tend to be used more, and "
    "the total can still rise."
)


# --- what a page is made of -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A table cell with more than text: the fraction in [0, 1] that a bar in its background fills."""

    text: str
    bar: float


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; its first column names the row."""

    kind: ClassVar[str] = "table"
    caption: str
    head: list[str]
    rows: list[list[str | Cell]]
    text_columns: tuple[int, ...] = ()
    """Columns besides the first that hold words and are aligned to the left."""
    strong: tuple[int, ...] = ()
    """Rows that stand out."""
    note: str = ""
    fold: str = ""
    """If given, the table is closed until this line is clicked."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: list[str]


@dataclass(frozen=True)
class Code:
    """Text to copy, such as a command."""

    kind: ClassVar[str] = "code"
    text: str
    fold: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing, with the words that stand for it where it cannot be seen."""

    name: str
    heading: str
    alt: str
    figure: Any


@dataclass(frozen=True)
class Picture:
    """Panels side by side, under each other on a phone."""

    kind: ClassVar[str] = "picture"
    panels: list[Panel]


Block = Text | Bullets | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it."""

    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Fact:
    """One large figure at the top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that a page shows, before it is HTML or Markdown."""

    title: str
    kicker: str
    summary: str
    facts: list[Fact] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    footer: str = ""


# --- reading a record -------------------------------------------------------------------------------------------------


def role_name(role: str) -> str:
    """A role as a reader sees it."""
    return ROLE_NAMES.get(role, role.replace("_", " ").capitalize())


def ranking_unit(record: RunRecord) -> Unit:
    """The cost that may be ranked: joules where processor or GPU are counted or sampled, else CPU-seconds."""
    if record.payback is not None:
        return record.payback.unit
    labels = {record.environment.energy_labels.get(component) for component in ("cpu", "gpu")}
    return "J" if labels & COUNTED_LABELS else "CPU-s"


def energy_in_words(joules: float | None, label: str) -> str:
    """Joules with the words that their label asks for."""
    if joules is None:
        return "energy not measured"
    return energy(joules) if label in COUNTED_LABELS else f"estimated {energy(joules)}, not a measurement"


def main_result(record: RunRecord) -> Result | None:
    """The result of the model that the run was made for, on test."""
    return record.result("student") or next((r for r in record.results if r.split == "test"), None)


def _replaced(record: RunRecord) -> Result | None:
    """The result of the model that the student replaces."""
    main = main_result(record)
    other = record.result(record.payback.replaces if record.payback else "teacher")
    return other if other is not main else None


def _ratio(record: RunRecord, unit: Unit) -> float | None:
    """Cost of one use of the student over that of what it replaces."""
    main, other = main_result(record), _replaced(record)
    mine = _use_cost(record.inference_of(main.role), unit) if main else None
    theirs = _use_cost(record.inference_of(other.role), unit) if other else None
    return mine / theirs if mine is not None and theirs else None


def _use_cost(use: Inference | None, unit: Unit) -> float | None:
    """Cost per 1,000 inputs."""
    if use is None:
        return None
    value = use.energy_j_per_1000 if unit == "J" else use.cpu_s_per_1000
    return value if pages.is_number(value) else None


def _test_results(record: RunRecord) -> list[Result]:
    return [r for r in record.results if r.split == "test"]


def _value(result: Result | None, metric: str) -> float | None:
    """The finite value of a metric, or None."""
    found = result.metrics.get(metric) if result else None
    return found.value if found and pages.is_number(found.value) else None


def summary(record: RunRecord) -> str:
    """Two plain sentences: how good the result is, and what it cost."""
    main, other, unit = main_result(record), _replaced(record), ranking_unit(record)
    value = _value(main, record.metric)
    name = metric_name(record.metric)
    if main is None or value is None:
        first = f"The run gave no {name} on its test split"
    else:
        items = main.metrics[record.metric].n
        first = (
            f"The {role_name(main.role).lower()} reaches {quality(record.metric, value)} {name} on {items:,} test items"
        )
        reference = _value(other, record.metric)
        if other is not None and reference is not None:
            gap = pages.difference(record.metric, value - reference)
            side = "below" if value < reference else "above"
            first += f", {gap} {side} the {role_name(other.role).lower()} ({quality(record.metric, reference)})"
            ratio = _ratio(record, unit)
            if ratio is not None:
                what = "energy" if unit == "J" else "processor time"
                first += f", and needs {number(100 * ratio, 2)}\u00a0% of its {what} per use"
    second = f"The run took {duration(record.duration_s)}, {cpu_seconds(record.cpu_s)} and "
    if record.energy_j is None:
        second += "an energy that could not be measured"
    elif record.energy_label in COUNTED_LABELS:
        second += energy(record.energy_j)
    else:
        second += f"an estimated {energy(record.energy_j)} (a model, not a measurement)"
    return f"{first}. {second}{_payback_clause(record.payback)}."


def _payback_clause(payback: Payback | None) -> str:
    if payback is None:
        return ""
    if payback.uses is None:
        return f"; building the student never pays for itself, because {_sentence(payback.reason)}"
    return f"; building the student pays for itself after about {large(_rounded(payback.uses))} uses"


def _sentence(text: str) -> str:
    """A reason as a part of a sentence: without its full stop."""
    return pages.clean(text, 400).rstrip(". ")


def _rounded(value: float | None) -> float | None:
    """Two significant digits: more would pretend to a precision that the interval denies."""
    if not value or not math.isfinite(value):
        return value
    return round(value, 1 - math.floor(math.log10(abs(value))))


# --- which model is worth its cost ------------------------------------------------------------------------------------


def pareto_front(points: Sequence[figures.Point]) -> list[bool]:
    """For each point, whether no other is at least as good and at least as cheap, and better in one of the two."""

    def beats(one: figures.Point, two: figures.Point) -> bool:
        return one.x <= two.x and one.y >= two.y and (one.x < two.x or one.y > two.y)

    return [not any(beats(other, point) for other in points) for point in points]


def verdicts(points: Sequence[figures.Point]) -> list[str]:
    """What each point's place means; where intervals of quality overlap, no difference is claimed."""
    return [_verdict(point, points, front) for point, front in zip(points, pareto_front(points), strict=True)]


def _verdict(point: figures.Point, points: Sequence[figures.Point], on_front: bool) -> str:
    cheaper = [p for p in points if p is not point and p.x <= point.x and (p.x < point.x or p.y > point.y)]
    if on_front:
        near = [p for p in cheaper if not _clearly_better(point, p)]
        if near:
            return f"on the front, but not clearly better than {max(near, key=lambda p: p.y).label}"
        return "on the front"
    rival = max((p for p in cheaper if p.y >= point.y), key=lambda p: p.y)
    if _clearly_better(rival, point):
        return f"{rival.label} is better and costs no more"
    return f"not told apart from {rival.label}, which costs no more"


def _clearly_better(one: figures.Point, two: figures.Point) -> bool:
    """Whether the quality intervals do not overlap; without intervals nothing is clear."""
    return one.y_low is not None and two.y_high is not None and one.y_low > two.y_high


# --- the page of one run ----------------------------------------------------------------------------------------------


def run_page(record: RunRecord) -> str:
    """The page of one run as self-contained HTML: no script, no network, readable from a file."""
    return to_html(page_of_run(record))


def page_of_run(record: RunRecord) -> Page:
    """What the page of one run shows."""
    unit = ranking_unit(record)
    sections = [
        _quality_section(record),
        _use_section(record, unit),
        _build_section(record, unit),
        _payback_section(record),
        _curve_section(record, unit),
        _phases_section(record),
        _classes_section(record),
        _examples_section(record),
        _sources_section(record),
        _machine_section(record),
        _method_section(record, unit),
        _repeat_section(record),
    ]
    return Page(
        title=record.title,
        kicker=f"{record.recipe} · {record.started_utc[:10]} · run {record.run_id}",
        summary=summary(record),
        facts=_facts(record, unit),
        notices=_notices(record),
        sections=[s for s in sections if s is not None],
        footer=f"Written by smallmodels {record.library_version} from record.json alone.",
    )


def _facts(record: RunRecord, unit: Unit) -> list[Fact]:
    main, other = main_result(record), _replaced(record)
    facts = []
    if main is not None:
        found = main.metrics.get(record.metric)
        note = ""
        if found is not None:
            bounds = interval(record.metric, found.low, found.high)
            note = (f"95\u00a0% interval {bounds}, " if bounds else "") + f"{found.n:,} test items"
        if other is not None:
            note = f"{role_name(other.role)} {quality(record.metric, _value(other, record.metric))} · {note}"
        label = f"{role_name(main.role)}: {metric_name(record.metric)}"
        facts.append(Fact(label, quality(record.metric, _value(main, record.metric)), note))
        facts += _use_facts(record, main, other, unit)
    facts.append(_run_fact(record))
    if record.payback is not None:
        facts.append(_payback_fact(record.payback))
    return facts


def _use_facts(record: RunRecord, main: Result, other: Result | None, unit: Unit) -> list[Fact]:
    use, reference = record.inference_of(main.role), record.inference_of(other.role) if other else None
    if use is None:
        return []
    facts = []
    if use.num_parameters is not None:
        note = f"{size(use.size_bytes)} on disk" if use.size_bytes else ""
        if reference is not None and reference.num_parameters:
            note += f" · {role_name(reference.role)} {large(reference.num_parameters)}"
        facts.append(Fact("Parameters", large(use.num_parameters), note.strip(" ·")))
    if unit == "J":
        value, theirs = energy(use.energy_j_per_1000), energy(reference.energy_j_per_1000) if reference else ""
        extra = cpu_seconds(use.cpu_s_per_1000)
    else:
        value, theirs = cpu_seconds(use.cpu_s_per_1000), cpu_seconds(reference.cpu_s_per_1000) if reference else ""
        extra = energy_in_words(use.energy_j_per_1000, use.label)
    note = f"{role_name(reference.role)} {theirs} · {extra}" if reference else extra
    return [*facts, Fact("1,000 uses cost", value, note)]


def _run_fact(record: RunRecord) -> Fact:
    if record.energy_label in COUNTED_LABELS and record.energy_j is not None:
        note = f"{duration(record.duration_s)} · {cpu_seconds(record.cpu_s)}"
        fact = Fact("The whole run", energy(record.energy_j), note)
    else:
        note = f"{cpu_seconds(record.cpu_s)} · {energy_in_words(record.energy_j, record.energy_label)}"
        fact = Fact("The whole run", duration(record.duration_s), note)
    if record.carbon is not None and record.carbon.emissions_g is not None:
        fact = dataclasses.replace(fact, note=f"{fact.note} · {number(record.carbon.emissions_g)}\u00a0g CO2e")
    return fact


def _payback_fact(payback: Payback) -> Fact:
    if payback.uses is None:
        return Fact("Pays for itself", "Never", f"{_sentence(payback.reason)}")
    note = f"instead of the {role_name(payback.replaces).lower()}"
    if payback.low is not None or payback.high is not None:
        note = f"95\u00a0% interval {_uses_interval(payback)}, {note}"
    return Fact("Pays for itself after", f"{large(_rounded(payback.uses))} uses", note)


def uses_words(payback: Payback) -> str:
    """About how many uses repay the building, with the interval."""
    words = f"about {large(_rounded(payback.uses))} uses"
    known = payback.low is not None or payback.high is not None
    return f"{words} (95\u00a0% interval {_uses_interval(payback)})" if known else words


def _uses_interval(payback: Payback) -> str:
    low = large(_rounded(payback.low)) if payback.low is not None else "0"
    return (
        f"{low}–{large(_rounded(payback.high))}" if payback.high is not None else f"{low} or more, without an upper end"
    )


def _notices(record: RunRecord) -> list[str]:
    """What a reader must know before believing a number on the page."""
    notices = []
    if record.smoke:
        notices.append(
            "This was a smoke run of a few steps: it shows that the path works, and its numbers mean nothing."
        )
    if record.energy_j is not None and record.energy_label not in COUNTED_LABELS:
        notices.append(
            f"Energy is estimated, not measured (label: {record.energy_label}). Models are compared by processor time; "
            "joules are shown and not ranked."
            if ranking_unit(record) == "CPU-s"
            else f"A part of the energy is estimated, not measured (weakest label: {record.energy_label})."
        )
    if record.energy_j is None:
        notices.append("Energy was not measured in this run, so costs in joules are not comparable.")
    if record.contended:
        notices.append("Other work shared the machine during the run: its costs are not comparable with other runs.")
    if record.energy_truncated:
        notices.append(
            "The energy journal ended early once; up to one reading of a few seconds is missing from the totals."
        )
    if record.num_segments > 1:
        notices.append(f"The run was resumed: its cost is the sum of {record.num_segments} parts, pauses left out.")
    if record.stopped_by != "end":
        notices.append(
            f"Training stopped before its end because of a {record.stopped_by} rule; the best model was kept."
        )
    if record.git_dirty:
        notices.append(
            "The code had changes that are in no commit, so the run cannot be repeated from the commit alone."
        )
    return notices


def _quality_section(record: RunRecord) -> Section | None:
    results = _test_results(record)
    if not results:
        return None
    main = main_result(record)
    others = [m for m in (main or results[0]).metrics if m != record.metric][:2]
    head = ["Model", metric_name(record.metric), "95\u00a0% interval", *[metric_name(m) for m in others]]
    agreement = any(r.agreement for r in results)
    calibration = any(r.calibration_error is not None for r in results)
    head += ["same answer as teacher"] * agreement + ["calibration error"] * calibration
    head += ["parameters", "on disk", "latency p50 / p95", "inputs per second"]
    rows: list[list[str | Cell]] = []
    for result in results:
        found, use = result.metrics.get(record.metric), record.inference_of(result.role)
        bounds = interval(record.metric, found.low, found.high) if found else ""
        row = [role_name(result.role), quality(record.metric, found.value if found else None), bounds or MISSING]
        row += [quality(m, _value(result, m)) for m in others]
        row += [quality("agreement", result.agreement.value if result.agreement else None)] * agreement
        row += [quality("calibration_error", result.calibration_error)] * calibration
        row += _speed_cells(use)
        rows.append([*row])
    batches = sorted({i.batch_size for i in record.inference})
    note = f"Latency is for one input at a time; inputs per second are for batches of {' or '.join(map(str, batches))}."
    note += f" {MISSING} means that it was not measured."
    strong = tuple(i for i, r in enumerate(results) if r is main)
    table = Table(caption="Quality, size and speed on the test split", head=head, rows=rows, strong=strong, note=note)
    return Section("Every model of this run", [table])


def _speed_cells(use: Inference | None) -> list[str]:
    if use is None:
        return [MISSING] * 4
    latency = f"{duration(use.latency_p50_s)} / {duration(use.latency_p95_s)}" if use.latency_p50_s else MISSING
    return [large(use.num_parameters), size(use.size_bytes), latency, number(use.throughput_per_s)]


def _comparable(record: RunRecord) -> str:
    """Why the costs of this run must not be compared, or an empty string."""
    if record.smoke:
        return "not comparable: smoke run"
    return "not comparable: shared machine" if record.contended else ""


def _marked(points: Sequence[figures.Point], record: RunRecord) -> tuple[list[figures.Point], list[str]]:
    """Points with their place on the front, and a verdict for each."""
    if why := _comparable(record):
        return list(points), [why] * len(points)
    fronts = pareto_front(points)
    return [dataclasses.replace(p, on_front=f) for p, f in zip(points, fronts, strict=True)], verdicts(points)


def _use_points(record: RunRecord, unit: Unit) -> list[figures.Point]:
    points = []
    for result in _test_results(record):
        use, value = record.inference_of(result.role), _value(result, record.metric)
        cost = _use_cost(use, unit)
        if use is None or cost is None or value is None:
            continue
        spread = [
            1000 * w / n
            for w, n in ((x.energy_j if unit == "J" else x.cpu_s, x.num_examples) for x in use.windows)
            if w is not None and n > 0 and math.isfinite(w)
        ]
        found = result.metrics[record.metric]
        points.append(
            figures.Point(
                label=role_name(result.role), role=result.role, x=cost, y=value, y_low=found.low, y_high=found.high,
                x_low=min(spread, default=None), x_high=max(spread, default=None),
            )
        )  # fmt: skip
    return points


def _build_points(record: RunRecord, unit: Unit) -> list[figures.Point]:
    """Cost of everything that was paid for a model in this run, its teacher included."""
    points = []
    for result in _test_results(record):
        value = _value(result, record.metric)
        joules, cpu_s = record.cost_of([*result.built_by, *result.teacher_phases])
        cost = joules if unit == "J" else cpu_s
        if value is None or cost is None or not math.isfinite(cost):
            continue
        found = result.metrics[record.metric]
        label = role_name(result.role)
        points.append(figures.Point(label=label, role=result.role, x=cost, y=value, y_low=found.low, y_high=found.high))
    return points


def _panels(
    record: RunRecord, unit: Unit, ranked: list[figures.Point], estimates: list[figures.Point], name: str, what: str
) -> list[Panel]:
    """One panel in joules where they are ranked; else CPU-seconds with the front, and the estimated joules beside."""
    percent = pages.is_share(record.metric)
    quality_name = metric_name(record.metric)
    front = {p.label for p in ranked if p.on_front}
    panels = []
    if ranked:
        axis = "joules" if unit == "J" else "CPU-seconds"
        figure = figures.scatter(
            ranked, x_label=f"{axis} {what}", y_label=quality_name, draw_front=bool(front), percent=percent
        )
        panels.append(_panel(record, ranked, f"{name}-{axis.lower()}", axis, what, figure, ranks=True))
    if unit != "J" and estimates:
        marked = [dataclasses.replace(p, on_front=p.label in front) for p in estimates]
        figure = figures.scatter(
            marked, x_label=f"estimated joules {what}", y_label=quality_name, draw_front=False, percent=percent
        )
        panels.append(_panel(record, marked, f"{name}-joules", "estimated joules", what, figure, ranks=False))
    return panels


def _panel(
    record: RunRecord, points: list[figures.Point], name: str, axis: str, what: str, figure: Any, *, ranks: bool
) -> Panel:
    said = "; ".join(f"{p.label}: {number(p.x)} {axis}, {quality(record.metric, p.y)}" for p in points)
    front = ", ".join(p.label for p in points if p.on_front)
    alt = f"{metric_name(record.metric)} against {axis} {what}. {said}."
    if front:
        alt += f" On the front: {front}."
    heading = f"{axis.capitalize()}, ranked" if ranks else f"{axis.capitalize()}, not ranked"
    return Panel(name=name, heading=heading, alt=alt, figure=figure)


_FRONT_NOTE = (
    "Filled signs are on the Pareto front: no other model of this run is at least as good and costs no more. Lines through "
    "the signs are intervals. This is one run with one seed, so it orders these models on this machine and names no winner."
)


def _use_section(record: RunRecord, unit: Unit) -> Section | None:
    points, words = _marked(_use_points(record, unit), record)
    estimates = _use_points(record, "J")
    if not points and not estimates:
        return None
    verdict = dict(zip([p.role for p in points], words, strict=True))
    rows: list[list[str | Cell]] = []
    for result in _test_results(record):
        use = record.inference_of(result.role)
        if use is None:
            continue
        point = next((p for p in points if p.role == result.role), None)
        spread = f"{number(point.x_low)}–{number(point.x_high)}" if point and point.x_low is not None else MISSING
        joules = number(use.energy_j_per_1000)
        cells = [joules, number(use.cpu_s_per_1000)] if unit == "J" else [number(use.cpu_s_per_1000), joules]
        label = use.label if use.label in COUNTED_LABELS else f"{use.label} (estimated)"
        value = quality(record.metric, _value(result, record.metric))
        rows.append(
            [
                role_name(result.role),
                value,
                cells[0],
                spread,
                cells[1],
                label,
                verdict.get(result.role, "not comparable"),
            ]
        )
    costs = ["J", "CPU-s"] if unit == "J" else ["CPU-s", "estimated J"]
    head = ["Model", metric_name(record.metric), f"{costs[0]} per 1,000", "range over windows", f"{costs[1]} per 1,000",
            "energy label", "place"]  # fmt: skip
    protocols = sorted({i.protocol for i in record.inference})
    note = f"Protocol of the cost per use: {', '.join(protocols)}."
    if "indicative" in protocols:
        note += " It takes three short windows, enough to see a factor of two and not a few per cent."
    table = Table(caption="Cost of 1,000 uses", head=head, rows=rows, text_columns=(5, 6), note=note,
                  strong=_strong(record, [r[0] for r in rows]))  # fmt: skip
    picture = Picture(_panels(record, unit, points, estimates, "use", "per 1,000 uses"))
    return Section("What using it costs", [Text(_FRONT_NOTE), picture, table])


def _strong(record: RunRecord, names: Sequence[str | Cell]) -> tuple[int, ...]:
    main = main_result(record)
    return tuple(i for i, name in enumerate(names) if main is not None and name == role_name(main.role))


def _build_section(record: RunRecord, unit: Unit) -> Section | None:
    results = _test_results(record)
    if not any(r.built_by for r in results):
        return None
    points, words = _marked(_build_points(record, unit), record)
    verdict = dict(zip([p.role for p in points], words, strict=True))
    rows: list[list[str | Cell]] = []
    for result in results:
        own_j, own_cpu = record.cost_of(result.built_by)
        all_j, all_cpu = record.cost_of([*result.built_by, *result.teacher_phases])
        first = [number(all_cpu), number(own_cpu)] if unit == "CPU-s" else [number(all_j), number(own_j)]
        second = number(all_j) if unit == "CPU-s" else number(all_cpu)
        made = ", ".join([*result.teacher_phases, *result.built_by]) or "nothing in this run"
        value = quality(record.metric, _value(result, record.metric))
        rows.append([role_name(result.role), value, *first, second, made, verdict.get(result.role, "not comparable")])
    costs = ("CPU-s", "estimated J") if unit == "CPU-s" else ("J", "CPU-s")
    head = ["Model", metric_name(record.metric), f"{costs[0]}, teacher included", f"{costs[0]}, without its teacher",
            f"{costs[1]}, teacher included", "phases that made it", "place"]  # fmt: skip
    table = Table(caption="Cost of making each model", head=head, rows=rows, text_columns=(5, 6),
                  strong=_strong(record, [r[0] for r in rows]))  # fmt: skip
    picture = Picture(_panels(record, unit, points, _build_points(record, "J"), "build", "to build it"))
    lead = (
        "Each model with everything that was paid for it in this run: its training, what it took from caches that an "
        "earlier run filled, and the making of its teacher. Pre-training by others is not included."
    )
    return Section("What building it cost", [Text(lead), picture, table])


def _payback_section(record: RunRecord) -> Section | None:
    payback = record.payback
    if payback is None:
        return None
    name = role_name(payback.replaces).lower()
    unit = "J" if payback.unit == "J" else "CPU-seconds"
    blocks: list[Block]
    if payback.uses is None:
        blocks = [Text(f"Never: {_sentence(payback.reason)}.")]
        return Section("When it has paid for itself", blocks)
    text = f"Used instead of the {name}, the student has saved what it cost to build after {uses_words(payback)}"
    text += (
        f": building and evaluating it took {number(payback.build)} {unit}, and {_sentence(payback.reason)}. Without the "
        f"share of caches that earlier runs paid, the cost is {number(payback.build_without_shared)} {unit}."
    )
    rates = (100, 1_000, 10_000, 100_000)
    row: list[str | Cell] = ["paid back after", *[_days(payback.uses / rate) for rate in rates]]
    head = ["uses per day", *[f"{rate:,}" for rate in rates]]
    return Section(
        "When it has paid for itself", [Text(text), Table(caption="Time to pay back", head=head, rows=[row])]
    )


def _days(days: float) -> str:
    if days < 1:
        return "less than a day"
    if days < 60:
        return f"{math.ceil(days)} days"
    return f"{number(days / 30.44, 2)} months" if days < 730 else f"{number(days / 365.25, 2)} years"


def _curve_section(record: RunRecord, unit: Unit) -> Section | None:
    points = [p for p in record.curve if pages.is_number(p.value)]
    if len(points) < 2:
        return None
    use_joules = unit == "J" and all(p.energy_j is not None for p in points)
    xs = [p.energy_j or 0.0 for p in points] if use_joules else [p.cpu_s for p in points]
    axis = "joules" if use_joules else "CPU-seconds"
    ys = [p.value for p in points]
    name = metric_name(record.metric)
    best = max(range(len(ys)), key=lambda i: ys[i])
    figure = figures.curve(
        xs, ys, x_label=f"{axis} of training", y_label=f"validation {name}", percent=pages.is_share(record.metric)
    )
    alt = (
        f"Validation {name} rises from {quality(record.metric, ys[0])} after {number(xs[0])} {axis} to its best, "
        f"{quality(record.metric, ys[best])}, after {number(xs[best])} {axis}."
    )
    panel = Panel(name="curve", heading=f"Validation {name} during training", alt=alt, figure=figure)
    rows: list[list[str | Cell]] = [
        [f"{p.step:,}", number(p.cpu_s), number(p.energy_j), quality(record.metric, p.value)] for p in points[:MAX_ROWS]
    ]
    joules = "joules" if record.energy_label in COUNTED_LABELS else "estimated joules"
    table = Table(caption="Validation during training", head=["Step", "CPU-seconds", joules, name], rows=rows,
                  strong=(best,), note=_cut_note(len(points), len(rows)))  # fmt: skip
    lead = "Cost since training began. The model was chosen by these values; the test split was read once, at the end."
    return Section("How it learned", [Text(lead), Picture([panel]), table])


def _cut_note(total: int, shown: int) -> str:
    return f"{total - shown:,} more are left out here and stand in record.json." if total > shown else ""


def _phases_section(record: RunRecord) -> Section | None:
    if not record.phases:
        return None
    counted = record.energy_label in COUNTED_LABELS
    total = record.energy_j if counted else record.cpu_s
    costs = [p.energy_j if counted else p.cpu_s for p in record.phases]
    rows: list[list[str | Cell]] = []
    for phase, cost in zip(record.phases, costs, strict=True):
        share = cost / total if cost is not None and total else 0.0
        rows.append(
            [phase.name, Cell(f"{100 * share:.0f}\u00a0%" if cost is not None else MISSING, min(max(share, 0.0), 1.0)),
             *_phase_cells(phase, counted)]
        )  # fmt: skip
    rows.append(
        ["whole run", "", duration(record.duration_s), number(record.cpu_s), number(record.energy_j), record.energy_label,
         "", "", "", ""]
    )  # fmt: skip
    head = ["Phase", "share of joules" if counted else "share of CPU-s", "time", "CPU-s", "J" if counted else "estimated J",
            "energy label", "owed to caches", "tokens real / processed", "utilisation", "peak memory"]  # fmt: skip
    note = (
        "Owed to caches: what an earlier run paid for work that this one took over. Utilisation: operations per second over "
        "the rate of matrix products measured on this machine."
    )
    blocks: list[Block] = [
        Table(
            caption="Cost of each phase", head=head, rows=rows, text_columns=(5,), note=note, strong=(len(rows) - 1,)
        ),
        _labels_table(record),
    ]
    if record.carbon is not None:
        blocks.append(Text(carbon_words(record.carbon)))
    return Section("Where the cost went", blocks)


def _phase_cells(phase: Phase, counted: bool) -> list[str]:
    shared = MISSING
    owed = phase.shared_energy_j if counted else phase.shared_cpu_s
    if owed is not None:
        shared = "0" if owed == 0 else f"{number(owed)} {'J' if counted else 'CPU-s'}"
    tokens = MISSING
    if phase.num_tokens is not None:
        tokens = f"{large(phase.num_tokens)} / {large(phase.num_processed_tokens)}"
    use = (
        f"{100 * phase.utilisation:.0f}\u00a0%" if pages.is_number(phase.utilisation) and phase.utilisation else MISSING
    )
    memory = size(phase.peak_memory_mb * 1e6) if phase.peak_memory_mb is not None else MISSING
    return [
        duration(phase.duration_s),
        number(phase.cpu_s),
        number(phase.energy_j),
        phase.label,
        shared,
        tokens,
        use,
        memory,
    ]


def _labels_table(record: RunRecord) -> Table:
    """Share of the joules under each label."""
    sums: dict[tuple[str, str], float | None] = {}
    for phase in record.phases:
        for name, component in phase.components.items():
            key, joules = (name, component.label), component.energy_j
            before = sums.get(key)
            sums[key] = before if joules is None else (before or 0.0) + joules
    total = sum(v for v in sums.values() if v is not None)
    rows: list[list[str | Cell]] = []
    for (name, label), joules in sorted(sums.items()):
        share = joules / total if joules is not None and total else 0.0
        cell = Cell(f"{100 * share:.0f}\u00a0%", share) if joules is not None else MISSING
        rows.append([name.upper(), cell, number(joules), label, LABEL_MEANINGS.get(label, label)])
    return Table(caption="How the joules were obtained", head=["Part", "share", "J", "label", "meaning"],
                 rows=rows, text_columns=(3, 4))  # fmt: skip


def carbon_words(carbon: Carbon) -> str:
    """Grams of CO2e with the intensity that they follow from."""
    year = f", {carbon.year}" if carbon.year else ""
    grams = "unknown, because the energy is" if carbon.emissions_g is None else f"{number(carbon.emissions_g)} g CO2e"
    return (
        f"Emissions: {grams}, at {number(carbon.intensity_g_per_kwh)} g per kWh ({_sentence(carbon.source)}{year}). No offsets, "
        "no share of making the hardware, nothing added for the building."
    )


def _classes_section(record: RunRecord) -> Section | None:
    main = main_result(record)
    if main is None or not main.per_class:
        return None
    ordered = sorted(main.per_class, key=lambda row: (_score(row.get("f1")), str(row.get("label"))))
    head = ["Class", "precision", "recall", "F1", "test items"]

    def rows(of: Sequence[Mapping[str, Any]]) -> list[list[str | Cell]]:
        return [
            [pages.clean(row.get("label"), 80), *[number(_number_or_none(row.get(k))) for k in ("precision", "recall", "f1")],
             large(_number_or_none(row.get("support")))]
            for row in of
        ]  # fmt: skip

    blocks: list[Block] = [
        Table(caption=f"The {min(WORST_CLASSES, len(ordered))} classes it does worst on", head=head,
              rows=rows(ordered[:WORST_CLASSES]))
    ]  # fmt: skip
    if len(ordered) > WORST_CLASSES:
        shown = ordered[:MAX_ROWS]
        blocks.append(
            Table(caption="All classes, worst first", head=head, rows=rows(shown), fold=f"All {len(ordered):,} classes",
                  note=_cut_note(len(ordered), len(shown)))
        )  # fmt: skip
    return Section("Class by class", blocks)


def _number_or_none(value: Any) -> float | None:
    return float(value) if pages.is_number(value) else None


def _score(value: Any) -> float:
    found = _number_or_none(value)
    return -1.0 if found is None else found


def _examples_section(record: RunRecord) -> Section | None:
    if not record.examples:
        return None
    shown = record.examples[:20]
    rows: list[list[str | Cell]] = [
        [pages.clean(e.get("input"), 300), "\n".join(_answers(e.get("answers")))] for e in shown
    ]
    table = Table(caption="Inputs and the student's answers", head=["Input", "Answers, best first"], rows=rows,
                  text_columns=(1,), note=_cut_note(len(record.examples), len(shown)))  # fmt: skip
    return Section("Try it by eye", [table])


def _answers(value: Any) -> list[str]:
    """Answers of any shape as lines: strings, or objects with a text or label and a score."""
    if not isinstance(value, (list, tuple)):
        value = [value]
    lines = []
    for answer in list(value)[:5]:
        if isinstance(answer, Mapping):
            text = next((answer[k] for k in ("label", "text", "document", "name") if k in answer), None)
            score = next((answer[k] for k in ("score", "probability", "similarity") if k in answer), None)
            words = pages.clean(text if text is not None else dict(answer), 200)
            lines.append(f"{words} ({number(_number_or_none(score))})" if score is not None else words)
        elif isinstance(answer, (list, tuple)) and len(answer) == 2 and pages.is_number(answer[1]):
            lines.append(f"{pages.clean(answer[0], 200)} ({number(answer[1])})")
        else:
            lines.append(pages.clean(answer, 200))
    return lines


def _sources_section(record: RunRecord) -> Section | None:
    if not record.sources:
        return None
    rows: list[list[str | Cell]] = [[*source_cells(s)] for s in record.sources]
    table = Table(caption="Models and data that went in", head=["Used as", "name", "version", "licence", "rows"],
                  rows=rows, text_columns=(1, 2, 3, 4))  # fmt: skip
    duties = list(dict.fromkeys(f"{s.name}: {d}" for s in record.sources for d in s.duties))
    notes = [
        f"{s.name}: {key.replace('_', ' ')}: {plain(value)}" for s in record.sources for key, value in s.notes.items()
    ]
    blocks: list[Block] = [table]
    if duties:
        blocks += [Text("What the licences ask of you:"), Bullets(duties[:30])]
    if notes:
        blocks += [Text("Worth knowing:"), Bullets(notes[:40])]
    if record.limits:
        blocks += [Text("Limits of the result:"), Bullets(record.limits[:30])]
    return Section("Sources, licences, limits", blocks)


def source_cells(source: Source) -> list[str]:
    """What a table of sources says of one: role, name, version, licence, rows."""
    return [source.role, source.name, _version_words(source), _license_words(source), _rows_words(source)]


def _version_words(source: Source) -> str:
    if source.revision:
        return f"commit {source.revision[:12]}"
    if source.fingerprint:
        return f"fingerprint {source.fingerprint[:12]}"
    return "not recorded"


def _license_words(source: Source) -> str:
    declared = source.license or "none declared"
    return f"{declared} (licence file seen)" if source.license_file_seen else declared


def _rows_words(source: Source) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in source.splits.items()) or MISSING


def plain(value: Any) -> str:
    """A JSON value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in list(value)[:20]) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {plain(v)}" for k, v in list(value.items())[:20]) or "none"
    return f"{value:,}" if isinstance(value, int) else pages.clean(value, 500)


def _machine_section(record: RunRecord) -> Section:
    e = record.environment
    yes_no = {True: "yes", False: "no", None: "unknown"}
    facts = [
        ("Processor", f"{e.processor}, {e.num_cores} cores, {e.num_threads} threads used"),
        ("Memory", size(e.memory_mb * 1e6)),
        ("GPU", f"{e.gpu}, driver {e.gpu_driver or 'unknown'}" if e.gpu else "none"),
        ("Operating system", e.operating_system),
        ("Virtual machine", yes_no[e.virtual_machine]),
        ("Power policy", e.power_policy or "unknown"),
        ("Energy tracking", e.tracking_mode),
        *[(f"Version of {name}", version) for name, version in e.versions.items()],
        ("Fingerprint", e.fingerprint[:16]),
    ]
    rows: list[list[str | Cell]] = [[name, value] for name, value in facts]
    table = Table(caption="Machine and software", head=["What", "value"], rows=rows, text_columns=(1,),
                  note="Only runs with the same fingerprint may be ranked together.")  # fmt: skip
    return Section("Machine", [table])


def _method_section(record: RunRecord, unit: Unit) -> Section:
    items = [
        "Quality and cost come from the same run.",
        "Quality: 95 % intervals over the items of the test split, which was read once, after every choice was made.",
        "CPU-seconds are the processor time of this run and of the processes that it started, as the system counts it.",
    ]
    if unit == "CPU-s":
        items.append(
            "Joules are computed from nominal powers here. Such a figure is mostly a clock, so models are ranked by "
            "CPU-seconds and joules are only shown."
        )
    else:
        items.append("Joules are read from counters or sampled power, so models are ranked by them.")
    if record.margin is not None:
        items.append(f"Declared before the run: a difference below {number(record.margin)} in {metric_name(record.metric)} "
                     "counts as equal.")  # fmt: skip
    if record.carbon is None:
        items.append("No grams of CO2e: neither a country nor a carbon intensity was given, and none is assumed.")
    return Section("How to read these numbers", [Bullets([*items, COVERAGE, REBOUND])])


def _repeat_section(record: RunRecord) -> Section:
    import json

    commit = f"commit {record.git_commit[:12]}" if record.git_commit else "no commit known"
    changed = " with changes on top" if record.git_dirty else ""
    blocks: list[Block] = [
        Text(f"With smallmodels {record.library_version} ({commit}{changed}):"),
        Code(record.command or "smallmodels run … --config config.json"),
        Text("config.json of the run folder repeats it with every choice that was measured then."),
    ]
    if record.events:
        rows: list[list[str | Cell]] = [[e.time_utc, e.kind, e.message] for e in record.events[:MAX_ROWS]]
        blocks.append(Table(caption="Unusual events, in order", head=["Time (UTC)", "kind", "what happened"], rows=rows,
                            text_columns=(1, 2), note=_cut_note(len(record.events), len(rows))))  # fmt: skip
    config = json.dumps(record.config, indent=2, ensure_ascii=False, default=str)
    blocks.append(Code(pages.clean(config, 20_000), fold="Configuration as it was used"))
    if record.files:
        names = list(record.files.items())[:MAX_ROWS]
        hashes: list[list[str | Cell]] = [[name, digest] for name, digest in names]
        blocks.append(Table(caption="SHA-256 of the files of the run", head=["File", "SHA-256"], rows=hashes,
                            text_columns=(1,), fold=f"Hashes of {len(record.files):,} files",
                            note=_cut_note(len(record.files), len(names))))  # fmt: skip
    return Section("Repeat it", blocks)


# --- out --------------------------------------------------------------------------------------------------------------


def to_html(page: Page) -> str:
    """A page as one self-contained HTML document."""
    from markupsafe import Markup

    def svg(panel: Panel) -> Markup:
        return Markup(figures.to_svg(panel.figure, title=panel.alt, salt=panel.name))  # escaped where it was drawn

    palette = {theme: {n: v[i] for n, v in figures.PALETTE.items()} for i, theme in enumerate(("light", "dark"))}
    template = pages.environment("html").get_template("page.html.j2")
    return _encodable(template.render(page=page, svg=svg, palette=palette))


def write_report(records: Sequence[RunRecord], folder: Path, *, name: str = "report") -> list[Path]:
    """Write the report of the records into a folder and return the files."""
    if not records:
        raise InputError("a report needs at least one record, got none: name a run folder that holds a record.json")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, record in enumerate(records):
        path = folder / (f"{name}.html" if len(records) == 1 else f"{name}-{i + 1}.html")
        files.write_text(path, run_page(record))
        paths.append(path)
    return paths


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def terminal_table(record: RunRecord) -> "RichTable":
    """The table at the end of a run and of `smallmodels show`, for 80 columns."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    unit = ranking_unit(record)
    title = RichText(pages.clean(record.title, 150).replace("\n", " "), style="bold")
    table = RichTable(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1), collapse_padding=True)
    table.add_column("Model", no_wrap=True, max_width=17)
    joules = "J" if record.energy_label in COUNTED_LABELS else "est. J"
    costs = ["CPU-s\n/1,000", f"{joules}\n/1,000"] if unit == "CPU-s" else [f"{joules}\n/1,000", "CPU-s\n/1,000"]
    for name in (metric_name(record.metric)[:10], "95\u00a0%\ninterval", "on\ndisk", "one\ninput", *costs):
        table.add_column(RichText(name), justify="right", no_wrap=True)
    main = main_result(record)
    for result in _test_results(record):
        found, use = result.metrics.get(record.metric), record.inference_of(result.role)
        cells = [number(_use_cost(use, "CPU-s"), 2), number(_use_cost(use, "J"), 2)]
        row = [
            pages.clean(role_name(result.role)).replace("\n", " ")[:17],
            quality(record.metric, found.value if found else None),
            (interval(record.metric, found.low, found.high) if found else "") or MISSING,
            size(use.size_bytes) if use else MISSING,
            duration(use.latency_p50_s) if use else MISSING,
            *(cells if unit == "CPU-s" else reversed(cells)),
        ]
        table.add_row(*[RichText(cell) for cell in row], style="bold" if result is main else None)
    return table
