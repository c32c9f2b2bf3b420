"""Differences between models over seeds and items: the rules of the verdict, and that 95 % intervals cover 95 %."""

import math

import numpy as np
import pytest

from smallmodels import metrics
from smallmodels.errors import InputError
from smallmodels.metrics import Difference
from smallmodels.records import Metric

NUM_SIMULATIONS = 300


def share_of_simulations_that_may_miss(nominal: float = 0.05) -> float:
    """The nominal share and three standard errors of what so many simulations show of it."""
    return nominal + 3 * math.sqrt(nominal * (1 - nominal) / NUM_SIMULATIONS)


def found(low: float, high: float) -> Difference:
    return Difference(value=(low + high) / 2, low=low, high=high, num_seeds=3, num_items=100, is_paired=True)


# Mean and spread


def test_spread_has_mean_sd_and_the_student_t_interval() -> None:
    got = metrics.spread([1.0, 2.0, 3.0])
    assert (got.value, got.sd, got.n) == (2.0, 1.0, 3)
    assert got.low == pytest.approx(2.0 - 4.302653 / math.sqrt(3))
    assert got.high == pytest.approx(2.0 + 4.302653 / math.sqrt(3))


def test_spread_of_one_run_has_no_sd_and_no_interval() -> None:
    got = metrics.spread([0.9])
    assert (got.value, got.sd, got.low, got.high, got.n) == (0.9, None, None, None, 1)
    assert got.is_constant


def test_spread_of_equal_runs_is_that_of_one_model() -> None:
    assert metrics.spread([0.1 + 0.2, 0.3, 0.3]).is_constant
    assert not metrics.spread([0.3, 0.3, 0.3003]).is_constant


def test_student_t_intervals_over_three_seeds_cover_95_percent() -> None:
    draws = np.random.default_rng(0).normal(7.0, 2.0, size=(NUM_SIMULATIONS, 3))
    missed = np.mean([not (s.low <= 7.0 <= s.high) for s in map(metrics.spread, draws)])  # type: ignore[operator]
    assert 0.01 < missed < share_of_simulations_that_may_miss()


# The difference over seeds and items


def test_intervals_of_a_difference_over_seeds_and_items_cover_95_percent() -> None:
    """Two models, three seeds each, 150 items: items are hard for both, and each seed does well or badly on its own."""
    draw, truth, missed = np.random.default_rng(1), 0.3, {"seeds": 0, "items": 0, "both": 0}
    for _ in range(NUM_SIMULATIONS):
        hardness = draw.normal(0, 1.0, 150)
        ours, theirs = (
            hardness + gain + draw.normal(0, 0.5, 150) + draw.normal(0, 0.06, (3, 1)) + draw.normal(0, 0.4, (3, 150))
            for gain in (truth, 0.0)
        )
        seeds = metrics.seed_difference(dict(enumerate(ours.mean(1))), dict(enumerate(theirs.mean(1))))
        items = metrics.paired_bootstrap(metrics.mean_items([*ours]), metrics.mean_items([*theirs]), n_bootstrap=200)
        both = metrics.difference(seeds, items, is_paired=True)
        for name, interval in (("seeds", seeds), ("items", items), ("both", both)):
            missed[name] += not interval.low <= truth <= interval.high  # type: ignore[operator]
    shares = {name: count / NUM_SIMULATIONS for name, count in missed.items()}
    assert 0.005 < shares["both"] < share_of_simulations_that_may_miss()  # one that never misses says nothing
    assert shares["items"] > 0.10  # an interval that forgets one of the two kinds of chance is too narrow
    assert shares["both"] < min(shares["seeds"], shares["items"])


def test_paired_bootstrap_sees_through_items_that_are_hard_for_both() -> None:
    draw = np.random.default_rng(2)
    hard = (draw.random(1000) < 0.7).astype(float)
    worse = np.where(draw.random(1000) < 0.03, 0.0, hard)
    paired = metrics.paired_bootstrap(metrics.mean_items([hard]), metrics.mean_items([worse]))
    alone = metrics.unpaired_items(metrics.mean_with_interval(hard), metrics.mean_with_interval(worse))
    assert alone is not None
    assert alone.low is not None
    assert paired.low is not None
    assert paired.value == pytest.approx(alone.value)
    assert alone.low < 0 < paired.low


def test_paired_bootstrap_of_zeros_and_ones_is_near_the_formula_for_them() -> None:
    draw = np.random.default_rng(3)
    ours, theirs = (draw.random((2, 400)) < np.array([[0.8], [0.75]])).astype(float)
    drawn = metrics.paired_bootstrap(metrics.mean_items([ours]), metrics.mean_items([theirs]), n_bootstrap=5000)
    formula = metrics.paired_difference(ours, theirs)
    assert (drawn.value, drawn.low, drawn.high) == pytest.approx((formula.value, formula.low, formula.high), abs=4e-3)


def test_paired_bootstrap_of_three_items_that_differ_claims_nothing() -> None:
    ours, theirs = np.ones(100), np.ones(100)
    theirs[:3] = 0
    got = metrics.paired_bootstrap(metrics.mean_items([ours]), metrics.mean_items([theirs]))
    assert got.value == pytest.approx(0.03)
    assert got.low is not None
    assert got.low <= 0


def test_paired_bootstrap_of_ratios_and_of_f1_uses_the_metric_itself() -> None:
    draw = np.random.default_rng(4)
    labels = draw.integers(0, 3, 300)
    one, two = (np.where(draw.random(300) < right, labels, draw.integers(0, 3, 300)) for right in (0.9, 0.5))
    got = metrics.paired_bootstrap(metrics.macro_f1_items([one], labels), metrics.macro_f1_items([two], labels))
    assert got.value == pytest.approx(metrics.macro_f1(one, labels).value - metrics.macro_f1(two, labels).value)
    assert got.low is not None
    assert 0 < got.low < got.value
    num_bytes = draw.integers(10, 90, 300).astype(float)
    bits, more = num_bytes * 2.0, num_bytes * 2.0 + draw.random(300) * 9
    items = metrics.ratio_items([bits, bits], [num_bytes] * 2), metrics.ratio_items([more], [num_bytes])
    assert metrics.paired_bootstrap(*items).value == pytest.approx(2.0 - more.sum() / num_bytes.sum())


def test_paired_bootstrap_of_rank_correlations_ranks_each_sample() -> None:
    draw = np.random.default_rng(6)
    right = draw.normal(size=300)
    noise = draw.normal(size=300)
    near, far = right + 0.3 * noise, right + 0.6 * noise
    ours, theirs = (metrics.spearman_items([each], right) for each in (near, far))
    got = metrics.paired_bootstrap(ours, theirs, n_bootstrap=500)
    one, two = metrics.spearman(near, right), metrics.spearman(far, right)
    assert got.value == pytest.approx(one.value - two.value)
    assert got.low is not None
    assert 0 < got.low < got.value
    of_itself = metrics.spearman_items([right], right)  # 1 in each sample
    alone = metrics.paired_bootstrap(ours, of_itself, n_bootstrap=2000)
    assert (alone.low, alone.high) == pytest.approx((one.low - 1, one.high - 1))  # type: ignore[operator]


def test_paired_bootstrap_refuses_other_items() -> None:
    with pytest.raises(InputError, match="same test items, got 2 and 3"):
        metrics.paired_bootstrap(metrics.mean_items([[0.0, 1.0]]), metrics.mean_items([[0.0, 1.0, 1.0]]))


def test_seeds_in_common_are_paired_and_others_are_not() -> None:
    paired = metrics.seed_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.9, 1: 1.9, 2: 2.9})
    apart = metrics.seed_difference({0: 1.0, 1: 2.0, 2: 3.0}, {3: 0.9, 4: 1.9, 5: 2.9})
    assert paired.low == pytest.approx(0.1)
    assert apart.low is not None
    assert apart.low < -1
    assert metrics.seed_difference({0: 1.0}, {0: 0.5}).low is None


def test_a_difference_of_models_without_spread_and_without_items_has_no_interval() -> None:
    seeds = metrics.seed_difference({0: 0.9, 1: 0.9, 2: 0.9}, {0: 0.5, 1: 0.5, 2: 0.5})
    got = metrics.difference(seeds, None, is_paired=False)
    assert (got.low, got.high) == (None, None)
    assert metrics.verdict(got, margin=0.01) == "indistinguishable"


def test_a_difference_is_at_least_as_wide_as_either_kind_of_chance() -> None:
    seeds = Metric(value=0.1, low=0.06, high=0.14, n=3)
    items = Metric(value=0.1, low=0.07, high=0.13, n=500)
    got = metrics.difference(seeds, items, is_paired=True)
    assert (got.low, got.high) == pytest.approx((0.05, 0.15))
    assert (got.num_seeds, got.num_items, got.is_paired) == (3, 500, True)


# The verdict


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.011, 0.03, "better"),
        (0.009, 0.03, "indistinguishable"),  # real, but not shown to be more than the margin
        (-0.005, 0.005, "indistinguishable"),
        (-0.3, 0.3, "indistinguishable"),
        (-0.03, -0.009, "indistinguishable"),
        (-0.03, -0.011, "worse"),
    ],
)
def test_verdict_asks_for_more_than_the_margin(low: float, high: float, expected: str) -> None:
    assert metrics.verdict(found(low, high), margin=0.01) == expected


def test_within_the_margin_has_to_be_shown() -> None:
    assert metrics.is_within(found(-0.009, 0.001), margin=0.01)
    assert not metrics.is_within(found(-0.02, 0.02), margin=0.01)
    with pytest.raises(InputError, match=r"margin must be >= 0, got -0\.1"):
        metrics.verdict(found(0, 1), margin=-0.1)


# Reaching a level, and the payback over runs


def test_cost_to_reach_is_that_of_the_first_validation_that_is_as_good() -> None:
    curve = [(10.0, 0.5), (20.0, 0.9), (30.0, 0.8), (40.0, 0.95)]
    assert [metrics.cost_to_reach(curve, level) for level in (0.5, 0.6, 0.91, 0.96)] == [10.0, 20.0, 40.0, None]


def test_payback_over_runs_covers_the_true_number_of_uses_95_percent() -> None:
    draw, missed = np.random.default_rng(5), 0
    for _ in range(NUM_SIMULATIONS):
        luck = draw.normal(0, 1, 3)  # a machine that is slow makes building and using dear alike
        got = metrics.payback_over_runs(
            np.maximum(300 + 20 * luck, 0).tolist(), (0.01 + 0.0008 * draw.normal(0, 1, 3)).tolist(), quality_ok=True
        )
        missed += not (got.low is not None and got.high is not None and got.low <= 30_000 <= got.high)
    assert missed / NUM_SIMULATIONS < share_of_simulations_that_may_miss()


def holds(found: metrics.PaybackEstimate, uses: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= uses <= found.high


@pytest.mark.parametrize("sd", [0.0, 10.0], ids=["one bill", "a build for each run"])
def test_payback_over_runs_that_share_a_measurement_covers_the_true_number_of_uses_95_percent(sd: float) -> None:
    """Three runs and ten windows of one measurement, which makes an interval too narrow if it is counted thrice."""
    draw, missed, missed_if_thrice = np.random.default_rng(6), 0, 0
    for _ in range(NUM_SIMULATIONS):
        builds = draw.normal(300, sd, 3).tolist()
        teacher, student = draw.normal(0.02, 0.001, 10).tolist(), draw.normal(0.01, 0.001, 10).tolist()
        saved = float(np.mean(teacher) - np.mean(student))
        shared = metrics.payback_over_runs(builds, [saved], windows=(teacher, student), quality_ok=True)
        missed += not holds(shared, 30_000)
        missed_if_thrice += not holds(metrics.payback_over_runs(builds, [saved] * 3, quality_ok=True), 30_000)
    assert missed / NUM_SIMULATIONS < share_of_simulations_that_may_miss()
    assert missed_if_thrice / NUM_SIMULATIONS > 0.10


def test_payback_over_runs_of_which_two_share_a_measurement_covers_the_true_number_of_uses_95_percent() -> None:
    draw, missed, missed_if_thrice = np.random.default_rng(7), 0, 0
    for _ in range(NUM_SIMULATIONS):
        builds, (shared, own) = draw.normal(300, 2, 3).tolist(), draw.normal(0.01, 0.0002, 2).tolist()
        missed += not holds(metrics.payback_over_runs(builds, [shared, own], quality_ok=True), 30_000)
        thrice = metrics.payback_over_runs(builds, [shared, shared, own], quality_ok=True)
        missed_if_thrice += not holds(thrice, 30_000)
    assert missed / NUM_SIMULATIONS < share_of_simulations_that_may_miss()
    assert missed_if_thrice / NUM_SIMULATIONS > 0.10


def test_payback_over_runs_with_one_measurement_and_one_bill_is_that_of_its_windows() -> None:
    windows = [2.1, 2.0, 1.9], [1.2, 0.8, 1.0]
    once = metrics.payback(100.0, *windows, quality_ok=True)
    got = metrics.payback_over_runs([100.0] * 3, [1.0], windows=windows, quality_ok=True)
    assert (got.uses, got.low, got.high) == pytest.approx((once.uses, once.low, once.high))
    noisy = metrics.payback_over_runs([100.0] * 3, [1.0], windows=([1.0, 2.0, 3.0], windows[1]), quality_ok=True)
    assert (noisy.uses, noisy.low, noisy.high) == (None, None, None)
    assert "within the noise of the measurement" in noisy.reason


def test_payback_over_runs_needs_a_build_for_each_saving() -> None:
    with pytest.raises(InputError, match="got 1 builds and 2 savings"):
        metrics.payback_over_runs([5.0], [1.0, 1.1], quality_ok=True)


def test_payback_over_runs_divides_means() -> None:
    got = metrics.payback_over_runs([90.0, 100.0, 110.0], [0.9, 1.0, 1.1], quality_ok=True, unit="CPU-s")
    assert got.uses == pytest.approx(100.0)
    assert got.low == pytest.approx(100.0)  # build and saving move together, so their ratio is sure
    one_bill = metrics.payback_over_runs([100.0] * 3, [0.9, 1.0, 1.1], quality_ok=True)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (one_bill.low, one_bill.high) == pytest.approx((100 / (1 + half), 100 / (1 - half)))


@pytest.mark.parametrize(
    ("savings", "quality_ok", "why"),
    [
        ([0.1, 1.0, 1.9], True, "within what 3 runs differ by"),
        ([0.1, 1.9], True, "within what 2 measurements differ by"),
        ([-0.5, -0.4, -0.6], True, "a use of the student costs 0.5 J more than one of the teacher"),
        ([1.0, 1.0, 1.1], False, "quality is not close enough to the teacher's"),
    ],
)
def test_payback_over_runs_is_never_and_says_why(savings: list[float], quality_ok: bool, why: str) -> None:
    got = metrics.payback_over_runs([5.0] * 3, savings, quality_ok=quality_ok)
    assert (got.uses, got.low, got.high) == (None, None, None)
    assert got.reason.startswith("Never: ")
    assert why in got.reason


def test_payback_of_a_single_run_has_no_interval_and_says_so() -> None:
    got = metrics.payback_over_runs([5.0], [1.0], quality_ok=True)
    assert (got.uses, got.low) == (5.0, None)
    assert "no interval over runs" in got.reason
