"""A finished classifier in use: answers for texts, and examples for readers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from smallmodels import models, sources
from smallmodels.data.splits import Splits
from smallmodels.evaluation.classes import softmax
from smallmodels.evaluation.contenders import Evaluation
from smallmodels.models import Compute, TextModel


def predict_texts(
    model: TextModel, texts: Sequence[str], *, batch_size: int = 64, compute: Compute | None = None
) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) of a classifier for texts, in batches."""
    compute = compute or models.choose_compute()
    parts = [
        softmax(models.forward_texts(model, texts[i : i + batch_size], compute=compute))
        for i in range(0, len(texts), batch_size)
    ]
    return np.concatenate(parts)


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
            "input": split.texts[i][:300],
            "answers": [{"text": columns["student/prediction"][i], "score": columns["student/score"][i]}],
            "label": columns["label"][i],
        }
        for i in chosen
    ]


def is_embedder(model: nn.Module) -> bool:
    """Whether a model gives embeddings and not logits."""
    return isinstance(model, models.Embedder)
