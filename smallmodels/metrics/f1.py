"""Precision, recall and F1 from counts, for classes, spans and several labels at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels.metrics.checks import Floats

Counts = npt.NDArray[Any]


def ratios(above: Counts, below: Counts) -> Floats:
    """Above over below, 0 where both are: what was never there and never predicted."""
    return np.asarray(above / np.where(below == 0, 1, below), dtype=np.float64)


def macro_f1_of(right: Counts, sides: Counts) -> Floats:
    """Mean of F1 over the classes (last axis) that occur among labels or predictions; 0 where none does.

    Args:
        right: Shape (…, num_classes), items of a class that were predicted as such.
        sides: Same shape, how often the class stands among labels plus how often it was predicted.
    """
    return ratios(ratios(2 * right, sides).sum(axis=-1), (sides > 0).sum(axis=-1))


def table_of(names: Sequence[str], right: Counts, predicted: Counts, support: Counts) -> list[dict[str, Any]]:
    """One row per class, with the keys label, precision, recall, f1 and support; a ratio over zero is None."""
    return [
        {
            "label": str(name),
            "precision": _ratio(right[c], predicted[c]),
            "recall": _ratio(right[c], support[c]),
            "f1": _ratio(2 * right[c], predicted[c] + support[c]),
            "support": int(support[c]),
        }
        for c, name in enumerate(names)
    ]


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
