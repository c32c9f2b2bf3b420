"""What a classifier gains by not answering where it is unsure: risk against coverage."""

import dataclasses

import numpy as np

from smallmodels import metrics
from smallmodels.evaluation.contenders import Evaluation
from smallmodels.evaluation.groups import metric_cells, with_group_rows

COVERAGES = (0.8, 0.5)
"""Shares of the items that are answered, the surest first, whose accuracy is among the metrics."""
CURVE = tuple(percent / 100 for percent in range(100, 0, -10))
"""Those whose accuracy is a row of its own."""


def with_abstention(found: Evaluation) -> Evaluation:
    """The same with the area under risk against coverage, and accuracy where only the surest items are answered.

    Args:
        found: Of `evaluate_classifiers`, whose predictions hold each answer and how sure it is.

    Returns: Results with these among their metrics, and with a group for each point of the curve: `surest 90 %` with
        the `accuracy` (one minus the risk) of the `n` items that are answered there, equal confidences together.
    """
    labels = np.asarray(found.predictions["label"])
    results = []
    for result in found.results:
        is_right = np.asarray(found.predictions[f"{result.role}/prediction"]) == labels
        sure = np.asarray(found.predictions[f"{result.role}/score"])
        more = {"area_under_risk_coverage": metrics.area_under_risk_coverage(sure, is_right)}
        for coverage in COVERAGES:
            more[f"accuracy_at_{100 * coverage:.0f}_percent"] = metrics.accuracy_at_coverage(sure, is_right, coverage)
        points = {coverage: metrics.accuracy_at_coverage(sure, is_right, coverage) for coverage in CURVE}
        rows = [
            {"group": f"surest {100 * coverage:.0f} %", "n": point.n, **metric_cells("accuracy", point)}
            for coverage, point in points.items()
        ]
        changed = dataclasses.replace(result, metrics={**result.metrics, **more})
        results += with_group_rows([changed], result.role, rows)
    return dataclasses.replace(found, results=results)
