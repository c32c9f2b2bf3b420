"""What a finished phase leaves in its folder, so that a resumed run reads it instead of paying again.

`value/` holds files of what the phase returned, with a manifest, and is absent where there are none; `result.json` is
written last and carries its own hash.
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import files, records, values
from smallmodels.errors import DamagedError
from smallmodels.phases import Counts

_RESULT_NAME = "result.json"
_VALUE_NAME = "value"


@dataclass(frozen=True)
class Kept:
    """A finished phase."""

    value: Any
    """What it returned."""
    counts: Counts
    peak_mb: float | None
    """Highest resident memory; None where the system cannot tell."""
    sources: Sequence[records.Source]
    """Models and data sets that it noted."""
    num_steps: int = 0
    """Optimizer steps that it trained the run's own model for."""
    stop: records.Stop | None = None
    """What cut it short, or why it was left out; without that rule it is called again."""


def save(folder: Path, phase: Kept) -> None:
    """Keep a phase: its files with a manifest first, `result.json` last.

    Raises: TypeError that names what cannot be kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with files.atomic_folder(folder / _VALUE_NAME) as value_folder:
        encoded = values.encode(phase.value, value_folder)
    if not any(path.name != files.MANIFEST for path in (folder / _VALUE_NAME).iterdir()):
        shutil.rmtree(folder / _VALUE_NAME)
    content = {
        "value": encoded,
        "counts": records.to_json(phase.counts),
        "peak_memory_mb": phase.peak_mb,
        "sources": records.to_json(list(phase.sources)),
        "num_steps": phase.num_steps,
        "stop": records.to_json(phase.stop),
    }
    files.write_json(folder / _RESULT_NAME, {"sha256": files.sha256_json(content), **content})


def load(folder: Path) -> Kept | None:
    """The phase that was kept here; None if there is none.

    Raises: DamagedError if it is not what was written.
    """
    if not (folder / _RESULT_NAME).exists():
        return None
    try:
        content = files.read_json(folder / _RESULT_NAME)
        if content.pop("sha256", None) != files.sha256_json(content):
            raise DamagedError(f"{folder / _RESULT_NAME} is not what was written: the phase has to run again")
        if (folder / _VALUE_NAME).exists():
            files.check_manifest(folder / _VALUE_NAME)
        value = values.decode(content["value"], folder / _VALUE_NAME)
        sources = [records.from_json(records.Source, source) for source in content["sources"]]
        stop = records.from_json(records.Stop, content["stop"]) if content.get("stop") else None
    except (OSError, LookupError, TypeError, ValueError, ImportError) as error:
        raise DamagedError(str(error)) from error
    counts, num_steps = _counts_from_json(content["counts"]), content.get("num_steps", 0)
    return Kept(value, counts, content["peak_memory_mb"], sources, num_steps, stop)


def drop(folder: Path) -> None:
    """Forget the phase that was kept here, because one before it goes on; what else is in its folder stays."""
    (folder / _RESULT_NAME).unlink(missing_ok=True)
    if (folder / _VALUE_NAME).exists():
        files.remove_folder(folder / _VALUE_NAME)


def names(folder: Path) -> list[str]:
    """Names of the phases that are kept in this folder of phases and did some work."""
    return sorted(path.parent.name for path in folder.glob(f"*/{_RESULT_NAME}") if not _was_left_out(path))


def _was_left_out(path: Path) -> bool:
    try:
        stop = files.read_json(path).get("stop")
        return bool(stop) and records.from_json(records.Stop, stop).is_left_out
    except (DamagedError, AttributeError):
        return False


def _counts_from_json(value: Mapping[str, Any]) -> Counts:
    """The counts that were written; unknown keys of another version are left out."""
    known = {f.name for f in dataclasses.fields(Counts)}
    return Counts(**{key: item for key, item in value.items() if key in known})
