"""Which examples make up each step, and their tensors.

The order of data is a pure function of (seed, epoch), and a position in training is one integer, the step. So any
number of workers, and any resume, sees the same batches.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from smallmodels import arrays, shapes
from smallmodels.arrays import Ragged
from smallmodels.data.packing import Places, saves_rows
from smallmodels.data.splits import Split, Tokens
from smallmodels.errors import InputError

if TYPE_CHECKING:
    import torch

    from smallmodels.losses import TopK

_BATCHES_PER_WINDOW = 128
"""Batches cut from one length-sorted window: enough of them that 3 % of Banking77's tokens are padding (5 % at 64)."""

_KEPT_WINDOWS = 64
"""Sorted windows kept in memory; 32 kB for each example of a batch."""

_DEATH_IS_KNOWN_AFTER_S = 5.0
"""A worker's pipes break a little before the system tells of its end; longer on a machine that is busy."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Tensors of one micro-batch on their device; B examples, L tokens in the longest, R rows: B unless packed."""

    inputs: "dict[str, torch.Tensor]"
    """`input_ids` and `attention_mask`, shape (R, L), int64: what `model(**batch.inputs)` takes.

    Packed rows have `position_ids` instead of the mask: where they begin again at 0, so does an example. Pairs have
    `token_type_ids` too, 1 from the second text on, where the model is told of it.
    """
    ids: list[str]
    lengths: npt.NDArray[np.int64]
    """Shape (B,): real tokens of each example, in the memory of the processor."""
    _labels: "torch.Tensor | None" = None
    _teacher: "torch.Tensor | TopK | None" = None
    _is_target: "torch.Tensor | None" = None
    _of_words: bool = False
    """Whether labels and the teacher's rows are those of targets, as the word of a language model always is."""
    _targets: "torch.Tensor | None" = None
    """Of a batch on its device; before, they follow from `is_target`."""

    @property
    def labels(self) -> "torch.Tensor":
        """Shape (B, …), as the split has them; those of words one after the other, in the order of `is_target`.

        Raises: InputError if the split has none.
        """
        if self._labels is None:
            raise InputError("batch.labels needs a split with labels, but it has none: choose a loss that needs none")
        return self._labels

    @property
    def teacher(self) -> "torch.Tensor":
        """Shape (B, …), float32: the stored signal of the teacher for these examples, or for each of their targets.

        Raises: InputError if the split has none.
        """
        return self._require_teacher()  # type: ignore[return-value]

    @property
    def teacher_top_k(self) -> "TopK":
        """What a teacher that is a language model stored about each target, in the order of `is_target`.

        Raises: InputError if the split has none.
        """
        return self._require_teacher()  # type: ignore[return-value]

    def _require_teacher(self) -> "torch.Tensor | TopK":
        if self._teacher is None:
            raise InputError("batch.teacher needs the teacher's rows, but the split has none: use split.with_signals")
        return self._teacher

    @property
    def is_of_words(self) -> bool:
        """Whether labels or the teacher's rows are those of words, so that a loss has a value for each of `targets`."""
        return self._of_words

    @property
    def is_target(self) -> "torch.Tensor":
        """Shape (R, L), bool: the tokens that a language model learns to predict, or those that begin a word.

        Raises: InputError if the split has no such tokens.
        """
        if self._is_target is None:
            raise InputError(
                "batch.is_target needs tokens with targets, but there are none: use data.cut_into_rows, or a split "
                "with a label for each word"
            )
        return self._is_target

    @property
    def num_targets(self) -> int | None:
        """Of all rows; None where tokens have no targets."""
        if self._is_target is None:
            return None
        return len(self._targets) if self._targets is not None else int(np.count_nonzero(self._is_target.numpy()))

    @property
    def targets(self) -> "torch.Tensor":
        """Shape (num_targets,), int64: where `is_target` holds, in the rows laid end to end.

        By these places a loss takes what belongs to targets: to take it by the mask makes a GPU wait.

        Raises: InputError if the split has no such tokens.
        """
        return places_of(self.is_target) if self._targets is None else self._targets

    @property
    def real_tokens(self) -> "torch.Tensor":
        """Shape (num_tokens,), int64: where `attention_mask` is not zero, as `targets` says it, without a look at it.

        Raises: KeyError if the rows are packed, which have no mask.
        """
        import torch

        mask = self.inputs["attention_mask"]
        is_real = np.arange(mask.shape[1]) < self.lengths[:, None]
        return to_device(torch.from_numpy(np.flatnonzero(is_real)), mask.device.type)

    @property
    def num_tokens(self) -> int:
        """Real tokens, without padding."""
        return int(self.lengths.sum())

    @property
    def num_processed_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.inputs["input_ids"].numel()

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, size: int) -> "list[Batch]":
        """Micro-batches of at most `size` examples, each as long as its own need; they can be packed afterwards."""
        assert not self.is_packed
        return [self._part(slice(start, start + size)) for start in range(0, len(self), size)]

    def _part(self, rows: slice) -> "Batch":
        lengths = self.lengths[rows]
        width = row_length(int(lengths.max()), limit=self.inputs["input_ids"].shape[1])
        inputs = {name: tensor[rows, :width] for name, tensor in self.inputs.items()}
        is_target = None if self._is_target is None else self._is_target[rows, :width]
        parts: list[Any] = [self._labels, self._teacher]
        labels, teacher = (
            None if part is None else part[self._span(rows) if self._is_per_target(part) else rows] for part in parts
        )
        return Batch(inputs, self.ids[rows], lengths, labels, teacher, is_target, self._of_words)

    def _span(self, rows: slice) -> slice:
        """Of the targets of these rows, among those of all."""
        ends = [0, *self.is_target.sum(1).cumsum(0).tolist()]
        return slice(ends[rows.start], ends[min(rows.stop, len(self))])

    def _is_per_target(self, part: Any) -> bool:
        return self._of_words or hasattr(part, "log_probs")  # a TopK; its module imports torch, which this does late

    def cut(self, max_length: int) -> "Batch":
        """The same examples, cut after so many tokens."""
        assert not self.is_packed
        inputs = {name: tensor[:, :max_length] for name, tensor in self.inputs.items()}
        lengths = np.minimum(self.lengths, max_length)
        if self._is_target is None:
            return replace(self, inputs=inputs, lengths=lengths)
        kept = self.is_target.nonzero()[:, 1] < max_length
        parts: list[Any] = [self._labels, self._teacher]
        labels, teacher = (
            _each(part, lambda values: values[kept]) if self._is_per_target(part) else part for part in parts
        )
        shorter = replace(self, inputs=inputs, lengths=lengths, _labels=labels, _teacher=teacher)
        return replace(shorter, _is_target=self.is_target[:, :max_length], _targets=None)

    @property
    def is_packed(self) -> bool:
        """Whether a row may hold several examples."""
        return "position_ids" in self.inputs

    def packed(self) -> "Batch":
        """The same examples in fewer rows, none longer than the longest example; the batch itself where none is saved.

        Examples, with their ids, labels and teacher's rows, come in the order of their places, row by row. The first
        token of an example is never a target. For models that keep texts in one row apart.
        """
        if not saves_rows(self.lengths):
            return self
        places = Places.of(self.lengths)
        inputs = {"input_ids": places.move(self.inputs["input_ids"]), "position_ids": places.position_ids()}
        is_target, of_targets = self._is_target, None
        if is_target is not None:
            is_target = places.move(is_target) & (inputs["position_ids"] > 0)
            of_targets = places.move(self.is_target.flatten().cumsum(0).view_as(self.is_target) - 1)[is_target]

        def moved(part: Any) -> Any:
            order: Any = of_targets if self._is_per_target(part) else places.order
            return _each(part, lambda values: values[order])

        labels, teacher = moved(self._labels), moved(self._teacher)
        ids = [self.ids[i] for i in places.order]
        return Batch(inputs, ids, self.lengths[places.order], labels, teacher, is_target, self._of_words)

    def to(self, device: str) -> "Batch":
        """The same tensors on a device, which nobody waits for."""
        labels, teacher = (
            _each(part, lambda values: to_device(values, device)) for part in (self._labels, self._teacher)
        )
        inputs = {name: to_device(tensor, device) for name, tensor in self.inputs.items()}
        moved = replace(self, inputs=inputs, _labels=labels, _teacher=teacher)
        if self._is_target is None:
            return moved
        is_target, targets = to_device(self._is_target, device), to_device(self.targets, device)
        return replace(moved, _is_target=is_target, _targets=targets)


def _each(part: Any, change: "Callable[[torch.Tensor], torch.Tensor]") -> Any:
    """A tensor changed, or each of those of a `TopK`; None of None."""
    if part is None:
        return None
    return part.map(change) if hasattr(part, "log_probs") else change(part)


def places_of(mask: "torch.Tensor") -> "torch.Tensor":
    """Where a mask that is in the memory of the processor holds, in its rows laid end to end."""
    import torch

    return torch.from_numpy(np.flatnonzero(mask.cpu().numpy()))


def to_device(tensor: "torch.Tensor", device: str) -> "torch.Tensor":
    """The tensor on a device; towards a GPU from pinned memory, so that the copy runs beside what comes next."""
    if device != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Epoch:
    """Batches of similar length that cover every example once, in random order; a batch is made when asked for.

    Examples are shuffled, cut into windows, sorted by length inside each window, cut into batches, and the batches
    shuffled. The last batch may be smaller.

    Args:
        lengths: Tokens per example.
        batch_size: Examples per optimizer step.
        seed: Same seed and epoch, same batches.
        epoch: 0 for the first pass over the data.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], *, batch_size: int, seed: int, epoch: int) -> None:
        self._lengths, self._batch_size = lengths, batch_size
        generator = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = np.arange(len(lengths), dtype=np.uint32 if len(lengths) < 1 << 32 else np.int64)
        generator.shuffle(order)
        self._order = arrays.kept(order)
        self._numbers = generator.permutation(-(-len(lengths) // batch_size))
        self._windows: dict[int, Indices] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: int) -> Indices:
        window, place = divmod(int(self._numbers[position]), _BATCHES_PER_WINDOW)
        return self._window(window)[place * self._batch_size : (place + 1) * self._batch_size]

    def _window(self, number: int) -> Indices:
        """Examples of a window, sorted by length; some windows are kept, because a step is asked for several times."""
        if number not in self._windows:
            if len(self._windows) >= _KEPT_WINDOWS:
                self._windows.clear()
            size = self._batch_size * _BATCHES_PER_WINDOW
            chosen = self._order[number * size : (number + 1) * size].astype(np.int64)
            self._windows[number] = chosen[np.argsort(self._lengths[chosen], kind="stable")]
        return self._windows[number]


def plan_inference(lengths: npt.NDArray[np.int64], *, max_tokens: int) -> list[Indices]:
    """Batches for a forward pass: longest first, at most `max_tokens` processed tokens each (one example at least)."""
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max(initial=0))
    batches, start = [], 0
    while start < len(order):
        size = max(1, max_tokens // max(1, row_length(int(lengths[order[start]]), limit=longest)))
        batches.append(order[start : start + size])
        start += size
    return batches


def row_length(longest: int, *, limit: int) -> int:
    """How long rows are whose longest text has so many tokens: one of 16 lengths between two powers of two.

    Up to 32 tokens that is `longest` itself, above it at most a sixteenth more. oneDNN makes and keeps machine code for
    each shape of a product: some 30 ms and 8 MB for each length of the rows of a small BERT in bf16.

    Args:
        longest: At least 0.
        limit: Never longer than that, unless `longest` is: a model may have no more positions.
    """
    return max(longest, min(limit, shapes.one_of_few(longest)))


def pad(tokens: Tokens, indices: Indices) -> "dict[str, torch.Tensor]":
    """What a model reads of these examples, filled up on the right to one length (see `row_length`, `Batch.inputs`)."""
    import torch

    lengths = tokens.lengths[indices]
    input_ids = _padded(tokens.ids, tokens, indices, np.int64, tokens.pad_id)
    places = np.arange(input_ids.shape[1])[None, :]
    mask = places < lengths[:, None]
    inputs = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
    if tokens.second_starts is not None:
        inputs["token_type_ids"] = (mask & (places >= tokens.second_starts[indices, None])).astype(np.int64)
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


def pad_targets(tokens: Tokens, indices: Indices) -> "torch.Tensor":
    """Which of the padded tokens of these examples are targets."""
    import torch

    assert tokens.targets is not None
    return torch.from_numpy(_padded(tokens.targets, tokens, indices, np.bool_, False))


def _padded(
    flat: npt.NDArray[Any], tokens: Tokens, indices: Indices, dtype: npt.DTypeLike, filler: float
) -> npt.NDArray[Any]:
    """What belongs to the tokens of these examples, one row each, with a filler after the shorter ones."""
    lengths = tokens.lengths[indices]
    width = row_length(int(lengths.max()), limit=tokens.longest)
    rows = np.full((len(indices), width), filler, dtype=dtype)
    for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
        begin = tokens.offsets[index]
        rows[row, :length] = flat[begin : begin + length]
    return rows


def collate(split: Split, indices: Indices) -> Batch:
    """The tensors of these examples of a tokenised split."""
    import torch

    tokens = split.require_tokens()
    is_target = None
    if tokens.targets is not None:
        is_target = _padded(tokens.targets, tokens, indices, np.bool_, False)
    counts = _words_with_rows(split, indices, is_target)
    if is_target is not None and counts is not None:
        is_target &= is_target.cumsum(1) <= counts[:, None]
    labels, teacher = (_rows_of(rows, indices, counts) for rows in (split.labels, split.teacher))
    ids = [split.ids[i] for i in indices]
    marks = None if is_target is None else torch.from_numpy(is_target)
    return Batch(pad(tokens, indices), ids, tokens.lengths[indices], labels, teacher, marks, counts is not None)


def _words_with_rows(
    split: Split, indices: Indices, is_target: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.int64] | None:
    """Of each example, the words that tokens, labels and teacher all have: a text may be cut in one and not the other.

    None where labels and teacher's rows are not those of words.
    """
    ragged = [rows for rows in (split.labels, split.teacher) if isinstance(rows, Ragged)]
    if is_target is None or not ragged:
        return None
    counts = [is_target.sum(1), *(rows.offsets[indices + 1] - rows.offsets[indices] for rows in ragged)]
    return np.asarray(np.min(counts, axis=0))


def _rows_of(rows: Any, indices: Indices, counts: npt.NDArray[np.int64] | None) -> Any:
    """Of labels or a teacher: what belongs to these examples, as a tensor or a `TopK`."""
    import torch

    if isinstance(rows, Ragged):
        assert counts is not None, "labels of words need tokens with targets"
        return torch.from_numpy(rows.first(indices, counts))
    return torch.from_numpy(rows[indices]) if isinstance(rows, np.ndarray) else rows and rows.batch(indices)


class StepPlan(Protocol):
    """Which examples make up each optimizer step."""

    def indices(self, step: int) -> Indices:
        """The examples of a step, the same whenever it is asked for."""


class Plan:
    """Which examples make up each optimizer step: a pure function of seed and step, known to every process.

    Args:
        lengths: Tokens per example.
        batch_size: Examples per optimizer step.
        seed: Same seed, same plan.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], *, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self._number = -1
        self._epoch: Epoch | None = None

    def indices(self, step: int) -> Indices:
        """The examples of a step, counted from 0 over all epochs."""
        number, position = divmod(step, -(-len(self.lengths) // self.batch_size))
        if self._epoch is None or number != self._number:
            self._epoch = Epoch(self.lengths, batch_size=self.batch_size, seed=self.seed, epoch=number)
            self._number = number
        return self._epoch[position]


@dataclass
class Steps:
    """The batch of each optimizer step, made on demand, in this process or in workers."""

    split: Split
    """Tokenised."""
    plan: StepPlan
    rank: int = 0
    """Which of the processes that train together this one is; each takes its share of every step."""
    num_processes: int = 1
    workers: list[BaseProcess] = field(default_factory=list)
    """Processes that make batches for the last `read`."""

    def __getitem__(self, step: int) -> Batch | None:
        share = self.plan.indices(step)[self.rank :: self.num_processes]
        return collate(self.split, share) if len(share) else None

    def read(self, steps: range, *, num_workers: int) -> Iterator[Batch | None]:
        """The batches of these steps in order; None where this process has no share.

        Args:
            steps: Numbers of optimizer steps.
            num_workers: Processes that make batches ahead of time; 0 makes them in this one.

        Raises: RuntimeError or OSError if a worker fails or is killed, which `failure_of_a_worker` explains; at any
            moment, not only between batches.
        """
        import torch
        from torch.utils.data import DataLoader

        loader: Any = DataLoader(
            self,  # type: ignore[arg-type]  # has what a map-style data set needs
            sampler=steps,
            batch_size=None,  # an item is a whole batch already
            collate_fn=_as_it_is,
            num_workers=num_workers,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # else it draws from the global one
        )
        self.workers = []  # they get a copy of this object
        before = multiprocessing.active_children()
        batches: Iterator[Batch | None] = iter(loader)
        self.workers = [process for process in multiprocessing.active_children() if process not in before]
        return batches

    def failure_of_a_worker(self, error: Exception) -> str:
        """What happened to the worker that is behind an error; empty where the error is about something else."""
        if not self.workers:
            return ""
        if "in DataLoader worker process" in str(error):  # raised there; its traceback is the text, and ends with it
            return str(error).strip().splitlines()[-1]
        if not isinstance(error, (ConnectionError, EOFError)) and "DataLoader worker" not in str(error):
            return ""
        deadline = time.monotonic() + _DEATH_IS_KNOWN_AFTER_S
        while time.monotonic() < deadline:
            with _deaf_to_torch():
                if codes := [worker.exitcode for worker in self.workers if worker.exitcode]:
                    return _end_of(codes[0])
                time.sleep(0.01)
        return ""

    def end_workers(self) -> None:
        """End the processes of the last `read`, which a loader that nobody holds any more would wait for in vain."""
        for worker in self.workers:
            with _deaf_to_torch():
                worker.terminate()  # to them this is the end of their work, and no error
        for worker in self.workers:
            with _deaf_to_torch():
                worker.join(timeout=5.0)


def _deaf_to_torch() -> contextlib.suppress:
    """Leaves out what torch's signal handler raises, at any moment, of a worker's death."""
    return contextlib.suppress(RuntimeError)


def _end_of(exit_code: int) -> str:
    """How a process ended, in words; negative codes are signals."""
    if exit_code == -signal.SIGKILL:
        return "it was killed, as the system does when the memory is full"
    return f"it was ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"it ended with code {exit_code}"


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_run(_: int) -> None:
    """Ctrl-C, and SIGTERM where it is sent to all at once, reach workers too, but the step under way still needs them.

    So a worker ends when the run says so, or is gone; on systems that do not tell who asks (macOS), SIGTERM ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_run_says_so, daemon=True).start()


def _end_when_the_run_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
