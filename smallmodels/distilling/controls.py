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


def train_control(
    run: Run, role: str, phases: Sequence[str], learning: Training, first_guess: Callable[[], int], **options: Any
) -> dict[str, TextModel]:
    """Train a model for as many steps as cost what phases of the student did, in the measure of `Run.cost_ratio`.

    How dear its steps will be is not known before it takes them: in `benchmarks/results/cpu_small` a step of a student
    cost up to a fifth more than one of its control minutes later (`banking77/20261128T162938Z-s1`), by the machine's
    drift more than by the loss, and start and validations do not grow with the steps, so neither the student's own
    steps nor a probe of some tell within 3 % how many there may be. So their number is a first guess that is fitted on
    the way to what the control's own steps have cost (`training.Pace`), with the schedule of its learning rate, and
    each number is a choice of the run, so that a run that was killed goes on with the same bits.

    Args:
        run: Has the phases behind it.
        role: Of the control, and the name of its phase.
        phases: That it may cost as much as.
        learning: What its training is, but for its steps.
        first_guess: How many these may be.
        options: Of `fit`.

    Returns: By role; nothing where the budget was spent.
    """
    if not run.affords(role):
        return {}
    name = f"{role}_steps"
    planned = replace(learning.config, max_steps=run.choose(name, first_guess))
    pace = training.Pace(partial(run.share_of_cost, phases), run.choose, name)
    control = run.control(
        role, training.fit, learning.model.copy(), learning.train, learning.loss_fn, planned, pace=pace, **options
    )
    return {} if control is None else {role: control}


def train_with_controls(
    run: Run,
    of_student: Training,
    of_control: Training,
    *,
    tuning: Sequence[str],
    full_cost: bool,
    probe: str | None,
    **options: Any,
) -> tuple[TextModel, dict[str, TextModel]]:
    """Train a student as the phase `train`, and the same student on labels alone at equal cost.

    Args:
        run: Has the phase `cache` behind it.
        of_student: What the student's training is.
        of_control: What that of the controls is, but for its steps.
        tuning: Phases that fine-tuned the teacher; none where others did, and what that cost is not known.
        full_cost: Whether to train a control that may cost as much as these phases too.
        probe: As in `train_controls`.
        options: Likewise.

    Returns: The student, and its controls by role.
    """
    student = run.phase(
        "train",
        training.fit,
        of_student.model.copy(),
        of_student.train,
        of_student.loss_fn,
        of_student.config,
        **options,
    )
    paid_for = {LABEL_ONLY: ["cache", "train"]}
    if not tuning:
        say_tuned(run)
    elif full_cost:
        paid_for[LABEL_ONLY_FULL_COST] = [*tuning, "cache", "train"]
    controls = train_controls(
        run, paid_for, student=student, of_student=of_student, of_control=of_control, probe=probe, **options
    )
    return student, controls


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
    """Train a model on labels alone for as many steps as cost what phases of the student did; see `train_control`.

    Args:
        run: Has the phase `train` behind it.
        paid_for: By role, the phases that the control may cost as much as.
        student: As it was trained.
        of_student: What its training was.
        of_control: What that of the control is, but for its steps.
        probe: Phase that tries the student's steps, where a step of the control does other work than one of the
            student: the costs of both are measured then, for the first guess. None where both do the same work but for
            the targets.
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

    controls: dict[str, TextModel] = {}
    for role, phases in paid_for.items():
        controls |= train_control(run, role, phases, of_control, partial(steps_at_cost_of, phases), **options)
    return controls


def say_tuned(run: Run) -> None:
    """Tell that a control has something of a teacher that others have trained: what that cost is not known."""
    run.event("control", "the teacher came fine-tuned, so the control without it starts from its weights all the same")
