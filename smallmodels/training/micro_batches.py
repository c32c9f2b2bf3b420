"""How many examples go through the model at once: what is fast here, and less where the memory does not suffice."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from smallmodels.data.batches import Batch
from smallmodels.data.packing import PACKED
from smallmodels.errors import TrainingError
from smallmodels.models import Compute
from smallmodels.phases import Context
from smallmodels.training.state import State

_ROUNDING = 0.01
"""Values of a loss that differ by less, in their mean, are the same but for the rounding of bf16."""


class MicroBatches:
    """The size of a forward pass, and the layout of its rows.

    Args:
        asked: Examples that the config asks for; None leaves it to `compute`.
        compute: Processed tokens that go through the model at once, and their layout, where the loss allows it.
        state: Remembers a smaller size, so that a resumed training need not find it again.
        context: Is told of each change.
    """

    def __init__(self, asked: int | None, compute: Compute, state: State, context: Context) -> None:
        self.asked, self.compute, self.state, self.context = asked, compute, state, context

    def size(self, batch: Batch) -> int:
        """Examples per forward pass."""
        fast = self._fast_size(batch) if self.asked is None and self.state.progress.may_split else None
        sizes = (self.asked, self.state.progress.micro_batch_size, fast, len(batch))
        return min(size for size in sizes if size is not None)

    def _fast_size(self, batch: Batch) -> int:
        """So many that passes of about equal size take no more tokens than is fast."""
        tokens = batch.num_tokens if self._may_pack else batch.num_processed_tokens
        num_passes = min(len(batch), math.ceil(tokens / self.compute.tokens_per_pass))
        return math.ceil(len(batch) / num_passes)

    def of(self, batch: Batch, values: Callable[[Batch], Tensor]) -> list[Batch]:
        """The micro-batches of a batch.

        Args:
            batch: Of one step.
            values: The loss of each target of a batch, without gradients; called once in a training, to find out
                whether the loss is that of each example alone or compares the examples of a batch with each other, and
                once more where rows shall be packed, to find out whether it reads rows as examples.
        """
        progress = self.state.progress
        if self.asked is None and progress.may_split is None and (size := self._fast_size(batch)) < len(batch):
            parts = torch.cat([values(part) for part in batch.split(size)])
            progress.may_split = _are_equal(values(batch), parts)
        micro_batches = batch.split(self.size(batch))
        if progress.may_pack is None and self._may_pack:
            self._try_packing(micro_batches, values)
        return [part.packed() for part in micro_batches] if self._may_pack else micro_batches

    @property
    def _may_pack(self) -> bool:
        return self.compute.layout == PACKED and self.state.progress.may_pack is not False

    def _try_packing(self, micro_batches: list[Batch], values: Callable[[Batch], Tensor]) -> None:
        """Compare the losses of both layouts, as soon as some rows can be packed."""
        part = next((part for part in micro_batches if part.packed().is_packed), None)
        if part is None:
            return
        try:
            packed = values(part.packed())
        except KeyError:  # it reads the attention mask
            packed = torch.empty(0)
        self.state.progress.may_pack = _are_equal(values(part).sort().values, packed.sort().values)
        if not self._may_pack:
            message = "the loss reads a row as one example, so each example has a row of its own, and none is packed"
            self.context.event("not packed", message)

    def back_off(self, batch: Batch, reason: str, fits: Callable[[Batch], bool]) -> None:
        """Halve the micro-batch after running out of memory, for this step and all that follow.

        Args:
            batch: Of the step.
            reason: What was said when the memory did not suffice.
            fits: Whether a batch goes forward and backward in the memory that there is.

        Raises: TrainingError if a single example is too much.
        """
        size, step = self.size(batch), self.state.progress.step + 1
        if size == 1:
            raise TrainingError(_too_large(batch, fits))
        self.state.progress.micro_batch_size = size // 2
        self.context.event(
            "out of memory",
            f"the memory did not suffice for {size} examples at once, so step {step} is repeated "
            f"with {size // 2}; the gradient stays that of the whole batch",
            step=step,
            micro_batch_size=size // 2,
            reason=reason,
        )

    def agree(self, sizes: list[int]) -> None:
        """Take the smallest that a process needs, which is the one that a checkpoint has room for."""
        if not sizes or min(sizes) == self.state.progress.micro_batch_size:
            return
        step, size = self.state.progress.step + 1, min(sizes)
        message = f"the memory of another process did not suffice at step {step}, so all go on with {size} at once"
        self.context.event("out of memory", message, step=step, micro_batch_size=size)
        self.state.progress.micro_batch_size = size


def _too_large(batch: Batch, fits: Callable[[Batch], bool]) -> str:
    """One sentence on a single example that does not fit; what would fit is tried out, not computed."""
    longest = max(batch.split(1), key=lambda example: example.num_tokens)
    lengths = [longest.num_tokens >> i for i in range(1, longest.num_tokens.bit_length() - 1)]
    fitting = next((length for length in lengths if fits(longest.cut(length))), None)
    what = f"one example of {longest.num_tokens} tokens should fit into the memory, but does not"
    if fitting is None:
        return f"{what}, and neither do {lengths[-1] if lengths else 1} tokens: choose a smaller model"
    return f"{what}, while {fitting} tokens do: try --max-length {fitting}, or a smaller model"


def _are_equal(values: Tensor, others: Tensor) -> bool:
    if values.shape != others.shape:
        return False
    return bool((values - others).abs().mean() <= _ROUNDING * values.abs().mean())
