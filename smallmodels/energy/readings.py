"""Numbers with labels: what a stretch of work cost, and the grams of CO2e that follow where the user names a source."""

import typing
from dataclasses import dataclass, field
from pathlib import Path

from smallmodels.errors import InputError
from smallmodels.records import Carbon, Component, EnergyLabel

MIN_WINDOW_S = 1.0
"""Shorter windows give no joules per use: a backend may answer with a reading that is up to 50 ms old."""

MISSING = Component(energy_j=None, label="missing")
_WEAKNESS = {label: rank for rank, label in enumerate(typing.get_args(EnergyLabel))}


def to_wh(energy_j: float) -> float:
    """Joules to watt-hours."""
    return energy_j / 3600


def from_wh(energy_wh: float) -> float:
    """Watt-hours to joules."""
    return energy_wh * 3600


def to_kwh(energy_j: float) -> float:
    """Joules to kilowatt-hours."""
    return energy_j / 3.6e6


@dataclass(frozen=True)
class EnergyReading:
    """Time, CPU time and joules of one stretch of work; readings add up and subtract.

    A component that a machine does not have (a GPU) is absent. One that could not be measured holds None, and stays
    None whatever is added: a sum with an unknown part is unknown.
    """

    duration_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of this process and of its children that have ended."""
    components: dict[str, Component] = field(default_factory=dict)

    @property
    def energy_j(self) -> float | None:
        """Sum over the known components, which is a part only where `label` is `missing`; None if none is known."""
        known = [c.energy_j for c in self.components.values() if c.energy_j is not None]
        return sum(known) if known else None

    @property
    def label(self) -> EnergyLabel:
        """The weakest label that carries 10 % of the joules or more; `missing` as soon as one component is unknown."""
        total = self.energy_j
        if total is None or any(c.energy_j is None for c in self.components.values()):
            return "missing"
        return _weakest(*(c.label for c in self.components.values() if (c.energy_j or 0.0) >= 0.1 * total))

    def energy_j_per(self, num_uses: int) -> float | None:
        """Joules per use; None where joules are missing or the window was shorter than `MIN_WINDOW_S`."""
        if self.energy_j is None or self.label == "missing" or self.duration_s < MIN_WINDOW_S or num_uses < 1:
            return None
        return self.energy_j / num_uses

    def __add__(self, other: "EnergyReading") -> "EnergyReading":
        return self._combine(other, 1)

    def __sub__(self, other: "EnergyReading") -> "EnergyReading":
        return self._combine(other, -1)

    def _combine(self, other: "EnergyReading", sign: int) -> "EnergyReading":
        names = {**self.components, **other.components}
        components = {n: _combine(self.components.get(n), other.components.get(n), sign) for n in names}
        return EnergyReading(self.duration_s + sign * other.duration_s, self.cpu_s + sign * other.cpu_s, components)

    @classmethod
    def from_journal(cls, path: Path) -> "EnergyReading":
        """The total of a journal; see `read_journal`."""
        from smallmodels.energy.journal import read_journal  # which needs this class

        return read_journal(path).total


def _combine(left: Component | None, right: Component | None, sign: int) -> Component:
    if right is None:
        return left or MISSING
    if left is None:
        return right if sign > 0 else MISSING  # it was there and has gone: what it used since is unknown
    if left.energy_j is None or right.energy_j is None:
        return MISSING
    return Component(energy_j=left.energy_j + sign * right.energy_j, label=_weakest(left.label, right.label))


def _weakest(*labels: EnergyLabel) -> EnergyLabel:
    return max(labels, key=lambda label: _WEAKNESS[label])


def carbon(energy_j: float | None, *, country: str | None, intensity_g_per_kwh: float | None) -> Carbon | None:
    """Grams of CO2e of these joules, only where the user named a country or an intensity.

    Args:
        energy_j: None gives None grams, with the intensity still stated.
        country: Three letters of ISO 3166-1; its yearly average, from the table that CodeCarbon ships, is used.
        intensity_g_per_kwh: Grams of CO2e per kWh, 1 to 5,000, known to the user.

    Returns:
        None if neither is given.

    Raises:
        InputError: both are given, the country has no entry, or the intensity is out of range.
    """
    if country is not None and intensity_g_per_kwh is not None:
        raise InputError(f"give a country or a carbon intensity, got both ({country}, {intensity_g_per_kwh}): drop one")
    year, source = None, "given by the user"
    if country is not None:
        intensity_g_per_kwh, year, source = _country_intensity(country)
    if intensity_g_per_kwh is None:
        return None
    if not 1 <= intensity_g_per_kwh <= 5000:  # no grid is below 1 g; whoever gives 0.4 means kilograms
        raise InputError(f"carbon intensity must be 1 to 5,000 g per kWh, got {intensity_g_per_kwh}: check the unit")
    emissions_g = None if energy_j is None else to_kwh(energy_j) * intensity_g_per_kwh
    return Carbon(emissions_g=emissions_g, intensity_g_per_kwh=intensity_g_per_kwh, year=year, source=source)


def _country_intensity(country: str) -> tuple[float, int | None, str]:
    """Grams per kWh, year and source of a country's average."""
    from smallmodels.energy.backends import codecarbon_energy_mix

    table, source = codecarbon_energy_mix()
    entry = table.get(country.upper(), {})
    if not entry.get("carbon_intensity"):
        raise InputError(
            f"country must be a three-letter ISO code with a known average, such as FRA, got {country!r}: "
            "correct it, or give a carbon intensity in g per kWh"
        )
    return float(entry["carbon_intensity"]), entry.get("year"), f"average of {entry['country_name']}, {source}"
