"""Where joules come from: CodeCarbon, a script for tests, or nowhere. The only importer of codecarbon."""

import logging
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from smallmodels.energy.readings import MISSING
from smallmodels.records import Component, EnergyLabel

_STALLED_S = 2.0


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

    def __init__(self, warnings: list[str] | None = None) -> None:
        self.warnings: list[str] = warnings or []

    def open(self) -> None:
        """Nothing to start."""

    def read(self) -> dict[str, Component]:
        """Every joule is missing."""
        return {"cpu": MISSING}

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
        self._opened_s = clock()
        self._spent_j = dict.fromkeys(self.power_w, 0.0)

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
            name: Component(energy_j=self.power_w.get(name, 0.0) * elapsed_s + spent_j, label=self.label)
            for name, spent_j in self._spent_j.items()
        }

    def close(self) -> None:
        """Nothing to stop."""


class CodeCarbonBackend:
    """CodeCarbon's offline tracker over the whole machine, read by flushing it; it opens no socket and writes no file.

    Its own measuring timer is set beyond any run: a timer and a flush at the same moment would charge the same seconds
    twice, so the meter's ticks are the only ones.
    """

    tracking_mode = "machine"

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._log = _WarningCollector(self.warnings)
        self._tracker: Any = None
        self._totals: Any = None
        self._grown: dict[str, tuple[float, float]] = {}
        self._nvml_counts: bool | None = None

    def open(self) -> None:
        """Import CodeCarbon, find the hardware and start the tracker: about two seconds."""
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output import BaseOutput

        backend = self

        class Snapshot(BaseOutput):  # type: ignore[misc]
            """Receives the totals of every flush."""

            def out(self, total: Any, delta: Any) -> None:
                backend._totals = total

        self._log.attach()
        with tempfile.TemporaryDirectory() as folder:  # it must exist, and nothing is written to it
            self._tracker = OfflineEmissionsTracker(**codecarbon_settings(folder), output_handlers=[Snapshot()])
        self._log.attach()  # again: every new tracker puts a handler that prints in our place
        self._tracker.start()
        self._nvml_counts = _nvml_has_energy_counters()

    def read(self) -> dict[str, Component]:
        """Flush, and convert from kWh.

        Raises:
            RuntimeError: the flush, which swallows its own errors, delivered nothing.
        """
        self._totals = None
        self._tracker.flush()
        if self._totals is None:
            raise RuntimeError("CodeCarbon delivered no reading")
        energies_kwh = {"cpu": self._totals.cpu_energy, "gpu": self._totals.gpu_energy, "ram": self._totals.ram_energy}
        labels = _codecarbon_labels(self._tracker, self._nvml_counts)
        has_gpu = bool(self._totals.gpu_count) or energies_kwh["gpu"] > 0
        components = {
            name: self._component(name, energy_kwh * 3.6e6, labels.get(name, "unknown"))
            for name, energy_kwh in energies_kwh.items()
            if has_gpu or name != "gpu"
        }
        if not has_gpu and (platform.system(), platform.machine()) == ("Darwin", "arm64"):
            components["gpu"] = MISSING  # every such chip has one, and CodeCarbon reads it only with sudo
        return components

    def _component(self, name: str, energy_j: float, label: EnergyLabel) -> Component:
        """A component that stands still is not being read: CodeCarbon adds 0 J where a reading fails."""
        now = time.monotonic()
        last_j, last_s = self._grown.setdefault(name, (0.0, now))
        if energy_j > last_j:
            self._grown[name] = (energy_j, now)
        return (
            MISSING if energy_j == last_j and now - last_s > _STALLED_S else Component(energy_j=energy_j, label=label)
        )

    def close(self) -> None:
        """Stop the tracker's threads and give the `codecarbon` logger back."""
        try:
            if self._tracker is not None:
                self._tracker.stop()
        finally:
            self._log.detach()


def codecarbon_settings(folder: str) -> dict[str, Any]:
    """Every setting that CodeCarbon would otherwise take from a file or the environment, given explicitly.

    Energy only: with a forced intensity it never looks up a country or a token. No overhead factor (PUE, WUE).
    `gpu_ids=None` leaves `CUDA_VISIBLE_DEVICES` in force. Checked on version 3.3.2; a test holds it against the
    signature of the installed one.
    """
    fixed: dict[str, Any] = {
        "tracking_mode": "machine",
        "measure_power_secs": 1e6,
        "api_call_interval": -1,
        "allow_multiple_runs": True,  # its lock file stays after kill -9, and then it measures nothing; ours does not
        "force_carbon_intensity_g_co2e_kwh": 0.0,
        "pue": 1.0,
        "wue": 0.0,
        "log_level": "warning",
        "output_methods": [],
        "output_dir": folder,
        "on_csv_write": "append",
    }
    off = ("force_mode_cpu_load", "rapl_include_dram", "rapl_prefer_psys")
    empty: tuple[str, ...] = (
        "api_endpoint",
        "api_key",
        "electricitymaps_api_token",
        "experiment_id",
        "experiment_name",
    )
    empty += ("logger_preamble", "output_file", "project_name", "prometheus_url")
    none: tuple[str, ...] = (
        "cloud_provider",
        "cloud_region",
        "country_2letter_iso_code",
        "country_iso_code",
        "emissions_endpoint",
    )
    none += ("force_cpu_power", "force_ram_power", "gpu_ids", "logging_logger", "metadata", "region")
    return fixed | dict.fromkeys(off, False) | dict.fromkeys(empty, "") | dict.fromkeys(none)


def codecarbon_energy_mix() -> tuple[dict[str, dict[str, Any]], str]:
    """CodeCarbon's table of countries by ISO code, and how to cite it."""
    from codecarbon import __version__
    from codecarbon.input import DataSource

    return DataSource().get_global_energy_mix_data(), f"table of CodeCarbon {__version__}"


def _codecarbon_labels(tracker: Any, nvml_counts: bool | None) -> dict[str, EnergyLabel]:
    """How each component is obtained. The only code that looks behind the public API: what it cannot see is unknown."""
    labels: dict[str, EnergyLabel] = {}
    modes: dict[str, EnergyLabel] = {
        "constant": "constant",
        "cpu_load": "modelled",
        "intel_power_gadget": "sampled",
        "intel_rapl": "counter" if any(Path("/sys/class/powercap").glob("*/energy_uj")) else "unknown",
        "windows_emi": "counter",
    }
    for hardware in getattr(tracker, "_hardware", []):
        kind = type(hardware).__name__
        if kind == "CPU":
            labels["cpu"] = modes.get(getattr(hardware, "_mode", ""), "unknown")
        elif kind == "GPU" and nvml_counts is not None:
            labels["gpu"] = "counter" if nvml_counts else "sampled"
        elif kind == "RAM":
            labels["ram"] = "constant"  # watts per module, from a guess at their number
        elif kind in ("AppleSiliconChip", "Raspberry"):
            labels[str(getattr(hardware, "chip_part", "")).lower()] = "sampled"
    return labels


def _nvml_has_energy_counters() -> bool | None:
    """Whether every NVIDIA GPU answers with its total energy; None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no binding, no driver: whatever it raises, there is nothing to ask
        return None
    try:
        return all(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) > 0 for handle in handles) if handles else None
    except pynvml.NVMLError:
        return False


class _WarningCollector(logging.Handler):
    """Keeps what CodeCarbon warns about: the only place where it admits that a rated power is a guess."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings
        self._logger = logging.getLogger("codecarbon")
        self._before: list[logging.Handler] | None = None

    def attach(self) -> None:
        """Listen, in place of the handlers that print."""
        self._before = self._logger.handlers if self._before is None else self._before
        self._logger.handlers = [self]

    def detach(self) -> None:
        """Put the earlier handlers back."""
        if self._before is not None:
            self._logger.handlers = self._before

    def emit(self, record: logging.LogRecord) -> None:
        """Keep each message once, and the exception that it speaks of."""
        text = "CodeCarbon: " + " ".join(record.getMessage().split())
        if record.exc_info and record.exc_info[1]:
            text += f" {record.exc_info[1]!r}"
        if text not in self._warnings and "Multiple instances" not in text:  # which we allow on purpose
            self._warnings.append(text)
