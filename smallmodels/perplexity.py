"""How well a language model predicts texts: bits per byte and perplexity over whole splits.

Bits per byte compares models with different tokenizers, because a byte is the same for all of them; perplexity, per
token, does not. Legend: T texts.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smallmodels import losses, metrics, models, records
from smallmodels.data import cut_into_rows
from smallmodels.data.splits import Split, tokenizer_sha256
from smallmodels.errors import InputError
from smallmodels.evaluation import Contenders, Evaluation, as_contender, plain_result
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_LONG_ROW = 1 << 20
"""Tokens: any text in one row."""


@dataclass(frozen=True)
class TextLosses:
    """What a model made of each text of a split."""

    nats: npt.NDArray[np.float64]
    """Shape (T,): minus the logarithm of the probability of the text's tokens, the first given."""
    num_tokens: npt.NDArray[np.int64]
    """Shape (T,): tokens that were predicted."""
    num_right: npt.NDArray[np.int64]
    """Shape (T,): of these, those that the model held for the most likely."""
    num_bytes: npt.NDArray[np.int64] | None
    """Shape (T,): of the texts in UTF-8; None where they are not whole texts."""

    def metrics(self) -> dict[str, records.Metric]:
        """Bits per byte, perplexity per token and accuracy of the next token, with 95 % intervals over texts."""
        per_token = metrics.ratio_with_interval(self.nats, self.num_tokens)
        values = {name: getattr(per_token, name) for name in ("value", "low", "high")}
        perplexity = {name: None if value is None else math.exp(value) for name, value in values.items()}
        bits = self.nats / math.log(2)
        per_byte = None if self.num_bytes is None else metrics.ratio_with_interval(bits, self.num_bytes)
        return {
            **({} if per_byte is None else {"bits_per_byte": per_byte}),
            "perplexity": records.Metric(**perplexity, n=per_token.n),  # type: ignore[arg-type]  # a value is there
            "next_token_accuracy": metrics.ratio_with_interval(self.num_right, self.num_tokens),
        }


def evaluate_language_models(
    contenders: Contenders,
    split: Split,
    *,
    stride: int | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Bits per byte, perplexity and accuracy of the next token of each role, with 95 % intervals over texts.

    Where there is a `teacher`, the `student` is compared with it too, token by token (`closeness`).

    Args:
        contenders: Language models by role, and `Unigrams`.
        split: Texts.
        stride: See `text_losses`.
        compute: Device, number format and size of a pass.
        context: Of the run.

    Returns: The results, and for each text its bytes and what each role made of it, in bits.
    """
    results = []
    columns: dict[str, list[Any]] = {"id": list(split.ids), "num_bytes": _num_bytes(split).tolist()}
    for number, (role, value) in enumerate(contenders.items()):
        contender = as_contender(value)
        model = contender.model
        if isinstance(model, TextModel):
            found = text_losses(model, split, stride=stride, compute=compute, context=context)
        else:
            found = model.text_losses(split)
        result = plain_result(role, contender, split.name, found.metrics())
        if role == "student" and "teacher" in contenders:
            teacher_model = as_contender(contenders["teacher"]).model
            near = closeness(model, teacher_model, split, stride=stride, compute=compute, context=context)
            with_kl = {**result.metrics, "kl_from_teacher": near.kl}
            result = dataclasses.replace(result, metrics=with_kl, agreement=near.agreement)
        results.append(result)
        columns[f"{role}/bits"] = (found.nats / math.log(2)).round(3).tolist()
        context.progress(number + 1, len(contenders))
    return Evaluation(results, columns)


def evaluate_rows(
    contenders: Contenders, rows: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> Evaluation:
    """Perplexity per target and accuracy of the next token of each role, on rows as they were cut.

    Args:
        contenders: Language models of one tokenizer by role.
        rows: Of `data.cut_completions`, or of `data.cut_into_rows`.
        compute: Device, number format and size of a pass.
        context: Of the run.
    """
    results = []
    for role, value in contenders.items():
        contender = as_contender(value)
        found = row_losses(contender.model, rows, compute=compute, context=context)
        results.append(plain_result(role, contender, rows.name, found.metrics()))
    return Evaluation(results)


def together(one: Sequence[records.Result], two: Sequence[records.Result]) -> list[records.Result]:
    """Results of the same roles in two evaluations as one, the metrics of the first coming first."""
    others = {result.role: result for result in two}
    return [dataclasses.replace(r, metrics={**r.metrics, **others[r.role].metrics}) for r in one]


@dataclass(frozen=True)
class Unigrams:
    """Predicts each token by how often it stands in train: what is to be had without looking at a text."""

    log_probs: npt.NDArray[np.float64]
    """Shape (vocabulary,), in nats."""
    tokenizer: Any

    @classmethod
    def fit(cls, rows: Split, tokenizer: Any) -> "Unigrams":
        """Count the targets of rows that `data.cut_into_rows` made; a token that never occurs counts as one."""
        tokens = rows.require_tokens()
        assert tokens.targets is not None
        counts = np.bincount(tokens.ids[tokens.targets], minlength=len(tokenizer)) + 1.0
        return cls(np.log(counts / counts.sum()), tokenizer)

    def text_losses(self, split: Split) -> TextLosses:
        """As the function of that name."""
        rows = cut_into_rows(split, self.tokenizer, max_length=_LONG_ROW)
        tokens, text_of_row = rows.require_tokens(), _texts_of_rows(rows, split)
        assert tokens.targets is not None
        owners, ids = np.repeat(text_of_row, tokens.lengths)[tokens.targets], tokens.ids[tokens.targets]
        nats, right = -self.log_probs[ids], ids == int(self.log_probs.argmax())
        return _summed(split, owners, nats, np.ones(len(ids)), right)

    def save(self, folder: Path) -> None:
        """Write the logarithms and the tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "log_probs.npy", self.log_probs)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> "Unigrams":
        """Read what `save` wrote."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return cls(np.load(folder / "log_probs.npy", allow_pickle=False), tokenizer)


def text_losses(
    model: TextModel,
    split: Split,
    *,
    stride: int | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> TextLosses:
    """The loss of a language model on every token of every text of a split.

    Args:
        model: A language model; put into evaluation mode and on the device.
        split: Texts; whether they are tokenised does not matter.
        stride: Tokens by which a row of `model.max_length` moves on in a long text: each token has at least the
            difference before it. None is half of that length.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.
    """
    compute = compute or models.choose_compute()
    rows = cut_into_rows(split, model.tokenizer, max_length=model.max_length, stride=stride or model.max_length // 2)
    of_rows = row_losses(model, rows, compute=compute, context=context)
    text_of_row = _texts_of_rows(rows, split)
    return _summed(split, text_of_row, of_rows.nats, of_rows.num_tokens, of_rows.num_right)


def row_losses(
    model: TextModel, rows: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> TextLosses:
    """The loss of a language model on the targets of each row, whose bytes are not known.

    Args:
        model: A language model; put into evaluation mode and on the device.
        rows: With targets.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.
    """
    compute = compute or models.choose_compute()
    network = compute.place(model.model).eval()
    assert isinstance(network, LanguageModel), "losses of texts need a language model"
    nats, num_tokens, num_right = (np.zeros(len(rows)) for _ in range(3))
    for indices, batch, states, labels in models.forward_targets(network, rows, compute=compute, context=context):
        values, right = _losses_of(network, states, labels, compute)
        owners = np.repeat(indices, batch.is_target[:, 1:].sum(1).numpy())
        np.add.at(nats, owners, values)
        np.add.at(num_right, owners, right)
        np.add.at(num_tokens, owners, 1)
    return TextLosses(nats, num_tokens.astype(np.int64), num_right.astype(np.int64), None)


@dataclass(frozen=True)
class Closeness:
    """How near a student is to its teacher on held-out texts, with 95 % intervals over texts."""

    agreement: records.Metric
    """Share of tokens for which both hold the same one for the most likely."""
    kl: records.Metric
    """KL(teacher || student) per token, in nats, over the whole vocabulary."""


def closeness(
    student: TextModel,
    teacher: TextModel,
    split: Split,
    *,
    stride: int | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Closeness:
    """Compare two language models of one tokenizer token by token.

    Args:
        student: A language model.
        teacher: Another one.
        split: Texts.
        stride: See `text_losses`.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.

    Raises: InputError if their tokenizers differ.
    """
    if tokenizer_sha256(student.tokenizer) != tokenizer_sha256(teacher.tokenizer):
        raise InputError("student and teacher should have one tokenizer to be compared by token, found two")
    compute = compute or models.choose_compute()
    max_length = min(student.max_length, teacher.max_length)
    rows = cut_into_rows(split, student.tokenizer, max_length=max_length, stride=stride or max_length // 2)
    text_of_row = _texts_of_rows(rows, split)
    networks = [compute.place(model.model).eval() for model in (student, teacher)]
    num_classes = min(models.vocabulary_size(model) for model in (student, teacher))
    layers = [network.output_layer.cut(num_classes) for network in networks]  # type: ignore[operator, union-attr]
    passes = [
        models.forward_targets(network, rows, compute=compute, context=context)  # type: ignore[arg-type]
        for network in networks
    ]
    sums = np.zeros((3, len(split)))
    for (indices, batch, states, _), (_, _, teacher_states, _) in zip(*passes, strict=True):
        same = torch.zeros(len(states), dtype=torch.bool, device=states.device)

        def divergence(logits: Tensor, chunk: slice, wanted: Tensor = teacher_states, same: Tensor = same) -> Tensor:
            told = layers[1](wanted[chunk])
            same[chunk] = logits.argmax(-1) == told.argmax(-1)
            return losses.kl_divergence(logits, told, temperature=1.0)

        with torch.no_grad(), compute.autocast():
            values = losses.by_chunks(states, layers[0], divergence)
        owners = np.repeat(text_of_row[indices], batch.is_target[:, 1:].sum(1).numpy())
        np.add.at(sums[0], owners, same.cpu().numpy())
        np.add.at(sums[1], owners, values.double().cpu().numpy())
        np.add.at(sums[2], owners, 1)
    return Closeness(*(metrics.ratio_with_interval(part, sums[2]) for part in sums[:2]))


def _losses_of(
    network: LanguageModel, states: Tensor, labels: Tensor, compute: Compute
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Loss of each target, and whether it is what the model held for the most likely."""
    right = torch.empty(len(labels), dtype=torch.bool, device=labels.device)

    def cross_entropy(logits: Tensor, rows: slice) -> Tensor:
        right[rows] = logits.argmax(-1) == labels[rows]
        return losses.cross_entropy(logits, labels[rows])

    with torch.no_grad(), compute.autocast():
        values = losses.by_chunks(states, network.output_layer, cross_entropy)
    return values.double().cpu().numpy(), right.cpu().numpy()


def _summed(
    split: Split,
    owners: npt.NDArray[np.int64],
    nats: npt.NDArray[Any],
    num_tokens: npt.NDArray[Any],
    num_right: npt.NDArray[Any],
) -> TextLosses:
    """Losses of texts from those of their parts, of which each has an owner."""
    sums = [np.bincount(owners, part, minlength=len(split)) for part in (nats, num_tokens, num_right)]
    return TextLosses(sums[0].astype(np.float64), sums[1].astype(np.int64), sums[2].astype(np.int64), _num_bytes(split))


def _num_bytes(split: Split) -> npt.NDArray[np.int64]:
    return np.array([len(text.encode(errors="replace")) for text in split.texts], dtype=np.int64)


def _texts_of_rows(rows: Split, split: Split) -> npt.NDArray[np.int64]:
    """Index of the text that each row is a part of."""
    is_first = np.array([name.endswith(":0") for name in rows.ids], dtype=bool)
    found = np.cumsum(is_first) - 1
    assert int(found[-1]) + 1 == len(split), "every text makes a row"
    return found
