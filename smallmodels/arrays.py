"""Arrays that need not fit into memory: made piece by piece, and kept in a file without a name once they are large.

What is read from such a file is mapped: the system reads pages as they are needed and drops them when memory is short.
"""

import io
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from smallmodels import entries

LARGE_BYTES = 1 << 22
"""An array up to here stays in memory; a million tokens are as many."""

_ROWS_AT_ONCE = 1 << 13

Array = npt.NDArray[Any]


class Growing:
    """An array to append to; `done` gives it, read-only.

    Its file is in the cache folder and has no name, so that nothing is left of it, whatever ends this process.

    Args:
        dtype: Of its numbers.
        row: Shape of one row; empty for plain numbers.

    Raises: RunInterruptedError if the disk is full; InputError if nothing can be written there.
    """

    def __init__(self, dtype: npt.DTypeLike, row: tuple[int, ...] = ()) -> None:
        self._dtype, self._row = np.dtype(dtype), row
        self._file: IO[bytes] = io.BytesIO()
        self._waiting: list[Any] = []

    def add(self, row: Any) -> None:
        """Add one row at the end."""
        self._waiting.append(row)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._write_waiting()

    def append(self, rows: npt.ArrayLike) -> None:
        """Add rows at the end."""
        self._write_waiting()
        self._write(rows)

    def _write_waiting(self) -> None:
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []

    def _write(self, rows: npt.ArrayLike) -> None:
        content = np.ascontiguousarray(rows, dtype=self._dtype).reshape(-1).view(np.uint8)
        with entries.writing(entries.cache_folder()):
            if isinstance(self._file, io.BytesIO) and self._file.tell() + content.nbytes > LARGE_BYTES:
                file = _nameless_file()
                file.write(self._file.getbuffer())
                self._file = file
            self._file.write(content.data)

    def done(self) -> Array:
        """All rows, shape (num_rows, *row); mapped from the file where they are many."""
        self._write_waiting()
        if isinstance(self._file, io.BytesIO):
            content: Any = self._file.getvalue()
        else:
            with entries.writing(entries.cache_folder()):
                self._file.flush()
            content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self._file.close()  # the map keeps what it needs
        return np.frombuffer(content, dtype=self._dtype).reshape(-1, *self._row)


def _nameless_file() -> IO[bytes]:
    """In the cache, which is a disk as far as anybody knows; in the system's temporary folder if it is read-only."""
    folder = entries.cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()


def kept(array: Array) -> Array:
    """The same numbers, read-only and out of memory where they are many."""
    growing = Growing(array.dtype, array.shape[1:])
    growing.append(array)
    return growing.done()


def differences(array: Array) -> Array:
    """`np.diff(array)`, out of memory where it is large."""
    growing = Growing(array.dtype)
    for start in range(0, len(array) - 1, _ROWS_AT_ONCE):
        growing.append(np.diff(array[start : start + _ROWS_AT_ONCE + 1]))
    return growing.done()


def take(array: Array, indices: Array) -> Array:
    """`array[indices]`, out of memory where it is large."""
    growing = Growing(array.dtype, array.shape[1:])
    for part in pieces(indices):
        growing.append(array[part])
    return growing.done()


def join(one: Array, two: Array) -> Array:
    """The rows of both, one after the other, out of memory where they are many."""
    growing = Growing(one.dtype, one.shape[1:])
    for array in (one, two):
        for part in pieces(array):
            growing.append(part)
    return growing.done()


def pieces(array: Array) -> Iterator[Array]:
    """An array in slices of so many rows that a few copies of one cost no memory to speak of."""
    for start in range(0, len(array), _ROWS_AT_ONCE):
        yield array[start : start + _ROWS_AT_ONCE]


class GrowingRows:
    """Rows of different lengths to append to, one after the other in a flat array.

    Args:
        dtype: Of their numbers.
        value: Shape of one value of a row; empty for plain numbers.
    """

    def __init__(self, dtype: npt.DTypeLike, value: tuple[int, ...] = ()) -> None:
        self._values, self._offsets, self._end = Growing(dtype, value), Growing(np.int64), 0
        self._offsets.append([0])

    def append(self, values: npt.ArrayLike, lengths: npt.ArrayLike) -> None:
        """Add rows that lie one after the other, with the length of each."""
        ends = self._end + np.cumsum(lengths, dtype=np.int64)
        self._values.append(values)
        self._offsets.append(ends)
        self._end = int(ends[-1]) if len(ends) else self._end

    def done(self) -> tuple[Array, npt.NDArray[np.int64]]:
        """All values, and offsets: row i is `values[offsets[i]:offsets[i + 1]]`."""
        return self._values.done(), self._offsets.done()


def take_rows(values: Array, offsets: npt.NDArray[np.int64], indices: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """These rows of different lengths, in this order, as `GrowingRows` gives them."""
    growing = GrowingRows(values.dtype, values.shape[1:])
    for part in pieces(indices):
        begins = offsets[part]
        lengths = offsets[part + 1] - begins
        moved = begins - (np.cumsum(lengths) - lengths)  # of each row, from its place in the new array to its old one
        growing.append(values[np.arange(lengths.sum()) + np.repeat(moved, lengths)], lengths)
    return growing.done()


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, such as a label for each word of each text."""

    values: Array
    """Shape (num_values, …), row after row."""
    offsets: npt.NDArray[np.int64]
    """Shape (num_rows + 1,): row i is `values[offsets[i]:offsets[i + 1]]`."""

    @classmethod
    def of(cls, rows: Sequence[npt.ArrayLike], dtype: npt.DTypeLike) -> "Ragged":
        """Rows that are in memory."""
        growing = GrowingRows(dtype)
        for row in rows:
            growing.append(row, [len(np.asarray(row))])
        return cls(*growing.done())

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Values of each row."""
        return differences(self.offsets)

    def take(self, indices: Array) -> "Ragged":
        """These rows, in this order."""
        return Ragged(*take_rows(self.values, self.offsets, indices))

    def join(self, other: "Ragged") -> "Ragged":
        """These rows, and then those of the other."""
        return Ragged(join(self.values, other.values), join(self.offsets, other.offsets[1:] + self.offsets[-1]))

    def first(self, indices: Array, counts: Array) -> Array:
        """The first values of these rows, so many of each, one row after the other."""
        begins = self.offsets[indices]
        return np.concatenate([self.values[b : b + c] for b, c in zip(begins, counts, strict=True)])


def save(path: Path, array: Array) -> None:
    """Write an array."""
    np.save(path, array, allow_pickle=False)


def load(path: Path) -> Array:
    """Read what `save` wrote, mapped where it is large."""
    is_large = path.stat().st_size > LARGE_BYTES
    found: Array = np.load(path, mmap_mode="r" if is_large else None, allow_pickle=False)
    return found
