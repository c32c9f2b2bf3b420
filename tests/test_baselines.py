"""Baselines against scikit-learn on small texts, and through their files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from smallmodels import baselines
from smallmodels.data.splits import Split
from smallmodels.errors import DamagedError

TEXTS = [
    "my card was stolen on the train",
    "somebody stole the card I had",
    "card stolen, please block it",
    "how do I change my address",
    "I moved and need to change the address",
    "change of address after moving",
    "what is the fee for a transfer",
    "fees of transfers abroad",
    "is there a transfer fee",
]
LABELS = [0, 0, 0, 1, 1, 1, 2, 2, 2]
DOCUMENTS = ["shut il copy tree", "os path join", "sub process run command", "json dumps object"]


def split(texts: list[str] = TEXTS, labels: list[int] | None = LABELS) -> Split:
    indices = None if labels is None else np.asarray(labels, dtype=np.int64)
    return Split("train", [f"train/{i}" for i in range(len(texts))], list(texts), indices)


# Classifiers


def test_majority_classifier_gives_the_frequencies_of_train() -> None:
    model = baselines.MajorityClassifier.fit(split(["a", "b", "c", "d"], [2, 0, 2, 2]), num_classes=4)
    assert model.predict_proba(["x", "y"]).tolist() == [[0.25, 0, 0.75, 0]] * 2
    assert model.num_parameters == 4


def test_tfidf_classifier_learns_what_words_tell() -> None:
    model = baselines.TfidfClassifier.fit(split(), num_classes=3)
    probabilities = model.predict_proba(["they stole my card", "a new address", "the fee of the transfer"])
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]
    assert probabilities.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("num_texts", [6, 9])
def test_tfidf_classifier_equals_a_scikit_learn_pipeline(num_texts: int) -> None:
    # Six texts have two classes, for which scikit-learn keeps one row of weights.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    characters = TfidfVectorizer(ngram_range=(2, 4), sublinear_tf=True, analyzer="char_wb")
    pipeline = make_pipeline(make_union(words, characters), LogisticRegression(C=10.0, tol=1e-3, max_iter=300))
    pipeline.fit(TEXTS[:num_texts], LABELS[:num_texts])
    model = baselines.TfidfClassifier.fit(split(TEXTS[:num_texts], LABELS[:num_texts]), num_classes=num_texts // 3)
    queries = ["they stole it", "my address", "abroad", "", "nothing known 你好"]
    np.testing.assert_allclose(model.predict_proba(queries), pipeline.predict_proba(queries), atol=1e-3)


@pytest.mark.parametrize("labels", [[0, 0, 0, 3, 3, 3], [0, 0, 1, 1, 3, 3]])
def test_d2_tfidf_classifier_never_predicts_a_class_that_train_lacks(labels: list[int]) -> None:
    model = baselines.TfidfClassifier.fit(split(TEXTS[:6], labels), num_classes=5)
    probabilities = model.predict_proba(["card", "address", ""])
    assert probabilities.shape == (3, 5)
    assert set(np.flatnonzero(probabilities.sum(axis=0))) == set(labels)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert probabilities[0].argmax() == 0
    assert probabilities[1].argmax() in labels[3:]


def test_tfidf_classifier_knows_words_of_one_letter() -> None:
    model = baselines.TfidfClassifier.fit(split(["x", "x", "y", "y"], [0, 0, 1, 1]), num_classes=2)
    assert model.predict_proba(["x", "y"]).argmax(axis=1).tolist() == [0, 1]


def test_d2_tfidf_classifier_refuses_one_class() -> None:
    with pytest.raises(ValueError, match="two classes or more, train has one"):
        baselines.TfidfClassifier.fit(split(labels=[1] * 9), num_classes=2)


@pytest.mark.parametrize("kind", [baselines.TfidfClassifier, baselines.MajorityClassifier])
def test_d1_d3_classifiers_refuse_no_rows_no_labels_and_labels_out_of_range(kind: type) -> None:
    with pytest.raises(ValueError, match="labelled examples, found none"):
        kind.fit(split([], []), num_classes=2)
    with pytest.raises(ValueError, match="labelled examples, found none"):
        kind.fit(split(labels=None), num_classes=3)
    with pytest.raises(ValueError, match=r"in \[0, 2\), found 2"):
        kind.fit(split(), num_classes=2)
    with pytest.raises(ValueError, match="found -1"):
        kind.fit(split(labels=[-1] * 9), num_classes=2)


def test_d4_tfidf_classifier_refuses_texts_without_words_and_takes_odd_ones() -> None:
    with pytest.raises(ValueError, match="found none"):
        baselines.TfidfClassifier.fit(split(["!!!", "???"], [0, 1]), num_classes=2)
    odd = ["", "   ", "\0", "\ud800", "card " * 200_000]
    probabilities = baselines.TfidfClassifier.fit(split(), num_classes=3).predict_proba(odd)
    assert np.isfinite(probabilities).all()
    assert probabilities[4].argmax() == 0


# Retriever


def test_tfidf_retriever_finds_documents_by_shared_characters() -> None:
    model = baselines.TfidfRetriever.fit(DOCUMENTS)
    similarities = model.similarities(["running a command in a subprocess", "copying trees", "zzz"])
    assert similarities.shape == (3, 4)
    assert similarities[:2].argmax(axis=1).tolist() == [2, 0]
    assert similarities[2].tolist() == [0, 0, 0, 0]
    assert np.diag(model.similarities(DOCUMENTS)) == pytest.approx(1)


def test_tfidf_retriever_equals_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True).fit(DOCUMENTS)
    queries = ["dump an object", "join two paths"]
    expected = (vectorizer.transform(queries) @ vectorizer.transform(DOCUMENTS).T).toarray()
    np.testing.assert_allclose(baselines.TfidfRetriever.fit(DOCUMENTS).similarities(queries), expected, atol=1e-6)


def test_d1_tfidf_retriever_refuses_nothing_to_search() -> None:
    for documents in ([], ["", " "]):
        with pytest.raises(ValueError, match="found none"):
            baselines.TfidfRetriever.fit(documents)


# Files


def made(kind: str) -> tuple[baselines.MajorityClassifier | baselines.TfidfClassifier | baselines.TfidfRetriever, str]:
    """A fitted baseline, and the name of its function."""
    if kind == "retriever":
        return baselines.TfidfRetriever.fit(DOCUMENTS), "similarities"
    classes = {"majority": baselines.MajorityClassifier, "classifier": baselines.TfidfClassifier}
    return classes[kind].fit(split([*TEXTS, "naïve 你好 \ud800"], [*LABELS, 0]), num_classes=4), "predict_proba"


@pytest.mark.parametrize("kind", ["majority", "classifier", "retriever"])
def test_a_loaded_baseline_gives_the_same_numbers(kind: str, tmp_path: Path) -> None:
    model, function = made(kind)
    model.save(tmp_path / "new" / "folder")
    loaded = type(model).load(tmp_path / "new" / "folder")
    queries = ["somebody stole it", "run a command", "", "naïve 你好"]
    np.testing.assert_array_equal(getattr(loaded, function)(queries), getattr(model, function)(queries))
    assert (loaded.num_parameters, loaded.size_bytes) == (model.num_parameters, model.size_bytes)


@pytest.mark.parametrize("kind", ["majority", "classifier"])
def test_size_is_that_of_the_files(kind: str, tmp_path: Path) -> None:
    model, _ = made(kind)
    model.save(tmp_path)
    assert model.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_size_of_a_retriever_leaves_the_indexed_documents_out(tmp_path: Path) -> None:
    model, _ = made("retriever")
    model.save(tmp_path)
    assert 0 < model.size_bytes < sum(file.stat().st_size for file in tmp_path.iterdir())


def test_num_parameters_counts_every_array(tmp_path: Path) -> None:
    model, _ = made("classifier")
    model.save(tmp_path)
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert model.num_parameters == sum(array.size for array in arrays.values())


@pytest.mark.parametrize("kind", ["majority", "classifier", "retriever"])
def test_s5_a_file_that_is_not_safetensors_is_refused(kind: str, tmp_path: Path) -> None:
    model, _ = made(kind)
    model.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    for content in (b"", b"\x80\x04\x95 a pickle", weights.read_bytes()[:-8]):
        weights.write_bytes(content)
        with pytest.raises(DamagedError, match=re.escape(str(weights))):
            type(model).load(tmp_path)
    weights.unlink()
    with pytest.raises(DamagedError, match=re.escape(str(weights))):
        type(model).load(tmp_path)


@pytest.mark.parametrize("kind", ["majority", "classifier", "retriever"])
def test_arrays_of_another_baseline_are_refused(kind: str, tmp_path: Path) -> None:
    model, _ = made(kind)
    model.save(tmp_path)
    safetensors.numpy.save_file({"other": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(DamagedError, match="found other"):
        type(model).load(tmp_path)


@pytest.mark.parametrize("change", [lambda terms: terms[:-1], lambda terms: [*terms[:-1], terms[0]], lambda _: None])
@pytest.mark.parametrize("kind", ["classifier", "retriever"])
def test_a_vocabulary_that_does_not_fit_is_refused(kind: str, change, tmp_path: Path) -> None:
    model, _ = made(kind)
    model.save(tmp_path)
    path = tmp_path / "vocabulary.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps({name: change(terms) for name, terms in vocabulary.items()}))
    with pytest.raises(DamagedError, match=r"vocabulary\.json should list"):
        type(model).load(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("documents.indices", 10**6), ("documents.shape", 7)])
def test_a_damaged_matrix_is_refused_before_it_is_used(name: str, value: int, tmp_path: Path) -> None:
    model, _ = made("retriever")
    model.save(tmp_path)
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    arrays[name][0] = value
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(DamagedError, match=r"model\.safetensors"):
        baselines.TfidfRetriever.load(tmp_path)
