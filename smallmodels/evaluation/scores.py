"""Quality of models that give a pair of texts a score."""

from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import metrics, models
from smallmodels.data.splits import Split
from smallmodels.errors import InputError
from smallmodels.evaluation.contenders import Contenders, Evaluation, as_contender, forward, plain_result
from smallmodels.evaluation.uses import is_embedder
from smallmodels.evaluation.vectors import pair_similarities
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context


def evaluate_scorers(
    contenders: Contenders, split: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> Evaluation:
    """Spearman's and Pearson's correlation with the right scores, with 95 % intervals over pairs.

    Args:
        contenders: Models with one output, embedders and baselines by role.
        split: With a score for each example.
        compute: Device and number format of the models.
        context: Of the run.
    """
    compute = compute or models.choose_compute()
    labels_N = scores_of(split)
    results = []
    predictions: dict[str, list[Any]] = {"id": list(split.ids), "label": [float(score) for score in labels_N]}
    for number, (role, value) in enumerate(contenders.items()):
        contender = as_contender(value)
        found_N = predict_scores(contender.model, split, compute, context)
        measured = {name: measure(found_N, labels_N) for name, measure in _MEASURES.items()}
        results.append(plain_result(role, contender, split.name, measured))
        predictions[f"{role}/prediction"] = [float(score) for score in found_N]
        predictions[f"{role}/score"] = predictions[f"{role}/prediction"]
        context.progress(number + 1, len(contenders))
    return Evaluation(results, predictions)


_MEASURES = {"spearman": metrics.spearman, "pearson": metrics.pearson}


def rank_correlation(model: TextModel, split: Split, *, compute: Compute | None = None) -> float:
    """Spearman's correlation of a model's scores with the right ones."""
    found_N = predict_scores(model, split, compute or models.choose_compute(), NO_CONTEXT)
    return metrics.spearman(found_N, scores_of(split), n_bootstrap=1).value


def predict_scores(model: Any, split: Split, compute: Compute, context: Context) -> npt.NDArray[np.float64]:
    """A score for each example, of a model or a baseline; of an embedder the cosine of the two texts."""
    if not isinstance(model, TextModel):
        return np.asarray(model.predict(split), dtype=np.float64)
    if is_embedder(model.model):
        return pair_similarities(model, split, compute=compute, context=context)
    return np.asarray(forward(model, split, compute, context)[:, 0], dtype=np.float64)


def scores_of(split: Split) -> npt.NDArray[Any]:
    """The right scores, shape (num_examples,).

    Raises: InputError if there are none.
    """
    if not isinstance(split.labels, np.ndarray) or split.labels.dtype.kind != "f":
        raise InputError(f"split {split.name} should have a score for each example, but has none: choose other data")
    return split.labels
