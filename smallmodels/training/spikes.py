"""Steps whose loss is far above the usual one."""

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from smallmodels.training.state import Progress

_SPIKE_FACTOR = 100.0
"""A step's loss this many times the median of the last ones is a spike."""
_SPIKE_WINDOW = 32
"""Steps in that median; at least an eighth of them must have been seen."""
_SPIKE_FLOOR = 1e-4
"""A usual loss below this is as good as this: a hundred times nothing is nothing yet."""
_MOST_SKIPPED = 8
"""So many spikes one after the other are no accident of a batch, and stop a run that leaves such steps out."""

Policy = Literal["continue", "skip", "stop"]


@dataclass(frozen=True)
class Spike:
    """A loss far above the usual one, and what to do about it."""

    loss: float
    usual: float
    policy: Policy

    def __str__(self) -> str:
        done = {"continue": "training goes on", "skip": "the step is left out", "stop": "training stops"}[self.policy]
        return f"where {self.usual:.3g} is usual: {done}"


def note(loss: float, step: int, progress: Progress, policy: Policy) -> Spike | None:
    """Note the loss of a step; None if it is as usual.

    Args:
        loss: Per target.
        step: Its number, counted from 1.
        progress: Remembers the losses before, and which steps were spikes.
        policy: What to do with a spike; too many in a row that were to be skipped stop the run.
    """
    known = progress.losses
    usual = statistics.median(known) if len(known) >= _SPIKE_WINDOW // 8 else math.inf
    limit = _SPIKE_FACTOR * max(usual, _SPIKE_FLOOR)
    progress.losses = [*known, min(loss, limit)][-_SPIKE_WINDOW:]  # so that a new level becomes the usual one
    if loss <= limit:
        return None
    progress.spikes.append(step)
    if policy == "skip" and progress.spikes[-_MOST_SKIPPED:] == list(range(step - _MOST_SKIPPED + 1, step + 1)):
        policy = "stop"
    return Spike(loss, usual, policy)
