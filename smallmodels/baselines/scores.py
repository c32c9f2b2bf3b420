"""How alike two texts are, without a model: the cosine of their TF-IDF."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from smallmodels.baselines.terms import Floats, Terms, contents_of, num_bytes, read_arrays, read_terms, write
from smallmodels.errors import InputError

if TYPE_CHECKING:
    from smallmodels.data.splits import Split

_KIND = "long_characters"


@dataclass(frozen=True)
class TfidfScorer:
    """Scores a pair by the runs of two to five characters within words that both texts have."""

    terms: Terms

    @classmethod
    def fit(cls, split: "Split", *, num_classes: int) -> Self:
        """Count how rare each term is in both texts of all pairs; scores are not read.

        Args:
            split: Of pairs.
            num_classes: 0, as scores have no classes.

        Raises:
            InputError: The split has no pairs.
        """
        if split.seconds is None or num_classes:
            raise InputError(f"{split.name} should have pairs of texts with scores, found others: choose other data")
        return cls(Terms.fit(_KIND, [*split.texts, *split.seconds], rarest=1))

    def predict(self, split: "Split") -> Floats:
        """A cosine for each pair, shape (num_pairs,), in [0, 1]."""
        assert split.seconds is not None
        first, second = self.terms.rows(list(split.texts)), self.terms.rows(list(split.seconds))
        return np.asarray(first.multiply(second).sum(axis=1), dtype=np.float64).reshape(-1)

    @property
    def num_parameters(self) -> int:
        """Inverse document frequencies."""
        return len(self.terms)

    @property
    def number_format(self) -> str:
        """Of its sums."""
        return "fp32"

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return num_bytes(self._contents())

    def save(self, folder: Path) -> None:
        """Write the vocabulary into a folder."""
        write(folder, self._contents())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedError: A file is missing or not what `save` writes.
        """
        return cls(read_terms(folder, _KIND, read_arrays(folder, {f"idf.{_KIND}": 1})))

    def _contents(self) -> dict[str, bytes]:
        return contents_of([self.terms], {})
