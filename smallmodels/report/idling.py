"""What the machine takes by itself, taken off the joules of a run.

Gross is the headline, because the machine had to be on. Net, which is gross less what the machine would have taken idle
in the same time, compares algorithms. Where joules are modelled, idle is a model too, and net says nothing.
"""

from dataclasses import dataclass

from smallmodels.records import IDLE, EnergyLabel, RunRecord


@dataclass(frozen=True)
class Idle:
    """The joules of a run beside those of the idle machine."""

    power_w: float
    """Of the idle machine."""
    duration_s: float
    """For which it was watched."""
    label: EnergyLabel
    gross_j: float
    """Of the run, the watching included."""
    idle_j: float
    """That the machine would have taken in the time of the run."""
    is_meaningful: bool
    """Whether net says something: joules are counted, not modelled."""

    @property
    def net_j(self) -> float:
        """Gross less idle."""
        return self.gross_j - self.idle_j


def of(record: RunRecord) -> Idle | None:
    """Of a run; None where the idle machine was not watched, or joules are not known."""
    phase = record.phase(IDLE)
    if phase is None or phase.energy_j is None or phase.duration_s <= 0 or record.energy_j is None:
        return None
    power_w = phase.energy_j / phase.duration_s
    return Idle(
        power_w=power_w,
        duration_s=phase.duration_s,
        label=phase.label,
        gross_j=record.energy_j,
        idle_j=power_w * record.duration_s,
        is_meaningful=record.energy_is_counted,
    )
