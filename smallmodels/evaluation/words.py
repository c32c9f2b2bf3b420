"""Quality of token classifiers: the spans that they find.

Shapes: W words of all texts one after the other, C tags.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import metrics, models, records
from smallmodels.arrays import Ragged
from smallmodels.data.splits import Split
from smallmodels.errors import InputError
from smallmodels.evaluation.contenders import Contender, Contenders, Evaluation, as_contender, forward
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_OUTSIDE = "O"
_COUNTS = ("num_right", "num_found", "num_expected")
"""Columns of predictions: spans of a text."""


def evaluate_token_classifiers(
    contenders: Contenders,
    split: Split,
    tag_names: Sequence[str],
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """F1 of spans with 95 % intervals over texts, as seqeval counts them, and a row per type.

    Args:
        contenders: Models and baselines by role.
        split: With a label for each word; for models with another tokenizer, the texts are cut into tokens again.
        tag_names: `O`, `B-person`, …
        compute: Device and number format of the models.
        context: Of the run.

    Returns: Results whose agreement is the share of words that get the teacher's tag. `strict_f1` counts spans alone
        whose tags keep the rules of BIO or BIOES. A word that a model does not see, because its text is cut, is outside
        of all spans. Beside the words of its spans, the predictions hold how many of each text are right, found and
        expected: what F1 is made of, and what words without a place do not tell.
    """
    compute = compute or models.choose_compute()
    labels = _tags_of(split)
    found: dict[str, npt.NDArray[np.int64]] = {}
    for number, (role, value) in enumerate(contenders.items()):
        found[role] = predict_tags(as_contender(value).model, split, tag_names, compute=compute, context=context)
        context.progress(number + 1, len(contenders))
    results = []
    predictions: dict[str, list[Any]] = {"id": list(split.ids), "label": _shown(split, labels.values, tag_names)}
    for role, value in contenders.items():
        teacher = found.get("teacher") if role != "teacher" else None
        results.append(_result(role, as_contender(value), split, found[role], tag_names, teacher))
        predictions[f"{role}/prediction"] = _shown(split, found[role], tag_names)
        predictions[f"{role}/score"] = _share_right(labels, found[role])
        counts = metrics.span_counts(found[role], labels.values, labels.offsets, tag_names)
        predictions |= {f"{role}/{name}": column.tolist() for name, column in zip(_COUNTS, counts.T, strict=True)}
    return Evaluation(results, predictions)


def span_f1(model: TextModel, split: Split, tag_names: Sequence[str], *, compute: Compute | None = None) -> float:
    """Micro F1 of the spans that a token classifier finds."""
    labels = _tags_of(split)
    predicted_W = predict_tags(model, split, tag_names, compute=compute)
    return metrics.span_scores(predicted_W, labels.values, labels.offsets, tag_names, n_bootstrap=1).f1.value


def predict_tags(
    model: Any,
    split: Split,
    tag_names: Sequence[str],
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> npt.NDArray[np.int64]:
    """A tag for each word, shape (num_words,), of a token classifier or a baseline."""
    if not isinstance(model, TextModel):
        return np.asarray(model.predict(split), dtype=np.int64)
    logits: Ragged = forward(model, split, compute, context)
    num_words = np.asarray([text.count(" ") + 1 for text in split.texts], dtype=np.int64)
    outside = tag_names.index(_OUTSIDE) if _OUTSIDE in tag_names else 0
    tags_W = np.full(num_words.sum(), outside, dtype=np.int64)
    begins = num_words.cumsum() - num_words
    seen = logits.lengths
    places = np.repeat(begins - logits.offsets[:-1], seen) + np.arange(seen.sum())
    tags_W[places] = logits.values.argmax(1)
    return tags_W


def _tags_of(split: Split) -> Ragged:
    if not isinstance(split.labels, Ragged):
        raise InputError(f"split {split.name} should have a label for each word, but has none: choose other data")
    return split.labels


def _result(
    role: str,
    contender: Contender,
    split: Split,
    predicted_W: npt.NDArray[np.int64],
    tag_names: Sequence[str],
    teacher_W: npt.NDArray[np.int64] | None,
) -> records.Result:
    labels = _tags_of(split)
    of_words = predicted_W, labels.values, labels.offsets, tag_names
    scores = metrics.span_scores(*of_words)
    measured = {
        "f1": scores.f1,
        "precision": scores.precision,
        "recall": scores.recall,
        "macro_f1": scores.macro_f1,
    }
    if (scheme := metrics.scheme_of(tag_names)) != "IO":  # which has no rule to break
        measured["strict_f1"] = metrics.span_scores(*of_words, scheme=scheme).f1
    return records.Result(
        role=role,
        split=split.name,
        metrics=measured,
        per_class=scores.per_type,
        agreement=None if teacher_W is None else metrics.agreement(predicted_W, teacher_W),
        calibration_error=None,
        built_by=list(contender.built_by),
        teacher_phases=list(contender.teacher_phases),
    )


def _shown(split: Split, tags_W: npt.NDArray[np.int64], tag_names: Sequence[str]) -> list[str]:
    """The spans of each text in words: `disease: heart failure; chemical: aspirin`."""
    shown, begin = [], 0
    for text in split.texts:
        words = text.split(" ")
        spans = metrics.spans_of([tag_names[tag] for tag in tags_W[begin : begin + len(words)]])
        shown.append("; ".join(f"{kind}: {' '.join(words[first:stop])}" for kind, first, stop in spans))
        begin += len(words)
    return shown


def _share_right(labels: Ragged, tags_W: npt.NDArray[np.int64]) -> list[float]:
    """Of the words of each text."""
    is_right = np.append(0, np.cumsum(tags_W == labels.values))
    return [round(float(share), 6) for share in np.diff(is_right[labels.offsets]) / labels.lengths]
