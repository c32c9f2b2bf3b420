"""What a model is worth and what one use of it costs: quality, agreement with the teacher, size, latency, joules.

`contenders` are what is compared; `classes` and `retrieval` say how good each is at its kind of task, `inference` what
a use costs, `groups` what it costs in each language; `uses` is a finished model at work.
"""

from smallmodels.evaluation.classes import accuracy, evaluate_classifiers, softmax
from smallmodels.evaluation.contenders import Contender, Contenders, Evaluation, as_contender, forward, plain_result
from smallmodels.evaluation.groups import language_costs, num_words
from smallmodels.evaluation.inference import InferenceCosts, measure_inference
from smallmodels.evaluation.retrieval import (
    Hit,
    SearchIndex,
    evaluate_retrieval,
    example_answers,
    mean_reciprocal_rank,
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
    "evaluate_classifiers",
    "evaluate_retrieval",
    "example_answers",
    "example_predictions",
    "forward",
    "is_embedder",
    "label_names",
    "language_costs",
    "mean_reciprocal_rank",
    "measure_inference",
    "num_words",
    "plain_result",
    "predict_texts",
    "softmax",
]
