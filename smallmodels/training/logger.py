"""What a training says while it goes on."""

import contextlib
import time
from collections.abc import Iterator

import numpy as np

from smallmodels.phases import Context

_LOG_INTERVAL_S = 1.0


class StepLogger:
    """Mean loss and tokens per second, about once a second."""

    def __init__(self, context: Context, num_steps: int) -> None:
        self.context, self.num_steps = context, num_steps
        self.losses: list[float] = []
        self.num_tokens, self.since = 0, time.monotonic()

    def step(self, step: int, loss: float, norm: float, learning_rate: float) -> None:
        """Note a step: its loss per target, the norm of its gradient before clipping, and its learning rate."""
        self.losses.append(loss)
        elapsed = time.monotonic() - self.since
        if elapsed < _LOG_INTERVAL_S and step < self.num_steps:
            return
        mean, rate = float(np.mean(self.losses)), self.num_tokens / max(elapsed, 1e-9)
        self.context.log(
            {
                "step": step,
                "train/loss": mean,
                "train/learning_rate": learning_rate,
                "train/grad_norm": norm,
                "train/tokens_per_s": rate,
            }
        )
        self.context.progress(step, self.num_steps, loss=mean, tokens_per_s=rate)
        self.losses, self.num_tokens, self.since = [], 0, time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is no part of a step, such as a validation."""
        begin = time.monotonic()
        yield
        self.since += time.monotonic() - begin
