"""Runs whose seconds and joules are scripted: they pass only where a test says so."""

from dataclasses import dataclass
from pathlib import Path

from smallmodels import energy


@dataclass
class Clock:
    """Seconds that pass only when told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def scripted_meter(folder: Path, clock: Clock, *, power_w: float, label: str = "counter") -> energy.Meter:
    """A meter of a processor that always draws so much, whose journal is that of the run in this folder."""
    backend = energy.FakeBackend({"cpu": power_w}, label=label, clock=clock)
    return energy.Meter(backend, journal=folder / "journal.jsonl", clock=clock, tick_s=3600)
