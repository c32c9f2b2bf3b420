"""The student's shape trained on labels alone, for what the student cost: has the teacher helped?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from smallmodels import training
from smallmodels.data import Split
from smallmodels.models import TextModel
from smallmodels.runs import Run
from smallmodels.training import TrainConfig

LABEL_ONLY, LABEL_ONLY_FULL_COST = "label_only", "label_only_full_cost"
"""Roles: what cache and training of the student cost, and the teacher's fine-tuning too."""

_PROBE_OF_CONTROL = "probe_label_only"


@dataclass(frozen=True)
class Training:
    """What is trained, on what, to what end."""

    model: TextModel
    """It is not changed."""
    train: Split
    """Tokenised by the model's tokenizer."""
    loss_fn: Callable[..., Tensor]
    """As `fit` calls it, with the kind of model that this is."""
    config: TrainConfig


def train_controls(
    run: Run,
    paid_for: Mapping[str, Sequence[str]],
    *,
    student: TextModel,
    of_student: Training,
    of_control: Training,
    probe: str | None,
    **options: Any,
) -> dict[str, TextModel]:
    """Train a model on labels alone for as many steps as cost what phases of the student did.

    Args:
        run: Has the phase `train` behind it.
        paid_for: By role, the phases that the control may cost as much as.
        student: As it was trained.
        of_student: What its training was.
        of_control: What that of the control is, but for its steps.
        probe: Phase that tries the student's steps, where a step of the control does other work than one of the
            student: the costs of both are measured then. None where both cost the same but for the targets.
        options: Of `fit`: `seed`, `compute`, and `validate` where validation chooses.

    Returns: By role; without those whose budget was spent.
    """
    if probe is not None and run.affords(LABEL_ONLY):
        alike = {name: value for name, value in options.items() if name != "validate"}
        for name, tried in ((probe, of_student), (_PROBE_OF_CONTROL, of_control)):
            run.phase(name, training.probe, tried.model, tried.train, tried.loss_fn, tried.config, **alike)

    def steps_at_cost_of(phases: Sequence[str]) -> int:
        ratio = run.cost_ratio(phases, to=["train"])
        if probe is not None:
            ratio *= run.cost_ratio([probe], to=[_PROBE_OF_CONTROL])
        return training.steps_at_cost(student, ratio=ratio)

    controls = {}
    for role, phases in paid_for.items():
        if run.affords(role):
            steps = run.choose(f"{role}_steps", partial(steps_at_cost_of, phases))
            as_long = replace(of_control.config, max_steps=steps)
            control = run.control(
                role, training.fit, of_control.model.copy(), of_control.train, of_control.loss_fn, as_long, **options
            )
            if control is not None:
                controls[role] = control
    return controls


def say_tuned(run: Run) -> None:
    """Tell that a control has something of a teacher that others have trained: what that cost is not known."""
    run.event("control", "the teacher came fine-tuned, so the control without it starts from its weights all the same")
