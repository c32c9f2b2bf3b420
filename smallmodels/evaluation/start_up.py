"""How long a new process takes until a model has answered its first text."""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import smallmodels
from smallmodels import files, first_answer, trials, values
from smallmodels.arrays import Ragged
from smallmodels.data.splits import Split
from smallmodels.evaluation import windows
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_LIMIT_S = 300.0
"""A process that takes longer is ended, and the time stays unknown."""
_OF_TORCH = "import sys; from smallmodels.evaluation import start_up; start_up.answer_first(sys.argv[1])"
_OF_OTHERS = "import pathlib, sys; from smallmodels import first_answer as f; f.answer_first(pathlib.Path(sys.argv[1]))"
"""What the new process runs: a model without torch is asked by one that does not import it either."""


def start_up_s(model: Any, first: Split, num_starts: int, compute: Compute, context: Context) -> float | None:
    """Seconds from the start of a process until it has imported the library, loaded the model and answered a text.

    The median of some starts, with the model's files in the memory of the system, as they are after the first one.

    Args:
        model: A model or baseline; is saved into a temporary folder.
        first: Of these examples, the first one is asked.
        num_starts: 0 measures nothing.
        compute: Device, number format and threads.
        context: Hears of a process that failed, and of a model that cannot be saved.

    Returns: None where nothing was measured, or a process failed.
    """
    if not num_starts:
        return None
    trial = trials.current()
    with tempfile.TemporaryDirectory(prefix="smallmodels-start-") as name:
        folder = Path(name)
        try:
            saved = values.encode(model, folder)
        except TypeError as error:
            context.event("inference", f"the start-up time of a model is unknown, because {error}")
            return None
        compute.save(folder)
        files.write_json(folder / first_answer.ABOUT, {"model": saved, **_about(first)})
        code = _OF_TORCH if isinstance(model, TextModel) else _OF_OTHERS
        found: list[float] = []
        for _ in range(num_starts if trial is None else 1):
            cpu_s, seconds = _children_s(), _start(code, folder)
            if seconds is None:
                context.event("inference", "a new process could not answer a text, so its start-up time is unknown")
                return None
            found.append(seconds)
            if trial is not None:
                trial.leave_out(trials.Cost(seconds, _children_s() - cpu_s) * (num_starts - 1))
    return statistics.median(found)


def _about(first: Split) -> dict[str, Any]:
    """An example as JSON values; of labels, how many words it has."""
    return {
        "text": first.texts[0],
        "second": None if first.seconds is None else first.seconds[0],
        "whole": first.whole_texts[0],
        "num_words": len(first.labels[0]) if isinstance(first.labels, Ragged) else None,
    }


def _example(about: Mapping[str, Any]) -> Split:
    """The same read back; which labels its words have is not known."""
    num_words = about["num_words"]
    return Split(
        "first",
        ["0"],
        [about["text"]],
        None if num_words is None else Ragged(np.zeros(num_words, np.int64), np.array([0, num_words])),
        seconds=None if about["second"] is None else [about["second"]],
    )


def _children_s() -> float:
    """CPU time of processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _start(code: str, folder: Path) -> float | None:
    """Seconds that one process took; None if it failed."""
    path = os.pathsep.join([str(Path(smallmodels.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep), "TOKENIZERS_PARALLELISM": "true"}
    began, seconds = time.perf_counter(), None
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as process:
        limit = threading.Timer(_LIMIT_S, process.kill)
        limit.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == first_answer.ANSWERED:
                    seconds = time.perf_counter() - began
        finally:
            limit.cancel()
    return seconds if process.returncode == 0 else None


def answer_first(folder: str) -> None:
    """What the new process of a model with torch does: load it from a folder, use it once, and say so."""
    about, compute = files.read_json(Path(folder) / first_answer.ABOUT), Compute.load(Path(folder))
    compute.use_threads()
    model = values.decode(about["model"], Path(folder))
    windows.use_of(model, compute, NO_CONTEXT)(_example(about))
    compute.synchronize()
    print(first_answer.ANSWERED, flush=True)
