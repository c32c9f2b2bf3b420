"""What a teacher writes, kept in the cache for every run that asks it the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smallmodels import generation, models
from smallmodels.data.completions import Template
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.teachers import addresses, whole


def write_answers(
    teacher: TextModel,
    prompts: Sequence[str],
    *,
    template: Template,
    max_new_tokens: int,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> generation.Answers:
    """The teacher's greedy answers (`generation.answer`), or those that an earlier run had from the same parts.

    Args:
        teacher: A language model.
        prompts: One per answer.
        template: How a prompt is written.
        max_new_tokens: Longest answer.
        compute: Device and number format; chosen for this machine if None.
        context: Of the run; in the folder of the phase each batch is kept until all are there.
        cache: Folder of the cache; `cache_folder()` if None.

    Returns: The answers; what reading and writing took is that of the run that made them.

    Raises: As `generation.answer`; see `entries` for a cache that cannot be written.
    """
    compute = compute or models.choose_compute()
    how: dict[str, Any] = {"template": template, "max_new_tokens": max_new_tokens, "compute": compute}
    key = {
        "what": "written answers",
        **addresses.of_model(teacher),
        **generation.answers_key(teacher, prompts, **how),
    }

    def make() -> generation.Answers:
        return generation.answer(teacher, prompts, context=context, **how)

    return whole.read_or_make(key, make, generation.Answers.load, name="answers", context=context, cache=cache)
