"""Make a student from a teacher. Every function takes a `Student` and gives a new one, so they compose.

`layers` keeps some layers or lets them share weights, `narrowing` keeps the heads, units and dimensions that
`importance` found to do most, or makes a small model anew, `vocabulary` keeps the tokens that a task needs, `encoder`
takes over the layers of a model with another head, `sizes` says what that did. `add_lora`, which is in `models`, trains
little beside frozen weights, and comes last: what has adapters is not cut.
"""

from smallmodels.models import add_lora
from smallmodels.students.encoder import with_encoder_of
from smallmodels.students.importance import Importance, measure_importance
from smallmodels.students.language import smaller_language_model
from smallmodels.students.layers import keep_layers, share_layers
from smallmodels.students.narrowing import fresh, narrow
from smallmodels.students.new_vocabulary import new_vocabulary
from smallmodels.students.projection import along_axes, principal_axes, project
from smallmodels.students.sizes import Size, describe_change
from smallmodels.students.static import add_classifier, static_embedder, token_vectors
from smallmodels.students.student import Student
from smallmodels.students.vocabulary import trim_vocabulary

__all__ = [
    "Importance",
    "Size",
    "Student",
    "add_classifier",
    "add_lora",
    "along_axes",
    "describe_change",
    "fresh",
    "keep_layers",
    "measure_importance",
    "narrow",
    "new_vocabulary",
    "principal_axes",
    "project",
    "share_layers",
    "smaller_language_model",
    "static_embedder",
    "token_vectors",
    "trim_vocabulary",
    "with_encoder_of",
]
