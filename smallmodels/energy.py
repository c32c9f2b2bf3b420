"""What a run costs: time, CPU-seconds and joules, each joule with a label that says how it was obtained.

    with energy.Meter() as meter:
        with meter.phase("train") as train:
            ...
    print(train.reading.energy_j, train.reading.label)

CodeCarbon measures, offline and through its public API. This module adds what an account needs to be trusted: phases
that nest and sum to the run, an append-only journal that survives `kill -9`, labels, one owner per machine, and
CPU-seconds, which stay true where joules are a guess. Nothing here breaks a training run: what cannot be measured
becomes None with the label `missing`, and a sentence in `Meter.warnings`.

Labels, from strong to weak: `wall` a meter at the socket; `counter` the hardware's own energy counter (RAPL, NVML);
`sampled` power read at intervals; `user` a number given by the user; `modelled` computed from load, such as rated
power times load; `constant` a fixed guess, such as watts per memory module; `unknown` the backend does not say;
`missing` not measured. All but `wall` leave out power supply, fans, disks, screen and network.
"""

import atexit
import json
import logging
import math
import os
import sys
import tempfile
import threading
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import psutil

from smallmodels import files
from smallmodels.errors import DamagedError, InputError
from smallmodels.records import Carbon, Component, EnergyLabel, Event, to_json

if sys.platform != "win32":
    import fcntl

OTHER = "other"
"""Name of the time between phases, so that phases always sum to the run."""
MIN_WINDOW_S = 1.0
"""Shorter windows give no joules per use: a backend may answer with a reading that is up to 50 ms old."""
MAX_FOREIGN_FRACTION = 0.05
"""Share of the processors that other programs may use before a run counts as contended."""
OWNER_VARIABLE = "SMALLMODELS_ENERGY_OWNER"
"""`run_id:pid` of the process that measures; its children find it in their environment and measure nothing."""

_STALLED_S = 2.0
_STRENGTH = {label: rank for rank, label in enumerate(typing.get_args(EnergyLabel))}
_MISSING = Component(energy_j=None, label="missing")


def to_wh(energy_j: float) -> float:
    """Joules to watt-hours."""
    return energy_j / 3600


def to_kwh(energy_j: float) -> float:
    """Joules to kilowatt-hours."""
    return energy_j / 3.6e6


@dataclass(frozen=True)
class EnergyReading:
    """Time, CPU time and joules of one stretch of work; readings add up and subtract.

    A component that a machine does not have (a GPU) is absent; one that could not be measured holds None, and anything
    added to it stays None: a sum with an unknown part is unknown.
    """

    duration_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of this process and of its children that have ended."""
    components: dict[str, Component] = field(default_factory=dict)

    @property
    def energy_j(self) -> float | None:
        """Sum over the known components; None if none is known."""
        known = [c.energy_j for c in self.components.values() if c.energy_j is not None]
        return sum(known) if known else None

    @property
    def label(self) -> EnergyLabel:
        """The weakest label that carries 10 % of the joules or more; `missing` as soon as one component is unknown."""
        total = self.energy_j
        if total is None or any(c.energy_j is None for c in self.components.values()):
            return "missing"
        return _weakest(*(c.label for c in self.components.values() if (c.energy_j or 0.0) >= 0.1 * total))

    def energy_j_per(self, num_uses: int) -> float | None:
        """Joules per use; None if not known or if the window was shorter than `MIN_WINDOW_S`."""
        if self.energy_j is None or self.label == "missing" or self.duration_s < MIN_WINDOW_S or num_uses < 1:
            return None
        return self.energy_j / num_uses

    def __add__(self, other: "EnergyReading") -> "EnergyReading":
        return self._combine(other, 1)

    def __sub__(self, other: "EnergyReading") -> "EnergyReading":
        return self._combine(other, -1)

    def _combine(self, other: "EnergyReading", sign: int) -> "EnergyReading":
        components = {}
        for name in {**self.components, **other.components}:
            mine, its = self.components.get(name), other.components.get(name)
            if sign < 0 and mine is None:
                components[name] = _MISSING  # it was there before and has gone: what it used since is unknown
                continue
            parts = [part for part in (mine, its) if part is not None]
            known = [part.energy_j for part in parts if part.energy_j is not None]
            energy_j = known[0] + sign * sum(known[1:]) if len(known) == len(parts) else None
            if mine is None and energy_j is not None:
                energy_j *= sign
            components[name] = Component(energy_j=energy_j, label=_weakest(*(part.label for part in parts)))
        return EnergyReading(self.duration_s + sign * other.duration_s, self.cpu_s + sign * other.cpu_s, components)

    @classmethod
    def from_journal(cls, path: Path) -> "EnergyReading":
        """The total of a journal; see `read_journal`."""
        return read_journal(path).total


def _weakest(*labels: EnergyLabel) -> EnergyLabel:
    return max(labels, key=lambda label: _STRENGTH[label])


class Backend(Protocol):
    """A source of joules. It may raise anywhere; `Meter` turns that into `missing`."""

    tracking_mode: str
    """`machine` when it reads the whole machine; `scripted`, `none`."""
    warnings: list[str]

    def open(self) -> None:
        """Start measuring."""

    def read(self) -> dict[str, Component]:
        """Joules since `open`, cumulative, by component: cpu, gpu, ram."""

    def close(self) -> None:
        """Stop measuring and free what `open` took."""


class NullBackend:
    """Measures nothing: time and CPU-seconds stay, joules are missing."""

    tracking_mode = "none"

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def open(self) -> None:
        """Nothing to start."""

    def read(self) -> dict[str, Component]:
        """Every joule is missing."""
        return {"cpu": _MISSING}

    def close(self) -> None:
        """Nothing to stop."""


class FakeBackend:
    """Scripted joules, so that tests are exact on any machine.

    Args:
        power_w: Watts per component, drawn for as long as `clock` runs.
        label: Label of every component.
        clock: Seconds; pass the same function to `Meter` to script time too.
    """

    tracking_mode = "scripted"

    def __init__(
        self,
        power_w: Mapping[str, float] | None = None,
        label: EnergyLabel = "counter",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.power_w = {"cpu": 10.0} if power_w is None else dict(power_w)
        self.label: EnergyLabel = label
        self.broken = False
        """Set it to make every reading fail from now on."""
        self.warnings: list[str] = []
        self._clock = clock
        self._opened_s = 0.0
        self._spent_j: dict[str, float] = {}

    def spend(self, **energy_j: float) -> None:
        """Add joules to components at once: `spend(cpu=5.0)`."""
        for name, joules in energy_j.items():
            self._spent_j[name] = self._spent_j.get(name, 0.0) + joules

    def open(self) -> None:
        """Start the clock."""
        self._opened_s = self._clock()

    def read(self) -> dict[str, Component]:
        """Power times time, plus what was spent at once."""
        if self.broken:
            raise RuntimeError("the fake backend was told to fail")
        elapsed_s = self._clock() - self._opened_s
        return {
            name: Component(
                energy_j=self.power_w.get(name, 0.0) * elapsed_s + self._spent_j.get(name, 0.0), label=self.label
            )
            for name in {**self.power_w, **self._spent_j}
        }

    def close(self) -> None:
        """Nothing to stop."""


class CodeCarbonBackend:
    """CodeCarbon's offline tracker over the whole machine, read by flushing it; it opens no socket and writes no file.

    Every setting that a configuration file or environment variable could change is passed explicitly. CodeCarbon's own
    timer is set beyond any run: if it and a flush measured at once, both would charge the same seconds.
    """

    tracking_mode = "machine"

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._tracker: Any = None
        self._latest: Any = None
        self._grown: dict[str, tuple[float, float]] = {}
        self._nvml_counts = False
        self._log = _WarningCollector(self.warnings)

    def open(self) -> None:
        """Import CodeCarbon, find the hardware and start the tracker."""
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output import BaseOutput

        backend = self

        class Snapshot(BaseOutput):  # type: ignore[misc]
            """Receives the totals of every flush."""

            def out(self, total: Any, delta: Any) -> None:
                backend._latest = total

        self._log.attach()
        with tempfile.TemporaryDirectory() as folder:  # only checked for existence: nothing is written there
            self._tracker = OfflineEmissionsTracker(**_codecarbon_settings(folder), output_handlers=[Snapshot()])
        self._log.silence()
        self._tracker.start()
        self._nvml_counts = _nvml_has_energy_counters()

    def read(self) -> dict[str, Component]:
        """Flush and convert.

        Raises: RuntimeError if the flush, which swallows its own errors, delivered nothing.
        """
        self._latest = None
        self._tracker.flush()
        if self._latest is None:
            raise RuntimeError("CodeCarbon delivered no reading")
        labels = _codecarbon_labels(self._tracker, self._nvml_counts)
        energies_kwh = {"cpu": self._latest.cpu_energy, "gpu": self._latest.gpu_energy, "ram": self._latest.ram_energy}
        return {
            name: self._component(name, energies_kwh[name] * 3.6e6, label)
            for name, label in labels.items()
            if name != "gpu" or self._latest.gpu_count or energies_kwh[name] > 0
        }

    def _component(self, name: str, energy_j: float, label: EnergyLabel) -> Component:
        """A counter that stands still is not read: CodeCarbon reports 0 J where a reading fails."""
        now = time.monotonic()
        last_j, since = self._grown.setdefault(name, (0.0, now))
        if energy_j > last_j:
            self._grown[name] = (energy_j, now)
        elif now - since > _STALLED_S:
            return _MISSING
        return Component(energy_j=energy_j, label=label)

    def close(self) -> None:
        """Stop the tracker's threads and give the `codecarbon` logger back."""
        try:
            if self._tracker is not None:
                self._tracker.stop()
        finally:
            self._log.detach()


def _codecarbon_settings(folder: str) -> dict[str, Any]:
    """Every argument that CodeCarbon would otherwise read from files or the environment (version 3.3.2).

    Energy only: with a forced intensity of 0 it never looks up a country or a token. PUE and WUE are 1 and 0.
    """
    return {
        "measure_power_secs": 1e6,
        "api_call_interval": -1,
        "tracking_mode": "machine",
        "allow_multiple_runs": True,  # its lock file stays after kill -9; ours does not
        "force_carbon_intensity_g_co2e_kwh": 0.0,
        "pue": 1.0,
        "wue": 0.0,
        "log_level": "warning",
        "logger_preamble": "",
        "output_methods": [],
        "output_dir": folder,
        "output_file": "unused.csv",
        "on_csv_write": "append",
        "project_name": "smallmodels",
        "experiment_name": "",
        "experiment_id": "",
        "electricitymaps_api_token": "",
        "api_endpoint": "",
        "api_key": "",
        "prometheus_url": "",
        "force_mode_cpu_load": False,
        "rapl_include_dram": False,
        "rapl_prefer_psys": False,
    } | dict.fromkeys(
        (
            "emissions_endpoint",
            "logging_logger",
            "metadata",
            "gpu_ids",  # None leaves CUDA_VISIBLE_DEVICES in force
            "force_cpu_power",
            "force_ram_power",
            "country_iso_code",
            "country_2letter_iso_code",
            "region",
            "cloud_provider",
            "cloud_region",
        )
    )


def _codecarbon_labels(tracker: Any, nvml_counts: bool) -> dict[str, EnergyLabel]:
    """How each component is obtained. The only code that looks behind the public API: `unknown` when it has changed."""
    labels: dict[str, EnergyLabel] = {"cpu": "unknown", "gpu": "unknown", "ram": "unknown"}
    modes: dict[str, EnergyLabel] = {
        "cpu_load": "modelled",
        "constant": "constant",
        "windows_emi": "counter",
        "intel_power_gadget": "sampled",
        "intel_rapl": "counter" if any(Path("/sys/class/powercap").glob("*/energy_uj")) else "unknown",
    }
    for hardware in getattr(tracker, "_hardware", []):
        kind = type(hardware).__name__
        if kind == "CPU":
            labels["cpu"] = modes.get(getattr(hardware, "_mode", ""), "unknown")
        elif kind == "GPU":
            labels["gpu"] = "counter" if nvml_counts else "sampled"
        elif kind == "RAM":
            labels["ram"] = "constant"
        elif kind in ("AppleSiliconChip", "Raspberry"):
            labels[str(getattr(hardware, "chip_part", "cpu")).lower()] = "sampled"
    return labels


def _nvml_has_energy_counters() -> bool:
    """True if every NVIDIA GPU answers with its total energy; false without any."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return bool(handles) and all(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) >= 0 for handle in handles)
    except Exception:  # whatever the driver or its binding raises, the answer is no
        return False


class _WarningCollector(logging.Handler):
    """Keeps what CodeCarbon warns about: the only place where it admits that a rated power is a guess."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings
        self._logger = logging.getLogger("codecarbon")
        self._before: list[logging.Handler] = []

    def attach(self) -> None:
        """Listen in place of the handlers that print."""
        self._before, self._logger.handlers = self._logger.handlers, [self]

    def silence(self) -> None:
        """Remove the stream handler that every new tracker installs."""
        self._logger.handlers = [self]

    def detach(self) -> None:
        """Put the earlier handlers back."""
        self._logger.handlers = self._before

    def emit(self, record: logging.LogRecord) -> None:
        """Keep each message once; an exception's text follows it."""
        text = " ".join(record.getMessage().split())
        if record.exc_info and record.exc_info[1]:
            text += f" {record.exc_info[1]!r}"
        if text not in self._warnings and not text.startswith("Multiple instances"):  # we allow them on purpose
            self._warnings.append(f"CodeCarbon: {text}")


class _Ledger:
    """Charges what happened between two observations to the innermost open phase, or to `other`.

    The meter and the replay of its journal share it, so both give the same numbers and phases sum to the total.
    """

    def __init__(self, first: EnergyReading, phases: dict[str, EnergyReading]) -> None:
        self.last = first
        self.phases = phases
        self._open: list[tuple[str, EnergyReading]] = []

    @property
    def phase(self) -> str | None:
        """Innermost open phase."""
        return self._open[-1][0] if self._open else None

    def advance(self, now: EnergyReading) -> None:
        """Charge the time since the last observation."""
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
        while any(name == entry for entry, _ in self._open):
            entry, reading = self._open.pop()
            if entry == name:
                return reading
        return EnergyReading()


def _total(phases: Mapping[str, EnergyReading]) -> EnergyReading:
    return sum(phases.values(), EnergyReading())


@dataclass
class PhaseMeasurement:
    """Handed out by `Meter.phase`."""

    name: str
    reading: EnergyReading = field(default_factory=EnergyReading)
    """What the phase itself cost, nested phases left out; complete after the `with` block, whatever ended it."""


class Meter:
    """Measures this process's run on this machine, from `start` to `stop` or as a `with` block; used once.

    Args:
        backend: Where joules come from; by name or any `Backend`.
        journal: File that gets one line per tick and per phase edge; an existing one is continued in a new segment.
        run_id: Stands in the journal and in the owner variable.
        synchronize: Waits until the device has done its work, such as `torch.cuda.synchronize`.
        tick_s: Seconds between ticks, > 0; a killed run loses at most one.
        clock: Monotonic seconds; for tests.

    A meter whose parent process, or whose rank 0, measures already (`owner` is false) gives time and CPU-seconds only.
    Phases belong to one thread.
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
    ) -> None:
        if not tick_s > 0:
            raise InputError(f"tick_s must be > 0, got {tick_s}: give the seconds between two journal lines")
        self._backend: Backend = _BACKENDS[backend]() if isinstance(backend, str) else backend
        self._journal_path = journal
        self._journal: _Journal | None = None
        self._synchronize = synchronize
        self._tick_s = tick_s
        self._clock = clock
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._ledger: _Ledger | None = None
        self._machine: _SharedMachine | None = None
        self._pid = os.getpid()
        self.run_id = run_id or f"{os.getpid()}"
        self.owner = False
        """True while this meter is the one that measures."""
        self.contended = False
        """True when another run, or other programs, used the machine while this meter measured."""
        self.num_segments = 1
        """Segments in the journal, this one included."""
        self._own_warnings: list[str] = []

    @property
    def labels(self) -> dict[str, str]:
        """How the joules of each component are obtained, as of the last reading."""
        return {name: c.label for name, c in self._ledger.last.components.items()} if self._ledger else {}

    @property
    def tracking_mode(self) -> str:
        """`machine`, `scripted`, or `none` where nothing is measured."""
        return self._backend.tracking_mode

    @property
    def warnings(self) -> list[str]:
        """Everything that makes the joules doubtful, as sentences."""
        return [*self._backend.warnings, *self._own_warnings]

    @property
    def phases(self) -> dict[str, EnergyReading]:
        """Cost per phase in this segment, `other` included."""
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
        """Take ownership of the machine's energy, open backend and journal, begin to tick."""
        if self._ledger is not None:
            raise InputError("a meter is started once, and this one was already: make a new Meter")
        self.owner = not _is_measured_by_another_process()
        if self.owner:
            self._machine = _SharedMachine(self.run_id, watch_load=self._backend.tracking_mode == "machine")
            self._try(self._backend.open, "could not start measuring energy")
        else:
            self._backend, self._journal_path = NullBackend(), None
        if self._journal_path is not None:
            self._journal = _Journal(self._journal_path)
            self.num_segments = self._journal.segment
        self._ledger = _Ledger(self._observe(), {})
        self._write("open", run_id=self.run_id)
        atexit.register(self.stop)
        if self.owner:
            threading.Thread(target=self._tick, name="smallmodels-energy", daemon=True).start()

    def stop(self) -> None:
        """Close everything; safe to call twice. Phases that are still open end here."""
        with self._own_process():
            if self._ledger is None or self._stopped.is_set():
                return
            self._stopped.set()
            self._advance("close")
            self._try(self._backend.close, "could not stop measuring energy cleanly")
            if self._machine is not None:
                self._own_warnings += self._machine.close()
            if self._journal is not None:
                self._journal.close()
        atexit.unregister(self.stop)

    def read(self, *, fresh: bool = False) -> EnergyReading:
        """What this meter has seen so far.

        Args:
            fresh: Ask the backend, which takes milliseconds; else joules are those of the last tick or phase edge.
        """
        if self._ledger is None:
            return EnergyReading()
        with self._own_process():
            if fresh and not self._stopped.is_set():
                self._advance("tick")
            total = _total(self._ledger.phases)
            if self._stopped.is_set():
                return total
            last = self._ledger.last
            elapsed = EnergyReading(self._clock() - last.duration_s, _cpu_clock() - last.cpu_s)
            return total + elapsed

    @contextmanager
    def phase(self, name: str) -> Iterator[PhaseMeasurement]:
        """Measure a block; blocks nest, and each is charged for its own time only.

        Its reading is there after the block even if the block raised.
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
        event = Event(time_utc=_now_utc(), kind=kind, message=message, details=to_json(dict(details or {})))
        with self._own_process():
            if self._journal is not None:
                self._journal.write({"kind": "event", "event": asdict(event)})
        return event

    def _edge(self, kind: str, name: str) -> EnergyReading:
        """Begin or end a phase with the device idle, so that its work is charged where it was asked for."""
        if self._synchronize is not None:
            self._try(self._synchronize, "could not wait for the device")
        with self._own_process():
            assert self._ledger is not None
            reading = EnergyReading()
            if not self._stopped.is_set():
                self._advance(kind, name)
            if kind == "phase_start":
                self._ledger.begin(name)
            else:
                reading = self._ledger.end(name)
            return reading

    def _tick(self) -> None:
        while not self._stopped.wait(self._tick_s):
            with self._lock:
                if not self._stopped.is_set():
                    self._try(lambda: self._advance("tick"), "could not take an energy reading")

    def _advance(self, kind: str, phase: str | None = None) -> None:
        assert self._ledger is not None
        self._ledger.advance(self._observe())
        if self._machine is not None:
            self.contended = self._try(self._machine.is_shared, "could not see who shares the machine") or False
        self._write(kind, phase=phase or self._ledger.phase)

    def _observe(self) -> EnergyReading:
        """Absolute clocks and the backend's cumulative joules.

        A backend that fails twice in a row is given up: what it misses cannot be known later.
        """
        components = self._try(self._read_backend, None) or self._try(self._read_backend, "lost the energy readings")
        if components is None:
            self._try(self._backend.close, None)
            lost, self._backend = self._backend, NullBackend()
            self._backend.warnings += lost.warnings
            components = self._backend.read()
        return EnergyReading(self._clock(), _cpu_clock(), components)

    def _read_backend(self) -> dict[str, Component]:
        components = self._backend.read()
        before = self._ledger.last.components if self._ledger else {}
        for name, component in components.items():
            last_j = before[name].energy_j if name in before else 0.0
            if component.energy_j is not None and not (last_j or 0.0) <= component.energy_j < math.inf:
                raise ValueError(f"{name} went from {last_j} J to {component.energy_j} J")
        return components

    def _write(self, kind: str, **more: Any) -> None:
        if self._journal is None or self._ledger is None:
            return
        last = self._ledger.last
        line = {
            "kind": kind,
            "time_utc": _now_utc(),
            "monotonic_s": last.duration_s,
            "cpu_s": last.cpu_s,
            "components": {name: asdict(component) for name, component in last.components.items()},
            "contended": self.contended,
        }
        journal = self._journal
        self._try(lambda: journal.write(line | more), "could not write the energy journal")

    def _try(self, function: Callable[[], Any], failure: str | None) -> Any:
        """Energy never breaks training: a failure becomes one warning, and None is returned."""
        try:
            return function()
        except Exception as error:
            if failure is not None and not any(failure in warning for warning in self._own_warnings):
                self._own_warnings.append(f"{failure}: {type(error).__name__}: {error}")
            return None

    @contextmanager
    def _own_process(self) -> Iterator[None]:
        """Hold the lock. In a forked copy, first let go of everything that belongs to the parent."""
        if os.getpid() != self._pid:
            self._pid, self._lock = os.getpid(), threading.RLock()
            self._backend, self._journal, self._machine, self.owner = NullBackend(), None, None, False
        with self._lock:
            yield


_BACKENDS: dict[str, Callable[[], Backend]] = {
    "codecarbon": CodeCarbonBackend,
    "fake": FakeBackend,
    "none": NullBackend,
}


def _cpu_clock() -> float:
    """CPU-seconds of this process, all threads, and of its children that have ended and were waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _is_measured_by_another_process() -> bool:
    """True in a child of a process that measures, and in every process of a launch but the first on its machine."""
    if any(os.environ.get(name, "0") not in ("", "0") for name in ("LOCAL_RANK", "SLURM_LOCALID")):
        return True
    _, _, pid = os.environ.get(OWNER_VARIABLE, "").rpartition(":")
    return pid.isdigit() and int(pid) != os.getpid() and psutil.pid_exists(int(pid))


class _SharedMachine:
    """Knows whether another meter, or other programs, use the machine while we measure.

    Meters hold a shared lock on one file in the temporary folder, released by the kernel however they end. A new one
    sees the locks of those before it; those before it see that the file has grown.
    """

    def __init__(self, run_id: str, *, watch_load: bool) -> None:
        self._shared = False
        self._file: int | None = None
        self._size = 0
        self._owner = f"{run_id}:{os.getpid()}"
        os.environ.setdefault(OWNER_VARIABLE, self._owner)
        self._watch_load = watch_load
        self._started_s, self._busy_s, self._own_s = time.monotonic(), _busy_s(), _cpu_clock()
        self._foreign_fraction = 0.0
        with suppress(OSError):  # a file of another user that we may not open: then nothing is known
            self._enter()

    def _enter(self) -> None:
        if sys.platform == "win32":
            return
        path = Path(tempfile.gettempdir()) / "smallmodels-energy.lock"
        flags = os.O_RDWR | os.O_APPEND
        try:
            self._file = os.open(path, flags)
        except FileNotFoundError:
            self._file = os.open(path, flags | os.O_CREAT, 0o666)
            os.chmod(path, 0o666)  # the umask must not keep other users out
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
        except BlockingIOError:
            self._shared = True
        os.write(self._file, b".")
        self._size = os.fstat(self._file).st_size
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def is_shared(self) -> bool:
        """True once another meter was seen, or while others' share of the processors is above the limit."""
        if self._file is not None and os.fstat(self._file).st_size > self._size:
            self._shared = True
        if self._watch_load:
            self._foreign_fraction = self._measure_foreign_load()
        return self._shared or self._foreign_fraction > MAX_FOREIGN_FRACTION

    def _measure_foreign_load(self) -> float:
        """Share of all processors' time since the start that went to programs that are not ours."""
        capacity_s = (time.monotonic() - self._started_s) * (psutil.cpu_count() or 1)
        foreign_s = _busy_s() - self._busy_s - (_cpu_clock() - self._own_s)
        if capacity_s < 1 or foreign_s <= MAX_FOREIGN_FRACTION * capacity_s:
            return 0.0
        # Only now the dear part: children that still run, such as data workers, are ours too.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                foreign_s -= sum(child.cpu_times()[:4])
        return max(foreign_s, 0.0) / capacity_s

    def close(self) -> list[str]:
        """Release the lock and the variable; returns what the user should know."""
        if os.environ.get(OWNER_VARIABLE) == self._owner:
            del os.environ[OWNER_VARIABLE]
        if self._file is not None:
            os.close(self._file)
        found = ["another run measured this machine at the same time: both report the joules of both"]
        found = found if self._shared else []
        if self._foreign_fraction > MAX_FOREIGN_FRACTION:
            found.append(
                f"other programs used {self._foreign_fraction:.0%} of the processors: their joules are included"
            )
        return found


def _busy_s() -> float:
    """Seconds that all processors together were not idle, time stolen by other virtual machines included."""
    times = psutil.cpu_times()
    rest = ("idle", "iowait", "guest", "guest_nice")  # guest time is already part of user time
    return float(sum(times) - sum(getattr(times, name, 0.0) for name in rest))


class _Journal:
    """Append-only JSON lines, on disk before `write` returns. One segment per process that writes."""

    def __init__(self, path: Path) -> None:
        lines, _ = _read_lines(path) if path.exists() else ([], 0)
        self.segment = 1 + max((line.get("segment", 0) for line in lines), default=0)
        self._seq = max((line.get("seq", -1) for line in lines), default=-1)
        self._file = path.open("ab", buffering=0)
        self._torn = path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        files.fsync_folder(path.parent)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line; after a line that did not get through, start a new one."""
        self._seq += 1
        text = json.dumps({"seq": self._seq, "segment": self.segment, **line}, ensure_ascii=False)
        data = ("\n" * self._torn + text + "\n").encode()
        self._torn = True
        if self._file.write(data) != len(data):
            raise OSError("the disk took only a part of a line")
        self._torn = False
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that are whole, and how many are not."""
    lines, num_bad = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict):
            lines.append(line)
        else:
            num_bad += bool(text.strip())
    return lines, num_bad


@dataclass(frozen=True)
class JournalTotals:
    """What a journal says, all segments together; the time between segments is not part of it."""

    total: EnergyReading
    phases: dict[str, EnergyReading]
    """By name, in order of first use; nested phases counted once; `other` is the rest. They sum to `total`."""
    num_segments: int
    truncated: bool
    """A segment has no closing line, or a line is torn: at most one tick per segment is missing."""
    contended: bool
    events: list[Event]


def read_journal(path: Path) -> JournalTotals:
    """Rebuild what a run cost from its journal, also after `kill -9` and resume.

    Raises: DamagedError if there is no journal, or a whole line does not hold what a journal's line holds.
    """
    try:
        lines, num_bad = _read_lines(path)
    except OSError as error:
        raise DamagedError(f"{path} should be the journal of a run, but {error}: name a run folder's file") from error
    phases: dict[str, EnergyReading] = {}
    ledgers: dict[int, _Ledger] = {}
    contended: dict[int, bool] = {}
    closed: set[int] = set()
    events: list[Event] = []
    for line in lines:
        try:
            kind, segment = line["kind"], line["segment"]
            if kind == "event":
                events.append(Event(**line["event"]))
                continue
            components = {name: Component(**value) for name, value in line["components"].items()}
            now = EnergyReading(line["monotonic_s"], line["cpu_s"], components)
            if kind == "open":
                ledgers[segment] = _Ledger(now, phases)
            ledger = ledgers[segment]
            ledger.advance(now)
            if kind == "phase_start":
                ledger.begin(line["phase"])
            elif kind == "phase_end":
                ledger.end(line["phase"])
            elif kind == "close":
                closed.add(segment)
            contended[segment] = line["contended"]
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(
                f"{path}: line {line.get('seq')} is not an energy line ({error!r}): restore it"
            ) from error
    truncated = num_bad > 0 or closed != set(ledgers)
    return JournalTotals(_total(phases), phases, len(ledgers), truncated, any(contended.values()), events)


def carbon(energy_j: float | None, *, country: str | None, intensity_g_per_kwh: float | None) -> Carbon | None:
    """Grams of CO2e of these joules, only where the user named a country or an intensity.

    Args:
        energy_j: None gives None grams, with the intensity still stated.
        country: Three letters of ISO 3166-1; its yearly average, from the table that CodeCarbon ships, is used.
        intensity_g_per_kwh: Grams of CO2e per kWh, 1 to 5,000, known to the user.
    Returns: None if neither is given.
    Raises: InputError if both are given, the country has no entry, or the intensity is out of range.
    """
    if country is not None and intensity_g_per_kwh is not None:
        raise InputError(f"give a country or a carbon intensity, got both ({country}, {intensity_g_per_kwh}): drop one")
    year, source = None, "given by the user"
    if country is not None:
        intensity_g_per_kwh, year, source = _country_intensity(country)
    if intensity_g_per_kwh is None:
        return None
    if not 1 <= intensity_g_per_kwh <= 5000:  # below 1, kilograms were meant
        raise InputError(
            f"carbon intensity must be 1 to 5,000 grams per kWh, got {intensity_g_per_kwh}: check the unit"
        )
    emissions_g = None if energy_j is None else to_kwh(energy_j) * intensity_g_per_kwh
    return Carbon(emissions_g=emissions_g, intensity_g_per_kwh=intensity_g_per_kwh, year=year, source=source)


def _country_intensity(country: str) -> tuple[float, int | None, str]:
    """Grams per kWh, year and source of a country's average."""
    from codecarbon import __version__
    from codecarbon.input import DataSource

    entry = DataSource().get_global_energy_mix_data().get(country.upper(), {})
    if not entry.get("carbon_intensity"):
        raise InputError(
            f"country must be a three-letter ISO code with a known average, such as FRA, got {country!r}: "
            "correct it or give a carbon intensity in g/kWh"
        )
    source = f"average of {entry['country_name']}, table of CodeCarbon {__version__}"
    return float(entry["carbon_intensity"]), entry.get("year"), source
