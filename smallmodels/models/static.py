"""Static models to be trained: the torch side of `smallmodels.static`, in which they are saved and used.

Legend: N examples, L tokens, D dimensions of an embedding, C classes.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from smallmodels.errors import InputError
from smallmodels.static import StaticModel

if TYPE_CHECKING:
    from smallmodels.models.loading import TextModel


_TOKEN_DROPOUT = 0.1
"""Share of the tokens that are left out while training with dropout: on Banking77's validation rows, 0.889 with labels
alone where it was 0.878 without, and 0.886 with three times as much."""


class StaticEmbedder(nn.Module):
    """A table of token vectors, whose sum over a text is scaled to length 1; dropout leaves out whole tokens.

    Source: Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings"; model2vec.
    """

    def __init__(self, table: npt.NDArray[Any]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(table), table.shape[1], _weight=torch.tensor(table, dtype=torch.float32))
        self.dropout = nn.Dropout(_TOKEN_DROPOUT)
        self.config: Any = PretrainedConfig(vocab_size=len(table), hidden_size=table.shape[1], num_hidden_layers=0)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings of shape (N, D), from ids and mask of shape (N, L); zeros for a text without a token."""
        vectors_NLD = self.embedding(input_ids)
        weights_NL1 = self.dropout(attention_mask.to(vectors_NLD.dtype)).unsqueeze(-1)
        sums_ND = (vectors_NLD * weights_NL1).sum(1)
        return nn.functional.normalize(sums_ND, dim=-1)


class StaticClassifier(nn.Module):
    """A static embedder with linear layers on top, ReLU between them."""

    def __init__(self, embedder: StaticEmbedder, layers: Sequence[nn.Linear], label_names: Sequence[str]) -> None:
        super().__init__()
        self.embedder = embedder
        self.classifier = nn.ModuleList(layers)
        self.config: Any = PretrainedConfig(
            **{name: getattr(embedder.config, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers")},
            id2label=dict(enumerate(label_names)),
            label2id={label: i for i, label in enumerate(label_names)},
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Logits of shape (N, C), from ids and mask of shape (N, L)."""
        values = self.embedder(input_ids, attention_mask)
        for number, layer in enumerate(self.classifier):
            values = layer(values.relu() if number else values)
        return SequenceClassifierOutput(logits=values)


def is_static(model: nn.Module) -> bool:
    """Whether a model is a table of token vectors, with or without layers on top."""
    return isinstance(model, (StaticEmbedder, StaticClassifier))


def to_numpy(student: "TextModel") -> StaticModel:
    """A static model as it is saved, and used without torch; its tokenizer is another object.

    Raises: InputError if the model is none.
    """
    model = student.model
    classifier = model if isinstance(model, StaticClassifier) else None
    embedder = classifier.embedder if classifier is not None else model
    if not isinstance(embedder, StaticEmbedder):
        raise InputError(
            f"the model should have one vector per token and no transformer, found {type(model).__name__}: make one "
            "with students.static_embedder"
        )
    linear: list[Any] = [] if classifier is None else list(classifier.classifier)
    names = [] if classifier is None else [classifier.config.id2label[i] for i in range(linear[-1].out_features)]
    return StaticModel(
        _array(embedder.embedding.weight),
        Tokenizer.from_str(backend_of(student.tokenizer).to_str()),
        tuple((_array(layer.weight), _array(layer.bias)) for layer in linear),
        tuple(map(str, names)),
        student.max_length,
        student.notes,
    )


def from_numpy(static: StaticModel) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The module with the weights of a static model, in fp32 and evaluation mode, and the tokenizer."""
    embedder, layers = StaticEmbedder(static.embeddings), []
    for weight, bias in static.layers:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = (torch.tensor(part, dtype=torch.float32) for part in (weight, bias))
        layers.append(layer)
    model = StaticClassifier(embedder, layers, static.label_names) if layers else embedder
    return model.eval(), plain_tokenizer(static.tokenizer)


def plain_tokenizer(backend: Tokenizer) -> PreTrainedTokenizerBase:
    """A tokenizer that cuts texts as this one does, and puts no special tokens around them."""
    settings = json.loads(backend.to_str())
    settings |= {"post_processor": None, "padding": None, "truncation": None}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(settings)))


def with_backend(like: PreTrainedTokenizerBase, backend: Tokenizer) -> PreTrainedTokenizerBase:
    """A tokenizer that does what this backend does, and names its special tokens as another one does.

    It is of the general class, which keeps all that is in its file: those of single families make some of it anew, such
    as whether capitals stay.
    """
    names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    named = {name: str(token) for name in names if (token := getattr(like, name, None)) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_input_names=list(like.model_input_names),
        **named,
    )


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The tokenizer of the tokenizers library that does the work.

    Raises: InputError if there is none.
    """
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"the tokenizer should be one of the tokenizers library, found {type(tokenizer).__name__}, which is not: "
            "choose a model with a tokenizer.json"
        )
    return backend


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
