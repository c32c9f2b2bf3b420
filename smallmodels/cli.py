"""The commands: `smallmodels list`, `run`, `show`, `report` and the others. The only importer of tyro.

Nothing heavy is imported here: torch comes with a recipe, or with `predict` and `search`.
"""

import argparse
import ast
import contextlib
import dataclasses
import importlib.util
import io
import os
import re
import shlex
import sys
import textwrap
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from smallmodels import __version__, configs, files, folders, privacy, processes, records
from smallmodels.errors import InputError, PolicyError, RunInterruptedError, SmallmodelsError, TrainingError
from smallmodels.text import printable, shorten

if TYPE_CHECKING:
    from rich.console import Console

    from smallmodels.runs import Run

COMMANDS = {
    "list": ("", "the shipped recipes, one line each"),
    "run": ("NAME_OR_FILE [flags]", "run a recipe; --help lists its flags"),
    "show": ("RUN", "the record of a run"),
    "report": ("RUN… --out DIR", "compare runs in pages and tables"),
    "predict": ("RUN TEXT_OR_FILE", "classify texts"),
    "search": ("RUN QUESTION", "ask a search model"),
    "verify": ("RUN", "check every file against the record"),
    "push": ("RUN ORG/NAME", "publish model, card and record"),
}

SHOWN_EXAMPLES, SHOWN_ANSWERS = 3, 3
"""Of the student's work, printed at the end of a run."""

SHORT_FLAGS = {"lr": "learning-rate", "epochs": "num-epochs", "layers": "num-layers"}
"""Short names of flags, for every recipe that has the long one."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is asked of the run, not of the recipe."""

    out: Path = Path("runs")
    """Folder that holds the run folders."""
    smoke: bool = False
    """Take a few steps only, to see that everything works."""
    config: Path | None = None
    """JSON file with settings, such as the config.json of an earlier run, which repeats it."""
    resume: Path | None = None
    """Folder of an unfinished run to go on with."""
    fork: bool = False
    """With --resume: start a new run from that run's config and these flags."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models run."""
    number_format: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Of matrix products; auto measures what is fast here."""
    country: str | None = None
    """Three-letter ISO code, such as FRA: adds grams of CO2e at its average intensity."""
    carbon_intensity: float | None = None
    """Grams of CO2e per kWh, instead of --country."""
    accept_license: tuple[str, ...] = ()
    """Ids of licences that would be refused and that you may use, as the refusal names them."""
    debug: bool = False
    """Show the traceback of an error."""


# Recipes


@dataclass(frozen=True)
class Recipe:
    """A recipe file, loaded."""

    name: str
    path: Path
    Config: type
    """Its dataclass of settings."""
    SMOKE: Any
    """A Config of a few steps, or None."""
    function: Callable[[Any, "Run"], None]
    doc: str

    def main(self, config: Any, run: "Run") -> None:
        """Run the recipe: note name and config in the run, then call its `main`."""
        run.begin(self.name, config, file=None if is_shipped(self.path) else self.path)
        self.function(config, run)


def recipe_folders() -> list[Path]:
    """Where shipped recipes are: inside the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent
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
    name = f"smallmodels_recipe_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{path} should be Python, but line {error.lineno} is not: {error.msg}") from error
    return _recipe_from(module, path)


def _recipe_from(module: Any, path: Path) -> Recipe:
    config, main_function = getattr(module, "Config", None), getattr(module, "main", None)
    if not dataclasses.is_dataclass(config) or not callable(main_function):
        raise InputError(
            f"{path} should define a dataclass Config and a function main(config, run): see `smallmodels list`"
        )
    assert isinstance(config, type)
    smoke = getattr(module, "SMOKE", None)
    return Recipe(path.stem, path, config, smoke, main_function, module.__doc__ or "")


def run_recipe(main_function: Callable[[Any, "Run"], None], config: type, smoke: Any = None) -> NoReturn:
    """What a recipe file calls when it is run as a script; takes the flags of `smallmodels run` and exits."""
    path = Path(main_function.__globals__["__file__"])
    doc = main_function.__globals__.get("__doc__") or ""
    recipe = Recipe(path.stem, path, config, smoke, main_function, doc)
    arguments = sys.argv[1:]
    sys.exit(_guarded(lambda: _run_command([str(path), *arguments], recipe), debug="--debug" in arguments))


# Flags of a recipe


def recipe_leaves(config: type) -> list[configs.Leaf]:
    """Every value that has a flag: those of the recipe, then those of the run.

    Raises: AssertionError if two would have the same flag.
    """
    found = [*configs.leaves(config), *configs.leaves(RunOptions)]
    flags = [leaf.flag for leaf in found]
    twice = sorted({flag for flag in flags if flags.count(flag) > 1})
    assert not twice, f"these flags would mean two things: {', '.join(twice)}"
    return found


def parse_flags(recipe: Recipe, arguments: Sequence[str]) -> tuple[dict[configs.PathInConfig, Any], RunOptions]:
    """What the flags set: leaves of the recipe's config, and options of the run.

    Raises: InputError in one sentence; SystemExit(0) after printing the help.
    """
    found = recipe_leaves(recipe.Config)
    own = {leaf.path for leaf in configs.leaves(recipe.Config)}
    if {"-h", "--help"} & set(arguments):
        _parse_with_tyro(recipe, found, ["--help"])
    groups = _split_into_flags(recipe, found, arguments)
    words = [word for _, group in groups for word in group]
    try:
        parsed = _parse_with_tyro(recipe, found, words)
    except SystemExit:
        raise InputError(_blame(recipe, found, groups)) from None
    given = {leaf.path for leaf, _ in groups}
    changes = {leaf.path: parsed[leaf.path] for leaf in found if leaf.path in given}
    options = RunOptions(**{path[0]: value for path, value in changes.items() if path not in own})
    return {path: value for path, value in changes.items() if path in own}, options


def _split_into_flags(
    recipe: Recipe, found: Sequence[configs.Leaf], arguments: Sequence[str]
) -> list[tuple[configs.Leaf, list[str]]]:
    """Each flag with the words that belong to it, its name written out."""
    by_flag = {leaf.flag: leaf for leaf in found}
    negated = {f"no-{leaf.flag}": leaf for leaf in found if leaf.kind is bool}
    short = {name: flag for name, flag in SHORT_FLAGS.items() if flag in by_flag}
    groups: list[tuple[configs.Leaf, list[str]]] = []
    for word in arguments:
        if word.startswith("-") and not _is_number(word):
            name, equals, value = word.partition("=")
            flag = name.lstrip("-").replace("_", "-")
            flag = short.get(flag, flag)
            leaf = by_flag.get(flag) or negated.get(flag)
            if leaf is None:
                flag = flag.removeprefix(f"{configs.DROPPED_PREFIX}.")
                hint = configs.suggestion(flag, [*by_flag, *short], prefix="--")
                hint = hint or f": `smallmodels run {recipe.name} --help` lists its flags"
                raise InputError(f"{name} is not a flag of {recipe.name}{hint}")
            earlier = [words for before, words in groups if before is leaf and _is_list(leaf)]
            groups = [group for group in groups if group[1] not in earlier]  # `--flag a --flag b` is `--flag a b`
            groups.append((leaf, [*(earlier[0] if earlier else [f"--{flag}"]), *([value] if equals else [])]))
        elif groups and _takes_more(*groups[-1]):
            groups[-1][1].append(word)
        else:
            raise InputError(f"{word!r} stands alone: write a flag before it, such as --seed 1")
    return groups


def _is_number(word: str) -> bool:
    with contextlib.suppress(ValueError):
        float(word)
        return True
    return False


def _takes_more(leaf: configs.Leaf, words: Sequence[str]) -> bool:
    if leaf.kind is bool:
        return False
    return len(words) == 1 or _is_list(leaf)


def _is_list(leaf: configs.Leaf) -> bool:
    return "tuple" in str(leaf.kind) or "list" in str(leaf.kind)


def _parse_with_tyro(
    recipe: Recipe, found: Sequence[configs.Leaf], words: Sequence[str]
) -> dict[configs.PathInConfig, Any]:
    """Values by path, the defaults included."""
    import tyro

    config, options = recipe.Config(), RunOptions()
    own = {leaf.path for leaf in configs.leaves(recipe.Config)}
    fields = []
    for number, leaf in enumerate(found):
        short = "".join(f" Short: --{name}." for name, flag in SHORT_FLAGS.items() if flag == leaf.flag)
        kind: Any = Annotated[leaf.kind, tyro.conf.arg(name=leaf.flag, help=leaf.help + short)]
        if leaf.path not in own and leaf.kind is bool:
            kind = Annotated[kind, tyro.conf.FlagCreatePairsOff]
        default = configs.get(config if leaf.path in own else options, leaf.path)
        fields.append((f"value_{number}", kind, dataclasses.field(default=default)))
    view = dataclasses.make_dataclass("Flags", fields, frozen=True)
    prog, about = f"smallmodels run {recipe.name}", _about(recipe.doc)
    if "--help" in words:
        tyro.cli(view, args=["--help"], prog=prog, description=about)
    with contextlib.redirect_stderr(io.StringIO()):  # its boxes; we say it in one sentence
        parsed: Any = tyro.cli(view, args=list(words), prog=prog, description=about, console_outputs=False)
    return {leaf.path: getattr(parsed, f"value_{number}") for number, leaf in enumerate(found)}


def _about(doc: str) -> str:
    """A recipe's docstring for its help: every line on its own, within 80 columns.

    tyro joins lines that begin with a letter, so all but the first are indented.
    """
    first, _, rest = doc.strip().partition("\n")
    lines = textwrap.wrap(first, 80, subsequent_indent=" ", break_on_hyphens=False)
    for line in rest.strip().splitlines():
        wrapped = textwrap.wrap(line, 80, initial_indent="  ", subsequent_indent=" " * 13, break_on_hyphens=False)
        lines += wrapped or [""]
    return "\n".join(lines)


def _blame(recipe: Recipe, found: Sequence[configs.Leaf], groups: Sequence[tuple[configs.Leaf, list[str]]]) -> str:
    """One sentence on the first flag that does not parse by itself."""
    for leaf, words in groups:
        try:
            _parse_with_tyro(recipe, found, words)
        except SystemExit:
            got = " ".join(words[1:]) or "nothing"
            return f"{words[0]} should be {configs.describe(leaf.kind)}, got {got}"
    return f"these flags cannot be combined: see `smallmodels run {recipe.name} --help`"


# smallmodels run


def _run_command(arguments: list[str], recipe: Recipe | None = None) -> int:
    """`smallmodels run [NAME_OR_FILE] [flags]`."""
    if recipe is None and arguments in ([], ["-h"], ["--help"]):
        _print_run_help()
        return 0 if arguments else 2
    named = bool(arguments) and not arguments[0].startswith("-")
    flags = arguments[1:] if named else arguments
    past = _past_config(flags)
    if recipe is None:
        recipe = _recipe_of(arguments[0] if named else None, past, is_own=_value_of(flags, "--resume") is not None)
    changes, options = parse_flags(recipe, flags)
    config = resolve_config(recipe, changes, options, past)
    options = _with_past_options(options, flags, past)
    processes.join()
    going_on = options.resume is not None and not options.fork
    if going_on and _value_of(flags, "--out") is not None:
        raise InputError("--out has no effect on a run that is resumed: leave it out, or add --fork")
    if going_on and options.resume is not None:
        folder = options.resume
        if (folder / records.RECORD_NAME).exists():
            if processes.rank() > 0:
                return 0
            folders.remove_stale_lock(folder)
            _console().print(f"The run in {folder} is complete, so there is nothing left to do.", soft_wrap=True)
            print(folder)
            return 0
    else:
        records.require_outside_runs(options.out, "--out")
        seed = int(getattr(config, "seed", 0))
        folder = Path(processes.share(lambda: str(folders.new_folder(options.out, recipe.name, seed))))
    return _execute(recipe, config, options, folder, going_on, ["smallmodels", "run", recipe.name, *flags], past)


def _print_run_help() -> None:
    print("usage: smallmodels run NAME_OR_FILE [flags]\n\nRecipes:")
    _list_recipes()
    print("\nA recipe's flags: smallmodels run NAME --help")


def _value_of(flags: Sequence[str], flag: str) -> str | None:
    """The word after a flag, before anything is parsed."""
    for i, word in enumerate(flags):
        name, equals, value = word.partition("=")
        if name == flag:
            return value if equals else next(iter(flags[i + 1 : i + 2]), None)
    return None


def _past_config(flags: Sequence[str]) -> dict[str, Any] | None:
    """The JSON behind --resume or --config; a plain config is put into the form of `config.json`."""
    resume, file = _value_of(flags, "--resume"), _value_of(flags, "--config")
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
    config = configs.replace(base, from_file | changes)
    configs.require_finite(config)
    return config


def _with_past_options(options: RunOptions, flags: Sequence[str], past: dict[str, Any] | None) -> RunOptions:
    """The options of the earlier run, where no flag says otherwise."""
    if past is None or "recipe" not in past:
        return options
    given = {word.partition("=")[0] for word in flags}
    kept_names = ("device", "number_format", "smoke", "country", "carbon_intensity")
    names = [name for name in kept_names if past.get(name) is not None]
    if {"--country", "--carbon-intensity"} & given:
        names = [name for name in names if name not in ("country", "carbon_intensity")]
    kept = {name: past[name] for name in names if f"--{name.replace('_', '-')}" not in given}
    kept["accept_license"] = [*past.get("accepted_licenses", []), *options.accept_license]
    return configs.replace(options, configs.changes_from_json(RunOptions, kept))  # type: ignore[no-any-return]


def _execute(
    recipe: Recipe,
    config: Any,
    options: RunOptions,
    folder: Path,
    going_on: bool,
    command: list[str],
    past: dict[str, Any] | None,
) -> int:
    from smallmodels import runs

    _quiet_other_bars()
    choices = _past_choices(past, config) if past and not going_on else None
    if going_on and past is not None:
        runs.require_same_config(folder, past, recipe.name, config)
    run = runs.Run(
        folder,
        command=privacy.command_line(command),
        resume=going_on,
        smoke=options.smoke,
        device=options.device,
        number_format=options.number_format,
        country=options.country,
        carbon_intensity=options.carbon_intensity,
        choices=choices,
        accept_licenses=options.accept_license,
    )
    try:
        with run:
            recipe.main(config, run)
            if run.record is None:
                raise SmallmodelsError(f"recipe {recipe.name} should end with run.finish(…), but did not: add the call")
    except BaseException as error:
        if (folder / "config.json").exists() and not (folder / records.RECORD_NAME).exists():
            anew = " --fork" if isinstance(error, TrainingError) else ""  # the same steps would fail the same way
            verb = "start anew from it" if anew else "go on"
            resume = f"smallmodels run --resume {shlex.quote(str(folder))}{anew}"
            error.add_note(f"The run is not complete; {verb} with: {resume}")
        raise
    if processes.launched()[0] > 0:
        return 0  # the first process says it all
    _show(run.record, _console())
    print("The model with its card, record.json, and report.html for a browser are in")
    print(folder)
    return 0


def _past_choices(past: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What an earlier run measured and looked up; under another config only the commits that names stood for."""
    choices: dict[str, Any] = past.get("choices") or {}
    if past["config"] == records.to_json(config):
        return choices
    return {name: value for name, value in choices.items() if name.startswith("commit of ")}


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


# Other commands


def _list_command(arguments: list[str]) -> int:
    _Parser("list", "List the shipped recipes.").parse(arguments)
    _list_recipes()
    return 0


def _list_recipes() -> None:
    recipes = shipped_recipes()
    width = max(map(len, recipes), default=0)
    for name, path in sorted(recipes.items()):
        print(textwrap.fill(_first_line(path), 80, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * 4))


def _first_line(path: Path) -> str:
    """First line of a file's docstring, without running it."""
    try:
        return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    except (SyntaxError, UnicodeDecodeError, OSError):
        return "(cannot be read)"


def _show_command(arguments: list[str]) -> int:
    parser = _Parser("show", "Print the record of a run.")
    parser.add_argument("run", metavar="RUN", help="run folder or record.json")
    record = records.read_run(Path(parser.parse(arguments).run))
    _show(record, _console())
    return 0


def _show(record: records.RunRecord, console: "Console") -> None:
    from smallmodels import report

    console.print()
    console.print(report.terminal_table(record))
    console.print(report.summary(record))
    if record.smoke:
        console.print("A smoke run of a few steps shows that everything works; its numbers mean nothing.")
    for example in record.examples[:SHOWN_EXAMPLES]:
        console.print()
        for line in example_lines(example):
            console.print(line, markup=False, soft_wrap=True)
    console.print()


def example_lines(example: Mapping[str, Any]) -> list[str]:
    """An example of the student's work in lines of 80 columns at most: the input, then its answers."""
    answers = example.get("answers", [])
    answers = answers if isinstance(answers, (list, tuple)) else [answers]
    lines = [f"  {shorten(str(example.get('input', '')), 78)}"]
    for answer in answers[:SHOWN_ANSWERS]:
        text, score = answer, None
        if isinstance(answer, Mapping):
            text = next((answer[key] for key in ("label", "text", "document") if key in answer), "")
            score = next((answer[key] for key in ("score", "probability") if key in answer), None)
        number = f"{score:.2f}" if isinstance(score, (int, float)) else ""
        lines.append(f"    {number:>4}  {shorten(str(text), 70)}" if number else f"    → {shorten(str(text), 74)}")
    return lines


def _report_command(arguments: list[str]) -> int:
    parser = _Parser("report", "Compare runs: HTML, Markdown, CSV and pictures.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders or record.json files")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the report")
    options = parser.parse(arguments)
    found = [records.read_run(Path(name)) for name in options.runs]
    from smallmodels import report

    records.require_outside_runs(options.out, "--out")
    folders.make_folder(options.out)
    for path in report.write_report(found, options.out):
        print(path)
    return 0


def _predict_command(arguments: list[str]) -> int:
    parser = _Parser("predict", "Classify one text, or every text of a file.")
    parser.add_argument("run", metavar="RUN", help="run folder of a classifier")
    parser.add_argument("texts", metavar="TEXT_OR_FILE", help="a text, or a .txt, .csv, .jsonl or .parquet file")
    parser.add_argument("--text-column", metavar="NAME", help="column with the texts (default: text)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where to write: .csv or .jsonl")
    parser.add_argument("--batch-size", metavar="N", type=_positive, default=32, help="texts at once (default: 32)")
    options = parser.parse(arguments)
    from smallmodels import usage

    return usage.predict(options.run, options.texts, options.text_column, options.output, options.batch_size)


def _search_command(arguments: list[str]) -> int:
    parser = _Parser("search", "Ask a search model a question.")
    parser.add_argument("run", metavar="RUN", help="run folder of a search model")
    parser.add_argument("question", metavar="QUESTION", help="in plain words")
    parser.add_argument("--top", metavar="N", type=_positive, default=5, help="answers to show (default: 5)")
    options = parser.parse(arguments)
    from smallmodels import usage

    return usage.search(options.run, options.question, options.top)


def _verify_command(arguments: list[str]) -> int:
    parser = _Parser("verify", "Check every file of a run against its record, and what card and page say.")
    parser.add_argument(
        "run", metavar="RUN", help="folder of a complete run, or of a published model (hf download --local-dir)"
    )
    folder = Path(parser.parse(arguments).run)
    from smallmodels import verification

    record = verification.verify(folder)
    print(f"{folder} is whole: its record, its {len(record.files):,} other files, and what card and page say")
    return 0


def _push_command(arguments: list[str]) -> int:
    parser = _Parser(
        "push",
        "Verify a run and publish its model, card, record and report on the hub, in one commit. Not published: "
        "config, predictions, journal and metrics of the run, and a search index.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a complete run")
    parser.add_argument("name", metavar="ORG/NAME", help="on the hub; made if it does not exist")
    parser.add_argument("--public", action="store_true", help="let everybody see it (default: private)")
    parser.add_argument("--with-examples", action="store_true", help="publish the examples too: texts of the data")
    parser.add_argument(
        "--accept-license",
        metavar="ID",
        action="append",
        default=[],
        help="that forbids sharing and that you may share",
    )
    options = parser.parse(arguments)
    from smallmodels import publishing

    published = publishing.push(
        Path(options.run),
        options.name,
        public=options.public,
        with_examples=options.with_examples,
        accepted_licenses=options.accept_license,
    )
    seen = "public" if options.public else "private"
    done = f"published {published.num_files} files, {seen}" if published.is_new else "was published before; no change"
    print(f"{options.name}: {done}, commit {published.commit[:12]}")
    print(published.url)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"should be 1 or more, got {value}")
    return value


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence and name the nearest flag."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"smallmodels {command}", description=description, allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            hint = configs.suggestion(unknown[0].partition("=")[0], known) or f": see `{self.prog} --help`"
            raise InputError(f"{unknown[0]} is not a part of `{self.prog}`{hint}")
        return options

    def error(self, message: str) -> NoReturn:
        needed = message.removeprefix("the following arguments are required: ")
        sentence = message if needed == message else f"`{self.prog}` needs {needed} as well"
        raise InputError(f"{sentence}: see `{self.prog} --help`")


_FUNCTIONS: dict[str, Callable[[list[str]], int]] = {
    "list": _list_command,
    "run": _run_command,
    "show": _show_command,
    "report": _report_command,
    "predict": _predict_command,
    "search": _search_command,
    "verify": _verify_command,
    "push": _push_command,
}


# The way in and out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `smallmodels`; returns its exit code (0, 1, 2, 3, 4 or 75, see `errors`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return _guarded(lambda: _dispatch(words), debug="--debug" in words)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        _print_help()
        return 0 if words else 2
    if words[0] == "--version":
        print(f"smallmodels {__version__}")
        return 0
    if words[0] not in _FUNCTIONS:
        hint = configs.suggestion(words[0], _FUNCTIONS) or f": choose one of {', '.join(_FUNCTIONS)}"
        raise InputError(f"there is no command {words[0]!r}{hint}")
    return _FUNCTIONS[words[0]](words[1:])


def _print_help() -> None:
    print("smallmodels: distil and fine-tune small models, and know what they cost.\n")
    for name, (arguments, text) in COMMANDS.items():
        print(f"  smallmodels {f'{name} {arguments}':<26}  {text}")
    print("\nStart with: smallmodels run quickstart")


def _guarded(function: Callable[[], int], *, debug: bool) -> int:
    """Call a command; an error becomes one sentence on standard error and an exit code."""
    try:
        return function()
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:
        return int(end.code or 0) if isinstance(end.code, (int, types.NoneType)) else 1
    except BaseException as error:
        if debug:
            print(privacy.without_secrets(traceback.format_exc()), file=sys.stderr)
        code, message = _explain(error)
        rank, count = processes.launched()
        if rank > 0 and isinstance(error, (InputError, PolicyError, processes.FirstProcessError)):
            return code  # the first process says the same
        if count > 1:
            message = f"(process {rank + 1} of {count}) {message}"
        for line in (f"smallmodels: {message}", *getattr(error, "__notes__", [])):
            print(privacy.without_secrets(line), file=sys.stderr)
        return code


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence of an error."""
    if isinstance(error, KeyboardInterrupt):
        return RunInterruptedError.exit_code, "stopped at once, as you asked"
    if isinstance(error, SmallmodelsError):
        return error.exit_code, str(error)
    if reason := files.disk_failure(error):
        return RunInterruptedError.exit_code, f"{reason} and go on with --resume"
    if isinstance(error, MemoryError):
        return 1, "the memory is full: try a smaller --batch-size or --max-length"
    text = " ".join(str(error).split())
    return 1, f"{type(error).__name__}{': ' + text if text else ''} (add --debug to see where)"


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)
