"""Correlations against scipy, abstention against hand counts and slow references, groups side by side."""

import numpy as np
import pytest
import scipy.stats

from smallmodels import metrics
from smallmodels.errors import InputError


def pairs(n=200, seed=0, steps=None):
    """Scores that follow others with noise; in steps, so that many are equal, if asked."""
    generator = np.random.default_rng(seed)
    targets = generator.uniform(0, 5, size=n)
    predictions = np.tanh(targets - 2.5 + generator.normal(size=n)) * 100 + 1e4
    return (
        (np.round(predictions * steps) / steps, np.round(targets * steps) / steps) if steps else (predictions, targets)
    )


# Correlations


@pytest.mark.parametrize("steps", [None, 1, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_correlations_equal_scipy_with_ties_too(steps, seed):
    predictions, targets = pairs(seed=seed, steps=steps)
    if np.ptp(targets) == 0:
        targets = np.random.default_rng(seed).integers(3, size=len(targets)).astype(float)
    pearson, spearman = (f(predictions, targets, n_bootstrap=10) for f in (metrics.pearson, metrics.spearman))
    assert pearson.value == pytest.approx(scipy.stats.pearsonr(predictions, targets).statistic, abs=1e-10)
    assert spearman.value == pytest.approx(scipy.stats.spearmanr(predictions, targets).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(metrics.pearson, scipy.stats.pearsonr), (metrics.spearman, scipy.stats.spearmanr)]
)
def test_intervals_are_those_of_a_plain_bootstrap(ours, theirs):
    predictions, targets = pairs(120, steps=1)
    generator = np.random.default_rng(1)
    draws = (generator.integers(120, size=120) for _ in range(600))
    plain = [theirs(predictions[rows], targets[rows]).statistic for rows in draws]
    metric = ours(predictions, targets)
    assert [metric.low, metric.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.02)
    assert metric.low < metric.value < metric.high
    assert (metric.n, ours(predictions, targets)) == (120, metric)


def test_spearman_sees_order_alone_and_pearson_sees_lines():
    x = np.arange(1.0, 30)
    assert metrics.spearman(np.exp(x), x).value == 1
    assert metrics.spearman(-x, x).value == -1
    assert metrics.pearson(3 * x + 1e8, x).value == pytest.approx(1, abs=1e-12)
    assert metrics.pearson(np.exp(x), x).value < 0.7


@pytest.mark.parametrize("ours", [metrics.pearson, metrics.spearman])
def test_a_constant_says_nothing(ours):
    metric = ours(np.full(20, 0.1), np.arange(20.0))
    assert (metric.value, metric.low, metric.high) == (0, 0, 0)
    one = ours([3.0], [2.0])
    assert (one.value, one.low, one.n) == (0, None, 1)
    rare = ours([0.1] * 9 + [0.3], np.arange(10.0))  # a third of the resamples are constant
    assert np.isfinite([rare.low, rare.high]).all()
    assert rare.low == 0


@pytest.mark.parametrize("ours", [metrics.pearson, metrics.spearman])
def test_correlations_refuse_what_they_cannot_compare(ours):
    with pytest.raises(InputError, match="predictions and targets should hold one value per item, got 2 and 3"):
        ours([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="predictions should be finite"):
        ours([np.nan, 2.0], [1.0, 2.0])


# Abstention


def confident(n=300, seed=0, steps=None):
    """Confidences, and answers that are right as often as they say."""
    generator = np.random.default_rng(seed)
    confidences = generator.uniform(0.3, 1, size=n)
    is_right = generator.random(n) < confidences
    return (np.round(confidences * steps) / steps if steps else confidences), is_right


def test_risk_coverage_by_hand():
    curve = metrics.risk_coverage([0.9, 0.5, 0.7, 0.7], [True, False, True, False])
    assert curve.thresholds.tolist() == [0.9, 0.7, 0.5]
    assert curve.coverage.tolist() == [0.25, 0.75, 1]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 3, 1 / 2])
    assert (curve.coverage_at_risk(0.4), curve.threshold_at_risk(0.4)) == (0.75, 0.7)
    assert (curve.coverage_at_risk(0), curve.threshold_at_risk(0)) == (0.25, 0.9)
    hopeless = metrics.risk_coverage([0.9, 0.8], [False, True])
    assert (hopeless.coverage_at_risk(0.1), hopeless.threshold_at_risk(0.1)) == (0, None)


def test_answering_from_the_threshold_on_has_the_risk_that_it_says():
    confidences, is_right = confident(steps=40)
    curve = metrics.risk_coverage(confidences, is_right)
    for threshold, coverage, risk in zip(curve.thresholds, curve.coverage, curve.risk, strict=True):
        answered = confidences >= threshold
        assert answered.mean() == pytest.approx(coverage)
        assert 1 - is_right[answered].mean() == pytest.approx(risk)
    threshold = curve.threshold_at_risk(0.2)
    assert (confidences >= threshold).mean() == pytest.approx(curve.coverage_at_risk(0.2))


@pytest.mark.parametrize("steps", [None, 10])
def test_area_is_the_mean_over_orders_of_equal_confidences(steps):
    confidences, is_right = confident(60, steps=steps)
    generator = np.random.default_rng(1)
    areas = []
    for _ in range(1 if steps is None else 4000):
        order = np.lexsort([generator.random(60), -confidences])
        areas.append((np.cumsum(~is_right[order]) / np.arange(1, 61)).mean())
    metric = metrics.area_under_risk_coverage(confidences, is_right, n_bootstrap=100)
    assert metric.value == pytest.approx(np.mean(areas), abs=1e-12 if steps is None else 1e-3)
    assert metric.low < metric.value < metric.high


def test_area_of_a_model_that_is_unsure_where_it_is_wrong_is_small():
    is_right = np.arange(100) < 70
    good = metrics.area_under_risk_coverage(np.linspace(1, 0, 100), is_right, n_bootstrap=50)
    bad = metrics.area_under_risk_coverage(np.linspace(0, 1, 100), is_right, n_bootstrap=50)
    equal = metrics.area_under_risk_coverage(np.ones(100), is_right, n_bootstrap=50)
    assert good.value < 0.06 < equal.value < bad.value
    assert equal.value == pytest.approx(0.3)


def test_area_interval_is_that_of_a_plain_bootstrap():
    confidences, is_right = confident(150, steps=20)
    generator = np.random.default_rng(1)
    plain = []
    for _ in range(400):
        rows = generator.integers(150, size=150)
        plain.append(metrics.area_under_risk_coverage(confidences[rows], is_right[rows], n_bootstrap=1).value)
    metric = metrics.area_under_risk_coverage(confidences, is_right)
    assert [metric.low, metric.high] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.015)


def test_accuracy_at_coverage_takes_the_surest_and_equal_ones_together():
    confidences, is_right = [0.9, 0.8, 0.8, 0.5], [1, 0, 1, 0]
    assert metrics.accuracy_at_coverage(confidences, is_right, 0.25).value == 1
    half = metrics.accuracy_at_coverage(confidences, is_right, 0.5)
    assert (half.value, half.n) == (pytest.approx(2 / 3), 3)
    assert metrics.accuracy_at_coverage(confidences, is_right, 1).value == 0.5
    tenth = metrics.accuracy_at_coverage(np.arange(10) / 10, [0] * 9 + [1], 0.1)  # 0.1 · 10 is 1, not 2
    assert (tenth.value, tenth.n) == (1, 1)


def test_abstention_refuses_what_it_cannot_count():
    with pytest.raises(InputError, match=r"coverage must be in \(0, 1\], got 0"):
        metrics.accuracy_at_coverage([0.5], [1], 0)
    with pytest.raises(InputError, match="is_right should be true or false"):
        metrics.risk_coverage([0.5], [0.5])
    with pytest.raises(InputError, match="confidences and is_right should hold one value per item, got 2 and 1"):
        metrics.area_under_risk_coverage([0.5, 0.5], [1])


# Groups


def test_groups_stand_side_by_side_the_worst_first():
    values, groups = [1, 1, 0, 1, 0, 0, 1, 0], ["en", "sw", "sw", "en", "yo", "yo", "yo", "yo"]
    found = metrics.per_group(values, groups)
    assert list(found) == ["en", "sw", "yo"]
    assert found["yo"] == metrics.accuracy([0, 0, 1, 0], [1, 1, 1, 1])
    compared = metrics.compare_groups(found)
    assert [(row["group"], row["value"], row["n"]) for row in compared.table] == [
        ("yo", 0.25, 4),
        ("sw", 0.5, 2),
        ("en", 1, 2),
    ]
    assert (compared.worst, compared.best, compared.spread) == ("yo", "en", 0.75)
    assert compared.mean == pytest.approx(1.75 / 3)
    assert all(row["low"] <= row["value"] <= row["high"] for row in compared.table)


def test_groups_refuse_what_does_not_fit():
    with pytest.raises(InputError, match="one per value, got 1 for 2 values"):
        metrics.per_group([1, 0], ["a"])
    with pytest.raises(InputError, match="one group or more"):
        metrics.compare_groups({})
