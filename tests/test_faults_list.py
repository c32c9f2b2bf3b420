"""Every fault of tests/faults.md has a test with its id, or a reason for having none; and the report of them."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import faults_report
import pytest

from benchmarks import readme

ROOT = Path(__file__).parents[1]


def names_of_tests() -> list[str]:
    files = sorted((ROOT / "tests").glob("test_*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if node.name.startswith("test_")]


def test_every_fault_has_a_test_or_a_reason_and_no_test_an_unknown_id():
    listed = faults_report.listed()
    tested = {fault for name in names_of_tests() for fault in faults_report.ids_in(name)}
    reasoned = {fault for fault, reason in listed.items() if reason}
    assert tested - set(listed) == set(), "tests carry ids that tests/faults.md does not have"
    assert tested & reasoned == set(), "these have a test, so tests/faults.md should give no reason for having none"
    assert set(listed) - tested - reasoned == set(), "give these a test, or a reason in tests/faults.md"


def test_ids_are_words_of_a_name():
    assert faults_report.ids_in("test_c1_x_is_refused_k10[t2_r3]") == ["C1", "K10"]
    assert faults_report.ids_in("test_top_k_of_p50_and_mrr_at_10") == ["P50"]
    assert faults_report.ids_in("test_torch2_x11y_c01") == []


def test_the_readme_shows_every_group_and_knows_its_examples():
    groups = readme.read_groups(faults_report.LIST.read_text(encoding="utf-8"))
    assert {fault for group in groups for fault in group.rows} == set(faults_report.listed())
    assert [group.title for group in groups if not group.examples or not set(group.examples) <= set(group.rows)] == []


TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_c1_passes(number): ...
@pytest.mark.faults
def test_t2_passes_k10(): ...
@pytest.mark.skip(reason="no hub")
def test_h1_is_skipped(): ...
def test_r1_fails(): assert False
@pytest.fixture
def broken(): raise ValueError
def test_r2_has_no_fixture(broken): ...
def test_without_id(): ...
"""


@pytest.fixture
def report(tmp_path):
    """The report of two runs of the tests above."""
    for name in ("faults_report.py", "faults.md"):
        (tmp_path / name).write_text((ROOT / "tests" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["faults_report"]')
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = faults\naddopts = -m 'not faults'\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    for words in ([], ["-m", "faults"]):
        command = [sys.executable, "-m", "pytest", "-q", "--faults-report=report.json", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == (0 if words else 1), done.stdout + done.stderr
    return json.loads((tmp_path / "report.json").read_text())


@pytest.mark.slow
def test_report_of_several_runs_holds_outcomes_of_every_id(report):
    counts = {fault: [*tests.values()] for part in report.values() for fault, tests in part.items()}
    for tests in counts.values():
        assert [isinstance(test.pop("seconds"), float) for test in tests] == [True]
    one, skipped, failed = [{"passed": 1}], [{"skipped": 1}], [{"failed": 1}]
    assert counts == {"C1": [{"passed": 2}], "T2": one, "K10": one, "H1": skipped, "R1": failed, "R2": failed}
    assert [list(part) for part in report.values()] == [["C1", "R1", "R2", "H1"], ["T2", "K10"]]
    assert readme.survived(report) == {"C1", "T2", "K10"}


@pytest.mark.slow
def test_readme_counts_a_test_with_two_ids_once_and_notices_a_fault_that_is_lost(report, tmp_path, capsys):
    root, results = tmp_path / "root", tmp_path / "root" / "benchmarks" / "results"
    results.mkdir(parents=True)
    markers = [text for text in vars(readme).values() if isinstance(text, str) and text.startswith("<!-- ")]
    (root / "README.md").write_text("\n".join(markers))
    (root / "tests").mkdir()
    rows = "| C1 | a | b | |\n| C2 | c | d | |\n\n## Two\n\nIn the README: T2\n\n| T2 | e | f | |\n| K10 | g | h | |\n"
    (root / "tests" / "faults.md").write_text(f"# Faults\n\n## One\n\nIn the README: C1, C2\n\n{rows}")
    (results / readme.FAULTS).write_text(json.dumps(report))
    assert readme.main(["--root", str(root)]) == 0
    table = (root / "README.md").read_text()
    assert "| One | 1 of 2 | 2 | A; c |" in table
    assert "| Two | 2 of 2 | 1 | E |" in table
    assert "| Together | 3 of 4 | 3 |  |" in table

    check = ["--root", str(root), "--check", "--faults", str(tmp_path / "report.json")]
    assert readme.main(check) == 0
    for counts in ({"failed": 1}, {"skipped": 1}, None):
        changed = json.loads(json.dumps(report))
        changed["faults"]["T2"] = {"test_some.py::test_t2_passes_k10": counts} if counts else {}
        (tmp_path / "report.json").write_text(json.dumps(changed))
        assert readme.main(check) == 1
        assert "survived, as README.md says: ['T2']" in capsys.readouterr().err
