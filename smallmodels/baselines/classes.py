"""One class for each text: the most frequent one, and TF-IDF with a linear model.

Shapes: N texts, C classes, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from smallmodels.baselines.terms import (
    MANY_TEXTS,
    WEIGHTS,
    Floats,
    Terms,
    contents_of,
    num_bytes,
    read_arrays,
    read_terms,
    side_by_side,
    write,
)
from smallmodels.errors import DamagedError, InputError

if TYPE_CHECKING:
    from smallmodels.data.splits import Split

# Chosen on rows held out of Banking77's train split: words alone reach 0.89 there, with characters 0.915; a smaller
# tolerance takes twice the time for the same accuracy.
INVERSE_PENALTY = 10.0
TOLERANCE = 1e-3
MAX_STEPS = 300


@dataclass(frozen=True)
class MajorityClassifier:
    """Gives every text the frequencies of the classes in train, so it predicts the most frequent one."""

    class_frequencies: Floats
    """Shape (num_classes,), sums to 1."""

    @classmethod
    def fit(cls, split: "Split", *, num_classes: int) -> Self:
        """Count the labels of a split.

        Raises:
            InputError: The split has no labels or no examples, or a label is out of range.
        """
        counts = np.bincount(_labels_of(split, num_classes), minlength=num_classes)
        return cls(counts / counts.sum())

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Class probabilities, shape (num_texts, num_classes), the same in every row."""
        return np.tile(self.class_frequencies, (len(texts), 1))

    @property
    def num_parameters(self) -> int:
        """One frequency per class."""
        return int(self.class_frequencies.size)

    @property
    def number_format(self) -> str:
        """Of its sums."""
        return "fp64"

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
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
        return cls(read_arrays(folder, {"class_frequencies": 1})["class_frequencies"])

    def _contents(self) -> dict[str, bytes]:
        return {WEIGHTS: safetensors.numpy.save({"class_frequencies": self.class_frequencies})}


@dataclass(frozen=True)
class TfidfClassifier:
    """Logistic regression on the TF-IDF of words, pairs of words, and characters: seconds to make, hard to beat."""

    words: "Terms"
    """Words and pairs of words."""
    characters: "Terms"
    """Runs of two to four characters within words; they see through endings and typing errors."""
    weights: npt.NDArray[np.float32]
    """Shape (num_features, num_classes); the words' rows come first."""
    bias: npt.NDArray[np.float32]
    """Shape (num_classes,); minus infinity for a class that train lacks."""

    @classmethod
    def fit(cls, split: "Split", *, num_classes: int) -> Self:
        """Fit on the texts and labels of a split; takes seconds for ten thousand short texts.

        Raises:
            InputError: The split has no labels, one class only, no word, or a label out of range.
        """
        from sklearn.linear_model import LogisticRegression

        labels = _labels_of(split, num_classes)
        present = np.unique(labels)
        if len(present) < 2:
            raise InputError(f"a classifier needs two classes or more, {split.name} has one: choose another data set")
        rarest = 2 if len(split) >= MANY_TEXTS else 1
        words, characters = (Terms.fit(kind, split.whole_texts, rarest=rarest) for kind in ("words", "characters"))
        model = LogisticRegression(C=INVERSE_PENALTY, tol=TOLERANCE, max_iter=MAX_STEPS)
        model.fit(side_by_side(words, characters, split.whole_texts), labels)
        weights = np.zeros((len(words) + len(characters), num_classes), dtype=np.float32)
        bias = np.full(num_classes, -np.inf, dtype=np.float32)
        bias[present] = 0.0
        # For two classes scikit-learn keeps one row: the score of the second against the first.
        scored = present if len(present) > 2 else present[1:]
        weights[:, scored], bias[scored] = model.coef_.T, model.intercept_
        return cls(words, characters, weights, bias)

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Class probabilities, shape (num_texts, num_classes); zero for a class that train lacks."""
        logits_NC = (side_by_side(self.words, self.characters, texts) @ self.weights + self.bias).astype(np.float64)
        exponentials_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        return np.asarray(exponentials_NC / exponentials_NC.sum(axis=1, keepdims=True), dtype=np.float64)

    @property
    def num_parameters(self) -> int:
        """Weights, biases and inverse document frequencies."""
        return int(self.weights.size + self.bias.size) + len(self.words) + len(self.characters)

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
        arrays = read_arrays(folder, {"idf.words": 1, "idf.characters": 1, "weights": 2, "bias": 1})
        words, characters = (read_terms(folder, kind, arrays) for kind in ("words", "characters"))
        if arrays["weights"].shape != (len(words) + len(characters), len(arrays["bias"])):
            raise DamagedError(f"{folder / WEIGHTS} holds arrays that do not fit together: make the baseline again")
        return cls(words, characters, arrays["weights"], arrays["bias"])

    def _contents(self) -> dict[str, bytes]:
        return contents_of([self.words, self.characters], {"weights": self.weights, "bias": self.bias})


def _labels_of(split: "Split", num_classes: int) -> npt.NDArray[np.int64]:
    if split.labels is None or not len(split):
        raise InputError(f"{split.name} should have labelled examples, found none: choose a split with labels")
    labels = split.class_labels
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"labels of {split.name} should be in [0, {num_classes}), found {low if low < 0 else high}: "
            "choose a split with labels"
        )
    return labels
