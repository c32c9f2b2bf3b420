"""Means, ratios, differences and any statistic of sums with their 95 % intervals."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Floats, Values, finite, finite_pair
from smallmodels.records import Metric

_Z = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""

_MAX_CELLS = 250_000
"""Numbers drawn at once while resampling: 2 MB, which a core keeps in its cache. 16 times as many take 3 times as long
to be ranked."""

Statistic = Callable[[npt.NDArray[Any]], Floats]


def of_sums(rows: npt.ArrayLike, counts: npt.ArrayLike, statistic: Statistic, *, n_bootstrap: int, seed: int) -> Metric:
    """A statistic of sums over items, with the percentile bootstrap over items.

    Args:
        rows: Shape (num_distinct, num_sums): what each distinct item adds to the sums.
        counts: Shape (num_distinct,): how many items are like it.
        statistic: Takes sums of shape (num_samples, num_sums), gives shape (num_samples,).
        n_bootstrap: Resamples behind the interval.
        seed: Of the resampling.

    Returns: `low` and `high` are None for a single item.
    """
    rows_NK, counts_N = np.asarray(rows, dtype=np.float64), np.asarray(counts)
    return over_samples(counts_N, lambda samples: statistic(samples @ rows_NK), n_bootstrap=n_bootstrap, seed=seed)


def over_samples(counts_N: npt.NDArray[Any], statistic: Statistic, *, n_bootstrap: int, seed: int) -> Metric:
    """A statistic of items, with the percentile bootstrap over them.

    Args:
        counts_N: How many items are like each distinct one.
        statistic: Takes how often samples have each distinct item, shape (num_samples, num_distinct), gives shape
            (num_samples,).
        n_bootstrap: Resamples behind the interval.
        seed: Of the resampling.

    Returns: `low` and `high` are None for a single item.
    """
    n, value = int(counts_N.sum()), float(statistic(counts_N[None, :])[0])
    if n == 1:
        return Metric(value=value, low=None, high=None, n=1)
    low, high = percentiles(np.concatenate([statistic(drawn) for drawn in resamples(counts_N, n_bootstrap, seed)]))
    return Metric(value=value, low=low, high=high, n=n)


def mean_with_interval(values: Values, *, n_bootstrap: int = 2000, seed: int = 0) -> Metric:
    """Mean over test items with its interval: Wilson's where all values are 0 or 1, else the percentile bootstrap.

    Args:
        values: Shape (num_items,), one per item.
        n_bootstrap: Resamples behind the bootstrap interval.
        seed: Of the resampling.

    Returns:
        The mean; `low` and `high` are None for a single value that is neither 0 nor 1.

    Raises:
        InputError: There are no values or one is not finite.

    Source:
        Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    values_N = finite("values", values)
    n, value = len(values_N), float(values_N.mean())
    if np.isin(values_N, (0.0, 1.0)).all():
        low, high = _wilson(value, n)
        return Metric(value=value, low=low, high=high, n=n)
    if n == 1:
        return Metric(value=value, low=None, high=None, n=1)
    low, high = _bootstrap_mean(values_N, n_bootstrap, seed)
    return Metric(value=value, low=low, high=high, n=n)


def ratio_with_interval(numerators: Values, denominators: Values, *, n_bootstrap: int = 2000, seed: int = 0) -> Metric:
    """Sum over sum, such as bits over bytes, with a 95 % interval by bootstrap over items.

    Args:
        numerators: Of each test item.
        denominators: Of the same items, ≥ 0, not all of them 0.
        n_bootstrap: Resamples behind the interval.
        seed: Of the resampling.

    Raises: InputError if the lengths differ, a value is not finite, or all denominators are 0.
    """
    above, below = finite("numerators", numerators), finite("denominators", denominators)
    if above.shape != below.shape or below.min() < 0 or below.sum() == 0:
        raise InputError(
            f"denominators should be one for each of {len(above)} numerators, ≥ 0 and not all 0, got {len(below)}: "
            "pass both of the same items"
        )
    return of_sums(
        np.stack([above, below], axis=1),
        np.ones(len(above), dtype=np.int64),
        lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1e-300),
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def student_t_interval(values: Values) -> Metric:
    """Mean over repeated runs (seeds, windows) with Student's interval, right for few values.

    Args:
        values: Shape (num_repeats,).

    Returns:
        The mean with `n` repeats; `low` and `high` are None for a single one.

    Raises:
        InputError: There are no values or one is not finite.
    """
    values_N = finite("values", values)
    n, value = len(values_N), float(values_N.mean())
    if n == 1:
        return Metric(value=value, low=None, high=None, n=1)
    half = t_quantile(n - 1) * float(values_N.std(ddof=1)) / math.sqrt(n)
    return Metric(value=value, low=value - half, high=value + half, n=n)


def paired_difference(ours: Values, theirs: Values, *, n_bootstrap: int = 2000, seed: int = 0) -> Metric:
    """Mean of ours minus theirs on the same test items; pairing removes how hard the items are.

    Where all values are 0 or 1 the interval is the adjusted Wald interval for matched proportions, which stays open
    when the two never differ; else it is the percentile bootstrap over items.

    Args:
        ours: Shape (num_items,), one per item.
        theirs: Same shape, same items.
        n_bootstrap: Resamples behind the bootstrap interval.
        seed: Of the resampling.

    Returns:
        The difference; an interval that holds 0 means that the items do not tell the two apart.

    Raises:
        InputError: The shapes differ, there are no values, or one is not finite.

    Source:
        Agresti and Min 2005, doi:10.1002/sim.1781.
    """
    ours_N, theirs_N = finite_pair("ours", ours, "theirs", theirs)
    difference_N = ours_N - theirs_N
    n, value = len(difference_N), float(difference_N.mean())
    if np.isin(ours_N, (0.0, 1.0)).all() and np.isin(theirs_N, (0.0, 1.0)).all():
        low, high = _matched_proportions(difference_N)
        return Metric(value=value, low=low, high=high, n=n)
    if n == 1:
        return Metric(value=value, low=None, high=None, n=1)
    low, high = _bootstrap_mean(difference_N, n_bootstrap, seed)
    return Metric(value=value, low=low, high=high, n=n)


def unpaired_difference(ours: Values, theirs: Values) -> Metric:
    """Mean of ours minus mean of theirs, of repeats such as windows that are not paired, with Welch's interval.

    Args:
        ours: Shape (num_repeats,).
        theirs: Shape (num_other_repeats,).

    Returns: The difference, with `n` of all repeats; `low` and `high` are None where a side has a single one.

    Raises: InputError if a side has no values or one that is not finite.
    """
    ours_N, theirs_N = finite("ours", ours), finite("theirs", theirs)
    value, n = float(ours_N.mean() - theirs_N.mean()), len(ours_N) + len(theirs_N)
    half = welch_half_width(ours_N, theirs_N)
    if half is None:
        return Metric(value=value, low=None, high=None, n=n)
    return Metric(value=value, low=value - half, high=value + half, n=n)


def welch_half_width(a: Floats, b: Floats) -> float | None:
    """Half the width of Welch's interval for the difference of two means; None if a side has one value."""
    if min(len(a), len(b)) < 2:
        return None
    square_a, square_b = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if square_a + square_b == 0:
        return 0.0
    degrees = (square_a + square_b) ** 2 / (square_a**2 / (len(a) - 1) + square_b**2 / (len(b) - 1))
    return t_quantile(float(degrees)) * math.sqrt(square_a + square_b)


def mover_difference(ours: Metric, theirs: Metric) -> tuple[float, float]:
    """Ends of the interval of ours minus theirs, from the interval of each, which must be known.

    Source: Zou and Donner 2008, doi:10.1002/sim.3095.
    """
    assert ours.low is not None, "both intervals are known"
    assert ours.high is not None
    assert theirs.low is not None
    assert theirs.high is not None
    value = ours.value - theirs.value
    down = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    return value - down, value + math.hypot(ours.high - ours.value, theirs.value - theirs.low)


def _wilson(share: float, n: int) -> tuple[float, float]:
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    # The bounds of 0 and 1 are exact; rounding would put them a hair beside the share itself.
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def _matched_proportions(difference_N: Floats) -> tuple[float, float]:
    """Agresti and Min: half an item is added to each of the four cells of the two-by-two table."""
    n = len(difference_N) + 2
    wins, losses = float((difference_N > 0).sum()) + 0.5, float((difference_N < 0).sum()) + 0.5
    centre = (wins - losses) / n
    half = _Z * math.sqrt(wins + losses - (wins - losses) ** 2 / n) / n
    return max(-1.0, centre - half), min(1.0, centre + half)


def resamples(counts: npt.NDArray[Any], n_bootstrap: int, seed: int) -> Iterator[npt.NDArray[Any]]:
    """Bootstrap samples as counts per distinct item, in blocks of shape (num_samples, num_distinct)."""
    if n_bootstrap < 1:
        raise InputError(f"n_bootstrap must be ≥ 1, got {n_bootstrap}: 2000 is the default")
    generator = np.random.default_rng(seed)
    total = int(counts.sum())
    block = max(1, _MAX_CELLS // len(counts))
    for start in range(0, n_bootstrap, block):
        yield generator.multinomial(total, counts / total, size=min(block, n_bootstrap - start))


def _bootstrap_mean(values_N: Floats, n_bootstrap: int, seed: int) -> tuple[float, float]:
    distinct, counts = np.unique(values_N, return_counts=True)
    sums = [drawn @ distinct for drawn in resamples(counts, n_bootstrap, seed)]
    return percentiles(np.concatenate(sums) / len(values_N))


def percentiles(estimates: Floats) -> tuple[float, float]:
    """What holds the middle 95 % of the estimates."""
    low, high = np.percentile(estimates, [2.5, 97.5])
    return float(low), float(high)


def t_quantile(degrees: float) -> float:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # comes with scikit-learn; most imports do not need it

    return float(stdtrit(degrees, 0.975))
