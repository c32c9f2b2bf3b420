"""Labels as a data set writes them (strings, integers, booleans, the hub's ClassLabel), and the names they get."""

from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels.arrays import Ragged
from smallmodels.data.reading import base_name
from smallmodels.data.splits import Labels, Split
from smallmodels.data.tables import Table
from smallmodels.errors import InputError

LABEL_COLUMNS = ("label", "labels", "category", "intent", "class", "target", "topic", "sentiment")
"""Names that are tried, in this order, where the user gives none."""


class Kinds:
    """Labels, each once, numbered in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[type, Any], int] = {}  # with the type: 1 and True are equal

    def number(self, label: Any) -> int:
        """Of this label."""
        return self._numbers.setdefault((type(label), label), len(self._numbers))

    def all(self) -> list[Any]:
        """The labels in the order of their numbers."""
        return [label for _, label in self._numbers]


def clean_label(value: Any, column: str, split_name: str, row: int) -> Any:
    """A string, integer or boolean; None where there is none."""
    if isinstance(value, float):
        if np.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    if isinstance(value, str):
        return value.strip() or None
    if value is None or isinstance(value, bool | int):
        return value
    raise InputError(
        f"column {column!r} should hold one label per row, as a string or an integer, found {type(value).__name__} "
        f"in {split_name} row {row}: choose another --label-column"
    )


def is_minus_one(label: Any) -> bool:
    """Whether this is what stands where the hub has no label."""
    return isinstance(label, int) and label == -1


def names_of(labels: list[Any], table: Table, column: str, dataset: str) -> dict[Any, str]:
    """Name of each of these labels, in the order in which they are numbered."""
    kinds = {type(label) for label in labels}
    if column in table.class_names:
        return dict(enumerate(table.class_names[column]))
    if len(kinds) > 1:
        shown = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"column {column!r} of {base_name(dataset)} should hold one kind of label, found {shown}")
    values = sorted(set(labels))
    described = _described(table, column, values)
    return {value: described.get(value, str(value)) for value in values}


def _described(table: Table, column: str, values: list[Any]) -> dict[Any, str]:
    """Names for integer labels from a column beside them such as `label_text`, if each has one name of its own."""
    beside = table.columns.get(f"{column}_text") or table.columns.get(f"{column}_name")
    if beside is None or not all(isinstance(value, int) for value in values):
        return {}
    pairs = {(label, str(text)) for label, text in zip(table.columns[column], beside, strict=True) if label in values}
    found = dict(pairs)
    return found if len(pairs) == len(found) == len(set(found.values())) else {}


def classes_in(labels: Labels | None) -> npt.NDArray[np.int64]:
    """Numbers of the classes that a row has, in order; of scores none."""
    if labels is None or (isinstance(labels, np.ndarray) and labels.dtype.kind == "f"):
        return np.zeros(0, dtype=np.int64)
    if isinstance(labels, Ragged):
        labels = labels.values
    return np.flatnonzero(labels.any(axis=0)) if labels.ndim == 2 else np.flatnonzero(np.bincount(labels))


def require_two_classes(splits: dict[str, Split], label_names: list[str]) -> None:
    """Refuse train with a single class, and a class that train lacks in another split."""
    present = {role: set(classes_in(split.labels).tolist()) for role, split in splits.items()}
    if len(present["train"]) < 2:
        only = ", ".join(label_names[i] for i in present["train"])
        raise InputError(f"train should have two classes or more, found only {only or 'none'}")
    for role in ("validation", "test"):
        if lacking := sorted(present[role] - present["train"]):
            shown = ", ".join(label_names[i] for i in lacking[:5])
            raise InputError(
                f"{role} should only have labels that train has, found {shown}: add such rows to train or remove them"
            )
