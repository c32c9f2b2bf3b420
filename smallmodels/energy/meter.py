"""`Meter`: one clockwork around a run that observes, charges phases, writes the journal, and never breaks the run."""

import atexit
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from smallmodels.energy.backends import Backend, CodeCarbonBackend, FakeBackend, NullBackend
from smallmodels.energy.journal import Journal, Ledger
from smallmodels.energy.machine import CpuClock, SharedMachine, measuring_elsewhere
from smallmodels.energy.readings import EnergyReading
from smallmodels.errors import InputError
from smallmodels.records import Component, Event, to_json

_BACKENDS: dict[str, Callable[[], Backend]] = {
    "codecarbon": CodeCarbonBackend,
    "fake": FakeBackend,
    "none": NullBackend,
}


@dataclass
class PhaseMeasurement:
    """Handed out by `Meter.phase`."""

    name: str
    reading: EnergyReading = field(default_factory=EnergyReading)
    """What the phase itself cost, nested phases left out; complete after the `with` block, however it ended."""


class Meter:
    """Measures this process's run on this machine, from `start` to `stop` or as a `with` block; used once.

    A meter whose parent process, or whose rank 0, measures already gives time and CPU-seconds only (`owner` is false),
    and so does its copy in a forked process. Phases belong to one thread.

    Args:
        backend: Where joules come from, by name or any `Backend`.
        journal: File that gets a line per tick and per phase edge; an existing one is continued in a new segment.
        run_id: Stands in the journal and in the owner variable.
        synchronize: Waits until the device has done its work, such as `torch.cuda.synchronize`.
        tick_s: Seconds between ticks, > 0; a killed run loses at most one.
        clock: Monotonic seconds; for tests.
        processes: Ids of other processes whose CPU-seconds count as well.
    """

    def __init__(
        self,
        backend: Backend | Literal["codecarbon", "fake", "none"] = "codecarbon",
        *,
        journal: Path | None = None,
        run_id: str | None = None,
        synchronize: Callable[[], None] | None = None,
        tick_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        processes: Sequence[int] = (),
    ) -> None:
        if not tick_s > 0:
            raise InputError(f"tick_s must be > 0, got {tick_s}: give the seconds between two journal lines")
        self.run_id = run_id or str(os.getpid())
        self.owner = False
        """True while this meter is the one that measures."""
        self.contended = False
        """True when another run, or other programs, used the machine while this meter measured."""
        self.num_segments = 1
        """Segments in the journal, this one included."""
        self._backend: Backend = _BACKENDS[backend]() if isinstance(backend, str) else backend
        self._journal_path = journal
        self._journal: Journal | None = None
        self._ledger: Ledger | None = None
        self._machine: SharedMachine | None = None
        self._synchronize = synchronize
        self._tick_s = tick_s
        self._clock = clock
        self._cpu_clock = CpuClock(processes)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._warnings: list[str] = []

    @property
    def labels(self) -> dict[str, str]:
        """How the joules of each component are obtained, as of the last observation."""
        return {name: c.label for name, c in self._ledger.last.components.items()} if self._ledger else {}

    @property
    def tracking_mode(self) -> str:
        """`machine`, `scripted`, or `none` where nothing is measured."""
        return self._backend.tracking_mode

    @property
    def warnings(self) -> list[str]:
        """Everything that makes the joules doubtful, as sentences."""
        return [*self._backend.warnings, *self._warnings]

    @property
    def phases(self) -> dict[str, EnergyReading]:
        """Cost per phase in this segment, up to the last observation."""
        return dict(self._ledger.phases) if self._ledger else {}

    def set_synchronize(self, synchronize: Callable[[], None]) -> None:
        """Set what waits for the device, once the library that knows it is imported."""
        self._synchronize = synchronize

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Take ownership, open backend and journal, begin to tick.

        Raises:
            InputError: it was started before.
            OSError: the journal cannot be opened; nothing has happened yet.
        """
        if self._ledger is not None:
            raise InputError("a meter is started once, and this one was already: make a new Meter")
        elsewhere = measuring_elsewhere()
        self.owner = elsewhere is None
        if elsewhere is not None:
            self._backend, self._journal_path = NullBackend(), None
            self._warnings.append(f"{elsewhere} measures this machine: here are time and CPU-seconds only")
        if self._journal_path is not None:
            self._journal = Journal(self._journal_path)
            self.num_segments = self._journal.segment
        if self.owner:
            watch_load = self._backend.tracking_mode == "machine"
            self._machine = self._try(
                "cannot see who shares the machine",
                SharedMachine,
                self.run_id,
                watch_load=watch_load,
                cpu_clock=self._cpu_clock,
            )
            self._try("could not start measuring energy", self._backend.open)
        self._ledger = Ledger(self._observe(), {})
        self._write("open", run_id=self.run_id)
        atexit.register(self.stop)
        threading.Thread(target=self._tick, name="smallmodels-energy", daemon=True).start()

    def stop(self) -> None:
        """Observe once more and close everything; safe to call twice."""
        with self._own_process():
            if self._ledger is None or self._stopped.is_set():
                return
            self._stopped.set()
            self._advance("close")
            self._try("could not stop measuring energy cleanly", self._backend.close)
            if self._machine is not None:
                self._warnings += self._try("could not release the machine", self._machine.close) or []
            if self._journal is not None:
                self._try("could not close the energy journal", self._journal.close)
        atexit.unregister(self.stop)

    def read(self, *, fresh: bool = False) -> EnergyReading:
        """What this meter has seen so far.

        Args:
            fresh: Ask the backend, which takes milliseconds; else joules are those of the last tick or phase edge.
        """
        with self._own_process():
            if self._ledger is None:
                return EnergyReading()
            if self._stopped.is_set():
                return self._ledger.total
            if fresh:
                self._advance("tick")
            last = self._ledger.last
            return self._ledger.total + EnergyReading(self._clock() - last.duration_s, self._cpu_clock() - last.cpu_s)

    @contextmanager
    def phase(self, name: str) -> Iterator[PhaseMeasurement]:
        """Measure a block. Blocks nest, and each is charged for its own time only, also when it raises.

        Raises:
            InputError: the meter does not run.
        """
        if self._ledger is None or self._stopped.is_set():
            raise InputError(f"phase {name!r} needs a meter that runs: use `with Meter() as meter`")
        measurement = PhaseMeasurement(name)
        self._edge("phase_start", name)
        try:
            yield measurement
        finally:
            measurement.reading = self._edge("phase_end", name)

    def journal_event(self, kind: str, message: str, details: Mapping[str, Any] | None = None) -> Event:
        """Note something unusual in the journal, between the energy lines; returns it for the record."""
        event = Event(time_utc=_now_utc(), kind=kind, message=message, details=to_json(details or {}))
        with self._own_process():
            if self._journal is not None:
                self._try(_JOURNAL_FAILED, self._journal.write, {"kind": "event", "event": asdict(event)})
        return event

    def _edge(self, kind: Literal["phase_start", "phase_end"], name: str) -> EnergyReading:
        """Begin or end a phase with the device idle, so that its work is charged where it was asked for."""
        if self._synchronize is not None:
            self._try("could not wait for the device", self._synchronize)
        with self._own_process():
            assert self._ledger is not None
            if not self._stopped.is_set():
                self._advance(kind, name)
            if kind == "phase_end":
                return self._ledger.end(name)
            self._ledger.begin(name)
            return EnergyReading()

    def _tick(self) -> None:
        while not self._stopped.wait(self._tick_s):
            with self._lock:
                if not self._stopped.is_set():
                    self._try("could not take an energy reading", self._advance, "tick")

    def _advance(self, kind: str, phase: str | None = None) -> None:
        """Observe, charge the open phase, and write the line."""
        assert self._ledger is not None
        self._ledger.advance(self._observe())
        if self._machine is not None:
            self.contended = bool(self._try("cannot see who shares the machine", self._machine.is_contended))
        self._write(kind, phase=phase or self._ledger.phase)

    def _observe(self) -> EnergyReading:
        """Absolute clocks and cumulative joules. A backend that fails twice in a row is given up.

        What it misses cannot be known later, so the rest of the run is `missing` rather than too small.
        """
        components = self._try(None, self._read_backend)
        if components is None:
            components = self._try("lost the energy readings", self._read_backend)
        if components is None:
            self._try(None, self._backend.close)
            self._backend = NullBackend(self._backend.warnings)
            components = self._backend.read()
        return EnergyReading(self._clock(), self._cpu_clock(), components)

    def _read_backend(self) -> dict[str, Component]:
        """The backend's joules, refused unless each is finite and has not shrunk."""
        components = self._backend.read()
        before = self._ledger.last.components if self._ledger else {}
        for name, component in components.items():
            floor_j = (before[name].energy_j if name in before else None) or 0.0
            if component.energy_j is not None and not floor_j <= component.energy_j < math.inf:
                raise ValueError(f"{name} went from {floor_j} J to {component.energy_j} J")
        return components

    def _write(self, kind: str, **more: Any) -> None:
        if self._journal is not None and self._ledger is not None:
            more = {"time_utc": _now_utc(), "contended": self.contended, **more}
            self._try(_JOURNAL_FAILED, self._journal.write_reading, kind, self._ledger.last, **more)

    def _try(self, failure: str | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Energy never breaks training: a failure becomes one warning, and the result None."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if failure is not None and not any(warning.startswith(failure) for warning in self._warnings):
                self._warnings.append(f"{failure}: {type(error).__name__}: {error}")
            return None

    @contextmanager
    def _own_process(self) -> Iterator[None]:
        """Hold the lock. In a forked copy, first let go of what belongs to the parent, its lock included."""
        if os.getpid() != self._pid:
            self._pid, self._lock = os.getpid(), threading.RLock()
            self._backend, self._journal, self._machine, self.owner = NullBackend(), None, None, False
        with self._lock:
            yield


_JOURNAL_FAILED = "could not write the energy journal"


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
