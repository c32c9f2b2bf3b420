"""TF-IDF: the terms of texts, and how a baseline that is made of them lies on disk."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from smallmodels import files
from smallmodels.errors import DamagedError, InputError

WEIGHTS = "model.safetensors"
_VOCABULARY = "vocabulary.json"

MANY_TEXTS = 100
"""From here on a feature must occur in two training texts: one that occurs once cannot generalise."""

Floats = npt.NDArray[np.float64]

_KINDS: dict[str, dict[str, Any]] = {
    # One-letter words count: scikit-learn's own pattern drops them, and with them much of some languages.
    "words": {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": r"(?u)\b\w+\b"},
    "characters": {"ngram_range": (2, 4), "sublinear_tf": True, "analyzer": "char_wb"},
    "long_characters": {"ngram_range": (2, 5), "sublinear_tf": True, "analyzer": "char_wb"},
}


@dataclass(frozen=True)
class Terms:
    """The vocabulary of one TF-IDF, and how rare each of its terms is."""

    kind: str
    """What a term is: `words`, `characters` or `long_characters`."""
    terms: tuple[str, ...]
    """One per feature, in the order of columns."""
    idf: Floats
    """Shape (num_features,); inverse document frequency of each term."""

    @classmethod
    def fit(cls, kind: str, texts: Sequence[str], *, rarest: int) -> Self:
        """Collect the terms that occur in `rarest` texts or more; if there are none, all terms.

        Raises:
            InputError: There are none.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        for least in dict.fromkeys((rarest, 1)):  # texts that share no term are told apart by their own, or not at all
            vectorizer = TfidfVectorizer(min_df=least, **_KINDS[kind])
            with contextlib.suppress(ValueError):  # what scikit-learn raises for an empty vocabulary
                vectorizer.fit(texts)
                break
        else:
            what = kind.replace("_", " ")
            raise InputError(f"the {len(texts)} texts should have {what} to count, found none: choose another data set")
        return cls(kind, tuple(map(str, vectorizer.get_feature_names_out())), np.asarray(vectorizer.idf_, np.float64))

    def __len__(self) -> int:
        return len(self.terms)

    def rows(self, texts: Sequence[str]) -> Any:
        """TF-IDF of each text, of length 1 or 0: a sparse float32 matrix of shape (num_texts, num_features)."""
        return self._vectorizer.transform(texts)

    @cached_property
    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            vocabulary={term: column for column, term in enumerate(self.terms)}, dtype=np.float32, **_KINDS[self.kind]
        )
        vectorizer.idf_ = self.idf
        return vectorizer


def side_by_side(words: Terms, characters: Terms, texts: Sequence[str]) -> Any:
    """The columns of both, for each text."""
    from scipy.sparse import hstack

    return hstack([words.rows(texts), characters.rows(texts)], format="csr")


def contents_of(terms: Sequence[Terms], arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """The files of a baseline by name."""
    with_idf = {**arrays, **{f"idf.{part.kind}": part.idf for part in terms}}
    vocabulary = json.dumps({part.kind: part.terms for part in terms})  # in ASCII, which lone surrogates survive
    return {
        WEIGHTS: safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in with_idf.items()}),
        _VOCABULARY: vocabulary.encode(),
    }


def num_bytes(contents: Mapping[str, bytes]) -> int:
    """Of all files."""
    return sum(map(len, contents.values()))


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        files.write_bytes(folder / name, content)


def read_arrays(folder: Path, num_dimensions: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a safetensors file, each with its number of dimensions checked."""
    path = folder / WEIGHTS
    try:
        arrays: dict[str, npt.NDArray[Any]] = safetensors.numpy.load(path.read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DamagedError(f"{path} should be a safetensors file, but {error}: make the baseline again") from error
    if {name: array.ndim for name, array in arrays.items()} != dict(num_dimensions):
        raise DamagedError(
            f"{path} should hold {', '.join(sorted(num_dimensions))}, found {', '.join(sorted(arrays))}: "
            "make the baseline again"
        )
    return arrays


def read_terms(folder: Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Terms:
    """The terms of a kind that `contents_of` put into a folder.

    Raises: DamagedError if they are not what was written.
    """
    path = folder / _VOCABULARY
    idf = arrays[f"idf.{kind}"]
    vocabulary = files.read_json(path)
    terms = vocabulary.get(kind) if isinstance(vocabulary, dict) else None
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise DamagedError(f"{path} should list the {kind} that the baseline knows: make the baseline again")
    if len(set(terms)) != len(idf) or len(terms) != len(idf):
        raise DamagedError(
            f"{path} should list {len(idf)} different {kind}, found {len(set(terms))}: make the baseline again"
        )
    return Terms(kind, tuple(terms), idf)
