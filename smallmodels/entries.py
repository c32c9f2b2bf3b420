"""Entries of the cache: addressed by what made them, built by one process at once, kept with what they cost.

The cache is the only place outside a run that is written to, beside the hub's own.
"""

import contextlib
import dataclasses
import errno
import os
import shutil
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from smallmodels import files, folders, trials
from smallmodels.energy.readings import MISSING, EnergyReading
from smallmodels.errors import DamagedError, InputError, PolicyError, RunInterruptedError
from smallmodels.phases import Context, Counts
from smallmodels.records import Component

T = TypeVar("T")

ENTRY = "entry.json"
"""In the folder of an entry: what made it, and what it cost."""
PAYER = "payer.json"
"""In the folder of a phase that uses entries: the name under which it pays."""
_LOCK_WAIT_S = 3600.0


def cache_folder() -> Path:
    """`$SMALLMODELS_CACHE`, else `smallmodels` in the user's cache folder."""
    if chosen := os.environ.get("SMALLMODELS_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "smallmodels"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "smallmodels"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "smallmodels"


def address(key: Mapping[str, Any], cache: Path | None) -> Path:
    """The folder of the entry that these parts make; in a trial, one that stands for it."""
    folder = (cache or cache_folder()) / str(key["what"]).replace(" ", "-") / files.sha256_json(key)[:40]
    if (trial := trials.current()) is None:
        return folder
    made_by = {"weights": trial.origin(key["weights"])} if "weights" in key else {}
    return trial.overlay(folder, files.sha256_json({**key, **made_by}))


def read_or_build(folder: Path, read: Callable[[], T | None], build: Callable[[], T], context: Context) -> T:
    """Read an entry, or build it while nobody else does.

    Reading takes no lock and writes nothing, so a cache on a disk that is read-only or has no locks can be used.

    Args:
        folder: Of the entry.
        read: Gives None if the entry is not whole; called again once the lock is held.
        build: Makes the entry whole.
        context: Hears about waiting.

    Raises:
        InputError: It has to be built, and the cache cannot be written.
        PolicyError: Another process builds it for more than an hour, or the disk has no locks.
    """
    found = read()
    if found is not None:
        return found
    with _lock(folder, context):
        found = read()  # whoever held the lock before may have built it
        if found is not None:
            return found
        with trial.building(folder) if (trial := trials.current()) else contextlib.nullcontext():
            return build()


@contextlib.contextmanager
def _lock(folder: Path, context: Context) -> Iterator[None]:
    """Hold a lock that the system releases when its process ends; wait for another builder."""
    path = folder.parent / f".{folder.name}.lock"
    with contextlib.ExitStack() as stack:
        with writing(folder.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("w"))
        deadline, told = time.monotonic() + _LOCK_WAIT_S, False
        while True:
            try:
                folders.lock_file(file)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                    raise PolicyError(
                        f"the cache in {folder.parent} should be on a disk with locks, but {error.strerror}: "
                        "point SMALLMODELS_CACHE to a local disk"
                    ) from error
                if not told:
                    context.event("waiting", "another process is building the same cache entry")
                    told = True
                if context.should_stop():
                    raise RunInterruptedError(
                        "the run stopped while it waited for a cache entry, and can be resumed"
                    ) from None
                if time.monotonic() > deadline:
                    raise PolicyError(
                        f"{path.name} should become free, but another process holds it: end that one"
                    ) from None
                time.sleep(0.2)
        yield


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one sentence what keeps the block from writing below this folder of the cache.

    Raises:
        RunInterruptedError: The disk is full; what is there already is used when the run resumes.
        InputError: The folder cannot be written at all.
    """
    try:
        yield
    except Exception as error:
        if files.is_disk_full(error):
            raise RunInterruptedError(
                f"the disk of the cache in {folder} is full, and what was finished is kept: "
                "make room and resume, or point SMALLMODELS_CACHE to a larger disk"
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise _not_writable(folder, error) from error
        if isinstance(error, FileExistsError):  # a file where a folder should be
            raise _not_writable(folder, error) from error
        raise


def _not_writable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"the cache in {folder} should be writable, because it does not hold what this run needs, "
        f"but {(error.strerror or str(error)).lower()}: mend that, or point SMALLMODELS_CACHE to another folder"
    )


def require_space(num_bytes: int, what: str, *places: Path) -> str:
    """Refuse what the disks of these folders, which need not exist yet, have no room for; each gets its own copy.

    Returns: One sentence with what is needed and the least that is free.

    Raises: InputError in one sentence with what is needed and what is free.
    """
    existing = [next(folder for folder in (place, *place.absolute().parents) if folder.exists()) for place in places]
    copies = Counter(folder.stat().st_dev for folder in existing)
    for place, folder in zip(places, existing, strict=True):
        needed, free = num_bytes * copies[folder.stat().st_dev], shutil.disk_usage(folder).free
        if free < needed:
            raise InputError(
                f"{what} needs {_megabytes(needed)} MB of disk, but {_megabytes(free)} MB are free in {place}: "
                "make room, or point SMALLMODELS_CACHE and --out to a larger disk"
            )
    least = min(shutil.disk_usage(folder).free for folder in existing)
    in_all = _megabytes(num_bytes * len(places))
    return f"{what[0].upper()}{what[1:]} needs {in_all} MB of disk; {_megabytes(least)} MB are free."


def free_bytes(place: Path) -> int:
    """On the disk of a folder that need not exist yet."""
    return shutil.disk_usage(next(f for f in (place, *place.absolute().parents) if f.exists())).free


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f}" if num_bytes >= 10e6 else f"{num_bytes / 1e6:,.2f}"


# What an entry cost


@dataclasses.dataclass
class Part:
    """What one payer spent on an entry."""

    payer: str | None
    """A phase of a run; None outside runs."""
    began: EnergyReading
    """The payer's clocks and joules when it began with the entry."""
    spent: EnergyReading
    """Since then, as of the last note."""
    work: dict[str, float]
    """What it counted in that time, see `Counts`; empty before the first note."""


class Share:
    """What a phase spends on one of several entries that it makes in turns.

    Args:
        context: Of the phase.
    """

    def __init__(self, context: Context) -> None:
        self.spent = EnergyReading()
        self.work = dict.fromkeys(_work(context.counts), 0.0)
        self._context = context

    @contextlib.contextmanager
    def paying(self) -> Iterator[None]:
        """Count what the block spends, and the work that it does."""
        before, work = _clock(self._context), _work(self._context.counts)
        try:
            yield
        finally:
            self.spent += _clock(self._context) - before
            now = _work(self._context.counts)
            self.work = {name: done + now[name] - work[name] for name, done in self.work.items()}


class Bill:
    """What an entry cost, in one part for each phase that paid for it.

    A phase that was killed and goes on has one part: the journal of its run knows what the killed process paid, up to
    a tick, so the part is all that the phase spent since it first began with the entry, work that was lost included.
    A run that was killed and never goes on leaves the part that it had noted last; what it lost after that is known to
    its own journal only, and a run that finished no shard leaves no part. Whoever uses the entry owes the parts of the
    others, also where it builds the rest itself or mends a damaged shard, which makes it one more payer.

    Args:
        parts: Of an entry that is there, as `to_json` wrote them.
        context: Of the phase that uses the entry.
        only_own: Leave out what others paid, because nothing that they made is left.
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]], context: Context, *, only_own: bool = False) -> None:
        self._context, self._payer = context, _payer(context)
        found = [_part_from_json(part) for part in parts]
        self.parts = [part for part in found if self._is_own(part) or not only_own]
        self._own: Part | None = None

    def begin(self, *, since_phase_began: bool = False) -> None:
        """Pay from here on, or since the phase began, where it goes on from checkpoints of its own."""
        reading = self._context.energy()
        mine = [part for part in self.parts if self._is_own(part)]
        if mine and reading is not None:
            self._own = mine[0]
        else:
            began = EnergyReading() if since_phase_began and reading is not None else reading or _process_clock()
            self._own = Part(self._payer, began, EnergyReading(), {})
            self.parts.append(self._own)
        done = self._own.work
        self._work_before = {name: now - done.get(name, 0) for name, now in _work(self._context.counts).items()}

    def note(self) -> None:
        """Bring the own part up to date."""
        assert self._own is not None, "a bill is begun before it is noted"
        self._own.spent = _clock(self._context) - self._own.began
        work = _work(self._context.counts)
        self._own.work = {name: value - self._work_before[name] for name, value in work.items()}

    def charge(self, share: Share) -> None:
        """Pay for an entry that was made in turns with others, instead of `begin` and `note`."""
        self.parts.append(Part(self._payer, EnergyReading(), share.spent, share.work))

    def settle(self) -> dict[str, Any]:
        """Owe what others paid, and count the work that this phase did before it was interrupted.

        Returns: Joules, CPU-seconds and label of what is owed; empty if nothing is.
        """
        for part in self.parts:
            if part.work and self._is_own(part):
                self._context.counts.add(
                    examples=int(part.work["num_examples"]),
                    tokens=int(part.work["num_tokens"]),
                    processed=int(part.work["num_processed_tokens"]),
                    operations=part.work["num_operations"],
                )
        others = [part.spent for part in self.parts if part.work and not self._is_own(part)]
        if not others:
            return {}
        total = sum(others, EnergyReading())
        known = all(reading.energy_j is not None for reading in others)
        energy_j = total.energy_j if known else None
        self._context.counts.add_shared(energy_j=energy_j, cpu_s=total.cpu_s)
        return {"energy_j": energy_j, "cpu_s": total.cpu_s, "label": total.label}

    def _is_own(self, part: Part) -> bool:
        return self._payer is not None and part.payer == self._payer

    def to_json(self) -> list[dict[str, Any]]:
        """The parts as JSON values."""
        return [dataclasses.asdict(part) for part in self.parts]


def paid_by(runs: Sequence[Path], cache: Path | None = None) -> list[EnergyReading]:
    """What each of these runs paid for entries that the cache still has, so that nobody pays it again.

    Args:
        runs: Their folders.
        cache: Folder of the cache; `cache_folder()` if None.
    """
    payers = {name: place for place, run in enumerate(runs) for name in _payers_of(run)}
    paid = [EnergyReading() for _ in runs]
    if not payers:
        return paid
    for path in (cache or cache_folder()).glob(f"*/*/{ENTRY}"):
        with contextlib.suppress(DamagedError, KeyError, TypeError, ValueError):
            for part in map(_part_from_json, files.read_json(path)["parts"]):
                if part.payer in payers:
                    paid[payers[part.payer]] += part.spent
    return paid


def _payers_of(run: Path) -> Iterator[str]:
    for path in run.glob(f"phases/*/{PAYER}"):
        with contextlib.suppress(DamagedError):
            yield str(files.read_json(path))


def _work(counts: Counts) -> dict[str, float]:
    names = ("num_examples", "num_tokens", "num_processed_tokens", "num_operations")
    return {name: getattr(counts, name) or 0 for name in names}


def _clock(context: Context) -> EnergyReading:
    """What the phase has spent so far."""
    return context.energy() or _process_clock()


def _process_clock() -> EnergyReading:
    """Outside a run: this process's clocks, with joules unknown."""
    return EnergyReading(time.monotonic(), time.process_time(), {"machine": MISSING})


def _part_from_json(part: Mapping[str, Any]) -> Part:
    return Part(part["payer"], _reading(part["began"]), _reading(part["spent"]), dict(part["work"]))


def _reading(value: Mapping[str, Any]) -> EnergyReading:
    components = {name: Component(**component) for name, component in value["components"].items()}
    return EnergyReading(value["duration_s"], value["cpu_s"], components)


def _payer(context: Context) -> str | None:
    """A name drawn once for each phase and kept in its folder: a new run may have the path of one that was deleted."""
    if context.folder is None:
        return None
    path = context.folder / PAYER
    with contextlib.suppress(DamagedError):
        return str(files.read_json(path))
    context.folder.mkdir(parents=True, exist_ok=True)
    files.write_json(path, uuid.uuid4().hex)
    return str(files.read_json(path))
