"""The one training loop: `fit()` and its `TrainConfig`.

A position in training is one integer, the optimizer step: the batch of a step and everything random in it follow from
the seed and the step alone. So a run that was killed goes on from its last checkpoint with the same bits.

`config` is what the user chooses, `loop` takes the steps, `state` is what a checkpoint holds, `micro_batches` makes a
step fit into the memory, `spikes` judges a loss, `checks` what a loss function has to be, `rules` end it early,
`probing` tells what a step costs, `pacing` fits the number of steps to what all of them may cost.
"""

from smallmodels.training.checks import LossFn
from smallmodels.training.config import TrainConfig, num_steps, steps_at_cost
from smallmodels.training.loop import MakePlan, Validate, fit, fit_with_adapter
from smallmodels.training.pacing import Pace
from smallmodels.training.probing import probe
from smallmodels.training.state import best_value, curve

__all__ = [
    "LossFn",
    "MakePlan",
    "Pace",
    "TrainConfig",
    "Validate",
    "best_value",
    "curve",
    "fit",
    "fit_with_adapter",
    "num_steps",
    "probe",
    "steps_at_cost",
]
