"""What makes a model give what it gives, as parts of an address in the cache."""

import inspect
import json
from typing import Any

from smallmodels import files
from smallmodels.data.splits import tokenizer_sha256
from smallmodels.models import TextModel

FORMAT = "3"
"""Of the addresses and of what is kept under them; raise it when a fix changes what a teacher gives."""


def of_model(model: TextModel) -> dict[str, str]:
    """What makes a model give what it gives: weights, config, the names of its classes, tokenizer."""
    config: Any = model.model.config
    activations = [layer.activation for layer in getattr(model.model, "dense_layers", [])]
    settings = config.to_dict()
    kept = {name: value for name, value in settings.items() if not name.startswith("_") and name != "name_or_path"}
    return {
        "format": FORMAT,
        "kind": type(model.model).__name__,
        "weights": model.weights_sha256(),
        "config": files.sha256_json(json.loads(json.dumps(kept, default=str))),
        "tokenizer": tokenizer_sha256(model.tokenizer),
        "pooling": str(getattr(model.model, "pooling", None)),
        **({"activations": " ".join(activations)} if set(activations) - {"identity"} else {}),
    }


def of_code(function: Any) -> str:
    """A function's source and what it closes over: plain values, source of functions, of anything else its class."""
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return files.sha256_json([_source(function), [_of_closed(value) for value in cells]])


def _of_closed(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_of_closed(part) for part in value]
    if isinstance(value, dict):
        return [[str(key), _of_closed(part)] for key, part in value.items()]
    return _source(value) if inspect.isfunction(value) else type(value).__qualname__


def _source(function: Any) -> str:
    code = function if hasattr(function, "__code__") else type(function)
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # typed into a console
        return repr(getattr(function, "__code__", code))
