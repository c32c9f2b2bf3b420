"""A trial: a run that does a part of its work, to foretell what all of it takes. Standard library only.

While a trial is open, long loops do some pieces of their work, and note what the others would take at the cost of
these. So a forecast needs no second copy of a recipe: the recipe itself runs, on its own data, with its own settings.
Outside of a trial every loop does all of its work.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOOP_S = 3.0
"""A loop stops after so long, but not before some pieces are done."""
_MIN_PIECES, _MAX_PIECES = 4, 256
_WARM_UP = 0.1
"""Share of the pieces that are done first and tell nothing of the others: allocators and caches have to fill."""
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Cost:
    """What some work takes, as far as it is known."""

    duration_s: float = 0.0
    cpu_s: float = 0.0
    deviation_s: float = 0.0
    """Standard deviation of the duration, as far as the pieces that were done tell."""

    def __add__(self, other: "Cost") -> "Cost":
        deviation_s = math.hypot(self.deviation_s, other.deviation_s)
        return Cost(self.duration_s + other.duration_s, self.cpu_s + other.cpu_s, deviation_s)

    def __mul__(self, factor: float) -> "Cost":
        return Cost(self.duration_s * factor, self.cpu_s * factor, self.deviation_s * abs(factor))


@dataclass
class Piece:
    """A piece of work that was done."""

    cost: Cost = field(default_factory=Cost)
    """Of all of it, what was left out inside included; known after it."""


@dataclass(frozen=True)
class Built:
    """An entry of the cache that the run would build, so that a later run finds it there."""

    name: str
    """Equal for what two runs would share, though their trials made different teachers for want of steps."""
    cost: Cost
    num_bytes: int


class Trial:
    """What is done in part, and what is left out.

    Args:
        folder: For what would else be written into the cache.
        loop_s: Seconds after which a loop stops.
    """

    def __init__(self, folder: Path, *, loop_s: float = LOOP_S) -> None:
        self.synchronize: Callable[[], None] = lambda: None
        """Waits for the device."""
        self.late_bytes = 0
        """Of files that the run would have at its end or on its way, and the trial has not."""
        self.cache_bytes = 0
        """Likewise, of the cache."""
        self.built: list[Built] = []
        """Entries of the cache, in the order in which they were built."""
        self._names: dict[Path, str] = {}
        self._made_by: dict[str, str] = {}
        self._folder, self._loop_s = folder, loop_s
        self._left = [Cost()]
        self._taken_over: set[Path] = set()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let the loops of this block do a part of their work."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def take(self) -> Cost:
        """What was left out since the last call."""
        left, self._left[-1] = self._left[-1], Cost()
        return left

    def leave_out(self, cost: Cost) -> None:
        """Note what would have been done."""
        self._left[-1] += cost

    @contextlib.contextmanager
    def measured(self) -> Iterator[Piece]:
        """Measure a block, what is left out inside included."""
        piece = Piece()
        self.synchronize()
        self._left.append(Cost())
        begin, cpu = time.perf_counter(), time.process_time()
        try:
            yield piece
        finally:
            self.synchronize()
            left = self._left.pop()
            piece.cost = Cost(time.perf_counter() - begin, time.process_time() - cpu) + left
            self.leave_out(left)

    @contextlib.contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Do a block once that the run does so many times."""
        with self.measured() as piece:
            yield
        self.leave_out(piece.cost * (times - 1))

    def part(self, pieces: Sequence[T], size: Callable[[T], float], *, first: int | None = None) -> Iterator[T]:
        """Some of the pieces, from small to large ones, the largest first: it needs the most memory.

        Args:
            pieces: All of the work.
            size: What the cost of a piece goes with, such as its tokens; > 0.
            first: Look at so many alone, where they stand for the others; at all if None.
        """
        known = pieces if first is None else pieces[:first]
        sizes = [max(float(size(piece)), 1e-9) for piece in known]
        done: list[tuple[float, Cost]] = []
        begin = time.perf_counter()
        for place in _order(sizes):
            has_enough = len(done) >= _MIN_PIECES and time.perf_counter() - begin > self._loop_s
            if has_enough or len(done) == _MAX_PIECES:
                break
            with self.measured() as piece:
                yield known[place]
            done.append((sizes[place], piece.cost))
        in_all = sum(sizes) * len(pieces) / max(1, len(known))
        left = in_all - sum(size for size, _ in done)
        if left > 1e-6 * in_all:
            num_warm_up = math.ceil(_WARM_UP * len(done)) if len(done) > 1 else 0
            self.leave_out(_of_size(left, done[num_warm_up:]))

    def overlay(self, folder: Path, name: str = "") -> Path:
        """The folder that stands for one of the cache: with the same files, and whatever is written, the cache has not.

        Args:
            folder: Of an entry, which need not exist.
            name: Of the entry, see `Built`; that of the folder where it is left out.
        """
        stand_in = self._folder / folder.parent.name / folder.name
        self._names[stand_in] = name or folder.name
        if folder.is_dir() and not stand_in.exists():
            shutil.copytree(folder, stand_in, copy_function=_link)
            self._taken_over |= set(stand_in.rglob("*"))
        return stand_in

    @contextlib.contextmanager
    def building(self, stand_in: Path) -> Iterator[None]:
        """Measure the building of an entry, given the folder that stands for it."""
        cache_bytes, written = self.cache_bytes, self._new_bytes(stand_in)
        with self.measured() as piece:
            yield
        num_bytes = self._new_bytes(stand_in) - written + self.cache_bytes - cache_bytes
        self.built.append(Built(self._names[stand_in], piece.cost, num_bytes))

    def made(self, weights_sha256: str, stand_in: Path) -> None:
        """Note the entry that weights come from: trained in part, they are not those that the run would have."""
        self._made_by[weights_sha256] = self._names[stand_in]

    def origin(self, weights_sha256: str) -> str:
        """The entry that weights come from, else what was given."""
        return self._made_by.get(weights_sha256, weights_sha256)

    @property
    def written_bytes(self) -> int:
        """Of the files that the cache would have more."""
        return self._new_bytes(self._folder)

    def _new_bytes(self, folder: Path) -> int:
        new = set(folder.rglob("*")) - self._taken_over
        return sum(path.stat().st_size for path in new if path.is_file())


_CURRENT: ContextVar[Trial | None] = ContextVar("trial", default=None)


def current() -> Trial | None:
    """The open trial; None where all work is to be done."""
    return _CURRENT.get()


def part(pieces: Sequence[T], size: Callable[[T], float]) -> Iterable[T]:
    """All pieces of some work; in a trial a part of them, see `Trial.part`."""
    trial = current()
    return pieces if trial is None else trial.part(pieces, size)


def _order(sizes: Sequence[float]) -> list[int]:
    """Places in an order of which every beginning has small, middling and large ones; the largest first."""
    by_size = sorted(range(len(sizes)), key=lambda place: sizes[place])
    ranks = [int(len(sizes) * ((number * _GOLDEN) % 1)) for number in range(1, 4 * len(sizes) + 1)]
    return list(dict.fromkeys([*by_size[-1:], *(by_size[rank] for rank in ranks), *by_size]))


def _of_size(size: float, done: Sequence[tuple[float, Cost]]) -> Cost:
    """What work of this size takes, at the cost of what was done: a ratio estimate.

    Source: Cochran 1977, Sampling Techniques, section 6.4, for its standard error.
    """
    total = sum(part for part, _ in done)
    duration_s, cpu_s = sum(cost.duration_s for _, cost in done), sum(cost.cpu_s for _, cost in done)
    rate = duration_s / total
    if len(done) < 2:
        error = 0.5 * rate
    else:
        squares = sum((cost.duration_s - rate * part) ** 2 for part, cost in done)
        error = math.sqrt(squares / (len(done) - 1) * len(done)) / total
    return Cost(rate * size, cpu_s / total * size, error * size)


def _link(source: str, target: str) -> None:
    """The same file under another name, or where the disks differ a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
