"""Quality against numbers worked out by hand, costs under a known meter, and finished models in use."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from sample_records import classifier_record
from small_data import FP32, LABELS, classifier, embedder, probabilities, retrieval_split, split, texts

from smallmodels import evaluation, models, sources, students
from smallmodels.data.splits import RetrievalSplit, Split, Splits
from smallmodels.energy import EnergyReading
from smallmodels.evaluation import Contender, Evaluation, Hit, InferenceCosts, SearchIndex
from smallmodels.evaluation import inference as inference_module
from smallmodels.phases import Context
from smallmodels.records import Component

TRUTH = [0, 0, 1, 1, 2, 2]
ANSWERS = [0, 1, 1, 1, 2, 0]


class Fixed:
    """Answers with one class per text, sure to 80 %."""

    num_parameters, size_bytes, number_format = 7, 28, "fp64"

    def __init__(self, answers):
        self.answers = answers

    def predict_proba(self, texts):
        assert len(texts) == len(self.answers)
        return np.where(np.arange(3)[None, :] == np.array(self.answers)[:, None], 0.8, 0.1)


@pytest.fixture
def rows():
    return Split("test", [f"test/{i}" for i in range(6)], [f"text {i}" for i in range(6)], np.array(TRUTH))


def evaluate(contenders, rows, **options):
    return evaluation.evaluate_classifiers(contenders, rows, LABELS, compute=FP32, **options)


def by_role(results):
    return {result.role: result for result in results}


# Classifiers


def test_evaluate_classifiers_gives_metrics_worked_out_by_hand(rows):
    contender = Contender(Fixed(ANSWERS), built_by=("train",), teacher_phases=("teacher",))
    (result,) = evaluate({"student": contender}, rows).results
    assert result.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert result.metrics["accuracy"].n == 6
    f1 = [1 / 2, 4 / 5, 2 / 3]  # 2·right / (predicted + there)
    assert result.metrics["macro_f1"].value == pytest.approx(sum(f1) / 3)
    assert [(row["label"], row["precision"], row["recall"], row["support"]) for row in result.per_class] == [
        ("bank", 1 / 2, 1 / 2, 2),
        ("film", 2 / 3, 1, 2),
        ("file", 1, 1 / 2, 2),
    ]
    assert [row["f1"] for row in result.per_class] == pytest.approx(f1)
    assert result.calibration_error == pytest.approx(0.8 - 4 / 6)
    assert (result.role, result.split) == ("student", "test")
    assert (result.built_by, result.teacher_phases) == (["train"], ["teacher"])
    for metric in result.metrics.values():
        assert metric.low < metric.value < metric.high


@pytest.mark.parametrize("order", [["teacher", "student"], ["student", "teacher"]])
def test_evaluate_classifiers_gives_agreement_with_the_teacher_in_any_order(rows, order):
    contenders = {"teacher": Fixed([0, 1, 1, 2, 2, 1]), "student": Fixed(ANSWERS)}
    results = by_role(evaluate({role: Contender(contenders[role]) for role in order}, rows).results)
    assert results["student"].agreement.value == pytest.approx(4 / 6)
    assert results["teacher"].agreement is None


def test_evaluate_classifiers_without_a_teacher_gives_no_agreement(rows):
    (result,) = evaluate({"student": Contender(Fixed(ANSWERS))}, rows).results
    assert result.agreement is None


def test_evaluate_classifiers_keeps_every_prediction(rows):
    columns = evaluate({"student": Contender(Fixed(ANSWERS)), "tfidf": Contender(Fixed([2] * 6))}, rows).predictions
    assert columns["id"] == rows.ids
    assert columns["label"] == ["bank", "bank", "film", "film", "file", "file"]
    assert columns["student/prediction"] == ["bank", "film", "film", "film", "file", "bank"]
    assert columns["tfidf/prediction"] == ["file"] * 6
    assert columns["student/score"] == [0.8] * 6
    assert {len(column) for column in columns.values()} == {6}


def test_evaluate_classifiers_runs_models_and_reports_progress(tiny_model_folder):
    model, done = classifier(tiny_model_folder), []
    rows = split(model.tokenizer, 9, name="test")
    context = Context(progress=lambda *at: done.append(at))
    result = evaluate({"teacher": model, "student": model.copy()}, rows, context=context)
    logits = models.forward_all(model, rows.tokens, compute=FP32)
    expected = torch.softmax(torch.from_numpy(logits), 1).numpy()
    assert result.predictions["student/prediction"] == [LABELS[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(result.predictions["student/score"], expected.max(1), atol=1e-5)
    right = (expected.argmax(1) == rows.labels).mean()
    assert by_role(result.results)["student"].metrics["accuracy"].value == pytest.approx(right)
    assert by_role(result.results)["student"].agreement.value == 1.0
    assert evaluation.accuracy(model, rows, compute=FP32) == pytest.approx(right)
    assert done == [(1, 2), (2, 2)]
    assert context.counts.num_examples == 18


def test_evaluate_classifiers_gives_each_model_the_texts_in_its_own_tokens(tiny_model_folder):
    model = classifier(tiny_model_folder)
    rows = split(model.tokenizer, 9, name="test")
    trimmed = students.trim_vocabulary(model, rows.texts)  # gives the same by other tokens
    for own in (rows, rows.tokenize(trimmed.tokenizer, max_length=32)):
        result = evaluate({"teacher": model, "student": trimmed}, own)
        assert result.predictions["student/score"] == result.predictions["teacher/score"]
        assert evaluation.accuracy(trimmed, own, compute=FP32) == evaluation.accuracy(model, own, compute=FP32)


def test_softmax_sums_to_one_for_large_logits():
    probabilities = evaluation.softmax(np.array([[1000.0, 999.0, 0.0], [-1000.0, -1000.0, -1000.0]], dtype=np.float32))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_allclose(probabilities[0, :2], [np.e / (1 + np.e), 1 / (1 + np.e)], atol=1e-12)
    np.testing.assert_allclose(probabilities[1], 1 / 3)


def test_evaluation_is_read_back(rows, tmp_path):
    result = evaluate({"teacher": Contender(Fixed(TRUTH)), "student": Contender(Fixed(ANSWERS))}, rows)
    result.save(tmp_path)
    assert Evaluation.load(tmp_path) == result


# Retrieval


class Known:
    """Similarities that are given."""

    num_parameters, size_bytes, number_format = 0, 0, "fp64"

    def __init__(self, similarities):
        self.values = np.array(similarities, dtype=np.float64)

    def similarities(self, queries):
        assert len(queries) == len(self.values)
        return self.values


def ranked(num_documents, places):
    """Similarities in which query i's document, at index i, stands at the given place."""
    values = np.zeros((len(places), num_documents))
    for query, place in enumerate(places):
        others = [d for d in range(num_documents) if d != query]
        order = [*others[: place - 1], query, *others[place - 1 :]]
        values[query, order] = np.linspace(1, 0, num_documents)
    return values


@pytest.fixture
def questions():
    documents = Split("d", [f"document/{i}" for i in range(14)], [f"document {i}" for i in range(14)])
    queries = Split("q", [f"query/{i}" for i in range(4)], [f"query {i}" for i in range(4)])
    return RetrievalSplit("test", queries, documents, np.arange(4))


def test_evaluate_retrieval_gives_ranks_worked_out_by_hand(questions):
    contenders = {"student": Contender(Known(ranked(14, [1, 2, 10, 11])), built_by=("train",))}
    result = evaluation.evaluate_retrieval(contenders, questions, compute=FP32)
    (found,) = result.results
    assert found.metrics["mrr_at_10"].value == pytest.approx((1 + 1 / 2 + 1 / 10 + 0) / 4)
    assert found.metrics["recall_at_1"].value == pytest.approx(1 / 4)
    assert found.metrics["recall_at_10"].value == pytest.approx(3 / 4)
    assert found.metrics["mrr_at_10"].n == 4
    assert result.predictions["student/score"] == pytest.approx([1, 0.5, 0.1, 0])
    assert result.predictions["label"] == [f"document/{i}" for i in range(4)]
    assert result.predictions["student/prediction"][:2] == ["document/0", "document/0"]
    assert found.built_by == ["train"]


def test_evaluate_retrieval_counts_to_the_depth_that_is_asked_for(questions):
    contenders = {"student": Contender(Known(ranked(14, [1, 2, 3, 4])))}
    (found,) = evaluation.evaluate_retrieval(contenders, questions, k=2, compute=FP32).results
    assert found.metrics["mrr_at_2"].value == pytest.approx((1 + 1 / 2) / 4)
    assert found.metrics["recall_at_2"].value == pytest.approx(2 / 4)


def test_evaluate_retrieval_gives_a_model_that_finds_all_equal_nothing_for_their_order(questions):
    contenders = {"student": Contender(Known(np.ones((4, 14))))}
    (found,) = evaluation.evaluate_retrieval(contenders, questions, compute=FP32).results
    assert found.metrics["mrr_at_10"].value == pytest.approx(sum(1 / r for r in range(1, 11)) / 14)
    assert found.metrics["recall_at_1"].value == 0


@pytest.mark.parametrize("order", [["teacher", "student"], ["student", "teacher"]])
def test_evaluate_retrieval_gives_agreement_on_the_first_hit_in_any_order(questions, order):
    known = {"teacher": Known(ranked(14, [1, 1, 2, 1])), "student": Known(ranked(14, [1, 2, 3, 1]))}
    contenders = {role: Contender(known[role]) for role in order}
    results = by_role(evaluation.evaluate_retrieval(contenders, questions, compute=FP32).results)
    assert results["student"].agreement.value == pytest.approx(3 / 4)  # the wrong hit of query 2 is the same
    assert results["teacher"].agreement is None


def test_evaluate_retrieval_compares_embeddings(tiny_model_folder):
    model = embedder(tiny_model_folder)
    rows = retrieval_split(model.tokenizer, 9)
    queries = models.forward_all(model, rows.queries.tokens, compute=FP32).astype(np.float64)
    documents = models.forward_all(model, rows.documents.tokens, compute=FP32).astype(np.float64)
    order = np.argsort(-(queries @ documents.T), axis=1)
    ranks = [order[i].tolist().index(i) + 1 for i in range(9)]
    expected = np.mean([1 / rank for rank in ranks])
    (found,) = evaluation.evaluate_retrieval({"student": model}, rows, compute=FP32).results
    assert found.metrics["mrr_at_10"].value == pytest.approx(expected)
    assert evaluation.mean_reciprocal_rank(model, rows, compute=FP32) == pytest.approx(expected)
    assert 0.1 < expected < 1.0


def test_evaluate_retrieval_gives_each_model_the_texts_in_its_own_tokens(tiny_model_folder):
    model = embedder(tiny_model_folder)
    rows = retrieval_split(model.tokenizer, 9)
    trimmed = students.trim_vocabulary(model, rows.documents.texts)
    result = evaluation.evaluate_retrieval({"teacher": model, "student": trimmed}, rows, compute=FP32)
    assert result.predictions["student/score"] == result.predictions["teacher/score"]
    scores = [evaluation.mean_reciprocal_rank(m, rows, compute=FP32) for m in (model, trimmed)]
    assert scores[0] == scores[1]


# The cost of a use


class Sleeper(Fixed):
    """Takes two milliseconds a call."""

    def __init__(self):
        self.sizes = []

    def predict_proba(self, texts):
        self.sizes.append(len(texts))
        time.sleep(0.002)
        return np.full((len(texts), 3), 1 / 3)


def measure(contenders, rows, **options):
    options = {"window_s": 0.05, "compute": FP32, "batch_size": 4, **options}
    split = rows if isinstance(rows, Split) else Split("test", [str(i) for i in range(len(rows))], rows)
    return evaluation.measure_inference(contenders, split, **options).inference


def test_measure_inference_of_a_smoke_run_has_every_field(tiny_model_folder):
    model = classifier(tiny_model_folder)
    first, second = measure({"student": model, "tfidf": Contender(Sleeper())}, texts(10), protocol="smoke")
    assert (first.role, second.role) == ("student", "tfidf")
    assert (first.num_parameters, first.size_bytes) == (
        models.num_parameters(model.model),
        models.size_bytes(model.model),
    )
    assert (second.num_parameters, second.size_bytes) == (7, 28)
    assert (first.number_format, second.number_format) == ("fp32", "fp64")
    for inference in (first, second):
        assert inference.protocol == "smoke"
        assert inference.batch_size == 4
        assert 0 < inference.latency_p50_s <= inference.latency_p95_s < 1
        assert len(inference.windows) == 1
        assert inference.windows[0].duration_s >= 0.05
        assert inference.throughput_per_s == pytest.approx(
            inference.windows[0].num_examples / inference.windows[0].duration_s
        )
        assert inference.cpu_s_per_1000 >= 0
        assert (inference.energy_j_per_1000, inference.label) == (None, "missing")


def test_measure_inference_measures_models_of_one_shape_once(tiny_model_folder):
    both = {"student": classifier(tiny_model_folder), "label_only": classifier(tiny_model_folder)}
    first, second = measure(both, texts(10), protocol="smoke")
    assert (second.role, second.measured_as, first.measured_as) == ("label_only", "student", "student")
    assert dataclasses.replace(second, role="student") == first


def test_measure_inference_takes_three_windows_and_single_texts_for_latency():
    sleeper = Sleeper()
    (inference,) = measure({"tfidf": Contender(sleeper)}, texts(10))
    assert (len(inference.windows), inference.protocol) == (3, "indicative")
    singles = sleeper.sizes.index(4)  # the first call of a window
    assert singles >= 8
    assert set(sleeper.sizes[:singles]) == {1}
    assert sum(sleeper.sizes[singles:]) == sum(window.num_examples for window in inference.windows)
    assert 0.002 <= inference.latency_p50_s < 0.5


def test_measure_inference_takes_fewer_single_texts_where_they_are_slow(monkeypatch):
    monkeypatch.setattr(inference_module, "_SLOW_S", 0.009)
    sleeper = Sleeper()
    measure({"tfidf": Contender(sleeper)}, texts(10), protocol="smoke")
    assert sleeper.sizes.index(4) == 5


def test_measure_inference_measures_retrievers(questions):
    class Retriever(Known):
        def similarities(self, queries):
            return self.values[: len(queries)]

    (inference,) = measure({"tfidf": Contender(Retriever(np.ones((4, 3))))}, questions.queries)
    assert inference.throughput_per_s > 0


def metered(joules_per_call):
    """A phase's energy that grows by as many joules each time it is asked."""
    total = [0.0]

    def energy():
        total[0] += joules_per_call
        return EnergyReading(total[0], 0.0, {"cpu": Component(energy_j=total[0], label="counter")})

    return energy


def test_measure_inference_gives_joules_of_windows_of_a_second():
    context = Context(energy=metered(30.0))
    sleeper = Contender(Sleeper())
    (inference,) = measure({"tfidf": sleeper}, texts(10), window_s=1.0, protocol="smoke", context=context)
    (window,) = inference.windows
    assert (window.energy_j, inference.label) == (30.0, "counter")
    assert inference.energy_j_per_1000 == pytest.approx(30_000 / window.num_examples)


def test_measure_inference_gives_no_joules_of_shorter_windows():
    (inference,) = measure({"tfidf": Contender(Sleeper())}, texts(10), context=Context(energy=metered(30.0)))
    assert (inference.energy_j_per_1000, inference.label) == (None, "missing")
    assert {window.energy_j for window in inference.windows} == {None}


def test_inference_costs_are_read_back(tmp_path):
    costs = InferenceCosts(measure({"tfidf": Contender(Sleeper())}, texts(10), protocol="smoke"))
    costs.save(tmp_path)
    assert InferenceCosts.load(tmp_path) == costs


# Uses


def test_answer_texts_gives_probabilities_in_the_order_of_the_texts(tiny_model_folder):
    model, rows = classifier(tiny_model_folder), texts(11)
    with torch.no_grad():
        model.model.classifier.weight *= 300  # a random head alone hardly tells texts apart
        logits = torch.from_numpy(models.forward_texts(model, rows, compute=FP32))
        model.model.classifier.bias -= logits.mean(0)
    expected = evaluation.softmax(models.forward_texts(model, rows, compute=FP32))
    np.testing.assert_allclose(probabilities(model, rows, batch_size=4), expected, atol=1e-5)
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 1e-4


def test_label_names_follow_the_logits(tiny_model_folder):
    model, _, _ = models.load_classifier(str(tiny_model_folder), ["z", "a", "m"])
    assert evaluation.label_names(model) == ["z", "a", "m"]


def splits_of(test, declared):
    source = classifier_record().sources[0]
    return Splits(test, test, test, LABELS, dataclasses.replace(source, license=declared))


def test_example_predictions_are_spread_over_the_split(rows):
    result = evaluate({"student": Contender(Fixed(ANSWERS))}, rows)
    splits = splits_of(rows, "mit")
    examples = evaluation.example_predictions(result, splits)
    assert [example["input"] for example in examples] == ["text 0", "text 2", "text 4"]
    assert examples[1] == {"input": "text 2", "answers": [{"text": "film", "score": 0.8}], "label": "film"}
    assert len(evaluation.example_predictions(result, splits, count=50)) == 6
    long = splits_of(dataclasses.replace(rows, texts=["x" * 10_000] * 6), "mit")
    assert len(evaluation.example_predictions(result, long)[0]["input"]) == 300


def test_example_predictions_show_no_text_of_a_users_own_file(rows):
    result = evaluate({"student": Contender(Fixed(ANSWERS))}, rows)
    assert evaluation.example_predictions(result, splits_of(rows, sources.USER_PROVIDED)) == []


# Search


@pytest.fixture(scope="module")
def library(tiny_model_folder):
    model = embedder(tiny_model_folder)
    documents = split(model.tokenizer, 12, name="document")
    return model, documents, SearchIndex.build(model, documents, compute=FP32)


def test_search_finds_a_document_by_its_own_text_and_orders_the_rest(library):
    model, documents, index = library
    hits = index.search(model, documents.texts[7], top=4, compute=FP32)
    assert (hits[0].id, hits[0].text) == (documents.ids[7], documents.texts[7])
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    scores = index.embeddings_DE @ index.embeddings_DE[7]
    assert {hit.id for hit in hits} == {documents.ids[i] for i in np.argsort(-scores)[:4]}
    assert len(index.search(model, "a card", top=50, compute=FP32)) == 12


def test_search_index_is_read_back(library, tmp_path):
    model, _, index = library
    index.save(tmp_path / "index")
    read = SearchIndex.load(tmp_path / "index")
    assert (read.ids, read.texts) == (index.ids, index.texts)
    assert np.array_equal(read.embeddings_DE, index.embeddings_DE)
    question = "how does my card work"
    assert read.search(model, question, compute=FP32) == index.search(model, question, compute=FP32)
    assert {path.suffix for path in (tmp_path / "index").iterdir()} == {".json", ".safetensors"}


def test_example_answers_are_what_search_finds(library):
    model, _, index = library
    (example,) = evaluation.example_answers(model, index, ["good film"], top=2, compute=FP32)
    hits = index.search(model, "good film", top=2, compute=FP32)
    assert example["input"] == "good film"
    assert [Hit(**answer) for answer in example["answers"]] == [
        dataclasses.replace(hit, score=round(hit.score, 4)) for hit in hits
    ]


def test_is_embedder(tiny_model_folder):
    assert evaluation.is_embedder(embedder(tiny_model_folder).model)
    assert not evaluation.is_embedder(classifier(tiny_model_folder).model)
