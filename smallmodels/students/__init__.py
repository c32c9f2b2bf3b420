"""Make a student from a teacher. Every function takes a `Student` and gives a new one, so they compose."""

from smallmodels.students.language import smaller_language_model
from smallmodels.students.layers import keep_layers
from smallmodels.students.static import add_classifier, principal_axes, static_embedder, token_vectors
from smallmodels.students.student import Student
from smallmodels.students.vocabulary import trim_vocabulary

__all__ = [
    "Student",
    "add_classifier",
    "keep_layers",
    "principal_axes",
    "smaller_language_model",
    "static_embedder",
    "token_vectors",
    "trim_vocabulary",
]
