"""What readings of a meter at the wall socket say of a machine: joules there for each joule that software saw.

The cache keeps them for each environment (`records.Environment.fingerprint`), by run. Their factor is noted in later
runs there, and is no measurement of those.
"""

import math
from pathlib import Path
from typing import Any

from smallmodels import entries, files, records
from smallmodels.errors import DamagedError


def factor_of(fingerprint: str) -> records.WallFactor | None:
    """What the readings that are kept for an environment come to; None if there are none."""
    kept = list(_readings(fingerprint).values())
    at_wall, seen = (sum(float(reading[key]) for reading in kept) for key in ("wall_j", "seen_j"))
    return records.WallFactor(factor=at_wall / seen, num_readings=len(kept)) if seen > 0 else None


def keep(fingerprint: str, run_id: str, *, wall_j: float, seen_j: float) -> None:
    """Keep a reading; one of the same run is replaced.

    Args:
        fingerprint: Of the run's environment.
        run_id: Of the run.
        wall_j: Joules that the meter read, > 0.
        seen_j: Joules that software saw, > 0.

    Raises: As `entries.writing`.
    """
    path = _path(fingerprint)
    with entries.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        readings = {**_readings(fingerprint), run_id: {"wall_j": wall_j, "seen_j": seen_j}}
        files.write_json(path, {"fingerprint": fingerprint, "readings": readings})


def _path(fingerprint: str) -> Path:
    return entries.cache_folder() / "wall-readings" / f"{files.sha256_bytes(fingerprint.encode())[:40]}.json"


def _readings(fingerprint: str) -> dict[str, Any]:
    """By run id; a file that is damaged or of another shape counts for nothing."""
    try:
        found = files.read_json(_path(fingerprint))["readings"]
        return {name: r for name, r in found.items() if _is_usable(r["wall_j"]) and _is_usable(r["seen_j"])}
    except (DamagedError, AttributeError, KeyError, TypeError):
        return {}


def _is_usable(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
