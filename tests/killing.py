"""Runs of recipes in processes of their own that are killed at a chosen point, by a real signal.

A process calls `cli.main` like a terminal does; the only changes in it are the point where it sends itself a signal, a
list of what it trained on, shorter windows for the cost of use, answers in small batches, and the usual attention and
size of a pass instead of measured ones: two runs have the same bits only with the same choices. It is forked by
`forking`, or, as this script, fresh.
"""

import contextlib
import functools
import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import forking
import psutil

KILLED = -signal.SIGKILL
TORN = -signal.SIGXFSZ
FINISH = "finish"
"""The part of a run after its phases, as a `Point` names it."""


@dataclass(frozen=True)
class Point:
    """A call in a run, at which the process sends itself a signal."""

    call: str
    """`module:attribute` or `module:Class.method`."""
    number: int = 1
    """Which of these calls, from 1; counted in each process anew."""
    phase: str | None = None
    """Count calls in this phase only; `finish` is what comes after them."""
    after: bool = False
    """Once the call has returned, not before it begins."""
    path: str = ""
    """Count calls only if one of the arguments is a path, or a descriptor of a file, whose name holds this."""
    signal: int = signal.SIGKILL
    torn_at: int | None = None
    """Instead of a signal: from here on the system ends the process at the first file that passes so many bytes."""
    limit: int | None = None
    """Instead of a signal: from here on a write that makes a file larger than this fails."""
    times: int = 1
    """Send the signal so often, a tenth of a second apart."""
    to_children: bool = False
    """Send it to the process's children first, as a service manager does that stops a whole group."""

    def __str__(self) -> str:
        where = f"{self.phase or 'run'}-{'after' if self.after else 'before'}-{self.call.partition(':')[2]}"
        return "-".join(filter(None, (where, self.path.strip("."), str(self.number))))


@dataclass(frozen=True)
class Request:
    """A command to run in a process of its own."""

    words: list[str]
    folder: str
    """Where the run has its cache, its temporary files, and what it prints."""
    point: Point | None = None
    num_threads: int = 1
    """Of torch."""


# In the child


def serve_request(request: Request) -> int:
    """The command's exit code, unless it meets its point."""
    folder = Path(request.folder)
    os.environ |= {"SMALLMODELS_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}
    out = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    tempfile.tempdir = None  # the parent's
    import torch

    from smallmodels import cli, evaluation, generation

    torch.set_num_threads(request.num_threads)
    evaluation.measure_inference = functools.partial(evaluation.measure_inference, window_s=0.05)
    generation._TOKENS_PER_BATCH = 60  # a few prompts make several batches
    _wrap("smallmodels.models.compute:fastest", lambda _, compute, *__: compute)
    phase = _watch_phases()
    _note_training(folder / "training.jsonl", phase)
    if request.point:
        _arm(request.point, phase)
    return cli.main(request.words)


def find_call(call: str) -> tuple[Any, str]:
    """The module or class that holds a call given as `module:attribute` or `module:Class.method`, and its name there.

    Raises: ImportError or AttributeError if there is none.
    """
    module, _, path = call.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    getattr(owner, name)
    return owner, name


def _wrap(call: str, around: Callable[..., Any]) -> None:
    """Replace a function by `around(original, *args, **kwargs)`."""
    owner, name = find_call(call)
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, wrapper)


def _watch_phases() -> Callable[[], str | None]:
    """What tells the innermost phase that is open."""
    open_phases: list[str] = []

    def phase(original: Any, run: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        open_phases.append(name)
        try:
            return original(run, name, *args, **kwargs)
        finally:
            open_phases.pop()

    def finish(original: Any, run: Any, *args: Any, **kwargs: Any) -> Any:
        return phase(functools.partial(_call_without_name, original), run, FINISH, *args, **kwargs)

    _wrap("smallmodels.runs:Run.phase", phase)
    _wrap("smallmodels.runs:Run.finish", finish)
    return lambda: open_phases[-1] if open_phases else None


def _call_without_name(original: Any, run: Any, _: str, *args: Any, **kwargs: Any) -> Any:
    return original(run, *args, **kwargs)


def _note_training(path: Path, phase: Callable[[], str | None]) -> None:
    """Append a line per optimizer step: phase, step, ids of the examples, and bits of loss, gradient norm and rate."""
    seen: list[str] = []

    def work(original: Any, loop: Any, micro_batches: Any) -> Any:
        seen.extend(i for batch in micro_batches for i in batch.ids)
        return original(loop, micro_batches)

    def step(original: Any, logger: Any, number: int, *values: float) -> Any:
        with path.open("a") as file:
            file.write(json.dumps([phase(), number, seen, [value.hex() for value in values]]) + "\n")
        seen.clear()
        return original(logger, number, *values)

    _wrap("smallmodels.training.loop:Loop.work", work)
    _wrap("smallmodels.training.logger:StepLogger.step", step)


def _arm(point: Point, phase: Callable[[], str | None]) -> None:
    """Make the process meet its point."""
    calls = 0
    pid = os.getpid()

    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if os.getpid() == pid and _is_meant(point, phase(), (*args, *kwargs.values())):
            calls += 1
            if calls == point.number:
                if point.after:
                    result = original(*args, **kwargs)
                    _meet(point)
                    return result
                _meet(point)
        return original(*args, **kwargs)

    _wrap(point.call, around)


def _is_meant(point: Point, phase: str | None, arguments: tuple[Any, ...]) -> bool:
    if point.phase is not None and point.phase != phase:
        return False
    return not point.path or any(point.path in _path_of(argument) for argument in arguments)


def _path_of(argument: Any) -> str:
    if isinstance(argument, int) and not isinstance(argument, bool):
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/self/fd/{argument}")
    return str(argument) if isinstance(argument, (str, os.PathLike)) else ""


def _meet(point: Point) -> None:
    limit = point.limit if point.torn_at is None else point.torn_at
    if point.torn_at is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and goes on with an error
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return
    for number in range(point.times):
        if number:
            time.sleep(0.1)
        children = psutil.Process().children(recursive=True) if point.to_children else []
        for pid in [*(child.pid for child in children), os.getpid()]:
            os.kill(pid, point.signal)


def request_from_json(value: dict[str, Any]) -> Request:
    point = Point(**value["point"]) if value["point"] else None
    return Request(**{**value, "point": point})


# In the test


@dataclass(frozen=True)
class Processes:
    """Starts runs in processes of their own: forked from one clean process, or fresh."""

    server: forking.Server

    def start(self, request: Request) -> forking.Child:
        """Fork a run."""
        return self.server.start("run_command", request=asdict(request))

    def run(self, request: Request, *, fresh: bool = False, killed_after_s: float | None = None) -> int:
        """Exit code of a run, negative for a signal.

        Args:
            request: What to run.
            fresh: In a newly started process instead of a forked one.
            killed_after_s: Kill it from outside after so many seconds, if it still runs then.
        """
        if fresh:
            command = [sys.executable, __file__, json.dumps(asdict(request))]
            return subprocess.run(command, env=forking.environment(), stdin=subprocess.DEVNULL, timeout=300).returncode
        child = self.start(request)
        if killed_after_s is not None:
            time.sleep(killed_after_s)
            os.kill(child.pid, signal.SIGKILL)  # not yet waited for, so the id is still this process's
        return child.wait(300.0)


def spread(seed: int, count: int, low: float, high: float) -> list[float]:
    """Numbers between two bounds, one drawn from each of `count` equal parts."""
    generator, width = random.Random(seed), (high - low) / count
    return [low + width * (i + generator.random()) for i in range(count)]


if __name__ == "__main__":
    sys.exit(serve_request(request_from_json(json.loads(sys.argv[1]))))
