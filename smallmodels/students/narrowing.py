"""Students that are narrower than their teacher: fewer heads, feed-forward units and dimensions, or all made anew."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smallmodels import models
from smallmodels.errors import InputError, require
from smallmodels.models import Dense, Embedder, Family, TextModel
from smallmodels.students.importance import Amounts, Importance, pooled_name
from smallmodels.students.layers import tie
from smallmodels.students.student import Student

Places = npt.NDArray[np.int64]


def narrow(
    student: Student, importance: Importance, *, hidden_size: int | None = None, intermediate_size: int | None = None
) -> Student:
    """Keep the heads, feed-forward units and dimensions that do most, with their weights; to be distilled afterwards.

    Heads keep their width, so there are `hidden_size` / width of them. Fewer heads at the same hidden size, or other
    numbers of heads or units from layer to layer, cannot be had: a config of transformers says one number for all
    layers, and divides by it.

    Args:
        student: An encoder of a known family, with or without a head; it is not changed.
        importance: Measured on it (see `measure_importance`).
        hidden_size: A multiple of the width of a head, at most what it is; None leaves it.
        intermediate_size: At most what it is; None leaves it.

    Raises: InputError if the family is not known, the sizes do not fit, or the importance is that of another model.
    Source: Muralidharan et al. 2024, arXiv:2407.14679, section 2.3.
    """
    family, config = models.encoder_family(student.model), student.transformer.config
    _require_own(importance, student, family)
    num_units = _num_units(config, family)
    width = config.hidden_size if hidden_size is None else hidden_size
    units = num_units if intermediate_size is None else intermediate_size
    head_size = config.hidden_size // config.num_attention_heads
    rule = f"a multiple of {head_size}, the width of a head, up to {config.hidden_size}"
    require(0 < width <= config.hidden_size and width % head_size == 0, "hidden_size", rule, width)
    require(0 < units <= num_units, "intermediate_size", f"from 1 to {num_units}", units)
    sizes = {"hidden_size": width, "num_heads": width // head_size, "intermediate_size": units}
    groups = models.tied_layers(student.model)
    small = _empty(student, family, {**sizes, "num_layers": config.num_hidden_layers})
    chosen = _choose(importance, groups, student, sizes)
    _fill(small, student, _cuts(student, family, chosen))
    _fill_projection(small, student, chosen.hidden)
    tie(small.model, groups)
    notes = {**student.notes, **_sizes_of(small), **{f"teacher_{k}": v for k, v in _sizes_of(student).items()}}
    return dataclasses.replace(small, notes=notes)


def fresh(
    student: Student,
    *,
    num_layers: int | None = None,
    hidden_size: int | None = None,
    num_heads: int | None = None,
    intermediate_size: int | None = None,
    seed: int = 0,
) -> Student:
    """A model of the same family, tokenizer and labels with random weights; what is None stays as large as it is.

    Args:
        student: An encoder of a known family, with or without a head; it is not changed.
        num_layers: Depth.
        hidden_size: Width, a multiple of `num_heads`; ModernBERT turns pairs, and needs one of twice `num_heads`.
        num_heads: Of attention.
        intermediate_size: Feed-forward units of a layer.
        seed: Of the weights.

    Raises: InputError if the family is not known, or the sizes do not fit each other.
    """
    family, config = models.encoder_family(student.model), student.transformer.config
    given = {
        "num_layers": num_layers,
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "intermediate_size": intermediate_size,
    }
    sizes = {"num_layers": int(config.num_hidden_layers), **_sizes_of(student)}
    sizes |= {name: value for name, value in given.items() if value is not None}
    for name, value in sizes.items():
        require(value >= 1, name, ">= 1", value)
    multiple = sizes["num_heads"] * (2 if config.model_type == "modernbert" else 1)
    require(sizes["hidden_size"] % multiple == 0, "hidden_size", f"a multiple of {multiple}", sizes["hidden_size"])
    made = _empty(student, family, sizes, seed=seed)
    return dataclasses.replace(made, notes={"made_from": "random weights", "seed": seed, **sizes})


# Sizes


def _num_units(config: Any, family: Family) -> int:
    return int(getattr(config, family.intermediate_size))


def _sizes_of(student: Student) -> dict[str, int]:
    config, family = student.transformer.config, models.encoder_family(student.model)
    sizes = {"hidden_size": int(config.hidden_size), "num_heads": int(config.num_attention_heads)}
    return {**sizes, "intermediate_size": _num_units(config, family)}


def _require_own(importance: Importance, student: Student, family: Family) -> None:
    """Refuse the importance of a model with other sizes, and a model that has adapters."""
    if models.is_adapted(student.model):
        raise InputError("an encoder should have no adapters to be narrowed, found some: merge them first")
    config = student.transformer.config
    found = (*importance.heads.shape, importance.units.shape[1], len(importance.hidden))
    expected = (config.num_hidden_layers, config.num_attention_heads, _num_units(config, family), config.hidden_size)
    has_pooled = bool(len(importance.pooled)) == (pooled_name(student.transformer) is not None)
    if found != expected or not has_pooled:
        raise InputError(
            f"the importance should be that of {expected[0]} layers, {expected[1]} heads, {expected[2]} units and "
            f"{expected[3]} dimensions, got one of {', '.join(map(str, found))}: measure it on this very student"
        )


def _empty(student: Student, family: Family, sizes: Mapping[str, int], *, seed: int = 0) -> Student:
    """A model of the same class with other sizes and random weights, in evaluation mode."""
    old = student.transformer
    config = copy.deepcopy(old.config)
    config.hidden_size, config.num_attention_heads = sizes["hidden_size"], sizes["num_heads"]
    setattr(config, family.intermediate_size, sizes["intermediate_size"])
    if hasattr(config, "pooler_hidden_size"):
        config.pooler_hidden_size = config.hidden_size
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[i % len(kinds)] for i in range(sizes["num_layers"])]
    config.num_hidden_layers = sizes["num_layers"]
    with models.seeded(seed):
        made = type(old)(config)
        network = made if student.model is old else _wrapped_as(student.model, made)
    network = network.to(next(old.parameters()))  # its device and number format
    return TextModel(network.eval(), student.tokenizer, dict(student.notes), student.max_length)


def _wrapped_as(model: nn.Module, transformer: Any) -> nn.Module:
    """A transformer with what is around that of a model: pooling, and new dense layers that end as wide."""
    if not isinstance(model, Embedder):
        wrapped: nn.Module = type(model)(transformer)
        return wrapped
    layers: list[Dense] = []
    width = int(transformer.config.hidden_size)
    for old in model.dense_layers:
        layers.append(Dense(width, old.out_features, bias=old.bias is not None, activation=old.activation))
        width = old.out_features
    return Embedder(transformer, models.projection_of(layers), model.pooling)


# What is cut


@dataclass(frozen=True)
class _Chosen:
    """Places of what stays, in rising order."""

    heads: Sequence[Places]
    """Of each layer: rows of the projection into one of queries, keys or values."""
    units: Sequence[Places]
    hidden: Places
    pooled: Places


def _choose(
    importance: Importance, groups: Sequence[Sequence[int]], student: Student, sizes: Mapping[str, int]
) -> _Chosen:
    """What does most; layers that share their weights choose together, and so do all that share a table of heads."""
    config = student.transformer.config
    shares_heads = config.model_type == "mpnet"  # its places have a weight for each head, whatever the layer
    by_head = _added_up(importance.heads, [range(len(importance.heads))] if shares_heads else groups)
    by_unit = _added_up(importance.units, groups)
    head_size = config.hidden_size // config.num_attention_heads
    heads = [_largest(row, sizes["num_heads"])[:, None] * head_size + np.arange(head_size) for row in by_head]
    return _Chosen(
        [places.reshape(-1) for places in heads],
        [_largest(row, sizes["intermediate_size"]) for row in by_unit],
        _largest(importance.hidden, sizes["hidden_size"]),
        _largest(importance.pooled, sizes["hidden_size"]),
    )


def _added_up(rows: Amounts, groups: Sequence[Sequence[int]]) -> Amounts:
    """Each row with all rows of its group."""
    added = rows.copy()
    for group in groups:
        added[list(group)] = rows[list(group)].sum(0)
    return added


def _largest(amounts: Amounts, count: int) -> Places:
    """Places of the largest amounts, in rising order; of equal ones the first."""
    return np.sort(np.argsort(-amounts, kind="stable")[:count])


Cut = tuple[Places | None, ...]
"""For each axis of a weight what stays of it; None leaves all."""


def _cuts(student: Student, family: Family, chosen: _Chosen) -> dict[str, Cut]:
    """How the weights of each part of a transformer are cut, by the part's name; of a bias the first axis counts."""
    network = student.transformer
    cuts: dict[str, Cut] = dict(_cuts_of_layers(network, family, chosen))
    pooled = pooled_name(network)
    for name, part in network.named_modules():
        if name in cuts or not list(part.parameters(recurse=False)):
            continue
        if name.endswith("relative_attention_bias"):
            first = chosen.heads[0]
            head_size = network.config.hidden_size // network.config.num_attention_heads
            cuts[name] = (None, first[::head_size] // head_size)
        elif isinstance(part, nn.Embedding):
            cuts[name] = (None, chosen.hidden)
        elif isinstance(part, nn.LayerNorm):
            cuts[name] = (chosen.pooled if name.endswith("head.norm") else chosen.hidden,)
        elif name == pooled:
            cuts[name] = (chosen.pooled, chosen.hidden)
        elif isinstance(part, nn.Linear) and name.endswith(("classifier", "classifier.out_proj")):
            cuts[name] = (None, chosen.hidden if pooled is None else chosen.pooled)
        else:
            raise InputError(
                f"every part of an encoder should be known to be narrowed, but {name} of {type(network).__name__} is "
                "not: choose an embedder or a classifier"
            )
    return cuts


def _cuts_of_layers(network: nn.Module, family: Family, chosen: _Chosen) -> Iterator[tuple[str, Cut]]:
    """Of the linear parts of each layer."""
    names = {id(part): name for name, part in network.named_modules()}
    for number, layer in enumerate(models.layers_of(network)):
        prefix, heads, units = names[id(layer)], chosen.heads[number], chosen.units[number]
        parts: dict[str, nn.Module] = dict(layer.named_modules())
        for name in (*family.into_heads, *family.of_positions):
            if name in parts:
                yield f"{prefix}.{name}", (_in_blocks(parts[name], parts[family.out_of_heads], heads), chosen.hidden)
        yield f"{prefix}.{family.out_of_heads}", (chosen.hidden, heads)
        into, out = family.into_units, family.out_of_units
        yield f"{prefix}.{into}", (_in_blocks(parts[into], parts[out], units), chosen.hidden)
        yield f"{prefix}.{out}", (chosen.hidden, units)


def _in_blocks(into: Any, out: Any, places: Places) -> Places:
    """Rows of a part that gives one or several blocks of what another part takes: the same of each block."""
    starts = np.arange(0, into.out_features, out.in_features)
    return np.asarray((starts[:, None] + places).reshape(-1))


@torch.no_grad()
def _fill_projection(small: Student, student: Student, hidden: Places) -> None:
    """Dense layers behind the pooling, of whose first one the dimensions that are left come in."""
    if not isinstance(small.model, Embedder) or not isinstance(student.model, Embedder):
        return
    for number, (new, old) in enumerate(zip(small.model.dense_layers, student.model.dense_layers, strict=True)):
        weights = old.state_dict()
        if number == 0:
            weights["weight"] = weights["weight"][:, torch.from_numpy(hidden).to(old.weight.device)]
        new.load_state_dict(weights)


@torch.no_grad()
def _fill(small: Student, student: Student, cuts: Mapping[str, Cut]) -> None:
    """Put what stays of a transformer's weights and buffers into the smaller one."""
    old: dict[str, Tensor] = student.transformer.state_dict()
    for key, target in small.transformer.state_dict().items():
        part, _, _ = key.rpartition(".")
        value = old[key]
        for axis, places in enumerate(cuts.get(part, ())[: value.ndim]):
            if places is not None:
                value = value.index_select(axis, torch.from_numpy(places).to(value.device))
        assert value.shape == target.shape, key
        target.copy_(value)
