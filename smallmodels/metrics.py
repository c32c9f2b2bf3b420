"""How good a model is, how sure of it we are, and when it has paid for itself; arrays in, numbers out, no torch.

Every interval covers 95 %. Resampling is seeded, so the same arrays give the same interval.

Shapes: N test items, C classes, Q queries, D documents.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError
from smallmodels.records import Metric

Values = npt.NDArray[Any] | Sequence[float]
Indices = npt.NDArray[Any] | Sequence[int]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_Z = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""

_MAX_CELLS = 4_000_000
"""Numbers drawn at once while resampling; bounds memory to 32 MB."""


def accuracy(predictions: Indices, labels: Indices) -> Metric:
    """Share of items whose prediction is the label.

    Args:
        predictions: Shape (num_items,), class indices.
        labels: Same shape.

    Returns:
        The share in [0, 1] with its Wilson interval.

    Raises:
        InputError: The shapes differ or there are no items.
    """
    predictions_N, labels_N = _index_pair("predictions", predictions, "labels", labels)
    return mean_with_interval(predictions_N == labels_N)


def agreement(predictions: Indices, teacher_predictions: Indices) -> Metric:
    """Share of items on which the model and its teacher give the same answer, right or wrong.

    Args:
        predictions: Shape (num_items,), class indices.
        teacher_predictions: Same shape.

    Returns:
        The share in [0, 1] with its Wilson interval.

    Raises:
        InputError: The shapes differ or there are no items.
    """
    ours_N, teachers_N = _index_pair("predictions", predictions, "teacher_predictions", teacher_predictions)
    return mean_with_interval(ours_N == teachers_N)


def macro_f1(predictions: Indices, labels: Indices, *, n_bootstrap: int = 2000, seed: int = 0) -> Metric:
    """F1 averaged over the classes that occur among labels or predictions, each class with the same weight.

    Args:
        predictions: Shape (num_items,), class indices.
        labels: Same shape.
        n_bootstrap: Resamples behind the interval.
        seed: Of the resampling.

    Returns:
        The mean in [0, 1] with the percentile bootstrap interval over items.

    Raises:
        InputError: The shapes differ or there are no items.
    """
    predictions_N, labels_N = _index_pair("predictions", predictions, "labels", labels)
    # An item matters only through its pair (prediction, label), so pairs are resampled with their counts.
    pairs, counts = np.unique(np.stack([predictions_N, labels_N]), axis=1, return_counts=True)
    value = float(_macro_f1_of_pairs(pairs, counts[None, :])[0])
    estimates = [_macro_f1_of_pairs(pairs, drawn) for drawn in _resamples(counts, n_bootstrap, seed)]
    low, high = _percentiles(np.concatenate(estimates))
    return Metric(value=value, low=low, high=high, n=len(labels_N))


def per_class_table(predictions: Indices, labels: Indices, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of every class.

    Args:
        predictions: Shape (num_items,), indices into `label_names`.
        labels: Same shape.
        label_names: One per class.

    Returns:
        One row per class in the order of `label_names`, with the keys label, precision, recall, f1 and support.
        A ratio whose denominator is zero is None: the precision of a class that was never predicted, for one.

    Raises:
        InputError: The shapes differ, there are no items, or an index has no name.
    """
    predictions_N, labels_N = _index_pair("predictions", predictions, "labels", labels)
    num_classes = len(label_names)
    for name, values in (("predictions", predictions_N), ("labels", labels_N)):
        if values.min() < 0 or values.max() >= num_classes:
            raise InputError(
                f"{name} should be in [0, {num_classes}), one index per label name, "
                f"found {values.min()} to {values.max()}: pass the names that belong to this model"
            )
    right = np.bincount(labels_N[predictions_N == labels_N], minlength=num_classes)
    predicted = np.bincount(predictions_N, minlength=num_classes)
    support = np.bincount(labels_N, minlength=num_classes)
    return [
        {
            "label": str(label_names[c]),
            "precision": _ratio(right[c], predicted[c]),
            "recall": _ratio(right[c], support[c]),
            "f1": _ratio(2 * right[c], predicted[c] + support[c]),
            "support": int(support[c]),
        }
        for c in range(num_classes)
    ]


def expected_calibration_error(probabilities: npt.ArrayLike, labels: Indices, *, bins: int = 15) -> float:
    """How far the model's confidence is from its accuracy, averaged over items.

    Items are put into bins of equal width by the probability of the predicted class; per bin, mean confidence is
    compared with accuracy.

    Args:
        probabilities: Shape (num_items, num_classes), rows sum to 1.
        labels: Shape (num_items,), class indices.
        bins: Number of bins; a confidence on an edge belongs to the lower bin.

    Returns:
        In [0, 1]; 0 is calibrated.

    Raises:
        InputError: The shapes do not fit, there are no items, or a row is not a distribution.

    Source:
        Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    probabilities_NC = np.asarray(probabilities, dtype=np.float64)
    if probabilities_NC.ndim != 2 or probabilities_NC.shape[1] == 0:
        raise InputError(
            f"probabilities should have shape (num_items, num_classes), got {probabilities_NC.shape}: "
            "pass one row per item"
        )
    # Written so that NaN fails it too; 1e-3 is what rows of half precision may be off by.
    if not ((probabilities_NC >= 0).all() and (np.abs(probabilities_NC.sum(axis=1) - 1) <= 1e-3).all()):
        raise InputError("every row of probabilities should be ≥ 0 and sum to 1: pass probabilities, not logits")
    predictions_N, labels_N = _index_pair("predictions", probabilities_NC.argmax(axis=1), "labels", labels)
    confidence_N = probabilities_NC.max(axis=1)
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    gap_N = (predictions_N == labels_N) - confidence_N
    return float(np.abs(np.bincount(bin_N, weights=gap_N, minlength=bins)).sum() / len(labels_N))


def reciprocal_ranks(similarities: npt.ArrayLike, relevant: Indices, *, k: int = 10) -> Floats:
    """One over the rank of the right document per query, 0 beyond rank k; their mean is MRR@k.

    Documents that are exactly as similar as the right one share their ranks: the value is the mean over every order
    of the tied documents, so a model that finds all documents equal gains nothing from their order.

    Args:
        similarities: Shape (num_queries, num_documents), higher is nearer.
        relevant: Shape (num_queries,), index of the one right document.
        k: Ranks that count.

    Returns:
        Shape (num_queries,), in [0, 1].

    Raises:
        InputError: The shapes do not fit, an index is out of range, or a similarity is not a number.
    """
    similarities_QD = np.asarray(similarities)
    relevant_indices = np.asarray(relevant)
    if similarities_QD.ndim != 2 or relevant_indices.shape != similarities_QD.shape[:1]:
        raise InputError(
            f"similarities should have one row per query and relevant one index per query, got shapes "
            f"{similarities_QD.shape} and {relevant_indices.shape}: pass both for the same queries"
        )
    num_queries, num_documents = similarities_QD.shape
    if num_queries and not (relevant_indices.min() >= 0 and relevant_indices.max() < num_documents):
        raise InputError(
            f"relevant should be in [0, {num_documents}), found {relevant_indices.min()} to {relevant_indices.max()}"
        )
    if np.isnan(similarities_QD).any():
        raise InputError("similarities should be numbers, found NaN: check the model that gave them")
    if k < 1:
        raise InputError(f"k must be ≥ 1, got {k}")
    right = np.take_along_axis(similarities_QD, relevant_indices[:, None].astype(np.int64), axis=1)
    num_better = (similarities_QD > right).sum(axis=1)
    num_equal = (similarities_QD == right).sum(axis=1)  # the right document among them
    # The mean of 1/r over the shared ranks is a difference of harmonic numbers.
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, k + 1))])
    last, first = np.minimum(num_better + num_equal, k), np.minimum(num_better, k)
    return np.asarray((harmonic[last] - harmonic[first]) / num_equal, dtype=np.float64)


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
    values_N = _finite("values", values)
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
    above, below = _finite("numerators", numerators), _finite("denominators", denominators)
    if above.shape != below.shape or below.min() < 0 or below.sum() == 0:
        raise InputError(
            f"denominators should be one for each of {len(above)} numerators, ≥ 0 and not all 0, got {len(below)}: "
            "pass both of the same items"
        )
    items = np.ones(len(above), dtype=np.int64)
    drawn = [(counts @ above) / np.maximum(counts @ below, 1e-300) for counts in _resamples(items, n_bootstrap, seed)]
    low, high = _percentiles(np.concatenate(drawn)) if len(above) > 1 else (None, None)
    return Metric(value=float(above.sum() / below.sum()), low=low, high=high, n=len(above))


def student_t_interval(values: Values) -> Metric:
    """Mean over repeated runs (seeds, windows) with Student's interval, right for few values.

    Args:
        values: Shape (num_repeats,).

    Returns:
        The mean with `n` repeats; `low` and `high` are None for a single one.

    Raises:
        InputError: There are no values or one is not finite.
    """
    values_N = _finite("values", values)
    n, value = len(values_N), float(values_N.mean())
    if n == 1:
        return Metric(value=value, low=None, high=None, n=1)
    half = _t_quantile(n - 1) * float(values_N.std(ddof=1)) / math.sqrt(n)
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
    ours_N, theirs_N = _finite("ours", ours), _finite("theirs", theirs)
    if ours_N.shape != theirs_N.shape:
        raise InputError(
            f"ours and theirs should hold one value per item, got {len(ours_N)} and {len(theirs_N)}: "
            "compare two models on the same items"
        )
    difference_N = ours_N - theirs_N
    n, value = len(difference_N), float(difference_N.mean())
    if np.isin(ours_N, (0.0, 1.0)).all() and np.isin(theirs_N, (0.0, 1.0)).all():
        low, high = _matched_proportions(difference_N)
        return Metric(value=value, low=low, high=high, n=n)
    if n == 1:
        return Metric(value=value, low=None, high=None, n=1)
    low, high = _bootstrap_mean(difference_N, n_bootstrap, seed)
    return Metric(value=value, low=low, high=high, n=n)


@dataclass(frozen=True, kw_only=True)
class PaybackEstimate:
    """After how many uses the cost of building the student is saved again."""

    saved_per_use: float
    """Mean cost of one use of what is replaced, minus the student's; negative where the student costs more."""
    uses: float | None
    """None means never."""
    low: float | None
    high: float | None
    """95 % interval of `uses`; None for never, and where a single window was measured."""
    reason: str
    """One sentence: why this number, or why never."""


def payback(
    build: float,
    reference: Sequence[float],
    student: Sequence[float],
    *,
    quality_ok: bool,
    unit: Literal["J", "CPU-s"] = "J",
    replaces: str = "teacher",
) -> PaybackEstimate:
    """Uses after which the student has saved what it cost to build.

    The interval is that of the difference between two means (Welch), turned into uses. It is "never" where that
    interval touches zero or the student is not good enough to replace anything.

    Args:
        build: What building the student cost, ≥ 0, in `unit`.
        reference: Cost per use of what the student replaces, in `unit`, one value per measured window.
        student: Cost per use of the student, likewise.
        quality_ok: Whether the student's quality is close enough to what it replaces.
        unit: Of all costs; only the sentence needs it.
        replaces: The role that the student replaces; only the sentence needs it.

    Returns:
        The estimate and the reason for it.

    Raises:
        InputError: A cost is missing, negative or not finite.
    """
    if not 0 <= build < math.inf:
        raise InputError(f"build should be a cost ≥ 0, got {build}: pass what building the student cost")
    reference_costs, student_costs = _costs("reference", reference), _costs("student", student)
    saved = float(reference_costs.mean() - student_costs.mean())
    who = replaces.replace("_", " ")

    def never(why: str) -> PaybackEstimate:
        return PaybackEstimate(saved_per_use=saved, uses=None, low=None, high=None, reason=f"Never: {why}.")

    if not quality_ok:
        return never(f"the student's quality is not close enough to the {who}'s to replace it")
    if saved <= 0:
        more = f"{_short(-saved)} {unit} more than" if saved < 0 else "as much as"
        return never(f"a use of the student costs {more} one of the {who}")
    half = _welch_half_width(reference_costs, student_costs)
    if half is not None and saved - half <= 0:
        return never(
            f"the saving of {_short(saved)} {unit} per use is within the noise of the measurement (± {_short(half)})"
        )
    uses = build / saved
    reason = (
        f"Each use saves {_short(saved)} {unit} against the {who}, so the {_short(build)} {unit} that it took to build "
        f"the student are saved again after {_short(math.ceil(uses))} uses"
    )
    if half is None:
        reason += "; a single window was measured, so there is no interval"
        return PaybackEstimate(saved_per_use=saved, uses=uses, low=None, high=None, reason=f"{reason}.")
    return PaybackEstimate(
        saved_per_use=saved, uses=uses, low=build / (saved + half), high=build / (saved - half), reason=f"{reason}."
    )


def _finite(name: str, values: Values) -> Floats:
    """The values as float64, refused where a mean would mean nothing."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} should hold at least one value in one dimension, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(
            f"{name} should be finite numbers, found {array[~np.isfinite(array)][0]}: check what gave them"
        )
    return array


def _costs(name: str, values: Sequence[float]) -> Floats:
    costs = _finite(name, values)
    if (costs < 0).any():
        raise InputError(f"{name} should be costs ≥ 0, found {costs.min()}: check the measurement")
    return costs


def _index_pair(first: str, a: Indices, second: str, b: Indices) -> tuple[Ints, Ints]:
    """Both as whole numbers of one shape, at least one."""
    arrays = []
    for name, values in ((first, a), (second, b)):
        array = np.asarray(values)
        if array.size and not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"{name} should be class indices, got {array.dtype}: take the argmax of scores first")
        arrays.append(array.astype(np.int64))
    if arrays[0].ndim != 1 or arrays[0].shape != arrays[1].shape or not len(arrays[0]):
        raise InputError(
            f"{first} and {second} should hold one index per item and at least one item, "
            f"got shapes {arrays[0].shape} and {arrays[1].shape}"
        )
    return arrays[0], arrays[1]


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


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


def _resamples(counts: npt.NDArray[Any], n_bootstrap: int, seed: int) -> Iterator[npt.NDArray[Any]]:
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
    sums = [drawn @ distinct for drawn in _resamples(counts, n_bootstrap, seed)]
    return _percentiles(np.concatenate(sums) / len(values_N))


def _percentiles(estimates: Floats) -> tuple[float, float]:
    low, high = np.percentile(estimates, [2.5, 97.5])
    return float(low), float(high)


def _macro_f1_of_pairs(pairs: Ints, counts: npt.NDArray[Any]) -> Floats:
    """Macro F1 of each row of counts (num_samples, num_pairs) of the pairs (2, num_pairs): prediction, label."""
    classes, flat = np.unique(pairs, return_inverse=True)
    columns = flat.reshape(pairs.shape)
    one_hot = np.eye(len(classes))
    sides = counts @ (one_hot[columns[0]] + one_hot[columns[1]])  # predicted plus support, per class
    right = counts @ (one_hot[columns[0]] * (pairs[0] == pairs[1])[:, None])
    f1 = 2 * right / np.maximum(sides, 1)
    occurs = sides > 0
    return np.asarray(f1.sum(axis=1) / occurs.sum(axis=1), dtype=np.float64)


def _t_quantile(degrees: float) -> float:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # comes with scikit-learn; most imports do not need it

    return float(stdtrit(degrees, 0.975))


def _welch_half_width(a: Floats, b: Floats) -> float | None:
    """Half the width of Welch's interval for the difference of two means; None if a side has one value."""
    if min(len(a), len(b)) < 2:
        return None
    square_a, square_b = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if square_a + square_b == 0:
        return 0.0
    degrees = (square_a + square_b) ** 2 / (square_a**2 / (len(a) - 1) + square_b**2 / (len(b) - 1))
    return _t_quantile(float(degrees)) * math.sqrt(square_a + square_b)


def _short(number: float) -> str:
    """Three significant digits, with thousands separated and without an exponent where people count."""
    if number >= 1000:
        digits = 3 - len(str(int(number)))
        return f"{round(number, digits):,.0f}"
    return f"{number:.3g}"
