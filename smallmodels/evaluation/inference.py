"""What one use of a model costs: size, latency, throughput, joules."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smallmodels import energy, files, models, records, trials
from smallmodels.data.splits import Split
from smallmodels.evaluation import full_protocol, windows
from smallmodels.evaluation.contenders import Contenders, as_contender
from smallmodels.evaluation.shapes import measured_as, shape_of
from smallmodels.evaluation.windows import Use, Windows
from smallmodels.models import Compute
from smallmodels.phases import NO_CONTEXT, Context

_LEAST_LATENCIES, _MOST_LATENCIES, _WARM_UP = 8, 400, 3
"""Single uses, of which the first are not counted."""
_SLOW_S, _FEWEST_LATENCIES = 2.0, 5
"""Single uses that took so long are enough, though they are so few."""


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

    @classmethod
    def of_roles(cls, like: Mapping[str, str], lines: Mapping[str, records.Inference]) -> "InferenceCosts":
        """The line of each role: its own, or that of the role it was measured as.

        Args:
            like: The measured role of each role.
            lines: Of measured roles.
        """
        return cls([dataclasses.replace(lines[first], role=role, measured_as=first) for role, first in like.items()])


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
    like = measured_as({role: shape_of(as_contender(value).model) for role, value in contenders.items()})
    models_of = {role: as_contender(contenders[role]).model for role in dict.fromkeys(like.values())}
    if protocol == "full":
        seconds = full_protocol.WINDOW_S if window_s is None else window_s
        asked = full_protocol.Asked(max_examples, tuple(batch_sizes), seconds, num_starts)
        subjects = {role: full_protocol.Subject.of(model) for role, model in models_of.items()}
        return InferenceCosts.of_roles(like, full_protocol.measure(subjects, split, asked, compute, context, cache))
    uses = {role: [windows.use_of(model, compute, context)] for role, model in models_of.items()}
    how: dict[str, Any] = {"batch_size": batch_size, "protocol": protocol, "compute": compute}
    measured = measure_uses(uses, windows.spread(split, max_examples), window_s=window_s, context=context, **how)
    lines = {role: measured[role].line(role, model, **how) for role, model in models_of.items()}
    return InferenceCosts.of_roles(like, lines)


@dataclass(frozen=True)
class Measured:
    """What a use of a model takes, measured again and again."""

    singles_s: list[float]
    """Wall seconds of uses of one example."""
    series: list[Windows]
    """Of the use, and after it of each of its parts that was measured in windows of its own."""

    def line(
        self,
        role: str,
        model: Any,
        *,
        batch_size: int,
        protocol: records.InferenceProtocol,
        compute: Compute,
        tokens: records.TokenCosts | None = None,
    ) -> records.Inference:
        """The line of a record."""
        return records.Inference(
            role=role,
            **windows.sizes_of(model),
            **windows.percentiles(self.singles_s),
            batch_size=batch_size,
            **self.series[0].rates,
            windows=self.series[0].windows,
            number_format=windows.number_format_of(model, compute),
            protocol=protocol,
            tokens=tokens,
        )


def measure_uses(
    uses: Mapping[str, Sequence[Use]],
    split: Split,
    *,
    batch_size: int,
    protocol: records.InferenceProtocol,
    window_s: float | None,
    compute: Compute,
    context: Context,
) -> dict[str, Measured]:
    """Single uses of each model, which warm it up, and then windows of all uses in turn: see `measure_inference`.

    Args:
        uses: By role, the use of its model, and parts of that use that are measured in windows of their own.
        split: Typical inputs, used again and again.
        batch_size: Examples of a call in the windows.
        protocol: `indicative` takes three windows of each, `smoke` one.
        window_s: Shortest window, in seconds; None is the shortest one that gives joules.
        compute: Knows how to wait for the device.
        context: Of the run.
    """
    wanted_s = energy.MIN_WINDOW_S if window_s is None else window_s
    tried_s, trial = windows.tried_s(wanted_s), trials.current()
    singles_s = {role: _latencies(use, split, compute, seconds=tried_s / 2) for role, (use, *_) in uses.items()}
    all_uses = [use for of_role in uses.values() for use in of_role]
    parts = windows.cut(split, batch_size)
    found = iter(
        windows.in_turn(all_uses, parts, wanted_s=wanted_s, protocol=protocol, compute=compute, context=context)
    )
    measured = {role: Measured(singles_s[role], [next(found) for _ in of_role]) for role, of_role in uses.items()}
    if trial is not None:
        for each in measured.values():
            trial.leave_out(_latencies_left_out(each.singles_s, each.series[0].windows[0], wanted_s, tried_s))
    return measured


def _latencies(use: Use, split: Split, compute: Compute, *, seconds: float) -> list[float]:
    """Wall seconds of single uses, after a warm-up of three."""
    latencies: list[float] = []
    singles = windows.cut(split, 1)
    while len(latencies) < _LEAST_LATENCIES or (sum(latencies) < seconds and len(latencies) < _MOST_LATENCIES):
        if len(latencies) >= _FEWEST_LATENCIES and sum(latencies) >= _SLOW_S:
            break
        begin = time.perf_counter()
        use(singles[len(latencies) % len(singles)])
        compute.synchronize()
        latencies.append(time.perf_counter() - begin)
    return latencies[_WARM_UP:]


def _latencies_left_out(
    latencies: list[float], tried: records.InferenceWindow, wanted_s: float, window_s: float
) -> trials.Cost:
    """What single uses would take beyond those of a trial.

    Args:
        latencies: Seconds of those.
        tried: A window of the same model.
        wanted_s: Shortest window.
        window_s: Shortest window of the trial.
    """
    single_s = float(np.mean(latencies))
    least_s = min(_LEAST_LATENCIES * single_s, max(_FEWEST_LATENCIES * single_s, _SLOW_S))
    wanted, done = (max(least_s, min(length_s / 2, _MOST_LATENCIES * single_s)) for length_s in (wanted_s, window_s))
    return trials.Cost(wanted - done, (wanted - done) * tried.cpu_s / tried.duration_s)
