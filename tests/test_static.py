"""Static models: numpy gives what torch trained, others load what was saved, and a teacher's tokens make a student."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import small_tokenizers
import torch
from huggingface_hub import ModelCard
from small_data import (
    FP32,
    LABELS,
    assert_same_bits,
    classifier,
    cross_entropy,
    embedder,
    probabilities,
    split,
    texts,
    weights,
)
from tokenizers import Tokenizer

from smallmodels import cli, evaluation, models, records, sources, students, teachers, training
from smallmodels.data import python_docs
from smallmodels.data.splits import cuts_alike, tokenize
from smallmodels.errors import DamagedError, InputError
from smallmodels.evaluation import Contender
from smallmodels.models import StaticClassifier, StaticEmbedder, TextModel
from smallmodels.static import StaticModel, StaticRetriever, sum_rows

MANY = [*texts(40), "", " ", "☃ ☃", "card", "half of an emoji \ud83d", "open the file and return " * 20]
ENCODERS = [kind for kind in small_tokenizers.KINDS if "Llama" not in kind]


def student_of(teacher, dimensions=12):
    vectors = students.token_vectors(teacher, compute=FP32)
    centred = vectors - vectors.mean(0)
    return students.static_embedder(teacher, centred @ students.principal_axes(centred, dimensions), texts=texts(60))


@pytest.fixture(scope="module")
def teacher(tiny_model_folder):
    return embedder(tiny_model_folder)


@pytest.fixture(scope="module")
def static_embedder(teacher):
    return student_of(teacher)


@pytest.fixture(scope="module", params=[None, 7], ids=["linear", "hidden"])
def static_classifier(static_embedder, request):
    return students.add_classifier(static_embedder, LABELS, hidden_size=request.param)


# Without torch


def reference(model, text):
    """The direction of the sum of the vectors of a text's tokens, one by one in float64."""
    ids = model.tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids
    total = np.zeros(model.embeddings.shape[1])
    for i in ids[: model.max_length]:
        total = total + model.embeddings[i].astype(np.float64)
    return total / max(np.linalg.norm(total), 1e-12)


@pytest.mark.parametrize("half", [False, True])
def test_encode_is_the_direction_of_the_sum_of_token_vectors(static_embedder, half):
    model = models.to_numpy(static_embedder)
    model = model.in_fp16() if half else model
    found = model.encode(MANY)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [reference(model, text) for text in MANY], atol=2e-6)
    assert not found[MANY.index("")].any()
    np.testing.assert_allclose(np.linalg.norm(found[:40], axis=1), 1, rtol=1e-6)


def test_encode_cuts_a_long_text_and_takes_any_number_of_texts(static_embedder, monkeypatch):
    model = models.to_numpy(static_embedder)
    words = ["please", "help", "me", "read", "the", "file"] * 20
    np.testing.assert_array_equal(*model.encode([" ".join(words), " ".join(words[: model.max_length])]))
    assert model.encode([]).shape == (0, 12)
    whole = model.encode(MANY)
    monkeypatch.setattr("smallmodels.static._TEXTS_PER_CALL", 7)
    np.testing.assert_allclose(model.encode(MANY), whole, atol=1e-6)
    with pytest.raises(InputError, match="list"):
        model.encode("one text")


def test_sum_rows_adds_the_rows_of_each_text():
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = sum_rows(table, [[1, 1, 3], [], [0]])
    np.testing.assert_array_equal(found, [[15, 18, 21], [0, 0, 0], [0, 1, 2]])
    assert sum_rows(table, []).shape == (0, 3)
    assert sum_rows(table, [[], []]).shape == (2, 3)


def test_numpy_gives_what_torch_gives(static_embedder, static_classifier):
    expected = models.forward_texts(static_embedder, MANY, compute=FP32)
    np.testing.assert_allclose(models.to_numpy(static_embedder).encode(MANY), expected, atol=1e-6)
    found = models.to_numpy(static_classifier).predict_proba(MANY)
    np.testing.assert_allclose(found, probabilities(static_classifier, MANY), atol=1e-6)
    assert found.std(0).min() > 1e-4


def test_predict_proba_gives_the_same_however_many_rows_a_product_has(static_classifier, monkeypatch):
    model = models.to_numpy(static_classifier)
    whole = model.predict_proba(MANY)
    for most in (1, 100):
        monkeypatch.setattr("smallmodels.static._ONE_THREAD", most)
        np.testing.assert_allclose(model.predict_proba(MANY), whole, atol=1e-6)
    assert model.predict_proba([]).shape == (0, 3)


def test_an_embedder_has_no_probabilities_and_a_transformer_no_table(static_embedder, teacher):
    with pytest.raises(InputError, match="use encode"):
        models.to_numpy(static_embedder).predict_proba(["a"])
    with pytest.raises(InputError, match="one vector per token"):
        models.to_numpy(teacher)


def test_using_a_saved_model_imports_neither_torch_nor_transformers(static_classifier, tmp_path):
    models.to_numpy(static_classifier).save(tmp_path / "model")
    code = """
import json, sys
from smallmodels.static import StaticModel
model = StaticModel.load(sys.argv[1])
texts = json.loads(sys.argv[2])
answer = {"embeddings": model.encode(texts).tolist(), "probabilities": model.predict_proba(texts).tolist()}
print(json.dumps(answer | {"modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""
    some = [text for text in MANY if "\ud83d" not in text]
    command = [sys.executable, "-c", code, str(tmp_path / "model"), json.dumps(some)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    here = models.to_numpy(static_classifier)
    np.testing.assert_allclose(answer["embeddings"], here.encode(some), atol=1e-6)
    np.testing.assert_allclose(answer["probabilities"], here.predict_proba(some), atol=1e-6)
    heavy = {"torch", "transformers", "accelerate", "sklearn", "scipy", "pandas", "datasets", "huggingface_hub"}
    assert not heavy & set(answer["modules"])


def test_retriever_gives_cosines(static_embedder):
    model = models.to_numpy(static_embedder)
    found = StaticRetriever.fit(model, texts(9)).similarities(MANY[:3])
    expected = [[reference(model, query) @ reference(model, text) for text in texts(9)] for query in MANY[:3]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_saved_retriever_finds_the_same_and_a_damaged_one_is_refused(static_embedder, tmp_path):
    retriever = StaticRetriever.fit(models.to_numpy(static_embedder), texts(9))
    retriever.save(tmp_path)
    loaded = StaticRetriever.load(tmp_path)
    np.testing.assert_array_equal(loaded.similarities(MANY[:3]), retriever.similarities(MANY[:3]))
    safetensors.numpy.save_file({"documents": np.ones((9, 5), np.float32)}, tmp_path / "documents.safetensors")
    with pytest.raises(DamagedError, match="should hold a row of 12 numbers for each document"):
        StaticRetriever.load(tmp_path)


# Files


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_is_the_same_when_it_is_loaded(static_classifier, tmp_path, half):
    model = models.to_numpy(static_classifier)
    model = model.in_fp16() if half else model
    model.save(tmp_path / "model")
    loaded = StaticModel.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(MANY), model.predict_proba(MANY))
    assert loaded.embeddings.dtype == (np.float16 if half else np.float32)
    assert (loaded.label_names, loaded.max_length, loaded.notes) == (tuple(LABELS), model.max_length, model.notes)
    assert loaded.weights_sha256() == sources.weights_sha256([tmp_path / "model" / "model.safetensors"])
    assert loaded.num_parameters == models.num_parameters(static_classifier.model)
    assert loaded.size_bytes == model.size_bytes < models.size_bytes(static_classifier.model) + 1
    again = TextModel.load(tmp_path / "model")
    np.testing.assert_allclose(probabilities(again, MANY), model.predict_proba(MANY), atol=1e-6)
    assert evaluation.label_names(again) == LABELS


def test_a_text_model_that_is_static_is_saved_and_loaded_with_the_same_bits(
    static_classifier, static_embedder, tmp_path
):
    for name, model in (("classifier", static_classifier), ("embedder", static_embedder)):
        model.save(tmp_path / name)
        loaded = TextModel.load(tmp_path / name)
        assert_same_bits(weights(loaded), weights(model))
        assert (loaded.notes, loaded.max_length) == (model.notes, model.max_length)
        assert cuts_alike(loaded.tokenizer, model.tokenizer)
        first, second = (tokenize(MANY, tokenizer, max_length=32) for tokenizer in (model.tokenizer, loaded.tokenizer))
        np.testing.assert_array_equal(first.ids, second.ids)
        assert first.tokenizer == second.tokenizer


@pytest.mark.parametrize("half", [False, True])
def test_sentence_transformers_gives_the_same_vectors(static_classifier, tmp_path, half):
    from sentence_transformers import SentenceTransformer

    model = models.to_numpy(static_classifier)
    model = model.in_fp16() if half else model
    model.save(tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    some = [
        text for text in MANY if "\ud83d" not in text and (text.strip("☃ ") or not half)
    ]  # its 0 / 0 in fp16 is NaN
    np.testing.assert_allclose(theirs.encode(some), model.encode(some), atol=2e-3 if half else 1e-6)


def test_files_are_those_that_model2vec_reads(static_embedder, tmp_path):
    models.to_numpy(static_embedder).save(tmp_path)
    table = safetensors.numpy.load_file(tmp_path / "model.safetensors")["embeddings"]
    assert table.shape == (len(static_embedder.tokenizer), 12)
    assert json.loads((tmp_path / "config.json").read_text())["normalize"] is True
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("card").ids == [static_embedder.tokenizer.convert_tokens_to_ids("card")]


def cut_table(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    safetensors.numpy.save_file({**tensors, "embeddings": tensors["embeddings"][:-1]}, folder / "model.safetensors")


def cut_head(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    changed = {"classifier.0.bias": tensors["classifier.0.bias"][:-1]}
    safetensors.numpy.save_file({**tensors, **changed}, folder / "model.safetensors")


def drop_label(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"]["2"]
    (folder / "config.json").write_text(json.dumps(config))


DAMAGE = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "torn weights": lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x02 no safetensors"),
    "torn tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "other tensors": lambda folder: safetensors.numpy.save_file({"a": np.zeros(2)}, folder / "model.safetensors"),
    "other config": lambda folder: (folder / "config.json").write_text("[]"),
    "small table": cut_table,
    "small head": cut_head,
    "few labels": drop_label,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model_is_refused_in_a_sentence(static_embedder, tmp_path, name):
    models.to_numpy(students.add_classifier(static_embedder, LABELS)).save(tmp_path)
    DAMAGE[name](tmp_path)
    with pytest.raises(DamagedError, match=str(tmp_path)):
        StaticModel.load(tmp_path)


# From a teacher


@pytest.mark.parametrize("kind", ENCODERS)
def test_token_vectors_are_the_teachers_mean_over_a_token_and_its_special_ones(kind):
    teacher = small_tokenizers.tiny(kind)
    teacher.notes["x"] = 1
    found = students.token_vectors(teacher, compute=FP32)
    special = teacher.tokenizer("a")["input_ids"]
    bare = teacher.tokenizer("a", add_special_tokens=False)["input_ids"]
    start = special.index(bare[0])
    for token in (bare[0], len(teacher.tokenizer) - 1, 40):
        ids = [*special[:start], token, *special[start + len(bare) :]]
        with torch.no_grad():
            states = teacher.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        mean = states.astype(np.float64).mean(0)
        np.testing.assert_allclose(found[token], mean / np.linalg.norm(mean), atol=1e-5)
    assert found.shape == (len(teacher.tokenizer), 16)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_static_student_cuts_texts_as_its_teacher_does_without_special_tokens(kind, tmp_path):
    teacher = small_tokenizers.tiny(kind)
    student = student_of(teacher, 4)
    plain = [text for text in small_tokenizers.sentences()[:200] if text]
    ours = tokenize(plain, student.tokenizer, max_length=48)
    expected = [ids[:48] for ids in teacher.tokenizer(plain, add_special_tokens=False)["input_ids"]]
    np.testing.assert_array_equal(ours.ids, np.concatenate(expected))
    models.to_numpy(student).save(tmp_path)
    found = StaticModel.load(tmp_path).encode(plain)
    np.testing.assert_allclose(found, models.forward_all(student, ours, compute=FP32), atol=1e-6)


def test_a_student_of_a_trimmed_teacher_has_the_trimmed_table(teacher):
    small = students.trim_vocabulary(teacher, ["open the file"])
    assert len(student_of(small, 4).model.embedding.weight) == len(small.tokenizer) < len(teacher.tokenizer)


def test_a_language_model_is_no_teacher_of_a_static_student(tiny_language_model_folder):
    model, _ = models.load_language_model(str(tiny_language_model_folder))
    with pytest.raises(InputError, match="embedder or a classifier"):
        students.token_vectors(model)


def test_frequent_tokens_weigh_less_and_special_ones_nothing(teacher):
    ones = np.ones((len(teacher.tokenizer), 2))
    rows = ["card card card bank"]
    table = students.static_embedder(teacher, ones, texts=rows).model.embedding.weight[:, 0].detach().numpy()
    ids = teacher.tokenizer.convert_tokens_to_ids
    assert table[ids("card")] == pytest.approx(1e-3 / (1e-3 + 0.75))
    assert table[ids("bank")] == pytest.approx(1e-3 / (1e-3 + 0.25))
    assert table[ids("film")] == 1
    assert not table[[ids(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]].any()
    unread = students.static_embedder(teacher, ones).model.embedding.weight[:, 0].detach().numpy()
    harmonic = (1 / np.arange(1, len(ones) + 1)).sum()
    assert unread[ids("card")] == pytest.approx(1e-3 / (1e-3 + 1 / (ids("card") + 1) / harmonic))


# Trained


def test_fit_trains_a_static_classifier_and_gives_the_same_bits_twice(static_classifier):
    train = split(static_classifier.tokenizer, 48)
    config = training.TrainConfig(learning_rate=0.05, num_epochs=12, batch_size=16)

    def fitted():
        return training.fit(static_classifier.copy(), train, cross_entropy, config, compute=FP32)

    student = fitted()
    assert evaluation.accuracy(student, train, compute=FP32) > 0.95
    assert_same_bits(weights(student), weights(fitted()))
    assert isinstance(student.model, StaticClassifier)


def test_operations_of_a_static_classifier_are_those_of_its_layers_once_per_text(static_classifier):
    weights_of_layers = sum(layer.weight.numel() for layer in static_classifier.model.classifier)
    assert models.num_operations(static_classifier.model, np.array([3, 7])) == 2 * 2 * weights_of_layers


def test_dropout_leaves_out_whole_tokens():
    network = StaticEmbedder(np.eye(40))
    network.dropout.p = 0.5
    ids, mask = torch.arange(30).expand(8, 30), torch.ones(8, 30)
    with models.seeded(0):
        found = network.train()(ids, mask)
    counts = (found > 0).sum(1)
    assert counts.unique().numel() > 1  # each text loses others
    for row, count in zip(found, counts, strict=True):
        assert 0 < count < 30
        torch.testing.assert_close(row[row > 0], torch.full((count,), float(count) ** -0.5))
    torch.testing.assert_close(network.eval()(ids, mask)[:, :30], torch.full((8, 30), 30**-0.5))


def test_fit_leaves_the_table_alone_where_embeddings_are_not_trained(static_classifier):
    train = split(static_classifier.tokenizer)
    config = training.TrainConfig(learning_rate=0.05, num_epochs=1, train_embeddings=False)
    student = training.fit(static_classifier.copy(), train, cross_entropy, config, compute=FP32)
    before, after = weights(static_classifier), weights(student)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("classifier.")}


def test_a_static_embedder_learns_a_teachers_stored_embeddings(teacher, static_embedder, tmp_path):
    train = split(teacher.tokenizer, 48)
    signals = teachers.store_signals(teacher, train, compute=FP32, cache=tmp_path)
    train = train.with_signals(signals).tokenize(static_embedder.tokenizer, max_length=32)
    axes = torch.from_numpy(students.principal_axes(signals.values, 12)).float()

    def loss_fn(model, batch):
        target = torch.nn.functional.normalize(batch.teacher @ axes, dim=-1)
        return (model(**batch.inputs) - target).square().sum(-1)

    def distance(student):
        given = models.forward_all(student, train.tokens, compute=FP32)
        target = signals.values @ axes.numpy()
        return float(np.square(given - target / np.linalg.norm(target, axis=1, keepdims=True)).sum(1).mean())

    config = training.TrainConfig(learning_rate=0.02, num_epochs=20, batch_size=16)
    student = training.fit(static_embedder.copy(), train, loss_fn, config, compute=FP32)
    assert distance(student) < 0.3 * distance(static_embedder)


def test_evaluation_and_inference_take_a_model_without_torch(tiny_model_folder, static_classifier):
    rows = split(classifier(tiny_model_folder).tokenizer, 12, name="test")
    light = models.to_numpy(static_classifier)
    contenders = {"teacher": Contender(static_classifier), "student": Contender(light)}
    found = evaluation.evaluate_classifiers(contenders, rows, LABELS, compute=FP32)
    assert found.results[1].agreement.value == 1
    costs = evaluation.measure_inference(contenders, rows, window_s=0.02, protocol="smoke", compute=FP32)
    (use,) = [use for use in costs.inference if use.role == "student"]
    assert (use.num_parameters, use.size_bytes) == (light.num_parameters, light.size_bytes)
    assert use.throughput_per_s > 0


# Recipes


@pytest.fixture
def short_windows(monkeypatch):
    measure = functools.partial(evaluation.measure_inference, window_s=0.05)
    monkeypatch.setattr(evaluation, "measure_inference", measure)


@pytest.mark.slow
def test_recipe_leaves_a_classifier_that_is_used_without_torch(tiny_model_folder, tmp_path, short_windows, capsys):
    path = tmp_path / "tickets.csv"
    path.write_text("text,label\n" + "".join(f"{text},{LABELS[i % 3]}\n" for i, text in enumerate(texts(120))))
    words = ["run", "distill_static_embedder", "--smoke", "--teacher", str(tiny_model_folder), "--dataset", str(path)]
    assert cli.main([*words, "--dimensions", "8", "--max-length", "32", "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs" / "distill_static_embedder").iterdir()
    record = records.read_record(folder)
    controls = {"label_only", "label_only_full_cost"}
    assert {r.role for r in record.results} == {
        "teacher",
        "student",
        "untrained_student",
        *controls,
        "tfidf",
        "majority",
    }
    uses = {use.role: use for use in record.inference}
    assert uses["student"].size_bytes == record.model["size_bytes"] < uses["teacher"].size_bytes
    model = StaticModel.load(folder / "model")
    assert set(model.label_names) == set(LABELS)
    assert model.embeddings.dtype == np.float16
    assert record.model["weights_sha256"] == model.weights_sha256()
    card = folder / "model" / "README.md"
    assert ModelCard.load(card).data.library_name == "smallmodels"
    assert "StaticModel.load" in card.read_text()
    assert cli.main(["verify", str(folder)]) == 0
    capsys.readouterr()
    assert cli.main(["predict", str(folder), "open the file"]) == 0
    assert model.label_names[model.predict_proba(["open the file"]).argmax()] in capsys.readouterr().out


@pytest.mark.slow
def test_recipes_for_a_transformer_and_for_a_table_share_the_fine_tuned_teacher(
    tiny_model_folder, tmp_path, short_windows, monkeypatch
):
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tickets.csv"
    path.write_text("text,label\n" + "".join(f"{text},{LABELS[i % 3]}\n" for i, text in enumerate(texts(120))))
    for name in ("distill_text_classifier", "distill_static_embedder"):
        words = ["run", name, "--smoke", "--teacher", str(tiny_model_folder), "--dataset", str(path)]
        size = ["--num-layers", "2"] if name == "distill_text_classifier" else ["--dimensions", "8"]
        assert cli.main([*words, *size, "--max-length", "32", "--out", str(tmp_path / "runs")]) == 0
    assert len(list((tmp_path / "cache" / "fine-tuned-teacher").glob("*/entry.json"))) == 1
    assert len(list((tmp_path / "cache" / "signals").glob("*/entry.json"))) == 1


@pytest.mark.slow
def test_search_recipe_leaves_an_embedder_that_sentence_transformers_loads(
    tiny_model_folder, tmp_path, short_windows, capsys
):
    from sentence_transformers import SentenceTransformer

    words = ["run", "distill_static_search", "--smoke", "--teacher", str(tiny_model_folder), "--max-entries", "30"]
    assert cli.main([*words, "--dimensions", "8", "--out", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "distill_static_search").iterdir()
    record = records.read_record(folder)
    assert {result.role for result in record.results} == {"teacher", "student", "untrained_student", "tfidf"}
    theirs = SentenceTransformer(str(folder / "model"), device="cpu").encode(texts(5))
    np.testing.assert_allclose(theirs, StaticModel.load(folder / "model").encode(texts(5)), atol=1e-6)
    assert cli.main(["verify", str(folder)]) == 0
    capsys.readouterr()
    assert cli.main(["search", str(folder), "split a string at commas"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_search_recipe_learns_on_texts_alone_and_leaves_an_embedder(tiny_model_folder, tmp_path, short_windows, capsys):
    rows = texts(60)
    pairs = "".join(f"{one},{two}\n" for one, two in zip(rows[:30], rows[30:], strict=True))
    (tmp_path / "own.csv").write_text(f"title,body\n{pairs},\n")
    words = ["run", "distill_static_search", "--smoke", "--teacher", str(tiny_model_folder), "--dimensions", "8"]
    words += ["--dataset", str(tmp_path / "own.csv"), "--text-columns", "title", "body"]
    words += ["--out", str(tmp_path / "runs")]
    assert cli.main(words) == 2
    assert "or add --drop-bad-texts to leave such rows out" in capsys.readouterr().err.replace("\n", " ")
    assert cli.main([*words, "--drop-bad-texts"]) == 0
    folder = next(
        path.parent for path in (tmp_path / "runs" / "distill_static_search").glob(f"*/{records.RECORD_NAME}")
    )
    record = records.read_record(folder)
    assert record.phase("train").num_examples == 2 * 60 == 2 * len(rows)  # smoke takes two steps: both see all texts
    assert {source.role: source.name for source in record.sources if source.kind == "dataset"} == {
        "dataset": "own.csv",
        "evaluation": python_docs.NAME,
    }
    assert {result.role for result in record.results} == {"teacher", "student", "untrained_student", "tfidf"}
    assert StaticModel.load(folder / "model").encode(rows).shape == (60, 8)
    assert cli.main(["search", str(folder), rows[7]]) == 0
    assert rows[7][:60] in capsys.readouterr().out  # a line ends with the terminal


@pytest.mark.slow
def test_search_recipe_takes_queries_and_documents_of_ones_own(tiny_model_folder, tmp_path, short_windows, capsys):
    rows = texts(120)
    pairs = "".join(f"{query},{document}\n" for query, document in zip(rows[:60], rows[60:], strict=True))
    (tmp_path / "own.csv").write_text(f"question,answer\n{pairs}")
    words = ["run", "distill_static_search", "--smoke", "--teacher", str(tiny_model_folder), "--dimensions", "8"]
    words += ["--dataset", str(tmp_path / "own.csv"), "--document-column", "answer", "--out", str(tmp_path / "runs")]
    assert cli.main(words) == 2
    assert "has no column 'query': choose --query-column" in capsys.readouterr().err.replace("\n", " ")
    assert cli.main([*words, "--query-column", "question"]) == 0
    folder = next(
        path.parent for path in (tmp_path / "runs" / "distill_static_search").glob(f"*/{records.RECORD_NAME}")
    )
    record = records.read_record(folder)
    assert "own.csv" in record.title
    assert "Python" not in record.title
    assert not record.examples  # none of a user's own texts
