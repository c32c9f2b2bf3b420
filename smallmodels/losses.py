"""Pure tensor functions that return one value per target; `fit` sums them and divides once per optimizer step.

One convention for all of them:

- masked targets are already removed, so a mean over the result is a mean over targets;
- the softened loss is multiplied by the squared temperature, once, here and nowhere else;
- half-precision inputs are widened to float32 before anything is summed, under autocast too;
- the teacher's side receives no gradient.

Shapes: N targets (examples or tokens), C classes, D dimensions of an embedding, L positions of a text.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor

from smallmodels.errors import InputError, require

_NO_LABEL = -(2**62)
"""Never a label: PyTorch's own default, -100, would turn a forgotten mask into targets that cost nothing."""


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
    _check_matrix("student_logits", student_logits, "num_targets, num_classes")
    if labels.shape != student_logits.shape[:1]:
        raise InputError(
            f"labels should have shape ({len(student_logits)},), one per row of student_logits, "
            f"got {tuple(labels.shape)}: pass one class index per target"
        )
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing must be in [0, 1), got {label_smoothing}: 0 switches it off")
    _check_labels(labels, student_logits.shape[1])
    with _full_precision(student_logits):
        return F.cross_entropy(
            _widened(student_logits),
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
    _check_matrix("student_logits", student_logits, "num_targets, num_classes")
    _check_equal_shapes(
        "logits", student_logits, teacher_logits, "choose a teacher fine-tuned on the labels that the student learns"
    )
    require(temperature > 0, "temperature", "> 0", float(temperature))
    with _full_precision(student_logits):
        student_log_probs = F.log_softmax(_widened(student_logits) / temperature, dim=-1)
        teacher_log_probs = F.log_softmax(_widened(teacher_logits.detach()) / temperature, dim=-1)
        teacher_probs = teacher_log_probs.exp()
        # 0 · log 0 is 0 here, where floating point says NaN.
        terms = torch.where(teacher_probs > 0, teacher_probs * (teacher_log_probs - student_log_probs), 0.0)
        divergence = terms.sum(dim=-1) * temperature**2
        # Rounding puts nearly equal distributions a hair below zero: the value is lifted, the gradient left alone.
        return divergence + divergence.detach().neg().clamp(min=0)


def embedding_mse(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Squared difference per target, averaged over the dimensions of the embedding.

    Args:
        student_embeddings: Shape (num_targets, num_dimensions); project it first where the student is narrower.
        teacher_embeddings: Same shape; receives no gradient.

    Returns:
        Shape (num_targets,), ≥ 0; zero where the embeddings are equal. For unit vectors it is 2 (1 - cosine) / D.

    Raises:
        InputError: A ValueError; shapes differ.
    """
    student, teacher = _embedding_pair(student_embeddings, teacher_embeddings)
    return (student - teacher).square().mean(dim=-1)


def embedding_cosine(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """One minus the cosine of the angle between the two embeddings, per target.

    Args:
        student_embeddings: Shape (num_targets, num_dimensions).
        teacher_embeddings: Same shape; receives no gradient.

    Returns:
        Shape (num_targets,), in [0, 2]; zero where the directions are equal. A vector of zeros has no
        direction and is at 1 from everything.

    Raises:
        InputError: A ValueError; shapes differ.
    """
    student, teacher = _embedding_pair(student_embeddings, teacher_embeddings)
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def pairwise_similarity(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """How far each target's cosine similarities to the other targets are from the teacher's.

    The widths may differ, because only similarities are compared. A value depends on which targets come
    together: in small micro-batches each target meets fewer others.

    Args:
        student_embeddings: Shape (num_targets, student's dimensions).
        teacher_embeddings: Shape (num_targets, teacher's dimensions); receives no gradient.

    Returns:
        Shape (num_targets,), in [0, 4]: the squared difference, averaged over the other targets; zero where all
        similarities are equal, and for a target that is alone.

    Raises:
        InputError: A ValueError; an input is not a matrix, or the numbers of targets differ.

    Source:
        Similarity-preserving distillation, Tung and Mori 2019, arXiv:1907.09682, with cosines for dot products.
    """
    _check_matrix("student_embeddings", student_embeddings, "num_targets, num_dimensions")
    _check_matrix("teacher_embeddings", teacher_embeddings, "num_targets, num_dimensions")
    num_targets = len(student_embeddings)
    if len(teacher_embeddings) != num_targets:
        raise InputError(
            f"student and teacher should embed the same targets, got {num_targets} and {len(teacher_embeddings)} "
            "rows: pass one row per text on both sides"
        )
    with _full_precision(student_embeddings):  # autocast would run both products in half precision
        student_ND = F.normalize(_widened(student_embeddings), dim=-1)
        teacher_ND = F.normalize(_widened(teacher_embeddings.detach()), dim=-1)
        difference = student_ND @ student_ND.T - teacher_ND @ teacher_ND.T
        # The diagonal is 1 - 1: taking it out removes its rounding, not its value.
        squares = difference.square().fill_diagonal_(0.0)
        return squares.sum(dim=-1) / max(num_targets - 1, 1)


def hidden_states_mse(student_states: Tensor, teacher_states: Tensor, attention_mask: Tensor) -> Tensor:
    """Squared difference of hidden states per real token, averaged over their dimensions; padding is left out.

    Args:
        student_states: Shape (num_texts, num_positions, num_dimensions), through a learned projection where the
            student is narrower.
        teacher_states: Same shape; receives no gradient.
        attention_mask: Shape (num_texts, num_positions); not zero for real tokens.

    Returns:
        Shape (num_real_tokens,): here a target is a token.

    Raises:
        InputError: A ValueError; shapes differ.

    Source:
        TinyBERT, Jiao et al. 2020, arXiv:1909.10351, section 3.1.
    """
    advice = "project the student's states to the teacher's width, and tokenise both alike"
    _check_equal_shapes("hidden states", student_states, teacher_states, advice)
    if attention_mask.shape != student_states.shape[:-1]:
        raise InputError(
            f"attention_mask should have shape {tuple(student_states.shape[:-1])}, "
            f"got {tuple(attention_mask.shape)}: pass the mask of the same batch"
        )
    real = attention_mask.bool()
    return embedding_mse(student_states[real], teacher_states[real])


def _embedding_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides checked, in float32 or wider, the teacher's without gradient."""
    _check_matrix("student_embeddings", student, "num_targets, num_dimensions")
    _check_equal_shapes("embeddings", student, teacher, "project the student to the teacher's width first")
    return _widened(student), _widened(teacher.detach())


def _widened(values: Tensor) -> Tensor:
    """Half precision as float32; wider formats as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _full_precision(values: Tensor) -> torch.autocast:
    """A context in which autocast leaves the number format alone."""
    return torch.autocast(values.device.type, enabled=False)


def _check_matrix(name: str, values: Tensor, dimensions: str) -> None:
    if values.ndim != 2:
        raise InputError(
            f"{name} should have shape ({dimensions}), got {tuple(values.shape)}: remove masked targets and flatten"
        )


def _check_equal_shapes(what: str, student: Tensor, teacher: Tensor, advice: str) -> None:
    if student.shape != teacher.shape:
        raise InputError(
            f"student and teacher {what} should have the same shape, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}: {advice}"
        )


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels should be integers, got {labels.dtype}: pass class indices")
    # Elsewhere than on the CPU a look at the values would wait for the device; the device has a check of its own.
    if labels.device.type != "cpu" or not labels.numel():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"labels must be in [0, {num_classes}), got {low if low < 0 else high}: "
            "remove masked targets, and give the model one output per class"
        )
