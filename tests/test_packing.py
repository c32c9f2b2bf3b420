"""Several examples in a row: places, losses and gradients of each family, training, and who chooses."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import transformers as t
from small_data import FP32, Events
from test_language_models import SMALL, each_family, network

from smallmodels import data, losses, models, teachers, training
from smallmodels.data import batches, packing
from smallmodels.data.splits import Split, Tokens
from smallmodels.errors import InputError, RunInterruptedError
from smallmodels.models import TextModel
from smallmodels.models import compute as choosing
from smallmodels.models.language_model import LanguageModel, keeps_texts_apart
from smallmodels.phases import Context
from smallmodels.teachers.signals import Packing

LENGTHS = (7, 3, 12, 5, 1, 4)
PACKED = dataclasses.replace(FP32, layout="packed")
TEXTS = [f"the cat {i}" + " sat on the mat" * (i % 6) for i in range(24)]


def batch_of(lengths, *, targets=None, seed=0, **more):
    """A batch of random tokens; all but the first of each example are targets."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if targets is None:
        targets = np.ones(offsets[-1], dtype=bool)
        targets[offsets[:-1]] = False
    ids = generator.integers(5, 60, offsets[-1]).astype(np.int32)
    names = [f"train/{i}" for i in range(len(lengths))]
    rows = Split("train", names, names, tokens=Tokens(ids, offsets, 1, 64, targets=targets), **more)
    return batches.collate(rows, np.arange(len(lengths)))


def examples_of(batch):
    """Tokens, targets and positions of each example of packed rows, in the order in which they lie there."""
    found = []
    for row, positions in enumerate(batch.inputs["position_ids"].tolist()):
        starts = [place for place, position in enumerate(positions) if position == 0]
        for start, end in itertools.pairwise([*starts, len(positions)]):
            place = row, slice(start, end)
            assert positions[start:end] == list(range(end - start))
            found.append((batch.inputs["input_ids"][place], batch.is_target[place]))
    return found


# Places


@pytest.mark.parametrize("seed", range(5))
def test_first_fit_decreasing_gives_each_token_a_place_of_its_own(seed):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 50, generator.integers(1, 40))
    places = packing.Places.of(lengths)
    assert len(set(zip(places.rows, places.columns, strict=True))) == lengths.sum()
    assert places.columns.max() < lengths.max()
    fewest = -(-lengths.sum() // lengths.max())
    assert fewest <= places.rows.max() + 1 <= 11 / 9 * fewest + 2
    assert sorted(places.order) == list(range(len(lengths)))
    assert packing.saves_rows(lengths) == (places.rows.max() + 1 < len(lengths))


def test_first_fit_decreasing_puts_the_longest_first_into_the_first_row_with_room():
    rows, starts = packing.first_fit_decreasing(np.array(LENGTHS))
    assert rows.tolist() == [1, 2, 0, 1, 2, 2]
    assert starts.tolist() == [0, 4, 0, 7, 7, 0]


def test_packed_rows_hold_each_example_with_positions_of_its_own():
    labels, teacher = np.arange(6) * 10, np.arange(12, dtype=np.float32).reshape(6, 2)
    batch = batch_of(LENGTHS, labels=labels, teacher=teacher)
    packed = batch.packed()
    assert packed.ids == [f"train/{i}" for i in (2, 0, 3, 5, 1, 4)]
    assert packed.lengths.tolist() == [12, 7, 5, 4, 3, 1]
    assert packed.labels.tolist() == [20, 0, 30, 50, 10, 40]
    assert packed.teacher.tolist() == teacher[[2, 0, 3, 5, 1, 4]].tolist()
    assert (packed.num_tokens, packed.num_processed_tokens) == (32, 36)
    assert batch.num_processed_tokens == 72
    parts = examples_of(packed)
    assert len(parts) == 7  # the last one is what fills the row up
    for name, (ids, is_target) in zip(packed.ids, parts, strict=False):
        row = int(name.removeprefix("train/"))
        assert torch.equal(ids, batch.inputs["input_ids"][row, : LENGTHS[row]])
        assert torch.equal(is_target, batch.is_target[row, : LENGTHS[row]])
    assert not parts[-1][1].any()


def test_first_token_of_an_example_is_no_target_even_if_it_is_marked():
    packed = batch_of(LENGTHS, targets=np.ones(sum(LENGTHS), dtype=bool)).packed()
    assert [int(is_target.sum()) for _, is_target in examples_of(packed)] == [11, 6, 4, 3, 2, 0, 0]
    assert torch.equal(packed.targets, packed.is_target.flatten().nonzero().flatten())
    with pytest.raises(KeyError, match="attention_mask"):  # says that the loss reads a row as one example
        _ = packed.real_tokens


def test_batch_in_which_no_row_is_saved_stays_as_it_is():
    for lengths in ((5, 4, 4), (3,), (1,)):
        batch = batch_of(lengths)
        assert batch.packed() is batch


def test_word_of_the_teacher_goes_with_its_target(tmp_path):
    teacher, rows = language_model()
    packing_of_bytes = Packing(5, (), models.vocabulary_size(teacher))
    signals = teachers.store_token_signals(teacher, rows, packing=packing_of_bytes, compute=FP32, cache=tmp_path)
    batch = batches.collate(rows.with_signals(signals), np.arange(24))
    packed = batch.packed()
    assert packed.is_packed
    told = packed.teacher_top_k
    assert len(told) == int(packed.is_target.sum())
    expected = torch.cat([signals.rows_for(rows).batch(np.array([rows.ids.index(name)])).ids for name in packed.ids])
    assert torch.equal(told.ids, expected)
    assert not torch.equal(told.ids, batch.teacher_top_k.ids)


# Families


def losses_of(model, batch):
    states, labels = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
    return losses.cross_entropy(model.output_layer(states), labels)


def losses_by_example(model, batch):
    """Of each example, by its name."""
    counts = [length - 1 for length in batch.lengths.tolist()]
    return dict(zip(batch.ids, losses_of(model, batch).split(counts), strict=True))


@each_family
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_losses_and_gradients_of_packed_rows_are_those_of_padded_ones(family, attention):
    batch, found = batch_of(LENGTHS), []
    for layout in (batch, batch.packed()):
        model = network(family)
        dataclasses.replace(FP32, attention=attention).place(model)
        values = losses_by_example(model, layout)
        sum(value.sum() for value in values.values()).backward()
        found.append((values, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (padded, expected), (packed, gradients) = found
    for name, value in padded.items():
        torch.testing.assert_close(packed[name], value, rtol=1e-4, atol=1e-4)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-4, name


@each_family
def test_no_bit_of_an_example_depends_on_another_one_in_its_row(family):
    model, packed = network(family), batch_of(LENGTHS).packed()
    changed = {name: tensor.clone() for name, tensor in packed.inputs.items()}
    changed["input_ids"][1, :7] = changed["input_ids"][1, :7] % 50 + 6  # the first example of the second row
    other = dataclasses.replace(packed, inputs=changed)
    with torch.no_grad():
        before, after = losses_by_example(model, packed), losses_by_example(model, other)
    assert [name for name in packed.ids if not torch.equal(before[name], after[name])] == ["train/0"]
    for leaking in (packed, other):
        del leaking.inputs["position_ids"]  # as a model that reads none would have it
    with torch.no_grad():
        before, after = losses_by_example(model, packed), losses_by_example(model, other)
    assert not torch.equal(before["train/3"], after["train/3"])


@each_family
def test_these_families_keep_texts_apart(family):
    assert keeps_texts_apart(network(family))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(t.BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4), id="reads no positions"),
        pytest.param(t.MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2), id="carries a state"),
    ],
)
def test_a_family_that_mixes_the_texts_of_a_row_is_known_by_what_it_does(config):
    with models.seeded(0):
        made = t.AutoModelForCausalLM.from_config(config)
    assert not keeps_texts_apart(LanguageModel(made))


def test_a_small_leak_of_an_untrained_model_is_seen():
    with models.seeded(0):
        made = t.BloomForCausalLM(t.BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4))
    for block in made.transformer.h:
        block.self_attention.dense.weight.data.mul_(1e-3)
    assert not keeps_texts_apart(LanguageModel(made))


# Training


def language_model():
    tokenizer = models.new_tokenizer(TEXTS, vocabulary_size=270)
    model = models.new_language_model(tokenizer, hidden_size=16, num_layers=2, num_heads=2, max_length=64)
    rows = data.cut_into_rows(
        Split("train", [f"train/{i}" for i in range(len(TEXTS))], TEXTS), tokenizer, max_length=64
    )
    return model, rows


@pytest.fixture(scope="module")
def model_and_rows():
    return language_model()


CONFIG = training.TrainConfig(learning_rate=1e-2, max_steps=6, batch_size=12, checkpoint_steps=2)


def fit(model, rows, compute, loss_fn=losses_of, **options):
    """The trained model, and what was processed."""
    context = options.pop("context", None) or Context()
    trained = training.fit(model.copy(), rows, loss_fn, CONFIG, compute=compute, context=context)
    return trained, context.counts


def assert_close(one, two, **limits):
    for (name, found), expected in zip(one.model.state_dict().items(), two.model.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, msg=name, **limits)


@pytest.mark.parametrize("tokens_per_pass", [200, 4096])
def test_training_on_packed_rows_gives_the_same_weights_with_fewer_tokens_processed(model_and_rows, tokens_per_pass):
    options, model = {"tokens_per_pass": tokens_per_pass}, model_and_rows[0]
    padded, before = fit(*model_and_rows, dataclasses.replace(FP32, **options))
    packed, after = fit(*model_and_rows, dataclasses.replace(PACKED, **options))
    assert_close(packed, padded, rtol=1e-3, atol=1e-4)
    weights = (fitted.model.transformer.model.layers[0].mlp.up_proj.weight for fitted in (padded, model))
    assert not torch.allclose(*weights, atol=0.01)
    assert after.num_processed_tokens < before.num_processed_tokens
    assert (after.num_tokens, after.num_examples) == (before.num_tokens, before.num_examples)
    assert after.num_operations == pytest.approx(before.num_operations)
    assert packed.notes["training"]["examples_sha256"] == padded.notes["training"]["examples_sha256"]


def test_passes_of_packed_rows_are_filled_with_real_tokens(model_and_rows):
    def num_passes(compute):
        passes = []

        def watched(model, batch):
            passes.append(batch.num_tokens if torch.is_grad_enabled() else None)
            return losses_of(model, batch)

        fit(*model_and_rows, dataclasses.replace(compute, tokens_per_pass=160), watched)
        return sum(tokens is not None for tokens in passes)

    assert num_passes(PACKED) < num_passes(FP32)


def test_packed_training_that_is_resumed_has_the_same_bits(model_and_rows, tmp_path):
    expected, _ = fit(*model_and_rows, PACKED)
    asked = itertools.count()
    with pytest.raises(RunInterruptedError):
        fit(*model_and_rows, PACKED, context=Context(folder=tmp_path, should_stop=lambda: next(asked) == 2))
    again, _ = fit(*model_and_rows, PACKED, context=Context(folder=tmp_path))
    assert_close(again, expected, rtol=0, atol=0)


def mean_of_rows(model, batch):
    """One value for each row."""
    states = model(**batch.inputs)
    return torch.stack([states[row, chosen].square().mean() for row, chosen in enumerate(batch.is_target)])


def sum_under_the_mask(model, batch):
    states, mask = model(**batch.inputs), batch.inputs["attention_mask"]
    return (states * mask[..., None]).square().mean((1, 2))


@pytest.mark.parametrize("loss_fn", [mean_of_rows, sum_under_the_mask])
def test_a_loss_that_reads_a_row_as_an_example_gets_padded_rows_and_it_is_said(model_and_rows, loss_fn):
    events = Events()
    packed, after = fit(*model_and_rows, PACKED, loss_fn, context=Context(event=events))
    padded, before = fit(*model_and_rows, FP32, loss_fn)
    assert_close(packed, padded, rtol=0, atol=0)
    assert after.num_processed_tokens == before.num_processed_tokens
    assert [kind for kind, _, _ in events.rows] == ["not packed"]


# Choosing


def encoder():
    config = t.BertConfig(**SMALL, intermediate_size=48, num_labels=3, pad_token_id=0)
    return TextModel(t.BertForSequenceClassification(config), language_model()[0].tokenizer)


@pytest.mark.parametrize(("packed_s", "layout"), [(0.9, "packed"), (0.99, "padded"), (float("inf"), "padded")])
def test_packed_rows_are_chosen_where_they_are_faster(packed_s, layout):
    found = choosing.fastest(
        dataclasses.replace(FP32, tokens_per_pass=1024),
        ("eager", "sdpa"),
        (512, 1024),
        lambda compute: packed_s if compute.layout == "packed" else 1.0,
        packing.LAYOUTS,
    )
    assert found.layout == layout


def test_choice_is_measured_for_language_models_and_written_down(model_and_rows, monkeypatch):
    model, rows = model_and_rows
    seen, original = [], choosing._Passes.__call__

    def timed(passes, compute):
        seen.append(compute.layout)
        return original(passes, compute) * (0.01 if compute.layout == "packed" else 1)

    monkeypatch.setattr(choosing._Passes, "__call__", timed)
    compute = models.choose_compute("cpu", "fp32", model=model, tokens=rows.tokens)
    assert set(seen) == {"padded", "packed"}
    assert compute.layout == "packed"
    assert models.describe(model, compute)["layout"] == "packed"
    given = {**compute.choices, "device": "cpu"}
    monkeypatch.setattr(choosing, "fastest", None)  # a repeat measures nothing
    assert models.choose_compute(**given, model=model, tokens=rows.tokens).choices == compute.choices


def test_time_of_packed_rows_is_infinite_where_nothing_can_be_packed(model_and_rows):
    model, rows = model_and_rows
    same = rows.take(np.flatnonzero(rows.tokens.lengths == rows.tokens.lengths.max()))
    assert choosing._Passes(model, same.tokens)(PACKED) == float("inf")
    assert choosing._Passes(model, rows.tokens)(PACKED) < float("inf")


def test_encoders_are_never_packed(model_and_rows, monkeypatch):
    tokens, model = model_and_rows[1].tokens, encoder()
    seen = []
    monkeypatch.setattr(choosing, "fastest", lambda compute, *options: seen.append(options[-1]) or compute)
    assert models.choose_compute("cpu", "fp32", model=model, tokens=tokens).layout == "padded"
    assert seen == [("padded",)]
    for asked in (
        lambda: models.choose_compute("cpu", "fp32", layout="packed", model=model, tokens=tokens),
        lambda: training.fit(model, model_and_rows[1], losses_of, CONFIG, compute=PACKED),
    ):
        with pytest.raises(
            InputError, match=r"packed needs a language model .* Bert does not: choose the layout padded"
        ):
            asked()


def test_unknown_layout_is_refused():
    with pytest.raises(InputError, match="must be auto, padded or packed, got flat"):
        models.choose_compute("cpu", "fp32", layout="flat")
