"""A student of a language model, cut from its teacher or made anew."""

from smallmodels import models
from smallmodels.students.layers import keep_layers
from smallmodels.students.student import Student


def smaller_language_model(
    teacher: Student, *, hidden_size: int | None, num_layers: int, num_heads: int, seed: int = 0
) -> Student:
    """Some of the teacher's layers, or a new model that cuts texts as the teacher does.

    Args:
        teacher: A language model; it is not changed.
        hidden_size: Width of a new student; None keeps layers of the teacher.
        num_layers: Of the student.
        num_heads: Of a new student.
        seed: Of a new student's weights.

    Raises: InputError if the teacher has fewer layers, or the sizes do not fit each other.
    """
    if hidden_size is None:
        return keep_layers(teacher, num_layers)
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
    return models.new_language_model(teacher.tokenizer, **sizes, max_length=teacher.max_length, seed=seed)
