"""Parts of the test items over several runs: classes, and groups such as languages, a column for each kind of run."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smallmodels import records
from smallmodels.records import Result, RunRecord
from smallmodels.report import formats, words
from smallmodels.report.formats import MISSING
from smallmodels.report.kinds import Kind, kinds_of
from smallmodels.report.page import Row, Section, Table, Text, cut_note

_MAX_KINDS = 6
_MAX_ROWS = 200
_FOLD_FROM = 15

Values = dict[str, list[float]]
"""What is known of each part, a value per run."""


def sections(group: Sequence[RunRecord], title: str) -> list[Section]:
    """Class by class and group by group, as far as the records have them."""
    metric = group[0].metric
    found = [
        _section(
            group, formats.heading(title, "class by class"), "F1 of each class, the worst first", "Class",
            lambda result: _values(result.per_class, "label", "f1"), lambda value: f"{value:.3f}", falling=False,
        ),
        _section(
            group, formats.heading(title, "group by group"),
            f"{formats.capital(formats.metric_name(metric))} of each group, the worst first", "Group",
            lambda result: _values(result.groups, "group", metric), lambda value: formats.quality(metric, value),
            falling=metric in records.LOWER_IS_BETTER,
        ),
    ]  # fmt: skip
    return [section for section in found if section is not None]


def _values(rows: Sequence[Mapping[str, Any]], name: str, key: str) -> dict[str, float]:
    """Value of each part; a row without one is left out."""
    return {formats.clean(row.get(name), 80): float(row[key]) for row in rows if formats.is_number(row.get(key))}


def _section(
    group: Sequence[RunRecord],
    title: str,
    caption: str,
    first: str,
    values_of: Callable[[Result], dict[str, float]],
    shown: Callable[[float], str],
    *,
    falling: bool,
) -> Section | None:
    found = [(kind, values) for kind in kinds_of(group) if (values := _of_kind(kind, values_of))]
    if not found:
        return None
    columns = found[:_MAX_KINDS]
    parts = dict.fromkeys(part for _, values in columns for part in values)
    order = sorted(parts, key=lambda part: (_over_all(part, columns) * (-1 if falling else 1), part))
    rows: list[Row] = []
    for part in order[:_MAX_ROWS]:
        means = [statistics.fmean(values[part]) if values.get(part) else None for _, values in columns]
        rows.append([part, *(MISSING if mean is None else shown(mean) for mean in means)])
    cut = cut_note(len(order), len(rows))
    if len(found) > len(columns):
        cut = f"{len(found) - len(columns)} further kinds of runs have no column here. {cut}"
    table = Table(
        caption=caption,
        head=[first, *[kind.name for kind, _ in columns]],
        rows=rows,
        note=f"Mean over seeds, of the model that each run was made for. {cut}".strip(),
        fold=f"All {len(order):,} rows" if len(rows) > _FOLD_FROM else "",
        is_detail=True,
    )
    lead = [] if not table.fold else [Text(_worst(rows, columns))]
    return Section(title, [*lead, table])


def _of_kind(kind: Kind, values_of: Callable[[Result], dict[str, float]]) -> Values:
    values: Values = {}
    for record in kind.records:
        main = words.main_result(record)
        for part, value in (values_of(main) if main is not None else {}).items():
            values.setdefault(part, []).append(value)
    return values


def _over_all(part: str, columns: Sequence[tuple[Kind, Values]]) -> float:
    return statistics.fmean([statistics.fmean(values[part]) for _, values in columns if values.get(part)])


def _worst(rows: Sequence[Row], columns: Sequence[tuple[Kind, Values]]) -> str:
    """The five worst parts in one sentence, with their value in the first column."""
    said = "; ".join(f"{row[0]} ({row[1]})" for row in rows[:5])
    return f"Worst over all columns, with the value of {columns[0][0].name}: {said}."
