"""What a model is worth and what one use of it costs: quality, agreement with the teacher, size, latency, joules.

`contenders` are what is compared; `classes`, `labels`, `words`, `scores`, `similarity` and `retrieval` say how good
each is at its kind of task, `inference` what a use costs, `groups` what it costs in each language; `uses` is a finished
model at work.
"""

from smallmodels.evaluation.abstention import with_abstention
from smallmodels.evaluation.classes import accuracy, evaluate_classifiers, macro_f1, softmax
from smallmodels.evaluation.contenders import (
    Contender,
    Contenders,
    Evaluation,
    as_contender,
    forward,
    plain_result,
    with_metrics_of,
)
from smallmodels.evaluation.groups import by_group, language_costs, num_words, with_group_rows
from smallmodels.evaluation.inference import InferenceCosts, measure_inference, measure_uses
from smallmodels.evaluation.labels import evaluate_multilabel_classifiers, micro_f1, sigmoid
from smallmodels.evaluation.retrieval import (
    Hit,
    SearchIndex,
    evaluate_retrieval,
    example_answers,
    mean_reciprocal_rank,
)
from smallmodels.evaluation.scores import evaluate_scorers, rank_correlation, scores_of
from smallmodels.evaluation.similarity import (
    bitext_accuracy,
    evaluate_languages,
    evaluate_similarity,
    evaluate_translations,
    example_pairs,
    translation_rank,
)
from smallmodels.evaluation.uses import (
    Answer,
    Kind,
    answer_texts,
    example_predictions,
    is_embedder,
    kind_of,
    label_names,
    reads_pairs,
)
from smallmodels.evaluation.vectors import pair_similarities
from smallmodels.evaluation.words import evaluate_token_classifiers, predict_tags, span_f1

__all__ = [
    "Answer",
    "Contender",
    "Contenders",
    "Evaluation",
    "Hit",
    "InferenceCosts",
    "Kind",
    "SearchIndex",
    "accuracy",
    "answer_texts",
    "as_contender",
    "bitext_accuracy",
    "by_group",
    "evaluate_classifiers",
    "evaluate_languages",
    "evaluate_multilabel_classifiers",
    "evaluate_retrieval",
    "evaluate_scorers",
    "evaluate_similarity",
    "evaluate_token_classifiers",
    "evaluate_translations",
    "example_answers",
    "example_pairs",
    "example_predictions",
    "forward",
    "is_embedder",
    "kind_of",
    "label_names",
    "language_costs",
    "macro_f1",
    "mean_reciprocal_rank",
    "measure_inference",
    "measure_uses",
    "micro_f1",
    "num_words",
    "pair_similarities",
    "plain_result",
    "predict_tags",
    "rank_correlation",
    "reads_pairs",
    "scores_of",
    "sigmoid",
    "softmax",
    "span_f1",
    "translation_rank",
    "with_abstention",
    "with_group_rows",
    "with_metrics_of",
]
