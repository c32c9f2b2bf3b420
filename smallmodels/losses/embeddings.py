"""Losses on embeddings: how far the student's are from the teacher's, or two of its own from a score."""

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor

from smallmodels.errors import InputError
from smallmodels.losses.inputs import check_equal_shapes, check_matrix, full_precision, widened


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


def cosine_score_error(first_embeddings: Tensor, second_embeddings: Tensor, scores: Tensor) -> Tensor:
    """Squared difference between the cosine of two embeddings and the score of the pair, per pair.

    Args:
        first_embeddings: Shape (num_pairs, num_dimensions).
        second_embeddings: Same shape; both receive a gradient.
        scores: Shape (num_pairs,), on the scale of cosines: [-1, 1], or [0, 1] where no pair says the opposite.

    Returns:
        Shape (num_pairs,), ≥ 0; zero where the cosine is the score. A vector of zeros has the cosine 0 with everything.

    Raises:
        InputError: A ValueError; shapes differ, or there is not one score for each pair.

    Source:
        Reimers and Gurevych 2019, arXiv:1908.10084, section 3, regression objective; `CosineSimilarityLoss` of
        sentence-transformers, whose mean over pairs is that of these values.
    """
    check_matrix("first_embeddings", first_embeddings, "num_pairs, num_dimensions")
    if second_embeddings.shape != first_embeddings.shape or scores.shape != first_embeddings.shape[:1]:
        shapes = ", ".join(str(tuple(values.shape)) for values in (first_embeddings, second_embeddings, scores))
        raise InputError(
            "a pair should have two embeddings of one width and one score, got shapes "
            f"{shapes}: pass a row of each, and a score, for every pair"
        )
    cosines = F.cosine_similarity(widened(first_embeddings), widened(second_embeddings), dim=-1)
    return (cosines - scores.detach().to(cosines.dtype)).square()


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
    check_matrix("student_embeddings", student_embeddings, "num_targets, num_dimensions")
    check_matrix("teacher_embeddings", teacher_embeddings, "num_targets, num_dimensions")
    num_targets = len(student_embeddings)
    if len(teacher_embeddings) != num_targets:
        raise InputError(
            f"student and teacher should embed the same targets, got {num_targets} and {len(teacher_embeddings)} "
            "rows: pass one row per text on both sides"
        )
    with full_precision(student_embeddings):  # autocast would run both products in half precision
        student_ND = F.normalize(widened(student_embeddings), dim=-1)
        teacher_ND = F.normalize(widened(teacher_embeddings.detach()), dim=-1)
        difference = student_ND @ student_ND.T - teacher_ND @ teacher_ND.T
        # The diagonal is 1 - 1: taking it out removes its rounding, not its value.
        squares = difference.square().fill_diagonal_(0.0)
        return squares.sum(dim=-1) / max(num_targets - 1, 1)


def distance_and_pairs(student_embeddings: Tensor, teacher_embeddings: Tensor, *, pair_weight: float) -> Tensor:
    """Squared distance to the teacher's embedding, and how far similarities to the other targets are from its own.

    Args:
        student_embeddings: Shape (num_targets, num_dimensions).
        teacher_embeddings: Same shape; receives no gradient.
        pair_weight: Of `pairwise_similarity` beside the distance, which is `embedding_mse` summed over dimensions.

    Returns:
        Shape (num_targets,), ≥ 0; zero where the embeddings are equal.

    Raises:
        InputError: A ValueError; shapes differ.

    Source:
        Reimers and Gurevych 2020, arXiv:2004.09813 (distance); Park et al. 2019, arXiv:1904.05068 (pairs).
    """
    distance = embedding_mse(student_embeddings, teacher_embeddings) * student_embeddings.shape[1]
    return distance + pair_weight * pairwise_similarity(student_embeddings, teacher_embeddings)


def nested_distances_and_pairs(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    prefixes: Sequence[int] = (),
    mse_weight: float = 1.0,
    cosine_weight: float = 0.0,
    pair_weight: float = 0.0,
) -> Tensor:
    """How far directions are from the teacher's, for whole embeddings and for those that were cut off, on average.

    Args:
        student_embeddings: Shape (num_targets, num_dimensions).
        teacher_embeddings: Same shape; receives no gradient.
        prefixes: Numbers of first dimensions that count as much as all; those that there are not more of are left out.
        mse_weight: Of the squared distance between both, cut off and then scaled to length 1, summed over dimensions.
        cosine_weight: Of one minus the cosine between them.
        pair_weight: Of `pairwise_similarity`, whose teacher is not cut off.

    Returns:
        Shape (num_targets,), ≥ 0; zero where the directions are equal and nothing is cut off.

    Raises:
        InputError: A ValueError; shapes differ.

    Source:
        Kusupati et al. 2022, arXiv:2205.13147, section 3 (prefixes).
    """
    width = student_embeddings.shape[1]
    found = []
    for m in (width, *(prefix for prefix in prefixes if prefix < width)):
        student, target = unit_length(student_embeddings[:, :m]), unit_length(teacher_embeddings[:, :m])
        squared = student.shape[1] * embedding_mse(student, target)
        distance = mse_weight * squared + cosine_weight * embedding_cosine(student, target)
        found.append(distance + pair_weight * pairwise_similarity(student_embeddings[:, :m], teacher_embeddings))
    return sum(found[1:], found[0]) / len(found)


def unit_length(embeddings: Tensor) -> Tensor:
    """Each embedding, or what is left of one that was cut off, scaled to length 1.

    Args:
        embeddings: Shape (num_targets, num_dimensions).

    Returns:
        Same shape, in float32 or wider; a vector of zeros stays one.
    """
    check_matrix("embeddings", embeddings, "num_targets, num_dimensions")
    return F.normalize(widened(embeddings), dim=-1)


def _embedding_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides checked, in float32 or wider, the teacher's without gradient."""
    check_matrix("student_embeddings", student, "num_targets, num_dimensions")
    check_equal_shapes("embeddings", student, teacher, "project the student to the teacher's width first")
    return widened(student), widened(teacher.detach())
