"""A tag for each word without a model: the one that the word has most often in train."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from smallmodels import files
from smallmodels.arrays import Ragged
from smallmodels.baselines.terms import num_bytes, write
from smallmodels.errors import DamagedError, InputError

if TYPE_CHECKING:
    from smallmodels.data.splits import Split

_TAGS = "tags.json"


@dataclass(frozen=True)
class WordTagger:
    """Gives each word the tag that it has most often in train, and an unknown word the most frequent tag of all."""

    tags: dict[str, int]
    """By word in small letters; words that have the most frequent tag are left out."""
    usual: int
    """The most frequent tag."""

    @classmethod
    def fit(cls, split: "Split", *, num_classes: int) -> Self:
        """Count the tags of each word.

        Raises:
            InputError: The split has no label for each word.
        """
        if not isinstance(split.labels, Ragged) or not len(split.labels.values):
            raise InputError(f"{split.name} should have a label for each word: choose other data")
        usual = int(np.bincount(split.labels.values, minlength=num_classes).argmax())
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for row, text in enumerate(split.texts):
            for word, tag in zip(text.lower().split(" "), split.labels[row].tolist(), strict=True):
                counts[word][tag] += 1
        best = {word: min(found, key=lambda tag: (-found[tag], tag)) for word, found in counts.items()}
        return cls({word: tag for word, tag in best.items() if tag != usual}, usual)

    def predict(self, split: "Split") -> npt.NDArray[np.int64]:
        """A tag for each word, shape (num_words,), text after text."""
        words = [word for text in split.texts for word in text.lower().split(" ")]
        return np.asarray([self.tags.get(word, self.usual) for word in words], dtype=np.int64)

    @property
    def num_parameters(self) -> int:
        """One tag per word that it knows."""
        return len(self.tags)

    @property
    def number_format(self) -> str:
        """It has no sums; its tags are whole numbers."""
        return "int64"

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return num_bytes(self._contents())

    def save(self, folder: Path) -> None:
        """Write the tags into a folder."""
        write(folder, self._contents())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedError: The file is missing or not what `save` writes.
        """
        found = files.read_json(folder / _TAGS)
        try:
            return cls({str(word): int(tag) for word, tag in found["tags"].items()}, int(found["usual"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(f"{folder / _TAGS} should hold a tag for each word: make the baseline again") from error

    def _contents(self) -> dict[str, bytes]:
        return {_TAGS: json.dumps({"tags": self.tags, "usual": self.usual}).encode()}
