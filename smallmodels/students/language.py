"""A student of a language model, cut from its teacher or made anew."""

from typing import Any

from smallmodels import models
from smallmodels.students.layers import keep_layers
from smallmodels.students.student import Student


def smaller_language_model(
    teacher: Student,
    *,
    hidden_size: int | None = None,
    num_layers: int | None = None,
    num_heads: int = 4,
    seed: int = 0,
) -> Student:
    """Some of the teacher's layers, or a new model that cuts texts as the teacher does.

    Args:
        teacher: A language model; it is not changed.
        hidden_size: Width of a new student; None keeps layers of the teacher.
        num_layers: Of the student; None is half of the teacher's.
        num_heads: Of a new student.
        seed: Of a new student's weights.

    Raises: InputError if the teacher has fewer layers, or the sizes do not fit each other.
    """
    if num_layers is None:
        config: Any = teacher.model.config
        num_layers = max(1, int(config.num_hidden_layers) // 2)
    if hidden_size is None:
        return keep_layers(teacher, num_layers)
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
    return models.new_language_model(teacher.tokenizer, **sizes, max_length=teacher.max_length, seed=seed)
