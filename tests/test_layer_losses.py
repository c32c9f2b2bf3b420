"""Losses on the inside of encoders: against slow references, from every known family, and as they are trained with."""

import dataclasses
import math

import numpy as np
import pytest
import small_tokenizers
import torch
import transformers
from small_data import FP32, Events, assert_same_bits, cross_entropy, split, weights
from small_tokenizers import ENCODERS
from torch import nn

from smallmodels import data, losses, models, students, tasks, teachers, training
from smallmodels.arrays import Ragged
from smallmodels.data import batches
from smallmodels.errors import InputError, RunInterruptedError
from smallmodels.models import Embedder
from smallmodels.phases import Context
from smallmodels.training import TrainConfig

NAN = math.nan
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
TEXTS = small_tokenizers.sentences()[::60]


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parts(width, seed, dtype=torch.float64):
    """Queries, keys and values of three texts."""
    return [randn(3, 4, width, seed=10 * seed + kind, dtype=dtype) for kind in range(3)]


# Relations


def relations_reference(student, teacher, mask, num_heads):
    """Sums and softmaxes number by number."""
    values = []
    for text in range(len(mask)):
        real = [place for place in range(mask.shape[1]) if mask[text, place]]
        for row in real:
            total = 0.0
            for own, aim in zip(student, teacher, strict=True):
                for head in range(num_heads):
                    q, p = (distribution(side[text].tolist(), row, real, head, num_heads) for side in (own, aim))
                    total += sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True)) / num_heads
            values.append(total)
    return torch.tensor(values, dtype=torch.float64)


def distribution(vectors, row, real, head, num_heads):
    size = len(vectors[0]) // num_heads
    cut = [vector[head * size : (head + 1) * size] for vector in vectors]
    scores = [sum(a * b for a, b in zip(cut[row], cut[other], strict=True)) / math.sqrt(size) for other in real]
    largest = max(scores)
    exponentials = [math.exp(score - largest) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_attention_relations_equal_the_slow_reference_across_widths(num_heads):
    student, teacher = parts(4, 1), parts(12, 2)
    found = losses.attention_relations(student, teacher, MASK, num_relation_heads=num_heads)
    assert found.shape == (9,)
    torch.testing.assert_close(found, relations_reference(student, teacher, MASK, num_heads))


def test_attention_relations_are_zero_for_equal_ones_whatever_the_length_of_padding():
    teacher = parts(8, 1)
    found = losses.attention_relations(teacher, teacher, MASK, num_relation_heads=2)
    assert found.eq(0).all()
    turned, _ = torch.linalg.qr(randn(8, 8, seed=7))
    with_turn = losses.attention_relations([p @ turned for p in teacher], teacher, MASK, num_relation_heads=1)
    torch.testing.assert_close(with_turn, torch.zeros(9, dtype=torch.float64), atol=1e-12, rtol=0)


def test_attention_relations_leave_padding_out():
    student, teacher = parts(4, 1), parts(4, 2)
    value = losses.attention_relations(student, teacher, MASK, num_relation_heads=2)
    garbage, wrong = (
        [torch.where(MASK.bool()[..., None], part, torch.full_like(part, NAN)) for part in side]
        for side in (student, teacher)
    )
    for part in garbage:
        part.requires_grad_()
    masked = losses.attention_relations(garbage, wrong, MASK, num_relation_heads=2)
    torch.testing.assert_close(masked, value)
    masked.sum().backward()
    for part in garbage:
        assert part.grad[~MASK.bool()].eq(0).all()
        assert torch.isfinite(part.grad).all()
    shorter = losses.attention_relations(
        [part[1:2, :2] for part in student], [part[1:2, :2] for part in teacher], MASK[1:2, :2], num_relation_heads=2
    )
    torch.testing.assert_close(shorter, value[3:5])


def test_attention_relations_gradient_agrees_with_finite_differences_and_is_the_students_alone():
    student, teacher = parts(4, 1), [part.requires_grad_() for part in parts(6, 2)]

    def value(*own):
        return losses.attention_relations(own, teacher, MASK, num_relation_heads=2)

    assert torch.autograd.gradcheck(value, tuple(part.requires_grad_() for part in student))
    value(*student).sum().backward()
    assert all(part.grad is None for part in teacher)


def test_attention_relations_are_computed_in_float32():
    student, teacher = parts(64, 1, torch.bfloat16), parts(64, 2, torch.bfloat16)
    value = losses.attention_relations(student, teacher, MASK, num_relation_heads=4)
    assert value.dtype == torch.float32
    exact = relations_reference([p.double() for p in student], [p.double() for p in teacher], MASK, 4)
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = losses.attention_relations(
            [p.float() for p in student], [p.float() for p in teacher], MASK, num_relation_heads=4
        )
    torch.testing.assert_close(under, value, rtol=0, atol=0)


def test_attention_relations_of_nearly_equal_ones_are_not_negative():
    teacher = parts(16, 1, torch.float32)
    student = [part + 1e-6 * randn(*part.shape, seed=5, dtype=torch.float32) for part in teacher]
    assert losses.attention_relations(student, teacher, MASK, num_relation_heads=4).min() >= 0


@pytest.mark.parametrize(
    ("student", "mask", "num_heads", "message"),
    [
        (parts(4, 1), MASK, 3, "num_relation_heads must be a divisor of the width 4, got 3"),
        (parts(4, 1), MASK, 0, "num_relation_heads must be >= 1, got 0"),
        (parts(4, 1), MASK[:, :3], 2, r"attention_mask should have shape \(3, 4\), got \(3, 3\)"),
        (parts(4, 1)[:2], MASK, 2, "as many kinds of parts, got 2 and 3"),
        ([part[:2] for part in parts(4, 1)], MASK, 2, "texts and positions should have the same shape"),
    ],
)
def test_attention_relations_refuse_what_does_not_fit(student, mask, num_heads, message):
    with pytest.raises(InputError, match=message):
        losses.attention_relations(student, parts(12, 2), mask, num_relation_heads=num_heads)


def test_places_of_real_tokens_say_what_the_mask_says():
    student, teacher, real_tokens = parts(8, 1), parts(8, 2), torch.tensor([0, 1, 2, 4, 5, 8, 9, 10, 11])
    for part in student:
        part.requires_grad_()

    def found(**options):
        distances = losses.hidden_states_mse(student[0], teacher[0], MASK, **options)
        relations = losses.attention_relations(student, teacher, MASK, num_relation_heads=2, **options)
        values = [distances, relations, losses.mean_by_text(distances * relations, MASK, **options)]
        return values + list(torch.autograd.grad(values[-1].sum(), student))

    for by_places, by_mask in zip(found(real_tokens=real_tokens), found(), strict=True):
        assert torch.equal(by_places, by_mask)


def test_mean_by_text_counts_every_text_alike():
    values = randn(9).requires_grad_()
    found = losses.mean_by_text(values, MASK)
    expected = torch.stack([values[:3].mean(), values[3:5].mean(), values[5:].mean()])
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([1 / 3] * 3 + [1 / 2] * 2 + [1 / 4] * 4).double())
    assert losses.mean_by_text(randn(0), torch.zeros(2, 3)).tolist() == [0, 0]
    with pytest.raises(InputError, match=r"shape \(9,\), one per real token, got \(8,\)"):
        losses.mean_by_text(values[:8], MASK)


# From models


def tiny(kind, *, embeds=False, cls=None, **changes):
    cls = type(small_tokenizers.tiny(kind).transformer.base_model) if embeds else cls
    made = small_tokenizers.tiny(kind, cls=cls, **changes)
    with models.seeded(1):
        for parameter in made.model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return dataclasses.replace(made, model=Embedder(made.model).eval()) if embeds else made


def inputs_of(model, count=5):
    rows = data.Split("train", TEXTS, TEXTS).tokenize(model.tokenizer, max_length=model.max_length).tokens
    return batches.pad(rows, np.arange(count))


@pytest.mark.parametrize("embeds", [False, True], ids=["classifier", "embedder"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_watched_heads_are_the_projections_of_what_the_layer_before_gave(kind, embeds):
    """Of the last layer, which would leave out most of them where the head reads the first token alone."""
    model = tiny(kind, embeds=embeds)
    network, inputs = FP32.place(model.model), inputs_of(model)
    family, last = models.encoder_family(network), models.layer_of(network, -1)
    with torch.no_grad(), models.watch_heads(network, -1) as seen:
        network(**inputs)
    with torch.no_grad(), models.watch_states(network, [0, -1]) as states:
        network(**inputs)
    before = last.attn_norm(states[0]) if kind == "ModernBERT" else states[0]
    made = [last.get_submodule(name)(before) for name in family.into_heads]
    assert states[1].shape == (*inputs["input_ids"].shape, 16)
    expected = [p for part in made for p in part.split(16, dim=-1)]
    assert len(seen) == len(expected) == 3
    for found, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, wanted.detach())
    assert not any(m._forward_hooks for m in last.modules())


@pytest.mark.parametrize("kind", ENCODERS)
def test_watched_states_are_the_hidden_states_of_transformers(kind):
    model = tiny(kind)
    with torch.no_grad(), models.watch_states(model.model, [0, 1]) as seen:
        wanted = model.model(**inputs_of(model), output_hidden_states=True).hidden_states
    torch.testing.assert_close(seen[0], wanted[1])
    last = model.model.model.final_norm(seen[1]) if kind == "ModernBERT" else seen[1]
    torch.testing.assert_close(last, wanted[2])


def test_watched_is_the_last_pass_and_a_failed_one_leaves_no_hook():
    model = tiny("DeBERTa-v3")
    with torch.no_grad(), models.watch_heads(model.model, 0) as seen:
        model.model(**inputs_of(model, 2))
        model.model(**inputs_of(model, 5))
    assert [len(part) for part in seen] == [5, 5, 5]
    with pytest.raises(ZeroDivisionError), models.watch_heads(model.model, 0):
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())
    with pytest.raises(InputError, match="layer must be from -2 to 1, got 2"), models.watch_states(model.model, [2]):
        pass


# The same tokens


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_teacher_reads_the_tokens_of_a_trimmed_student(kind):
    teacher = tiny(kind)
    student = students.trim_vocabulary(teacher, TEXTS)
    ids = data.same_tokens(student.tokenizer, teacher.tokenizer)
    own, theirs = inputs_of(student)["input_ids"], inputs_of(teacher)["input_ids"]
    assert not torch.equal(own, theirs)
    assert torch.equal(torch.from_numpy(ids)[own], theirs)
    same = data.same_tokens(teacher.tokenizer, teacher.tokenizer)
    np.testing.assert_array_equal(same, np.arange(len(teacher.tokenizer)))


@pytest.mark.parametrize(
    ("student", "teacher", "found"),
    [
        ("BERT", "RoBERTa", "the student's '.*' is none of them"),
        ("XLM-R", "DeBERTa-v3", "the student's '.*' is none of them"),
        ("BERT", "words with ends", "the student's '.*' is none of them"),
    ],
)
def test_two_tokenisations_are_refused_with_what_to_do(student, teacher, found):
    one, two = (small_tokenizers.parts(kind)[0] for kind in (student, teacher))
    with pytest.raises(InputError, match=rf"{found}: make the student of the teacher \(keep_layers.* \(soft_targets\)"):
        data.same_tokens(one, two)
    with pytest.raises(InputError, match="one by one should have the teacher's tokens"):
        teachers.HiddenStatesLoss(cross_entropy, tiny(student), tiny(teacher), weight=1.0, compute=FP32)


def test_equal_tokens_that_are_cut_by_other_rules_are_refused():
    whole = small_tokenizers.parts("BERT")[0]
    cased = type(whole)(vocab=whole.get_vocab(), do_lower_case=False)
    with pytest.raises(InputError, match="but they cut words by other rules"):
        data.same_tokens(cased, whole)


# As losses


def narrow_student(teacher):
    """Fewer layers, tokens, heads and dimensions than the teacher."""
    student = students.trim_vocabulary(students.keep_layers(teacher, 1), small_texts())
    return students.narrow(student, students.measure_importance(student, TEXTS, compute=FP32), hidden_size=8)


def small_texts():
    return split(small_tokenizers.parts("BERT")[0], 12).texts


def loss_of(which, student, teacher, *, beside=cross_entropy, **options):
    options = {"weight": 3.0, "compute": FP32, **options}
    if which == "hidden_states":
        return teachers.HiddenStatesLoss(beside, student, teacher, **options)
    return teachers.AttentionRelationsLoss(beside, student, teacher, **{"num_relation_heads": 4, **options})


@pytest.mark.parametrize("which", ["hidden_states", "attention_relations"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_loss_is_that_beside_it_plus_the_weighted_mean_over_tokens(kind, which):
    teacher = tiny(kind)
    student = narrow_student(teacher)
    rows = split(student.tokenizer, 6)
    batch = batches.collate(rows, np.arange(6))
    loss = loss_of(which, student, teacher)
    found = loss(FP32.place(student.model), batch)
    assert found.shape == (6,)
    found.sum().backward()
    plain_student, plain_teacher = student.copy(), teacher
    expected, cut = cross_entropy(plain_student.model, batch), {"truncation": True, "max_length": 32}
    for text in range(6):
        alone, theirs = (
            {"input_ids": model.tokenizer(rows.texts[text], return_tensors="pt", **cut)["input_ids"]}
            for model in (plain_student, plain_teacher)
        )
        with torch.no_grad():
            if which == "hidden_states":
                with models.watch_states(plain_student.model, [0]) as own:
                    plain_student.model(**alone)
                with models.watch_states(plain_teacher.model, [1]) as aim:
                    plain_teacher.model(**theirs)
                extra = (loss.projection(own[0]) - aim[0]).square().mean()
            else:
                with models.watch_heads(plain_student.model, 0) as own:
                    plain_student.model(**alone)
                with models.watch_heads(plain_teacher.model, 1) as aim:
                    plain_teacher.model(**theirs)
                whole = torch.ones_like(alone["input_ids"])
                extra = losses.attention_relations(own, aim, whole, num_relation_heads=4).mean()
        assert extra > 1e-5
        torch.testing.assert_close(found[text].detach(), expected[text].detach() + 3.0 * extra, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["hidden_states", "attention_relations"])
def test_beside_a_loss_of_words_each_word_gets_the_mean_over_all_tokens_of_its_text(which):
    teacher = tiny("BERT", cls=transformers.BertForTokenClassification)
    student = students.trim_vocabulary(students.keep_layers(teacher, 1), TEXTS)
    counts = [len(text.split()) for text in TEXTS[:6]]
    tags = Ragged.of([[place % 3 for place in range(count)] for count in counts], np.int64)
    rows = data.Split("train", TEXTS[:6], TEXTS[:6], tags).tokenize(student.tokenizer, max_length=64)
    batch, bare = (batches.collate(r, np.arange(6)) for r in (rows, dataclasses.replace(rows, labels=None)))
    assert (batch.is_of_words, bare.is_of_words) == (True, False)
    assert len(batch.targets) == sum(counts) < batch.num_tokens - 2 * 6  # words of several tokens

    def of_words(model, batch):
        return tasks.WORDS.hard_loss(tasks.WORDS.logits(model, batch), batch.labels)

    def nothing(model, batch):
        return 0 * model(**batch.inputs).logits.sum((1, 2))

    loss = loss_of(which, student, teacher, beside=of_words)
    found = loss(student.model, batch)
    means = loss_of(which, student, teacher, beside=nothing)(student.model, bare)
    assert means.min() > 1e-4
    torch.testing.assert_close(found, of_words(student.model, batch) + means.repeat_interleave(torch.tensor(counts)))
    torch.testing.assert_close(torch.cat([loss(student.model, part) for part in batch.split(2)]), found)
    with pytest.raises(InputError, match=rf"one value for each of {sum(counts)} words, got shape \(6,\): choose one"):
        loss_of(which, student, teacher, beside=nothing)(student.model, batch)


def test_the_teacher_that_runs_along_is_in_evaluation_mode_and_without_gradients():
    teacher = tiny("BERT")
    teacher.model.train().requires_grad_(True)
    loss = loss_of("attention_relations", students.keep_layers(teacher, 1), teacher)
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not list(loss.parameters())


def test_a_teacher_of_the_loss_beside_is_still_refused_in_training_mode():
    teacher, other = tiny("BERT"), tiny("BERT")
    student = students.keep_layers(teacher, 1)
    other.model.train()

    def soft(model, batch):
        aims = other.model(**batch.inputs).logits
        return losses.kl_divergence(model(**batch.inputs).logits, aims, temperature=2.0)

    loss = teachers.HiddenStatesLoss(soft, student, teacher, weight=1.0, compute=FP32)
    config = TrainConfig(max_steps=1, batch_size=4)
    with pytest.raises(InputError, match="the model 'other' in the loss function should be in evaluation mode"):
        training.fit(student, split(student.tokenizer, 6), loss, config, compute=FP32)


def test_hidden_states_of_a_student_with_all_layers_are_no_loss():
    teacher = tiny("BERT")
    batch = batches.collate(split(teacher.tokenizer, 6), np.arange(6))
    for which in ("hidden_states", "attention_relations"):
        loss = loss_of(which, teacher.copy(), teacher)
        assert not list(loss.parameters())
        student = teacher.copy().model
        torch.testing.assert_close(loss(student, batch), cross_entropy(student, batch))


@pytest.mark.parametrize(
    ("num_layers", "num_teacher_layers", "pairs"),
    [
        (3, 6, [(0, 1), (1, 3), (2, 5)]),
        (2, 6, [(0, 2), (1, 5)]),
        (1, 2, [(0, 1)]),
        (4, 6, [(0, 1), (1, 2), (2, 4), (3, 5)]),
        (2, 2, [(0, 0), (1, 1)]),
    ],
)
def test_layers_are_paired_by_depth(num_layers, num_teacher_layers, pairs):
    teacher = tiny("BERT", num_hidden_layers=num_teacher_layers)
    loss = loss_of("hidden_states", students.keep_layers(teacher, num_layers), teacher)
    assert loss.layers == pairs


@pytest.mark.parametrize("which", ["hidden_states", "attention_relations"])
def test_a_killed_training_goes_on_with_the_same_bits_and_the_projection_is_not_saved(which, tmp_path):
    teacher = tiny("BERT")
    base = narrow_student(teacher)
    train = split(base.tokenizer, 12)
    config = TrainConfig(max_steps=4, batch_size=4, checkpoint_steps=1, learning_rate=1e-2)

    def fit(loss, **context):
        return training.fit(base.copy(), train, loss, config, compute=FP32, context=Context(**context))

    first, second = loss_of(which, base, teacher), loss_of(which, base, teacher)
    expected = fit(first)
    with pytest.raises(RunInterruptedError):
        fit(loss_of(which, base, teacher), folder=tmp_path, should_stop=iter([False, False, True]).__next__)
    events = Events()
    resumed = fit(second, folder=tmp_path, event=events)
    assert "resume" in events.kinds
    assert_same_bits(weights(resumed), weights(expected))
    assert_same_bits(dict(second.state_dict()), dict(first.state_dict()))
    if which == "hidden_states":
        initial = loss_of(which, base, teacher).projection.weight
        assert (first.projection.weight - initial).abs().min() > 0
    resumed.save(tmp_path / "model")
    assert not any("projection" in name for name in models.TextModel.load(tmp_path / "model").model.state_dict())
    assert_same_bits(weights(teacher), weights(tiny("BERT")))


@pytest.mark.parametrize("which", ["hidden_states", "attention_relations"])
def test_training_brings_the_inside_nearer_to_the_teachers(which):
    teacher = tiny("RoBERTa")
    base = students.fresh(teacher, num_layers=2, hidden_size=8, num_heads=2)
    train = split(base.tokenizer, 12)

    def zero(model, batch):
        return 0.0 * model(**batch.inputs).logits.sum(1)

    loss = loss_of(which, base, teacher)
    loss.loss_fn = zero
    batch = batches.collate(train, np.arange(12))
    before = loss(base.model, batch).mean().item()
    config = TrainConfig(max_steps=30, batch_size=12, learning_rate=1e-2)
    trained = training.fit(base.copy(), train, loss, config, compute=FP32)
    assert loss(trained.model, batch).mean().item() < 0.8 * before


def test_a_loss_beside_an_embedders_own():
    teacher = tiny("MPNet", embeds=True)
    student = students.keep_layers(teacher, 1)
    batch = batches.collate(split(student.tokenizer, 6), np.arange(6))

    def own(model, batch):
        return model(**batch.inputs).square().sum(1)

    for make in (teachers.HiddenStatesLoss, teachers.AttentionRelationsLoss):
        options = {} if make is teachers.HiddenStatesLoss else {"num_relation_heads": 2}
        values = make(own, student, teacher, weight=1.0, compute=FP32, **options)(student.model, batch)
        assert (values > 1.0).all()


@pytest.mark.parametrize(
    ("which", "options", "message"),
    [
        ("hidden_states", {"weight": -1.0}, "weight must be >= 0, got -1.0"),
        ("attention_relations", {"weight": NAN}, "weight must be >= 0, got nan"),
        ("hidden_states", {"layers": [(0, 2)]}, "layer must be from -2 to 1, got 2"),
        ("attention_relations", {"layers": (1, 0)}, "layer must be from -1 to 0, got 1"),
        ("attention_relations", {"num_relation_heads": 3}, "must be a divisor of both widths, 8 and 16, got 3"),
    ],
)
def test_losses_refuse_settings_before_anything_is_trained(which, options, message):
    teacher = tiny("BERT")
    with pytest.raises(InputError, match=message):
        loss_of(which, narrow_student(teacher), teacher, **options)


def test_a_loss_beside_that_is_not_of_texts_is_refused():
    teacher = tiny("BERT")
    batch = batches.collate(split(teacher.tokenizer, 6), np.arange(6))
    loss = loss_of("hidden_states", teacher.copy(), teacher)
    loss.loss_fn = lambda model, batch: model(**batch.inputs).logits.flatten()
    with pytest.raises(InputError, match=r"one value for each of 6 texts, got shape \(18,\)"):
        loss(teacher.copy().model, batch)
