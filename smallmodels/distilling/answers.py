"""Steps of recipes whose language models answer prompts: rows of tokens, and the comparison at the end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smallmodels import data, generation, perplexity
from smallmodels.data import Split, Splits
from smallmodels.data.completions import Template
from smallmodels.evaluation import Contender
from smallmodels.models import Compute
from smallmodels.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerRows:
    """Prompts and completions as rows of tokens (`data.cut_completions`)."""

    train: Split
    validation: Split
    test: Split


def cut_answers(
    run: Run, splits: Splits, tokenizer: "PreTrainedTokenizerBase", *, template: Template, max_length: int
) -> AnswerRows:
    """Rows of all splits; the run is told of completions that were cut or left out, or hold no number.

    Args:
        run: Is told.
        splits: With prompts and completions.
        tokenizer: Of the model.
        template: How a prompt is written.
        max_length: Tokens of a row.

    Raises: InputError as `data.cut_completions`.
    """
    wholes = (splits.train, splits.validation, splits.test)
    rows = [data.cut_completions(whole, tokenizer, template=template, max_length=max_length) for whole in wholes]
    for whole, left in zip(wholes, rows, strict=True):
        if dropped := len(whole) - len(left):
            run.event_once(
                "too long",
                f"{dropped} of {len(whole)} examples of {whole.name} have no room for a completion, and are left out: "
                "a larger --max-length keeps them",
            )
        if cut := num_cut(left, tokenizer):
            run.event_once(
                "too long",
                f"{cut} of {len(left)} completions of {whole.name} are cut at {max_length} tokens and have no end: "
                "a larger --max-length keeps it",
            )
    if without := sum(generation.gsm8k_answer(text) is None for text in splits.test.completions or ()):
        run.event_once(
            "no number",
            f"{without} of {len(splits.test)} completions of {splits.test.name} have no number after ####: an answer "
            "is right there if it says the same, word for word",
        )
    return AnswerRows(*rows)


def num_cut(rows: Split, tokenizer: "PreTrainedTokenizerBase") -> int:
    """Rows that are as long as they may be and do not end as a completion does."""
    tokens = rows.require_tokens()
    is_full = tokens.lengths == tokens.max_length
    return int((is_full & (tokens.ids[tokens.offsets[1:] - 1] != tokenizer.eos_token_id)).sum())


def compare_answers(
    run: Run,
    contenders: Mapping[str, Contender],
    splits: Splits,
    rows: Split,
    *,
    template: Template,
    max_new_tokens: int,
    compute: Compute,
) -> dict[str, Any]:
    """The phases `evaluate`, `answer` and `inference`, in which the test split is read, once.

    Args:
        run: Gets the phases.
        contenders: Language models by role, the student among them.
        splits: With prompts and completions.
        rows: Those of test as tokens of the student. A model with another tokenizer only answers: perplexity is per
            token.
        template: How a prompt is written.
        max_new_tokens: Longest answer.
        compute: As `setup` chose it.

    Returns: Of `run.finish`, what follows from the comparison and the data.
    """
    tokenizer = contenders["student"].model.tokenizer
    readers = {role: one for role, one in contenders.items() if data.cuts_alike(one.model.tokenizer, tokenizer)}
    how: dict[str, Any] = {"template": template, "max_new_tokens": max_new_tokens, "compute": compute}
    predicted = run.phase("evaluate", perplexity.evaluate_rows, readers, rows, compute=compute)
    answered = run.phase("answer", generation.evaluate_answers, contenders, splits.test, **how)
    costs = run.phase("inference", generation.measure_inference, contenders, splits.test, **how)
    limit = f"Tested on {splits.source.name} only; check every answer before you rely on it."
    return {
        "task": "text-generation",
        "metric": "exact_match",
        "results": perplexity.together(answered.results, predicted.results),
        "inference": costs.inference,
        "predictions": answered.predictions,
        "languages": splits.languages,
        "limits": [limit, *data.tested_in_part(splits)],
    }
