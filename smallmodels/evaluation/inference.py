"""What one use of a model costs: size, latency, throughput, joules."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smallmodels import energy, files, models, records, trials
from smallmodels.data.splits import Split
from smallmodels.evaluation.contenders import Contenders, as_contender, forward
from smallmodels.evaluation.uses import is_embedder
from smallmodels.evaluation.vectors import pair_similarities
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_TRIED_WINDOW_S = 0.1
"""In a trial: a window is as long as it is told to be, so its cost is known without it."""
_LEAST_LATENCIES, _MOST_LATENCIES, _WARM_UP = 8, 400, 3
"""Single uses, of which the first are not counted."""


@dataclass(frozen=True)
class InferenceCosts:
    """What one use of each role's model costs."""

    inference: list[records.Inference]

    def save(self, folder: Path) -> None:
        """Write `inference.json`."""
        files.write_json(folder / "inference.json", records.to_json(self.inference))

    @classmethod
    def load(cls, folder: Path) -> "InferenceCosts":
        """Read what `save` wrote."""
        return cls([records.from_json(records.Inference, i) for i in files.read_json(folder / "inference.json")])


def measure_inference(
    contenders: Contenders,
    split: Split,
    *,
    max_examples: int = 512,
    batch_size: int = 64,
    protocol: Literal["indicative", "smoke"] = "indicative",
    window_s: float = 1.0,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> InferenceCosts:
    """Latency at batch 1, throughput and joules per 1,000 texts, tokenising included.

    Three windows of a second or more per role (one in smoke), after a warm-up; `indicative`, never ranked.

    Args:
        contenders: Models and baselines by role; of those with the same shape the first is measured for all.
        split: Typical inputs; used again and again until the window is full.
        max_examples: So many of them, spread over the split.
        batch_size: Texts per call in the throughput windows.
        protocol: For the record.
        window_s: Shortest window, in seconds; joules of windows under a second are too short to be known.
        compute: Device and number format.
        context: Of the run; its energy reading is taken at the edges of each window.
    """
    compute = compute or models.choose_compute()
    wanted_s, trial = window_s, trials.current()
    window_s = wanted_s if trial is None else min(wanted_s, _TRIED_WINDOW_S)
    few = dataclasses.replace(split, tokens=None, teacher=None)
    few = few.take(np.linspace(0, len(split) - 1, min(max_examples, len(split))).astype(np.int64))
    shapes = {role: _shape(as_contender(value).model) for role, value in contenders.items()}
    measured_as = {role: next(r for r in shapes if shapes[r] == shape) for role, shape in shapes.items()}
    models_of = {role: as_contender(contenders[role]).model for role in dict.fromkeys(measured_as.values())}
    uses = {role: _use(model, compute, context) for role, model in models_of.items()}
    latencies = {role: _latencies(use, few, compute, seconds=window_s / 2) for role, use in uses.items()}
    windows: dict[str, list[records.InferenceWindow]] = {role: [] for role in uses}
    labels: dict[str, records.EnergyLabel] = dict.fromkeys(uses, "missing")
    num_wanted = 1 if protocol == "smoke" else 3
    num_rounds = num_wanted if trial is None else 1
    for number in range(num_rounds):  # in turn, so that a machine that slows down slows all of them
        for role, use in uses.items():
            window, label = _window(use, few, batch_size, number, window_s, compute, context)
            windows[role].append(window)
            labels[role] = label
        context.progress(number + 1, num_rounds)
    if trial is not None:
        for role in uses:
            trial.leave_out(_left_out(latencies[role], windows[role][0], batch_size, wanted_s, window_s, num_wanted))
    lines = {
        role: _inference(role, model, compute, latencies[role], windows[role], labels[role], batch_size, protocol)
        for role, model in models_of.items()
    }
    return InferenceCosts(
        [dataclasses.replace(lines[like], role=role, measured_as=like) for role, like in measured_as.items()]
    )


def _shape(model: Any) -> Any:
    """Equal for models whose uses cost the same: same architecture, other weights."""
    if not isinstance(model, TextModel):
        return id(model)
    parameters = [(name, tuple(p.shape)) for name, p in model.model.named_parameters()]
    return type(model.model).__name__, model.max_length, tuple(parameters)


def _inference(
    role: str,
    model: Any,
    compute: Compute,
    latencies: list[float],
    windows: list[records.InferenceWindow],
    label: records.EnergyLabel,
    batch_size: int,
    protocol: Literal["indicative", "smoke"],
) -> records.Inference:
    examples = sum(w.num_examples for w in windows)
    joules = [w.energy_j for w in windows if w.energy_j is not None]
    is_text_model = isinstance(model, TextModel)
    return records.Inference(
        role=role,
        num_parameters=models.num_parameters(model.model) if is_text_model else model.num_parameters,
        size_bytes=models.size_bytes(model.model) if is_text_model else model.size_bytes,
        latency_p50_s=float(np.percentile(latencies, 50)),
        latency_p95_s=float(np.percentile(latencies, 95)),
        batch_size=batch_size,
        throughput_per_s=examples / sum(w.duration_s for w in windows),
        energy_j_per_1000=1000 * sum(joules) / examples if len(joules) == len(windows) else None,
        cpu_s_per_1000=1000 * sum(w.cpu_s for w in windows) / examples,
        label=label,
        windows=windows,
        number_format=compute.number_format if is_text_model else str(model.number_format),
        protocol=protocol,
    )


def _use(model: Any, compute: Compute, context: Context) -> Any:
    """A function of some examples that uses the model once on their texts, which it cuts into tokens itself."""
    if isinstance(model, TextModel):
        return lambda part: _answer(model, part, compute, context)
    if hasattr(model, "predict"):
        return model.predict
    answer = model.predict_proba if hasattr(model, "predict_proba") else model.similarities
    return lambda part: answer(part.whole_texts)


def _answer(model: TextModel, part: Split, compute: Compute, context: Context) -> Any:
    if part.seconds is not None and is_embedder(model.model):
        return pair_similarities(model, part, compute=compute, context=context)
    return forward(model, part.tokenize(model.tokenizer, max_length=model.max_length), compute, context)


def _latencies(use: Any, split: Split, compute: Compute, *, seconds: float) -> list[float]:
    """Wall seconds of single uses, after a warm-up of three."""
    latencies: list[float] = []
    singles = _cut(split, 1)
    deadline, i = time.perf_counter() + seconds, 0
    while i < _LEAST_LATENCIES or (time.perf_counter() < deadline and i < _MOST_LATENCIES):
        begin = time.perf_counter()
        use(singles[i % len(singles)])
        compute.synchronize()
        latencies.append(time.perf_counter() - begin)
        i += 1
    return latencies[_WARM_UP:]


def _left_out(
    latencies: list[float],
    window: records.InferenceWindow,
    batch_size: int,
    wanted_s: float,
    window_s: float,
    num_windows: int,
) -> trials.Cost:
    """What the measurement of a model would take beyond its trial.

    Args:
        latencies: Seconds of single uses.
        window: Of the trial.
        batch_size: Texts per call.
        wanted_s: Shortest window.
        window_s: Shortest window of the trial.
        num_windows: That there would be.
    """
    single_s = float(np.mean(latencies))
    singles_s = [
        max(_LEAST_LATENCIES * single_s, min(length_s / 2, _MOST_LATENCIES * single_s))
        for length_s in (wanted_s, window_s)
    ]
    call_s = window.duration_s / max(1, round(window.num_examples / batch_size))
    whole_s = max(call_s, wanted_s + call_s / 2)  # a window ends with a call
    left_s = max(0.0, num_windows * whole_s - window.duration_s) + singles_s[0] - singles_s[1]
    return trials.Cost(left_s, left_s * window.cpu_s / window.duration_s)


def _cut(split: Split, size: int) -> list[Split]:
    """Parts of so many examples, made before the clock runs."""
    return [split.take(np.arange(start, min(start + size, len(split)))) for start in range(0, len(split), size)]


def _window(
    use: Any,
    split: Split,
    batch_size: int,
    number: int,
    window_s: float,
    compute: Compute,
    context: Context,
) -> tuple[records.InferenceWindow, records.EnergyLabel]:
    """Use a model on batch after batch until the window is full."""
    parts, examples, calls = _cut(split, batch_size), 0, number
    before, begin, cpu = context.energy(), time.perf_counter(), time.process_time()
    while not examples or time.perf_counter() - begin < window_s:
        part = parts[calls % len(parts)]
        use(part)
        examples, calls = examples + len(part), calls + 1
    compute.synchronize()
    duration, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    spent = _difference(before, context.energy()) if window_s >= energy.MIN_WINDOW_S else None
    window = records.InferenceWindow(
        duration_s=duration, num_examples=examples, energy_j=spent.energy_j if spent else None, cpu_s=cpu_s
    )
    return window, spent.label if spent else "missing"


def _difference(before: energy.EnergyReading | None, after: energy.EnergyReading | None) -> energy.EnergyReading | None:
    return after - before if before is not None and after is not None else None
