"""Runs by the paths that a user names: their records, and what belongs to them beside these."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from smallmodels import files, folders, records
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
        DamagedError: A record or journal cannot be read.
    """
    complete: dict[str, RunRecord] = {}
    predictions: dict[str, Path] = {}
    unfinished: dict[str, Unfinished] = {}
    for path in map(Path, paths):
        for folder in _run_folders(path):
            if folder.is_dir() and not (folder / records.RECORD_NAME).exists():
                if (run := _unfinished(folder)) is not None:
                    unfinished[run.run_id] = run
                continue
            record = records.read_run(folder)
            complete.setdefault(record.run_id, record)
            beside = (folder if folder.is_dir() else folder.parent) / records.PREDICTIONS_NAME
            if beside.is_file():
                predictions.setdefault(record.run_id, beside)
    if not complete:
        raise InputError(
            f"at least one run should be complete, but {', '.join(paths)} holds none: go on with "
            f"`smallmodels run --resume {paths[0]}`"
        )
    never_ended = [run for run_id, run in unfinished.items() if run_id not in complete]
    evidence = Evidence(predictions=predictions, unfinished=never_ended, uses_per_day=uses_per_day)
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
    found = {file.parent for file in path.rglob(records.RECORD_NAME)}
    found |= {file.parent for file in path.rglob(records.JOURNAL_NAME) if (file.parent / folders.CONFIG_NAME).is_file()}
    if not found:
        records.read_run(path)  # says that there is none
    yield from sorted(found)


def _unfinished(folder: Path) -> Unfinished | None:
    """What a run without a record has cost; None of a smoke run, which belongs to no account."""
    from smallmodels import energy

    config = files.read_json(folder / folders.CONFIG_NAME)
    if not isinstance(config, dict) or "run_id" not in config:
        raise DamagedError(f"{folder / folders.CONFIG_NAME} should be that of a run, but names none: take it out")
    if config.get("smoke"):
        return None
    total = energy.read_journal(folder / records.JOURNAL_NAME).total
    declared = config.get("sweep")
    return Unfinished(
        run_id=str(config["run_id"]),
        recipe=str(config.get("recipe", "")),
        sweep_id=str(declared["sweep_id"]) if isinstance(declared, dict) and "sweep_id" in declared else None,
        energy_j=total.energy_j if total.label != "missing" else None,
        cpu_s=total.cpu_s,
    )
