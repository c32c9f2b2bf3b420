"""What the cells of a sweep would take: as `smallmodels check` foretells, or as cells did that differ in the seed."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from smallmodels import files, records, sweeps

TRIAL = "trial"


@dataclass(frozen=True)
class CellForecast:
    """What a cell takes, as far as it is known before it runs."""

    duration_s: float
    low_s: float
    high_s: float
    energy_j: float | None
    """None where it is not measured."""
    label: str
    disk_bytes: int
    """Of its run folder while it works."""
    source: str
    """`trial`, or which records: `record`, `3 records`."""


def config_key(recipe: Path, config: Any, options: Mapping[str, Any] | None = None) -> str:
    """Equal for cells that differ in their seed alone.

    Args:
        recipe: Its file.
        config: As `config.json` holds it.
        options: Of the run, by the axes that are none of the config.
    """
    rest = (
        {name: value for name, value in config.items() if name != sweeps.SEED} if isinstance(config, dict) else config
    )
    return files.sha256_json([str(recipe), rest, dict(options or {})])


def from_records(found: Sequence[tuple[Path, records.RunRecord]]) -> CellForecast:
    """The mean of complete runs with one config.

    Args:
        found: Their folders and records; at least one.
    """
    durations = [record.duration_s for _, record in found]
    joules = [record.energy_j for _, record in found if record.energy_j is not None]
    return CellForecast(
        duration_s=mean(durations),
        low_s=min(durations),
        high_s=max(durations),
        energy_j=mean(joules) if len(joules) == len(found) else None,
        label=found[0][1].energy_label,
        disk_bytes=max(files.num_bytes(folder) for folder, _ in found),
        source="record" if len(found) == 1 else f"{len(found)} records",
    )


def from_trial(recipe: Path, flags: Sequence[str]) -> CellForecast:
    """What `smallmodels check` says, in a process of its own.

    Raises: SystemExit with the exit code of that process, which has said what is wrong.
    """
    command = [sys.executable, "-m", "smallmodels", "check", str(recipe), *flags, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    told: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    span, joules = told["duration_s"], told["energy_j"]
    return CellForecast(
        duration_s=span["value"],
        low_s=span["low"],
        high_s=span["high"],
        energy_j=None if joules is None else joules["value"],
        label=told["energy_label"],
        disk_bytes=told["peak_bytes"],
        source=TRIAL,
    )
