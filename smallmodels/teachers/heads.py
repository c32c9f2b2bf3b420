"""A classifier made of an embedder: logistic regression on its embeddings, which needs few labels and no gradients.

Legend: N texts, C classes, D dimensions of an embedding.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smallmodels import arrays, models
from smallmodels.data.splits import Split
from smallmodels.errors import InputError
from smallmodels.models import Compute, Embedder, TextModel
from smallmodels.phases import NO_CONTEXT, Context

# Chosen on texts held out of Banking77's and SIB-200's train splits, eight labels a class: as often right as with 1 or
# 10, and as sure as it is right, where those give every class nearly the same.
_INVERSE_PENALTY = 100.0
_MAX_STEPS = 1000


@dataclass(frozen=True)
class LinearHead:
    """Logits as a linear function of embeddings."""

    weights: npt.NDArray[np.float32]
    """Shape (C, D)."""
    bias: npt.NDArray[np.float32]
    """Shape (C,)."""

    def save(self, folder: Path) -> None:
        """Write both arrays."""
        arrays.save(folder / "weights.npy", self.weights)
        arrays.save(folder / "bias.npy", self.bias)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls(arrays.load(folder / "weights.npy"), arrays.load(folder / "bias.npy"))


def fit_head(
    embedder: TextModel,
    split: Split,
    *,
    num_classes: int,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> LinearHead:
    """Logistic regression of the labels on the embeddings, which stay as they are.

    Args:
        embedder: Gives one vector for each text.
        split: Tokenised, with labels of every class.
        num_classes: C.
        compute: Device and number format of the embedder.
        context: Of the run.

    Raises: InputError if a class has no text.
    Source: Tunstall et al. 2022, arXiv:2209.11055, section 3.
    """
    from sklearn.linear_model import LogisticRegression

    labels = split.class_labels
    counts = np.bincount(labels, minlength=num_classes)
    if missing := np.flatnonzero(counts == 0).tolist():
        raise InputError(f"{split.name} should have a text of each class, found none of class {missing[0]}: add some")
    embeddings_ND = models.forward_all(embedder, split.require_tokens(), compute=compute, context=context)
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_MAX_STEPS).fit(embeddings_ND.astype(np.float64), labels)
    # For two classes scikit-learn keeps one row: the score of the second against the first.
    weights, bias = (
        np.vstack([-part, part]) / 2 if num_classes == 2 else part for part in (model.coef_, model.intercept_[:, None])
    )
    return LinearHead(weights.astype(np.float32), bias[:, 0].astype(np.float32))


class EmbeddingClassifier(nn.Module):
    """An embedder with a linear head: gives logits."""

    def __init__(self, embedder: Embedder, head: LinearHead) -> None:
        super().__init__()
        self.embedder = embedder
        self.classifier = nn.Linear(head.weights.shape[1], head.weights.shape[0])
        with torch.no_grad():
            self.classifier.weight.copy_(torch.tensor(head.weights))
            self.classifier.bias.copy_(torch.tensor(head.bias))

    @property
    def config(self) -> Any:
        """That of the embedder."""
        return self.embedder.config

    def set_attn_implementation(self, name: str) -> None:
        """Choose how the embedder attends."""
        self.embedder.transformer.set_attn_implementation(name)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of shape (N, C), from ids and mask of shape (N, L)."""
        logits: Tensor = self.classifier(self.embedder(input_ids=input_ids, attention_mask=attention_mask))
        return logits


def with_head(embedder: TextModel, head: LinearHead) -> TextModel:
    """A classifier that gives the head's logits; for evaluation and as a teacher, and not to be saved as one model."""
    own = embedder.copy()
    assert isinstance(own.model, Embedder), "a head reads embeddings"
    model = EmbeddingClassifier(own.model, head).eval().requires_grad_(False)
    return TextModel(model, own.tokenizer, own.notes, own.max_length)
