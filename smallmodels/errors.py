"""Errors that end a command, each with the exit code that it stands for.

Every message is one sentence that says what was expected, what was found, and what to do. The command line prints
it without a traceback; a library user catches the class. Exit code 0 is success.
"""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

_FLAG = re.compile(r"--[a-z]+(?:-[a-z]+)*")


class SmallmodelsError(Exception):
    """Base of the errors below."""

    exit_code = 1


class TrainingError(SmallmodelsError):
    """Training failed: a value that is not finite, out of memory, nothing that was trained."""

    exit_code = 1


class WorkerError(TrainingError):
    """A process that prepares batches failed, which the same steps need not repeat."""


class BudgetError(SmallmodelsError):
    """The budget of a run was spent before there was a student; with a larger one the run goes on from there."""

    exit_code = 1


class InputError(SmallmodelsError, ValueError):
    """Bad input from the user, or a config that changed between a run and its resume."""

    exit_code = 2


class PolicyError(SmallmodelsError):
    """Refused by a rule: a licence, a lock that somebody else holds, a safety check."""

    exit_code = 3


class DamagedError(SmallmodelsError):
    """An artefact on disk is torn, altered, or not what its manifest says."""

    exit_code = 4


class RunInterruptedError(SmallmodelsError):
    """The run was interrupted, has saved its work, and can be resumed."""

    exit_code = 75


@contextlib.contextmanager
def flags_named(names: Mapping[str, str | None], otherwise: str) -> Iterator[None]:
    """Make errors of the block name the flags that a recipe has.

    Args:
        names: By the flag that an error may name, that of the recipe; None where it has none.
        otherwise: What to do where it has none, such as `choose another --dataset`.
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        found = [flag for flag in _FLAG.findall(message) if flag in names]
        if not found:
            raise
        if any(names[flag] is None for flag in found):
            message = f"{message[: message.index(found[0])].rpartition(': ')[0]}: {otherwise}"
        else:
            message = _FLAG.sub(lambda match: names.get(match.group()) or match.group(), message)
        raise InputError(message) from error


def require(holds: bool, name: str, rule: str, value: Any) -> None:
    """Refuse a setting that breaks its rule, or a number that is not finite.

    Raises: InputError, such as `temperature must be > 0, got -1.0`.
    """
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{name} must be {rule}, got {value}")
