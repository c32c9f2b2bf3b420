"""Shapes of models: what the cost of a use depends on, which is not what the weights are."""

import json
from collections.abc import Mapping
from typing import Any

from smallmodels import files
from smallmodels.data.splits import tokenizer_sha256
from smallmodels.models import TextModel

_NOT_OF_THE_SHAPE = frozenset(
    {
        *("name_or_path", "architectures", "id2label", "label2id", "problem_type", "finetuning_task"),
        *("transformers_version", "dtype", "torch_dtype"),
    }
)
"""Settings of a model that change what it says or where it came from, and not what it takes to say it."""


def shape_of(model: Any) -> Any:
    """Equal for models whose uses cost the same: same architecture, other weights. A baseline is like itself alone."""
    if not isinstance(model, TextModel):
        return id(model)
    parameters = [(name, tuple(p.shape)) for name, p in model.model.named_parameters()]
    return type(model.model).__name__, model.max_length, tuple(parameters)


def measured_as(shapes: Mapping[str, Any]) -> dict[str, str]:
    """For each role, the first one of its shape, whose measurement is that of all.

    Args:
        shapes: By role; equal for models whose uses cost the same.
    """
    return {role: next(first for first in shapes if shapes[first] == shape) for role, shape in shapes.items()}


def shape_key(model: Any) -> Mapping[str, Any]:
    """The same as JSON values, to be compared with models of other runs; more exact, and of baselines too.

    A baseline's shape is its class, how many parameters it has, and in which format.
    """
    if not isinstance(model, TextModel):
        about = [model.num_parameters, model.size_bytes, str(model.number_format)]
        return {"kind": type(model).__name__, "shape": files.sha256_json(about)}
    parameters = [[name, list(p.shape)] for name, p in model.model.named_parameters()]
    config: Any = model.model.config
    settings = {
        name: value
        for name, value in config.to_dict().items()
        if not name.startswith("_") and name not in _NOT_OF_THE_SHAPE
    }
    about = [model.max_length, parameters, json.loads(json.dumps(settings, default=str))]
    return {
        "kind": type(model.model).__name__,
        "shape": files.sha256_json(about),
        "pooling": str(getattr(model.model, "pooling", None)),
        "tokenizer": tokenizer_sha256(model.tokenizer),
    }
