"""What evaluations add for classifiers that may abstain, for several labels at once, and for test items in groups."""

import numpy as np
import pytest
from small_data import FP32

from smallmodels import evaluation, metrics
from smallmodels.data.splits import Split
from smallmodels.evaluation import Contender

PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55], [0.7, 0.3], [0.1, 0.9]])
TRUTH = np.array([0, 1, 1, 0, 0, 1])
LANGUAGES = ["en", "en", "sw", "sw", "en", "sw"]


class Fixed:
    num_parameters, size_bytes, number_format = 1, 4, "fp64"

    def predict_proba(self, texts):
        return PROBABILITIES


@pytest.fixture
def found():
    split = Split("test", [str(i) for i in range(6)], [f"text {i}" for i in range(6)], TRUTH)
    return evaluation.evaluate_classifiers({"student": Contender(Fixed())}, split, ["yes", "no"], compute=FP32)


def test_thresholds_below_a_millionth_still_hold_a_label_back():
    class Unsure(Fixed):
        def predict_proba(self, texts):
            return np.array([[1e-9, 0.9], [3e-7, 0.2], [1e-9, 0.8], [4e-7, 0.1]])

    truth = np.array([[0, 1], [1, 0], [0, 1], [1, 0]])
    split = Split("test", list("abcd"), list("abcd"), truth)
    done = evaluation.evaluate_multilabel_classifiers({"student": Unsure()}, split, split, ["rare", "usual"])
    assert 0 < done.notes["student"]["thresholds"][0] < 3e-7
    assert done.results[0].metrics["macro_f1"].value == 1.0


def test_with_abstention_answers_the_surest_first(found):
    result = evaluation.with_abstention(found).results[0]
    sure = PROBABILITIES.max(1)
    expected = metrics.area_under_risk_coverage(sure, PROBABILITIES.argmax(1) == TRUTH).value
    assert result.metrics["area_under_risk_coverage"].value == pytest.approx(expected)
    assert result.metrics["accuracy_at_50_percent"].value == 1.0
    assert result.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert result.metrics["accuracy_at_50_percent"].n == 3


def test_with_abstention_has_a_row_for_each_point_of_the_curve(found):
    rows = evaluation.with_abstention(found).results[0].groups
    curve = metrics.risk_coverage(PROBABILITIES.max(1), PROBABILITIES.argmax(1) == TRUTH)
    points = dict(zip((curve.coverage * 6).round().astype(int), 1 - curve.risk, strict=True))
    assert [row["group"] for row in rows] == [f"surest {share} %" for share in range(100, 0, -10)]
    # 0.9 twice, 0.8, 0.7, 0.6 and 0.55 in the order of how sure: as few as make up the share, ties together
    assert [row["n"] for row in rows] == [6, 6, 5, 5, 4, 3, 3, 2, 2, 2]
    for row in rows:
        assert row["accuracy"] == pytest.approx(points[row["n"]])
        assert row["accuracy_low"] < row["accuracy"] <= row["accuracy_high"] <= 1
    assert rows[0]["accuracy"] < rows[-1]["accuracy"]


def test_by_group_gives_each_group_its_share_and_names_the_worst(found):
    result = evaluation.by_group(found, LANGUAGES, "accuracy").results[0]
    shares = {row["group"]: row["accuracy"] for row in result.groups}
    assert shares == pytest.approx({"en": 2 / 3, "sw": 2 / 3})
    assert result.metrics["worst_group_accuracy"].value == pytest.approx(2 / 3)
    assert result.metrics["spread_of_groups"].value == 0
    other = evaluation.by_group(found, ["a", "b", "a", "b", "a", "a"], "accuracy").results[0]
    assert (other.metrics["worst_group_accuracy"].value, other.metrics["spread_of_groups"].value) == (0.0, 1.0)
    assert [row["n"] for row in other.groups] == [4, 2]
