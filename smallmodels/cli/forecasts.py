"""What the cells of a sweep would take: as `smallmodels check` foretells, or as cells did that differ in the seed.

What cells share in the cache, such as a fine-tuned teacher and its signal, is paid by the first that needs it. A trial
is made once for all seeds of a config, so what its entries are made from is taken to be the same for all of them, as it
is where a recipe keeps to `teacher_seed` and `split_seed`.
"""

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from smallmodels import entries, files, records, sweeps

TRIAL = "trial"


@dataclass(frozen=True)
class Shared:
    """What a cell pays for the cache, so that later cells that need the same do not."""

    name: str
    """Equal for what two cells share."""
    duration_s: float
    energy_j: float | None
    """None where it is not measured."""
    disk_bytes: int


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
    """Of its run folder while it works; where records tell, when it is complete."""
    kept_bytes: int
    """Of its run folder when it is complete."""
    source: str
    """`trial`, or which records: `record`, `3 records`."""
    shared: tuple[Shared, ...] = ()
    """What of this it pays for the cache."""
    spared_s: float = 0.0
    """What it would take more if a cell before it did not pay for the cache."""

    def without(self, names: Collection[str]) -> "CellForecast":
        """The same for a cell that finds these entries in the cache; the range keeps its width in relation to it."""
        found = [entry for entry in self.shared if entry.name in names]
        duration_s = max(self.duration_s - sum(entry.duration_s for entry in found), 0.0)
        energy_j = records.whole_sum([self.energy_j, *(None if e.energy_j is None else -e.energy_j for e in found)])
        scale = duration_s / self.duration_s if self.duration_s else 1.0
        return replace(
            self,
            duration_s=duration_s,
            low_s=scale * self.low_s,
            high_s=scale * self.high_s,
            energy_j=None if energy_j is None else max(energy_j, 0.0),
            shared=tuple(entry for entry in self.shared if entry.name not in names),
            spared_s=self.spared_s + self.duration_s - duration_s,
        )


@dataclass(frozen=True)
class Total:
    """What cells take together, one after the other."""

    duration_s: float
    low_s: float
    high_s: float
    energy_j: float | None
    """None where that of a cell is not known."""
    is_counted: bool
    """Whether all joules are measured."""
    disk_bytes: int
    """At most at once: the complete runs, the one that works, and what all of them have put into the cache."""
    spared_s: float
    """What they would take more if each of them paid for what they share."""


def one_after_the_other(found: Sequence[CellForecast]) -> list[CellForecast]:
    """What each cell takes where those before it have paid for what they share.

    Args:
        found: Of cells in the order in which they run, each as if it were alone.
    """
    paid: set[str] = set()
    cells = []
    for cell in found:
        cells.append(cell.without(paid))
        paid |= {entry.name for entry in cell.shared}
    return cells


def total(cells: Sequence[CellForecast]) -> Total:
    """What a sweep takes.

    Args:
        cells: From `one_after_the_other`; at least one.
    """
    before, most = 0, 0
    for cell in cells:
        most = max(most, before + cell.disk_bytes)
        before += cell.kept_bytes
    return Total(
        duration_s=sum(cell.duration_s for cell in cells),
        low_s=sum(cell.low_s for cell in cells),
        high_s=sum(cell.high_s for cell in cells),
        energy_j=records.whole_sum(cell.energy_j for cell in cells),
        is_counted=all(cell.label in records.COUNTED_LABELS for cell in cells),
        disk_bytes=max(most, before) + sum(entry.disk_bytes for cell in cells for entry in cell.shared),
        spared_s=sum(cell.spared_s for cell in cells),
    )


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
    """The mean of complete runs with one config, without what they paid for entries that the cache still has.

    Args:
        found: Their folders and records; at least one.
    """
    paid = entries.paid_by([folder for folder, _ in found])
    durations: list[float] = []
    joules: list[float | None] = []
    for (_, record), own in zip(found, paid, strict=True):
        paid_j = own.energy_j if own.duration_s else 0.0
        durations.append(max(record.duration_s - own.duration_s, 0.0))
        is_known = record.energy_j is not None and paid_j is not None
        joules.append(max((record.energy_j or 0.0) - (paid_j or 0.0), 0.0) if is_known else None)
    energy_j = records.whole_sum(joules)
    sizes = [files.num_bytes(folder) for folder, _ in found]
    return CellForecast(
        duration_s=mean(durations),
        low_s=min(durations),
        high_s=max(durations),
        energy_j=None if energy_j is None else energy_j / len(found),
        label=found[0][1].energy_label,
        disk_bytes=max(sizes),
        kept_bytes=max(sizes),
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
        kept_bytes=told["run_bytes"],
        source=TRIAL,
        shared=tuple(
            Shared(entry["name"], entry["duration_s"], entry["energy_j"], entry["size_bytes"])
            for entry in told["entries"]
        ),
    )
