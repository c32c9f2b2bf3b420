"""How many examples go through the model at once: fewer after each time that the memory does not suffice."""

from collections.abc import Callable

from smallmodels.data.batches import Batch
from smallmodels.errors import TrainingError
from smallmodels.phases import Context
from smallmodels.training.state import State


class MicroBatches:
    """The size of a forward pass.

    Args:
        asked: Examples that the config asks for; None is the whole batch.
        state: Remembers a smaller size, so that a resumed training need not find it again.
        context: Is told of each change.
    """

    def __init__(self, asked: int | None, state: State, context: Context) -> None:
        self.asked, self.state, self.context = asked, state, context

    def size(self, batch: Batch) -> int:
        """Examples per forward pass."""
        sizes = (self.asked, self.state.progress.micro_batch_size, len(batch))
        return min(size for size in sizes if size is not None)

    def of(self, batch: Batch) -> list[Batch]:
        """The micro-batches of a batch."""
        return batch.split(self.size(batch))

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
