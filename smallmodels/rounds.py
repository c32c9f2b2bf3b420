"""Rounds of learning from what the student writes itself: its own samples as data, and earlier ones that are repeated.

Source: on-policy data, mixed with given data: Agarwal et al. 2023, arXiv:2306.13649, algorithm 1. There every step
draws new samples; here a round draws them all, so that they can be kept, scored once and learned in a known order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from smallmodels import generation, models, trials
from smallmodels.data import cut_completions
from smallmodels.data.batches import to_device
from smallmodels.data.completions import Template
from smallmodels.data.drawing import generator, seed_for
from smallmodels.data.splits import Split
from smallmodels.errors import require
from smallmodels.losses import TopK
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.teachers.signals import target_offsets

OfTargets: TypeAlias = Callable[[LanguageModel, Tensor, TopK], Tensor]
"""Called as `divergence(model, states, teacher)`: one value for each target, from the states that predict it."""


def prompts_of(prompts: Split, number: int, *, size: int, seed: int) -> Split:
    """The prompts of a round, counted from 0: the next ones in an order drawn by a seed, which begins anew at its end.

    Ids name the round, so that the same prompt in two rounds makes two examples.
    """
    order = generator(seed, "prompts").permutation(len(prompts))
    places = order[(number * size + np.arange(min(size, len(prompts)))) % len(prompts)]
    chosen = prompts.take(places)
    return replace(chosen, ids=[f"round {number}/{name}" for name in chosen.ids])


@dataclass(frozen=True)
class Written:
    """The new data of a round."""

    rows: Split
    """Prompts with completions as tokens, the completions being targets."""
    sha256: str
    """Of the tokens."""
    num_generated_tokens: int
    """That the student wrote."""
    num_used_tokens: int
    """Of these, the targets: what was cut off, or had no room at all, is missing."""


def write(
    student: TextModel,
    prompts: Split,
    *,
    on_policy_share: float,
    template: Template,
    max_length: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    num_classes: int | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Written:
    """Let a student complete a share of the prompts, drawn by a seed; the others keep the completion that they have.

    What it wrote stays as the tokens that it drew, and has an end only where the student came to one.

    Args:
        student: A language model.
        prompts: With completions.
        on_policy_share: In [0, 1]: 1 makes all data the student's own, 0 none.
        template: How a prompt is written.
        max_length: Tokens of a row; a longer one is cut.
        max_new_tokens: Longest sample.
        temperature: Of the draws, see `generation.answer`.
        seed: Which prompts, and what is drawn.
        num_classes: Write none of the tokens from this id on, which the teacher does not have; None may write all.
        compute: Device and number format.
        context: Counts the work; told of the data set.
    """
    require(0 <= on_policy_share <= 1, "on_policy_share", "in [0, 1]", on_policy_share)
    num_own = round(on_policy_share * len(prompts))
    own = np.sort(generator(seed, "on-policy").permutation(len(prompts))[:num_own])
    found = generation.answer(
        student,
        list(prompts.take(own).texts),
        template=template,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        num_classes=num_classes,
        compute=compute,
        context=context,
    )
    written: list[Sequence[int] | None] = [None] * len(prompts)
    for place, ids in zip(own.tolist(), found.token_ids, strict=True):
        written[place] = ids
    rows = cut_completions(prompts, student.tokenizer, template=template, max_length=max_length, written=written)
    names = {prompts.ids[place] for place in own.tolist()}
    used = rows.take([i for i, name in enumerate(rows.ids) if name in names])
    made = Written(rows, rows.require_tokens().fingerprint(), sum(found.num_new_tokens), num_targets(used))
    context.event(
        "samples",
        f"the student completed {num_own} of {len(prompts)} prompts: {made.num_generated_tokens} tokens, of which "
        f"{made.num_used_tokens} are used",
        sha256=made.sha256,
        num_rows=len(rows),
        num_own_rows=len(used),
        num_generated_tokens=made.num_generated_tokens,
        num_used_tokens=made.num_used_tokens,
    )
    return made


def num_targets(rows: Split) -> int:
    """Tokens of rows that a language model learns to predict."""
    return int(target_offsets(rows.require_tokens())[-1])


# What is learned again


@dataclass(frozen=True)
class Replay:
    """What a round repeats of earlier ones."""

    places: list[int]
    """Among the earlier rows."""
    num_tokens: int
    """Their targets."""


def replay(
    student: TextModel,
    rows: Split,
    earlier: Split,
    divergence: OfTargets,
    *,
    at_most: float,
    seed: int,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Replay:
    """Choose earlier rows to be learned again beside the new ones, as many as the student still gains by them.

    Of a round's rows, a share (`replay_share`) are earlier ones. It follows from the mean divergence of the student, as
    it is before the round, from what the teacher said about the new rows and about a draw of earlier ones.

    Args:
        student: A language model.
        rows: The new ones, with the teacher's word on their targets.
        earlier: Those of all rounds before, likewise.
        divergence: What is measured.
        at_most: Largest share, in [0, 1); 0 measures nothing and repeats nothing.
        seed: Of the draw.
        compute: Device, number format and size of a pass.
        context: Counts the work; told of the share and of what it came from.
    """
    require(0 <= at_most < 1, "at_most", "in [0, 1)", at_most)
    num_drawn = min(len(earlier), _beside(len(rows), at_most))
    if not num_drawn:
        return Replay([], 0)
    drawn = generator(seed, "replay").permutation(len(earlier))[:num_drawn]
    on_new, on_earlier = (
        mean_divergence(student, part, divergence, compute=compute, context=context)
        for part in (rows, earlier.take(np.sort(drawn)))
    )
    share = replay_share(on_new, on_earlier, at_most=at_most)
    places = np.sort(drawn[: _beside(len(rows), share)])
    found = Replay(places.tolist(), num_targets(earlier.take(places)))
    context.event(
        "replay",
        f"{len(places)} rows of earlier rounds are repeated beside {len(rows)} new ones: the student is "
        f"{on_earlier:.3g} from the teacher on earlier rows and {on_new:.3g} on new ones",
        replay_share=share,
        num_rows=len(places),
        num_replayed_tokens=found.num_tokens,
        divergence_on_new_rows=on_new,
        divergence_on_earlier_rows=on_earlier,
    )
    return found


def replay_share(on_new: float, on_earlier: float, *, at_most: float) -> float:
    """Share of a round's rows that are earlier ones: what the student has left to learn there, of all it has.

    Args:
        on_new: Mean divergence from the teacher on new rows, ≥ 0.
        on_earlier: The same on rows of earlier rounds.
        at_most: Largest share.

    Returns: on_earlier / (on_earlier + on_new), in [0, at_most]; 0 where there is nothing left to learn.
    """
    left = on_earlier + on_new
    return min(at_most, on_earlier / left) if left > 0 else 0.0


def _beside(num_new: int, share: float) -> int:
    """How many earlier rows make up this share beside so many new ones."""
    return round(num_new * share / (1 - share))


def mean_divergence(
    model: TextModel,
    rows: Split,
    divergence: OfTargets,
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> float:
    """Mean over all targets of rows that have the teacher's word on them; no gradients.

    Args:
        model: A language model; put into evaluation mode and on the device.
        rows: With signals.
        divergence: Of the states that predict some targets.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.
    """
    compute = compute or models.choose_compute()
    network = compute.place(model.model).eval()
    assert isinstance(network, LanguageModel), "targets are those of a language model"
    trial, total, count = trials.current(), 0.0, 0
    parts = [rows] if trial is None else map(rows.take, models.passes_in_part(trial, rows.require_tokens(), compute))
    for part in parts:
        for _, batch, states, labels in models.forward_targets(network, part, compute=compute, context=context):
            told = batch.teacher_top_k.map(lambda values: to_device(values, compute.device))
            with torch.no_grad(), compute.autocast():
                total += float(divergence(network, states, told).double().sum())
            count += len(labels)
    return total / count


def seed_of(seed: int, number: int) -> int:
    """A seed of its own for each round of a run."""
    return seed_for(seed, f"round {number}")
