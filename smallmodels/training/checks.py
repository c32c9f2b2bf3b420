"""What must hold of a loss function before the first step."""

import contextlib
import dis
import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from smallmodels.data.batches import Batch
from smallmodels.errors import InputError, TrainingError
from smallmodels.models import Model, TextModel

LossFn = Callable[[Model, Batch], Tensor]
"""Gives one value per target, masked targets already removed; may be an `nn.Module` with parameters of its own."""


def require_frozen(loss_fn: LossFn, student: TextModel) -> None:
    """Refuse a model that the loss function holds, such as a teacher, if it would answer at random or be trained.

    Parameters of an `nn.Module` that is the loss itself are trained, and not meant.
    """
    own = set(student.model.modules())
    for name, held in _names_in(loss_fn).items():
        module = held.model if isinstance(held, TextModel) else held
        if not isinstance(module, nn.Module) or module in own:
            continue
        if module.training or any(parameter.requires_grad for parameter in module.parameters()):
            raise InputError(
                f"the model {name!r} in the loss function should be in evaluation mode and without gradients, and is "
                "not: call its eval() and requires_grad_(False) first, or, to train it too, make the loss an nn.Module"
            )


def _names_in(function: Any) -> dict[str, Any]:
    """What a function's own names from outside stand for: its closure, the globals that it reads, bound arguments."""
    if isinstance(function, functools.partial):
        bound = {str(i): value for i, value in enumerate(function.args)} | function.keywords
        return bound | _names_in(function.func)
    if isinstance(function, nn.Module):  # its own parameters are trained, but a function that it holds has names too
        return {name: value for held in vars(function).values() for name, value in _names_in(held).items()}
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    globals_read = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    found = {name: function.__globals__[name] for name in globals_read if name in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a name that has no value yet
            found[name] = cell.cell_contents
    return found


def per_target(values: Tensor) -> Tensor:
    """What a loss function gave, refused unless it is one value per target with a gradient."""
    if values.ndim == 0:
        raise TrainingError("loss_fn should return one value per target, but gave a single number: leave out its mean")
    if not values.requires_grad:
        raise TrainingError("the loss should depend on the trained weights, but no gradient came: check loss_fn")
    return values
