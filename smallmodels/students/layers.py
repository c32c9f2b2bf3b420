"""Students with fewer layers than their teacher, or with layers that share their weights."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from smallmodels import models
from smallmodels.errors import InputError, require
from smallmodels.students.student import Student

_FIRST_STAYS = ("modernbert",)
"""Families whose first layer lacks a norm that all others have."""


def keep_layers(student: Student, layers: int | Sequence[int]) -> Student:
    """Keep some of the layers, and copy their weights.

    Args:
        student: An encoder, with or without a head, or a language model; it is not changed.
        layers: How many, which are then evenly spaced, first and last included; or which, the first layer's number
            being 0.

    Raises: InputError if there are no such layers.
    Source: Sanh et al. 2019, arXiv:1910.01108, section 3, and Jiao et al. 2020, arXiv:1909.10351.
    """
    config = _config(student)
    available = int(config.num_hidden_layers)
    kept = _evenly_spaced(layers, available) if isinstance(layers, int) else _listed(layers, available)
    if kept[0] and config.model_type in _FIRST_STAYS:
        raise InputError(
            f"the layers to keep must begin with 0, because the first layer of {config.model_type} lacks a norm that "
            f"the others have, got {kept}: keep layer 0 too"
        )
    small = student.copy()
    parent, name = models.find_layers(small.model)
    stack = getattr(parent, name)
    setattr(parent, name, nn.ModuleList([stack[i] for i in kept]))
    _renumber(getattr(parent, name))
    config = _config(small)
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]
    return dataclasses.replace(small, notes={**student.notes, "kept_layers": kept, "teacher_layers": available})


def _evenly_spaced(num_layers: int, available: int) -> list[int]:
    if not 1 <= num_layers <= available:
        raise InputError(
            f"the number of layers to keep must be from 1 to the teacher's {available}, got {num_layers}: choose "
            "another --num-layers"
        )
    return [int(i + 0.5) for i in np.linspace(0, available - 1, num_layers)]  # 0.5 rounds up: 0, 3, 5 of six


def _listed(layers: Sequence[int], available: int) -> list[int]:
    kept = list(layers)
    if not kept or kept != sorted({*kept} & {*range(available)}):
        raise InputError(
            f"the layers to keep must be different numbers from 0 to the teacher's {available - 1} in rising order, "
            f"got {kept}"
        )
    return kept


def _renumber(layers: nn.ModuleList) -> None:
    """Tell each layer its new place, under which a language model keeps what it has read."""
    for place, layer in enumerate(layers):
        parts: list[Any] = list(layer.modules())
        for module in parts:
            if hasattr(module, "layer_idx"):
                module.layer_idx = place


def _config(student: Student) -> Any:
    return student.model.config


# Layers that share


def share_layers(student: Student, num_groups: int) -> Student:
    """Let neighbouring layers share one set of weights, which begins as that of the first of them.

    There are fewer weights to train, and a gradient step moves all layers of a group alike; computing takes as long.
    No config can say so: the files hold every layer, and who loads them gets a model of the usual kind with equal
    layers, which gives the same and is no smaller. Trained on, its layers go apart.

    Args:
        student: An encoder, with or without a head, or a language model; it is not changed.
        num_groups: From 1 to as many as there are layers; their sizes differ by one at most.

    Raises: InputError if there are fewer layers, or they have adapters.
    Source: "Sequence" in Takase and Kiyono 2021, arXiv:2104.06022, section 2.
    """
    if models.is_adapted(student.model):
        raise InputError("layers that share weights should have no adapters, found some: merge them first")
    available = int(_config(student).num_hidden_layers)
    require(1 <= num_groups <= available, "num_groups", f"from 1 to the {available} layers", num_groups)
    small = student.copy()
    groups = [group.tolist() for group in np.array_split(np.arange(available), num_groups)]
    tie(small.model, groups)
    return dataclasses.replace(small, notes={**student.notes, "shared_layers": groups})


def tie(model: nn.Module, groups: Sequence[Sequence[int]]) -> None:
    """Give all layers of a group the weights of the first one that has them, in place."""
    parent: Any
    parent, name = models.find_layers(model)
    stack = getattr(parent, name)
    for group in groups:
        owners: dict[str, nn.Parameter] = {}
        for number in group:
            for path, parameter in list(stack[number].named_parameters()):
                part, _, last = path.rpartition(".")
                setattr(stack[number].get_submodule(part), last, owners.setdefault(path, parameter))
    if any(len(group) > 1 for group in groups):
        parent.register_state_dict_post_hook(_copy_shared)


def _copy_shared(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Let each layer have its own tensors in what is saved: files of safetensors hold no tensor under two names."""
    seen: set[int] = set()
    for name, value in state.items():
        if name.startswith(prefix) and isinstance(value, Tensor):
            state[name] = value.clone() if value.data_ptr() in seen else value
            seen.add(value.data_ptr())
