"""Students from teachers: which layers and tokens stay, and that the teacher does."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import small_tokenizers
import torch
from small_data import FP32, assert_same_bits, classifier, cross_entropy, embedder, split, weights
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as pieces
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertForMaskedLM,
    LlamaForCausalLM,
    PreTrainedTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from smallmodels import models, students, teachers, training
from smallmodels.data.splits import tokenizer_sha256
from smallmodels.errors import InputError
from smallmodels.models import Embedder, TextModel


@pytest.fixture(scope="module")
def teacher(tiny_model_folder):
    return classifier(tiny_model_folder)


def deep(num_layers, *, embeds=False):
    """A random BERT with so many layers."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30}
    config = BertConfig(num_hidden_layers=num_layers, num_labels=3, **sizes)
    with models.seeded(0):
        model = models.Embedder(BertModel(config)) if embeds else BertForSequenceClassification(config)
    return TextModel(model.eval(), None)


def layer_weights(model, index):
    return {n.split(f"layer.{index}.")[1]: w for n, w in weights(model).items() if f"encoder.layer.{index}." in n}


def others(model):
    return {name: w for name, w in weights(model).items() if "encoder.layer." not in name}


@pytest.mark.parametrize("embeds", [False, True])
@pytest.mark.parametrize(
    ("available", "num_layers", "kept"),
    [
        (6, 1, [0]),
        (6, 2, [0, 5]),
        (6, 3, [0, 3, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (1, 1, [0]),
    ],
)
def test_keep_layers_copies_evenly_spaced_layers_and_all_the_rest(available, num_layers, kept, embeds):
    teacher = deep(available, embeds=embeds)
    student = students.keep_layers(teacher, num_layers)
    assert student.notes["kept_layers"] == kept
    for new, old in enumerate(kept):
        assert_same_bits(layer_weights(student, new), layer_weights(teacher, old))
        assert len(layer_weights(student, new)) == 16
    assert not layer_weights(student, num_layers)
    assert_same_bits(others(student), others(teacher))
    assert student.model.config.num_hidden_layers == num_layers


def test_keep_layers_leaves_the_teacher_as_it_is(teacher):
    before, notes = weights(teacher), dict(teacher.notes)
    student = students.keep_layers(teacher, 2)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1.0)
    student.model.config.num_labels = 7
    student.notes["x"] = 1
    assert_same_bits(weights(teacher), before)
    assert teacher.notes == notes
    assert (teacher.model.config.num_hidden_layers, teacher.model.config.num_labels) == (4, 3)


def test_keep_layers_of_all_layers_gives_the_teachers_answers(teacher):
    tokens = split(teacher.tokenizer, 6).tokens
    same = students.keep_layers(teacher, 4)
    fewer = students.keep_layers(teacher, 3)
    expected = torch.from_numpy(models.forward_all(teacher, tokens, compute=FP32))
    assert torch.equal(torch.from_numpy(models.forward_all(same, tokens, compute=FP32)), expected)
    assert not torch.allclose(torch.from_numpy(models.forward_all(fewer, tokens, compute=FP32)), expected)


@pytest.mark.parametrize("num_layers", [0, -1, 5, 7])
def test_keep_layers_refuses_too_few_and_too_many(teacher, num_layers):
    with pytest.raises(InputError, match=f"from 1 to the teacher's 4, got {num_layers}") as caught:
        students.keep_layers(teacher, num_layers)
    assert caught.value.exit_code == 2


def test_keep_layers_takes_a_list_of_layers():
    teacher = deep(6)
    student = students.keep_layers(teacher, [1, 2, 5])
    assert student.notes["kept_layers"] == [1, 2, 5]
    for new, old in enumerate([1, 2, 5]):
        assert_same_bits(layer_weights(student, new), layer_weights(teacher, old))
    assert student.model.config.num_hidden_layers == 3
    assert (
        students.keep_layers(teacher, (0, 3, 5)).weights_sha256() == students.keep_layers(teacher, 3).weights_sha256()
    )


@pytest.mark.parametrize("layers", [[], [3, 1], [2, 2], [0, 6], [-1, 2], [0.5]])
def test_keep_layers_refuses_a_list_that_is_none_of_layers(layers):
    with pytest.raises(InputError, match=r"different numbers from 0 to the teacher's 5 in rising order, got \["):
        students.keep_layers(deep(6), layers)


def test_keep_layers_of_modernbert_keeps_the_first_one_which_lacks_a_norm(tmp_path):
    teacher = small_tokenizers.tiny(
        "ModernBERT", num_hidden_layers=4, layer_types=2 * ["full_attention", "sliding_attention"]
    )
    with pytest.raises(InputError, match=r"must begin with 0, because the first layer of modernbert .* got \[1, 3\]"):
        students.keep_layers(teacher, [1, 3])
    student = students.keep_layers(teacher, [0, 3])
    assert student.model.config.layer_types == ["full_attention", "sliding_attention"]


def test_keep_layers_composes():
    teacher = deep(6)
    student = students.keep_layers(students.keep_layers(teacher, 4), 2)
    assert student.model.config.num_hidden_layers == 2
    assert_same_bits(layer_weights(student, 0), layer_weights(teacher, 0))
    assert_same_bits(layer_weights(student, 1), layer_weights(teacher, 5))


@pytest.mark.parametrize("make", [classifier, embedder])
def test_keep_layers_gives_a_student_that_is_saved_and_read_back(tiny_model_folder, tmp_path, make):
    student = students.keep_layers(make(tiny_model_folder), 2)
    student.save(tmp_path)
    read = TextModel.load(tmp_path)
    assert read.weights_sha256() == student.weights_sha256()
    assert read.notes["kept_layers"] == [0, 3]


def test_keep_layers_student_loads_with_plain_transformers(teacher, tmp_path):
    students.keep_layers(teacher, 2).save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert plain.config.num_hidden_layers == 2
    assert len(plain.bert.encoder.layer) == 2


def test_keep_layers_refuses_a_model_without_a_list_of_layers():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = deep(2).model.config

    with pytest.raises(InputError, match="should keep its 2 layers in one list, but Flat does not"):
        students.keep_layers(TextModel(Flat(), None), 1)


# Tokens


KINDS = list(small_tokenizers.KINDS)
TRAIN = small_tokenizers.sentences()[::8]
OTHERS = small_tokenizers.sentences()[1::8]
FOREIGN = [
    "",
    " ",
    "naïve Ελληνικά 漢字 🙂🙂",
    "unforeseeable antidisestablishmentarianism",
    "a\tb  c\n<s>[SEP]</s> zzzz",
]


def words_in_another_order(texts, count=40):
    """Other texts of the same words."""
    words = " ".join(texts).split()
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(words, 9)) for _ in range(count)]


def tokens_of(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def answers(model, texts):
    return models.forward_texts(model, texts, compute=FP32)


@pytest.fixture(scope="module", params=KINDS)
def trimmed(request):
    """A teacher of a kind, and the student with the tokens that `TRAIN` needs."""
    teacher = small_tokenizers.tiny(request.param)
    return teacher, students.trim_vocabulary(teacher, TRAIN)


def test_trim_vocabulary_gives_the_same_for_every_text_whose_tokens_stay(trimmed):
    teacher, student = trimmed
    stay = student.tokenizer.get_vocab().keys()
    texts = [*TRAIN, *words_in_another_order(TRAIN), *OTHERS]
    kept = [text for text in texts if stay >= {*tokens_of(teacher.tokenizer, text)}]
    assert len(TRAIN) + 20 < len(kept) < len(texts)
    assert [tokens_of(student.tokenizer, t) for t in kept] == [tokens_of(teacher.tokenizer, t) for t in kept]
    np.testing.assert_array_equal(answers(student, kept), answers(teacher, kept))


def test_trim_vocabulary_leaves_a_smaller_table_and_says_so(trimmed):
    teacher, student = trimmed
    size = student.notes["vocabulary_size"]
    assert size == len(student.tokenizer) == student.model.config.vocab_size < len(teacher.tokenizer)
    assert student.model.get_input_embeddings().weight.shape[0] == size
    assert student.model.get_input_embeddings().num_embeddings == size
    assert student.notes["teacher_vocabulary_size"] == len(teacher.tokenizer)
    assert sorted(student.tokenizer.get_vocab().values()) == list(range(size))
    width = teacher.model.get_input_embeddings().weight.shape[1]
    saved = models.num_parameters(teacher.model) - models.num_parameters(student.model)
    assert saved == width * (len(teacher.tokenizer) - size)


def test_trim_vocabulary_knows_every_text_that_was_known(trimmed):
    teacher, student = trimmed
    for text in [*OTHERS, *FOREIGN]:
        before, after = tokens_of(teacher.tokenizer, text), tokens_of(student.tokenizer, text)
        unknown = teacher.tokenizer.unk_token
        assert after.count(unknown) == before.count(unknown)
        written = [model.tokenizer.decode(model.tokenizer(text)["input_ids"]) for model in trimmed]
        assert written[0] == written[1]
    assert np.isfinite(answers(student, [*OTHERS, *FOREIGN])).all()


def test_trim_vocabulary_cuts_words_that_it_dropped_into_smaller_pieces(trimmed):
    teacher, student = trimmed
    before = [len(tokens_of(teacher.tokenizer, text)) for text in OTHERS]
    after = [len(tokens_of(student.tokenizer, text)) for text in OTHERS]
    assert sum(after) > sum(before)
    assert sum(after) < 2 * sum(before)


def test_trim_vocabulary_gives_special_tokens_their_new_ids_everywhere(trimmed):
    teacher, student = trimmed
    assert student.tokenizer.special_tokens_map == teacher.tokenizer.special_tokens_map
    assert student.tokenizer.added_tokens_encoder.keys() == teacher.tokenizer.added_tokens_encoder.keys()
    pair = [model.tokenizer(TRAIN[0], TRAIN[1])["input_ids"] for model in trimmed]
    assert student.tokenizer.convert_ids_to_tokens(pair[1]) == teacher.tokenizer.convert_ids_to_tokens(pair[0])
    named = {k: v for k, v in teacher.model.config.to_dict().items() if k.endswith("_token_id") and v is not None}
    assert named
    for name, old in named.items():
        token = teacher.tokenizer.convert_ids_to_tokens(old)
        assert getattr(student.model.config, name) == student.tokenizer.convert_tokens_to_ids(token)
    before, after = (model.model.get_input_embeddings().padding_idx for model in trimmed)
    assert before == teacher.model.config.pad_token_id
    assert after == student.model.config.pad_token_id == student.tokenizer.pad_token_id


def test_trim_vocabulary_student_loads_with_plain_transformers(trimmed, tmp_path):
    _, student = trimmed
    student.save(tmp_path)
    plain = copy.deepcopy(AutoModelForSequenceClassification.from_pretrained(tmp_path))  # out of the mapped file
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_sha256(tokenizer) == tokenizer_sha256(student.tokenizer)
    assert plain.config.vocab_size == student.notes["vocabulary_size"]
    read = dataclasses.replace(student, model=plain.eval(), tokenizer=tokenizer)
    np.testing.assert_array_equal(answers(read, [*TRAIN, *FOREIGN]), answers(student, [*TRAIN, *FOREIGN]))
    ours = TextModel.load(tmp_path)
    assert ours.weights_sha256() == student.weights_sha256()
    assert ours.notes == student.notes


def test_trim_vocabulary_leaves_the_teacher_as_it_is():
    teacher = small_tokenizers.tiny("Llama 2")
    before, config = weights(teacher), teacher.model.config.to_dict()
    settings, notes = teacher.tokenizer.backend_tokenizer.to_str(), dict(teacher.notes)
    student = students.trim_vocabulary(teacher, TRAIN)
    with torch.no_grad():
        student.model.get_input_embeddings().weight.add_(1.0)
    assert_same_bits(weights(teacher), before)
    assert teacher.model.config.to_dict() == config
    assert teacher.tokenizer.backend_tokenizer.to_str() == settings
    assert teacher.notes == notes
    assert student.max_length == teacher.max_length


@pytest.mark.parametrize("kind", ["BERT", "ModernBERT"])
def test_trim_vocabulary_composes_with_keep_layers_in_any_order(kind):
    teacher = small_tokenizers.tiny(kind)
    first = students.trim_vocabulary(students.keep_layers(teacher, 1), TRAIN)
    second = students.keep_layers(students.trim_vocabulary(teacher, TRAIN), 1)
    assert first.weights_sha256() == second.weights_sha256()
    assert tokenizer_sha256(first.tokenizer) == tokenizer_sha256(second.tokenizer)
    assert first.notes == second.notes
    assert {"kept_layers", "vocabulary_size"} <= first.notes.keys()
    again = students.trim_vocabulary(first, TRAIN)
    assert again.weights_sha256() == first.weights_sha256()


def test_trim_vocabulary_takes_whole_texts_into_account_not_only_what_fits(tiny_model_folder):
    teacher = dataclasses.replace(classifier(tiny_model_folder), max_length=4)
    student = students.trim_vocabulary(teacher, ["bank card money film"])
    assert tokens_of(student.tokenizer, "film") == ["[CLS]", "film", "[SEP]"]
    assert tokens_of(student.tokenizer, "music")[1:3] == ["m", "##u"]
    assert tokens_of(student.tokenizer, "müsic ß") == ["[CLS]", "m", "##u", "##s", "##i", "##c", "[UNK]", "[SEP]"]


def test_trim_vocabulary_for_no_texts_keeps_letters_alone(tiny_model_folder):
    student = students.trim_vocabulary(classifier(tiny_model_folder), [])
    assert tokens_of(student.tokenizer, "bank") == ["[CLS]", "b", "##a", "##n", "##k", "[SEP]"]


@pytest.mark.parametrize("kind", ["BERT", "XLM-R"])
def test_trim_vocabulary_of_an_embedder_loads_as_a_sentence_transformer(kind, tmp_path):
    from sentence_transformers import SentenceTransformer

    whole = small_tokenizers.tiny(kind)
    teacher = dataclasses.replace(whole, model=Embedder(whole.model.base_model).eval())
    student = students.trim_vocabulary(teacher, TRAIN)
    np.testing.assert_array_equal(answers(student, TRAIN), answers(teacher, TRAIN))
    student.save(tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TRAIN)
    np.testing.assert_allclose(theirs, answers(teacher, TRAIN), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "cls", "tied"),
    [
        ("BERT", BertForMaskedLM, True),
        ("DistilBERT", DistilBertForMaskedLM, True),
        ("Llama 3", LlamaForCausalLM, True),
        ("Llama 3", LlamaForCausalLM, False),
    ],
)
def test_trim_vocabulary_keeps_the_same_rows_of_an_output_layer(kind, cls, tied, tmp_path):
    teacher = small_tokenizers.tiny(kind, cls=cls, tie_word_embeddings=tied)
    for parameter in teacher.model.get_output_embeddings().parameters():
        nn.init.normal_(parameter)
    student = students.trim_vocabulary(teacher, TRAIN)
    table, head = student.model.get_input_embeddings(), student.model.get_output_embeddings()
    assert (table.weight is head.weight) == tied
    stay = sorted(student.tokenizer.get_vocab(), key=student.tokenizer.get_vocab().get)
    columns = teacher.tokenizer.convert_tokens_to_ids(stay)
    expected, found = (
        m.model(**m.tokenizer(TRAIN[0], return_tensors="pt", return_token_type_ids=False)).logits.detach()
        for m in (teacher, student)
    )
    assert torch.equal(found, expected[..., columns])
    student.model.save_pretrained(tmp_path)
    assert_same_bits(dict(cls.from_pretrained(tmp_path).state_dict()), weights(student))


# Tokens of random tokenizers: texts of few letters, so that pieces overlap in every way


def random_texts(generator, count):
    return ["".join(generator.choice(list("abc "), generator.integers(1, 24))) for _ in range(count)]


def random_bpe(generator):
    """Merges at random: pieces that several merges make, and merges that others get ahead of."""
    vocab, merges = list("abc▁"), []
    for _ in range(40):
        pair = tuple(generator.choice(vocab, 2))
        if pair not in merges and len("".join(pair)) < 7:
            merges.append(pair)
            vocab += [] if "".join(pair) in vocab else ["".join(pair)]
    return pieces.BPE(vocab={piece: i for i, piece in enumerate(vocab)}, merges=merges)


def random_unigram(generator):
    """Scores of few values, so that many cuts of a text are equally good; the letter c only in longer pieces."""
    found = {"".join(generator.choice(list("abc▁"), generator.integers(2, 5))) for _ in range(40)}
    vocab = ["<unk>", *"ab▁", *sorted(found)]
    scores = {piece: float(generator.choice([-30, -20, -10, -5, -5])) for piece in vocab}
    return pieces.Unigram([*scores.items(), ("ababab", -60.0)], unk_id=0)


def random_word_piece(generator):
    """Pieces at random, none with the letter c, which is unknown."""
    found = {"".join(generator.choice(list("ab"), generator.integers(2, 6))) for _ in range(40)}
    vocab = ["<unk>", *"ab", "##a", "##b", *sorted(found), *(f"##{piece}" for piece in sorted(found))]
    return pieces.WordPiece(vocab={piece: i for i, piece in enumerate(vocab)}, unk_token="<unk>")


@pytest.mark.parametrize("make", [random_bpe, random_unigram, random_word_piece])
def test_trim_vocabulary_keeps_the_cuts_of_random_tokenizers(make):
    for seed in range(8):
        generator = np.random.default_rng(seed)
        tokenizer = Tokenizer(make(generator))
        tokenizer.pre_tokenizer = (
            pre_tokenizers.Whitespace() if make is random_word_piece else pre_tokenizers.Metaspace()
        )
        whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
        model = BertModel(BertConfig(**small_tokenizers.SIZE, vocab_size=len(whole)))
        student = students.trim_vocabulary(TextModel(Embedder(model), whole), random_texts(generator, 3))
        stay = student.tokenizer.get_vocab().keys()
        assert len(stay) < len(whole)
        kept = [t for t in random_texts(generator, 400) if stay >= {*tokens_of(whole, t)}]
        assert len(kept) > 10
        assert [tokens_of(student.tokenizer, t) for t in kept] == [tokens_of(whole, t) for t in kept]


# What cannot be trimmed


class InPython(PreTrainedTokenizer):
    """A tokenizer without a backend."""

    vocab_size = 2

    def get_vocab(self):
        return {"a": 0, "b": 1}


def with_backend(model):
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="a", pad_token="b")


def test_trim_vocabulary_refuses_tokenizers_that_it_cannot_cut():
    model = BertModel(BertConfig(**small_tokenizers.SIZE, vocab_size=30))
    with pytest.raises(InputError, match="of the tokenizers library to be trimmed, found InPython"):
        students.trim_vocabulary(TextModel(Embedder(model), InPython()), TRAIN)
    words = with_backend(pieces.WordLevel(vocab={"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(InputError, match=r"cut words into pieces .* found WordLevel"):
        students.trim_vocabulary(TextModel(Embedder(model), words), TRAIN)


def test_trim_vocabulary_refuses_a_tokenizer_that_cuts_at_random():
    letters = list(dict.fromkeys(itertools.chain("ab", *TRAIN)))
    vocab = {piece: i for i, piece in enumerate([*letters, "th", "he", "the"])}
    at_random = with_backend(pieces.BPE(vocab=vocab, merges=[("t", "h"), ("th", "e"), ("h", "e")], dropout=0.5))
    model = BertModel(BertConfig(**small_tokenizers.SIZE, vocab_size=len(vocab)))
    with pytest.raises(InputError, match="should cut texts as before when tokens go that they do not use"):
        students.trim_vocabulary(TextModel(Embedder(model), at_random), TRAIN)


def test_trim_vocabulary_refuses_a_model_whose_places_depend_on_the_padding_token():
    tokenizer, *_ = small_tokenizers.parts("ModernBERT")  # its padding token has one of the last ids
    sizes = {"max_position_embeddings": 2000, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = Embedder(RobertaModel(RobertaConfig(**small_tokenizers.SIZE, **sizes)))
    with pytest.raises(InputError, match=rf"RobertaModel counts places .* should stay {tokenizer.pad_token_id}"):
        students.trim_vocabulary(TextModel(model, tokenizer), TRAIN)


# Trained with the rows of a teacher that has other tokens


def test_a_trimmed_student_is_trained_with_the_teachers_rows_of_its_own_texts(tiny_model_folder, tmp_path):
    teacher = classifier(tiny_model_folder)
    train = split(teacher.tokenizer, 12)
    signals = teachers.store_signals(teacher, train, compute=FP32, cache=tmp_path)
    student = students.trim_vocabulary(teacher, train.texts[:2])
    foreign = train.tokenize(student.tokenizer, max_length=32)
    with pytest.raises(InputError, match="tokenise it with that first, and for the student afterwards"):
        foreign.with_signals(signals)
    own = train.with_signals(signals).tokenize(student.tokenizer, max_length=32).take([5, 2, 9])
    np.testing.assert_array_equal(own.teacher, signals.values[[5, 2, 9]])
    assert own.tokens.tokenizer == tokenizer_sha256(student.tokenizer) != train.tokens.tokenizer
    with pytest.raises(InputError, match="by the model's own tokenizer"):
        models.forward_all(student, train.tokens, compute=FP32)

    def loss_fn(model, batch):
        return (model(**batch.inputs).logits - batch.teacher).square().sum(1) + cross_entropy(model, batch)

    config = training.TrainConfig(max_steps=2, batch_size=3)
    before = student.weights_sha256()
    assert training.fit(student, own, loss_fn, config, compute=FP32).weights_sha256() != before
