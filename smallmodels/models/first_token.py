"""Let the last layer of a classifier compute what its head reads: the first token, and nothing else.

The head of a BERT reads the vector of the first token. In the last layer that vector needs the keys and values of all
tokens, but only its own query, output and feed-forward part, so five sixths of the layer's products are left out.
Logits and gradients stay what they were.

Legend: N examples, L tokens, D dimensions.
"""

import types
from typing import Any

import torch
from torch import Tensor, nn

_HEADS = ("Bert", "Roberta", "XLMRoberta", "Electra", "Camembert", "DistilBert")
"""Families of transformers whose `…ForSequenceClassification` reads the first token alone."""


def shorten(model: nn.Module) -> None:
    """Let the last layer compute the first token alone, if the model is one whose head reads nothing else.

    A call that asks for hidden states or attentions still gets all of them. What is shortened already stays so.

    Args:
        model: Any; weights and their names stay as they are.
    """
    classifier, layer = _classifier(model), last_layer(model)
    if classifier is None or layer is None:
        return
    if "forward" not in vars(layer):
        layer.first_token_alone = False
        layer.forward = types.MethodType(_forward, layer)
    if _before not in classifier._forward_pre_hooks.values():
        classifier.register_forward_pre_hook(_before, with_kwargs=True)
        classifier.register_forward_hook(_after, always_call=True)


def is_shortened(model: nn.Module) -> bool:
    """Whether the last layer computes the first token alone."""
    return hasattr(last_layer(model), "first_token_alone")


def compute_every_token(layer: Any, *_: Any) -> None:
    """Let the call that comes next compute all tokens of a layer, shortened or not; a hook for who looks at them."""
    if hasattr(layer, "first_token_alone"):
        layer.first_token_alone = False


def last_layer(model: nn.Module) -> Any:
    """The last layer of a classifier whose head reads the first token alone; None of any other model."""
    classifier = _classifier(model)
    base = getattr(classifier, getattr(classifier, "base_model_prefix", ""), None)
    stack = getattr(base, "encoder", None) or getattr(base, "transformer", None)
    layers = getattr(stack, "layer", None)
    return layers[-1] if isinstance(layers, nn.ModuleList) else None


def for_all_tokens(layer: Any) -> list[nn.Linear]:
    """The linear parts of a shortened layer that compute every token: its keys and values."""
    own = layer.attention
    return [own.k_lin, own.v_lin] if hasattr(layer, "ffn") else [own.self.key, own.self.value]


def _classifier(model: nn.Module) -> Any:
    bare: Any = getattr(model, "get_base_model", lambda: model)()  # within adapters
    is_known = type(bare).__name__.removesuffix("ForSequenceClassification") in _HEADS
    return bare if is_known and not getattr(bare.config, "is_decoder", False) else None


def _before(model: nn.Module, _: Any, options: dict[str, Any]) -> None:
    asked = ("output_hidden_states", "output_attentions")
    wants_all = any(options.get(name) or getattr(model.config, name, False) for name in asked)
    if is_shortened(model):
        last_layer(model).first_token_alone = not wants_all


def _after(model: nn.Module, *_: Any) -> None:
    if is_shortened(model):
        last_layer(model).first_token_alone = False  # a call of a part of the model gets every token


def _forward(layer: Any, hidden_NLD: Tensor, attention_mask: Tensor | None = None, *rest: Any, **options: Any) -> Any:
    """In place of the layer's own: shape (N, 1, D) in a call of the whole model, else as ever."""
    if not layer.first_token_alone:
        return type(layer).forward(layer, hidden_NLD, attention_mask, *rest, **options)
    first_N1D = hidden_NLD[:, :1].contiguous()  # else torch takes another way, with other last bits
    if hasattr(layer, "ffn"):  # DistilBERT
        own = layer.attention
        mixed_N1D = _mix(own, (own.q_lin(first_N1D), own.k_lin(hidden_NLD), own.v_lin(hidden_NLD)), attention_mask)
        attended_N1D = layer.sa_layer_norm(own.out_lin(mixed_N1D) + first_N1D)
        return layer.output_layer_norm(layer.ffn(attended_N1D) + attended_N1D)
    own = layer.attention.self
    mixed_N1D = _mix(own, (own.query(first_N1D), own.key(hidden_NLD), own.value(hidden_NLD)), attention_mask)
    return layer.feed_forward_chunk(layer.attention.output(mixed_N1D, first_N1D))


def _mix(attention: Any, projected: tuple[Tensor, Tensor, Tensor], mask: Tensor | None) -> Tensor:
    """Attention of the first token; the mask is that of transformers, added or boolean, with a row for each query."""
    size = attention.attention_head_size
    query, key, value = (part.view(*part.shape[:2], -1, size).transpose(1, 2) for part in projected)
    scores = query @ key.transpose(-1, -2) * attention.scaling
    if mask is not None:
        row = mask[..., :1, :]
        lowest = torch.finfo(scores.dtype).min  # a text without a token attends to nothing, which is no reason for NaN
        scores = scores.masked_fill(~row, lowest) if row.dtype == torch.bool else scores + row
    probabilities: Tensor = attention.dropout(scores.softmax(-1))
    return (probabilities @ value).transpose(1, 2).flatten(2)
