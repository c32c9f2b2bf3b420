"""Losses of language models: no tensor ever holds the logits of all targets, and a stored signal holds few per target.

A teacher's stored signal is, per target, its k most likely tokens and the mass of all others. Both sides are then
compared in buckets: one for each of these tokens, and the tail, which holds the rest. With k the whole vocabulary this
is the full divergence.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor

from smallmodels import shapes
from smallmodels.errors import InputError, require
from smallmodels.losses.classes import Divergence, cross_entropy
from smallmodels.losses.inputs import (
    at_places,
    autocast_dtype,
    check_labels,
    check_matrix,
    full_precision,
    may_look,
    places_in,
    widened,
)

_CHUNK_BYTES = 32 * 2**20
"""Of float32 logits at once: they stay in the cache of a processor, and are enough rows for a fast product."""

_ROWS = (32, 4096)
"""Targets of a chunk, at least and at most."""

_TOGETHER_BYTES = 64 * 2**20
"""Of logits, in the number format, that one product makes, and of their gradients, which take their place until the
weight's gradient takes them at once: each time it does, all of it goes through memory, which costs more than the
product where there are few rows."""

_PRODUCT_ROWS = 256
"""Rows of one product with the whole weight that a processor is fast at."""


# Which positions predict what


def next_tokens(hidden_states: Tensor, input_ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states that predict a target, and the targets: shift and mask in one place.

    Args:
        hidden_states: Shape (num_rows, num_positions, num_dimensions), of the last layer.
        input_ids: Shape (num_rows, num_positions).
        targets: Tokens that the model shall predict: their places in the rows laid end to end, (num_targets,), int64
            (`Batch.targets`), or a mask of the shape of `input_ids`, which is read, and a GPU waited for. The first
            token of a row cannot be one, and is left out of a mask; nor should be the first of any example in a packed
            row.

    Returns:
        Shapes (num_targets, num_dimensions) and (num_targets,); state t - 1 belongs to token t.

    Raises:
        InputError: A ValueError; shapes do not fit, there is no target, or the first token of a row is among the places
            (not looked for on a GPU).
    """
    shape, are_places = hidden_states.shape[:2], targets.ndim == 1 and targets.dtype == torch.int64
    if input_ids.shape != shape or not (are_places or targets.shape == shape):
        raise InputError(
            f"input_ids, and targets if they are no places, should have shape {tuple(shape)}, like hidden_states, "
            f"got {tuple(input_ids.shape)} and {tuple(targets.shape)}: pass the tensors of one batch"
        )
    states, labels = shifted(hidden_states, input_ids, targets)
    if not len(labels):
        raise InputError("a batch should have tokens to predict, found none: keep longer completions (--max-length)")
    return states, labels


def shifted(hidden_states: Tensor, input_ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`next_tokens` of tensors that fit, of which there may be no target."""
    if targets.ndim > 1:
        targets = places_in(F.pad(targets[:, 1:], (1, 0)))
    elif may_look(targets) and bool((targets % input_ids.shape[1] == 0).any()):
        raise InputError(
            "each target should have a token before it, but the first of a row is one: leave it out of the targets"
        )
    return at_places(hidden_states, targets - 1), at_places(input_ids, targets)


# Chunks of targets


@dataclass(frozen=True)
class OutputLayer:
    """What makes logits of hidden states: a product, and in some families what is done to it."""

    weight: Tensor
    """Shape (vocabulary, num_dimensions)."""
    bias: Tensor | None = None
    """Shape (vocabulary,)."""
    scale: float = 1.0
    """Logits are multiplied by it: Cohere, Granite."""
    softcap: float | None = None
    """Logits are bent to stay below it: Gemma 2. Comes after the scale."""

    def cut(self, num_classes: int) -> "OutputLayer":
        """The first rows alone: ids that two models of one family, with different padding, both really have."""
        bias = None if self.bias is None else self.bias[:num_classes]
        return replace(self, weight=self.weight[:num_classes], bias=bias)

    def to(self, dtype: torch.dtype) -> "OutputLayer":
        """The same in a number format, for many products without gradients; their results are widened as ever."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))

    def finish(self, logits: Tensor) -> Tensor:
        """Scale and bend a product."""
        scaled = logits if self.scale == 1.0 else logits * self.scale
        return scaled if self.softcap is None else self.softcap * (scaled / self.softcap).tanh()

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """Logits, (num_targets, vocabulary), float32: of a few targets."""
        return self.finish(widened(F.linear(hidden_states.to(self.weight.dtype), self.weight, self.bias)))


def by_chunks(hidden_states: Tensor, layer: OutputLayer, loss_of_logits: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Apply the output layer and a loss to a few targets at a time; gradients are made there too, and logits dropped.

    The gradient of the layer's weights is exact for any sum or mean of the values. Where they are weighted one by
    one, everything is computed once more in the backward pass.

    Args:
        hidden_states: Shape (num_targets, num_dimensions).
        layer: Makes the logits.
        loss_of_logits: Is given logits, (some targets, vocabulary), and which targets they are; gives one value for
            each. It must not touch other tensors that need a gradient, nor keep the logits: their gradients take their
            place.

    Returns:
        Shape (num_targets,), float32.
    """
    check_matrix("hidden_states", hidden_states, "num_targets, num_dimensions")

    def finished(logits: Tensor, rows: slice) -> Tensor:
        return loss_of_logits(layer.finish(logits), rows)

    inputs = hidden_states, layer.weight, layer.bias
    if not torch.is_grad_enabled():
        return _pass(finished, *inputs, (False, False, False), autocast_dtype(hidden_states), None)[0]
    values: Tensor = _ByChunks.apply(finished, *inputs)  # type: ignore[no-untyped-call]
    return values


def next_token_cross_entropy(hidden_states: Tensor, input_ids: Tensor, targets: Tensor, layer: OutputLayer) -> Tensor:
    """Cross-entropy of each target with the state before it, a few targets at a time.

    Args:
        hidden_states: As for `next_tokens`, like the two that follow.
        input_ids: Shape (num_rows, num_positions).
        targets: Places, or a mask.
        layer: Makes the logits.

    Returns:
        Shape (num_targets,), in nats, float32.

    Raises:
        InputError: As `next_tokens`.
    """
    states, labels = next_tokens(hidden_states, input_ids, targets)
    return by_chunks(states, layer, lambda logits, chunk: cross_entropy(logits, labels[chunk]))


def next_token_loss(model: Any, batch: Any) -> Tensor:
    """`next_token_cross_entropy` of a batch, by which a language model learns from texts alone.

    Args:
        model: A `models.LanguageModel`.
        batch: A `data.Batch` with targets.

    Returns:
        Shape (num_targets,), in nats, float32.
    """
    states, ids = model(**batch.inputs), batch.inputs["input_ids"]
    return next_token_cross_entropy(states, ids, batch.targets, model.output_layer)


class _ByChunks(torch.autograd.Function):
    """`by_chunks` with a gradient that is ready before it is asked for."""

    @staticmethod
    def forward(
        ctx: Any, loss_of_logits: Callable[[Tensor, slice], Tensor], hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.loss_of_logits, ctx.has_bias = loss_of_logits, bias is not None
        ctx.needs = ctx.needs_input_grad[1:]
        ctx.autocast_dtype = autocast_dtype(hidden)
        ctx.save_for_backward(hidden, weight, *([] if bias is None else [bias]))
        values, ctx.gradients = _pass(loss_of_logits, hidden, weight, bias, ctx.needs, ctx.autocast_dtype, None)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = upstream
        hidden, weight, *rest = ctx.saved_tensors
        common = _common(weights)
        if common is not None:
            gradients = ctx.gradients
            if not may_look(common) or bool(common != 1):  # to multiply by one costs a processor more than a look
                gradients = [None if g is None else g.mul_(common.to(g.dtype)) for g in gradients]
        else:
            bias = rest[0] if ctx.has_bias else None
            _, gradients = _pass(ctx.loss_of_logits, hidden, weight, bias, ctx.needs, ctx.autocast_dtype, weights)
        ctx.gradients = None  # they are large
        return None, *gradients


def _common(weights: Tensor) -> Tensor | None:
    """The one weight that all targets have, without dimensions; None if they differ.

    What a plain sum of the values gives is one number, seen at each place: no value is read to know that. Others are
    read, which a GPU is waited for: that costs it less than to compute everything once more.
    """
    if len(weights) and weights.stride() == (0,):
        return weights[0]
    low, high = torch.aminmax(weights)
    return low if bool(low == high) else None


def _pass(
    loss_of_logits: Callable[[Tensor, slice], Tensor],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    needs: Sequence[bool],
    dtype: torch.dtype | None,
    weights_of_targets: Tensor | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """Values of all targets, and gradients of their (weighted) sum for hidden states, weight and bias."""
    needs_any, of_hidden, of_weight, of_bias = any(needs), None, None, None
    with full_precision(hidden), torch.no_grad():
        used_hidden, used_weight = (hidden, weight) if dtype is None else (hidden.to(dtype), weight.to(dtype))
        values = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        if needs[0]:
            of_hidden = torch.empty_like(hidden, dtype=torch.float32)
        if needs[2] and bias is not None:
            of_bias = torch.zeros_like(bias, dtype=torch.float32)
        at_once, together = _sizes(used_weight)
        for group in _parts(slice(0, len(hidden)), together):
            padded, num_rows = _padded(used_hidden[group], together), group.stop - group.start
            logits = F.linear(padded, used_weight)  # their gradients take their place as soon as these are known
            logits[num_rows:] = 0
            for rows in _parts(group, at_once):
                within = logits[rows.start - group.start : rows.stop - group.start]
                wide = widened(within) if bias is None else widened(within).add_(bias)
                part = wide.requires_grad_(needs_any)
                with torch.set_grad_enabled(needs_any):
                    found = loss_of_logits(part, rows)
                values[rows] = found.detach()
                if not needs_any:
                    continue
                above = torch.ones_like(found) if weights_of_targets is None else weights_of_targets[rows]
                (slope,) = torch.autograd.grad(found, part, above)
                if of_bias is not None:
                    of_bias += slope.sum(0)
                within.detach().copy_(slope)
            if of_hidden is not None:
                of_hidden[group] = _product(logits, used_weight)[:num_rows]
            if needs[1]:
                of_weight = _added(of_weight, logits.T, padded)
    made = zip((of_hidden, of_weight, of_bias), (hidden, weight, bias), strict=True)
    return values, [None if g is None or source is None else g.to(source.dtype) for g, source in made]


def _added(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """A float32 total with a product added, which is never summed in half precision; None is a total of nothing yet."""
    if total is None:
        return (left @ right).to(torch.float32)
    return total.addmm_(left, right) if left.dtype == total.dtype else total.add_(left @ right)


def _padded(hidden: Tensor, most: int) -> Tensor:
    """Rows of zeros after these, up to one of few numbers of rows: oneDNN makes machine code for each shape.

    Nearly every step has another number of targets; with a vocabulary of 30,000 a new one takes a fifth of its time.
    """
    num_spare = min(most, shapes.one_of_few(len(hidden))) - len(hidden) if hidden.device.type == "cpu" else 0
    return F.pad(hidden, (0, 0, 0, num_spare)) if num_spare else hidden


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Of many rows and columns with a tall matrix; on a processor piece by piece, in two thirds of the time."""
    rows = torch.split(left, _PRODUCT_ROWS if left.device.type == "cpu" else max(1, len(left)))
    return torch.cat([part @ right for part in rows])


def _sizes(weight: Tensor) -> tuple[int, int]:
    """Targets whose logits are widened at once, and targets whose logits one product makes."""
    least, most = _ROWS
    at_once = min(most, max(least, _CHUNK_BYTES // (4 * len(weight))))
    return at_once, at_once * max(1, _TOGETHER_BYTES // (weight.element_size() * len(weight) * at_once))


def _parts(rows: slice, size: int) -> Iterator[slice]:
    """So many rows at a time."""
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


# A teacher's k most likely tokens


@dataclass(frozen=True)
class TopK:
    """What a teacher says about each target: its k most likely tokens, and the rest as a whole."""

    ids: Tensor
    """Shape (num_targets, k), int64."""
    log_probs: Tensor
    """Shape (num_targets, k): log-probabilities of these tokens at temperature 1."""
    tails: Tensor
    """Shape (num_targets, num_temperatures): logarithm of the sum of p^(1/temperature) over all other tokens."""
    temperatures: tuple[float, ...]
    """Of the tails."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "TopK":
        return TopK(self.ids[rows], self.log_probs[rows], self.tails[rows], self.temperatures)

    def map(self, function: Callable[[Tensor], Tensor]) -> "TopK":
        """The same with each tensor put through a function, such as one that moves it to a device."""
        return TopK(function(self.ids), function(self.log_probs), function(self.tails), self.temperatures)

    @property
    def is_told(self) -> Tensor:
        """Shape (num_targets,), bool: whether the teacher says anything; else all its log-probabilities are -∞.

        A target has no word of a teacher that cuts the text elsewhere (see `teachers.PairedSignals`).
        """
        return self.log_probs[:, 0].isfinite()

    def buckets(self, temperature: float) -> Tensor:
        """Logits of the k tokens and, last, of the tail, softened by a temperature; shape (num_targets, k + 1).

        Raises: InputError if the tail at this temperature was not stored: it does not follow from that at another.
        """
        if temperature not in self.temperatures:
            stored = ", ".join(f"{value:g}" for value in self.temperatures)
            raise InputError(
                f"temperature must be one that the signal was stored for ({stored}), got {temperature:g}: "
                "choose one of these, or store the signal again for this one"
            )
        tail = self.tails[:, self.temperatures.index(temperature)]
        return torch.cat([widened(self.log_probs) / temperature, widened(tail)[:, None]], dim=1)


def top_k(logits: Tensor, k: int, temperatures: Sequence[float] = (1.0,)) -> TopK:
    """The k most likely tokens of each target, and the tails at these temperatures.

    Args:
        logits: Shape (num_targets, vocabulary).
        k: Tokens to keep, at most the whole vocabulary.
        temperatures: For which losses will be computed.

    Raises:
        InputError: A ValueError; k or a temperature is out of range.
    """
    check_matrix("logits", logits, "num_targets, vocabulary")
    require(1 <= k <= logits.shape[1], "k", f"in 1 … {logits.shape[1]}, the size of the vocabulary", k)
    for temperature in temperatures:
        require(temperature > 0, "temperature", "> 0", float(temperature))
    with full_precision(logits), torch.no_grad():
        wide = widened(logits)
        largest, ids = _largest(wide, min(k + 1, wide.shape[1]))
        kept, ids = largest[:, :k], ids[:, :k]
        # No other logit is above the last of these, so exponentials neither overflow nor all vanish in the tail.
        bound = largest[:, -1:].clamp(min=torch.finfo(wide.dtype).min)
        sums = {temperature: _tail(wide, ids, bound, temperature)[1] for temperature in {1.0, *temperatures}}
        tails = {temperature: found.log() + bound / temperature for temperature, found in sums.items()}
        total = torch.logaddexp(kept.logsumexp(-1, keepdim=True), tails[1.0])
        softened = [tails[temperature] - total / temperature for temperature in temperatures]
    return TopK(ids, kept - total, torch.cat(softened, dim=1), tuple(map(float, temperatures)))


_BLOCK = 64
"""Neighbours of which only the largest is looked at first, in `_largest`."""


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`topk` of rows, in falling order: a processor sorts whole rows for it, so it is given few blocks of them instead.

    The k largest values lie in those k blocks whose largest ones are the largest.
    """
    num_blocks = values.shape[1] // _BLOCK
    if num_blocks < 4 * k:
        plain = values.topk(k, dim=-1)
        return plain.values, plain.indices
    whole = num_blocks * _BLOCK
    blocks = values[:, :whole].view(-1, num_blocks, _BLOCK).amax(-1).topk(k, dim=-1, sorted=False).indices
    within = torch.arange(_BLOCK, device=values.device)
    rest = torch.arange(whole, values.shape[1], device=values.device).expand(len(values), -1)
    places = torch.cat([(blocks[:, :, None] * _BLOCK + within).flatten(1), rest], dim=1)
    largest, chosen = values.gather(1, places).topk(k, dim=-1)
    return largest, places.gather(1, chosen)


def top_k_by_chunks(
    hidden_states: Tensor, layer: OutputLayer, k: int, temperatures: Sequence[float] = (1.0,)
) -> Iterator[TopK]:
    """`top_k` of a teacher's hidden states, (num_targets, num_dimensions), a few targets at a time; no gradients."""
    with torch.no_grad():
        for rows in _parts(slice(0, len(hidden_states)), _sizes(layer.weight)[0]):
            yield top_k(layer(hidden_states[rows]), k, temperatures)


def top_k_log_probs(logits: Tensor, ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Softened log-probabilities of a few tokens per target, and of all others together.

    The tail is summed over its tokens, not taken as what is missing to 1, so it is exact where it is small.

    Args:
        logits: Shape (num_targets, vocabulary).
        ids: Shape (num_targets, k), int64; different ones in a row.
        temperature: > 0.

    Returns:
        Shape (num_targets, k + 1), the tail last; minus infinity for a tail without tokens.
    """
    check_matrix("logits", logits, "num_targets, vocabulary")
    require(temperature > 0, "temperature", "> 0", float(temperature))
    return _buckets(logits, ids, temperature).log_softmax(-1)


def _buckets(logits: Tensor, ids: Tensor, temperature: float, labels: Tensor | None = None) -> Tensor:
    """Softened logits of k tokens and of the tail, as `top_k_log_probs` normalises them; then those of labels.

    Shape (num_targets, k + 1), or with labels, (num_targets,), one more column.
    """
    places = ids if labels is None else torch.cat([ids, labels[:, None]], dim=1)
    with full_precision(logits):
        found: Tensor = _Buckets.apply(widened(logits), places, ids.shape[1], float(temperature))  # type: ignore[no-untyped-call]
    return found


class _Buckets(torch.autograd.Function):
    """`_buckets`; one tensor of the logits' shape holds all that the gradient needs, and becomes it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, places: Tensor, k: int, temperature: float) -> Tensor:
        # Each line over the whole vocabulary is a way through memory, which is what this costs.
        ids, labels = places[:, :k], places[:, k:]
        shift, is_faint = logits.amax(-1, keepdim=True), True
        if may_look(logits):
            weights, tail = _tail(logits, ids, shift, temperature)
            is_faint = bool((tail < _FAINT).any())
        if is_faint:  # nearly all mass is in the top, or nobody may look: what counts is the tail's own largest logit
            shift = logits.scatter(1, ids, float("-inf")).amax(-1, keepdim=True)
            shift = shift.clamp_(min=torch.finfo(logits.dtype).min)  # there may be no tail
            weights, tail = _tail(logits, ids, shift, temperature)
        ctx.save_for_backward(weights, places, tail)
        ctx.k, ctx.temperature = k, temperature
        top, of_labels = torch.split(logits.gather(1, places), [k, labels.shape[1]], dim=1)
        return torch.cat([top / temperature, tail.log() + shift / temperature, of_labels], dim=1)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        weights, places, tail = ctx.saved_tensors
        of_top, of_tail, of_labels = torch.split(upstream[0], [ctx.k, 1, places.shape[1] - ctx.k], dim=1)
        of_others = torch.where(tail > 0, of_tail / tail, 0.0) / ctx.temperature
        gradient = weights.mul_(of_others).scatter_(1, places[:, : ctx.k], of_top / ctx.temperature)
        return gradient.scatter_add_(1, places[:, ctx.k :], of_labels), None, None, None


_FAINT = 1e-20
"""Sum of a tail, the largest logit counting as 1, below which its exponentials begin to vanish."""


def _tail(logits: Tensor, ids: Tensor, shift: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """exp((logit - shift) / temperature) of all tokens but these, which get 0, and the sum of each row."""
    weights = logits - shift
    weights = (weights if temperature == 1 else weights.div_(temperature)).exp_().scatter_(1, ids, 0.0)
    return weights, weights.sum(-1, keepdim=True)


def top_k_divergence(student_logits: Tensor, teacher: TopK, divergence: Divergence, *, temperature: float) -> Tensor:
    """A divergence between student and stored teacher over the k tokens and the tail, times temperature squared.

    Args:
        student_logits: Shape (num_targets, vocabulary).
        teacher: Of the same targets.
        divergence: Of `losses`: `kl_divergence`, or a `functools.partial` of one with its own settings.
        temperature: One of `teacher.temperatures`.

    Returns:
        Shape (num_targets,), ≥ 0, at most the divergence over the whole vocabulary, and equal to it for k = vocabulary.

    Raises:
        InputError: A ValueError; the temperature was not stored, or an id is not in the student's vocabulary.
    """
    _require_known_ids(student_logits, teacher)
    student = _buckets(student_logits, teacher.ids, temperature)
    return divergence(student, teacher.buckets(temperature), temperature=1.0) * temperature**2


def top_k_distillation_loss(
    student_logits: Tensor,
    teacher: TopK,
    labels: Tensor,
    divergence: Divergence,
    *,
    temperature: float,
    soft_weight: float,
) -> Tensor:
    """soft_weight · `top_k_divergence` + (1 - soft_weight) · `cross_entropy`.

    At temperature 1 both are made of the same sums, so that cross-entropy costs no further way through the logits.

    Args:
        student_logits: Shape (num_targets, vocabulary).
        teacher: Of the same targets.
        labels: The right tokens, (num_targets,), int64.
        divergence: As for `top_k_divergence`.
        temperature: One of `teacher.temperatures`; cross-entropy is not softened.
        soft_weight: In [0, 1].

    Returns:
        Shape (num_targets,).

    Raises:
        InputError: As `top_k_divergence`.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    if temperature == 1:
        _require_known_ids(student_logits, teacher)
        check_labels(labels, student_logits.shape[1])
        student, of_labels = _buckets(student_logits, teacher.ids, 1.0, labels).tensor_split([-1], dim=1)
        soft = divergence(student, teacher.buckets(1.0), temperature=1.0)
        hard = student.logsumexp(-1) - of_labels.squeeze(1)
    else:
        soft = top_k_divergence(student_logits, teacher, divergence, temperature=temperature)
        hard = cross_entropy(student_logits, labels)
    return soft_weight * soft + (1 - soft_weight) * hard


def _require_known_ids(student_logits: Tensor, teacher: TopK) -> None:
    if may_look(teacher.ids) and teacher.ids.numel() and int(teacher.ids.max()) >= student_logits.shape[1]:
        raise InputError(
            f"the teacher's ids must be in [0, {student_logits.shape[1]}), the student's vocabulary, got "
            f"{int(teacher.ids.max())}: cut the teacher's logits to the ids that both models have before storing them"
        )


def top_k_universal_logit_distance(student_logits: Tensor, teacher: TopK) -> Tensor:
    """`universal_logit_distance` to a stored teacher: the k largest probabilities one by one, all others as one.

    Args:
        student_logits: Shape (num_targets, student's vocabulary).
        teacher: Of positions that belong to the student's; where it says nothing (`TopK.is_told`), the distance is 0.

    Returns:
        Shape (num_targets,), in [0, 2]: at most the distance over both whole vocabularies, because what cancels within
        the tail is not seen, and equal to it where k is the teacher's whole vocabulary.
    """
    check_matrix("student_logits", student_logits, "num_targets, student's vocabulary")
    is_told = teacher.is_told
    told = torch.where(is_told[:, None], teacher.buckets(1.0), 0.0).softmax(-1)
    k, own_k = teacher.ids.shape[1], min(teacher.ids.shape[1], student_logits.shape[1])
    largest = student_logits.detach().topk(own_k, dim=-1).indices  # in falling order, as the teacher's
    own = top_k_log_probs(student_logits, largest).exp()
    missing = own.new_zeros(len(own), k - own_k)  # tokens that the smaller vocabulary lacks
    differences = torch.cat([own[:, :-1], missing, own[:, -1:]], dim=1) - told.to(own.dtype)
    return torch.where(is_told, differences.abs().sum(-1), 0.0)
