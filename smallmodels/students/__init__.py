"""Make a student from a teacher. Every function takes a `Student` and gives a new one, so they compose."""

from smallmodels.students.language import smaller_language_model
from smallmodels.students.layers import keep_layers
from smallmodels.students.new_vocabulary import new_vocabulary
from smallmodels.students.projection import along_axes, principal_axes, project
from smallmodels.students.student import Student
from smallmodels.students.vocabulary import trim_vocabulary

__all__ = [
    "Student",
    "along_axes",
    "keep_layers",
    "new_vocabulary",
    "principal_axes",
    "project",
    "smaller_language_model",
    "trim_vocabulary",
]
