"""What stops a training before its end: the budget of the run, and a rule on what its validations still gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smallmodels import energy, limits
from smallmodels.phases import Rules


@dataclass(frozen=True)
class Cut:
    """The rule by which a training ends here; its fields are those of `records.Stop`."""

    by: Literal["budget", "gain"]
    limit: str
    gain_per_wh: float | None = None


def cut_of(rules: Rules, step: int, curve: Sequence[Mapping[str, Any]]) -> Cut | None:
    """Whether a training stops after a step.

    Args:
        rules: Of the run.
        step: Optimizer steps done.
        curve: Validations so far, each with `step`, `value` and `energy_j`.
    """
    if spent := rules.spent():
        return Cut("budget", spent)
    if rules.least_gain_per_wh is None or not curve or curve[-1]["step"] != step:
        return None
    gain = gain_per_wh(curve)
    if gain is None or gain >= rules.least_gain_per_wh:
        return None
    return Cut("gain", limits.gain_words(rules.least_gain_per_wh), gain)


def gain_per_wh(curve: Sequence[Mapping[str, Any]]) -> float | None:
    """What the last validation is better than the one before, for each Wh between them; None where that is unknown."""
    if len(curve) < 2:
        return None
    before, now = curve[-2:]
    if before["energy_j"] is None or now["energy_j"] is None or now["energy_j"] <= before["energy_j"]:
        return None
    return float((now["value"] - before["value"]) / energy.to_wh(now["energy_j"] - before["energy_j"]))
