"""Turn what was measured into the lines of a record: phases with their work, and the point of payback."""

import dataclasses
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from smallmodels import energy, metrics, records
from smallmodels.phases import Counts

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def phase_lines(
    totals: energy.JournalTotals,
    counts: Mapping[str, Counts],
    peaks_mb: Mapping[str, float | None],
    operations_per_s: float | None,
    device: str | None = None,
) -> list[records.Phase]:
    """One record per phase of the journal, in its order.

    Args:
        totals: Of the journal, every segment included.
        counts: Work by phase; a phase without counts gets None everywhere.
        peaks_mb: Highest resident memory by phase.
        operations_per_s: Matmul rate measured on this device; None leaves utilisation unknown.
        device: Where the models ran; the rest of the work is the processor's.
    """
    return [
        _phase_line(name, reading, counts.get(name), peaks_mb.get(name), operations_per_s, device)
        for name, reading in totals.phases.items()
    ]


def _phase_line(
    name: str,
    reading: energy.EnergyReading,
    counts: Counts | None,
    peak_mb: float | None,
    rate: float | None,
    device: str | None,
) -> records.Phase:
    work = counts or Counts()
    operations = work.num_operations
    known = operations is not None and rate and reading.duration_s > 0
    return records.Phase(
        name=name,
        duration_s=reading.duration_s,
        cpu_s=reading.cpu_s,
        energy_j=reading.energy_j,
        label=reading.label,
        components=dict(reading.components),
        num_examples=work.num_examples,
        num_tokens=work.num_tokens,
        num_processed_tokens=work.num_processed_tokens,
        num_operations=operations,
        utilisation=operations / reading.duration_s / rate if known and operations and rate else None,
        peak_memory_mb=peak_mb,
        shared_energy_j=work.shared_energy_j,
        shared_cpu_s=work.shared_cpu_s,
        device=device if operations is not None else "cpu",
    )


def without_loopback_commit(source: records.Source) -> records.Source:
    """A source without a commit that a server on loopback made up; the hashes of its files say what was read."""
    host = urllib.parse.urlsplit(str(source.notes.get("endpoint", ""))).hostname
    if host not in _LOOPBACK or source.revision is None:
        return source
    notes = {key: value for key, value in source.notes.items() if key not in ("revision", "commit_resolved_utc")}
    return dataclasses.replace(source, revision=None, notes={**notes, "commit": "not the hub's, so it is left out"})


def payback(record: records.RunRecord, *, replaces: str, role: str = "student") -> records.Payback | None:
    """After how many uses the energy that built the student is saved again, against the role that it replaces.

    What was paid is every phase of the run but those that made other rows of the table alone. It is counted in joules
    where those of processor and GPU are counted or sampled here, else in CPU-seconds.

    Returns: None where one of the two was not measured in use.
    """
    reference, student = record.inference_of(replaces), record.inference_of(role)
    if reference is None or student is None:
        return None
    names = _building_phases(record, role)
    build_j, build_cpu_s = record.cost_of(names)
    lines = [p for p in record.phases if p.name in names]
    per_use_j = [_per_use(side, "energy_j") for side in (reference, student)]
    in_joules = record.energy_is_counted and build_j is not None and all(per_use_j)
    costs = per_use_j if in_joules else [_per_use(side, "cpu_s") for side in (reference, student)]
    build = build_j if in_joules and build_j is not None else build_cpu_s
    own = sum((p.energy_j or 0.0) if in_joules else p.cpu_s for p in lines)
    if not all(costs):
        return None
    unit: Literal["J", "CPU-s"] = "J" if in_joules else "CPU-s"
    good = _quality_ok(record, replaces, role)
    estimate = metrics.payback(build, costs[0], costs[1], quality_ok=good, unit=unit, replaces=replaces)
    return records.Payback(
        replaces=replaces,
        unit=unit,
        build=build,
        build_without_shared=own,
        saved_per_use=estimate.saved_per_use,
        uses=estimate.uses,
        low=estimate.low,
        high=estimate.high,
        reason=estimate.reason,
    )


def _building_phases(record: records.RunRecord, role: str) -> list[str]:
    """Every phase except those that were paid for other rows of the table alone."""
    results = {result.role: result for result in record.results}
    own = results.get(role)
    needed = {*own.built_by, *own.teacher_phases} if own else set()
    others = {name for key, result in results.items() if key != role for name in result.built_by}
    return [phase.name for phase in record.phases if phase.name not in others - needed]


def _per_use(side: records.Inference, field: str) -> list[float]:
    """Cost of one use in each window; empty if it is unknown in any."""
    windows = [window for window in side.windows if window.num_examples]
    costs = [getattr(window, field) for window in windows]
    if any(cost is None for cost in costs):
        return []
    return [cost / window.num_examples for cost, window in zip(costs, windows, strict=True)]


def _quality_ok(record: records.RunRecord, replaces: str, role: str) -> bool:
    """Whether the student stays within the declared margin of what it replaces; True where none was declared."""
    ours, theirs = record.result(role), record.result(replaces)
    if record.margin is None or ours is None or theirs is None:
        return True
    if record.metric not in ours.metrics or record.metric not in theirs.metrics:
        return True
    return ours.metrics[record.metric].value >= theirs.metrics[record.metric].value - record.margin


def counts_from_json(value: Mapping[str, Any]) -> Counts:
    """The counts that `dataclasses.asdict` wrote; unknown keys of another version are left out."""
    known = {f.name for f in dataclasses.fields(Counts)}
    return Counts(**{key: item for key, item in value.items() if key in known})


def predictions_table(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A pyarrow table of these columns; arrays with several values per row become lists."""
    import pyarrow as pa

    plain = {name: values.tolist() if hasattr(values, "tolist") else list(values) for name, values in columns.items()}
    return pa.table(plain)
