"""What a run has paid for, as the lines of its record: phases with their work, and the point of payback."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from smallmodels import energy, metrics, records
from smallmodels.errors import DamagedError
from smallmodels.phases import Counts


class Account:
    """What a run has paid and what work its phases did, segments before an interruption included.

    Args:
        meter: Measures the present segment.
        journal: The meter's; without one (a child of a process that measures), the meter alone says what was paid.
        past: What the journal said before this segment; None in a new run.
    """

    def __init__(self, meter: energy.Meter, journal: Path, past: energy.JournalTotals | None) -> None:
        self.meter = meter
        self.past = past
        self.counts: dict[str, Counts] = {}
        """Work by phase, of finished phases."""
        self.operations_per_s: float | None = None
        """Matmul rate measured on this device; None leaves utilisation unknown."""
        self.device: str | None = None
        """Where the models run; the rest of the work is the processor's."""
        self._peaks_mb: dict[str, float | None] = {}
        self._journal = journal

    def add(self, phase: str, counts: Counts, peak_mb: float | None) -> None:
        """Note the work of a finished phase and its highest resident memory, None where that is not known."""
        self.counts[phase], self._peaks_mb[phase] = counts, peak_mb

    def so_far(self, *, fresh: bool = False) -> energy.EnergyReading:
        """What the whole run has paid; `fresh=True` reads the meter anew."""
        now = self.meter.read(fresh=fresh)
        return self.past.total + now if self.past else now

    def of_phase(self, name: str) -> Callable[..., energy.EnergyReading]:
        """What tells, while a phase runs that begins now, what it has cost; `fresh=True` reads the meter anew."""
        before = self.past.phases.get(name, energy.EnergyReading()) if self.past else energy.EnergyReading()
        since = self.meter.read(fresh=True)

        def so_far(*, fresh: bool = False) -> energy.EnergyReading:
            return before + (self.meter.read(fresh=fresh) - since)

        return so_far

    def totals(self) -> energy.JournalTotals:
        """What the run has cost, by phase."""
        if self._journal.exists():
            return energy.read_journal(self._journal)
        truncated = self.past is not None and self.past.truncated
        return energy.JournalTotals(self.meter.read(), self.meter.phases, 1, truncated, self.meter.contended, [])

    def loss(self, kept: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
        """What the journal of a resumed run has lost, as one sentence and as numbers; None if nothing new.

        Args:
            kept: Phases that need not run again, each of which the journal should have a reading of.
        """
        past = self.past
        if past is None:
            return None
        phases = [name for name in kept if name not in past.phases]
        details = {"num_lines": past.num_lost, "phases": phases}
        if past.num_segments and not (past.num_lost or phases):
            return None
        if any(_tells(event, details) for event in past.events):
            return None
        what = "the energy journal of the run so far is missing"
        if past.num_segments:
            what = "the energy journal lacks lines that were written"
        if phases:
            return f"{what}, with all readings of {', '.join(phases)}, so the bill is too low", details
        doubt = "may be too low or charge the wrong phase" if past.num_segments else "is too low"
        return f"{what}, so the bill {doubt}", details

    def phase_lines(self, totals: energy.JournalTotals) -> list[records.Phase]:
        """One record per phase, in the journal's order; a phase without counts gets None everywhere."""
        return [self._phase_line(name, reading) for name, reading in totals.phases.items()]

    def finished_phase(self, name: str, reading: energy.EnergyReading) -> records.Phase:
        """The record of a phase that has just finished.

        Args:
            name: Of the phase, whose work has been added.
            reading: What it cost in this segment; what it cost before an interruption is added.
        """
        before = self.past.phases.get(name) if self.past else None
        return self._phase_line(name, before + reading if before else reading)

    def _phase_line(self, name: str, reading: energy.EnergyReading) -> records.Phase:
        work = self.counts.get(name, Counts())
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
            num_operations=work.num_operations,
            utilisation=_ratio(_ratio(work.num_operations, reading.duration_s), self.operations_per_s),
            peak_memory_mb=self._peaks_mb.get(name),
            shared_energy_j=work.shared_energy_j,
            shared_cpu_s=work.shared_cpu_s,
            device=self.device if work.num_operations is not None else "cpu",
            tokens_per_s=_ratio(work.num_tokens, reading.duration_s),
            real_token_fraction=_ratio(work.num_tokens, work.num_processed_tokens),
        )

    def cost_ratio(self, phases: Sequence[str], to: Sequence[str]) -> float:
        """What some finished phases cost over what others did, shares of caches included.

        In joules where processor or GPU count them here and all are known, else in CPU-seconds.

        Raises: DamagedError if the journal has lost what one of them cost.
        """
        (joules, cpu_s), (other_joules, other_cpu_s) = self._costs_of(phases, to)
        if records.is_counted(self.meter.labels) and joules is not None and other_joules:
            return joules / other_joules
        return cpu_s / max(other_cpu_s, 1e-9)

    def share_of_cost(self, phases: Sequence[str]) -> Callable[[energy.EnergyReading], float]:
        """What tells which share a reading is of what some finished phases cost, as `cost_ratio` counts it.

        Raises: DamagedError if the journal has lost what one of them cost.
        """
        ((joules, cpu_s),) = self._costs_of(phases)
        counted_j = joules if records.is_counted(self.meter.labels) else None

        def share(reading: energy.EnergyReading) -> float:
            if counted_j and reading.energy_j is not None:
                return reading.energy_j / counted_j
            return reading.cpu_s / max(cpu_s, 1e-9)

        return share

    def _costs_of(self, *sides: Sequence[str]) -> list[tuple[float | None, float]]:
        """Joules and CPU-seconds of some finished phases, and of others, shares of caches included."""
        lines = self.phase_lines(self.totals())
        if lost := [name for side in sides for name in side if name not in {line.name for line in lines}]:
            raise DamagedError(
                f"the energy journal should have readings of {', '.join(dict.fromkeys(lost))}, which it has lost, so "
                "equal cost cannot be worked out: start a new run with --fork"
            )
        return [records.cost_of(lines, side) for side in sides]


def _ratio(part: float | None, whole: float | None) -> float | None:
    """None where one of them is unknown, or there is nothing to relate."""
    return part / whole if part and whole else None


def _tells(event: records.Event, loss: dict[str, Any]) -> bool:
    """Whether an event of before tells of all that was lost."""
    told = event.details
    is_same = event.kind == energy.LOSS and told.get("num_lines") == loss["num_lines"]
    return is_same and set(loss["phases"]) <= set(told.get("phases", []))


_MEASURING = "inference"
"""Phase of the recipes that measures uses."""


def payback(record: records.RunRecord, *, replaces: str, role: str = "student") -> records.Payback | None:
    """After how many uses the energy that built the student is saved again, against the role that it replaces.

    What was paid is every phase of the run but those that made other rows of the table alone, and that in which it was
    measured what uses cost: the full protocol would double what a small student costs. It is counted in joules
    where those of processor and GPU are counted or sampled here, else in CPU-seconds.

    Returns: None where one of the two was not measured in use.
    """
    reference, student = record.inference_of(replaces), record.inference_of(role)
    if reference is None or student is None:
        return None
    names = _building_phases(record, role)
    build_j, build_cpu_s = record.cost_of(names)
    lines = [p for p in record.phases if p.name in names]
    per_use_j = [records.costs_per_use(side.windows, "energy_j") for side in (reference, student)]
    in_joules = record.energy_is_counted and build_j is not None and all(per_use_j)
    costs = per_use_j if in_joules else [records.costs_per_use(side.windows, "cpu_s") for side in (reference, student)]
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
    """Every phase except those that were paid for other rows alone, and the measuring of uses, which builds nothing."""
    results = {result.role: result for result in record.results}
    own = results.get(role)
    needed = {*own.built_by, *own.teacher_phases} if own else set()
    others = {name for key, result in results.items() if key != role for name in result.built_by}
    return [phase.name for phase in record.phases if phase.name not in {*(others - needed), _MEASURING}]


def _quality_ok(record: records.RunRecord, replaces: str, role: str) -> bool:
    """Whether the student stays within the declared margin of what it replaces; True where none was declared."""
    ours, theirs = record.result(role), record.result(replaces)
    if record.margin is None or ours is None or theirs is None:
        return True
    if record.metric not in ours.metrics or record.metric not in theirs.metrics:
        return True
    quality, replaced = (records.goodness(record.metric, r.metrics[record.metric].value) for r in (ours, theirs))
    return quality >= replaced - record.margin
