"""Quality where several labels may hold: F1 with thresholds that validation chose, and average precision.

Shapes: N texts, C labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import metrics, models, records
from smallmodels.data.splits import Split
from smallmodels.errors import InputError
from smallmodels.evaluation.contenders import Contender, Contenders, Evaluation, as_contender, forward
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context


def evaluate_multilabel_classifiers(
    contenders: Contenders,
    split: Split,
    validation: Split,
    label_names: Sequence[str],
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Micro and macro F1 and average precision with 95 % intervals, and a row per label.

    Args:
        contenders: Models and baselines by role.
        split: With labels (N, C).
        validation: Likewise; the probability from which on a label is given is chosen here, for each contender.
        label_names: Names of the labels.
        compute: Device and number format of the models.
        context: Of the run.

    Returns: Results whose agreement is the share of texts that get the teacher's labels exactly. `notes` hold each
        contender's `thresholds`.
    """
    compute = compute or models.choose_compute()
    labels_NC = _labels_of(split)
    found: dict[str, npt.NDArray[np.float64]] = {}
    notes: dict[str, dict[str, Any]] = {}
    for number, (role, value) in enumerate(contenders.items()):
        model = as_contender(value).model
        chosen = metrics.choose_thresholds(
            label_probabilities(model, validation, compute, context), _labels_of(validation)
        )
        notes[role] = {"thresholds": chosen.tolist()}
        found[role] = label_probabilities(model, split, compute, context)
        context.progress(number + 1, len(contenders))
    given = {role: (p_NC >= np.asarray(notes[role]["thresholds"])).astype(np.int64) for role, p_NC in found.items()}
    results = []
    predictions: dict[str, list[Any]] = {"id": list(split.ids), "label": _shown(labels_NC, label_names)}
    for role, value in contenders.items():
        teacher = given.get("teacher") if role != "teacher" else None
        results.append(_result(role, as_contender(value), split, found[role], given[role], label_names, teacher))
        predictions[f"{role}/prediction"] = _shown(given[role], label_names)
        predictions[f"{role}/score"] = [round(float(p), 6) for p in found[role].max(1)]
    return Evaluation(results, predictions, notes)


def micro_f1(model: TextModel, split: Split, *, compute: Compute | None = None) -> float:
    """The largest micro F1 that one threshold for all labels gives a classifier."""
    p_NC = label_probabilities(model, split, compute or models.choose_compute(), NO_CONTEXT)
    labels_NC = _labels_of(split)
    given_NC = (p_NC >= metrics.choose_threshold(p_NC, labels_NC)).astype(np.int64)
    return metrics.multilabel_f1(given_NC, labels_NC, average="micro", n_bootstrap=1).value


def label_probabilities(model: Any, split: Split, compute: Compute, context: Context) -> npt.NDArray[np.float64]:
    """Of each label for each text, (N, C); of a model or a baseline."""
    if not isinstance(model, TextModel):
        return np.asarray(model.predict_proba(split.whole_texts), dtype=np.float64)
    return sigmoid(forward(model, split, compute, context))


def sigmoid(logits_NC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities in float64."""
    return np.asarray(1 / (1 + np.exp(-logits_NC.astype(np.float64).clip(-700, 700))))


def _labels_of(split: Split) -> npt.NDArray[np.int64]:
    if not isinstance(split.labels, np.ndarray) or split.labels.ndim != 2:
        raise InputError(
            f"split {split.name} should have zeros and ones for each label, but has not: choose other data"
        )
    return split.labels


def _result(
    role: str,
    contender: Contender,
    split: Split,
    probabilities_NC: npt.NDArray[np.float64],
    given_NC: npt.NDArray[np.int64],
    label_names: Sequence[str],
    teacher_NC: npt.NDArray[np.int64] | None,
) -> records.Result:
    labels_NC = _labels_of(split)
    agree = None
    if teacher_NC is not None:
        agree = metrics.mean_with_interval((given_NC == teacher_NC).all(1).astype(np.float64))
    return records.Result(
        role=role,
        split=split.name,
        metrics={
            "micro_f1": metrics.multilabel_f1(given_NC, labels_NC, average="micro"),
            "macro_f1": metrics.multilabel_f1(given_NC, labels_NC, average="macro"),
            "average_precision": metrics.average_precision(probabilities_NC, labels_NC, average="macro"),
        },
        per_class=metrics.per_label_table(given_NC, labels_NC, label_names),
        agreement=agree,
        calibration_error=None,
        built_by=list(contender.built_by),
        teacher_phases=list(contender.teacher_phases),
    )


def _shown(given_NC: npt.NDArray[np.int64], label_names: Sequence[str]) -> list[str]:
    return [", ".join(label_names[i] for i in np.flatnonzero(row).tolist()) for row in given_NC]
