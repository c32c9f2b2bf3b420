"""What one use of a model costs: size, latency, throughput, joules."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smallmodels import energy, files, models, records, trials
from smallmodels.data.splits import Split
from smallmodels.evaluation import full_protocol, windows
from smallmodels.evaluation.contenders import Contenders, as_contender
from smallmodels.evaluation.shapes import shape_of
from smallmodels.evaluation.windows import Taken, Use, Windows
from smallmodels.models import Compute
from smallmodels.phases import NO_CONTEXT, Context

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
    batch_sizes: Sequence[int] = full_protocol.BATCH_SIZES,
    num_starts: int = full_protocol.NUM_STARTS,
    protocol: records.InferenceProtocol | None = None,
    window_s: float | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> InferenceCosts:
    """Latency at batch 1, throughput and joules per 1,000 texts, tokenising included.

    The protocol `indicative` takes three windows of a second or more per role (one in `smoke`), after a warm-up, and is
    never ranked. `full` is that of `full_protocol`, kept in the cache for models of the same shape.

    Args:
        contenders: Models and baselines by role; of those with the same shape the first is measured for all.
        split: Typical inputs; used again and again until the window is full.
        max_examples: So many of them, spread over the split.
        batch_size: Texts per call in the throughput windows; `full` finds the best one.
        batch_sizes: That `full` tries, in rising order.
        num_starts: Of new processes, whose time to a first answer `full` measures; 0 leaves it unknown.
        protocol: That of the run if None.
        window_s: Shortest window, in seconds; that of the protocol if None. Joules of windows under a second are too
            short to be known.
        compute: Device and number format.
        context: Of the run; its energy reading is taken at the edges of each window.
        cache: Folder of the cache, for `full`; `entries.cache_folder()` if None.

    Raises: RunInterruptedError if the run was asked to stop between two windows of `full`.
    """
    compute, protocol = compute or models.choose_compute(), protocol or context.inference_protocol
    shapes = {role: shape_of(as_contender(value).model) for role, value in contenders.items()}
    measured_as = {role: next(r for r in shapes if shapes[r] == shape) for role, shape in shapes.items()}
    models_of = {role: as_contender(contenders[role]).model for role in dict.fromkeys(measured_as.values())}
    if protocol == "full":
        seconds = full_protocol.WINDOW_S if window_s is None else window_s
        asked = full_protocol.Asked(max_examples, tuple(batch_sizes), seconds, num_starts)
        lines = full_protocol.measure(models_of, split, asked, compute, context, cache)
    else:
        few, seconds = windows.spread(split, max_examples), energy.MIN_WINDOW_S if window_s is None else window_s
        lines = _measure_indicatively(models_of, few, batch_size, protocol, seconds, compute, context)
    return InferenceCosts(
        [dataclasses.replace(lines[like], role=role, measured_as=like) for role, like in measured_as.items()]
    )


def _measure_indicatively(
    models_of: dict[str, Any],
    split: Split,
    batch_size: int,
    protocol: records.InferenceProtocol,
    wanted_s: float,
    compute: Compute,
    context: Context,
) -> dict[str, records.Inference]:
    """Three windows of each model, or one in smoke; in a trial a short one, and what the others would take."""
    trial = trials.current()
    window_s = windows.tried_s(wanted_s)
    uses = {role: windows.use_of(model, compute, context) for role, model in models_of.items()}
    latencies = {role: _latencies(use, split, compute, seconds=window_s / 2) for role, use in uses.items()}
    found, taken = {role: Windows() for role in uses}, dict[str, Taken]()
    num_wanted = 1 if protocol == "smoke" else 3
    num_rounds = num_wanted if trial is None else 1
    parts = windows.cut(split, batch_size)
    for number in range(num_rounds):  # in turn, so that a machine that slows down slows all of them
        for role, use in uses.items():
            taken[role] = windows.take_or_try(use, parts, number, wanted_s, num_wanted, compute, context)
            found[role].add(taken[role])
        context.progress(number + 1, num_rounds)
    if trial is not None:
        for role in uses:
            trial.leave_out(_latencies_left_out(latencies[role], taken[role], wanted_s, window_s))
    return {
        role: records.Inference(
            role=role,
            **windows.sizes_of(model),
            **windows.percentiles(latencies[role]),
            batch_size=batch_size,
            **found[role].rates,
            windows=found[role].windows,
            number_format=windows.number_format_of(model, compute),
            protocol=protocol,
        )
        for role, model in models_of.items()
    }


def _latencies(use: Use, split: Split, compute: Compute, *, seconds: float) -> list[float]:
    """Wall seconds of single uses, after a warm-up of three."""
    latencies: list[float] = []
    singles = windows.cut(split, 1)
    deadline, i = time.perf_counter() + seconds, 0
    while i < _LEAST_LATENCIES or (time.perf_counter() < deadline and i < _MOST_LATENCIES):
        begin = time.perf_counter()
        use(singles[i % len(singles)])
        compute.synchronize()
        latencies.append(time.perf_counter() - begin)
        i += 1
    return latencies[_WARM_UP:]


def _latencies_left_out(latencies: list[float], tried: Taken, wanted_s: float, window_s: float) -> trials.Cost:
    """What single uses would take beyond those of a trial.

    Args:
        latencies: Seconds of those.
        tried: A window of the same model.
        wanted_s: Shortest window.
        window_s: Shortest window of the trial.
    """
    single_s = float(np.mean(latencies))
    wanted, done = (
        max(_LEAST_LATENCIES * single_s, min(length_s / 2, _MOST_LATENCIES * single_s))
        for length_s in (wanted_s, window_s)
    )
    return trials.Cost(wanted - done, (wanted - done) * tried.window.cpu_s / tried.window.duration_s)
