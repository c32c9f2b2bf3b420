"""Models with one vector per token and no transformer: a text is the direction of the sum of its tokens' vectors.

They run on numpy and tokenizers; torch and transformers are not imported here, so whoever only uses such a model needs
neither. Files are those of model2vec (`config.json`, `model.safetensors` with `embeddings`, `tokenizer.json`), which
sentence-transformers reads as well; the layers of a classifier stand in them beside the table.

Legend: N texts, T tokens of all of them, V tokens in the vocabulary, D dimensions of an embedding, C classes.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError
from tokenizers import Tokenizer

from smallmodels import files
from smallmodels.errors import DamagedError, InputError

KIND = "static"
"""Of such a model, in `smallmodels.json`."""

_WEIGHTS, _CONFIG, _TOKENIZER, _NOTES = "model.safetensors", "config.json", "tokenizer.json", "smallmodels.json"
_TABLE = "embeddings"
_INDEX, _DOCUMENTS = "documents.safetensors", "documents"
_TEXTS_PER_CALL = 1024
"""Texts that are cut into tokens and added up at once; bounds the memory."""
_ONE_THREAD = 1 << 18
"""Multiplications of a product for which OpenBLAS takes no second thread (its `GEMM_MULTITHREAD_THRESHOLD`)."""

Floats: TypeAlias = npt.NDArray[Any]
Layer: TypeAlias = tuple[Floats, Floats]
"""Weight of shape (outputs, inputs) and bias of shape (outputs,)."""


@dataclass(frozen=True)
class StaticModel:
    """A table of token vectors, its tokenizer and, for a classifier, a few linear layers."""

    embeddings: Floats
    """Shape (V, D), in fp32 or fp16; the length of a row is the weight of its token."""
    tokenizer: Tokenizer
    """Adds no special tokens, and cuts a text at `max_length`."""
    layers: tuple[Layer, ...] = ()
    """Of a classifier, in fp32, with ReLU between them; an embedder has none."""
    label_names: tuple[str, ...] = ()
    """Of the classes, in the order of the last layer."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: how it came to be."""

    def __post_init__(self) -> None:
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_length)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings of shape (N, D), of length 1; zeros for a text without a token.

        Raises: InputError if it is given one text instead of several.
        """
        if isinstance(texts, str):
            raise InputError("texts should be a list of texts, got a single one: put it into a list")
        parts = [self._sums(texts[i : i + _TEXTS_PER_CALL]) for i in range(0, len(texts), _TEXTS_PER_CALL)]
        sums_ND = np.concatenate([*parts, np.zeros((0, self.embeddings.shape[1]), np.float32)])
        lengths_N = np.sqrt(np.einsum("nd,nd->n", sums_ND, sums_ND))
        sums_ND /= np.maximum(lengths_N, 1e-12)[:, None]
        return sums_ND

    def predict_proba(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Class probabilities, shape (N, C).

        Raises: InputError if the model is an embedder.
        """
        if not self.layers:
            raise InputError("the model should be a classifier to have probabilities, found an embedder: use encode")
        values = self.encode(texts)
        for number, (weight, bias) in enumerate(self.layers):
            values = _product(np.maximum(values, 0) if number else values, weight) + bias
        logits_NC = values.astype(np.float64)
        exponentials_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        return np.asarray(exponentials_NC / exponentials_NC.sum(axis=1, keepdims=True))

    def _sums(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The sum of each text's token vectors, shape (N, D)."""
        # A lone surrogate, as in half of an emoji, cannot be encoded.
        plain = [text.encode(errors="replace").decode() for text in texts]
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(plain, add_special_tokens=False)]
        return sum_rows(self._table, rows)

    @cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        """The table in fp32."""
        return np.asarray(self.embeddings, dtype=np.float32)

    def in_fp16(self) -> Self:
        """The same model with its table in half the bytes; sums stay in fp32."""
        return dataclasses.replace(self, embeddings=self.embeddings.astype(np.float16))

    @property
    def num_parameters(self) -> int:
        """Of table and layers."""
        return sum(tensor.size for tensor in self._tensors().values())

    @property
    def size_bytes(self) -> int:
        """Bytes of table and layers as they are saved."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    @property
    def number_format(self) -> str:
        """Of its sums."""
        return "fp32"

    def weights_sha256(self) -> str:
        """SHA-256 over the names, formats, shapes and bytes of all weights, as `sources.weights_sha256`."""
        parts = [
            f"{name}:torch.{tensor.dtype}:{tensor.shape}:{files.sha256_bytes(tensor.tobytes())}"
            for name, tensor in sorted(self._tensors().items())
        ]
        return files.sha256_json(parts)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the weights in this format; they are others than those that were trained."""
        return {"size_bytes": self.size_bytes, "weights_sha256": self.weights_sha256()}

    def _tensors(self) -> dict[str, Floats]:
        """By their names in the file of weights."""
        tensors = {_TABLE: self.embeddings}
        for number, (weight, bias) in enumerate(self.layers):
            tensors |= {f"classifier.{number}.weight": weight, f"classifier.{number}.bias": bias}
        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}

    def save(self, folder: Path) -> None:
        """Write table, layers, tokenizer and config, readable by model2vec and sentence-transformers."""
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes(folder / _WEIGHTS, safetensors.numpy.save(self._tensors(), metadata={"format": "pt"}))
        files.write_text(folder / _TOKENIZER, self.tokenizer.to_str())
        config = {
            "model_type": "model2vec",
            "architectures": ["StaticModel"],
            "hidden_dim": self.embeddings.shape[1],
            "normalize": True,
            "id2label": {str(i): name for i, name in enumerate(self.label_names)},
        }
        files.write_json(folder / _CONFIG, config)
        kinds = [("", "StaticEmbedding"), ("1_Normalize", "Normalize")]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds)
        ]
        files.write_json(folder / "modules.json", modules)
        files.write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
        (folder / "1_Normalize").mkdir(exist_ok=True)
        files.write_json(folder / _NOTES, {"kind": KIND, "max_length": self.max_length, "notes": dict(self.notes)})

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote.

        Raises: DamagedError if a file is missing or not what `save` writes.
        """
        folder = Path(folder)
        about, config = files.read_json(folder / _NOTES), files.read_json(folder / _CONFIG)
        tensors, tokenizer = _read_tensors(folder / _WEIGHTS), _read_tokenizer(folder / _TOKENIZER)
        numbers = range((len(tensors) - 1) // 2)
        try:
            names = config["id2label"]
            model = cls(
                tensors[_TABLE],
                tokenizer,
                tuple((tensors[f"classifier.{i}.weight"], tensors[f"classifier.{i}.bias"]) for i in numbers),
                tuple(str(names[str(i)]) for i in range(len(names))),
                int(about["max_length"]),
                about["notes"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(
                f"{folder} should hold a static model, but {error!r} is not there or not what it should be: "
                "take the folder from a copy"
            ) from error
        model._require_fitting(folder)
        return model

    def _require_fitting(self, folder: Path) -> None:
        """Refuse arrays that do not fit each other, the tokenizer or the labels."""
        widths = [self.embeddings.shape[-1], *(len(bias) for _, bias in self.layers)]
        shapes = [weight.shape for weight, _ in self.layers]
        num_ids = max(self.tokenizer.get_vocab().values(), default=-1) + 1
        fits = (
            self.embeddings.ndim == 2
            and shapes == [(outputs, inputs) for inputs, outputs in itertools.pairwise(widths)]
            and len(self.label_names) == (widths[-1] if self.layers else 0)
            and num_ids <= len(self.embeddings)
        )
        if not fits:
            raise DamagedError(
                f"{folder} should hold a table for its tokenizer's {num_ids:,} tokens and layers for its "
                f"{len(self.label_names)} labels, found a table of shape {self.embeddings.shape} and layers of shapes "
                f"{shapes}: take the folder from a copy"
            )


@dataclass(frozen=True)
class StaticRetriever:
    """Finds documents by the cosines of their embeddings with those of queries."""

    model: StaticModel
    documents_DE: npt.NDArray[np.float32]
    """Embeddings of the documents, one row each."""

    @classmethod
    def fit(cls, model: StaticModel, documents: Sequence[str]) -> Self:
        """Embed the documents that will be searched."""
        return cls(model, model.encode(documents))

    def similarities(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Cosine of every query with every document, shape (num_queries, num_documents)."""
        return np.asarray(self.model.encode(queries) @ self.documents_DE.T)

    def save(self, folder: Path) -> None:
        """Write the model and its embedded documents into a folder."""
        self.model.save(folder / "model")
        documents = {_DOCUMENTS: np.ascontiguousarray(self.documents_DE)}
        files.write_bytes(folder / _INDEX, safetensors.numpy.save(documents))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises: DamagedError if a file is missing or not what `save` writes.
        """
        model, found = StaticModel.load(folder / "model"), _read_tensors(folder / _INDEX)
        documents = found.get(_DOCUMENTS)
        if documents is None or documents.ndim != 2 or documents.shape[1] != model.embeddings.shape[1]:
            raise DamagedError(
                f"{folder / _INDEX} should hold a row of {model.embeddings.shape[1]} numbers for each document: "
                "take the folder from a copy"
            )
        return cls(model, documents.astype(np.float32))

    @property
    def num_parameters(self) -> int:
        """Of the model; embedded documents are data."""
        return self.model.num_parameters

    @property
    def size_bytes(self) -> int:
        """Of the model."""
        return self.model.size_bytes

    @property
    def number_format(self) -> str:
        """Of its sums."""
        return self.model.number_format


def sum_rows(table: npt.NDArray[np.float32], rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """The sum of several rows of a table for each text, shape (N, D).

    A loop over short texts: for 1 to 1,024 texts of 12 tokens it took 4 µs a text, `np.add.reduceat` and padded sums 3
    to 17. A sparse product takes 1, but needs scipy; cutting a text into tokens takes 20.

    Args:
        table: Shape (V, D).
        rows: Ids of each text's tokens.
    """
    sums = np.zeros((len(rows), table.shape[1]), dtype=np.float32)
    for number, ids in enumerate(rows):
        if len(ids):
            table.take(ids, axis=0).sum(axis=0, out=sums[number])
    return sums


def _product(values: npt.NDArray[np.float32], weight: Floats) -> npt.NDArray[np.float32]:
    """`values @ weight.T`, in parts that OpenBLAS computes on one thread.

    Its other threads wait for their next part with all their might, which keeps the tokenizer's threads from working:
    on two busy cores, 64 texts took ten times as long with them.
    """
    found = np.empty((len(values), len(weight)), dtype=np.float32)
    size = max(1, _ONE_THREAD // weight.size)
    for start in range(0, len(values), size):
        np.matmul(values[start : start + size], weight.T, out=found[start : start + size])
    return found


def _read_tensors(path: Path) -> dict[str, Floats]:
    try:
        tensors: dict[str, Floats] = safetensors.numpy.load(path.read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise DamagedError(f"{path} should be a safetensors file, but {error}: take the folder from a copy") from error
    return tensors


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        settings = path.read_text(encoding="utf-8")
        json.loads(settings)  # whose errors say where; those of tokenizers are plain exceptions
        return Tokenizer.from_str(settings)
    except Exception as error:
        raise DamagedError(f"{path} should be a tokenizer, but {error}: take the folder from a copy") from error
