"""Kinds of task for encoders: what differs between them in the steps that recipes share (see `distilling`).

A task is a frozen record of functions; a recipe that needs another evaluation replaces that one function.

Shapes: B texts of a batch, N targets (texts, or words of texts), C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Of a model, a split, the names of its labels and `compute`: the metric."""
    evaluate: Callable[..., evaluation.Evaluation]
    """Of contenders and tokenised splits, with `compute` and `context`: results on test."""
    baselines: Mapping[str, Callable[..., Any]]
    """By role, what makes a baseline of a split and `num_classes`."""
    outputs: Callable[[Splits], Sequence[str]] = lambda splits: splits.label_names
    """Names of a model's outputs."""
    num_signal_rows: Callable[[Split], int] = len
    """Rows of logits that a teacher stores for a split."""


def _logits_of_texts(model: Model, batch: Batch) -> Tensor:
    logits: Tensor = model(**batch.inputs).logits
    return logits


def _evaluate_classes(
    contenders: evaluation.Contenders, splits: Splits, *, compute: models.Compute, context: Any
) -> evaluation.Evaluation:
    return evaluation.evaluate_classifiers(
        contenders, splits.test, splits.label_names, compute=compute, context=context
    )


CLASSES = Task(
    tag="text-classification",
    metric="accuracy",
    load_model=models.load_classifier,
    logits=_logits_of_texts,
    hard_loss=losses.cross_entropy,
    soft_loss=losses.kl_divergence,
    validate=lambda model, split, _, compute: evaluation.accuracy(model, split, compute=compute),
    evaluate=_evaluate_classes,
    baselines={"tfidf": baselines.TfidfClassifier.fit, "majority": baselines.MajorityClassifier.fit},
)
"""One class for each text, or for each pair of texts."""
