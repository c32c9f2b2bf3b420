"""One class per item: accuracy, agreement with the teacher, F1, calibration.

Shapes: N test items, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Floats, Indices, index_pair, require_named
from smallmodels.metrics.f1 import macro_f1_of, table_of
from smallmodels.metrics.intervals import mean_with_interval, of_sums
from smallmodels.records import Metric


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
    predictions_N, labels_N = index_pair("predictions", predictions, "labels", labels)
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
    ours_N, teachers_N = index_pair("predictions", predictions, "teacher_predictions", teacher_predictions)
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
    predictions_N, labels_N = index_pair("predictions", predictions, "labels", labels)
    # An item matters only through its pair (prediction, label), so pairs are resampled with their counts.
    pairs, counts = np.unique(np.stack([predictions_N, labels_N]), axis=1, return_counts=True)
    classes, flat = np.unique(pairs, return_inverse=True)
    predicted, labelled = np.eye(len(classes))[flat.reshape(pairs.shape)]
    rows = np.concatenate([predicted * labelled, predicted + labelled], axis=1)

    def statistic(sums: Floats) -> Floats:
        return macro_f1_of(sums[:, : len(classes)], sums[:, len(classes) :])

    return of_sums(rows, counts, statistic, n_bootstrap=n_bootstrap, seed=seed)


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
    predictions_N, labels_N = index_pair("predictions", predictions, "labels", labels)
    num_classes = len(label_names)
    require_named(num_classes, predictions=predictions_N, labels=labels_N)
    right = np.bincount(labels_N[predictions_N == labels_N], minlength=num_classes)
    predicted = np.bincount(predictions_N, minlength=num_classes)
    support = np.bincount(labels_N, minlength=num_classes)
    return table_of(label_names, right, predicted, support)


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
    predictions_N, labels_N = index_pair("predictions", probabilities_NC.argmax(axis=1), "labels", labels)
    confidence_N = probabilities_NC.max(axis=1)
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    gap_N = (predictions_N == labels_N) - confidence_N
    return float(np.abs(np.bincount(bin_N, weights=gap_N, minlength=bins)).sum() / len(labels_N))
