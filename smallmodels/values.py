"""What a phase returned, as JSON and files that a resumed run reads again. No pickle.

Plain JSON values, tuples, arrays, paths, dataclasses of this package, and objects with `save(folder)` and a
class method `load(folder)` can be kept, also inside lists and dictionaries. Classes are looked up only in this package.
"""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smallmodels.errors import DamagedError

_PACKAGE = __name__.partition(".")[0]
_TAG = "$"
"""Key of a JSON object that stands for something else; objects that hold it themselves are written as pairs."""


def encode(value: Any, folder: Path) -> Any:
    """Turn a value into JSON, writing what is not JSON into the folder.

    Raises: TypeError that names what cannot be kept.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
    if isinstance(value, list):
        return [encode(item, folder) for item in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return {_TAG: "tuple", "items": [encode(item, folder) for item in value]}
    if isinstance(value, Mapping) and not hasattr(value, "save"):
        return _encode_mapping(value, folder)
    if isinstance(value, Path):
        return {_TAG: "path", "value": str(value)}
    if type(value).__module__ == "numpy":
        return _encode_array(value, folder)
    return _encode_object(value, folder)


def _encode_mapping(value: Mapping[Any, Any], folder: Path) -> Any:
    if all(isinstance(key, str) for key in value) and _TAG not in value:
        return {key: encode(item, folder) for key, item in value.items()}
    return {_TAG: "mapping", "items": [[encode(k, folder), encode(v, folder)] for k, v in value.items()]}


def _encode_array(value: Any, folder: Path) -> Any:
    import numpy as np

    from smallmodels import arrays

    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError("an array of Python objects cannot be kept: return numbers or a list")
    if isinstance(value, np.generic):
        return encode(value.item(), folder)
    name = f"array-{_next_number(folder)}.npy"
    arrays.save(folder / name, array)
    return {_TAG: "array", "file": name}


def _encode_object(value: Any, folder: Path) -> Any:
    kind = type(value)
    path = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__.partition(".")[0] != _PACKAGE:
        raise TypeError(
            f"a phase returned {path}, which cannot be kept: return plain values, arrays, or an object of {_PACKAGE}"
        )
    if hasattr(value, "save") and hasattr(kind, "load"):
        name = f"object-{_next_number(folder)}"
        (folder / name).mkdir()
        value.save(folder / name)
        return {_TAG: "object", "class": path, "folder": name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: encode(getattr(value, f.name), folder) for f in dataclasses.fields(value) if f.init}
        return {_TAG: "dataclass", "class": path, "fields": fields}
    raise TypeError(f"a phase returned {path}, which cannot be kept: it is no dataclass and has no save and load")


def _next_number(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def decode(value: Any, folder: Path) -> Any:
    """The value that `encode` wrote.

    Raises: DamagedError if it names a class outside this package, or a file that is not there.
    """
    if isinstance(value, list):
        return [decode(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(_TAG)
    if tag is None:
        return {key: decode(item, folder) for key, item in value.items()}
    if tag == "float":
        return float(value["value"])
    if tag == "tuple":
        return tuple(decode(item, folder) for item in value["items"])
    if tag == "mapping":
        return {decode(key, folder): decode(item, folder) for key, item in value["items"]}
    if tag == "path":
        return Path(value["value"])
    if tag == "array":
        from smallmodels import arrays

        return arrays.load(folder / Path(value["file"]).name)
    if tag == "object":
        return _class(value["class"]).load(folder / Path(value["folder"]).name)
    if tag == "dataclass":
        return _class(value["class"])(**{key: decode(item, folder) for key, item in value["fields"].items()})
    raise DamagedError(f"{folder} should hold values of known kinds, found {tag!r}: delete it to make it again")


def _class(path: str) -> Any:
    """A class of this package by `module:name`."""
    module, _, name = path.partition(":")
    if module.partition(".")[0] != _PACKAGE or "." in name:
        raise DamagedError(f"a kept value should be of a class in {_PACKAGE}, found {path}: delete the phase's folder")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type) or found.__module__ != module:
        raise DamagedError(f"a kept value should be of a class in {_PACKAGE}, found {path}: delete the phase's folder")
    return found
