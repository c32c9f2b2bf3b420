"""What a step came to, read back from the device once, and only when somebody needs it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smallmodels.data.batches import Indices


class StepOutcome:
    """Loss and gradient norm of one step, on their way from the device.

    Args:
        step: Its number, counted from 1.
        indices: Its examples.
        losses: Summed loss of each micro-batch, on the device.
        targets: Of the whole step.
        gradients: Summed over the targets, not divided yet.
    """

    def __init__(
        self, step: int, indices: Indices, losses: Sequence[Tensor], targets: int, gradients: Sequence[Tensor]
    ) -> None:
        self.step, self.indices, self.targets = step, indices, targets
        self.norm = torch.nn.utils.get_total_norm(gradients) / targets
        values = torch.stack([*losses, self.norm])
        self.is_finite = torch.isfinite(values).all()
        self._values, self._copied = _start_copy(values)

    def divisor(self, max_grad_norm: float) -> Tensor:
        """What to divide the summed gradients by, so that they are a mean, and no longer than so much (0 is no limit).

        Source of the small number: `torch.nn.utils.clip_grad_norm_`.
        """
        too_long = (self.norm + 1e-6) / max_grad_norm if max_grad_norm else torch.zeros_like(self.norm)
        return self.targets * too_long.clamp(min=1.0)

    def read(self) -> tuple[float, float]:
        """Loss per target, and norm of the gradient of that; waits for the device if it is not there yet."""
        if self._copied is not None:
            self._copied.synchronize()
        *losses, norm = self._values.tolist()
        return sum(losses) / self.targets, norm


def _start_copy(values: Tensor) -> tuple[Tensor, "torch.cuda.Event | None"]:
    """Values on the processor, and what tells that they have arrived; from other devices than GPUs they have."""
    if values.device.type != "cuda":
        return values.cpu(), None
    arriving = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    arriving.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return arriving, copied
