"""What a phase may ask of the run around it.

`Run.phase(name, function, …)` passes a `Context` to a function that has a parameter called `context`. Functions use
`NO_CONTEXT` by default, so they work alone in anybody's script.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallmodels.energy import EnergyReading
from smallmodels.records import InferenceProtocol


def _nothing(*_: Any, **__: Any) -> None:
    return None


@dataclass
class Counts:
    """Work done in a phase; None until something was counted."""

    num_examples: int | None = None
    num_tokens: int | None = None
    num_processed_tokens: int | None = None
    num_operations: float | None = None
    shared_energy_j: float | None = 0.0
    shared_cpu_s: float | None = 0.0

    def add(self, *, examples: int = 0, tokens: int = 0, processed: int = 0, operations: float = 0.0) -> None:
        """Count examples, real tokens, processed tokens (with padding) and floating-point operations."""
        self.num_examples = (self.num_examples or 0) + examples
        self.num_tokens = (self.num_tokens or 0) + tokens
        self.num_processed_tokens = (self.num_processed_tokens or 0) + processed
        self.num_operations = (self.num_operations or 0.0) + operations

    def add_shared(self, *, energy_j: float | None, cpu_s: float | None) -> None:
        """Note what an earlier run paid for something that this phase took from a cache; None is unknown."""
        known = self.shared_energy_j is not None and energy_j is not None
        self.shared_energy_j = (self.shared_energy_j or 0.0) + (energy_j or 0.0) if known else None
        known = self.shared_cpu_s is not None and cpu_s is not None
        self.shared_cpu_s = (self.shared_cpu_s or 0.0) + (cpu_s or 0.0) if known else None


@dataclass(frozen=True)
class Rules:
    """What stops a run before its end, as its phases ask and tell; nothing outside a run."""

    spent: Callable[[], str] = lambda: ""
    """Which budget of the run is spent, in words such as `0.5 Wh`; empty while none is."""
    require_left: Callable[[], None] = _nothing
    """Raises `BudgetError` if a budget is spent before there is a student: ask between parts of work that are kept."""
    least_gain_per_wh: float | None = None
    """Gain in the metric of validation for each Wh between validations, below which a training stops."""
    trained: Callable[..., None] = _nothing
    """`trained(num_steps, planned_steps, **cut)`: a training has ended or was cut; `cut` has the fields of
    `records.Stop` that say by which rule. Raises `BudgetError` where that leaves the run without a student."""


@dataclass(frozen=True)
class Context:
    """The run, seen from inside a phase."""

    folder: Path | None = None
    """Where the phase keeps its files and checkpoints; None outside a run."""
    log: Callable[[Mapping[str, float | int | str]], None] = _nothing
    """Write one line of metrics; step, joules and CPU-seconds so far are added."""
    event: Callable[..., None] = _nothing
    """`event(kind, message, **details)`: something unusual, for the record and the terminal."""
    progress: Callable[..., None] = _nothing
    """`progress(done, total, **fields)`: for the live bar, with short fields such as loss and tokens_per_s."""
    energy: Callable[[], EnergyReading | None] = _nothing
    """Time, CPU-seconds and joules since the phase began; None outside a run."""
    should_stop: Callable[[], bool] = lambda: False
    """True once the user asked the run to stop; save and raise `RunInterruptedError` at the next safe point."""
    rules: Rules = field(default_factory=Rules)
    counts: Counts = field(default_factory=Counts)
    inference_protocol: InferenceProtocol = "indicative"
    """How the cost of a use is to be measured."""
    run_id: str | None = None
    """None outside a run."""
    fingerprint: Callable[[], str] = lambda: ""
    """Of the machine and the software, as records have it; empty outside a run."""
    is_contended: Callable[[], bool] = lambda: False
    """True once another run or foreign load has shared the machine."""


NO_CONTEXT = Context()


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether a function has a parameter called `context`."""
    try:
        return "context" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C do not say what they take
        return False
