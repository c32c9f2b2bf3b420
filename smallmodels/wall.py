"""What a meter at the wall socket read, added to the record of a complete run.

Software sees processor, memory and graphics processor. A meter at the socket sees all that the machine draws, and a
person has to read it, before the run and after it. The joules of the record stay what software saw; the reading stands
beside them under its own label, and `calibration` keeps it for later runs on the machine.
"""

from pathlib import Path

from smallmodels import calibration, energy, finishing, records, verification
from smallmodels.errors import InputError, require

_LEAST_S = 60.0
"""Of a shorter run a meter that shows a tenth of a watt-hour says little."""
_LEAST_RATIO = 0.9
"""What counters saw went through the socket, but for the meter's own error."""
_LARGEST_RATIO = 100.0


def attach(folder: Path, wh: float) -> tuple[records.RunRecord, str]:
    """Add what a meter at the wall socket read to the record, card and page of a run; a second reading replaces it.

    The run is verified first, and is whole afterwards.

    Args:
        folder: Of a complete run.
        wh: Watt-hours from the run's begin to its end, pauses left out.

    Returns: The record, and why the reading is not kept for later runs on the machine; empty if it is.

    Raises:
        InputError: There is no complete run, or it cannot have drawn so much or so little.
        PolicyError: The run is in use.
        DamagedError: The run is not what its record says.
    """
    require(wh > 0, "--wall-wh", "> 0", wh)
    with verification.changing(folder) as record:
        reading = _reading(record, energy.from_wh(wh))
        record = finishing.amend(folder, record, wall=reading)
    unfit = _unfit(record)
    if not unfit:
        assert record.energy_j is not None
        calibration.keep(record.environment, record.run_id, wall_j=reading.energy_j, seen_j=record.energy_j)
    return record, unfit


def _reading(record: records.RunRecord, wall_j: float) -> records.WallReading:
    seen = record.energy_j
    ratio = wall_j / seen if seen else None
    if ratio is not None:
        least = _LEAST_RATIO if record.energy_label in records.COUNTED_LABELS else 1 / _LARGEST_RATIO
        if not least <= ratio <= _LARGEST_RATIO:
            shown = f"{energy.to_wh(seen or 0.0):.4g} Wh (label: {record.energy_label})"
            raise InputError(
                f"--wall-wh should be what the whole run drew, and software saw {shown}, got "
                f"{energy.to_wh(wall_j):.4g} Wh: check that it is in Wh and of this run"
            )
    return records.WallReading(energy_j=wall_j, attached_utc=records.now(), ratio=ratio)


def _unfit(record: records.RunRecord) -> str:
    """Why a reading tells nothing about other runs; empty if it does."""
    if not record.energy_j:
        return "software saw no energy to compare it with"
    if record.contended:
        return "other work shared the machine"
    if record.energy_truncated:
        return "the energy journal of the run is not whole"
    if record.duration_s < _LEAST_S:
        return f"the run took less than {_LEAST_S:.0f} s"
    return ""
