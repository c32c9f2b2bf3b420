"""Passes of a model without gradients, over texts of any number."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smallmodels import arrays, losses, trials
from smallmodels.arrays import Ragged
from smallmodels.data import batches
from smallmodels.data.splits import Split, Tokens, tokenize
from smallmodels.errors import InputError, RunInterruptedError
from smallmodels.models.compute import Compute, choose_compute
from smallmodels.models.facts import Operations
from smallmodels.models.language_model import LanguageModel
from smallmodels.models.loading import TextModel, require_own_tokens
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.trials import Trial


def forward_all(
    model: TextModel, tokens: Tokens, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> npt.NDArray[np.float32]:
    """Logits (N, C) of a classifier or embeddings (N, D) of an embedder for every text; no gradients.

    Args:
        model: Put into evaluation mode and on the device.
        tokens: Of all texts.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.

    Raises: InputError if another tokenizer than the model's made the tokens.
    """
    rows = [(indices, values) for indices, _, values in _passes(model, tokens, compute, context)]
    width = rows[0][1].shape[1:] if rows else (0,)
    result = np.zeros((len(tokens.lengths), *width), dtype=np.float32)
    for indices, values_NC in rows:
        result[indices] = values_NC.cpu().numpy()
    return _filled(result, [indices for indices, _ in rows])


def read_all(
    model: TextModel, tokens: Tokens, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> None:
    """`forward_all` for what hooks inside a model of any kind see: what it gives at its end is left out."""
    _passes(model, tokens, compute, context)


def forward_words(
    model: TextModel, tokens: Tokens, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> Ragged:
    """Logits (num_words, C) of a token classifier for the words of every text; no gradients.

    Args:
        model: Put into evaluation mode and on the device.
        tokens: As `tokenize_words` makes them; a word that was cut off has no logits.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.

    Raises: InputError if another tokenizer than the model's made the tokens, or they have no words.
    """
    if tokens.targets is None:
        raise InputError("the tokens should say where words begin, but do not: use a split with a label for each word")
    found: dict[int, npt.NDArray[np.float32]] = {}
    for indices, is_first, values in _passes(model, tokens, compute, context):
        ends = is_first.sum(1).cumsum(0)[:-1].tolist()
        found |= dict(zip(indices.tolist(), np.split(values.cpu().numpy(), ends), strict=True))
    any_values = next(iter(found.values()))
    growing = arrays.GrowingRows(np.float32, any_values.shape[1:])
    for row in range(len(tokens.lengths)):
        if row not in found:  # left out in a trial
            num_words = int(tokens.targets[tokens.offsets[row] : tokens.offsets[row + 1]].sum())
            found[row] = np.resize(any_values, (num_words, *any_values.shape[1:]))
        growing.append(found[row], [len(found[row])])
    return Ragged(*growing.done())


def _filled(values: npt.NDArray[np.float32], done: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """Values of which a trial did these rows alone; the others get theirs, one after the other."""
    is_left = np.ones(len(values), dtype=bool)
    is_left[np.concatenate([np.zeros(0, dtype=np.int64), *done])] = False
    if is_left.any():
        values[is_left] = np.resize(values[~is_left], (int(is_left.sum()), *values.shape[1:]))
    return values


def _passes(
    model: TextModel, tokens: Tokens, compute: Compute | None, context: Context
) -> list[tuple[npt.NDArray[np.int64], Tensor, Tensor]]:
    """Of each pass: places of its texts, where words begin in each, and what the model gives for each text or word.

    Values are on the device, whose work goes on meanwhile.
    """
    require_own_tokens(model, tokens)
    compute = compute or choose_compute()
    network = compute.place(model.model).eval()
    operations, is_words = Operations.of(network), tokens.targets is not None
    done = []
    plan = batches.plan_inference(tokens.lengths, max_tokens=compute.tokens_per_pass)
    with torch.inference_mode(), compute.autocast():
        for indices in trials.part(plan, lambda indices: int(tokens.lengths[indices].sum())):
            if context.should_stop():
                raise RunInterruptedError("the forward pass was stopped, and starts again when the run resumes")
            padded = batches.pad(tokens, indices)
            is_first = batches.pad_targets(tokens, indices) if is_words else torch.empty(0, dtype=torch.bool)
            inputs = {name: batches.to_device(tensor, compute.device) for name, tensor in padded.items()}
            output = network(**inputs)
            values = output if isinstance(output, Tensor) else output.logits
            if is_words:
                firsts = batches.to_device(batches.places_of(is_first), compute.device)
                values = values.flatten(0, 1).index_select(0, firsts)
            lengths = tokens.lengths[indices]
            context.counts.add(
                examples=len(indices),
                tokens=int(lengths.sum()),
                processed=inputs["input_ids"].numel(),
                operations=operations(lengths),
            )
            done.append((indices, is_first, values.float()))
    return done


def passes_in_part(trial: Trial, tokens: Tokens, compute: Compute) -> Iterator[npt.NDArray[np.int64]]:
    """In a trial: places of the texts of some passes, for those who take `forward_targets` of these texts alone."""
    plan = batches.plan_inference(tokens.lengths, max_tokens=compute.tokens_per_pass)
    return trial.part(plan, lambda indices: int(tokens.lengths[indices].sum()))


def forward_targets(
    network: LanguageModel, rows: Split, *, compute: Compute, context: Context = NO_CONTEXT
) -> Iterator[tuple[npt.NDArray[np.int64], batches.Batch, Tensor, Tensor]]:
    """The hidden states of a language model that predict the targets of each row; no gradients.

    Args:
        network: On the device and in evaluation mode.
        rows: As `data.cut_into_rows` makes them.
        compute: Number format and size of a pass.
        context: Counts the work and may ask to stop.

    Yields: Places of some rows, their batch, and of all its targets the states, (num_targets, num_dimensions), and ids.
    """
    tokens, operations = rows.require_tokens(), Operations.of(network)
    for indices in batches.plan_inference(tokens.lengths, max_tokens=compute.tokens_per_pass):
        if context.should_stop():
            raise RunInterruptedError("the forward pass was stopped, and starts again when the run resumes")
        batch = batches.collate(rows, indices)
        there = batch.to(compute.device)
        with torch.no_grad(), compute.autocast():
            states, labels = losses.shifted(network(**there.inputs), there.inputs["input_ids"], there.targets)
        lengths, processed = tokens.lengths[indices], batch.num_processed_tokens
        context.counts.add(
            examples=len(indices),
            tokens=batch.num_tokens,
            processed=processed,
            operations=operations(lengths, batch.num_targets),
        )
        yield indices, batch, states, labels


def forward_texts(
    model: TextModel, texts: Sequence[str], *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> npt.NDArray[np.float32]:
    """`forward_all` for texts that are not tokenised yet."""
    tokens = tokenize(texts, model.tokenizer, max_length=model.max_length)
    return forward_all(model, tokens, compute=compute, context=context)
