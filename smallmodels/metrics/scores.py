"""Scores against scores: whether they lie on a line (Pearson), and whether they put items in one order (Spearman)."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from smallmodels.metrics.checks import Floats, Ints, finite_pair
from smallmodels.metrics.intervals import of_sums, over_samples
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
    ones = np.ones(len(x), dtype=np.int64)
    return over_samples(ones, spearman_over([x], y), n_bootstrap=n_bootstrap, seed=seed)


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
    ones = np.ones(len(pairs[0][1]), dtype=np.int64)
    over = spearman_over([x for x, _ in pairs], pairs[0][1])
    return over_samples(ones, over, n_bootstrap=n_bootstrap, seed=seed)


def _pearson_of(sums: Floats) -> Floats:
    """Of the sums over items of 1, x, y, x², y² and xy, which are the columns."""
    n, x, y, xx, yy, xy = sums.T
    x_spread, y_spread = xx - x * x / n, yy - y * y / n
    is_constant = (x_spread <= 1e-12 * xx) | (y_spread <= 1e-12 * yy)  # what rounding leaves of 0
    spread = np.sqrt(np.where(is_constant, 1, x_spread * y_spread))
    return np.where(is_constant, 0.0, np.clip((xy - x * y / n) / spread, -1, 1))


class _Ranks:
    """Ranks of items in bootstrap samples, minus their mean; equal values share the mean of theirs.

    Args:
        values_N: Of the items.
    """

    def __init__(self, values_N: Floats) -> None:
        self._order = np.argsort(values_N, kind="stable")
        ordered = values_N[self._order]
        self._last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of the items that share a value
        self._group = np.empty(len(values_N), dtype=np.int64)
        self._group[self._order] = np.repeat(np.arange(len(self._last)), np.diff(self._last, prepend=-1))

    def __call__(self, counts: Floats) -> Floats:
        """Shape (N, S) like the counts, which say how often each of S samples has an item."""
        drawn = np.cumsum(counts[self._order], axis=0)
        middle = drawn[self._last]
        middle[1:] += drawn[self._last[:-1]]
        middle -= len(counts)
        middle /= 2
        return np.asarray(middle[self._group])


def spearman_over(
    predictions: Sequence[Floats], targets: Floats, *, weights: Sequence[float] | None = None
) -> Callable[[Ints], Floats]:
    """What gives the mean of some models' Spearman correlations in S samples, shape (S,).

    Args:
        predictions: Of each model, shape (N,).
        targets: Shape (N,).
        weights: Of each model in the mean.

    Returns: A function of how often each sample has each item, shape (S, N).
    """
    of_models, of_targets = [_Ranks(values) for values in predictions], _Ranks(targets)

    def mean_of(samples: Ints) -> Floats:
        counts = np.ascontiguousarray(samples.T, dtype=np.float64)  # rows are copied whole where ranks sort them
        y = of_targets(counts)
        weighted = counts * y
        yy, n, zero = _sums(weighted, y), counts.sum(axis=0), np.zeros(counts.shape[1])
        found = []
        for ranks in of_models:
            x = ranks(counts)
            xy = _sums(weighted, x)
            found.append(_pearson_of(np.stack([n, zero, zero, _sums(counts * x, x), yy, xy], axis=1)))
        return np.asarray(np.average(found, axis=0, weights=weights))

    return mean_of


def _sums(one: Floats, two: Floats) -> Floats:
    """Of products over items."""
    return np.asarray(np.einsum("ns,ns->s", one, two))
