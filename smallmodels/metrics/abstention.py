"""What a model gains by giving no answer where it is not sure: risk against coverage.

Coverage is the share of items that are answered, the surest first; risk is the share of wrong answers among them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError, require
from smallmodels.metrics.checks import Floats, Ints, finite_pair
from smallmodels.metrics.intervals import mean_with_interval, percentiles, resamples
from smallmodels.records import Metric


@dataclass(frozen=True)
class RiskCoverage:
    """One point for each confidence that occurs, from the surest answers alone to all of them.

    Items of equal confidence are answered together, as no threshold can tell them apart.
    """

    thresholds: Floats
    """Falling: answers of at least this confidence are given."""
    coverage: Floats
    """Rising to 1."""
    risk: Floats

    def coverage_at_risk(self, risk: float) -> float:
        """The largest coverage whose risk is at most this; 0 where there is none."""
        return float(self.coverage[self.risk <= risk].max(initial=0.0))

    def threshold_at_risk(self, risk: float) -> float | None:
        """The confidence from which on to answer for that; None where no threshold does it."""
        fits = np.flatnonzero(self.risk <= risk)
        return float(self.thresholds[fits[-1]]) if len(fits) else None


def risk_coverage(confidences: npt.ArrayLike, is_right: npt.ArrayLike) -> RiskCoverage:
    """The risk at every coverage.

    Args:
        confidences: Shape (num_items,), such as the probability of the predicted class.
        is_right: Same shape: whether the prediction is right.

    Raises: InputError if the shapes differ, there are no items, or a confidence is not finite.

    Source: El-Yaniv and Wiener 2010, JMLR 11.
    """
    confidence_N, right_N = _surest_first(confidences, is_right)
    ends = np.append(np.flatnonzero(np.diff(confidence_N)), len(confidence_N) - 1)
    answered = ends + 1
    return RiskCoverage(confidence_N[ends], answered / len(confidence_N), 1 - np.cumsum(right_N)[ends] / answered)


def area_under_risk_coverage(
    confidences: npt.ArrayLike, is_right: npt.ArrayLike, *, n_bootstrap: int = 2000, seed: int = 0
) -> Metric:
    """Mean risk over the coverages 1/n, 2/n, … 1 (AURC): low for a model that is right, and unsure where it is wrong.

    Args:
        confidences: Shape (num_items,), such as the probability of the predicted class.
        is_right: Same shape: whether the prediction is right.
        n_bootstrap: Resamples of items behind the interval.
        seed: Of the resampling.

    Returns: In [0, 1]; the mean over every order of items of equal confidence.

    Raises: InputError if the shapes differ, there are no items, or a confidence is not finite.

    Source: Geifman, Uziel and El-Yaniv 2019, arXiv:1805.08206, section 2.
    """
    confidence_N, right_N = _surest_first(confidences, is_right)
    group_N = np.cumsum(np.append(False, np.diff(confidence_N) != 0))
    n = len(confidence_N)

    def area(counts_N: Ints) -> float:
        drawn = np.repeat(np.arange(n), counts_N)  # still the surest first
        groups, wrong = group_N[drawn], 1 - right_N[drawn]
        sizes = np.bincount(groups)
        shared = np.bincount(groups, weights=wrong) / np.maximum(sizes, 1)
        return float((np.cumsum(shared[groups]) / np.arange(1, n + 1)).mean())

    ones = np.ones(n, dtype=np.int64)
    if n == 1:
        return Metric(value=area(ones), low=None, high=None, n=1)
    drawn = [area(counts_N) for block in resamples(ones, n_bootstrap, seed) for counts_N in block]
    low, high = percentiles(np.asarray(drawn))
    return Metric(value=area(ones), low=low, high=high, n=n)


def accuracy_at_coverage(confidences: npt.ArrayLike, is_right: npt.ArrayLike, coverage: float) -> Metric:
    """Accuracy on the surest items: as few as make up this share or more, equal confidences together.

    Args:
        confidences: Shape (num_items,), such as the probability of the predicted class.
        is_right: Same shape: whether the prediction is right.
        coverage: Share that is to be answered, in (0, 1].

    Returns: The share with its Wilson interval; `n` is the number of items that are answered.

    Raises: InputError if the shapes differ, there are no items, or the coverage is out of range.
    """
    require(0 < coverage <= 1, "coverage", "in (0, 1]", coverage)
    confidence_N, right_N = _surest_first(confidences, is_right)
    least = max(1, int(np.ceil(round(coverage * len(confidence_N), 6))))
    return mean_with_interval(right_N[confidence_N >= confidence_N[least - 1]])


def _surest_first(confidences: npt.ArrayLike, is_right: npt.ArrayLike) -> tuple[Floats, Floats]:
    confidence_N, right_N = finite_pair("confidences", confidences, "is_right", is_right)
    if not np.isin(right_N, (0, 1)).all():
        raise InputError("is_right should be true or false for each item: compare predictions with labels")
    order = np.argsort(-confidence_N, kind="stable")
    return confidence_N[order], right_N[order]
