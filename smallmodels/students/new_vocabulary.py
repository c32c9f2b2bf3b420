"""A student with a tokenizer made anew from texts, such as those of languages that the teacher's does not know."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import normalizers, processors
from transformers import PreTrainedTokenizerBase

from smallmodels import models
from smallmodels.errors import InputError
from smallmodels.students.student import Student

_SPACE = "\u0120"
"""How a byte-level tokenizer writes the space before a word."""
_PREFIX = "##"
"""How WordPiece marks a piece that goes on with a word."""


def new_vocabulary(student: Student, texts: Iterable[str], *, vocabulary_size: int, seed: int = 0) -> Student:
    """Give a student a byte-level BPE tokenizer that is made of these texts, and a token table for it.

    With bytes to fall back on, no text of any language is unknown. What stands around a text stays, and so does whether
    case counts; accents are kept even where the old tokenizer drops them, because in other scripts the same rule drops
    vowels. A new token begins as the mean of what the old tokenizer cuts it into, which for a word that it knows is the
    word's own vector, so that the student still reads as its teacher what both have whole; or as a random vector where
    the old one knows none of it.

    Args:
        student: Its tokenizer is of the tokenizers library; it is not changed.
        texts: Of all languages, those of training only; gone through once.
        vocabulary_size: Tokens at most, special ones and 256 bytes included.
        seed: Of random vectors.

    Returns: A student with another tokenizer than its teacher's: tokens are made anew, with `split.tokenize`.
    Raises: InputError if the size is too small, or the tokenizer pads in a way that cannot be kept.
    Source: Gee et al. 2022, "Fast Vocabulary Transfer for Language Model Compression", section 3.1.
    """
    before = student.tokenizer
    tokenizer = _made_of(texts, before, vocabulary_size)
    small = student.copy()
    transformer = small.transformer
    if tokenizer.pad_token_id != before.pad_token_id:  # some models count places from it
        raise InputError(
            f"the tokenizer should pad with one of its first tokens, as {type(transformer).__name__} counts on, found "
            f"{before.pad_token_id}: choose another teacher"
        )
    rows = _first_vectors(transformer.get_input_embeddings().weight.detach(), before, tokenizer, seed)
    with models.seeded(seed):  # transformers draws numbers, which are replaced
        transformer.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        transformer.get_input_embeddings().weight.copy_(rows)
    for name in ("pad", "bos", "eos", "cls", "sep", "unk", "mask"):
        if getattr(transformer.config, f"{name}_token_id", None) is not None:
            setattr(transformer.config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id", None))
    notes = {**student.notes, "vocabulary_size": len(tokenizer), "teacher_vocabulary_size": len(before)}
    return dataclasses.replace(small, tokenizer=tokenizer, notes=notes)


def _made_of(texts: Iterable[str], like: PreTrainedTokenizerBase, vocabulary_size: int) -> PreTrainedTokenizerBase:
    """A tokenizer with the special tokens of another one, in their order, and what that puts around a text."""
    special = [str(like.convert_ids_to_tokens(i)) for i in sorted(set(like.all_special_ids))]
    is_uncased = like.tokenize("A") == like.tokenize("a")
    parts: list[normalizers.Normalizer] = [normalizers.NFC(), *([normalizers.Lowercase()] if is_uncased else [])]
    made = models.byte_level_bpe(
        texts,
        vocabulary_size=vocabulary_size,
        special_tokens=special,
        normalizer=normalizers.Sequence(parts),
        add_prefix_space=True,
    )
    ids = {token: made.token_to_id(token) for token in special}
    begin, end = _edges(like)
    made.post_processor = processors.TemplateProcessing(
        single=[*begin, "$A", *end],
        pair=[*begin, "$A", *end, "$B:1", *(f"{token}:1" for token in end)],
        special_tokens=[(token, ids[token]) for token in {*begin, *end}],
    )
    return models.with_backend(like, made)


def _edges(tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], list[str]]:
    """Special tokens before and after a text."""
    ids = list(tokenizer("a")["input_ids"])
    special = set(tokenizer.all_special_ids)
    inside = [place for place, number in enumerate(ids) if number not in special]
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    return tokens[: inside[0]], tokens[inside[-1] + 1 :]


def _first_vectors(table: torch.Tensor, before: PreTrainedTokenizerBase, tokenizer: Any, seed: int) -> torch.Tensor:
    """A vector for each token of the new tokenizer."""
    known = before.get_vocab()
    with models.seeded(seed):
        rows = table.mean(0) + table.std(0) * torch.randn(len(tokenizer), table.shape[1])
    for token, number in tokenizer.get_vocab().items():
        if token in tokenizer.all_special_tokens:
            rows[number] = table[known[token]]
        elif pieces := _old_pieces(token, tokenizer.convert_tokens_to_string([token]).strip(), before, known):
            rows[number] = table[pieces].mean(0)
    return rows


def _old_pieces(token: str, written: str, before: PreTrainedTokenizerBase, known: dict[str, int]) -> list[int]:
    """What the old tokenizer makes of a token, none of it unknown to it; empty for a part of a character."""
    if not token.startswith(_SPACE) and _PREFIX + written in known:
        return [known[_PREFIX + written]]
    if not written or "\ufffd" in written:
        return []
    pieces = before(written, add_special_tokens=False)["input_ids"]
    return [number for number in pieces if number != before.unk_token_id]
