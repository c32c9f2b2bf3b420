"""Several labels per text: F1, average precision, and from which probability on a label is given.

Shapes: N texts, C labels.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Floats, Ints
from smallmodels.metrics.f1 import macro_f1_of, ratios, table_of
from smallmodels.metrics.intervals import of_sums, percentiles, resamples
from smallmodels.records import Metric

Average = Literal["micro", "macro"]

Matrix = npt.NDArray[Any]


def multilabel_f1(
    predictions: npt.ArrayLike, labels: npt.ArrayLike, *, average: Average, n_bootstrap: int = 2000, seed: int = 0
) -> Metric:
    """F1 of all decisions together (micro), or its mean over the labels that occur or are predicted (macro).

    Args:
        predictions: Shape (num_texts, num_labels), 1 where a label is given, else 0.
        labels: Same shape, 1 where it is right.
        average: Which of the two.
        n_bootstrap: Resamples of texts behind the interval.
        seed: Of the resampling.

    Returns: In [0, 1]; 0 where no label occurs or is predicted.

    Raises: InputError if the shapes differ, there are no texts, or a value is neither 0 nor 1.
    """
    predictions_NC, labels_NC = _two_decisions(predictions, labels)
    counts_NC2 = np.stack([predictions_NC & labels_NC, predictions_NC + labels_NC], axis=-1)
    rows_NK = counts_NC2.sum(axis=1) if average == "micro" else counts_NC2.reshape(len(labels_NC), -1)
    distinct, counts = np.unique(rows_NK, axis=0, return_counts=True)

    def statistic(sums: Matrix) -> Floats:
        right_and_sides = sums.reshape(len(sums), -1, 2)
        return macro_f1_of(right_and_sides[..., 0], right_and_sides[..., 1])  # micro F1 is that of a single class

    return of_sums(distinct, counts, statistic, n_bootstrap=n_bootstrap, seed=seed)


def per_label_table(
    predictions: npt.ArrayLike, labels: npt.ArrayLike, label_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of every label.

    Args:
        predictions: Shape (num_texts, num_labels), 1 where a label is given, else 0.
        labels: Same shape, 1 where it is right.
        label_names: One per column.

    Returns: One row per label, as `per_class_table` gives them.

    Raises: InputError if the shapes do not fit, there are no texts, or a value is neither 0 nor 1.
    """
    predictions_NC, labels_NC = _two_decisions(predictions, labels)
    if len(label_names) != labels_NC.shape[1]:
        raise InputError(f"label_names should be one per label, got {len(label_names)} for {labels_NC.shape[1]}")
    right = (predictions_NC & labels_NC).sum(axis=0)
    return table_of(label_names, right, predictions_NC.sum(axis=0), labels_NC.sum(axis=0))


def average_precision(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    average: Average,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> Metric:
    """Area under the steps of the precision-recall curve: of all decisions together, or its mean over the labels.

    Args:
        probabilities: Shape (num_texts, num_labels); any scores will do, the higher the surer.
        labels: Same shape, 1 where a label is right, else 0.
        average: `micro` or `macro`, which leaves out labels that no text has.
        n_bootstrap: Resamples of texts behind the interval.
        seed: Of the resampling.

    Returns: In [0, 1], as scikit-learn's `average_precision_score` gives it.

    Raises: InputError if the shapes differ, a score is not a number, or no text has a label.

    Source: Davis and Goadrich 2006, doi:10.1145/1143844.1143874, without interpolation.
    """
    scores_NC, labels_NC = _scores_and_labels(probabilities, labels)
    if not labels_NC.any():
        raise InputError("one text or more should have a label, none has: average precision says nothing of them")
    num_texts, num_labels = labels_NC.shape
    # Each item is a decision on one text: its score, whether it is right, and the text that is resampled.
    items = np.repeat(np.arange(num_texts), num_labels).reshape(num_texts, num_labels)
    columns = np.flatnonzero(labels_NC.any(axis=0)) if average == "macro" else [slice(None)]
    ranked = [_Ranked(scores_NC[:, c].ravel(), labels_NC[:, c].ravel(), items[:, c].ravel()) for c in columns]

    def mean(counts_N: Ints) -> float:
        found = [value for one in ranked if (value := one.average_precision(counts_N)) is not None]
        return float(np.mean(found)) if found else 0.0

    value = mean(np.ones(num_texts, dtype=np.int64))
    if num_texts == 1:
        return Metric(value=value, low=None, high=None, n=1)
    samples = resamples(np.ones(num_texts, dtype=np.int64), n_bootstrap, seed)
    low, high = percentiles(np.asarray([mean(counts_N) for block in samples for counts_N in block]))
    return Metric(value=value, low=low, high=high, n=num_texts)


def choose_thresholds(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """For each label the probability from which on to give it, so that its F1 on these texts is the largest.

    Args:
        probabilities: Shape (num_texts, num_labels), of the validation split.
        labels: Same shape, 1 where a label is right, else 0.

    Returns: Shape (num_labels,). A label is predicted where `probabilities >= thresholds`. Half-way between two scores
        that occur; of several that are as good, the highest; 0.5 for a label that no text has.

    Raises: InputError if the shapes differ or a probability is not a number.
    """
    scores_NC, labels_NC = _scores_and_labels(probabilities, labels)
    return np.asarray([_best_threshold(s, t) for s, t in zip(scores_NC.T, labels_NC.T, strict=True)], dtype=np.float64)


def choose_threshold(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """`choose_thresholds` for all labels together: the one threshold with the largest micro F1."""
    scores_NC, labels_NC = _scores_and_labels(probabilities, labels)
    return _best_threshold(scores_NC.ravel(), labels_NC.ravel())


def _best_threshold(scores_N: Floats, labels_N: Ints) -> float:
    if not labels_N.any():
        return 0.5
    order = np.argsort(-scores_N, kind="stable")
    ranked, right = scores_N[order], np.cumsum(labels_N[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal scores are given together
    best = ends[np.argmax(2 * right[ends] / (ends + 1 + labels_N.sum()))]
    lowest = ranked[best]
    below = ranked[best + 1] if best + 1 < len(ranked) else min(0.0, lowest)
    middle = (lowest + below) / 2
    return float(middle if middle > below else lowest)


class _Ranked:
    """Decisions from the highest score to the lowest, cut after each score that a right one has."""

    def __init__(self, scores: Floats, labels: Ints, items: Ints) -> None:
        order = np.argsort(-scores, kind="stable")
        is_right = labels[order] == 1
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        groups, self._right_starts = np.unique(np.searchsorted(ends, np.flatnonzero(is_right)), return_index=True)
        cuts = ends[groups] + 1
        self._starts = np.append(0, cuts[:-1])
        self._items, self._right_items = items[order][: cuts[-1]], items[order][is_right]

    def average_precision(self, counts_N: Ints) -> float | None:
        """With each item so many times; None if none of them is right."""
        given = np.add.reduceat(counts_N[self._items], self._starts)
        right = np.add.reduceat(counts_N[self._right_items], self._right_starts)
        if not right.any():
            return None
        return float((right * ratios(np.cumsum(right), np.cumsum(given))).sum() / right.sum())


def _decisions(name: str, values: npt.ArrayLike) -> Ints:
    """A matrix of 0 and 1."""
    array = np.asarray(values)
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{name} should be 0 or 1 for each label, found other values: compare with a threshold")
    return array.astype(np.int64)


def _two_decisions(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Ints, Ints]:
    predictions_NC, labels_NC = _decisions("predictions", predictions), _decisions("labels", labels)
    _require_same_shape(predictions_NC, labels_NC, "predictions")
    return predictions_NC, labels_NC


def _scores_and_labels(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Ints]:
    scores_NC, labels_NC = np.asarray(probabilities, dtype=np.float64), _decisions("labels", labels)
    _require_same_shape(scores_NC, labels_NC, "probabilities")
    if not np.isfinite(scores_NC).all():
        raise InputError("probabilities should be finite numbers: check the model that gave them")
    return scores_NC, labels_NC


def _require_same_shape(a: Matrix, b: Matrix, name: str) -> None:
    if a.ndim != 2 or a.shape != b.shape or not a.size:
        raise InputError(
            f"{name} and labels should both have shape (num_texts, num_labels), got {a.shape} and {b.shape}"
        )
