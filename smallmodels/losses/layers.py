"""Losses on what the layers of an encoder make of each token: hidden states, and how tokens relate to each other.

Here a target is a real token; padding is left out, whatever it holds. `mean_by_text` makes texts of them, so that they
can stand beside a loss of texts.

Legend: N texts, L positions, D dimensions, A relation heads.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor

from smallmodels.errors import InputError, require
from smallmodels.losses.embeddings import embedding_mse
from smallmodels.losses.inputs import at_places, check_equal_shapes, full_precision, places_in, widened


def hidden_states_mse(
    student_states: Tensor, teacher_states: Tensor, attention_mask: Tensor, *, real_tokens: Tensor | None = None
) -> Tensor:
    """Squared difference of hidden states per real token, averaged over their dimensions.

    Args:
        student_states: Shape (num_texts, num_positions, num_dimensions), through a learned projection where the
            student is narrower.
        teacher_states: Same shape; receives no gradient.
        attention_mask: Shape (num_texts, num_positions); not zero for real tokens.
        real_tokens: Shape (num_real_tokens,): where it is not zero (`Batch.real_tokens`). If None, the mask is read,
            and a GPU waited for.

    Returns:
        Shape (num_real_tokens,), text by text.

    Raises:
        InputError: A ValueError; shapes differ.

    Source:
        TinyBERT, Jiao et al. 2020, arXiv:1909.10351, section 3.1.
    """
    advice = "project the student's states to the teacher's width, and tokenise both alike"
    check_equal_shapes("hidden states", student_states, teacher_states, advice)
    _check_mask(student_states, attention_mask)
    places = places_in(attention_mask) if real_tokens is None else real_tokens
    return embedding_mse(at_places(student_states, places), at_places(teacher_states, places))


def attention_relations(
    student_parts: Sequence[Tensor],
    teacher_parts: Sequence[Tensor],
    attention_mask: Tensor,
    *,
    num_relation_heads: int,
    real_tokens: Tensor | None = None,
) -> Tensor:
    """How far the student's relations between tokens are from the teacher's, per real token.

    Queries, keys and values are each cut into relation heads, whatever heads the models have. In each of them a token
    relates to all real tokens of its text by a softmax of scaled dot products with queries, keys or values of its own
    kind; KL(teacher || student) of that is averaged over heads and summed over the three kinds.

    Args:
        student_parts: Queries, keys and values of one layer, each of shape (num_texts, num_positions, num_dimensions).
        teacher_parts: The same of the teacher, of any width; receive no gradient.
        attention_mask: Shape (num_texts, num_positions); not zero for real tokens.
        num_relation_heads: Divides both widths; the source takes 48 for teachers of 768 dimensions.
        real_tokens: As for `hidden_states_mse`.

    Returns:
        Shape (num_real_tokens,), ≥ 0, in nats, text by text; zero where all relations are equal.

    Raises:
        InputError: A ValueError; shapes do not fit, or the number of heads does not divide a width.

    Source:
        MiniLMv2, Wang et al. 2021, arXiv:2012.15828, section 3.1.
    """
    if len(student_parts) != len(teacher_parts):
        raise InputError(
            f"student and teacher should have as many kinds of parts, got {len(student_parts)} and "
            f"{len(teacher_parts)}: pass queries, keys and values of both"
        )
    pairs = zip(student_parts, teacher_parts, strict=True)
    values_NL = torch.stack([_relation(s, t.detach(), attention_mask, num_relation_heads) for s, t in pairs]).sum(0)
    return at_places(values_NL, places_in(attention_mask) if real_tokens is None else real_tokens)


def _relation(student: Tensor, teacher: Tensor, attention_mask: Tensor, num_heads: int) -> Tensor:
    """KL(teacher || student) between one kind of relations, averaged over heads; shape (N, L), padding included."""
    advice = "tokenise both alike"
    check_equal_shapes("texts and positions", student[..., 0], teacher[..., 0], advice)
    _check_mask(student, attention_mask)
    real = attention_mask.bool()
    with full_precision(student):
        student_NALL, teacher_NALL = (_log_relations(part, real, num_heads) for part in (student, teacher))
        values_NL = F.kl_div(student_NALL, teacher_NALL, reduction="none", log_target=True).sum(-1).mean(1)
        # Rounding puts nearly equal distributions a hair below zero: the value is lifted, the gradient left alone.
        return values_NL + values_NL.detach().neg().clamp(min=0)


def _log_relations(part_NLD: Tensor, real_NL: Tensor, num_heads: int) -> Tensor:
    """Logarithm of how much each token relates to each, shape (N, A, L, L); padding has none of it."""
    width = part_NLD.shape[-1]
    require(num_heads >= 1, "num_relation_heads", ">= 1", num_heads)
    require(width % num_heads == 0, "num_relation_heads", f"a divisor of the width {width}", num_heads)
    clean_NLD = torch.where(real_NL[..., None], widened(part_NLD), 0.0)  # what padding holds has no gradient either
    heads_NALD = clean_NLD.reshape(*clean_NLD.shape[:2], num_heads, -1).transpose(1, 2)
    scores_NALL = heads_NALD @ heads_NALD.transpose(-1, -2) * heads_NALD.shape[-1] ** -0.5
    lowest = torch.finfo(scores_NALL.dtype).min
    return F.log_softmax(scores_NALL.masked_fill(~real_NL[:, None, None], lowest), dim=-1)


def mean_by_text(values: Tensor, attention_mask: Tensor, *, real_tokens: Tensor | None = None) -> Tensor:
    """Values of real tokens averaged over each text, so that every text counts alike.

    Args:
        values: Shape (num_real_tokens,), text by text.
        attention_mask: Shape (num_texts, num_positions); not zero for real tokens.
        real_tokens: As for `hidden_states_mse`.

    Returns:
        Shape (num_texts,); zero for a text without a token.

    Raises:
        InputError: A ValueError; there are not as many values as real tokens.
    """
    real = attention_mask.bool()
    places = places_in(real) if real_tokens is None else real_tokens
    if values.shape != places.shape:
        raise InputError(
            f"values should have shape ({len(places)},), one per real token, got {tuple(values.shape)}: pass the "
            "mask of the same batch"
        )
    placed = torch.zeros(real.numel(), dtype=values.dtype, device=values.device).index_copy(0, places, values)
    return placed.view(real.shape).sum(1) / real.sum(1).clamp(min=1)


def _check_mask(states: Tensor, attention_mask: Tensor) -> None:
    """Refuse a mask that is not of these states."""
    if attention_mask.shape != states.shape[:-1]:
        raise InputError(
            f"attention_mask should have shape {tuple(states.shape[:-1])}, "
            f"got {tuple(attention_mask.shape)}: pass the mask of the same batch"
        )
