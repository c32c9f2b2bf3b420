"""Rows of text, their labels and their tokens: what every kind of task hands to models and training.

Labels are an index per text; a row of zeros and ones where several may hold (N, C); a number where they are scores; or,
for the words of texts, indices row by row (`arrays.Ragged`), where a text is its words with one space between two.
"""

import dataclasses
import hashlib
import itertools
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from smallmodels import arrays, files, records
from smallmodels.arrays import Ragged
from smallmodels.data import columns
from smallmodels.data.columns import Column
from smallmodels.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from smallmodels.losses import TopK

_ROWS_PER_CALL = 1000
"""Texts given to the tokenizer at once; bounds its memory, which is many times that of the tokens."""


Labels: TypeAlias = npt.NDArray[Any] | Ragged
"""int64 of shape (N,) or (N, C), float32 of shape (N,), or int64 for each word."""


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

    def rows_for(self, split: "Split") -> npt.NDArray[np.float32] | Ragged | TargetRows:
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
    """Shape of `ids`: what a language model learns to predict, never the first token of a text; or the first sub-words
    of words, to whose labels a token classifier's logits belong."""
    second_starts: npt.NDArray[np.int32] | None = None
    """Of pairs, shape (num_texts,): the place of the second text's first token, for models that are told of it."""

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per text, special tokens included."""
        return arrays.differences(self.offsets)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text; 0 where there is none."""
        return int(self.lengths.max(initial=0))

    def take(self, indices: npt.NDArray[np.int64]) -> "Tokens":
        """The tokens of these texts, in this order."""
        ids, offsets = arrays.take_rows(self.ids, self.offsets, indices)
        targets = None if self.targets is None else arrays.take_rows(self.targets, self.offsets, indices)[0]
        seconds = None if self.second_starts is None else arrays.take(self.second_starts, indices)
        return dataclasses.replace(self, ids=ids, offsets=offsets, targets=targets, second_starts=seconds)

    def join(self, other: "Tokens") -> "Tokens":
        """These texts, and then others of the same tokenizer, all with targets or none."""
        assert (self.pad_id, self.tokenizer) == (other.pad_id, other.tokenizer), "tokens of two tokenizers"
        return dataclasses.replace(
            self,
            ids=arrays.join(self.ids, other.ids),
            offsets=arrays.join(self.offsets, other.offsets[1:] + self.offsets[-1]),
            max_length=max(self.max_length, other.max_length),
            targets=_join(self.targets, other.targets, arrays.join),
            second_starts=_join(self.second_starts, other.second_starts, arrays.join),
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
    """Texts with ids and, where a task has them, labels. Frozen: every change makes a new one."""

    name: str
    ids: Column
    """One per example, stable when rows are filtered: `train/17`."""
    texts: Column
    labels: Labels | None = None
    """One for each example; indices are those into `Splits.label_names`."""
    tokens: Tokens | None = None
    teacher: npt.NDArray[np.float32] | Ragged | TargetRows | None = None
    """Shape (num_examples, …): the teacher's row for each example, or what it says about the targets of each."""
    completions: Column | None = None
    """What belongs after each text, where the texts are prompts."""
    seconds: Column | None = None
    """The second text of each example, where a pair has the label."""

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

    @property
    def whole_texts(self) -> Column:
        """The texts, each with the second one of its pair after it, for what does not tell them apart."""
        if self.seconds is None:
            return self.texts
        return [f"{one} {two}" for one, two in zip(self.texts, self.seconds, strict=True)]

    @property
    def class_labels(self) -> npt.NDArray[np.int64]:
        """Shape (num_examples,): the one class of each example.

        Raises: InputError if there are none, or labels of another kind.
        """
        if not isinstance(self.labels, np.ndarray) or self.labels.ndim != 1 or self.labels.dtype.kind != "i":
            raise InputError(f"split {self.name} should have one class for each text, but has none: choose other data")
        return self.labels

    def fingerprint(self) -> str:
        """SHA-256 over texts, second texts, labels and completions in order; ids do not count."""
        digest = hashlib.sha256()
        for column in (self.completions, self.seconds):
            for text in column or ():
                digest.update(len(text).to_bytes(8, "little") + text.encode(errors="surrogatepass"))
        is_class = isinstance(self.labels, np.ndarray) and self.labels.ndim == 1 and self.labels.dtype.kind == "i"
        for i, text in enumerate(self.texts):
            label = (
                b"" if self.labels is None else str(self.labels[i] if is_class else self.labels[i].tolist()).encode()
            )
            digest.update(len(text).to_bytes(8, "little") + text.encode(errors="surrogatepass") + b"\0" + label)
        return digest.hexdigest()

    def first(self, count: int) -> "Split":
        """At most so many examples from the beginning."""
        return self.take(np.arange(min(count, len(self))))

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Split":
        """The examples at these positions, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Split(
            self.name,
            columns.take(self.ids, chosen),
            columns.take(self.texts, chosen),
            _take(self.labels, chosen),
            None if self.tokens is None else self.tokens.take(chosen),
            _take(self.teacher, chosen),
            None if self.completions is None else columns.take(self.completions, chosen),
            None if self.seconds is None else columns.take(self.seconds, chosen),
        )

    def join(self, other: "Split") -> "Split":
        """These examples, and then those of another split that has the same columns."""
        return Split(
            self.name,
            [*self.ids, *other.ids],
            [*self.texts, *other.texts],
            _join(self.labels, other.labels, _join_rows),
            _join(self.tokens, other.tokens, Tokens.join),
            _join(self.teacher, other.teacher, _join_rows),
            _join(self.completions, other.completions, lambda one, two: [*one, *two]),
            _join(self.seconds, other.seconds, lambda one, two: [*one, *two]),
        )

    def tokenize(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> "Split":
        """The same split with tokens, special tokens included, cut at `max_length`."""
        return dataclasses.replace(self, tokens=self._made_by(tokenizer, max_length))

    def _made_by(self, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Tokens:
        if isinstance(self.labels, Ragged):
            return tokenize_words(self.texts, tokenizer, max_length=max_length)
        return tokenize(self.texts, tokenizer, max_length=max_length, seconds=self.seconds)

    def tokens_for(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Tokens:
        """The split's tokens if this tokenizer made them; otherwise others from the same texts, cut at `max_length`."""
        tokens = self.require_tokens()
        if tokens.tokenizer in ("", tokenizer_sha256(tokenizer)):
            return tokens
        return self._made_by(tokenizer, max_length)

    def with_signals(self, signals: Signals) -> "Split":
        """The same split with the teacher's rows, which reach the loss as `batch.teacher`.

        A row belongs to the whole text, and stays with it when the split is tokenised anew for the student.
        """
        return dataclasses.replace(self, teacher=signals.rows_for(self))


def _take(rows: Any, indices: npt.NDArray[np.int64]) -> Any:
    """These rows of an array or of something that takes them itself; None of None."""
    return arrays.take(rows, indices) if isinstance(rows, np.ndarray) else rows and rows.take(indices)


def _join(one: Any, two: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Both as one; None where both are."""
    assert (one is None) == (two is None), "one part has what the other lacks"
    return None if one is None else join(one, two)


def _join_rows(one: Any, two: Any) -> Any:
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


def tokenize(
    texts: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    seconds: Sequence[str] | None = None,
) -> Tokens:
    """Token ids of many texts, cut at `max_length`, special tokens included; on disk where they are many.

    Args:
        texts: May be empty.
        tokenizer: That of the model.
        max_length: Tokens that are left of each; of a pair, the longer text loses its last ones first.
        seconds: The second text of each pair.
    """
    growing, starts = arrays.GrowingRows(np.int32), arrays.Growing(np.int32)
    tells_apart = seconds is not None and "token_type_ids" in tokenizer.model_input_names
    for start in range(0, len(texts), _ROWS_PER_CALL):
        part = slice(start, start + _ROWS_PER_CALL)
        encoded = tokenizer(
            _encodable(texts[part]),
            *([] if seconds is None else [_encodable(seconds[part])]),
            truncation=True,
            max_length=max_length,
            add_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=tells_apart,
            return_overflowing_tokens=False,
        )
        rows: list[list[int]] = encoded["input_ids"]
        lengths = [len(row) for row in rows]
        growing.append(np.fromiter(itertools.chain.from_iterable(rows), np.int32, sum(lengths)), lengths)
        if tells_apart:
            starts.append([types.index(1) if 1 in types else len(types) for types in encoded["token_type_ids"]])
    ids, offsets = growing.done()
    tokens = Tokens(ids, offsets, int(tokenizer.pad_token_id or 0), max_length, tokenizer_sha256(tokenizer))
    return dataclasses.replace(tokens, second_starts=starts.done()) if tells_apart else tokens


def tokenize_words(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Tokens:
    """`tokenize`, with the first sub-word of each word as a target: the n-th target of a text is its n-th word.

    A word that leaves no token, such as a lone control character, is read as an unknown one.

    Args:
        texts: Words with one space between two.
        tokenizer: Of the tokenizers library, which knows the place of each token in the text.
        max_length: Tokens that are left of each text; words after that have no target.

    Raises: InputError if the tokenizer does not know places, or has no unknown token for such a word.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"the tokenizer should tell the place of each token, but {type(tokenizer).__name__} does not: choose a "
            "model with a tokenizer.json"
        )
    ids, is_first = arrays.GrowingRows(np.int32), arrays.Growing(np.bool_)
    for start in range(0, len(texts), _ROWS_PER_CALL):
        part = _encodable(texts[start : start + _ROWS_PER_CALL])
        for text, row, words in zip(part, *_cut_words(part, tokenizer, max_length), strict=True):
            while len(lost := np.setdiff1d(np.arange(words.max() + 1), words)):
                text = _without(text, lost, tokenizer)
                (row,), (words,) = _cut_words([text], tokenizer, max_length)
            ids.append(row, [len(row)])
            is_first.append(words >= 0)
    values, offsets = ids.done()
    pad_id, digest = int(tokenizer.pad_token_id or 0), tokenizer_sha256(tokenizer)
    return Tokens(values, offsets, pad_id, max_length, digest, targets=is_first.done())


def _cut_words(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[list[list[int]], list[npt.NDArray[np.int64]]]:
    """Ids of each text, and for each of its tokens the number of the word that it begins, else -1."""
    cut = tokenizer(
        list(texts), truncation=True, max_length=max_length, add_special_tokens=True, return_offsets_mapping=True
    )
    return cut["input_ids"], [_words_begun(text, at) for text, at in zip(texts, cut["offset_mapping"], strict=True)]


def _words_begun(text: str, offset_mapping: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    words = text.split(" ")
    word_at = np.repeat(np.arange(len(words)), [len(word) + 1 for word in words])  # a space is of the word before it
    begins, ends = np.asarray(offset_mapping, dtype=np.int64).reshape(-1, 2).T
    # A token is of the word that its last character is of: some tokenizers count the space before a word to it.
    last = (ends - 1).clip(min=0)
    is_text = (ends > begins) & np.asarray([text[i : i + 1] not in ("", " ") for i in last], dtype=np.bool_)
    numbers = np.where(is_text, word_at[last], -1)
    before = np.maximum.accumulate(np.append(-1, numbers[:-1]))
    return np.where(numbers > before, numbers, -1)


def _without(text: str, lost: npt.NDArray[np.int64], tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text with words that leave no token written as unknown ones."""
    unknown, words = tokenizer.unk_token, text.split(" ")
    if unknown is None or any(words[i] == unknown for i in lost):
        raise InputError(
            f"every word should have a token, but {words[lost[0]]!r} has none: take that word out of the data"
        )
    for i in lost:
        words[i] = str(unknown)
    return " ".join(words)


def _encodable(texts: Sequence[str]) -> list[str]:
    """A lone surrogate cannot be encoded; a NUL byte and white space are the tokenizer's own business."""
    return [text.encode(errors="replace").decode() for text in texts]


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
