"""Sweeps: recipes and axes become runs, and the records of these runs are read back. Light to import.

A benchmark file says before its first run what is compared, by which metric, and which difference counts as none:

    from smallmodels.sweeps import Sweep

    SWEEP = Sweep(recipes=("recipes/x.py",), axes={"temperature": (1.0, 2.0), "seed": (0, 1, 2)},
                  metric="accuracy", margin=0.01)

or `SWEEPS`, a dictionary of several by name, see `in_turn`. `smallmodels sweep FILE` runs every cell, and `read` gives
their records.
"""

import itertools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from smallmodels import files, records
from smallmodels.errors import DamagedError, InputError, require

KEPT_FILES = (records.RECORD_NAME, records.PREDICTIONS_NAME, records.METRICS_NAME, records.JOURNAL_NAME)

SEED = "seed"
"""The axis along which cells repeat each other."""

_NAME_LENGTH = 120

Order = Literal["alternate", "blocks"]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: a recipe with a value for every axis."""

    recipe: str
    """As the sweep names it."""
    values: Mapping[str, Any]
    """By axis."""

    @property
    def name(self) -> str:
        """Of the recipe: that of its file."""
        return Path(self.recipe).stem

    @property
    def flags(self) -> list[str]:
        """What `smallmodels run` is told of it."""
        return [word for axis, value in self.values.items() for word in _flag(axis.replace("_", "-"), value)]

    @property
    def settings(self) -> list[str]:
        """Its place on the axes: `temperature=1.0`, `seed=0`."""
        return [f"{axis}={_text(value)}" for axis, value in self.values.items()]

    @property
    def folder_name(self) -> str:
        """A readable name for the folder of its runs: `x,temperature=1.0,seed=0`."""
        name = ",".join([self.name, *self.settings])
        readable = re.sub(r"[^A-Za-z0-9._,=+-]", "_", name)
        if readable == name and len(name) <= _NAME_LENGTH:
            return name
        mark, half = files.sha256_bytes(name.encode())[:8], _NAME_LENGTH // 2
        # both ends: the axes that change most, and the seed, are the last
        return f"{readable}~{mark}" if len(readable) <= _NAME_LENGTH else f"{readable[:half]}~{mark}~{readable[-half:]}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs that a benchmark compares, and what it declares before the first of them.

    Raises: InputError if something of it is empty, out of range, or there twice.
    """

    recipes: tuple[str, ...]
    """Names of shipped recipes, or files: absolute, or relative to the folder above that of the sweep's own file."""
    axes: Mapping[str, tuple[Any, ...]]
    """Values of settings that all recipes have, by the name of the flag with underscores: `learning_rate`, `seed`; or
    one of the options of a run that change no result: `accept_license`, `idle_seconds`, `inference_protocol`."""
    metric: str
    """Ranks: a key of the metrics in the results of every recipe (`METRICS` of a recipe file)."""
    margin: float
    """Difference in it below which two models count as equal; >= 0. It takes the place of the recipes' own."""
    order: Order = "alternate"
    """`alternate`: all recipes at each place on the axes, every other time in reverse (A B, B A, …), and all places
    with one seed before the next seed, so that a machine that warms up or slows down does so to all alike; `blocks`:
    one recipe after the other. But for the seed, the last axis changes first. See `in_turn` for several sweeps."""

    def __post_init__(self) -> None:
        for name, found in (("recipes", self.recipes), *((f"axis {axis}", v) for axis, v in self.axes.items())):
            if not isinstance(found, tuple) or not found:
                raise InputError(f"{name} of a sweep should be a tuple of one or more, got {found!r}")
        require(bool(self.metric), "metric of a sweep", "the name of one", repr(self.metric))
        require(self.margin >= 0, "margin of a sweep", ">= 0", self.margin)
        require(self.order in get_args(Order), "order of a sweep", " or ".join(get_args(Order)), self.order)
        names = [cell.folder_name for cell in self.cells()]
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise InputError(f"each cell of a sweep should be there once, but {twice[0]} is there twice")

    def cells(self) -> list[Cell]:
        """Every recipe with every combination of values, in the order in which they run."""
        places = [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]
        if self.order == "blocks":
            return [Cell(recipe, values) for recipe in self.recipes for values in places]
        seeds = self.axes.get(SEED, (None,))
        places.sort(key=lambda values: seeds.index(values.get(SEED)))
        turns = itertools.cycle((self.recipes, self.recipes[::-1]))
        return [Cell(recipe, values) for values, recipes in zip(places, turns, strict=False) for recipe in recipes]

    @property
    def takes_turns(self) -> bool:
        """Whether its cells may run between those of other sweeps: nothing in it is to be compared side by side."""
        return self.order == "alternate" and len(self.recipes) == 1

    def round_of(self, cell: Cell) -> int:
        """Place of a cell's seed among the seeds; 0 where there is no such axis."""
        return self.axes[SEED].index(cell.values[SEED]) if SEED in self.axes else 0


def in_turn(found: Mapping[str, Sweep]) -> list[tuple[str, Cell]]:
    """The cells of several sweeps in the order in which they run, each with the name of its sweep.

    A sweep of several recipes is a contest, whose runs belong side by side, and one in `blocks` asks to be left whole:
    these run where they stand in the file. The others run together, where the first of them stands, in rounds: the
    first seed of all, then the second of all, and every other round in reverse. So a machine that slows down does so
    to all of them, and not to the last ones.
    """
    together = {name: sweep for name, sweep in found.items() if sweep.takes_turns}
    order: list[tuple[str, Cell]] = []
    for name, sweep in found.items():
        if name not in together:
            order += [(name, cell) for cell in sweep.cells()]
        elif name == next(iter(together)):
            order += _rounds(together)
    return order


def _rounds(found: Mapping[str, Sweep]) -> Iterator[tuple[str, Cell]]:
    for number in range(max(len(sweep.axes.get(SEED, (None,))) for sweep in found.values())):
        for name in list(found)[:: -1 if number % 2 else 1]:
            yield from ((name, cell) for cell in found[name].cells() if found[name].round_of(cell) == number)


def _flag(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *(map(str, value) if isinstance(value, (tuple, list)) else [str(value)])]


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def read(*paths: Path | str) -> list[records.RunRecord]:
    """The records of complete runs, the oldest first.

    Args:
        paths: Files, or folders that hold `record.json` at any depth: that of a sweep, of a run, of published results.

    Raises:
        InputError: A path does not exist.
        DamagedError: A record is not valid.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path} should be a record or a folder with records, but does not exist: check the path")
        found += sorted(path.rglob(records.RECORD_NAME)) if path.is_dir() else [path]
    return sorted(map(records.read_record, found), key=lambda record: (record.started_utc, record.run_id))


# Who shared a machine


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A cell on a machine, as the worker that ran it there has noted."""

    cell: str
    """Name of its folder."""
    node: str
    """A hash of the machine's name."""
    owns_energy: bool
    """Whether its joules were measured; of several cells on a machine, only the first one's are."""
    started_utc: str
    ended_utc: str | None = None
    """None while it runs, or if it was killed."""

    def overlaps(self, started_utc: str, ended_utc: str | None) -> bool:
        """Whether the cell was there at some time between these two, the second of which may not be known."""
        return self.started_utc < (ended_utc or _LATE) and started_utc < (self.ended_utc or _LATE)


def read_stays(folder: Path) -> list[Stay]:
    """Which cell of a sweep was on which machine when; none where they ran one by one.

    Raises: DamagedError if a file is not what was written.
    """
    return [records.from_json(Stay, files.read_json(path)) for path in sorted(folder.glob("*/stay-*.json"))]


def shared_nodes(stays: Sequence[Stay]) -> dict[str, list[str]]:
    """For each cell that was on a machine together with others, these others: joules and times of all are doubtful."""
    found: dict[str, list[str]] = {}
    for one, other in itertools.permutations(stays, 2):
        is_together = one.overlaps(other.started_utc, other.ended_utc)
        if one.cell != other.cell and one.node == other.node and is_together:
            names = found.setdefault(one.cell, [])
            names += [other.cell] * (other.cell not in names)
    return found


def cells_beside(record: records.RunRecord, cell: str, stays: Sequence[Stay]) -> list[str]:
    """Cells that were on the machine of a run while the run was there.

    Args:
        record: Of the run.
        cell: Name of its folder.
        stays: Of all cells of its sweep; those of this cell in which another run of it was there do not count.
    """
    while_it_ran = [stay for stay in stays if stay.cell != cell or stay.overlaps(record.started_utc, record.ended_utc)]
    return sorted(shared_nodes(while_it_ran).get(cell, []))


_LATE = "9999"
"""After any time of ours."""


def keep(run: Path, target: Path) -> None:
    """Copy what is kept of a complete run: record, predictions, metrics and journal; never weights."""
    target.mkdir(parents=True, exist_ok=True)
    for name in KEPT_FILES:
        if (run / name).is_file():
            shutil.copyfile(run / name, target / name)


def read_declaration(path: Path) -> records.Declaration:
    """What a sweep has declared, from the file that it wrote for its runs.

    Raises:
        InputError: There is no such file.
        DamagedError: It is not what was written.
    """
    if not path.is_file():
        raise InputError(f"{path} should be the file that a sweep wrote for its runs, but does not exist")
    try:
        return records.from_json(records.Declaration, files.read_json(path))
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from None
