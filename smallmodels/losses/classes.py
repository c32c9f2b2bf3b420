"""Losses on the logits of classes or of a vocabulary: cross-entropy, and divergences from a teacher."""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor

from smallmodels.errors import InputError, require
from smallmodels.losses.inputs import check_equal_shapes, check_labels, check_matrix, full_precision, widened

_NO_LABEL = -(2**62)
"""Never a label: PyTorch's own default, -100, would turn a forgotten mask into targets that cost nothing."""


class Divergence(Protocol):
    """A function of student's and teacher's logits, (num_targets, num_classes), that is zero where they are equal."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
        """One value per target."""


def cross_entropy(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the right class per target.

    Args:
        student_logits: Shape (num_targets, num_classes).
        labels: Shape (num_targets,), integers in [0, num_classes).
        label_smoothing: Share of the target probability that is spread evenly over all classes, in [0, 1).

    Returns:
        Shape (num_targets,), in nats.

    Raises:
        InputError: A ValueError; shapes do not fit, a label is out of range, or the smoothing is.

    Source:
        Smoothing: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    check_matrix("student_logits", student_logits, "num_targets, num_classes")
    if labels.shape != student_logits.shape[:1]:
        raise InputError(
            f"labels should have shape ({len(student_logits)},), one per row of student_logits, "
            f"got {tuple(labels.shape)}: pass one class index per target"
        )
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing must be in [0, 1), got {label_smoothing}: 0 switches it off")
    check_labels(labels, student_logits.shape[1])
    with full_precision(student_logits):
        return F.cross_entropy(
            widened(student_logits),
            labels.long(),
            reduction="none",
            label_smoothing=label_smoothing,
            ignore_index=_NO_LABEL,
        )


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher || student) per target, both softened by temperature, times temperature squared.

    A class that the teacher rules out with a logit of minus infinity adds nothing.

    Args:
        student_logits: Shape (num_targets, num_classes).
        teacher_logits: Same shape; receives no gradient.
        temperature: > 0; 1 leaves both distributions as they are.

    Returns:
        Shape (num_targets,), ≥ 0, in nats; zero where the distributions are equal.

    Raises:
        InputError: A ValueError; shapes differ or temperature is not a positive number.

    Source:
        Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    return _softened(student_logits, teacher_logits, temperature, lambda q, p: _relative_entropy(p, q))


def reverse_kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(student || teacher) per target, softened and scaled as `kl_divergence`.

    Args, Returns and Raises as there; infinite where the student gives weight to what the teacher rules out.

    Source:
        MiniLLM, Gu et al. 2023, arXiv:2306.08543, section 2.1.
    """
    return _softened(student_logits, teacher_logits, temperature, _relative_entropy)


def jensen_shannon_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, beta: float = 0.5
) -> Tensor:
    """Generalised Jensen-Shannon divergence per target, softened and scaled as `kl_divergence`.

    With M = beta · teacher + (1 - beta) · student, it is beta · KL(teacher || M) + (1 - beta) · KL(student || M).

    Args:
        student_logits: Shape (num_targets, num_classes).
        teacher_logits: Same shape; receives no gradient.
        temperature: > 0; 1 leaves both distributions as they are.
        beta: In (0, 1); near 0 and 1 it is a small multiple of forward and reverse KL, which have their own functions.

    Returns:
        Shape (num_targets,), ≥ 0, in nats, at most temperature² · log 2 for beta = 0.5.

    Raises:
        InputError: A ValueError; shapes differ, or temperature or beta is out of range.

    Source:
        GKD, Agarwal et al. 2023, arXiv:2306.13649, section 2.
    """
    require(0 < beta < 1, "beta", "in (0, 1)", float(beta))

    def divergence(q: Tensor, p: Tensor) -> Tensor:
        mixed = _mixture(p, q, beta)
        return beta * _relative_entropy(p, mixed) + (1 - beta) * _relative_entropy(q, mixed)

    return _softened(student_logits, teacher_logits, temperature, divergence)


def skew_kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, skew: float = 0.1
) -> Tensor:
    """KL(teacher || skew · teacher + (1 - skew) · student) per target, softened and scaled as `kl_divergence`.

    Args:
        student_logits: Shape (num_targets, num_classes).
        teacher_logits: Same shape; receives no gradient.
        temperature: > 0; 1 leaves both distributions as they are.
        skew: In [0, 1); 0 is `kl_divergence`.

    Returns:
        Shape (num_targets,), ≥ 0, in nats.

    Raises:
        InputError: A ValueError; shapes differ, or temperature or skew is out of range.

    Source:
        DistiLLM, Ko et al. 2024, arXiv:2402.03898, section 3.1; computed from logarithms.
    """
    require(0 <= skew < 1, "skew", "in [0, 1)", float(skew))
    return _softened(
        student_logits, teacher_logits, temperature, lambda q, p: _relative_entropy(p, _mixture(p, q, skew))
    )


def skew_reverse_kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, skew: float = 0.1
) -> Tensor:
    """KL(student || skew · student + (1 - skew) · teacher) per target, softened and scaled as `kl_divergence`.

    Args, Returns, Raises and Source as `skew_kl_divergence`; with skew 0 it is `reverse_kl_divergence`.
    """
    require(0 <= skew < 1, "skew", "in [0, 1)", float(skew))
    return _softened(
        student_logits, teacher_logits, temperature, lambda q, p: _relative_entropy(q, _mixture(q, p, skew))
    )


DIVERGENCES: Mapping[str, Divergence] = {
    "kl": kl_divergence,
    "reverse_kl": reverse_kl_divergence,
    "jensen_shannon": jensen_shannon_divergence,
    "skew_kl": skew_kl_divergence,
    "skew_reverse_kl": skew_reverse_kl_divergence,
}
"""By the name that recipes give them."""


def universal_logit_distance(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Distance between the sorted probabilities of two vocabularies, which need not be the same.

    Args:
        student_logits: Shape (num_targets, student's vocabulary).
        teacher_logits: Shape (num_targets, teacher's vocabulary), of positions that belong to the student's; receives
            no gradient.

    Returns:
        Shape (num_targets,), in [0, 2]: the sum of absolute differences, largest with largest; what the smaller
        vocabulary lacks counts as probability 0.

    Raises:
        InputError: A ValueError; an input is not a matrix, or the numbers of targets differ.

    Source:
        ULD, Boizard et al. 2024, arXiv:2402.12030, section 3.
    """
    check_matrix("student_logits", student_logits, "num_targets, student's vocabulary")
    check_matrix("teacher_logits", teacher_logits, "num_targets, teacher's vocabulary")
    if len(student_logits) != len(teacher_logits):
        raise InputError(
            f"student and teacher should predict the same targets, got {len(student_logits)} and "
            f"{len(teacher_logits)} rows: pair the positions first"
        )
    with full_precision(student_logits):
        probs = [widened(logits).softmax(-1) for logits in (student_logits, teacher_logits.detach())]
        width = max(p.shape[1] for p in probs)
        student, teacher = (F.pad(p.sort(-1, descending=True).values, (0, width - p.shape[1])) for p in probs)
        return (student - teacher).abs().sum(-1)


def _softened(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    divergence: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """A divergence of softened log-probabilities, the student's first, times temperature squared."""
    check_matrix("student_logits", student_logits, "num_targets, num_classes")
    check_equal_shapes(
        "logits", student_logits, teacher_logits, "choose a teacher fine-tuned on the labels that the student learns"
    )
    require(temperature > 0, "temperature", "> 0", float(temperature))
    with full_precision(student_logits):
        student_log_probs = F.log_softmax(widened(student_logits) / temperature, dim=-1)
        teacher_log_probs = F.log_softmax(widened(teacher_logits.detach()) / temperature, dim=-1)
        values = divergence(student_log_probs, teacher_log_probs) * temperature**2
        # Rounding puts nearly equal distributions a hair below zero: the value is lifted, the gradient left alone.
        return values + values.detach().neg().clamp(min=0)


def _relative_entropy(log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """KL(first || second) per row; a class of probability 0 adds nothing, where floating point says 0 · ∞."""
    is_there = log_probs.exp() > 0
    first, second = (torch.where(is_there, values, 0.0) for values in (log_probs, other_log_probs))
    return torch.where(is_there, first.exp() * (first - second), 0.0).sum(dim=-1)


def _mixture(log_probs: Tensor, other_log_probs: Tensor, weight: float) -> Tensor:
    """Logarithm of weight · first + (1 - weight) · second; minus infinity where both are."""
    if weight == 0:
        return other_log_probs
    lowest = torch.finfo(log_probs.dtype).min / 2  # two infinities have no difference, and so no gradient
    first, second = (values.clamp(min=lowest) for values in (log_probs, other_log_probs))
    return torch.logaddexp(first + math.log(weight), second + math.log1p(-weight))
