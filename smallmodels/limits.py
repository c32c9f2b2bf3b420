"""Limits of a run, which its user may change whenever the run goes on: a budget, and the least gain for each Wh.

They are no part of the config. A training that was stopped by a limit and goes on without it takes the steps that it
would have taken anyway: the learning rate follows the planned steps, never the limit.

What a budget counts is the whole account of the run: all of its phases and segments, joules as they are labelled,
modelled ones included. Who obeys it: the trainings of student and controls stop after the step that spends it. What
comes after them, such as the evaluation, is done all the same and comes on top. A control that is cut short or left out
is not compared; of a search for a student, the best that it has trained by then are. A budget that is spent before the
student's first step, while data are read, the teacher is fine-tuned or its signal stored, leaves no student: the run
ends with exit code 1 and can go on (`BudgetError`). A teacher that was cut short is kept as a checkpoint of the run
alone, never in the cache. The rule on gains is the student's alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from smallmodels import energy
from smallmodels.energy import EnergyReading
from smallmodels.errors import InputError, require
from smallmodels.records import Component, Stop

_FRESH_S = 0.2
"""A backend is asked at most this often."""
_TICK_S = 5.0
"""Joules that nobody asked for are at most this old."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the user allows; None is no limit.

    Raises: InputError in one sentence that names the flag.
    """

    budget_wh: float | None = None
    budget_minutes: float | None = None
    """Of the run's own time, pauses between its segments left out."""
    budget_usd: float | None = None
    """For electricity, at `usd_per_kwh`."""
    usd_per_kwh: float | None = None
    stop_when_gain_per_wh_below: float | None = None
    """In the units of the metric that training chooses by, ≥ 0."""

    def __post_init__(self) -> None:
        for name in ("budget_wh", "budget_minutes", "budget_usd", "usd_per_kwh"):
            value = getattr(self, name)
            require(value is None or value > 0, _flag(name), "> 0", value)
        least = self.stop_when_gain_per_wh_below
        require(least is None or least >= 0, _flag("stop_when_gain_per_wh_below"), ">= 0", least)
        if self.budget_usd is not None and self.usd_per_kwh is None:
            raise InputError("--budget-usd needs the price of electricity: add --usd-per-kwh, such as 0.30")
        if self.usd_per_kwh is not None and self.budget_usd is None:
            raise InputError("--usd-per-kwh has no effect without --budget-usd: add that, or leave it out")

    @property
    def has_budget(self) -> bool:
        """Whether the run may spend no more than something."""
        return bool(self._budgets)

    @property
    def flags(self) -> list[str]:
        """As the command line takes them."""
        given = ((f.name, getattr(self, f.name)) for f in fields(self))
        return [word for name, value in given if value is not None for word in (_flag(name), f"{value:g}")]

    @property
    def words(self) -> str:
        """All limits, such as `a budget of 0.5 Wh`; `no limit` where there are none."""
        found = [f"a budget of {words}" for words, _ in self._budgets]
        if self.stop_when_gain_per_wh_below is not None:
            found.append(f"a rule of {self.least_gain_words}")
        return " and ".join(found) or "no limit"

    @property
    def least_gain_words(self) -> str:
        """The rule on gains."""
        return gain_words(self.stop_when_gain_per_wh_below or 0.0)

    @property
    def _budgets(self) -> list[tuple[str, Callable[[EnergyReading], bool]]]:
        """Each budget in words, and what tells whether a reading has reached it."""
        found: list[tuple[str, Callable[[EnergyReading], bool]]] = []
        wh, minutes, usd, price = self.budget_wh, self.budget_minutes, self.budget_usd, self.usd_per_kwh
        if minutes is not None:
            found.append((f"{minutes:g} minutes", lambda reading: reading.duration_s >= 60 * minutes))
        if wh is not None:
            found.append((f"{wh:g} Wh", lambda reading: _reaches(reading, wh)))
        if usd is not None and price is not None:
            words = f"{usd:g} USD of electricity at {price:g} USD per kWh"
            found.append((words, lambda reading: _reaches(reading, 1000 * usd / price)))
        return found

    def require_energy(self, reading: EnergyReading) -> None:
        """Refuse a limit on energy where energy is not measured.

        Raises: InputError.
        """
        energy_flags = [flag for flag in self.flags if flag.startswith("--") and flag != "--budget-minutes"]
        if energy_flags and reading.label == "missing":
            raise InputError(
                f"{energy_flags[0]} needs a machine on which energy is measured or modelled, and here it is not: use "
                "--budget-minutes"
            )

    def spent(self, reading: EnergyReading) -> str:
        """Which budget a reading has reached, in words; empty if none."""
        return next((words for words, reached in self._budgets if reached(reading)), "")

    def is_near(self, reading: EnergyReading) -> bool:
        """Whether a budget of energy would be reached within a tick, at the mean power so far."""
        per_s = (reading.energy_j or 0.0) / reading.duration_s if reading.duration_s > 0 else 0.0
        ahead = energy.EnergyReading(components={"cpu": _joules((reading.energy_j or 0.0) + per_s * _TICK_S)})
        return bool(self.spent(ahead))

    def lift(self, stop: Stop, reading: EnergyReading) -> bool:
        """Whether a phase that was stopped before may go on now that the run has paid so much."""
        if stop.by == "budget":
            return not self.spent(reading)
        least = self.stop_when_gain_per_wh_below
        return least is None or (stop.gain_per_wh or 0.0) >= least


def gain_words(least: float) -> str:
    """The rule on gains, as `records.Stop` names it."""
    return f"at least {least:g} more in the metric of validation per Wh"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _reaches(reading: EnergyReading, wh: float) -> bool:
    """Whether so much is spent; where that is not known any more, it counts as spent, because it is a limit."""
    return reading.energy_j is None or energy.to_wh(reading.energy_j) >= wh


def _joules(value: float) -> Component:
    return Component(energy_j=value, label="unknown")


NO_LIMITS = Limits()


class Watch:
    """Tells when a run has spent a budget.

    Args:
        limits: Of the run.
        read: What the run has paid so far; `fresh=True` asks the backend.
    """

    def __init__(self, limits: Limits, read: Callable[..., EnergyReading]) -> None:
        self.limits = limits
        self._read = read
        self._asked_s = 0.0
        self._spent = ""

    def spent(self) -> str:
        """Which budget is spent, in words; empty while none is. Cheap enough to ask after every step."""
        if self.limits.has_budget and not self._spent:
            reading = self._read()
            since_s = reading.duration_s - self._asked_s
            if since_s >= _TICK_S or (since_s >= _FRESH_S and self.limits.is_near(reading)):
                reading, self._asked_s = self._read(fresh=True), reading.duration_s
            self._spent = self.limits.spent(reading)
        return self._spent

    def lifts(self, stop: Stop) -> bool:
        """Whether a phase that was stopped before may go on."""
        return self.limits.lift(stop, self._read(fresh=True))
