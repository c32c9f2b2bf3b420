"""Embedders with a dense layer, with other tokens, and with more than one language; the recipes that make them."""

import csv
import dataclasses
import functools
import json

import numpy as np
import pytest
import small_tables
import torch
from safetensors.torch import load_file, save_file
from scipy import stats
from small_data import FP32, embedder, split, texts
from torch import nn

from smallmodels import (
    cli,
    data,
    distilling,
    errors,
    evaluation,
    kept,
    losses,
    metrics,
    models,
    records,
    students,
    training,
)
from smallmodels.data.batches import collate
from smallmodels.data.splits import Split
from smallmodels.distilling import translations
from smallmodels.errors import DamagedError, InputError
from smallmodels.models import TextModel
from smallmodels.report import systems
from smallmodels.runs import Run
from smallmodels.teachers import addresses


def projected(folder, num_dimensions=6):
    teacher = embedder(folder)
    rows = models.forward_texts(teacher, texts(40), compute=FP32)
    return students.project(teacher, students.principal_axes(rows, num_dimensions))


def squashed(folder):
    """With a dense layer that ends with Tanh, as LaBSE has one."""
    teacher = embedder(folder)
    with models.seeded(1):
        teacher.model.projection = models.Dense(32, 24, activation="tanh")
        nn.init.normal_(teacher.model.projection.weight, std=0.2)  # into where Tanh bends
    return teacher


def squashed_and_projected(folder):
    teacher = squashed(folder)
    return students.project(teacher, students.principal_axes(models.forward_texts(teacher, texts(40)), 6))


def with_pooling(model, pooling):
    model.model.pooling = pooling
    return model


# Saved and read back


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("make", [embedder, projected, squashed_and_projected])
def test_saved_embedder_gives_the_same_vectors_in_sentence_transformers_and_when_read_back(
    tiny_model_folder, tmp_path, make, pooling
):
    from sentence_transformers import SentenceTransformer

    model = with_pooling(make(tiny_model_folder), pooling)
    model.save(tmp_path / "model")
    rows = [*texts(5), "card " * 100]
    ours = models.forward_texts(model, rows, compute=FP32)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(rows)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    again = TextModel.load(tmp_path / "model")
    assert again.weights_sha256() == model.weights_sha256()
    np.testing.assert_array_equal(models.forward_texts(again, rows, compute=FP32), ours)
    teacher, fetched = models.load_embedder(str(tmp_path / "model"), max_length=32)
    np.testing.assert_array_equal(models.forward_texts(teacher, rows, compute=FP32), ours)
    assert models.embedding_width(fetched) == ours.shape[1]


@pytest.mark.parametrize(
    ("pooling", "activations"),
    [("mean", [nn.Identity()]), ("cls", [nn.Tanh()]), ("max", [nn.Tanh(), nn.Identity()])],
)
def test_model_that_sentence_transformers_saved_with_dense_layers_is_read(
    tiny_model_folder, tmp_path, pooling, activations
):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    transformer = modules.Transformer(str(tiny_model_folder), max_seq_length=32)
    widths = [32, 12, 5]
    with models.seeded(0):
        dense = [
            modules.Dense(widths[i], widths[i + 1], activation_function=activation)
            for i, activation in enumerate(activations)
        ]
    theirs = SentenceTransformer(modules=[transformer, modules.Pooling(32, pooling_mode=pooling), *dense], device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    ours, fetched = models.load_embedder(str(tmp_path / "theirs"), max_length=32)
    expected = theirs.encode(texts(4), normalize_embeddings=True)
    np.testing.assert_allclose(models.forward_texts(ours, texts(4), compute=FP32), expected, atol=1e-6)
    assert models.embedding_width(fetched) == expected.shape[1] == widths[len(activations)]


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_xlm-roberta_config.json"])
def test_capitals_are_made_small_where_sentence_transformers_does_so(tiny_model_folder, tmp_path, name):
    from sentence_transformers import SentenceTransformer

    plain = embedder(tiny_model_folder)
    plain.save(tmp_path / "asked")
    cased = type(plain.tokenizer)(vocab=plain.tokenizer.get_vocab(), do_lower_case=False, model_max_length=64)
    cased.save_pretrained(tmp_path / "asked")
    rows = [row.upper() for row in texts(4)]
    kept, _ = models.load_embedder(str(tmp_path / "asked"), max_length=32)
    (tmp_path / "asked" / "sentence_bert_config.json").unlink()
    (tmp_path / "asked" / name).write_text('{"max_seq_length": 32, "do_lower_case": true}')
    asked, _ = models.load_embedder(str(tmp_path / "asked"), max_length=32)
    ours = models.forward_texts(asked, rows, compute=FP32)
    theirs = SentenceTransformer(str(tmp_path / "asked"), device="cpu").encode(rows)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    assert np.abs(models.forward_texts(kept, rows, compute=FP32) - ours).max() > 0.01
    students.trim_vocabulary(asked, texts(4)).save(tmp_path / "student")  # and so does a student of it
    again = SentenceTransformer(str(tmp_path / "student"), device="cpu").encode(rows)
    np.testing.assert_allclose(again, ours, atol=1e-6)
    np.testing.assert_allclose(
        models.forward_texts(TextModel.load(tmp_path / "student"), rows, compute=FP32), ours, atol=1e-6
    )


def test_tokenizer_that_makes_capitals_small_already_is_left_alone(tiny_model_folder, tmp_path):
    model = embedder(tiny_model_folder)
    model.save(tmp_path / "model")
    (tmp_path / "model" / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    found, _ = models.load_embedder(str(tmp_path / "model"), max_length=32)
    assert type(found.tokenizer) is type(model.tokenizer)
    assert data.cuts_alike(found.tokenizer, model.tokenizer)


def test_teachers_that_differ_by_an_activation_have_addresses_of_their_own(tiny_model_folder):
    one, two = squashed(tiny_model_folder), squashed(tiny_model_folder)
    assert addresses.of_model(one) == addresses.of_model(two)
    two.model.projection.activation = "identity"
    assert addresses.of_model(one) != addresses.of_model(two)


def damaged(folder, *, config=None, weights=None):
    path = folder / "2_Dense"
    if config:
        settings = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(settings | config))
    if weights:
        tensors = load_file(path / "model.safetensors")
        save_file(weights(tensors), path / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (
            {"config": {"activation_function": "torch.nn.modules.activation.GELU"}},
            InputError,
            "found one with torch.nn",
        ),
        ({"config": {"use_residual": True}}, InputError, "that are linear or end with Tanh, found one with a residual"),
        ({"config": {"module_input_name": "token_embeddings"}}, InputError, "found one with vectors of tokens"),
        ({"config": {"out_features": 7}}, DamagedError, "should hold the weights of its dense layer"),
        ({"weights": lambda found: {"linear.bias": found["linear.weight"][0].clone()}}, DamagedError, "dense layer"),
    ],
)
def test_dense_layer_that_cannot_be_ours_is_refused_in_one_sentence(tiny_model_folder, tmp_path, damage, kind, message):
    projected(tiny_model_folder).save(tmp_path / "model")
    damaged(tmp_path / "model", **damage)
    with pytest.raises(kind, match=message):
        models.load_embedder(str(tmp_path / "model"))


def test_module_that_is_not_ours_is_refused(tiny_model_folder, tmp_path):
    embedder(tiny_model_folder).save(tmp_path / "model")
    path = tmp_path / "model" / "modules.json"
    path.write_text(path.read_text().replace("Normalize", "LSTM"))
    with pytest.raises(InputError, match="should embed by Transformer, Pooling, Dense, Normalize, found LSTM"):
        models.load_embedder(str(tmp_path / "model"))
    modules = json.loads(path.read_text().replace("LSTM", "Normalize"))
    path.write_text(json.dumps([modules[0], modules[2], modules[1]]))
    with pytest.raises(InputError, match="in this order, found Transformer, Normalize, Pooling: choose another"):
        models.load_embedder(str(tmp_path / "model"))


def test_prompt_before_every_text_is_refused_and_one_on_request_is_left_out(tiny_model_folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    embedder(tiny_model_folder).save(tmp_path / "model")
    prompts = {"query": "find the film: ", "document": ""}
    for default in (None, "document", "query"):
        theirs = SentenceTransformer(
            str(tmp_path / "model"), device="cpu", prompts=prompts, default_prompt_name=default
        )
        theirs.save(str(tmp_path / str(default)))
        if default == "query":
            with pytest.raises(InputError, match=r"should embed texts as they are, but puts 'find the film: ' before"):
                models.load_embedder(str(tmp_path / "query"))
        else:
            ours, _ = models.load_embedder(str(tmp_path / str(default)), max_length=32)
            expected = theirs.encode(texts(3))
            np.testing.assert_allclose(models.forward_texts(ours, texts(3), compute=FP32), expected, atol=1e-6)


# Fewer dimensions


def test_principal_axes_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(0).normal(size=(60, 8)) @ np.diag([5, 4, 3, 2, 1, 0.5, 0.2, 0.1]) + 0.5
    axes = students.principal_axes(rows.astype(np.float32), 3)
    expected = PCA(3).fit(rows).components_
    signs = np.sign((axes.T * expected).sum(1, keepdims=True))
    np.testing.assert_allclose(axes.T, signs * expected, atol=1e-4)
    assert (np.take_along_axis(axes, np.abs(axes).argmax(0)[None], axis=0) > 0).all()
    with pytest.raises(InputError, match=r"dimensions must be in 1 … 8"):
        students.principal_axes(rows, 9)


def test_projected_student_begins_along_the_axes_also_behind_a_dense_layer(tiny_model_folder):
    teacher = embedder(tiny_model_folder)
    rows = models.forward_texts(teacher, texts(40), compute=FP32)
    axes = students.principal_axes(rows, 6)
    once = students.project(teacher, axes)
    expected = rows @ axes
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(models.forward_texts(once, texts(40), compute=FP32), expected, atol=1e-5)
    assert once.notes["dimensions"] == 6
    again = students.principal_axes(models.forward_texts(once, texts(40), compute=FP32), 3)
    twice = students.project(once, again)
    expected = expected @ again
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(models.forward_texts(twice, texts(40), compute=FP32), expected, atol=1e-5)
    with pytest.raises(InputError, match="should have the 32 dimensions of the teacher's, found 6"):
        students.project(once, axes)


def test_projection_comes_behind_a_dense_layer_that_is_not_linear(tiny_model_folder):
    teacher = squashed(tiny_model_folder)
    rows = models.forward_texts(teacher, texts(40), compute=FP32)
    axes = students.principal_axes(rows, 6)
    found = students.project(teacher, axes)
    expected = rows @ axes
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(models.forward_texts(found, texts(40), compute=FP32), expected, atol=1e-5)
    assert [layer.activation for layer in found.model.dense_layers] == ["tanh", "identity"]
    before, after = (models.Operations.of(m.model).per_text for m in (embedder(tiny_model_folder), found))
    assert after - before == 2 * (32 * 24 + 24 * 6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_adapters_of_an_embedder_keep_pooling_dense_layer_and_length(tiny_model_folder, tmp_path, pooling):
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    base = with_pooling(projected(tiny_model_folder), pooling)
    adapted = students.add_lora(base, rank=2)
    before = models.forward_texts(base, texts(4), compute=FP32)
    np.testing.assert_allclose(models.forward_texts(adapted, texts(4), compute=FP32), before, atol=1e-6)
    trained = {name for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name and "pooler" not in name for name in trained)
    told = {line[:20].strip(): line[20:] for line in students.describe_change(base, adapted).splitlines()}
    num_trained = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
    assert f"→ {num_trained:>8,}" in told["trained parameters"]
    assert all("%" not in line for name, line in told.items() if name != "trained parameters")  # adapters are folded in
    rows = split(base.tokenizer, 16)
    rows = dataclasses.replace(rows, labels=None, teacher=np.eye(16, 6, dtype=np.float32))
    config = training.TrainConfig(learning_rate=1e-2, max_steps=2, batch_size=8)
    student, adapter = training.fit_with_adapter(
        adapted, rows, lambda m, b: losses.embedding_mse(m(**b.inputs), b.teacher), config, compute=FP32
    )
    after = models.forward_texts(student, texts(4), compute=FP32)
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-6)
    student.save(tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(texts(4))
    np.testing.assert_allclose(theirs, after, atol=1e-6)
    adapter.save(tmp_path / "adapter")
    around = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_model_folder), tmp_path / "adapter").eval()
    again = models.Embedder(around, base.model.projection, pooling).eval()
    found = models.forward_texts(dataclasses.replace(base, model=again), texts(4), compute=FP32)
    np.testing.assert_allclose(found, after, atol=1e-5)


def test_projection_is_trained_and_counted_once_per_text(tiny_model_folder):
    student = projected(tiny_model_folder)
    bare = models.Operations.of(embedder(tiny_model_folder).model)
    assert models.Operations.of(student.model).per_text == bare.per_text + 2 * 32 * 6
    assert models.Operations.of(student.model).per_token == bare.per_token
    before = student.model.projection.weight.detach().clone()
    rows = split(student.tokenizer, 16)
    rows = type(rows)(rows.name, rows.ids, rows.texts, tokens=rows.tokens, teacher=np.eye(16, 6, dtype=np.float32))
    config = training.TrainConfig(learning_rate=1e-2, max_steps=2, batch_size=8)
    training.fit(student, rows, lambda m, b: losses.embedding_mse(m(**b.inputs), b.teacher), config, compute=FP32)
    assert not torch.equal(student.model.projection.weight, before)


def test_unit_length_is_that_of_what_was_cut_off():
    vectors = torch.tensor([[3.0, 4.0, 9.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = losses.unit_length(vectors[:, :2])
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 0.0]])
    assert found.dtype == torch.float64


# Other tokens

GERMAN = ["ein flugzeug hebt ab", "die bank und die karte", "der film ist gut", "größe"] * 3


def test_new_vocabulary_keeps_vectors_of_whole_words_and_averages_pieces_of_new_ones(tiny_model_folder):
    teacher = embedder(tiny_model_folder)
    student = students.new_vocabulary(teacher, [*texts(30), *GERMAN], vocabulary_size=420)
    old, new = teacher.tokenizer.get_vocab(), student.tokenizer.get_vocab()
    table = teacher.transformer.get_input_embeddings().weight
    rows = student.transformer.get_input_embeddings().weight
    for ours, theirs in (("Ġfilm", "film"), ("Ġbank", "bank"), ("[CLS]", "[CLS]"), ("e", "##e")):
        assert (ours not in new) == (theirs not in old), ours
        assert ours not in new or torch.equal(rows[new[ours]], table[old[theirs]])
    pieces = teacher.tokenizer("karte", add_special_tokens=False)["input_ids"]
    assert torch.allclose(rows[new["Ġkarte"]], table[pieces].mean(0))
    assert len(student.tokenizer) == student.model.config.vocab_size == student.notes["vocabulary_size"] <= 420
    assert student.transformer.config.pad_token_id == student.tokenizer.pad_token_id == teacher.tokenizer.pad_token_id
    ids = student.tokenizer("Film")["input_ids"]
    assert student.tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "Ġfilm", "[SEP]"]
    assert student.tokenizer.unk_token_id not in student.tokenizer("今天 ทำไม")["input_ids"]
    assert student.tokenizer.tokenize("größe") != student.tokenizer.tokenize("grosse")


def test_student_with_a_new_vocabulary_is_read_back_and_embeds_as_its_teacher_what_both_write_alike(
    tiny_model_folder, tmp_path
):
    from sentence_transformers import SentenceTransformer

    teacher = embedder(tiny_model_folder)
    student = students.new_vocabulary(teacher, [*texts(30), *GERMAN], vocabulary_size=600)
    new, old = (model.tokenizer.tokenize for model in (student, teacher))
    alike = [row for row in texts(30) if [t.removeprefix("Ġ") for t in new(row)] == old(row)]
    assert alike
    one, two = (models.forward_texts(model, alike, compute=FP32) for model in (teacher, student))
    np.testing.assert_allclose(two, one, atol=1e-6)
    student.save(tmp_path / "model")
    ours = models.forward_texts(TextModel.load(tmp_path / "model"), GERMAN, compute=FP32)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(GERMAN)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    np.testing.assert_array_equal(models.forward_texts(student, GERMAN, compute=FP32), ours)


def test_new_vocabulary_is_the_same_for_the_same_texts_and_refuses_no_room_for_bytes(tiny_model_folder):
    teacher = embedder(tiny_model_folder)
    one, two = (students.new_vocabulary(teacher, GERMAN, vocabulary_size=300) for _ in range(2))
    assert one.weights_sha256() == two.weights_sha256()
    assert one.tokenizer.get_vocab() == two.tokenizer.get_vocab()
    with pytest.raises(InputError, match="vocabulary_size must be >= 261"):
        students.new_vocabulary(teacher, GERMAN, vocabulary_size=260)


# Quality


def scored_pairs(count=30, name="test"):
    rows = texts(2 * count, seed=3)
    scores = np.random.default_rng(1).uniform(0, 5, count).astype(np.float32)
    return Split(name, [f"{name}/{i}" for i in range(count)], rows[:count], scores, seconds=rows[count:])


def test_evaluate_similarity_is_scipys_correlation_also_when_embeddings_are_cut_off(tiny_model_folder):
    model, pairs = projected(tiny_model_folder), scored_pairs()
    found = evaluation.evaluate_similarity({"student": model}, pairs, prefixes=(2, 4, 99), compute=FP32)
    one, two = (
        models.forward_texts(model, list(rows), compute=FP32).astype(np.float64)
        for rows in (pairs.texts, pairs.seconds)
    )
    (result,) = found.results
    cosines = (one * two).sum(1)
    assert result.metrics["spearman"].value == pytest.approx(stats.spearmanr(cosines, pairs.labels).statistic)
    assert result.metrics["pearson"].value == pytest.approx(stats.pearsonr(cosines, pairs.labels).statistic, rel=1e-4)
    assert [row["group"] for row in result.groups] == ["first 2 dimensions", "first 4 dimensions"]
    for row, m in zip(result.groups, (2, 4), strict=True):
        a, b = one[:, :m], two[:, :m]
        cut = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert row["spearman"] == pytest.approx(stats.spearmanr(cut, pairs.labels).statistic)
        assert row["spearman_low"] < row["spearman"] < row["spearman_high"]
    assert found.predictions["student/score"] == pytest.approx(cosines, abs=1e-5)


def test_mean_spearman_is_the_mean_of_scipys_and_its_interval_draws_an_item_in_all_languages():
    generator = np.random.default_rng(0)
    targets = generator.normal(size=50)
    rows = [targets + generator.normal(size=50) for _ in range(3)]
    found = metrics.mean_spearman(rows, targets)
    assert found.value == pytest.approx(np.mean([stats.spearmanr(row, targets).statistic for row in rows]))
    assert found.n == 50
    same = metrics.mean_spearman([rows[0]] * 4, targets)  # four times the same tells no more than once
    once = metrics.spearman(rows[0], targets)
    assert (same.low, same.high) == pytest.approx((once.low, once.high))


def test_bitext_accuracy_looks_in_both_directions(tiny_model_folder):
    model, rows = embedder(tiny_model_folder), texts(12)
    pairs = Split("test", list("abcdef"), rows[:6], seconds=[*rows[:3], *rows[9:]])
    there, back = evaluation.bitext_accuracy(model, pairs, compute=FP32)
    one, two = (models.forward_texts(model, list(part), compute=FP32) for part in (pairs.texts, pairs.seconds))
    similarities = one @ two.T
    assert there.value == pytest.approx((similarities.argmax(1) == np.arange(6)).mean())
    assert back.value == pytest.approx((similarities.argmax(0) == np.arange(6)).mean())
    assert there.n == back.n == 6
    swapped = Split("test", ["a", "b", "c"], rows[:3], seconds=[rows[0], rows[2], rows[1]])
    assert [m.value for m in evaluation.bitext_accuracy(model, swapped, compute=FP32)] == [1 / 3, 1 / 3]


def test_evaluate_languages_has_a_row_for_each_and_none_for_what_a_baseline_cannot_do(tiny_model_folder):
    from smallmodels import baselines

    splits = {"en": scored_pairs(), "de": scored_pairs()}
    rows = texts(5)
    bitexts = {"de": Split("test", list("abcde"), rows, seconds=rows)}
    tfidf = baselines.TfidfScorer.fit(scored_pairs(), num_classes=0)
    model = embedder(tiny_model_folder)
    found = evaluation.evaluate_languages({"student": model, "tfidf": tfidf}, splits, bitexts, compute=FP32)
    student, other = found.results
    assert [row["group"] for row in student.groups] == ["en", "de"]
    assert "num_bitexts" not in student.groups[0]
    assert (student.groups[1]["num_bitexts"], student.groups[1]["accuracy_into_english"]) == (5, 1.0)
    assert "num_bitexts" not in other.groups[1]
    assert student.metrics["spearman"].value == pytest.approx(student.groups[0]["spearman"])
    assert len(found.predictions["id"]) == len(found.predictions["student/score"]) == 60
    costs = [{"group": "de", "tokens_per_word": 2.0}]
    both = evaluation.with_group_rows(found.results, "student", costs)
    assert (both[0].groups[1]["tokens_per_word"], both[0].groups[1]["num_bitexts"]) == (2.0, 5)
    assert both[1] == other


# Scores without a teacher


def test_pair_is_one_example_whose_texts_are_embedded_as_alone_in_any_part_of_a_batch(tiny_model_folder):
    model, pairs = embedder(tiny_model_folder), scored_pairs(9)
    pairs = dataclasses.replace(pairs, texts=["card " * 100, *list(pairs.texts)[1:]])  # cut like any text, alone
    apart = data.tokenize_apart(pairs, model.tokenizer, max_length=32)
    whole = collate(apart, np.arange(9)[::-1].copy())
    for part in (whole, *whole.split(4)):
        rows = [int(row.rpartition("/")[2]) for row in part.ids]
        with torch.no_grad():
            found = model.model.eval()(**data.both_texts(part.inputs)).numpy()
        both = [pairs.texts[i] for i in rows] + [pairs.seconds[i] for i in rows]
        np.testing.assert_allclose(found, models.forward_texts(model, both, compute=FP32), atol=1e-6)
    assert whole.num_tokens == sum(len(model.tokenizer(t)["input_ids"]) for t in pairs.seconds) + sum(
        min(32, len(model.tokenizer(t)["input_ids"])) for t in pairs.texts
    )


def test_learning_of_scores_has_the_loss_of_sentence_transformers(tiny_model_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    model, pairs = embedder(tiny_model_folder), scored_pairs(12)
    least, greatest = min(pairs.labels), max(pairs.labels)
    config = training.TrainConfig(learning_rate=1e-3, batch_size=8)
    learning = distilling.learning_of_scores(model, pairs, config)
    assert learning.config.batch_size == 4  # pairs, with as many texts
    ours = learning.loss_fn(model.model.eval(), collate(learning.train, np.arange(12)))
    model.save(tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").eval()
    features = [theirs.preprocess(list(side)) for side in (pairs.texts, pairs.seconds)]
    scaled = torch.tensor((pairs.labels - least) / (greatest - least))
    assert ours.mean().item() == pytest.approx(CosineSimilarityLoss(theirs)(features, scaled).item(), rel=1e-4)


def test_learning_of_scores_brings_cosines_nearer_to_them(tiny_model_folder):
    model, pairs = embedder(tiny_model_folder), scored_pairs(16)
    config = training.TrainConfig(learning_rate=1e-3, max_steps=12, batch_size=16)
    learning = distilling.learning_of_scores(model, pairs, config)
    batch = collate(learning.train, np.arange(16))
    before = learning.loss_fn(model.model.eval(), batch).mean().item()
    trained = training.fit(model.copy(), learning.train, learning.loss_fn, learning.config, compute=FP32)
    assert learning.loss_fn(trained.model.eval(), batch).mean().item() < 0.8 * before


# Data


def table(path, head, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
    return str(path)


def test_load_sentences_takes_each_text_of_all_columns_once(tmp_path):
    rows = [("a cat", "a dog"), ("a dog", "a bird"), ("", "a cat"), ("a fish", "two fish")]
    path = table(tmp_path / "t.csv", ["one", "two"], rows)
    with pytest.raises(InputError, match="1 that are empty"):
        data.load_sentences(path, text_columns=("one", "two"))
    found = data.load_sentences(path, text_columns=("one", "two"), drop_bad_texts=True, held_out=["a bird ", "x"])
    assert list(found.train.texts) == ["a cat", "a dog", "a fish", "a bird", "two fish"]
    assert list(found.train.ids) == ["train/0/one", "train/1/one", "train/3/one", "train/1/two", "train/3/two"]
    notes = found.source.notes
    assert notes["num_duplicates_dropped"] == 2
    assert notes["overlap"] == {"train/held out": 1}
    assert notes["num_dropped"] == {"train/blank_text": 1}
    clean = data.load_sentences(
        path, text_columns=("one", "two"), drop_bad_texts=True, held_out=["a bird"], drop_overlap=True, max_train=2
    )
    assert len(clean.train) == 2
    assert "a bird" not in list(clean.train.texts)
    with pytest.raises(InputError, match=r"has no column 'text': choose --text-columns from one, two"):
        data.load_sentences(path)
    lists = small_tables.write_jsonl(tmp_path / "t.jsonl", [{"text": ["a cat"]}])
    with pytest.raises(InputError, match=r"found list in train row 0: choose another (column|--text-columns)$"):
        data.load_sentences(lists)


def test_load_search_pairs_keeps_documents_apart_and_every_query_finds_its_own(tmp_path):
    rows = [(f"question {i}", f"answer {i // 2}") for i in range(40)] + [("question 3", "another answer")]
    path = table(tmp_path / "t.csv", ["q", "a"], rows)
    found = data.load_search_pairs(path, query_column="q", document_column="a")
    parts = {"train": set(found.train.texts)}
    for name, task in (("validation", found.validation), ("test", found.test)):
        parts[name] = set(task.documents.texts)
        assert len(task) == 2 * len(task.documents)
        for query, relevant in zip(task.queries.texts, task.relevant, strict=True):
            assert task.documents.texts[relevant] == f"answer {int(query.split()[1]) // 2}"
    assert (len(parts["test"]), len(parts["validation"])) == (4, 2)
    assert not parts["train"] & (parts["test"] | parts["validation"])
    assert found.notes["num_duplicate_queries_dropped"] == {"train": 1}
    assert len(found.corpus) == 20
    again = data.load_search_pairs(path, query_column="q", document_column="a")
    assert again.test.fingerprint() == found.test.fingerprint()


def test_load_search_pairs_counts_what_other_tests_have_and_leaves_it_out_if_asked(tmp_path):
    path = table(tmp_path / "t.csv", ["q", "a"], [(f"question {i}", f"answer {i}") for i in range(40)])
    columns = {"query_column": "q", "document_column": "a"}
    seen = data.load_search_pairs(path, **columns).train.texts[0]
    found = data.load_search_pairs(path, **columns, held_out=[seen])
    assert found.source.notes["overlap"] == {"train/held out": 1}
    without = data.load_search_pairs(path, **columns, held_out=[seen], drop_overlap=True)
    assert len(without.train) == len(found.train) - 1
    assert seen not in list(without.train.texts)


def test_errors_of_similarity_pairs_name_the_flags_that_a_recipe_has(tmp_path):
    path = table(tmp_path / "t.csv", ["a", "b"], [("x", "y")])
    with pytest.raises(InputError, match=r"has no column for the first text: choose another --similarity-dataset$"):
        data.load_similarity_pairs(path)
    languages = errors.flags_named({"--dataset-config": "--languages"}, "never")
    with pytest.raises(InputError, match=r"^x has none: choose one with --languages, from a, b$"), languages:
        raise InputError("x has none: choose one with --dataset-config, from a, b")
    others = errors.flags_named({"--dataset-config": None}, "never")
    with pytest.raises(InputError, match=r"^x has none: add --accept-license$"), others:
        raise InputError("x has none: add --accept-license")


def test_multilingual_topics_has_no_configuration_beside_its_languages():
    recipe = cli.load_recipe("multilingual_topics")
    with pytest.raises(InputError, match="name them with --languages"):
        recipe.Config(dataset_config="eng_Latn")


def dataset_of_languages(root, rows_by_language):
    """A data set for the loopback hub: parquet files in a folder for each configuration."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = root / "datasets" / "org" / "many"
    for language, rows in rows_by_language.items():
        for name in ("train", "dev", "test"):
            path = folder / "data" / language / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            one, two, score = zip(*rows, strict=True)
            values = {"sentence1": list(one), "sentence2": list(two), "similarity_score": pa.array(score, pa.float32())}
            pq.write_table(pa.table(values), path)
    configs = "".join(
        f"- config_name: {language}\n  data_files:\n"
        + "".join(f"  - split: {name}\n    path: data/{language}/{name}.parquet\n" for name in ("train", "dev", "test"))
        for language in rows_by_language
    )
    languages = "".join(f"- {language}\n" for language in rows_by_language)
    (folder / "README.md").write_text(f"---\nlicense: mit\nlanguage:\n{languages}configs:\n{configs}---\n")


def parallel(folder, rows=40, languages=("en", "sw"), head=("text", "title")):
    """A file of texts for each language, row by row; the originals of rows 0 and 1 are the same."""
    own = texts(2 * rows, seed=7)
    own[1] = own[0]
    for language in languages:
        mark = "" if language == "en" else f"{language} "
        table(folder / f"{language}.csv", head, [(mark + own[i], mark + own[rows + i]) for i in range(rows)])
    return str(folder / "{language}.csv")


def test_load_translations_holds_the_same_originals_back_in_every_language(tmp_path):
    path = parallel(tmp_path)
    found = data.load_translations(path, ("en", "sw"), text_columns=("text", "title"), max_rows=None)
    sizes = [len(getattr(found["sw"], role)) for role in ("train", "validation", "test")]
    assert sizes == [57, 6, 17]  # a fifth of 79 originals, one of which stands there twice
    for role in ("train", "validation", "test"):
        english, other = (getattr(splits, role) for splits in found.values())
        assert [f"sw {text}" for text in english.texts] == list(other.texts)
        assert list(english.ids) == list(other.ids)
        assert role == "train" or list(other.seconds) == list(english.texts)
    train = found["en"].train
    assert train.seconds is None
    assert data.sentences_of(train) is train
    assert not {*train.texts} & {*found["en"].test.texts, *found["en"].validation.texts}  # the same original, twice
    assert found["sw"].languages == ["sw"]
    load = functools.partial(data.load_translations, path, ("en", "sw"), text_columns=("title",))
    everything = load()
    seen = load(held_out=[everything["en"].train.texts[0], everything["en"].train.texts[-1]], max_rows=3)
    assert [len(split) for split in (seen["en"].train, seen["sw"].train, seen["sw"].test)] == [3, 3, 3]
    assert seen["sw"].notes["overlap"] == {"train/held out": 1}
    assert seen["sw"].source.splits == {"train": 3, "validation": 3, "test": 3}
    assert seen["sw"].source.fingerprint != everything["sw"].source.fingerprint


def scored_languages(folder, *, repeated=(), unscored=()):
    """60 pairs with scores in English and Swahili, where some are the same pair; of the last, two have no score."""
    own, scores = texts(120, seed=5), np.random.default_rng(2).uniform(0, 5, 60).round(2)
    scores[list(unscored)] = 2.5
    for place, language in enumerate(("en", "sw")):
        rows = [[f"{language} {own[i]}", f"{language} {own[60 + i]}", scores[i]] for i in range(60)]
        if unscored:
            rows[unscored[place]][2] = ""
        for i in repeated if language == "sw" else ():
            rows[i][:2] = rows[repeated[0]][:2]
        table(folder / f"{language}.csv", ["sentence1", "sentence2", "score"], rows)
    return str(folder / "{language}.csv")


@pytest.mark.parametrize("languages", [("en", "sw"), ("sw", "en")])
def test_load_translated_pairs_holds_the_same_rows_back_where_one_language_repeats_itself(tmp_path, languages):
    found = data.load_translated_pairs(scored_languages(tmp_path, repeated=range(0, 60, 5)), languages)
    for role, size in (("train", 43), ("validation", 5), ("test", 12)):
        english, other = (getattr(found[language], role) for language in ("en", "sw"))
        assert len(english) == size
        assert list(english.ids) == list(other.ids)
        assert english.labels.tolist() == other.labels.tolist()


def test_load_translated_pairs_compares_rows_and_not_only_scores(tmp_path):
    path = scored_languages(tmp_path, unscored=(3, 4))
    with pytest.raises(InputError, match=r"train is train/4 in en and train/3 in sw: give every row its texts and its"):
        data.load_translated_pairs(path, ("en", "sw"))


def test_sources_of_translated_pairs_tell_of_the_rows_that_were_used(tmp_path):
    load = functools.partial(data.load_translated_pairs, scored_languages(tmp_path, repeated=(1, 2)), ("sw", "en"))
    whole, most, few = (load(max_rows=count)["sw"] for count in (None, 1000, 4))
    assert few.source.splits == {"train": 4, "validation": 4, "test": 4}
    assert few.source.notes["split_fingerprints"]["test"] == few.test.fingerprint()
    assert few.notes == few.source.notes
    assert few.source.fingerprint != whole.source.fingerprint == most.source.fingerprint
    assert (whole.notes["num_duplicates_in_train"], most.source.splits) == (1, whole.source.splits)


def test_translations_without_a_row_a_text_or_a_column_are_refused_in_one_sentence(tmp_path):
    path = parallel(tmp_path)
    load = functools.partial(data.load_translations, path, ("en", "sw"))
    with pytest.raises(InputError, match=r"has no column 'x': choose --text-columns from text, title$"):
        load(text_columns=("x",))
    rows = (tmp_path / "sw.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "sw.csv").write_text("\n".join(rows[:-1]), encoding="utf-8")
    with pytest.raises(InputError, match="train has 40 in en and 39 in sw: choose other languages"):
        load(text_columns=("text",))
    (tmp_path / "sw.csv").write_text("\n".join([*rows[:-1], ",x"]), encoding="utf-8")
    with pytest.raises(InputError, match=r"found 1 that are empty \(row 40 is the first\): choose another --dataset"):
        load(text_columns=("text",))
    with pytest.raises(InputError, match="name --text-columns if there are no scores"):
        data.load_translated_pairs(path, ("en", "sw"))


def test_evaluate_translations_is_the_rank_of_the_original_in_each_language(tiny_model_folder):
    model, rows = embedder(tiny_model_folder), texts(12)
    right = Split("test", list("abcdef"), rows[:6], seconds=rows[:6])
    wrong = dataclasses.replace(right, texts=[rows[1], rows[0], *rows[2:6]])
    bitexts = {"de": right}
    found = evaluation.evaluate_translations({"student": model}, {"de": right, "fr": wrong}, bitexts, compute=FP32)
    (result,) = found.results
    german, french = result.groups
    assert (german["mrr_at_10"], german["recall_at_1"], german["accuracy_into_english"]) == (1, 1, 1)
    assert french["recall_at_1"] == pytest.approx(4 / 6)
    assert "num_bitexts" not in french
    one, two = (models.forward_texts(model, list(part), compute=FP32) for part in (wrong.texts, wrong.seconds))
    similarities = one @ two.T
    ranks = (similarities > similarities.diagonal()[:, None]).sum(1) + 1
    assert french["mrr_at_10"] == pytest.approx((1 / ranks).mean())
    assert result.metrics["mrr_at_10"].value == pytest.approx((1 + (1 / ranks).mean()) / 2)
    assert result.metrics["mrr_at_10"].n == 6  # originals
    assert evaluation.translation_rank(model, {"de": right, "fr": wrong}, compute=FP32) == pytest.approx(
        result.metrics["mrr_at_10"].value
    )
    assert len(found.predictions["id"]) == len(found.predictions["student/score"]) == 12


@pytest.mark.slow
@pytest.mark.hub
def test_translated_pairs_are_refused_where_rows_or_scores_differ(tmp_path):
    from conftest import serving

    english = [("a plane", "a bird", 1.5), ("a cat", "a dog", 2.5)]
    german = [("ein flugzeug", "ein vogel", 1.5), ("eine katze", "ein hund", 2.5)]
    dataset_of_languages(
        tmp_path,
        {"en": english, "de": german, "fr": [*german, ("x", "y", 0.5)], "es": [german[0], (*german[1][:2], 3.0)]},
    )
    with serving(tmp_path, tmp_path) as hub:
        load = "data.load_translated_pairs('org/many', ('en', '{}'))"
        good = hub.evaluate(f"{{k: list(s.test.texts) for k, s in {load.format('de')}.items()}}", tmp_path / "home")
        assert good.get() == {"en": ["a plane", "a cat"], "de": ["ein flugzeug", "eine katze"]}
        for language, message in (("fr", "train has 2 in en and 3 in fr"), ("es", "train/1 has 2.5 in en and 3 in es")):
            refused = hub.evaluate(load.format(language), tmp_path / "home")
            assert refused.error == "InputError"
            assert message in refused.message


# The recipes


@pytest.fixture(scope="module")
def short_windows():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("measure_inference", "language_costs"):
            patch.setattr(evaluation, name, functools.partial(getattr(evaluation, name), window_s=0.02))
        yield


@pytest.fixture(scope="module")
def own_pairs(tmp_path_factory):
    """A CSV file of 60 pairs with scores."""
    rows = texts(120, seed=5)
    scores = np.random.default_rng(2).uniform(0, 5, 60).round(2)
    path = tmp_path_factory.mktemp("own") / "pairs.csv"
    return table(path, ["one", "two", "score"], [(rows[i], rows[60 + i], scores[i]) for i in range(60)]), table(
        path.parent / "sts.csv",
        ["sentence1", "sentence2", "score"],
        [(rows[i], rows[60 + i], scores[i]) for i in range(60)],
    )


def run_distill_embedder(teacher, own_pairs, out, *more):
    words = ["run", "distill_embedder", "--smoke", "--out", str(out), "--teacher", str(teacher), "--num-layers", "2"]
    words += ["--dataset", own_pairs[0], "--dataset-config", "none", "--similarity-dataset", own_pairs[1]]
    assert cli.main([*words, "--similarity-config", "none", "--max-length", "32", *more]) == 0
    (folder,) = (out / "distill_embedder").iterdir()
    return folder


def test_distill_embedder_leaves_a_student_of_fewer_dimensions_that_may_be_cut_off(
    tiny_model_folder, own_pairs, tmp_path, capsys, short_windows
):
    from sentence_transformers import SentenceTransformer

    flags = ["--text-columns", "one", "two", "--dimensions", "8", "--prefixes", "2", "4", "--cosine-weight", "1"]
    folder = run_distill_embedder(tiny_model_folder, own_pairs, tmp_path, *flags)
    assert "operations per token" in "".join(capsys.readouterr())  # what was done to the student
    record = records.read_record(folder)
    roles = {"teacher", "student", "untrained_student", "projected_teacher", "tfidf"}
    assert {result.role for result in record.results} == {use.role for use in record.inference} == roles
    assert all(result.metrics["spearman"].n == 12 for result in record.results)
    assert all(result.metrics["mrr_at_10"].n > 12 for result in record.results)  # searches in Python's docstrings
    assert [s.name for s in record.sources if s.role == "evaluation"][1:] == [data.python_docs.NAME]
    assert [row["group"] for row in record.result("student").groups] == ["first 2 dimensions", "first 4 dimensions"]
    assert record.model["dimensions"] == 8
    ours = models.forward_texts(TextModel.load(folder / "model"), texts(3), compute=FP32)
    theirs = SentenceTransformer(str(folder / "model"), device="cpu").encode(texts(3))
    assert theirs.shape == (3, 8)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert cli.main(["verify", str(folder)]) == 0


@pytest.mark.slow
def test_distill_embedder_searches_where_the_data_have_queries(
    tiny_model_folder, own_pairs, tmp_path, capsys, short_windows
):
    flags = ["--query-column", "one", "--document-column", "two"]
    folder = run_distill_embedder(tiny_model_folder, own_pairs, tmp_path, *flags)
    record = records.read_record(folder)
    assert cli.main(["search", str(folder), "a good film"]) == 0
    assert capsys.readouterr().out.strip()
    for role in ("teacher", "student", "untrained_student", "tfidf"):
        found = record.result(role).metrics
        assert list(found) == ["spearman", "pearson", "mrr_at_10", "recall_at_1", "recall_at_10"]
    assert "dimensions" not in record.model  # the student has no dense layer


def embedding_texts(teacher, dataset, folder, **changes):
    """What distill_embedder would learn on and be judged on."""
    same = {"dataset": dataset, "similarity_dataset": dataset, "dataset_config": None, "similarity_config": None}
    config = cli.load_recipe("distill_embedder").Config(teacher=str(teacher), max_pairs=20, **same, **changes)
    with Run(folder, meter="none", quiet=True, accept_licenses=["unknown:org/any"]) as run:
        run.begin("distill_embedder", config)
        return distilling.load_embedding_texts(run, config)[0]


def texts_held_out(pairs):
    return {text for split in (pairs.validation, pairs.test) for text in data.sentences_of(split).texts}


QUERIES = {"query_column": "sentence1", "document_column": "sentence2"}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"text_columns": ("sentence2",)}, QUERIES])
def test_texts_of_pairs_that_are_drawn_for_tests_are_not_learned_on(tiny_model_folder, own_pairs, tmp_path, changes):
    found = embedding_texts(tiny_model_folder, own_pairs[1], tmp_path / "run", **changes)
    learned, held_out = set(found.learned.train.texts), texts_held_out(found.pairs)
    assert (len(held_out), len(learned & held_out)) == (2 * (12 + 5), 0)
    assert learned if changes else learned == set(data.sentences_of(found.pairs.train).texts)


@pytest.mark.slow
def test_texts_that_splits_of_the_data_share_are_learned_on_and_counted(tiny_model_folder, tmp_path, monkeypatch):
    rows = texts(40)
    parts = {"train": rows[:20], "validation": rows[18:30], "test": rows[30:]}
    columns = {name: {"sentence1": own[::2], "sentence2": own[1::2]} for name, own in parts.items()}
    scored = {name: {**own, "score": [i / 3 for i in range(len(own["sentence1"]))]} for name, own in columns.items()}
    small_tables.serve(monkeypatch, scored)
    monkeypatch.setattr(Run, "pin", lambda _, *names: [name for name, _ in names])
    found = embedding_texts(tiny_model_folder, "org/any", tmp_path / "run")
    assert set(found.learned.train.texts) == set(rows[:20])
    assert found.learned.source.notes["overlap"] == {"train/held out": 2}


@pytest.mark.slow
def test_distill_embedder_has_a_control_where_the_texts_are_those_of_scored_pairs(
    tiny_model_folder, own_pairs, tmp_path, short_windows
):
    flags = ["--dataset", own_pairs[1], "--max-train", "20"]
    folder = run_distill_embedder(tiny_model_folder, own_pairs, tmp_path, *flags)
    record = records.read_record(folder)
    assert {"student", "label_only"} < {use.role for use in record.inference}
    assert record.result("label_only").built_by == ["label_only"]
    pairs, learned = (kept.load(folder / "phases" / name).value for name in ("similarity_data", "data"))
    assert not set(learned.train.texts) & texts_held_out(pairs)
    config = json.loads((folder / "config.json").read_text())
    steps = [value for name, value in config["choices"].items() if name.startswith("label_only_steps")]
    paid, of_train = (record.cost_of(names)[1] for names in (["cache", "train"], ["train"]))
    probes = [record.cost_of([name])[1] for name in ("probe_soft", "probe_label_only")]
    assert steps[0] == max(1, round(2 * paid / of_train * probes[0] / probes[1]))
    assert record.phase("train").num_examples == 2 * 20
    assert record.phase("label_only").num_examples == steps[-1] * 10  # pairs, of as many texts
    won, seeds = systems.seeds_won(*(systems.System("", role, [record]) for role in ("student", "label_only")))
    assert (won in (0, 1), seeds) == (True, 1)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("distill_embedder", {"query_column": "question"}, "give both --query-column and --document-column"),
        ("distill_embedder", {"prefixes": (32, 0)}, "prefixes must be > 0"),
        (
            "distill_embedder",
            {"mse_weight": 0.0, "pair_weight": 0.0},
            "one of the weights must be > 0",
        ),
        ("distill_embedder", {"cosine_weight": -1.0}, "cosine_weight must be >= 0"),
        ("distill_static_search", {"text_columns": ("text",)}, "columns of data of your own: give these with --data"),
        (
            "distill_static_search",
            {"dataset": "own.csv", "text_columns": ("text",), "query_column": "question"},
            "either texts or queries with documents",
        ),
        ("extend_embedder_languages", {"languages": ("de", "en")}, "should name one or more besides en"),
        ("extend_embedder_languages", {"bitexts": ("deu-eng", "ger-eng")}, "code of a known language, got ger-eng"),
        ("extend_embedder_languages", {"languages": ()}, "should name one or more besides en"),
        ("extend_embedder_languages", {"similarity_dataset": "org/name"}, "name the columns of these with --text-col"),
    ],
)
def test_config_that_cannot_work_is_refused_in_one_sentence(recipe, changes, message):
    with pytest.raises(InputError, match=message):
        cli.load_recipe(recipe).Config(**changes)


def test_sentences_of_all_languages_have_the_teachers_word_on_their_original():
    pairs = {language: scored_pairs(4, name="train") for language in ("en", "de", "zh")}
    originals = data.sentences_of(pairs["en"])
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    every = data.with_originals_rows(pairs, dataclasses.replace(originals, teacher=rows))
    assert len(every) == 24
    assert every.ids[8] == "de/train/0/1"
    for place in range(24):
        assert every.texts[place] == originals.texts[place % 8]
        assert every.teacher[place].tolist() == rows[place % 8].tolist()
    assert list(data.join_splits(pairs.values()).labels) == 3 * list(pairs["en"].labels)


def test_bitexts_are_those_of_the_languages_that_are_wanted():
    configs = ("deu-eng", "cmn-eng", "fra-eng")
    found = data.bitexts_by_language(configs, ("de", "zho_Hans", "sw"))
    assert found == {"de": "deu-eng", "zho_Hans": "cmn-eng"}
    with pytest.raises(InputError, match="one for each language, got ara-eng and arb-eng: leave out one"):
        data.bitexts_by_language(("ara-eng", "arb-eng"), ("ar",))
    with pytest.raises(InputError, match=r"known language, got kat-eng: .* begins with amh, .*, deu, "):
        data.load_bitexts("org/none", ("kat-eng",), ("ka",))


def test_languages_without_a_bitext_are_named_in_the_limits(tmp_path):
    languages = ("en", "de", "sw")
    learned = data.load_translations(parallel(tmp_path, languages=languages), languages, text_columns=("text",))
    texts_of = functools.partial(translations.Translations, original="en", learned=learned, scored={})
    some = texts_of(bitexts={"de": learned["de"].test}, have_own_scores=False).limits
    assert some[-1].startswith("No bitext tests sw: ")
    every = texts_of(bitexts={name: learned[name].test for name in ("de", "sw")}, have_own_scores=True).limits
    assert not [limit for limit in every if "No bitext" in limit]


@pytest.mark.slow
@pytest.mark.hub
def test_extend_embedder_languages_has_a_row_for_each_language(hub, hub_home, tiny_model_folder, tmp_path):
    import subprocess
    import sys

    words = ["run", "extend_embedder_languages", "--smoke", "--languages", "de", "zh", "--out", str(tmp_path)]
    words += ["--teacher", str(tiny_model_folder), "--num-layers", "2", "--accept-license", "other:stsbenchmark"]
    done = subprocess.run(
        [sys.executable, "-m", "smallmodels", *words],
        env=hub.environment(hub_home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "extend_embedder_languages").iterdir()
    record = records.read_record(folder)
    for role in ("teacher", "student"):
        groups = record.result(role).groups
        assert [row["group"] for row in groups] == ["en", "de", "zh"]
        assert all(row["tokens_per_word"] > 0 and row["cpu_s_per_1000"] > 0 for row in groups)
        assert ["num_bitexts" in row for row in groups] == [False, True, True]
    assert record.languages == ["en", "de", "zh"]
    assert "zh" in (folder / "model" / "README.md").read_text()


@pytest.mark.slow
def test_extend_embedder_languages_takes_local_files_without_the_hub(
    tiny_model_folder, own_pairs, tmp_path, monkeypatch, short_windows
):
    import socket

    with open(own_pairs[1], encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    for language in ("en", "sw"):
        words = [[*(f"{language} {text}" for text in row[:2]), row[2]] for row in rows]
        table(tmp_path / f"{language}.csv", head, words)

    def refuse(*_):
        raise AssertionError("a run on local files should open no connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    words = ["run", "extend_embedder_languages", "--smoke", "--dataset", str(tmp_path / "{language}.csv"), "--bitexts"]
    words += ["--languages", "sw", "--teacher", str(tiny_model_folder), "--num-layers", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs" / "extend_embedder_languages").iterdir()
    groups = records.read_record(folder).result("student").groups
    assert [row["group"] for row in groups] == ["en", "sw"]
    assert all("num_bitexts" not in row for row in groups)


def run_extend_embedder_languages(teacher, dataset, out, *more):
    words = ["run", "extend_embedder_languages", "--smoke", "--dataset", dataset, "--bitexts", "--languages", "sw"]
    words += ["--text-columns", "text", "title", "--teacher", str(teacher), "--num-layers", "2"]
    assert cli.main([*words, "--out", str(out), *more]) == 0
    (folder,) = (out / "extend_embedder_languages").iterdir()
    return folder


@pytest.mark.slow
def test_extend_embedder_languages_learns_on_texts_without_scores(tiny_model_folder, tmp_path, short_windows):
    folder = run_extend_embedder_languages(tiny_model_folder, parallel(tmp_path), tmp_path / "runs")
    record = records.read_record(folder)
    assert record.metric == "mrr_at_10"
    assert all(list(result.metrics) == ["mrr_at_10", "recall_at_1"] for result in record.results)  # and no Spearman
    assert {result.role for result in record.results} == {"teacher", "student", "untrained_student"}
    groups = {row["group"]: row for row in record.result("student").groups}
    assert set(groups) == {"en", "sw"}
    assert all(row["tokens_per_word"] > 0 for row in groups.values())
    assert ("mrr_at_10" in groups["sw"], "mrr_at_10" in groups["en"]) == (True, False)
    assert record.languages == ["en", "sw"]
    assert any(limit.startswith("No bitext tests sw: ") for limit in record.limits)
    assert "was not measured" in (folder / "model" / "README.md").read_text(encoding="utf-8")
    assert cli.main(["verify", str(folder)]) == 0


@pytest.mark.slow
def test_extend_embedder_languages_is_judged_by_scores_of_other_data(
    tiny_model_folder, own_pairs, tmp_path, short_windows
):
    with open(own_pairs[1], encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    (tmp_path / "scored").mkdir()
    for language in ("en", "sw"):
        table(tmp_path / "scored" / f"{language}.csv", head, rows)
    flags = ["--similarity-dataset", str(tmp_path / "scored" / "{language}.csv")]
    folder = run_extend_embedder_languages(tiny_model_folder, parallel(tmp_path), tmp_path / "runs", *flags)
    record = records.read_record(folder)
    assert record.metric == "spearman"
    assert [row["group"] for row in record.result("student").groups] == ["en", "sw"]
    assert {source.role for source in record.sources if source.kind == "dataset"} == {"dataset", "evaluation"}
    trained = next(source for source in record.sources if source.role == "dataset")
    assert trained.notes["overlap"] == {"train/held out": 0}
    assert {result.role for result in record.results} >= {"tfidf"}
