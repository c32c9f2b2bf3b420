"""Check the cells of a sweep in a process of its own, because recipes import torch.

Each has to fit the config of its recipe, whose results have to have what the sweep ranks by, and its models and data
sets have to exist and have licences that allow it.
Reads a list of `{"recipe": file, "metric": name, "values": {…}, "flags": […]}` from standard input. The last line of
standard output is the list of their configs; of what is wrong, the first is said as every command says it, with its
exit code.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from smallmodels import configs, preflight, records
from smallmodels.cli.exits import guarded
from smallmodels.cli.flags import SWEPT_OPTIONS, RunOptions, parse_flags
from smallmodels.cli.recipes import Recipe, load_recipe
from smallmodels.errors import InputError, PolicyError


def _check() -> int:
    cells = json.load(sys.stdin)
    recipes = {name: load_recipe(name) for name in dict.fromkeys(cell["recipe"] for cell in cells)}
    for cell in cells:
        _require_metric(recipes[cell["recipe"]], cell["metric"])
    found = [_config(recipes[cell["recipe"]], cell["values"], cell["flags"]) for cell in cells]
    known: set[tuple[str, Any]] = set()
    for cell, config in zip(cells, found, strict=True):
        _require_names(recipes[cell["recipe"]], config, cell["values"], known)
    print("\n" + json.dumps([records.to_json(config) for config in found]))
    return 0


def _require_metric(recipe: Recipe, metric: str) -> None:
    """Raises: InputError if the recipe says which metrics it has, and this is none of them."""
    if recipe.METRICS and metric not in recipe.METRICS:
        hint = configs.suggestion(metric, recipe.METRICS)
        raise InputError(
            f"the sweep ranks by {metric}, but {recipe.name} has {', '.join(recipe.METRICS)}{hint or ': declare one'}"
        )


def _require_names(recipe: Recipe, config: Any, values: Mapping[str, Any], known: set[tuple[str, Any]]) -> None:
    """Raises: InputError or PolicyError that names the recipe and its place on the axes."""
    accepted = values.get("accept_license", ())
    try:
        preflight.require_names(recipe.main, config, known, accept_licenses=accepted)
    except (InputError, PolicyError) as error:
        raise type(error)(f"{recipe.name} cannot run with {_place(values)}: {error}") from error


def _place(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in values.items()) or "its defaults"


def _config(recipe: Recipe, values: Mapping[str, Any], flags: Sequence[str]) -> Any:
    """The config that `smallmodels run` would make of these flags.

    Raises: InputError that names the recipe and the axis.
    """
    options = {leaf.name: leaf for leaf in configs.leaves(RunOptions) if leaf.name in SWEPT_OPTIONS}
    known = options | {leaf.flag.replace("-", "_"): leaf for leaf in configs.leaves(recipe.Config)}
    for axis in values:
        if axis not in known:
            hint = configs.suggestion(axis, known) or f": `smallmodels run {recipe.path} --help` lists what it has"
            raise InputError(f"the axis {axis} should be a setting of {recipe.name}, but is none{hint}")
    try:
        changes, chosen = parse_flags(recipe, flags)
        config = configs.replace(recipe.Config(), configs.merged(recipe.Config(), changes))
        configs.require_finite(config)
    except InputError as error:
        raise InputError(f"{recipe.name} cannot run with {_place(values)}: {error}") from error
    for axis, value in values.items():
        if records.to_json(configs.get(chosen if axis in options else config, known[axis].path)) != value:
            expected = configs.describe(known[axis].kind)
            raise InputError(f"the axis {axis} should be {expected} for {recipe.name}, got {json.dumps(value)}")
    return config


if __name__ == "__main__":
    sys.exit(guarded(_check, debug="--debug" in sys.argv))
