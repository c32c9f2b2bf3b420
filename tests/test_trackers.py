"""Trackers: all numbers of `metrics.jsonl` with joules and CPU-seconds, in the run folder, never in the run's way."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_energy import Clock, scripted_meter
from test_runs import finish

from smallmodels import records, trackers, verification
from smallmodels.errors import InputError, RunInterruptedError
from smallmodels.runs import Run


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1
    max_steps: int | None = None
    layers: tuple[int, ...] = (0, 2)
    seed: int = 3
    dataset: str = "/home/somebody/tickets.csv"


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")


def train(clock: Clock, steps: range, *, stops_after: int | None = None):
    def work(context) -> int:
        for step in steps:
            clock.now += 1.0
            context.log({"step": step, "train/loss": 1 / step, "train/tokens_per_s": 5.0})
            if step == stops_after:
                raise RunInterruptedError("stopped")
        context.energy()  # a fresh reading, as a validation takes one
        context.log({"step": steps[-1], "validation/accuracy": 0.5})
        return 1

    return work


def run_with(name: trackers.Name, folder: Path) -> records.RunRecord:
    """A run that is stopped in its second training and goes on, on scripted energy of 10 W."""
    clock = Clock()

    def begin() -> None:
        with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), log_with=name) as run:
            run.begin("toy", Config())
            run.phase("teacher", train(clock, range(1, 4)))
            run.phase("train", train(clock, range(1, 6), stops_after=2))

    with pytest.raises(RunInterruptedError):
        begin()
    with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), log_with=name, resume=True) as run:
        run.begin("toy", Config())
        run.phase("teacher", pytest.fail)
        run.phase("train", train(clock, range(3, 6)))
        return finish(run)


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every series of the event files directly in a folder, in the order of their steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@needs("tensorboard")
def test_tensorboard_has_all_numbers_with_the_energy_so_far_on_one_axis(tmp_path):
    record = run_with("tensorboard", tmp_path / "run")
    series = tensorboard_scalars(tmp_path / "run" / "trackers" / "tensorboard")
    assert series["teacher/loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, _ in series["train/loss"]] == [4, 5, 6, 7, 8]  # behind the teacher's, also after the stop
    assert series["train/validation/accuracy"] == [(8, 0.5)]
    assert series["train/energy_j"][-1] == (8, pytest.approx(50.0))
    assert series["run/energy_j"][-1] == (8, pytest.approx(record.energy_j))
    assert {"train/cpu_s", "run/cpu_s", "train/duration_s"} <= series.keys()
    assert series["test/student/accuracy"] == [(8, pytest.approx(0.91))]
    assert own_events(record) == ["interrupted"]
    verification.verify(tmp_path / "run")


def own_events(record: records.RunRecord) -> list[str]:
    return [event.kind for event in record.events if event.kind != "energy"]


@needs("tensorboard")
def test_tensorboard_has_the_config_without_folders(tmp_path):
    run_with("tensorboard", tmp_path / "run")
    texts = [path.read_text() for path in (tmp_path / "run" / "trackers").rglob("hparams.yml")]
    assert texts
    for text in texts:
        assert "learning_rate: 0.1" in text
        assert "dataset: tickets.csv" in text
        assert "max_steps" not in text


def test_e10_tracker_that_fails_ends_with_one_sentence_and_the_run_goes_on(tmp_path):
    pytest.importorskip("tensorboard")
    clock, folder = Clock(), tmp_path / "run"
    with Run(folder, meter=scripted_meter(folder, clock, power_w=10.0), log_with="tensorboard") as run:
        (folder / "trackers").write_text("in the way")
        run.begin("toy", Config())
        run.phase("train", train(clock, range(1, 4)))
        record = finish(run)
    (told,) = [event.message for event in record.events if event.kind == "tracker"]
    assert told.startswith("tensorboard failed and gets no more metrics, which metrics.jsonl has all the same: ")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
    verification.verify(folder)


@pytest.mark.parametrize("name", ["trackio", "wandb", "mlflow"])
def test_optional_tracker_keeps_its_files_in_the_run_and_the_run_whole(tmp_path, monkeypatch, capsys, name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}")
    monkeypatch.chdir(tmp_path)
    for variable in ("TRACKIO_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    record = run_with(name, tmp_path / "run")
    assert own_events(record) == ["interrupted"]
    written = b"".join(p.read_bytes() for p in (tmp_path / "run" / "trackers" / name).rglob("*") if p.is_file())
    assert b"train/loss" in written
    assert b"run/energy_j" in written
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    verification.verify(tmp_path / "run")


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb", "mlflow"])
def test_tracker_whose_package_is_missing_is_one_sentence_before_anything(tmp_path, monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError) as caught:
        Run(tmp_path / "run", meter="none", log_with=name)
    assert str(caught.value) == f"--log-with {name} needs the package {name}: pip install 'smallmodels[{name}]'"
    assert not (tmp_path / "run").exists()


def test_steps_of_all_phases_lie_on_one_axis_that_never_goes_back():
    steps = trackers.Steps()
    seen = [("data", None), ("teacher", 1), ("teacher", 3), ("train", 1), ("train", 2), ("evaluate", None)]
    assert [steps.of(phase, step) for phase, step in seen] == [0, 1, 3, 4, 5, 5]


def test_package_without_a_tracker_imports_none():
    code = "import json, sys, smallmodels.runs; print(json.dumps([n for n in sys.modules if 'tensorboard' in n]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
