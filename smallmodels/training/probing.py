"""What a step costs, where no phase of the run has only such steps."""

from dataclasses import replace

from smallmodels import processes
from smallmodels.data.splits import Split
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context, Rules
from smallmodels.training.checks import LossFn
from smallmodels.training.config import TrainConfig
from smallmodels.training.loop import fit

_PROBE_STEPS = 10
"""Enough that what comes before the first step is a small part."""


@processes.together
def probe(
    student: TextModel,
    train: Split,
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    seed: int = 0,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> int:
    """Take a few steps and forget them; the cost of the phase that this is called as is theirs.

    Args: As `fit`; the student is not changed, and there is no validation.
    Returns: The number of steps.
    """
    few = replace(config, max_steps=_PROBE_STEPS)
    context = replace(context, rules=Rules())  # it trains no student, and few steps are no measure
    fit(student.copy(), train, loss_fn, few, seed=seed, compute=compute, context=context)
    return _PROBE_STEPS
