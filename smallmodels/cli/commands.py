"""The command `smallmodels`: the table of its commands, and each of them but `run`."""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from smallmodels import __version__, configs, folders, records
from smallmodels.cli.exits import guarded
from smallmodels.cli.run import run_command
from smallmodels.cli.terminal import compare, external_lines, print_recipes, show
from smallmodels.errors import InputError

COMMANDS = {
    "list": ("", "the shipped recipes, one line each"),
    "run": ("NAME_OR_FILE [flags]", "run a recipe; --help lists its flags"),
    "check": ("NAME_OR_FILE [flags]", "what a run would take, before it"),
    "shrink": ("--dataset D [flags]", "the smallest model that does the job"),
    "sweep": ("FILE [--dry-run]", "run a benchmark's cells, one by one"),
    "show": ("RUN", "the record of a run"),
    "compare": ("RUN RUN…", "compare runs in the terminal"),
    "report": ("RUN… --out DIR", "compare runs in pages and tables"),
    "predict": ("RUN TEXT_OR_FILE", "classify texts"),
    "search": ("RUN QUESTION", "ask a search model"),
    "ask": ("RUN PROMPT", "let a language model answer"),
    "eval": ("RUN --tasks NAME,…", "evaluate a language model with lm-eval"),
    "energy": ("RUN --wall-wh X", "add what a meter at the socket read"),
    "verify": ("RUN", "check every file against the record"),
    "push": ("RUN ORG/NAME", "publish model, card and record"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `smallmodels`; returns its exit code (0, 1, 2, 3, 4 or 75, see `errors`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words), debug="--debug" in words)


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


def _list_command(arguments: list[str]) -> int:
    _Parser("list", "List the shipped recipes.").parse(arguments)
    print_recipes()
    return 0


def _check_command(arguments: list[str]) -> int:
    from smallmodels.cli import check  # it imports torch

    return check.check_command(arguments)


def _shrink_command(arguments: list[str]) -> int:
    from smallmodels.cli import shrink

    return shrink.shrink_command(arguments)


def _sweep_command(arguments: list[str]) -> int:
    parser = _Parser(
        "sweep",
        "Run the cells of a benchmark, one at a time, each in a process of its own. Cells that are done are skipped, "
        "and what was interrupted goes on. Exits with 1 if a cell failed, whatever the exit code of the cell.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="Python file that holds SWEEP, or SWEEPS by name")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder for all runs (default: runs/sweeps/ and the file's name)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the cells, foretell what each takes, and run none of them"
    )
    parser.add_argument("--no-forecast", action="store_true", help="with --dry-run: list the cells alone, at once")
    parser.add_argument(
        "--only", metavar="NAME", nargs="+", action="extend", default=[], help="of SWEEPS, take these alone"
    )
    parser.add_argument(
        "--workers",
        choices=("submitit", "submitit-local"),
        help="run the cells all at once: on Slurm, or here to try it (pip install 'smallmodels[slurm]')",
    )
    parser.add_argument(
        "--worker-options",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="of submitit's executor, such as slurm_partition=cpu timeout_min=600",
    )
    options = parser.parse(arguments)
    if options.no_forecast and not options.dry_run:
        raise InputError("--no-forecast is about what --dry-run says: add that, or leave it out")
    if options.worker_options and not options.workers:
        raise InputError("--worker-options are for workers: add --workers submitit, or leave them out")
    if options.workers and options.dry_run:
        raise InputError("--dry-run runs nothing, so it needs no --workers: leave one of them out")
    from smallmodels.cli import sweep, workers

    send = workers.sender(options.workers, options.worker_options) if options.workers else None
    return sweep.run_sweeps(
        options.file,
        options.out,
        only=options.only,
        dry_run=options.dry_run,
        debug=options.debug,
        forecast=options.dry_run and not options.no_forecast,
        send=send,
    )


def _show_command(arguments: list[str]) -> int:
    parser = _Parser("show", "Print the record of a run.")
    parser.add_argument("run", metavar="RUN", help="run folder or record.json")
    _add_rate(parser)
    options = parser.parse(arguments)
    record = records.read_run(Path(options.run))
    show(record, phases=True, uses_per_day=options.uses_per_day)
    return 0


_RUNS_HELP = "run folders, record.json files, or folders with runs, such as that of a sweep"


def _compare_command(arguments: list[str]) -> int:
    parser = _Parser("compare", "Compare runs in the terminal: what `report` writes, without its pictures.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help=_RUNS_HELP)
    _add_rate(parser)
    options = parser.parse(arguments)
    from smallmodels.cli import gathering

    found, evidence = gathering.gather(options.runs, uses_per_day=options.uses_per_day)
    compare(found, evidence)
    return 0


def _report_command(arguments: list[str]) -> int:
    parser = _Parser("report", "Compare runs: HTML, Markdown, CSV and pictures.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help=_RUNS_HELP)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the report")
    _add_rate(parser)
    options = parser.parse(arguments)
    from smallmodels import report
    from smallmodels.cli import gathering

    gc.disable()  # records are a million objects that all stay: looking through them took a tenth of the time
    try:
        found, evidence = gathering.gather(options.runs, uses_per_day=options.uses_per_day)
        records.require_outside_runs(options.out, "--out")
        folders.make_folder(options.out)
        written = report.write_report(found, options.out, evidence=evidence)
    finally:
        gc.enable()
    print(*written, sep="\n")
    return 0


def _add_rate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uses-per-day", metavar="N", type=_rate, help="say after how many days the student is repaid")


def _predict_command(arguments: list[str]) -> int:
    parser = _Parser("predict", "Classify one text, or every text of a file.")
    parser.add_argument("run", metavar="RUN", help="run folder of a classifier")
    parser.add_argument("texts", metavar="TEXT_OR_FILE", help="a text, or a .txt, .csv, .jsonl or .parquet file")
    parser.add_argument("--text-column", metavar="NAME", help="column with the texts (default: text)")
    parser.add_argument("--second", metavar="TEXT", help="the other text, where the model reads two at once")
    parser.add_argument("--second-column", metavar="NAME", help="column of a file with the other texts")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where to write: .csv or .jsonl")
    parser.add_argument("--batch-size", metavar="N", type=_positive, default=32, help="texts at once (default: 32)")
    options = parser.parse(arguments)
    from smallmodels import usage

    return usage.predict(
        options.run,
        options.texts,
        second=options.second,
        text_column=options.text_column,
        second_column=options.second_column,
        output=options.output,
        batch_size=options.batch_size,
    )


def _search_command(arguments: list[str]) -> int:
    parser = _Parser("search", "Ask a search model a question.")
    parser.add_argument("run", metavar="RUN", help="run folder of a search model")
    parser.add_argument("question", metavar="QUESTION", help="in plain words")
    parser.add_argument("--top", metavar="N", type=_positive, default=5, help="answers to show (default: 5)")
    options = parser.parse(arguments)
    from smallmodels import usage

    return usage.search(options.run, options.question, options.top)


def _ask_command(arguments: list[str]) -> int:
    parser = _Parser("ask", "Let the language model of a run answer a prompt.")
    parser.add_argument("run", metavar="RUN", help="run folder of a language model")
    parser.add_argument("prompt", metavar="PROMPT", help="what it is asked")
    _add_template(parser)
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=_positive, help="longest answer (default: 256, or what fits)"
    )
    parser.add_argument(
        "--temperature", metavar="X", type=float, default=0.0, help="draw tokens (default: 0, the most likely ones)"
    )
    parser.add_argument("--seed", metavar="N", type=_count, default=0, help="of the draws (default: 0)")
    options = parser.parse(arguments)
    from smallmodels import usage

    return usage.ask(
        options.run,
        options.prompt,
        template=options.template,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        seed=options.seed,
    )


def _add_template(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--template", choices=("chat", "plain"), help="how prompts are written (default: as the run was trained)"
    )


def _eval_command(arguments: list[str]) -> int:
    parser = _Parser(
        "eval",
        "Evaluate the language model of a run on tasks of lm-eval (pip install 'smallmodels[eval]'). The results are "
        "added to record, card and page of the run, with what they cost. A task's YAML file may name Python code, "
        "which is run: name only files that you trust.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a complete run")
    parser.add_argument(
        "--tasks", metavar="NAME,…", required=True, help="tasks or groups of lm-eval, or YAML files that define one"
    )
    parser.add_argument("--include-path", metavar="FOLDER", type=Path, help="more tasks to choose from: YAML files")
    parser.add_argument("--limit", metavar="N", type=_positive, help="the first N items of each task (default: all)")
    parser.add_argument(
        "--num-fewshot", metavar="N", type=_count, help="solved items in front of each (default: what the task says)"
    )
    _add_template(parser)
    batch_help = "requests at once, of which lm-eval has all logits in memory (default: 8)"
    parser.add_argument("--batch-size", metavar="N", type=_positive, default=8, help=batch_help)
    options = parser.parse(arguments)
    from smallmodels import external

    found = external.evaluate_run(
        Path(options.run),
        options.tasks.split(","),
        include_path=options.include_path,
        limit=options.limit,
        num_fewshot=options.num_fewshot,
        template=options.template,
        batch_size=options.batch_size,
    )
    for line in external_lines(found):
        print(line)
    return 0


def _energy_command(arguments: list[str]) -> int:
    parser = _Parser(
        "energy",
        "Add what a meter at the wall socket read for a run to its record, card and page, beside what software saw. "
        "Later runs on this machine then say what they would draw at the socket.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a complete run")
    parser.add_argument(
        "--wall-wh", metavar="X", type=float, required=True, help="watt-hours from its begin to its end"
    )
    options = parser.parse(arguments)
    from smallmodels import wall
    from smallmodels.report import words

    record, unfit = wall.attach(Path(options.run), options.wall_wh)
    for sentence in words.wall_sentences(record):
        print(sentence)
    print(
        f"It says nothing of later runs here, because {unfit}." if unfit else "Later runs on this machine will say so."
    )
    return 0


def _verify_command(arguments: list[str]) -> int:
    parser = _Parser("verify", "Check every file of a run against its record, and what card and page say.")
    parser.add_argument(
        "run", metavar="RUN", help="folder of a complete run, or of a published model (hf download --local-dir)"
    )
    folder = Path(parser.parse(arguments).run)
    from smallmodels import verification

    record = verification.verify(folder)
    whole = f"{folder} is whole: its record"
    if verification.is_by_another_version(folder):
        print(
            f"{whole} and its {len(record.files):,} other files; "
            "card and page were written by another version, so what they say was not compared"
        )
    else:
        print(f"{whole}, its {len(record.files):,} other files, and what card and page say")
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
    return _at_least(1, text)


def _count(text: str) -> int:
    return _at_least(0, text)


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"should be more than 0, got {text}")
    return value


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"should be {least} or more, got {value}")
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
    "run": run_command,
    "check": _check_command,
    "shrink": _shrink_command,
    "sweep": _sweep_command,
    "show": _show_command,
    "compare": _compare_command,
    "report": _report_command,
    "predict": _predict_command,
    "search": _search_command,
    "ask": _ask_command,
    "eval": _eval_command,
    "energy": _energy_command,
    "verify": _verify_command,
    "push": _push_command,
}
