"""Which runs may be compared, and the systems among them: one role of one config over its seeds.

Runs are compared within a group: same task, metric, test rows, machine fingerprint, threads, device and label of
joules. Within it a system is one role of one recipe with one config in one number format, and its runs differ in their
seed; it is ranked from three on.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smallmodels.records import Inference, Metric, Phase, RunRecord, Source, cost_of, goodness
from smallmodels.report import formats, single, words
from smallmodels.report.kinds import kinds_of
from smallmodels.report.words import Unit

if TYPE_CHECKING:
    from smallmodels.metrics import Spread

MIN_SEEDS = 3

EQUAL_COST_CONTROL = "label_only"
CONTROLS = (EQUAL_COST_CONTROL, "label_only_full_cost")
"""Roles with the student's shape that learn from labels alone at equal cost."""

SEEDS_TO_HELP = 2 / 3
"""Share of the seeds in which a student has to beat its control at equal cost; else distillation did not help."""

_OWN_ROLES = frozenset({"student", *CONTROLS})
"""Roles that each config has for itself, even where two configs give the same numbers."""


_SAME_BILL = 0.05
"""Relative difference that the phase of a run that made an entry of the cache and what others owe for it may have."""

_OPENING: Mapping[Unit, float] = {"CPU-s": 1.0, "J": 50.0}
"""What that phase may cost more than the entry, however small that is: opening and reading took a quarter of a second
and more in `benchmarks/results/cpu_small`."""

_ROUNDING = 1e-4
"""Relative difference that one model may show when it is evaluated again, in other batches."""


@dataclass(frozen=True)
class System:
    """One role of the runs that share a recipe and a config but for the seed."""

    label: str
    role: str
    records: Sequence[RunRecord]

    @functools.cached_property
    def costed(self) -> list[RunRecord]:
        """The runs whose costs count: those that had the machine for themselves, where these have seeds enough."""
        alone = [r for r in self.records if not r.contended]
        return alone if len({seed_of(r) for r in alone}) >= MIN_SEEDS else [*self.records]

    @functools.cached_property
    def run_ids(self) -> frozenset[str]:
        """Of its runs."""
        return frozenset(r.run_id for r in self.records)

    def shares_runs(self, other: "System") -> bool:
        """Whether a run has both."""
        return not self.run_ids.isdisjoint(other.run_ids)

    @functools.cached_property
    def values(self) -> Mapping[str, float] | None:
        """The metric for each seed, repeats of a seed averaged; None where a run lacks it or it is not finite."""
        return _by_seed(self.records, lambda r: words.metric_value(r.result(self.role), r.metric))

    def quality(self) -> "Spread | None":
        """The metric over seeds; None where a run lacks it."""
        return _spread(self.values)

    @functools.cached_property
    def quality_of_items(self) -> Metric | None:
        """The metric with its interval over test items alone, averaged over the runs; None where a run has none."""
        found = [result.metrics.get(r.metric) if (result := r.result(self.role)) else None for r in self.records]
        known = [m for m in found if m is not None and None not in (m.value, m.low, m.high)]
        if not known or len(known) < len(found):
            return None
        value, low, high = (
            sum(ends) / len(ends) for ends in zip(*[(m.value, m.low, m.high) for m in known], strict=True)
        )
        return Metric(value=value, low=low, high=high, n=min(m.n for m in known))

    def use(self, unit: Unit) -> "Spread | None":
        """Cost of 1,000 uses over the measurements that differ; where runs have one together, over its windows."""
        return self._uses[unit]

    @functools.cached_property
    def _uses(self) -> Mapping[Unit, "Spread | None"]:
        return {unit: self._use(unit) for unit in ("J", "CPU-s")}

    def _use(self, unit: Unit) -> "Spread | None":
        firsts = [runs[0] for runs in by_measurement(self.costed, self.role)]
        found = _costs(_by_seed(firsts, lambda r: words.use_cost(r.inference_of(self.role), unit)))
        shared = firsts[0].inference_of(self.role) if len(firsts) == 1 < len(self.costed) else None
        over_windows = _spread_over_windows(shared, unit)
        if found is None or over_windows is None or over_windows.low is None or over_windows.high is None:
            return found
        half = (over_windows.high - over_windows.low) / 2
        return dataclasses.replace(found, sd=over_windows.sd, low=max(found.value - half, 0.0), high=found.value + half)

    def build(self, unit: Unit, *, teacher: bool = True, caches: bool = True) -> "Spread | None":
        """Cost of building it.

        Args:
            unit: Of the cost.
            teacher: Whether the making of its teacher is counted.
            caches: Whether what earlier runs paid for caches is counted.
        """
        key = (unit, teacher, caches)
        if key not in self._builds:
            runs = [paid[0] for paid in self._by_bill(unit)] if caches and teacher else self.costed
            costs = _by_seed(runs, lambda r: build_cost(r, self.role, unit, teacher=teacher, caches=caches))
            self._builds[key] = _costs(costs)
        return self._builds[key]

    @functools.cached_property
    def _builds(self) -> dict[tuple[Unit, bool, bool], "Spread | None"]:
        """What was worked out of the cost of building it."""
        return {}

    def _by_bill(self, unit: Unit) -> list[list[RunRecord]]:
        """The runs by who paid for it: those that have all of it from one entry of the cache have one bill.

        Of the runs that paid for themselves, one that paid what others owe is taken for the one that made the entry.
        """
        readers: dict[str, list[RunRecord]] = {}
        payers = []
        for record in self.costed:
            owed = [debt(phase, unit) for phase in self._phases(record)]
            if owed and all(owed):
                readers.setdefault(f"{sum(owed):.4g}", []).append(record)
            else:
                payers.append(record)
        alone = []
        unpaid = {key: float(key) for key in readers}
        for record in payers:
            paid = build_cost(record, self.role, unit)
            near = [key for key, owed in unpaid.items() if paid is not None and is_one_bill(owed, paid, unit)]
            if paid is None or not near:
                alone.append([record])
            else:
                entry = min(near, key=lambda key: abs(unpaid[key] - paid))
                readers[entry].append(record)
                del unpaid[entry]
        return [*readers.values(), *alone]

    def _phases(self, record: RunRecord) -> list[Phase]:
        """Of a run, those that made it and its teacher."""
        result = record.result(self.role)
        names = {*result.teacher_phases, *result.built_by} if result else set()
        return [phase for phase in record.phases if phase.name in names]

    def owes_to_shared_machine(self, group: Sequence[RunRecord], unit: Unit) -> bool:
        """Whether a part of its cost is a debt for what a run of the group made while others used the machine."""
        made = [(p.name, phase_cost(p, unit)) for r in group if r.contended for p in r.phases if not debt(p, unit)]
        owed = [(p.name, debt(p, unit)) for r in self.costed for p in self._phases(r) if debt(p, unit)]
        return any(name == other and is_one_bill(cost, bill, unit) for name, cost in set(owed) for other, bill in made)

    def on_validation(self) -> float | None:
        """Mean over the runs of the best validation of the student that they train; None where one has none."""
        found = [max((point.value for point in r.curve), default=None) for r in self.records]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known and len(known) == len(found) else None

    @property
    def is_ranked_by_use(self) -> bool:
        """Whether all runs measured its use by the full protocol, by which alone uses are ranked."""
        return {i.protocol for r in self.costed for i in [r.inference_of(self.role)] if i is not None} == {"full"}

    def seeds(self) -> int:
        """How many different seeds the runs have."""
        return len({seed_of(r) for r in self.records})

    def use_labels(self) -> set[str]:
        """How the joules of a use were obtained."""
        return {i.label for r in self.costed for i in [r.inference_of(self.role)] if i is not None}

    def not_comparable(self, *, use: bool) -> str:
        """Why it cannot be ranked, or an empty string.

        Args:
            use: Whether the cost is that of a use, which only the full protocol measures well enough to rank.
        """
        if why := next((w for w in map(single.not_comparable, self.costed) if w), ""):
            return why
        if self.values is None:
            return "not comparable: quality missing"
        if self.seeds() < MIN_SEEDS:
            return f"not comparable: {self.seeds()} seed{'s' * (self.seeds() > 1)}, {MIN_SEEDS} needed"
        return "not comparable: indicative protocol" if use and not self.is_ranked_by_use else ""


def seeds_won(student: System, control: System) -> tuple[int, int]:
    """In how many seeds a student beats its control, and how many both have."""
    metric, ours, theirs = student.records[0].metric, student.values or {}, control.values or {}
    both = [(goodness(metric, ours[seed]), goodness(metric, theirs[seed])) for seed in ours if seed in theirs]
    return sum(mine > other for mine, other in both), len(both)


def did_not_help(student: System, control: System) -> str:
    """A sentence where a student beats its control at equal cost in too few of three seeds or more; else nothing."""
    won, seeds = seeds_won(student, control)
    if seeds < MIN_SEEDS or won >= SEEDS_TO_HELP * seeds:
        return ""
    return (
        f"{student.label}: distillation did not help here; it beats the same student on labels alone "
        f"{at_what_cost(student, control)} in {won} of {seeds} seeds."
    )


EQUAL_COST = 0.03
"""By how much costs may differ, as a share, and still be called equal."""


def at_what_cost(student: System, control: System) -> str:
    """`at equal cost`, or `at 0.92 times its cost` where what a control took is not within 3 % of what it should."""
    share = cost_share(student, control, words.ranking_unit(student.records[0]))
    if share is None:
        return "at a cost that is not known"
    if abs(share.value - 1) <= EQUAL_COST:
        return "at equal cost"
    return f"at {formats.number(share.value)} times its cost"


def cost_share(student: System, control: System, unit: Unit) -> "Spread | None":
    """What a control cost over what the student did, over the runs that have both; None where one is unknown."""
    from smallmodels import metrics

    shares = []
    for record in control.records:
        result, own = record.result(student.role), record.result(control.role)
        if result is None or own is None:
            continue
        names = [*result.built_by, *(result.teacher_phases if control.role == "label_only_full_cost" else ())]
        theirs, ours = phases_cost(record, names, unit), phases_cost(record, own.built_by, unit)
        if not theirs or ours is None:
            return None
        shares.append(ours / theirs)
    return metrics.spread(shares) if shares else None


def _by_seed(runs: Sequence[RunRecord], value: Callable[[RunRecord], float | None]) -> dict[str, float] | None:
    """A value for each seed, repeats of a seed averaged; None where a run lacks it or it is not finite."""
    found: dict[str, list[float]] = {}
    for record in runs:
        each = value(record)
        if each is None or not math.isfinite(each):
            return None
        found.setdefault(seed_of(record), []).append(each)
    return {seed: sum(each) / len(each) for seed, each in found.items()}


def _spread(values: Mapping[str, float] | None) -> "Spread | None":
    from smallmodels import metrics

    return metrics.spread([*values.values()]) if values else None


def _costs(values: Mapping[str, float] | None) -> "Spread | None":
    """Of costs, whose interval does not reach below nothing, as that of two values would."""
    found = _spread(values)
    if found is None or found.low is None:
        return found
    return dataclasses.replace(found, low=max(found.low, 0.0))


def _spread_over_windows(use: Inference | None, unit: Unit) -> "Spread | None":
    """Cost of 1,000 uses in each window."""
    if use is None:
        return None
    paid = [(w.energy_j if unit == "J" else w.cpu_s, w.num_examples) for w in use.windows]
    known = [1000 * cost / count for cost, count in paid if cost is not None and math.isfinite(cost) and count]
    return _spread({str(i): cost for i, cost in enumerate(known)} if len(known) == len(paid) else None)


def by_measurement(runs: Sequence[RunRecord], role: str) -> list[list[RunRecord]]:
    """The runs by their measurement of what a use of a role costs: those of a list share one, which counts once.

    A run without such a measurement is alone in its list.
    """
    found: dict[str, list[RunRecord]] = {}
    for record in runs:
        use = record.inference_of(role)
        origin = use.measured_in if use is not None else None
        found.setdefault(origin or record.run_id, []).append(record)
    return [*found.values()]


def seed_of(record: RunRecord) -> str:
    """The seed of a run as a key."""
    return json.dumps(record.config.get("seed"))


def build_cost(record: RunRecord, role: str, unit: Unit, *, teacher: bool = True, caches: bool = True) -> float | None:
    """What a run paid for a role; see `System.build`."""
    result = record.result(role)
    if result is None:
        return None
    names = [*(result.teacher_phases if teacher else ()), *result.built_by]
    return phases_cost(record, names, unit, caches=caches)


def is_one_bill(owed: float, paid: float, unit: Unit) -> bool:
    """Whether what a run paid in a phase may be what made the entry of the cache that others owe so much for."""
    return -_SAME_BILL * owed <= paid - owed <= _SAME_BILL * owed + _OPENING[unit]


def debt(phase: Phase, unit: Unit) -> float:
    """What a phase owes to those who filled the cache that it read."""
    return (phase.shared_energy_j if unit == "J" else phase.shared_cpu_s) or 0.0


def phase_cost(phase: Phase, unit: Unit) -> float:
    """What a phase cost the run itself; 0 where that is not known."""
    return (phase.energy_j if unit == "J" else phase.cpu_s) or 0.0


def phases_cost(record: RunRecord, names: Sequence[str], unit: Unit, *, caches: bool = True) -> float | None:
    """What these phases cost; None where a part is unknown."""
    joules, cpu_s = cost_of(record.phases, names, caches=caches)
    cost = joules if unit == "J" else cpu_s
    return cost if cost is not None and math.isfinite(cost) else None


# --- groups and their systems -----------------------------------------------------------------------------------------


def identity(record: RunRecord) -> dict[str, str]:
    """What must be equal for two runs to be compared, in words that can be shown."""
    data = [[s.name, _test_rows(s), s.splits.get("test")] for s in record.sources if s.kind == "dataset"]
    rows = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    return {
        "task": record.task,
        "metric": formats.metric_name(record.metric),
        "test rows": rows,
        "machine": f"{record.environment.processor} ({record.environment.fingerprint[:12]})",
        "threads": str(record.environment.num_threads),
        "device": str(record.model.get("device", "not recorded")),
        "joules are": record.energy_label,
        "ranked cost": words.ranking_unit(record),
    }


def _test_rows(source: Source) -> Any:
    """What tells the test rows of a data set from others; all of its rows where those of test have no hash."""
    of_splits = source.notes.get("split_fingerprints")
    of_test = of_splits.get("test") if isinstance(of_splits, Mapping) else None
    return of_test or source.fingerprint or source.sha256


def groups_of(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs that may be compared, in the order in which they came."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(json.dumps(identity(record)), []).append(record)
    return list(groups.values())


def systems_of(group: Sequence[RunRecord]) -> list[System]:
    """Every role of every config in the group; what all configs share, such as the teacher, is one system."""
    found: list[System] = []
    for kind in kinds_of(group):
        said = f" ({kind.difference})" if kind.difference else ""
        for role in dict.fromkeys(r.role for record in kind.records for r in words.test_results(record)):
            having = [r for r in kind.records if r.result(role) is not None]
            found.append(System(words.role_name(role) + said, role, having))
    return _merged(found)


def _merged(systems: Sequence[System]) -> list[System]:
    """Systems of several configs that are one model: no config changed what it gives for any seed."""
    of_role: dict[str, list[System]] = {}
    for system in systems:
        of_role.setdefault(system.role, []).append(system)
    shared = {r for r, same in of_role.items() if r not in _OWN_ROLES and len(same) > 1 and _is_one_model(same)}
    merged: list[System] = []
    for system in systems:
        if system.role not in shared:
            merged.append(system)
        elif system is of_role[system.role][0]:
            together = [record for s in of_role[system.role] for record in s.records]
            merged.append(System(words.role_name(system.role), system.role, together))
    return merged


def _is_one_model(systems: Sequence[System]) -> bool:
    values: dict[str, list[float | None]] = {}
    for system in systems:
        for record in system.records:
            value = words.metric_value(record.result(system.role), record.metric)
            values.setdefault(seed_of(record), []).append(value)
    known = [[v for v in found if v is not None] for found in values.values()]
    if [len(found) for found in known] != [len(found) for found in values.values()]:
        return False
    return all(max(found) - min(found) <= _ROUNDING * abs(max(found)) for found in known)


def replaced_by(system: System, systems: Sequence[System]) -> System | None:
    """What this system is to replace, in the same runs: what their payback names, else the teacher."""
    first = system.records[0]
    role = first.payback.replaces if first.payback else "teacher"
    fitting = (s for s in systems if s.role == role and s is not system and system.shares_runs(s))
    return next(fitting, None)


def margin_of(group: Sequence[RunRecord]) -> float | None:
    """The largest margin that the runs declare; None where one declares none."""
    known = [r.margin for r in group if r.margin is not None]
    return max(known) if known and len(known) == len(group) else None
