"""What benchmarks/training_loop.py makes of its readings and profiles, with tiny models."""

import time
from dataclasses import replace

import numpy as np
import pytest
from small_data import FP32, LABELS, classifier, split

from benchmarks import training_loop
from benchmarks.training_loop import Job, Reading
from smallmodels.training import TrainConfig


@pytest.fixture(scope="module")
def job(tiny_model_folder):
    student = classifier(tiny_model_folder)
    train = split(student.tokenizer, 64)
    teacher = np.random.default_rng(0).standard_normal((len(train), len(LABELS))).astype(np.float32)
    return Job(student, replace(train, teacher=teacher), FP32, training_loop.soft_loss, trains_embeddings=False)


def reading(step, seconds, bare_step_s):
    return Reading(step, seconds, 100 * step, 900.0, bare_step_s)


@pytest.mark.parametrize(("bare_late_s", "ratio"), [(0.02, 1.0), (0.01, 2.0)])
def test_evenness_takes_out_what_slows_bare_steps_as_much(bare_late_s, ratio):
    late = [reading(90, 20.0, bare_late_s), reading(100, 22.0, bare_late_s)]
    found = [reading(5, 0.0, 9.0), reading(10, 1.0, 0.01), reading(20, 2.0, 0.01), reading(50, 9.0, 9.0), *late]
    even = training_loop.evenness(found, (10, 20), (90, 100))
    assert even["ratio_of_time"] == pytest.approx(2.0)
    assert even["ratio"] == pytest.approx(ratio)
    assert even["first"]["ms_per_1000_tokens"] == pytest.approx(1000.0)


def test_readings_do_not_count_the_bare_steps_between_ours(job, monkeypatch):
    slow_s = 0.05

    def step(self, batch):
        end = time.process_time() + slow_s
        while time.process_time() < end:
            pass

    monkeypatch.setattr(training_loop.Bare, "step", step)
    monkeypatch.setattr("smallmodels.training.logger._LOG_INTERVAL_S", 0.0)
    found = training_loop.readings(job, TrainConfig(learning_rate=1e-4, batch_size=8, max_steps=3))
    assert [one.step for one in found] == [1, 2, 3]
    assert all(one.bare_step_s == pytest.approx(slow_s, rel=0.2) for one in found)
    assert found[-1].seconds - found[0].seconds < training_loop.NUM_BESIDE * slow_s


@pytest.mark.slow
def test_parts_of_a_profile_add_up_to_the_whole_call(job):
    took_ms = []

    def fit():
        begin = time.perf_counter()
        training_loop.fit(job, TrainConfig(learning_rate=1e-4, batch_size=8, max_steps=10))
        took_ms.append(1e3 * (time.perf_counter() - begin))

    parts = training_loop.parts_ms(FP32, fit)
    assert sum(parts.values()) == pytest.approx(took_ms[0], rel=0.05)


@pytest.mark.slow
def test_profile_names_the_operations_of_a_step_and_its_python(job, monkeypatch):
    profiles, parts_ms = [], training_loop.parts_ms
    monkeypatch.setattr(
        training_loop, "parts_ms", lambda *of: profiles.append(parts_ms(*of)) or dict.fromkeys(profiles[-1], 0.0)
    )
    training_loop.profile_of(job, short=1, long=4, num_rounds=1)
    python = ("collate", "plan", "hash of the examples", "logger", training_loop.LOSS, training_loop.REST)
    expected = {"matrix products of linear layers", "layer norms", "AdamW", *python}
    for parts in profiles:
        assert {name for name in expected if not parts[name] > 0} == set()


def test_profile_of_a_step_leaves_out_how_a_training_begins(job, monkeypatch):
    steps = []
    monkeypatch.setattr(training_loop, "fit", lambda _, config: steps.append(config.max_steps))

    def parts_ms(_, function):
        function()
        return {"in a step": 2.0 * steps[-1], "once": 30.0}

    monkeypatch.setattr(training_loop, "parts_ms", parts_ms)
    found = training_loop.profile_of(job, short=1, long=4, num_rounds=1)
    assert found["parts_ms"] == {"in a step": 2.0, "once": 0.0}
    assert found["profiled_step_ms"] == 2.0


def test_results_of_a_device_say_which_it_was_and_keep_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "RESULTS", tmp_path)
    monkeypatch.setattr(training_loop.models, "choose_compute", lambda: FP32)
    monkeypatch.setattr(training_loop, "MEASUREMENTS", {"share": lambda: {"device": "cpu"}})
    monkeypatch.setattr("sys.argv", ["training_loop.py"])
    training_loop.main()
    found = training_loop.files.read_json(tmp_path / "training_loop_cpu_fp32.json")
    assert found["share"] == {"device": "cpu"}
    assert found["measured_on"]["share"] == found["machine"]
    assert found["machine"] | {"device": "cpu", "number_format": "fp32", "num_threads": 1} == found["machine"]
    assert found["machine"]["vector_instructions"]
