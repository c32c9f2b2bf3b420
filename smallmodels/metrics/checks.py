"""What every metric asks of its arrays, and the types they have."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels.errors import InputError

Values = npt.NDArray[Any] | Sequence[float]
Indices = npt.NDArray[Any] | Sequence[int]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def finite(name: str, values: npt.ArrayLike) -> Floats:
    """The values as float64, refused where a mean would mean nothing."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} should hold at least one value in one dimension, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(
            f"{name} should be finite numbers, found {array[~np.isfinite(array)][0]}: check what gave them"
        )
    return array


def finite_pair(first: str, a: npt.ArrayLike, second: str, b: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64 of one length, one value per item."""
    ours, theirs = finite(first, a), finite(second, b)
    if ours.shape != theirs.shape:
        raise InputError(
            f"{first} and {second} should hold one value per item, got {len(ours)} and {len(theirs)}: "
            "compare two models on the same items"
        )
    return ours, theirs


def index_pair(first: str, a: Indices, second: str, b: Indices) -> tuple[Ints, Ints]:
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


def require_named(num_names: int, **indices: Ints) -> None:
    """Refuse an index that has no name."""
    for name, values in indices.items():
        if len(values) and (values.min() < 0 or values.max() >= num_names):
            raise InputError(
                f"{name} should be in [0, {num_names}), one index per label name, "
                f"found {values.min()} to {values.max()}: pass the names that belong to this model"
            )
