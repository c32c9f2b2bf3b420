"""Shipped recipes killed anywhere and resumed: the same weights, bit for bit, and a bill that adds up."""

import itertools
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import killing
import psutil
import pyarrow.parquet as pq
import pytest
import small_data
from killing import FINISH, KILLED, TORN, Point, Processes, Request

from smallmodels import files, records, verification

TICKETS = ["--text-column", "message", "--label-column", "team", "--max-length", "32"]
SHORT = ["--smoke", "--max-steps", "8", "--checkpoint-steps", "2", "--batch-size", "8", "--number-format", "fp32"]
"""Eight steps and a checkpoint after every second. The number format is measured, so it is fixed here: another one
would give other bits."""
LAYERS = ["--num-layers", "2"]
HOT = ["--sampling-temperature", "4", "--temperature", "4"]
"""The tiny model is so sure of each token that it would draw the same ones from any seed."""
TEACHER = ["--teacher-train.checkpoint-steps", "2"]
SETTINGS = {
    "finetune": ["finetune_text_classifier", *LAYERS, "--num-evaluations", "4"],
    **{
        f"finetune-workers-{n}": [
            "finetune_text_classifier",
            *LAYERS,
            "--num-evaluations",
            "4",
            "--num-workers",
            str(n),
        ]
        for n in (1, 2)
    },
    "finetune-lora": ["finetune_text_classifier", *LAYERS, "--lora-rank", "2", "--micro-batch-size", "3"],
    "distill": ["distill_text_classifier", *LAYERS, "--teacher-train.max-steps", "4", *TEACHER],
    "distill-dropout": ["distill_text_classifier", *LAYERS, "--dropout", "--micro-batch-size", "3", *TEACHER],
    "static": ["distill_static_embedder", "--dimensions", "8", "--teacher-train.max-steps", "4", *TEACHER],
    "quickstart": ["quickstart", *LAYERS, "--max-entries", "24", "--num-evaluations", "2"],
    "pretrain": ["pretrain_language_model", *LAYERS, "--num-evaluations", "2"],
    "language": ["distill_language_model", "--num-layers", "1", "--num-evaluations", "2"],
    "policy": ["distill_on_policy", "--num-layers", "1", "--num-evaluations", "2", *HOT],
    "tune": ["finetune_language_model", "--lora-rank", "2", "--num-evaluations", "2"],
    "sequence": ["distill_sequence_level", "--num-layers", "1", "--num-evaluations", "2"],
}
LANGUAGE_MODELS = ("language", "policy", "tune")
MODEL_FLAG = {
    **dict.fromkeys(("finetune", "tune"), "--base-model"),
    **dict.fromkeys(("distill", "static", "quickstart", "language", "policy", "sequence"), "--teacher"),
}
TEXTS = ["--text-columns", "message", "--max-length", "32"]
ANSWERS = ["--prompt-column", "asked", "--completion-column", "team", "--template", "plain", "--max-length", "32"]
COLUMNS = {"pretrain": TEXTS, "language": TEXTS, "policy": ANSWERS, "tune": ANSWERS, "sequence": ANSWERS}


@pytest.fixture(scope="session")
def children(fork_server):
    return Processes(fork_server)


@pytest.fixture(scope="session")
def tickets(tmp_path_factory) -> Path:
    rows = [f"{text},{small_data.LABELS[i % 3]},where is {i}" for i, text in enumerate(small_data.texts(120))]
    path = tmp_path_factory.mktemp("own") / "tickets.csv"
    path.write_text("\n".join(["message,team,asked", *rows]) + "\n")
    return path


@dataclass(frozen=True)
class Trial:
    """A run in a folder of its own, begun and gone on with in one process after the other."""

    children: Processes
    words: list[str]
    folder: Path

    def start(self, point: Point | None = None, num_threads: int = 1, **how) -> int:
        """Begin the run, or go on with it; the exit code."""
        self.folder.mkdir(exist_ok=True)
        words = ["run", "--resume", str(self.run)] if self.runs else self.words
        return self.children.run(replace(self.request(words, point), num_threads=num_threads), **how)

    def request(self, words: list[str], point: Point | None = None) -> Request:
        return Request(words, str(self.folder), point)

    @property
    def runs(self) -> list[Path]:
        return [path.parent for path in self.folder.glob("runs/*/*/config.json")]

    @property
    def run(self) -> Path:
        (run,) = self.runs
        return run

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    def trained(self) -> dict[tuple[str, int], list]:
        """Examples and numbers of each step by phase; a step that was taken twice must have been the same."""
        steps: dict[tuple[str, int], list] = {}
        for line in (self.folder / "training.jsonl").read_text().splitlines():
            phase, step, *what = json.loads(line)
            assert steps.setdefault((phase, step), what) == what, f"step {step} of {phase} was repeated differently"
        return steps


@pytest.fixture(scope="session")
def trial(children, tickets, tiny_model_folder, tiny_language_model_folder, talker) -> Callable[[str, Path], Trial]:
    """Makes a trial of a setting in a folder."""
    folders = dict.fromkeys(LANGUAGE_MODELS, tiny_language_model_folder) | {"sequence": talker}

    def make(setting: str, folder: Path) -> Trial:
        family = setting.partition("-")[0]
        folder_of_model = folders.get(family, tiny_model_folder)
        model = [MODEL_FLAG[family], str(folder_of_model)] if family in MODEL_FLAG else []
        words = ["run", *SETTINGS[setting], *SHORT, *model]
        data = [] if family == "quickstart" else ["--dataset", str(tickets), *COLUMNS.get(family, TICKETS)]
        return Trial(children, [*words, *data, "--out", str(folder / "runs")], folder)

    return make


@pytest.fixture(scope="session")
def uninterrupted(trial, tmp_path_factory) -> Callable[[str], Trial]:
    """The run of a setting that nothing disturbs; made once."""
    made: dict[str, Trial] = {}

    def get(setting: str) -> Trial:
        if setting not in made:
            made[setting] = trial(setting, tmp_path_factory.mktemp(setting))
            assert made[setting].start() == 0, made[setting].output
            assert_nothing_torn(made[setting])
        return made[setting]

    return get


# What must be the same


def assert_same(resumed: Trial, expected: Trial, *, num_segments: int) -> None:
    """Weights, examples, work and their account, after a run was killed and resumed to its end."""
    here, there = records.read_record(resumed.run), records.read_record(expected.run)
    weights = "model/model.safetensors"
    assert files.sha256_file(resumed.run / weights) == files.sha256_file(expected.run / weights)
    assert here.model["weights_sha256"] == there.model["weights_sha256"]
    adapters = [{n: h for n, h in r.files.items() if n.startswith("adapter/adapter_")} for r in (here, there)]
    assert adapters[0] == adapters[1]
    assert notes(resumed)["examples_sha256"] == notes(expected)["examples_sha256"]
    assert_same_steps(resumed, expected)
    assert_same_counts(here, there)
    assert tensors_in_the_cache(resumed) == tensors_in_the_cache(expected)
    assert answers_in_the_cache(resumed) == answers_in_the_cache(expected)
    assert_account_adds_up(resumed.run, here, num_segments)
    assert_nothing_torn(resumed)


def notes(trial: Trial) -> dict:
    """What `fit` wrote down about the training of the student."""
    return json.loads((trial.run / "model" / "smallmodels.json").read_text())["notes"]["training"]


def tensors_in_the_cache(trial: Trial) -> dict[str, str]:
    """Hashes of the teacher's weights and signals by their path."""
    cache = trial.folder / "cache"
    return {str(path.relative_to(cache)): files.sha256_file(path) for path in sorted(cache.rglob("*.safetensors"))}


def answers_in_the_cache(trial: Trial) -> dict[str, list]:
    """Tokens that teachers wrote, by the path of their entry."""
    cache = trial.folder / "cache"
    return {
        str(path.relative_to(cache)): json.loads(path.read_text())["token_ids"]
        for path in cache.glob("written-answers/*/answers/answers.json")
    }


def assert_same_steps(resumed: Trial, expected: Trial) -> None:
    """The same examples in the same order, and the same bits of loss and gradient in every step.

    How many steps the controls take is measured, so of them only the steps that both took are compared.
    """
    here, there = resumed.trained(), expected.trained()
    controls = ("label_only", "label_only_full_cost")
    assert [key for key in here if key[0] not in controls] == [key for key in there if key[0] not in controls]
    for key in here.keys() & there.keys():
        assert here[key][0] == there[key][0], f"other examples in step {key[1]} of {key[0]}"
        if key[0] not in controls:  # their learning rate falls with the number of their steps
            assert here[key][1] == there[key][1], f"other numbers in step {key[1]} of {key[0]}"


def assert_same_counts(here: records.RunRecord, there: records.RunRecord) -> None:
    """Work that was repeated after a kill costs energy twice, but is one piece of work."""
    for wanted in there.phases:
        if wanted.name.partition("_")[0] in ("teacher", "train", "write", "generate", "replay"):
            found = here.phase(wanted.name)
            assert found.num_examples == wanted.num_examples
            assert found.num_tokens == wanted.num_tokens
            assert found.num_operations == wanted.num_operations


def assert_account_adds_up(run: Path, record: records.RunRecord, num_segments: int) -> None:
    """Each segment of the journal counts once, from its first line to its last; the time between them does not."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    readings = [line for line in lines if line["kind"] != "event"]
    segments = [list(group) for _, group in itertools.groupby(readings, lambda line: line["segment"])]
    assert [segment[0]["kind"] for segment in segments] == ["open"] * num_segments
    assert record.num_segments == num_segments
    for field, key in (("duration_s", "monotonic_s"), ("cpu_s", "cpu_s")):
        of_segments = [segment[-1][key] - segment[0][key] for segment in segments]
        assert min(of_segments) >= 0
        assert getattr(record, field) == pytest.approx(sum(of_segments), rel=1e-6)
        assert sum(getattr(phase, field) for phase in record.phases) == pytest.approx(getattr(record, field), rel=1e-6)
    if record.energy_j is not None:
        joules = sum(
            segment[-1]["components"][name]["energy_j"] - segment[0]["components"][name]["energy_j"]
            for segment in segments
            for name in segment[0]["components"]
        )
        assert record.energy_j == pytest.approx(joules, rel=1e-6)
        assert sum(phase.energy_j for phase in record.phases) == pytest.approx(record.energy_j, rel=1e-6)
    assert record.energy_truncated == (num_segments > 1 and any(s[-1]["kind"] != "close" for s in segments))


def assert_nothing_torn(trial: Trial) -> None:
    """No temporary file, lock or checkpoint is left, and the run is what its record says."""
    left = [path for path in trial.folder.rglob("*") if ".tmp" in path.name or path.name.startswith(".probe")]
    assert left == []
    assert not (trial.run / ".lock").exists()
    assert [path for name in ("checkpoints", "parts") for path in trial.run.glob(f"phases/*/{name}")] == []
    verification.verify(trial.run)


def kill_and_resume(
    trial: Trial, expected: Trial, points: Sequence[Point | float], *, fresh: bool = False, ends: int = KILLED
) -> None:
    """Kill a run at one point after the other, going on in between, and let it end.

    Args:
        trial: Not begun yet.
        expected: What it must end like.
        points: A call; or a share of the time that `expected` took, after which the run is killed from outside.
        fresh: In newly started processes.
        ends: Exit code at the points.
    """
    duration_s = records.read_record(expected.run).duration_s
    for point in points:
        if isinstance(point, Point):
            code = trial.start(point, fresh=fresh)
        else:
            after_s = point * duration_s
            while (code := trial.start(killed_after_s=after_s)) == 0:
                after_s /= 2  # the machine was busier when it made `expected`, so this run has ended: anew, and sooner
                shutil.rmtree(trial.folder)
        assert code == ends, trial.output
    num_segments = len(journal_segments(trial)) + 1
    assert trial.start(fresh=fresh) == 0, trial.output
    assert_same(trial, expected, num_segments=num_segments)


def journal_segments(trial: Trial) -> set[int]:
    """Numbers of the segments that were begun; a run that was killed very early has none."""
    lines = (trial.run / "journal.jsonl").read_bytes().split(b"\n") if trial.runs else []
    return {json.loads(line)["segment"] for line in lines if line.endswith(b"}")}


# Points

TRAIN_STEP = "smallmodels.training.loop:Loop.train_step"
BACKWARD = "accelerate:Accelerator.backward"
SAVE_FILE = "smallmodels.training.state:save_file"
FORWARD = "smallmodels.models:forward_all"
FORWARD_TEXTS = "smallmodels.models:forward_texts"
FORWARD_TARGETS = "smallmodels.models:forward_targets"
GENERATE = "smallmodels.generation:_generate"
REPLACE, FSYNC = "os:replace", "os:fsync"
CHECKPOINT = "step-00000004"

QUICK = {
    "step-6": ("finetune", [Point(TRAIN_STEP, 6, "train", after=True)]),
    "checkpoint-then-evaluation": (
        "finetune",
        [Point(SAVE_FILE, 4, "train", after=True), Point(FORWARD, 1, "evaluate")],
    ),
    "record": ("finetune", [Point(REPLACE, 1, FINISH, path="record.json")]),
}


@pytest.mark.parametrize(
    "name", ["checkpoint-then-evaluation", *(pytest.param(n, marks=pytest.mark.faults) for n in ("step-6", "record"))]
)
def test_r1_killed_and_resumed_gives_the_same_bits(trial, uninterrupted, tmp_path, name):
    setting, points = QUICK[name]
    kill_and_resume(trial(setting, tmp_path), uninterrupted(setting), points)


@pytest.mark.faults
@pytest.mark.parametrize("step", range(1, 9))
def test_r1_killed_after_any_step_gives_the_same_bits(trial, uninterrupted, tmp_path, step):
    kill_and_resume(trial("finetune", tmp_path), uninterrupted("finetune"), [Point(TRAIN_STEP, step, "train", True)])


def in_checkpoint(*points: Point) -> list[Point]:
    """Points in the second checkpoint, for which the one of step 2 has to be used whichever point it is."""
    return [replace(point, phase="train", path=point.path or CHECKPOINT) for point in points]


CHECKPOINTS = {
    "k1-tensors": in_checkpoint(
        Point(SAVE_FILE, 1), Point(SAVE_FILE, 1, after=True), Point(SAVE_FILE, 2), Point(SAVE_FILE, 3, after=True)
    ),
    "k1-torn-at-a-byte": in_checkpoint(
        *(Point(SAVE_FILE, 1 + i % 3, torn_at=int(size)) for i, size in enumerate(killing.spread(1, 3, 100, 50_000)))
    ),
    "k1-json": in_checkpoint(
        Point("smallmodels.files:write_json", 1),
        Point("smallmodels.files:write_json", 1, after=True),
        Point("smallmodels.files:write_manifest"),
    ),
    "k8-before-rename": in_checkpoint(Point(FSYNC, 2), Point(FSYNC, 8), Point(REPLACE, 3)),
}
"""Renames in a checkpoint: that of the state, that of the manifest, and the one that makes it whole."""


@pytest.mark.faults
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_k1_k8_killed_inside_a_checkpoint_uses_the_one_before(trial, uninterrupted, tmp_path, name):
    begun, expected = trial("finetune", tmp_path), uninterrupted("finetune")
    points = CHECKPOINTS[name]
    # Steps are counted in each process anew: the second begins after step 2, and so do all that follow.
    kill_and_resume(begun, expected, points, ends=TORN if points[0].torn_at else KILLED)
    assert begun.output.count("training goes on after step 2 of 8") == len(points)
    assert "damaged" not in begun.output


@pytest.mark.faults
def test_k8_killed_right_after_the_rename_uses_the_new_checkpoint(trial, uninterrupted, tmp_path):
    begun, expected = trial("finetune", tmp_path), uninterrupted("finetune")
    after_rename = Point(REPLACE, 3, "train", after=True, path=CHECKPOINT)
    in_removal = Point("shutil:rmtree", 2, "train", path=".step-00000002")
    kill_and_resume(begun, expected, [after_rename, in_removal])
    assert [f"after step {step} of 8" in begun.output for step in (2, 4, 6)] == [False, True, True]


PLACES = {
    "accumulation-twice": ("finetune-lora", [Point(BACKWARD, 8, "train"), Point(BACKWARD, 11, "train")]),
    "data": ("distill", [Point("smallmodels.data:load_text_classification", phase="data", after=True)]),
    "data-kept": ("distill", [Point(REPLACE, 1, "data", path="result.json"), Point(FSYNC, 3, "data")]),
    "teacher": ("distill", [Point(SAVE_FILE, 2, "teacher"), Point(TRAIN_STEP, 3, "teacher")]),
    "teacher-stored": (
        "distill",
        [Point(REPLACE, 1, "teacher", path="fine-tuned"), Point(REPLACE, 1, "teacher", path="result.json")],
    ),
    "cache": ("distill", [Point(FORWARD, 1, "cache"), Point(FORWARD, 1, "cache", after=True)]),
    "cache-writing": ("distill-dropout", [Point(REPLACE, n, "cache", path="signals") for n in (1, 2, 3)]),
    "cache-kept": ("distill", [Point("smallmodels.kept:save", 1, "cache")]),
    "accumulation": ("distill-dropout", [Point(BACKWARD, 4, "train"), Point(BACKWARD, 11, "train", after=True)]),
    "validation": ("finetune", [Point("smallmodels.evaluation:accuracy", 2, "train")]),
    "validation-end": ("distill", [Point("smallmodels.evaluation:accuracy", 1, "train", after=True)]),
    "train-kept": ("finetune", [Point(REPLACE, 1, "train", path="value"), Point(REPLACE, 1, "train", path="result")]),
    "control": ("distill", [Point(TRAIN_STEP, 7, "label_only"), Point(TRAIN_STEP, 3, "label_only_full_cost")]),
    "vectors": ("static", [Point(FORWARD, 1, "base_vectors"), Point("smallmodels.kept:save", 1, "vectors")]),
    "static": ("static", [Point(TRAIN_STEP, 3, "train"), Point("smallmodels.kept:save", 1, "train")]),
    "tokenizer": ("pretrain", [Point("smallmodels.kept:save", 1, "tokenizer"), Point(TRAIN_STEP, 3, "train")]),
    "tokens-cache": ("language", [Point(FORWARD_TARGETS, 1, "cache"), Point(REPLACE, 2, "cache", path="signals")]),
    "tokens-train": ("language", [Point(TRAIN_STEP, 3, "train"), Point(SAVE_FILE, 2, "train", after=True)]),
    "tokens-control": ("language", [Point(FORWARD_TARGETS, 2, "train"), Point(TRAIN_STEP, 3, "label_only")]),
    "tokens-inference": ("language", [Point("smallmodels.evaluation.windows:take_window", 2, "inference")]),
    "samples": ("policy", [Point(GENERATE, 1, "generate_1", after=True), Point(TRAIN_STEP, 5, "train_1")]),
    "samples-scored": ("policy", [Point(REPLACE, 2, "cache_1", path="signals"), Point(FORWARD_TARGETS, 2, "replay_1")]),
    "samples-kept": (
        "policy",
        [Point(REPLACE, 1, "train_0", path="value"), Point(REPLACE, 1, "generate_1", path="result")],
    ),
    "evaluation": ("distill", [Point(FORWARD, 3, "evaluate"), Point(FORWARD, 5, "evaluate", after=True)]),
    "inference": ("distill-dropout", [Point("smallmodels.evaluation.windows:take_window", 2, "inference")]),
    "model": ("finetune-lora", [Point(REPLACE, 1, FINISH, path="/model"), Point(FSYNC, 2, FINISH, path="model.")]),
    "report": ("distill", [Point("smallmodels.report:run_page", 1, FINISH, after=True)]),
    "lora": ("finetune-lora", [Point(TRAIN_STEP, 5, "train"), Point(SAVE_FILE, 2, "train")]),
    "adapter": (
        "tune",
        [
            Point(TRAIN_STEP, 5, "train"),
            Point("smallmodels.kept:save", 1, "train", after=True),
            Point(REPLACE, 1, path="/adapter"),
        ],
    ),
    "workers-1": ("finetune-workers-1", [Point(TRAIN_STEP, 4, "train"), Point(TRAIN_STEP, 1, "train", after=True)]),
    "workers-2": ("finetune-workers-2", [Point(BACKWARD, 5, "train"), Point(TRAIN_STEP, 2, "train")]),
    "search-cache": ("quickstart", [Point(REPLACE, 1, "cache", path="signals")]),
    "search-train": ("quickstart", [Point(TRAIN_STEP, 4, "train"), Point(SAVE_FILE, 2, "train")]),
    "search-index": ("quickstart", [Point(FORWARD_TEXTS, 1, "index"), Point(REPLACE, 1, path="/index")]),
}


def test_every_call_that_a_test_ends_a_run_at_exists():
    """One that has moved would show in the longest tests alone."""
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py")]
    calls = {call for text in texts for call in re.findall(r'"([a-z][\w.]*\.[\w.]+:[A-Za-z_][\w.]*)"', text)}
    assert len(calls) > 15
    for call in sorted(calls):
        killing.find_call(call)


@pytest.mark.faults
@pytest.mark.parametrize("place", PLACES)
def test_r1_d6_killed_in_any_phase_gives_the_same_bits(trial, uninterrupted, tmp_path, place):
    setting, points = PLACES[place]
    kill_and_resume(trial(setting, tmp_path), uninterrupted(setting), points)


WRITTEN = {
    "write": ("sequence", [Point(GENERATE, 3, "write"), Point(GENERATE, 2, "write", after=True)], [2, 3]),
    "write-kept": ("sequence", [Point(REPLACE, 1, "write", path="part-00001")], [1]),
    "write-cached": ("sequence", [Point(REPLACE, 1, "write", path="written-answers")], [None]),
    "samples": ("policy", [Point(GENERATE, 2, "generate_1", after=True)], [1]),
    "answers": ("tune", [Point(GENERATE, 2, "answer"), Point(GENERATE, 3, "answer")], [1, 3]),
}
"""Places in the writing of answers, and how many batches each process that goes on finds there; None is all."""


@pytest.mark.faults
@pytest.mark.parametrize("place", WRITTEN)
def test_r1_t1_killed_while_a_model_writes_goes_on_after_the_batches_that_are_there(
    trial, uninterrupted, tmp_path, place
):
    setting, points, counts = WRITTEN[place]
    begun, expected = trial(setting, tmp_path), uninterrupted(setting)
    kill_and_resume(begun, expected, points)
    found = re.findall(r"(\d+) of (\d+) batches of answers are there from before", begun.output)[: len(counts)]
    assert [None if None in counts and a == b else int(a) for a, b in found] == counts
    columns = [pq.read_table(t.run / "predictions.parquet").to_pydict() for t in (begun, expected)]
    kept = [name for name in columns[0] if not name.startswith("label_only/")]  # its steps are measured
    assert [columns[0][name] for name in kept] == [columns[1][name] for name in kept]
    if setting == "tune":  # which has no such control
        here, there = (records.read_record(t.run).phase("answer") for t in (begun, expected))
        assert (here.num_tokens, here.num_operations) == (there.num_tokens, there.num_operations)


@pytest.mark.faults
def test_another_seed_reads_the_teachers_answers_back_and_owes_them(trial, uninterrupted, tmp_path):
    first = uninterrupted("sequence")
    other = trial("sequence", tmp_path)
    shutil.copytree(first.folder / "cache", tmp_path / "cache")
    assert replace(other, words=[*other.words, "--seed", "1"]).start() == 0, other.output
    made, read = (records.read_record(t.run).phase("write") for t in (first, other))
    assert made.num_tokens > 0
    assert (made.shared_cpu_s, read.num_tokens) == (0.0, None)
    assert 0 < read.shared_cpu_s <= made.cpu_s
    assert answers_in_the_cache(other) == answers_in_the_cache(first)


RANDOM = [
    (setting, round(moment, 2))
    for setting, count in (("finetune", 3), ("distill", 4), ("quickstart", 2))
    for moment in killing.spread(len(setting), count, 0.05, 0.95)
]


@pytest.mark.faults
@pytest.mark.parametrize(("setting", "moment"), RANDOM)
def test_r1_killed_at_a_random_moment_gives_the_same_bits(trial, uninterrupted, tmp_path, setting, moment):
    begun, expected = trial(setting, tmp_path), uninterrupted(setting)
    kill_and_resume(begun, expected, [moment])


FRESH = {
    "finetune": [
        Point(TRAIN_STEP, 3, "train"),
        Point(FSYNC, 2, "train", path=CHECKPOINT),
        Point(FORWARD, 1, "evaluate"),
    ],
    "distill": [Point(TRAIN_STEP, 3, "teacher"), Point(REPLACE, 2, "cache"), Point(BACKWARD, 6, "train")],
    "quickstart": [
        Point(FORWARD, 1, "cache"),
        Point(TRAIN_STEP, 5, "train", after=True),
        Point(REPLACE, 1, FINISH, path="record.json"),
    ],
}


@pytest.mark.faults
@pytest.mark.parametrize("setting", FRESH)
def test_r1_killed_and_resumed_in_fresh_processes_gives_the_same_bits(trial, uninterrupted, tmp_path, setting):
    kill_and_resume(trial(setting, tmp_path), uninterrupted(setting), FRESH[setting], fresh=True)


@pytest.mark.faults
@pytest.mark.parametrize("setting", ["finetune-workers-1", "finetune-workers-2"])
def test_d14_data_workers_change_no_bit(uninterrupted, setting):
    assert_same(uninterrupted(setting), uninterrupted("finetune"), num_segments=1)


# Asked to stop

ACCURACY = "smallmodels.evaluation:accuracy"


def asked(point: Point, number: int = signal.SIGTERM, times: int = 1) -> Point:
    return replace(point, signal=number, times=times)


def stop_and_resume(begun: Trial, expected: Trial, points: Sequence[Point]) -> None:
    kill_and_resume(begun, expected, points, ends=75)
    assert begun.output.count("next safe point and saves its work") == len(points)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_r2_r3_asked_to_stop_finishes_the_step_saves_and_resumes(trial, uninterrupted, tmp_path, number):
    begun = trial("finetune-lora", tmp_path)
    stop_and_resume(begun, uninterrupted("finetune-lora"), [asked(Point(BACKWARD, 8, "train"), number)])
    assert "training stopped after step 3 of 8, saved" in begun.output
    assert "training goes on after step 3 of 8" in begun.output


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_r2_r3_d13_asked_to_stop_with_its_workers_still_finishes_the_step(trial, uninterrupted, tmp_path, number):
    begun, expected = trial("finetune-workers-2", tmp_path), uninterrupted("finetune-workers-2")
    stop_and_resume(begun, expected, [replace(asked(Point(BACKWARD, 3, "train"), number), to_children=True)])
    assert "training stopped after step 3 of 8, saved" in begun.output


@pytest.mark.faults
def test_r3_second_ctrl_c_stops_at_once_and_resumes(trial, uninterrupted, tmp_path):
    begun, expected = trial("finetune-lora", tmp_path), uninterrupted("finetune-lora")
    stop_and_resume(begun, expected, [asked(Point(BACKWARD, 8, "train"), signal.SIGINT, times=2)])
    assert "stopped at once" in begun.output
    assert "training goes on after step 2 of 8" in begun.output  # the third was not finished


STOPS = {
    "r2-checkpoint": ("finetune", [Point(SAVE_FILE, 5, "train"), Point(REPLACE, 3, "train", path="step-00000006")]),
    "r2-validation": ("finetune", [Point(ACCURACY, 2, "train"), Point(ACCURACY, 2, "train", after=True)]),
    "r2-workers-1": ("finetune-workers-1", [Point(TRAIN_STEP, 3, "train")]),
    "r2-workers-2": ("finetune-workers-2", [Point(TRAIN_STEP, 3, "train"), Point(TRAIN_STEP, 1, "train")]),
    "r4-data": ("distill", [Point("smallmodels.data:load_text_classification", 1, "data")]),
    "r4-teacher": ("distill", [Point(TRAIN_STEP, 2, "teacher"), Point(REPLACE, 1, "teacher", path="fine-tuned")]),
    "r4-cache": ("distill-dropout", [Point(FORWARD, 1, "cache"), Point(REPLACE, 2, "cache", path="signals")]),
    "r4-control": ("distill", [Point(TRAIN_STEP, 3, "label_only")]),
    "r4-evaluation": (
        "distill",
        [Point(FORWARD, 2, "evaluate"), Point("smallmodels.evaluation.windows:take_window", 1)],
    ),
    "r4-index": ("quickstart", [Point(TRAIN_STEP, 1, "train"), Point(FORWARD_TEXTS, 1, "index")]),
}


@pytest.mark.faults
@pytest.mark.parametrize("place", STOPS)
def test_r2_r4_asked_to_stop_in_any_phase_exits_75_and_resumes(trial, uninterrupted, tmp_path, place):
    setting, points = STOPS[place]
    stop_and_resume(trial(setting, tmp_path), uninterrupted(setting), [asked(point) for point in points])


@pytest.mark.faults
def test_r4_asked_to_stop_while_the_report_is_written_ends_with_a_whole_run(trial, uninterrupted, tmp_path):
    begun = trial("finetune", tmp_path)
    assert begun.start(asked(Point("smallmodels.report:run_page", 1, FINISH))) == 0, begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=1)


# The run folder


@pytest.mark.faults
def test_x5_second_process_in_a_run_folder_exits_3_and_harms_nothing(trial, uninterrupted, tmp_path, children):
    begun = trial("finetune", tmp_path)
    begun.folder.mkdir(exist_ok=True)
    stopped = Point(TRAIN_STEP, 3, "train", signal=signal.SIGSTOP)
    first = children.start(begun.request(begun.words, stopped))
    deadline = time.monotonic() + 60
    while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, begun.output
        time.sleep(0.02)
    second = replace(begun, folder=tmp_path / "second")
    second.folder.mkdir()
    assert children.run(second.request(["run", "--resume", str(begun.run)])) == 3
    assert f"is in use by process {first.pid} on" in second.output
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0, begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=1)


@pytest.mark.faults
def test_r13_other_number_of_threads_on_resume_is_put_right(trial, uninterrupted, tmp_path):
    """The number of threads is a measured choice, so a resumed run takes that of its beginning."""
    begun = trial("finetune", tmp_path)
    assert begun.start(Point(TRAIN_STEP, 3, "train")) == KILLED
    assert begun.start(num_threads=2) == 0, begun.output
    assert "not bitwise" not in begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=2)


@pytest.mark.faults
def test_r13_measured_choices_outlive_the_phase_that_made_them(trial, uninterrupted, tmp_path):
    begun = trial("finetune", tmp_path)
    assert begun.start(Point(TRAIN_STEP, 3, "train")) == KILLED
    (begun.run / "phases" / "setup" / "result.json").unlink()
    assert begun.start(num_threads=2) == 0, begun.output
    assert "not bitwise" not in begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=2)


@pytest.mark.faults
def test_r13_another_number_of_threads_cannot_be_asked_for_on_resume(trial, uninterrupted, tmp_path):
    begun = trial("finetune", tmp_path)
    assert begun.start(Point(TRAIN_STEP, 3, "train")) == KILLED
    words = ["run", "--resume", str(begun.run), "--num-threads", "2"]
    assert begun.children.run(begun.request(words)) == 2
    assert "the run began with --num-threads 1 and has to keep it" in begun.output
    assert begun.start() == 0, begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=2)


@pytest.mark.faults
def test_k5_disk_that_fills_up_in_a_checkpoint_keeps_the_one_before(trial, uninterrupted, tmp_path):
    """The limit on a file's size stands in for the disk: the call fails with an error, as on a full one."""
    begun = trial("finetune", tmp_path)
    limit = Point(SAVE_FILE, 1, "train", path=CHECKPOINT, limit=20_000)
    assert begun.start(limit) == 75, begun.output
    assert "larger than this system lets you write" in begun.output
    kept = sorted(path.name for path in (begun.run / "phases" / "train" / "checkpoints").iterdir())
    assert kept == ["step-00000002"]
    assert begun.start() == 0, begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=2)


@pytest.mark.faults
def test_k2_flipped_bit_in_a_checkpoint_is_told_and_the_one_before_used(trial, uninterrupted, tmp_path):
    begun = trial("finetune", tmp_path)
    assert begun.start(Point(TRAIN_STEP, 6, "train")) == KILLED
    weights = begun.run / "phases" / "train" / "checkpoints" / "step-00000004" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 4
    weights.write_bytes(content)
    assert begun.start() == 0, begun.output
    assert "weights.safetensors" in begun.output
    assert "training goes on after step 2 of 8" in begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=2)


@pytest.mark.faults
def test_k2_no_whole_checkpoint_exits_4(trial, tmp_path):
    begun = trial("finetune", tmp_path)
    assert begun.start(Point(TRAIN_STEP, 6, "train")) == KILLED
    for path in (begun.run / "phases" / "train" / "checkpoints").glob("*/optimizer.safetensors"):
        path.write_bytes(b"")
    assert begun.start() == 4
    assert "is whole: delete that folder" in begun.output


# A finished phase


@pytest.mark.faults
def test_finished_phases_are_not_done_again(trial, uninterrupted, tmp_path):
    """Which steps and forward passes each process made, by phase: none in a phase that an earlier one had finished."""
    begun, expected = trial("distill", tmp_path), uninterrupted("distill")
    kill_and_resume(begun, expected, [Point(FORWARD, 1, "evaluate"), Point("smallmodels.cards:model_card")])
    lines = [json.loads(line) for line in (begun.folder / "training.jsonl").read_text().splitlines()]
    assert len({(phase, step) for phase, step, *_ in lines}) == len(lines)
    for name in ("data", "setup", "tfidf", "teacher", "cache", "train", "label_only", "label_only_full_cost"):
        assert len(re.findall(rf"✓ {name}\s+kept", begun.output)) == 2
    assert len(re.findall(r"✓ evaluate\s+kept", begun.output)) == 1


@pytest.mark.faults
def test_c7_resume_with_another_config_exits_2_and_fork_starts_anew(trial, uninterrupted, tmp_path):
    begun = trial("finetune", tmp_path)
    assert begun.start(Point(TRAIN_STEP, 6, "train")) == KILLED
    words = ["run", "--resume", str(begun.run), "--learning-rate", "0.1"]
    assert begun.children.run(begun.request(words)) == 2
    assert "learning_rate was 0.0003 and is 0.1" in begun.output
    forked = replace(begun, folder=tmp_path / "forked")
    forked.folder.mkdir()
    fork = [*words, "--fork", "--out", str(forked.folder / "runs")]
    assert begun.children.run(forked.request(fork)) == 0, forked.output
    assert records.read_record(forked.run).config["train"]["learning_rate"] == 0.1
    assert begun.start() == 0, begun.output
    assert_same(begun, uninterrupted("finetune"), num_segments=2)
