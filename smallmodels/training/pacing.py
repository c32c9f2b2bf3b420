"""A training that may cost so much: how many steps it takes follows from what they turn out to cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from smallmodels import processes
from smallmodels.energy import EnergyReading
from smallmodels.phases import Context

_MEASURED_FROM = 0.05
"""Share of the steps that come first and tell nothing of the others, because allocators and caches fill."""
_FITTED_AT = (0.25, 0.5, 0.75, 0.9, 0.97)
"""Shares of the steps after which their number is fitted; the last leaves so few that no drift in them matters."""
_POINTS = (_MEASURED_FROM, *_FITTED_AT)
_MOST_GROWTH = 2.0
"""By which one fit may multiply the number of steps: some steps may look as if they cost nothing."""


@dataclass(frozen=True)
class Pace:
    """What a training may cost."""

    share_spent: Callable[[], Callable[[EnergyReading], float]]
    """Asked once, if the training begins: what tells of a reading which share of that it is."""
    choose: Callable[[str, Callable[[], int]], int]
    """As `Run.choose`: writes each number of steps down, so that a training that goes on or is repeated takes it."""
    name: str
    """Of the choices: `label_only_steps` makes `label_only_steps_after_95`."""


@dataclass
class Pacing:
    """How far a training with a pace is; saved with each checkpoint.

    Shares are those of `Pace`, of steps that are kept: what an interruption lost is nobody's training.
    """

    num_steps: int | None = None
    """As they were fitted last; None before."""
    num_points: int = 0
    """Of those after which their cost is looked at, that are passed."""
    spent: float = 0.0
    apart: float = 0.0
    """Of that, on the start and on validations."""
    validation: float = 0.0
    """On the last validation."""
    since_step: int = 0
    """After which the steps began that tell what the others will cost."""
    since_spent: float = 0.0
    """On steps alone, by then."""


class Pacer:
    """Watches what a training costs, and fits the number of its steps.

    Args:
        pace: What it may cost.
        context: Of the run; has a reading of what the phase has cost.
    """

    def __init__(self, pace: Pace, context: Context) -> None:
        self._pace, self._context = pace, context
        self._share = pace.share_spent() if processes.rank() == 0 else None  # it reads for all
        self._last = self._now()

    def _now(self) -> float:
        reading = self._context.energy() if self._share else None
        return self._share(reading) if self._share and reading else 0.0

    def begin(self, pacing: Pacing, step: int) -> None:
        """Note what the start has cost, which counts once: that of a training that goes on does not."""
        self.note(pacing if step == 0 else Pacing(), apart=True)

    def note(self, pacing: Pacing, *, apart: bool = False) -> float:
        """Add what was spent since the last call, and tell it.

        Args:
            pacing: Of the training.
            apart: It was no step.
        """
        now = self._now()
        spent, self._last = now - self._last, now
        pacing.spent += spent
        pacing.apart += spent if apart else 0.0
        return spent

    @staticmethod
    def next_point(pacing: Pacing, num_steps: int) -> int:
        """The step after which the costs are looked at next, or the last one."""
        ahead = _POINTS[pacing.num_points : pacing.num_points + 1]
        return min([num_steps, *(math.ceil(num_steps * share) for share in ahead)])

    def fit(self, pacing: Pacing, step: int, num_steps: int, *, num_validations: int) -> None:
        """Look at what the steps since the last point have cost, and fit the number of steps to it.

        Args:
            pacing: Of the training.
            step: Steps done.
            num_steps: Of all steps, as it was.
            num_validations: That are still to come.
        """
        self.note(pacing)
        is_measured = pacing.num_points > 0
        if is_measured:
            measure = partial(fitted, pacing, step, num_steps, num_validations=num_validations)
            pacing.num_steps = self._pace.choose(f"{self._pace.name}_after_{step}", measure)
        pacing.since_step, pacing.since_spent = step, pacing.spent - pacing.apart
        pacing.num_points += 1
        while self.next_point(pacing, pacing.num_steps or num_steps) <= step and pacing.num_points < len(_POINTS):
            pacing.num_points += 1


def fitted(pacing: Pacing, step: int, num_steps: int, *, num_validations: int) -> int:
    """How many steps come to what the training may cost, if those ahead cost as much as the last ones.

    Args:
        pacing: With what was spent by now.
        step: Steps done.
        num_steps: Of all steps, as it was.
        num_validations: That are still to come; each costs what the last one did.

    Returns: One more than are done at least, so that the training ends as it would with this number from the start.
    """
    per_step = (pacing.spent - pacing.apart - pacing.since_spent) / max(1, step - pacing.since_step)
    left = 1.0 - pacing.spent - num_validations * pacing.validation
    most = math.ceil(_MOST_GROWTH * num_steps)
    if left <= 0:
        return step + 1
    wanted = step + round(left / per_step) if per_step * most > left else most
    return max(step + 1, min(wanted, most))
