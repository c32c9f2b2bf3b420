"""Errors that end a command, each with the exit code that it stands for.

Every message is one sentence that says what was expected, what was found, and what to do. The command line prints
it without a traceback; a library user catches the class. Exit code 0 is success.
"""

import math
from typing import Any


class SmallmodelsError(Exception):
    """Base of the errors below."""

    exit_code = 1


class TrainingError(SmallmodelsError):
    """Training failed: a value that is not finite, out of memory, nothing that was trained."""

    exit_code = 1


class WorkerError(TrainingError):
    """A process that prepares batches failed, which the same steps need not repeat."""


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


def require(holds: bool, name: str, rule: str, value: Any) -> None:
    """Refuse a setting that breaks its rule, or a number that is not finite.

    Raises: InputError, such as `temperature must be > 0, got -1.0`.
    """
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{name} must be {rule}, got {value}")
