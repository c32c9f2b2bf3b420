"""What a report may use beside the records: predictions on the test items, runs that never ended, a rate of use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run without a record: it failed, was stopped, or is still going. Its journal says what it has cost so far."""

    run_id: str
    recipe: str
    sweep_id: str | None
    energy_j: float | None
    """None where it was not measured, or the journal is gone or damaged."""
    cpu_s: float | None
    """None where the journal is gone or damaged."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Beside the records of complete runs."""

    predictions: Mapping[str, Path] = field(default_factory=dict)
    """`predictions.parquet` by the id of its run."""
    unfinished: Sequence[Unfinished] = ()
    uses_per_day: float | None = None
    """At which days until the payback are worked out; > 0."""


NO_EVIDENCE = Evidence()
