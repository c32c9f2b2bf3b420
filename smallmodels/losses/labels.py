"""Losses where each label holds or not by itself, and where the label is a score."""

import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor

from smallmodels.errors import InputError, require
from smallmodels.losses.inputs import check_equal_shapes, check_matrix, full_precision, widened

_ADVICE = "choose a teacher fine-tuned on the labels that the student learns"


def binary_cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the sigmoid of each label, summed over the labels.

    Args:
        student_logits: Shape (num_targets, num_labels).
        labels: Same shape; 1 where a label holds, else 0.

    Returns:
        Shape (num_targets,), in nats.

    Raises:
        InputError: A ValueError; shapes differ.
    """
    check_matrix("student_logits", student_logits, "num_targets, num_labels")
    if labels.shape != student_logits.shape:
        raise InputError(
            f"labels should have shape {tuple(student_logits.shape)}, a column for each label, got "
            f"{tuple(labels.shape)}: pass zeros and ones"
        )
    with full_precision(student_logits):
        logits = widened(student_logits)
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").sum(-1)


def binary_kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher || student) of the sigmoid of each label, both softened, summed, times temperature squared.

    Args:
        student_logits: Shape (num_targets, num_labels).
        teacher_logits: Same shape; receives no gradient.
        temperature: > 0; 1 leaves both as they are.

    Returns:
        Shape (num_targets,), ≥ 0, in nats; zero where all probabilities are equal.

    Raises:
        InputError: A ValueError; shapes differ or temperature is not a positive number.

    Source:
        Hinton et al. 2015, arXiv:1503.02531, section 2, for labels that do not exclude each other.
    """
    check_matrix("student_logits", student_logits, "num_targets, num_labels")
    check_equal_shapes("logits", student_logits, teacher_logits, _ADVICE)
    require(temperature > 0, "temperature", "> 0", float(temperature))
    with full_precision(student_logits):
        student, teacher = (widened(logits) / temperature for logits in (student_logits, teacher_logits.detach()))
        holds = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
        fails = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        values = (holds + fails).sum(-1) * temperature**2
        # Rounding puts nearly equal distributions a hair below zero: the value is lifted, the gradient left alone.
        return values + values.detach().neg().clamp(min=0)


def squared_error(student_scores: Tensor, scores: Tensor) -> Tensor:
    """Squared difference of a score per target.

    Args:
        student_scores: Shape (num_targets, 1), as a model with one output gives them.
        scores: Shape (num_targets,) or (num_targets, 1); receives no gradient.

    Returns:
        Shape (num_targets,), ≥ 0; zero where the scores are equal.

    Raises:
        InputError: A ValueError; the student has not one score per target, or the numbers of targets differ.
    """
    check_matrix("student_scores", student_scores, "num_targets, 1")
    if student_scores.shape[1] != 1 or scores.numel() != len(student_scores):
        raise InputError(
            f"student_scores should hold one score for each of {scores.numel()} targets, got shape "
            f"{tuple(student_scores.shape)}: load a model with one output"
        )
    return (widened(student_scores[:, 0]) - widened(scores.detach().reshape(-1))).square()
