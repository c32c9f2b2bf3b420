"""Which targets of two tokenizers come after the same text, so that what two models say of them can be compared.

A token is predicted from what stands before it. Two tokenizers cut a text at other places, but at many of them both
have read the same characters: there, and only there, their models are asked the same question.
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smallmodels import arrays
from smallmodels.data.splits import Split, tokenizer_sha256
from smallmodels.data.texts import text_edges
from smallmodels.errors import InputError
from smallmodels.phases import NO_CONTEXT, Context

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Places = npt.NDArray[np.int64]

_TEXTS_PER_CALL = 200
"""Texts given to the tokenizer at once; they are long."""

_WITHIN = -1
"""Read of a text whose last character is not read as a whole: tokens may be single bytes."""


def pair_targets(
    split: Split,
    tokenizer: "PreTrainedTokenizerBase",
    teachers_tokenizer: "PreTrainedTokenizerBase",
    *,
    context: Context = NO_CONTEXT,
) -> Places:
    """For each target of a student, the target of a teacher that comes after the same characters of the same text.

    Args:
        split: Texts, of which `data.cut_into_rows` makes rows with either tokenizer; where a text makes several, each
            model has read before a target what its own row holds.
        tokenizer: The student's.
        teachers_tokenizer: The teacher's.
        context: Is told how many there are.

    Returns: Shape (student's targets,), in the order of the rows: a place among the teacher's targets, or -1.

    Raises: InputError if a tokenizer does not say which characters a token stands for, or there are no such targets.
    """
    longest = max(map(len, split.texts), default=0)
    own, teachers = (_read_before_targets(split, t, longest + 1) for t in (tokenizer, teachers_tokenizer))
    places = match(own, teachers)
    num_pairs = int((places >= 0).sum())
    if not num_pairs:
        raise InputError(
            f"student and teacher should both be at the same place of a text somewhere, but are at none of {len(own)}: "
            "choose another student, or distil with distill_sequence_level"
        )
    said = f"{num_pairs} of {len(own)} tokens come after the same text as one of the teacher's; the others have no word"
    context.event("pairs", f"{said} of it", num_pairs=num_pairs, num_targets=len(own))
    return places


def same_tokens(tokenizer: "PreTrainedTokenizerBase", teachers_tokenizer: "PreTrainedTokenizerBase") -> Places:
    """For each id of a student's tokenizer, the teacher's id of the same token.

    So a teacher can read a text as the student's tokenizer cut it, and both have the same tokens at the same positions.

    Args:
        tokenizer: The student's: the teacher's own, or one with some of its tokens, as `trim_vocabulary` leaves it.
        teachers_tokenizer: The teacher's.

    Returns: Shape (largest id + 1,); an id that no token has stands for itself.
    Raises: InputError if a token of the student is none of the teacher's, or they do not cut words in the same way.
    """
    own, teachers = tokenizer.get_vocab(), teachers_tokenizer.get_vocab()
    ids = np.arange(max(own.values()) + 1)
    if tokenizer_sha256(tokenizer) == tokenizer_sha256(teachers_tokenizer):
        return ids
    rules = [_rules(either) for either in (tokenizer, teachers_tokenizer)]
    unknown = next((token for token in own if token not in teachers), None)
    if not rules[0] or rules[0] != rules[1] or unknown is not None:
        found = "they cut words by other rules" if unknown is None else f"the student's {unknown!r} is none of them"
        raise InputError(
            f"a student whose tokens are compared with a teacher's one by one should have the teacher's tokens, but "
            f"{found}: make the student of the teacher (keep_layers, narrow, trim_vocabulary, fresh), or compare whole "
            "texts (soft_targets)"
        )
    ids[list(own.values())] = [teachers[token] for token in own]
    return ids


def match(wanted: Places, given: Places) -> Places:
    """For each number of `wanted` the place of the last equal one in `given`; -1 for what is not there, or negative."""
    order = np.argsort(given, kind="stable")
    places = np.searchsorted(given, wanted, side="right", sorter=order) - 1
    found = order[places.clip(min=0)] if len(order) else np.zeros_like(wanted)
    is_there = (places >= 0) & (wanted >= 0)
    is_there[is_there] = given[found[is_there]] == wanted[is_there]
    return np.where(is_there, found, -1)


def characters_read(spans: Places, num_before: int, num_after: int) -> Places:
    """How many characters of a text stand before each of its targets, which are all tokens but the first.

    Args:
        spans: Shape (num_tokens, 2): the characters that each token stands for, from … to.
        num_before: Tokens that are put before the text.
        num_after: Tokens that are put after it.

    Returns: Shape (num_before + num_tokens + num_after - 1,), or (0,); -1 within a character.
    """
    starts = np.concatenate([spans[:, 0], np.full(1, np.iinfo(np.int64).max)])
    ends = np.concatenate([np.zeros(1, dtype=np.int64), spans[:, 1]])  # before any token, nothing is read
    read = np.where(starts < ends, _WITHIN, ends)  # the next token stands for a part of the same character
    # `read` is before each token of the text, and before what comes after it.
    whole = np.concatenate([np.zeros(num_before, dtype=np.int64), read[: len(spans)], np.repeat(read[-1], num_after)])
    return whole[1:]


def _read_before_targets(split: Split, tokenizer: "PreTrainedTokenizerBase", stride: int) -> Places:
    """Of all texts, each counted from a multiple of `stride`, so that no number means two texts."""
    begin, end = text_edges(tokenizer)
    plain, growing = _without_trimming(tokenizer), arrays.Growing(np.int64)
    for first in range(0, len(split), _TEXTS_PER_CALL):
        encoded = plain.encode_batch(list(split.texts[first : first + _TEXTS_PER_CALL]), add_special_tokens=False)
        for place, found in enumerate(encoded):
            spans = np.asarray(found.offsets, dtype=np.int64).reshape(-1, 2)
            read = characters_read(spans, len(begin), len(end))
            growing.append(np.where(read < 0, _WITHIN, read + (first + place) * stride))
    return growing.done()


def _rules(tokenizer: "PreTrainedTokenizerBase") -> tuple[Any, ...]:
    """How a tokenizer of the tokenizers library gets from a text to tokens, whichever there are; empty for another."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    settings: dict[str, Any] = {} if backend is None else json.loads(backend.to_str())
    return () if not settings else (settings["normalizer"], settings["pre_tokenizer"], settings["model"]["type"])


def _without_trimming(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """The same tokens with the characters that they really stand for: some leave out the spaces."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"a tokenizer should say which characters a token stands for, but {type(tokenizer).__name__}, without a "
            "tokenizer.json, does not: choose another model, or distil with distill_sequence_level"
        )
    settings: dict[str, Any] = json.loads(backend.to_str())
    return Tokenizer.from_str(json.dumps(settings | {"post_processor": None, "truncation": None, "padding": None}))
