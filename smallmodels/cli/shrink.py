"""The command `smallmodels shrink`: the recipe `shrink_text_classifier` under shorter names."""

from collections.abc import Sequence

from smallmodels.cli.request import value_after
from smallmodels.cli.run import run_command
from smallmodels.errors import InputError

RECIPE = "shrink_text_classifier"
_OWN = "--max-drop="
_USAGE = """usage: smallmodels shrink --teacher T --dataset D --budget-wh X [--max-drop POINTS] [flags]

Tries students of a teacher, and keeps the cheapest to use that loses no more than it may. A search that has spent its
budget, which the teacher's fine-tuning counts towards, keeps the best so far; with --resume RUN and a larger budget it
goes on. Other flags are those of `smallmodels run shrink_text_classifier`, where --max-drop 1.0 is --margin 0.01.
"""


def shrink_command(arguments: Sequence[str]) -> int:
    """`smallmodels shrink --teacher T --dataset D --budget-wh X [--max-drop POINTS] [flags]`; returns the exit code.

    Raises: InputError if teacher, data set or budget are not named.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_USAGE)
        return 0 if arguments else 2
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith(_OWN) else [word])]
    if not {"--resume", "--config", "--smoke"} & set(words):
        for flag in ("--teacher", "--dataset", "--budget-wh"):
            if value_after(words, flag) is None:
                raise InputError(f"`smallmodels shrink` needs {flag} as well: see `smallmodels shrink --help`")
    return run_command([RECIPE, *_as_of_the_recipe(words)])


def _as_of_the_recipe(words: Sequence[str]) -> list[str]:
    """The flags, with --max-drop as the recipe knows it."""
    found: list[str] = []
    for before, word in zip(("", *words), words, strict=False):
        if word == "--max-drop":
            found.append("--margin")
        elif before == "--max-drop":
            found.append(_share(word))
        else:
            found.append(word)
    return found


def _share(points: str) -> str:
    try:
        return repr(float(points) / 100)
    except ValueError:
        raise InputError(f"--max-drop should be a number of percentage points, got {points}: correct it") from None
