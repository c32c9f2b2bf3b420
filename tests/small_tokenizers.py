"""Tiny models of several architectures, each with the kind of tokenizer that it is known for, trained on docstrings."""

import argparse
import functools
import inspect
import json
import logging
import pathlib
import shutil
import subprocess
import textwrap

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as pieces
from transformers import PreTrainedTokenizerFast
from transformers import models as architectures

from smallmodels import models
from smallmodels.models import TextModel

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "num_labels": 3}
NUM_TOKENS = 1500


@functools.cache
def sentences():
    """About 700 lines of the docstrings of a few modules: words of all lengths, code, and punctuation."""
    modules = (argparse, json, logging, pathlib, shutil, subprocess, textwrap)
    found = {inspect.getdoc(value) for module in modules for value in vars(module).values() if callable(value)}
    lines = {" ".join(line.split()) for doc in found if doc for line in doc.splitlines()}
    return sorted(line for line in lines if len(line) > 30)


def trained(tokenizer, trainer):
    """The vocabulary, and merges where there are any, of a tokenizer trained on the sentences."""
    tokenizer.train_from_iterator(sentences(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def word_piece(cls):
    tokenizer = Tokenizer(pieces.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
    trainer = trainers.WordPieceTrainer(vocab_size=NUM_TOKENS, special_tokens=special, show_progress=False)
    return cls(vocab=trained(tokenizer, trainer)["vocab"], model_max_length=64)


def byte_level(special):
    """Vocabulary, merges and tokenizer of byte-level BPE; special tokens come first."""
    tokenizer = Tokenizer(pieces.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found = trained(tokenizer, trainer)
    return found["vocab"], [tuple(merge) for merge in found["merges"]], tokenizer


def roberta_tokenizer():
    vocab, merges, _ = byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return architectures.roberta.RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=60)


def modern_bert_tokenizer():
    """Special tokens have the last ids, and stand in the tokenizer beside the vocabulary."""
    _, _, tokenizer = byte_level([])
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    tokenizer.add_tokens([AddedToken("  ", normalized=False)])
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names)


def llama_3_tokenizer():
    """A word that is a token is taken whole, also one that no merges make."""
    vocab, merges, tokenizer = byte_level([])
    merges = [merge for i, merge in enumerate(merges) if i % 5]
    tokenizer.model = pieces.BPE(vocab=vocab, merges=merges, ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    begin = ("<|begin|>", tokenizer.token_to_id("<|begin|>"))
    template = processors.TemplateProcessing("<|begin|> $A", "<|begin|> $A <|begin|> $B", [begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    names = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def llama_2_tokenizer():
    """BPE over whole texts with 256 tokens for the bytes of characters that it does not know."""
    tokenizer = Tokenizer(pieces.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    found = trained(tokenizer, trainer)
    merges = [tuple(merge) for merge in found["merges"]]
    return architectures.llama.LlamaTokenizer(vocab=found["vocab"], merges=merges, pad_token="</s>")


@functools.cache
def scored_pieces():
    """Pieces with their scores for Unigram, without special tokens."""
    tokenizer = Tokenizer(pieces.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=NUM_TOKENS, show_progress=False)
    return [tuple(entry) for entry in trained(tokenizer, trainer)["vocab"]]


def deberta_tokenizer():
    """The unknown token stands behind one that nobody uses, and is named by its id."""
    special = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[unused]", 0.0), ("[UNK]", -1.0), ("[MASK]", 0.0)]
    return architectures.deberta_v2.DebertaV2Tokenizer(vocab=[*special, *scored_pieces()], unk_id=4)


def xlm_roberta_tokenizer():
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return architectures.xlm_roberta.XLMRobertaTokenizer(vocab=[*special, *scored_pieces()])


def words_with_ends_tokenizer():
    """BPE whose pieces say that a word ends: `ing</w>`."""
    tokenizer = Tokenizer(pieces.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    special = ["<pad>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS, special_tokens=special, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def _bert():
    tokenizer = word_piece(architectures.bert.BertTokenizer)
    return tokenizer, architectures.bert.BertForSequenceClassification, architectures.bert.BertConfig(**SIZE)


def _distilbert():
    sizes = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "num_labels": 3}
    tokenizer = word_piece(architectures.distilbert.DistilBertTokenizer)
    config = architectures.distilbert.DistilBertConfig(**sizes)
    return tokenizer, architectures.distilbert.DistilBertForSequenceClassification, config


def _roberta():
    config = architectures.roberta.RobertaConfig(**SIZE, max_position_embeddings=66, type_vocab_size=1)
    return roberta_tokenizer(), architectures.roberta.RobertaForSequenceClassification, config


def _mpnet():
    """Its word pieces have RoBERTa's special tokens before BERT's, and its places count from the padding token's id."""
    found = word_piece(architectures.bert.BertTokenizer).get_vocab()
    tokens = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *sorted(t for t in found if t == "[" or t[0] != "[")]
    tokenizer = architectures.mpnet.MPNetTokenizer(vocab={token: i for i, token in enumerate(tokens)})
    config = architectures.mpnet.MPNetConfig(**SIZE, max_position_embeddings=66)
    return tokenizer, architectures.mpnet.MPNetForSequenceClassification, config


def _albert():
    config = architectures.albert.AlbertConfig(**SIZE, embedding_size=8)
    return deberta_tokenizer(), architectures.albert.AlbertForSequenceClassification, config


def _modernbert():
    tokenizer = modern_bert_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
    config = architectures.modernbert.ModernBertConfig(**SIZE, **ids, bos_token_id=None, eos_token_id=None)
    return tokenizer, architectures.modernbert.ModernBertForSequenceClassification, config


def _llama(tokenizer):
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    return tokenizer, architectures.llama.LlamaForSequenceClassification, architectures.llama.LlamaConfig(**SIZE, **ids)


def _deberta():
    options = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    config = architectures.deberta_v2.DebertaV2Config(**SIZE, **options, type_vocab_size=0)
    return deberta_tokenizer(), architectures.deberta_v2.DebertaV2ForSequenceClassification, config


def _deberta_v3():
    """Keys and queries of places are made by the parts that make those of tokens."""
    options = {"share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
    tokenizer, cls, config = _deberta()
    return tokenizer, cls, type(config)(**config.to_dict(), **options)


def _xlm_roberta():
    config = architectures.xlm_roberta.XLMRobertaConfig(**SIZE, max_position_embeddings=66, type_vocab_size=1)
    return xlm_roberta_tokenizer(), architectures.xlm_roberta.XLMRobertaForSequenceClassification, config


def _words_with_ends():
    config = architectures.bert.BertConfig(**SIZE)
    return words_with_ends_tokenizer(), architectures.bert.BertForSequenceClassification, config


KINDS = {
    "BERT": _bert,
    "DistilBERT": _distilbert,
    "RoBERTa": _roberta,
    "ModernBERT": _modernbert,
    "Llama 2": lambda: _llama(llama_2_tokenizer()),
    "Llama 3": lambda: _llama(llama_3_tokenizer()),
    "DeBERTa-v2": _deberta,
    "XLM-R": _xlm_roberta,
    "DeBERTa-v3": _deberta_v3,
    "MPNet": _mpnet,
    "words with ends": _words_with_ends,
}
"""Every kind can be trimmed."""
ENCODERS = ("BERT", "DistilBERT", "RoBERTa", "XLM-R", "MPNet", "ModernBERT", "DeBERTa-v3")
"""Kinds whose inside is known; DeBERTa-v3 differs from v2 in its config alone."""


@functools.cache
def parts(kind):
    """Tokenizer, class and config of a tiny classifier; share them, and change none."""
    tokenizer, cls, config = {**KINDS, "ALBERT": _albert}[kind]()
    config.vocab_size = len(tokenizer)
    return tokenizer, cls, config


def tiny(kind, *, cls=None, **changes):
    """A random model of a kind, by default a classifier of three classes; changes are of its config."""
    tokenizer, default, config = parts(kind)
    config = type(config)(**{**config.to_dict(), **changes})
    with models.seeded(0):
        model = (cls or default)(config)
    return TextModel(model.eval(), tokenizer, {"base_model": kind}, max_length=48)
