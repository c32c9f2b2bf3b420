"""Runs by the paths that a user names: their records, and what belongs to them beside these."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smallmodels import energy, files, folders, records, sweeps
from smallmodels.errors import DamagedError, InputError
from smallmodels.records import RunRecord, Unfinished
from smallmodels.report import Evidence

BESIDE_NAME = "beside.json"
"""Of a kept run: names of the cells that were on its machine meanwhile, which the notes of workers no longer tell."""


def gather(paths: Sequence[str], *, uses_per_day: float | None = None) -> tuple[list[RunRecord], Evidence]:
    """Records and evidence.

    Args:
        paths: Run folders, records, or folders with runs at any depth, such as that of a sweep. A run folder without a
            record is taken for a run that never ended, and counts by what its journal says it cost, or what was kept
            of it.
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
    teachers: dict[str, float] = {}
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
            if (value := _trained_teacher(record, run / records.METRICS_NAME)) is not None:
                teachers.setdefault(record.run_id, value)
            if names := _cells_beside(record, run, stays):
                beside.setdefault(record.run_id, names)
    if not complete:
        raise InputError(
            f"at least one run should be complete, but {', '.join(paths)} holds none: go on with "
            f"`smallmodels run --resume {paths[0]}`"
        )
    never_ended = [run for run_id, run in unfinished.items() if run_id not in complete]
    evidence = Evidence(
        predictions=predictions, unfinished=never_ended, teachers=teachers, beside=beside, uses_per_day=uses_per_day
    )
    return list(complete.values()), evidence


def _run_folders(path: Path) -> Iterator[Path]:
    """A record or a run folder itself, else every run folder beneath."""
    if not path.is_dir() or (path / records.RECORD_NAME).exists():
        yield path
        return
    if (path / records.UNFINISHED_NAME).is_file():
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

    Of a run that was kept elsewhere, those that were kept with it.

    Args:
        record: Of the run.
        run: Its folder.
        known: Stays by the folder of a sweep, which are read once.
    """
    if (kept := run / BESIDE_NAME).is_file():
        return records.from_json(list[str], files.read_json(kept))
    cell = run.absolute().parent.parent
    if cell.parent not in known:
        known[cell.parent] = sweeps.read_stays(cell.parent)
    return sweeps.cells_beside(record, cell.name, known[cell.parent])


def _trained_teacher(record: RunRecord, logged: Path) -> float | None:
    """The best validation of the teacher that a run trained, where its record does not have it; None if unknown.

    Args:
        record: Of the run.
        logged: Its metrics, a line for each logging step and validation.
    """
    if record.teacher_on_validation is not None or not record.curve or not logged.is_file():
        return None
    key = f"validation/{record.metric}"
    values = [line[key] for line in _lines(logged) if line.get("phase") == "teacher" and key in line]
    known = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return max(known) if known and len(known) == len(values) else None


def _lines(logged: Path) -> Iterator[Mapping[str, Any]]:
    """Lines of metrics; a torn or altered one tells nothing."""
    for text in logged.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            if isinstance(line := json.loads(text), dict):
                yield line


# What left no record


def unfinished_runs(path: Path) -> list[Unfinished]:
    """What runs cost that left no record, because they failed, were stopped, or have not ended.

    Their folders tell all of it, so it is written down nowhere else but where records are kept without these folders.

    Args:
        path: Folder of a sweep, or of what holds run folders at any depth.

    Raises: DamagedError if what was kept of one is not what was written.
    """
    return [run for folder in sorted(_without_record(path)) if (run := _unfinished(folder)) is not None]


def _without_record(path: Path) -> Iterator[Path]:
    """Every folder of a run beneath that has no record; a model's has a `config.json` too, which names no run."""
    for file in path.rglob(records.UNFINISHED_NAME):
        if not (file.parent / records.RECORD_NAME).exists():
            yield file.parent
    for file in path.rglob(folders.CONFIG_NAME):
        folder = file.parent
        if not (folder / records.RECORD_NAME).exists() and (
            (folder / records.JOURNAL_NAME).is_file() or "run_id" in _config_of(folder)
        ):
            yield folder


def _unfinished(folder: Path) -> Unfinished | None:
    """What a run without a record has cost; None of a smoke run, which belongs to no account.

    Raises: DamagedError if what was kept of it is not what was written.
    """
    if (folder / records.UNFINISHED_NAME).is_file():
        return _read_unfinished(folder / records.UNFINISHED_NAME)
    config = _config_of(folder)
    if config.get("smoke"):
        return None
    declared = config.get("sweep")
    paid = _paid(folder / records.JOURNAL_NAME)
    measured = paid if paid is not None and paid.label != "missing" else None
    return Unfinished(
        run_id=str(config.get("run_id", folder.name)),
        recipe=str(config.get("recipe", folder.parent.name)),
        sweep_id=str(declared["sweep_id"]) if isinstance(declared, dict) and "sweep_id" in declared else None,
        energy_j=measured.energy_j if measured is not None else None,
        cpu_s=paid.cpu_s if paid is not None else None,
        energy_label=measured.label if measured is not None else None,
    )


def _read_unfinished(file: Path) -> Unfinished:
    try:
        return records.from_json(Unfinished, files.read_json(file))
    except DamagedError as error:
        raise DamagedError(f"{file}: {error}") from None


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


# What is kept of runs, where records are published


def keep_all(
    folder: Path,
    results: Path,
    name_of: Callable[[RunRecord, Path], str | None],
    unfinished_name_of: Callable[[Unfinished], str | None],
) -> None:
    """`sweeps.keep` every complete run below a folder that is no smoke run and has a name, and what the others cost.

    Which cells shared its machine is kept with a run in `beside.json`. Of a run without a record, which failed, was
    stopped or has not ended, `unfinished.json` is kept, until it has one.

    Args:
        folder: With runs at any depth.
        results: Folder of what is kept.
        name_of: Of the folder beneath it for a run, given its record and its own folder; None leaves it out.
        unfinished_name_of: The same for a run without a record.

    Raises:
        InputError: There is no complete run, or two have one name; nothing is kept then.
        DamagedError: A record is not valid.
    """
    chosen: dict[str, tuple[RunRecord, Path]] = {}
    complete: set[str] = set()
    for path in sorted(folder.rglob(records.RECORD_NAME)):
        record = records.read_record(path)
        name = None if record.smoke else name_of(record, path.parent)
        if name is None:
            continue
        if name in chosen:
            raise InputError(
                f"there should be one run of {name}, but there are two, in {chosen[name][1]} and {path.parent}: "
                "move one away"
            )
        chosen[name] = record, path.parent
        complete.add(record.run_id)
    if not chosen:
        raise InputError(f"{folder} should hold complete runs of the sweep, but holds none: check the path")
    never_ended = [(run, unfinished_name_of(run)) for run in unfinished_runs(folder) if run.run_id not in complete]
    stays: dict[Path, list[sweeps.Stay]] = {}
    for name, (record, run) in chosen.items():
        sweeps.keep(run, results / name)
        (results / name / BESIDE_NAME).unlink(missing_ok=True)  # of a run that was kept there before
        if beside := _cells_beside(record, run, stays):
            files.write_json(results / name / BESIDE_NAME, beside)
    for path in results.rglob(records.UNFINISHED_NAME):
        if _read_unfinished(path).run_id in complete:  # it has gone on since
            path.unlink()
    for one, name in never_ended:
        if name is not None:
            (results / name).mkdir(parents=True, exist_ok=True)
            files.write_json(results / name / records.UNFINISHED_NAME, records.to_json(one))
