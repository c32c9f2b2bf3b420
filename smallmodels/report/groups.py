"""Parts of the test items, such as languages, as a table; the page and the card share it."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smallmodels.records import COUNTED_LABELS, goodness
from smallmodels.report import formats

_BOUNDS = ("_low", "_high")
_LABEL = "energy_label"
_WORDS = "Words are counted as Unicode separates them; where a script has no spaces, each character is one."
_UNKNOWN = "unknown_fraction"
_UNKNOWN_WORDS = (
    "Unknown tokens stand for what the tokenizer cannot write: where they are many, few tokens and little energy mean "
    "that a text is not read."
)
_HEADS = {
    "group": "Group",
    "n": "test items",
    _UNKNOWN: "unknown tokens",
    "energy_wh_per_1000": "Wh per 1,000 texts",
    "cpu_s_per_1000": "CPU-s per 1,000 texts",
    _LABEL: "joules are",
}


@dataclass(frozen=True)
class GroupTable:
    """Cells of words, with what a reader has to know about them."""

    head: list[str]
    rows: list[list[str]]
    text_columns: tuple[int, ...]
    notes: list[str]


def table_of(groups: Sequence[Mapping[str, Any]]) -> GroupTable:
    """A row for each group, a column for all that is known of any of them.

    Args:
        groups: As `records.Result.groups` has them.
    """
    keys = list(dict.fromkeys(key for row in groups for key in row if key != "group"))
    shown = ["group", *(key for key in keys if not (key.endswith(_BOUNDS) and _stem(key) in keys))]
    is_modelled = any(row.get(_LABEL, "wall") not in COUNTED_LABELS for row in groups)
    head = [_head(key, is_modelled) for key in shown]
    rows = [[_cell(row, key) for key in shown] for row in groups]
    text_columns = tuple(i for i, key in enumerate(shown) if i and any(isinstance(row.get(key), str) for row in groups))
    notes = [_WORDS] if any("per_word" in key for key in shown) else []
    return GroupTable(head, rows, text_columns, [*notes, _UNKNOWN_WORDS] if _UNKNOWN in shown else notes)


def extremes(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each metric that groups have with its interval, a sentence that names the worst of them and the best."""
    keys = dict.fromkeys(_stem(key) for row in groups for key in row if key.endswith(_BOUNDS))
    found = []
    for key in keys:
        measured = [(goodness(key, row[key]), str(row.get("group")), row) for row in groups if _is_known(row, key)]
        if len(measured) > 1:
            ends = min(measured, key=operator.itemgetter(0, 1)), max(measured, key=operator.itemgetter(0, 1))
            worst, best = (f"{formats.clean(name, 80)} ({formats.quality(key, row[key])})" for _, name, row in ends)
            found.append(f"{formats.capital(formats.metric_name(key))} is worst in {worst} and best in {best}.")
    return found


def _is_known(row: Mapping[str, Any], key: str) -> bool:
    return formats.is_number(row.get(key))


def _stem(key: str) -> str:
    return key.removesuffix("_low").removesuffix("_high")


def _head(key: str, is_modelled: bool) -> str:
    head = _HEADS.get(key) or formats.metric_name(formats.clean(key, 80))
    return f"estimated {head}" if key.startswith("energy_wh") and is_modelled else head


def _cell(row: Mapping[str, Any], key: str) -> str:
    """A value with its interval, if the row has one."""
    value: Any = row.get(key)
    if not formats.is_number(value):
        return formats.clean(value, 80)
    if isinstance(value, int):
        return formats.large(value)
    if key == _UNKNOWN:
        return formats.quality("accuracy", value)  # as a percentage
    if "_per_" in key:
        return formats.number(value)
    bounds = formats.interval(key, *(row.get(key + bound) for bound in _BOUNDS))
    return formats.quality(key, value) + (f" ({bounds})" if bounds != formats.MISSING else "")
