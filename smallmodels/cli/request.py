"""What a run is to do: its recipe, config and options, from the flags and from the config of an earlier run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import configs, folders, privacy, records, settings
from smallmodels.cli.flags import RunOptions, parse_flags, written_out
from smallmodels.cli.recipes import Recipe, find_recipe, is_shipped, load_recipe, shipped_recipes
from smallmodels.errors import InputError
from smallmodels.text import printable


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command line of `smallmodels run`, understood and resolved."""

    recipe: Recipe
    config: Any
    options: RunOptions
    flags: list[str]
    """As they were written."""
    past: dict[str, Any] | None
    """The config that --resume or --config names, in the form of `config.json`."""

    @property
    def resumed(self) -> Path | None:
        """Folder of the run to go on with; None for a new run."""
        return None if self.options.fork else self.options.resume

    @property
    def choices(self) -> dict[str, Any] | None:
        """What an earlier run measured and looked up, for a new run that starts from its config.

        Under another config only the commits that names stood for; never which files a folder held. None if there is
        no such run.
        """
        if not self.past or self.resumed is not None:
            return None
        choices: dict[str, Any] = self.past.get("choices") or {}
        if self.past["config"] == records.to_json(self.config):
            return {name: value for name, value in choices.items() if not name.startswith(settings.FILES_OF)}
        return {name: value for name, value in choices.items() if name.startswith(settings.COMMIT_OF)}


def read_request(arguments: Sequence[str], recipe: Recipe | None) -> Request:
    """Read a command line.

    Args:
        arguments: What follows `smallmodels run`.
        recipe: The recipe if it is already loaded, because it is the script that runs.
    Raises: InputError in one sentence; SystemExit(0) after printing the help.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    flags = written_out(arguments[1:] if named else arguments)
    past = _past_config(flags)
    if recipe is None:
        recipe = _recipe_of(arguments[0] if named else None, past, is_own=value_after(flags, "--resume") is not None)
    changes, options = parse_flags(recipe, flags)
    kept = {"out": str(options.out), "accept_license": list(options.accept_license)}
    privacy.require_no_secrets(kept, "the flags")
    if options.resume and not options.fork and past and past.get("recipe", recipe.name) != recipe.name:
        raise InputError(f"{options.resume} is a run of {past['recipe']}, not of {recipe.name}: leave the name out")
    _ = options.limits  # refuses what is no limit
    config = resolve_config(recipe, changes, options, past)
    options = _with_past_options(options, flags, past)
    return Request(recipe=recipe, config=config, options=options, flags=flags, past=past)


def value_after(flags: Sequence[str], flag: str) -> str | None:
    """The word after a flag, before anything is parsed."""
    for i, word in enumerate(flags):
        name, equals, value = word.partition("=")
        if name == flag:
            return value if equals else next(iter(flags[i + 1 : i + 2]), None)
    return None


def _past_config(flags: Sequence[str]) -> dict[str, Any] | None:
    """The JSON behind --resume or --config; a plain config is put into the form of `config.json`."""
    resume, file = value_after(flags, "--resume"), value_after(flags, "--config")
    if resume is not None and file is not None:
        raise InputError("--resume and --config both name a config: use one of them")
    if resume is None and "--fork" in flags:
        raise InputError("--fork starts from an earlier run: name it with --resume RUN")
    if resume is not None:
        file = str(Path(resume) / "config.json")
        if not Path(file).is_file():
            raise InputError(f"{resume} should be the folder of a run, but has no config.json: check the path")
        folders.require_private(Path(resume))
    if file is None:
        return None
    value = configs.read_json_config(Path(file))
    is_of_run = isinstance(value.get("config"), dict) and "recipe" in value
    return value if is_of_run else {"config": value}


def _recipe_of(name: str | None, past: dict[str, Any] | None, *, is_own: bool) -> Recipe:
    """The recipe that was named, or the one of the earlier run; what is not shipped is called code before it runs.

    Args:
        name: What stands on the command line.
        past: Of the earlier run.
        is_own: Whether that is a run of ours, whose folder nobody else may write: it may name a file to run. A config
            may come from anywhere, so it can only name what is shipped.
    """
    if name is None:
        if past is None or "recipe" not in past:
            raise InputError("name a recipe, such as `smallmodels run quickstart`: `smallmodels list` shows all")
        name = str(past.get("file") or past["recipe"])
        if not is_own and name not in shipped_recipes():
            raise InputError(
                f"a config should name a shipped recipe, but this one names {name}, which is code: "
                "if you trust it, name that file before --config"
            )
    path = find_recipe(name)
    if not is_shipped(path):
        print(f"Running {printable(str(path))}, which is code: run only recipes that you trust.", file=sys.stderr)
    return load_recipe(path)


def resolve_config(
    recipe: Recipe, changes: dict[configs.PathInConfig, Any], options: RunOptions, past: dict[str, Any] | None
) -> Any:
    """The config of a run: defaults, then --smoke, then --config or --resume, then flags.

    Raises: InputError if a value is refused, or the recipe has no smoke config.
    """
    base = recipe.Config()
    if options.smoke and past and "recipe" in past:
        raise InputError("--smoke and the config of an earlier run both set every value: use one of them")
    if options.smoke:
        if recipe.SMOKE is None:
            raise InputError(f"recipe {recipe.name} has no SMOKE config: leave --smoke out")
        base = recipe.SMOKE
    from_file = configs.changes_from_json(recipe.Config, past["config"]) if past else {}
    config = configs.replace(base, configs.merged(base, from_file, changes))
    configs.require_finite(config)
    return config


def _with_past_options(options: RunOptions, flags: Sequence[str], past: dict[str, Any] | None) -> RunOptions:
    """The options of the earlier run, where no flag says otherwise."""
    if past is None or "recipe" not in past:
        return options
    given = {word.partition("=")[0] for word in flags}
    kept_names = ["device", "number_format", "num_threads", "inference_protocol", "idle_seconds"]
    kept_names += ["smoke", "country", "carbon_intensity"]
    names = [name for name in kept_names if past.get(name) is not None]
    if {"--country", "--carbon-intensity"} & given:
        names = [name for name in names if name not in ("country", "carbon_intensity")]
    kept = {name: past[name] for name in names if f"--{name.replace('_', '-')}" not in given}
    kept["accept_license"] = [*past.get("accepted_licenses", []), *options.accept_license]
    return configs.replace(options, configs.changes_from_json(RunOptions, kept))  # type: ignore[no-any-return]
