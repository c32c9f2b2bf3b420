"""Write the results in README.md from the records in benchmarks/results, so that no figure there is typed by hand.

Run:    python benchmarks/readme.py            rewrites README.md between its markers, and the picture
        python benchmarks/readme.py --check    changes nothing; exits with 1 if README.md is not what the records say
        python benchmarks/readme.py --check --faults FILE
                                               also exits with 1 if a fault that the tests survived when README.md was
                                               written is not survived in FILE, which pytest --faults-report=FILE wrote
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import files, records
from smallmodels.records import RunRecord
from smallmodels.report import formats, several, single, svg, words

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SPEED_BEGIN, SPEED_END = "<!-- speed:begin -->", "<!-- speed:end -->"
SMALL_BEGIN, SMALL_END = "<!-- small:begin -->", "<!-- small:end -->"
FAULTS_BEGIN, FAULTS_END = "<!-- faults:begin -->", "<!-- faults:end -->"
PICTURE, FAULTS, PEERS, SMALL = "energy-and-quality.svg", "faults.json", "versus_peers.md", "cpu_small.md"
SHOWN_WHOLE = ("distill_text_classifier", "quickstart")
"""Recipes whose records have a table and a panel of their own; all others have a line."""
FaultsReport = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""Marker expression of a test run, id of a fault, name of a test: its counts of `passed`, `failed` and `skipped`."""


def results_text(found: dict[str, RunRecord]) -> str:
    """The Markdown between the markers; the picture stands further up.

    Args:
        found: Records by the name of their folder in benchmarks/results.
    """
    if not found:
        return "No results yet."
    parts = [_front_words(found)]
    for name, record in _whole(found).items():
        said = f"{words.summary(record)} Its page advises: {_advice(record)}"
        parts += [f"### {formats.markdown(record.title)}", formats.markdown(said), _table(record)]
        parts.append(_origin(name, record))
    if others := {name: record for name, record in found.items() if record.recipe not in SHOWN_WHOLE}:
        parts += ["### Other recipes, one run each", _lines(others)]
    return "\n\n".join(parts)


def _advice(record: RunRecord) -> str:
    """Whether to distil, and which model to ship, in one sentence that goes on after a colon."""
    (group,) = several.analysed([record])
    return group.advice[:1].lower() + group.advice[1:]


def _whole(found: dict[str, RunRecord]) -> dict[str, RunRecord]:
    return {name: record for name, record in found.items() if record.recipe in SHOWN_WHOLE}


def _lines(found: dict[str, RunRecord]) -> str:
    """One row for each record: the metric of the models that a reader compares first, and what the run took."""
    head = ["Recipe", "data", "metric", "teacher", "before", "student", "95 % interval", "labels only"]
    rows = []
    for name, record in found.items():
        main = words.main_result(record)
        value = main.metrics.get(record.metric) if main else None
        rows.append(
            [
                name,
                ", ".join(dict.fromkeys(source.name for source in record.sources if source.kind == "dataset")),
                formats.metric_name(record.metric),
                _quality_of(record, "teacher"),
                _quality_of(record, "untrained_student"),
                _quality_of(record, "student"),
                formats.interval(record.metric, value.low if value else None, value.high if value else None),
                _quality_of(record, "label_only"),
                _best_of(record, SIMPLE),
                formats.duration(record.duration_s),
                formats.number(record.cpu_s),
            ]
        )
    table = formats.markdown_table([*head, "best without a network", "run", "CPU-s"], rows, text_columns=(1, 2))
    links = ", ".join(f"[{name}](benchmarks/results/{name}/record.json)" for name in found)
    return f"{table}\n\n{_machines(found)} The records: {links}."


def _machines(found: dict[str, RunRecord]) -> str:
    """Where the runs were, and which of them shared their machine, whose times and costs are too high therefore."""
    places = dict.fromkeys(map(_place, found.values()))
    said = []
    for place in places:
        names = [name for name, r in found.items() if _place(r) == place]
        said.append(f"On {place}: {', '.join(names)}.")
    if shared := [name for name, r in found.items() if r.contended]:
        said.append(f"Other work shared the machine, so that time and CPU-s are too high, of {', '.join(shared)}.")
    return formats.markdown(" ".join(said))


def _place(record: RunRecord) -> str:
    return f"{record.environment.processor}, {record.environment.num_cores} cores"


SIMPLE = ("tfidf", "majority", "word_tags", "unigrams")
"""Roles of baselines that count."""


def _quality_of(record: RunRecord, role: str) -> str:
    return formats.quality(record.metric, words.metric_value(record.result(role), record.metric))


def _best_of(record: RunRecord, roles: tuple[str, ...]) -> str:
    values = [words.metric_value(record.result(role), record.metric) for role in roles]
    known = [value for value in values if value is not None]
    best = max(known, key=lambda value: records.goodness(record.metric, value), default=None)
    return formats.quality(record.metric, best)


def _picture_words(found: dict[str, RunRecord]) -> str:
    return formats.markdown(
        "Quality against the cost of 1,000 uses: " + ", ".join(r.title for r in _whole(found).values())
    )


def _front_words(found: dict[str, RunRecord]) -> str:
    text = (
        "Filled signs: no other model of that run is at least as good and as cheap. Vertical lines are 95 % intervals "
        "over test items. Each is one run with one seed."
    )
    if any(words.ranking_unit(record) == "CPU-s" for record in found.values()):
        text += " On a machine without energy counters, cost is processor time, and joules are estimates."
    return text


def _table(record: RunRecord) -> str:
    joules = "J per 1,000" if record.energy_is_counted else "estimated J per 1,000"
    head = ["Model", formats.metric_name(record.metric), "95 % interval", "parameters", "one input, p50"]
    rows = []
    for result in words.test_results(record):
        use, value = record.inference_of(result.role), result.metrics.get(record.metric)
        rows.append(
            [
                words.role_name(result.role),
                formats.quality(record.metric, words.metric_value(result, record.metric)),
                formats.interval(record.metric, value.low if value else None, value.high if value else None),
                formats.large(use.num_parameters if use else None),
                formats.duration(use.latency_p50_s if use else None),
                formats.number(words.use_cost(use, "CPU-s")),
                formats.number(words.use_cost(use, "J")),
            ]
        )
    return formats.markdown_table([*head, "CPU-s per 1,000", joules], rows)


def _origin(name: str, record: RunRecord) -> str:
    """Where the figures come from: machine, label, commit, record."""
    machine = record.environment
    virtual = ", virtual machine" if machine.virtual_machine else ""
    commit = f"commit {record.git_commit[:12]}" if record.git_commit else "no commit known"
    changed = " with changes on top" if record.git_dirty else ""
    labels = ", ".join(f"{part} {label}" for part, label in machine.energy_labels.items())
    where = f"{machine.processor}, {machine.num_cores} cores{virtual}, trained in {record.model['number_format']}"
    made = f"{where}; where joules come from: {labels}"
    text = formats.markdown(f"{made}; {commit}{changed};")
    return f"{text} [record](benchmarks/results/{name}/record.json)\n\n{formats.fenced(record.command)}"


def picture(found: dict[str, RunRecord]) -> str:
    """One panel per record: quality against the cost of a use, in the cost that may be ranked."""
    panels = []
    for record in _whole(found).values():
        panel = single.use_panel(record)
        if panel is not None:
            panels.append((record.recipe, panel.figure))
    return svg.combine(panels, title=_picture_words(found)) if panels else ""


def read_results(folder: Path) -> dict[str, RunRecord]:
    """Every record in the folders of benchmarks/results, by name."""
    paths = sorted(folder.glob(f"*/{records.RECORD_NAME}"))
    return {path.parent.name: records.read_record(path) for path in paths}


# Faults


@dataclass(frozen=True)
class Group:
    """A section of tests/faults.md."""

    title: str
    rows: dict[str, str]
    """What happens, by id."""
    examples: list[str]
    """Ids that the README shows."""


def read_groups(text: str) -> list[Group]:
    """The sections of tests/faults.md."""
    groups = []
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        rows = dict(re.findall(r"^\| ([A-Z]\d+) \| (.+?) \|", body, re.M))
        examples = re.search(r"^In the README: (.+)$", body, re.M)
        groups.append(Group(title, rows, examples[1].split(", ") if examples else []))
    return groups


def read_faults(path: Path) -> FaultsReport:
    """What pytest --faults-report wrote; nothing where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def survived(report: FaultsReport) -> set[str]:
    """Ids of the faults with a test that passed and none that failed."""
    outcomes: dict[str, set[str]] = {}
    for fault, _, counts in _tests_of(report):
        outcomes.setdefault(fault, set()).update(counts)
    return {fault for fault, found in outcomes.items() if "passed" in found and "failed" not in found}


def _tests_of(report: FaultsReport) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, test and counts; a test stands once for each part of the report in which it ran."""
    for part, faults in report.items():
        for fault, tests in faults.items():
            yield from ((fault, f"{test} {part}", counts) for test, counts in tests.items())


def faults_text(groups: list[Group], report: FaultsReport) -> str:
    """The table of faults survived, in Markdown."""
    if not report:
        return "No report yet."
    rows = []
    for group in groups:
        examples = "; ".join(group.rows[fault] for fault in group.examples)
        rows.append([group.title, *_counts(set(group.rows), report), formats.capital(examples.replace("`", ""))])
    total = _counts({fault for group in groups for fault in group.rows}, report)
    head = ["", "faults survived", "tests passed", "for example"]
    return formats.markdown_table(head, [*rows, ["Together", *total, ""]], text_columns=(3,))


def _counts(faults: set[str], report: FaultsReport) -> list[str]:
    """Faults survived and tests passed; a test that carries several of the ids counts once."""
    passed = {test: counts.get("passed", 0) for fault, test, counts in _tests_of(report) if fault in faults}
    return [f"{len(faults & survived(report))} of {len(faults)}", f"{sum(passed.values()):,}"]


# What other benchmarks say


def summary_in(path: Path, begin: str, end: str) -> str:
    """What a benchmark has put between the same markers in its own page."""
    if not path.is_file():
        return "Not measured yet."
    _, _, rest = path.read_text(encoding="utf-8").partition(begin)
    return rest.partition(end)[0].strip()


# README.md


def rewritten(readme: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """README with the part between two markers replaced.

    Raises: ValueError if it does not hold both markers once, in order.
    """
    if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(begin) > readme.index(end):
        raise ValueError(
            f"README.md should hold {begin} and, after it, {end}, each once: put them where results belong"
        )
    before, _, rest = readme.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def main(arguments: list[str] | None = None) -> int:
    """Rewrite or check README.md; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if README.md is out of date")
    parser.add_argument("--faults", type=Path, help="with --check, a report of faults that must be as good as ours")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    readme, results = options.root / "README.md", options.root / "benchmarks" / "results"
    found, faults = read_results(results), read_faults(results / FAULTS)
    groups = read_groups((options.root / "tests" / "faults.md").read_text(encoding="utf-8"))
    before = readme.read_text(encoding="utf-8")
    after = rewritten(before, results_text(found))
    for page, begin, end in ((PEERS, SPEED_BEGIN, SPEED_END), (SMALL, SMALL_BEGIN, SMALL_END)):
        after = rewritten(after, summary_in(results / page, begin, end), begin, end)
    after = rewritten(after, faults_text(groups, faults), FAULTS_BEGIN, FAULTS_END)
    if options.check:
        if before != after or bool(found) != (results / PICTURE).is_file():
            print("README.md is not what benchmarks/results says: run python benchmarks/readme.py", file=sys.stderr)
            return 1
        if options.faults and (lost := sorted(survived(faults) - survived(read_faults(options.faults)))):
            print(f"{options.faults} should show these faults survived, as README.md says: {lost}", file=sys.stderr)
            return 1
        return 0
    files.write_text(readme, after)
    if found:
        files.write_text(results / PICTURE, picture(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
