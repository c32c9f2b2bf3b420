"""What a step takes: counts of what must not happen in it, choices that are measured, one ratio with a wide margin."""

import dataclasses
import functools
import itertools
import statistics
import time

import numpy as np
import pytest
import torch
from small_data import BF16, FP32, LABELS, Events, assert_same_bits, classifier, cross_entropy, split, texts, weights
from torch.utils._python_dispatch import TorchDispatchMode

from smallmodels import data, losses, models, students, tasks, teachers, training
from smallmodels.arrays import Ragged
from smallmodels.data import batches
from smallmodels.losses import inputs, vocabulary
from smallmodels.models import compute as choosing
from smallmodels.phases import Context
from smallmodels.training import TrainConfig
from smallmodels.training.logger import StepLogger
from smallmodels.training.loop import Loop

CONFIG = TrainConfig(learning_rate=1e-3, max_steps=4, batch_size=8)


@pytest.fixture(scope="module")
def base(tiny_model_folder):
    return classifier(tiny_model_folder)


@pytest.fixture(scope="module")
def train(base):
    return split(base.tokenizer, 24)


def fit(model, train, loss_fn=cross_entropy, config=CONFIG, **options):
    return training.fit(model, train, loss_fn, config, **{"compute": FP32, **options})


class Operations(TorchDispatchMode):
    """Notes every operation of torch and what it is given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append((function.overloadpacket.__name__, args, kwargs or {}))
        return function(*args, **kwargs or {})

    def count(self, *names):
        return sum(name in names for name, _, _ in self.calls)

    def waits(self):
        """Those that make a GPU wait for the value of a tensor; `tolist` and `cpu` of a tensor are seen as copies."""
        return [name for name, args, _ in self.calls if name in READ_BACK or (name in INDEXED and has_mask(args[1]))]


READ_BACK = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")
"""These look for where a mask holds, without an operation of its own."""


def has_mask(indices):
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


# What is trained: a model, its split, and the loss


def sentence_job(folder, cache, compute):
    model = classifier(folder)
    return model, split(model.tokenizer, 24), cross_entropy


def language_job(folder, cache, compute):
    """The teacher's k most likely tokens, stored, and the labels."""
    plain = data.Split("train", [f"train/{i}" for i in range(24)], texts(24))
    tokenizer = models.new_tokenizer(plain.texts, vocabulary_size=270)
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": 64}
    teacher, student = (models.new_language_model(tokenizer, **sizes, seed=seed) for seed in (0, 1))
    rows = data.cut_into_rows(plain, tokenizer, max_length=64)
    packing = teachers.Packing(5, (1.0,), models.vocabulary_size(teacher))
    signals = teachers.store_token_signals(teacher, rows, packing=packing, compute=FP32, cache=cache)

    def loss_fn(model, batch):
        states, labels = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        told = batch.teacher_top_k

        def of_chunk(logits, chunk):
            soft = losses.top_k_divergence(logits, told[chunk], losses.kl_divergence, temperature=1.0)
            return soft + losses.cross_entropy(logits, labels[chunk])

        return losses.by_chunks(states, model.output_layer, of_chunk)

    return student, rows.with_signals(signals), loss_fn


def word_job(folder, cache, compute):
    model, _, _ = models.load_token_classifier(str(folder), LABELS, max_length=32)
    rows = texts(24)
    tags = Ragged.of([[place % 3 for place, _ in enumerate(text.split())] for text in rows], np.int64)
    plain = data.Split("train", [f"train/{i}" for i in range(24)], rows, tags)

    def loss_fn(model, batch):
        return tasks.WORDS.hard_loss(tasks.WORDS.logits(model, batch), batch.labels)

    return model, plain.tokenize(model.tokenizer, max_length=32), loss_fn


def inside_job(folder, cache, compute, *, loss):
    teacher = classifier(folder)
    student = students.keep_layers(teacher, 1)
    return student, split(student.tokenizer, 24), loss(cross_entropy, student, teacher, weight=1.0, compute=compute)


JOBS = {
    "sentences": sentence_job,
    "next tokens": language_job,
    "words": word_job,
    "hidden states": functools.partial(inside_job, loss=teachers.HiddenStatesLoss),
    "relations": functools.partial(
        inside_job, loss=functools.partial(teachers.AttentionRelationsLoss, num_relation_heads=2)
    ),
}


def steps_of(base, train, monkeypatch, *, compute=FP32, waits=True, config=CONFIG, loss_fn=cross_entropy):
    """The operations of each step of a training."""
    steps, original = [], Loop.train_step

    def watched(loop, batch):
        loop.waits = loop.waits and waits
        with Operations() as seen:
            original(loop, batch)
        steps.append(seen)

    monkeypatch.setattr(Loop, "train_step", watched)
    fit(base.copy(), train, loss_fn, config, compute=compute)
    return steps


# Nothing waits


@pytest.mark.parametrize("job", JOBS)
def test_a_step_reads_no_value_back_before_the_next_one(job, tiny_model_folder, tmp_path, monkeypatch):
    on_gpu = dataclasses.replace(FP32, attention="sdpa_masked")  # what `choose_compute` takes there
    model, rows, loss_fn = JOBS[job](tiny_model_folder, tmp_path, on_gpu)
    for module in (inputs, vocabulary):  # losses look at what is in the memory of the processor, which costs nothing
        monkeypatch.setattr(module, "may_look", lambda values: False)
    steps = steps_of(model, rows, monkeypatch, compute=on_gpu, waits=False, loss_fn=loss_fn)
    assert len(steps) == CONFIG.max_steps
    assert [step.waits() for step in steps] == [[]] * len(steps)


@pytest.mark.parametrize(
    "look",
    [
        lambda values: values[values > 1],
        lambda values: values.clone()[:, 1:][:, (values > 1).any(0)[1:]],
        lambda values: values.clone().__setitem__(values > 1, torch.zeros(2)),
        lambda values: values.masked_select(values > 1),
        lambda values: (values > 1).nonzero(),
        lambda values: bool((values > 1).any()),
        lambda values: int(values.sum()),
        lambda values: torch.equal(values, values + 1),
        lambda values: values.unique(),
    ],
)
def test_each_way_to_wait_for_a_value_is_seen(look):
    values = torch.arange(4.0).view(2, 2)
    with Operations() as seen:
        look(values)
    assert seen.waits()
    with Operations() as seen:
        values.flatten().index_select(0, torch.tensor([3, 1]))
        _ = values[torch.tensor([1, 0])]
    assert not seen.waits()


def test_a_step_that_is_looked_at_later_gives_the_same_bits(base, train, monkeypatch):
    expected = weights(fit(base.copy(), train))
    original = Loop.train_step

    def later(loop, batch):
        loop.waits = False
        original(loop, batch)

    monkeypatch.setattr(Loop, "train_step", later)
    assert_same_bits(weights(fit(base.copy(), train)), expected)


def test_a_loss_that_is_not_finite_is_found_later_and_never_reaches_the_weights(base, train, monkeypatch):
    calls, seen = itertools.count(), []
    original = Loop.train_step

    def later(loop, batch):
        loop.waits = False
        original(loop, batch)
        seen.append({name: p.detach().clone() for name, p in loop.parameters.items()})

    def loss_fn(model, batch):
        return cross_entropy(model, batch) * (float("nan") if next(calls) == 1 else 1.0)

    monkeypatch.setattr(Loop, "train_step", later)
    events = Events()
    with pytest.raises(training.loop.TrainingError, match=r"the loss must be finite, but is not at step 2 \(examples"):
        fit(base.copy(), train, loss_fn, context=Context(event=events))
    assert_same_bits(seen[0], seen[1])


@pytest.mark.gpu
@pytest.mark.parametrize("job", JOBS)
def test_a_step_on_a_gpu_never_waits_for_it(job, tiny_model_folder, tmp_path, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    compute, original, steps = models.choose_compute("cuda"), Loop.train_step, itertools.count()

    def strict(loop, batch):
        torch.cuda.set_sync_debug_mode("error" if next(steps) else "default")  # the first one sets libraries up
        try:
            original(loop, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    model, rows, loss_fn = JOBS[job](tiny_model_folder, tmp_path, compute)
    monkeypatch.setattr(Loop, "train_step", strict)
    fit(model, rows, loss_fn, compute=compute)


# Nothing is done twice


def test_each_weight_is_cast_once_in_a_step_of_many_micro_batches(base, train, monkeypatch):
    config = dataclasses.replace(CONFIG, max_steps=1, micro_batch_size=4)
    seen = steps_of(base, train, monkeypatch, compute=BF16, config=config)[0]
    shapes = [p.shape for p in base.model.parameters()]
    casts = [
        args[0].shape
        for name, args, kwargs in seen.calls
        if name == "_to_copy" and kwargs.get("dtype") == torch.bfloat16 and args[0].shape in shapes
    ]
    linear = [m for m in base.model.modules() if isinstance(m, torch.nn.Linear)]
    assert len(casts) == sum(1 + (m.bias is not None) for m in linear)


def test_clipping_takes_no_pass_over_the_gradients_of_its_own(base, train, monkeypatch):
    for step in steps_of(base, train, monkeypatch):
        assert step.count("_foreach_mul_", "_foreach_div_", "mul_") == 0
        assert step.count("_fused_adamw_") >= 1


# Large batches go through in parts


def small_passes(tokens):
    return dataclasses.replace(FP32, tokens_per_pass=tokens)


def sizes_seen(base, train, loss_fn, **options):
    sizes = []

    def watched(model, batch):
        sizes.append(len(batch) if torch.is_grad_enabled() else None)
        return loss_fn(model, batch)

    trained = fit(base.copy(), train, watched, **options)
    return [size for size in sizes if size], trained


def test_a_step_goes_through_in_passes_of_the_measured_size_and_gives_the_same_weights(base, train):
    sizes, trained = sizes_seen(base, train, cross_entropy, compute=small_passes(64))
    assert max(sizes) < 8
    assert sum(sizes) == 4 * 8
    whole = weights(fit(base.copy(), train))
    for name, tensor in weights(trained).items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-3, atol=2e-5)


def test_a_loss_that_compares_the_examples_of_a_batch_gets_all_of_them(base, train):
    targets = torch.randn(24, 3)
    rows = dataclasses.replace(train, teacher=targets.numpy())

    def pairs(model, batch):
        embeddings = torch.nn.functional.normalize(model(**batch.inputs).logits, dim=-1)
        return losses.pairwise_similarity(embeddings, torch.nn.functional.normalize(batch.teacher, dim=-1))

    sizes, _ = sizes_seen(base, rows, pairs, compute=small_passes(64))
    assert sizes == [8, 8, 8, 8]


def test_what_the_config_asks_for_is_the_size_of_a_pass(base, train):
    config = dataclasses.replace(CONFIG, micro_batch_size=8)
    sizes, _ = sizes_seen(base, train, cross_entropy, config=config, compute=small_passes(16))
    assert sizes == [8, 8, 8, 8]


def test_a_resumed_training_splits_as_before(base, train, tmp_path):
    config = dataclasses.replace(CONFIG, checkpoint_steps=2)
    expected = weights(fit(base.copy(), train, config=config, compute=small_passes(64)))
    asked = itertools.count()
    context = Context(folder=tmp_path, should_stop=lambda: next(asked) == 1)
    with pytest.raises(training.loop.RunInterruptedError):
        fit(base.copy(), train, config=config, compute=small_passes(64), context=context)
    again = fit(base.copy(), train, config=config, compute=small_passes(64), context=Context(folder=tmp_path))
    assert_same_bits(weights(again), expected)


# Measured choices


def seconds(table):
    """A measurement whose answers are known."""
    return lambda compute: table[compute.attention, compute.tokens_per_pass]


START = dataclasses.replace(FP32, attention="sdpa", tokens_per_pass=1024)
SIZES = (512, 1024, 2048, 4096)


@pytest.mark.parametrize(
    ("faster", "best"),
    [
        ({("eager", 1024): 0.5}, ("eager", 1024)),
        ({("sdpa", 2048): 0.8, ("sdpa", 4096): 0.7}, ("sdpa", 4096)),
        ({("sdpa", 2048): 0.8, ("sdpa", 4096): 0.9}, ("sdpa", 2048)),
        ({("sdpa", 512): 0.8}, ("sdpa", 512)),
        ({("sdpa", 2048): 0.99}, ("sdpa", 1024)),
        ({("eager", 1024): float("inf"), ("sdpa", 2048): float("inf")}, ("sdpa", 1024)),
        ({}, ("sdpa", 1024)),
    ],
)
def test_the_fastest_attention_and_size_are_chosen(faster, best):
    table = {(attention, size): 1.0 for attention in ("eager", "sdpa") for size in SIZES}
    table[("eager", 1024)] = 1.1
    found = choosing.fastest(START, ("eager", "sdpa"), SIZES, seconds({**table, **faster}))
    assert (found.attention, found.tokens_per_pass) == best


def test_choosing_ends_when_its_time_is_up():
    calls = []

    def slow(compute):
        calls.append(compute)
        time.sleep(0.02)
        return 1.0

    choosing.fastest(START, ("eager", "sdpa"), SIZES, slow, limit_s=0.05)
    assert len(calls) <= 4


def test_choose_compute_measures_on_the_model_and_leaves_it_as_it_is(base, train):
    before = weights(base)
    compute = models.choose_compute("cpu", "fp32", model=base, tokens=train.tokens)
    assert compute.attention in ("eager", "sdpa")
    assert compute.tokens_per_pass in SIZES
    assert_same_bits(weights(base), before)
    assert all(p.grad is None for p in base.model.parameters())


@pytest.mark.parametrize(
    ("batch_size", "tried"),
    [(None, SIZES), (1, SIZES[:1]), (600 // 8, SIZES[:2]), (1100 // 8, SIZES[:3]), (9999, SIZES)],
)
def test_passes_that_hold_more_than_a_step_are_not_tried(base, train, monkeypatch, batch_size, tried):
    asked = []
    monkeypatch.setattr(choosing, "fastest", lambda compute, attentions, sizes, *_: asked.append(sizes) or compute)
    tokens = batches.Tokens(np.arange(80, dtype=np.int32), np.arange(0, 81, 8), 0, 32)
    models.choose_compute("cpu", "fp32", model=base, tokens=tokens, batch_size=batch_size)
    assert asked == [tried]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_passes_are_timed_on_the_outer_layers_and_the_model_stays_whole(depth):
    import transformers

    settings = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}
    network = transformers.BertForSequenceClassification(
        transformers.BertConfig(num_hidden_layers=depth, num_labels=3, pad_token_id=0, **settings)
    )
    tokens = batches.Tokens(np.arange(12, dtype=np.int32), np.array([0, 6, 12]), 0, 32)
    passes = choosing._Passes(models.TextModel(network, tokenizer=None), tokens)
    layers, kept = network.bert.encoder.layer, passes.network.bert.encoder.layer
    assert len(layers) == depth
    assert len(kept) == min(depth, 2)
    for place in (0, -1):
        assert_same_bits(kept[place].state_dict(), layers[place].state_dict())
    assert 0 < passes(START) < 10


def test_choose_compute_takes_what_is_given(base, train, monkeypatch):
    monkeypatch.setattr(choosing, "fastest", None)  # nothing is left to measure
    given = {"num_threads": 1, "attention": "eager", "tokens_per_pass": 77}
    threads = torch.get_num_threads()
    try:
        compute = models.choose_compute("cpu", "fp32", model=base, tokens=train.tokens, **given)
    finally:
        torch.set_num_threads(threads)
    assert {name: compute.choices[name] for name in given} == given
    assert choosing.Compute(**{**compute.choices, "operations_per_s": 1.0}).choices == compute.choices


# The whole loop against the least that a loop can do


def bare_loop(model, train, config, loss_fn):
    """The same steps in plain torch."""
    network = FP32.place(model.model).eval().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, fused=True)
    plan = batches.Plan(train.tokens.lengths, batch_size=config.batch_size, seed=0)
    for step in range(config.max_steps):
        batch = batches.collate(train, plan.indices(step))
        loss_fn(network, batch).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.slow
def test_our_loop_takes_little_more_than_a_bare_one():
    """CPU time of both in turn, on a step of some 20 ms: a slow loop shows whatever the machine's mood."""
    import transformers

    settings = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 768}
    with models.seeded(0):
        network = transformers.BertForSequenceClassification(
            transformers.BertConfig(vocab_size=200, num_labels=3, pad_token_id=0, **settings)
        )
    generator, lengths = np.random.default_rng(0), np.full(64, 16)
    ids = generator.integers(5, 200, lengths.sum()).astype(np.int32)
    tokens = batches.Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]), 0, 32)
    names = [str(i) for i in range(64)]
    rows = batches.Split("train", names, names, np.arange(64, dtype=np.int64) % 3, tokens)
    config = TrainConfig(learning_rate=1e-4, max_steps=12, batch_size=16)
    ratios = []
    for _ in range(5):
        model = models.TextModel(network, tokenizer=None).copy()
        begin = time.process_time()
        fit(model, rows, config=config)
        middle = time.process_time()
        bare_loop(models.TextModel(network, tokenizer=None).copy(), rows, config, cross_entropy)
        ratios.append((middle - begin) / (time.process_time() - middle))
    assert statistics.median(ratios) < 1.3, ratios


def test_shown_rate_of_tokens_leaves_validations_out(monkeypatch):
    clock, lines = [0.0], []
    monkeypatch.setattr("smallmodels.training.logger.time.monotonic", lambda: clock[0])
    logger = StepLogger(Context(log=lines.append), num_steps=10)
    clock[0] += 1.0
    with logger.paused():
        clock[0] += 8.0
    logger.num_tokens = 300
    clock[0] += 0.5
    logger.step(1, 0.5, 1.0, 1e-3)
    assert [line["train/tokens_per_s"] for line in lines] == [200.0]
