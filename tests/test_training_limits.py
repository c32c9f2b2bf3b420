"""What the loop does when memory, workers or the loss itself give trouble."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import FP32, Events, assert_same_bits, classifier, cross_entropy, split, weights

from smallmodels import files, memory, training
from smallmodels.data.batches import Plan, Steps, collate
from smallmodels.errors import RunInterruptedError, TrainingError
from smallmodels.phases import Context
from smallmodels.training import TrainConfig

CONFIG = TrainConfig(learning_rate=1e-2, max_steps=7, batch_size=8, checkpoint_steps=2)


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    """Never trained itself: tests train copies."""
    return classifier(tiny_model_folder)


@pytest.fixture(scope="module")
def train(base):
    return split(base.tokenizer, 28)


def fit(model, train, loss_fn=cross_entropy, config=CONFIG, **options):
    return training.fit(model, train, loss_fn, config, **{"compute": FP32, **options})


# Batches


def test_batch_split_gives_what_collating_the_parts_gives(train):
    indices = np.array([3, 0, 17, 9, 5])
    parts = collate(train, indices).split(2)
    expected = [collate(train, indices[i : i + 2]) for i in (0, 2, 4)]
    for part, whole in zip(parts, expected, strict=True):
        assert (part.ids, part.num_tokens) == (whole.ids, whole.num_tokens)
        assert part.num_processed_tokens == whole.num_processed_tokens
        assert all(torch.equal(part.inputs[name], whole.inputs[name]) for name in whole.inputs)
        assert torch.equal(part.labels, whole.labels)


def test_d15_steps_of_all_epochs_hold_each_example_once_an_epoch(train):
    plan = Plan(train.tokens.lengths, batch_size=8, seed=1)
    for epoch in range(2):
        seen = np.concatenate([plan.indices(4 * epoch + step) for step in range(4)])  # the last one is partial
        assert sorted(seen) == list(range(28))


@pytest.mark.parametrize("num_processes", [2, 3])
def test_steps_of_several_processes_are_those_of_one_shared_out(train, num_processes):
    plan = Plan(train.tokens.lengths, batch_size=8, seed=1)
    for step in range(4):
        shares = [Steps(train, plan, rank, num_processes)[step] for rank in range(num_processes)]
        assert sorted(i for share in shares for i in share.ids) == sorted(Steps(train, plan)[step].ids)


# Data workers


@pytest.mark.parametrize("num_workers", [1, 2])
def test_d14_any_number_of_workers_gives_the_same_bits(base, train, num_workers):
    expected = fit(base.copy(), train)
    found = fit(base.copy(), train, config=dataclasses.replace(CONFIG, num_workers=num_workers))
    assert found.notes["training"]["examples_sha256"] == expected.notes["training"]["examples_sha256"]
    assert_same_bits(weights(found), weights(expected))


def test_d14_stopped_with_workers_and_resumed_without_gives_the_same_bits(base, train, tmp_path):
    expected = fit(base.copy(), train)
    calls = []
    with pytest.raises(RunInterruptedError, match="after step 3 of 7"):
        fit(
            base.copy(),
            train,
            config=dataclasses.replace(CONFIG, num_workers=2),
            context=Context(folder=tmp_path, should_stop=lambda: calls.append(1) or len(calls) == 3),
        )
    found = fit(base.copy(), train, context=Context(folder=tmp_path))
    assert_same_bits(weights(found), weights(expected))
    assert found.notes["training"]["examples_sha256"] == expected.notes["training"]["examples_sha256"]


def test_fit_names_the_examples_it_saw_in_their_order(base, train):
    plan, digest = Plan(train.tokens.lengths, batch_size=8, seed=5), ""
    for step in range(7):
        digest = files.sha256_json([digest, *(train.ids[i] for i in plan.indices(step))])
    assert fit(base.copy(), train, seed=5).notes["training"]["examples_sha256"] == digest
    assert fit(base.copy(), train, seed=6).notes["training"]["examples_sha256"] != digest


def failing_at(step, how):
    original = Steps.__getitem__

    def get(steps, wanted):
        if wanted == step:
            how()
        return original(steps, wanted)

    return get


def fail():
    raise OSError("disk unplugged")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(7)


@pytest.mark.parametrize(
    ("how", "message"),
    [(fail, "OSError: disk unplugged"), (die, "it was killed, as the system does"), (leave, "it ended with code 7")],
)
# PyTorch says that a worker was killed from a signal handler, which may run where Python drops what is raised; the end
# of the worker is seen later all the same.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_d13_a_worker_that_fails_or_is_killed_ends_the_run_with_its_cause(base, train, monkeypatch, how, message):
    monkeypatch.setattr(Steps, "__getitem__", failing_at(4, how))
    with pytest.raises(TrainingError, match=message) as caught:
        fit(base.copy(), train, config=dataclasses.replace(CONFIG, num_workers=2))
    assert "\n" not in str(caught.value)


def test_d13_the_end_of_a_worker_is_waited_for_where_its_pipe_breaks_first(train):
    plan = Plan(train.tokens.lengths, batch_size=8, seed=1)
    dying = multiprocessing.get_context("fork").Process(target=lambda: (time.sleep(0.3), os._exit(7)))
    dying.start()
    steps = Steps(train, plan, workers=[dying])
    assert steps.failure_of_a_worker(ValueError("nothing of a worker")) == ""
    assert steps.failure_of_a_worker(ConnectionResetError("by peer")) == "it ended with code 7"


@pytest.mark.faults
def test_d16_workers_forked_after_threads_and_tokenizers_do_not_hang(tiny_model_folder, tmp_path):
    code = """
        import sys, torch
        sys.path.insert(0, sys.argv[2])
        from small_data import FP32, classifier, cross_entropy, split
        from smallmodels import training
        model = classifier(sys.argv[1])
        torch.set_num_threads(2)
        torch.randn(600, 600) @ torch.randn(600, 600)  # starts the threads that a fork leaves behind
        train = split(model.tokenizer, 1500)  # enough rows for the tokenizer to use its own threads
        config = training.TrainConfig(max_steps=3, batch_size=8, num_workers=2)
        training.fit(model, train, cross_entropy, config, compute=FP32)
        print("done")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tiny_model_folder), str(Path(__file__).parent)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.stdout == "done\n", done.stderr[-2000:]


# Out of memory


def hungry(most, calls=None):
    """A loss that runs out of memory with more than so many examples at once, after its graph was built."""

    def loss_fn(model, batch):
        values = cross_entropy(model, batch)
        if calls is not None:
            calls.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return values

    return loss_fn


@pytest.mark.parametrize("dropout", [False, True])
def test_r8_out_of_memory_halves_the_micro_batch_and_keeps_the_gradient(base, train, dropout):
    config = dataclasses.replace(CONFIG, dropout=dropout)
    calls, events = [], Events()
    found = fit(base.copy(), train, hungry(3, calls), config, context=Context(event=events))
    expected = fit(base.copy(), train, config=dataclasses.replace(config, micro_batch_size=2))
    assert_same_bits(weights(found), weights(expected))
    assert calls[:6] == [8, 4, 2, 2, 2, 2]
    assert max(calls[6:]) == 2  # once is enough
    assert [kind for kind in events.kinds if kind == "out of memory"] == ["out of memory"] * 2
    assert events.rows[1][2] == {
        "step": 1,
        "micro_batch_size": 2,
        "reason": "CUDA out of memory. Tried to allocate 20.00 GiB",
    }
    assert found.notes["training"]["micro_batch_size"] == 2


def test_r8_out_of_memory_late_in_a_step_repeats_the_whole_step(base, train):
    calls = []

    def loss_fn(model, batch):
        calls.append(len(batch))
        if len(calls) == 2:  # the second of two micro-batches, when the first has left its gradient
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return cross_entropy(model, batch)

    found = fit(base.copy(), train, loss_fn, dataclasses.replace(CONFIG, micro_batch_size=4))
    expected = fit(base.copy(), train, config=dataclasses.replace(CONFIG, micro_batch_size=2))
    assert_same_bits(weights(found), weights(expected))


def test_r8_a_resumed_run_keeps_the_smaller_micro_batch(base, train, tmp_path):
    expected = fit(base.copy(), train, hungry(3))
    calls = []
    with pytest.raises(RunInterruptedError):
        fit(base.copy(), train, hungry(3), context=Context(folder=tmp_path, should_stop=lambda: True))
    found = fit(base.copy(), train, hungry(3, calls), context=Context(folder=tmp_path))
    assert max(calls) == 2
    assert_same_bits(weights(found), weights(expected))


def test_r9_out_of_memory_at_one_example_says_what_would_fit(base, train):
    def loss_fn(model, batch):
        if batch.inputs["input_ids"].shape[1] > 6:
            raise MemoryError("cannot allocate memory")
        return cross_entropy(model, batch)

    model = base.copy()
    with pytest.raises(
        TrainingError, match=r"one example of (\d+) tokens should fit .* while (\d) tokens do"
    ) as caught:
        fit(model, train, loss_fn)
    fitting = int(str(caught.value).split("--max-length ")[1].split(",")[0])
    assert 3 <= fitting <= 6
    assert caught.value.exit_code == 1
    assert_same_bits(weights(model), weights(base))


def test_r9_out_of_memory_whatever_the_length_says_so(base, train):
    with pytest.raises(TrainingError, match="neither do 2 tokens: choose a smaller model"):
        fit(base.copy(), train, hungry(0))


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_r10_r8_a_limit_on_memory_is_backed_off_from_or_explained(tiny_model_folder):
    code = """
        import resource, sys
        sys.path.insert(0, sys.argv[2])
        import torch
        import dataclasses
        from small_data import FP32, classifier, cross_entropy, split
        from smallmodels import errors, training
        from smallmodels.phases import Context
        torch.set_num_threads(1)
        # oneDNN creates its code when it is first needed, and once that failed it fails for every later shape too, in
        # about one process of a dozen: such a run is explained, not backed off from.
        torch.backends.mkldnn.set_flags(False)
        model = classifier(sys.argv[1])
        train = split(model.tokenizer, 512)
        config = training.TrainConfig(max_steps=1, batch_size=512)
        whole = dataclasses.replace(FP32, tokens_per_pass=2**20)  # else passes are small before memory asks for it
        training.fit(model.copy(), train.take(range(8)), cross_entropy, config, compute=whole)  # what is allocated once
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[3]) * 2**20,) * 2)
        events = []
        try:
            training.fit(model, train, cross_entropy, config, compute=whole,
                         context=Context(event=lambda kind, message, **details: events.append(kind)))
            print("done", events)
        except errors.TrainingError as error:
            print("refused", error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tiny_model_folder), str(Path(__file__).parent)]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([*command, "64"], capture_output=True, text=True, timeout=100, env=environment)
    assert done.stdout.startswith("done ['out of memory'"), done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_exhausted_knows_what_torch_says(error, expected):
    assert memory.is_exhausted(error) is expected


# A loss that jumps


def spiking(at):
    calls = []

    def loss_fn(model, batch):
        calls.append(1)
        return cross_entropy(model, batch) * (1e4 if len(calls) == at else 1.0)

    return loss_fn


@pytest.mark.parametrize("policy", ["continue", "skip"])
def test_r6_a_loss_spike_is_recorded_and_skipped_if_asked(base, train, policy):
    events = Events()
    config = dataclasses.replace(CONFIG, on_loss_spike=policy)
    found = fit(base.copy(), train, spiking(6), config, context=Context(event=events))
    assert found.notes["training"]["spikes"] == [6]
    kind, message, details = events.rows[0]
    assert kind == "loss spike"
    assert "at step 6" in message
    assert len(details["examples"]) == 8
    assert details["loss"] > 100 * details["usual"]
    # The step that is left out changes nothing: its gradient, clipped or not, never reaches the weights.
    unclipped = dataclasses.replace(config, max_grad_norm=0.0)
    seen = weights(fit(base.copy(), train, spiking(6), unclipped))
    other = weights(fit(base.copy(), train, unless(6), unclipped))
    same = all(torch.equal(seen[name], other[name]) for name in seen)
    assert same is (policy == "skip")


def unless(step):
    """A loss that jumps just as high, elsewhere: only what a skipped step would have done differs."""
    calls = []

    def loss_fn(model, batch):
        calls.append(1)
        values = cross_entropy(model, batch)
        return values.flip(0).sqrt() * 1e4 if len(calls) == step else values

    return loss_fn


def test_r6_a_loss_spike_stops_if_asked(base, train, tmp_path):
    config = dataclasses.replace(CONFIG, on_loss_spike="stop")
    with pytest.raises(
        TrainingError, match=r"should stay near .* at step 6 \(examples train/.*step-00000004"
    ) as caught:
        fit(base.copy(), train, spiking(6), config, context=Context(folder=tmp_path))
    assert caught.value.exit_code == 1
    found = fit(base.copy(), train, config=config, context=Context(folder=tmp_path))
    assert_same_bits(weights(found), weights(fit(base.copy(), train)))


def raised_from(step):
    """A loss that stays at another level from a step on."""
    calls = []

    def loss_fn(model, batch):
        calls.append(1)
        return cross_entropy(model, batch) * (1e4 if len(calls) >= step else 1.0)

    return loss_fn


def test_r6_a_new_level_of_the_loss_becomes_the_usual_one(base, train):
    found = fit(base.copy(), train, raised_from(9), dataclasses.replace(CONFIG, max_steps=60))
    spikes = found.notes["training"]["spikes"]
    assert spikes[:4] == [9, 10, 11, 12]
    assert len(spikes) <= 26  # half of the 52 steps at the new level; all of them if it never became the usual one


def test_r6_spikes_that_do_not_end_stop_a_run_that_leaves_them_out(base, train):
    config = dataclasses.replace(CONFIG, max_steps=60, on_loss_spike="skip")
    with pytest.raises(TrainingError, match="at step 16"):
        fit(base.copy(), train, raised_from(9), config)


def test_r6_a_loss_near_zero_is_no_reason_to_stop(base, train):
    def loss_fn(model, batch):
        return cross_entropy(model, batch) * (1e-6 if len(calls) < 5 else 1e-3)

    calls = []

    def counted(model, batch):
        calls.append(1)
        return loss_fn(model, batch)

    assert fit(base.copy(), train, counted).notes["training"]["spikes"] == []


class Remembering(torch.nn.Module):
    """A loss that divides by a running mean of its own, which is no parameter."""

    def __init__(self, hungry_at=0):
        super().__init__()
        self.register_buffer("mean", torch.ones(()))
        self.calls, self.hungry_at = 0, hungry_at

    def forward(self, model, batch):
        values = cross_entropy(model, batch)
        self.mean.mul_(0.5).add_(0.5 * values.detach().mean())
        self.calls += 1
        if self.calls == self.hungry_at:
            raise MemoryError("no more")
        return values / self.mean


def test_r1_what_a_loss_remembers_is_resumed(base, train, tmp_path):
    expected, calls = fit(base.copy(), train, Remembering()), []
    stop = Context(folder=tmp_path, should_stop=lambda: calls.append(1) or len(calls) == 3)
    with pytest.raises(RunInterruptedError):
        fit(base.copy(), train, Remembering(), context=stop)
    found = fit(base.copy(), train, Remembering(), context=Context(folder=tmp_path))
    assert_same_bits(weights(found), weights(expected))


def test_r8_what_a_loss_remembers_is_as_before_when_a_step_is_repeated(base, train):
    config = dataclasses.replace(CONFIG, micro_batch_size=4)
    found = fit(base.copy(), train, Remembering(hungry_at=2), config)
    expected = fit(base.copy(), train, Remembering(), dataclasses.replace(CONFIG, micro_batch_size=2))
    assert_same_bits(weights(found), weights(expected))


# What a resumed run was made with


@pytest.mark.parametrize("change", [{"num_threads": 2}, {"number_format": "bf16"}])
def test_r13_resuming_under_another_setting_is_allowed_and_said(base, train, tmp_path, change):
    with pytest.raises(RunInterruptedError):
        fit(base.copy(), train, context=Context(folder=tmp_path, should_stop=lambda: True))
    events = Events()
    compute = dataclasses.replace(FP32, **change)
    fit(base.copy(), train, compute=compute, context=Context(folder=tmp_path, event=events))
    ((name, value),) = change.items()
    assert events.kinds == ["not bitwise", "resume"]
    assert f"{name} was {getattr(FP32, name)} and is {value}" in events.rows[0][1]
