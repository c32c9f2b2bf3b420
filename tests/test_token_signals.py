"""A language model's stored signal: its bytes, its way into a batch, and what a student learns from it."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from small_data import FP32, Events

from smallmodels import data, entries, losses, models, teachers, training
from smallmodels.data import batches
from smallmodels.data.splits import Split
from smallmodels.errors import DamagedError, InputError
from smallmodels.phases import Context
from smallmodels.teachers import storing
from smallmodels.teachers.signals import Packing, TokenSignals

TEXTS = [f"the cat number {i} sat on mat {i * 7 % 23} and saw {'birds ' * (i % 5)}" for i in range(30)]


def split_of(texts, name="train"):
    return Split(name, [f"{name}/{i}" for i in range(len(texts))], texts)


@pytest.fixture(scope="module")
def teacher():
    tokenizer = models.new_tokenizer(TEXTS, vocabulary_size=290)
    made = models.new_language_model(tokenizer, hidden_size=32, num_layers=2, num_heads=2, max_length=16)
    with torch.no_grad():
        made.model.transformer.model.embed_tokens.weight.mul_(20)  # random weights hold all tokens for equally likely
    return made


@pytest.fixture(scope="module")
def rows(teacher):
    return data.cut_into_rows(split_of(TEXTS), teacher.tokenizer, max_length=16)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(storing, "_TARGET_ROWS_PER_SHARD", 7)


def store(teacher, rows, cache, *, k=5, temperatures=(), num_classes=290, **options):
    packing = Packing(k, temperatures, num_classes)
    return teachers.store_token_signals(teacher, rows, packing=packing, compute=FP32, cache=cache, **options)


def plain_logits(model, rows):
    """Of every target, in order, of the model as transformers has it."""
    tokens, found = rows.tokens, []
    for i in range(len(rows)):
        part = slice(tokens.offsets[i], tokens.offsets[i + 1])
        ids = torch.from_numpy(tokens.ids[part].astype(np.int64))[None]
        with torch.no_grad():
            logits = model.model.transformer(input_ids=ids).logits[0, :-1]
        found.append(logits[torch.from_numpy(tokens.targets[part][1:])])
    return torch.cat(found)


# Bytes


@pytest.mark.parametrize("num_classes", [60, 256, 65_536, 65_537, 152_064, 1 << 20])
@pytest.mark.parametrize("k", [1, 3, 32])
def test_what_is_packed_is_unpacked(num_classes, k):
    generator = torch.Generator().manual_seed(0)
    ids = torch.stack([torch.randperm(num_classes, generator=generator)[:k] for _ in range(9)])
    ids[0, 0] = num_classes - 1 if num_classes - 1 not in ids[0] else ids[0, 0]
    top = losses.TopK(ids, -torch.rand(9, k, generator=generator), -torch.rand(9, 2, generator=generator), (1.0, 2.0))
    packing = Packing(k, (1.0, 2.0), num_classes)
    packed = packing.pack(top)
    assert packed.shape == (9, packing.num_bytes)
    again = packing.unpack(packed)
    assert torch.equal(again.ids, ids)
    assert torch.equal(again.log_probs, top.log_probs.half())
    assert torch.equal(again.tails, top.tails.half())
    assert again.temperatures == (1.0, 2.0)


@pytest.mark.parametrize(("num_classes", "num_bytes"), [(49_152, 130), (65_536, 130), (151_936, 138), (262_144, 138)])
def test_a_target_of_a_large_vocabulary_takes_at_most_140_bytes(num_classes, num_bytes):
    assert Packing(32, (1.0,), num_classes).num_bytes == num_bytes <= 140


# Storing


def test_stored_signal_is_the_top_k_of_the_plain_logits(teacher, rows, tmp_path):
    signals = store(teacher, rows, tmp_path, temperatures=(2.0,))
    expected = losses.top_k(plain_logits(teacher, rows), 5, (1.0, 2.0))
    found = signals.rows_for(rows).batch(np.arange(len(rows)))
    torch.testing.assert_close(found.log_probs.float(), expected.log_probs, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(found.tails.float(), expected.tails, rtol=2e-3, atol=2e-3)
    assert (found.ids == expected.ids).float().mean() > 0.99  # neighbours may change places in the last bits
    assert found.temperatures == (1.0, 2.0)
    assert len(signals.packed) == int(rows.tokens.targets.sum())


def test_token_that_the_teacher_does_not_know_is_refused(teacher, rows, tmp_path):
    ids = rows.tokens.ids.copy()
    ids[3] = models.vocabulary_size(teacher)
    strange = dataclasses.replace(rows, tokens=dataclasses.replace(rows.tokens, ids=ids))
    with pytest.raises(InputError, match=f"its table has {ids[3]} and a text has number {ids[3]}"):
        store(teacher, strange, tmp_path)


def test_stored_signal_is_read_back_and_a_damaged_shard_computed_again_alone(teacher, rows, tmp_path):
    first = store(teacher, rows, tmp_path)
    events = Events()
    context = Context(event=events)
    again = store(teacher, rows, tmp_path, context=context)
    assert context.counts.num_examples is None  # nothing was computed
    assert np.array_equal(again.packed, first.packed)
    shard = sorted(tmp_path.rglob("shard-*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[-20] ^= 1
    shard.write_bytes(bytes(content))
    context = Context(event=events)
    mended = store(teacher, rows, tmp_path, context=context)
    assert context.counts.num_examples == 7
    assert np.array_equal(mended.packed, first.packed)
    assert "damaged cache" in events.kinds


def test_address_depends_on_what_is_asked_for(teacher, rows, tmp_path):
    keys = {
        store(teacher, rows, tmp_path, **options).key
        for options in ({}, {"k": 6}, {"temperatures": (3.0,)}, {"num_classes": 280})
    }
    other_targets = data.cut_into_rows(split_of(TEXTS), teacher.tokenizer, max_length=16, stride=8)
    keys.add(store(teacher, other_targets, tmp_path).key)
    assert len(keys) == 5
    assert store(teacher, rows, tmp_path, temperatures=(1.0,)).key in keys


def test_signal_keeps_to_the_ids_that_both_models_have(teacher, rows, tmp_path):
    signals = store(teacher, rows, tmp_path, k=20, num_classes=40)
    found = signals.rows_for(rows).batch(np.arange(len(rows)))
    assert int(found.ids.max()) < 40
    total = torch.cat([found.log_probs, found.tails], dim=1).float().logsumexp(-1)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=5e-3, rtol=0)


def test_signal_survives_saving_and_another_order_of_the_rows(teacher, rows, tmp_path):
    signals = store(teacher, rows, tmp_path / "cache")
    signals.save(tmp_path)
    loaded = TokenSignals.load(tmp_path)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = loaded.rows_for(rows.take(order))
    for place, row in enumerate(order[:10]):
        expected = signals.rows_for(rows).batch(np.array([row]))
        assert torch.equal(shuffled.batch(np.array([place])).log_probs, expected.log_probs)
    with pytest.raises(DamagedError, match="store again"):
        loaded.rows_for(data.cut_into_rows(split_of(["something else"]), teacher.tokenizer, max_length=16))


def test_signal_needs_targets_and_a_k_within_the_vocabulary(teacher, rows, tmp_path):
    with pytest.raises(InputError, match="cut them into rows"):
        store(teacher, split_of(TEXTS).tokenize(teacher.tokenizer, max_length=16), tmp_path)
    with pytest.raises(InputError, match="k must be in 1 … 290"):
        store(teacher, rows, tmp_path, k=291)
    with pytest.raises(InputError, match="num_classes must be <= 290"):
        store(teacher, rows, tmp_path, num_classes=300)


def test_t13_the_estimate_of_a_token_signal_is_what_is_stored(teacher, rows, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(entries, "require_space", lambda num_bytes, *_: asked.append(num_bytes))
    teachers.require_space_for_tokens(rows, Packing(5, (), 290))
    monkeypatch.undo()
    store(teacher, rows, tmp_path)
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert stored <= asked[0] <= 2 * stored


# Into a batch


def test_batch_has_a_signal_for_each_of_its_targets_through_parts_and_cuts(teacher, rows, tmp_path):
    signals = store(teacher, rows, tmp_path)
    split = rows.with_signals(signals)
    chosen = np.array([4, 9, 1, 12, 30])
    batch = batches.collate(split, chosen)
    told = batch.teacher_top_k
    assert len(told) == int(batch.is_target.sum())
    expected = torch.cat([signals.rows_for(rows).batch(np.array([i])).ids for i in chosen])
    assert torch.equal(told.ids, expected)
    parts = batch.split(2)
    assert [len(part.teacher_top_k) for part in parts] == [int(part.is_target.sum()) for part in parts]
    assert torch.equal(torch.cat([part.teacher_top_k.ids for part in parts]), expected)
    cut = batch.cut(4)
    assert len(cut.teacher_top_k) == int(cut.is_target.sum())
    one = batches.collate(split, chosen[:1]).cut(4)
    assert torch.equal(cut.teacher_top_k.ids[: len(one.teacher_top_k)], one.teacher_top_k.ids)
    taken = split.take([9, 4])
    assert torch.equal(
        batches.collate(taken, np.array([1])).teacher_top_k.ids, batches.collate(split, np.array([4])).teacher_top_k.ids
    )
    with pytest.raises(InputError, match=r"use split\.with_signals"):
        _ = batches.collate(rows, chosen).teacher_top_k


# Learning from it


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_stored_signal_of_the_whole_vocabulary_gives_the_gradient_of_a_live_teacher(
    teacher, rows, tmp_path, temperature
):
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": 16}
    student = models.new_language_model(teacher.tokenizer, **sizes, seed=3).model
    signals = store(teacher, rows, tmp_path, k=290, temperatures=(temperature,))
    batch = batches.collate(rows.with_signals(signals), np.arange(12))
    states, _ = losses.next_tokens(student(**batch.inputs), batch.inputs["input_ids"], batch.targets)
    divergence = functools.partial(losses.top_k_divergence, divergence=losses.kl_divergence, temperature=temperature)
    told = batch.teacher_top_k
    stored = losses.by_chunks(states, student.output_layer, lambda logits, chunk: divergence(logits, told[chunk]))
    chosen = batch.is_target[:, 1:]
    with torch.no_grad():
        wanted = teacher.model.transformer(**batch.inputs).logits[:, :-1][chosen]
    live = losses.kl_divergence(student.output_layer(states), wanted, temperature=temperature)
    torch.testing.assert_close(stored, live, rtol=0.01, atol=0.01)  # the stored numbers have 16 bits
    parameters = list(student.parameters())
    found = torch.autograd.grad(stored.sum(), parameters, retain_graph=True)
    for one, two in zip(found, torch.autograd.grad(live.sum(), parameters), strict=True):
        assert (one - two).norm() <= 0.01 * two.norm()


def test_few_tokens_of_the_teacher_pull_the_student_towards_it(teacher, rows, tmp_path):
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_length": 16}
    student = models.new_language_model(teacher.tokenizer, **sizes, seed=3)
    signals = store(teacher, rows, tmp_path, k=16)
    config = training.TrainConfig(learning_rate=2e-2, max_steps=60, batch_size=8)

    def stored(model, batch):
        states, _ = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        told = batch.teacher_top_k
        return losses.by_chunks(
            states,
            model.output_layer,
            lambda logits, chunk: losses.top_k_divergence(logits, told[chunk], losses.kl_divergence, temperature=1.0),
        )

    trained = training.fit(student.copy(), rows.with_signals(signals), stored, config, compute=FP32)
    wanted = plain_logits(teacher, rows)
    before, after = (
        float(losses.kl_divergence(plain_logits(model, rows), wanted, temperature=1.0).mean())
        for model in (student, trained)
    )
    assert after < 0.7 * before


def test_kept_layers_of_a_language_model_generate_what_they_do_after_saving(teacher, tmp_path):
    from smallmodels import students

    deep = models.new_language_model(teacher.tokenizer, hidden_size=16, num_layers=4, num_heads=2, max_length=16)
    student = students.keep_layers(deep, 2)
    student.save(tmp_path)
    ids = teacher.tokenizer("the cat", return_tensors="pt")["input_ids"]
    options = {"max_new_tokens": 6, "do_sample": False}
    expected = models.TextModel.load(tmp_path).model.transformer.generate(ids, **options)
    assert torch.equal(student.model.transformer.generate(ids, **options), expected)
