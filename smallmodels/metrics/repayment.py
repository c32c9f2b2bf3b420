"""After how many uses the cost of building a student is saved again, from one run or from several seeds."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from smallmodels.errors import InputError
from smallmodels.metrics.checks import Floats, finite
from smallmodels.metrics.intervals import t_quantile, welch_half_width


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

    if why := _hindrance(saved, quality_ok=quality_ok, unit=unit, who=who):
        return never(why)
    half = welch_half_width(reference_costs, student_costs)
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


def payback_over_runs(
    builds: Sequence[float],
    savings: Sequence[float],
    *,
    windows: tuple[Sequence[float], Sequence[float]] = ((), ()),
    quality_ok: bool,
    unit: Literal["J", "CPU-s"] = "J",
    replaces: str = "teacher",
) -> PaybackEstimate:
    """Uses after which a student has paid for itself, from runs that differ in their seed.

    The estimate is mean build over mean saving. Its interval is Fieller's, which holds the uses at which build minus
    uses times saving is not told apart from zero by Student's t over the runs. Where runs share measurements, builds
    and savings are not pairs: they are taken to be independent, each with its own Student's t. Where the interval of
    the saving itself touches zero there is no such number of uses, which is "never".

    Args:
        builds: What was paid for the student, ≥ 0, in `unit`, for each run; the same for all where it is one bill.
        savings: Cost of one use of what is replaced minus the student's, in `unit`, for each run, in the same order;
            where runs share measurements, for each measurement.
        windows: Cost of one use of what is replaced and of the student, in `unit`, in each window of the only
            measurement, or in each measurement of the one of the two that has several: the chance in a saving that was
            measured once. Not looked at where there are several savings.
        quality_ok: Whether the student's quality is close enough to what it replaces.
        unit: Of all costs; only the sentence needs it.
        replaces: The role that the student replaces; only the sentence needs it.

    Raises: InputError if there are more savings than builds, or a value is missing, not finite, or a negative build.

    Source: Fieller 1954, doi:10.1111/j.2517-6161.1954.tb00159.x; for what is independent, Donner and Zou 2012,
        Statistical Methods in Medical Research 21(4), equation 9.
    """
    built, saved = _costs("builds", builds), finite("savings", savings)
    if len(saved) > len(built):
        raise InputError(
            f"savings should be one for each run, or fewer where runs share measurements, got {len(built)} builds and "
            f"{len(saved)} savings"
        )
    build, saving, who = float(built.mean()), float(saved.mean()), replaces.replace("_", " ")
    estimate = PaybackEstimate(saved_per_use=saving, uses=None, low=None, high=None, reason="")

    def never(why: str) -> PaybackEstimate:
        return dataclasses.replace(estimate, reason=f"Never: {why}.")

    if why := _hindrance(saving, quality_ok=quality_ok, unit=unit, who=who):
        return never(why)
    half = _half_width(saved) if len(saved) > 1 else _half_width_over(windows)
    if half is not None and half >= saving:
        noise = "the noise of the measurement"
        if len(saved) > 1:
            noise = f"what {len(saved)} {'runs' if len(saved) == len(built) else 'measurements'} differ by"
        return never(f"the saving of {_short(saving)} {unit} per use is within {noise} (± {_short(half)})")
    low, high = _ratio_ends(built, saved, half) if half is not None else (None, None)
    reason = (
        f"Each use saves {_short(saving)} {unit} against the {who}, so {_short(build)} {unit} are saved again after "
        f"{_short(math.ceil(build / saving))} uses"
    )
    reason += "" if low is not None else "; the saving was measured once, so there is no interval over runs"
    return dataclasses.replace(estimate, uses=build / saving, low=low, high=high, reason=f"{reason}.")


def _half_width(values: Floats) -> float:
    """Half the width of Student's interval for a mean; 0 for a single value, of whose spread nothing is known."""
    return t_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _half_width_over(windows: tuple[Sequence[float], Sequence[float]]) -> float | None:
    """Of Welch's interval for the saving of one measurement; None where a side has less than two windows."""
    if min(map(len, windows)) < 2:
        return None
    return welch_half_width(_costs("windows", windows[0]), _costs("windows", windows[1]))


def _hindrance(saved: float, *, quality_ok: bool, unit: str, who: str) -> str:
    """Why no number of uses repays a student, whatever the noise; empty if some may."""
    if not quality_ok:
        return f"the student's quality is not close enough to the {who}'s to replace it"
    if saved > 0:
        return ""
    more = f"{_short(-saved)} {unit} more than" if saved < 0 else "as much as"
    return f"a use of the student costs {more} one of the {who}"


def _ratio_ends(built: Floats, saved: Floats, half: float) -> tuple[float, float]:
    """Ends of mean build over mean saving, which has so wide an interval on each side; at least 0."""
    both = 0.0
    if len(built) == len(saved) > 1:  # a machine that is slow makes building and using dear alike
        n = len(built)
        both = t_quantile(n - 1) ** 2 / n * float(np.cov(built, saved, ddof=1)[0, 1])
    above, below = float(built.mean()), float(saved.mean())
    a = below**2 - half**2
    b = above * below - both
    c = above**2 - _half_width(built) ** 2
    root = math.sqrt(max(b * b - a * c, 0.0))
    return max((b - root) / a, 0.0), max((b + root) / a, 0.0)


def _costs(name: str, values: Sequence[float]) -> Floats:
    costs = finite(name, values)
    if (costs < 0).any():
        raise InputError(f"{name} should be costs ≥ 0, found {costs.min()}: check the measurement")
    return costs


def _short(number: float) -> str:
    """Three significant digits, with thousands separated and without an exponent where people count."""
    if number >= 1000:
        digits = 3 - len(str(int(number)))
        return f"{round(number, digits):,.0f}"
    return f"{number:.3g}"
