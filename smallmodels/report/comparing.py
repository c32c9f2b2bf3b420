"""Systems against each other: the difference of each pair, over seeds and the same test items, and its verdict."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smallmodels import records
from smallmodels.records import Metric, RunRecord
from smallmodels.report import formats, items
from smallmodels.report.evidence import Evidence
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import MAX_ROWS, Block, Row, Section, Table, Text, cut_note
from smallmodels.report.systems import (
    CONTROLS,
    EQUAL_COST,
    EQUAL_COST_CONTROL,
    MIN_SEEDS,
    System,
    cost_share,
    did_not_help,
    margin_of,
    replaced_by,
    seeds_won,
)
from smallmodels.report.words import Unit

if TYPE_CHECKING:
    from smallmodels.metrics import Difference, Items

_MAX_MATRIX = 8
"""More systems than that make a table of pairs that nobody reads."""


class Comparisons:
    """Differences in quality between the systems of one group; each pair is worked out once.

    Args:
        group: The runs.
        systems: Of these runs.
        evidence: Where their predictions are.
    """

    def __init__(self, group: Sequence[RunRecord], systems: Sequence[System], evidence: Evidence) -> None:
        self.systems = list(systems)
        self.metric = group[0].metric
        self.margin = margin_of(group)
        """Declared before the runs; None where it was not, and any difference that is shown counts."""
        self.margins = sorted({r.margin for r in group if r.margin is not None})
        self._answers = items.read_all(group, evidence.predictions)
        self._items: dict[int, Items | None] = {}
        self._found: dict[tuple[int, int], Difference | None] = {}

    def difference(self, ours: System, theirs: System) -> "Difference | None":
        """Ours minus theirs, larger being better; None where one lacks the metric."""
        pair, reverse = (id(ours), id(theirs)), (id(theirs), id(ours))
        if pair not in self._found:
            self._found[pair] = found = self._difference(ours, theirs)
            self._found[reverse] = found and _reversed(found)
        return self._found[pair]

    def _difference(self, ours: System, theirs: System) -> "Difference | None":
        from smallmodels import metrics

        one, two = self._good(ours), self._good(theirs)
        if not one or not two:
            return None
        our_items, their_items = self._items_of(ours), self._items_of(theirs)
        is_paired = our_items is not None and their_items is not None and self._same_items(ours, theirs)
        if is_paired:
            assert our_items is not None
            assert their_items is not None
            found = metrics.paired_bootstrap(our_items, their_items)
            over_items: Metric | None = found if self._sign > 0 else _negative(found)
        else:
            apart = [system.quality_of_items for system in (ours, theirs)]
            known = [m if self._sign > 0 else _negative(m) for m in apart if m is not None]
            over_items = metrics.unpaired_items(*known) if len(known) == 2 else None
        return metrics.difference(metrics.seed_difference(one, two), over_items, is_paired=is_paired)

    def value(self, ours: System, theirs: System) -> float | None:
        """That of the difference, without drawing items for an interval; None where one lacks the metric."""
        one, two = self._means.get(id(ours)), self._means.get(id(theirs))
        return one - two if one is not None and two is not None else None

    @functools.cached_property
    def _means(self) -> dict[int, float]:
        """Over seeds, by system."""
        return {id(s): sum(good.values()) / len(good) for s in self.systems if (good := self._good(s))}

    @property
    def _sign(self) -> int:
        return -1 if self.metric in records.LOWER_IS_BETTER else 1

    def _good(self, system: System) -> dict[str, float] | None:
        values = system.values
        return None if values is None else {seed: self._sign * value for seed, value in values.items()}

    def _items_of(self, system: System) -> "Items | None":
        if id(system) not in self._items:
            found = [(self._answers.get(r.run_id), r) for r in system.records]
            self._items[id(system)] = items.items_of(found, system.role)
        return self._items[id(system)]

    def _same_items(self, ours: System, theirs: System) -> bool:
        found = [self._answers.get(s.records[0].run_id) for s in (ours, theirs)]
        return len({answers.key if answers else None for answers in found}) == 1

    def why_no_verdict(self, found: "Difference | None") -> str:
        """Why nothing may be said of a difference, or an empty string."""
        if found is None:
            return "not comparable: quality missing"
        if found.num_seeds < MIN_SEEDS:
            return f"no verdict: {found.num_seeds} seed{'s' * (found.num_seeds > 1)}, {MIN_SEEDS} needed"
        return "" if found.low is not None else "no verdict: nothing is known of the chance in it"

    def verdict(self, ours: System, theirs: System) -> str:
        """`better`, `worse`, `indistinguishable` with what that rests on, or why there is no verdict."""
        from smallmodels import metrics

        found = self.difference(ours, theirs)
        if why := self.why_no_verdict(found):
            return why
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        margin = self.margin or 0.0
        said = metrics.verdict(found, margin=margin)
        if said != "indistinguishable":
            return said
        if margin and -margin <= found.low and found.high <= margin:
            return "indistinguishable: equal within the margin"
        if margin and (found.low > 0 or found.high < 0):
            return "indistinguishable: different, but not shown to be by more than the margin"
        return "indistinguishable"

    def is_clearly_better(self, ours: System, theirs: System) -> bool:
        """Whether ours is better by more than the margin, from enough seeds."""
        from smallmodels import metrics

        value, margin = self.value(ours, theirs), self.margin or 0.0
        if value is None or value <= margin:  # which spares the drawing
            return False
        found = self.difference(ours, theirs)
        assert found is not None, "both have the metric"
        return not self.why_no_verdict(found) and metrics.verdict(found, margin=margin) == "better"


def _reversed(found: "Difference") -> "Difference":
    """Theirs minus ours."""
    low = None if found.high is None else -found.high
    high = None if found.low is None else -found.low
    return dataclasses.replace(found, value=-found.value, low=low, high=high)


def _negative(found: Metric) -> Metric:
    """The same with the sign that makes larger better."""
    low = None if found.high is None else -found.high
    high = None if found.low is None else -found.low
    return Metric(value=-found.value, low=low, high=high, n=found.n)


# --- what a page says -------------------------------------------------------------------------------------------------


def sections(comparisons: Comparisons, unit: Unit, title: str) -> list[Section]:
    """Against what is replaced, pair by pair, and against the controls at equal cost."""
    blocks: list[Block] = [Text(margin_words(comparisons))]
    if against := _against_table(comparisons):
        blocks.append(against)
    if matrix := _matrix(comparisons):
        blocks.append(matrix)
    found = [Section(formats.heading(title, "which model is better"), blocks)] if len(blocks) > 1 else []
    if controls := controls_table(comparisons, unit):
        lead = (
            "A control has the student's shape and learns from labels alone, for what the student cost. If the student "
            "is not better than it, the teacher has added nothing."
        )
        pairs = control_pairs(comparisons.systems)
        said = [did_not_help(student, control) for student, control in pairs if control.role == EQUAL_COST_CONTROL]
        told: list[Block] = [Text(lead), *(Text(each) for each in said if each)]
        found.append(Section(formats.heading(title, "is the teacher worth it?"), [*told, controls]))
    return found


def margin_words(comparisons: Comparisons) -> str:
    """What a difference has to be to count."""
    name = formats.metric_name(comparisons.metric)
    if comparisons.margin is None:
        return (
            f"No margin was declared before the runs, so any difference in {name} that the interval shows counts as "
            "better or worse, however small."
        )
    shown = formats.difference(comparisons.metric, comparisons.margin)
    several = " (the largest of those that the runs declare)" if len(comparisons.margins) > 1 else ""
    return (
        f"Declared before the runs: a difference of less than {shown} in {name} counts as equal{several}. Better or "
        "worse means that the whole 95\u00a0% interval, over seeds and test items, lies beyond that; everything else "
        "is indistinguishable."
    )


def signed(metric: str, value: float | None) -> str:
    """A difference with its sign, as that of the metric's goodness: plus is better."""
    if value is None or not formats.is_number(value):
        return MISSING
    return f"{100 * value:+.1f} points" if formats.is_share(metric) else f"{value:+.3f}"


def signed_interval(metric: str, found: "Difference") -> str:
    """The interval of a difference."""
    if found.low is None or found.high is None:
        return MISSING
    factor, digits = (100, 1) if formats.is_share(metric) else (1, 3)
    return f"{factor * found.low:+.{digits}f} to {factor * found.high:+.{digits}f}"


def items_words(found: "Difference") -> str:
    """Test items behind a difference."""
    if not found.num_items:
        return "0"
    return f"{found.num_items:,} {'paired' if found.is_paired else 'unpaired'}"


def _difference_cells(comparisons: Comparisons, ours: System, theirs: System) -> list[str]:
    found = comparisons.difference(ours, theirs)
    verdict = comparisons.verdict(ours, theirs)
    if found is None:
        return [MISSING, MISSING, MISSING, MISSING, verdict]
    metric = comparisons.metric
    cells = [signed(metric, found.value), signed_interval(metric, found)]
    return [*cells, str(found.num_seeds), items_words(found), verdict]


_DIFFERENCE_HEAD = ["difference", "95\u00a0% interval", "n seeds", "n items", "verdict"]


def _against_table(comparisons: Comparisons) -> Table | None:
    """Every system against what its runs set out to replace."""
    rows: list[Row] = []
    for system in comparisons.systems[:MAX_ROWS]:
        other = replaced_by(system, comparisons.systems)
        if other is not None:
            rows.append([system.label, other.label, *_difference_cells(comparisons, system, other)])
    if not rows:
        return None
    return Table(
        caption="Against the model that is replaced",
        head=["Model", "against", *_DIFFERENCE_HEAD],
        rows=rows,
        text_columns=(1, 6),
        note="Plus means that the model is better. Paired: both models on the same test items, drawn again together; "
        "unpaired: from the interval of each, which is wider. "
        + cut_note(len(comparisons.systems), len(comparisons.systems[:MAX_ROWS])),
    )


def _matrix(comparisons: Comparisons) -> Table | None:
    """The verdict of every pair; of the students alone where there are more systems than can be read."""
    known = [s for s in comparisons.systems if s.values is not None and s.seeds() >= MIN_SEEDS]
    systems = known if len(known) <= _MAX_MATRIX else [s for s in known if s.role == "student"]
    if len(systems) < (3 if systems is known else 2):
        return None
    left_out, systems = max(len(systems) - _MAX_MATRIX, 0), systems[:_MAX_MATRIX]
    rows: list[Row] = []
    for i, ours in enumerate(systems):
        cells = [
            MISSING if ours is theirs else comparisons.verdict(ours, theirs).partition(":")[0] for theirs in systems
        ]
        rows.append([f"{i + 1} · {ours.label}", *cells])
    head = ["Row against column", *(str(i + 1) for i in range(len(systems)))]
    note = "Each pair has an interval of its own: of twenty pairs without a difference, one may seem to have one."
    note += f" {left_out} more students are left out." if left_out else ""
    return Table(caption="Pair by pair", head=head, rows=rows, text_columns=tuple(range(1, len(head))), note=note)


def controls_table(comparisons: Comparisons, unit: Unit) -> Table | None:
    """Each student against its controls, with what these cost as a share of what the student did."""
    rows: list[Row] = []
    for student, control in control_pairs(comparisons.systems):
        share = cost_share(student, control, unit)
        cost = MISSING if share is None else f"{number(share.value)} times"
        if share is not None and abs(share.value - 1) > EQUAL_COST:
            cost += ", not equal"
        won, seeds = seeds_won(student, control)
        of_seeds = f"{won} of {seeds}"
        rows.append([student.label, control.label, cost, of_seeds, *_difference_cells(comparisons, student, control)])
    if not rows:
        return None
    return Table(
        caption="The student against the same student without a teacher",
        head=["Model", "control", "cost of the control", "seeds won", *_DIFFERENCE_HEAD],
        rows=rows,
        text_columns=(1, 2, 3, 8),
        note="Cost of the control: over that of the student, the teacher's pass included, and in the row at full cost "
        f"its fine-tuning too. Costs that differ by more than {100 * EQUAL_COST:.0f}\u00a0% are called not equal.",
    )


def control_pairs(systems: Sequence[System]) -> list[tuple[System, System]]:
    """Each student with the controls of its own runs."""
    pairs = []
    for student in (s for s in systems if s.role == "student"):
        of_it = [s for s in systems if s.role in CONTROLS and student.shares_runs(s)]
        pairs += [(student, control) for control in of_it]
    return pairs
