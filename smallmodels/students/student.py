"""What a student is."""

from typing import TypeAlias

from smallmodels.models import TextModel

Student: TypeAlias = TextModel
"""A model, its tokenizer and notes; the name says its role."""
