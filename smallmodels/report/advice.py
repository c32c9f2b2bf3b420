"""Should you distil at all, and what to ship? One sentence from the numbers of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from smallmodels.records import goodness
from smallmodels.report import formats, words
from smallmodels.report.comparing import Comparisons, control_pairs, signed, signed_interval
from smallmodels.report.paying import Counted
from smallmodels.report.systems import (
    CONTROLS,
    EQUAL_COST_CONTROL,
    MIN_SEEDS,
    System,
    at_what_cost,
    did_not_help,
    replaced_by,
    seeds_won,
)
from smallmodels.report.words import Unit

_NETWORKS = frozenset({"teacher", "untuned_teacher", "student", "untrained_student", *CONTROLS})
"""Roles that are a network; every other one is a trivial baseline."""


_CONTROL_NAMES = dict(zip(CONTROLS, ("student on labels alone", "student on labels alone at full cost"), strict=True))
"""What they are called in a sentence."""

UNDECIDED = "Whether to distil is not decided"
"""How the sentence begins where no margin was declared."""

AGAINST = "o not distil"
"""What it has where it advises against it, after a capital or a small letter."""

NOT_SHOWN = f"{AGAINST} on this evidence"
"""Likewise, where more seeds or test items would tell."""

NO_STUDENT = "No student here replaces another model"
"""How it begins where there is nothing to distil from."""


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
        """Whether it is shown that ours is not worse than theirs by more than the margin.

        From few seeds that rests on the interval over test items alone, and without an interval on the value.
        """
        from smallmodels import metrics

        value = self.comparisons.value(ours, theirs)
        if value is None or value < -self.margin:  # which spares the drawing
            return False
        found = self.comparisons.difference(ours, theirs)
        assert found is not None, "both have the metric"
        return found.low is None or metrics.is_within(found, margin=self.margin)

    def is_worse(self, ours: System, theirs: System) -> bool:
        """Whether it is shown that ours is worse than theirs by more than the margin; by value likewise."""
        from smallmodels import metrics

        value = self.comparisons.value(ours, theirs)
        if value is None or value >= -self.margin:
            return False
        found = self.comparisons.difference(ours, theirs)
        assert found is not None, "both have the metric"
        return found.high is None or metrics.verdict(found, margin=self.margin) == "worse"

    def cheapest(self, systems: Sequence[System], *, below: float) -> System | None:
        """The cheapest to use within the margin of what is replaced, if no other of them beats it by more than that.

        Without the second condition, a teacher no better than chance would be replaced by the majority class although
        something simple has learned more.

        Args:
            systems: To choose from; one whose use was not measured can only beat another.
            below: What a use has to cost less than, as a share of what is replaced.
        """
        shares = {id(s): share for s in systems if (share := self.share(s)) is not None and share < below}
        by_cost = sorted((s for s in systems if id(s) in shares), key=lambda s: shares[id(s)])
        return next((s for s in by_cost if self.is_within(s, self.reference) and not self._is_beaten(s, systems)), None)

    def _is_beaten(self, ours: System, systems: Sequence[System]) -> bool:
        return any(self.is_worse(ours, s) and self.is_within(s, self.reference) for s in systems if s is not ours)

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
        basis = "" if system.is_ranked_by_use and self.reference.is_ranked_by_use else " (indicative)"
        return f" at {formats.number(100 * share, 2)}\u00a0% of the {what} of a use{basis}"

    def the(self, system: System) -> str:
        """Its name in a sentence."""
        return _the(system, self.comparisons)

    @property
    def margin_words(self) -> str:
        """`the margin (1.0 points)`."""
        return f"the margin ({formats.difference(self.comparisons.metric, self.margin)})"


def sentence(comparisons: Comparisons, counted: Sequence[Counted], unit: Unit) -> str:
    """Whether to distil, of one student of a group, and which model to ship; empty where there is nothing to choose.

    It is the one that is best on validation, or the cheapest to use of those that are good enough too and cost less
    than that beyond chance; one with seeds enough for a verdict where there is such a one. Without a student that
    replaces something, it is said which of the models to ship.

    Args:
        comparisons: Of the group.
        counted: Its paybacks.
        unit: Of the cost that is ranked.
    """
    known = [s for s in comparisons.systems if s.quality() is not None and not any(r.smoke for r in s.records)]
    students = [s for s in known if s.role == "student"]
    pairs = [(s, other) for s in students if (other := replaced_by(s, comparisons.systems)) is not None]
    if not pairs:
        return _of_all(comparisons, known, unit)
    pairs = [pair for pair in pairs if pair[0].seeds() >= MIN_SEEDS] or pairs
    student, reference = _best_on_validation(comparisons, pairs)
    if comparisons.margin is None:
        return (
            f"{UNDECIDED}: no margin was declared before the runs, so nothing says which loss of "
            f"{formats.metric_name(comparisons.metric)} would be small enough. Until one is, use "
            f"{_the(reference, comparisons)}."
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


def _best_on_validation(comparisons: Comparisons, pairs: Sequence[tuple[System, System]]) -> tuple[System, System]:
    """Of students and what each replaces; by what they reach on test where validations are unknown, or are equal."""
    reached = {id(student): student.on_validation() for student, _ in pairs}
    if None in reached.values() or len({r.curve_metric for student, _ in pairs for r in student.records}) > 1:
        reached = {}
    return max(pairs, key=lambda pair: (reached.get(id(pair[0])) or 0.0, _goodness(comparisons, *pair)))


def _goodness(comparisons: Comparisons, student: System, reference: System) -> float:
    value = comparisons.value(student, reference)
    return value if value is not None else float("-inf")


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
            f"Do not distil: {case.the(plain)} is within {case.margin_words} of {case.the(case.reference)}"
            f"{case.share_words(plain)}: ship that."
        )
    if not case.is_within(case.student, case.reference):
        return _not_close(case)
    if (control := _control_within(case)) is not None:
        trained = "without any training" if control.role == "untrained_student" else "trained on labels alone"
        cost = "" if control.role == "untrained_student" else f" {at_what_cost(case.student, control)}"
        return (
            f"Do not distil: the same student {trained}{cost} is within {case.margin_words} of the distilled one: "
            "ship that."
        )
    if (control := _control_it_rarely_beats(case)) is not None:
        won, seeds = seeds_won(case.student, control)
        return (
            f"Do not distil on this evidence: {case.the(case.student)} is better than the same one trained on labels "
            f"alone {at_what_cost(case.student, control)} in {won} of {seeds} seeds, so that its teacher has helped is "
            f"not shown: more seeds or test items would tell; until then, {_until_then(case)}."
        )
    good = (
        f"{case.the(case.student)} is within {case.margin_words} of {case.the(case.reference)}"
        f"{case.share_words(case.student)}"
    )
    if case.instead_of is not None:
        good += f", and cheaper to use than the best, {case.the(case.instead_of)}"
    mine = [each for each in counted if each.system is case.student]
    if not mine:
        return f"Distil for size or speed: {good}; when it pays for itself was not measured: ship that."
    estimate = mine[0].estimate
    if estimate.uses is None:
        why = formats.clean(estimate.reason, 400).removeprefix("Never: ").rstrip(". ")
        return (
            f"Distil for size or speed only: {good}, but it never pays for itself, because {why}: ship that where size "
            f"or speed counts, else {case.the(case.reference)}."
        )
    return f"Distil: {good}, and it has paid for itself after {words.rounded_large(estimate.uses)} uses: ship that."


def _not_close(case: _Case) -> str:
    found = case.comparisons.difference(case.student, case.reference)
    assert found is not None, "both have the metric"
    metric = case.comparisons.metric
    shown = f"{signed(metric, found.value)}"
    if found.low is not None:
        shown += f", 95\u00a0% interval {signed_interval(metric, found)}"
    if case.is_worse(case.student, case.reference):
        return (
            f"Do not distil like this: {case.the(case.student)} misses {case.margin_words} against "
            f"{case.the(case.reference)} ({shown}): {_until_then(case)}, or train another student."
        )
    return (
        f"Do not distil on this evidence: that {case.the(case.student)} is within {case.margin_words} of "
        f"{case.the(case.reference)} is not shown ({shown}): more seeds or test items would tell; until then, "
        f"{_until_then(case)}."
    )


def _until_then(case: _Case) -> str:
    """What to use while the student is not good enough: the cheapest model that is, else what it would replace."""
    others = [s for s in case.comparisons.systems if s is not case.reference]
    cheaper = [s for s in others if (share := case.share(s)) is not None and share < 1]
    chosen = case.cheapest(cheaper, below=1)
    if chosen is None:
        return f"use {case.the(case.reference)}"
    return f"use {case.the(chosen)}, which is within it{case.share_words(chosen)}"


def _of_all(comparisons: Comparisons, known: Sequence[System], unit: Unit) -> str:
    """Which of models to ship that replace none: the cheapest to use that is within the margin of the best."""
    if len(known) < 2:
        return ""
    best = max(known, key=lambda s: goodness(comparisons.metric, _value(s)))
    seeds = min(s.seeds() for s in known)
    basis = f"{seeds} seed{'s' * (seeds > 1)}"
    hint = "" if seeds >= MIN_SEEDS else f" It rests on {basis}, so it is a hint and no verdict."
    if comparisons.margin is not None:
        case = _Case(best, best, comparisons, unit, comparisons.margin)
        shares = {id(s): share for s in known if (share := case.share(s)) is not None and share < 1}
        enough = [s for s in known if id(s) in shares and case.is_within(s, best)]
        if enough:
            chosen = min(enough, key=lambda s: shares[id(s)])
            return (
                f"{NO_STUDENT}: {case.the(chosen)} is within {case.margin_words} of the best, {case.the(best)},"
                f"{case.share_words(chosen)}: ship that.{hint}"
            )
    name = formats.metric_name(comparisons.metric)
    return f"{NO_STUDENT}: of those compared, {_the(best, comparisons)} has the best {name}: ship that.{hint}"


def _value(system: System) -> float:
    found = system.quality()
    assert found is not None, "only models with the metric are compared"
    return found.value


def _cheapest_baseline(case: _Case) -> System | None:
    """The trivial baseline that is good enough and cheapest in use, where it is cheaper than the student, or better."""
    beside = [s for s in case.comparisons.systems if s.role not in _NETWORKS and s.shares_runs(case.student)]
    mine = case.share(case.student)
    if (cheaper := case.cheapest(beside, below=float("inf") if mine is None else mine)) is not None:
        return cheaper
    return case.cheapest([s for s in beside if case.is_worse(case.student, s)], below=1)


def _control_within(case: _Case) -> System | None:
    """The student that learned nothing of the teacher and is as good within the margin, the cheapest first."""
    beside = [s for s in case.comparisons.systems if s.role == "untrained_student" and s.shares_runs(case.student)]
    beside += _controls_at_equal_cost(case)
    return next((s for s in beside if case.is_within(s, case.student)), None)


def _control_it_rarely_beats(case: _Case) -> System | None:
    """The control at equal cost, where the student beats it in too few of its seeds for the teacher to have helped."""
    return next((control for control in _controls_at_equal_cost(case) if did_not_help(case.student, control)), None)


def _controls_at_equal_cost(case: _Case) -> list[System]:
    pairs = control_pairs(case.comparisons.systems)
    return [control for student, control in pairs if student is case.student and control.role == EQUAL_COST_CONTROL]


def _the(system: System, comparisons: Comparisons) -> str:
    """`the student`, `TF-IDF`, `the student (temperature 2)`."""
    name = system.label if len([s for s in comparisons.systems if s.role == system.role]) > 1 else ""
    name = name or words.role_name(system.role)
    if system.role in CONTROLS:
        name = name.replace(words.role_name(system.role), _CONTROL_NAMES[system.role], 1)
    return name if name[:2].isupper() else f"the {name[:1].lower()}{name[1:]}"
