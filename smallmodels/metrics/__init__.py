"""How good a model is, how sure of it we are, and when it has paid for itself; arrays in, numbers out, no torch.

Every interval covers 95 %. Resampling is seeded, so the same arrays give the same interval.

`classes` is for one class per item, `multilabel` for several labels, `spans` for tagged words, `scores` for numbers,
`retrieval` for ranks, `abstention` for models that may give no answer, `groups` for values side by side, `intervals`
for means and differences, `comparing` for which of two models is better over seeds and items, `repayment` for when a
cost is saved again.
"""

from smallmodels.metrics.abstention import (
    RiskCoverage,
    accuracy_at_coverage,
    area_under_risk_coverage,
    risk_coverage,
)
from smallmodels.metrics.classes import accuracy, agreement, expected_calibration_error, macro_f1, per_class_table
from smallmodels.metrics.comparing import (
    Difference,
    Items,
    Spread,
    Verdict,
    cost_to_reach,
    difference,
    is_within,
    macro_f1_items,
    mean_items,
    paired_bootstrap,
    ratio_items,
    seed_difference,
    spearman_items,
    spread,
    unpaired_items,
    verdict,
)
from smallmodels.metrics.groups import GroupComparison, compare_groups, per_group
from smallmodels.metrics.intervals import (
    mean_with_interval,
    paired_difference,
    ratio_with_interval,
    student_t_interval,
    unpaired_difference,
)
from smallmodels.metrics.multilabel import (
    average_precision,
    choose_threshold,
    choose_thresholds,
    multilabel_f1,
    per_label_table,
)
from smallmodels.metrics.repayment import PaybackEstimate, payback, payback_over_runs
from smallmodels.metrics.retrieval import reciprocal_ranks
from smallmodels.metrics.scores import mean_spearman, pearson, spearman
from smallmodels.metrics.spans import Scheme, SpanScores, scheme_of, span_counts, span_scores, spans_of

__all__ = [
    "Difference",
    "GroupComparison",
    "Items",
    "PaybackEstimate",
    "RiskCoverage",
    "Scheme",
    "SpanScores",
    "Spread",
    "Verdict",
    "accuracy",
    "accuracy_at_coverage",
    "agreement",
    "area_under_risk_coverage",
    "average_precision",
    "choose_threshold",
    "choose_thresholds",
    "compare_groups",
    "cost_to_reach",
    "difference",
    "expected_calibration_error",
    "is_within",
    "macro_f1",
    "macro_f1_items",
    "mean_items",
    "mean_spearman",
    "mean_with_interval",
    "multilabel_f1",
    "paired_bootstrap",
    "paired_difference",
    "payback",
    "payback_over_runs",
    "pearson",
    "per_class_table",
    "per_group",
    "per_label_table",
    "ratio_items",
    "ratio_with_interval",
    "reciprocal_ranks",
    "risk_coverage",
    "scheme_of",
    "seed_difference",
    "span_counts",
    "span_scores",
    "spans_of",
    "spearman",
    "spearman_items",
    "spread",
    "student_t_interval",
    "unpaired_difference",
    "unpaired_items",
    "verdict",
]
