"""How large a student is, and what its making did to that."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallmodels import models
from smallmodels.students.student import Student

TEXT_TOKENS = 32
"""Length of the text that operations are counted for: a sentence or two."""


@dataclass(frozen=True)
class Size:
    """What a model is made of as it is saved, adapters folded in; JSON-able through `dataclasses.asdict`."""

    num_layers: int
    hidden_size: int
    num_tokens: int
    """Of its vocabulary."""
    num_parameters: int
    """Weights that layers share are counted once."""
    num_trainable: int
    """As many, but where adapters are trained beside frozen weights."""
    size_bytes: int
    """Of the weights as they are saved, where each layer has its own."""
    operations_per_token: float
    """Of a forward pass over a text of 32 tokens."""

    @classmethod
    def of(cls, student: Student) -> "Size":
        """That of a model."""
        config: Any = student.model.config
        saved = models.merge_adapter(student.copy()) if models.is_adapted(student.model) else student
        return cls(
            int(config.num_hidden_layers),
            int(config.hidden_size),
            len(student.tokenizer),
            models.num_parameters(saved.model),
            sum(p.numel() for p in student.model.parameters() if p.requires_grad),
            models.size_bytes(saved.model),
            models.num_operations(saved.model, np.array([TEXT_TOKENS])) / TEXT_TOKENS,
        )


_NAMES = {
    "num_layers": "layers",
    "hidden_size": "width",
    "num_tokens": "tokens known",
    "num_parameters": "parameters",
    "num_trainable": "trained parameters",
    "size_bytes": "bytes on disk",
    "operations_per_token": "operations per token",
}


def describe_change(before: Student, after: Student) -> str:
    """What was done to a model, as a table for the terminal: one line for each number, at most 60 columns wide.

    Those that are trained have a line where a student has adapters.

    Args:
        before: The teacher, or a student on its way.
        after: What was made of it.
    """
    first, second = (dataclasses.asdict(Size.of(student)) for student in (before, after))
    told = [key for key in _NAMES if key != "num_trainable" or models.is_adapted(after.model)]
    return "\n".join(
        f"{_NAMES[key]:<20} {_short(first[key]):>8} → {_short(second[key]):>8}{_share(first[key], second[key])}"
        for key in told
    )


def _short(number: float) -> str:
    """Three digits and a unit, or all of a smaller number: `22.7 M`, `30,522`."""
    unit, size = next(((unit, size) for unit, size in (("G", 1e9), ("M", 1e6)) if number >= size), ("", 1.0))
    return f"{number / size:.1f} {unit}" if unit else f"{number:,.0f}"


def _share(before: float, after: float) -> str:
    return "" if before == after else f"  ({100 * (after / before - 1):+.0f} %)"
