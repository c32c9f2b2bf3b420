"""Inside of encoders: where the parts of their layers are, and what a layer makes of a batch.

Legend: N examples, L tokens, D dimensions of a hidden state.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallmodels.errors import InputError, require
from smallmodels.models import first_token


@dataclass(frozen=True)
class Family:
    """How a family of encoders names the linear parts of a layer, from within it."""

    into_heads: tuple[str, ...]
    """Give queries, keys and values, in this order, or one of them all three, one after the other."""
    out_of_heads: str
    """Puts what the heads have gathered together."""
    into_units: str
    """Gives the feed-forward units, or twice as many: what is said and how much of it passes."""
    out_of_units: str
    of_positions: tuple[str, ...] = ()
    """Give keys and queries of positions, where the layer has such."""
    intermediate_size: str = "intermediate_size"
    """What its config calls the number of feed-forward units."""


_BERT = Family(
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": Family(
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out_lin",
        "ffn.lin1",
        "ffn.lin2",
        intermediate_size="hidden_dim",
    ),
    "mpnet": Family(
        ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.attn.o",
        "intermediate.dense",
        "output.dense",
    ),
    "modernbert": Family(("attn.Wqkv",), "attn.Wo", "mlp.Wi", "mlp.Wo"),
    "deberta-v2": Family(
        ("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
        of_positions=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
    ),
}
"""By the `model_type` of a config."""


def encoder_family(model: nn.Module) -> Family:
    """The family of an encoder, with or without a head.

    Raises: InputError that names those that are known.
    """
    config: Any = model.config
    family = _FAMILIES.get(config.model_type)
    if family is None:
        raise InputError(
            f"the inside of an encoder should be known to be cut or compared, which it is of {', '.join(_FAMILIES)}, "
            f"but not of {config.model_type}: choose a model of one of these"
        )
    return family


def find_layers(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and the list's name in it.

    Raises: InputError if there is no such list.
    """
    config: Any = model.config
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == int(config.num_hidden_layers):
                return module, name
    raise InputError(
        f"the teacher should keep its {config.num_hidden_layers} layers in one list, but {type(model).__name__} does "
        f"not: choose another encoder, such as one of {', '.join(_FAMILIES)}"
    )


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The layers of a model, the first one first.

    Raises: InputError if they are not in one list.
    """
    parent, name = find_layers(model)
    found: nn.ModuleList = getattr(parent, name)
    return found


def layer_of(model: nn.Module, number: int) -> nn.Module:
    """A layer by its number, the first layer's being 0; negative ones count from the last, which is -1.

    Raises: InputError if there is none.
    """
    stack = layers_of(model)
    require(-len(stack) <= number < len(stack), "layer", f"from {-len(stack)} to {len(stack) - 1}", number)
    return stack[number]


def tied_layers(model: nn.Module) -> list[list[int]]:
    """Numbers of the layers, those together that share their weights."""
    groups: dict[int, list[int]] = {}
    for number, layer in enumerate(layers_of(model)):
        groups.setdefault(id(list(layer.parameters())[-1]), []).append(number)
    return list(groups.values())


@contextlib.contextmanager
def watch_states(model: nn.Module, layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Inside, a pass of the model leaves what these layers gave, each of shape (N, L, D), with their gradient.

    Args:
        model: An encoder, with or without a head, or a language model.
        layers: Numbers, as `layer_of` takes them.

    Raises: InputError if there are no such layers.
    """
    seen = [torch.empty(0) for _ in layers]

    def leave(place: int) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            seen[place] = output[0] if isinstance(output, tuple) else output

        return hook

    watched = [layer_of(model, number) for number in layers]
    handles = [layer.register_forward_hook(leave(place)) for place, layer in enumerate(watched)]
    handles += [layer.register_forward_pre_hook(first_token.compute_every_token) for layer in watched]
    with _removing(handles):
        yield seen


@contextlib.contextmanager
def watch_heads(model: nn.Module, layer: int) -> Iterator[list[Tensor]]:
    """Inside, a pass of the model leaves the queries, keys and values of a layer, with their gradient.

    Three tensors of shape (N, L, D), head after head, before anything is added for positions.

    Args:
        model: An encoder of a known family, with or without a head.
        layer: Its number, as `layer_of` takes it.

    Raises: InputError if the family is not known, or there is no such layer.
    """
    names, watched = encoder_family(model).into_heads, layer_of(model, layer)
    seen: list[Tensor] = []
    taken: set[str] = set()

    def begin(*_: Any) -> None:
        seen.clear()
        taken.clear()

    def leave(name: str) -> Callable[..., None]:
        def hook(_part: nn.Module, _inputs: Any, output: Tensor) -> None:
            if name not in taken:  # DeBERTa gives its positions to the same part afterwards
                taken.add(name)
                seen.extend(output.chunk(3 // len(names), dim=-1))

        return hook

    handles = [watched.get_submodule(name).register_forward_hook(leave(name)) for name in names]
    handles += [watched.register_forward_pre_hook(hook) for hook in (begin, first_token.compute_every_token)]
    with _removing(handles):
        yield seen


@contextlib.contextmanager
def _removing(handles: Sequence[Any]) -> Iterator[None]:
    """Take hooks off at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
