"""How `fit` trains, and what follows from that alone: the number of steps, the learning rate of each."""

import math
from dataclasses import dataclass
from typing import Literal

from smallmodels.errors import require
from smallmodels.models import TextModel


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How `fit` trains; every value is read there."""

    learning_rate: float = 5e-5
    """Highest learning rate; reached after warm-up, then falls linearly to zero."""
    num_epochs: int = 3
    """Passes over the training split."""
    max_steps: int | None = None
    """Optimizer steps, instead of `num_epochs`."""
    batch_size: int = 32
    """Examples per optimizer step."""
    micro_batch_size: int | None = None
    """Examples per forward pass, which give the gradient of the whole batch; as many as are fast here if left out."""
    warmup_fraction: float = 0.1
    """Share of the steps during which the learning rate rises, in [0, 1]."""
    weight_decay: float = 0.01
    """Of AdamW; biases and normalisation are left out."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm; 0 turns it off."""
    dropout: bool = False
    """Use the model's dropout while training; what it drops depends on micro-batches and on the number of processes."""
    train_embeddings: bool = True
    """Train the table of token vectors too; without it a step is cheaper."""
    num_evaluations: int = 5
    """Validations during training, evenly spaced, the last step included."""
    checkpoint_steps: int = 200
    """Steps between checkpoints."""
    num_workers: int = 0
    """Processes that prepare batches ahead of time; any number gives the same bits."""
    on_loss_spike: Literal["continue", "skip", "stop"] = "continue"
    """What to do with a step whose loss is a hundred times the usual; noted in the record in any case."""

    def __post_init__(self) -> None:
        positive = ("learning_rate", "num_epochs", "batch_size", "num_evaluations", "checkpoint_steps")
        for name in positive:
            require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        for name in ("max_steps", "micro_batch_size"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "> 0", value)
        for name in ("weight_decay", "max_grad_norm", "num_workers"):
            require(getattr(self, name) >= 0, name, ">= 0", getattr(self, name))
        require(0 <= self.warmup_fraction <= 1, "warmup_fraction", "in [0, 1]", self.warmup_fraction)


def num_steps(num_examples: int, config: TrainConfig) -> int:
    """Optimizer steps that `fit` will take."""
    return config.max_steps or config.num_epochs * math.ceil(num_examples / config.batch_size)


def steps_at_cost(trained: TextModel, *, ratio: float) -> int:
    """Optimizer steps that a control may take to cost as much as what it is compared with.

    Args:
        trained: A model that `fit` trained; a rule may have stopped it before its end.
        ratio: What the control may cost, over what that training cost.
    """
    return max(1, round(int(trained.notes["training"]["num_steps"]) * ratio))


def evaluation_steps(steps: int, num_evaluations: int) -> set[int]:
    """After which of so many steps to validate: evenly spaced, the last one included."""
    return {math.ceil(steps * (i + 1) / num_evaluations) for i in range(num_evaluations)}


def is_due(step: int, steps: int, num_evaluations: int, *, done: int) -> bool:
    """Whether to validate after a step, which `evaluation_steps` gives too where the number of steps stays the same.

    Args:
        step: Counted from 1.
        steps: Of the whole training, as far as they are known by now.
        num_evaluations: Of the whole training.
        done: Validations before.
    """
    return step == steps or step >= math.ceil(steps * (done + 1) / num_evaluations)


def schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Factor of the learning rate at a step: a linear rise, then a linear fall that ends above zero."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (steps - step) / max(1, steps - warmup)
