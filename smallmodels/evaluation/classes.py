"""Quality of classifiers: one class for each text.

Legend: N examples, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import metrics, models, records
from smallmodels.data.splits import Split
from smallmodels.evaluation.contenders import Contender, Contenders, Evaluation, as_contender, forward
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context


def evaluate_classifiers(
    contenders: Contenders,
    split: Split,
    label_names: Sequence[str],
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Accuracy and macro F1 with 95 % intervals, calibration, a row per class, agreement with `teacher`.

    Args:
        contenders: Models and baselines by role.
        split: With labels, tokenised; for models with another tokenizer, the texts are tokenised again.
        label_names: Names of the classes.
        compute: Device and number format of the models.
        context: Of the run.
    """
    compute = compute or models.choose_compute()
    found: dict[str, npt.NDArray[np.float64]] = {}
    for number, (role, value) in enumerate(contenders.items()):
        found[role] = probabilities(as_contender(value).model, split, compute, context)
        context.progress(number + 1, len(contenders))
    answers = {role: probabilities_NC.argmax(1) for role, probabilities_NC in found.items()}
    results = []
    predictions: dict[str, list[Any]] = {"id": list(split.ids), "label": [label_names[i] for i in split.class_labels]}
    for role, value in contenders.items():
        teacher = answers.get("teacher") if role != "teacher" else None
        results.append(_classifier_result(role, as_contender(value), split, found[role], label_names, teacher))
        predictions[f"{role}/prediction"] = [label_names[i] for i in answers[role]]
        predictions[f"{role}/score"] = [round(float(p), 6) for p in found[role].max(1)]
    return Evaluation(results, predictions)


def probabilities(model: Any, split: Split, compute: Compute, context: Context) -> npt.NDArray[np.float64]:
    """Of each class for each text, (N, C); of a model or a baseline."""
    if isinstance(model, TextModel):
        return softmax(forward(model, split, compute, context))
    return np.asarray(model.predict_proba(split.whole_texts), dtype=np.float64)


def softmax(logits_NC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities of shape (N, C) in float64."""
    shifted = logits_NC.astype(np.float64) - logits_NC.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def _classifier_result(
    role: str,
    contender: Contender,
    split: Split,
    probabilities_NC: npt.NDArray[np.float64],
    label_names: Sequence[str],
    teacher: npt.NDArray[np.int64] | None,
) -> records.Result:
    predicted = probabilities_NC.argmax(1)
    return records.Result(
        role=role,
        split=split.name,
        metrics={
            "accuracy": metrics.accuracy(predicted, split.class_labels),
            "macro_f1": metrics.macro_f1(predicted, split.class_labels),
        },
        per_class=metrics.per_class_table(predicted, split.class_labels, label_names),
        agreement=None if teacher is None else metrics.agreement(predicted, teacher),
        calibration_error=metrics.expected_calibration_error(probabilities_NC, split.class_labels),
        built_by=list(contender.built_by),
        teacher_phases=list(contender.teacher_phases),
    )


def macro_f1(model: TextModel, split: Split, *, compute: Compute | None = None) -> float:
    """Mean F1 over the classes of a classifier on a tokenised split with labels."""
    logits_NC = forward(model, split, compute, NO_CONTEXT)
    return metrics.macro_f1(logits_NC.argmax(1), split.class_labels, n_bootstrap=1).value


def accuracy(model: TextModel, split: Split, *, compute: Compute | None = None) -> float:
    """Share of right answers of a classifier on a tokenised split with labels."""
    logits_NC = forward(model, split, compute, NO_CONTEXT)
    return float((logits_NC.argmax(1) == split.class_labels).mean())
