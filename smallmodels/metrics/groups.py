"""One value per group, such as per language: where a model is worst, and how far its groups are apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Values, finite
from smallmodels.metrics.intervals import mean_with_interval
from smallmodels.records import Metric


@dataclass(frozen=True, kw_only=True)
class GroupComparison:
    """Groups beside each other; higher values are better."""

    table: list[dict[str, Any]]
    """One row per group with the keys group, value, low, high and n, the worst first."""
    worst: str
    best: str
    mean: float
    """Each group with the same weight."""
    spread: float
    """The best group's value minus the worst one's."""


def per_group(values: Values, groups: Sequence[str], *, n_bootstrap: int = 2000, seed: int = 0) -> dict[str, Metric]:
    """Mean of the values of each group, as `mean_with_interval` gives it.

    Args:
        values: Shape (num_items,), such as whether a prediction is right.
        groups: One name per item.
        n_bootstrap: Resamples of a group's items behind a bootstrap interval.
        seed: Of the resampling.

    Returns: Groups in the order in which they come.

    Raises: InputError if the lengths differ, there are no values, or one is not finite.
    """
    values_N = finite("values", values)
    if len(groups) != len(values_N):
        raise InputError(f"groups should be one per value, got {len(groups)} for {len(values_N)} values")
    names = np.asarray(groups)
    return {
        name: mean_with_interval(values_N[names == name], n_bootstrap=n_bootstrap, seed=seed)
        for name in dict.fromkeys(groups)
    }


def compare_groups(found: Mapping[str, Metric]) -> GroupComparison:
    """Where a model is worst and best, and how far apart.

    Args:
        found: A metric of each group, as `per_group` gives it, or any other that is better where it is higher.

    Raises: InputError if there are no groups.
    """
    if not found:
        raise InputError("one group or more should be compared, got none")
    order = sorted(found, key=lambda name: (found[name].value, name))
    values = [found[name].value for name in order]
    return GroupComparison(
        table=[
            {"group": name, "value": m.value, "low": m.low, "high": m.high, "n": m.n}
            for name in order
            for m in (found[name],)
        ],
        worst=order[0],
        best=order[-1],
        mean=float(np.mean(values)),
        spread=values[-1] - values[0],
    )
