"""Embeddings of the texts of pairs, and how near they are to each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import models
from smallmodels.data.splits import Split
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

Embeddings = npt.NDArray[np.float32]


def pair_similarities(
    model: TextModel, split: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> npt.NDArray[np.float64]:
    """Cosine of the embeddings of the two texts of each pair, shape (num_pairs,).

    Args:
        model: An embedder, which cuts the texts into tokens itself.
        split: Of pairs.
        compute: Device and number format.
        context: Of the run.
    """
    return cosines(*embed_pairs(model, split, compute, context))


def embed_pairs(
    model: TextModel, split: Split, compute: Compute | None, context: Context
) -> tuple[Embeddings, Embeddings]:
    """Embeddings of the first and of the second texts."""
    assert split.seconds is not None, "pairs have a second text"
    texts = [*split.texts, *split.seconds]
    embeddings_ND = models.forward_texts(model, texts, compute=compute, context=context)
    return embeddings_ND[: len(split)], embeddings_ND[len(split) :]


def cosines(one_ND: npt.NDArray[Any], two_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of the angle between the embeddings in each row, shape (N,); a vector of zeros is at 0 from everything."""
    one_ND, two_ND = one_ND.astype(np.float64), two_ND.astype(np.float64)
    lengths = np.linalg.norm(one_ND, axis=1) * np.linalg.norm(two_ND, axis=1)
    return np.asarray((one_ND * two_ND).sum(1) / np.maximum(lengths, 1e-12))
