"""Windows of uses: a model is used again and again until the clock has run long enough to tell what a use costs."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from smallmodels import energy, models, records, trials
from smallmodels.data.splits import Split
from smallmodels.evaluation.contenders import forward
from smallmodels.evaluation.uses import is_embedder
from smallmodels.evaluation.vectors import pair_similarities
from smallmodels.models import Compute, TextModel
from smallmodels.phases import Context

Use: TypeAlias = Callable[[Split], Any]
"""Uses a model once on the texts of some examples, which it cuts into tokens itself."""

TRIED_WINDOW_S = 0.1
"""In a trial: a window is as long as it is told to be, so its cost is known without it."""


@dataclass(frozen=True)
class Taken:
    """A window, and what it tells beside its sums."""

    window: records.InferenceWindow
    label: records.EnergyLabel
    calls_s: Sequence[float]
    """Wall seconds of each call."""


@dataclass
class Windows:
    """All windows of one model on the same texts, so many at once."""

    windows: list[records.InferenceWindow] = field(default_factory=list)
    calls_s: list[float] = field(default_factory=list)
    """Wall seconds of each call."""
    label: records.EnergyLabel = "missing"
    """Of the last window."""

    def add(self, taken: Taken) -> None:
        """Note one more."""
        self.windows.append(taken.window)
        self.calls_s += taken.calls_s
        self.label = taken.label

    @property
    def duration_s(self) -> float:
        """Of all of them."""
        return sum(w.duration_s for w in self.windows)

    @property
    def rates(self) -> dict[str, Any]:
        """Texts per second; joules (None if any is unknown) and CPU-seconds of 1,000 texts; as records name them."""
        examples = sum(w.num_examples for w in self.windows)
        joules = records.whole_sum(w.energy_j for w in self.windows)
        return {
            "throughput_per_s": examples / self.duration_s,
            "energy_j_per_1000": None if joules is None else 1000 * joules / examples,
            "cpu_s_per_1000": 1000 * sum(w.cpu_s for w in self.windows) / examples,
            "label": self.label,
        }


def percentiles(seconds: Sequence[float]) -> dict[str, Any]:
    """The median and the 95th percentile, as records name them."""
    return {f"latency_p{q}_s": float(np.percentile(seconds, q)) for q in (50, 95)}


def use_of(model: Any, compute: Compute, context: Context) -> Use:
    """What uses a model or a baseline once."""
    if isinstance(model, TextModel):
        return lambda part: _answer(model, part, compute, context)
    if hasattr(model, "predict"):
        predict: Use = model.predict
        return predict
    answer = model.predict_proba if hasattr(model, "predict_proba") else model.similarities
    return lambda part: answer(part.whole_texts)


def _answer(model: TextModel, part: Split, compute: Compute, context: Context) -> Any:
    if part.seconds is not None and is_embedder(model.model):
        return pair_similarities(model, part, compute=compute, context=context)
    return forward(model, part.tokenize(model.tokenizer, max_length=model.max_length), compute, context)


def spread(split: Split, max_examples: int) -> Split:
    """So many examples, spread over a split, as a user has them: without tokens and without a teacher's rows."""
    places = np.linspace(0, len(split) - 1, min(max_examples, len(split))).astype(np.int64)
    return dataclasses.replace(split, tokens=None, teacher=None).take(places)


def cut(split: Split, size: int) -> list[Split]:
    """Parts of so many examples, made before the clock runs."""
    return [split.take(np.arange(start, min(start + size, len(split)))) for start in range(0, len(split), size)]


def take_window(
    use: Use, parts: Sequence[Split], number: int, window_s: float, compute: Compute, context: Context
) -> Taken:
    """Use a model on part after part until the window is full.

    Args:
        use: What is measured.
        parts: Texts of each call, used again and again.
        number: Of the part to begin with, so that windows begin with others.
        window_s: Shortest window; joules of windows under a second are too short to be known.
        compute: Knows how to wait for the device.
        context: Its energy reading is taken at both edges.
    """
    calls_s: list[float] = []
    examples, calls = 0, number
    before, begin, cpu = context.energy(), time.perf_counter(), time.process_time()
    while not examples or time.perf_counter() - begin < window_s:
        part, call_began = parts[calls % len(parts)], time.perf_counter()
        use(part)
        compute.synchronize()
        calls_s.append(time.perf_counter() - call_began)
        examples, calls = examples + len(part), calls + 1
    duration, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    spent = _difference(before, context.energy()) if window_s >= energy.MIN_WINDOW_S else None
    window = records.InferenceWindow(
        duration_s=duration, num_examples=examples, energy_j=spent.energy_j if spent else None, cpu_s=cpu_s
    )
    return Taken(window, spent.label if spent else "missing", calls_s)


def take_or_try(
    use: Use, parts: Sequence[Split], number: int, wanted_s: float, num_windows: int, compute: Compute, context: Context
) -> Taken:
    """`take_window`; in a trial a short one, which notes what all windows would take.

    Args: As `take_window`, and `num_windows`: that one stands for so many in a trial.
    """
    trial = trials.current()
    taken = take_window(use, parts, number, tried_s(wanted_s), compute, context)
    if trial is not None:
        trial.leave_out(left_out(taken, wanted_s, num_windows))
    return taken


def in_turn(
    uses: Sequence[Use],
    parts: Sequence[Split],
    *,
    wanted_s: float,
    protocol: records.InferenceProtocol,
    compute: Compute,
    context: Context,
) -> list[Windows]:
    """Three windows of each use, or one in smoke, in turn: so a machine that slows down slows all of them.

    In a trial there is a short one of each, which notes what the others would take.

    Args:
        uses: What is measured.
        parts: Texts of each call, used again and again.
        wanted_s: Shortest window.
        protocol: `smoke` or `indicative`.
        compute: Knows how to wait for the device.
        context: Its energy reading is taken at the edges of each window.
    """
    num_wanted = 1 if protocol == "smoke" else 3
    num_rounds = num_wanted if trials.current() is None else 1
    found = [Windows() for _ in uses]
    for number in range(num_rounds):
        for use, of_use in zip(uses, found, strict=True):
            of_use.add(take_or_try(use, parts, number, wanted_s, num_wanted, compute, context))
        context.progress(number + 1, num_rounds)
    return found


def tried_s(wanted_s: float) -> float:
    """Shortest window in seconds: what is wanted, or in a trial a short one."""
    return wanted_s if trials.current() is None else min(wanted_s, TRIED_WINDOW_S)


def _difference(before: energy.EnergyReading | None, after: energy.EnergyReading | None) -> energy.EnergyReading | None:
    return after - before if before is not None and after is not None else None


def left_out(tried: Taken, wanted_s: float, num_windows: int) -> trials.Cost:
    """What windows would take beyond the one of a trial.

    Args:
        tried: That one.
        wanted_s: Shortest window.
        num_windows: That there would be.
    """
    call_s = tried.window.duration_s / len(tried.calls_s)
    whole_s = max(call_s, wanted_s + call_s / 2)  # a window ends with a call
    left_s = max(0.0, num_windows * whole_s - tried.window.duration_s)
    return trials.Cost(left_s, left_s * tried.window.cpu_s / tried.window.duration_s)


def sizes_of(model: Any) -> dict[str, Any]:
    """Parameters of a model or baseline, and its bytes on disk, as records name them."""
    if isinstance(model, TextModel):
        return {"num_parameters": models.num_parameters(model.model), "size_bytes": models.size_bytes(model.model)}
    return {"num_parameters": model.num_parameters, "size_bytes": model.size_bytes}


def number_format_of(model: Any, compute: Compute) -> str:
    """Of a model's products; a baseline has its own."""
    return compute.number_format if isinstance(model, TextModel) else str(model.number_format)
