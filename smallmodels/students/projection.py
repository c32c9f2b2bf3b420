"""Embeddings of fewer dimensions: a dense layer that starts as the principal axes of the teacher's.

Legend: N texts, D dimensions of the teacher's embeddings, E of the new ones.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smallmodels import arrays, models
from smallmodels.data.splits import Split
from smallmodels.errors import InputError, require
from smallmodels.models import Dense, Embedder
from smallmodels.students.student import Student

Floats = npt.NDArray[np.floating[Any]]


def principal_axes(embeddings_ND: Floats, num_dimensions: int) -> npt.NDArray[np.float32]:
    """Directions in which embeddings differ most, the first the most: those of a principal component analysis.

    They are to be used without taking the mean off, because a dense layer sees vectors before they have length 1. Axes
    about the origin, whose first one is little but the mean, were worse on the dev split of STS-B at every number of
    dimensions that was tried.

    Args:
        embeddings_ND: Shape (num_texts, D), of a teacher.
        num_dimensions: E, at most D and the number of texts.

    Returns: Shape (D, E), columns of length 1 at right angles; `embeddings_ND @ axes` are the new embeddings.
    Raises: InputError if there are fewer dimensions or texts.
    Source: Pearson 1901, doi:10.1080/14786440109462720.
    """
    most = min(embeddings_ND.shape)
    require(1 <= num_dimensions <= most, "dimensions", f"in 1 … {most}, those of the teacher", num_dimensions)
    mean = np.mean(embeddings_ND, axis=0, dtype=np.float64)
    products = sum((part - mean).T @ (part - mean) for part in arrays.pieces(embeddings_ND))
    _, vectors = np.linalg.eigh(products)
    axes = vectors[:, ::-1][:, :num_dimensions]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], axis=0)  # the sign of an axis is no one's choice
    return np.asarray(axes * np.sign(largest), dtype=np.float32)


def along_axes(split: Split, axes_DE: npt.NDArray[np.float32]) -> Split:
    """A split with the teacher's embeddings along these axes in place of the embeddings themselves."""
    assert isinstance(split.teacher, np.ndarray), "embeddings of whole texts"
    return dataclasses.replace(split, teacher=split.teacher @ axes_DE)


def project(student: Student, axes_DE: npt.NDArray[np.float32]) -> Student:
    """Put a dense layer behind a student, so that it begins with its embeddings along these axes.

    A last dense layer that is linear becomes one with it.

    Args:
        student: An embedder; it is not changed.
        axes_DE: As `principal_axes` gives them.

    Raises: InputError if its embeddings are not as wide as the axes.
    """
    small = student.copy()
    embedder = small.model
    assert isinstance(embedder, Embedder), "only embeddings can be projected"
    layers, axes = embedder.dense_layers, torch.from_numpy(np.ascontiguousarray(axes_DE))
    width = layers[-1].out_features if layers else int(embedder.config.hidden_size)
    if width != len(axes):
        raise InputError(
            f"the student's embeddings should have the {len(axes)} dimensions of the teacher's, found {width}: keep "
            "layers of that teacher"
        )
    before = layers.pop() if layers and layers[-1].activation == "identity" else None
    weight = axes.T if before is None else axes.T @ before.weight.detach()
    has_bias = before is not None and before.bias is not None
    layer = Dense(weight.shape[1], weight.shape[0], bias=has_bias)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if before is not None and before.bias is not None:
            layer.bias.copy_(axes.T @ before.bias)
    embedder.projection = models.projection_of([*layers, layer])
    return dataclasses.replace(small, notes={**student.notes, "dimensions": axes.shape[1]})
