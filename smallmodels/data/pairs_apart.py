"""Pairs whose texts an embedder reads one by one: a pair is one example, so nothing that cuts a batch parts them.

Legend: B pairs, L tokens of the longest text, W tokens of the longest pair.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from smallmodels.data.sentences import sentences_of
from smallmodels.data.splits import Split

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def tokenize_apart(pairs: Split, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> Split:
    """The same pairs; the tokens of each are those of its first text alone, and then those of its second text alone.

    Args:
        pairs: With `seconds`.
        tokenizer: That of the embedder.
        max_length: Tokens after which each of the two texts is cut.
    """
    tokens = sentences_of(pairs).tokenize(tokenizer, max_length=max_length).require_tokens()
    by_pair = tokens.take(np.arange(2 * len(pairs)).reshape(2, -1).T.reshape(-1))
    together = dataclasses.replace(
        by_pair,
        offsets=np.ascontiguousarray(by_pair.offsets[::2]),
        second_starts=by_pair.lengths[::2].astype(np.int32),
        max_length=2 * max_length,
    )
    return dataclasses.replace(pairs, tokens=together)


def both_texts(inputs: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """What an embedder takes of a batch of such pairs: all first texts, and then all second ones.

    Args:
        inputs: Of the batch, shape (B, W); `token_type_ids` are 1 from the second text on.

    Returns: `input_ids` and `attention_mask`, shape (2 B, L). Behind a text there may be any token, masked.
    """
    import torch

    ids, mask, is_second = (inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    of_seconds = is_second.sum(1)
    of_firsts = mask.sum(1) - of_seconds
    lengths = torch.cat([of_firsts, of_seconds])[:, None]
    starts = torch.cat([torch.zeros_like(of_firsts), of_firsts])[:, None]
    places = torch.arange(int(lengths.max()), device=ids.device)[None, :]
    moved = torch.cat([ids, ids]).gather(1, (starts + places).clamp(max=ids.shape[1] - 1))
    return {"input_ids": moved, "attention_mask": (places < lengths).to(mask.dtype)}
