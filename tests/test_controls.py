"""Controls without a teacher: they cost what the student did, however dear their own steps turn out to be."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scripted_energy import Clock, scripted_meter
from small_data import FP32, assert_same_bits, classifier, cross_entropy, split, weights

from smallmodels import distilling, models, training
from smallmodels.errors import RunInterruptedError
from smallmodels.runs import Run
from smallmodels.training import TrainConfig
from smallmodels.training.config import evaluation_steps, is_due, schedule
from smallmodels.training.pacing import Pacing, fitted

CONFIG = TrainConfig(
    learning_rate=1e-2, max_steps=20, batch_size=8, micro_batch_size=8, checkpoint_steps=10, num_evaluations=4
)
STEP_S, VALIDATION_S, START_S = 18.0, 15.0, 12.0
Drift = Callable[[int], float]
DRIFTS: dict[str, Drift] = {
    "cheaper": lambda step: 0.3,
    "rising": lambda step: 0.25 + step / 300,
    "up and down": lambda step: 0.42 if step // 9 % 2 else 0.28,
}
"""What a step of the control costs, over one of the student."""


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 1


@dataclasses.dataclass
class Toy:
    """A recipe that trains a student and a control on scripted energy."""

    folder: Path
    base: models.TextModel
    rows: object
    drift: Drift = lambda step: 1.0
    fails_at: int | None = None
    """Step of the control that is interrupted."""
    share: float = 0.0
    """Of the student's cost that the control took."""
    clock: Clock = dataclasses.field(default_factory=Clock)

    def start(self, **options) -> models.TextModel:
        """Begin the run or go on with it, in what would be a process of its own; gives the control."""
        self.clock.now += 1000.0  # nobody pays for the time between
        meter = scripted_meter(self.folder, self.clock, power_w=600.0)
        with Run(self.folder, meter=meter, quiet=True, **options) as run:
            run.begin("toy", Config())
            return self.recipe(run)

    def loss_of(self, drift: Drift, fails_at: int | None = None):
        seen = [0]

        def loss(model, batch):
            if torch.is_grad_enabled():
                self.clock.now += STEP_S * drift(seen[0]) + (START_S if seen[0] == 0 else 0.0)
                seen[0] += 1
                if seen[0] == fails_at:
                    raise RunInterruptedError("stopped")
            return cross_entropy(model, batch)

        return loss

    def validate(self, model):
        self.clock.now += VALIDATION_S
        return {"value": float(torch.sin(1000 * model.model.classifier.weight.detach().sum()))}

    def recipe(self, run) -> models.TextModel:
        how = {"seed": 1, "validate": self.validate, "compute": FP32}
        loss = self.loss_of(lambda step: 1.0)
        student = run.phase("train", training.fit, self.base.copy(), self.rows, loss, CONFIG, **how)
        hard_loss = self.loss_of(self.drift, self.fails_at)
        (control,) = distilling.train_controls(
            run,
            {"label_only": ["train"]},
            student=student,
            of_student=distilling.Training(self.base, self.rows, loss, CONFIG),
            of_control=distilling.Training(self.base, self.rows, hard_loss, CONFIG),
            probe=None,
            **how,
        ).values()
        self.share = run.share_of_cost(["train"])(run.paid_for("label_only"))
        return control

    @property
    def choices(self) -> dict:
        return json.loads((self.folder / "config.json").read_text())["choices"]


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    return classifier(tiny_model_folder)


@pytest.fixture(scope="module")
def rows(base):
    return split(base.tokenizer, 24)


@pytest.mark.parametrize("name", ["rising", "up and down"])
def test_control_costs_what_the_student_did_however_dear_its_steps_are(base, rows, tmp_path, name):
    toy = Toy(tmp_path / "run", base, rows, DRIFTS[name])
    trained = toy.start().notes["training"]
    assert toy.share == pytest.approx(1.0, abs=0.03)
    assert next(iter(toy.choices)) == "label_only_steps"
    assert toy.choices["label_only_steps"] == 20  # as if its steps were those of the student
    assert list(toy.choices.values())[-1] == trained["num_steps"] > 40
    assert len(trained["curve"]) == CONFIG.num_evaluations
    assert trained["curve"][-1]["step"] == trained["num_steps"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["phase"] == "label_only" and "train/learning_rate" in line][-1]
    steps = trained["num_steps"]
    expected = CONFIG.learning_rate * schedule(steps - 1, steps, CONFIG.warmup_fraction)
    assert (last["step"], last["train/learning_rate"]) == (steps, pytest.approx(expected))


@pytest.mark.slow
@pytest.mark.parametrize("step", [9, 22])
def test_control_that_was_interrupted_goes_on_with_the_steps_that_were_chosen(base, rows, tmp_path, step):
    """What it chose between its checkpoint and the interruption, too: a repeat with these choices has the same bits."""
    killed = Toy(tmp_path / "killed", base, rows, DRIFTS["cheaper"], fails_at=step)
    with pytest.raises(RunInterruptedError):
        killed.start()
    before = killed.choices
    killed.fails_at, killed.drift = None, DRIFTS["up and down"]  # the machine is another one by then
    control = killed.start(resume=True)
    assert list(killed.choices.items())[: len(before)] == list(before.items())
    again = Toy(tmp_path / "again", base, rows)
    repeated = again.start(choices=killed.choices)
    assert_same_bits(weights(repeated), weights(control))
    assert again.choices == killed.choices
    assert repeated.notes["training"]["num_steps"] == control.notes["training"]["num_steps"]


def test_fitted_steps_come_to_the_cost():
    half = Pacing(spent=0.6, apart=0.1, validation=0.05, since_step=25, since_spent=0.25)
    assert fitted(half, 50, 100, num_validations=2) == 50 + 30  # 0.3 is left, and a step costs 0.01
    assert fitted(half, 50, 100, num_validations=8) == 51  # nothing is left: one more, with which the training ends
    free = dataclasses.replace(half, since_spent=0.5)
    assert fitted(free, 50, 100, num_validations=0) == 200  # no faster growth than that from steps that cost nothing


def test_validations_are_due_where_a_plan_of_so_many_steps_has_them():
    for steps in range(1, 40):
        for wanted in range(1, 9):
            done = []
            for step in range(1, steps + 1):
                if is_due(step, steps, wanted, done=len(done)):
                    done.append(step)
            assert set(done) == evaluation_steps(steps, wanted)


def test_share_of_cost_is_in_cpu_seconds_where_joules_are_modelled(tmp_path, base):
    for label, unit in (("counter", "energy_j"), ("modelled", "cpu_s")):
        clock, folder = Clock(), tmp_path / label
        meter = scripted_meter(folder, clock, power_w=10.0, label=label)
        with Run(folder, meter=meter, quiet=True) as run:
            run.begin("toy", Config())

            def work(model=base, clock=clock):
                clock.now += 7.0
                return len(model.copy().notes)

            run.phase("cache", work)
            run.phase("train", work)
            paid = [run.paid_for(name) for name in ("cache", "train")]
            spent = [getattr(reading, unit) for reading in paid]
            assert run.share_of_cost(["cache", "train"])(paid[0]) == pytest.approx(spent[0] / sum(spent))
