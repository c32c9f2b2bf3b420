"""What a model is worth and what one use of it costs: quality, agreement with the teacher, size, latency, joules.

`contenders` are what is compared; `classes`, `retrieval` and `similarity` say how good each is at its kind of task,
`inference` what a use costs, `groups` what it costs in each language; `uses` is a finished model at work.
"""

from smallmodels.evaluation.classes import accuracy, evaluate_classifiers, softmax
from smallmodels.evaluation.contenders import (
    Contender,
    Contenders,
    Evaluation,
    as_contender,
    forward,
    plain_result,
    with_metrics_of,
)
from smallmodels.evaluation.groups import language_costs, num_words, with_group_rows
from smallmodels.evaluation.inference import InferenceCosts, measure_inference
from smallmodels.evaluation.retrieval import (
    Hit,
    SearchIndex,
    evaluate_retrieval,
    example_answers,
    mean_reciprocal_rank,
)
from smallmodels.evaluation.similarity import (
    bitext_accuracy,
    evaluate_languages,
    evaluate_similarity,
    example_pairs,
    pair_similarities,
    spearman,
)
from smallmodels.evaluation.uses import example_predictions, is_embedder, label_names, predict_texts

__all__ = [
    "Contender",
    "Contenders",
    "Evaluation",
    "Hit",
    "InferenceCosts",
    "SearchIndex",
    "accuracy",
    "as_contender",
    "bitext_accuracy",
    "evaluate_classifiers",
    "evaluate_languages",
    "evaluate_retrieval",
    "evaluate_similarity",
    "example_answers",
    "example_pairs",
    "example_predictions",
    "forward",
    "is_embedder",
    "label_names",
    "language_costs",
    "mean_reciprocal_rank",
    "measure_inference",
    "num_words",
    "pair_similarities",
    "plain_result",
    "predict_texts",
    "softmax",
    "spearman",
    "with_group_rows",
    "with_metrics_of",
]
