"""What a distillation leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smallmodels.evaluation import Evaluation
from smallmodels.models import Compute


@dataclass(frozen=True)
class Distilled:
    """A student, and what came out when it was compared."""

    student: Any
    """As it is saved: a `TextModel`, or a model of numpy."""
    evaluation: Evaluation
    about: Mapping[str, Any]
    """Of `run.finish`: what follows from the student, the comparison and what a use costs."""
    compute: Compute
    """As `setup` chose it."""
