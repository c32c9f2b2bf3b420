"""The full protocol of inference, with windows of hundredths of a second: what is measured, kept, and foretold."""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import FP32, classifier, embedder, texts
from test_static import student_of

from smallmodels import baselines, evaluation, files, first_answer, models, records, students, values
from smallmodels.arrays import Ragged
from smallmodels.data.splits import Split
from smallmodels.energy import machine
from smallmodels.errors import InputError, RunInterruptedError
from smallmodels.evaluation import Contender, full_protocol, start_up, windows
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run
from smallmodels.static import StaticRetriever
from smallmodels.trials import Trial

WINDOW_S = 0.02


class Sleeper:
    """Takes two milliseconds a call, and twenty from 64 texts on; remembers who was asked for which texts."""

    num_parameters, size_bytes, number_format = 7, 28, "fp64"

    def __init__(self, name="a", calls=None, num_parameters=7):
        self.name, self.calls, self.num_parameters = name, [] if calls is None else calls, num_parameters

    def predict_proba(self, asked):
        self.calls.append((self.name, list(asked)))
        time.sleep(0.02 if len(asked) >= 64 else 0.002)
        return np.full((len(asked), 3), 1 / 3)


@pytest.fixture
def asleep(monkeypatch):
    """Time passes in sleep alone, so that what a busy machine makes of two milliseconds does not choose a batch."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    clock = types.SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0], sleep=sleep)
    for module in (windows, sys.modules[__name__]):
        monkeypatch.setattr(module, "time", clock)


def split_of(rows) -> Split:
    return Split("test", [f"test/{i}" for i in range(len(rows))], rows)


LENGTHS = split_of(["x" * (1 + i) for i in range(40)])


def measure(contenders, split=LENGTHS, **options):
    options = {"window_s": WINDOW_S, "compute": FP32, "protocol": "full", "num_starts": 0, **options}
    return evaluation.measure_inference(contenders, split, **options).inference


def kinds(inference):
    return {(v.texts, v.number_format, v.batch_size): v for v in inference.variants}


# What is measured


def test_full_protocol_takes_ten_windows_of_typical_texts_and_three_of_each_variant(asleep):
    sleeper = Sleeper()
    (found,) = measure({"tfidf": Contender(sleeper)})
    assert (found.protocol, found.batch_size, found.number_format) == ("full", 16, "fp64")
    assert len(found.windows) == 10
    assert all(window.duration_s >= WINDOW_S for window in found.windows)
    by_kind = kinds(found)
    assert {(texts, size): v.num_windows for (texts, _, size), v in by_kind.items()} == {
        (texts, size): 10 if texts == "typical" else 3 for texts in ("typical", "short", "long") for size in (1, 16)
    }
    one, best = by_kind["typical", "fp64", 1], by_kind["typical", "fp64", 16]
    assert (found.latency_p50_s, found.latency_p95_s) == (one.latency_p50_s, one.latency_p95_s)
    assert found.throughput_per_s == best.throughput_per_s
    assert best.throughput_per_s == pytest.approx(
        sum(w.num_examples for w in found.windows) / sum(w.duration_s for w in found.windows)
    )
    assert 0.002 <= one.latency_p50_s <= one.latency_p95_s
    assert one.throughput_per_s < 500 < best.throughput_per_s
    assert {v.mean_tokens for v in found.variants} == {None}


def test_full_protocol_asks_for_the_shortest_and_the_longest_tenth_in_whole_batches(asleep):
    sleeper = Sleeper()
    (found,) = measure({"tfidf": Contender(sleeper)})
    lengths = {texts: v.mean_characters for (texts, _, _), v in kinds(found).items()}
    assert lengths == {"short": 2.5, "typical": 20.5, "long": 38.5}
    asked = {tuple(sorted({len(text) for text in rows})) for _, rows in sleeper.calls if len(rows) == 16}
    assert {(1, 2, 3, 4), (37, 38, 39, 40)} <= asked  # four texts, again and again
    assert {len(rows) for _, rows in sleeper.calls} <= set(full_protocol.BATCH_SIZES)


def test_full_protocol_chooses_the_batch_with_the_most_texts_per_second(asleep):
    (few,) = measure({"tfidf": Contender(Sleeper())}, batch_sizes=(1, 4))
    assert few.batch_size == 4
    sleeper = Sleeper()
    (found,) = measure({"tfidf": Contender(sleeper)}, batch_sizes=(1, 64, 256))
    assert found.batch_size == 64
    assert max(len(rows) for _, rows in sleeper.calls) == 64  # a call of 64 took half a window, so 256 is not tried


def test_full_protocol_measures_models_in_turn():
    calls = []
    measure({"one": Contender(Sleeper("a", calls)), "two": Contender(Sleeper("b", calls))}, batch_sizes=(1,))
    names = [name for name, _ in calls]
    turns = [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    assert len(turns) >= 2 + 10  # both are tried and warmed up, then ten rounds whose ends meet


def test_full_protocol_of_a_model_has_its_tokens_and_the_number_formats_of_the_machine(tiny_model_folder):
    model = classifier(tiny_model_folder)
    first, second = measure({"student": model, "label_only": classifier(tiny_model_folder)}, split_of(texts(20)))
    assert (second.role, second.measured_as) == ("label_only", "student")
    has_bf16 = models.choose_compute("cpu").number_format == "bf16"
    assert {v.number_format for v in first.variants} == {"fp32", *(["bf16"] if has_bf16 else [])}
    others = [v for v in first.variants if v.number_format == "bf16"]
    assert {(v.texts, v.num_windows) for v in others} <= {("typical", 3)}
    by_texts = {v.texts: v.mean_tokens for v in first.variants}
    assert 2 < by_texts["short"] <= by_texts["typical"] <= by_texts["long"]
    assert first.number_format == "fp32"
    assert first.start_up_s is None


def test_full_protocol_stops_between_two_windows():
    with pytest.raises(RunInterruptedError, match="starts again on resume"):
        measure({"tfidf": Contender(Sleeper())}, context=Context(should_stop=lambda: True))


@pytest.mark.slow
def test_new_process_answers_a_text(tiny_model_folder):
    pairs = Split("test", ["0"], ["my card"], seconds=["your bank"])
    seconds = start_up.start_up_s(embedder(tiny_model_folder), pairs, 1, FP32, NO_CONTEXT)
    assert 0.3 < seconds < 120  # torch alone takes as long to import


def rows_with(labels, **more) -> Split:
    rows = texts(12)
    return Split("train", [f"train/{i}" for i in range(12)], rows, labels, **more)


def tagged() -> Split:
    num_words = [len(text.split(" ")) for text in texts(12)]
    return rows_with(Ragged(np.arange(sum(num_words)) % 2, np.cumsum([0, *num_words])))


CLASSES = np.arange(12) % 3
WITHOUT_TORCH = {
    "majority": lambda _: baselines.MajorityClassifier.fit(rows_with(CLASSES), num_classes=3),
    "tfidf": lambda _: baselines.TfidfClassifier.fit(rows_with(CLASSES), num_classes=3),
    "labels": lambda _: baselines.TfidfLabels.fit(rows_with(np.eye(3, dtype=np.int64)[CLASSES]), num_classes=3),
    "scores": lambda _: baselines.TfidfScorer.fit(rows_with(None, seconds=texts(12)), num_classes=0),
    "words": lambda _: baselines.WordTagger.fit(tagged(), num_classes=2),
    "retriever": lambda _: baselines.TfidfRetriever.fit(texts(12)),
    "static": lambda folder: models.to_numpy(students.add_classifier(student_of(embedder(folder)), ["a", "b"], seed=0)),
    "static retriever": lambda folder: StaticRetriever.fit(models.to_numpy(student_of(embedder(folder))), texts(12)),
}


@pytest.mark.parametrize("kind", WITHOUT_TORCH)
def test_every_model_without_torch_answers_a_text_once_it_is_loaded(kind, tiny_model_folder, tmp_path, capsys):
    model = WITHOUT_TORCH[kind](tiny_model_folder)
    asked = {"text": "my card", "second": "your bank" if kind == "scores" else None, "whole": "my card"}
    files.write_json(tmp_path / first_answer.ABOUT, {"model": values.encode(model, tmp_path), **asked})
    first_answer.answer_first(tmp_path)
    assert capsys.readouterr().out.strip() == first_answer.ANSWERED


def test_full_protocol_has_the_start_up_of_a_model_without_torch_too(tiny_model_folder):
    static = WITHOUT_TORCH["static"](tiny_model_folder)
    (found,) = measure({"student": Contender(static)}, split_of(texts(20)), num_starts=1)
    assert 0 < found.start_up_s < 120


def test_first_answer_of_a_baseline_imports_no_torch():
    code = "import sys; from smallmodels import baselines, first_answer, static; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_model_that_cannot_be_saved_has_no_start_up_time_and_the_run_says_so():
    told = []
    context = Context(event=lambda kind, message, **_: told.append(message))
    assert start_up.start_up_s(Sleeper(), split_of(["my card"]), 1, FP32, context) is None
    assert "the start-up time of a model is unknown" in told[0]


def test_new_process_that_fails_leaves_its_time_unknown(tiny_model_folder, monkeypatch):
    told, model = [], classifier(tiny_model_folder)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    context = Context(event=lambda kind, message, **_: told.append(message))
    assert start_up.start_up_s(model, split_of(["my card"]), 1, FP32, context) is None
    assert told == ["a new process could not answer a text, so its start-up time is unknown"]


# What is kept


@dataclass(frozen=True)
class Config:
    seed: int = 0


class Student:
    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.bin").write_bytes(b"0")


@pytest.fixture(autouse=True)
def machine_of_its_own(monkeypatch):
    """Other tests run at the same time, and what is measured beside them is not kept."""
    monkeypatch.setattr(machine.SharedMachine, "is_contended", lambda self: False)


def run_full(folder, contenders, split=LENGTHS, compute=FP32, **options):
    """The record of a run that measures these."""
    short = functools.partial(evaluation.measure_inference, window_s=WINDOW_S, num_starts=0)
    with Run(folder, meter="fake", inference_protocol="full", quiet=True) as run:
        run.begin("toy", Config())
        costs = run.phase(
            "inference", short, contenders, split, compute=compute, cache=folder.parent / "cache", **options
        )
        found = records.Metric(value=0.5, low=0.4, high=0.6, n=10)
        result = records.Result(role="student", split="test", metrics={"accuracy": found}, per_class=[],
                                agreement=None, calibration_error=None, built_by=[], teacher_phases=[])  # fmt: skip
        return run.finish(
            Student(), title="A toy", task="text-classification", metric="accuracy", results=[result],
            inference=costs.inference,
        )  # fmt: skip


def without_origin(record):
    return [{**records.to_json(use), "measured_in": None} for use in record.inference]


def test_second_run_takes_the_numbers_of_the_first_and_owes_their_cost(tmp_path):
    first, later = Sleeper(), Sleeper()
    one = run_full(tmp_path / "one", {"tfidf": Contender(first)})
    two = run_full(tmp_path / "two", {"tfidf": Contender(later)})
    assert first.calls
    assert not later.calls
    assert without_origin(two) == without_origin(one)
    assert [use.measured_in for use in (*one.inference, *two.inference)] == [None, one.run_id]
    assert one.phase("inference").shared_cpu_s == 0.0
    assert 0 < two.phase("inference").shared_cpu_s <= one.phase("inference").cpu_s + 0.1
    assert two.phase("inference").shared_energy_j > 0
    assert [event.details["measured_in"] for event in two.events if event.kind == "cache"] == [[one.run_id]]


@pytest.mark.slow
def test_size_of_a_pass_that_a_run_chose_for_its_training_does_not_measure_a_shape_anew(tmp_path):
    one = run_full(tmp_path / "one", {"tfidf": Contender(Sleeper())})
    other = dataclasses.replace(FP32, tokens_per_pass=2 * FP32.tokens_per_pass)
    two = run_full(tmp_path / "two", {"tfidf": Contender(Sleeper())}, compute=other)
    assert two.inference[0].measured_in == one.run_id
    three = run_full(
        tmp_path / "three", {"tfidf": Contender(Sleeper())}, compute=dataclasses.replace(FP32, num_threads=7)
    )
    assert three.inference[0].measured_in is None


@pytest.mark.slow
def test_cache_is_asked_by_shape_and_not_by_weights(tmp_path, tiny_model_folder):
    one = run_full(tmp_path / "one", {"student": classifier(tiny_model_folder)}, split_of(texts(12)))
    other_weights = classifier(tiny_model_folder)
    with torch.no_grad():
        other_weights.model.classifier.weight += 1
    two = run_full(tmp_path / "two", {"student": other_weights}, split_of(texts(12)))
    assert two.inference[0].measured_in == one.run_id
    shorter = classifier(tiny_model_folder)
    shorter.max_length = 7
    three = run_full(tmp_path / "three", {"student": shorter}, split_of(texts(12)))
    assert three.inference[0].measured_in is None
    four = run_full(tmp_path / "four", {"student": other_weights}, split_of(texts(13)))
    assert four.inference[0].measured_in is None


def test_models_that_the_cache_lacks_are_measured_beside_those_that_it_has(tmp_path):
    one = run_full(tmp_path / "one", {"tfidf": Contender(Sleeper())})
    known, new = Sleeper(), Sleeper(num_parameters=8)
    two = run_full(tmp_path / "two", {"majority": Contender(new), "tfidf": Contender(known)})
    assert new.calls
    assert not known.calls
    assert {use.role: use.measured_in for use in two.inference} == {"tfidf": one.run_id, "majority": None}


@pytest.mark.slow
def test_damaged_measurement_is_taken_again(tmp_path):
    run_full(tmp_path / "one", {"tfidf": Contender(Sleeper())})
    (entry,) = (tmp_path / "cache" / "inference").glob("*/entry.json")
    content = files.read_json(entry)
    content["inference"]["throughput_per_s"] *= 2
    entry.write_text(json.dumps(content))
    sleeper = Sleeper()
    two = run_full(tmp_path / "two", {"tfidf": Contender(sleeper)})
    assert sleeper.calls
    assert [event.kind for event in two.events if "cache" in event.kind] == ["damaged cache"]
    three = run_full(tmp_path / "three", {"tfidf": Contender(Sleeper())})
    assert three.inference[0].measured_in == two.run_id


@pytest.mark.parametrize("why", ["contended", "outside a run"])
def test_doubtful_measurement_is_not_kept(tmp_path, why):
    told = []
    context = Context(
        fingerprint=lambda: "" if why == "outside a run" else "f",
        is_contended=lambda: why == "contended",
        event=lambda kind, message, **_: told.append(kind),
    )
    (found,) = measure({"tfidf": Contender(Sleeper())}, context=context, cache=tmp_path)
    assert found.protocol == "full"
    assert not list(tmp_path.rglob("entry.json"))
    assert told == (["inference"] if why == "contended" else [])


def test_cache_that_cannot_be_written_costs_no_run(tmp_path):
    told, blocked = [], tmp_path / "cache"
    blocked.write_text("a file where the cache should be")
    context = Context(fingerprint=lambda: "f", event=lambda kind, message, **_: told.append(message))
    (found,) = measure({"tfidf": Contender(Sleeper())}, context=context, cache=blocked)
    assert found.variants
    assert len(told) == 1
    assert told[0].startswith("no other run can take over the cost of a use, because the cache in")


# What it would take


def test_trial_foretells_the_windows_that_it_leaves_out(tmp_path):
    trial, sleeper = Trial(tmp_path), Sleeper()
    context = Context(fingerprint=lambda: "f")
    with trial.open():
        began = time.perf_counter()
        measure({"tfidf": Contender(sleeper)}, window_s=5.0, context=context, cache=tmp_path / "cache")
        took = time.perf_counter() - began
    in_all = took + trial.take().duration_s
    expected = 2 * (10 * 5.0 + 2 * 3 * 1.0) + 5 * 0.5
    assert took < 5
    assert in_all == pytest.approx(expected, rel=0.05)
    assert trial.cache_bytes > 1000
    assert not (tmp_path / "cache").exists()


# Options of a run


def test_protocol_of_a_run_reaches_its_phases_and_stays_when_it_goes_on(tmp_path):
    asked = []

    def look(context):
        asked.append(context.inference_protocol)
        return 1

    def go(**options):
        with Run(tmp_path / "run", meter="none", quiet=True, **options) as run:
            run.begin("toy", Config())
            run.phase(f"look{len(asked)}", look)

    go(inference_protocol="full")
    go(resume=True)
    assert asked == ["full", "full"]
    with pytest.raises(InputError, match="began with --inference-protocol full and has to keep it"):
        go(resume=True, inference_protocol="indicative")


@pytest.mark.parametrize(("options", "protocol"), [({}, "indicative"), ({"smoke": True}, "smoke")])
def test_run_without_the_option_is_indicative_and_a_smoke_run_is_one(tmp_path, options, protocol):
    with Run(tmp_path / "run", meter="none", quiet=True, **options) as run:
        run.begin("toy", Config())
        assert run.phase("look", lambda context: context.inference_protocol) == protocol


def test_smoke_run_under_the_full_protocol_is_refused(tmp_path):
    with pytest.raises(InputError, match="one window of each model, --inference-protocol full ten"):
        Run(tmp_path / "run", meter="none", smoke=True, inference_protocol="full")


def test_recipe_that_measures_no_use_says_that_the_option_had_no_effect(tmp_path):
    record = run_full(tmp_path / "run", {})
    assert [event.message for event in record.events if event.kind == "inference"] == [
        "the recipe measures no use of a model this way: --inference-protocol full had no effect"
    ]


def test_records_from_before_the_full_protocol_are_read():
    (use,) = measure({"tfidf": Contender(Sleeper())}, protocol="smoke")
    before = {
        name: value
        for name, value in records.to_json(use).items()
        if name not in ("measured_in", "start_up_s", "variants")
    }
    assert records.from_json(records.Inference, before) == use
    assert (use.measured_in, use.start_up_s, use.variants) == (None, None, [])
