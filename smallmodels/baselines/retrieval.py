"""A search engine without a model: TF-IDF of characters.

Shapes: Q queries, D documents, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from smallmodels.baselines.terms import WEIGHTS, Terms, contents_of, num_bytes, read_arrays, read_terms, write
from smallmodels.errors import DamagedError


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
        return num_bytes(contents_of([self.terms], {}))

    def save(self, folder: Path) -> None:
        """Write the retriever and its indexed documents into a folder."""
        matrix = self.documents
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
        arrays = {f"documents.{name}": part for name, part in parts.items()}
        arrays["documents.shape"] = np.asarray(matrix.shape, dtype=np.int64)
        write(folder, contents_of([self.terms], arrays))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedError: A file is missing or not what `save` writes.
        """
        from scipy.sparse import csr_matrix

        names = [f"documents.{part}" for part in ("data", "indices", "indptr", "shape")]
        arrays = read_arrays(folder, dict.fromkeys(["idf.long_characters", *names], 1))
        terms = read_terms(folder, "long_characters", arrays)
        data, indices, indptr, shape = (arrays[name] for name in names)
        try:
            documents = csr_matrix((data, indices, indptr), shape=tuple(shape.tolist()))
            documents.check_format(full_check=True)
        except (ValueError, TypeError) as error:
            raise DamagedError(
                f"{folder / WEIGHTS} should hold a sparse matrix, but {error}: make the baseline again"
            ) from error
        if documents.shape[0] != len(terms):
            raise DamagedError(f"{folder / WEIGHTS} holds arrays that do not fit together: make the baseline again")
        return cls(terms, documents)
