"""Kinds of task for encoders: what differs between them in the steps that recipes share (see `distilling`).

A task is a frozen record of functions; a recipe that needs another evaluation replaces that one function.

Shapes: B texts of a batch, N targets (texts, or words of texts), C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from smallmodels import baselines, evaluation, losses, models, sources
from smallmodels.data import Batch, Split, Splits
from smallmodels.models import Model, TextModel


@dataclass(frozen=True)
class Task:
    """What a kind of task asks of the shared steps."""

    tag: str
    """Pipeline tag of the hub."""
    metric: str
    """Key of a result's metrics by which training chooses and reports rank."""
    load_model: Callable[..., tuple[TextModel, sources.ModelFiles, bool]]
    """As `models.load_classifier`."""
    logits: Callable[[Model, Batch], Tensor]
    """(N, C), what the losses take."""
    hard_loss: Callable[[Tensor, Tensor], Tensor]
    """Of logits and labels, one value per target."""
    soft_loss: Callable[..., Tensor]
    """Of logits, the teacher's logits and `temperature`, one value per target; zero where the two agree."""
    validate: Callable[..., float]
    """Of a model and tokenised splits, with `compute`: the metric on validation."""
    evaluate: Callable[..., evaluation.Evaluation]
    """Of contenders and tokenised splits, with `compute` and `context`: results on test."""
    baselines: Mapping[str, Callable[..., Any]]
    """By role, what makes a baseline of a split and `num_classes`."""
    outputs: Callable[[Splits], Sequence[str]] = lambda splits: splits.label_names
    """Names of a model's outputs."""
    begin: Callable[[TextModel, Split], None] = lambda model, train: None
    """Prepares a model with a new head for the labels of train."""
    num_signal_rows: Callable[[Split], int] = len
    """Rows of logits that a teacher stores for a split."""


def _logits_of_texts(model: Model, batch: Batch) -> Tensor:
    logits: Tensor = model(**batch.inputs).logits
    return logits


def _logits_of_words(model: Model, batch: Batch) -> Tensor:
    return _logits_of_texts(model, batch).flatten(0, 1).index_select(0, batch.targets)


def _begin_at_shares(model: TextModel, train: Split) -> None:
    models.begin_at_shares(model, np.asarray(train.labels))


def validate_macro_f1(model: TextModel, splits: Splits, compute: models.Compute) -> float:
    """For classes of which one is far more frequent than the others."""
    return evaluation.macro_f1(model, splits.validation, compute=compute)


CLASSES = Task(
    tag="text-classification",
    metric="accuracy",
    load_model=models.load_classifier,
    logits=_logits_of_texts,
    hard_loss=losses.cross_entropy,
    soft_loss=losses.kl_divergence,
    validate=lambda model, splits, compute: evaluation.accuracy(model, splits.validation, compute=compute),
    evaluate=lambda contenders, splits, compute, context: evaluation.evaluate_classifiers(
        contenders, splits.test, splits.label_names, compute=compute, context=context
    ),
    baselines={"tfidf": baselines.TfidfClassifier.fit, "majority": baselines.MajorityClassifier.fit},
)
"""One class for each text, or for each pair of texts."""

LABELS = Task(
    tag="text-classification",
    metric="micro_f1",
    load_model=partial(models.load_classifier, problem="multi_label_classification"),
    logits=_logits_of_texts,
    hard_loss=losses.binary_cross_entropy,
    soft_loss=losses.binary_kl_divergence,
    validate=lambda model, splits, compute: evaluation.micro_f1(model, splits.validation, compute=compute),
    evaluate=lambda contenders, splits, compute, context: evaluation.evaluate_multilabel_classifiers(
        contenders, splits.test, splits.validation, splits.label_names, compute=compute, context=context
    ),
    baselines={"tfidf": baselines.TfidfLabels.fit},
    begin=_begin_at_shares,
)
"""Any number of labels for each text."""

WORDS = Task(
    tag="token-classification",
    metric="f1",
    load_model=models.load_token_classifier,
    logits=_logits_of_words,
    hard_loss=losses.cross_entropy,
    soft_loss=losses.kl_divergence,
    validate=lambda model, splits, compute: evaluation.span_f1(
        model, splits.validation, splits.label_names, compute=compute
    ),
    evaluate=lambda contenders, splits, compute, context: evaluation.evaluate_token_classifiers(
        contenders, splits.test, splits.label_names, compute=compute, context=context
    ),
    baselines={"word_tags": baselines.WordTagger.fit},
    num_signal_rows=lambda split: sum(text.count(" ") + 1 for text in split.texts),
)
"""A tag for each word, of which spans are made."""

SCORES = Task(
    tag="text-classification",
    metric="spearman",
    load_model=partial(models.load_classifier, problem="regression"),
    logits=_logits_of_texts,
    hard_loss=losses.squared_error,
    soft_loss=lambda logits, teacher, temperature: losses.squared_error(logits, teacher),
    validate=lambda model, splits, compute: evaluation.rank_correlation(model, splits.validation, compute=compute),
    evaluate=lambda contenders, splits, compute, context: evaluation.evaluate_scorers(
        contenders, splits.test, compute=compute, context=context
    ),
    baselines={"tfidf": baselines.TfidfScorer.fit},
    outputs=lambda splits: ("score",),
)
"""A score for each pair of texts; a temperature has nothing to soften."""
