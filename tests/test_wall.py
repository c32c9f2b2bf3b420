"""What a meter at the wall socket read: attached to a whole run, shown everywhere, and noted in later runs."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from test_verify import Config, finish

from smallmodels import calibration, cli, energy, records, verification
from smallmodels.errors import InputError
from smallmodels.runs import Run


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(folder: Path, *, duration_s: float = 120.0, label: str = "modelled") -> records.RunRecord:
    """A run of so many seconds at 60 W: 2 Wh in two minutes."""
    clock = Clock()
    backend = energy.FakeBackend({"cpu": 60.0}, label=label, clock=clock)

    def work() -> None:
        clock.now += duration_s

    meter = energy.Meter(backend, journal=folder / "journal.jsonl", clock=clock, tick_s=3600)
    with Run(folder, meter=meter) as run:
        run.begin("toy", Config())
        run.phase("train", work)
        return finish(run, inference=[], curve=[])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    make(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(whole, tmp_path / "run")


def test_reading_stands_beside_the_joules_and_the_run_is_whole(folder, capsys):
    before = records.read_record(folder)
    assert cli.main(["energy", str(folder), "--wall-wh", "3"]) == 0
    said = "A meter at the wall socket read 3.00 Wh for the whole run, 1.50 times what software saw (label: wall"
    printed = capsys.readouterr().out
    assert said in printed.replace("\u00a0", " ")
    assert "Later runs on this machine will say so." in printed
    record = verification.verify(folder)
    assert (record.wall.energy_j, record.wall.label, record.wall.ratio) == (10800.0, "wall", 1.5)
    assert dataclasses.replace(record, wall=None, files={}, record_sha256=None) == records.statement(before)
    for name in ("report.html", "model/README.md"):
        assert said in (folder / name).read_text().replace("\u00a0", " ")
    assert cli.main(["show", str(folder)]) == 0
    assert "read 3.00 Wh for the" in " ".join(capsys.readouterr().out.replace("\u00a0", " ").split())


def test_later_run_on_the_machine_says_what_it_would_draw_and_measures_nothing_by_it(folder, tmp_path):
    first = records.read_record(folder)
    assert first.wall_factor is None
    for wh in ("8", "3"):  # the second one of a run takes the place of the first
        assert cli.main(["energy", str(folder), "--wall-wh", wh]) == 0
    later = make(tmp_path / "later")
    assert later.environment.fingerprint == first.environment.fingerprint
    assert later.wall_factor == records.WallFactor(factor=1.5, num_readings=1)
    assert later.energy_j == first.energy_j
    page = (tmp_path / "later" / "report.html").read_text().replace("\u00a0", " ")
    assert "By 1 reading of a meter at the wall socket, this machine draws 1.50 times what software sees" in page
    assert "3.00 Wh for this run: an estimate, not a measurement" in page
    verification.verify(tmp_path / "later")
    assert make(tmp_path / "other", label="counter").wall_factor is None  # another environment


def test_short_run_keeps_its_reading_and_tells_nothing_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    record = make(tmp_path / "run", duration_s=30.0)
    assert cli.main(["energy", str(tmp_path / "run"), "--wall-wh", "1"]) == 0
    assert "nothing of later runs here, because the run took less than 60 s" in capsys.readouterr().out
    assert verification.verify(tmp_path / "run").wall.energy_j == 3600.0
    assert calibration.factor_of(record.environment.fingerprint) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--wall-wh", "0"], "--wall-wh must be > 0, got 0"),
        (["--wall-wh", "nan"], "--wall-wh must be > 0, got nan"),
        (["--wall-wh", "3000"], "software saw 2 Wh (label: modelled), got 3000 Wh: check that it is in Wh"),
        ([], "needs --wall-wh as well"),
    ],
)
def test_reading_that_cannot_be_is_refused_and_the_run_unchanged(folder, capsys, words, message):
    before = (folder / "record.json").read_bytes()
    assert cli.main(["energy", str(folder), *words]) == 2
    assert message in capsys.readouterr().err
    assert (folder / "record.json").read_bytes() == before


def test_reading_below_what_counters_saw_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    make(tmp_path / "run", label="counter")
    assert cli.main(["energy", str(tmp_path / "run"), "--wall-wh", "1.5"]) == 2
    assert "software saw 2 Wh (label: counter)" in capsys.readouterr().err


def test_altered_run_takes_no_reading(folder, capsys):
    (folder / "metrics.jsonl").write_text("{}\n")
    assert cli.main(["energy", str(folder), "--wall-wh", "3"]) == 4
    assert "metrics.jsonl" in capsys.readouterr().err


def test_damaged_readings_of_a_machine_count_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path))
    assert calibration.factor_of("a") is None
    for run_id, wall_j in (("one", 300.0), ("two", 100.0)):
        calibration.keep("a", run_id, wall_j=wall_j, seen_j=100.0)
    assert calibration.factor_of("a") == records.WallFactor(factor=2.0, num_readings=2)
    (path,) = tmp_path.rglob("*.json")
    for content in ("", "[]", json.dumps({"readings": {"one": {"wall_j": "x", "seen_j": 1}}})):
        path.write_text(content)
        assert calibration.factor_of("a") is None


def test_reading_needs_a_complete_run(tmp_path):
    with pytest.raises(InputError, match="should be a run folder"):
        verification.changing(tmp_path).__enter__()
