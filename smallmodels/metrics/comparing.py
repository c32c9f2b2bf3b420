"""Which of two models is better: their difference over seeds and over test items, and what may be said of it.

Two things make a measured difference what it is by chance: the seeds of the training, and the items of the test split.
Student's interval over seeds knows of the first, the paired bootstrap over items of the second; `difference` joins
them.

Shapes: R runs of a model, one for each seed; N test items; K sums; S bootstrap samples.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError, require
from smallmodels.metrics.checks import Floats, finite, finite_pair
from smallmodels.metrics.f1 import macro_f1_of
from smallmodels.metrics.intervals import (
    Statistic,
    mover_difference,
    percentiles,
    resamples,
    student_t_interval,
    welch_half_width,
)
from smallmodels.metrics.scores import spearman_over
from smallmodels.records import Metric

Verdict = Literal["better", "indistinguishable", "worse"]
Over = Callable[[Sequence[Floats], Sequence[float]], Statistic]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A mean over runs that differ in their seed."""

    value: float
    sd: float | None
    """Sample standard deviation; None for a single run."""
    low: float | None
    """95 % Student-t interval of the mean; None for a single run."""
    high: float | None
    n: int
    """Seeds behind it, or distinct measurements where seeds share some."""

    @property
    def is_constant(self) -> bool:
        """Whether all runs give one value but for rounding: that is one model, of whose spread nothing is known."""
        return not self.sd or self.sd <= 1e-4 * abs(self.value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Items:
    """What a model did on the items of the test split, in one or more runs."""

    rows: Sequence[Floats]
    """Of each run, shape (N, K): what is known of each item."""
    over: Over
    """Of the rows of runs and their weights, what gives the mean of their metrics, shape (S,), in samples that have an
    item so often, shape (S, N)."""
    is_mean: bool
    """Whether it is the mean over items of the first column."""
    _drawn: dict[tuple[int, int], Floats] = field(init=False, default_factory=dict, repr=False)

    @functools.cached_property
    def distinct(self) -> tuple[Sequence[Floats], Sequence[float]]:
        """Different rows and how many runs have them: runs that share a model do the same."""
        keys = [rows.tobytes() for rows in self.rows]
        found, counts = dict(zip(keys, self.rows, strict=True)), Counter(keys)  # both in the order of first sight
        return [*found.values()], [*counts.values()]

    @functools.cached_property
    def value(self) -> float:
        """The metric on all items, averaged over the runs."""
        return float(self.over(*self.distinct)(np.ones((1, len(self.rows[0]))))[0])

    @functools.cached_property
    def mean_N(self) -> Floats:
        """Of each item, the first column averaged over the runs."""
        runs, weights = self.distinct
        return np.asarray(np.average([rows[:, 0] for rows in runs], axis=0, weights=weights))

    @functools.cached_property
    def is_share(self) -> bool:
        """Whether every value of the first column lies in [0, 1]."""
        return all(rows[:, 0].min() >= 0 and rows[:, 0].max() <= 1 for rows in self.distinct[0])

    def draws(self, n_bootstrap: int, seed: int) -> Floats:
        """The metric on bootstrap samples of the items, shape (S,), averaged over the runs; worked out once.

        Samples depend on the number of items and the seed alone, so those of two models are of the same items.
        """
        key = (n_bootstrap, seed)
        if key not in self._drawn:
            mean_of = self.over(*self.distinct)
            drawn = [mean_of(sample) for sample in _samples(len(self.rows[0]), n_bootstrap, seed)]
            self._drawn[key] = np.concatenate(drawn)
        return self._drawn[key]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Ours minus theirs, where larger is better, with a 95 % interval over seeds and test items."""

    value: float
    low: float | None
    """None where nothing is known of the chance in it."""
    high: float | None
    num_seeds: int
    """Seeds behind it: the fewer of the two sides."""
    num_items: int
    """Test items behind it; 0 where their chance is not in the interval."""
    is_paired: bool
    """Whether both were compared item by item."""


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and 95 % Student-t interval over runs with a seed each.

    Raises: InputError if there are no values or one is not finite.
    """
    found = student_t_interval(values)
    sd = float(np.std(values, ddof=1)) if found.n > 1 else None
    if sd is not None and sd <= 1e-12 * abs(found.value):  # what rounding leaves of 0
        return Spread(value=found.value, sd=0.0, low=found.value, high=found.value, n=found.n)
    return Spread(value=found.value, sd=sd, low=found.low, high=found.high, n=found.n)


def mean_items(values: Sequence[npt.ArrayLike]) -> Items:
    """Items of a metric that is a mean over them, such as accuracy.

    Args:
        values: Of each run, shape (N,).
    """
    rows = [np.stack([finite("values", v), np.ones(len(np.asarray(v)))], axis=1) for v in values]
    return Items(rows=rows, over=_of_sums(_ratio), is_mean=True)


def ratio_items(numerators: Sequence[npt.ArrayLike], denominators: Sequence[npt.ArrayLike]) -> Items:
    """Items of a metric that is a sum over a sum, such as bits over bytes.

    Args:
        numerators: Of each run, shape (N,).
        denominators: Likewise.
    """
    pairs = zip(numerators, denominators, strict=True)
    rows = [np.stack([finite("numerators", a), finite("denominators", b)], axis=1) for a, b in pairs]
    return Items(rows=rows, over=_of_sums(_ratio), is_mean=False)


def spearman_items(predictions: Sequence[npt.ArrayLike], targets: npt.ArrayLike) -> Items:
    """Items of Spearman's correlation, which each sample ranks anew.

    Args:
        predictions: Of each run, shape (N,).
        targets: Shape (N,).
    """
    rows = [np.stack(finite_pair("predictions", each, "targets", targets), axis=1) for each in predictions]
    return Items(rows=rows, over=_spearman_over, is_mean=False)


def macro_f1_items(predictions: Sequence[Sequence[Any]], labels: Sequence[Any]) -> Items:
    """Items of macro F1.

    Args:
        predictions: Of each run, N classes.
        labels: The N right ones.
    """
    classes, flat = np.unique(np.asarray([list(labels), *map(list, predictions)]), return_inverse=True)
    one_hot = np.eye(len(classes))[flat.reshape(len(predictions) + 1, len(labels))]
    right = one_hot[0]
    rows = [np.concatenate([guess * right, guess + right], axis=1) for guess in one_hot[1:]]

    def statistic(sums: npt.NDArray[Any]) -> Floats:
        return macro_f1_of(sums[:, : len(classes)], sums[:, len(classes) :])

    return Items(rows=rows, over=_of_sums(statistic), is_mean=False)


_MAX_KEPT = 20_000_000
"""Counts of the last bootstrap samples that are kept, 160 MB, so that all models of a report are drawn from them."""


def _samples(num_items: int, n_bootstrap: int, seed: int) -> Iterable[Floats]:
    """How often each item is in each sample, in blocks of shape (num_samples, num_items)."""
    if num_items * n_bootstrap <= _MAX_KEPT:
        return _kept_samples(num_items, n_bootstrap, seed)
    return resamples(np.ones(num_items, dtype=np.int64), n_bootstrap, seed)


@functools.lru_cache(maxsize=1)
def _kept_samples(num_items: int, n_bootstrap: int, seed: int) -> Sequence[Floats]:
    # As floats, which is what they are multiplied as, and by columns, which is how they are ranked.
    blocks = resamples(np.ones(num_items, dtype=np.int64), n_bootstrap, seed)
    return [np.asarray(block, dtype=np.float64, order="F") for block in blocks]


def _of_sums(statistic: Statistic) -> Over:
    def over(runs: Sequence[Floats], weights: Sequence[float]) -> Statistic:
        return lambda counts: np.asarray(
            np.average([statistic(counts @ rows) for rows in runs], axis=0, weights=weights)
        )

    return over


def _spearman_over(runs: Sequence[Floats], weights: Sequence[float]) -> Statistic:
    return spearman_over([rows[:, 0] for rows in runs], runs[0][:, 1], weights=weights)


def _ratio(sums: npt.NDArray[Any]) -> Floats:
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1e-300))


def paired_bootstrap(ours: Items, theirs: Items, *, n_bootstrap: int = 2000, seed: int = 0) -> Metric:
    """Ours minus theirs on the same test items, each averaged over its runs, with a 95 % interval over items.

    Items are drawn again with what both models did on them, so it does not matter how hard they are. A mean of values
    in [0, 1] is smoothed: half an item that only we have right, half a one that only they have, and one without
    difference are added before drawing. Without them a handful of items that differ would look like certainty; for one
    run of zeros and ones this is the bootstrap of what `paired_difference` computes from a formula.

    Args:
        ours: On N items.
        theirs: On the same N items in the same order.
        n_bootstrap: Samples behind the interval.
        seed: Of the drawing.

    Returns: The difference; `n` is N.

    Raises: InputError if the numbers of items differ.

    Source: Efron and Tibshirani 1993, chapter 13; the half items are those of Agresti and Min 2005,
        doi:10.1002/sim.1781.
    """
    num_items = len(ours.rows[0])
    if any(len(rows) != num_items for rows in (*ours.rows, *theirs.rows)):
        raise InputError(
            f"ours and theirs should be of the same test items, got {num_items} and {len(theirs.rows[0])}: "
            "compare two models on the same items"
        )
    value = ours.value - theirs.value
    if num_items == 1:
        return Metric(value=value, low=None, high=None, n=1)
    if ours.is_mean and theirs.is_mean:
        drawn = _means_drawn(ours.mean_N - theirs.mean_N, ours.is_share and theirs.is_share, n_bootstrap, seed)
    else:
        drawn = ours.draws(n_bootstrap, seed) - theirs.draws(n_bootstrap, seed)
    low, high = percentiles(drawn)
    return Metric(value=value, low=min(low, value), high=max(high, value), n=num_items)


def _means_drawn(difference_N: Floats, is_share: bool, n_bootstrap: int, seed: int) -> Floats:
    distinct, counts = np.unique(difference_N.round(12), return_counts=True)
    weights = counts.astype(np.float64)
    if is_share:
        distinct, weights = np.append(distinct, [1.0, -1.0, 0.0]), np.append(weights, [0.5, 0.5, 1.0])
    sums = [sample @ distinct for sample in resamples(weights, n_bootstrap, seed)]
    return np.asarray(np.concatenate(sums) / weights.sum())


def seed_difference(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Metric:
    """Ours minus theirs over seeds: Student's interval of the differences where both have the same seeds, else Welch's.

    Args:
        ours: A value for each seed; at least one.
        theirs: Likewise.

    Returns: The difference; `n` is the number of seeds on the side with fewer; no interval from a single one.
    """
    if set(ours) == set(theirs):
        return student_t_interval([ours[seed] - theirs[seed] for seed in ours])
    a, b = np.asarray([*ours.values()], dtype=np.float64), np.asarray([*theirs.values()], dtype=np.float64)
    value, n = float(a.mean() - b.mean()), min(len(a), len(b))
    half = welch_half_width(a, b)
    if half is None:
        return Metric(value=value, low=None, high=None, n=n)
    return Metric(value=value, low=value - half, high=value + half, n=n)


def difference(seeds: Metric, items: Metric | None, *, is_paired: bool) -> Difference:
    """A difference with both kinds of chance in its interval.

    The distances of the ends from the value add up in squares, as those of two causes that know nothing of each other.

    Args:
        seeds: From `seed_difference`.
        items: From `paired_bootstrap`, or from the two models' own intervals; None where nothing is known of items.
        is_paired: Whether `items` is from the same items.

    Source: Zou and Donner 2008, doi:10.1002/sim.3095, for joining intervals that need not be symmetric.
    """
    down = up = 0.0
    sources = [found for found in (seeds, items) if found is not None and found.low is not None]
    for found in sources:
        assert found.low is not None
        assert found.high is not None
        down += max(found.value - found.low, 0.0) ** 2
        up += max(found.high - found.value, 0.0) ** 2
    knows_items = items is not None and items.low is not None
    # Runs that all give one value are of one model: without items, nothing is known of the chance in it.
    is_known = bool(sources) and (knows_items or math.sqrt(down + up) > 1e-9 * abs(seeds.value))
    return Difference(
        value=seeds.value,
        low=seeds.value - math.sqrt(down) if is_known else None,
        high=seeds.value + math.sqrt(up) if is_known else None,
        num_seeds=seeds.n,
        num_items=items.n if items is not None and knows_items else 0,
        is_paired=is_paired and knows_items,
    )


def unpaired_items(ours: Metric, theirs: Metric) -> Metric | None:
    """Ours minus theirs from the interval of each over items, where what they did on each item is not known.

    It is wider than the paired one wherever both find the same items hard. None where an interval is missing.
    """
    if None in (ours.low, ours.high, theirs.low, theirs.high):
        return None
    low, high = mover_difference(ours, theirs)
    return Metric(value=ours.value - theirs.value, low=low, high=high, n=min(ours.n, theirs.n))


def verdict(found: Difference, *, margin: float) -> Verdict:
    """Better or worse where the whole interval lies beyond the margin, else indistinguishable.

    Args:
        found: Larger is better.
        margin: Difference below which two models count as equal; declared before the runs; >= 0.
    """
    require(margin >= 0, "margin", ">= 0", margin)
    if found.low is not None and found.low > margin:
        return "better"
    if found.high is not None and found.high < -margin:
        return "worse"
    return "indistinguishable"


def is_within(found: Difference, *, margin: float) -> bool:
    """Whether it is shown that ours is not worse than theirs by more than the margin (non-inferiority)."""
    require(margin >= 0, "margin", ">= 0", margin)
    return found.low is not None and found.low >= -margin


def cost_to_reach(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Cost of the first validation that is at least as good as a level; None where none is. Nothing is interpolated.

    Args:
        curve: Cost since the start and quality, larger being better, of each validation in their order.
        level: With the sign of the quality.
    """
    return next((cost for cost, value in curve if value >= level), None)
