"""A run's folder, its phases, what it leaves behind, and what it survives."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from scripted_energy import Clock, scripted_meter

from smallmodels import (
    accounts,
    energy,
    environment,
    files,
    finishing,
    folders,
    memory,
    privacy,
    records,
    runs,
    settings,
    values,
)
from smallmodels.errors import DamagedError, InputError, PolicyError, RunInterruptedError
from smallmodels.phases import NO_CONTEXT
from smallmodels.runs import Run


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1
    seed: int = 3
    dataset: str = "org/name"


class Student:
    def save(self, folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"weights")


def metric(value: float) -> records.Metric:
    return records.Metric(value=value, low=value - 0.01, high=value + 0.01, n=100)


def result(role: str, value: float, built_by: tuple[str, ...] = ()) -> records.Result:
    return records.Result(
        role=role,
        split="test",
        metrics={"accuracy": metric(value)},
        per_class=[],
        agreement=None,
        calibration_error=None,
        built_by=list(built_by),
        teacher_phases=[],
    )


def inference(role: str, joules: float, label: str = "counter") -> records.Inference:
    windows = [
        records.InferenceWindow(duration_s=1.0, num_examples=1000, energy_j=joules * s, cpu_s=joules * s / 10)
        for s in (0.99, 1.0, 1.01)
    ]
    return records.Inference(
        role=role,
        num_parameters=1,
        size_bytes=4,
        latency_p50_s=0.001,
        latency_p95_s=0.002,
        batch_size=32,
        throughput_per_s=1000.0,
        energy_j_per_1000=joules,
        cpu_s_per_1000=joules / 10,
        label=label,
        windows=windows,
        number_format="fp32",
        protocol="smoke",
    )


def finish(run: Run, **changes) -> records.RunRecord:
    about = {
        "title": "A toy",
        "task": "text-classification",
        "metric": "accuracy",
        "results": [result("teacher", 0.92), result("student", 0.91, ("train",))],
    }
    return run.finish(Student(), **(about | changes))


def own_events(record: records.RunRecord) -> list[records.Event]:
    """Without the meter's, which depend on what else the machine does."""
    return [event for event in record.events if event.kind != "energy"]


# A complete run


def test_run_leaves_everything_behind(tmp_path):
    folder = tmp_path / "runs" / "toy"
    with Run(folder, meter="fake") as run:
        run.begin("toy", Config())
        assert run.phase("train", lambda x: x + 1, 1) == 2
        finish(run, predictions={"id": ["a", "b"], "student/score": np.array([0.5, 0.25])})
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {"config.json", "journal.jsonl", "predictions.parquet", "report.html", "record.json"}
    expected |= {"model/weights.bin", "model/README.md", "phases/train/result.json"}
    assert expected == left
    record = records.read_record(folder)
    assert record == run.record
    assert record.recipe == "toy"
    assert record.config == {"learning_rate": 0.1, "seed": 3, "dataset": "org/name"}
    assert set(record.files) == expected - {"record.json"}
    for name, digest in record.files.items():
        assert files.sha256_file(folder / name) == digest


def test_predictions_are_columns_of_a_parquet_file(tmp_path):
    import pyarrow.parquet as pq

    with Run(tmp_path / "r", meter="fake") as run:
        run.begin("toy", Config())
        finish(run, predictions={"id": ["a", "b"], "student/score": np.array([0.5, 0.25])})
    table = pq.read_table(tmp_path / "r" / "predictions.parquet").to_pydict()
    assert table == {"id": ["a", "b"], "student/score": [0.5, 0.25]}


def test_phases_of_the_record_are_exact_and_sum_to_the_run(tmp_path):
    clock = Clock()
    with Run(tmp_path / "r", meter=scripted_meter(tmp_path / "r", clock, power_w=10.0)) as run:
        run.begin("toy", Config())

        def work(seconds, context=NO_CONTEXT):
            clock.now += seconds
            context.counts.add(examples=5, tokens=50, processed=60, operations=2e9)
            context.counts.add_shared(energy_j=7.0, cpu_s=0.5)

        run.phase("train", work, 4.0)
        clock.now += 1.0
        run.phase("evaluate", work, 2.0)
        record = finish(run)
    phases = {phase.name: phase for phase in record.phases}
    assert phases["train"].duration_s == pytest.approx(4.0)
    assert phases["train"].energy_j == pytest.approx(40.0)
    assert phases["evaluate"].energy_j == pytest.approx(20.0)
    assert phases["other"].energy_j == pytest.approx(10.0)
    assert (phases["train"].num_examples, phases["train"].num_tokens) == (5, 50)
    assert (phases["train"].shared_energy_j, phases["train"].shared_cpu_s) == (7.0, 0.5)
    assert sum(phase.energy_j for phase in record.phases) == pytest.approx(record.energy_j)
    assert record.energy_j == pytest.approx(70.0)
    assert record.duration_s == pytest.approx(7.0)


def test_utilisation_is_operations_over_the_rate_of_the_compute_that_a_phase_returned(tmp_path):
    clock = Clock(100.0)
    waited = []

    class Compute(dict):
        operations_per_s = 1e9

        def synchronize(self):
            waited.append(clock.now)

    with Run(tmp_path / "r", meter=scripted_meter(tmp_path / "r", clock, power_w=10.0)) as run:
        run.begin("toy", Config())
        run.phase("setup", Compute)

        def work(context):
            clock.now += 4.0
            context.counts.add(operations=2e9)

        run.phase("train", work)
        record = finish(run)
    assert record.phase("train").utilisation == pytest.approx(0.5)
    assert record.phase("setup").utilisation is None
    assert waited[:2] == [100.0, 104.0]  # the device was waited for at both ends of the next phase


def test_phase_with_work_says_its_tokens_per_second_and_their_real_share_before_and_after_a_stop(tmp_path, capsys):
    folder, clock = tmp_path / "r", Clock()

    def work(context, *, stop):
        clock.now += 2.0
        context.counts.num_tokens, context.counts.num_processed_tokens = 1000, 1250  # as a checkpoint gives them back
        if stop:
            raise RunInterruptedError("stopped")

    def attempt(*, stop):
        with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), resume=not stop) as run:
            run.begin("toy", Config())
            run.phase("train", work, stop=stop)
            run.phase("idle", lambda: None)
            return finish(run)

    with pytest.raises(RunInterruptedError):
        attempt(stop=True)
    capsys.readouterr()
    record = attempt(stop=False)
    train, idle = record.phase("train"), record.phase("idle")
    assert (train.tokens_per_s, train.real_token_fraction) == (pytest.approx(250.0), pytest.approx(0.8))
    assert (idle.tokens_per_s, idle.real_token_fraction) == (None, None)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("✓ train")]
    assert [line.split()[2:8] for line in said] == [["4.0", "s", "40.0", "J", "250", "80"]]


def test_log_writes_lines_with_the_cost_of_the_phase_so_far(tmp_path):
    clock = Clock()
    with Run(tmp_path / "r", meter=scripted_meter(tmp_path / "r", clock, power_w=10.0)) as run:
        run.begin("toy", Config())
        clock.now += 100.0  # before the phase: not part of its cost

        def work(context):
            clock.now += 2.0
            assert context.energy().duration_s == pytest.approx(2.0)
            context.progress(7, 10)
            context.log({"train/loss": 0.5})

        run.phase("train", work)
    [line] = [json.loads(text) for text in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert (line["phase"], line["step"], line["train/loss"]) == ("train", 7, 0.5)
    assert line["duration_s"] == pytest.approx(2.0)
    assert {"energy_j", "cpu_s", "time_utc"} <= set(line)


def test_events_and_sources_reach_the_record_and_the_journal(tmp_path, capsys):
    source = records.Source(
        role="dataset",
        kind="dataset",
        name="org/name",
        revision=None,
        sha256={},
        license="mit",
        license_file_seen=False,
        duties=[],
        splits={},
        fingerprint=None,
        notes={},
    )
    with Run(tmp_path / "r", meter="fake") as run:
        run.begin("toy", Config())
        run.add_source(source)
        run.add_source(source)
        run.event("warning", "something \x1b[31modd", step=3)
        record = finish(run)
    assert record.sources == [source]
    assert [(e.kind, e.details) for e in own_events(record)] == [("warning", {"step": 3})]
    assert "something" in (tmp_path / "r" / "journal.jsonl").read_text()
    assert "\x1b" not in capsys.readouterr().err


def test_idle_machine_is_watched_before_the_first_phase_and_once(tmp_path):
    with Run(tmp_path / "r", meter="fake", idle_seconds=0.3) as run:
        run.begin("toy", Config())
        run.phase("data", lambda: 1)
    with Run(tmp_path / "r", meter="fake", resume=True) as run:
        run.begin("toy", Config())
        assert run.phase("data", lambda: 2) == 1
        record = finish(run)
    assert [phase.name for phase in record.phases if phase.name in ("idle", "data")] == ["idle", "data"]
    assert 0.3 <= record.phase("idle").duration_s < 5


def test_run_that_is_stopped_while_the_machine_is_idle_leaves_no_phase(tmp_path):
    def stop_at_once():
        with Run(tmp_path / "r", meter="fake", idle_seconds=60) as run:
            run.begin("toy", Config())
            os.kill(os.getpid(), signal.SIGTERM)
            run.phase("data", lambda: 1)

    with pytest.raises(RunInterruptedError):
        stop_at_once()
    assert not [*(tmp_path / "r" / "phases").glob("*")]


def test_idle_time_has_to_be_positive(tmp_path):
    with pytest.raises(InputError, match="idle_seconds must be > 0, got 0"):
        Run(tmp_path / "r", meter="fake", idle_seconds=0)


def test_seeds_make_two_runs_draw_the_same_numbers(tmp_path):
    import random

    import torch

    drawn = []
    for name in ("a", "b"):
        with Run(tmp_path / name, meter="fake") as run:
            run.begin("toy", Config())
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_record_names_no_folder_user_or_secret_e11_s3(tmp_path):
    folder = tmp_path / "my secret folder" / "r"
    token = "hf_" + "Q" * 34
    data = tmp_path / "tickets.csv"
    data.write_text("text,label\n")
    command = privacy.command_line(["smallmodels", "run", "toy", "--dataset", str(data), "--out", str(tmp_path)])
    with Run(folder, meter="fake", command=command) as run:
        run.begin("toy", Config(dataset=str(data)))
        run.event("warning", f"{folder}/phases/train and https://me:{token}@example.org were odd")
        finish(run)
    for name in ("record.json", "report.html", "model/README.md"):
        text = (folder / name).read_text()
        assert str(tmp_path) not in text
        assert token not in text
        assert "my secret" not in text
    record = records.read_record(folder)
    assert record.command == "smallmodels run toy --dataset tickets.csv"
    assert record.config["dataset"] == "tickets.csv"
    assert json.loads((folder / "config.json").read_text())["config"]["dataset"] == str(data)


# Payback


def build_and_use(tmp_path, label: str = "counter", **changes) -> records.RunRecord:
    clock = Clock()
    with Run(tmp_path / "r", meter=scripted_meter(tmp_path / "r", clock, power_w=10.0, label=label)) as run:
        run.begin("toy", Config())

        def work(seconds):
            clock.now += seconds

        run.phase("train", work, 5.0)
        run.phase("baseline", work, 50.0)
        about = {
            "results": [
                result("teacher", 0.92),
                result("student", 0.91, ("train",)),
                result("label_only", 0.9, ("baseline",)),
            ],
            "inference": [inference("teacher", 4.0), inference("student", 1.0)],
        }
        return finish(run, **(about | changes))


def test_payback_counts_what_built_the_student_and_not_other_rows(tmp_path):
    payback = build_and_use(tmp_path).payback
    assert payback.unit == "J"
    assert payback.build == pytest.approx(50.0)
    assert payback.uses == pytest.approx(50.0 / 0.003, rel=1e-6)
    assert payback.low < payback.uses < payback.high


def test_payback_leaves_out_what_it_took_to_measure_uses(tmp_path):
    record = build_and_use(tmp_path)
    measured = dataclasses.replace(record.phases[0], name="inference")
    more = dataclasses.replace(record, phases=[*record.phases, measured])
    assert accounts.payback(more, replaces="teacher") == accounts.payback(record, replaces="teacher")


def test_payback_is_never_when_the_student_misses_the_margin(tmp_path):
    assert build_and_use(tmp_path, margin=0.005).payback.uses is None


def test_payback_is_given_within_the_margin(tmp_path):
    assert build_and_use(tmp_path, margin=0.02).payback.uses is not None


def test_payback_takes_fewer_bits_for_the_better_quality(tmp_path):
    values = {"teacher": 0.9, "student": 0.95}
    bits = [
        dataclasses.replace(result(role, 0.5), metrics={"bits_per_byte": metric(value)})
        for role, value in values.items()
    ]
    about = {"results": bits, "metric": "bits_per_byte"}
    assert build_and_use(tmp_path / "far", margin=0.02, **about).payback.uses is None
    assert build_and_use(tmp_path / "near", margin=0.1, **about).payback.uses is not None


def test_payback_counts_cpu_seconds_where_joules_are_modelled(tmp_path):
    payback = build_and_use(tmp_path, "modelled").payback
    assert payback.unit == "CPU-s"
    assert payback.saved_per_use == pytest.approx(0.0003)


def test_payback_is_absent_where_use_was_not_measured(tmp_path):
    assert build_and_use(tmp_path, inference=[inference("student", 1.0)]).payback is None


# Interrupted and resumed


def start_and_stop(folder: Path, clock: Clock) -> None:
    """A run whose first phase is done and whose second was asked to stop."""

    def work(context):
        clock.now += 3.0
        context.event("warning", "before the stop")
        raise RunInterruptedError("stopped")

    def attempt():
        with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0)) as run:
            run.begin("toy", Config())
            run.phase("setup", lambda: {"a": (1, 2), "array": np.arange(3), "metric": metric(0.5)})
            run.phase("train", work)

    with pytest.raises(RunInterruptedError):
        attempt()


def test_resume_loads_what_is_done_and_adds_up_what_was_paid_e2(tmp_path):
    folder, clock = tmp_path / "r", Clock()
    start_and_stop(folder, clock)
    clock.now += 1000.0  # idle between the segments: nobody pays for it
    with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), resume=True) as run:
        run.begin("toy", Config())
        done = run.phase("setup", pytest.fail)

        def work(context):
            assert context.energy().energy_j == pytest.approx(30.0)
            clock.now += 2.0

        run.phase("train", work)
        record = finish(run)
    assert done["a"] == (1, 2)
    assert done["array"].tolist() == [0, 1, 2]
    assert done["metric"] == metric(0.5)
    assert record.num_segments == 2
    assert record.phase("train").energy_j == pytest.approx(50.0)
    assert record.phase("train").duration_s == pytest.approx(5.0)
    assert record.duration_s == pytest.approx(5.0)
    assert [(event.kind, event.message) for event in own_events(record)] == [
        ("warning", "before the stop"),
        ("interrupted", "stopped"),
    ]


def resume(folder: Path, clock: Clock) -> records.RunRecord:
    """Go on with what `start_and_stop` left until it is complete."""
    with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), resume=True) as run:
        run.begin("toy", Config())
        run.phase("setup", pytest.fail)

        def work():
            clock.now += 2.0

        run.phase("train", work)
        return finish(run)


def told_losses(record: records.RunRecord) -> list[str]:
    """What the record's events say that the journal has lost; those of the meter have no details."""
    return [event.message for event in record.events if event.kind == energy.LOSS and event.details]


MISSING = "the energy journal of the run so far is missing"


@pytest.mark.parametrize("left", [None, b"", b'{"seq": 0, "segm'], ids=["deleted", "empty", "torn"])
def test_resume_without_a_journal_says_that_the_bill_is_too_low_e1_e2(tmp_path, capsys, left):
    folder, clock = tmp_path / "r", Clock()
    start_and_stop(folder, clock)
    (folder / "journal.jsonl").unlink()
    if left is not None:
        (folder / "journal.jsonl").write_bytes(left)
    record = resume(folder, clock)
    assert told_losses(record) == [f"{MISSING}, with all readings of setup, so the bill is too low"]
    assert told_losses(record)[0] in " ".join(capsys.readouterr().err.split())
    assert record.energy_truncated
    assert record.phase("setup") is None  # its time is not known, and is not 0
    assert record.phase("train").duration_s == pytest.approx(2.0)


def test_resume_of_a_run_with_nothing_kept_misses_its_journal_e1_e2(tmp_path):
    folder, clock = tmp_path / "r", Clock()
    start_and_stop(folder, clock)
    (folder / "journal.jsonl").unlink()
    (folder / "phases/setup/result.json").unlink()
    for name in ("setup", "train"):  # the loss stays known when the run is interrupted again
        with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), resume=True) as run:
            run.begin("toy", Config())
            run.phase("setup", int)
            if name == "train":
                run.phase("train", int)
                record = finish(run)
    assert told_losses(record) == [f"{MISSING}, so the bill is too low"]
    assert record.energy_truncated


def test_resume_after_resume_tells_of_a_loss_once_e1_e2(tmp_path):
    folder, clock = tmp_path / "r", Clock()
    start_and_stop(folder, clock)
    (folder / "journal.jsonl").unlink()
    with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), resume=True) as run:
        run.begin("toy", Config())
    record = resume(folder, clock)
    assert told_losses(record) == [f"{MISSING}, with all readings of setup, so the bill is too low"]
    assert record.energy_truncated


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ([1, 2, 3], ", with all readings of setup, so the bill is too low"),
        ([4], ", so the bill may be too low or charge the wrong phase"),
        (range(1, 100), ", with all readings of setup, so the bill is too low"),
    ],
    ids=["a kept phase", "an event", "the end"],
)
def test_resume_with_gaps_in_the_journal_says_so_e1_e2(tmp_path, lost, said):
    folder, clock = tmp_path / "r", Clock()
    start_and_stop(folder, clock)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(line for i, line in enumerate(lines) if i not in lost))
    record = resume(folder, clock)
    assert told_losses(record) == [f"the energy journal lacks lines that were written{said}"]
    assert record.energy_truncated
    assert record.num_segments == 2


def test_equal_cost_is_not_worked_out_from_a_journal_that_lost_a_phase_e2(tmp_path):
    folder, clock = tmp_path / "r", Clock()
    start_and_stop(folder, clock)
    (folder / "journal.jsonl").unlink()
    with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), resume=True) as run:
        run.begin("toy", Config())
        run.phase("setup", int)
        run.phase("train", int)
        with pytest.raises(DamagedError, match="should have readings of setup, which it has lost"):
            run.cost_ratio(["setup", "train"], to=["train"])


def test_resume_after_a_torn_last_line_tells_of_no_loss_e1_e2(tmp_path):
    folder, clock = tmp_path / "r", Clock()
    start_and_stop(folder, clock)
    content = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(content[:-20])
    record = resume(folder, clock)
    assert told_losses(record) == []
    assert record.energy_truncated
    assert record.phase("setup") is not None


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"learning_rate": 0.2}, r"learning_rate was 0\.1 and is 0\.2"),
        ({"seed": 4}, "seed was 3 and is 4"),
        ({"dataset": "org/other"}, "dataset was org/name and is org/other"),
        ({"seed": 4, "dataset": "org/other"}, "seed was 3 and is 4; dataset was org/name and is org/other"),
    ],
)
def test_resume_with_another_config_is_refused_with_the_difference_c7(tmp_path, changes, difference):
    start_and_stop(tmp_path / "r", Clock())
    with (
        pytest.raises(InputError, match=f"{difference}.*--fork"),
        Run(tmp_path / "r", meter="fake", resume=True) as run,
    ):
        run.begin("toy", Config(**changes))
    assert (tmp_path / "r" / "phases" / "setup" / "result.json").exists()


def test_resume_with_another_recipe_is_refused_c7(tmp_path):
    start_and_stop(tmp_path / "r", Clock())
    with (
        pytest.raises(InputError, match="is a run of toy, not of other"),
        Run(tmp_path / "r", meter="fake", resume=True) as run,
    ):
        run.begin("other", Config())


def test_resume_with_other_versions_is_allowed_and_noted_c10(tmp_path):
    folder = tmp_path / "r"
    start_and_stop(folder, Clock())
    config = json.loads((folder / "config.json").read_text())
    config["versions"]["numpy"] = "0.1"
    (folder / "config.json").write_text(json.dumps(config))
    with Run(folder, meter="fake", resume=True) as run:
        run.begin("toy", Config())
        record = finish(run)
    assert any("numpy was 0.1" in event.message for event in record.events if event.kind == "not bitwise")


def test_resume_of_a_complete_run_is_refused(tmp_path):
    with Run(tmp_path / "r", meter="fake") as run:
        run.begin("toy", Config())
        finish(run)
    with pytest.raises(InputError, match="complete"), Run(tmp_path / "r", meter="fake", resume=True):
        pass


@pytest.mark.parametrize("what", ["result.json", "value/array-0.npy"])
def test_altered_phase_runs_again_and_says_so_s9(tmp_path, what):
    folder = tmp_path / "r"
    start_and_stop(folder, Clock())
    path = folder / "phases" / "setup" / what
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with Run(folder, meter="fake", resume=True) as run:
        run.begin("toy", Config())
        assert run.phase("setup", lambda: "made again") == "made again"
        record = finish(run)
    assert [event.kind for event in record.events if "setup" in event.message] == ["phase damaged"]


@pytest.mark.parametrize("lost", ["run_id", "choices", "versions", "everything"])
def test_resume_of_a_run_whose_config_lost_a_part_is_refused_as_damaged(tmp_path, lost):
    folder = tmp_path / "r"
    start_and_stop(folder, Clock())
    config = json.loads((folder / "config.json").read_text())
    config.pop(lost, None)
    (folder / "config.json").write_text(json.dumps([] if lost == "everything" else config))
    with pytest.raises(DamagedError, match=r"config\.json should say the"), Run(folder, meter="fake", resume=True):
        pass
    assert not (folder / ".lock").exists()


def test_torn_line_of_metrics_is_dropped_on_resume(tmp_path):
    folder = tmp_path / "r"
    start_and_stop(folder, Clock())
    (folder / "metrics.jsonl").write_text('{"whole": 1}\n{"torn": ')
    with Run(folder, meter="fake", resume=True) as run:
        run.begin("toy", Config())
        run.log({"loss": 1.0})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"whole": 1}
    assert lines[1]["loss"] == 1.0


def test_choice_is_measured_once_and_kept(tmp_path):
    folder, measured = tmp_path / "r", []

    def measure():
        measured.append(1)
        return {"threads": 2}

    for resume in (False, True):
        with Run(folder, meter="fake", resume=resume) as run:
            run.begin("toy", Config())
            assert run.choose("threads", measure) == {"threads": 2}
    assert measured == [1]


def test_checkpoints_go_at_the_end_and_foreign_folders_stay_k7(tmp_path):
    with Run(tmp_path / "r", meter="fake") as run:
        run.begin("toy", Config())

        def work(context):
            for name in ("step-00000001", "checkpoint-my-notes"):
                with files.atomic_folder(context.folder / "checkpoints" / name) as folder:
                    (folder / "state.json").write_text("{}")

        run.phase("train", work)
        finish(run)
    kept = tmp_path / "r" / "phases" / "train" / "checkpoints"
    assert [path.name for path in kept.iterdir()] == ["checkpoint-my-notes"]


# Refusals


def test_folder_in_use_by_another_process_is_refused_x5(tmp_path):
    holder = f"""
        import sys, time
        from pathlib import Path
        from smallmodels.folders import FolderLock
        lock = FolderLock(Path({str(tmp_path)!r}))
        lock.acquire()
        print("held", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(holder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(PolicyError, match=f"in use by process {process.pid} on "):
            folders.FolderLock(tmp_path).acquire()
    finally:
        process.kill()
        process.wait()
    lock = folders.FolderLock(tmp_path)  # kill -9 released it, and its stale file does not matter
    lock.acquire()
    lock.release()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "fifo"])
def test_lock_that_is_no_plain_file_is_refused_and_nothing_outside_written_x5_c9(tmp_path, kind):
    folder, outside = tmp_path / "r", tmp_path / "outside"
    folder.mkdir()
    if kind == "link":
        outside.write_text("mine")
    if "link" in kind:
        (folder / ".lock").symlink_to(outside)
    elif kind == "folder":
        (folder / ".lock").mkdir()
    else:
        os.mkfifo(folder / ".lock")
    for take in (folders.FolderLock(folder).acquire, lambda: folders.remove_stale_lock(folder)):
        with pytest.raises(
            PolicyError, match=r"\.lock should be a plain file and is a link or something else: remove it"
        ):
            take()
    assert folders.holder(folder) is None
    assert os.path.lexists(folder / ".lock")
    assert (outside.read_text() if kind == "link" else not outside.exists()) in ("mine", True)


def test_lock_that_becomes_a_link_as_it_is_opened_is_refused_x5(tmp_path, monkeypatch):
    (tmp_path / "outside").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "outside")
    monkeypatch.setattr(files, "is_plain", lambda path: True)
    with pytest.raises(PolicyError, match="is a link or something else"):
        folders.FolderLock(tmp_path).acquire()
    assert (tmp_path / "outside").read_text() == "mine"


def test_resume_with_a_link_for_a_lock_is_refused_x5(tmp_path):
    folder = tmp_path / "r"
    with Run(folder, meter="fake") as run:  # left without `finish`, so it can go on
        run.begin("toy", Config())
    (tmp_path / "outside").write_text("mine")
    (folder / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(PolicyError, match="is a link"), Run(folder, meter="fake", resume=True):
        pass
    assert (tmp_path / "outside").read_text() == "mine"


def test_x5_worker_that_outlives_its_killed_run_keeps_no_lock(tmp_path):
    holder = f"""
        import os, time
        from pathlib import Path
        from smallmodels.folders import FolderLock
        lock = FolderLock(Path({str(tmp_path)!r}))
        lock.acquire()
        if os.fork() == 0:
            print(os.getpid(), flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(holder)], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    with pytest.raises(PolicyError, match=f"in use by process {process.pid} on "):
        folders.FolderLock(tmp_path).acquire()
    process.kill()
    process.wait()
    os.kill(worker, 0)  # it lives on
    try:
        folders.FolderLock(tmp_path).acquire()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="must be new or empty"), Run(tmp_path, meter="fake"):
        pass
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_folder_below_a_file_is_refused_c9(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"), Run(tmp_path / "file" / "toy" / "r", meter="fake"):
        pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc, in which not even root may write")
def test_folder_that_cannot_be_written_is_refused_c9():
    with pytest.raises(InputError, match=r"/proc cannot be written \(.*\), so"), Run("/proc/toy/r", meter="fake"):
        pass


IN_A_READ_ONLY_MOUNT = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99
exec "$2" -c 'import sys; from smallmodels import runs; runs.Run(sys.argv[1], meter="fake", resume=True).__enter__()' $1
"""


def test_resume_in_a_read_only_mount_is_refused_c9(tmp_path):
    start_and_stop(tmp_path / "r", Clock())
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    words = ["unshare", "--mount", "sh", "-c", IN_A_READ_ONLY_MOUNT, "sh", str(tmp_path / "r"), sys.executable]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here to make a read-only mount")
    if "smallmodels" not in done.stderr:
        pytest.skip(f"this machine allows no mount: {done.stderr.strip()}")
    assert "InputError" in done.stderr
    assert "r cannot be written (read-only file system), so it cannot hold a run" in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()} == before


def test_folder_behind_a_link_works_and_a_link_to_nothing_is_refused_c9(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with Run(tmp_path / "link" / "toy" / "r", meter="fake") as run:
        run.begin("toy", Config())
        finish(run)
    assert records.read_record(tmp_path / "elsewhere" / "toy" / "r").recipe == "toy"
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="broken is a link to nothing"), Run(tmp_path / "broken" / "r", meter="fake"):
        pass
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("what", [".", "config.json", "phases/setup", "phases/setup/value/array-0.npy"])
def test_resume_of_what_every_user_may_write_is_refused_s12(tmp_path, what):
    start_and_stop(tmp_path / "r", Clock())
    path = tmp_path / "r" / what
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(PolicyError, match=r"should be yours to write alone.* chmod -R o-w"):
        Run(tmp_path / "r", meter="fake", resume=True).__enter__()
    path.chmod(path.stat().st_mode & ~0o002)
    with Run(tmp_path / "r", meter="fake", resume=True) as run:
        run.begin("toy", Config())
        finish(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("what", [".", "config.json", "phases/setup/value"])
def test_resume_of_what_belongs_to_another_user_is_refused_s12(tmp_path, what):
    start_and_stop(tmp_path / "r", Clock())
    os.chown(tmp_path / "r" / what, 12345, -1)
    with pytest.raises(PolicyError, match=r"should belong to you, but belongs to user 12345.* chown"):
        Run(tmp_path / "r", meter="fake", resume=True).__enter__()


@pytest.mark.parametrize("name", ["with space", "ünïcode 💡", "new\nline", "-dash"])
def test_folder_with_an_odd_name_works_c9(tmp_path, name):
    with Run(tmp_path / name, meter="fake") as run:
        run.begin("toy", Config())
        finish(run)
    assert records.read_record(tmp_path / name).recipe == "toy"


def test_bad_input_leaves_nothing_behind(tmp_path):
    def attempt():
        with Run(tmp_path / "runs" / "toy" / "r", meter="fake") as run:
            run.begin("toy", Config())
            run.phase("data", lambda: np.zeros(3))
            raise InputError("the data set is empty")

    with pytest.raises(InputError):
        attempt()
    assert not any(tmp_path.iterdir())


def test_bad_input_found_late_keeps_what_a_model_worked_for(tmp_path):
    def attempt():
        with Run(tmp_path / "r", meter="fake") as run:
            run.begin("toy", Config())
            run.phase("teacher", lambda context: context.counts.add(operations=1e9))
            raise InputError("too late")

    with pytest.raises(InputError):
        attempt()
    assert (tmp_path / "r" / "phases" / "teacher" / "result.json").exists()


def test_unknown_country_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="country"):
        Run(tmp_path / "r", meter="fake", country="XX")
    assert not any(tmp_path.iterdir())


def test_phase_name_must_be_new(tmp_path):
    with Run(tmp_path / "r", meter="fake") as run:
        run.begin("toy", Config())
        run.phase("train", int)
        for name in ("train", "../x", "Train", ""):
            with pytest.raises(ValueError, match="new in the run"):
                run.phase(name, int)


# Signals

TOY = """
    import sys, time
    from pathlib import Path
    from smallmodels.errors import RunInterruptedError
    from smallmodels.runs import Run

    def work(context):
        for i in range(1000):
            print("working", flush=True)
            time.sleep(0.02)
            if {polite} and context.should_stop():
                raise RunInterruptedError("saved")

    try:
        with Run(Path({folder!r}), meter="fake") as run:
            run.begin("toy", {{}})
            run.phase("train", work)
    except RunInterruptedError:
        sys.exit(75)
    except KeyboardInterrupt:
        sys.exit(76)
"""


def signalled(folder: Path, numbers: list[int], *, polite: bool) -> tuple[int, str]:
    code = textwrap.dedent(TOY.format(folder=str(folder), polite=polite))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "working\n"
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.2)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_asks_the_phase_to_stop_r2_r3(tmp_path, number):
    code, err = signalled(tmp_path / "r", [number], polite=True)
    assert code == 75
    assert "next safe point" in err
    assert energy.read_journal(tmp_path / "r" / "journal.jsonl").truncated is False


def test_killed_run_goes_on_and_owns_up_to_the_gap_e1_e2(tmp_path):
    folder = tmp_path / "r"
    signalled(folder, [signal.SIGKILL], polite=False)
    assert energy.read_journal(folder / "journal.jsonl").truncated
    with Run(folder, meter="fake", resume=True) as run:  # the lock of the killed process is no obstacle
        run.begin("toy", {})
        run.phase("train", lambda: 1)
        record = finish(run)
    assert record.num_segments == 2
    assert record.energy_truncated


def test_second_ctrl_c_stops_at_once_r3(tmp_path):
    assert signalled(tmp_path / "r", [signal.SIGINT, signal.SIGINT], polite=False)[0] == 76
    assert not (tmp_path / "r" / ".lock").exists()


def test_signal_between_phases_stops_before_the_next_r4(tmp_path):
    def attempt():
        with Run(tmp_path / "r", meter="fake") as run:
            run.begin("toy", Config())
            os.kill(os.getpid(), signal.SIGTERM)
            run.phase("train", pytest.fail)

    with pytest.raises(RunInterruptedError, match="between two phases"):
        attempt()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_forked_worker_ends_on_sigterm(tmp_path):
    with Run(tmp_path / "r", meter="fake") as run:
        run.begin("toy", Config())
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writes, b"ready")  # Python forgets signals that arrive while it forks
            time.sleep(30)
            os._exit(0)
        assert os.read(reads, 5) == b"ready"
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


# Kept values


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        0.5,
        "text",
        [1, [2]],
        (1, (2,)),
        {"a": {"b": [None]}},
        {1: "x", (2, 3): "y"},
        {"$": 1},
        Path("a/b"),
    ],
)
def test_values_come_back_equal(tmp_path, value):
    again = values.decode(json.loads(json.dumps(values.encode(value, tmp_path), allow_nan=False)), tmp_path)
    assert again == value
    assert type(again) is type(value)


def test_values_that_are_not_finite_come_back(tmp_path):
    coded = json.loads(json.dumps(values.encode([float("inf"), float("nan")], tmp_path), allow_nan=False))
    again = values.decode(coded, tmp_path)
    assert again[0] == float("inf")
    assert again[1] != again[1]


def test_values_of_other_packages_are_refused(tmp_path):
    with pytest.raises(TypeError, match="cannot be kept"):
        values.encode({"x": Student()}, tmp_path)
    with pytest.raises(TypeError, match="Python objects"):
        values.encode(np.array([object()]), tmp_path)


@pytest.mark.parametrize(
    "path", ["os:system", "smallmodels.files:write_text", "smallmodels.files:os.system", "pathlib:Path"]
)
def test_kept_value_cannot_name_code_outside_the_package_s5(tmp_path, path):
    with pytest.raises(DamagedError):
        values.decode({"$": "object", "class": path, "folder": "x"}, tmp_path)


# Helpers


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/home/jane/tickets.csv", "tickets.csv"),
        ("~/tickets.csv", "tickets.csv"),
        ("../data/tickets.csv", "tickets.csv"),
        ("PolyAI/banking77", "PolyAI/banking77"),
        ("org/name@main", "org/name@main"),
        ("https://me:secret@example.org/x", "https://example.org/x"),
        ("0.5", "0.5"),
        ("a/b or c/d", "a/b or c/d"),
    ],
)
def test_argument_keeps_names_and_drops_folders_e11(word, expected):
    assert privacy.argument(word) == expected


def test_command_line_drops_where_a_run_is_kept_e11():
    words = ["smallmodels", "run", "toy", "--out", "/home/jane/runs", "--resume=/x/y", "--seed", "1", "--t=a b"]
    assert privacy.command_line(words) == "smallmodels run toy --seed 1 '--t=a b'"


def test_differences_name_what_changed():
    before = {"a": 1, "train": {"lr": 0.1, "n": 2}}
    assert runs.differences(before, before) == []
    after = {"a": 1, "train": {"lr": 0.2, "n": 2}, "b": 3}
    assert runs.differences(before, after) == ["train.lr was 0.1 and is 0.2", "b was absent and is 3"]


def test_environment_fingerprint_is_of_the_other_fields():
    one = environment.environment(energy_labels={"cpu": "modelled"}, tracking_mode="machine")
    two = environment.environment(energy_labels={"cpu": "counter"}, tracking_mode="machine")
    assert one == environment.environment(energy_labels={"cpu": "modelled"}, tracking_mode="machine")
    assert one.fingerprint != two.fingerprint
    assert one.num_cores >= 1
    assert one.memory_mb >= 1000
    assert one.memory_mb % 1000 == 0  # of two boots of one machine, kernels keep some MB more or less
    assert one.versions["python"].startswith("3.")


def test_environment_with_a_cap_on_instructions_has_a_fingerprint_of_its_own(monkeypatch):
    import torch

    for name in environment.CAPS:
        monkeypatch.delenv(name, raising=False)
    free = environment.environment(energy_labels={}, tracking_mode="machine")
    kind, *units = free.vector_instructions.split(", ")
    assert kind == torch.backends.cpu.get_cpu_capability()
    assert units == [unit for unit in ("AMX_BF16", "AVX512_BF16") if f" {unit.lower()} " in f"{cpu_flags()} "][:1]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    capped = environment.environment(energy_labels={}, tracking_mode="machine")
    assert capped.vector_instructions == f"{free.vector_instructions}, ONEDNN_MAX_CPU_ISA=AVX2"
    assert capped.fingerprint != free.fingerprint


def cpu_flags():
    """Of the first processor, as Linux lists them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")


def test_machines_with_and_without_units_for_bf16_are_told_apart(monkeypatch):
    import torch  # noqa: F401 - instructions are known once it is loaded

    found = set()
    for flags in ("hypervisor avx512f", "hypervisor avx512f avx512_bf16", "hypervisor avx512f avx512_bf16 amx_bf16"):
        monkeypatch.setattr(environment, "_cpuinfo", {"flags": flags, "model name": "a processor"}.get)
        found.add(environment.environment(energy_labels={}, tracking_mode="machine").fingerprint)
    assert len(found) == 3


def test_environment_of_an_older_record_keeps_its_fingerprint():
    older = records.read_record(Path(__file__).parents[1] / "benchmarks" / "results" / "quickstart").environment
    assert older.vector_instructions is None
    assert environment.fingerprint(older) == older.fingerprint


def test_environment_names_no_host():
    import platform

    described = records.to_json(environment.environment(energy_labels={}, tracking_mode="machine"))
    assert platform.node() not in json.dumps(described)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system cannot reset its peak of memory")
def test_peak_memory_belongs_to_the_part_that_used_it():
    peaks = memory.PeakMemory()
    with peaks.watch() as outer:
        with peaks.watch() as large:
            block = bytearray(200_000_000)
            block[::4096] = b"x" * len(block[::4096])
        del block
        memory.give_back()  # as a run does before each phase: what is freed is kept for the next tensor
        with peaks.watch() as small:
            pass
    assert large.peak_mb > small.peak_mb + 150
    assert outer.peak_mb == pytest.approx(large.peak_mb, abs=20)


def test_record_holds_no_commit_of_a_server_on_loopback():
    source = records.Source(
        role="dataset",
        kind="dataset",
        name="org/data",
        revision="0" * 40,
        sha256={},
        license=None,
        license_file_seen=False,
        duties=[],
        splits={},
        fingerprint="f",
        notes={"endpoint": "http://127.0.0.1:8000"},
    )
    assert finishing.without_loopback_commit(source).revision is None
    elsewhere = dataclasses.replace(source, notes={"endpoint": "https://mirror.example"})
    assert finishing.without_loopback_commit(elsewhere).revision == "0" * 40


def test_c7_d14_data_workers_may_change_because_they_change_no_bit():
    past = {"recipe": "toy", "config": {"train": {"num_workers": 2, "learning_rate": 0.1}}}
    settings.require_same_config(Path("run"), past, "toy", {"train": {"num_workers": 0, "learning_rate": 0.1}})
    with pytest.raises(InputError, match=r"but train\.learning_rate was 0\.1 and is 0\.2: leave"):
        settings.require_same_config(Path("run"), past, "toy", {"train": {"num_workers": 0, "learning_rate": 0.2}})
