"""What training bought: quality on validation against the cost so far, a line per run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smallmodels import records
from smallmodels.records import RunRecord
from smallmodels.report import figures, formats, words
from smallmodels.report.figures import Series
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import Panel, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.pictures.names import kinds, seed_names
from smallmodels.report.words import Unit

MAX_LINES = 60
_MAX_ROWS = 200
_NAMED = 12


@dataclass(frozen=True)
class _Curve:
    record: RunRecord
    kind: str
    label: str
    style: int
    xs: list[float]
    ys: list[float]


def section(group: Sequence[RunRecord], title: str, name: str) -> Section | None:
    """Lines of quality against joules or CPU-seconds over a table; None where no run was validated twice."""
    unit = words.ranking_unit(group[0])
    found = _curves(group, unit)
    if not found:
        return None
    panels = [_panel(group[0], found, unit, f"{name}-learning-{unit.lower()}")]
    if unit != "J" and (estimates := _curves(group, "J")):
        panels.append(_panel(group[0], estimates, "J", f"{name}-learning-j"))
    lead = (
        "Quality on validation against what training had cost until then; preparation, teacher and caches are not in "
        "it. The larger sign is the best value, by which the model was chosen."
    )
    if len(found) > MAX_LINES:
        lead += f" The {MAX_LINES} runs with the best values are drawn."
    heading = formats.capital(f"{title}what training bought")
    return Section(heading, [Text(lead), Picture(panels, _table(group[0], found, unit))])


def _curves(group: Sequence[RunRecord], unit: Unit) -> list[_Curve]:
    found = []
    for style, kind in enumerate(kinds(group)):
        for record, label in zip(kind.records, seed_names(kind.records), strict=True):
            costs = [(p.energy_j if unit == "J" else p.cpu_s, p.value) for p in record.curve]
            known = [(x, y) for x, y in costs if x is not None and math.isfinite(x) and math.isfinite(y)]
            if len(known) > 1:
                found.append(_Curve(record, kind.name, label, style, [x for x, _ in known], [y for _, y in known]))
    return found


def _panel(record: RunRecord, found: Sequence[_Curve], unit: Unit, name: str) -> Panel:
    is_estimate = unit == "J" and not record.energy_is_counted
    axis = {"J": "estimated joules" if is_estimate else "joules", "CPU-s": "CPU-seconds"}[unit]
    metric = formats.metric_name(record.metric)
    drawn = sorted(found, key=lambda each: -max(each.ys))[:MAX_LINES]
    leading = dict.fromkeys(each.kind for each in drawn)
    named = list(leading)[:_NAMED]
    series = [
        Series(
            label=each.kind,
            xs=each.xs,
            ys=each.ys,
            says=f"{each.kind}, {each.label}: {_words(each, axis)}",
            row=formats.clean(each.record.run_id),
            style=named.index(each.kind) if each.kind in named else _NAMED,
            marked=_best(each),
            faint=each.kind not in named,
        )
        for each in sorted(drawn, key=lambda each: each.kind in named)
    ]
    said = "; ".join(f"{each.kind}, {each.label}: {_words(each, axis)}" for each in drawn[:6])
    more = f"; and {len(drawn) - 6} more" if len(drawn) > 6 else ""
    figure = figures.curves(
        series,
        x_label=f"{axis} of training",
        y_label=f"validation {metric}",
        percent=formats.is_share(record.metric),
        lower_is_better=record.metric in records.LOWER_IS_BETTER,
    )
    heading = f"Validation {metric} against {axis}" + (", not ranked" if is_estimate else "")
    return Panel(name=name, heading=heading, alt=f"Validation {metric} during training. {said}{more}.", figure=figure)


def _best(each: _Curve) -> int:
    return max(range(len(each.ys)), key=lambda i: each.ys[i])


def _quality(each: _Curve, i: int) -> str:
    metric = each.record.metric
    return formats.quality(metric, records.goodness(metric, each.ys[i]))


def _words(each: _Curve, axis: str) -> str:
    best = _best(each)
    first = f"{_quality(each, 0)} after {number(each.xs[0])} {axis}"
    return f"{first}, best {_quality(each, best)} after {number(each.xs[best])}"


def _table(record: RunRecord, found: Sequence[_Curve], unit: Unit) -> Table:
    axis = unit if unit != "J" else "J" if record.energy_is_counted else "estimated J"
    rows: list[Row] = []
    for each in found[:_MAX_ROWS]:
        best = _best(each)
        energy = each.record.curve[-1].energy_j
        cells = [_quality(each, 0), _quality(each, best), number(each.xs[best]), number(each.xs[-1])]
        rows.append([each.record.run_id, each.kind, *cells, number(energy) if unit != "J" else MISSING])
    name = formats.metric_name(record.metric)
    head = ["Run", "recipe", f"first {name}", f"best {name}", f"{axis} until the best", f"{axis} in all"]
    if unit != "J":
        head.append("J in all" if record.energy_is_counted else "estimated J in all")
    else:
        rows = [row[:-1] for row in rows]
    note = cut_note(len(found), len(rows))
    return Table(caption="What training bought, run by run", head=head, rows=rows, text_columns=(1,), note=note)
