"""The end of a run: its record is put together, its pages are written, and what only a resume needs is removed."""

import dataclasses
import io
import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from smallmodels import (
    __version__,
    accounts,
    calibration,
    checkpoints,
    energy,
    entries,
    environment,
    files,
    licenses,
    parts,
    privacy,
    records,
)
from smallmodels.errors import InputError
from smallmodels.folders import CONFIG_NAME, LOCK_NAME
from smallmodels.settings import Settings

_FILES = frozenset(
    {
        CONFIG_NAME,
        records.JOURNAL_NAME,
        records.METRICS_NAME,
        records.PREDICTIONS_NAME,
        records.PAGE_NAME,
        records.RECORD_NAME,
    }
)
_PHASE_FILES = frozenset({"data.json", entries.PAYER, "result.json"})
_PHASE_FOLDERS = frozenset({"value"})
"""What a run writes whole or not at all into its folder and into that of a phase; a test compares them with a run."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

T = TypeVar("T")


def save_predictions(path: Path, predictions: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as Parquet; arrays with several values per row become lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = {
        name: values.tolist() if hasattr(values, "tolist") else list(values) for name, values in predictions.items()
    }
    content = io.BytesIO()
    pq.write_table(pa.table(plain), content)
    files.write_bytes(path, content.getvalue())


def new_record(
    settings: Settings,
    account: accounts.Account,
    *,
    folder: Path,
    sources: Sequence[records.Source],
    events: Sequence[records.Event],
    num_processes: int,
    **about: Any,
) -> records.RunRecord:
    """The record of a run whose meter has stopped, without payback and hashes of files.

    Args:
        settings: Of the run.
        account: What was paid, and for what work.
        folder: Of the run, which the record does not name.
        sources: Models and data sets that went into it.
        events: Everything unusual.
        num_processes: That trained together.
        about: The fields that the recipe gives.
    """
    commit, dirty = environment.git_state()
    totals, meter = account.totals(), account.meter
    machine = environment.environment(energy_labels=meter.labels, tracking_mode=meter.tracking_mode)
    total = totals.total
    return records.RunRecord(
        run_id=settings.run_id,
        recipe=settings.recipe,
        command=settings.command,
        library_version=__version__,
        git_commit=commit,
        git_dirty=dirty,
        started_utc=settings.started_utc,
        ended_utc=records.now(),
        smoke=settings.smoke,
        num_processes=num_processes,
        config=privacy.values(records.to_json(settings.config)),
        sources=[_published(without_loopback_commit(source), folder) for source in sources],
        accepted_licenses=[i for i in licenses.needing_acceptance(sources) if i in settings.accepted_licenses],
        environment=machine,
        wall_factor=None if total.energy_j is None else calibration.factor_of(machine),
        phases=account.phase_lines(totals),
        duration_s=total.duration_s,
        cpu_s=total.cpu_s,
        energy_j=total.energy_j,
        energy_label=total.label,
        num_segments=totals.num_segments,
        energy_truncated=totals.truncated,
        contended=totals.contended,
        carbon=energy.carbon(total.energy_j, country=settings.country, intensity_g_per_kwh=settings.carbon_intensity),
        payback=None,
        events=[_published(event, folder) for event in events],
        **_as_declared(about, settings.sweep),
    )


def _as_declared(about: Mapping[str, Any], sweep: records.Declaration | None) -> dict[str, Any]:
    """What the recipe says of the run, with what its sweep declared in place of the recipe's own."""
    if sweep is None:
        return dict(about)
    of_curve = about["curve_of"] or about["metric"]  # else its values would be taken for those of the sweep's metric
    return {**about, **records.to_json(sweep), "curve_of": None if of_curve == sweep.metric else of_curve}


def require_declared_metric(results: Sequence[records.Result], sweep: records.Declaration | None) -> None:
    """Refuse results that lack what their sweep ranks by.

    Raises: InputError that names the metrics that there are.
    """
    known = list(dict.fromkeys(name for result in results for name in result.metrics))
    if sweep is not None and sweep.metric not in known:
        raise InputError(
            f"the sweep ranks by {sweep.metric}, but the recipe's results have {', '.join(known) or 'no metric'}: "
            "declare a metric that they have, and start the sweep anew with another --out"
        )


def _published(line: T, folder: Path) -> T:
    """A source or event without folders and secrets."""
    return records.from_json(type(line), privacy.sentences(records.to_json(line), [folder]))


def without_loopback_commit(source: records.Source) -> records.Source:
    """A source without a commit that a server on loopback made up; the hashes of its files say what was read."""
    host = urllib.parse.urlsplit(str(source.notes.get("endpoint", ""))).hostname
    if host not in _LOOPBACK or source.revision is None:
        return source
    notes = {key: value for key, value in source.notes.items() if key not in ("revision", "commit_resolved_utc")}
    return dataclasses.replace(source, revision=None, notes={**notes, "commit": "not the hub's, so it is left out"})


def complete(
    folder: Path, record: records.RunRecord, *, replaces: str, kept: Collection[str] = ()
) -> records.RunRecord:
    """Write card and report, remove what is no longer needed, and write the record last.

    Of a phase that a rule has cut short the newest checkpoint stays, from which it can go on.

    Args:
        folder: Of the run.
        record: From `new_record`.
        replaces: Role that the student replaces, for the point of payback.
        kept: Names of the folders that the run kept, such as `model`.

    Returns: The record as it was written.
    """
    record = dataclasses.replace(record, payback=accounts.payback(record, replaces=replaces))
    record = records.from_json(records.RunRecord, privacy.masked(records.to_json(record)))
    has_adapter = Path(records.ADAPTER_CARD_NAME).parent.name in kept
    for name, text in _pages(record, has_adapter).items():
        files.write_text(folder / name, text)
    _remove_leftovers(folder, kept)
    stopped = {stop.phase for stop in record.stops}
    for phase in (folder / "phases").glob("*"):
        checkpoints.remove_all(phase, but=int(phase.name in stopped))
        parts.remove_all(phase)
    return records.write_record(folder, dataclasses.replace(record, files=_file_hashes(folder)))


def amend(folder: Path, record: records.RunRecord, **changes: Any) -> records.RunRecord:
    """Change what the record of a complete run says, and card and page with it; nothing else in the folder changes.

    The record is written first, so that a killed process leaves card and page for `mend`.

    Args:
        folder: Of a complete run that is whole, and locked.
        record: As it was read.
        changes: Fields of the record.

    Returns: The record as it was written.
    """
    changed = records.from_json(
        records.RunRecord, privacy.masked(records.to_json(dataclasses.replace(record, **changes)))
    )
    pages = _pages(records.statement(changed), records.ADAPTER_CARD_NAME in record.files)
    hashes = {name: files.sha256_bytes(text.encode()) for name, text in pages.items()}
    written = records.write_record(folder, dataclasses.replace(changed, files={**record.files, **hashes}))
    for name, text in pages.items():
        files.write_text(folder / name, text)
    return written


def mend(folder: Path) -> list[str]:
    """Finish what a killed `amend` began: write card and page again, where exactly what the record lists comes out.

    Args:
        folder: Of a complete run, locked.

    Returns: The names of the files that were written.
    """
    _remove_leftovers(folder, ())
    record = records.read_record(folder)
    if not records.is_sealed((folder / records.RECORD_NAME).read_bytes()):
        return []
    has_adapter = records.ADAPTER_CARD_NAME in record.files
    names = (records.CARD_NAME, records.PAGE_NAME, *([records.ADAPTER_CARD_NAME] if has_adapter else ()))
    if all(_has_hash(folder / name, record.files.get(name)) for name in names):
        return []
    mended = []
    for name, text in _pages(records.statement(record), has_adapter).items():
        expected = record.files.get(name)
        if files.sha256_bytes(text.encode()) == expected and not _has_hash(folder / name, expected):
            files.write_text(folder / name, text)
            mended.append(name)
    return mended


def _has_hash(path: Path, expected: str | None) -> bool:
    return path.is_file() and files.sha256_file(path) == expected


def _remove_leftovers(folder: Path, kept: Collection[str]) -> None:
    """Remove what killed processes left half-written, by names that only we give; see `files.remove_leftovers`.

    Only where we write: names of a run's files and kept folders in its folder, of the cards in `model/` and `adapter/`,
    and of a phase's files and its value in the folder of the phase. Checkpoints see to their own.
    """
    files.remove_leftovers(folder, of_files=_FILES.__contains__)
    for card in (folder / records.CARD_NAME, folder / records.ADAPTER_CARD_NAME):
        files.remove_leftovers(card.parent, of_files=card.name.__eq__)
    for path in (folder / name for name in kept):
        files.remove_leftovers(path.parent, of_folders=path.name.__eq__)
    for phase in (folder / "phases").glob("*"):
        files.remove_leftovers(phase, of_files=_PHASE_FILES.__contains__, of_folders=_PHASE_FOLDERS.__contains__)


def _pages(record: records.RunRecord, has_adapter: bool) -> dict[str, str]:
    """Cards and page of what a record says, by their names in the run folder."""
    from smallmodels import cards, report

    of_adapter = {records.ADAPTER_CARD_NAME: cards.adapter_card(record)} if has_adapter else {}
    return {records.CARD_NAME: cards.model_card(record), **of_adapter, records.PAGE_NAME: report.run_page(record)}


def _file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the run but its lock and its record."""
    own = (LOCK_NAME, records.RECORD_NAME)
    return {
        name: files.sha256_file(path)
        for name, path in files.entries(folder).items()
        if name not in own and files.is_plain(path)
    }
