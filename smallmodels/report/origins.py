"""Under a comparison: what the runs are not good for, what went in, how joules came about, how to repeat each run."""

from collections.abc import Sequence

from smallmodels.records import RunRecord
from smallmodels.report import formats, words
from smallmodels.report.formats import MISSING
from smallmodels.report.page import Block, Bullets, Row, Section, Table, Text, cut_note

_MAX_ROWS = 200
_LINES = 40


def sections(records: Sequence[RunRecord]) -> list[Section]:
    """The sections at the end of a comparison."""
    found = [_limits_section(records), _repeat_section(records)]
    return [section for section in found if section is not None]


def _limits_section(records: Sequence[RunRecord]) -> Section | None:
    limits = _counted([(limit, record.run_id) for record in records for limit in record.limits], len(records))
    labels = dict.fromkeys(label for r in records for label in [r.energy_label, *_component_labels(r)])
    blocks: list[Block] = []
    if limits:
        blocks += [Text("Limits of the results:"), Bullets(limits[:_LINES])]
    meanings = [f"{label}: {words.LABEL_MEANINGS[label]}" for label in labels if label in words.LABEL_MEANINGS]
    if meanings:
        blocks += [Text("How joules were obtained, in the words of the tables:"), Bullets(meanings)]
    sources = list({tuple(words.source_cells(s)): None for r in records for s in r.sources})
    if sources:
        rows: list[Row] = [[*cells] for cells in sources[:_MAX_ROWS]]
        head = ["Used as", "name", "version", "licence", "rows"]
        note = cut_note(len(sources), len(rows))
        blocks.append(
            Table(caption="Models and data that went in", head=head, rows=rows, text_columns=(1, 2, 3, 4), note=note)
        )
    duties = list(dict.fromkeys(f"{s.name}: {duty}" for r in records for s in r.sources for duty in s.duties))
    if duties:
        blocks += [Text("What the licences ask of you:"), Bullets(duties[:_LINES])]
    return Section("Limits, labels, licences", blocks) if blocks else None


def _component_labels(record: RunRecord) -> list[str]:
    return sorted({component.label for phase in record.phases for component in phase.components.values()})


def _counted(said: Sequence[tuple[str, str]], every: int) -> list[str]:
    """Each sentence once, with the number of runs that say it where not all do."""
    runs: dict[str, set[str]] = {}
    for sentence, run in said:
        runs.setdefault(sentence, set()).add(run)
    return [
        sentence if len(ids) == every else f"In {len(ids)} of {every} runs: {sentence}"
        for sentence, ids in runs.items()
    ]


def _repeat_section(records: Sequence[RunRecord]) -> Section:
    rows: list[Row] = [_repeat_row(record) for record in records[:_MAX_ROWS]]
    head = ["Run", "command", "version", "test data", "machine", "joules are", "made on"]
    table = Table(
        caption="Where each row comes from",
        head=head,
        rows=rows,
        text_columns=(1, 2, 3, 4, 5, 6),
        note="Test data and machine are fingerprints: only runs in which both are the same are ranked together. "
        + cut_note(len(records), len(rows)),
    )
    lead = (
        "The command makes a run again; its config.json, given with --config, also repeats every choice that was "
        "measured then."
    )
    return Section("How to repeat each run", [Text(lead), table])


def _repeat_row(record: RunRecord) -> Row:
    commit = f", commit {record.git_commit[:10]}" if record.git_commit else ""
    changed = " with changes" if record.git_dirty else ""
    data = ", ".join(s.fingerprint[:12] for s in record.sources if s.kind == "dataset" and s.fingerprint) or MISSING
    machine = record.environment.fingerprint[:12]
    version = f"{record.library_version}{commit}{changed}"
    command = formats.clean(record.command or MISSING, 300)
    return [record.run_id, command, version, data, machine, record.energy_label, record.started_utc[:10]]
