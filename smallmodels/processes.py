"""Processes that train together: `torchrun --nproc-per-node N -m smallmodels run …`, on one machine.

The first process does everything that a run does. The others take their share of each optimizer step, and wait while
the first works alone: what it says travels as JSON, and what a phase returned is read from the run's folder.
"""

import atexit
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from smallmodels.errors import InputError, SmallmodelsError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

WAIT_S = 24 * 3600.0
"""How long one process waits for another that still lives; the end of a process is noticed at once."""


class FirstProcessError(SmallmodelsError):
    """The first process failed and has said why; this one ends with its exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the first process of this launch failed and has said why")
        self.exit_code = exit_code


class LostProcessError(SmallmodelsError):
    """Another process of the launch has ended, or does not answer."""

    exit_code = 75  # what was saved can be gone on with


def launched() -> tuple[int, int]:
    """Number of this process, from 0, and how many the launcher has started."""
    return int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Number of this process among those that work together; 0 for the first and for one that is alone."""
    return launched()[0] if count() > 1 else 0


def count() -> int:
    """How many processes work together at the moment; 1 for one that is alone."""
    return launched()[1] if _has_joined() and not _alone else 1


_alone: list[bool] = []
"""An entry for each block of `alone` that is open."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work in the first process that the others do not take part in."""
    _alone.append(True)
    try:
        yield
    finally:
        _alone.pop()


def together(function: Function) -> Function:
    """Mark a function that all processes of a launch call at the same time; others are called in the first alone."""
    function.works_together = True  # type: ignore[attr-defined]
    return function


def work_together(function: Callable[..., Any]) -> bool:
    """Whether a function was marked by `together`."""
    return getattr(function, "works_together", False)


def _has_joined() -> bool:
    if launched()[1] == 1:
        return False  # and torch need not be imported
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def require_honest_launch() -> None:
    """Refuse a launch that would silently be something else than what was asked for.

    Raises: InputError in one sentence.
    """
    for variable, name in (
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "a parallelism config"),
    ):
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise InputError(
                f"the launch asks for {name}, but a model is copied to every process here: launch without it, such as "
                "with torchrun --nproc-per-node 2 -m smallmodels run …"
            )
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ
    # `accelerate launch --cpu --num_processes 2` sets the address of a group, and starts one process without a number.
    if by_accelerate and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise InputError(
            "accelerate was asked for several processes, but started one: use "
            "torchrun --standalone --nproc-per-node 2 -m smallmodels run …"
        )
    size, here = launched()[1], int(os.environ.get("LOCAL_WORLD_SIZE") or launched()[1])
    if size != here:
        raise InputError(
            f"all processes should be on one machine, but {here} of {size} are on this one: launch with --nnodes 1"
        )


def join() -> None:
    """Meet the other processes of the launch; nothing happens where there are none.

    Raises:
        InputError: The launch is not what it seems.
        LostProcessError: The others do not come.
    """
    require_honest_launch()
    if launched()[1] == 1 or _has_joined():
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    with _meeting():
        dist.init_process_group(backend, timeout=timedelta(seconds=WAIT_S))
    atexit.register(leave)  # gloo's threads abort a process that ends beside them


def leave() -> None:
    """Part from the others."""
    if _has_joined():
        import torch.distributed as dist

        with contextlib.suppress(RuntimeError):  # they may have gone already
            dist.destroy_process_group()


def share(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, in every process; the others wait for it.

    Args:
        make: Called in the first process only; gives a JSON-able value.

    Raises: FirstProcessError in the others if it raised in the first.
    """
    if count() == 1:
        return make()
    if rank() > 0:
        said = _receive()
        if "failed" in said:
            raise FirstProcessError(said["failed"])
        value: T = said["value"]
        return value
    try:
        with alone():
            value = make()
    except BaseException as error:
        with contextlib.suppress(LostProcessError):
            _send({"failed": getattr(error, "exit_code", 1)})
        raise
    _send({"value": value})
    return value


def gather(value: int) -> list[int]:
    """An integer of every process, in their order."""
    if count() == 1:
        return [value]
    import torch

    values = torch.zeros(count(), dtype=torch.int64)
    values[rank()] = value
    add_up([values])
    return [int(v) for v in values]


def add_up(tensors: "list[torch.Tensor]") -> None:
    """Replace each tensor by its sum over all processes, which have to call this together."""
    if count() == 1:
        return
    import torch.distributed as dist

    with _meeting():
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def _send(message: dict[str, Any]) -> None:
    import torch
    import torch.distributed as dist

    content = json.dumps(message).encode()
    with _meeting():
        dist.broadcast(torch.tensor([len(content)]), src=0)
        dist.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8), src=0)


def _receive() -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    size = torch.zeros(1, dtype=torch.int64)
    with _meeting():
        dist.broadcast(size, src=0)
        content = torch.zeros(int(size), dtype=torch.uint8)
        dist.broadcast(content, src=0)
    said: dict[str, Any] = json.loads(bytes(content.tolist()))
    return said


@contextlib.contextmanager
def _meeting() -> Iterator[None]:
    """Turn what gloo says of a process that is gone or silent into one sentence."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error):  # surfaces at any moment, and is about this process alone
            raise
        silent = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        what = f"did not answer within {WAIT_S:.0f} s" if silent else "has ended"
        raise LostProcessError(
            f"all {launched()[1]} processes of the launch should work together, but one {what}: "
            "see what it said, then go on with --resume"
        ) from error
