"""What readings of a meter at the wall socket say of a machine: joules there for each joule that software saw.

The cache keeps them for each machine and way of obtaining joules, by run. Their factor is noted in later runs there,
and is no measurement of those. It is of the hardware, so other threads, another kernel or driver, and other packages
leave it. CodeCarbon is a part of the way of obtaining joules, because its versions model them differently.
"""

import math
from pathlib import Path
from typing import Any

from smallmodels import entries, files, records
from smallmodels.errors import DamagedError


def factor_of(environment: records.Environment) -> records.WallFactor | None:
    """What the readings that are kept for the machine of an environment come to; None if there are none."""
    kept = list(_readings(_path(environment)).values())
    at_wall, seen = (sum(float(reading[key]) for reading in kept) for key in ("wall_j", "seen_j"))
    return records.WallFactor(factor=at_wall / seen, num_readings=len(kept)) if seen > 0 else None


def keep(environment: records.Environment, run_id: str, *, wall_j: float, seen_j: float) -> None:
    """Keep a reading; one of the same run is replaced.

    Args:
        environment: Of the run.
        run_id: Of the run.
        wall_j: Joules that the meter read, > 0.
        seen_j: Joules that software saw, > 0.

    Raises: As `entries.writing`.
    """
    path = _path(environment)
    with entries.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        readings = {**_readings(path), run_id: {"wall_j": wall_j, "seen_j": seen_j}}
        files.write_json(path, {"machine": _machine(environment), "readings": readings})


def _machine(environment: records.Environment) -> dict[str, Any]:
    """What a factor depends on: the hardware, and how joules are obtained on it."""
    return {
        "processor": environment.processor,
        "num_cores": environment.num_cores,
        "memory_gb": round(environment.memory_mb / 1000),  # older records have the MB
        "gpu": environment.gpu,
        "virtual_machine": environment.virtual_machine,
        "energy_labels": environment.energy_labels,
        "tracking_mode": environment.tracking_mode,
        "codecarbon": environment.versions.get("codecarbon"),
    }


def _path(environment: records.Environment) -> Path:
    return entries.cache_folder() / "wall-readings" / f"{files.sha256_json(_machine(environment))[:40]}.json"


def _readings(path: Path) -> dict[str, Any]:
    """By run id; a file that is damaged or of another shape counts for nothing."""
    try:
        found = files.read_json(path)["readings"]
        return {name: r for name, r in found.items() if _is_usable(r["wall_j"]) and _is_usable(r["seen_j"])}
    except (DamagedError, AttributeError, KeyError, TypeError):
        return {}


def _is_usable(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
