"""Columns of strings that need not fit into memory: texts on disk, and ids that are made when they are asked for."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from smallmodels import arrays

_TEXTS_AT_ONCE = 1 << 12

Column = Sequence[str]
"""A list, or one of the classes below; `take` takes rows of any."""


class Texts(Sequence[str]):
    """Texts one after the other in UTF-8, decoded when they are read; a slice is a list.

    Args:
        content: All bytes.
        offsets: Text i is `content[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, content: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self._content, self._offsets = content, offsets

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """Texts that come one by one."""
        growing = GrowingTexts()
        for text in texts:
            growing.append(text)
        return growing.done()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return _slice(self, place, self._read)
        return self._read(*_span(self, place))[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _TEXTS_AT_ONCE):
            yield from self._read(start, min(start + _TEXTS_AT_ONCE, len(self)))

    def __eq__(self, other: object) -> bool:
        return _is_same(self, other)

    def _read(self, start: int, stop: int) -> list[str]:
        ends = self._offsets[start : stop + 1].tolist()
        content = self._content[ends[0] : ends[-1]].tobytes()
        places = [end - ends[0] for end in ends]
        return [content[a:b].decode(errors="surrogatepass") for a, b in itertools.pairwise(places)]

    def take(self, indices: npt.NDArray[np.int64]) -> "Texts":
        """These texts, in this order."""
        return Texts(*arrays.take_rows(self._content, self._offsets, indices))

    def save(self, folder: Path) -> None:
        """Write the texts."""
        arrays.save(folder / "content.npy", self._content)
        arrays.save(folder / "offsets.npy", self._offsets)

    @classmethod
    def load(cls, folder: Path) -> "Texts":
        """Read what `save` wrote."""
        return cls(arrays.load(folder / "content.npy"), arrays.load(folder / "offsets.npy"))


class GrowingTexts:
    """Texts to append to."""

    def __init__(self) -> None:
        self._rows, self._waiting = arrays.GrowingRows(np.uint8), list[bytes]()

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._waiting.append(text.encode(errors="surrogatepass"))
        if len(self._waiting) >= _TEXTS_AT_ONCE:
            self._write()

    def done(self) -> Texts:
        """All texts."""
        self._write()
        return Texts(*self._rows.done())

    def _write(self) -> None:
        content = np.frombuffer(b"".join(self._waiting), dtype=np.uint8)
        self._rows.append(content, [len(text) for text in self._waiting])
        self._waiting = []


class RowIds(Sequence[str]):
    """Names of rows: `train/17` for number 17 of `train`; a slice is a list.

    Args:
        name: Before the number.
        numbers: Of the rows.
    """

    def __init__(self, name: str, numbers: npt.NDArray[np.int64]) -> None:
        self._name, self._numbers = name, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return _slice(self, place, self._read)
        return f"{self._name}/{self._numbers[place]}"

    def __eq__(self, other: object) -> bool:
        return _is_same(self, other)

    def _read(self, start: int, stop: int) -> list[str]:
        return [f"{self._name}/{number}" for number in self._numbers[start:stop].tolist()]

    def take(self, indices: npt.NDArray[np.int64]) -> "RowIds":
        """These names, in this order."""
        return RowIds(self._name, arrays.take(self._numbers, indices))

    def save(self, folder: Path) -> None:
        """Write the numbers."""
        (folder / "name.txt").write_text(self._name, encoding="utf-8")
        arrays.save(folder / "numbers.npy", self._numbers)

    @classmethod
    def load(cls, folder: Path) -> "RowIds":
        """Read what `save` wrote."""
        return cls((folder / "name.txt").read_text(encoding="utf-8"), arrays.load(folder / "numbers.npy"))


def take(column: Column, indices: npt.NDArray[np.int64]) -> Column:
    """These rows of a column, in this order."""
    return column.take(indices) if isinstance(column, Texts | RowIds) else [column[i] for i in indices]


def _span(column: Column, place: int) -> tuple[int, int]:
    number = range(len(column))[place]  # counts from the end where negative; IndexError beyond
    return number, number + 1


def _slice(column: Column, wanted: slice, read: Callable[[int, int], list[str]]) -> list[str]:
    start, stop, step = wanted.indices(len(column))
    return read(start, max(start, stop)) if step == 1 else [column[i] for i in range(start, stop, step)]


def _is_same(column: Column, other: Any) -> bool:
    if not isinstance(other, Sequence) or len(other) != len(column):
        return False
    return all(a == b for a, b in zip(column, other, strict=True))
