"""What a distillation leaves, and what it tells of the student that it begins with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smallmodels import students
from smallmodels.evaluation import Evaluation
from smallmodels.models import Compute
from smallmodels.runs import Run
from smallmodels.students import Student


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


def say_change(run: Run, before: Student, after: Student) -> None:
    """Tell what the making of a student did to layers, parameters, bytes and operations."""
    for line in students.describe_change(before, after).splitlines():
        run.say(line)
