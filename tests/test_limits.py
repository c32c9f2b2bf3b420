"""Budgets and the rule on gains: what stops, what is kept, and that a run which goes on ends with the same bits."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scripted_energy import Clock, scripted_meter
from small_data import FP32, LABELS, classifier, cross_entropy, split, texts

from smallmodels import cli, energy, files, models, records, teachers, training, verification
from smallmodels.errors import BudgetError, InputError, RunInterruptedError
from smallmodels.limits import Limits
from smallmodels.phases import NO_CONTEXT, Rules
from smallmodels.records import Component, Stop
from smallmodels.runs import Run
from smallmodels.training import TrainConfig
from smallmodels.training.rules import cut_of, gain_per_wh

CONFIG = TrainConfig(
    learning_rate=1e-2, max_steps=8, batch_size=8, micro_batch_size=8, checkpoint_steps=3, num_evaluations=4
)
STEP_S, POWER_W = 6.0, 600.0
"""A step takes 1 Wh and a tenth of a minute."""


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 1


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    return classifier(tiny_model_folder)


@pytest.fixture(scope="module")
def rows(base):
    return split(base.tokenizer, 24)


@dataclasses.dataclass
class Toy:
    """A recipe that trains a student and a control, in a folder of its own, on scripted energy."""

    folder: Path
    base: models.TextModel
    rows: object
    control_steps: int = 2
    values: list[float] | None = None
    """Of the validations of the student in turn; of its weights if None."""
    fails_in: str = ""
    calls: list[str] = dataclasses.field(default_factory=list)
    clock: Clock = dataclasses.field(default_factory=Clock)

    def loss(self, model, batch):
        if torch.is_grad_enabled():
            self.clock.now += STEP_S
        return cross_entropy(model, batch)

    def validate(self, model):
        self.calls.append("validate")
        if self.values is not None:
            return {"value": self.values.pop(0)}
        return {"value": float(torch.sin(1000 * model.model.classifier.weight.detach().sum()))}

    def evaluate(self, student, control):
        self.calls.append("evaluate")
        if self.fails_in == "evaluate":
            raise RunInterruptedError("stopped")
        roles = {"student": student, **({"label_only": control} if control is not None else {})}
        metric = {"accuracy": records.Metric(value=0.9, low=0.8, high=0.95, n=10)}
        empty = {"per_class": [], "agreement": None, "calibration_error": None, "built_by": [], "teacher_phases": []}
        return [records.Result(role=role, split="test", metrics=metric, **empty) for role in roles]

    def start(self, *, resume=False, **limits) -> records.RunRecord:
        """Begin the run or go on with it, in what would be a process of its own."""
        self.calls.clear()
        self.clock.now += 1000.0  # nobody pays for the time between
        meter = scripted_meter(self.folder, self.clock, power_w=POWER_W)
        with Run(self.folder, meter=meter, resume=resume, limits=Limits(**limits)) as run:
            run.begin("toy", Config())
            return self.recipe(run)

    def recipe(self, run) -> records.RunRecord:
        how = {"seed": 1, "validate": self.validate, "compute": FP32}
        student = run.phase("train", training.fit, self.base.copy(), self.rows, self.loss, CONFIG, **how)
        control = None
        if run.affords("label_only"):
            steps = run.choose(
                "label_only_steps", lambda: training.steps_at_cost(student, ratio=self.control_steps / 8)
            )
            plan = dataclasses.replace(CONFIG, max_steps=steps)
            how["validate"] = None
            control = run.control("label_only", training.fit, self.base.copy(), self.rows, self.loss, plan, **how)
        results = run.phase("evaluate", self.evaluate, student, control)
        about = {"title": "A toy", "task": "text-classification", "metric": "accuracy"}
        return run.finish(student, results=results, curve=training.curve(student), **about)

    @property
    def weights(self) -> str:
        return files.sha256_file(self.folder / "model" / "model.safetensors")

    @property
    def checkpoints(self) -> list[str]:
        found = (self.folder / "phases").glob("*/checkpoints/*")
        return sorted(f"{path.parents[1].name}/{path.name}" for path in found)


@pytest.fixture
def toy(tmp_path, base, rows) -> Toy:
    return Toy(tmp_path / "run", base, rows)


@pytest.fixture(scope="module")
def never_capped(tmp_path_factory, base, rows) -> Toy:
    made = Toy(tmp_path_factory.mktemp("whole") / "run", base, rows)
    made.start()
    return made


def roles(record: records.RunRecord) -> list[str]:
    return [result.role for result in record.results]


def curve(record: records.RunRecord) -> list[tuple]:
    return [(point.step, point.energy_j, point.value) for point in record.curve]


# A budget of the student


def test_r15_capped_run_goes_on_to_the_bits_of_a_run_that_was_never_capped(toy, never_capped):
    first = toy.start(budget_wh=2.5)
    assert (first.stopped_by, roles(first)) == ("budget", ["student"])
    assert [stop.sentence for stop in first.stops] == [
        "phase train was stopped by its budget of 2.5 Wh after 3 of 8 steps",
        "phase label_only was left out, because the run had spent its budget of 2.5 Wh",
    ]
    assert toy.calls == ["validate", "validate", "evaluate"]  # after step 2, and where it stopped
    assert toy.checkpoints == ["train/step-00000003"]
    assert verification.verify(toy.folder) == first
    assert toy.weights != never_capped.weights

    second = toy.start(resume=True, budget_minutes=0.55)
    assert [stop.num_steps for stop in second.stops] == [6, 0]
    assert second.energy_j == pytest.approx(6 * STEP_S * POWER_W)
    assert toy.calls == ["validate", "validate", "evaluate"]  # after steps 4 and 6

    last = toy.start(resume=True)
    assert (last.stopped_by, last.stops, roles(last)) == ("end", [], ["student", "label_only"])
    assert toy.weights == never_capped.weights
    assert curve(last) == curve(records.read_record(never_capped.folder))
    assert (last.num_segments, toy.checkpoints) == (3, [])
    assert verification.verify(toy.folder) == last
    kept = [records.read_record(toy.folder / f"record-{number}.json") for number in (1, 2)]
    assert kept == [first, second]
    assert [event.message for event in last.events if event.kind == "limits"] == [
        "the run goes on with a budget of 0.55 minutes, and had a budget of 2.5 Wh before",
        "the run goes on with no limit, and had a budget of 0.55 minutes before",
    ]


def test_r15_capped_run_keeps_the_best_weights_of_its_validations(toy, base, rows):
    toy.values = [0.9, 0.5, 0.4]
    record = toy.start(budget_usd=0.002, usd_per_kwh=0.4)  # 5 Wh
    assert record.stops[0].limit == "0.002 USD of electricity at 0.4 USD per kWh"
    assert [(point.step, point.value) for point in record.curve] == [(2, 0.9), (4, 0.5), (5, 0.4)]
    state = json.loads((toy.folder / "phases/train/checkpoints/step-00000005/state.json").read_text())
    assert state["progress"]["best_step"] == 2
    assert [point["step"] for point in state["progress"]["curve"]] == [2, 4]  # not the one that was not planned
    kept = load_file(toy.folder / "phases/train/checkpoints/step-00000005/best.safetensors")
    saved = load_file(toy.folder / "model/model.safetensors")
    assert torch.equal(saved["classifier.weight"], kept["classifier.weight"])


def test_r15_run_that_would_be_stopped_at_once_again_is_refused_and_unchanged(toy):
    toy.start(budget_wh=2.5)
    for limits in ({"budget_wh": 3.0}, {"budget_minutes": 0.1}):
        with pytest.raises(InputError, match=r"has spent its budget of .*: give it more, or no limit") as caught:
            toy.start(resume=True, **limits)
        assert caught.value.exit_code == 2
        verification.verify(toy.folder)


def test_run_that_came_to_its_end_is_not_resumed(toy):
    toy.start(budget_wh=100)
    with pytest.raises(InputError, match="is complete, so there is nothing to resume"):
        toy.start(resume=True)


def test_r15_budget_that_is_spent_before_the_first_step_is_one_sentence_and_the_run_goes_on_later(toy, never_capped):
    def wait() -> None:
        toy.clock.now += STEP_S

    recipe = toy.recipe
    toy.recipe = lambda run: (run.phase("setup", wait), recipe(run))[1]
    with pytest.raises(BudgetError, match=r"budget of 0.5 Wh was spent before the first step .* no student yet: go on"):
        toy.start(budget_wh=0.5)
    assert not (toy.folder / "record.json").exists()
    toy.start(resume=True)
    assert toy.weights == never_capped.weights


# What comes after the student


@pytest.mark.parametrize(
    "cap",
    [pytest.param(8.5, marks=pytest.mark.slow, id="in its first step"), pytest.param(9.5, id="in its second step")],
)
def test_r15_control_that_was_cut_short_is_not_compared_and_goes_on_later(toy, never_capped, cap):
    toy.control_steps = 4
    record = toy.start(budget_wh=cap)
    assert roles(record) == ["student"]
    assert [(stop.phase, stop.planned_steps) for stop in record.stops] == [("label_only", 4)]
    assert toy.weights == never_capped.weights
    last = toy.start(resume=True)
    assert roles(last) == ["student", "label_only"]
    assert toy.calls == ["evaluate"]
    assert last.phase("label_only").num_examples == 4 * 8
    verification.verify(toy.folder)


def test_control_that_was_left_out_is_made_up_for_with_a_larger_budget(toy):
    assert roles(toy.start(budget_wh=8)) == ["student"]  # the last step spends it, so nothing was cut
    assert roles(toy.start(resume=True, budget_wh=20)) == ["student", "label_only"]


@pytest.mark.faults
@pytest.mark.parametrize(("limits", "steps"), [({"budget_wh": 2.5}, 3), ({}, 8)], ids=["same", "none"])
def test_r16_capped_run_that_was_interrupted_as_it_was_evaluated_goes_on(toy, limits, steps):
    toy.fails_in = "evaluate"
    with pytest.raises(RunInterruptedError):
        toy.start(budget_wh=2.5)
    toy.fails_in = ""
    record = toy.start(resume=True, **limits)
    assert toy.clock.now == pytest.approx(2000 + steps * STEP_S + (0 if limits else 2 * STEP_S))
    assert record.stopped_by == ("budget" if limits else "end")
    verification.verify(toy.folder)


@pytest.mark.faults
def test_r16_nothing_of_the_shorter_training_is_left_when_the_longer_one_is_interrupted(toy):
    toy.start(budget_wh=2.5)
    toy.fails_in = "evaluate"
    with pytest.raises(RunInterruptedError):
        toy.start(resume=True)
    toy.fails_in = ""
    record = toy.start(resume=True)
    assert toy.calls == ["evaluate"]  # not what was kept of the first time
    assert roles(record) == ["student", "label_only"]


# Teachers and caches


def test_r15_budget_that_ends_in_the_teachers_fine_tuning_leaves_no_teacher_and_goes_on(toy, tmp_path):
    def recipe(run, cache):
        how = {"validate": None, "compute": FP32, "cache": cache}
        return run.phase("teacher", teachers.fine_tune, toy.base.copy(), toy.rows, toy.loss, CONFIG, **how)

    toy.recipe = lambda run: recipe(run, tmp_path / "cache")
    with pytest.raises(BudgetError, match="spent after 3 of 8 steps of the teacher's fine-tuning") as caught:
        toy.start(budget_wh=2.5)
    assert caught.value.exit_code == 1
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    resumed = toy.start(resume=True)
    other = Toy(tmp_path / "other", toy.base, toy.rows)
    toy.loss = other.loss
    other.recipe = lambda run: recipe(run, tmp_path / "other cache")
    assert resumed.weights_sha256() == other.start().weights_sha256()


def test_r15_budget_that_ends_before_the_teachers_pass_stops_it_between_two_shards(toy, tmp_path):
    def wait() -> None:
        toy.clock.now += STEP_S

    def recipe(run):
        run.phase("setup", wait)
        run.phase("cache", teachers.store_signals, toy.base, toy.rows, compute=FP32, cache=tmp_path / "cache")

    toy.recipe = recipe
    with pytest.raises(BudgetError):
        toy.start(budget_wh=0.5)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    toy.start(resume=True, budget_wh=1.5)


# Gains


def test_training_stops_when_a_validation_gains_too_little_for_its_energy(toy):
    toy.values = [0.5, 0.7, 0.71]
    record = toy.start(stop_when_gain_per_wh_below=0.05)  # 0.1 and 0.005 per Wh
    assert [stop.sentence for stop in record.stops] == [
        "phase train was stopped by its rule of at least 0.05 more in the metric of validation per Wh after 6 of 8 "
        "steps, where the gain was 0.005 per Wh"
    ]
    assert (record.stopped_by, roles(record)) == ("gain", ["student", "label_only"])
    assert record.phase("label_only").num_examples == round(6 * 2 / 8) * 8  # at the cost of the steps that were taken
    with pytest.raises(InputError, match=r"was stopped by its rule of at least 0.05 .*: give it another rule"):
        toy.start(resume=True, stop_when_gain_per_wh_below=0.05)
    verification.verify(toy.folder)
    toy.values = [0.8]
    last = toy.start(resume=True, stop_when_gain_per_wh_below=0.004)
    assert (last.stopped_by, [point.step for point in last.curve]) == ("end", [2, 4, 6, 8])
    whole = Toy(toy.folder.parent / "whole", toy.base, toy.rows, values=[0.5, 0.7, 0.71, 0.8])
    whole.start()
    assert toy.weights == whole.weights


def test_gain_is_unknown_without_joules_or_a_validation_before():
    def point(step, value, energy_j):
        return {"step": step, "value": value, "energy_j": energy_j}

    assert gain_per_wh([point(1, 0.5, 3600.0)]) is None
    assert gain_per_wh([point(1, 0.5, None), point(2, 0.6, 3600.0)]) is None
    assert gain_per_wh([point(1, 0.5, 3600.0), point(2, 0.6, 3600.0)]) is None
    assert gain_per_wh([point(1, 0.5, 3600.0), point(2, 0.4, 3 * 3600.0)]) == pytest.approx(-0.05)
    rules = Rules(least_gain_per_wh=0.0)
    assert cut_of(rules, 2, [point(1, 0.5, 0.0), point(2, 0.5, 3600.0)]) is None
    assert cut_of(rules, 3, [point(1, 0.5, 0.0), point(2, 0.4, 3600.0)]) is None  # judged when it was validated
    assert cut_of(rules, 2, [point(1, 0.5, 0.0), point(2, 0.4, 3600.0)]).by == "gain"


def test_rule_on_gains_needs_validations(base, rows):
    context = dataclasses.replace(NO_CONTEXT, rules=Rules(least_gain_per_wh=0.1))
    with pytest.raises(InputError, match="--stop-when-gain-per-wh-below needs a training that validates"):
        training.fit(base.copy(), rows, cross_entropy, CONFIG, compute=FP32, context=context)


# What is a limit


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"budget_wh": 0.0}, "--budget-wh must be > 0, got 0.0"),
        ({"budget_minutes": -1.0}, "--budget-minutes must be > 0, got -1.0"),
        ({"budget_wh": float("nan")}, "--budget-wh must be > 0, got nan"),
        ({"budget_wh": float("inf")}, "--budget-wh must be > 0, got inf"),
        ({"budget_usd": 1.0}, "--budget-usd needs the price of electricity: add --usd-per-kwh"),
        ({"usd_per_kwh": 0.3}, "--usd-per-kwh has no effect without --budget-usd"),
        ({"stop_when_gain_per_wh_below": -0.1}, "--stop-when-gain-per-wh-below must be >= 0, got -0.1"),
    ],
)
def test_c2_what_is_no_limit_is_refused_in_one_sentence(limits, message):
    with pytest.raises(InputError, match=message):
        Limits(**limits)


def reading(energy_j: float | None, duration_s: float = 0.0) -> energy.EnergyReading:
    component = Component(energy_j=energy_j, label="missing" if energy_j is None else "modelled")
    return energy.EnergyReading(duration_s, 0.0, {"cpu": component})


def test_budget_is_spent_once_it_is_reached_or_cannot_be_known_any_more():
    wh = Limits(budget_wh=1)
    assert [wh.spent(reading(j)) for j in (3599.0, 3600.0, None)] == ["", "1 Wh", "1 Wh"]
    assert Limits(budget_minutes=2).spent(reading(None, 119.0)) == ""
    assert Limits(budget_minutes=2).spent(reading(None, 120.0)) == "2 minutes"
    assert Limits(budget_usd=3, usd_per_kwh=0.5).spent(reading(6 * 3.6e6 - 1)) == ""
    assert Limits(budget_usd=3, usd_per_kwh=0.5).spent(reading(6 * 3.6e6)).startswith("3 USD")


def test_limits_are_lifted_by_what_would_not_stop_again():
    by_budget = Stop(phase="train", by="budget", limit="1 Wh", num_steps=1, planned_steps=2)
    by_gain = dataclasses.replace(by_budget, by="gain", gain_per_wh=0.2)
    paid = reading(3600.0)
    assert [Limits(budget_wh=wh).lift(by_budget, paid) for wh in (1, 1.1)] == [False, True]
    assert Limits().lift(by_budget, paid)
    assert [Limits(stop_when_gain_per_wh_below=g).lift(by_gain, paid) for g in (0.3, 0.2)] == [False, True]


@pytest.mark.parametrize("limits", [{"budget_wh": 1.0}, {"stop_when_gain_per_wh_below": 1.0}])
def test_limit_on_energy_is_refused_where_energy_is_not_measured(tmp_path, limits):
    with pytest.raises(InputError, match=r"needs a machine on which energy is measured .*: use --budget-minutes"):
        Run(tmp_path / "run", meter="none", limits=Limits(**limits)).__enter__()
    assert not (tmp_path / "run").exists()


# On the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget-wh", "-1"], "--budget-wh must be > 0, got -1.0"),
        (["--budget-usd", "1"], "--budget-usd needs the price of electricity: add --usd-per-kwh"),
        (["--budget-minutes", "soon"], "--budget-minutes should be a number or none, got soon"),
        (["--budget-hours", "1"], "--budget-hours is not a flag of quickstart"),
    ],
)
def test_c2_flags_that_are_no_limit_are_refused_before_anything(tmp_path, capsys, words, message):
    assert cli.main(["run", "quickstart", "--out", str(tmp_path / "runs"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_r15_recipe_that_is_capped_on_the_command_line_goes_on_to_the_bits_of_one_that_was_not(
    tmp_path, tiny_model_folder
):
    lines = [f"{text},{LABELS[i % 3]}" for i, text in enumerate(texts(90))]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    words = [
        *("run", "finetune_text_classifier", "--dataset", str(tmp_path / "tickets.csv"), "--max-steps", "1500"),
        *("--base-model", str(tiny_model_folder), "--max-length", "32", "--batch-size", "8", "--num-threads", "1"),
        *("--number-format", "fp32", "--checkpoint-steps", "1000"),
    ]
    assert cli.main([*words, "--out", str(tmp_path / "early"), "--budget-minutes", "0.001"]) == 1
    assert cli.main([*words, "--out", str(tmp_path / "capped"), "--budget-minutes", "0.2"]) == 0
    (early,), (capped,) = ([*(tmp_path / name).glob("*/*")] for name in ("early", "capped"))
    assert not (early / "record.json").exists()
    record = verification.verify(capped)
    assert 0 < record.stops[0].num_steps < record.stops[0].planned_steps == 1500
    assert cli.main(["run", "--resume", str(capped), "--budget-minutes", "0.1"]) == 2
    assert verification.verify(capped) == record
    config = ["--config", str(capped / "config.json"), "--out", str(tmp_path / "whole")]
    assert cli.main(["run", *config]) == 0
    (whole,) = (tmp_path / "whole").glob("*/*")
    assert cli.main(["run", "--resume", str(capped)]) == 0
    assert verification.verify(capped).stopped_by == "end"
    weights = [files.sha256_file(folder / "model" / "model.safetensors") for folder in (capped, whole)]
    assert weights[0] == weights[1]
    assert cli.main(["run", "--resume", str(capped)]) == 0  # nothing is left to do
