"""A student that begins with the layers of a model that has another head."""

from torch import nn

from smallmodels.errors import InputError
from smallmodels.models import TextModel
from smallmodels.students.student import Student


def with_encoder_of(student: Student, embedder: TextModel) -> Student:
    """The student's own head on the layers and tokens of an embedder, such as one that was tuned from the same model.

    Args:
        student: A classifier; it is not changed.
        embedder: Of the same architecture and sizes.

    Raises: InputError if its weights do not fit.
    """
    changed = student.copy()
    own: nn.Module = changed.transformer.base_model
    weights = embedder.transformer.state_dict()
    expected = {name: tensor.shape for name, tensor in own.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items() if name in expected}
    if odd := sorted(name for name, shape in expected.items() if found.get(name) != shape):
        raise InputError(
            f"the embedder should have the student's weights, but {odd[0]} is another or missing: make both from one "
            "model"
        )
    own.load_state_dict({name: weights[name] for name in expected})
    return changed
