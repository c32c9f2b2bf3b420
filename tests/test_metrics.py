"""Metrics against scikit-learn and hand counts; intervals by how often they hold the truth."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from smallmodels import metrics

NAN = math.nan


def draw(n: int, num_classes: int, right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of a classifier that is right about that often."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=n)
    guesses = generator.integers(num_classes, size=n)
    return np.where(generator.random(n) < right, labels, guesses), labels


# Accuracy and agreement


def test_accuracy_counts_and_has_wilsons_interval() -> None:
    metric = metrics.accuracy([0, 1, 1, 2, 2, 2, 0, 0, 1, 2], [0, 1, 1, 2, 2, 2, 0, 0, 2, 1])
    assert (metric.value, metric.n) == (0.8, 10)
    # Wilson's interval for 8 of 10, as in the tables: 0.490 to 0.943.
    assert metric.low == pytest.approx(0.490162, abs=1e-6)
    assert metric.high == pytest.approx(0.943318, abs=1e-6)


def test_accuracy_of_all_right_does_not_claim_certainty() -> None:
    metric = metrics.accuracy([1] * 20, [1] * 20)
    assert (metric.value, metric.high) == (1.0, 1.0)
    assert metric.low == pytest.approx(20 / (20 + 1.959964**2))


def test_agreement_does_not_ask_who_is_right() -> None:
    assert metrics.agreement([0, 1, 2, 2], [0, 1, 2, 0]).value == 0.75


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], [0, 1, 1], "one index per item"),
        ([], [], "at least one item"),
        ([[0], [1]], [[0], [1]], "one index per item"),
        ([0.2, 0.8], [0, 1], "argmax"),
    ],
)
def test_accuracy_refuses_what_it_cannot_count(predictions: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(predictions, labels)


# Macro F1 and the table per class


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_scikit_learn(seed: int) -> None:
    predictions, labels = draw(60, 12, 0.6, seed)  # so few items that some classes are rare or missing
    metric = metrics.macro_f1(predictions, labels, n_bootstrap=50)
    assert metric.value == pytest.approx(f1_score(labels, predictions, average="macro"), abs=1e-12)


def test_macro_f1_interval_is_that_of_a_plain_bootstrap() -> None:
    predictions, labels = draw(400, 5, 0.7, 0)
    generator = np.random.default_rng(1)
    plain = [
        f1_score(labels[rows], predictions[rows], average="macro")
        for rows in (generator.integers(400, size=400) for _ in range(600))
    ]
    metric = metrics.macro_f1(predictions, labels)
    assert [metric.low, metric.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.01)
    assert metric.low < metric.value < metric.high


def test_macro_f1_is_the_same_for_the_same_seed_only() -> None:
    predictions, labels = draw(100, 5, 0.7, 0)
    assert metrics.macro_f1(predictions, labels, seed=3) == metrics.macro_f1(predictions, labels, seed=3)
    assert metrics.macro_f1(predictions, labels, seed=3) != metrics.macro_f1(predictions, labels, seed=4)


def test_per_class_table_equals_scikit_learn() -> None:
    predictions, labels = draw(200, 4, 0.6, 0)
    rows = metrics.per_class_table(predictions, labels, ["a", "b", "c", "d"])
    expected = precision_recall_fscore_support(labels, predictions, labels=range(4))
    for column, key in enumerate(("precision", "recall", "f1", "support")):
        assert [row[key] for row in rows] == pytest.approx(expected[column])
    assert [row["label"] for row in rows] == ["a", "b", "c", "d"]


def test_per_class_table_says_none_where_nothing_can_be_divided() -> None:
    never_predicted, absent = metrics.per_class_table([0, 0], [0, 1], ["a", "b", "c"])[1:]
    assert (never_predicted["precision"], never_predicted["recall"], never_predicted["f1"]) == (None, 0, 0)
    assert (absent["precision"], absent["recall"], absent["f1"], absent["support"]) == (None, None, None, 0)


def test_d3_per_class_table_refuses_an_index_without_a_name() -> None:
    with pytest.raises(ValueError, match=r"labels should be in \[0, 2\)"):
        metrics.per_class_table([0, 1], [0, -1], ["a", "b"])


# Calibration


def test_expected_calibration_error_equals_a_hand_count() -> None:
    # Two bins: 0.4 and 0.45 with one of two right, 0.9, 0.9, 0.8 with two of three right.
    probabilities = [[0.4, 0.35, 0.25], [0.45, 0.3, 0.25], [0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.1, 0.1, 0.8]]
    error = metrics.expected_calibration_error(probabilities, [0, 1, 0, 1, 0], bins=2)
    assert error == pytest.approx(2 / 5 * abs(1 / 2 - 0.425) + 3 / 5 * abs(2 / 3 - 2.6 / 3))


def test_expected_calibration_error_is_zero_for_sure_and_right_and_one_for_sure_and_wrong() -> None:
    assert metrics.expected_calibration_error(np.eye(3), [0, 1, 2]) == 0
    assert metrics.expected_calibration_error(np.eye(3), [1, 2, 0]) == 1


def test_expected_calibration_error_of_a_calibrated_model_is_small() -> None:
    generator = np.random.default_rng(0)
    first = generator.uniform(size=200_000)
    labels = (generator.uniform(size=200_000) > first).astype(int)
    assert metrics.expected_calibration_error(np.stack([first, 1 - first], axis=1), labels) < 0.005


@pytest.mark.parametrize("rows", [[[2.0, -1.0]], [[0.2, 0.2]], [[NAN, 1.0]]])
def test_expected_calibration_error_refuses_what_is_no_distribution(rows: list) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        metrics.expected_calibration_error(rows, [0])


# Ranks


def test_reciprocal_ranks_equals_a_slow_reference() -> None:
    generator = np.random.default_rng(0)
    similarities, relevant = generator.normal(size=(30, 25)), generator.integers(25, size=30)
    expected = []
    for row, right in zip(similarities, relevant, strict=True):
        rank = 1 + list(np.argsort(-row)).index(right)
        expected.append(1 / rank if rank <= 10 else 0.0)
    assert metrics.reciprocal_ranks(similarities, relevant) == pytest.approx(expected)


def test_reciprocal_ranks_is_the_mean_over_every_order_of_ties() -> None:
    # One better document, then three that tie, the right one among them: ranks 2, 3 and 4, of which 4 is beyond k.
    value = metrics.reciprocal_ranks([[9.0, 5.0, 5.0, 5.0, 1.0]], [2], k=3)
    assert value == pytest.approx([(1 / 2 + 1 / 3 + 0) / 3])


def test_reciprocal_ranks_gives_nothing_to_a_model_that_finds_all_equal() -> None:
    first = metrics.reciprocal_ranks(np.ones((1, 1000)), [0])
    last = metrics.reciprocal_ranks(np.ones((1, 1000)), [999])
    assert first == last == pytest.approx(sum(1 / r for r in range(1, 11)) / 1000)


@pytest.mark.parametrize(
    ("similarities", "relevant", "message"),
    [
        ([[0.1, NAN]], [0], "NaN"),
        ([[0.1, 0.2]], [2], r"\[0, 2\)"),
        ([[0.1, 0.2]], [-1], r"\[0, 2\)"),
        ([[0.1, 0.2]], [0, 1], "one row per query"),
    ],
)
def test_reciprocal_ranks_refuses(similarities: list, relevant: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.reciprocal_ranks(similarities, relevant)


# Intervals


def test_mean_with_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).exponential(size=5000)
    metric = metrics.mean_with_interval(values)
    half = 1.96 * values.std() / math.sqrt(5000)
    assert metric.value == pytest.approx(values.mean())
    assert [metric.low, metric.high] == pytest.approx([values.mean() - half, values.mean() + half], rel=0.01)


def test_mean_with_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(300):
        # Reciprocal ranks of a model that is right at once in half of the cases: mean 0.5 + 0.3 / 2.
        values = generator.choice([1.0, 0.5, 0.0], p=[0.5, 0.3, 0.2], size=150)
        metric = metrics.mean_with_interval(values, n_bootstrap=300, seed=seed)
        held += metric.low <= 0.65 <= metric.high
    assert 0.91 < held / 300 < 0.98


def test_mean_with_interval_of_one_value_has_no_interval() -> None:
    metric = metrics.mean_with_interval([0.3])
    assert (metric.value, metric.low, metric.high, metric.n) == (0.3, None, None, 1)


@pytest.mark.parametrize("values", [[], [0.5, NAN], [[0.1, 0.2]]])
def test_mean_with_interval_refuses_what_has_no_mean(values: list) -> None:
    with pytest.raises(ValueError, match="values should"):
        metrics.mean_with_interval(values)


def test_resampling_in_blocks_bounds_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=500)
    whole = metrics.mean_with_interval(values, n_bootstrap=100)
    monkeypatch.setattr(metrics.intervals, "_MAX_CELLS", 1200)  # two samples at once
    blocks = metrics.mean_with_interval(values, n_bootstrap=100)
    assert [blocks.low, blocks.high] == pytest.approx([whole.low, whole.high], rel=1e-12)


def test_student_t_interval_equals_the_table() -> None:
    metric = metrics.student_t_interval([0.90, 0.92, 0.94])
    half = 4.302653 * 0.02 / math.sqrt(3)  # t of 2 degrees of freedom
    assert [metric.low, metric.value, metric.high] == pytest.approx([0.92 - half, 0.92, 0.92 + half])
    assert metric.n == 3
    assert metrics.student_t_interval([0.9]).low is None


def test_paired_difference_sees_what_two_separate_intervals_cannot() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=500)
    ours = difficulty + 0.05 + 0.1 * generator.normal(size=500)
    metric = metrics.paired_difference(ours, difficulty)
    assert 0 < metric.low < metric.value < metric.high < 0.1
    apart = metrics.mean_with_interval(ours)
    assert apart.low < metrics.mean_with_interval(difficulty).value < apart.high


def test_paired_difference_of_shares_equals_the_formula() -> None:
    # 100 items: ours alone right on 12, theirs alone on 5.
    ours, theirs = np.zeros(100), np.zeros(100)
    ours[:12], theirs[12:17] = 1, 1
    metric = metrics.paired_difference(ours, theirs)
    half = 1.959964 * math.sqrt((12.5 + 5.5) - 7**2 / 102) / 102
    assert metric.value == pytest.approx(0.07)
    assert [metric.low, metric.high] == pytest.approx([7 / 102 - half, 7 / 102 + half])


def test_paired_difference_of_equal_answers_keeps_an_open_interval() -> None:
    metric = metrics.paired_difference(np.ones(30), np.ones(30))
    assert metric.value == 0
    assert metric.low < -0.01
    assert metric.high > 0.01


def test_paired_difference_is_antisymmetric() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(2, size=(2, 40))
    one, other = metrics.paired_difference(a, b), metrics.paired_difference(b, a)
    assert [one.value, one.low, one.high] == pytest.approx([-other.value, -other.high, -other.low])


def test_paired_difference_refuses_other_items() -> None:
    with pytest.raises(ValueError, match="got 3 and 2"):
        metrics.paired_difference([0, 1, 1], [0, 1])


# Payback


def test_unpaired_difference_has_welchs_interval() -> None:
    from scipy.stats import ttest_ind

    ours, theirs = [10.0, 12.0, 14.0], [1.0, 2.0, 3.0, 2.5]
    found = metrics.unpaired_difference(ours, theirs)
    expected = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert (found.value, found.n) == (12.0 - 2.125, 7)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    alone = metrics.unpaired_difference([3.0], theirs)
    assert (alone.value, alone.low, alone.high) == (0.875, None, None)


def test_payback_divides_the_build_by_the_saving_with_welchs_interval() -> None:
    from scipy.stats import ttest_ind

    teacher, student = [3.0, 3.2, 2.8], [1.0, 1.1, 0.9]
    estimate = metrics.payback(1000.0, teacher, student, quality_ok=True)
    interval = ttest_ind(teacher, student, equal_var=False).confidence_interval()
    assert estimate.saved_per_use == pytest.approx(2.0)
    assert estimate.uses == pytest.approx(500)
    assert [estimate.low, estimate.high] == pytest.approx([1000 / interval.high, 1000 / interval.low])
    assert estimate.low < estimate.uses < estimate.high
    assert "saves 2 J" in estimate.reason
    assert "after 500 uses" in estimate.reason


def test_payback_is_never_when_the_interval_touches_zero() -> None:
    estimate = metrics.payback(1000.0, [3.0, 1.0, 2.0], [1.5, 2.5, 1.0], quality_ok=True)
    assert estimate.saved_per_use > 0
    assert (estimate.uses, estimate.low, estimate.high) == (None, None, None)
    assert estimate.reason.startswith("Never: ")
    assert "noise" in estimate.reason


def test_payback_is_never_when_the_student_costs_more_or_the_same() -> None:
    dearer = metrics.payback(10.0, [2.0], [3.0], quality_ok=True, unit="CPU-s")
    assert (dearer.uses, dearer.saved_per_use) == (None, -1)
    assert dearer.reason == "Never: a use of the student costs 1 CPU-s more than one of the teacher."
    same = metrics.payback(10.0, [2.0, 2.0], [2.0, 2.0], quality_ok=True)
    assert same.uses is None
    assert same.reason == "Never: a use of the student costs as much as one of the teacher."


def test_payback_is_never_when_the_quality_is_not_close_enough() -> None:
    estimate = metrics.payback(10.0, [2.0, 2.0], [1.0, 1.0], quality_ok=False, replaces="tfidf")
    assert estimate.uses is None
    assert estimate.saved_per_use == 1
    assert "quality is not close enough to the tfidf's" in estimate.reason


def test_payback_from_a_single_window_has_no_interval_and_says_so() -> None:
    estimate = metrics.payback(10.0, [2.0], [1.0], quality_ok=True)
    assert (estimate.uses, estimate.low, estimate.high) == (10.0, None, None)
    assert "no interval" in estimate.reason


def test_payback_of_equal_windows_and_of_nothing_paid() -> None:
    estimate = metrics.payback(10.0, [2.0, 2.0], [1.0, 1.0], quality_ok=True)
    assert (estimate.low, estimate.uses, estimate.high) == (10.0, 10.0, 10.0)
    assert metrics.payback(0.0, [2.0, 2.1], [1.0, 1.1], quality_ok=True).uses == 0


@pytest.mark.parametrize(
    ("build", "reference", "student"),
    [(-1.0, [2.0], [1.0]), (NAN, [2.0], [1.0]), (1.0, [], [1.0]), (1.0, [2.0], [-1.0]), (1.0, [math.inf], [1.0])],
)
def test_payback_refuses_what_is_no_cost(build: float, reference: list[float], student: list[float]) -> None:
    with pytest.raises(ValueError, match="should"):
        metrics.payback(build, reference, student, quality_ok=True)


# Ratios of sums


def test_ratio_of_sums_is_not_the_mean_of_ratios_and_its_interval_holds_it():
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 50, 200).astype(float)
    values = 2.0 * sizes + generator.normal(size=200)
    found = metrics.ratio_with_interval(values, sizes)
    assert found.value == pytest.approx(values.sum() / sizes.sum())
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.1
    assert found.n == 200
    assert metrics.ratio_with_interval(values, sizes) == found


def test_ratio_of_one_item_has_no_interval():
    found = metrics.ratio_with_interval([3.0], [2.0])
    assert (found.value, found.low, found.high) == (1.5, None, None)


@pytest.mark.parametrize("below", [[0.0, 0.0], [1.0], [1.0, -1.0]])
def test_ratio_refuses_denominators_that_mean_nothing(below):
    with pytest.raises(ValueError, match="denominators should be one for each"):
        metrics.ratio_with_interval([1.0, 2.0], below)
