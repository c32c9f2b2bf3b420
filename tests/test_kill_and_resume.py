"""Shipped recipes killed anywhere and resumed: the same weights, bit for bit, and a bill that adds up."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import killing
import pytest
import small_data
from killing import FINISH, KILLED, Point, Processes, Request
from safetensors import safe_open

from smallmodels import files, records, verification

TICKETS = ["--text-column", "message", "--label-column", "team", "--max-length", "32"]
SHORT = ["--smoke", "--max-steps", "8", "--checkpoint-steps", "2", "--batch-size", "8", "--number-format", "fp32"]
"""Eight steps and a checkpoint after every second. The number format is measured, so it is fixed here: another one
would give other bits."""
SETTINGS = {
    "finetune": ["finetune_text_classifier", "--num-layers", "2", "--num-evaluations", "4"],
    "finetune-lora": ["finetune_text_classifier", "--num-layers", "2", "--lora-rank", "2", "--micro-batch-size", "3"],
    "distill": ["distill_text_classifier", "--num-layers", "2", "--teacher-train.max-steps", "4"],
    "distill-dropout": ["distill_text_classifier", "--num-layers", "2", "--dropout", "--micro-batch-size", "3"],
    "quickstart": ["quickstart", "--num-layers", "2", "--max-train", "64", "--num-evaluations", "2"],
}
MODEL_FLAG = {"finetune": "--base-model", "distill": "--teacher", "quickstart": "--teacher"}


@pytest.fixture(scope="session")
def children():
    with killing.processes() as running:
        yield running


@pytest.fixture(scope="session")
def tickets(tmp_path_factory) -> Path:
    rows = [f"{text},{small_data.LABELS[i % 3]}" for i, text in enumerate(small_data.texts(120))]
    path = tmp_path_factory.mktemp("own") / "tickets.csv"
    path.write_text("\n".join(["message,team", *rows]) + "\n")
    return path


@dataclass(frozen=True)
class Trial:
    """A run in a folder of its own, begun and gone on with in one process after the other."""

    children: Processes
    words: list[str]
    folder: Path

    def start(self, point: Point | None = None, **how) -> int:
        """Begin the run, or go on with it; the exit code."""
        self.folder.mkdir(exist_ok=True)
        words = ["run", "--resume", str(self.run)] if self.runs else self.words
        return self.children.run(self.request(words, point), **how)

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
def trial(children, tickets, tiny_model_folder) -> Callable[[str, Path], Trial]:
    """Makes a trial of a setting in a folder."""

    def make(setting: str, folder: Path) -> Trial:
        family = setting.partition("-")[0]
        words = ["run", *SETTINGS[setting], *SHORT, MODEL_FLAG[family], str(tiny_model_folder)]
        data = [] if family == "quickstart" else ["--dataset", str(tickets), *TICKETS]
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
    assert_same_steps(resumed, expected)
    assert_same_counts(here, there)
    assert_account_adds_up(resumed.run, here, num_segments)
    assert_nothing_torn(resumed)


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
    for name in ("teacher", "train"):
        for wanted in (phase for phase in there.phases if phase.name == name):
            found = here.phase(name)
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
    """No temporary file is left, the run is verified, and every entry of the cache is what its manifest says."""
    left = [path for path in trial.folder.rglob("*") if ".tmp" in path.name or path.name.startswith(".probe")]
    assert left == []
    assert not (trial.run / ".lock").exists()
    assert list(trial.run.glob("phases/*/checkpoints")) == []
    with safe_open(trial.run / "model" / "model.safetensors", "pt") as file:
        assert file.keys()
    verification.verify(trial.run)
    for manifest in trial.folder.glob("cache/*/*/manifest.json"):
        files.check_manifest(manifest.parent)


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
            code = trial.start(killed_after_s=point * duration_s)
        assert code == ends, trial.output
    num_segments = len(journal_segments(trial)) + 1
    assert trial.start(fresh=fresh) == 0, trial.output
    assert_same(trial, expected, num_segments=num_segments)


def journal_segments(trial: Trial) -> set[int]:
    """Numbers of the segments that were begun; a run that was killed very early has none."""
    lines = (trial.run / "journal.jsonl").read_bytes().split(b"\n") if trial.runs else []
    return {json.loads(line)["segment"] for line in lines if line.endswith(b"}")}


# Points

TRAIN_STEP = "smallmodels.training:_Loop.train_step"
BACKWARD = "accelerate:Accelerator.backward"
SAVE_FILE = "smallmodels.training:save_file"
REPLACE, FSYNC = "os:replace", "os:fsync"

QUICK = {
    "in-step-6": ("finetune", [Point(TRAIN_STEP, 6, "train", after=True)]),
    "in-checkpoint-then-evaluation": (
        "finetune",
        [Point(SAVE_FILE, 4, "train", after=True), Point("smallmodels.models:forward_all", 1, "evaluate")],
    ),
    "in-accumulation-twice": ("finetune-lora", [Point(BACKWARD, 8, "train"), Point(BACKWARD, 11, "train")]),
    "in-record": ("finetune", [Point(REPLACE, 1, FINISH, path="record.json")]),
}


@pytest.mark.parametrize("name", QUICK)
def test_r1_killed_anywhere_and_resumed_gives_the_same_bits(trial, uninterrupted, tmp_path, name):
    setting, points = QUICK[name]
    kill_and_resume(trial(setting, tmp_path), uninterrupted(setting), points)
