"""The loop: its gradients, its stops and returns, and what it refuses."""

import dataclasses
import functools
import gc
import json
import math
import pickle
import random
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_data import BF16, FP32, Events, assert_same_bits, classifier, cross_entropy, split, weights
from torch import nn

from smallmodels import checkpoints, files, models, training
from smallmodels.data.batches import Epoch, collate
from smallmodels.energy import EnergyReading
from smallmodels.errors import DamagedError, InputError, RunInterruptedError, TrainingError
from smallmodels.models import TextModel
from smallmodels.phases import Context
from smallmodels.records import Component
from smallmodels.training import TrainConfig
from smallmodels.training.loop import Loop

CONFIG = TrainConfig(learning_rate=1e-2, max_steps=7, batch_size=8, checkpoint_steps=2)


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    """Never trained itself: tests train copies."""
    return classifier(tiny_model_folder)


@pytest.fixture(scope="module")
def train(base):
    return split(base.tokenizer, 24)


def fit(model, train, loss_fn=cross_entropy, config=CONFIG, **options):
    return training.fit(model, train, loss_fn, config, **{"compute": FP32, **options})


def gradients(model, train, loss_fn=cross_entropy, **changes):
    """The gradient that the optimizer is given in the first step, by name of the parameter."""
    model, seen = model.copy(), {}
    config = dataclasses.replace(CONFIG, **{"max_steps": 1, "max_grad_norm": 0.0, **changes})
    original = Loop.update

    def spy(loop, outcome):
        original(loop, outcome)  # the optimizer divides and clips while it reads them
        seen.update({name: p.grad.clone() for name, p in loop.parameters.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "update", spy)
        fit(model, train, loss_fn, config)
    return seen


def gradients_of_torch(model, train, loss_fn):
    """The gradient of the mean over all targets of the first step, without our loop."""
    indices = Epoch(train.tokens.lengths, batch_size=8, seed=0, epoch=0)[0]
    model = model.copy()
    loss_fn(model.model, collate(train, indices)).mean().backward()
    return {name: p.grad for name, p in model.model.named_parameters()}


def assert_close(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}")


# Gradients


@pytest.mark.parametrize("size", [1, 3, 8])
def test_d15_fit_gradient_of_micro_batches_is_that_of_the_whole_batch(base, train, size):
    whole = gradients(base, train)
    assert_close(gradients(base, train, micro_batch_size=size), whole)
    assert max(float(g.abs().max()) for g in whole.values()) > 1e-3


def test_fit_gradient_is_that_of_plain_torch(base, train):
    assert_close(gradients(base, train, micro_batch_size=3), gradients_of_torch(base, train, cross_entropy))


def masked_loss(model, batch):
    """Two targets for an example of class 0, one for class 1, none for class 2."""
    values = cross_entropy(model, batch)
    return torch.cat([values[batch.labels == 0], 3 * values[batch.labels == 0], values[batch.labels == 1]])


@pytest.mark.parametrize("size", [1, 3, 8])
def test_fit_divides_once_by_the_targets_of_the_whole_step(base, train, size):
    seen = gradients(base, train, masked_loss, micro_batch_size=size)
    assert_close(seen, gradients_of_torch(base, train, masked_loss))


def test_fit_scales_long_gradients_down_and_leaves_short_ones(base, train):
    def norm(**changes):
        return math.sqrt(sum(float((g**2).sum()) for g in gradients(base, train, **changes).values()))

    whole = norm(max_grad_norm=0.0)
    assert norm(max_grad_norm=whole / 4) == pytest.approx(whole / 4, rel=1e-3)
    assert norm(max_grad_norm=whole * 4) == pytest.approx(whole, rel=1e-5)
    assert norm(max_grad_norm=whole / 4, micro_batch_size=3) == pytest.approx(whole / 4, rel=1e-3)


# What is trained and what comes back


def test_fit_learns(base, train):
    def mean_loss(model):
        logits = models.forward_all(model, train.tokens, compute=FP32)
        return float(nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(train.labels)))

    config = TrainConfig(learning_rate=3e-3, num_epochs=15, batch_size=8)
    trained = fit(base.copy(), train, config=config)
    assert mean_loss(trained) < 0.6 * mean_loss(base)


def test_fit_is_deterministic_and_its_seed_matters(base, train):
    config = dataclasses.replace(CONFIG, dropout=True)
    first = fit(base.copy(), train, config=config, seed=1)
    assert_same_bits(weights(first), weights(fit(base.copy(), train, config=config, seed=1)))
    assert first.weights_sha256() != fit(base.copy(), train, config=config, seed=2).weights_sha256()


@pytest.mark.parametrize("dropout", [True, False])
def test_fit_uses_dropout_only_if_asked(base, train, dropout):
    modes = set()

    def loss_fn(model, batch):
        modes.add(model.training)
        return cross_entropy(model, batch)

    fit(base.copy(), train, loss_fn, dataclasses.replace(CONFIG, max_steps=1, dropout=dropout))
    assert modes == {dropout}


def test_fit_returns_a_model_in_evaluation_mode_without_gradients(base, train):
    trained = fit(base.copy(), train)
    assert not trained.model.training
    assert all(p.grad is None and not p.requires_grad for p in trained.model.parameters())


def test_fit_can_leave_the_table_of_token_vectors_as_it_is(base, train):
    before, after = (
        weights(base),
        weights(fit(base.copy(), train, config=dataclasses.replace(CONFIG, train_embeddings=False))),
    )
    tables = [name for name in before if "_embeddings." in name]
    assert len(tables) == 3
    assert all(torch.equal(before[name], after[name]) for name in tables)
    others = [name for name in before if "_embeddings." not in name and not torch.equal(before[name], after[name])]
    assert len(others) > 30
    moved = weights(fit(base.copy(), train))
    assert not torch.equal(before[tables[0]], moved[tables[0]])


def test_fit_does_not_decay_vectors(base, train):
    rates = {}
    original = torch.optim.AdamW.__init__

    def spy(optimizer, groups, **options):
        rates.update({id(p): group["weight_decay"] for group in groups for p in group["params"]})
        original(optimizer, groups, **options)

    model = base.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "__init__", spy)
        fit(model, train, config=dataclasses.replace(CONFIG, max_steps=1, weight_decay=0.3))
    for name, parameter in model.model.named_parameters():
        assert rates[id(parameter)] == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.3)


def test_fit_returns_the_best_weights_on_validation(base, train):
    values, seen = iter([0.1, 0.7, 0.2, 0.7]), []

    def validate(model):
        seen.append(weights(model))
        return {"accuracy": next(values), "other": 5.0}

    config = dataclasses.replace(CONFIG, max_steps=8, num_evaluations=4)
    trained = fit(base.copy(), train, config=config, validate=validate)
    assert_same_bits(weights(trained), seen[1])  # the earlier of two that are as good
    assert not torch.equal(seen[1]["classifier.weight"], seen[3]["classifier.weight"])
    notes = trained.notes["training"]
    assert (notes["num_steps"], notes["best_step"], notes["best_value"]) == (8, 4, 0.7)
    assert [(point["step"], point["value"]) for point in notes["curve"]] == [(2, 0.1), (4, 0.7), (6, 0.2), (8, 0.7)]


def test_fit_without_validation_returns_the_last_weights(base, train):
    states = []

    def loss_fn(model, batch):
        states.append(weights(TextModel(model, None)))
        return cross_entropy(model, batch)

    short = fit(base.copy(), train, config=dataclasses.replace(CONFIG, num_epochs=1, max_steps=None, warmup_fraction=0))
    assert short.notes["training"]["num_steps"] == 3
    trained = fit(base.copy(), train, loss_fn)
    assert len(states) == 7
    assert not any(torch.equal(state["classifier.weight"], weights(trained)["classifier.weight"]) for state in states)


def test_fit_curve_carries_the_cost_so_far(base, train):
    joules = iter([10.0, 20.0])

    def energy():
        value = next(joules)
        return EnergyReading(value, value / 2, {"cpu": Component(energy_j=value, label="counter")})

    config = dataclasses.replace(CONFIG, max_steps=4, num_evaluations=2)
    trained = fit(base.copy(), train, config=config, validate=lambda _: {"a": 1.0}, context=Context(energy=energy))
    points = training.curve(trained)
    assert [(p.step, p.energy_j, p.cpu_s, p.value) for p in points] == [(2, 10.0, 5.0, 1.0), (4, 20.0, 10.0, 1.0)]
    assert training.curve(base) == []
    before = [EnergyReading(1.0, 3.0, {"cpu": Component(energy_j=7.0, label="counter")})] * 2
    later = training.curve(trained, num_steps=6, before=before)
    assert [(p.step, p.energy_j, p.cpu_s) for p in later] == [(8, 24.0, 11.0), (10, 34.0, 16.0)]
    unknown = training.curve(trained, before=[*before, EnergyReading(1.0, 1.0, {})])
    assert [(p.energy_j, p.cpu_s) for p in unknown] == [(None, 12.0), (None, 17.0)]


def test_fit_counts_its_work(base, train):
    context = Context()
    config = dataclasses.replace(CONFIG, max_steps=None, num_epochs=2, micro_batch_size=3)
    fit(base.copy(), train, config=config, context=context)
    counts = context.counts
    assert counts.num_examples == 2 * 24
    assert counts.num_tokens == 2 * train.tokens.lengths.sum()
    assert counts.num_tokens <= counts.num_processed_tokens < 1.5 * counts.num_tokens
    shortened = FP32.place(base.copy().model)
    expected = 3 * 2 * models.num_operations(shortened, train.tokens.lengths)
    assert counts.num_operations == pytest.approx(expected, rel=1e-9)


def test_fit_leaves_no_number_format_on_the_model(base, train, tmp_path):
    trained = fit(base.copy(), train, compute=BF16)
    trained.save(tmp_path)
    here = models.forward_all(trained, train.tokens, compute=FP32)
    read = models.forward_all(TextModel.load(tmp_path), train.tokens, compute=FP32)
    assert np.array_equal(here, read)


def test_fit_trains_adapters_and_head_only_and_folds_them_in(base, train):
    adapted = models.add_lora(base, rank=2)
    trained = fit(adapted, train)
    before, after = weights(base), weights(trained)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {f"{name}.weight" for name, module in base.model.named_modules() if isinstance(module, nn.Linear)}
    assert moved == linear | {"classifier.bias"}


# Schedule and steps


def test_schedule_rises_to_one_and_falls_to_just_above_zero():
    factors = [training.config.schedule(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == max(factors) == 1.0
    assert factors[99] == pytest.approx(1 / 90)
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)


@pytest.mark.parametrize(("warmup", "first"), [(0.0, 1.0), (1.0, 0.2)])
def test_schedule_without_warmup_and_with_nothing_else(warmup, first):
    factors = [training.config.schedule(step, 4, warmup) for step in range(4)]
    assert factors[0] == pytest.approx(first)
    assert min(factors) > 0


def test_fit_follows_the_schedule(base, train):
    rates = []
    original = torch.optim.AdamW.step

    def spy(optimizer, *args, **kwargs):
        rates.append({group["lr"] for group in optimizer.param_groups})
        return original(optimizer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        fit(base.copy(), train, config=dataclasses.replace(CONFIG, max_steps=4, warmup_fraction=0.25))
    assert [next(iter(rate)) for rate in rates] == pytest.approx([0.005, 0.01, 0.02 / 3, 0.01 / 3])
    assert all(len(rate) == 1 for rate in rates)


def test_d15_every_example_counts_once_in_an_epoch_whose_batches_and_micro_batches_leave_a_rest(base, monkeypatch):
    rows, seen, divided = split(base.tokenizer, 21), [], []
    original = Loop.update
    monkeypatch.setattr(
        Loop, "update", lambda loop, outcome: (divided.append(outcome.targets), original(loop, outcome))[1]
    )

    def loss_fn(model, batch):
        seen.append(batch.ids)
        return cross_entropy(model, batch)

    config = dataclasses.replace(CONFIG, max_steps=None, num_epochs=2, micro_batch_size=3)
    fit(base.copy(), rows, loss_fn, config)
    ids = [example for micro_batch in seen for example in micro_batch]
    for epoch in (ids[:21], ids[21:]):
        assert sorted(epoch) == sorted(rows.ids)
    assert [sorted(divided[:3]), sorted(divided[3:])] == [[5, 8, 8], [5, 8, 8]]
    assert sorted(len(micro_batch) for micro_batch in seen) == sorted(2 * [3, 3, 2, 3, 3, 2, 3, 2])


def test_d15_num_steps_counts_the_last_partial_batch():
    assert training.num_steps(24, TrainConfig(batch_size=8, num_epochs=2)) == 6
    assert training.num_steps(25, TrainConfig(batch_size=8, num_epochs=2)) == 8
    assert training.num_steps(25, TrainConfig(batch_size=8, num_epochs=2, max_steps=3)) == 3


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, 6), (1.5, 9), (0.01, 1)])
def test_steps_at_cost_scales_the_steps_that_were_taken(base, ratio, expected):
    trained = base.copy()
    trained.notes["training"] = {"num_steps": 6}
    assert training.steps_at_cost(trained, ratio=ratio) == expected


# Interrupted and resumed


class Projection(nn.Module):
    """A loss with weights of its own."""

    def __init__(self):
        super().__init__()
        with models.seeded(5):
            self.linear = nn.Linear(3, 3)

    def forward(self, model, batch):
        logits = self.linear(model(**batch.inputs).logits)
        return nn.functional.cross_entropy(logits, batch.labels, reduction="none")


class StopAfter:
    """Asks to stop once it was asked a number of times."""

    def __init__(self, steps):
        self.steps, self.asked = steps, 0

    def __call__(self):
        self.asked += 1
        return self.asked == self.steps


def validate(model):
    """A metric that depends on the weights, so that the best step is a matter of bits."""
    return {"value": float(torch.sin(1000 * model.model.classifier.weight.detach().sum()))}


VARIANTS = {
    "plain": {},
    "dropout": {"dropout": True},
    "micro-batches": {"micro_batch_size": 3, "dropout": True},
    "validation": {"num_evaluations": 4},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_r2_stopped_after_any_step_and_resumed_gives_the_same_bits(base, train, tmp_path, variant):
    config = dataclasses.replace(CONFIG, **VARIANTS[variant])
    options = {"config": config, "validate": validate if variant == "validation" else None, "seed": 3}
    expected = fit(base.copy(), train, **options)
    for step in range(1, 8) if variant == "plain" else (1, 4, 7):
        events, folder = Events(), tmp_path / str(step)
        with pytest.raises(RunInterruptedError, match=f"after step {step} of 7") as caught:
            fit(base.copy(), train, context=Context(folder=folder, should_stop=StopAfter(step)), **options)
        assert caught.value.exit_code == 75
        torch.manual_seed(step)  # a new process has another state of random numbers
        context = Context(folder=folder, event=events)
        resumed = fit(base.copy(), train, context=context, **options)
        assert_same_bits(weights(resumed), weights(expected))
        assert events.kinds == ["resume"]
        assert context.counts.num_examples == 7 * 8
        notes, wanted = resumed.notes["training"], expected.notes["training"]
        assert [(p["step"], p["value"]) for p in notes["curve"]] == [(p["step"], p["value"]) for p in wanted["curve"]]
        assert notes["best_step"] == wanted["best_step"]


def test_r2_weights_of_the_loss_are_resumed_too(base, train, tmp_path):
    loss = Projection()
    initial = {name: p.detach().clone() for name, p in loss.named_parameters()}
    expected = fit(base.copy(), train, loss)
    assert not torch.equal(loss.linear.weight, initial["linear.weight"])
    with pytest.raises(RunInterruptedError):
        fit(base.copy(), train, Projection(), context=Context(folder=tmp_path, should_stop=StopAfter(3)))
    second = Projection()
    resumed = fit(base.copy(), train, second, context=Context(folder=tmp_path))
    assert_same_bits(weights(resumed), weights(expected))
    assert_same_bits(dict(second.state_dict()), dict(loss.state_dict()))


def test_r2_adapters_are_resumed(base, train, tmp_path):
    expected = fit(models.add_lora(base, rank=2), train)
    with pytest.raises(RunInterruptedError):
        fit(models.add_lora(base, rank=2), train, context=Context(folder=tmp_path, should_stop=StopAfter(4)))
    resumed = fit(models.add_lora(base, rank=2), train, context=Context(folder=tmp_path))
    assert_same_bits(weights(resumed), weights(expected))


def test_r2_stopped_several_times_gives_the_same_bits(base, train, tmp_path):
    config = dataclasses.replace(CONFIG, dropout=True)
    expected = fit(base.copy(), train, config=config)
    for _ in range(3):
        context = Context(folder=tmp_path, should_stop=StopAfter(2))
        with pytest.raises(RunInterruptedError):
            fit(base.copy(), train, config=config, context=context)
        torch.manual_seed(99)
    assert_same_bits(
        weights(fit(base.copy(), train, config=config, context=Context(folder=tmp_path))), weights(expected)
    )


def test_r1_killed_between_checkpoints_gives_the_same_bits(base, train, tmp_path):
    class Killed(BaseException):
        pass

    steps = []

    def dying(model, batch):
        steps.append(1)
        if len(steps) == 6:
            raise Killed
        return cross_entropy(model, batch)

    expected = fit(base.copy(), train)
    with pytest.raises(Killed):
        fit(base.copy(), train, dying, context=Context(folder=tmp_path))
    events = Events()
    resumed = fit(base.copy(), train, context=Context(folder=tmp_path, event=events))
    assert events.rows[0][1] == "training goes on after step 4 of 7"
    assert_same_bits(weights(resumed), weights(expected))


def noisy(model, batch):
    """A loss that draws random numbers wherever there are some."""
    return cross_entropy(model, batch) * (1 + torch.rand(len(batch.ids)) + np.random.rand() + random.random())


def test_r1_r12_a_loss_that_draws_random_numbers_is_resumed_with_the_same_bits(base, train, tmp_path):
    config = dataclasses.replace(CONFIG, micro_batch_size=3)
    expected = fit(base.copy(), train, noisy, config)
    for step in (1, 4):
        with pytest.raises(RunInterruptedError):
            fit(base.copy(), train, noisy, config, context=Context(folder=tmp_path, should_stop=StopAfter(step)))
        torch.rand(step), np.random.rand(step), random.random()
    resumed = fit(base.copy(), train, noisy, config, context=Context(folder=tmp_path))
    assert_same_bits(weights(resumed), weights(expected))
    assert resumed.weights_sha256() != fit(base.copy(), train, config=config).weights_sha256()


@pytest.mark.parametrize("callback", ["validate", "log", "progress", "event"])
def test_r14_a_callback_that_raises_fails_the_run_and_leaves_it_to_be_resumed(base, train, tmp_path, callback):
    def raising(*_, **__):
        raise LookupError("out of order")

    config = dataclasses.replace(CONFIG, num_evaluations=7)
    context = Context(folder=tmp_path, should_stop=StopAfter(3))
    with pytest.raises(RunInterruptedError):
        fit(base.copy(), train, config=config, validate=validate, context=context)
    checks, calls = (raising, {}) if callback == "validate" else (validate, {callback: raising})
    with pytest.raises(LookupError, match="out of order"):
        fit(base.copy(), train, config=config, validate=checks, context=Context(folder=tmp_path, **calls))
    assert [files.check_manifest(folder) for folder in checkpoints.find(tmp_path)]
    resumed = fit(base.copy(), train, config=config, validate=validate, context=Context(folder=tmp_path))
    assert_same_bits(weights(resumed), weights(fit(base.copy(), train, config=config, validate=validate)))


def test_r13_other_threads_on_resume_are_told(base, train, tmp_path):
    with pytest.raises(RunInterruptedError):
        fit(base.copy(), train, context=Context(folder=tmp_path, should_stop=StopAfter(3)))
    events = Events()
    two = dataclasses.replace(FP32, num_threads=2)
    fit(base.copy(), train, compute=two, context=Context(folder=tmp_path, event=events))
    assert events.kinds == ["not bitwise", "resume"]
    assert "num_threads was 1 and is 2" in events.rows[0][1]


# Checkpoints on disk


VALIDATED = {"config": dataclasses.replace(CONFIG, num_evaluations=7), "validate": validate}


@pytest.fixture(scope="module")
def stopped_once(base, train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(RunInterruptedError):
        fit(base.copy(), train, context=Context(folder=folder, should_stop=StopAfter(4)), **VALIDATED)
    assert names(folder) == ["step-00000002", "step-00000004"]
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A folder with the checkpoints of steps 2 and 4, best weights included."""
    return shutil.copytree(stopped_once, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def never_stopped(base, train):
    """The weights that a training has which goes on from one of these."""
    return weights(fit(base.copy(), train, **VALIDATED))


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def resume(base, train, folder):
    events = Events()
    return fit(base.copy(), train, context=Context(folder=folder, event=events), **VALIDATED), events


FILES = ["weights.safetensors", "optimizer.safetensors", "best.safetensors", "state.json", "manifest.json"]


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", ["k2 flipped", "k3 missing", "k1 torn"])
@pytest.mark.parametrize("name", FILES)
def test_k2_k3_a_damaged_checkpoint_falls_back_to_the_one_before(base, train, stopped, never_stopped, name, damage):
    path = stopped / "checkpoints" / "step-00000004" / name
    if damage == "k2 flipped":
        flip_byte(path)
    elif damage == "k3 missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    resumed, events = resume(base, train, stopped)
    assert events.kinds[:2] == ["damaged checkpoint", "resume"]
    assert events.rows[1][1] == "training goes on after step 2 of 7"
    assert_same_bits(weights(resumed), never_stopped)


def test_k2_no_whole_checkpoint_left_is_refused(base, train, stopped):
    for name in names(stopped):
        flip_byte(stopped / "checkpoints" / name / "weights.safetensors")
    with pytest.raises(DamagedError, match="delete that folder") as caught:
        resume(base, train, stopped)
    assert caught.value.exit_code == 4


def test_k10_a_checkpoint_of_a_newer_format_is_refused_and_kept(base, train, stopped):
    newest = stopped / "checkpoints" / "step-00000004"
    state = json.loads((newest / "state.json").read_text())
    (newest / "state.json").write_text(json.dumps(state | {"format": 99}))
    files.write_manifest(newest)
    with pytest.raises(InputError, match="found 99 of a newer version: update smallmodels"):
        resume(base, train, stopped)
    files.check_manifest(newest)


def test_k7_foreign_folders_stay_and_are_not_read(base, train, tmp_path):
    foreign = tmp_path / "checkpoints" / "checkpoint-my-notes"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine")
    (tmp_path / "checkpoints" / "step-00000099.bak").mkdir()
    (tmp_path / "checkpoints" / "step-00000098").write_text("a file")
    events = Events()
    fit(base.copy(), train, context=Context(folder=tmp_path, event=events))
    assert events.kinds == []
    kept = ["checkpoint-my-notes", "step-00000004", "step-00000006", "step-00000098", "step-00000099.bak"]
    assert names(tmp_path) == kept
    assert (foreign / "notes.txt").read_text() == "mine"


def test_k7_names_like_torn_checkpoints_that_training_does_not_give_stay(base, train, stopped):
    parent = stopped / "checkpoints"
    foreign = [".step-notes.tmp", ".step-00000001.tmp", ".step-1.17.tmp", ".step-00000001.copy.17.tmp"]
    for name in foreign:
        (parent / name).mkdir()
        (parent / name / "notes.txt").write_text("mine")
    (parent / ".step-00000001.17.tmp").write_text("a file")
    (parent / ".step-00000002.17.tmp").symlink_to(parent / foreign[0])
    for name in (".step-00000001.18.tmp", ".step-00000001.old.18.tmp"):
        (parent / name).mkdir()
    resume(base, train, stopped)
    left = sorted(path.name for path in parent.glob(".*"))
    assert left == sorted([*foreign, ".step-00000001.17.tmp", ".step-00000002.17.tmp"])
    assert all((parent / name / "notes.txt").read_text() == "mine" for name in foreign)


def test_k7_a_folder_with_the_name_of_a_checkpoint_that_is_not_ours_is_kept(base, train, tmp_path):
    for name in ("step-00000002", "step-00000003", "step-00000004-copy"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "notes.txt").write_text(f"mine, {name}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints" / "step-00000001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match=r"no checkpoint in .* is whole"):
        fit(base.copy(), train, context=Context(folder=tmp_path))
    loop = Loop(base.copy(), train, cross_entropy, CONFIG, 0, FP32, Context(folder=tmp_path, event=Events()))
    loop.run(None)
    kept = ["step-00000001", "step-00000002.found-1", "step-00000003", "step-00000004-copy"]
    assert names(tmp_path) == [*kept[:3], "step-00000004", kept[3], "step-00000006"]
    for name in kept[1:]:
        text = (tmp_path / "checkpoints" / name / "notes.txt").read_text()
        assert text == f"mine, {name.removesuffix('.found-1')}"


def test_k7_a_checkpoint_that_somebody_put_a_file_into_is_kept(base, train, stopped):
    note = stopped / "checkpoints" / "step-00000002" / "notes.txt"
    note.write_text("mine")
    resume(base, train, stopped)
    assert note.read_text() == "mine"
    assert names(stopped) == ["step-00000002", "step-00000004", "step-00000006"]


def test_k7_the_newest_whole_checkpoint_outlives_damaged_ones(base, train, stopped):
    """Removing old checkpoints goes by what is whole: a damaged one does not count as one of the two that are kept."""
    shutil.copytree(stopped / "checkpoints" / "step-00000004", stopped / "checkpoints" / "step-00000005")
    flip_byte(stopped / "checkpoints" / "step-00000005" / "weights.safetensors")
    events = Events()
    context = Context(folder=stopped, event=events, should_stop=StopAfter(2))
    with pytest.raises(RunInterruptedError):
        fit(
            base.copy(),
            train,
            config=dataclasses.replace(CONFIG, num_evaluations=7),
            validate=validate,
            context=context,
        )
    assert events.kinds == ["damaged checkpoint", "resume"]
    assert names(stopped) == ["step-00000004", "step-00000006"]


def test_k12_without_the_best_weights_a_checkpoint_is_not_used_and_the_one_before_is(base, train, stopped):
    """Every checkpoint holds the best weights so far, so no single folder is the best."""
    (stopped / "checkpoints" / "step-00000004" / "best.safetensors").unlink()
    resumed, events = resume(base, train, stopped)
    assert "best.safetensors, which is missing" in events.rows[0][1]
    config = dataclasses.replace(CONFIG, num_evaluations=7)
    assert_same_bits(weights(resumed), weights(fit(base.copy(), train, config=config, validate=validate)))


def test_k7_the_last_two_checkpoints_are_kept(base, train, tmp_path):
    fit(base.copy(), train, config=dataclasses.replace(CONFIG, checkpoint_steps=1), context=Context(folder=tmp_path))
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def test_k1_folders_torn_by_a_kill_are_ignored_and_removed(base, train, stopped):
    checkpoints = stopped / "checkpoints"
    torn = checkpoints / ".step-00000006.12345.tmp"
    shutil.copytree(checkpoints / "step-00000004", torn)
    _, events = resume(base, train, stopped)
    assert events.rows[0][1] == "training goes on after step 4 of 7"
    assert not torn.exists()


@pytest.mark.parametrize(("kind", "what"), [("full", "the disk is full"), ("read-only", "can only be read")])
def test_k5_k6_a_disk_that_goes_bad_in_a_checkpoint_keeps_the_one_before(
    fork_server, tiny_model_folder, tmp_path, kind, what
):
    answer = fork_server.start("train_on_bad_disk", model=tiny_model_folder, folder=tmp_path, kind=kind).result()
    if answer == "skip":
        pytest.skip("no disk can be mounted here")
    code, sentence, left, events, is_same = answer
    assert code == 75
    assert what in sentence
    assert left == ["step-00000002"]
    assert events == ["training goes on after step 2 of 6"]
    assert is_same


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda state: [], id="a list"),
        pytest.param(lambda state: {"format": 1}, id="without progress"),
        pytest.param(lambda state: state | {"progress": {"step": "four"}}, id="a step in words"),
        pytest.param(lambda state: state | {"progress": state["progress"] | {"unknown": 1}}, id="an unknown key"),
        pytest.param(lambda state: state | {"progress": state["progress"] | {"step": 2}}, id="another step"),
        pytest.param(lambda state: state | {"counts": None}, id="no counts"),
        pytest.param(lambda state: state | {"made_with": None}, id="made with nothing"),
    ],
)
def test_k2_k3_an_odd_state_counts_as_damaged_whatever_the_manifest_says(base, train, stopped, odd):
    newest = stopped / "checkpoints" / "step-00000004"
    state = odd(json.loads((newest / "state.json").read_text()))
    (newest / "state.json").write_text(json.dumps(state))
    files.write_manifest(newest)
    _, events = resume(base, train, stopped)
    assert events.kinds[:2] == ["damaged checkpoint", "resume"]
    assert "state.json" in events.rows[0][1]
    assert names(stopped) == ["step-00000004", "step-00000006"]


@pytest.mark.parametrize("content", [{}, [], {"files": []}, {"files": {"../state.json": {"bytes": 1, "sha256": ""}}}])
def test_k2_an_odd_manifest_counts_as_damaged(base, train, stopped, content):
    (stopped / "checkpoints" / "step-00000004" / "manifest.json").write_text(json.dumps(content))
    _, events = resume(base, train, stopped)
    assert events.kinds[:2] == ["damaged checkpoint", "resume"]
    assert "manifest.json" in events.rows[0][1]


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


@pytest.mark.parametrize("forged", [True, False])
@pytest.mark.parametrize("name", [*FILES[:4], "rng_state.pth", "training_args.bin"])
def test_k9_a_hostile_pickle_is_never_read(base, train, stopped, tmp_path, name, forged):
    newest, canary = stopped / "checkpoints" / "step-00000004", tmp_path / "canary"
    (newest / name).write_bytes(pickle.dumps(Hostile(canary)))
    if forged:
        files.write_manifest(newest)
    _, events = resume(base, train, stopped)
    assert not canary.exists()
    kinds = ["resume"] if forged and name not in FILES else ["damaged checkpoint", "resume"]
    assert events.kinds[: len(kinds)] == kinds
    if len(kinds) == 2:
        assert name in events.rows[0][1]


def test_k9_the_pickle_of_the_tests_is_hostile(tmp_path):
    pickle.loads(pickle.dumps(Hostile(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_k9_a_checkpoint_holds_safetensors_and_json_only(stopped):
    for path in (stopped / "checkpoints").rglob("*"):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.is_file():
            assert path.suffix == ".safetensors"
            with safe_open(path, "pt") as file:
                assert file.keys()


def test_fit_outside_a_run_writes_nothing(base, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(base.copy(), train)
    assert list(tmp_path.iterdir()) == []


# What stops training


def not_finite(at, value):
    """A loss whose value is not finite at one step."""
    calls = []

    def loss_fn(model, batch):
        calls.append(batch.ids)
        return cross_entropy(model, batch) * (value if len(calls) == at else 1.0)

    return loss_fn


class InfiniteGradient(torch.autograd.Function):
    """The identity, with a gradient of infinity."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


def infinite_gradient(at):
    calls = []

    def loss_fn(model, batch):
        calls.append(1)
        values = cross_entropy(model, batch)
        return InfiniteGradient.apply(values) if len(calls) == at else values

    return loss_fn


@pytest.mark.parametrize(
    ("loss_fn", "what"),
    [(not_finite(3, math.nan), "loss"), (not_finite(3, math.inf), "loss"), (infinite_gradient(3), "gradient")],
    ids=["r5-nan-loss", "r5-inf-loss", "r7-inf-gradient"],
)
def test_r5_r7_what_is_not_finite_stops_before_the_optimizer(base, train, tmp_path, loss_fn, what):
    model, events = base.copy(), Events()
    with pytest.raises(TrainingError, match=f"the {what} must be finite, but is not at step 3") as caught:
        fit(model, train, loss_fn, context=Context(folder=tmp_path, event=events))
    expected = fit(base.copy(), train, config=dataclasses.replace(CONFIG, max_steps=7), context=Context())
    kind, _, details = events.rows[-1]
    indices = Epoch(train.tokens.lengths, batch_size=8, seed=0, epoch=0)[2]
    assert (kind, details["examples"]) == ("not finite", [f"train/{i}" for i in indices])
    assert details["examples"][0] in str(caught.value)
    assert "step-00000002" in str(caught.value)
    assert caught.value.exit_code == 1
    saved = tmp_path / "checkpoints" / "step-00000002" / "weights.safetensors"
    kept = {name: tensor for name, tensor in load_file(saved).items() if not name.startswith("buffer.")}
    assert_same_bits(weights(model), kept)
    assert_same_bits(weights(fit(base.copy(), train, context=Context(folder=tmp_path))), weights(expected))


def test_r5_a_micro_batch_that_is_not_finite_stops_the_whole_step(base, train):
    model = base.copy()
    config = dataclasses.replace(CONFIG, micro_batch_size=3)
    with pytest.raises(TrainingError, match="at step 1"):
        fit(model, train, not_finite(2, math.nan), config)
    assert_same_bits(weights(model), weights(base))


def test_fit_refuses_a_metric_that_is_not_finite(base, train):
    with pytest.raises(TrainingError, match="accuracy is not at step 2"):
        fit(base.copy(), train, validate=lambda _: {"accuracy": math.nan})


def no_targets(model, batch):
    return cross_entropy(model, batch)[:0]


def constant(model, batch):
    return torch.ones(len(batch.ids))


def unrelated(model, batch):
    return torch.ones(len(batch.ids), requires_grad=True) * 2


def mean(model, batch):
    return cross_entropy(model, batch).mean()


def without_slope(model, batch):
    return 0 * cross_entropy(model, batch)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (no_targets, "should return one value per target, but a step had none"),
        (constant, "the loss should depend on the trained weights"),
        (unrelated, "the loss should depend on the trained weights"),
        (mean, "gave a single number: leave out its mean"),
        (without_slope, "training should change weights, but none moved"),
    ],
)
def test_fit_refuses_a_loss_that_trains_nothing(base, train, loss_fn, message):
    model = base.copy()
    with pytest.raises(TrainingError, match=message) as caught:
        fit(model, train, loss_fn, dataclasses.replace(CONFIG, weight_decay=0.0))
    assert caught.value.exit_code == 1
    assert_same_bits(weights(model), weights(base))


FROZEN = "in the loss function should be in evaluation mode and without gradients"


def losses_with(teacher):
    """Loss functions that hold a teacher in every way that Python has."""

    def in_closure(model, batch):
        with torch.no_grad():
            target = teacher.model(**batch.inputs).logits
        return (model(**batch.inputs).logits - target).square().mean(-1)

    def bound(teacher, model, batch):
        return (model(**batch.inputs).logits - teacher(**batch.inputs).logits).square().mean(-1)

    return {
        "closure": in_closure,
        "argument": functools.partial(bound, teacher.model),
        "keyword": functools.partial(lambda model, batch, *, teacher: bound(teacher, model, batch), teacher=teacher),
        "global": of_global,
    }


LIVE = None


def of_global(model, batch):
    return (model(**batch.inputs).logits - LIVE.model(**batch.inputs).logits).square().mean(-1)


@pytest.mark.parametrize("way", ["closure", "argument", "keyword", "global"])
@pytest.mark.parametrize("wrong", ["training", "gradients", "one gradient"])
def test_m8_teacher_that_could_change_is_refused_before_the_first_step(base, train, monkeypatch, way, wrong):
    teacher = base.copy()
    teacher.model.eval().requires_grad_(False)
    if wrong == "training":
        teacher.model.train()
    else:
        (teacher.model if wrong == "gradients" else teacher.model.classifier).requires_grad_(True)
    monkeypatch.setattr(sys.modules[__name__], "LIVE", teacher)
    student, before = base.copy(), weights(base)
    with pytest.raises(InputError, match=FROZEN):
        fit(student, train, losses_with(teacher)[way])
    assert_same_bits(weights(student), before)


def test_m8_live_teacher_that_is_frozen_teaches_and_stays_as_it_is(base, train):
    teacher = base.copy()
    teacher.model.eval().requires_grad_(False)
    with torch.no_grad():
        teacher.model.classifier.bias += 1.0
    before = weights(teacher)
    fit(base.copy(), train, losses_with(teacher)["closure"])
    assert_same_bits(weights(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_fit_refuses_a_model_without_anything_to_train(base, train):
    only_table = TextModel(nn.Embedding(5, 2), base.tokenizer)
    with pytest.raises(TrainingError, match="all are frozen"):
        fit(only_table, train, config=dataclasses.replace(CONFIG, train_embeddings=False))


def test_d1_fit_refuses_an_empty_split(base, train):
    with pytest.raises(InputError, match="at least one example"):
        fit(base.copy(), train.take([]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be > 0, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be > 0, got inf"),
        ({"batch_size": 0}, "batch_size must be > 0, got 0"),
        ({"num_epochs": -1}, "num_epochs must be > 0, got -1"),
        ({"max_steps": 0}, "max_steps must be > 0, got 0"),
        ({"micro_batch_size": 0}, "micro_batch_size must be > 0, got 0"),
        ({"num_evaluations": 0}, "num_evaluations must be > 0, got 0"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be >= 0, got -1.0"),
        ({"warmup_fraction": 1.5}, r"warmup_fraction must be in \[0, 1\], got 1.5"),
    ],
)
def test_c2_train_config_refuses_what_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**changes)


def test_fit_leaves_no_optimizer_behind_that_waits_for_the_garbage_collector(base, train):
    gc.collect()
    gc.disable()
    try:
        before = {id(o) for o in gc.get_objects() if isinstance(o, torch.optim.Optimizer)}
        fit(base.copy(), train)
        left = [o for o in gc.get_objects() if isinstance(o, torch.optim.Optimizer) and id(o) not in before]
    finally:
        gc.enable()
    assert left == []
