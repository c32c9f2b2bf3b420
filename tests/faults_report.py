"""The list in tests/faults.md, the ids in the names of tests, and `pytest --faults-report=FILE`, which joins them.

A report holds one part per marker expression, so that runs with `-m slow` and `-m faults` add to what the default
run wrote; a run with the same expression replaces its part.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("faults.md")
_ID = re.compile(r"[cdmtrkephxs][1-9]\d?")


def ids_in(name: str) -> list[str]:
    """`["C1", "K10"]` for `test_c1_k10_is_refused[param]`."""
    return [word.upper() for word in name.partition("[")[0].split("_") if _ID.fullmatch(word)]


def listed() -> dict[str, str]:
    """Every id of the list with the reason for having no test; empty where it should have one."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in LIST.read_text().splitlines() if line[:1] == "|"
    ]
    return {row[0]: row[-1] for row in rows if _ID.fullmatch(row[0].lower())}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-report", type=Path, help="add to this JSON file which faults the tests survived")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--faults-report") and not hasattr(
        config, "workerinput"
    ):  # those of pytest-xdist tell this one
        config.pluginmanager.register(FaultsReport(config.getoption("--faults-report"), config.getoption("-m")))


class FaultsReport:
    """Counts the outcomes of every test that carries an id."""

    def __init__(self, path: Path, part: str) -> None:
        self.path, self.part = path.absolute(), part
        self.outcomes: dict[str, Counter[str]] = {}
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid.partition("[")[0]
        self.seconds[test] += report.duration
        if report.when == "call" or not report.passed:  # a test may also be skipped or fail in its setup or teardown
            self.outcomes.setdefault(test, Counter())[report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        if not self.outcomes:
            return
        found: dict[str, dict[str, dict[str, float]]] = {}
        for test, outcomes in sorted(self.outcomes.items()):
            for fault in ids_in(test.rpartition("::")[2]):
                found.setdefault(fault, {})[test] = {**dict(outcomes), "seconds": round(self.seconds[test], 1)}
        report = json.loads(self.path.read_text()) if self.path.exists() else {}
        report[self.part] = {fault: found[fault] for fault in listed() if fault in found}
        self.path.write_text(json.dumps(report, indent=1) + "\n")
