"""How high the right documents stand among all. Shapes: Q queries, D documents."""

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Floats, Indices


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
