"""Fine-tuned teachers, kept in the cache for every run that needs the same one."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from smallmodels import models, training, trials
from smallmodels.data.splits import Split
from smallmodels.errors import BudgetError
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.teachers import addresses, whole


def fine_tune(
    base: TextModel,
    train: Split,
    loss_fn: training.LossFn,
    config: training.TrainConfig,
    *,
    seed: int = 0,
    validation: Split | None = None,
    validate: training.Validate | None = None,
    plan: training.MakePlan | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> TextModel:
    """Fine-tune a teacher on labels, or read back the one that an earlier run made from the same parts.

    Args:
        base: The model to fine-tune; trained in place.
        train: Tokenised, with labels.
        loss_fn: As `training.fit` takes it; its source and the numbers that it closes over are part of the address.
        config: As `training.fit` takes it.
        seed: The teacher's own seed.
        validation: What `validate` reads; part of the address, because it chooses the weights.
        validate: As `training.fit` takes it.
        plan: As `training.fit` takes it.
        compute: Device and number format; chosen for this machine if None.
        context: Of the run.
        cache: Folder of the cache; `cache_folder()` if None.

    Raises: As `training.fit`; BudgetError where the budget of the run ends before the last step, because a teacher that
        was cut short is not the one that others look for in the cache. Its checkpoint is kept.
    """
    compute = compute or models.choose_compute()
    key = {
        "what": "fine-tuned teacher",
        **addresses.of_model(base),
        "max_length": base.max_length,
        "train": train.fingerprint(),
        "validation": None if validation is None else validation.fingerprint(),
        "loss": addresses.of_code(loss_fn),
        "validate": None if validate is None else addresses.of_code(validate),
        **({"plan": addresses.of_code(plan)} if plan else {}),
        "torch": torch.__version__,
        "config": dataclasses.asdict(config),
        "seed": seed,
        "device": compute.device,
        "number_format": compute.number_format,
        "num_threads": compute.num_threads,
    }

    def make() -> TextModel:
        how: dict[str, Any] = {"seed": seed, "validate": validate, "plan": plan, "compute": compute}
        return training.fit(base, train, loss_fn, config, context=_to_the_end(context), **how)

    def made(tuned: TextModel, folder: Path) -> None:
        if trial := trials.current():
            trial.made(tuned.weights_sha256(), folder)

    return whole.read_or_make(key, make, TextModel.load, name="model", context=context, cache=cache, made=made)


def _to_the_end(context: Context) -> Context:
    """A context in which a training that is cut short is no model."""

    def trained(num_steps: int, planned_steps: int, *, limit: str = "", **cut: Any) -> None:
        if cut:
            raise BudgetError(
                f"the budget of {limit} was spent after {num_steps} of {planned_steps} steps of the teacher's "
                "fine-tuning, so there is no student yet: go on with a larger budget or without one"
            )

    rules = dataclasses.replace(context.rules, least_gain_per_wh=None, trained=trained)
    return dataclasses.replace(context, rules=rules)
