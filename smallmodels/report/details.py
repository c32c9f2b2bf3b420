"""The lower half of the page of one run: where the cost went, classes, examples, sources, machine, method."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from smallmodels.records import Environment, Phase, RunRecord
from smallmodels.report import formats, groups, words
from smallmodels.report.formats import MISSING, number
from smallmodels.report.page import MAX_ROWS, Block, Bullets, Cell, Code, Picture, Row, Section, Table, Text, cut_note
from smallmodels.report.pictures import phases
from smallmodels.report.words import Unit

WORST_CLASSES = 10
_EXAMPLES = 20
_EVALUATIONS = 20
_LINES = 40


def sections(record: RunRecord, unit: Unit) -> list[Section | None]:
    """The sections in order; None where the record has nothing for one."""
    return [
        _phases_section(record),
        _classes_section(record),
        _groups_section(record),
        _external_section(record),
        _examples_section(record),
        _sources_section(record),
        _machine_section(record),
        _method_section(record, unit),
        _repeat_section(record),
    ]


# --- phases -----------------------------------------------------------------------------------------------------------


def _phases_section(record: RunRecord) -> Section | None:
    if not record.phases:
        return None
    counted = record.energy_is_counted
    total = record.energy_j if counted else record.cpu_s
    rows: list[Row] = [
        [p.name, _share(p.energy_j if counted else p.cpu_s, total), *_phase_cells(p)] for p in record.phases
    ]
    totals = [formats.duration(record.duration_s), number(record.cpu_s), number(record.energy_j), record.energy_label]
    rows.append(["Whole run", "", *totals, ""])
    table = Table(
        caption="Cost of each phase",
        head=["Phase", "share of joules" if counted else "share of CPU-s", "time", "CPU-s",
              "J" if counted else "estimated J", "joules are", "owed to caches"],
        rows=rows,
        text_columns=(5,),
        strong=(len(rows) - 1,),
        note="Owed to caches: what an earlier run paid for work that this one took over.",
    )  # fmt: skip
    panels = phases.panels_of_one(record)
    blocks: list[Block] = [Picture(panels, table) if panels else table, _work_table(record)]
    if any(p.components for p in record.phases):
        blocks.append(_labels_table(record))
    blocks += [Text(sentence) for sentence in words.beside_sentences(record)]
    if record.carbon is not None:
        blocks.append(Text(words.carbon_words(record.carbon)))
    return Section("Where the cost went", blocks)


def _share(part: float | None, total: float | None) -> Cell | str:
    if part is None or not total:
        return MISSING
    share = part / total
    return Cell(f"{100 * share:.0f}\u00a0%", min(max(share, 0.0), 1.0))


def _phase_cells(phase: Phase) -> list[str]:
    owed = MISSING
    if phase.shared_energy_j == 0 and not phase.shared_cpu_s:
        owed = "0"
    elif phase.shared_energy_j is not None:
        owed = formats.energy(phase.shared_energy_j)
        owed += f", {formats.cpu_seconds(phase.shared_cpu_s)}" if phase.shared_cpu_s is not None else ""
    return [formats.duration(phase.duration_s), number(phase.cpu_s), number(phase.energy_j), phase.label, owed]


def _work_table(record: RunRecord) -> Table:
    """What models did in each phase, and how well they used the machine."""
    rows: list[Row] = [
        [
            p.name, p.device or MISSING, formats.large(p.num_tokens), _percent(p.real_token_fraction),
            number(p.tokens_per_s), _percent(p.utilisation),
            MISSING if p.peak_memory_mb is None else formats.size(p.peak_memory_mb * 1e6),
        ]
        for p in record.phases
    ]  # fmt: skip
    return Table(
        caption="Work of each phase",
        head=["Phase", "ran on", "real tokens", "of processed ones", "real tokens per second", "utilisation",
              "peak memory"],
        rows=rows,
        note="Processed tokens are the real ones and padding. Utilisation: operations per second over the rate of "
        "matrix products measured on this machine. The time of validations during training counts in both rates, "
        "their work does not. Peak memory: of the process, with all that it had loaded before.",
    )  # fmt: skip


def _percent(share: float | None) -> str:
    return f"{100 * share:.0f}\u00a0%" if share is not None and formats.is_number(share) else MISSING


def _labels_table(record: RunRecord) -> Table:
    """Joules of the run by part of the machine and by how they were obtained."""
    sums: dict[tuple[str, str], float | None] = {}
    for phase in record.phases:
        for name, component in phase.components.items():
            key = (name, component.label)
            before = sums.get(key)
            sums[key] = before if component.energy_j is None else (before or 0.0) + component.energy_j
    total = sum(joules for joules in sums.values() if joules is not None)
    rows: list[Row] = [
        [name.upper(), _share(joules, total), number(joules), label, words.LABEL_MEANINGS.get(label, label)]
        for (name, label), joules in sorted(sums.items())
    ]
    head = ["Part", "share", "J", "label", "which means"]
    return Table(caption="How the joules were obtained", head=head, rows=rows, text_columns=(3, 4))


# --- classes and examples ---------------------------------------------------------------------------------------------


def _classes_section(record: RunRecord) -> Section | None:
    main = words.main_result(record)
    if main is None or not main.per_class:
        return None
    ordered = sorted(main.per_class, key=lambda row: (_f1(row), formats.clean(row.get("label"), 80)))
    head = ["Class", "F1", "precision", "recall", "test items"]
    count = min(WORST_CLASSES, len(ordered))
    caption = f"The {count} classes it does worst on" if len(ordered) > count else "Every class, worst first"
    blocks: list[Block] = [Table(caption=caption, head=head, rows=_class_rows(ordered[:count]))]
    if len(ordered) > count:
        rows = _class_rows(ordered[:MAX_ROWS])
        fold, note = f"All {len(ordered):,} classes", cut_note(len(ordered), len(rows))
        blocks.append(Table(caption="Every class, worst first", head=head, rows=rows, fold=fold, note=note))
    return Section("Class by class", blocks)


def _f1(row: Mapping[str, Any]) -> float:
    value: Any = row.get("f1")
    return float(value) if formats.is_number(value) else -1.0


def _class_rows(classes: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    for each in classes:
        shares = [each.get(key) for key in ("f1", "precision", "recall")]
        cells = [f"{value:.3f}" if formats.is_number(value) else MISSING for value in shares]
        rows.append([formats.clean(each.get("label"), 80), *cells, formats.large(each.get("support"))])
    return rows


def _groups_section(record: RunRecord) -> Section | None:
    """Parts of the test items, such as languages, of every model that was measured on them."""
    results = [r for r in words.test_results(record) if r.groups]
    if not results:
        return None
    blocks: list[Block] = []
    for result in sorted(results, key=lambda r: r is not words.main_result(record)):
        table = groups.table_of(result.groups[:MAX_ROWS])
        name, cut = words.role_name(result.role), cut_note(len(result.groups), len(table.rows))
        blocks.append(
            Table(
                caption=f"{name}, group by group",
                head=table.head,
                rows=[[*row] for row in table.rows],
                text_columns=table.text_columns,
                note=" ".join([*groups.extremes(result.groups), *table.notes, cut]).strip(),
                fold=f"{name}, group by group" if blocks else "",
            )
        )
    return Section("Group by group", blocks)


def _external_section(record: RunRecord) -> Section | None:
    """What other programs made of the finished model."""
    if not record.external_evaluations:
        return None
    blocks: list[Block] = []
    for evaluation in record.external_evaluations[-_EVALUATIONS:]:
        rows: list[Row] = [[*words.external_cells(result)] for result in evaluation.results[:MAX_ROWS]]
        cut = cut_note(len(evaluation.results), len(rows))
        blocks.append(
            Table(
                caption=words.external_title(evaluation),
                head=words.EXTERNAL_HEAD,
                rows=rows,
                text_columns=(1,),
                note=" ".join([*words.external_notes(evaluation), cut]).strip(),
            )
        )
    earlier = len(record.external_evaluations) - len(blocks)
    if earlier:
        blocks.append(Text(f"{earlier:,} earlier ones are left out here and stand in record.json."))
    return Section("On the tasks of others", [Text(words.EXTERNAL_NOTE), *blocks])


def _examples_section(record: RunRecord) -> Section | None:
    if not record.examples:
        return None
    rows: list[Row] = [
        [formats.clean(example.get("input"), 300), "\n".join(words.answer_lines(example.get("answers")))]
        for example in record.examples[:_EXAMPLES]
    ]
    table = Table(
        caption="What the student answers",
        head=["Input", "answers, best first"],
        rows=rows,
        text_columns=(1,),
        note=cut_note(len(record.examples), len(rows)),
    )
    return Section("See for yourself", [table])


# --- sources, machine, method, repeating ------------------------------------------------------------------------------


def _sources_section(record: RunRecord) -> Section | None:
    if not record.sources:
        return None
    rows: list[Row] = [[*words.source_cells(s)] for s in record.sources]
    head = ["Used as", "name", "version", "licence", "rows"]
    blocks: list[Block] = [
        Table(caption="Models and data that went in", head=head, rows=rows, text_columns=(1, 2, 3, 4))
    ]
    duties = list(dict.fromkeys(f"{s.name}: {duty}" for s in record.sources for duty in s.duties))
    notes = [f"{s.name}: {_notes_words(s.notes)}" for s in record.sources if s.notes]
    for lead, lines in (
        ("Accepted by whoever made this run:", words.acceptance(record)),
        ("What the licences ask of you:", duties),
        ("Worth knowing about the sources:", notes),
        ("Limits of the result:", record.limits),
    ):
        if lines:
            blocks += [Text(lead), Bullets(lines[:_LINES])]
    return Section("Sources, licences, limits", blocks)


def _notes_words(notes: Mapping[str, Any]) -> str:
    """Notes of a source in one sentence: `num_entries` is said as `entries`."""
    said = [f"{key.removeprefix('num_').replace('_', ' ')} {words.plain(v)}" for key, v in list(notes.items())[:_LINES]]
    return "; ".join(said)


def _machine_section(record: RunRecord) -> Section:
    e = record.environment
    versions = ", ".join(f"{name} {version}" for name, version in e.versions.items())
    facts = {**machine_facts(e), "Versions": versions, "Fingerprint": e.fingerprint[:16]}
    table = Table(
        caption="Machine and software",
        head=["What", "found"],
        rows=[[name, value] for name, value in facts.items()],
        text_columns=(1,),
        note="Only runs with the same fingerprint may be ranked together.",
    )
    return Section("Machine", [table])


def machine_facts(found: Environment) -> dict[str, str]:
    """What a fingerprint is of, in words, but for the versions of the software."""
    instructions = found.vector_instructions
    return {
        "Processor": found.processor,
        "Cores": str(found.num_cores),
        "Threads": str(found.num_threads),
        **({"Vector instructions": instructions} if instructions else {}),
        "Memory": f"{found.memory_mb:,} MB",
        "GPU": f"{found.gpu}, driver {found.gpu_driver or 'unknown'}" if found.gpu else "none",
        "Operating system": found.operating_system,
        "Virtual machine": {True: "yes", False: "no", None: "unknown"}[found.virtual_machine],
        "Power policy": found.power_policy or "unknown",
        "Energy tracking": f"{found.tracking_mode}; {words.plain(found.energy_labels)}",
    }


def _method_section(record: RunRecord, unit: Unit) -> Section:
    lines = [
        "Quality and cost come from the same run.",
        "Quality has 95\u00a0% intervals over the items of the test split, which was read once, after every choice.",
        "CPU-seconds are the processor time of the run and of the processes that it started, as the system counts it.",
    ]
    if unit == "CPU-s":
        lines.append(
            "Joules are computed from nominal powers here. Such a figure is mostly a clock, so models are ranked by "
            "CPU-seconds, and joules are only shown."
        )
    else:
        lines.append("Joules are read from counters or from power that was sampled, so models are ranked by them.")
    if record.margin is not None:
        name = formats.metric_name(record.metric)
        margin = formats.difference(record.metric, record.margin)
        lines.append(f"Declared before the run: a difference of less than {margin} in {name} counts as equal.")
    if record.carbon is None:
        lines.append("No grams of CO2e: neither a country nor a carbon intensity was given, and none is assumed.")
    return Section("How to read these numbers", [Bullets([*lines, words.COVERAGE, words.REBOUND])])


def _repeat_section(record: RunRecord) -> Section:
    commit = f"commit {record.git_commit[:12]}" if record.git_commit else "no commit known"
    changed = ", with changes on top" if record.git_dirty else ""
    blocks: list[Block] = [Text(f"With smallmodels {record.library_version} ({commit}{changed}):")]
    if record.command:
        blocks.append(Code(record.command))
    blocks.append(Text("The config.json of the run repeats it with every choice that was measured then."))
    if record.events:
        rows: list[Row] = [[e.time_utc, e.kind, e.message] for e in record.events[:MAX_ROWS]]
        blocks.append(
            Table(
                caption="Unusual events, in order",
                head=["Time (UTC)", "kind", "what happened"],
                rows=rows,
                text_columns=(1, 2),
                note=cut_note(len(record.events), len(rows)),
            )
        )
    config = json.dumps(record.config, indent=2, ensure_ascii=False, default=str)
    blocks.append(Code(formats.clean(config, 20_000), fold="Configuration as it was used"))
    if record.files:
        names = list(record.files.items())[:MAX_ROWS]
        blocks.append(
            Table(
                caption="SHA-256 of the files of the run",
                head=["File", "SHA-256"],
                rows=[[name, digest] for name, digest in names],
                text_columns=(1,),
                note=cut_note(len(record.files), len(names)),
                fold=f"Hashes of {len(record.files):,} files",
            )
        )
    return Section("Repeat it", blocks)
