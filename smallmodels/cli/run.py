"""The command `smallmodels run`: a new run of a recipe, a run that goes on, or a new one from the config of another."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from smallmodels import folders, privacy, processes, records, settings, sweeps
from smallmodels.cli.exits import guarded
from smallmodels.cli.recipes import Recipe, is_shipped, metrics_of
from smallmodels.cli.request import Request, read_request, value_after
from smallmodels.cli.terminal import plain_console, print_recipes, show
from smallmodels.errors import BudgetError, InputError, SmallmodelsError, TrainingError, WorkerError
from smallmodels.settings import require_same_config

if TYPE_CHECKING:
    from smallmodels.runs import Run


def run_recipe(main_function: Callable[[Any, "Run"], None], config: type, smoke: Any = None) -> NoReturn:
    """What a recipe file calls when it is run as a script; takes the flags of `smallmodels run` and exits."""
    path = Path(main_function.__globals__["__file__"])
    file: Mapping[str, Any] = main_function.__globals__
    arguments, doc = sys.argv[1:], file.get("__doc__") or ""

    def run() -> int:
        recipe = Recipe(path.stem, path, config, smoke, metrics_of(file, path), main_function, doc)
        return run_command([str(path), *arguments], recipe)

    sys.exit(guarded(run, debug="--debug" in arguments))


def run_command(arguments: list[str], recipe: Recipe | None = None) -> int:
    """`smallmodels run [NAME_OR_FILE] [flags]`; returns the exit code."""
    prepare_libraries()
    if recipe is None and arguments in ([], ["-h"], ["--help"]):
        _print_help()
        return 0 if arguments else 2
    request = read_request(arguments, recipe)
    processes.join()
    if request.resumed is None:
        return _execute(request, _new_folder(request))
    if value_after(request.flags, "--out") is not None:
        raise InputError("--out has no effect on a run that is resumed: leave it out, or add --fork")
    if folders.is_finished(request.resumed):
        assert request.past is not None
        require_same_config(request.resumed, request.past, request.recipe.name, request.config)
        return _leave(request.resumed)
    return _execute(request, request.resumed)


def prepare_libraries() -> None:
    """Settings of the libraries below torch, which read them once, when it is loaded; what you have set stands.

    Threads that wait for work give their core away after some ten microseconds. By default GNU's OpenMP keeps them busy
    for milliseconds, which another busy program turns into a step that takes six times as long; on an idle machine
    both are equally fast. oneDNN keeps the machine code that it makes for each shape of a product, of which texts of
    many lengths need more than the usual 1,024; made anew, it takes longer than the product, and kept, 0.6 to 0.8 MB
    in bf16 (benchmarks/README.md).
    """
    if "torch" in sys.modules:
        return
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "2048")


def _print_help() -> None:
    print("usage: smallmodels run NAME_OR_FILE [flags]\n\nRecipes:")
    print_recipes()
    print("\nA recipe's flags: smallmodels run NAME --help")


def _new_folder(request: Request) -> Path:
    """Make the folder of a new run, one for all processes."""
    out = request.options.out
    records.require_outside_runs(out, "--out")
    seed = int(getattr(request.config, "seed", 0))
    return Path(processes.share(lambda: str(folders.new_folder(out, request.recipe.name, seed))))


def _is_complete(folder: Path) -> bool:
    return (folder / records.RECORD_NAME).exists()


def _leave(folder: Path) -> int:
    """Say that a complete run needs nothing more."""
    if processes.rank() > 0:
        return 0
    folders.remove_stale_lock(folder)
    plain_console().print(f"The run in {folder} is complete, so there is nothing left to do.", soft_wrap=True)
    print(folder)
    return 0


def _execute(request: Request, folder: Path) -> int:
    """Run the recipe in its folder, then show its record."""
    run = _open_run(request, folder)
    try:
        with run:
            request.recipe.main(request.config, run)
            if run.record is None:
                raise SmallmodelsError(
                    f"recipe {request.recipe.name} should end with run.finish(…), but did not: add the call"
                )
    except BaseException as error:
        if (folder / "config.json").exists() and not _is_complete(folder):
            error.add_note(_how_to_go_on(folder, error, request.options.limits.flags))
        raise
    if processes.launched()[0] > 0:
        return 0  # the first process says it all
    show(run.record)
    print("The model with its card, record.json, and report.html for a browser are in")
    print(folder)
    return 0


def _open_run(request: Request, folder: Path) -> "Run":
    from smallmodels import runs

    _quiet_other_bars()
    going_on = request.resumed is not None
    if going_on and request.past is not None:
        runs.require_same_config(folder, request.past, request.recipe.name, request.config)
        settings.require_same_recipe_file(
            request.past, None if is_shipped(request.recipe.path) else request.recipe.path
        )
    return runs.Run(folder, resume=going_on, **run_options(request))


def run_options(request: Request) -> dict[str, Any]:
    """What a `Run` is told of a request, beside its folder and whether it goes on."""
    options = request.options
    return {
        "command": privacy.command_line(["smallmodels", "run", request.recipe.name, *request.flags]),
        "smoke": options.smoke,
        "device": options.device,
        "number_format": options.number_format,
        "num_threads": options.num_threads,
        "inference_protocol": options.inference_protocol,
        "idle_seconds": options.idle_seconds,
        "country": options.country,
        "carbon_intensity": options.carbon_intensity,
        "choices": request.choices,
        "accept_licenses": options.accept_license,
        "sweep": sweeps.read_declaration(options.sweep) if options.sweep else None,
        "limits": options.limits,
        "log_with": options.log_with,
    }


def _how_to_go_on(folder: Path, error: BaseException, limits: Sequence[str]) -> str:
    """The command that takes up an unfinished run, under the same limits but where those have ended it."""
    # The same steps would fail the same way; a worker that died is another matter.
    is_bound_to_repeat = isinstance(error, TrainingError) and not isinstance(error, WorkerError)
    anew = " --fork" if is_bound_to_repeat else ""
    verb = "start anew from it" if anew else "go on"
    words = ["smallmodels", "run", "--resume", str(folder), *([] if isinstance(error, BudgetError) else limits)]
    return f"The run is not complete; {verb} with: {shlex.join(words)}{anew}"


def _quiet_other_bars() -> None:
    """Turn off the progress bars of the libraries that the recipe has imported: they would break ours."""
    bars = {
        "huggingface_hub.utils": "disable_progress_bars",
        "datasets.utils.logging": "disable_progress_bar",
        "transformers.utils.logging": "disable_progress_bar",
    }
    for module, name in bars.items():
        if module in sys.modules and hasattr(sys.modules[module], name):
            getattr(sys.modules[module], name)()
