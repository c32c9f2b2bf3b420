"""What a run would take: a trial of its recipe, and the forecast of minutes, energy, memory and disk that follows.

The recipe itself runs, with its settings and on all of its data, in a temporary folder; long loops do a part of their
work and tell what the others would take (see `trials`). What the cache holds is read there, so that it costs nothing,
and nothing is written to it.
"""

import contextlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from smallmodels import energy, entries, files, memory, records, sources, trials
from smallmodels.errors import InputError
from smallmodels.phases import Context, Counts, takes_context
from smallmodels.runs import Run
from smallmodels.trials import Cost, Trial

T = TypeVar("T")

Z = 1.645
"""Standard deviations on both sides of a value in a range that should hold nine values of ten."""
# What a trial cannot see, as relative standard deviations; benchmarks/predictions.py holds forecasts to what they say.
DONE_DEVIATION = 0.1
"""Of the part that was done: doing it again."""
LEFT_DEVIATION = 0.12
"""Of the part that was left out: a machine does not keep its pace for minutes."""
POWER_DEVIATION = 0.1
"""Of watts."""
_MEMORY_LOW, _MEMORY_USUAL, _MEMORY_HIGH = 0.85, 1.15, 1.6
"""Peak of a run over that of its trial: allocators keep more the longer they work; small runs had 0.95 to 1.35."""


@dataclass(frozen=True)
class Range:
    """A number that is not known yet, and the interval that should hold it nine times of ten."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PhaseForecast:
    """What a phase would take."""

    name: str
    duration_s: float
    cpu_s: float
    energy_j: float | None
    """None where this machine does not say."""
    tried_s: float
    """Of these seconds, what the trial did."""
    from_cache: bool
    """Whether an earlier run has paid for some of it."""


@dataclass(frozen=True)
class EntryForecast:
    """What a run would add to the cache, so that a later run that needs the same finds it there."""

    name: str
    """Equal for what two runs would share."""
    duration_s: float
    """Of the run's time, as are the joules of its joules."""
    energy_j: float | None
    size_bytes: int


@dataclass(frozen=True)
class SourceFound:
    """A model or data set that the run would read."""

    role: str
    kind: str
    name: str
    revision: str | None
    license: str | None
    size_bytes: int | None
    splits: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would take, and what it would take it from."""

    recipe: str
    config: Any
    """As JSON values."""
    sources: Sequence[SourceFound]
    phases: Sequence[PhaseForecast]
    duration_s: Range
    cpu_s: Range
    energy_j: Range | None
    """None where this machine does not say."""
    energy_label: str
    peak_memory_mb: Range | None
    """Resident, of the processor's memory; None where the system does not say."""
    memory_mb: int
    """Of the machine."""
    run_bytes: int
    """Of the run folder when it is complete."""
    peak_bytes: int
    """Of the run folder while it works, with its checkpoints."""
    cache_bytes: int
    """Of what it adds to the cache."""
    entries: Sequence[EntryForecast]
    """What that is, and what of the run's cost goes into it."""
    free_bytes: int
    """On the disk of the run folder."""
    notes: Sequence[str]
    """Everything unusual that the trial came across."""
    fingerprint: str
    """Of the machine, as records have it."""
    trial_duration_s: float
    trial_energy_j: float | None

    def to_json(self) -> Any:
        """As JSON values."""
        return records.to_json(self)


class _TrialRun(Run):
    """A run in part. It leaves a record whose numbers mean nothing, but for what it did."""

    def __init__(self, folder: Path, trial: Trial, tell: Callable[[str], None], **options: Any) -> None:
        super().__init__(folder, quiet=True, **options)
        self.left: dict[str, Cost] = {}
        """What was left out, by phase."""
        self.shared: dict[str, Counts] = {}
        self.built: dict[str, list[trials.Built]] = {}
        """Entries of the cache, by phase."""
        self.sizes: dict[str, int | None] = {}
        """Bytes on disk, by the name of a source."""
        self.peak_bytes = 0
        self._trial, self._tell = trial, tell
        self._matched: Sequence[str] = ()
        self._pinned: list[tuple[str, sources.Kind]] = []

    def pin(self, *names: tuple[str, sources.Kind]) -> list[str]:
        """As of any run; what the names stand for is measured at the end, when it is there."""
        found = super().pin(*names)
        self._pinned += zip(found, (kind for _, kind in names), strict=True)
        return found

    def phase(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A phase in part."""

        def in_part(*args: Any, context: Context, **kwargs: Any) -> T:
            self.shared[name] = context.counts
            options = {"context": context} if takes_context(function) else {}
            return function(*args, **kwargs, **options)

        self._tell(name)
        self._trial.take()
        num_built = len(self._trial.built)
        value = super().phase(name, in_part, *args, **kwargs)
        self.left[name] = self._trial.take()
        if self._matched:
            self.left[name] += self._left_to_match(name, self._matched)
            self._matched = ()
        self.built[name] = self._trial.built[num_built:]
        synchronize = getattr(value, "synchronize", None)
        if callable(synchronize):
            self._trial.synchronize = synchronize
        return value

    def spent(self) -> energy.EnergyReading:
        """What the run would have paid by now."""
        return sum(map(self.paid_for, self.meter.phases), energy.EnergyReading())

    def paid_for(self, phase: str) -> energy.EnergyReading:
        """What a phase would have cost."""
        told = self._foretold(phase)
        known = records.Component(energy_j=told.energy_j, label="unknown") if told.energy_j is not None else None
        return energy.EnergyReading(told.duration_s, told.cpu_s, {"machine": known} if known else {})

    def cost_ratio(self, phases: Sequence[str], to: Sequence[str]) -> float:
        """What phases would cost over what others would."""
        costs, other_costs = (sum(map(self._cost_with_share, names)) for names in (phases, to))
        return costs / max(other_costs, 1e-9)

    def share_of_cost(self, phases: Sequence[str]) -> Callable[[energy.EnergyReading], float]:
        """As of any run, which asks in the phase that may cost so much; so that one is foretold to cost that."""
        self._matched = phases
        return lambda reading: 0.0  # a trial fits no number of steps

    def _left_to_match(self, name: str, phases: Sequence[str]) -> Cost:
        """By how much a phase takes more than its planned steps, or less: it goes on until it costs what others do."""
        told = self._foretold(name)
        more = sum(map(self._cost_with_share, phases)) / max(self._cost(told), 1e-9) - 1
        return Cost(told.duration_s, told.cpu_s) * more

    def _cost_with_share(self, name: str) -> float:
        """Of a phase, what it owes to the cache included."""
        counts = self.shared[name]
        owed = counts.shared_energy_j if self._is_in_joules else counts.shared_cpu_s
        return self._cost(self._foretold(name)) + (owed or 0.0)

    def _foretold(self, name: str) -> PhaseForecast:
        """Of a phase that the trial has been through, as far as the others tell by now."""
        return self.foretell(name, self.meter.phases[name], self.watts)

    def _cost(self, told: PhaseForecast) -> float:
        return (told.energy_j or 0.0) if self._is_in_joules else told.cpu_s

    @property
    def _is_in_joules(self) -> bool:
        return records.is_counted(self.meter.labels)

    def foretell(self, name: str, done: energy.EnergyReading, watts: float | None) -> PhaseForecast:
        """What a phase would take, given what its trial did."""
        left = self.left.get(name, Cost())
        joules = done.energy_j
        if joules is not None and left.duration_s:
            joules = None if watts is None else joules + watts * left.duration_s
        return PhaseForecast(
            name=name,
            duration_s=done.duration_s + left.duration_s,
            cpu_s=done.cpu_s + left.cpu_s,
            energy_j=joules,
            tried_s=done.duration_s,
            from_cache=bool(name in self.shared and self.shared[name].shared_cpu_s),
        )

    @property
    def watts(self) -> float | None:
        """While a part of some work was done, the rest of which was left out; None where joules are not known."""
        working = [reading for name, reading in self.meter.phases.items() if self.left.get(name, Cost()).duration_s]
        total = sum(working, energy.EnergyReading())
        return None if total.energy_j is None or not total.duration_s else total.energy_j / total.duration_s

    def finish(self, *args: Any, **kwargs: Any) -> records.RunRecord:
        """As of any run; sees before how large the folder is while it still has its checkpoints."""
        self.peak_bytes = files.num_bytes(self.folder) + self._trial.late_bytes
        record = super().finish(*args, **kwargs)
        self.peak_bytes = max(self.peak_bytes, files.num_bytes(self.folder))
        for name, kind in self._pinned:
            shown = Path(name).name if Path(name).exists() else name.partition("@")[0]  # as sources have it
            self.sizes[shown] = sources.size_on_disk(name, kind)
        return record


def check(
    main: Callable[[Any, Run], None],
    config: Any,
    *,
    out: Path,
    tell: Callable[[str], None] = lambda name: None,
    loop_s: float = trials.LOOP_S,
    **options: Any,
) -> Forecast:
    """Do all of a run that comes before its training, try its phases in part, and foretell what they would take.

    Args:
        main: Of a recipe: begins the run and goes through it.
        config: Of the recipe.
        out: Where the run folder would be made; looked at for its free space only.
        tell: Called with the name of each phase when it begins.
        loop_s: Seconds that each long loop may take.
        options: Of `Run`.

    Raises: Whatever the run would raise; InputError if its files would not fit on the disk.
    """
    with tempfile.TemporaryDirectory(prefix="smallmodels-check-") as folder:
        trial = Trial(Path(folder) / "cache", loop_s=loop_s)
        run = _TrialRun(Path(folder) / "run", trial, tell, **options)
        with trial.open(), run:
            main(config, run)
        if run.record is None:
            raise InputError("the recipe should end with run.finish(…), but did not: add the call")
        forecast = _forecast(run, trial, run.record, out)
    entries.require_space(forecast.peak_bytes, "the run", out)
    entries.require_space(forecast.cache_bytes, "what the run adds to the cache", entries.cache_folder())
    memory.give_back()
    return forecast


class _NamesKnownError(Exception):
    """All that was asked is known: a run ends here."""


class _NamesRun(Run):
    """Resolves names and checks licences, and does nothing else."""

    def __init__(self, folder: Path, known: set[tuple[str, sources.Kind]], **options: Any) -> None:
        super().__init__(folder, meter="none", quiet=True, **options)
        self._known = known

    def pin(self, *names: tuple[str, sources.Kind]) -> list[str]:
        """As of any run, unless these names were looked at before."""
        if not set(names) <= self._known:
            super().pin(*names)
            self._known |= set(names)
        raise _NamesKnownError

    def phase(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """The run has no names, or has them resolved by now."""
        raise _NamesKnownError


def require_names(
    main: Callable[[Any, Run], None], config: Any, known: set[tuple[str, sources.Kind]], **options: Any
) -> None:
    """Refuse a run whose models or data sets do not exist, cannot be had, or may not be used. Nothing is fetched.

    Args:
        main: Of a recipe.
        config: Of the recipe.
        known: Names that were looked at before; those of this run are added.
        options: Of `Run`.

    Raises: InputError or PolicyError, as the run would.
    """
    with (
        tempfile.TemporaryDirectory(prefix="smallmodels-check-") as folder,
        contextlib.suppress(_NamesKnownError),
        _NamesRun(Path(folder) / "run", known, **options) as run,
    ):
        main(config, run)


def _forecast(run: _TrialRun, trial: Trial, record: records.RunRecord, out: Path) -> Forecast:
    watts = run.watts
    done = {
        phase.name: energy.EnergyReading(phase.duration_s, phase.cpu_s, phase.components) for phase in record.phases
    }
    phases = [run.foretell(name, reading, watts) for name, reading in done.items()]
    left = sum(run.left.values(), Cost())
    relative = _deviation(record.duration_s, left) / max(record.duration_s + left.duration_s, 1e-9)
    energy_j = records.whole_sum(phase.energy_j for phase in phases)
    peaks = [phase.peak_memory_mb for phase in record.phases if phase.peak_memory_mb is not None]
    return Forecast(
        recipe=record.recipe,
        config=record.config,
        sources=[_found(source, run.sizes.get(source.name)) for source in record.sources],
        phases=phases,
        duration_s=_range(record.duration_s + left.duration_s, relative),
        cpu_s=_range(record.cpu_s + left.cpu_s, relative),
        energy_j=None if energy_j is None else _range(energy_j, math.hypot(relative, POWER_DEVIATION)),
        energy_label=record.energy_label,
        peak_memory_mb=_memory(max(peaks)) if peaks else None,
        memory_mb=record.environment.memory_mb,
        run_bytes=files.num_bytes(run.folder),
        peak_bytes=run.peak_bytes,
        cache_bytes=trial.written_bytes + trial.cache_bytes,
        entries=[entry for phase in phases for entry in _entries(phase, run.built.get(phase.name, ()))],
        free_bytes=entries.free_bytes(out),
        notes=list(dict.fromkeys(event.message for event in record.events if event.kind != "energy")),
        fingerprint=record.environment.fingerprint,
        trial_duration_s=record.duration_s,
        trial_energy_j=record.energy_j,
    )


def _entries(phase: PhaseForecast, built: Sequence[trials.Built]) -> list[EntryForecast]:
    """What a phase would add to the cache; its joules go with its time."""
    found = []
    for one in built:
        duration_s = min(one.cost.duration_s, phase.duration_s)
        energy_j = None if phase.energy_j is None else phase.energy_j * duration_s / max(phase.duration_s, 1e-9)
        found.append(EntryForecast(one.name, duration_s, energy_j, one.num_bytes))
    return found


def _deviation(done_s: float, left: Cost) -> float:
    """Standard deviation of the duration of all work, in seconds; the machine is slow or fast in both parts alike."""
    of_the_machine = DONE_DEVIATION * done_s + LEFT_DEVIATION * left.duration_s
    return math.hypot(of_the_machine, left.deviation_s)


def _range(value: float, relative: float) -> Range:
    """Symmetric in the logarithm: a run takes twice as long as often as half."""
    factor = math.exp(Z * relative)
    return Range(value, value / factor, value * factor)


def _memory(peak_mb: float) -> Range:
    """Of a run, given the peak of its trial."""
    return Range(_MEMORY_USUAL * peak_mb, _MEMORY_LOW * peak_mb, _MEMORY_HIGH * peak_mb)


def _found(source: records.Source, size_bytes: int | None) -> SourceFound:
    return SourceFound(
        source.role, source.kind, source.name, source.revision, source.license, size_bytes, dict(source.splits)
    )
