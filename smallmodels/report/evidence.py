"""What a report may use beside the records: predictions, runs that never ended, who shared a machine, a rate of use."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smallmodels.records import RunRecord, Unfinished


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Beside the records of complete runs."""

    predictions: Mapping[str, Path] = field(default_factory=dict)
    """`predictions.parquet` by the id of its run."""
    unfinished: Sequence[Unfinished] = ()
    teachers: Mapping[str, float] = field(default_factory=dict)
    """By the id of a run that trained its teacher and whose record does not say so itself, as older ones do not: the
    best validation of that training, as `RunRecord.teacher_on_validation`."""
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By the id of a run, cells of its sweep that were on its machine while it ran."""
    uses_per_day: float | None = None
    """At which days until the payback are worked out; > 0."""

    def marked(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """The records, of which those of runs that shared a machine say so, also where their own meters saw nobody."""
        return [dataclasses.replace(r, contended=True) if self.beside.get(r.run_id) else r for r in records]


NO_EVIDENCE = Evidence()
