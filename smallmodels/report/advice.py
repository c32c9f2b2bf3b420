"""Should you distil at all? One sentence from the numbers of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from smallmodels.report import formats, words
from smallmodels.report.comparing import Comparisons, control_pairs, signed, signed_interval
from smallmodels.report.paying import Counted
from smallmodels.report.systems import CONTROLS, MIN_SEEDS, System, replaced_by
from smallmodels.report.words import Unit

_NETWORKS = frozenset({"teacher", "untuned_teacher", "student", "untrained_student", *CONTROLS})
"""Roles that are a network; every other one is a trivial baseline."""


UNDECIDED = "Whether to distil is not decided"
"""How the sentence begins where no margin was declared."""


@dataclass(frozen=True)
class _Case:
    """A student, what it would replace, and all that stands beside them."""

    student: System
    reference: System
    comparisons: Comparisons
    unit: Unit
    margin: float
    instead_of: System | None = None
    """The best student, where another one is good enough too and cheaper to use."""

    def is_within(self, ours: System, theirs: System) -> bool:
        """Whether ours is not worse than theirs by more than the margin: shown from enough seeds, else by value."""
        from smallmodels import metrics

        found = self.comparisons.difference(ours, theirs)
        if found is None:
            return False
        if self.comparisons.why_no_verdict(found):
            return found.value >= -self.margin
        return metrics.is_within(found, margin=self.margin)

    def share(self, system: System) -> float | None:
        """Cost of a use over that of what is replaced."""
        ours, theirs = system.use(self.unit), self.reference.use(self.unit)
        return ours.value / theirs.value if ours and theirs and theirs.value else None

    def share_words(self, system: System) -> str:
        """`at 2.1 % of the processor time of a use`, or nothing where it was not measured."""
        share = self.share(system)
        if share is None:
            return ""
        what = "energy" if self.unit == "J" else "processor time"
        return f" at {formats.number(100 * share, 2)}\u00a0% of the {what} of a use"

    @property
    def margin_words(self) -> str:
        """`the margin (1.0 points)`."""
        return f"the margin ({formats.difference(self.comparisons.metric, self.margin)})"


def sentence(comparisons: Comparisons, counted: Sequence[Counted], unit: Unit) -> str:
    """Whether to distil, of one student of a group; empty where there is no student or nothing that it replaces.

    It is the best one, or the cheapest to use of those that are good enough too and cost less than that beyond chance.

    Args:
        comparisons: Of the group.
        counted: Its paybacks.
        unit: Of the cost that is ranked.
    """
    found = [s for s in comparisons.systems if s.role == "student" and s.quality() is not None]
    students = [s for s in found if not any(r.smoke for r in s.records)]
    pairs = [(s, other) for s in students if (other := replaced_by(s, comparisons.systems)) is not None]
    if not pairs:
        return ""
    student, reference = max(pairs, key=lambda pair: _goodness(comparisons, *pair))
    if comparisons.margin is None:
        return (
            f"{UNDECIDED}: no margin was declared before the runs, so nothing says which loss of "
            f"{formats.metric_name(comparisons.metric)} would be small enough."
        )
    case = _Case(student, reference, comparisons, unit, comparisons.margin)
    others = [_Case(*pair, comparisons, unit, comparisons.margin, instead_of=student) for pair in pairs]
    enough = [each for each in others if _is_cheaper(each) and each.is_within(each.student, each.reference)]
    case = min(enough, key=_use, default=case)
    return _hedge(case.student) + _lower_after(_hedge(case.student), _advice(case, counted))


def _use(case: _Case) -> float:
    found = case.student.use(case.unit)
    return found.value if found is not None else float("inf")


def _is_cheaper(case: _Case) -> bool:
    """Whether a use of the student costs less than one of the best; intervals that overlap tell nothing apart."""
    ours = case.student.use(case.unit)
    theirs = case.instead_of.use(case.unit) if case.instead_of is not None else None
    if ours is None or theirs is None:
        return False
    return (ours.value if ours.high is None else ours.high) < (theirs.value if theirs.low is None else theirs.low)


def _goodness(comparisons: Comparisons, student: System, reference: System) -> float:
    found = comparisons.difference(student, reference)
    return found.value if found is not None else float("-inf")


def _hedge(student: System) -> str:
    count = student.seeds()
    if count >= MIN_SEEDS:
        return ""
    return f"From {count} seed{'s' * (count > 1)}, so a hint and no verdict: "


def _lower_after(before: str, said: str) -> str:
    return said[:1].lower() + said[1:] if before else said


def _advice(case: _Case, counted: Sequence[Counted]) -> str:
    if (plain := _cheapest_baseline(case)) is not None:
        return (
            f"Do not distil: {_the(plain, case)} is within {case.margin_words} of {_the(case.reference, case)}"
            f"{case.share_words(plain)}: ship that."
        )
    if not case.is_within(case.student, case.reference):
        return _not_close(case)
    if (control := _control_within(case)) is not None:
        trained = "without any training" if control.role == "untrained_student" else "trained on labels alone"
        cost = "" if control.role == "untrained_student" else " at equal cost"
        return (
            f"Do not distil: the same student {trained}{cost} is within {case.margin_words} of the distilled one: "
            "ship that."
        )
    good = (
        f"{_the(case.student, case)} is within {case.margin_words} of {_the(case.reference, case)}"
        f"{case.share_words(case.student)}"
    )
    if case.instead_of is not None:
        good += f", and cheaper to use than the best, {_the(case.instead_of, case)}"
    mine = [each for each in counted if each.system is case.student]
    if not mine:
        return f"Distil for size or speed: {good}; when it pays for itself was not measured."
    estimate = mine[0].estimate
    if estimate.uses is None:
        why = formats.clean(estimate.reason, 400).removeprefix("Never: ").rstrip(". ")
        return f"Distil for size or speed only: {good}, but it never pays for itself, because {why}."
    return f"Distil: {good}, and it has paid for itself after {words.rounded_large(estimate.uses)} uses."


def _not_close(case: _Case) -> str:
    from smallmodels import metrics

    found = case.comparisons.difference(case.student, case.reference)
    assert found is not None, "both have the metric"
    metric = case.comparisons.metric
    shown = f"{signed(metric, found.value)}"
    if found.low is not None:
        shown += f", 95\u00a0% interval {signed_interval(metric, found)}"
    is_worse = metrics.verdict(found, margin=case.margin) == "worse" or (
        found.value < -case.margin and found.low is None
    )
    if is_worse:
        return (
            f"Do not distil like this: {_the(case.student, case)} misses {case.margin_words} against "
            f"{_the(case.reference, case)} ({shown}): use that, or train another student."
        )
    return (
        f"Do not distil on this evidence: that {_the(case.student, case)} is within {case.margin_words} of "
        f"{_the(case.reference, case)} is not shown ({shown}): more seeds or test items would tell."
    )


def _cheapest_baseline(case: _Case) -> System | None:
    """The trivial baseline that is good enough and cheapest in use, where it is cheaper than the student."""
    found = [
        s
        for s in case.comparisons.systems
        if s.role not in _NETWORKS and _shares_runs(s, case.student) and case.is_within(s, case.reference)
    ]
    costs = {id(s): share for s in found if (share := case.share(s)) is not None}
    mine = case.share(case.student)
    cheaper = [s for s in found if id(s) in costs and (mine is None or costs[id(s)] < mine)]
    return min(cheaper, key=lambda s: costs[id(s)], default=None)


def _control_within(case: _Case) -> System | None:
    """The student that learned nothing of the teacher and is as good within the margin, the cheapest first."""
    beside = [s for s in case.comparisons.systems if s.role == "untrained_student" and _shares_runs(s, case.student)]
    beside += [
        control
        for student, control in control_pairs(case.comparisons.systems)
        if student is case.student and control.role == "label_only"
    ]
    return next((s for s in beside if case.is_within(s, case.student)), None)


def _shares_runs(one: System, two: System) -> bool:
    return bool({r.run_id for r in one.records} & {r.run_id for r in two.records})


def _the(system: System, case: _Case) -> str:
    """`the student`, `TF-IDF`, `the student (temperature 2)`."""
    name = system.label if len([s for s in case.comparisons.systems if s.role == system.role]) > 1 else ""
    name = name or words.role_name(system.role)
    return name if name[:2].isupper() else f"the {name[:1].lower()}{name[1:]}"
