"""Sweeps: recipes and axes become runs, and the records of these runs are read back. Light to import.

A benchmark file says before its first run what is compared, by which metric, and which difference counts as none:

    from smallmodels.sweeps import Sweep

    SWEEP = Sweep(recipes=("recipes/x.py",), axes={"temperature": (1.0, 2.0), "seed": (0, 1, 2)},
                  metric="accuracy", margin=0.01)

or `SWEEPS`, a dictionary of several by name. `smallmodels sweep FILE` runs every cell, and `read` gives their records.
What was paid for runs that left none, because they failed or were interrupted, is what `read_unfinished` gives.
"""

import itertools
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from smallmodels import files, records
from smallmodels.errors import DamagedError, InputError, require

T = TypeVar("T")

KEPT_FILES = (records.RECORD_NAME, records.PREDICTIONS_NAME, records.METRICS_NAME, records.JOURNAL_NAME)

UNFINISHED_NAME = "unfinished.json"
"""In the folder of a sweep."""
SEED = "seed"
"""The axis along which cells repeat each other."""

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
        readable = re.sub(r"[^A-Za-z0-9._,=+-]", "_", name)[:120]
        return readable if readable == name else f"{readable}~{files.sha256_bytes(name.encode())[:8]}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs that a benchmark compares, and what it declares before the first of them.

    Raises: InputError if something of it is empty, out of range, or there twice.
    """

    recipes: tuple[str, ...]
    """Names of shipped recipes, or files: absolute, or relative to the folder above that of the sweep's own file."""
    axes: Mapping[str, tuple[Any, ...]]
    """Values of settings that all recipes have, by the name of the flag with underscores: `learning_rate`, `seed`; or
    `inference_protocol`, which is an option of the run."""
    metric: str
    """Ranks, higher being better: a key of the metrics in the results of every recipe."""
    margin: float
    """Difference in it below which two models count as equal; >= 0. It takes the place of the recipes' own."""
    order: Order = "alternate"
    """`alternate`: all recipes at each place on the axes, every other time in reverse (A B, B A, …), and all places
    with one seed before the next seed, so that a machine that warms up or slows down does so to all alike; `blocks`:
    one recipe after the other. But for the seed, the last axis changes first."""

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


# What left no record


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run of a sweep that failed or was interrupted, and what it had cost by then; that is part of the account."""

    cell: str
    """Name of its folder, which tells recipe and settings."""
    run: str
    """Name of the folder of the run."""
    recipe: str
    state: str
    """For people: `failed, exit 1`, `stopped`, `interrupted`."""
    duration_s: float | None
    cpu_s: float | None
    energy_j: float | None
    """None where it was not measured, or the journal is gone."""
    label: records.EnergyLabel


def read_unfinished(*paths: Path | str) -> list[Unfinished]:
    """What runs of sweeps cost that have left no record.

    Args:
        paths: Folders, of sweeps or of what holds them at any depth; others have none.

    Raises: DamagedError if a sweep's file is not what was written.
    """
    found = [file for path in map(Path, paths) for file in sorted(path.rglob(UNFINISHED_NAME)) if path.is_dir()]
    return [line for file in found for line in _read_lines(file, Unfinished)]


def write_unfinished(folder: Path, lines: Sequence[Unfinished]) -> None:
    """Write what `read_unfinished` reads into the folder of a sweep; no file where there is nothing to tell."""
    path = folder / UNFINISHED_NAME
    if lines or path.exists():
        files.write_json(path, records.to_json(list(lines)))


def _read_lines(path: Path, kind: type[T]) -> list[T]:
    content = files.read_json(path)
    if not isinstance(content, list):
        raise DamagedError(f"{path} should be a list, but is none: run the sweep again, which writes it anew")
    try:
        return [records.from_json(kind, line) for line in content]
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from None


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


def read_stays(folder: Path) -> list[Stay]:
    """Which cell of a sweep was on which machine when; none where they ran one by one.

    Raises: DamagedError if a file is not what was written.
    """
    return [records.from_json(Stay, files.read_json(path)) for path in sorted(folder.glob("*/stay-*.json"))]


def shared_nodes(stays: Sequence[Stay]) -> dict[str, list[str]]:
    """For each cell that was on a machine together with others, these others: joules and times of all are doubtful."""
    found: dict[str, list[str]] = {}
    for one, other in itertools.permutations(stays, 2):
        overlap = one.started_utc < (other.ended_utc or _LATE) and other.started_utc < (one.ended_utc or _LATE)
        if one.cell != other.cell and one.node == other.node and overlap:
            names = found.setdefault(one.cell, [])
            names += [other.cell] * (other.cell not in names)
    return found


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
