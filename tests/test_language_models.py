"""Causal language models: output layers of the families, packed rows, losses of texts, saving; and their data."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import transformers as t
from small_data import FP32

from smallmodels import data, losses, models, perplexity, students, training
from smallmodels.data import batches
from smallmodels.data.splits import Split, cuts_alike
from smallmodels.errors import InputError
from smallmodels.models import LanguageModel, TextModel
from smallmodels.models.language_model import require_known_output

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
CONFIGS = {
    "llama": t.LlamaConfig(**SIZES),
    "qwen2": t.Qwen2Config(**SIZES),
    "qwen3": t.Qwen3Config(**SIZES),
    "gpt2": t.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gemma": t.GemmaConfig(**SIZES),
    "gemma2": t.Gemma2Config(**SIZES, sliding_window=4, query_pre_attn_scalar=8, final_logit_softcapping=2.0),
    "gemma3": t.Gemma3TextConfig(**{**SIZES, "num_hidden_layers": 6}, sliding_window=4, query_pre_attn_scalar=8),
    "cohere": t.CohereConfig(**SIZES, logit_scale=0.3),
    "granite": t.GraniteConfig(**SIZES, logits_scaling=4.0),
}
each_family = pytest.mark.parametrize("family", CONFIGS)
LENGTHS = (7, 3, 12, 5)


def network(family):
    with models.seeded(0):
        made = t.AutoModelForCausalLM.from_config(CONFIGS[family])
        for name, parameter in made.named_parameters():  # else all logits are near to zero
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.0 if "embed" in name or "wte" in name else 0.3)
    return LanguageModel(made).eval()


def texts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 60, (1, length), generator=generator) for length in LENGTHS]


@each_family
def test_output_layer_gives_the_logits_of_the_family(family):
    model = network(family)
    require_known_output(model, family)
    with torch.no_grad():
        for ids in texts():
            expected = model.transformer(input_ids=ids, use_cache=False).logits
            torch.testing.assert_close(model.output_layer(model(input_ids=ids)), expected)


def test_family_whose_logits_are_made_otherwise_is_refused(monkeypatch):
    model = network("llama")
    forward = model.transformer.forward

    def doubled(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(model.transformer, "forward", doubled)
    with pytest.raises(InputError, match="odd should make its logits by one product"):
        require_known_output(model, "odd")


@each_family
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_texts_in_one_row_have_the_states_that_they_have_alone(family, attention):
    model = network(family)
    dataclasses.replace(FP32, attention=attention).place(model)
    alone = texts()
    packed = torch.cat([*alone, torch.zeros(1, 4, dtype=torch.int64)], dim=1)  # and four places that hold nothing
    positions = torch.cat([torch.arange(n) for n in (*LENGTHS, 4)])[None]
    with torch.no_grad():
        states = model(input_ids=packed, position_ids=positions)
        for ids, part in zip(alone, states[:, :-4].split(LENGTHS, dim=1), strict=True):
            torch.testing.assert_close(part, model(input_ids=ids), rtol=1e-4, atol=1e-4)


@each_family
def test_padded_rows_have_the_states_and_gradients_that_they_have_alone(family):
    padded, alone = network(family), network(family)
    rows = texts()
    ids = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row[0]) for row in rows], batch_first=True)
    states = padded(input_ids=ids, attention_mask=mask)[mask.bool()]
    expected = torch.cat([alone(input_ids=row)[0] for row in rows])
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for value in (states, expected):
        (value * weights).sum().backward()
    for (name, one), two in zip(padded.named_parameters(), alone.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-3, msg=name)


@each_family
def test_operations_count_half_of_the_pairs_and_the_output_layer(family):
    model = network(family)
    tables = {m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    products = sum(w.numel() for w in model.parameters() if w.ndim == 2 and w not in tables)
    products += model.output_layer.weight.numel() if model.output_layer.weight in tables else 0
    num_layers = CONFIGS[family].num_hidden_layers
    assert models.num_operations(model, np.array([10])) == 2 * products * 10 + 0.5 * 4 * 32 * num_layers * 100
    of_output = 2 * model.output_layer.weight.numel()  # for what is predicted alone
    assert (
        models.num_operations(model, np.array([10]), 3) == models.num_operations(model, np.array([10])) - 7 * of_output
    )


# A model of its own


CORPUS = [
    f"the cat number {i} sat on the mat and saw {i * 7 % 23} birds.\n\nit was a good day: \u00fc \u4f60"
    for i in range(60)
]


@pytest.fixture(scope="module")
def tokenizer():
    return models.new_tokenizer(CORPUS, vocabulary_size=300)


@pytest.fixture(scope="module")
def small(tokenizer):
    return models.new_language_model(tokenizer, hidden_size=16, num_layers=2, num_heads=2, max_length=24)


def split_of(texts, name="train"):
    return Split(name, [f"{name}/{i}" for i in range(len(texts))], texts)


@pytest.mark.parametrize("text", ["", " a  b\tc\r\n", "\u00fc\u4f60\U0001f600 never seen", "the cat", "\x00\x01"])
def test_new_tokenizer_writes_any_text_and_gives_it_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_new_tokenizer_has_the_asked_size_and_is_the_same_each_time(tokenizer):
    assert len(tokenizer) == 300
    assert models.new_tokenizer(CORPUS, vocabulary_size=300).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(ValueError, match="vocabulary_size must be >= 257"):
        models.new_tokenizer(CORPUS, vocabulary_size=100)


def test_new_language_model_follows_its_seed_and_refuses_sizes_that_do_not_fit(tokenizer, small):
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_length": 24}
    assert models.new_language_model(tokenizer, **sizes).weights_sha256() == small.weights_sha256()
    assert models.new_language_model(tokenizer, **sizes, seed=1).weights_sha256() != small.weights_sha256()
    with pytest.raises(ValueError, match="multiple of 4, twice num_heads"):
        models.new_language_model(tokenizer, **{**sizes, "hidden_size": 18})


def test_saved_language_model_loads_with_plain_transformers_and_generates_the_same(small, tmp_path):
    small.save(tmp_path)
    plain = t.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    again = TextModel.load(tmp_path)
    ids = small.tokenizer("the cat", return_tensors="pt")["input_ids"]
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = small.model.transformer.generate(ids, **options)
    assert torch.equal(plain.generate(ids, **options), expected)
    assert torch.equal(again.model.transformer.generate(ids, **options), expected)
    assert t.AutoTokenizer.from_pretrained(tmp_path).decode(ids[0]) == "the cat"
    loaded, fetched = models.load_language_model(str(tmp_path), max_length=999)
    assert loaded.weights_sha256() == small.weights_sha256()
    assert (loaded.max_length, fetched.source.role) == (24, "teacher")


def test_size_of_a_model_whose_tables_are_one_is_that_of_its_file(small, tmp_path):
    small.save(tmp_path)
    held = (tmp_path / "model.safetensors").stat().st_size
    assert held - 8192 < models.size_bytes(small.model) <= held  # the file has a header too


def test_folder_of_a_classifier_is_no_language_model(tiny_model_folder):
    with pytest.raises((InputError, models.loading.DamagedError)):
        models.load_language_model(str(tiny_model_folder))


def test_smaller_language_model_keeps_layers_or_is_new(small):
    kept = students.smaller_language_model(small, hidden_size=None, num_layers=1, num_heads=7)
    assert kept.weights_sha256() == students.keep_layers(small, 1).weights_sha256()
    new = students.smaller_language_model(small, hidden_size=8, num_layers=3, num_heads=2, seed=4)
    sizes = {"hidden_size": 8, "num_layers": 3, "num_heads": 2, "max_length": 24, "seed": 4}
    assert new.weights_sha256() == models.new_language_model(small.tokenizer, **sizes).weights_sha256()
    half = students.smaller_language_model(small)
    assert half.model.config.num_hidden_layers == small.model.config.num_hidden_layers // 2
    assert students.smaller_language_model(small, hidden_size=8).model.config.num_attention_heads == 4
    with pytest.raises(InputError, match="got 9: choose another --num-layers"):
        students.smaller_language_model(small, num_layers=9)


# Rows of tokens


@pytest.mark.parametrize(("max_length", "stride"), [(4, None), (4, 1), (5, 2), (7, 6), (300, None), (2, None)])
def test_rows_make_every_token_but_the_first_a_target_once(tokenizer, max_length, stride):
    split = split_of([*CORPUS[:5], "x", ""])
    rows = data.cut_into_rows(split, tokenizer, max_length=max_length, stride=stride)
    tokens = rows.tokens
    assert tokens.lengths.max() <= max_length
    for i, text in enumerate(split.texts):
        end = tokenizer.eos_token_id
        expected = [end, *tokenizer(text)["input_ids"], end]
        found, starts = [], []
        for row, name in enumerate(rows.ids):
            if name.rpartition(":")[0] == split.ids[i]:
                part = slice(tokens.offsets[row], tokens.offsets[row + 1])
                found += tokens.ids[part][tokens.targets[part]].tolist()
                starts.append(int(np.flatnonzero(tokens.targets[part])[0]))
        assert found == expected[1:]
        assert starts[0] == 1
        if stride:
            assert all(start >= max_length - stride for start in starts[1:])


def test_rows_refuse_lengths_out_of_range(tokenizer):
    for setting, bad in (("max_length", {"max_length": 1}), ("stride", {"max_length": 8, "stride": 8})):
        with pytest.raises(ValueError, match=f"{setting} must be"):
            data.cut_into_rows(split_of(["a b c"]), tokenizer, **bad)


def test_batches_carry_targets_through_parts_cuts_and_padding(tokenizer):
    rows = data.cut_into_rows(split_of(CORPUS[:3]), tokenizer, max_length=40).take([2, 0, 1])
    batch = batches.collate(rows, np.array([0, 1, 2]))
    assert batch.is_target.dtype == torch.bool
    assert torch.equal(
        batch.is_target, batch.inputs["attention_mask"].bool() & (torch.arange(batch.is_target.shape[1]) > 0)
    )
    parts = batch.split(2)
    assert [part.is_target.shape for part in parts] == [part.inputs["input_ids"].shape for part in parts]
    assert sum(int(part.is_target.sum()) for part in parts) == int(batch.is_target.sum())
    assert batch.cut(5).is_target.shape == (3, 5)
    for part in (batch, *parts, batch.cut(5), batch.to("cpu"), batch.to("cpu").cut(5)):
        assert torch.equal(part.targets, part.is_target.flatten().nonzero().flatten())
        assert torch.equal(part.real_tokens, part.inputs["attention_mask"].flatten().nonzero().flatten())
    with pytest.raises(ValueError, match="cut_into_rows"):
        _ = batches.collate(split_of(CORPUS).tokenize(tokenizer, max_length=8), np.array([0])).is_target


# Losses of texts


def nats_of(model, text, window):
    """Slowly, token by token, with as many tokens before each as `window` starts give it."""
    end = model.tokenizer.eos_token_id
    ids = [end, *model.tokenizer(text)["input_ids"], end]
    total, right = 0.0, 0
    for place in range(1, len(ids)):
        start = window(place, len(ids))
        with torch.no_grad():
            logits = model.model.transformer(torch.tensor([ids[start:place]])).logits[0, -1].double()
        total -= float(logits.log_softmax(-1)[ids[place]])
        right += int(logits.argmax()) == ids[place]
    return total, len(ids) - 1, right


@pytest.mark.parametrize("stride", [None, 7, 23])
def test_text_losses_equal_the_slow_reference(small, stride):
    split = split_of([*CORPUS[:3], "x", CORPUS[3] * 2], "test")
    found = perplexity.text_losses(small, split, stride=stride, compute=FP32)
    step = stride or 12

    def window(place, length):
        row = max(0, -(-(place + 1 - 24) // step))  # the first row that reaches the token
        return row * step

    expected = [nats_of(small, text, window) for text in split.texts]
    np.testing.assert_allclose(found.nats, [nats for nats, _, _ in expected], rtol=1e-5)
    assert found.num_tokens.tolist() == [n for _, n, _ in expected]
    assert found.num_right.tolist() == [right for _, _, right in expected]
    assert found.num_bytes.tolist() == [len(text.encode()) for text in split.texts]
    measured = found.metrics()
    bits = sum(nats for nats, _, _ in expected) / math.log(2) / found.num_bytes.sum()
    assert measured["bits_per_byte"].value == pytest.approx(bits, rel=1e-5)
    per_token = sum(nats for nats, _, _ in expected) / found.num_tokens.sum()
    assert measured["perplexity"].value == pytest.approx(math.exp(per_token), rel=1e-5)
    assert measured["bits_per_byte"].low < bits < measured["bits_per_byte"].high


def test_closeness_equals_the_slow_reference_and_is_nothing_between_equal_models(small):
    other = models.new_language_model(small.tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=24, seed=5)
    split = split_of([*CORPUS[:4], "x"], "test")
    found = perplexity.closeness(other, small, split, compute=FP32)
    same, kl, count = 0, 0.0, 0
    rows = data.cut_into_rows(split, small.tokenizer, max_length=24, stride=12)
    for i in range(len(rows)):
        part = slice(rows.tokens.offsets[i], rows.tokens.offsets[i + 1])
        ids = torch.from_numpy(rows.tokens.ids[part].astype(np.int64))[None]
        chosen = torch.from_numpy(rows.tokens.targets[part][1:])
        with torch.no_grad():
            q, p = (m.model.transformer(input_ids=ids).logits[0, :-1][chosen].double() for m in (other, small))
        same += int((q.argmax(-1) == p.argmax(-1)).sum())
        kl += float(losses.kl_divergence(q, p, temperature=1.0).sum())
        count += int(chosen.sum())
    assert found.agreement.value == pytest.approx(same / count)
    assert found.kl.value == pytest.approx(kl / count, rel=1e-4)
    itself = perplexity.closeness(small, small, split, compute=FP32)
    assert (itself.agreement.value, itself.kl.value) == (1.0, pytest.approx(0.0, abs=1e-6))
    stranger = models.new_tokenizer(["other words"], vocabulary_size=260)
    with pytest.raises(InputError, match="one tokenizer"):
        perplexity.closeness(TextModel(other.model, stranger, max_length=24), small, split, compute=FP32)


def of_roles(result, role):
    (found,) = (one for one in result.results if one.role == role)
    return found


def test_evaluation_has_the_closeness_of_every_model_to_its_teacher_from_one_pass_of_each(small, monkeypatch):
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
    student = models.new_language_model(small.tokenizer, **sizes, max_length=24, seed=5)
    shorter = models.new_language_model(small.tokenizer, **sizes, max_length=12, seed=6)
    stranger = models.new_language_model(models.new_tokenizer(CORPUS, vocabulary_size=260), **sizes, max_length=24)
    rows = data.cut_into_rows(split_of(CORPUS), small.tokenizer, max_length=16)
    unigrams = perplexity.Unigrams.fit(rows, small.tokenizer)
    split = split_of([*CORPUS[:4], "x"], "test")
    contenders = {"student": student, "label_only": shorter, "stranger": stranger, "unigrams": unigrams}
    expected = {
        "student": perplexity.closeness(student, small, split, compute=FP32),
        "label_only": perplexity.closeness(shorter, small, split, compute=FP32),
    }
    passes = []
    forward = models.forward_targets
    monkeypatch.setattr(
        models, "forward_targets", lambda network, *a, **k: passes.append(network) or forward(network, *a, **k)
    )
    found = perplexity.evaluate_language_models({**contenders, "teacher": small}, split, compute=FP32)
    for role, near in expected.items():
        result = of_roles(found, role)
        assert result.agreement == near.agreement
        assert result.metrics["kl_from_teacher"] == near.kl
        assert near.kl.low < near.kl.value < near.kl.high
    for role in ("stranger", "unigrams", "teacher"):
        assert of_roles(found, role).agreement is None
        assert "kl_from_teacher" not in of_roles(found, role).metrics
    assert passes.count(student.model) == passes.count(stranger.model) == 1
    assert passes.count(small.model) == 2  # once more in the shorter rows of the other
    alone = perplexity.text_losses(student, split, compute=FP32).metrics()
    assert of_roles(found, "student").metrics["bits_per_byte"] == alone["bits_per_byte"]


def special(tokenizer, *names):
    extended = copy.deepcopy(tokenizer)
    extended.add_special_tokens({"additional_special_tokens": list(names)})
    return extended


def test_tokenizers_of_one_family_cut_alike_and_others_do_not(tokenizer):
    with_padding = special(tokenizer, "<|pad|>")
    with_words = copy.deepcopy(tokenizer)
    with_words.add_tokens(["the cat"])
    for other in (tokenizer, copy.deepcopy(tokenizer), with_padding):
        assert cuts_alike(tokenizer, other)
        assert cuts_alike(other, tokenizer)
    smaller = models.new_tokenizer(CORPUS, vocabulary_size=290)
    for other in (with_words, smaller, special(tokenizer, "<|other|>")):
        assert not cuts_alike(other, with_padding)


def test_unigrams_predict_by_frequency_alone(tokenizer, tmp_path):
    rows = data.cut_into_rows(split_of(CORPUS), tokenizer, max_length=16)
    unigrams = perplexity.Unigrams.fit(rows, tokenizer)
    assert np.exp(unigrams.log_probs).sum() == pytest.approx(1)
    split = split_of(["the cat", "x"], "test")
    found = unigrams.text_losses(split)
    for i, text in enumerate(split.texts):
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        assert found.nats[i] == pytest.approx(-sum(unigrams.log_probs[k] for k in ids))
        assert found.num_tokens[i] == len(ids)
    unigrams.save(tmp_path)
    again = perplexity.Unigrams.load(tmp_path).text_losses(split)
    assert again.nats.tolist() == found.nats.tolist()


def test_training_lowers_the_bits_per_byte_as_plain_transformers_does(small):
    rows = data.cut_into_rows(split_of(CORPUS), small.tokenizer, max_length=24)
    config = training.TrainConfig(learning_rate=1e-2, max_steps=24, batch_size=8)

    def loss_fn(model, batch):
        states, labels = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        return losses.by_chunks(
            states, model.output_layer, lambda logits, rows: losses.cross_entropy(logits, labels[rows])
        )

    def plain_loss(model, batch):
        logits = model.transformer(**batch.inputs).logits[:, :-1]
        chosen = batch.is_target[:, 1:]
        return losses.cross_entropy(logits[chosen], batch.inputs["input_ids"][:, 1:][chosen])

    trained = training.fit(small.copy(), rows, loss_fn, config, compute=FP32)
    plain = training.fit(small.copy(), rows, plain_loss, config, compute=FP32)
    test = split_of(CORPUS[:10], "test")
    before, after, expected = (
        perplexity.text_losses(model, test, compute=FP32).metrics()["bits_per_byte"].value
        for model in (small, trained, plain)
    )
    assert after < 0.8 * before
    assert after == pytest.approx(expected, rel=1e-3)


# Data sets of texts


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_texts_of_a_local_file_become_three_splits_without_overlap(tmp_path):
    path = write_jsonl(tmp_path / "notes.jsonl", [{"title": f"t{i}", "body": f"text {i}"} for i in range(50)])
    splits = data.load_texts(path, text_columns=("title", "body"))
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [41, 4, 5]
    found = [text for s in (splits.train, splits.validation, splits.test) for text in s.texts]
    assert sorted(found) == sorted(f"t{i}\ntext {i}" for i in range(50))
    assert "10% of train stand in" in splits.notes["test_split"]
    again = data.load_texts(path, text_columns=("title", "body"))
    assert again.source.fingerprint == splits.source.fingerprint
    other = data.load_texts(path, text_columns=("title", "body"), split_seed=1)
    assert other.source.fingerprint != splits.source.fingerprint
    fewer = data.load_texts(path, text_columns=("title", "body"), max_train=7, max_test=2)
    assert [len(s) for s in (fewer.train, fewer.validation, fewer.test)] == [7, 2, 2]
    assert fewer.notes["num_before_limit"] == {"train": 41, "validation": 4, "test": 5}
    (sentence,) = data.tested_in_part(fewer)
    assert sentence.startswith("Tested on 2 of the 5 texts of the test split, drawn by a seed")
    apart = data.load_texts(path, text_columns=("title", "body"), max_validation=3)
    assert [len(s) for s in (apart.train, apart.validation, apart.test)] == [41, 3, 5]
    assert data.tested_in_part(apart) == data.tested_in_part(splits) == []


def test_files_of_a_folder_are_a_text_each(tmp_path):
    folder = tmp_path / "books"
    (folder / "deep").mkdir(parents=True)
    for i in range(28):
        (folder / ("deep" if i % 2 else ".") / f"{i}.{'txt' if i % 3 else 'md'}").write_text(f"text {i}\nand its end")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    splits = data.load_texts(str(folder))
    found = [text for s in (splits.train, splits.validation, splits.test) for text in s.texts]
    assert sorted(found) == sorted(f"text {i}\nand its end" for i in range(28))
    assert (splits.source.name, len(splits.source.sha256)) == ("books", 28)
    (folder / "deep" / "x.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"x\.txt should be UTF-8, found byte 3 that is not"):
        data.load_texts(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="should hold text files"):
        data.load_texts(str(tmp_path / "empty"))


def test_texts_that_are_blank_in_one_column_are_refused_or_dropped(tmp_path):
    rows = [{"q": f"q{i}", "a": "" if i == 3 else f"a{i}"} for i in range(20)]
    path = write_jsonl(tmp_path / "qa.jsonl", rows)
    with pytest.raises(InputError, match=r"1 that are empty \(row 4 is the first\)"):
        data.load_texts(path, text_columns=("q", "a"))
    splits = data.load_texts(path, text_columns=("q", "a"), drop_bad_texts=True)
    assert splits.notes["num_dropped"] == {"train/blank_text": 1}
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 19


def test_text_that_occurs_twice_stays_whole_in_train(tmp_path):
    path = write_jsonl(tmp_path / "twice.jsonl", [{"text": f"text {i // 2 if i < 40 else i}"} for i in range(60)])
    splits = data.load_texts(path)
    held = {*splits.validation.texts, *splits.test.texts}
    assert held
    assert not held & set(splits.train.texts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_columns": ("nothing",)}, "has no column 'nothing': choose --text-columns from text"),
        ({"text_columns": ("nothing",), "completion_column": "text"}, "choose --prompt-column from text"),
        ({"completion_column": "nothing"}, "has no column 'nothing': choose --completion-column from text"),
        (
            {"text_columns": ("tags",)},
            "found list in train row 0: choose another --text-columns$",
        ),
        (
            {"text_columns": ("tags",), "completion_column": "text"},
            "row 0: choose another --prompt-column$",
        ),
        ({"text_columns": ()}, "one column or more"),
        ({"max_train": 0}, "max_train must be at least 1"),
        ({"test_split": "other"}, "has no split 'other'"),
    ],
)
def test_texts_that_cannot_be_had_are_refused_in_a_sentence(tmp_path, options, said):
    path = write_jsonl(tmp_path / "few.jsonl", [{"text": f"text {i}", "tags": [i]} for i in range(30)])
    with pytest.raises(InputError, match=said):
        data.load_texts(path, **options)


def test_too_few_texts_to_hold_some_back_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "one.jsonl", [{"text": "alone"}])
    with pytest.raises(InputError, match="enough texts to hold some back for test"):
        data.load_texts(path)
