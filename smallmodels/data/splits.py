"""Rows of text, their labels and their tokens: what every kind of task hands to models and training."""

import dataclasses
import hashlib
import itertools
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from smallmodels import arrays, files, records
from smallmodels.data import columns
from smallmodels.data.columns import Column
from smallmodels.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from smallmodels.losses import TopK

_ROWS_PER_CALL = 1000
"""Texts given to the tokenizer at once; bounds its memory, which is many times that of the tokens."""


class TargetRows(Protocol):
    """What a teacher says about the targets of each example (see `teachers.signals.TargetRows`)."""

    def take(self, indices: npt.NDArray[np.int64]) -> "TargetRows":
        """Of these examples, in this order."""

    def join(self, other: Any) -> "TargetRows":
        """Of these examples, and then of those of another object of this class."""

    def batch(self, indices: npt.NDArray[np.int64]) -> "TopK":
        """Of the targets of these examples, one after the other."""


class Signals(Protocol):
    """What a teacher says about each row of a split (see `teachers.Signals`)."""

    def rows_for(self, split: "Split") -> npt.NDArray[np.float32] | TargetRows:
        """Rows aligned with the split's examples."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts in one flat array; text i is `ids[offsets[i]:offsets[i + 1]]`.

    Many are mapped from a file and only read (see `arrays`).
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    pad_id: int
    max_length: int
    tokenizer: str = ""
    """SHA-256 of the tokenizer that made them, empty where it is not known."""
    targets: npt.NDArray[np.bool_] | None = None
    """Shape of `ids`: what a language model learns to predict; never the first token of a text."""

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per text, special tokens included."""
        return arrays.differences(self.offsets)

    def take(self, indices: npt.NDArray[np.int64]) -> "Tokens":
        """The tokens of these texts, in this order."""
        ids, offsets = arrays.take_rows(self.ids, self.offsets, indices)
        targets = None if self.targets is None else arrays.take_rows(self.targets, self.offsets, indices)[0]
        return dataclasses.replace(self, ids=ids, offsets=offsets, targets=targets)

    def join(self, other: "Tokens") -> "Tokens":
        """These texts, and then others of the same tokenizer, all with targets or none."""
        assert (self.pad_id, self.tokenizer) == (other.pad_id, other.tokenizer), "tokens of two tokenizers"
        return dataclasses.replace(
            self,
            ids=arrays.join(self.ids, other.ids),
            offsets=arrays.join(self.offsets, other.offsets[1:] + self.offsets[-1]),
            max_length=max(self.max_length, other.max_length),
            targets=_join(self.targets, other.targets, arrays.join),
        )

    def fingerprint(self) -> str:
        """SHA-256 over ids, where each text begins, and targets."""
        parts = (self.ids, self.offsets, np.zeros(0, np.bool_) if self.targets is None else self.targets)
        digests = [hashlib.sha256() for _ in parts]
        for array, digest in zip(parts, digests, strict=True):
            for part in arrays.pieces(array):
                digest.update(part.data)
        return files.sha256_json([digest.hexdigest() for digest in digests])


@dataclass(frozen=True)
class Split:
    """Texts with ids and, for classification, labels. Frozen: every change makes a new one."""

    name: str
    ids: Column
    """One per example, stable when rows are filtered: `train/17`."""
    texts: Column
    labels: npt.NDArray[np.int64] | None = None
    """Shape (num_examples,); indices into `Splits.label_names`."""
    tokens: Tokens | None = None
    teacher: npt.NDArray[np.float32] | TargetRows | None = None
    """Shape (num_examples, …): the teacher's row for each example, or what it says about the targets of each."""
    completions: Column | None = None
    """What belongs after each text, where the texts are prompts."""

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.texts), (len(self.ids), len(self.texts))
        assert self.labels is None or len(self.labels) == len(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def require_tokens(self) -> Tokens:
        """The tokens.

        Raises: InputError if the split was not tokenised.
        """
        if self.tokens is None:
            raise InputError(
                f"split {self.name} should be tokenised: call split.tokenize(tokenizer, max_length=…) first"
            )
        return self.tokens

    def fingerprint(self) -> str:
        """SHA-256 over texts, labels and completions in order; ids do not count."""
        digest = hashlib.sha256()
        for completion in self.completions or ():
            digest.update(len(completion).to_bytes(8, "little") + completion.encode(errors="surrogatepass"))
        for i, text in enumerate(self.texts):
            label = b"" if self.labels is None else str(int(self.labels[i])).encode()
            digest.update(len(text).to_bytes(8, "little") + text.encode(errors="surrogatepass") + b"\0" + label)
        return digest.hexdigest()

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Split":
        """The examples at these positions, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Split(
            self.name,
            columns.take(self.ids, chosen),
            columns.take(self.texts, chosen),
            None if self.labels is None else arrays.take(self.labels, chosen),
            None if self.tokens is None else self.tokens.take(chosen),
            _take(self.teacher, chosen),
            None if self.completions is None else columns.take(self.completions, chosen),
        )

    def join(self, other: "Split") -> "Split":
        """These examples, and then those of another split that has the same columns."""
        return Split(
            self.name,
            [*self.ids, *other.ids],
            [*self.texts, *other.texts],
            _join(self.labels, other.labels, arrays.join),
            _join(self.tokens, other.tokens, Tokens.join),
            _join(self.teacher, other.teacher, _join_teachers),
            _join(self.completions, other.completions, lambda one, two: [*one, *two]),
        )

    def tokenize(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> "Split":
        """The same split with tokens, special tokens included, cut at `max_length`."""
        return dataclasses.replace(self, tokens=tokenize(self.texts, tokenizer, max_length=max_length))

    def tokens_for(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Tokens:
        """The split's tokens if this tokenizer made them; otherwise others from the same texts, cut at `max_length`."""
        tokens = self.require_tokens()
        if tokens.tokenizer in ("", tokenizer_sha256(tokenizer)):
            return tokens
        return tokenize(self.texts, tokenizer, max_length=max_length)

    def with_signals(self, signals: Signals) -> "Split":
        """The same split with the teacher's rows, which reach the loss as `batch.teacher`.

        A row belongs to the whole text, and stays with it when the split is tokenised anew for the student.
        """
        return dataclasses.replace(self, teacher=signals.rows_for(self))


def _take(
    teacher: npt.NDArray[np.float32] | TargetRows | None, indices: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32] | TargetRows | None:
    return arrays.take(teacher, indices) if isinstance(teacher, np.ndarray) else teacher and teacher.take(indices)


def _join(one: Any, two: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Both as one; None where both are."""
    assert (one is None) == (two is None), "one part has what the other lacks"
    return None if one is None else join(one, two)


def _join_teachers(one: Any, two: Any) -> Any:
    return arrays.join(one, two) if isinstance(one, np.ndarray) else one.join(two)


@dataclass(frozen=True)
class RetrievalSplit:
    """Queries, documents, and which document answers which query."""

    name: str
    queries: Split
    documents: Split
    relevant: npt.NDArray[np.int64]
    """Shape (num_queries,); index of the one right document."""

    def __len__(self) -> int:
        return len(self.queries)

    def fingerprint(self) -> str:
        """SHA-256 over queries, documents and what belongs to what."""
        parts = self.queries.fingerprint() + self.documents.fingerprint() + self.relevant.tobytes().hex()
        return hashlib.sha256(parts.encode()).hexdigest()

    def tokenize(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> "RetrievalSplit":
        """The same split with tokens on both sides."""
        return dataclasses.replace(
            self,
            queries=self.queries.tokenize(tokenizer, max_length=max_length),
            documents=self.documents.tokenize(tokenizer, max_length=max_length),
        )


@dataclass(frozen=True)
class Splits:
    """Train, validation and test of a data set, and where they came from."""

    train: Split
    validation: Split
    test: Split
    label_names: list[str]
    """Empty where there are none."""
    source: records.Source
    languages: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    """Counts of what was dropped, overlap between splits, which split stands in for which."""

    def tokenize(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> "Splits":
        """All three splits with tokens."""
        train, validation, test = (
            split.tokenize(tokenizer, max_length=max_length) for split in (self.train, self.validation, self.test)
        )
        return dataclasses.replace(self, train=train, validation=validation, test=test)


@dataclass(frozen=True)
class RetrievalSplits:
    """Texts to train on, and queries with documents to validate and test on."""

    train: Split
    validation: RetrievalSplit
    test: RetrievalSplit
    corpus: Split
    """Every document of all three splits with all that is known of it: what a finished model searches in."""
    source: records.Source
    languages: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def tokenize(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> "RetrievalSplits":
        """All three splits with tokens."""
        return dataclasses.replace(
            self,
            train=self.train.tokenize(tokenizer, max_length=max_length),
            validation=self.validation.tokenize(tokenizer, max_length=max_length),
            test=self.test.tokenize(tokenizer, max_length=max_length),
        )


def tokenize(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Tokens:
    """Token ids of many texts, cut at `max_length`, special tokens included; on disk where they are many."""
    growing = arrays.GrowingRows(np.int32)
    for start in range(0, len(texts), _ROWS_PER_CALL):
        rows = tokenizer(
            # A lone surrogate cannot be encoded; a NUL byte and white space are the tokenizer's own business.
            [text.encode(errors="replace").decode() for text in texts[start : start + _ROWS_PER_CALL]],
            truncation=True,
            max_length=max_length,
            add_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_overflowing_tokens=False,
        )["input_ids"]
        lengths = [len(row) for row in rows]
        growing.append(np.fromiter(itertools.chain.from_iterable(rows), np.int32, sum(lengths)), lengths)
    ids, offsets = growing.done()
    return Tokens(ids, offsets, int(tokenizer.pad_token_id or 0), max_length, tokenizer_sha256(tokenizer))


def tokenizer_sha256(tokenizer: "PreTrainedTokenizerBase") -> str:
    """SHA-256 of what a tokenizer makes of texts, whatever it was last called with."""
    known = _DIGESTS.get(tokenizer)
    if known is None or known[0] != len(tokenizer):  # tokens were added
        known = _DIGESTS[tokenizer] = (len(tokenizer), _digest(tokenizer))
    return known[1]


def cuts_alike(one: "PreTrainedTokenizerBase", two: "PreTrainedTokenizerBase") -> bool:
    """Whether two tokenizers make the same ids of a text, as those of one family do.

    What they put around a text may differ, and one may have special tokens more, such as one for padding. Spare rows of
    the models' tables are no business of tokenizers.
    """
    if tokenizer_sha256(one) == tokenizer_sha256(two):
        return True
    settings = [_settings(tokenizer) for tokenizer in (one, two)]
    if not all(settings):
        return False
    parts = [[found[name] for name in ("normalizer", "pre_tokenizer", "model")] for found in settings]
    added = [{token["id"]: token for token in found["added_tokens"]} for found in settings]
    common = added[0].keys() & added[1].keys()
    contents = [{token["content"] for token in tokens.values()} for tokens in added]
    extras = [token for tokens in added for number, token in tokens.items() if number not in common]
    return (
        parts[0] == parts[1]
        and all(added[0][number]["content"] == added[1][number]["content"] for number in common)
        and len(contents[0] & contents[1]) == len(common)
        and all(token["special"] for token in extras)
    )


_DIGESTS: weakref.WeakKeyDictionary[Any, tuple[int, str]] = weakref.WeakKeyDictionary()
"""By tokenizer, with its size: a digest takes as long as a thousand texts."""


def _digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    settings = _settings(tokenizer)
    if not settings:
        return files.sha256_json(tokenizer.get_vocab())
    last_call = ("truncation", "padding")  # of whoever used the tokenizer last; `max_length` says what matters
    return files.sha256_json({name: value for name, value in settings.items() if name not in last_call})


def _settings(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """All that a tokenizer of the tokenizers library is; empty for another."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return {} if backend is None else dict(json.loads(backend.to_str()))
