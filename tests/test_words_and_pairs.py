"""Splits with a label for each word, with several labels, with scores, and with pairs: tokens, batches, signals."""

import dataclasses

import numpy as np
import pytest
import small_tokenizers
import torch
import transformers
from small_data import FP32

from smallmodels import data, losses, models, teachers, training
from smallmodels.arrays import Ragged
from smallmodels.data import batches
from smallmodels.data.splits import Split, tokenize_words
from smallmodels.errors import InputError
from smallmodels.training import TrainConfig

TEXTS = ["Remove the folder", "it 's read-only , unbelievable", "x", "return a list of strings"]
TAGS = [[0, 0, 1], [0, 0, 2, 0, 1], [2], [0, 0, 1, 2, 2]]


def words_split(tokenizer, *, max_length=32, repeats=1):
    labels = Ragged.of(TAGS * repeats, np.int64)
    texts = TEXTS * repeats
    split = Split("train", [f"train/{i}" for i in range(len(texts))], texts, labels)
    return split.tokenize(tokenizer, max_length=max_length)


# Ragged rows


def test_ragged_rows_are_taken_and_joined():
    rows = Ragged.of([[1, 2], [], [3], [4, 5, 6]], np.int64)
    taken = rows.take(np.array([3, 0, 1]))
    assert [list(taken[i]) for i in range(len(taken))] == [[4, 5, 6], [1, 2], []]
    joined = rows.join(taken)
    assert len(joined) == 7
    assert list(joined[4]) == [4, 5, 6]
    assert list(rows.first(np.array([3, 0]), np.array([2, 1]))) == [4, 5, 1]
    assert list(rows.lengths) == [2, 0, 1, 3]


def test_ragged_rows_of_vectors_keep_their_width():
    rows = Ragged(np.arange(12.0).reshape(6, 2), np.array([0, 2, 3, 6]))
    assert rows.take(np.array([2, 0])).values.tolist() == [[6, 7], [8, 9], [10, 11], [0, 1], [2, 3]]


# Words


@pytest.mark.parametrize("name", [k for k in small_tokenizers.KINDS if not k.startswith("Llama")])
def test_each_word_begins_at_the_token_that_it_begins_with(name):
    tokenizer = small_tokenizers.tiny(name).tokenizer
    tokens = tokenize_words(TEXTS, tokenizer, max_length=64)
    for i, text in enumerate(TEXTS):
        span = slice(tokens.offsets[i], tokens.offsets[i + 1])
        ids, marks = tokens.ids[span], tokens.targets[span]
        assert marks.sum() == len(text.split())
        assert ids.tolist() == tokenizer(text)["input_ids"]
        begins = [*np.flatnonzero(marks).tolist(), len(ids)]
        for word, begin, end in zip(text.split(), begins, begins[1:], strict=False):
            spelled = tokenizer.decode(ids[begin:end].tolist(), skip_special_tokens=True)
            assert "".join(spelled.split()).lower().startswith(word.lower()[:3])


def test_words_that_leave_no_token_are_read_as_unknown():
    tokenizer = small_tokenizers.tiny("BERT").tokenizer
    tokens = tokenize_words(["remove \u200b the \x07 folder"], tokenizer, max_length=32)
    assert tokens.targets.sum() == 5
    begun = tokens.ids[tokens.targets]
    assert begun[1] == begun[3] == tokenizer.unk_token_id


def test_words_after_the_cut_have_no_target():
    split = words_split(small_tokenizers.tiny("BERT").tokenizer, max_length=4)
    assert split.tokens.lengths.max() == 4
    batch = batches.collate(split, np.arange(len(split)))
    assert batch.labels.shape == (int(batch.is_target.sum()),)
    assert batch.labels.tolist()[: int(batch.is_target[0].sum())] == TAGS[0][: int(batch.is_target[0].sum())]


def test_labels_of_words_follow_batches_that_are_split_and_cut():
    split = words_split(small_tokenizers.tiny("BERT").tokenizer)
    order = np.array([3, 0, 2, 1])
    batch = batches.collate(split, order)
    assert batch.labels.tolist() == [tag for i in order for tag in TAGS[i]]
    assert [part.labels.tolist() for part in batch.split(2)] == [TAGS[3] + TAGS[0], TAGS[2] + TAGS[1]]
    cut = batch.cut(3)
    assert cut.labels.shape == (int(cut.is_target.sum()),)


def test_a_fingerprint_knows_tags_and_second_texts():
    tokenizer = small_tokenizers.tiny("BERT").tokenizer
    split = words_split(tokenizer)
    other = dataclasses.replace(split, labels=Ragged.of([*TAGS[:3], [0, 0, 1, 2, 1]], np.int64))
    assert split.fingerprint() != other.fingerprint()
    pairs = Split("train", ["a"], ["one"], np.zeros(1, np.int64), seconds=["two"])
    assert pairs.fingerprint() != dataclasses.replace(pairs, seconds=["three"]).fingerprint()


# A token classifier: its teacher's word, and its training


def token_classifier(seed=0):
    with models.seeded(seed):
        return small_tokenizers.tiny("BERT", cls=transformers.BertForTokenClassification)


def test_logits_of_words_are_those_of_single_texts(tmp_path):
    model = token_classifier()
    split = words_split(model.tokenizer)
    rows = models.forward_words(model, split.tokens, compute=FP32)
    for i in range(len(split)):
        span = slice(split.tokens.offsets[i], split.tokens.offsets[i + 1])
        with torch.no_grad():
            logits = model.model(input_ids=torch.from_numpy(split.tokens.ids[span].astype(np.int64))[None]).logits[0]
        expected = logits[torch.from_numpy(np.array(split.tokens.targets[span]))]
        torch.testing.assert_close(torch.from_numpy(rows[i]), expected, rtol=1e-4, atol=1e-5)


def test_stored_logits_of_words_reach_the_batch_and_survive_another_cut(tmp_path):
    model = token_classifier()
    split = words_split(model.tokenizer, max_length=5)
    signals = teachers.store_signals(model, split, compute=FP32, cache=tmp_path)
    (tmp_path / "kept").mkdir()
    signals.save(tmp_path / "kept")
    loaded = teachers.Signals.load(tmp_path / "kept")
    with_rows = split.take([2, 1, 0]).with_signals(loaded)
    batch = batches.collate(with_rows, np.arange(3))
    assert batch.teacher.shape == (len(batch.labels), 3)
    expected = models.forward_words(model, split.tokens, compute=FP32)
    torch.testing.assert_close(batch.teacher[:1], torch.from_numpy(np.array(expected[2])))
    longer = with_rows.tokenize(model.tokenizer, max_length=32)  # has words that the teacher has said nothing about
    batch = batches.collate(longer, np.arange(3))
    assert len(batch.teacher) == len(batch.labels) == int(batch.is_target.sum()) < sum(map(len, TAGS[:3]))


def test_a_token_classifier_learns_its_words():
    model = token_classifier()
    split = words_split(model.tokenizer, repeats=4)

    def loss_fn(network, batch):
        return losses.cross_entropy(network(**batch.inputs).logits[batch.is_target], batch.labels)

    config = TrainConfig(learning_rate=1e-2, num_epochs=25, batch_size=8)
    trained = training.fit(model, split, loss_fn, config, seed=0, compute=FP32)
    rows = models.forward_words(trained, split.tokens, compute=FP32)
    right = [int(i) for i in rows.values.argmax(1)]
    assert np.mean(np.array(right) == split.labels.values) > 0.9


def test_a_token_classifier_is_saved_and_read_back(tmp_path):
    model = token_classifier()
    model.save(tmp_path / "model")
    loaded = models.TextModel.load(tmp_path / "model")
    assert models.is_token_classifier(loaded.model)
    split = words_split(model.tokenizer)
    first, second = (models.forward_words(m, split.tokens, compute=FP32).values for m in (model, loaded))
    np.testing.assert_array_equal(first, second)


def test_load_token_classifier_gives_a_base_model_a_new_head(tiny_model_folder):
    model, _, is_tuned = models.load_token_classifier(str(tiny_model_folder), ["O", "B-X", "I-X"], seed=1)
    assert not is_tuned
    assert model.model.config.id2label == {0: "O", 1: "B-X", 2: "I-X"}
    assert models.is_token_classifier(model.model)


# Pairs, several labels, scores


def test_pairs_are_told_apart_where_the_model_is_told():
    tokenizer = small_tokenizers.tiny("BERT").tokenizer
    split = Split("train", ["0", "1"], ["remove the folder", "x"], seconds=["a list", "strings of a list"])
    split = split.tokenize(tokenizer, max_length=32)
    inputs = batches.pad(split.tokens, np.array([1, 0]))
    expected = tokenizer(["x", "remove the folder"], ["strings of a list", "a list"], padding=True, return_tensors="pt")
    assert inputs.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(inputs[name], tensor)
    taken = split.take([1])
    assert taken.tokens.second_starts.tolist() == [split.tokens.second_starts[1]]


def test_pairs_of_other_models_have_no_types():
    tokenizer = small_tokenizers.tiny("RoBERTa").tokenizer
    split = Split("train", ["0"], ["remove the folder"], seconds=["a list"]).tokenize(tokenizer, max_length=32)
    assert batches.pad(split.tokens, np.array([0])).keys() == {"input_ids", "attention_mask"}
    assert split.tokens.ids.tolist() == tokenizer("remove the folder", "a list")["input_ids"]


def test_one_class_for_each_text_is_asked_for():
    split = Split("train", ["0"], ["x"], np.zeros((1, 2), np.int64))
    with pytest.raises(InputError, match="one class for each text"):
        _ = split.class_labels


def test_several_labels_and_scores_reach_the_batch(tiny_model_folder):
    tokenizer = models.load_classifier(str(tiny_model_folder), ["a", "b"])[0].tokenizer
    many = Split("train", ["0", "1"], ["x", "y z"], np.array([[1, 0], [0, 0]])).tokenize(tokenizer, max_length=8)
    assert batches.collate(many, np.array([1, 0])).labels.tolist() == [[0, 0], [1, 0]]
    scores = Split("train", ["0", "1"], ["x", "y z"], np.array([0.5, 4.0], np.float32))
    assert scores.tokenize(tokenizer, max_length=8).take([1]).labels.dtype == np.float32
    assert data.Split is Split


def test_a_head_for_several_labels_or_a_score_says_so(tiny_model_folder):
    load = models.load_classifier
    several, _, _ = load(str(tiny_model_folder), ["a", "b"], problem="multi_label_classification")
    assert several.model.config.problem_type == "multi_label_classification"
    score, _, _ = load(str(tiny_model_folder), ["score"], problem="regression")
    assert (score.model.config.problem_type, score.model.config.num_labels) == ("regression", 1)
