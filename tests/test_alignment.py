"""Targets of two tokenizers that come after the same text, and what a student learns from a teacher at these places."""

import itertools

import numpy as np
import pytest
import small_tokenizers
import torch
from small_data import FP32, Events

from smallmodels import data, losses, models, teachers, training
from smallmodels.data import alignment, batches
from smallmodels.data.splits import Split
from smallmodels.errors import InputError
from smallmodels.phases import Context
from smallmodels.teachers import Packing

TEXTS = [
    *(f"the cat number {i} sat on mat {i * 7 % 23} and saw {'birds ' * (i % 5)}" for i in range(12)),
    "über 你好 \U0001f600 x",
    "",
    "  two  spaces\n\n",
]


def split_of(texts, name="train"):
    return Split(name, [f"{name}/{i}" for i in range(len(texts))], texts)


@pytest.fixture(scope="module")
def one():
    return models.new_tokenizer(TEXTS, vocabulary_size=290)


@pytest.fixture(scope="module")
def other():
    return models.new_tokenizer([text.replace("at", "a t") for text in TEXTS], vocabulary_size=270)


# Which belongs to which


def test_match_gives_the_last_equal_place_and_nothing_for_what_is_not_there():
    wanted, given = np.array([5, -1, 2, 9, 0, 2]), np.array([-1, 0, 2, 2, 7, 5])
    assert alignment.match(wanted, given).tolist() == [5, -1, 3, -1, 1, 3]
    assert alignment.match(wanted, np.array([], dtype=np.int64)).tolist() == [-1] * 6
    assert alignment.match(np.array([], dtype=np.int64), given).tolist() == []


@pytest.mark.parametrize(
    ("spans", "num_before", "num_after", "expected"),
    [
        ([(0, 3), (3, 7)], 1, 1, [0, 3, 7]),
        ([(0, 3), (3, 7)], 0, 1, [3, 7]),
        ([(0, 3), (3, 7)], 1, 0, [0, 3]),
        ([(0, 1), (0, 1), (0, 1), (1, 2)], 1, 1, [0, -1, -1, 1, 2]),  # three bytes of one character
        ([(0, 3), (4, 5), (4, 7)], 1, 1, [0, 3, -1, 7]),  # the mark of a word, and the word
        ([], 1, 1, [0]),
        ([], 0, 1, []),
        ([], 0, 0, []),
    ],
)
def test_characters_read_before_each_target(spans, num_before, num_after, expected):
    found = alignment.characters_read(np.array(spans, dtype=np.int64).reshape(-1, 2), num_before, num_after)
    assert found.tolist() == expected


def prefixes(tokenizer, text):
    """Slowly: the bytes before each target of a byte-level tokenizer, the end of the text before it included."""
    pieces = [tokenizer.convert_ids_to_tokens(i) for i in tokenizer(text)["input_ids"]]
    lengths = [len(piece) for piece in pieces]  # a letter of a byte-level piece is one byte
    return list(itertools.accumulate([0, *lengths]))


def slow_pairs(student, teacher, texts):
    places, start = [], 0
    for text in texts:
        given = prefixes(teacher, text)
        whole = {len(text[:i].encode()) for i in range(len(text) + 1)}
        places += [start + given.index(n) if n in given and n in whole else -1 for n in prefixes(student, text)]
        start += len(given)
    return places


def test_pairs_are_those_of_the_slow_reference(one, other):
    events = Events()
    found = data.pair_targets(split_of(TEXTS), one, other, context=Context(event=events))
    assert found.tolist() == slow_pairs(one, other, TEXTS)
    assert -1 in found
    assert len(found) == int(data.cut_into_rows(split_of(TEXTS), one, max_length=9).tokens.targets.sum())
    assert events.rows[0][2] == {"num_pairs": int((found >= 0).sum()), "num_targets": len(found)}


def test_tokenizer_is_in_step_with_itself_but_within_characters(one):
    found = data.pair_targets(split_of(TEXTS), one, one)
    assert all(place in (i, -1) for i, place in enumerate(found))
    plain = data.pair_targets(split_of(TEXTS[:12]), one, one)
    assert plain.tolist() == list(range(len(plain)))


def read_before_targets(tokenizer, texts):
    """Number of the text and what a tokenizer itself makes of the tokens before each target; one space for several."""
    tokens = data.cut_into_rows(split_of(texts), tokenizer, max_length=200).tokens
    return [
        (number, " ".join(tokenizer.decode(tokens.ids[begin : begin + i], skip_special_tokens=True).split()))
        for number, (begin, length) in enumerate(zip(tokens.offsets[:-1], tokens.lengths, strict=True))
        for i in range(1, length)
    ]


@pytest.mark.parametrize(
    "make", ["llama_2_tokenizer", "llama_3_tokenizer", "roberta_tokenizer", "xlm_roberta_tokenizer"]
)
def test_tokenizers_of_all_kinds_pair_targets_that_have_read_the_same(make, one):
    teacher = getattr(small_tokenizers, make)()
    texts = ["i want to know how my card works", "the bank lost  it", "my übercat"]
    if make == "xlm_roberta_tokenizer":
        texts.pop()  # to which an ü is unknown, so that decoding leaves it out
    places = data.pair_targets(split_of(texts), one, teacher)
    read = [read_before_targets(tokenizer, texts) for tokenizer in (one, teacher)]
    pairs = [(i, place) for i, place in enumerate(places) if place >= 0]
    assert len(pairs) >= 8
    for i, place in pairs:
        assert read[0][i] == read[1][place]


def test_tokenizer_that_does_not_say_what_its_tokens_stand_for_is_refused(one):
    class Plain:
        bos_token_id = eos_token_id = None

        def __call__(self, *_, **__):
            return {"input_ids": []}

    with pytest.raises(InputError, match="which characters a token stands for"):
        data.pair_targets(split_of(TEXTS), one, Plain())


# What a teacher says at these places


def small(tokenizer, seed):
    made = models.new_language_model(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=12, seed=seed)
    with torch.no_grad():
        made.model.transformer.model.embed_tokens.weight.mul_(20)  # random weights hold all tokens for equally likely
    return made


@pytest.fixture
def told(one, other, tmp_path):
    """A student's rows with the word of a teacher whose whole vocabulary was stored, that teacher and its rows."""
    split, teacher = split_of(TEXTS), small(other, 1)
    rows = data.cut_into_rows(split, one, max_length=9)
    teacher_rows = data.cut_into_rows(split, other, max_length=12)
    packing = Packing(len(other), (), len(other))
    signals = teachers.store_token_signals(teacher, teacher_rows, packing=packing, compute=FP32, cache=tmp_path)
    places = data.pair_targets(split, one, other)
    return rows, teachers.PairedSignals(signals, places, rows), signals.rows_for(teacher_rows), teacher_rows


def test_paired_signal_is_the_teachers_word_on_the_same_text_and_none_elsewhere(told):
    rows, paired, teachers_word, teacher_rows = told
    everything = teachers_word.batch(np.arange(len(teacher_rows)))
    chosen = np.array([7, 2, 30])
    found = batches.collate(rows.with_signals(paired), chosen).teacher_top_k
    starts = np.concatenate([[0], rows.tokens.targets.cumsum()])[rows.tokens.offsets]
    places = np.concatenate([paired.places[starts[i] : starts[i + 1]] for i in chosen])
    assert found.is_told.tolist() == (places >= 0).tolist()
    for i, place in enumerate(places):
        if place >= 0:
            assert torch.equal(found.log_probs[i], everything.log_probs[place])
            assert torch.equal(found.tails[i], everything.tails[place])
    taken = batches.collate(rows.with_signals(paired).take(chosen), np.array([0, 1, 2])).teacher_top_k
    again = batches.collate(rows.take(chosen).with_signals(paired), np.array([0, 1, 2])).teacher_top_k
    few = rows.with_signals(paired)
    joined = batches.collate(few.take(chosen[:1]).join(few.take(chosen[1:])), np.array([0, 1, 2])).teacher_top_k
    for other_way in (taken, again, joined):
        assert torch.equal(other_way.log_probs, found.log_probs)
    with pytest.raises(InputError, match="pair the texts of these rows"):
        teachers.PairedSignals(paired.signals, paired.places[1:], rows)


def test_distance_to_a_paired_signal_is_that_of_the_plain_function(told):
    rows, paired, teachers_word, teacher_rows = told
    top = batches.collate(rows.with_signals(paired), np.arange(len(rows))).teacher_top_k
    logits = torch.randn(len(top), 290, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    found = losses.top_k_universal_logit_distance(logits, top)
    assert found[~top.is_told].abs().max() == 0
    everything = teachers_word.batch(np.arange(len(teacher_rows)))
    dense = torch.zeros(everything.ids.shape).scatter_(1, everything.ids, everything.log_probs.float())
    places = torch.from_numpy(paired.places.copy())
    expected = losses.universal_logit_distance(logits[top.is_told], dense[places[top.is_told]])
    torch.testing.assert_close(found[top.is_told], expected, rtol=1e-4, atol=1e-4)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert slope.isfinite().all()
    assert slope[~top.is_told].abs().max() == 0
    assert slope[top.is_told].abs().sum() > 0


def test_student_comes_nearer_to_a_teacher_that_cuts_texts_otherwise(told, one):
    rows, paired, _, _ = told
    student = models.new_language_model(one, hidden_size=16, num_layers=1, num_heads=2, max_length=12, seed=7)
    heard = rows.with_signals(paired)

    def distances(model, batch):
        states, _ = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        word = batch.teacher_top_k
        return losses.by_chunks(
            states,
            model.output_layer,
            lambda logits, chunk: losses.top_k_universal_logit_distance(logits, word[chunk]),
        )

    config = training.TrainConfig(learning_rate=2e-2, max_steps=40, batch_size=8)
    trained = training.fit(student.copy(), heard, distances, config, compute=FP32)
    everything = batches.collate(heard, np.arange(len(rows)))
    with torch.no_grad():
        before, after = (float(distances(model.model, everything).mean()) for model in (student, trained))
    assert after < 0.7 * before
