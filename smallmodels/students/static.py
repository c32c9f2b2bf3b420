"""A student without a transformer: one vector per token, taken from a teacher that reads each token alone.

Legend: V tokens in the vocabulary, W the teacher's width, D dimensions of an embedding.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from smallmodels import models
from smallmodels.data.splits import Tokens, tokenize, tokenizer_sha256
from smallmodels.errors import InputError
from smallmodels.models import Compute, Embedder, StaticClassifier, StaticEmbedder, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.students.student import Student

_SIF_A = 1e-3
"""A token with this share of all tokens weighs half; the source finds 1e-4 to 1e-3 best, in its section 4.1."""


def token_vectors(
    teacher: TextModel, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> npt.NDArray[np.float32]:
    """What a teacher makes of each token of its vocabulary alone, its special tokens around it, shape (V, W).

    Args:
        teacher: An embedder, or a classifier, of which the encoder is taken and the mean of its token vectors.
        compute: Device and number format; chosen for this machine if None.
        context: Of the phase.

    Raises: InputError if the teacher is neither.
    """
    embedder = TextModel(_as_embedder(teacher.model), teacher.tokenizer, {}, teacher.max_length)
    before, after = _special_edges(teacher.tokenizer)
    num_tokens = _vocabulary_size(teacher.tokenizer)
    rows = np.array([[*before, token, *after] for token in range(num_tokens)], dtype=np.int32)
    offsets = np.arange(num_tokens + 1, dtype=np.int64) * rows.shape[1]
    pad_id, digest = int(teacher.tokenizer.pad_token_id or 0), tokenizer_sha256(teacher.tokenizer)
    tokens = Tokens(rows.ravel(), offsets, pad_id, rows.shape[1], digest)
    return models.forward_all(embedder, tokens, compute=compute, context=context)


def static_embedder(teacher: TextModel, vectors: npt.NDArray[Any], *, texts: Sequence[str] | None = None) -> Student:
    """One vector per token of a teacher's vocabulary, frequent tokens weighing less and special ones nothing.

    Args:
        teacher: Whose tokenizer and greatest length the student gets.
        vectors: Shape (V, D): of each token, such as `token_vectors` less their mean, on `principal_axes`.
        texts: To count tokens in, those that it will be trained on; None takes the places of the tokens in the
            vocabulary for their ranks by frequency, which they are in most tokenizers, and Zipf's law for the rest.

    Returns: A student whose tokenizer puts no special tokens around a text, so its tokens are not the teacher's.
    Source: Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", section 3, for the weights
        a / (a + share of the token); MinishLab/model2vec for their use on vectors from a sentence encoder.
    """
    tokenizer = models.plain_tokenizer(models.backend_of(teacher.tokenizer))
    assert len(vectors) == _vocabulary_size(tokenizer), "one vector for each token"
    shares = _token_shares(tokenizer, texts)
    table = vectors * (_SIF_A / (_SIF_A + shares))[:, None]
    table[_special_ids(tokenizer)] = 0.0
    notes = {**teacher.notes, "vocabulary_size": len(table)}
    return TextModel(StaticEmbedder(table).eval(), tokenizer, notes, teacher.max_length)


def add_classifier(
    student: Student, label_names: Sequence[str], *, hidden_size: int | None = None, seed: int = 0
) -> Student:
    """A static embedder with a new head: one linear layer, or two with ReLU between them.

    Args:
        student: Made by `static_embedder`; it is not changed.
        label_names: Names of the classes in the order of the data set's labels.
        hidden_size: Width between two layers; None takes one layer.
        seed: Of the head's weights.
    """
    embedder = student.copy().model
    assert isinstance(embedder, StaticEmbedder), "a head is for static embedders"
    widths = [int(embedder.config.hidden_size), *([hidden_size] if hidden_size else []), len(label_names)]
    with models.seeded(seed):
        layers = [nn.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1)]
    network = StaticClassifier(embedder, layers, label_names).eval()
    return TextModel(network, student.tokenizer, dict(student.notes), student.max_length)


def _as_embedder(model: nn.Module) -> Embedder:
    """An embedder itself, or the encoder of a classifier, without its head."""
    if isinstance(model, Embedder):
        return model
    if not isinstance(model, PreTrainedModel) or model.base_model is model:
        raise InputError(
            f"the teacher of a static student should be an embedder or a classifier, found {type(model).__name__}: "
            "choose another teacher"
        )
    return Embedder(model.base_model)


def _vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(max(tokenizer.get_vocab().values())) + 1


def _special_edges(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Tokens that the tokenizer puts before and after every text."""
    whole: list[int] = tokenizer("a", verbose=False)["input_ids"]
    bare: list[int] = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _token_shares(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """Each token's share of all tokens, shape (V,)."""
    num_tokens = _vocabulary_size(tokenizer)
    if texts is None:
        counts = 1 / np.arange(1, num_tokens + 1)
    else:
        ids = tokenize(texts, tokenizer, max_length=2**31 - 1).ids
        counts = np.bincount(ids, minlength=num_tokens).astype(np.float64)
    return np.asarray(counts / max(counts.sum(), 1.0))


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that are no part of a text: those for padding, edges and masks, and the unknown one."""
    settings = json.loads(models.backend_of(tokenizer).to_str())
    model, special = settings["model"], {token["id"] for token in settings["added_tokens"] if token["special"]}
    if model.get("unk_token") is not None:
        special.add(model["vocab"][model["unk_token"]])
    if model.get("unk_id") is not None:
        special.add(model["unk_id"])
    return sorted(special)
