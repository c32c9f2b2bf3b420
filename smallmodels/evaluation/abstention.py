"""What a classifier gains by not answering where it is unsure."""

import dataclasses

import numpy as np

from smallmodels import metrics
from smallmodels.evaluation.contenders import Evaluation

COVERAGES = (0.8, 0.5)
"""Shares of the items that are answered, the surest first."""


def with_abstention(found: Evaluation) -> Evaluation:
    """The same with the area under risk against coverage, and accuracy where only the surest items are answered.

    Args:
        found: Of `evaluate_classifiers`, whose predictions hold each answer and how sure it is.
    """
    labels = np.asarray(found.predictions["label"])
    results = []
    for result in found.results:
        is_right = np.asarray(found.predictions[f"{result.role}/prediction"]) == labels
        sure = np.asarray(found.predictions[f"{result.role}/score"])
        more = {"area_under_risk_coverage": metrics.area_under_risk_coverage(sure, is_right)}
        for coverage in COVERAGES:
            more[f"accuracy_at_{100 * coverage:.0f}_percent"] = metrics.accuracy_at_coverage(sure, is_right, coverage)
        results.append(dataclasses.replace(result, metrics={**result.metrics, **more}))
    return dataclasses.replace(found, results=results)
