"""Several labels per text: F1 and average precision against scikit-learn, thresholds against a slow search."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from smallmodels import metrics
from smallmodels.errors import InputError


def draw(num_texts=300, num_labels=6, seed=0, steps=None):
    """Probabilities that say something of the labels; in steps, so that many are equal, if asked."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_texts, num_labels)) < np.linspace(0.05, 0.5, num_labels)).astype(int)
    scores = 1 / (1 + np.exp(-(2 * labels - 1.5 + generator.normal(size=labels.shape))))
    return (np.round(scores * steps) / steps if steps else scores), labels


@pytest.mark.parametrize("average", ["micro", "macro"])
@pytest.mark.parametrize("seed", range(5))
def test_multilabel_f1_equals_scikit_learn(average, seed):
    scores, labels = draw(seed=seed)
    metric = metrics.multilabel_f1(scores > 0.5, labels, average=average, n_bootstrap=50)
    assert metric.value == pytest.approx(f1_score(labels, scores > 0.5, average=average), abs=1e-12)
    assert metric.n == 300


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_multilabel_f1_interval_is_that_of_a_plain_bootstrap_over_texts(average):
    scores, labels = draw()
    generator = np.random.default_rng(1)
    plain = [
        f1_score(labels[rows], scores[rows] > 0.5, average=average)
        for rows in (generator.integers(300, size=300) for _ in range(200))
    ]
    metric = metrics.multilabel_f1(scores > 0.5, labels, average=average)
    assert [metric.low, metric.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.012)
    assert metric.low < metric.value < metric.high
    assert metrics.multilabel_f1(scores > 0.5, labels, average=average) == metric


def test_macro_f1_leaves_out_labels_that_neither_occur_nor_are_predicted():
    labels, predictions = np.array([[1, 0, 0], [0, 0, 0]]), np.array([[1, 0, 0], [0, 1, 0]])
    assert metrics.multilabel_f1(predictions, labels, average="macro").value == 0.5
    assert metrics.multilabel_f1(0 * predictions, 0 * labels, average="micro").value == 0


def test_per_label_table_equals_scikit_learn():
    scores, labels = draw()
    rows = metrics.per_label_table(scores > 0.5, labels, list("abcdef"))
    expected = precision_recall_fscore_support(labels, scores > 0.5)
    for column, key in enumerate(("precision", "recall", "f1", "support")):
        assert [row[key] for row in rows] == pytest.approx(expected[column])
    assert [row["label"] for row in rows] == list("abcdef")
    never = metrics.per_label_table([[0, 0]], [[1, 0]], ["a", "b"])
    assert [(row["precision"], row["recall"], row["f1"]) for row in never] == [(None, 0, 0), (None, None, None)]


# Average precision


@pytest.mark.parametrize("average", ["micro", "macro"])
@pytest.mark.parametrize("steps", [None, 10, 2])
def test_average_precision_equals_scikit_learn_with_equal_scores_too(average, steps):
    scores, labels = draw(steps=steps)
    metric = metrics.average_precision(scores, labels, average=average, n_bootstrap=20)
    assert metric.value == pytest.approx(average_precision_score(labels, scores, average=average), abs=1e-12)


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_average_precision_interval_is_that_of_a_plain_bootstrap_over_texts(average):
    scores, labels = draw(steps=20)
    generator = np.random.default_rng(1)
    plain = [
        average_precision_score(labels[rows], scores[rows], average=average)
        for rows in (generator.integers(300, size=300) for _ in range(200))
    ]
    metric = metrics.average_precision(scores, labels, average=average, n_bootstrap=1000)
    assert [metric.low, metric.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.015)
    assert metric.low < metric.value < metric.high


def test_average_precision_leaves_out_labels_that_no_text_has():
    metric = metrics.average_precision([[0.9, 0.8], [0.1, 0.2]], [[1, 0], [0, 0]], average="macro", n_bootstrap=10)
    assert metric.value == 1
    with pytest.raises(InputError, match="one text or more should have a label"):
        metrics.average_precision([[0.9]], [[0]], average="micro")


# Thresholds


def best_f1(scores, labels):
    """Of every threshold that can make a difference."""
    given = scores >= np.unique(scores)[:, None]
    return (2 * (given & (labels == 1)).sum(axis=1) / (given.sum(axis=1) + labels.sum())).max()


@pytest.mark.parametrize("steps", [None, 10, 3])
@pytest.mark.parametrize("seed", range(3))
def test_choose_thresholds_reaches_the_best_f1_of_each_label(steps, seed):
    scores, labels = draw(150, 4, seed, steps)
    thresholds = metrics.choose_thresholds(scores, labels)
    for column, threshold in enumerate(thresholds):
        found = f1_score(labels[:, column], scores[:, column] >= threshold)
        assert found == pytest.approx(best_f1(scores[:, column], labels[:, column]), abs=1e-12)


def test_choose_threshold_reaches_the_best_micro_f1():
    scores, labels = draw(150, 4, steps=30)
    threshold = metrics.choose_threshold(scores, labels)
    found = f1_score(labels, scores >= threshold, average="micro")
    assert found == pytest.approx(best_f1(scores.ravel(), labels.ravel()), abs=1e-12)


def test_thresholds_stand_between_two_scores_and_of_equally_good_ones_are_the_highest():
    # The first alone, and all four, have an F1 of 2/3.
    scores, labels = [[0.9], [0.7], [0.4], [0.2]], [[1], [0], [0], [1]]
    assert metrics.choose_thresholds(scores, labels).tolist() == pytest.approx([0.8])
    again = metrics.choose_thresholds(scores[::-1], labels[::-1])
    assert again.tolist() == pytest.approx([0.8])


def test_thresholds_of_neighbouring_numbers_still_tell_them_apart():
    low = 0.5
    high = np.nextafter(low, 1)
    (threshold,) = metrics.choose_thresholds([[high], [low]], [[1], [0]])
    assert low < threshold <= high


def test_thresholds_of_labels_that_none_or_all_texts_have():
    thresholds = metrics.choose_thresholds([[0.9, 0.9], [0.8, 0.3]], [[0, 1], [0, 1]])
    assert thresholds.tolist() == pytest.approx([0.5, 0.15])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.multilabel_f1([[0.3]], [[1]], average="micro"), "predictions should be 0 or 1"),
        (lambda: metrics.multilabel_f1([[1]], [[2]], average="micro"), "labels should be 0 or 1"),
        (lambda: metrics.multilabel_f1([1], [1], average="micro"), r"\(num_texts, num_labels\), got \(1,\)"),
        (lambda: metrics.choose_thresholds([[0.5, 0.5]], [[1]]), r"got \(1, 2\) and \(1, 1\)"),
        (lambda: metrics.choose_thresholds([[np.nan]], [[1]]), "finite numbers"),
        (lambda: metrics.per_label_table([[1]], [[1]], ["a", "b"]), "one per label, got 2 for 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
