"""The page of one run: how good each of its models is, and what using and building it costs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from smallmodels import records
from smallmodels.records import CurvePoint, Inference, Payback, Result, RunRecord, statement_sha256
from smallmodels.report import details, figures, formats, fronts, inference, tokens, words
from smallmodels.report.figures import Point
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import Block, Fact, Page, Panel, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.pictures import payback as payback_pictures
from smallmodels.report.words import Unit, role_name

USES_PER_DAY = (100, 1_000, 10_000, 100_000)
_CURVE_ROWS = 12
PAYBACK_TITLE = "When it has paid for itself"
CURVE_TITLE = "How it learned"

_FRONT_NOTE = (
    "Filled signs are on the Pareto front: no other model of this run is at least as good and as cheap. Lines through "
    "the signs are intervals; where those of quality overlap, no difference is claimed. One run has one seed, so the "
    "front orders these models in this run and names no winner."
)
_BUILD_NOTE = (
    "Each model with everything that was paid for it: its own training, what it took from caches that an earlier run "
    "had filled, and the making of its teacher. Pre-training by others is not included."
)


def page(record: RunRecord) -> Page:
    """What the page of one run shows."""
    unit = words.ranking_unit(record)
    sections = [
        _quality_section(record),
        _use_section(record, unit),
        inference.section_of_run(record),
        _build_section(record, unit),
        _payback_section(record),
        _curve_section(record, unit),
        *details.sections(record, unit),
    ]
    return Page(
        title=record.title,
        kicker=f"{record.recipe} · {record.started_utc[:10]} · run {record.run_id}",
        summary=words.summary(record),
        facts=_facts(record, unit),
        notices=words.notices(record),
        sections=[s for s in sections if s is not None],
        footer=f"Written by smallmodels {record.library_version} from record.json alone; SHA-256 of what it says: "
        f"{statement_sha256(record)}.",
    )


# --- the top of the page ----------------------------------------------------------------------------------------------


def _facts(record: RunRecord, unit: Unit) -> list[Fact]:
    facts = []
    main, other = words.main_result(record), words.replaced_result(record)
    if main is not None:
        facts = [_quality_fact(record, main, other), *_use_facts(record, main, other, unit)]
    facts.append(_run_fact(record))
    if record.payback is not None and not record.smoke:
        facts.append(_payback_fact(record.payback))
    return facts


def _quality_fact(record: RunRecord, main: Result, other: Result | None) -> Fact:
    key, found = record.metric, main.metrics.get(record.metric)
    notes = []
    if other is not None:
        notes.append(f"{role_name(other.role)} {formats.quality(key, words.metric_value(other, key))}")
    if found is not None and (bounds := formats.interval(key, found.low, found.high)) != MISSING:
        notes += [f"95\u00a0% interval {bounds}", f"{found.n:,} test items"]
    value = formats.quality(key, words.metric_value(main, key))
    return Fact(f"{role_name(main.role)}: {formats.metric_name(key)}", value, notes)


def _use_facts(record: RunRecord, main: Result, other: Result | None, unit: Unit) -> list[Fact]:
    use, reference = record.inference_of(main.role), record.inference_of(other.role) if other else None
    if use is None:
        return []
    facts = []
    who = role_name(reference.role) if reference else ""
    if use.num_parameters is not None:
        notes = [f"{who} {formats.large(reference.num_parameters)}"] if reference and reference.num_parameters else []
        notes += [f"{formats.size(use.size_bytes)} on disk"] if use.size_bytes else []
        facts.append(Fact("Parameters", formats.large(use.num_parameters), notes))
    show = formats.energy if unit == "J" else formats.cpu_seconds
    cost = words.use_cost(use, unit)
    notes = [f"{who} {show(words.use_cost(reference, unit))}"] if reference else []
    if unit == "J":
        notes.append(formats.cpu_seconds(use.cpu_s_per_1000))
    else:
        notes.append(words.energy_words(use.energy_j_per_1000, use.label))
    return [*facts, Fact("1,000 uses take", show(cost), notes)]


def _run_fact(record: RunRecord) -> Fact:
    time, cpu = formats.duration(record.duration_s), formats.cpu_seconds(record.cpu_s)
    joules = words.run_energy_words(record)
    if record.energy_is_counted:
        main, *rest = joules.split(", ")
        fact = Fact("The whole run", main, [*rest, time, cpu])
    else:
        fact = Fact("The whole run", time, [cpu, joules])
    if record.carbon is not None and record.carbon.emissions_g is not None:
        grams = f"{number(record.carbon.emissions_g)}\u00a0g CO2e"
        fact = dataclasses.replace(fact, notes=[*fact.notes, grams])
    return fact


def _payback_fact(payback: Payback) -> Fact:
    if payback.uses is None:
        return Fact("Pays for itself", "Never", [formats.capital(words.reason_words(payback))])
    notes = [f"instead of the {role_name(payback.replaces).lower()}"]
    if words.has_interval(payback):
        notes.append(f"95\u00a0% interval {words.uses_interval(payback)}")
    return Fact("Pays for itself after", f"{words.rounded_large(payback.uses)} uses", notes)


# --- quality ----------------------------------------------------------------------------------------------------------


def _quality_section(record: RunRecord) -> Section | None:
    results = words.test_results(record)
    if not results:
        return None
    others = words.metric_keys(record)[0][1:]
    agreement = any(r.agreement for r in results)
    calibration = any(r.calibration_error is not None for r in results)
    head = ["Model", formats.metric_name(record.metric), "95\u00a0% interval"]
    head += [words.metric_head(record, key) for key in others]
    head += ["agrees with teacher"] * agreement + ["calibration error"] * calibration
    head += ["parameters", "on disk", "one input, p50", "p95", "inputs per second"]
    rows: list[Row] = []
    for result in results:
        found = result.metrics.get(record.metric)
        row: Row = [role_name(result.role), formats.quality(record.metric, found.value if found else None)]
        row.append(formats.interval(record.metric, found.low if found else None, found.high if found else None))
        row += [formats.quality(m, words.metric_value(result, m)) for m in others]
        row += [formats.quality("agreement", result.agreement.value if result.agreement else None)] * agreement
        row += [formats.quality("calibration_error", result.calibration_error)] * calibration
        rows.append([*row, *_speed_cells(record.inference_of(result.role))])
    batches = " or ".join(str(b) for b in sorted({i.batch_size for i in record.inference}))
    note = f"Inputs per second in batches of {batches}. " if batches else ""
    table = Table(
        caption="Quality, size and speed on the test split",
        head=head,
        rows=rows,
        strong=_strong(record, rows),
        note=f"{note}{MISSING} means that it was not measured. {words.role_meanings(results)}",
    )
    return Section("Every model of this run", [table, *_further_tables(record)])


def _further_tables(record: RunRecord) -> list[Table]:
    """Metrics that the first table has no room for."""
    head, cells = words.further_metrics(record)
    rows: list[Row] = [[*row] for row in cells]
    caption = "Further metrics on the test split, with 95\u00a0% intervals"
    return [Table(caption=caption, head=head, rows=rows, strong=_strong(record, rows))] if rows else []


def _speed_cells(use: Inference | None) -> list[str]:
    if use is None:
        return [MISSING] * 5
    latency = [formats.duration(use.latency_p50_s), formats.duration(use.latency_p95_s)]
    return [formats.large(use.num_parameters), formats.size(use.size_bytes), *latency, number(use.throughput_per_s)]


def _strong(record: RunRecord, rows: Sequence[Row]) -> tuple[int, ...]:
    """Rows of the model that the run was made for."""
    main = words.main_result(record)
    return tuple(i for i, row in enumerate(rows) if main is not None and row[0] == role_name(main.role))


# --- cost against quality ---------------------------------------------------------------------------------------------


def use_points(record: RunRecord, unit: Unit) -> list[Point]:
    """Cost of 1,000 uses against quality, for every model where both are known; cost ranges over the windows."""
    points = []
    for result in words.test_results(record):
        use = record.inference_of(result.role)
        cost = words.use_cost(use, unit)
        if use is None or cost is None:
            continue
        windows = [(w.energy_j if unit == "J" else w.cpu_s, w.num_examples) for w in use.windows]
        spread = [1000 * paid / n for paid, n in windows if paid is not None and math.isfinite(paid) and n > 0]
        points += _point(record, result, cost, min(spread, default=None), max(spread, default=None))
    return points


def build_points(record: RunRecord, unit: Unit) -> list[Point]:
    """Cost of everything that was paid for a model, its teacher included, against quality."""
    points = []
    for result in words.test_results(record):
        joules, cpu_s = record.cost_of([*result.built_by, *result.teacher_phases])
        cost = joules if unit == "J" else cpu_s
        if cost is not None and math.isfinite(cost):
            points += _point(record, result, cost, None, None)
    return points


def _point(record: RunRecord, result: Result, cost: float, low: float | None, high: float | None) -> list[Point]:
    value = words.metric_value(result, record.metric)
    if value is None:
        return []
    found, label = result.metrics[record.metric], role_name(result.role)
    quality = goodness_of(record.metric, value, found.low, found.high)
    return [Point(label=label, role=result.role, x=cost, x_low=low, x_high=high, **quality)]


def goodness_of(metric: str, value: float, low: float | None, high: float | None) -> dict[str, Any]:
    """A value with its interval as the y of a point, whose top is the better end."""
    ends = [None if end is None else records.goodness(metric, end) for end in (low, high)]
    y_low, y_high = reversed(ends) if metric in records.LOWER_IS_BETTER else ends
    return {"y": records.goodness(metric, value), "y_low": y_low, "y_high": y_high}


def not_comparable(record: RunRecord) -> str:
    """Why the costs of this run must not be compared, or an empty string."""
    if record.smoke:
        return "not comparable: smoke run"
    return "not comparable: shared machine" if record.contended else ""


def _placed(
    points: Sequence[Point], record: RunRecord, apart: Mapping[str, str] | None = None
) -> tuple[list[Point], dict[str, str]]:
    """Points with their place on the front, and the verdict of each role; roles `apart` are shown and not ranked."""
    if apart:
        shown, verdict = _placed([p for p in points if p.role not in apart], record)
        return [*shown, *(p for p in points if p.role in apart)], {**apart, **verdict}
    why = not_comparable(record)
    if why or len(points) < 2:
        return list(points), {p.role: why or "not comparable: nothing beside it" for p in points}
    on_front = fronts.pareto_front(points)
    placed = [dataclasses.replace(p, on_front=front) for p, front in zip(points, on_front, strict=True)]
    all_ranked = len(points) == len(words.test_results(record))
    said = fronts.verdicts(points, one_seed=True, all_ranked=all_ranked)
    return placed, {p.role: verdict for p, verdict in zip(points, said, strict=True)}


def _other_labels(record: RunRecord, unit: Unit) -> dict[str, str]:
    """Roles whose joules of a use were obtained otherwise than those of the model that the run was made for."""
    main = words.main_result(record)
    use = record.inference_of(main.role) if main else None
    if use is None or use.label == "missing" or unit != "J":
        return {}
    return {
        i.role: f"not comparable: joules are {i.label}, not {use.label}"
        for i in record.inference
        if i.label not in (use.label, "missing")
    }


def _cost_panels(
    record: RunRecord, unit: Unit, ranked: list[Point], estimates: list[Point], name: str, what: str
) -> list[Panel]:
    """One panel in joules where they are ranked; else CPU-seconds with the front, and the estimated joules beside."""
    panels = []
    if ranked:
        panels.append(cost_panel(record.metric, ranked, f"{name}-{unit.lower()}", _axis(unit), what, ranks=True))
    if unit != "J" and estimates:
        front = {p.role for p in ranked if p.on_front}
        marked = [dataclasses.replace(p, on_front=p.role in front) for p in estimates]
        panels.append(cost_panel(record.metric, marked, f"{name}-j", "estimated joules", what, ranks=False))
    return panels


def _axis(unit: Unit) -> str:
    return "joules" if unit == "J" else "CPU-seconds"


def cost_panel(metric: str, points: list[Point], name: str, axis: str, what: str, *, ranks: bool) -> Panel:
    """A picture of cost against quality with the words that stand for it."""
    quality_name = formats.metric_name(metric)
    said = "; ".join(
        f"{p.label} {number(p.x)} {axis}, {formats.quality(metric, records.goodness(metric, p.y))}" for p in points[:12]
    )
    front = ", ".join(p.label for p in points if p.on_front)
    alt = f"{formats.capital(quality_name)} against {axis} {what}: {said}."
    alt += f" On the front: {front}." if front and ranks else ""
    figure = figures.scatter(
        points,
        x_label=f"{axis} {what}",
        y_label=quality_name,
        draw_front=ranks,
        percent=formats.is_share(metric),
        lower_is_better=metric in records.LOWER_IS_BETTER,
    )
    heading = f"{formats.capital(axis)} {what}" + (", ranked" if front and ranks else ", not ranked")
    return Panel(name=name, heading=heading, alt=alt, figure=figure)


def use_panel(record: RunRecord) -> Panel | None:
    """The picture of quality against the cost of a use, in the cost that may be ranked; None without two points."""
    unit = words.ranking_unit(record)
    points, _ = _placed(use_points(record, unit), record, _other_labels(record, unit))
    if len(points) < 2:
        return None
    return cost_panel(record.metric, points, "use", _axis(unit), "per 1,000 uses", ranks=True)


def _use_section(record: RunRecord, unit: Unit) -> Section | None:
    points, verdict = _placed(use_points(record, unit), record, _other_labels(record, unit))
    spread = {p.role: f"{number(p.x_low)}–{number(p.x_high)}" for p in points if p.x_low is not None}
    rows: list[Row] = []
    for result in words.test_results(record):
        use = record.inference_of(result.role)
        if use is None:
            continue
        cost = [number(use.energy_j_per_1000), number(use.cpu_s_per_1000)]
        first, second = cost if unit == "J" else reversed(cost)
        row: Row = [role_name(result.role), formats.quality(record.metric, words.metric_value(result, record.metric))]
        row += [first, spread.get(result.role, MISSING), second, use.label]
        rows.append([*row, verdict.get(result.role, "not comparable: not measured")])
    if not rows:
        return None
    costs = _cost_names(record, unit)
    head = ["Model", formats.metric_name(record.metric), f"{costs[0]} per 1,000 uses", "range over windows"]
    protocols = sorted({i.protocol for i in record.inference})
    note = f"Protocol: {', '.join(protocols)}."
    if "indicative" in protocols:
        note += " Three short windows, enough to see a factor of two and not a few per cent."
    if "full" in protocols:
        note += " Ten windows of five seconds or more, in the batch that gave the most inputs per second."
    table = Table(
        caption="Cost of 1,000 uses",
        head=[*head, f"{costs[1]} per 1,000 uses", "how joules were obtained", "place in this run"],
        rows=rows,
        text_columns=(5, 6),
        strong=_strong(record, rows),
        note=note,
    )
    panels = _cost_panels(record, unit, points, use_points(record, "J"), "use", "per 1,000 uses")
    of_tokens = tokens.table_of(record)
    more = [] if of_tokens is None else [of_tokens]
    return Section("What using it costs", [Text(_FRONT_NOTE), Picture(panels, table), *more])


def _cost_names(record: RunRecord, unit: Unit) -> list[str]:
    joules = "J" if record.energy_is_counted else "estimated J"
    return [joules, "CPU-s"] if unit == "J" else ["CPU-s", joules]


def _build_section(record: RunRecord, unit: Unit) -> Section | None:
    results = words.test_results(record)
    if not any(r.built_by for r in results):
        return None
    points, verdict = _placed(build_points(record, unit), record)
    rows: list[Row] = []
    for result in results:
        own = record.cost_of(result.built_by)
        whole = record.cost_of([*result.teacher_phases, *result.built_by])
        costs = [whole[0], own[0], whole[1]] if unit == "J" else [whole[1], own[1], whole[0]]
        row: Row = [role_name(result.role), formats.quality(record.metric, words.metric_value(result, record.metric))]
        row += [number(cost) for cost in costs]
        row.append(", ".join([*result.teacher_phases, *result.built_by]) or "nothing in this run")
        rows.append([*row, verdict.get(result.role, "not comparable: not measured")])
    names = _cost_names(record, unit)
    head = [
        "Model",
        formats.metric_name(record.metric),
        f"{names[0]}, teacher included",
        f"{names[0]}, without teacher",
    ]
    table = Table(
        caption="Cost of making each model",
        head=[*head, f"{names[1]}, teacher included", "phases that made it", "place in this run"],
        rows=rows,
        text_columns=(5, 6),
        strong=_strong(record, rows),
    )
    panels = _cost_panels(record, unit, points, build_points(record, "J"), "build", "to build it")
    return Section("What building it cost", [Text(_BUILD_NOTE), Picture(panels, table)])


# --- payback and learning ---------------------------------------------------------------------------------------------


def _payback_section(record: RunRecord) -> Section | None:
    payback = record.payback
    if record.smoke:
        return None
    if payback is None:
        none = "No point of payback: this run measured the use of no other model that the student would replace."
        return Section(PAYBACK_TITLE, [Text(none)])
    reason = formats.capital(words.reason_words(payback))
    panel = payback_pictures.panel_of_one(record)
    if payback.uses is None:
        table = payback_pictures.table_of_one(record)
        drawn: list[Block] = [Picture([panel], table, beside=True)] if panel and table else []
        return Section(PAYBACK_TITLE, [Text(f"Never. {reason}."), *drawn])
    lead = f"After {words.uses_words(payback)} instead of the {role_name(payback.replaces).lower()}. {reason}."
    if payback.build_without_shared != payback.build:
        unit = _axis(payback.unit)
        lead += (
            f" Of the {number(payback.build)} {unit}, earlier runs paid "
            f"{number(payback.build - payback.build_without_shared)} through caches."
        )
    rows: list[Row] = [[f"{rate:,}", days_words(payback.uses / rate)] for rate in USES_PER_DAY]
    table = Table(caption="Time to repay", head=["Uses per day", "repaid after"], rows=rows)
    block = Picture([panel], table, beside=True) if panel else table
    return Section(PAYBACK_TITLE, [Text(lead), block])


def days_words(days: float) -> str:
    """A time in days, months or years; days are rounded up."""
    if days < 1:
        return "less than a day"
    if days < 60:
        whole = math.ceil(days)
        return f"{whole} day{'s' * (whole > 1)}"
    return f"{number(days / 30.44, 2)} months" if days < 730 else f"{number(days / 365.25, 2)} years"


def _curve_section(record: RunRecord, unit: Unit) -> Section | None:
    points = [p for p in record.curve if formats.is_number(p.value)]
    if len(points) < 2:
        return None
    joules = [p.energy_j for p in points if p.energy_j is not None]
    has_joules = record.energy_j is not None and len(joules) == len(points)
    name = formats.metric_name(record.curve_metric)
    best = max(range(len(points)), key=lambda i: points[i].value)
    panels = []
    if unit != "J" or not has_joules:
        panels.append(_curve_panel(record, points, best, "curve", "CPU-s", [p.cpu_s for p in points]))
    if has_joules:
        panels.append(_curve_panel(record, points, best, "curve-j" if panels else "curve", "J", joules))
    shown = _spread(len(points), best)
    rows: list[Row] = [
        [
            f"{p.step:,}",
            number(p.cpu_s),
            number(p.energy_j),
            formats.quality(record.curve_metric, records.goodness(record.curve_metric, p.value)),
        ]
        for p in (points[i] for i in shown)
    ]
    joules_name = "joules" if record.energy_is_counted else "estimated joules"
    table = Table(
        caption="Validation during training",
        head=["Step", "CPU-seconds", joules_name, name],
        rows=rows,
        strong=(shown.index(best),),
        note=cut_note(len(points), len(rows)),
    )
    lead = "Cost is counted from the start of training. The model was chosen by these values, not by the test split."
    return Section(CURVE_TITLE, [Text(lead), Picture(panels, table, beside=True)])


def _curve_panel(
    record: RunRecord, points: Sequence[CurvePoint], best: int, name: str, unit: Unit, xs: Sequence[float]
) -> Panel:
    """Validation against one cost of training, the best point marked."""
    ys = [p.value for p in points]
    shown_ys = [records.goodness(record.curve_metric, y) for y in ys]
    axis, metric = words.cost_name(record, unit), formats.metric_name(record.curve_metric)
    alt = (
        f"Validation {metric} starts at {formats.quality(record.curve_metric, shown_ys[0])} after {number(xs[0])} "
        f"{axis} and is best, {formats.quality(record.curve_metric, shown_ys[best])}, after {number(xs[best])} {axis}."
    )
    series = figures.Series(
        label="",
        xs=xs,
        ys=ys,
        says=alt,
        marked=best,
        values_say=[
            f"{metric} {formats.quality(record.curve_metric, y)} after {number(x)} {axis}{', the best' * (i == best)}"
            for i, (x, y) in enumerate(zip(xs, shown_ys, strict=True))
        ],
    )
    figure = figures.curves(
        [series],
        x_label=f"{axis} of training",
        y_label=f"validation {metric}",
        percent=formats.is_share(record.curve_metric),
        lower_is_better=record.curve_metric in records.LOWER_IS_BETTER,
    )
    return Panel(name=name, heading=f"Validation {metric} against {axis}", alt=alt, figure=figure)


def _spread(count: int, best: int) -> list[int]:
    """At most a dozen places, spread evenly, with the first, the last and the best among them."""
    step = max((count - 1) / (_CURVE_ROWS - 1), 1.0)
    chosen = {round(i * step) for i in range(min(count, _CURVE_ROWS))}
    return sorted(i for i in chosen | {best, count - 1} if i < count)
