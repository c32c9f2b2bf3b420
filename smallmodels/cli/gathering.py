"""Runs by the paths that a user names: their records, and what belongs to them beside these."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smallmodels import energy, files, folders, records, sweeps
from smallmodels.errors import DamagedError, InputError
from smallmodels.records import RunRecord
from smallmodels.report import Evidence, Unfinished


def gather(paths: Sequence[str], *, uses_per_day: float | None = None) -> tuple[list[RunRecord], Evidence]:
    """Records and evidence.

    Args:
        paths: Run folders, records, or folders with runs at any depth, such as that of a sweep. A run folder without a
            record is taken for a run that never ended, and counts by what its journal says it cost.
        uses_per_day: Of the student, for the payback in days.

    Returns: Every run once, in the order of the paths.

    Raises:
        InputError: A path holds no run, or no run is complete.
        DamagedError: A record, or the note of a worker, cannot be read.
    """
    complete: dict[str, RunRecord] = {}
    predictions: dict[str, Path] = {}
    unfinished: dict[str, Unfinished] = {}
    beside: dict[str, list[str]] = {}
    stays: dict[Path, list[sweeps.Stay]] = {}
    for path in map(Path, paths):
        for folder in _run_folders(path):
            if folder.is_dir() and not (folder / records.RECORD_NAME).exists():
                if (never := _unfinished(folder)) is not None:
                    unfinished[never.run_id] = never
                continue
            record = records.read_run(folder)
            complete.setdefault(record.run_id, record)
            run = folder if folder.is_dir() else folder.parent
            if (found := run / records.PREDICTIONS_NAME).is_file():
                predictions.setdefault(record.run_id, found)
            if names := _cells_beside(record, run, stays):
                beside.setdefault(record.run_id, names)
    if not complete:
        raise InputError(
            f"at least one run should be complete, but {', '.join(paths)} holds none: go on with "
            f"`smallmodels run --resume {paths[0]}`"
        )
    never_ended = [run for run_id, run in unfinished.items() if run_id not in complete]
    evidence = Evidence(predictions=predictions, unfinished=never_ended, beside=beside, uses_per_day=uses_per_day)
    return list(complete.values()), evidence


def _run_folders(path: Path) -> Iterator[Path]:
    """A record or a run folder itself, else every run folder beneath."""
    if not path.is_dir() or (path / records.RECORD_NAME).exists():
        yield path
        return
    if (path / folders.CONFIG_NAME).is_file():
        if not (path / records.JOURNAL_NAME).is_file():
            records.read_run(path)  # says how to go on with it
        yield path
        return
    found = {file.parent for file in path.rglob(records.RECORD_NAME)} | set(_without_record(path))
    if not found:
        records.read_run(path)  # says that there is none
    yield from sorted(found)


def _cells_beside(record: RunRecord, run: Path, known: dict[Path, list[sweeps.Stay]]) -> list[str]:
    """Cells that shared the machine of a run, where it is in the folder of a sweep: `<sweep>/<cell>/<recipe>/<run>`.

    Args:
        record: Of the run.
        run: Its folder.
        known: Stays by the folder of a sweep, which are read once.
    """
    cell = run.absolute().parent.parent
    if cell.parent not in known:
        known[cell.parent] = sweeps.read_stays(cell.parent)
    return sweeps.cells_beside(record, cell.name, known[cell.parent])


# What left no record


def unfinished_runs(path: Path) -> list[Unfinished]:
    """What runs cost that left no record, because they failed, were stopped, or have not ended.

    Their folders tell all of it, so it is written down nowhere else.

    Args:
        path: Folder of a sweep, or of what holds run folders at any depth.
    """
    return [run for folder in sorted(_without_record(path)) if (run := _unfinished(folder)) is not None]


def _without_record(path: Path) -> Iterator[Path]:
    """Every run folder beneath that has no record; a model's folder has a `config.json` too, which names no run."""
    for file in path.rglob(folders.CONFIG_NAME):
        folder = file.parent
        if not (folder / records.RECORD_NAME).exists() and (
            (folder / records.JOURNAL_NAME).is_file() or "run_id" in _config_of(folder)
        ):
            yield folder


def _unfinished(folder: Path) -> Unfinished | None:
    """What a run without a record has cost; None of a smoke run, which belongs to no account."""
    config = _config_of(folder)
    if config.get("smoke"):
        return None
    declared = config.get("sweep")
    paid = _paid(folder / records.JOURNAL_NAME)
    return Unfinished(
        run_id=str(config.get("run_id", folder.name)),
        recipe=str(config.get("recipe", folder.parent.name)),
        sweep_id=str(declared["sweep_id"]) if isinstance(declared, dict) and "sweep_id" in declared else None,
        energy_j=paid.energy_j if paid is not None and paid.label != "missing" else None,
        cpu_s=paid.cpu_s if paid is not None else None,
    )


def _config_of(folder: Path) -> Mapping[str, Any]:
    """What `config.json` says; nothing where it is damaged, so that the run counts under the names of its folders."""
    try:
        config = files.read_json(folder / folders.CONFIG_NAME)
    except DamagedError:
        return {}
    return config if isinstance(config, dict) else {}


def _paid(journal: Path) -> energy.EnergyReading | None:
    """What a journal says; None if it is gone or damaged, so that the account says that a part of it is not known."""
    try:
        return energy.read_journal(journal).total
    except DamagedError:
        return None
