"""How well a language model predicts texts: bits per byte and perplexity over whole splits.

Bits per byte compares models with different tokenizers, because a byte is the same for all of them; perplexity, per
token, does not. Legend: T texts.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smallmodels import losses, metrics, models, records, trials
from smallmodels.data import cut_into_rows
from smallmodels.data.splits import Split, cuts_alike, tokenizer_sha256
from smallmodels.data.texts import text_edges
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contender, Contenders, Evaluation, as_contender, plain_result
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_LONG_ROW = 1 << 20
"""Tokens: any text in one row."""

Sums = Sequence[npt.NDArray[Any]] | npt.NDArray[np.float64]
"""Of each text or row, in the order of `_NATS` and its neighbours."""


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

    Where there is a `teacher`, models that cut texts as it does are compared with it too, token by token
    (`closeness`): in the same pass if they read the same rows.

    Args:
        contenders: Language models by role, and `Unigrams`.
        split: Texts.
        stride: See `text_losses`.
        compute: Device, number format and size of a pass.
        context: Of the run.

    Returns: The results, and for each text its bytes and what each role made of it, in bits. A teacher that cuts texts
        otherwise than its students has bits per byte alone: all else is per token.
    """
    results = []
    columns: dict[str, list[Any]] = {"id": list(split.ids), "num_bytes": _num_bytes(split).tolist()}
    options: dict[str, Any] = {"stride": stride, "compute": compute, "context": context}
    all_models: dict[str, Any] = {role: as_contender(value).model for role, value in contenders.items()}
    teacher = all_models.get("teacher")
    beside_teacher = {role: model for role, model in all_models.items() if _reads_the_same_rows(model, teacher)}
    measured = _measure(beside_teacher, split, **options) if teacher else {}
    tokenizers = [model.tokenizer for model in all_models.values() if isinstance(model, TextModel)]
    alike = teacher is None or all(cuts_alike(one, teacher.tokenizer) for one in tokenizers)
    for number, (role, value) in enumerate(contenders.items()):
        model = all_models[role]
        if role in measured:
            found, near = measured[role]
        elif isinstance(model, TextModel):
            found, near = text_losses(model, split, **options), None
            if teacher is not None and cuts_alike(model.tokenizer, teacher.tokenizer):
                near = closeness(model, teacher, split, **options)
        else:
            found, near = model.text_losses(split), None
        result = _result(role, as_contender(value), split.name, found, near)
        if model is teacher and not alike:
            result = dataclasses.replace(result, metrics={"bits_per_byte": result.metrics["bits_per_byte"]})
        results.append(result)
        columns[f"{role}/bits"] = (found.nats / math.log(2)).round(3).tolist()
        context.progress(number + 1, len(contenders))
    return Evaluation(results, columns)


def _reads_the_same_rows(model: Any, teacher: TextModel | None) -> bool:
    """Whether a text makes the same rows for both; a teacher's own rows do."""
    if teacher is None or not isinstance(model, TextModel):
        return False
    one, two = ((tokenizer_sha256(m.tokenizer), text_edges(m.tokenizer), m.max_length) for m in (model, teacher))
    return one == two


def evaluate_rows(
    contenders: Contenders, rows: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> Evaluation:
    """Perplexity per target and accuracy of the next token of each role, on rows as they were cut.

    Where there is a `teacher`, the others are compared with it too, target by target.

    Args:
        contenders: Language models of one tokenizer by role.
        rows: Of `data.cut_completions`, or of `data.cut_into_rows`.
        compute: Device, number format and size of a pass.
        context: Of the run.
    """
    language_models = {role: as_contender(value).model for role, value in contenders.items()}
    sums = _sums_of_rows(language_models, rows, compute or models.choose_compute(), context)
    results = []
    for role, value in contenders.items():
        near = _closeness_of(sums[role]) if "teacher" in sums and role != "teacher" else None
        results.append(_result(role, as_contender(value), rows.name, _text_losses_of(sums[role], None), near))
    return Evaluation(results)


def _result(
    role: str, contender: Contender, split_name: str, found: TextLosses, near: "Closeness | None"
) -> records.Result:
    result = plain_result(role, contender, split_name, found.metrics())
    if near is None:
        return result
    return dataclasses.replace(result, metrics={**result.metrics, "kl_from_teacher": near.kl}, agreement=near.agreement)


def together(one: Sequence[records.Result], two: Sequence[records.Result]) -> list[records.Result]:
    """Results of two evaluations as one, the metrics of the first coming first; the second may lack a role."""
    others = {result.role: result for result in two}
    return [_joined(result, others[result.role]) if result.role in others else result for result in one]


def _joined(one: records.Result, two: records.Result) -> records.Result:
    agreement = two.agreement if one.agreement is None else one.agreement
    return dataclasses.replace(one, metrics={**one.metrics, **two.metrics}, agreement=agreement)


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
        parts = (nats, np.ones(len(ids)), right)
        return _text_losses_of([np.bincount(owners, part, minlength=len(split)) for part in parts], split)

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
    return _measure({"model": model}, split, stride=stride, compute=compute, context=context)["model"][0]


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
    sums = _sums_of_rows({"model": model}, rows, compute or models.choose_compute(), context)["model"]
    return _text_losses_of(sums, None)


def validation_of_texts(
    split: Split, *, stride: int | None = None, compute: Compute
) -> Callable[[TextModel], dict[str, float]]:
    """For `fit`: bits per byte of a split, negative so that more is better. Args: As `text_losses`."""

    def validate(model: TextModel) -> dict[str, float]:
        found = text_losses(model, split, stride=stride, compute=compute).metrics()["bits_per_byte"]
        return {"minus_bits_per_byte": -found.value}

    return validate


def validation_of_rows(rows: Split, *, compute: Compute) -> Callable[[TextModel], dict[str, float]]:
    """For `fit`: perplexity of rows, negative so that more is better. Args: As `row_losses`."""

    def validate(model: TextModel) -> dict[str, float]:
        return {"minus_perplexity": -row_losses(model, rows, compute=compute).metrics()["perplexity"].value}

    return validate


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
    """Compare two language models of one tokenizer token by token, over the ids that both have.

    Args:
        student: A language model.
        teacher: Another one.
        split: Texts.
        stride: See `text_losses`.
        compute: Device, number format and size of a pass; chosen for this machine if None.
        context: Counts the work and may ask to stop.

    Raises: InputError if their tokenizers differ (see `data.splits.cuts_alike`).
    """
    if not cuts_alike(student.tokenizer, teacher.tokenizer):
        raise InputError("student and teacher should have one tokenizer to be compared by token, found two")
    options: dict[str, Any] = {"stride": stride, "compute": compute, "context": context}
    both = {"student": student, "teacher": teacher}  # rows are those of the first
    length = min(student.max_length, teacher.max_length)
    near = _measure(both, split, max_length=length, **options)["student"][1]
    assert near is not None
    return near


# One pass over texts


_NATS, _TOKENS, _RIGHT, _SAME, _KL = range(5)
"""What is summed over the targets of a row or text: see `TextLosses` and `Closeness`."""


def usual_stride(max_length: int) -> int:
    """Tokens by which a row moves on in a long text, where nothing else is asked for: half of it."""
    return max_length // 2


def stride_of(model: TextModel, stride: int | None) -> int:
    """The stride that `text_losses` takes for a model."""
    return stride or usual_stride(model.max_length)


def require_stride(model: TextModel, stride: int | None) -> None:
    """Refuse a stride that the rows of a model have no room for, before anything is paid for.

    Raises: InputError.
    """
    require(0 < stride_of(model, stride) < model.max_length, "stride", f"in 1 … {model.max_length - 1}", stride)


def stride_sentence(model: TextModel, stride: int | None) -> str:
    """How bits per byte of a model came about, for the limits of a record."""
    length, step = model.max_length, stride_of(model, stride)
    return (
        f"Bits per byte are those of rows of {length} tokens that move on by {step}: each token has at least "
        f"{length - step} before it, but for a text's first."
    )


def _measure(
    language_models: Mapping[str, TextModel],
    split: Split,
    *,
    max_length: int | None = None,
    stride: int | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> dict[str, tuple[TextLosses, Closeness | None]]:
    """What each model makes of each text, and how near it is to `teacher` where there is one; rows are the first's."""
    first = next(iter(language_models.values()))
    length = max_length or first.max_length
    rows = cut_into_rows(split, first.tokenizer, max_length=length, stride=stride or usual_stride(length))
    text_of_row = _texts_of_rows(rows, split)
    sums_of_rows = _sums_of_rows(language_models, rows, compute or models.choose_compute(), context)
    measured: dict[str, tuple[TextLosses, Closeness | None]] = {}
    for role, of_rows in sums_of_rows.items():
        sums = [np.bincount(text_of_row, part, minlength=len(split)) for part in of_rows]
        near = _closeness_of(sums) if "teacher" in language_models and role != "teacher" else None
        measured[role] = _text_losses_of(sums, split), near
    return measured


def _sums_of_rows(
    language_models: Mapping[str, TextModel], rows: Split, compute: Compute, context: Context
) -> dict[str, npt.NDArray[np.float64]]:
    """Shape (5, num_rows) for each model; in a trial, those of some rows stand for all."""
    trial = trials.current()
    if trial is None:
        return _sums_of_all(language_models, rows, compute, context)
    parts = [
        _sums_of_all(language_models, rows.take(places), compute, context)
        for places in models.passes_in_part(trial, rows.require_tokens(), compute)
    ]
    of_role = {role: np.concatenate([part[role] for part in parts], 1) for role in language_models}
    return {role: np.resize(sums.T, (len(rows), 5)).T for role, sums in of_role.items()}


def _sums_of_all(
    language_models: Mapping[str, TextModel], rows: Split, compute: Compute, context: Context
) -> dict[str, npt.NDArray[np.float64]]:
    """Shape (5, num_rows) for each model; they go through the rows side by side, so that none has to go twice."""
    networks = {role: _placed(model, compute) for role, model in language_models.items()}
    passes = [models.forward_targets(network, rows, compute=compute, context=context) for network in networks.values()]
    sums = {role: np.zeros((5, len(rows))) for role in networks}
    teacher = networks.get("teacher")
    for of_all in zip(*passes, strict=True):
        parts = dict(zip(networks, of_all, strict=True))
        for role, (indices, batch, states, labels) in parts.items():
            told = None
            if teacher is not None and role != "teacher":
                told = _Told(teacher.output_layer, parts["teacher"][2])
            values = _of_targets(networks[role].output_layer, states, labels, told, compute)
            owners = np.repeat(indices, batch.is_target[:, 1:].sum(1).numpy())
            for total, part in zip(sums[role], values, strict=True):
                np.add.at(total, owners, part)
    return sums


def _placed(model: TextModel, compute: Compute) -> LanguageModel:
    network = compute.place(model.model).eval()
    assert isinstance(network, LanguageModel), "losses of texts need a language model"
    return network


@dataclass(frozen=True)
class _Told:
    """What a teacher says about some targets."""

    layer: losses.OutputLayer
    states: Tensor


def _of_targets(
    layer: losses.OutputLayer, states: Tensor, labels: Tensor, told: _Told | None, compute: Compute
) -> npt.NDArray[np.float64]:
    """Shape (5, num_targets); nothing is the same as a teacher's, and nothing far from it, where there is none."""
    found = torch.zeros(5, len(labels), device=labels.device)
    found[_TOKENS] = 1
    num_classes = len(layer.weight) if told is None else min(len(layer.weight), len(told.layer.weight))

    def cross_entropy(logits: Tensor, rows: slice) -> Tensor:
        found[_RIGHT, rows] = (logits.argmax(-1) == labels[rows]).float()
        if told is not None:
            own, teachers = logits[:, :num_classes], told.layer.cut(num_classes)(told.states[rows])
            found[_SAME, rows] = (own.argmax(-1) == teachers.argmax(-1)).float()
            found[_KL, rows] = losses.kl_divergence(own, teachers, temperature=1.0)
        return losses.cross_entropy(logits, labels[rows])

    with torch.no_grad(), compute.autocast():
        found[_NATS] = losses.by_chunks(states, layer, cross_entropy)
    return found.double().cpu().numpy()


def _text_losses_of(sums: Sums, split: Split | None) -> TextLosses:
    """Of the texts of a split, or of rows whose bytes are not known."""
    num_tokens, num_right = (sums[i].astype(np.int64) for i in (_TOKENS, _RIGHT))
    return TextLosses(sums[_NATS], num_tokens, num_right, None if split is None else _num_bytes(split))


def _closeness_of(sums: Sums) -> Closeness:
    return Closeness(*(metrics.ratio_with_interval(sums[i], sums[_TOKENS]) for i in (_SAME, _KL)))


def _num_bytes(split: Split) -> npt.NDArray[np.int64]:
    return np.array([len(text.encode(errors="replace")) for text in split.texts], dtype=np.int64)


def _texts_of_rows(rows: Split, split: Split) -> npt.NDArray[np.int64]:
    """Index of the text that each row is a part of."""
    is_first = np.array([name.endswith(":0") for name in rows.ids], dtype=bool)
    found = np.cumsum(is_first) - 1
    assert int(found[-1]) + 1 == len(split), "every text makes a row"
    return found
