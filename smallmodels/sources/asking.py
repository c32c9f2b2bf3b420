"""Calls of the hub: bounded retries, and what its answers mean, in one sentence each."""

import errno
import random
import time
from collections.abc import Callable
from typing import Literal, TypeVar

from smallmodels.errors import InputError, SmallmodelsError
from smallmodels.sources.names import HUB, Kind

Value = TypeVar("Value")
Explain = Callable[[Exception, str, Kind, str | None], SmallmodelsError | None]
"""What an error means for the user; None where asking again may help."""

RETRY_SECONDS = 30.0
"""No new attempt is begun after this long; the hub's client waits on its own inside an attempt."""
MAX_ATTEMPTS = 5
FIRST_WAIT_S = 0.5
"""Doubled after each attempt; the real wait is random between half of it and all of it."""


class UnreachableError(SmallmodelsError):
    """The hub gave no usable answer, in as many attempts as we make."""


def ask(
    function: Callable[[], Value],
    repo_id: str,
    kind: Kind,
    revision: str | None = None,
    *,
    patient: bool = True,
    task: Literal["give", "take"] = "give",
    explain: Explain | None = None,
) -> Value:
    """Call the hub; wait and repeat while it fails in ways that pass; turn what it says into one sentence.

    Args:
        function: The call.
        repo_id: `org/name`.
        kind: Of the repository.
        revision: That is asked for.
        patient: False makes one attempt only.
        task: What the hub should do with the repository.
        explain: What an answer means; by default, to somebody who reads.

    Raises:
        InputError: The answer is no.
        UnreachableError: There was no answer.
    """
    start, wait_s, attempt = time.monotonic(), FIRST_WAIT_S, 0
    while True:
        attempt += 1
        try:
            return function()
        except SmallmodelsError:
            raise
        except Exception as error:
            if final := (explain or _explain)(error, repo_id, kind, revision):
                raise final from error
            elapsed = time.monotonic() - start
            if not patient or attempt >= MAX_ATTEMPTS or elapsed + wait_s > RETRY_SECONDS:
                raise UnreachableError(
                    f"the hub should {task} the {kind} {repo_id}, but {_cause(error)} ({attempt} attempts in "
                    f"{elapsed:.0f} s): check the network and try again"
                ) from error
        time.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s *= 2


def _explain(error: Exception, repo_id: str, kind: Kind, revision: str | None) -> SmallmodelsError | None:
    """What an answer of the hub means for the user; None where asking again may help."""
    from huggingface_hub import errors

    page = f"{HUB}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    for found in chain(error):
        if isinstance(found, errors.GatedRepoError):
            return InputError(f"{repo_id} is gated: accept its terms at {page}, then set HF_TOKEN to your token")
        if isinstance(found, errors.RepositoryNotFoundError):
            return InputError(f"the hub has no {kind} {repo_id}, or it is private: check the spelling, or set HF_TOKEN")
        if isinstance(found, errors.RevisionNotFoundError):
            return InputError(f"{repo_id} has no revision {revision!r}: see {page} for those that exist")
        if isinstance(found, errors.DisabledRepoError):
            return InputError(f"{repo_id} was disabled on the hub: choose another {kind}")
        if isinstance(found, OSError) and found.errno == errno.ENOSPC:
            return InputError(f"the disk is full while {repo_id} is downloaded: make room, or move HF_HOME")
        status = status_of(found)
        if status is not None and is_final(status):
            return InputError(f"the hub answered {status} when asked for the {kind} {repo_id}: see {page}")
    return None if any(may_pass(found) for found in chain(error)) else InputError(_unknown(error, repo_id, kind))


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer, if the error is one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def is_final(status: int) -> bool:
    """Whether a status says that the same question will be refused again."""
    return 400 <= status < 500 and status not in (408, 425, 429)


def may_pass(error: BaseException) -> bool:
    """Whether this is the network's or the server's trouble: asking again may help."""
    modules = [kind.__module__.partition(".")[0] for kind in type(error).__mro__]
    return isinstance(error, OSError) or any(
        module in ("httpx", "httpx2", "httpcore", "requests") for module in modules
    )


def _unknown(error: Exception, repo_id: str, kind: Kind) -> str:
    first_line = next(iter(str(error).splitlines()), "")[:200]
    return f"the {kind} {repo_id} could not be read, {type(error).__name__}: {first_line}"


def _cause(error: Exception) -> str:
    """The root of a failure without addresses, which can carry tokens."""
    for found in chain(error):
        if status := status_of(found):
            return f"it answered {status}"
    return f"the connection failed with {type(chain(error)[-1]).__name__}"


def chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, outermost first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found
