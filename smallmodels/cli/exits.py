"""How a command ends: its exit code, and an error as one sentence on standard error."""

import os
import sys
import traceback
import types
from collections.abc import Callable

from smallmodels import files, privacy, processes
from smallmodels.errors import InputError, PolicyError, RunInterruptedError, SmallmodelsError


def guarded(function: Callable[[], int], *, debug: bool) -> int:
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
        code, message = explain(error)
        rank, count = processes.launched()
        if rank > 0 and isinstance(error, (InputError, PolicyError, processes.FirstProcessError)):
            return code  # the first process says the same
        if count > 1:
            message = f"(process {rank + 1} of {count}) {message}"
        for line in (f"smallmodels: {message}", *getattr(error, "__notes__", [])):
            print(privacy.without_secrets(line), file=sys.stderr)
        return code


def explain(error: BaseException) -> tuple[int, str]:
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
