"""Several labels for each text: one linear model on TF-IDF for each label.

Shapes: N texts, C labels, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from smallmodels.baselines.classes import INVERSE_PENALTY, MAX_STEPS, TOLERANCE
from smallmodels.baselines.terms import (
    MANY_TEXTS,
    WEIGHTS,
    Floats,
    Terms,
    contents_of,
    num_bytes,
    read_arrays,
    read_terms,
    write,
)
from smallmodels.errors import DamagedError, InputError

if TYPE_CHECKING:
    from smallmodels.data.splits import Split


@dataclass(frozen=True)
class TfidfLabels:
    """A logistic regression on the TF-IDF of words and pairs of words for each label by itself."""

    words: Terms
    weights: npt.NDArray[np.float32]
    """Shape (num_features, num_labels)."""
    bias: npt.NDArray[np.float32]
    """Shape (num_labels,); minus infinity for a label that no text of train has, infinity for one that all have."""

    @classmethod
    def fit(cls, split: "Split", *, num_classes: int) -> Self:
        """Fit on the texts and labels (N, C) of a split.

        Raises:
            InputError: The split has no such labels.
        """
        from sklearn.linear_model import LogisticRegression

        labels = split.labels
        if not isinstance(labels, np.ndarray) or labels.shape != (len(split), num_classes) or not len(split):
            raise InputError(f"{split.name} should have zeros and ones for {num_classes} labels: choose other data")
        words = Terms.fit("words", split.whole_texts, rarest=2 if len(split) >= MANY_TEXTS else 1)
        rows = words.rows(split.whole_texts)
        weights = np.zeros((len(words), num_classes), dtype=np.float32)
        bias = np.where(labels.all(axis=0), np.inf, -np.inf).astype(np.float32)
        for label in np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0)):
            model = LogisticRegression(C=INVERSE_PENALTY, tol=TOLERANCE, max_iter=MAX_STEPS)
            model.fit(rows, labels[:, label])
            weights[:, label], bias[label] = model.coef_[0], model.intercept_[0]
        return cls(words, weights, bias)

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Probability of each label, shape (num_texts, num_labels)."""
        logits_NC = (self.words.rows(texts) @ self.weights + self.bias).astype(np.float64)
        return np.asarray(1 / (1 + np.exp(-logits_NC.clip(-700, 700))), dtype=np.float64)

    @property
    def num_parameters(self) -> int:
        """Weights, biases and inverse document frequencies."""
        return int(self.weights.size + self.bias.size) + len(self.words)

    @property
    def number_format(self) -> str:
        """Of its sums."""
        return "fp32"

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, vocabulary included."""
        return num_bytes(self._contents())

    def save(self, folder: Path) -> None:
        """Write the model into a folder."""
        write(folder, self._contents())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedError: A file is missing or not what `save` writes.
        """
        arrays = read_arrays(folder, {"idf.words": 1, "weights": 2, "bias": 1})
        words = read_terms(folder, "words", arrays)
        if arrays["weights"].shape != (len(words), len(arrays["bias"])):
            raise DamagedError(f"{folder / WEIGHTS} holds arrays that do not fit together: make the baseline again")
        return cls(words, arrays["weights"], arrays["bias"])

    def _contents(self) -> dict[str, bytes]:
        return contents_of([self.words], {"weights": self.weights, "bias": self.bias})
