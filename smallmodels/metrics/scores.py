"""Scores against scores: whether they lie on a line (Pearson), and whether they put items in one order (Spearman)."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from smallmodels.metrics.checks import Floats, Ints, finite_pair
from smallmodels.metrics.intervals import of_sums, percentiles, resamples
from smallmodels.records import Metric


def pearson(predictions: npt.ArrayLike, targets: npt.ArrayLike, *, n_bootstrap: int = 2000, seed: int = 0) -> Metric:
    """Pearson's correlation, in [-1, 1].

    Args:
        predictions: Shape (num_items,), scores on any scale.
        targets: Same shape.
        n_bootstrap: Resamples of items behind the interval.
        seed: Of the resampling.

    Returns: 0 where one side is constant, which says nothing of the other.

    Raises: InputError if the shapes differ, there are no items, or a score is not finite.
    """
    x, y = finite_pair("predictions", predictions, "targets", targets)
    x, y = x - x.mean(), y - y.mean()  # so that the differences of sums below lose no digits
    rows = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)
    return of_sums(rows, np.ones(len(x), dtype=np.int64), _pearson_of, n_bootstrap=n_bootstrap, seed=seed)


def spearman(predictions: npt.ArrayLike, targets: npt.ArrayLike, *, n_bootstrap: int = 2000, seed: int = 0) -> Metric:
    """Spearman's correlation: Pearson's of the ranks, where equal scores share the mean of theirs. In [-1, 1].

    Args:
        predictions: Shape (num_items,), scores on any scale.
        targets: Same shape.
        n_bootstrap: Resamples of items behind the interval.
        seed: Of the resampling.

    Returns: 0 where one side is constant, which says nothing of the other.

    Raises: InputError if the shapes differ, there are no items, or a score is not finite.
    """
    x, y = finite_pair("predictions", predictions, "targets", targets)
    ranks = _ranks_of(x), _ranks_of(y)
    ones = np.ones(len(x), dtype=np.int64)
    value = float(_weighted(ones[None, :], *ranks)[0])
    if len(x) == 1:
        return Metric(value=value, low=None, high=None, n=1)
    drawn = [_weighted(counts, *ranks) for counts in resamples(ones, n_bootstrap, seed)]
    low, high = percentiles(np.concatenate(drawn))
    return Metric(value=value, low=low, high=high, n=len(x))


def mean_spearman(
    predictions: Sequence[npt.ArrayLike], targets: npt.ArrayLike, *, n_bootstrap: int = 2000, seed: int = 0
) -> Metric:
    """Mean of several Spearman correlations with the same targets, such as those of the same pairs in many languages.

    Args:
        predictions: Of each language, shape (num_items,).
        targets: Shape (num_items,).
        n_bootstrap: Resamples of items behind the interval; an item is drawn in all languages or in none.
        seed: Of the resampling.

    Raises: InputError if the shapes differ, there are no items, or a score is not finite.
    """
    pairs = [finite_pair("predictions", each, "targets", targets) for each in predictions]
    ranks = [(_ranks_of(x), _ranks_of(y)) for x, y in pairs]
    ones = np.ones(len(pairs[0][1]), dtype=np.int64)

    def mean_of(counts: Ints) -> Floats:
        return np.asarray(np.mean([_weighted(counts, *each) for each in ranks], axis=0))

    value = float(mean_of(ones[None, :])[0])
    if len(ones) == 1:
        return Metric(value=value, low=None, high=None, n=1)
    low, high = percentiles(np.concatenate([mean_of(counts) for counts in resamples(ones, n_bootstrap, seed)]))
    return Metric(value=value, low=low, high=high, n=len(ones))


def _pearson_of(sums: Floats) -> Floats:
    """Of the sums over items of 1, x, y, x², y² and xy, which are the columns."""
    n, x, y, xx, yy, xy = sums.T
    x_spread, y_spread = xx - x * x / n, yy - y * y / n
    is_constant = (x_spread <= 1e-12 * xx) | (y_spread <= 1e-12 * yy)  # what rounding leaves of 0
    spread = np.sqrt(np.where(is_constant, 1, x_spread * y_spread))
    return np.where(is_constant, 0.0, np.clip((xy - x * y / n) / spread, -1, 1))


def _ranks_of(values: Floats) -> Callable[[Ints], Floats]:
    """Mean ranks of the items, minus their mean, for samples of shape (num_samples, num_items) that count them."""
    order = np.argsort(values, kind="stable")
    begins = np.flatnonzero(np.append(True, np.diff(values[order]) != 0))
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(values))))

    def ranks(counts: Ints) -> Floats:
        sizes = np.add.reduceat(counts[:, order], begins, axis=1)
        middle = np.cumsum(sizes, axis=1) - (sizes - 1) / 2  # of the ranks that the items of a group share
        return np.asarray(middle[:, group] - (len(values) + 1) / 2)

    return ranks


def spearman_of(counts: Ints, predictions: Floats, targets: Floats) -> Floats:
    """Spearman's correlation of each sample, shape (num_samples,), given how often it has each item."""
    return _weighted(counts, _ranks_of(predictions), _ranks_of(targets))


def _weighted(counts: Ints, x_ranks: Callable[[Ints], Floats], y_ranks: Callable[[Ints], Floats]) -> Floats:
    """Spearman's correlation of each sample."""
    x, y = x_ranks(counts), y_ranks(counts)
    xx, yy, xy = ((counts * a * b).sum(axis=1) for a, b in ((x, x), (y, y), (x, y)))
    zero = np.zeros(len(counts))
    return _pearson_of(np.stack([counts.sum(axis=1), zero, zero, xx, yy, xy], axis=1))
