"""Losses that pull texts of one class together and push texts of others away."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor

from smallmodels.errors import InputError, require
from smallmodels.losses.inputs import check_matrix, full_precision, widened


def supervised_contrastive(embeddings: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of finding the others of its class among all others of the batch, by cosine, for each target.

    A target whose class no other has is masked: it has no value, and stands among the others all the same. A value
    depends on which targets come together.

    Args:
        embeddings: Shape (num_targets, num_dimensions); only directions count.
        labels: Shape (num_targets,), integers; equal for targets that belong together.
        temperature: > 0; divides the cosines, and a smaller one looks at the nearest others alone.

    Returns:
        Shape (num_targets that have another of their class,), in nats; at least the logarithm of how many those are.

    Raises:
        InputError: A ValueError; shapes do not fit, labels are no integers, or temperature is not a positive number.

    Source:
        Khosla et al. 2020, arXiv:2004.11362, equation 2.
    """
    check_matrix("embeddings", embeddings, "num_targets, num_dimensions")
    if labels.shape != embeddings.shape[:1]:
        raise InputError(
            f"labels should have shape ({len(embeddings)},), one per row of embeddings, got {tuple(labels.shape)}: "
            "pass one class index per target"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels should be integers, got {labels.dtype}: pass class indices")
    require(temperature > 0, "temperature", "> 0", float(temperature))
    with full_precision(embeddings):  # autocast would run the product in half precision
        directions_ND = F.normalize(widened(embeddings), dim=-1)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        cosines = directions_ND @ directions_ND.T / temperature
        log_probs = F.log_softmax(cosines.masked_fill(itself, torch.finfo(cosines.dtype).min), dim=-1)
        belongs = (labels[:, None] == labels[None, :]) & ~itself
        counts = belongs.sum(-1)
        sums = torch.where(belongs, log_probs, 0.0).sum(-1)
        has_another = counts > 0
        return -sums[has_another] / counts[has_another]
