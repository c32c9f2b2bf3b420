"""Answers of a language model, with what they cost: reading the prompt and writing the answer apart.

Legend: B prompts, L tokens of the longest.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smallmodels import energy, files, metrics, models, records, trials
from smallmodels.data import prompt_ids
from smallmodels.data.completions import Template
from smallmodels.data.drawing import seed_for
from smallmodels.data.splits import Split
from smallmodels.data.texts import padding_id
from smallmodels.errors import InputError, RunInterruptedError, require
from smallmodels.evaluation import Contenders, Evaluation, as_contender, plain_result
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_TOKENS_PER_BATCH = 4096
"""Of prompts and answers that are in the cache of keys and values at once, one prompt at least."""
_TRIED_TOKENS = 8
"""Of each answer in a trial."""
_USUAL_SHARE, _SHARE_DEVIATION = 0.6, 0.25
"""Of the longest answer, that the longest one of a batch has: a guess with its standard deviation, for trials alone."""


@dataclass
class Work:
    """What one part of generating took."""

    num_tokens: int = 0
    duration_s: float = 0.0
    cpu_s: float | None = 0.0
    """None outside a run."""
    energy_j: float | None = 0.0
    """None where it is not known."""

    def add(
        self,
        num_tokens: int,
        seconds: float,
        before: energy.EnergyReading | None,
        after: energy.EnergyReading | None,
    ) -> None:
        """Add what lies between two readings of the energy, which are None outside a run."""
        self.num_tokens += num_tokens
        self.duration_s += seconds
        if before is None or after is None:
            self.cpu_s = self.energy_j = None
            return
        if self.cpu_s is not None:
            self.cpu_s += after.cpu_s - before.cpu_s
        if self.energy_j is None or before.energy_j is None or after.energy_j is None:
            self.energy_j = None
        else:
            self.energy_j += after.energy_j - before.energy_j


@dataclass(frozen=True)
class Answers:
    """What a model wrote after each prompt."""

    texts: list[str]
    token_ids: list[list[int]]
    """What the texts were read from, the end of the text included where the model came to it."""
    num_prompt_tokens: list[int]
    prefill: Work
    """Reading the prompts, and the first token of each answer."""
    decode: Work
    """All further tokens."""

    @property
    def num_new_tokens(self) -> list[int]:
        """Per prompt, the end of the text included."""
        return list(map(len, self.token_ids))

    def save(self, folder: Path) -> None:
        """Write `answers.json`."""
        files.write_json(folder / "answers.json", dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Answers":
        """Read what `save` wrote."""
        value = files.read_json(folder / "answers.json")
        value |= {name: Work(**value[name]) for name in ("prefill", "decode")}
        return cls(**value)


def answer(
    model: TextModel,
    prompts: Sequence[str],
    *,
    template: Template,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Answers:
    """Answers, greedy or sampled, in batches of prompts of similar length, with a cache of keys and values.

    What the model's own settings of generation ask for (penalties, beams, forbidden words, …) is left out, but where an
    answer ends.

    Args:
        model: A language model; put into evaluation mode and on the device.
        prompts: One per answer.
        template: How a prompt is written.
        max_new_tokens: Longest answer.
        temperature: 0 takes the most likely token each time; above, tokens are drawn from the whole distribution, of
            which the logits are divided by it.
        seed: Of the draws: the same prompts, model and compute give the same answers.
        compute: Device and number format; chosen for this machine if None.
        context: Counts the work, gives the energy, and may ask to stop.

    Raises: InputError if a prompt and its answer do not fit into the model.
    """
    require(temperature >= 0, "temperature", ">= 0", temperature)
    compute = compute or models.choose_compute()
    network = compute.place(model.model).eval()
    assert isinstance(network, LanguageModel), "only a language model answers"
    rows = [prompt_ids(prompt, model.tokenizer, template) for prompt in prompts]
    _require_room(network, rows, max_new_tokens)
    token_ids: list[list[int]] = [[] for _ in rows]
    prefill, decode, trial = Work(), Work(), trials.current()
    for places in trials.part(_batches(rows, max_new_tokens), len):
        if context.should_stop():
            raise RunInterruptedError("the answers were stopped, and start again when the run resumes")
        make = partial(
            _generate,
            network,
            [rows[i] for i in places],
            model,
            temperature=temperature,
            compute=compute,
            context=context,
            prefill=prefill,
            decode=decode,
        )
        with models.seeded(seed_for(seed, f"answers {places[0]}")):
            written = make(max_new_tokens) if trial is None else _in_part(trial, make, max_new_tokens, decode)
        for place, ids in zip(places, written, strict=True):
            token_ids[place] = ids
        context.progress(sum(map(bool, token_ids)), len(rows))
    texts = [str(model.tokenizer.decode(ids, skip_special_tokens=True)) for ids in token_ids]
    if trial is not None:  # a beginning may be blank, and blank answers are left out by some
        texts = [text if text.strip() else prompt for text, prompt in zip(texts, prompts, strict=True)]
    return Answers(texts, token_ids, [len(row) for row in rows], prefill, decode)


def _in_part(
    trial: trials.Trial, make: Callable[[int], list[list[int]]], max_new_tokens: int, decode: Work
) -> list[list[int]]:
    """Write the first tokens alone, note what the others would take, and repeat what is there in their place."""
    before_s = decode.duration_s
    with trial.measured() as first:
        written = make(min(_TRIED_TOKENS, max_new_tokens))
    num_steps = max(map(len, written))
    step_s = (decode.duration_s - before_s) / max(1, num_steps - 1)
    left_s = step_s * max(0.0, _USUAL_SHARE * max_new_tokens - num_steps)
    cores = first.cost.cpu_s / max(first.cost.duration_s, 1e-9)
    deviation_s = step_s * _SHARE_DEVIATION * max(0, max_new_tokens - num_steps)
    trial.leave_out(trials.Cost(left_s, cores * left_s, deviation_s))
    length = max(num_steps, round(_USUAL_SHARE * max_new_tokens))
    return [(ids * length)[:length] for ids in written]


def _generate(
    network: LanguageModel,
    rows: list[list[int]],
    model: TextModel,
    max_new_tokens: int,
    *,
    temperature: float,
    compute: Compute,
    context: Context,
    prefill: Work,
    decode: Work,
) -> list[list[int]]:
    """New tokens after each row; what it took is added to `prefill` and `decode`."""
    longest = max(map(len, rows))
    filler = padding_id(model.tokenizer)
    ids = torch.tensor([[filler] * (longest - len(row)) + row for row in rows], device=compute.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=compute.device)
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    ends, clock = _ends(network, model), _Clock(compute, context)
    with torch.inference_mode(), compute.autocast(), _without_own_settings(network):
        made: Any = network.transformer.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=bool(sampling),
            **sampling,
            eos_token_id=sorted(ends) or None,
            pad_token_id=filler,
            stopping_criteria=[clock],
        )
    written = [_until_end(row, ends) for row in made[:, longest:].tolist()]
    num_read, num_new = sum(map(len, rows)), sum(map(len, written))
    first, last = clock.ticks[1], clock.tick()
    prefill.add(num_read, first[0] - clock.ticks[0][0], clock.ticks[0][1], first[1])
    decode.add(num_new - len(rows), last[0] - first[0], first[1], last[1])
    operations = models.num_operations(network, np.array([len(a) + len(b) for a, b in zip(rows, written, strict=True)]))
    processed = ids.numel() + made[:, longest:].numel()
    context.counts.add(examples=len(rows), tokens=num_read + num_new, processed=processed, operations=operations)
    return written


class _Clock:
    """Notes when the first new token is there; transformers calls it after each one, as if it asked whether to stop."""

    def __init__(self, compute: Compute, context: Context) -> None:
        self.compute, self.context = compute, context
        self.ticks = [self.tick()]

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if len(self.ticks) == 1:
            self.ticks.append(self.tick())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def tick(self) -> tuple[float, energy.EnergyReading | None]:
        """Seconds and energy so far, with the device's work done."""
        self.compute.synchronize()
        return time.perf_counter(), self.context.energy()


@contextlib.contextmanager
def _without_own_settings(network: LanguageModel) -> Iterator[None]:
    """Empty the settings of generation meanwhile: transformers takes from them whatever it is not told otherwise."""
    from transformers import GenerationConfig

    owners: list[Any] = [module for module in network.modules() if "generation_config" in vars(module)]
    own = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in zip(owners, own, strict=True):
            owner.generation_config = config


def _ends(network: LanguageModel, model: TextModel) -> set[int]:
    """Tokens after which an answer is over: the tokenizer's, and those that the model itself stops at."""
    named = network.transformer.generation_config.eos_token_id
    return {*(named if isinstance(named, list) else [named]), model.tokenizer.eos_token_id} - {None}


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids)) + 1]


def _require_room(network: LanguageModel, rows: Sequence[list[int]], max_new_tokens: int) -> None:
    limit = getattr(network.config, "max_position_embeddings", None)
    longest = max(map(len, rows), default=0)
    if limit is not None and longest + max_new_tokens > int(limit):
        raise InputError(
            f"the model takes {limit} tokens, but the longest prompt has {longest} and its answer may have "
            f"{max_new_tokens}: choose a smaller --max-new-tokens"
        )


def _batches(rows: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Places of prompts that are answered together: the longest first, so that a lack of memory shows at once."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    found, start = [], 0
    while start < len(order):
        size = max(1, _TOKENS_PER_BATCH // (len(rows[order[start]]) + max_new_tokens))
        found.append(order[start : start + size])
        start += size
    return found


# Right or wrong

_GSM8K = re.compile(r"#### (\-?[0-9\.\,]+)")


def gsm8k_answer(text: str) -> str | None:
    """The number after `####`, without commas; None where there is none.

    Source: `extract_answer` of github.com/openai/grade-school-math, grade_school_math/dataset.py.
    """
    found = _GSM8K.search(text)
    return found[1].strip().replace(",", "") if found else None


def right_answers(texts: Sequence[str], completions: Sequence[str]) -> list[bool]:
    """Whether each text has the number of its completion; a completion without one has no right answer.

    In a trial all are taken for right: they were cut short.
    """
    if trials.current():
        return [True] * len(texts)
    pairs = [(gsm8k_answer(text), gsm8k_answer(right)) for text, right in zip(texts, completions, strict=True)]
    return [given is not None and given == wanted for given, wanted in pairs]


def evaluate_answers(
    contenders: Contenders,
    split: Split,
    *,
    template: Template,
    max_new_tokens: int,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Share of prompts whose greedy answer has the number of the completion (`gsm8k_answer`), and what an answer costs.

    Args:
        contenders: Language models by role.
        split: With completions.
        template: How a prompt is written.
        max_new_tokens: Longest answer.
        compute: Device and number format.
        context: Of the run.

    Returns: Results with `exact_match`, `new_tokens_per_answer`, `read_tokens_per_answer`, in a run `cpu_s_per_answer`,
        and where energy is known `energy_j_per_answer`, `energy_j_per_read_token` and `energy_j_per_written_token`; the
        answers themselves.
    """
    assert split.completions is not None, "right answers are needed"
    wanted = [gsm8k_answer(text) for text in split.completions]
    results = []
    columns: dict[str, list[Any]] = {"id": list(split.ids), "right": [text or "" for text in wanted]}
    for role, value in contenders.items():
        contender = as_contender(value)
        found = answer(
            contender.model,
            list(split.texts),
            template=template,
            max_new_tokens=max_new_tokens,
            compute=compute,
            context=context,
        )
        is_right = right_answers(found.texts, split.completions)
        exact = metrics.mean_with_interval([float(right) for right in is_right])
        results.append(plain_result(role, contender, split.name, {"exact_match": exact, **_costs(found)}))
        columns |= {f"{role}/answer": found.texts, f"{role}/is_right": is_right}
    return Evaluation(results, columns)


def _costs(found: Answers) -> Mapping[str, records.Metric]:
    """Mean cost of an answer and of its tokens; CPU-seconds and joules only where they are known."""
    measured = {
        "new_tokens_per_answer": metrics.mean_with_interval(found.num_new_tokens),
        "read_tokens_per_answer": metrics.mean_with_interval(found.num_prompt_tokens),
    }
    if found.prefill.cpu_s is not None and found.decode.cpu_s is not None:
        cpu_s = (found.prefill.cpu_s + found.decode.cpu_s) / len(found.texts)
        measured["cpu_s_per_answer"] = records.Metric(value=cpu_s, low=None, high=None, n=len(found.texts))
    parts = (("energy_j_per_read_token", found.prefill), ("energy_j_per_written_token", found.decode))
    for name, work in parts:
        if work.energy_j is not None and work.num_tokens:
            value = work.energy_j / work.num_tokens
            measured[name] = records.Metric(value=value, low=None, high=None, n=work.num_tokens)
    if found.prefill.energy_j is not None and found.decode.energy_j is not None:
        value = (found.prefill.energy_j + found.decode.energy_j) / len(found.texts)
        measured["energy_j_per_answer"] = records.Metric(value=value, low=None, high=None, n=len(found.texts))
    return measured
