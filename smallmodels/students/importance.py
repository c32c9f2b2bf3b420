"""How much the parts of an encoder do on real texts, so that those that do least can go.

Legend: N examples, L tokens, W parts: heads, feed-forward units, or dimensions of the hidden state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smallmodels import models
from smallmodels.data.splits import tokenize
from smallmodels.errors import InputError
from smallmodels.models import Compute
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.students.student import Student

Amounts = npt.NDArray[np.float32]

NUM_TEXTS = 1024
"""Enough to rank by, as the source has it."""


@dataclass(frozen=True)
class Importance:
    """How much each part of an encoder does; only the order within a row means something."""

    heads: Amounts
    """Shape (num_layers, num_heads)."""
    units: Amounts
    """Shape (num_layers, intermediate_size): of the feed-forward parts."""
    hidden: Amounts
    """Shape (hidden_size,)."""
    pooled: Amounts
    """Shape (hidden_size,): of what the head makes of a text before it decides; shape (0,) without such a head."""

    def save(self, folder: Path) -> None:
        """Write `importance.npz`."""
        np.savez(folder / "importance.npz", **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, folder: Path) -> "Importance":
        """Read what `save` wrote."""
        with np.load(folder / "importance.npz", allow_pickle=False) as found:
            return cls(**{field.name: found[field.name] for field in fields(cls)})


def measure_importance(
    student: Student,
    texts: Sequence[str],
    *,
    num_texts: int = NUM_TEXTS,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Importance:
    """Run texts through an encoder and add up how large what each part gives is.

    Of a head it is the length of its output, of a feed-forward unit its output after the activation and gate, of a
    dimension what the norms give, over all layers; averaged over the tokens of a text, then the root of the sum of
    squares over texts.

    Args:
        student: An encoder of a known family, with or without a head; it is not changed.
        texts: Of the kind that it will be used for, and trained on.
        num_texts: So many of them are read, evenly spaced, because rows may be sorted by label.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.

    Raises: InputError if the family is not known, or there are no texts.
    Source: Muralidharan et al. 2024, arXiv:2407.14679, section 2.2, with its best aggregation: mean, then L2.
    """
    if not len(texts):
        raise InputError("importance should be measured on texts, found none: pass some of the training texts")
    places = np.unique(np.linspace(0, len(texts) - 1, min(num_texts, len(texts))).astype(np.int64))
    tokens = tokenize([texts[i] for i in places], student.tokenizer, max_length=student.max_length)
    copied = student.copy()
    sums = _Sums(copied.model)
    models.read_all(copied, tokens, compute=compute, context=context)
    return sums.importance()


def pooled_name(model: nn.Module) -> str | None:
    """The part of a head that makes one vector of a text, of the width of the hidden state; None without such."""
    return next((name for name, _ in model.named_modules() if name.endswith(_POOLED)), None)


_POOLED = ("pooler.dense", "classifier.dense", "pre_classifier", "head.dense")


class _Sums:
    """Hooks that add up squares over texts while an encoder runs, and what they have found so far."""

    def __init__(self, network: nn.Module) -> None:
        family, layers = models.encoder_family(network), models.layers_of(network)
        config: Any = network.config
        self.num_heads = int(config.num_attention_heads)
        self.found: dict[str, Tensor] = {}
        self.mask_NL = torch.empty(0)
        network.register_forward_pre_hook(self._take_mask, with_kwargs=True)
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(models.compute_every_token)
            watched = {
                f"heads.{number}": family.out_of_heads,
                f"units.{number}": family.out_of_units,
                f"hidden.{2 * number}": family.into_heads[-1],
                f"hidden.{2 * number + 1}": family.into_units,
            }
            for key, name in watched.items():
                layer.get_submodule(name).register_forward_pre_hook(self._before(key))
        if pooled := pooled_name(network):
            network.get_submodule(pooled).register_forward_hook(lambda *call: self._add("pooled.0", call[-1]))

    def importance(self) -> Importance:
        """Of all texts that went through."""
        rows: dict[str, list[Amounts]] = {name: [] for name in ("heads", "units", "hidden", "pooled")}
        for key in sorted(self.found, key=lambda key: int(key.partition(".")[2])):
            rows[key.partition(".")[0]].append(self.found[key].sqrt().float().cpu().numpy())
        hidden = np.stack(rows["hidden"]).sum(0)
        pooled = rows["pooled"][0] if rows["pooled"] else np.zeros(0, np.float32)
        return Importance(np.stack(rows["heads"]), np.stack(rows["units"]), hidden, pooled)

    def _take_mask(self, _: nn.Module, __: Any, inputs: dict[str, Any]) -> None:
        self.mask_NL = inputs["attention_mask"]

    def _before(self, key: str) -> Callable[..., None]:
        return lambda _, inputs: self._add(key, inputs[0])

    def _add(self, key: str, given: Tensor) -> None:
        """Add the squares of the mean amounts of each text, of shape (N, L, W), or (N, W) where there is one vector."""
        amounts = given.float()
        if key.startswith("heads"):
            amounts = amounts.view(*amounts.shape[:2], self.num_heads, -1).norm(dim=-1)
        if amounts.ndim == 3:
            mask_NL1 = self.mask_NL.unsqueeze(-1).to(amounts.dtype)
            amounts = (amounts.abs() * mask_NL1).sum(1) / mask_NL1.sum(1).clamp(min=1)
        self.found[key] = self.found.get(key, 0) + amounts.square().sum(0)
