"""Watching the machine while it does nothing, before the first phase of a run."""

import time

from smallmodels import trials
from smallmodels.errors import RunInterruptedError
from smallmodels.phases import NO_CONTEXT, Context

_TRIED_S, _POLL_S = 1.0, 0.2


def rest(seconds: float, *, context: Context = NO_CONTEXT) -> None:
    """Do nothing for so long; a trial does so for a second.

    Raises: RunInterruptedError if the user asked the run to stop.
    """
    if (trial := trials.current()) is not None and seconds > _TRIED_S:
        trial.leave_out(trials.Cost(seconds - _TRIED_S, 0.0))
        seconds = _TRIED_S
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if context.should_stop():
            raise RunInterruptedError("the run was stopped while the machine was idle, and begins with that again")
        time.sleep(min(left, _POLL_S))
