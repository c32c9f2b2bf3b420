"""What a meter at the wall socket read: attached to a whole run, shown everywhere, and noted in later runs."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from scripted_energy import Clock, scripted_meter
from test_verify import Config, finish

from smallmodels import calibration, cli, environment, records, verification
from smallmodels.energy.machine import SharedMachine
from smallmodels.errors import InputError
from smallmodels.runs import Run


def make(folder: Path, *, duration_s: float = 120.0, label: str = "modelled") -> records.RunRecord:
    """A run of so many seconds at 60 W: 2 Wh in two minutes."""
    clock = Clock()

    def work() -> None:
        clock.now += duration_s

    meter = scripted_meter(folder, clock, power_w=60.0, label=label)
    with pytest.MonkeyPatch.context() as patch, Run(folder, meter=meter) as run:
        patch.setattr(SharedMachine, "is_contended", lambda _: False)  # other tests run beside this one
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
    assert make(tmp_path / "other", label="counter").wall_factor is None  # another way of obtaining joules


def test_short_run_keeps_its_reading_and_tells_nothing_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    record = make(tmp_path / "run", duration_s=30.0)
    assert cli.main(["energy", str(tmp_path / "run"), "--wall-wh", "1"]) == 0
    assert "nothing of later runs here, because the run took less than 60 s" in capsys.readouterr().out
    assert verification.verify(tmp_path / "run").wall.energy_j == 3600.0
    assert calibration.factor_of(record.environment) is None


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


def test_factor_of_a_machine_outlives_new_packages_and_another_number_of_threads(folder):
    assert cli.main(["energy", str(folder), "--wall-wh", "3"]) == 0
    own = records.read_record(folder).environment
    versions = {**own.versions, "python": "3.99.0", "torch": "99.0"}
    for later in (
        {"versions": versions, "fingerprint": "another"},
        {"num_threads": own.num_threads + 1, "vector_instructions": "AVX2"},
        {"operating_system": "another kernel", "gpu_driver": "another", "power_policy": "powersave"},
        {"memory_mb": round(own.memory_mb / 1000) * 1000},
    ):
        found = calibration.factor_of(dataclasses.replace(own, **later))
        assert found == records.WallFactor(factor=1.5, num_readings=1)
    for other in (
        {"processor": "another"},
        {"num_cores": own.num_cores + 1},
        {"memory_mb": 2 * own.memory_mb + 2000},
        {"gpu": "another"},
        {"virtual_machine": not own.virtual_machine},
        {"energy_labels": {"cpu": "counter"}},
        {"tracking_mode": "process"},
        {"versions": {**own.versions, "codecarbon": "99.0"}},  # whose models may be others
    ):
        assert calibration.factor_of(dataclasses.replace(own, **other)) is None


def test_damaged_readings_of_a_machine_count_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path))
    own = environment.environment(energy_labels={}, tracking_mode="machine")
    assert calibration.factor_of(own) is None
    for run_id, wall_j in (("one", 300.0), ("two", 100.0)):
        calibration.keep(own, run_id, wall_j=wall_j, seen_j=100.0)
    assert calibration.factor_of(own) == records.WallFactor(factor=2.0, num_readings=2)
    (path,) = tmp_path.rglob("*.json")
    for content in ("", "[]", json.dumps({"readings": {"one": {"wall_j": "x", "seen_j": 1}}})):
        path.write_text(content)
        assert calibration.factor_of(own) is None


def test_reading_needs_a_complete_run(tmp_path):
    with pytest.raises(InputError, match="should be a run folder"):
        verification.changing(tmp_path).__enter__()
