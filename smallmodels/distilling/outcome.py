"""What a distillation leaves, and what it tells of the student and the teacher that it begins with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smallmodels import evaluation, models, students, training
from smallmodels.data import Splits
from smallmodels.evaluation import Contender, Evaluation
from smallmodels.models import Compute, TextModel
from smallmodels.runs import Run
from smallmodels.students import Student
from smallmodels.tasks import Task


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


def compare_classifiers(
    run: Run,
    task: Task,
    splits: Splits,
    contenders: Mapping[str, Contender],
    student: TextModel,
    *,
    title: str,
    margin: float,
    reached: float | None,
    compute: Compute,
) -> Distilled:
    """The phases `evaluate` and `inference`, in which the test split is read, once.

    Args:
        run: Gets the phases.
        task: What kind of labels the splits have.
        splits: With the student's tokens.
        contenders: By role; that of the role `student` has the student as it is used.
        student: As it was trained; notes what it needs to answer as it does here.
        title: What was made of what.
        margin: How much of the metric the student may lose.
        reached: What `teacher_on_validation` gave; None where training validates nothing.
        compute: As `setup` chose it.
    """
    result = run.phase("evaluate", task.evaluate, contenders, splits, compute=compute)
    student.notes.update(result.notes.get("student", {}))
    if splits.test.seconds is not None:
        student.notes["reads_pairs"] = True
    costs = run.phase("inference", evaluation.measure_inference, contenders, splits.test, compute=compute)
    about = {
        "title": title,
        "task": task.tag,
        "metric": task.metric,
        "margin": margin,
        "results": result.results,
        "inference": costs.inference,
        "predictions": result.predictions,
        "curve": training.curve(student),
        "teacher_on_validation": reached,
        "examples": evaluation.example_predictions(result, splits),
        "model": models.describe(student, compute),
        "languages": splits.languages,
        "limits": [f"Tested on {splits.source.name} only; texts of another kind or language were not tried."],
        "label_names": splits.label_names,
    }
    return Distilled(contenders["student"].model, result, about, compute)


def say_change(run: Run, before: Student, after: Student) -> None:
    """Tell what the making of a student did to layers, parameters, bytes and operations."""
    for line in students.describe_change(before, after).splitlines():
        run.say(line)


def teacher_on_validation(run: Run, teacher: TextModel, validate: training.Validate) -> float | None:
    """What the teacher reaches where its student's curve is measured; None where its training validated nothing.

    A teacher that was fine-tuned here, or came from the cache, knows it from its training. One that came as it is, is
    tried once, as the phase `validate_teacher`.

    Args:
        run: That the phase belongs to.
        teacher: As its student learns of it.
        validate: As `training.fit` takes it for the student, and took it for the teacher.
    """
    if "training" in teacher.notes:
        value: float | None = teacher.notes["training"]["best_value"]
        return value
    return run.phase("validate_teacher", _validated, teacher, validate)


def _validated(teacher: TextModel, validate: training.Validate) -> float:
    """The metric that training chooses by."""
    return float(next(iter(validate(teacher).values())))
