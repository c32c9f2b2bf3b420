"""A student with fewer layers than its teacher."""

import dataclasses
from typing import Any

import numpy as np
from torch import nn

from smallmodels.errors import InputError
from smallmodels.students.student import Student


def keep_layers(student: Student, num_layers: int) -> Student:
    """Keep evenly spaced layers, first and last included, and copy their weights.

    Args:
        student: An encoder, with or without a head, or a language model; it is not changed.
        num_layers: Layers to keep, from 1 to as many as there are.

    Raises: InputError if there are fewer layers.
    Source: Sanh et al. 2019, arXiv:1910.01108, section 3, and Jiao et al. 2020, arXiv:1909.10351.
    """
    available = int(_config(student).num_hidden_layers)
    if not 1 <= num_layers <= available:
        raise InputError(f"the number of layers to keep must be from 1 to the teacher's {available}, got {num_layers}")
    kept = [int(i + 0.5) for i in np.linspace(0, available - 1, num_layers)]  # 0.5 rounds up: 0, 3, 5 of six
    small = student.copy()
    parent, name = _find_layers(small.model, available)
    layers = getattr(parent, name)
    setattr(parent, name, nn.ModuleList([layers[i] for i in kept]))
    _renumber(getattr(parent, name))
    config = _config(small)
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]
    return dataclasses.replace(small, notes={**student.notes, "kept_layers": kept, "teacher_layers": available})


def _renumber(layers: nn.ModuleList) -> None:
    """Tell each layer its new place, under which a language model keeps what it has read."""
    for place, layer in enumerate(layers):
        parts: list[Any] = list(layer.modules())
        for module in parts:
            if hasattr(module, "layer_idx"):
                module.layer_idx = place


def _config(student: Student) -> Any:
    return student.model.config


def _find_layers(model: nn.Module, num_layers: int) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and the list's name in it."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == num_layers:
                return module, name
    raise InputError(
        f"the teacher should keep its {num_layers} layers in one list, but {type(model).__name__} does not: "
        "choose another encoder"
    )
