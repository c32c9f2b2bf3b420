"""A recipe: where its file is, and the file loaded. Loading it runs its code."""

import dataclasses
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallmodels import configs
from smallmodels.errors import InputError

if TYPE_CHECKING:
    from smallmodels.runs import Run


@dataclass(frozen=True)
class Recipe:
    """A recipe file, loaded."""

    name: str
    path: Path
    Config: type
    """Its dataclass of settings."""
    SMOKE: Any
    """A Config of a few steps, or None."""
    METRICS: tuple[str, ...]
    """That its results may have, so that a sweep that ranks by another is refused at once; empty if it says nothing."""
    function: Callable[[Any, "Run"], None]
    doc: str

    def main(self, config: Any, run: "Run") -> None:
        """Run the recipe: note name and config in the run, then call its `main`."""
        run.begin(self.name, config, file=None if is_shipped(self.path) else self.path)
        self.function(config, run)


def recipe_folders() -> list[Path]:
    """Where shipped recipes are: inside the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    return [folder for folder in (package / "_recipes", package.parent / "recipes") if folder.is_dir()]


def shipped_recipes() -> dict[str, Path]:
    """Recipe files by name."""
    found = [path for folder in recipe_folders() for path in sorted(folder.glob("*.py"))]
    return {path.stem: path for path in reversed(found) if not path.stem.startswith("_")}


def is_shipped(path: Path) -> bool:
    """Whether a recipe file is one of ours."""
    return path.resolve().parent in recipe_folders()


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe.

    Raises: InputError with the nearest name if there is none.
    """
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    if name_or_path.endswith(".py") or os.sep in name_or_path:
        path = Path(name_or_path)
        if path.is_file():
            return path
        raise InputError(f"there is no recipe file {name_or_path}: check the path, or see `smallmodels list`")
    hint = configs.suggestion(name_or_path, shipped) or f": choose one of {', '.join(sorted(shipped))}"
    raise InputError(f"there is no recipe {name_or_path!r}{hint}")


def load_recipe(path_or_name: str | Path) -> Recipe:
    """Load a shipped recipe by name, or any recipe by its file. This runs the file's code.

    Raises: InputError if there is no such recipe, or the file is not one.
    """
    path = find_recipe(str(path_or_name))
    return _recipe_from(load_file(path, "recipe"), path)


def load_file(path: Path, kind: str) -> Any:
    """Run a Python file as a module of its own, named after the kind of file.

    Raises: InputError if it is not Python.
    """
    name = f"smallmodels_{kind}_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{path} should be Python, but line {error.lineno} is not: {error.msg}") from error
    return module


def _recipe_from(module: Any, path: Path) -> Recipe:
    config, main_function = getattr(module, "Config", None), getattr(module, "main", None)
    if not dataclasses.is_dataclass(config) or not callable(main_function):
        raise InputError(
            f"{path} should define a dataclass Config and a function main(config, run): see `smallmodels list`"
        )
    assert isinstance(config, type)
    smoke, metrics = getattr(module, "SMOKE", None), metrics_of(vars(module), path)
    return Recipe(path.stem, path, config, smoke, metrics, main_function, module.__doc__ or "")


def metrics_of(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The METRICS of a recipe's file.

    Raises: InputError if they are not names.
    """
    found = content.get("METRICS", ())
    if not isinstance(found, tuple) or not all(isinstance(name, str) for name in found):
        raise InputError(f'METRICS of {path} should be a tuple of names, such as ("accuracy",), got {found!r}')
    return found
