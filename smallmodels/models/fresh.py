"""New small language models: an architecture with random weights, and a tokenizer made of the texts to learn."""

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from smallmodels.errors import require
from smallmodels.models.language_model import LanguageModel
from smallmodels.models.loading import TextModel, seeded

_END = "<|endoftext|>"
"""Ends a text, and stands before it as the token that the first one is predicted from."""


def new_tokenizer(texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of these texts: any text can be written with it, and none is changed by it.

    Args:
        texts: To count pairs in; gone through once.
        vocabulary_size: Tokens at most, the 256 bytes and the end of a text included.

    Raises: InputError if that is too few.
    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(texts, vocabulary_size=vocabulary_size, special_tokens=[_END]),
        bos_token=_END,
        eos_token=_END,
        pad_token=_END,
        clean_up_tokenization_spaces=False,
    )


def byte_level_bpe(
    texts: Iterable[str],
    *,
    vocabulary_size: int,
    special_tokens: Sequence[str],
    normalizer: normalizers.Normalizer | None = None,
    add_prefix_space: bool = False,
) -> Tokenizer:
    """What `new_tokenizer` is made of; the same texts in the same order make the same tokens.

    Args:
        texts: To count pairs in; gone through once.
        vocabulary_size: Tokens at most.
        special_tokens: The first tokens, in this order.
        normalizer: Of every text; None leaves them as they are.
        add_prefix_space: Whether the first word of a text is written as those after it.
    """
    least = 256 + len(special_tokens)
    require(vocabulary_size >= least, "vocabulary_size", f">= {least}, the bytes and special tokens", vocabulary_size)
    tokenizer = Tokenizer(BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def new_language_model_of(texts: Iterable[str], *, vocabulary_size: int, **sizes: int) -> TextModel:
    """A new model with a new tokenizer of these texts; arguments as in `new_tokenizer` and `new_language_model`."""
    return new_language_model(new_tokenizer(texts, vocabulary_size=vocabulary_size), **sizes)


def new_language_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    max_length: int,
    seed: int = 0,
) -> TextModel:
    """A Llama with random weights, whose output layer is its token table.

    Args:
        tokenizer: Of the texts that it will learn.
        hidden_size: Width, a multiple of twice `num_heads`.
        num_layers: Depth.
        num_heads: Of attention.
        max_length: Longest row of tokens.
        seed: Of the weights.

    Raises: InputError if the sizes do not fit each other.
    Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2; the inner width is 8/3 of the outer one.
    """
    require(num_layers >= 1, "num_layers", ">= 1", num_layers)
    require(num_heads >= 1, "num_heads", ">= 1", num_heads)
    multiple = 2 * num_heads  # each head turns pairs of its dimensions
    require(hidden_size % multiple == 0, "hidden_size", f"a multiple of {multiple}, twice num_heads", hidden_size)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=round(8 / 3 * hidden_size / 32) * 32 or 32,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with seeded(seed):
        network = LlamaForCausalLM(config).to(torch.float32)
    notes = {"made_from": "random weights", "seed": seed}
    return TextModel(LanguageModel(network).eval(), tokenizer, notes, max_length)
