"""Prompts and completions as rows of tokens: what the model shall say is a target, what it is asked is not."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from smallmodels import arrays
from smallmodels.data.reading import LONGEST_TEXT
from smallmodels.data.splits import Split, Tokens, tokenizer_sha256
from smallmodels.data.texts import padding_id, text_edges
from smallmodels.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RENDER_S = 5.0
"""Longest time for one dialogue."""

_SAME_DAY = (
    "{%- macro strftime_now(format) -%}{{ format | replace('%d', '26') | replace('%b', 'Jul') | replace('%B', 'July')"
    " | replace('%m', '07') | replace('%Y', '2024') | replace('%y', '24') | replace('%A', 'Friday')"
    " | replace('%a', 'Fri') | replace('%H', '00') | replace('%M', '00') | replace('%S', '00') }}{%- endmacro %}"
    "{{ '' }}"
)
"""Before a chat template that writes the date: always the same one, or a run that goes on tomorrow would train on other
rows. It is the day that templates of Llama 3 take where they are not told one."""

Template = Literal["chat", "plain"]
"""How prompt and completion are written: as a dialogue in the model's own form, or one after the other."""


def cut_completions(
    split: Split,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    template: Template,
    max_length: int,
    written: Sequence[Sequence[int] | None] | None = None,
) -> Split:
    """One row for each example: the prompt, which is only read, and the completion, which is to be predicted.

    Args:
        split: With completions.
        tokenizer: Of the model; its chat template runs in the sandbox of transformers.
        template: `chat` is the model's own form of a dialogue; `plain` has a line break after the prompt.
        max_length: Tokens of a row; a longer example is cut at its end.
        written: For each example the tokens that a model wrote (`generation.Answers.token_ids`), which then stand in
            the place of its completion as they are: what they say may have other tokens when it is read. None for an
            example leaves it its own.

    Returns: A split without the examples of whose completion nothing was left.

    Raises: InputError if there are no completions, none is left, or the model has no chat template that fits.
    """
    if split.completions is None:
        raise InputError(f"split {split.name} should have completions: name their column with --completion-column")
    growing, targets, kept = arrays.GrowingRows(np.int32), arrays.Growing(np.bool_), []
    for place, (prompt, completion) in enumerate(zip(split.texts, split.completions, strict=True)):
        if written is not None and (own := written[place]) is not None:
            before, after = prompt_ids(prompt, tokenizer, template), list(own)
        else:
            before, after = _both(prompt, completion, tokenizer, template)
        row = [*before, *after][:max_length]
        if len(row) <= len(before):
            continue
        growing.append(np.asarray(row, dtype=np.int32), [len(row)])
        targets.append(np.arange(len(row)) >= len(before))
        kept.append(place)
    if not kept:
        raise InputError(
            f"{max_length} tokens should have room for a prompt and the beginning of its completion, but have not for "
            f"any of {len(split)}: choose a larger --max-length"
        )
    ids, offsets = growing.done()
    tokens = Tokens(ids, offsets, padding_id(tokenizer), max_length, tokenizer_sha256(tokenizer), targets.done())
    names = [split.ids[place] for place in kept]
    return Split(split.name, names, [""] * len(names), tokens=tokens)


def prompt_ids(prompt: str, tokenizer: "PreTrainedTokenizerBase", template: Template) -> list[int]:
    """What the model is given before it answers.

    Raises: InputError if the model has no chat template.
    """
    if template == "plain":
        return [*text_edges(tokenizer)[0], *_ids(f"{prompt}\n", tokenizer)]
    return _ids(_asked(prompt, tokenizer), tokenizer)


def require_chat_template(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer that has no form of a dialogue.

    Raises: InputError.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("the model should have a chat template, but has none: choose --template plain")


def _asked(prompt: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    require_chat_template(tokenizer)
    return _chat([{"role": "user", "content": prompt}], tokenizer, add_generation_prompt=True)


def _both(
    prompt: str, completion: str, tokenizer: "PreTrainedTokenizerBase", template: Template
) -> tuple[list[int], list[int]]:
    """Tokens of the prompt and of the completion, the end of the text included."""
    if template == "plain":
        return prompt_ids(prompt, tokenizer, template), [*_ids(completion, tokenizer), *text_edges(tokenizer)[1]]
    asked = _asked(prompt, tokenizer)
    text = _chat([{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}], tokenizer)
    before, both = _ids(asked, tokenizer), _ids(text, tokenizer)
    if both[: len(before)] == before:
        after = both[len(before) :]
    elif text.startswith(asked):  # a token holds the end of the one and the beginning of the other: each alone, then
        after = _ids(text[len(asked) :], tokenizer)
    else:
        raise InputError(
            "the model's chat template should write a prompt in the same way with and without an answer, but does "
            "not: choose --template plain"
        )
    end = tokenizer.eos_token_id
    if end in after:  # what a template writes after it, such as a line break, is no part of the answer
        after = after[: len(after) - after[::-1].index(end)]
    return before, after


def _ids(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _chat(messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase", **options: Any) -> str:
    from jinja2 import TemplateError

    try:
        with _time_limit(_RENDER_S):
            template = _undated(tokenizer.get_chat_template())
            text = str(tokenizer.apply_chat_template(list(messages), chat_template=template, tokenize=False, **options))
    except TimeoutError:
        raise InputError(
            f"the model's chat template should write a dialogue within {_RENDER_S:g} s, but does not: "
            "choose --template plain"
        ) from None
    except TemplateError as error:  # its own refusal, or something that the sandbox forbids
        raise InputError(
            f"the model's chat template should write a question and an answer, but: {error}: choose --template plain"
        ) from error
    if len(text) > LONGEST_TEXT:
        raise InputError(
            f"a dialogue in the model's chat template should have at most {LONGEST_TEXT:,} characters, but has "
            f"{len(text):,}: choose --template plain"
        )
    return text


def _undated(template: str) -> str:
    return _SAME_DAY + template if "strftime_now" in template else template


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so long; only in a main thread, and where the system has such a clock."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
