"""Answers of a language model, and what they cost: reading the prompt and writing the answer apart.

Joules and CPU-seconds of the two parts come from windows of a second or more (`measure_inference`): a part of one batch
is shorter than what a backend of energy resolves.

Legend: B prompts, L tokens of the longest.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from smallmodels import energy, files, metrics, models, parts, records, trials
from smallmodels.data import prompt_ids
from smallmodels.data.completions import Template
from smallmodels.data.drawing import seed_for
from smallmodels.data.splits import Split
from smallmodels.data.texts import padding_id, text_edges
from smallmodels.errors import InputError, RunInterruptedError, require
from smallmodels.evaluation import (
    Contenders,
    Evaluation,
    InferenceCosts,
    as_contender,
    full_protocol,
    measure_uses,
    plain_result,
    windows,
)
from smallmodels.evaluation.shapes import measured_as, shape_key, shape_of
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.text import shorten

_TOKENS_PER_BATCH = 4096
"""Of prompts and answers that are in the cache of keys and values at once, one prompt at least."""
_TRIED_TOKENS = 8
"""Of each answer in a trial."""
_TOKENS_OF_USE, _PROMPTS_OF_USE, _CHARACTERS_OF_USE = 32, 8, 400
"""Of a use that is measured: tokens that it writes at most, prompts at once, and how much of a text it goes on with."""
_BATCHES_OF_USE = (1, 2, 4, 8)
"""Prompts at once that the full protocol tries."""
_SMOKE_WINDOW_S, _SMOKE_TOKENS = 0.05, 4
"""Enough to see that the path works; too short for joules."""
_KINDS_OF_COST: tuple[Literal["energy_j", "cpu_s"], ...] = ("energy_j", "cpu_s")
_USUAL_SHARE, _SHARE_DEVIATION = 0.6, 0.25
"""Of the longest answer, that the longest one of a batch has: a guess with its standard deviation, for trials alone."""


@dataclass
class Work:
    """What one part of generating took, by the clock."""

    num_tokens: int = 0
    duration_s: float = 0.0

    def add(self, num_tokens: int, seconds: float) -> None:
        """Add a batch."""
        self.num_tokens += num_tokens
        self.duration_s += seconds

    def join(self, other: "Work") -> None:
        """Add what another part took."""
        self.num_tokens += other.num_tokens
        self.duration_s += other.duration_s


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
    cost: energy.EnergyReading | None
    """Of all of it, batch by batch; None outside a run."""

    @property
    def num_new_tokens(self) -> list[int]:
        """Per prompt, the end of the text included."""
        return list(map(len, self.token_ids))

    def save(self, folder: Path) -> None:
        """Write `answers.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "answers.json", dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Answers":
        """Read what `save` wrote."""
        value = files.read_json(folder / "answers.json")
        value |= {name: Work(**value[name]) for name in ("prefill", "decode")}
        cost = value["cost"]
        value["cost"] = None if cost is None else records.from_json(energy.EnergyReading, cost)
        return cls(**value)


def answer(
    model: TextModel,
    prompts: Sequence[str],
    *,
    template: Template,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    num_classes: int | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Answers:
    """Answers, greedy or sampled, in batches of prompts of similar length, with a cache of keys and values.

    What the model's own settings of generation ask for (penalties, beams, forbidden words, …) is left out, but where an
    answer ends. In a run every batch that is written is kept, so that a killed or stopped phase goes on after it.

    Args:
        model: A language model; put into evaluation mode and on the device.
        prompts: One per answer.
        template: How a prompt is written.
        max_new_tokens: Longest answer.
        temperature: 0 takes the most likely token each time; above, tokens are drawn from the whole distribution, of
            which the logits are divided by it.
        seed: Of the draws: the same prompts, model and compute give the same answers.
        num_classes: Write none of the tokens from this id on; None may write all.
        compute: Device and number format; chosen for this machine if None.
        context: Counts the work, gives the energy, and may ask to stop.

    Raises:
        InputError: A prompt and its answer do not fit into the model.
        RunInterruptedError: The run was asked to stop.
        BudgetError: The budget of the run is spent before there is a student.
    """
    require(temperature >= 0, "temperature", ">= 0", temperature)
    compute = compute or models.choose_compute()
    network = compute.place(model.model).eval()
    assert isinstance(network, LanguageModel), "only a language model answers"
    rows = [prompt_ids(prompt, model.tokenizer, template) for prompt in prompts]
    _require_room_for(network, rows, prompts, max_new_tokens)
    token_ids: list[list[int]] = [[] for _ in rows]
    prefill, decode, trial = Work(), Work(), trials.current()
    batches = _batches(rows, max_new_tokens)
    cost = None if context.energy() is None else energy.EnergyReading()

    def write(places: list[int]) -> dict[str, Any]:
        reading, going_on = Work(), Work()
        make = partial(
            _generate,
            network,
            [rows[i] for i in places],
            model,
            temperature=temperature,
            num_classes=num_classes,
            compute=compute,
            context=context,
            prefill=reading,
            decode=going_on,
        )
        before = context.energy()
        with models.seeded(seed_for(seed, f"answers {places[0]}")):
            ids = make(max_new_tokens) if trial is None else _in_part(trial, make, max_new_tokens, going_on)
        after = context.energy()
        spent = None if before is None or after is None else dataclasses.asdict(after - before)
        works = {"prefill": dataclasses.asdict(reading), "decode": dataclasses.asdict(going_on)}
        return {"token_ids": ids, **works, "cost": spent}

    def key() -> dict[str, Any]:
        how: dict[str, Any] = {"template": template, "max_new_tokens": max_new_tokens, "compute": compute}
        made_of = answers_key(model, prompts, temperature=temperature, seed=seed, **how)
        return {"weights": model.weights_sha256(), "num_classes": num_classes, **made_of}

    kept = parts.Parts(context, key, "batches of answers", len(batches))
    for number, places in trials.part(list(enumerate(batches)), lambda batch: len(batch[1])):
        if context.should_stop():
            raise RunInterruptedError(
                f"the answers stopped after {number} of {len(batches)} batches, which are kept, and can resume"
            )
        if trial is None:
            context.rules.require_left()
        written = kept.get(number, partial(write, places))
        for place, ids in zip(places, written["token_ids"], strict=True):
            token_ids[place] = ids
        prefill.join(Work(**written["prefill"]))
        decode.join(Work(**written["decode"]))
        if cost is not None and written["cost"] is not None:
            cost += records.from_json(energy.EnergyReading, written["cost"])
        context.progress(sum(map(bool, token_ids)), len(rows))
    texts = [str(model.tokenizer.decode(ids, skip_special_tokens=True)) for ids in token_ids]
    if trial is not None:  # a beginning may be blank, and blank answers are left out by some
        texts = [text if text.strip() else prompt for text, prompt in zip(texts, prompts, strict=True)]
    return Answers(texts, token_ids, [len(row) for row in rows], prefill, decode, cost)


def answers_key(
    model: TextModel,
    prompts: Sequence[str],
    *,
    template: Template,
    max_new_tokens: int,
    compute: Compute,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """What makes answers what they are, beside weights and config of the model, as parts of an address.

    Args: As `answer`.
    """
    assert isinstance(model.model, LanguageModel), "only a language model answers"
    rows = [prompt_ids(prompt, model.tokenizer, template) for prompt in prompts]
    return {
        "prompts": files.sha256_json(rows),
        "batches": files.sha256_json(_batches(rows, max_new_tokens)),
        "ends": sorted(_ends(model.model, model)),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "device": compute.device,
        "number_format": compute.number_format,
    }


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
    num_classes: int | None = None,
    compute: Compute,
    context: Context,
    prefill: Work,
    decode: Work,
    until_end: bool = True,
) -> list[list[int]]:
    """New tokens after each row, up to its end or always so many; what it took is added to `prefill` and `decode`."""
    longest = max(map(len, rows))
    filler = padding_id(model.tokenizer)
    ids = torch.tensor([[filler] * (longest - len(row)) + row for row in rows], device=compute.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=compute.device)
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    unwanted = [] if num_classes is None else list(range(num_classes, models.vocabulary_size(model)))
    ends, clock = _ends(network, model) if until_end else set(), _Clock(compute)
    with torch.inference_mode(), compute.autocast(), _without_own_settings(network):
        made: Any = network.transformer.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=bool(sampling),
            **sampling,
            suppress_tokens=unwanted or None,
            eos_token_id=sorted(ends) or None,
            pad_token_id=filler,
            stopping_criteria=[clock],
        )
    written = [_until_end(row, ends) for row in made[:, longest:].tolist()]
    num_read, num_new = sum(map(len, rows)), sum(map(len, written))
    begin_s, first_s = clock.ticks_s
    prefill.add(num_read, first_s - begin_s)
    decode.add(num_new - len(rows), clock.now_s() - first_s)
    lengths = np.array([len(a) + len(b) for a, b in zip(rows, written, strict=True)])
    operations = models.num_operations(network, lengths, num_targets=num_new)
    processed = ids.numel() + made[:, longest:].numel()
    context.counts.add(examples=len(rows), tokens=num_read + num_new, processed=processed, operations=operations)
    return written


class _Clock:
    """Notes when the first new token is there; transformers calls it after each one, as if it asked whether to stop."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.ticks_s = [self.now_s()]

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if len(self.ticks_s) == 1:
            self.ticks_s.append(self.now_s())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def now_s(self) -> float:
        """Seconds of a clock, with the device's work done."""
        self.compute.synchronize()
        return time.perf_counter()


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


def require_room(
    writers: Iterable[TextModel], prompts: Iterable[str], *, template: Template, max_new_tokens: int
) -> None:
    """Refuse prompts that a model has no room to answer, before anything is paid for models that shall.

    Raises: InputError if a prompt and its answer do not fit into a model.
    """
    texts = list(prompts)
    for model in writers:
        assert isinstance(model.model, LanguageModel), "only a language model answers"
        rows = [prompt_ids(text, model.tokenizer, template) for text in texts]
        _require_room_for(model.model, rows, texts, max_new_tokens)


def room_after(model: TextModel, prompt: str, template: Template, *, at_most: int) -> int:
    """New tokens for which a model has room after a prompt, one at least and so many at most."""
    limit = getattr(model.model.config, "max_position_embeddings", None)
    num_read = len(prompt_ids(prompt, model.tokenizer, template))
    return at_most if limit is None else max(1, min(at_most, int(limit) - num_read))


def _require_room_for(
    network: LanguageModel, rows: Sequence[list[int]], texts: Sequence[str], max_new_tokens: int
) -> None:
    limit = getattr(network.config, "max_position_embeddings", None)
    longest = max(map(len, rows), default=0)
    if limit is None or longest + max_new_tokens <= int(limit):
        return
    text = next(text for text, row in zip(texts, rows, strict=True) if len(row) == longest)
    advice = "choose a smaller --max-new-tokens" if longest < int(limit) else "leave it out or shorten it"
    raise InputError(
        f"the model takes {limit} tokens, but the longest prompt, {shorten(text, 40)!r}, has {longest} and its "
        f"answer may have {max_new_tokens}: {advice}"
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
    """Whether each text has the number of its completion, or says the same as one without a number, word for word.

    In a trial all are taken for right: they were cut short.
    """
    if trials.current():
        return [True] * len(texts)
    pairs = zip(texts, completions, strict=True)
    return [
        gsm8k_answer(text) == number if (number := gsm8k_answer(right)) is not None else text.split() == right.split()
        for text, right in pairs
    ]


def evaluate_answers(
    contenders: Contenders,
    split: Split,
    *,
    template: Template,
    max_new_tokens: int,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Share of prompts whose greedy answer is right (`right_answers`), and what an answer costs.

    Args:
        contenders: Language models by role.
        split: With completions.
        template: How a prompt is written.
        max_new_tokens: Longest answer.
        compute: Device and number format.
        context: Of the run.

    Returns: Results with `exact_match`, `new_tokens_per_answer`, `read_tokens_per_answer`, in a run `cpu_s_per_answer`,
        and where energy is known, of a second or more, `energy_j_per_answer`; the answers themselves.
    """
    assert split.completions is not None, "right answers are needed"
    wanted = [gsm8k_answer(text) or " ".join(text.split()) for text in split.completions]
    results = []
    columns: dict[str, list[Any]] = {"id": list(split.ids), "right": wanted}
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
    """Mean tokens of an answer and what it costs; CPU-seconds and joules only where they are known."""
    measured = {
        "new_tokens_per_answer": metrics.mean_with_interval(found.num_new_tokens),
        "read_tokens_per_answer": metrics.mean_with_interval(found.num_prompt_tokens),
    }
    if found.cost is None:
        return measured
    n = len(found.texts)
    costs = {"cpu_s_per_answer": found.cost.cpu_s / n, "energy_j_per_answer": found.cost.energy_j_per(n)}
    known = {name: value for name, value in costs.items() if value is not None}
    return measured | {name: records.Metric(value=value, low=None, high=None, n=n) for name, value in known.items()}


# What a use costs


def measure_inference(
    contenders: Contenders,
    split: Split,
    *,
    template: Template | None,
    max_new_tokens: int = _TOKENS_OF_USE,
    protocol: records.InferenceProtocol | None = None,
    window_s: float | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> InferenceCosts:
    """What a use of each language model costs, and in it a token that is read and one that is written.

    A use is a greedy answer to a prompt, or without a template the continuation of the beginning of a text, which does
    not end before its last token; in both, of 32 tokens at most, so that a model takes seconds. Beside the windows of
    whole uses, which are those of `evaluation.measure_inference`, there are others of uses that end with their first
    token: reading costs what these do, and writing what whole uses take beyond.

    Args:
        contenders: Language models by role; what is none, such as `perplexity.Unigrams`, writes nothing and is left
            out. Of those with the same shape that write as much, the first is measured for all.
        split: Prompts or texts, of which a few that are spread over it are used again and again.
        template: How a prompt is written; None where the texts are no prompts.
        max_new_tokens: Longest answer.
        protocol: That of the run if None. `full` is that of `evaluation.measure_inference`, but that it tries smaller
            batches and leaves the time to start unknown.
        window_s: Shortest window, in seconds; None is that of the protocol, which gives joules but for `smoke`.
        compute: Device and number format.
        context: Of the run; its energy reading is taken at the edges of each window.
        cache: Folder of the cache, for `full`; `entries.cache_folder()` if None.

    Raises:
        InputError: A prompt and its answer do not fit into a model.
        RunInterruptedError: The run was asked to stop between two windows of `full`.
    """
    compute, protocol = compute or models.choose_compute(), protocol or context.inference_protocol
    num_new = min(max_new_tokens, _TOKENS_OF_USE)
    if protocol == "smoke":
        num_new, window_s = min(num_new, _SMOKE_TOKENS), window_s or _SMOKE_WINDOW_S
    few = windows.spread(split, _PROMPTS_OF_USE)
    writers = _writers_of(contenders, few, template, num_new, compute, context)
    num_read = {role: writer.num_read(few) for role, writer in writers.items()}
    num_written = {role: [len(ids) for ids in writer.write(few)] for role, writer in writers.items()}  # warms it up too
    reads_like = measured_as({role: (shape_of(writer.model), num_read[role]) for role, writer in writers.items()})
    like = measured_as({role: (reads_like[role], num_written[role]) for role in writers})
    measured_roles = dict.fromkeys(like.values())
    if protocol == "full":
        seconds = full_protocol.WINDOW_S if window_s is None else window_s
        asked = full_protocol.Asked(_PROMPTS_OF_USE, _BATCHES_OF_USE, seconds, num_starts=0)
        subjects = {role: writers[role].subject(num_read[role], num_written[role]) for role in measured_roles}
        return InferenceCosts.of_roles(like, full_protocol.measure(subjects, split, asked, compute, context, cache))
    uses = {
        role: [writers[role].write, writers[role].read][: 2 if reads_like[role] == role else 1]
        for role in measured_roles
    }
    how: dict[str, Any] = {"batch_size": len(few), "protocol": protocol, "compute": compute}
    measured = measure_uses(uses, few, window_s=window_s, context=context, **how)
    lines = {}
    for role, found in measured.items():
        (whole, *_), (_, reading) = found.series, measured[reads_like[role]].series
        tokens = _token_costs(float(np.mean(num_read[role])), float(np.mean(num_written[role])), reading, whole)
        lines[role] = found.line(role, writers[role].model, **how, tokens=tokens)
    return InferenceCosts.of_roles(like, lines)


def _writers_of(
    contenders: Contenders,
    few: Split,
    template: Template | None,
    num_new: int,
    compute: Compute,
    context: Context,
) -> dict[str, "_Writer"]:
    """The language models among the contenders, on their device, none of which writes more than all have room for.

    Raises: InputError if a prompt and its answer do not fit into a model.
    """
    all_models = {role: as_contender(value).model for role, value in contenders.items()}
    language_models = {role: model for role, model in all_models.items() if isinstance(model, TextModel)}
    if template is None:
        num_new = min([num_new, *(model.max_length // 2 for model in language_models.values())])
    writers = {}
    for role, model in language_models.items():
        network = compute.place(model.model).eval()
        assert isinstance(network, LanguageModel), "only a language model writes"
        writers[role] = _Writer(network, model, template, num_new, compute, context)
        _require_room_for(network, writers[role].rows(few), few.texts, num_new)
    return writers


@dataclass(frozen=True)
class _Writer:
    """A language model that is asked the same again and again."""

    network: LanguageModel
    model: TextModel
    template: Template | None
    num_new: int
    compute: Compute
    context: Context

    def write(self, part: Split) -> list[list[int]]:
        """Use it for each text, and give the tokens that it wrote."""
        return self._generate(part, self.num_new)

    def read(self, part: Split) -> list[list[int]]:
        """The same up to the first token."""
        return self._generate(part, 1)

    def subject(self, num_read: Sequence[int], num_written: Sequence[int]) -> full_protocol.Subject:
        """The model as the full protocol measures it.

        Args:
            num_read: Tokens that uses for typical texts read.
            num_written: Tokens that they write.
        """

        def uses(compute: Compute, context: Context) -> list[windows.Use]:
            compute.place(self.model.model)
            placed = dataclasses.replace(self, compute=compute, context=context)
            return [placed.write, placed.read]

        def tokens(series: Sequence[windows.Windows]) -> records.TokenCosts:
            whole, reading = series
            return _token_costs(float(np.mean(num_read)), float(np.mean(num_written)), reading, whole)

        counts = {"num_new": self.num_new, "num_read": list(num_read), "num_written": list(num_written)}
        key = {**shape_key(self.model), "template": self.template, **counts}
        return full_protocol.Subject(
            self.model, uses, key, lambda split: float(np.mean(self.num_read(split))), tokens=tokens
        )

    def num_read(self, part: Split) -> list[int]:
        """Tokens that a use reads, for each text."""
        return list(map(len, self.rows(part)))

    def rows(self, part: Split) -> list[list[int]]:
        """The tokens that a use reads, for each text."""
        tokenizer = self.model.tokenizer
        if self.template is not None:
            return [prompt_ids(text, tokenizer, self.template) for text in part.texts]
        begin, _ = text_edges(tokenizer)
        texts = [text[:_CHARACTERS_OF_USE] for text in part.texts]
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [[*begin, *row][: self.model.max_length - self.num_new] for row in ids]

    def _generate(self, part: Split, num_new: int) -> list[list[int]]:
        return _generate(
            self.network,
            self.rows(part),
            self.model,
            num_new,
            temperature=0.0,
            compute=self.compute,
            context=self.context,
            prefill=Work(),
            decode=Work(),
            until_end=self.template is not None,
        )


def _token_costs(
    num_read: float, num_written: float, reading: windows.Windows, whole: windows.Windows
) -> records.TokenCosts:
    """What a token costs, where windows of whole uses and of uses up to the first token tell it.

    Args:
        num_read: Tokens that a use reads.
        num_written: Tokens that it writes.
        reading: Windows of uses up to the first token.
        whole: Windows of whole uses.
    """
    costs: dict[str, records.Metric | None] = {}
    for kind in _KINDS_OF_COST:
        of_reading, of_whole = (records.costs_per_use(series.windows, kind) for series in (reading, whole))
        costs[f"{kind}_per_read"] = costs[f"{kind}_per_written"] = None
        if of_reading:
            costs[f"{kind}_per_read"] = _if_told(metrics.student_t_interval([c / num_read for c in of_reading]))
        if of_reading and of_whole and num_written > 1:
            longer, shorter = ([c / (num_written - 1) for c in part] for part in (of_whole, of_reading))
            costs[f"{kind}_per_written"] = _if_told(metrics.unpaired_difference(longer, shorter))
    return records.TokenCosts(num_read=num_read, num_written=num_written, reading_windows=reading.windows, **costs)


def _if_told(cost: records.Metric) -> records.Metric | None:
    """A cost, unless it is not told from none."""
    return cost if cost.value > 0 and (cost.low is None or cost.low > 0) else None
