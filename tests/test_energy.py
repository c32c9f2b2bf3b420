"""The account of energy is exact on scripted joules, survives kills and failures, and never breaks what it measures."""

import inspect
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import types

import pytest

from smallmodels import energy
from smallmodels.energy import backends, machine
from smallmodels.errors import DamagedError, InputError
from smallmodels.records import Component


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s

    def wait(self, seconds):
        self.now_s += seconds


@pytest.fixture(autouse=True)
def own_machine(tmp_path_factory, monkeypatch):
    """Locks of other test runs on this machine must not be seen, nor a meter around this one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("machine")))
    for name in (energy.OWNER_VARIABLE, "LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)


def scripted(clock, tmp_path=None, **power_w):
    backend = energy.FakeBackend(power_w or {"cpu": 10.0}, clock=clock)
    journal = tmp_path / "journal.jsonl" if tmp_path else None
    return energy.Meter(backend, clock=clock, journal=journal, tick_s=3600), backend


def reading(duration_s=1.0, **components):
    parts = {name: Component(energy_j=joules, label=label) for name, (joules, label) in components.items()}
    return energy.EnergyReading(duration_s, 0.5, parts)


def run_python(code, *arguments, environment=None, folder=None):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "TMPDIR": tempfile.gettempdir(), **(environment or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


# Numbers and labels


def test_reading_sums_components_and_takes_the_weakest_label_that_matters():
    assert reading(cpu=(90.0, "counter"), ram=(10.0, "constant")).label == "constant"
    assert reading(cpu=(91.0, "counter"), ram=(9.0, "constant")).label == "counter"
    assert reading(cpu=(91.0, "counter"), ram=(9.0, "constant")).energy_j == 100.0
    assert reading(cpu=(0.0, "modelled"), ram=(0.0, "counter")).label == "modelled"


def test_reading_without_joules_is_missing_not_zero():
    assert energy.EnergyReading(1.0, 1.0).energy_j is None
    assert energy.EnergyReading(1.0, 1.0).label == "missing"
    partly = reading(cpu=(5.0, "counter"), gpu=(None, "missing"))
    assert (partly.energy_j, partly.label) == (5.0, "missing")


def test_readings_add_and_subtract_and_unknown_stays_unknown():
    a, b = reading(2.0, cpu=(5.0, "counter")), reading(3.0, cpu=(7.0, "modelled"), gpu=(4.0, "sampled"))
    assert a + b == energy.EnergyReading(
        5.0, 1.0, {"cpu": Component(energy_j=12.0, label="modelled"), "gpu": Component(energy_j=4.0, label="sampled")}
    )
    assert (b - a).components["cpu"].energy_j == 2.0
    assert (a + reading(cpu=(None, "missing"))).energy_j is None
    assert (a - b).components["gpu"].energy_j is None, "a component that has gone was used without being measured"


def test_energy_per_use_refuses_short_windows():
    assert reading(2.0, cpu=(8.0, "counter")).energy_j_per(4) == 2.0
    assert reading(0.9, cpu=(8.0, "counter")).energy_j_per(4) is None
    assert reading(2.0, cpu=(8.0, "counter"), gpu=(None, "missing")).energy_j_per(4) is None


def test_units():
    assert energy.to_wh(7200.0) == 2.0
    assert energy.to_kwh(7.2e6) == 2.0


def test_carbon_is_in_grams_with_value_year_and_source():
    france = energy.carbon(7.2e6, country="fra", intensity_g_per_kwh=None)
    assert france.emissions_g == pytest.approx(2 * france.intensity_g_per_kwh)
    assert 20 < france.intensity_g_per_kwh < 120, "grams, not kilograms"
    assert france.year >= 2020
    assert "France" in france.source
    assert "CodeCarbon" in france.source
    own = energy.carbon(3.6e6, country=None, intensity_g_per_kwh=475)
    assert (own.emissions_g, own.year, own.source) == (475, None, "given by the user")
    assert energy.carbon(None, country=None, intensity_g_per_kwh=475).emissions_g is None


def test_e7_carbon_is_never_assumed():
    assert energy.carbon(1.0, country=None, intensity_g_per_kwh=None) is None


@pytest.mark.parametrize(
    ("country", "intensity"),
    [
        ("XYZ", None),
        ("", None),
        ("FR", None),
        ("FRA", 50.0),
        (None, 0.475),
        (None, -4.0),
        (None, math.nan),
        (None, 1e6),
    ],
)
def test_carbon_refuses_what_it_cannot_know_in_one_sentence(country, intensity):
    with pytest.raises(InputError, match=r"\A[^\n]+: [^\n]+\Z"):
        energy.carbon(1.0, country=country, intensity_g_per_kwh=intensity)


# Phases


def test_nested_phases_are_charged_once_and_sum_to_the_run(tmp_path):
    clock = Clock()
    meter, backend = scripted(clock, tmp_path, cpu=10.0, ram=2.0)
    with meter:
        clock.wait(1)
        with meter.phase("train") as train:
            clock.wait(5)
            with meter.phase("evaluate") as evaluate:
                clock.wait(2)
                backend.spend(cpu=100.0)
            clock.wait(3)
        clock.wait(1)
    assert (train.reading.duration_s, train.reading.energy_j) == (8.0, 96.0)
    assert (evaluate.reading.duration_s, evaluate.reading.energy_j) == (2.0, 124.0)
    assert meter.phases[energy.OTHER].energy_j == 24.0
    assert meter.read().energy_j == sum(p.energy_j for p in meter.phases.values()) == 244.0
    assert meter.read().duration_s == 12.0
    assert meter.labels == {"cpu": "counter", "ram": "counter"}


def test_journal_replays_to_what_the_meter_saw(tmp_path):
    clock = Clock()
    meter, backend = scripted(clock, tmp_path)
    with meter:
        for _ in range(2):
            with meter.phase("train"):
                clock.wait(1.7)
                with meter.phase("evaluate"):
                    clock.wait(0.3)
                    backend.spend(gpu=1.1)
    totals = energy.read_journal(tmp_path / "journal.jsonl")
    assert totals.phases == meter.phases
    assert totals.total == meter.read() == energy.EnergyReading.from_journal(tmp_path / "journal.jsonl")
    assert (totals.num_segments, totals.truncated, totals.contended) == (1, False, False)


def test_phase_that_raises_keeps_its_energy():
    clock = Clock()
    meter, _ = scripted(clock)

    def fail():
        with meter.phase("outer"):
            clock.wait(1)
            with meter.phase("inner"):
                clock.wait(4)
                raise KeyError

    with meter:
        with pytest.raises(KeyError):
            fail()
        with meter.phase("next"):
            clock.wait(2)
    spent = {name: reading.energy_j for name, reading in meter.phases.items()}
    assert spent == {energy.OTHER: 0.0, "outer": 10.0, "inner": 40.0, "next": 20.0}


def test_phase_waits_for_the_device_at_both_ends_and_survives_its_failure():
    clock, calls = Clock(), []
    meter, _ = scripted(clock)
    with meter:
        meter.set_synchronize(lambda: calls.append(clock()))
        with meter.phase("train"):
            clock.wait(1)
        meter.set_synchronize(lambda: 1 / 0)
        with meter.phase("train") as train:
            clock.wait(1)
    assert calls == [100.0, 101.0]
    assert train.reading.energy_j == 10.0
    assert [w for w in meter.warnings if "device" in w] == [
        "could not wait for the device: ZeroDivisionError: division by zero"
    ]


def test_read_is_cheap_by_default_and_fresh_on_request():
    clock = Clock()
    meter, _ = scripted(clock)
    with meter:
        clock.wait(2)
        assert (meter.read().duration_s, meter.read().energy_j) == (2.0, 0.0)
        assert meter.read(fresh=True).energy_j == 20.0
        assert meter.read().cpu_s > 0


def test_cpu_seconds_count_this_process_and_its_ended_children():
    with energy.Meter("none") as meter, meter.phase("own") as own:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert 0.45 < own.reading.cpu_s < 1.5
    assert own.reading.energy_j is None
    assert meter.read().label == "missing"


def test_meter_refuses_misuse():
    meter = energy.Meter("fake")
    with pytest.raises(InputError, match="needs a meter that runs"), meter.phase("early"):
        pass
    with meter, pytest.raises(InputError, match="started once"):
        meter.start()
    meter.stop()
    with pytest.raises(InputError, match="tick_s must be > 0"):
        energy.Meter("fake", tick_s=0)


# Failures


def test_e10_backend_that_breaks_leaves_missing_not_zero_and_the_run_goes_on(tmp_path):
    clock = Clock()
    meter, backend = scripted(clock, tmp_path)
    with meter:
        with meter.phase("before") as before:
            clock.wait(1)
        backend.broken = True
        with meter.phase("after") as after:
            clock.wait(1)
        with meter.phase("later") as later:
            clock.wait(1)
    assert before.reading.energy_j == 10.0
    assert (after.reading.energy_j, after.reading.label, after.reading.duration_s) == (None, "missing", 1.0)
    assert later.reading.energy_j is None
    assert meter.read().energy_j is None
    assert len([w for w in meter.warnings if "lost the energy readings" in w]) == 1
    totals = energy.read_journal(tmp_path / "journal.jsonl")
    assert (totals.total.label, totals.phases["before"].energy_j) == ("missing", 10.0)


def test_backend_that_fails_once_loses_nothing():
    clock = Clock()
    meter, backend = scripted(clock)
    answers = iter([RuntimeError("once")])

    def flaky():
        for error in answers:
            raise error
        return energy.FakeBackend.read(backend)

    with meter:
        clock.wait(1)
        backend.read = flaky
        assert meter.read(fresh=True).energy_j == 10.0
    assert meter.warnings == []


@pytest.mark.parametrize("joules", [-1.0, math.nan, math.inf])
def test_backend_that_answers_nonsense_is_not_believed(joules):
    clock = Clock()
    meter, backend = scripted(clock)
    with meter:
        clock.wait(1)
        backend.spend(cpu=joules - 100 if joules < 0 else joules)
        assert meter.read(fresh=True).energy_j is None


def test_e10_backend_that_cannot_open_is_missing_with_its_reason():
    backend = energy.FakeBackend()
    backend.broken = True
    backend.open = lambda: 1 / 0
    with energy.Meter(backend) as meter, meter.phase("train") as train:
        pass
    assert train.reading.energy_j is None
    assert meter.warnings[0] == "could not start measuring energy: ZeroDivisionError: division by zero"


def test_e10_full_disk_stops_the_journal_not_the_run(tmp_path):
    code = """
import resource, sys, pathlib
from smallmodels import energy
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
with energy.Meter("fake", journal=pathlib.Path(sys.argv[1])) as meter:
    for name in "abcdefgh":
        with meter.phase(name):
            pass
print(len(meter.phases), *meter.warnings)
"""
    result = run_python(code, tmp_path / "journal.jsonl")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("9 could not write the energy journal: OSError")
    totals = energy.read_journal(tmp_path / "journal.jsonl")
    assert totals.truncated
    assert totals.num_segments == 1


# The journal after crashes


def test_e1_sigkill_keeps_all_but_one_tick(tmp_path):
    code = """
import sys, time, pathlib
from smallmodels import energy
meter = energy.Meter("fake", journal=pathlib.Path(sys.argv[1]), tick_s=0.1)
with meter, meter.phase("train"):
    while True:
        print(meter.read().duration_s, flush=True)
        time.sleep(0.01)
"""
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "j.jsonl"], stdout=subprocess.PIPE, text=True)
    seen_s = 0.0
    while seen_s < 1.0:
        seen_s = float(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    totals = energy.read_journal(tmp_path / "j.jsonl")
    assert totals.truncated
    assert totals.phases["train"].duration_s > 0.7  # one tick is 0.1 s; the rest is for a busy machine
    assert totals.total.energy_j == pytest.approx(10 * totals.total.duration_s, rel=0.05)
    assert totals.total.label == "counter"


@pytest.mark.faults
def test_e1_e2_killed_segments_are_summed_once_without_the_time_between(tmp_path):
    journal, seen_s = tmp_path / "j.jsonl", 0.0
    code = """
import sys, time, pathlib
from smallmodels import energy
meter = energy.Meter("fake", journal=pathlib.Path(sys.argv[1]), tick_s=0.05)
with meter, meter.phase("train"):
    while True:
        print(meter.read().duration_s, flush=True)
        time.sleep(0.01)
"""
    for number in (1, 2):
        process = subprocess.Popen([sys.executable, "-c", code, journal], stdout=subprocess.PIPE, text=True)
        segment_s = 0.0
        while segment_s < 0.5:
            segment_s = float(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        seen_s += max(segment_s, *[float(line) for line in rest.splitlines()[:-1]], 0.0)
        totals = energy.read_journal(journal)
        assert totals.num_segments == number
        assert totals.truncated
        time.sleep(2)  # nobody pays for this
    assert seen_s - 0.4 < totals.total.duration_s < seen_s + 0.4
    assert totals.total.energy_j == pytest.approx(10 * totals.total.duration_s, rel=0.05)
    assert sum(phase.energy_j for phase in totals.phases.values()) == pytest.approx(totals.total.energy_j)


def test_e2_resume_sums_segments_once_and_leaves_out_the_time_between(tmp_path):
    clock = Clock()
    first, _ = scripted(clock, tmp_path)
    first.start()
    with first.phase("train"):
        clock.wait(3)
        first.read(fresh=True)
        with (tmp_path / "journal.jsonl").open("ab") as file:
            file.write(b'{"seq": 99, "kind": "ti')  # the line during which the process was killed
        clock.wait(1000)
        second, _ = scripted(clock, tmp_path)
        with second, second.phase("train"):
            clock.wait(4)
        before_stop = energy.read_journal(tmp_path / "journal.jsonl")
    first.stop()
    assert second.num_segments == 2
    assert before_stop.num_segments == 2
    assert before_stop.truncated
    assert before_stop.phases["train"].energy_j == 70.0
    assert before_stop.total.duration_s == 7.0


def three_segments(tmp_path) -> list[bytes]:
    """The lines of a journal of three closed segments of one phase each, five lines and 20 J a segment."""
    clock = Clock()
    for name in ("setup", "train", "evaluate"):
        meter, _ = scripted(clock, tmp_path)
        with meter, meter.phase(name):
            clock.wait(1)
            meter.read(fresh=True)
            clock.wait(1)
    return (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("lost", "phases"),
    [
        ([2], {"setup", "train", "evaluate"}),
        ([0, 1, 2, 3, 4], {"train", "evaluate"}),
        ([5, 6, 7, 8, 9], {"setup", "evaluate"}),
        ([3, 4, 6, 7, 8], {"setup", "evaluate"}),
    ],
    ids=["a tick", "the first segment", "the second segment", "around a segment's edge"],
)
def test_e1_e2_journal_without_some_of_its_lines_is_truncated(tmp_path, lost, phases):
    lines = three_segments(tmp_path)
    whole = energy.read_journal(tmp_path / "journal.jsonl")
    assert (whole.truncated, whole.num_lost, whole.num_segments, len(lines)) == (False, 0, 3, 15)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(line for i, line in enumerate(lines) if i not in lost))
    totals = energy.read_journal(tmp_path / "journal.jsonl")
    assert (totals.truncated, totals.num_lost, totals.num_segments) == (True, len(lost), 3)
    assert set(totals.phases) - {energy.OTHER} == phases
    assert totals.total.energy_j <= whole.total.energy_j


def test_e1_torn_last_line_is_no_lost_line(tmp_path):
    lines = three_segments(tmp_path)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:8]) + lines[8][:20])
    clock = Clock()
    meter, _ = scripted(clock, tmp_path)
    with meter:
        clock.wait(1)
    totals = energy.read_journal(tmp_path / "journal.jsonl")
    assert (totals.truncated, totals.num_lost, totals.num_segments) == (True, 0, 3)


def test_e1_empty_journal_is_truncated_not_free(tmp_path):
    (tmp_path / "journal.jsonl").touch()
    totals = energy.read_journal(tmp_path / "journal.jsonl")
    assert (totals.truncated, totals.num_segments, totals.total.energy_j) == (True, 0, None)


def test_interrupt_in_a_phase_still_closes_the_journal(tmp_path):
    clock = Clock()
    meter, _ = scripted(clock, tmp_path)

    def interrupt():
        with meter, meter.phase("train"):
            clock.wait(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert meter.phases["train"].energy_j == 10.0
    assert not energy.read_journal(tmp_path / "journal.jsonl").truncated


def test_meter_that_nobody_stops_is_closed_at_exit(tmp_path):
    code = """
import sys, pathlib
from smallmodels import energy
meter = energy.Meter("fake", journal=pathlib.Path(sys.argv[1]))
meter.start()
"""
    assert run_python(code, tmp_path / "j.jsonl").returncode == 0
    assert not energy.read_journal(tmp_path / "j.jsonl").truncated


def test_events_stand_in_the_journal_whatever_they_say(tmp_path):
    clock = Clock()
    meter, _ = scripted(clock, tmp_path)
    with meter:
        event = meter.journal_event("warning", "two\nlines \u2028 and \ud800", {"loss": math.nan, "path": tmp_path})
        clock.wait(1)
    totals = energy.read_journal(tmp_path / "journal.jsonl")
    assert totals.events == [event]
    assert event.details == {"loss": None, "path": str(tmp_path)}
    assert totals.total.energy_j == 10.0


def test_read_journal_refuses_what_is_not_a_journal(tmp_path):
    with pytest.raises(DamagedError, match="should be the journal"):
        energy.read_journal(tmp_path / "absent.jsonl")
    (tmp_path / "j.jsonl").write_text('{"seq": 0, "segment": 1, "kind": "tick"}\n')
    with pytest.raises(DamagedError, match="line 0 should be an energy line"):
        energy.read_journal(tmp_path / "j.jsonl")


# Who owns the machine

CHILD = """
import json, sys, pathlib
from smallmodels import energy
with energy.Meter("fake", journal=pathlib.Path(sys.argv[1])) as meter, meter.phase("work") as work:
    sum(range(10**6))
print(json.dumps([meter.owner, work.reading.energy_j, work.reading.cpu_s > 0, meter.contended, meter.warnings]))
"""


def test_x8_child_of_a_measuring_process_measures_nothing(tmp_path):
    with energy.Meter("fake", run_id="parent") as meter:
        assert os.environ[energy.OWNER_VARIABLE] == f"parent:{os.getpid()}"
        result = json.loads(run_python(CHILD, tmp_path / "child.jsonl").stdout)
    assert result[:4] == [False, None, True, False]
    assert f"process {os.getpid()} measures this machine" in result[4][0]
    assert not (tmp_path / "child.jsonl").exists()
    assert not meter.contended
    assert energy.OWNER_VARIABLE not in os.environ


def test_x8_rank_above_zero_measures_nothing(tmp_path):
    result = json.loads(run_python(CHILD, tmp_path / "j.jsonl", environment={"LOCAL_RANK": "1"}).stdout)
    assert result[:2] == [False, None]
    assert json.loads(run_python(CHILD, tmp_path / "j.jsonl", environment={"LOCAL_RANK": "0"}).stdout)[0]


def test_owner_that_was_killed_does_not_silence_the_next(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    left_over = {energy.OWNER_VARIABLE: f"killed:{process.pid}"}
    assert json.loads(run_python(CHILD, tmp_path / "j.jsonl", environment=left_over).stdout)[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_copy_lets_go_of_the_parents_meter(tmp_path):
    meter = energy.Meter("fake", journal=tmp_path / "j.jsonl", tick_s=0.01)
    with meter, meter.phase("train"):
        pid = os.fork()
        if pid == 0:
            with meter.phase("in the child"):
                pass
            meter.stop()
            os._exit(0 if meter.read().energy_j is None and not meter.owner else 1)
        assert os.waitpid(pid, 0)[1] == 0
        time.sleep(0.05)
    totals = energy.read_journal(tmp_path / "j.jsonl")
    assert set(totals.phases) == {energy.OTHER, "train"}
    assert totals.total.energy_j > 0
    assert not totals.truncated


def test_e9_two_meters_at_once_are_both_contended():
    outer = energy.Meter("fake")
    with outer:
        with energy.Meter("fake") as inner:
            assert inner.contended is False  # not observed yet
            inner.read(fresh=True)
            assert inner.contended
        outer.read(fresh=True)
        assert outer.contended
    assert "both report the joules of both" in outer.warnings[0]
    with energy.Meter("fake") as alone:
        alone.read(fresh=True)
    assert not alone.contended


def test_e9_run_in_another_process_is_seen_from_both_sides(tmp_path):
    code = """
import os, sys, pathlib
from smallmodels import energy
os.environ.pop(energy.OWNER_VARIABLE)  # not a child of the other run, as far as it knows
with energy.Meter("fake", journal=pathlib.Path(sys.argv[1])) as meter:
    pass
print(meter.contended)
"""
    with energy.Meter("fake", journal=tmp_path / "outer.jsonl") as meter:
        assert run_python(code, tmp_path / "inner.jsonl").stdout.strip() == "True"
    assert meter.contended
    assert energy.read_journal(tmp_path / "outer.jsonl").contended
    assert energy.read_journal(tmp_path / "inner.jsonl").contended


def test_e4_lock_of_a_killed_run_has_no_effect(tmp_path):
    code = (
        "import os, sys, pathlib\nfrom smallmodels import energy\nenergy.Meter('fake').start()\nos.kill(os.getpid(), 9)"
    )
    assert run_python(code).returncode == -signal.SIGKILL
    with energy.Meter("fake") as meter:
        meter.read(fresh=True)
    assert not meter.contended


def test_foreign_load_counts_what_is_not_ours(monkeypatch):
    clocks = {"monotonic": 0.0, "busy": 0.0, "own": 0.0}
    monkeypatch.setattr(machine, "time", types.SimpleNamespace(monotonic=lambda: clocks["monotonic"]))
    monkeypatch.setattr(machine, "_busy_s", lambda: clocks["busy"])
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine.psutil, "Process", lambda: types.SimpleNamespace(children=lambda recursive: []))
    shared = machine.SharedMachine("run", watch_load=True, cpu_clock=lambda: clocks["own"])
    clocks.update(monotonic=10.0, busy=21.0, own=20.0)  # 1 of 40 processor-seconds is foreign
    assert not shared.is_contended()
    clocks.update(busy=30.0)
    assert shared.is_contended()
    assert "other programs used 25% of the processors" in shared.close()[0]


# CodeCarbon

REAL = """
import json, os, pathlib, socket, sys, time
attempts = []
def refuse(*arguments, **_):
    attempts.append(str(arguments[1:]))
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from smallmodels import energy
meter = energy.Meter(journal=pathlib.Path(sys.argv[1]), tick_s=0.3)
with meter:
    with meter.phase("a"):
        time.sleep(0.7)
        with meter.phase("b"):
            time.sleep(0.7)
readings = {name: [r.duration_s, r.energy_j] for name, r in meter.phases.items()}
total = meter.read()
print(json.dumps({
    "attempts": attempts, "labels": meter.labels, "mode": meter.tracking_mode, "phases": readings,
    "total": [total.duration_s, total.energy_j], "label": total.label, "warnings": meter.warnings,
    "ram_w": total.components["ram"].energy_j / total.duration_s, "files": os.listdir("."),
}))
"""


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    """One run on CodeCarbon itself, offline, where a configuration file and variables try to change its numbers."""
    folder = tmp_path_factory.mktemp("real")
    temporary = tmp_path_factory.mktemp("temporary")
    (temporary / ".codecarbon.lock").write_text("left by a measurement that was killed")
    (folder / ".codecarbon.config").write_text("[codecarbon]\npue=3\nforce_ram_power=9000\nco2_signal_api_token=x\n")
    hostile = {"CODECARBON_PUE": "3", "CODECARBON_FORCE_RAM_POWER": "9000", "CODECARBON_OUTPUT_METHODS": "csv,api"}
    journal = tmp_path_factory.mktemp("journal") / "j.jsonl"
    result = run_python(
        REAL, journal, environment={**hostile, "HOME": str(folder), "TMPDIR": str(temporary)}, folder=folder
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "CodeCarbon's messages belong in Meter.warnings"
    return {**json.loads(result.stdout), "journal": energy.read_journal(journal)}


def test_e7_e12_codecarbon_opens_no_socket_and_writes_no_file(real_run):
    assert real_run["attempts"] == []
    assert real_run["files"] == [".codecarbon.config"]


def test_e4_stale_lock_of_codecarbon_has_no_effect(real_run):
    assert real_run["label"] != "missing"
    assert not any("lock" in warning.lower() for warning in real_run["warnings"])


def test_e6_codecarbon_labels_every_joule(real_run):
    known = {"counter", "sampled", "modelled", "constant"}
    assert set(real_run["labels"]) >= {"cpu", "ram"}
    assert set(real_run["labels"].values()) <= known
    assert real_run["labels"]["ram"] == "constant"
    assert real_run["label"] in known
    assert real_run["mode"] == "machine"
    if real_run["labels"]["cpu"] == "modelled":
        assert any("CPU load mode" in warning for warning in real_run["warnings"])
    assert not any("Multiple instances" in warning for warning in real_run["warnings"])


def test_codecarbon_configuration_of_the_user_does_not_move_numbers(real_run):
    assert 0 < real_run["ram_w"] < 1000


def test_codecarbon_phases_sum_to_the_run(real_run):
    duration_s, energy_j = real_run["total"]
    assert sum(d for d, _ in real_run["phases"].values()) == pytest.approx(duration_s, rel=0.01)
    assert sum(e for _, e in real_run["phases"].values()) == pytest.approx(energy_j, rel=0.01)
    assert real_run["journal"].total.energy_j == pytest.approx(energy_j, rel=1e-9)
    assert real_run["phases"]["a"][1] == pytest.approx(real_run["phases"]["b"][1], rel=0.5)


def test_codecarbon_settings_leave_nothing_to_configuration_files():
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.emissions_tracker import BaseEmissionsTracker

    names = {
        name
        for kind in (OfflineEmissionsTracker, BaseEmissionsTracker)
        for name, parameter in inspect.signature(inspect.unwrap(kind.__init__)).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name != "self"
    }
    # Deprecated names, which the settings that replace them switch off.
    names = {name for name in names if not name.startswith("save_to_")} - {"co2_signal_api_token"}
    assert set(backends.codecarbon_settings("folder")) | {"output_handlers"} == names


def test_codecarbon_flush_that_delivers_nothing_is_a_failure():
    backend = energy.CodeCarbonBackend()
    backend._tracker = types.SimpleNamespace(flush=lambda: None, stop=lambda: None)
    with pytest.raises(RuntimeError, match="delivered no reading"):
        backend.read()


def test_e5_codecarbon_component_that_stands_still_is_missing(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(backends, "time", types.SimpleNamespace(monotonic=clock))
    totals = types.SimpleNamespace(cpu_energy=1e-6, gpu_energy=0.0, ram_energy=1e-6, gpu_count=1)
    backend = energy.CodeCarbonBackend()

    def flush():
        totals.cpu_energy += 1e-6
        backend._totals = totals

    backend._tracker = types.SimpleNamespace(flush=flush)
    assert backend.read()["gpu"] == Component(energy_j=0.0, label="unknown")
    clock.wait(5)
    components = backend.read()
    assert components["cpu"] == Component(energy_j=pytest.approx(3e-6 * 3.6e6), label="unknown")
    assert components["gpu"] == components["ram"] == Component(energy_j=None, label="missing")


def test_e5_gpu_that_codecarbon_does_not_see_is_missing_not_absent(monkeypatch):
    totals = types.SimpleNamespace(cpu_energy=1e-6, gpu_energy=0.0, ram_energy=1e-6, gpu_count=0)
    backend = energy.CodeCarbonBackend()
    backend._tracker = types.SimpleNamespace(flush=lambda: setattr(backend, "_totals", totals))
    for system, processor, expected in (
        ("Linux", "x86_64", {"cpu", "ram"}),
        ("Darwin", "arm64", {"cpu", "gpu", "ram"}),
    ):
        monkeypatch.setattr(backends.platform, "system", lambda system=system: system)
        monkeypatch.setattr(backends.platform, "machine", lambda processor=processor: processor)
        assert set(backend.read()) == expected
    assert backend.read()["gpu"].energy_j is None


@pytest.mark.parametrize(
    ("kind", "details", "nvml_counts", "expected"),
    [
        ("CPU", {"_mode": "cpu_load"}, None, {"cpu": "modelled"}),
        ("CPU", {"_mode": "constant"}, None, {"cpu": "constant"}),
        ("CPU", {"_mode": "a mode of a later version"}, None, {"cpu": "unknown"}),
        ("CPU", {}, None, {"cpu": "unknown"}),
        ("GPU", {}, True, {"gpu": "counter"}),
        ("GPU", {}, False, {"gpu": "sampled"}),
        ("GPU", {}, None, {}),
        ("AppleSiliconChip", {"chip_part": "GPU"}, None, {"gpu": "sampled"}),
        ("SomethingNew", {}, None, {}),
    ],
)
def test_codecarbon_labels_follow_its_hardware(kind, details, nvml_counts, expected):
    tracker = types.SimpleNamespace(_hardware=[type(kind, (), details)()])
    assert backends._codecarbon_labels(tracker, nvml_counts) == expected
    assert backends._codecarbon_labels(object(), nvml_counts) == {}


def test_energy_imports_neither_codecarbon_nor_torch():
    code = "import sys, smallmodels.energy\nprint([m for m in ('codecarbon', 'torch', 'pandas') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


# Several processes


def test_x8_cpu_seconds_of_the_other_processes_of_a_launch_count(tmp_path):
    code = (
        "import sys, time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\nprint(flush=True)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code + "sys.stdin.read()"], stdin=-1, stdout=-1)
    with energy.Meter("fake", processes=[other.pid]) as meter:
        before = meter.read(fresh=True).cpu_s
        other.stdout.readline()
        spent = meter.read(fresh=True).cpu_s - before
        other.communicate(b"")
        assert meter.read(fresh=True).cpu_s >= before + spent  # what it used stays counted when it has ended
    assert 0.3 < spent < 3.0
