"""Layers of Llama-like language models that go through memory less often: fewer and larger operations on a processor.

What transformers computes in some twenty small operations for a norm, a feed-forward part or an attention is one
function with its own gradient here: linear parts that read the same input are one product, queries and keys are turned
together, and what products read is written in their number format. States and gradients are those of transformers up to
the rounding of that format.

Source: the layers of transformers; Liger-Kernel (Hsu et al. 2024, arXiv:2410.10989) joins the same ones for GPUs.
Legend: D dimensions.
"""

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smallmodels.losses.inputs import autocast_dtype, full_precision, widened

_FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Of transformers: their layers hold a norm, an attention, a norm and a gated part with SiLU. Attention with biases
(Qwen2) or norms of its own (Qwen3) stays as it is."""

_FEW_TOKENS = 64
"""Up to so many, to join weights would take longer than the product, as where a text is written token by token."""


def fuse(model: nn.Module) -> None:
    """Let the layers of a language model compute with fewer operations, if its family is known here.

    Attention that is asked for its weights or keeps keys and values, and linear parts within adapters, are computed as
    ever. What is fused already stays so.

    Args:
        model: Any; weights and their names stay as they are.
    """
    for layer in model.modules():
        family = type(layer).__name__.removesuffix("DecoderLayer")
        if family not in _FAMILIES:
            continue
        for name, (kind, forward) in _PARTS.items():
            part = getattr(layer, name)
            is_known = type(part).__name__ == family + kind and not hasattr(part, "q_norm")
            if is_known and "forward" not in vars(part):
                part.forward = types.MethodType(forward, part)


# What stands in place of the parts' own


def _norm_forward(norm: Any, hidden: Tensor) -> Tensor:
    """In the number format of the products that read it."""
    normed: Tensor = _Norm.apply(hidden, norm.weight, norm.variance_epsilon, _number_format(hidden))  # type: ignore[no-untyped-call]
    return normed


def _gated_forward(part: Any, hidden: Tensor) -> Tensor:
    own = part.gate_proj, part.up_proj
    if not (_can_join(own, hidden) and part.config.hidden_act == "silu"):
        plain: Tensor = type(part).forward(part, hidden)
        return plain
    down: Tensor = part.down_proj(_Gate.apply(_joined(hidden, own)))  # type: ignore[no-untyped-call]
    return down


def _attention_forward(
    attention: Any, hidden_states: Tensor, position_embeddings: Any = None, attention_mask: Any = None, **options: Any
) -> Any:
    config, own = attention.config, (attention.q_proj, attention.k_proj, attention.v_proj)
    asks_more = options.get("past_key_values") is not None or options.get("output_attentions")
    asks_more = asks_more or getattr(config, "output_attentions", False) or attention._forward_hooks
    is_eager, drops = config._attn_implementation == "eager", attention.training and attention.attention_dropout > 0
    if asks_more or drops or not is_eager or not _can_join(own, hidden_states):
        options |= {"position_embeddings": position_embeddings, "attention_mask": attention_mask}
        return type(attention).forward(attention, hidden_states, **options)
    joined = _joined(hidden_states, own)
    cos, sin = (part.to(joined.dtype)[:, None] for part in position_embeddings)
    if attention_mask is not None:  # a score added to the lowest number of a narrow format would be minus infinity
        attention_mask = attention_mask.clamp(min=torch.finfo(joined.dtype).min / 2).to(joined.dtype)
    heads = config.num_attention_heads, config.num_key_value_heads
    mixed = _Attention.apply(joined, cos, sin, attention_mask, *heads, attention.scaling)  # type: ignore[no-untyped-call]
    return attention.o_proj(mixed), None


_PARTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "input_layernorm": ("RMSNorm", _norm_forward),
    "post_attention_layernorm": ("RMSNorm", _norm_forward),
    "self_attn": ("Attention", _attention_forward),
    "mlp": ("MLP", _gated_forward),
}
"""Of a layer: what each is called after the family, and what stands in place of its `forward`."""


def _can_join(layers: tuple[Any, ...], hidden: Tensor) -> bool:
    """Whether one product can stand for these parts, and nobody looks at what each of them gives."""
    plain: Any = nn.Linear  # what adapters and quantisation put in its place derives from it
    is_long = hidden.shape[-2] > 1 and hidden[..., 0].numel() > _FEW_TOKENS
    return is_long and all(type(one) is plain and one.bias is None and not _is_watched(one) for one in layers)


def _is_watched(part: Any) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or "forward" in vars(part))


def _joined(hidden: Tensor, layers: tuple[Any, ...]) -> Tensor:
    joined: Tensor = _Joined.apply(hidden, _number_format(hidden), *(layer.weight for layer in layers))  # type: ignore[no-untyped-call]
    return joined


def _number_format(values: Tensor) -> torch.dtype:
    """That a product of these values has here."""
    return autocast_dtype(values) or values.dtype


# Functions with their own gradients


class _Norm(torch.autograd.Function):
    """Root mean square norm, (…, D), rounded to a number format.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float, number_format: torch.dtype) -> Tensor:
        with full_precision(hidden):
            wide = widened(hidden)
            square: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
            scale = square.div_(wide.shape[-1]).add_(epsilon).rsqrt_()
            ctx.save_for_backward(wide, weight, scale)
            ctx.number_format = hidden.dtype
            return (wide * scale).mul_(weight).to(number_format)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        wide, weight, scale = ctx.saved_tensors
        slopes, width = upstream[0].to(wide.dtype), wide.shape[-1]
        normed = wide * scale
        of_each = slopes * normed
        of_weight = of_each.reshape(-1, width).sum(0) if ctx.needs_input_grad[1] else None
        along = (of_each @ weight.to(wide.dtype)).unsqueeze(-1).div_(-width)
        of_hidden = (slopes * weight).addcmul_(normed, along).mul_(scale)
        return of_hidden.to(ctx.number_format), of_weight, None, None


class _Joined(torch.autograd.Function):
    """Several linear parts that read the same input, one beside the other: (…, D) gives (…, sum of their widths)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, number_format: torch.dtype, *weights: Tensor) -> Tensor:
        with full_precision(hidden):
            weight = _below_each_other(weights, number_format)
            flat = hidden.to(number_format).reshape(-1, hidden.shape[-1])
            is_narrow = number_format.itemsize < weights[0].element_size()
            ctx.save_for_backward(flat, weight if is_narrow else None, *weights)  # else it is made twice: it is large
            ctx.shape, ctx.widths = hidden.shape, [len(part) for part in weights]
            ctx.number_formats = hidden.dtype, weights[0].dtype
            return F.linear(flat, weight).view(*hidden.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        flat, kept, *weights = ctx.saved_tensors
        weight = _below_each_other(weights, flat.dtype) if kept is None else kept
        of_hidden, of_weights = ctx.number_formats
        slopes = upstream[0].reshape(-1, len(weight))
        hidden = (slopes @ weight).view(ctx.shape).to(of_hidden) if ctx.needs_input_grad[0] else None
        needs = ctx.needs_input_grad[2:]
        parts = (slopes.T @ flat).to(of_weights).split(ctx.widths) if any(needs) else [None] * len(needs)
        return hidden, None, *(part if need else None for part, need in zip(parts, needs, strict=True))


def _below_each_other(weights: Sequence[Tensor], number_format: torch.dtype) -> Tensor:
    """One weight that is all of these, in a number format."""
    joined = weights[0].new_empty(sum(map(len, weights)), weights[0].shape[1], dtype=number_format)
    for part, place in zip(weights, torch.split(joined, [len(part) for part in weights]), strict=True):
        place.copy_(part)
    return joined


class _Gate(torch.autograd.Function):
    """SiLU of the first half of the dimensions times the second half."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor) -> Tensor:
        with full_precision(joined):
            gate, up = joined.chunk(2, dim=-1)
            opened = F.silu(gate)
            ctx.save_for_backward(joined, opened)
            return opened * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        joined, opened = ctx.saved_tensors
        gate, up = joined.chunk(2, dim=-1)
        found = torch.empty_like(joined)
        of_gate, of_up = found.chunk(2, dim=-1)
        torch.mul(upstream[0], opened, out=of_up)
        torch.ops.aten.silu_backward.grad_input(upstream[0] * up, gate, grad_input=of_gate)
        return found


class _Attention(torch.autograd.Function):
    """Attention of heads of queries, keys and values that lie side by side; gives the mixed values of all heads.

    Shapes (rows, tokens, all heads · their width) and (rows, tokens, heads of queries · their width).

    Source: Su et al. 2021, arXiv:2104.09864, section 3.4, for the turning of queries and keys by their positions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        joined: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        num_heads: int,
        num_shared: int,
        scaling: float,
    ) -> Tensor:
        num_rows, length, _ = joined.shape
        heads = joined.view(num_rows, length, num_heads + 2 * num_shared, -1).transpose(1, 2)
        with full_precision(joined):
            to_turn, value = torch.split(heads, [num_heads + num_shared, num_shared], dim=1)
            turned = torch.empty_like(to_turn, memory_format=torch.contiguous_format)
            _turn(to_turn, cos, sin, turned)
            query, key = torch.split(turned, [num_heads, num_shared], dim=1)
            query = (query * scaling).flatten(0, 1)
            key, value = (_repeated(part, num_heads // num_shared).flatten(0, 1) for part in (key, value))
            scores = torch.bmm(query, key.transpose(1, 2)).view(num_rows, num_heads, length, length)
            if mask is not None:
                scores += mask
            weights = scores.softmax(-1).flatten(0, 1)
            mixed = torch.bmm(weights, value).view(num_rows, num_heads, length, -1)
        ctx.save_for_backward(query, key, value, weights, cos, sin)
        ctx.num_heads, ctx.num_shared, ctx.scaling = num_heads, num_shared, scaling
        return mixed.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, cos, sin = ctx.saved_tensors
        num_heads, num_shared, (num_rows, length, _) = ctx.num_heads, ctx.num_shared, upstream[0].shape
        slopes = upstream[0].view(num_rows, length, num_heads, -1).transpose(1, 2).flatten(0, 1)
        of_scores = torch._softmax_backward_data(torch.bmm(slopes, value.transpose(1, 2)), weights, -1, weights.dtype)
        of_query = torch.bmm(of_scores, key).mul_(ctx.scaling).view(num_rows, num_heads, length, -1)
        of_key, of_value = (
            _summed(torch.bmm(left.transpose(1, 2), right).view(num_rows, num_heads, length, -1), num_shared)
            for left, right in ((of_scores, query), (weights, slopes))
        )
        found = upstream[0].new_empty(num_rows, length, num_heads + 2 * num_shared, query.shape[-1])
        parts = torch.split(found.transpose(1, 2), [num_heads, num_shared, num_shared], dim=1)
        _turn(of_query, cos, -sin, parts[0])
        _turn(of_key, cos, -sin, parts[1])
        parts[2].copy_(of_value)
        return found.flatten(2), *[None] * 6


def _repeated(heads: Tensor, times: int) -> Tensor:
    """Each head of keys or values for so many heads of queries."""
    return heads.repeat_interleave(times, dim=1) if times > 1 else heads


def _summed(slopes: Tensor, num_shared: int) -> Tensor:
    """The gradient of `_repeated`."""
    num_rows, num_heads, *sizes = slopes.shape
    return slopes if num_heads == num_shared else slopes.view(num_rows, num_shared, -1, *sizes).sum(2)


def _turn(values: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Turn each pair of dimensions, which lie half a head apart, by the angle of the position.

    Both of a pair have the same angle, so the gradient is turned by its opposite.
    """
    half = values.shape[-1] // 2
    torch.mul(values, cos, out=out)
    out[..., :half].addcmul_(values[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(values[..., :half], sin[..., half:])
