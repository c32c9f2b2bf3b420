"""The flags of a recipe: one for every value of its config and every option of a run. The only importer of tyro."""

import contextlib
import dataclasses
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from smallmodels import configs
from smallmodels.cli.recipes import Recipe
from smallmodels.errors import InputError
from smallmodels.limits import Limits

SHORT_FLAGS = {"lr": "learning-rate", "epochs": "num-epochs", "layers": "num-layers"}
"""Short names of flags, for every recipe that has the long one."""
_EARLIER_FLAGS = {"search-budget-wh": "budget-wh"}
"""Names that flags had before: still understood."""

SWEPT_OPTIONS = frozenset({"accept_license", "idle_seconds", "inference_protocol"})
"""Options of a run that a sweep may have as an axis, beside the settings of its recipes."""


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
    num_threads: int | None = None
    """Of the processor; one for each core if left out."""
    inference_protocol: Literal["indicative", "full"] = "indicative"
    """How the cost of a use is measured: full takes ten windows of five seconds for each shape of model, with short and
    long texts, number formats and start-up beside them, minutes in all; only these may be ranked."""
    idle_seconds: float | None = None
    """Watch the idle machine for so long first, 60 being usual, so that gross and net joules can be told."""
    country: str | None = None
    """Three-letter ISO code, such as FRA: adds grams of CO2e at its average intensity."""
    carbon_intensity: float | None = None
    """Grams of CO2e per kWh, instead of --country."""
    budget_wh: float | None = None
    """Stop training once the run has spent so many Wh, and keep the best model so far; --resume goes on with more."""
    budget_minutes: float | None = None
    """The same for its time."""
    budget_usd: float | None = None
    """The same for what its electricity costs; needs --usd-per-kwh."""
    usd_per_kwh: float | None = None
    """Price of electricity, for --budget-usd."""
    stop_when_gain_per_wh_below: float | None = None
    """Stop training once a validation gains less than this for each Wh since the one before, in the metric's units."""
    log_with: Literal["tensorboard", "trackio", "wandb", "mlflow"] | None = None
    """Send metrics, joules and CPU-seconds to a tracker as well; it stays in the run folder, offline."""
    accept_license: tuple[str, ...] = ()
    """Ids of licences that would be refused and that you may use, as the refusal names them."""
    sweep: Path | None = None
    """File of the sweep that the run belongs to; `smallmodels sweep` writes it."""
    debug: bool = False
    """Show the traceback of an error."""

    @property
    def limits(self) -> Limits:
        """What the run may spend.

        Raises: InputError if that is no limit.
        """
        return Limits(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Limits)})


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


def written_out(words: Sequence[str]) -> list[str]:
    """Flags in one spelling, with two dashes and dashes inside, and all else as it is."""
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        is_flag = word.startswith("-") and word not in ("-h", "-") and not _is_number(word)
        found.append(f"--{name.lstrip('-').replace('_', '-')}{equals}{value}" if is_flag else word)
    return found


def _split_into_flags(
    recipe: Recipe, found: Sequence[configs.Leaf], arguments: Sequence[str]
) -> list[tuple[configs.Leaf, list[str]]]:
    """Each flag with the words that belong to it, its name written out."""
    by_flag = {leaf.flag: leaf for leaf in found}
    negated = {f"no-{leaf.flag}": leaf for leaf in found if leaf.kind is bool}
    short = {name: flag for name, flag in (SHORT_FLAGS | _EARLIER_FLAGS).items() if flag in by_flag}
    groups: list[tuple[configs.Leaf, list[str]]] = []
    for word in written_out(arguments):
        if word.startswith("-") and not _is_number(word):
            name, equals, value = word.partition("=")
            flag = name.removeprefix("--")
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
