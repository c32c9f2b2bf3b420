"""A student with a tokenizer made anew from texts, such as those of languages that the teacher's does not know."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from smallmodels import models
from smallmodels.errors import InputError, require
from smallmodels.students.student import Student
from smallmodels.students.vocabulary import rebuild_tokenizer, tokenizer_settings

_STRIPS_ACCENTS = "BertNormalizer"
_TEXTS_AT_ONCE = 1000


def new_vocabulary(student: Student, texts: Iterable[str], *, vocabulary_size: int, seed: int = 0) -> Student:
    """Give a student a tokenizer of the same kind that is made of these texts, and a token table for it.

    What stands around a text stays, and so do the vectors of tokens that both tokenizers have: the student still reads
    as its teacher what both write alike. A new token begins as the mean of what the old tokenizer cuts it into, or as a
    random vector where that knows none of it. A normaliser that drops accents keeps them from now on, because in other
    scripts the same rule drops vowels.

    Args:
        student: Its tokenizer is of the tokenizers library; it is not changed.
        texts: Of all languages, those of training only; gone through once.
        vocabulary_size: Tokens at most, special ones included.
        seed: Of random vectors.

    Returns: A student with another tokenizer than its teacher's: tokens are made anew, with `split.tokenize`.
    Raises: InputError if the tokenizer is of another kind, or the size is too small for its special tokens.
    Source: Gee et al. 2022, "Fast Vocabulary Transfer for Language Model Compression", section 3.1.
    """
    before = student.tokenizer
    least = len(before.all_special_ids) + 1
    require(
        vocabulary_size >= least, "vocabulary_size", f">= {least}, the special tokens and one more", vocabulary_size
    )
    tokenizer = _made_of(texts, before, vocabulary_size)
    small = student.copy()
    transformer = small.transformer
    table = transformer.get_input_embeddings().weight.detach().clone()
    rows = _first_vectors(table, before, tokenizer, seed)
    _require_padding_kept(transformer, before, tokenizer)
    with models.seeded(seed):  # transformers draws numbers, which are replaced
        transformer.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        transformer.get_input_embeddings().weight.copy_(rows)
    for name in ("pad", "bos", "eos", "cls", "sep", "unk", "mask"):
        if getattr(transformer.config, f"{name}_token_id", None) is not None:
            setattr(transformer.config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    notes = {**student.notes, "vocabulary_size": len(tokenizer), "teacher_vocabulary_size": len(before)}
    return dataclasses.replace(small, tokenizer=tokenizer, notes=notes)


def _made_of(texts: Iterable[str], like: PreTrainedTokenizerBase, vocabulary_size: int) -> PreTrainedTokenizerBase:
    settings = tokenizer_settings(like)
    normalizer = settings["normalizer"]
    if normalizer and normalizer["type"] == _STRIPS_ACCENTS and normalizer["strip_accents"] is not False:
        normalizer["strip_accents"] = False
        like = rebuild_tokenizer(like, settings)
    made: Any = like
    tokenizer: PreTrainedTokenizerBase = made.train_new_from_iterator(
        _batched(texts), vocabulary_size, show_progress=False
    )
    return tokenizer


def _batched(texts: Iterable[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _TEXTS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _first_vectors(
    table: torch.Tensor, before: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, seed: int
) -> torch.Tensor:
    """A vector for each token of the new tokenizer."""
    known = before.get_vocab()
    with models.seeded(seed):
        rows = table.mean(0) + table.std(0) * torch.randn(len(tokenizer), table.shape[1])
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    prefix = backend["model"].get("continuing_subword_prefix") or ""
    for token, number in tokenizer.get_vocab().items():
        if token in known:
            rows[number] = table[known[token]]
            continue
        written = token.removeprefix(prefix) if prefix else tokenizer.convert_tokens_to_string([token])
        pieces = [i for i in before(written, add_special_tokens=False)["input_ids"] if i != before.unk_token_id]
        if pieces:
            rows[number] = table[pieces].mean(0)
    return rows


def _require_padding_kept(
    transformer: Any, before: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse another id for padding: some models count places from it, and all leave its row of the table alone."""
    if tokenizer.pad_token_id != before.pad_token_id:
        raise InputError(
            f"the new tokenizer should pad with token {before.pad_token_id}, as {type(transformer).__name__} does, "
            f"found {tokenizer.pad_token_id}: choose another teacher"
        )
