"""After how many uses the cost of building a student is saved again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Floats, finite
from smallmodels.metrics.intervals import t_quantile


@dataclass(frozen=True, kw_only=True)
class PaybackEstimate:
    """After how many uses the cost of building the student is saved again."""

    saved_per_use: float
    """Mean cost of one use of what is replaced, minus the student's; negative where the student costs more."""
    uses: float | None
    """None means never."""
    low: float | None
    high: float | None
    """95 % interval of `uses`; None for never, and where a single window was measured."""
    reason: str
    """One sentence: why this number, or why never."""


def payback(
    build: float,
    reference: Sequence[float],
    student: Sequence[float],
    *,
    quality_ok: bool,
    unit: Literal["J", "CPU-s"] = "J",
    replaces: str = "teacher",
) -> PaybackEstimate:
    """Uses after which the student has saved what it cost to build.

    The interval is that of the difference between two means (Welch), turned into uses. It is "never" where that
    interval touches zero or the student is not good enough to replace anything.

    Args:
        build: What building the student cost, ≥ 0, in `unit`.
        reference: Cost per use of what the student replaces, in `unit`, one value per measured window.
        student: Cost per use of the student, likewise.
        quality_ok: Whether the student's quality is close enough to what it replaces.
        unit: Of all costs; only the sentence needs it.
        replaces: The role that the student replaces; only the sentence needs it.

    Returns:
        The estimate and the reason for it.

    Raises:
        InputError: A cost is missing, negative or not finite.
    """
    if not 0 <= build < math.inf:
        raise InputError(f"build should be a cost ≥ 0, got {build}: pass what building the student cost")
    reference_costs, student_costs = _costs("reference", reference), _costs("student", student)
    saved = float(reference_costs.mean() - student_costs.mean())
    who = replaces.replace("_", " ")

    def never(why: str) -> PaybackEstimate:
        return PaybackEstimate(saved_per_use=saved, uses=None, low=None, high=None, reason=f"Never: {why}.")

    if not quality_ok:
        return never(f"the student's quality is not close enough to the {who}'s to replace it")
    if saved <= 0:
        more = f"{_short(-saved)} {unit} more than" if saved < 0 else "as much as"
        return never(f"a use of the student costs {more} one of the {who}")
    half = _welch_half_width(reference_costs, student_costs)
    if half is not None and saved - half <= 0:
        return never(
            f"the saving of {_short(saved)} {unit} per use is within the noise of the measurement (± {_short(half)})"
        )
    uses = build / saved
    reason = (
        f"Each use saves {_short(saved)} {unit} against the {who}, so the {_short(build)} {unit} that it took to build "
        f"the student are saved again after {_short(math.ceil(uses))} uses"
    )
    if half is None:
        reason += "; a single window was measured, so there is no interval"
        return PaybackEstimate(saved_per_use=saved, uses=uses, low=None, high=None, reason=f"{reason}.")
    return PaybackEstimate(
        saved_per_use=saved, uses=uses, low=build / (saved + half), high=build / (saved - half), reason=f"{reason}."
    )


def _costs(name: str, values: Sequence[float]) -> Floats:
    costs = finite(name, values)
    if (costs < 0).any():
        raise InputError(f"{name} should be costs ≥ 0, found {costs.min()}: check the measurement")
    return costs


def _welch_half_width(a: Floats, b: Floats) -> float | None:
    """Half the width of Welch's interval for the difference of two means; None if a side has one value."""
    if min(len(a), len(b)) < 2:
        return None
    square_a, square_b = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if square_a + square_b == 0:
        return 0.0
    degrees = (square_a + square_b) ** 2 / (square_a**2 / (len(a) - 1) + square_b**2 / (len(b) - 1))
    return t_quantile(float(degrees)) * math.sqrt(square_a + square_b)


def _short(number: float) -> str:
    """Three significant digits, with thousands separated and without an exponent where people count."""
    if number >= 1000:
        digits = 3 - len(str(int(number)))
        return f"{round(number, digits):,.0f}"
    return f"{number:.3g}"
