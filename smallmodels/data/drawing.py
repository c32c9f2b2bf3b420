"""Which rows are held back, limited or counted: draws from a seed, and texts that occur twice."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import arrays
from smallmodels.arrays import Ragged
from smallmodels.data.splits import Labels, Split
from smallmodels.errors import InputError

VALIDATION_FRACTION, TEST_FRACTION = 0.1, 0.2
"""Of train, where the data set has no such split."""

Hashes = npt.NDArray[np.uint64]
Marks = npt.NDArray[np.bool_]


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Of the draws for one purpose."""
    return np.random.default_rng([abs(seed), *purpose.encode()])


def seed_for(seed: int, purpose: str) -> int:
    """A seed of its own for one purpose, in [0, 2^63)."""
    return int(generator(seed, purpose).integers(2**63))


def require_limits(least: int, **limits: int | None) -> None:
    """Refuse to keep fewer examples than a task needs; None keeps all."""
    for name, limit in limits.items():
        if limit is not None and limit < least:
            raise InputError(f"{name} must be at least {least}, got {limit}")


def stratified(labels: npt.NDArray[np.integer[Any]], count: int, generator: np.random.Generator) -> Marks:
    """Mark `count` rows so that every class gives its share; a class never gives its last row.

    Shares are rounded down, and what is left goes to the classes with the largest remainders.
    """
    sizes = np.bincount(labels)
    classes = np.flatnonzero(sizes)
    sizes = sizes[classes]
    wanted = sizes * (count / max(1, len(labels)))
    given = np.minimum(np.floor(wanted).astype(np.int64), sizes - 1)
    for index in np.argsort(np.floor(wanted) - wanted, kind="stable"):
        if given.sum() < count and given[index] < sizes[index] - 1:
            given[index] += 1
    marked = np.zeros(len(labels), dtype=bool)
    for label, number in zip(classes, given, strict=True):
        marked[generator.permutation(np.flatnonzero(labels == label))[:number]] = True
    return marked


def strata_of(labels: Labels) -> npt.NDArray[np.integer[Any]]:
    """What rows are drawn from in equal shares, shape (num_rows,).

    One class per row is that; of several labels, or those of words, the rarest stands for the row; scores are cut into
    tenths.
    """
    if isinstance(labels, Ragged):
        return _rarest(np.repeat(np.arange(len(labels)), labels.lengths), labels.values, len(labels))
    if labels.ndim == 2:
        rows, numbers = np.nonzero(labels)
        return _rarest(rows, numbers, len(labels))
    if labels.dtype.kind == "f":
        return np.searchsorted(np.quantile(labels, np.arange(1, 10) / 10), labels, side="right")
    return labels


def _rarest(
    rows: npt.NDArray[np.integer[Any]], labels: npt.NDArray[np.integer[Any]], num_rows: int
) -> npt.NDArray[np.int64]:
    """For each row the rank of its rarest label, 1 for the commonest of all; 0 for a row without labels."""
    ranks = np.argsort(np.argsort(-np.bincount(labels), kind="stable")) + 1
    found = np.zeros(num_rows, dtype=np.int64)
    np.maximum.at(found, rows, ranks[labels])
    return found


def note_overlap(splits: dict[str, Split], drop: bool, notes: dict[str, Any]) -> Split:
    """Count texts of train that stand in another split too, and leave them out of train if asked."""
    train = splits["train"]
    own = hashes_of(train.texts, train.seconds)
    overlap = {}
    for role in ("validation", "test"):
        overlap[role] = among(own, np.unique(hashes_of(splits[role].texts, splits[role].seconds)))
    notes["overlap"] = {f"train/{role}": int(found.sum()) for role, found in overlap.items()}
    notes["num_duplicates_in_train"] = len(own) - len(np.unique(own))
    kept = np.flatnonzero(~(overlap["validation"] | overlap["test"]))
    if not drop or len(kept) == len(own):
        return train
    notes["num_overlap_dropped_from_train"] = len(own) - len(kept)
    return train.take(kept)


def hashes_of(texts: Sequence[str], seconds: Sequence[str] | None = None) -> Hashes:
    """Eight bytes for each text or pair, white space around left out: of ten million no two collide, by all odds."""
    growing = arrays.Growing(np.uint64)
    rows = texts if seconds is None else (f"{a.strip()}\0{b.strip()}" for a, b in zip(texts, seconds, strict=True))
    for row in rows:
        content = row.strip().encode(errors="surrogatepass")
        growing.add(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))
    return growing.done()


def repeated(hashes: Hashes) -> Hashes:
    """Those that occur twice or more, sorted."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def among(hashes: Hashes, some: Hashes) -> Marks:
    """Which of the hashes are among some, which are sorted."""
    found = np.zeros(len(hashes), dtype=bool)
    for part, marks in zip(arrays.pieces(hashes), arrays.pieces(found), strict=True):
        if len(some):
            marks[:] = some[np.searchsorted(some, part).clip(max=len(some) - 1)] == part
    return found
