"""The energy journal: JSON lines that are only appended and on disk at once, and the account rebuilt from them.

A line holds absolute clocks and the backend's cumulative joules, never differences: `seq`, `segment`, `kind` (`open`,
`tick`, `phase_start`, `phase_end` or `close`), `time_utc`, `monotonic_s`, `cpu_s`, `components`, `contended`, `phase`.
A line of kind `event` holds a `records.Event` instead. Each process that writes opens a new segment: counters start
again there, and the time between segments belongs to nobody. `seq` counts on through all segments, and a killed
writer's torn line gives its number to the next one: a number that no line has is of a line that was lost.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallmodels import files
from smallmodels.energy.readings import EnergyReading
from smallmodels.errors import DamagedError
from smallmodels.records import Component, Event

OTHER = "other"
"""Name of the work outside every phase, so that phases always sum to the run."""

LOSS = "energy"
"""Kind of the event which says that a part of the account was lost, for as long as the journal is kept."""


class Ledger:
    """Charges what happened between two observations to the innermost open phase, or to `other`.

    The meter and the replay of its journal share it: both give the same numbers, and phases sum to the total.

    Args:
        first: Clocks and cumulative joules at the start.
        phases: Where the cost per phase is added up.
    """

    def __init__(self, first: EnergyReading, phases: dict[str, EnergyReading]) -> None:
        self.last = first
        self.phases = phases
        self._open: list[tuple[str, EnergyReading]] = []
        self.advance(first)  # nothing was spent yet, but which components there are is known

    @property
    def phase(self) -> str | None:
        """Innermost open phase."""
        return self._open[-1][0] if self._open else None

    @property
    def total(self) -> EnergyReading:
        """All phases together."""
        return sum(self.phases.values(), EnergyReading())

    def advance(self, now: EnergyReading) -> None:
        """Charge what happened since the last observation."""
        spent, self.last = now - self.last, now
        name = self.phase or OTHER
        self.phases[name] = self.phases.get(name, EnergyReading()) + spent
        if self._open:
            self._open[-1] = (name, self._open[-1][1] + spent)

    def begin(self, name: str) -> None:
        """Open a phase inside the current one."""
        self._open.append((name, EnergyReading()))

    def end(self, name: str) -> EnergyReading:
        """Close the innermost phase of that name, and what was left open in it; returns its own share."""
        reading = EnergyReading()
        while any(name == entry for entry, _ in self._open):
            entry, reading = self._open.pop()
            if entry == name:
                break
        return reading


class Journal:
    """Writes one segment.

    Args:
        path: A new file, or a journal to continue.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        lines, _ = _read_lines(path) if path.exists() else ([], 0)
        self.segment = 1 + max((line["segment"] for line in lines), default=0)
        self._seq = max((line["seq"] for line in lines), default=-1)
        self._torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = path.open("ab", buffering=0)
        files.fsync_folder(path.parent)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line, and return when it is on disk.

        Raises:
            OSError: it is not; the next line will start on a line of its own.
        """
        self._seq += 1
        data = ("\n" * self._torn + json.dumps({"seq": self._seq, "segment": self.segment, **line}) + "\n").encode()
        self._torn = True
        if self._file.write(data) != len(data):
            raise OSError("the disk took only a part of the line")
        self._torn = False
        os.fsync(self._file.fileno())

    def write_reading(self, kind: str, reading: EnergyReading, **more: Any) -> None:
        """Append clocks and joules as they stand."""
        components = {name: asdict(component) for name, component in reading.components.items()}
        clocks = {"monotonic_s": reading.duration_s, "cpu_s": reading.cpu_s}
        self.write({"kind": kind, **clocks, "components": components, **more})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that are whole, and how many are not: a killed writer tears the last one."""
    lines, num_torn = [], 0
    for text in filter(None, path.read_bytes().split(b"\n")):
        try:
            line = json.loads(text)
            lines.append({**line, "seq": int(line["seq"]), "segment": int(line["segment"])})
        except (ValueError, TypeError, KeyError):
            num_torn += 1
    return lines, num_torn


@dataclass(frozen=True)
class JournalTotals:
    """What a journal says, all segments together; the time between segments is not part of it."""

    total: EnergyReading
    phases: dict[str, EnergyReading]
    """By name; a nested phase is counted in itself only, `other` is the rest, and together they are `total`."""
    num_segments: int
    """Segments that were begun, those included of which no line is left."""
    truncated: bool
    """Something is missing: at most one tick per segment that was not closed, else what `events` tell of."""
    contended: bool
    """A segment ended with the mark that others used the machine."""
    events: list[Event]
    num_lost: int = 0
    """Lines that were written once and are in no segment."""


def read_journal(path: Path) -> JournalTotals:
    """Rebuild what a run cost from its journal, also after `kill -9` and resume.

    Raises:
        DamagedError: there is no journal, or a whole line does not hold what it should.
    """
    try:
        lines, num_torn = _read_lines(path)
    except OSError as error:
        raise DamagedError(f"{path} should be the journal of a run, but {error}: name the file of a run") from error
    phases: dict[str, EnergyReading] = {}
    ledgers: dict[int, Ledger] = {}
    last: dict[int, dict[str, Any]] = {}
    events: list[Event] = []
    for line in lines:
        try:
            if line["kind"] == "event":
                events.append(Event(**line["event"]))
            else:
                last[line["segment"]] = line
                _replay(line, ledgers, phases)
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(
                f"{path}: line {line['seq']} should be an energy line, but {error!r}: restore it"
            ) from error
    num_lost = 1 + max((line["seq"] for line in lines), default=-1) - len({line["seq"] for line in lines})
    is_closed = bool(last) and all(line["kind"] == "close" for line in last.values())
    has_lost = num_lost > 0 or any(event.kind == LOSS for event in events)
    return JournalTotals(
        total=sum(phases.values(), EnergyReading()),
        phases=phases,
        num_segments=max((line["segment"] for line in lines), default=0),
        truncated=num_torn > 0 or has_lost or not is_closed,
        contended=any(line["contended"] for line in last.values()),
        events=events,
        num_lost=num_lost,
    )


def _replay(line: dict[str, Any], ledgers: dict[int, Ledger], phases: dict[str, EnergyReading]) -> None:
    components = {name: Component(**value) for name, value in line["components"].items()}
    now = EnergyReading(line["monotonic_s"], line["cpu_s"], components)
    if line["kind"] == "open":
        ledgers[line["segment"]] = Ledger(now, phases)
    ledger = ledgers[line["segment"]]
    ledger.advance(now)
    if line["kind"] == "phase_start":
        ledger.begin(line["phase"])
    elif line["kind"] == "phase_end":
        ledger.end(line["phase"])
