"""A finished classifier in use: answers for texts, and examples for readers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from smallmodels import metrics, models, sources
from smallmodels.data.splits import Splits, tokenize, tokenize_words
from smallmodels.evaluation.classes import softmax
from smallmodels.evaluation.contenders import Evaluation
from smallmodels.evaluation.labels import sigmoid
from smallmodels.models import Compute, TextModel

Kind = Literal["classes", "labels", "words", "score"]
"""What a finished model says of a text: one of several classes, any number of labels, spans of words, or a number."""


@dataclass(frozen=True)
class Answer:
    """Something that a model says of a text."""

    label: str
    """A class or label, the type of a span, or `score`."""
    score: float
    """Its probability; of a span the mean of its words', and the number itself where that is the answer."""
    text: str | None = None
    """The words of a span."""


def kind_of(model: TextModel) -> Kind:
    """What a model says of a text."""
    if models.is_token_classifier(model.model):
        return "words"
    config: Any = model.model.config
    kinds: dict[str, Kind] = {"multi_label_classification": "labels", "regression": "score"}
    return kinds.get(str(getattr(config, "problem_type", None)), "classes")


def reads_pairs(model: TextModel) -> bool:
    """Whether a model was trained on pairs of texts."""
    return bool(model.notes.get("reads_pairs"))


def answer_texts(
    model: TextModel,
    texts: Sequence[str],
    seconds: Sequence[str] | None = None,
    *,
    batch_size: int = 64,
    compute: Compute | None = None,
) -> list[list[Answer]]:
    """What a model says of each text, the surest first, in batches.

    Args:
        model: A classifier of texts or words, or one that gives scores.
        texts: To read; where words are asked for, they are those between white space.
        seconds: The second text of each pair.
        batch_size: Texts at once.
        compute: Device and number format.

    Returns: For each text all classes, the labels that reach the thresholds which validation chose, the spans from left
        to right, or one score.
    """
    compute = compute or models.choose_compute()
    answers: list[list[Answer]] = []
    for start in range(0, len(texts), batch_size):
        part = slice(start, start + batch_size)
        answers += _answer(model, texts[part], None if seconds is None else seconds[part], compute)
    return answers


def _answer(
    model: TextModel, texts: Sequence[str], seconds: Sequence[str] | None, compute: Compute
) -> list[list[Answer]]:
    kind = kind_of(model)
    if kind == "words":
        return _spans(model, [" ".join(text.split()) for text in texts], compute)
    tokens = tokenize(texts, model.tokenizer, max_length=model.max_length, seconds=seconds)
    logits_NC = models.forward_all(model, tokens, compute=compute)
    if kind == "score":
        return [[Answer("score", float(row[0]))] for row in logits_NC]
    names = label_names(model)
    probabilities_NC = softmax(logits_NC) if kind == "classes" else sigmoid(logits_NC)
    lowest = (
        np.zeros(len(names)) if kind == "classes" else np.asarray(model.notes.get("thresholds", [0.5] * len(names)))
    )
    return [
        [Answer(names[i], float(row[i])) for i in (-row).argsort(kind="stable").tolist() if row[i] >= lowest[i]]
        for row in probabilities_NC
    ]


def _spans(model: TextModel, texts: Sequence[str], compute: Compute) -> list[list[Answer]]:
    names, found = label_names(model), []
    rows = models.forward_words(
        model, tokenize_words(texts, model.tokenizer, max_length=model.max_length), compute=compute
    )
    for number, text in enumerate(texts):
        probabilities_NC, words = softmax(rows[number]), text.split(" ")
        tags = probabilities_NC.argmax(1) if len(probabilities_NC) else np.zeros(0, dtype=np.int64)
        spans = metrics.spans_of([names[tag] for tag in tags])
        best = probabilities_NC.max(1, initial=0.0)
        found.append([Answer(kind, float(best[a:b].mean()), " ".join(words[a:b])) for kind, a, b in spans])
    return found


def label_names(model: TextModel) -> list[str]:
    """Names of a classifier's classes in the order of its logits."""
    config: Any = model.model.config
    return [str(config.id2label[i]) for i in range(config.num_labels)]


def example_predictions(evaluation: Evaluation, splits: Splits, *, count: int = 3) -> list[dict[str, Any]]:
    """Test texts with the student's answer, spread over the split, for readers to judge.

    None of a user's own file: reports are passed on, and its texts may not be.
    """
    if splits.source.license == sources.USER_PROVIDED:
        return []
    split, columns = splits.test, evaluation.predictions
    chosen = [i * len(split) // count for i in range(min(count, len(split)))]
    return [
        {
            "input": split.whole_texts[i][:300],
            "answers": [{"text": columns["student/prediction"][i], "score": columns["student/score"][i]}],
            "label": columns["label"][i],
        }
        for i in chosen
    ]


def is_embedder(model: nn.Module) -> bool:
    """Whether a model gives embeddings and not logits."""
    return isinstance(model, (models.Embedder, models.StaticEmbedder))
