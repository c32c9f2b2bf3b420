"""What a student must beat: the most frequent class, and TF-IDF with a linear model or as a search engine.

The fitted objects are small, predict without torch, and are saved as safetensors and JSON.

Shapes: N texts, C classes, F features, Q queries, D documents.
"""

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
from smallmodels.data.splits import Split
from smallmodels.errors import DamagedError, InputError

_WEIGHTS = "model.safetensors"
_VOCABULARY = "vocabulary.json"

# Chosen on rows held out of Banking77's train split: words alone reach 0.89 there, with characters 0.915; a smaller
# tolerance takes twice the time for the same accuracy.
_INVERSE_PENALTY = 10.0
_TOLERANCE = 1e-3
_MAX_STEPS = 300

_MANY_TEXTS = 100
"""From here on a feature must occur in two training texts: one that occurs once cannot generalise."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MajorityClassifier:
    """Gives every text the frequencies of the classes in train, so it predicts the most frequent one."""

    class_frequencies: Floats
    """Shape (num_classes,), sums to 1."""

    @classmethod
    def fit(cls, split: Split, *, num_classes: int) -> Self:
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
        return _num_bytes(self._contents())

    def save(self, folder: Path) -> None:
        """Write the model into a folder."""
        _write(folder, self._contents())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedError: A file is missing or not what `save` writes.
        """
        return cls(_read_arrays(folder, {"class_frequencies": 1})["class_frequencies"])

    def _contents(self) -> dict[str, bytes]:
        return {_WEIGHTS: safetensors.numpy.save({"class_frequencies": self.class_frequencies})}


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
    def fit(cls, split: Split, *, num_classes: int) -> Self:
        """Fit on the texts and labels of a split; takes seconds for ten thousand short texts.

        Raises:
            InputError: The split has no labels, one class only, no word, or a label out of range.
        """
        from sklearn.linear_model import LogisticRegression

        labels = _labels_of(split, num_classes)
        present = np.unique(labels)
        if len(present) < 2:
            raise InputError(f"a classifier needs two classes or more, {split.name} has one: choose another data set")
        rarest = 2 if len(split) >= _MANY_TEXTS else 1
        words, characters = (Terms.fit(kind, split.whole_texts, rarest=rarest) for kind in ("words", "characters"))
        model = LogisticRegression(C=_INVERSE_PENALTY, tol=_TOLERANCE, max_iter=_MAX_STEPS)
        model.fit(_side_by_side(words, characters, split.whole_texts), labels)
        weights = np.zeros((len(words) + len(characters), num_classes), dtype=np.float32)
        bias = np.full(num_classes, -np.inf, dtype=np.float32)
        bias[present] = 0.0
        # For two classes scikit-learn keeps one row: the score of the second against the first.
        scored = present if len(present) > 2 else present[1:]
        weights[:, scored], bias[scored] = model.coef_.T, model.intercept_
        return cls(words, characters, weights, bias)

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Class probabilities, shape (num_texts, num_classes); zero for a class that train lacks."""
        logits_NC = (_side_by_side(self.words, self.characters, texts) @ self.weights + self.bias).astype(np.float64)
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
        return _num_bytes(self._contents())

    def save(self, folder: Path) -> None:
        """Write the model into a folder."""
        _write(folder, self._contents())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedError: A file is missing or not what `save` writes.
        """
        arrays = _read_arrays(folder, {"idf.words": 1, "idf.characters": 1, "weights": 2, "bias": 1})
        words, characters = (_read_terms(folder, kind, arrays) for kind in ("words", "characters"))
        if arrays["weights"].shape != (len(words) + len(characters), len(arrays["bias"])):
            raise DamagedError(f"{folder / _WEIGHTS} holds arrays that do not fit together: make the baseline again")
        return cls(words, characters, arrays["weights"], arrays["bias"])

    def _contents(self) -> dict[str, bytes]:
        return _contents([self.words, self.characters], {"weights": self.weights, "bias": self.bias})


@dataclass(frozen=True)
class TfidfRetriever:
    """Finds documents by the runs of two to five characters within words that they share with a query."""

    terms: "Terms"
    documents: Any
    """TF-IDF of the documents, each of length 1, as a sparse matrix of shape (num_features, num_documents)."""

    @classmethod
    def fit(cls, documents: Sequence[str]) -> Self:
        """Index the documents that will be searched; no query is seen.

        Raises:
            InputError: There are no documents, or none has a character to index.
        """
        terms = Terms.fit("long_characters", documents, rarest=1)
        return cls(terms, terms.rows(documents).T.tocsr())

    def similarities(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Cosine of every query with every document, shape (num_queries, num_documents), in [0, 1]."""
        return np.asarray((self.terms.rows(queries) @ self.documents).toarray(), dtype=np.float32)

    @property
    def num_parameters(self) -> int:
        """Inverse document frequencies; the indexed documents are data, as the embeddings of a model's are."""
        return len(self.terms)

    @property
    def number_format(self) -> str:
        """Of its sums."""
        return "fp32"

    @property
    def size_bytes(self) -> int:
        """Bytes of vocabulary and frequencies on disk, without the indexed documents."""
        return _num_bytes(_contents([self.terms], {}))

    def save(self, folder: Path) -> None:
        """Write the retriever and its indexed documents into a folder."""
        matrix = self.documents
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
        arrays = {f"documents.{name}": part for name, part in parts.items()}
        arrays["documents.shape"] = np.asarray(matrix.shape, dtype=np.int64)
        _write(folder, _contents([self.terms], arrays))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedError: A file is missing or not what `save` writes.
        """
        from scipy.sparse import csr_matrix

        names = [f"documents.{part}" for part in ("data", "indices", "indptr", "shape")]
        arrays = _read_arrays(folder, dict.fromkeys(["idf.long_characters", *names], 1))
        terms = _read_terms(folder, "long_characters", arrays)
        data, indices, indptr, shape = (arrays[name] for name in names)
        try:
            documents = csr_matrix((data, indices, indptr), shape=tuple(shape.tolist()))
            documents.check_format(full_check=True)
        except (ValueError, TypeError) as error:
            raise DamagedError(
                f"{folder / _WEIGHTS} should hold a sparse matrix, but {error}: make the baseline again"
            ) from error
        if documents.shape[0] != len(terms):
            raise DamagedError(f"{folder / _WEIGHTS} holds arrays that do not fit together: make the baseline again")
        return cls(terms, documents)


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


def _side_by_side(words: Terms, characters: Terms, texts: Sequence[str]) -> Any:
    from scipy.sparse import hstack

    return hstack([words.rows(texts), characters.rows(texts)], format="csr")


def _labels_of(split: Split, num_classes: int) -> npt.NDArray[np.int64]:
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


def _contents(terms: Sequence[Terms], arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """The files of a baseline by name."""
    with_idf = {**arrays, **{f"idf.{part.kind}": part.idf for part in terms}}
    vocabulary = json.dumps({part.kind: part.terms for part in terms})  # in ASCII, which lone surrogates survive
    return {
        _WEIGHTS: safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in with_idf.items()}),
        _VOCABULARY: vocabulary.encode(),
    }


def _num_bytes(contents: Mapping[str, bytes]) -> int:
    return sum(map(len, contents.values()))


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        files.write_bytes(folder / name, content)


def _read_arrays(folder: Path, num_dimensions: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a safetensors file, each with its number of dimensions checked."""
    path = folder / _WEIGHTS
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


def _read_terms(folder: Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Terms:
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
