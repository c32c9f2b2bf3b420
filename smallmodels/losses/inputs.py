"""What all losses do to their inputs: look at shapes, and widen half precision."""

import torch
from torch import Tensor

from smallmodels.errors import InputError


def widened(values: Tensor) -> Tensor:
    """Half precision as float32; wider formats as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def full_precision(values: Tensor) -> torch.autocast:
    """A context in which autocast leaves the number format alone."""
    return torch.autocast(values.device.type, enabled=False)


def autocast_dtype(values: Tensor) -> torch.dtype | None:
    """The number format that autocast would give a matrix product here."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def may_look(values: Tensor) -> bool:
    """Whether values can be looked at without waiting for them; on a GPU its own checks stand in for ours."""
    return values.device.type == "cpu"


def places_in(mask: Tensor) -> Tensor:
    """Where a mask is not zero, int64, in its rows laid end to end; how many these are is what a GPU is waited for."""
    return mask.flatten().nonzero().flatten()


def at_places(values: Tensor, places: Tensor) -> Tensor:
    """What belongs to tokens, (num_rows, num_positions, …), at some places of the rows laid end to end."""
    return values.flatten(0, 1).index_select(0, places)


def check_matrix(name: str, values: Tensor, dimensions: str) -> None:
    """Refuse what is not a matrix."""
    if values.ndim != 2:
        raise InputError(
            f"{name} should have shape ({dimensions}), got {tuple(values.shape)}: remove masked targets and flatten"
        )


def check_equal_shapes(what: str, student: Tensor, teacher: Tensor, advice: str) -> None:
    """Refuse two sides that do not belong together."""
    if student.shape != teacher.shape:
        raise InputError(
            f"student and teacher {what} should have the same shape, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}: {advice}"
        )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse what is no index of a class."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels should be integers, got {labels.dtype}: pass class indices")
    if not may_look(labels) or not labels.numel():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"labels must be in [0, {num_classes}), got {low if low < 0 else high}: "
            "remove masked targets, and give the model one output per class"
        )
