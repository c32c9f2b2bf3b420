"""From a recipe's typed config to flags and JSON, and back. Standard library only; `cli` makes the command line of it.

Every value of a config is a leaf with a path: `train.learning_rate`. The prefix of a field called `train` is dropped
in flags (`--learning-rate`); any other nested config keeps its own (`--teacher-train.learning-rate`).
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import json
import math
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from smallmodels.errors import InputError

MAX_CONFIG_BYTES = 1_000_000
MAX_INTEGER = 2**63
"""What libraries below us keep a whole number in."""
DROPPED_PREFIX = "train"
PathInConfig = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """One value of a config."""

    path: PathInConfig
    flag: str
    """Without the dashes: `learning-rate`."""
    kind: Any
    """Its type."""
    help: str
    """The field's docstring."""

    @property
    def name(self) -> str:
        """As messages and JSON files write it: `train.learning_rate`."""
        return ".".join(self.path)


def leaves(kind: type, path: PathInConfig = (), prefix: str = "") -> list[Leaf]:
    """Every value of a config class, in the order of its fields."""
    hints, docstrings = typing.get_type_hints(kind), field_docstrings(kind)
    found: list[Leaf] = []
    for f in dataclasses.fields(kind):
        here, flag = (*path, f.name), prefix + f.name.replace("_", "-")
        if dataclasses.is_dataclass(hints[f.name]):
            dropped = f.name == DROPPED_PREFIX and not path
            found += leaves(hints[f.name], here, "" if dropped else f"{flag}.")
        else:
            found.append(Leaf(here, flag, hints[f.name], docstrings.get(f.name, "")))
    return found


def field_docstrings(kind: type) -> dict[str, str]:
    """The texts that stand under a dataclass's fields, in one line each; under those of its base, where it has none.

    Empty where the source is not at hand.
    """
    inherited = [field_docstrings(base) for base in reversed(kind.__bases__) if dataclasses.is_dataclass(base)]
    return dict(itertools.chain.from_iterable(found.items() for found in (*inherited, _own_docstrings(kind))))


def _own_docstrings(kind: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    found = {}
    for statement, after in itertools.pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and is_text:
            text = typing.cast(ast.Constant, typing.cast(ast.Expr, after).value).value
            found[statement.target.id] = " ".join(str(text).split())
    return found


def get(config: Any, path: PathInConfig) -> Any:
    """The value of a leaf."""
    for name in path:
        config = getattr(config, name)
    return config


_CONFIGURATIONS: Mapping[PathInConfig, PathInConfig] = {
    ("dataset",): ("dataset_config",),
    ("similarity_dataset",): ("similarity_config",),
}
"""Values that name a data set, and those that name its configuration."""


def merged(config: Any, *layers: Mapping[PathInConfig, Any]) -> dict[PathInConfig, Any]:
    """Changes to a config, the later ones over the earlier.

    A layer that names another data set and no configuration takes that of the one before away: it belongs to it.
    """
    found: dict[PathInConfig, Any] = {}
    for changes in layers:
        for name, own in _CONFIGURATIONS.items():
            if name in changes and own not in changes and hasattr(config, own[0]):
                before = found.get(name, get(config, name))
                if _repository(changes[name]) != _repository(before) and found.get(own, get(config, own)) is not None:
                    found[own] = None
        found |= changes
    return found


def _repository(dataset: Any) -> str:
    """A data set's name without its revision."""
    return str(dataset).partition("@")[0]


def replace(config: Any, changes: Mapping[PathInConfig, Any]) -> Any:
    """The config with these leaves changed; its own checks run again, on the whole.

    Raises: InputError with the sentence of the check that failed.
    """
    here: dict[str, Any] = {path[0]: value for path, value in changes.items() if len(path) == 1}
    nested = {path[0] for path in changes if len(path) > 1}
    for name in nested:
        inner = {path[1:]: value for path, value in changes.items() if path[0] == name and len(path) > 1}
        here[name] = replace(getattr(config, name), inner)
    try:
        return dataclasses.replace(config, **here)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error


def require_finite(config: Any) -> None:
    """Refuse numbers that are not finite, and whole ones that no machine can count to; no setting means them."""
    for leaf in leaves(type(config)):
        value = get(config, leaf.path)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{leaf.flag} must be a finite number, got {value}")
        if isinstance(value, int) and abs(value) >= MAX_INTEGER:
            raise InputError(f"--{leaf.flag} must be a number below 2^63, got one of {len(str(abs(value)))} digits")


# JSON


def read_json_config(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a user: UTF-8, no key twice, no NaN.

    Raises: InputError in one sentence.
    """
    try:
        size = path.stat().st_size
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device never ends
            raise InputError(f"{path} should be a file")
        if size > MAX_CONFIG_BYTES:
            raise InputError(f"{path} should be a config file below {MAX_CONFIG_BYTES:,} bytes, but has {size:,}")
        value = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant
        )
    except OSError as error:
        raise InputError(f"the config file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the config file {path} should be UTF-8 text, but is not: save it again as UTF-8") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} should be a JSON file, but line {error.lineno} is not: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # also a number of ten thousand digits
        raise InputError(f"the config file {path} cannot be used: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"the config file {path} should hold one JSON object, found {type(value).__name__}")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"the key {key!r} stands there twice: keep one")
        found[key] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise InputError(f"numbers must be finite, found {name}")


def changes_from_json(kind: type, value: Mapping[str, Any]) -> dict[PathInConfig, Any]:
    """The leaves that a JSON object sets, checked against their types.

    Raises: InputError that names the key, with the nearest known one for an unknown key.
    """
    known = {leaf.path: leaf for leaf in leaves(kind)}
    inner = {path[:i] for path in known for i in range(1, len(path))}
    changes: dict[PathInConfig, Any] = {}

    def visit(mapping: Mapping[str, Any], path: PathInConfig) -> None:
        for key, item in mapping.items():
            here = (*path, key)
            if here in inner and isinstance(item, Mapping):
                visit(item, here)
            elif here in known:
                changes[here] = _from_json(known[here], item)
            else:
                names = [".".join(p) for p in known]
                raise InputError(f"the config has no key {'.'.join(here)!r}{suggestion('.'.join(here), names)}")

    visit(value, ())
    return changes


def _from_json(leaf: Leaf, value: Any) -> Any:
    if not fits(leaf.kind, value):
        raise InputError(f"the config's {leaf.name} should be {describe(leaf.kind)}, found {json.dumps(value)}")
    return _convert(leaf.kind, value)


def _alternatives(kind: Any) -> list[Any]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return list(typing.get_args(kind)) if is_union else [kind]


def fits(kind: Any, value: Any) -> bool:
    """Whether a JSON value is of this type."""
    options = _alternatives(kind)
    if len(options) > 1:
        return any(fits(option, value) for option in options)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        return value is None
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin in (tuple, list):
        return isinstance(value, (list, tuple)) and all(fits(arguments[0], item) for item in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, str)
    return isinstance(kind, type) and isinstance(value, kind)


def _convert(kind: Any, value: Any) -> Any:
    kind = next(option for option in _alternatives(kind) if fits(option, value))
    if typing.get_origin(kind) in (tuple, list):
        items = [_convert(typing.get_args(kind)[0], item) for item in value]
        return tuple(items) if typing.get_origin(kind) is tuple else items
    return kind(value) if kind in (float, Path) else value


# Words


def describe(kind: Any) -> str:
    """A type in plain words: `a whole number or none`."""
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "none"}
    options = _alternatives(kind)
    if len(options) > 1:
        return " or ".join(describe(option) for option in options)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(str(option) for option in typing.get_args(kind))}"
    if typing.get_origin(kind) in (tuple, list):
        return f"a list, each {describe(typing.get_args(kind)[0])}"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def suggestion(found: str, known: Iterable[str], *, prefix: str = "") -> str:
    """`: did you mean …?` with the nearest known name, or the end of a sentence."""
    names = list(known)
    near = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    if not near:
        # `lr` has little in common with `learning_rate` but a shared last part often tells.
        near = [name for name in names if found and name.rpartition(".")[2] == found][:1]
    return f": did you mean {prefix}{near[0]}?" if near else ""
