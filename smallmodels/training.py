"""The one training loop, on accelerate: `fit()` and its `TrainConfig`.

A position in training is one integer, the optimizer step: the batch of a step and everything random in it follow from
the seed and the step alone. So a run that was killed goes on from its last checkpoint with the same bits.
"""

import contextlib
import dis
import functools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradScalerKwargs
from safetensors.torch import save_file
from torch import Tensor, nn

from smallmodels import checkpoints, files, memory, models, processes, records
from smallmodels.data.batches import Batch, Indices, Plan, Steps
from smallmodels.data.splits import Split
from smallmodels.errors import (
    DamagedError,
    InputError,
    RunInterruptedError,
    SmallmodelsError,
    TrainingError,
    require,
)
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import NO_CONTEXT, Context, Counts

LossFn = Callable[[Model, Batch], Tensor]
"""Gives one value per target, masked targets already removed; may be an `nn.Module` with parameters of its own."""

Validate = Callable[[TextModel], Mapping[str, float]]
"""Metrics on validation; training keeps the weights with the highest first one."""

_LOG_INTERVAL_S = 1.0
_SPIKE_FACTOR = 100.0
"""A step's loss this many times the median of the last ones is a spike."""
_SPIKE_WINDOW = 32
"""Steps in that median; at least an eighth of them must have been seen."""
_SPIKE_FLOOR = 1e-4
"""A usual loss below this is as good as this: a hundred times nothing is nothing yet."""
_MOST_SKIPPED = 8
"""So many spikes one after the other are no accident of a batch, and stop a run that leaves such steps out."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How `fit` trains; every value is read there."""

    learning_rate: float = 5e-5
    """Highest learning rate; reached after warm-up, then falls linearly to zero."""
    num_epochs: int = 3
    """Passes over the training split."""
    max_steps: int | None = None
    """Optimizer steps, instead of `num_epochs`."""
    batch_size: int = 32
    """Examples per optimizer step."""
    micro_batch_size: int | None = None
    """Examples per forward pass; smaller ones need less memory and give the same gradient."""
    warmup_fraction: float = 0.1
    """Share of the steps during which the learning rate rises, in [0, 1]."""
    weight_decay: float = 0.01
    """Of AdamW; biases and normalisation are left out."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm; 0 turns it off."""
    dropout: bool = False
    """Use the model's dropout while training."""
    train_embeddings: bool = True
    """Train the table of token vectors too; without it a step is cheaper."""
    num_evaluations: int = 5
    """Validations during training, evenly spaced, the last step included."""
    checkpoint_steps: int = 200
    """Steps between checkpoints."""
    num_workers: int = 0
    """Processes that prepare batches ahead of time; any number gives the same bits."""
    on_loss_spike: Literal["continue", "skip", "stop"] = "continue"
    """What to do with a step whose loss is a hundred times the usual; noted in the record in any case."""

    def __post_init__(self) -> None:
        positive = ("learning_rate", "num_epochs", "batch_size", "num_evaluations", "checkpoint_steps")
        for name in positive:
            require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        for name in ("max_steps", "micro_batch_size"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "> 0", value)
        for name in ("weight_decay", "max_grad_norm", "num_workers"):
            require(getattr(self, name) >= 0, name, ">= 0", getattr(self, name))
        require(0 <= self.warmup_fraction <= 1, "warmup_fraction", "in [0, 1]", self.warmup_fraction)


@dataclass
class Progress:
    """Where training is; saved with each checkpoint."""

    step: int = 0
    """Optimizer steps done."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """One entry per validation: step, value, metrics, energy_j and cpu_s of the phase so far."""
    best_value: float | None = None
    best_step: int = 0
    examples_sha256: str = ""
    """Hash over the ids of all examples seen, in order: each step's with the hash before it."""
    micro_batch_size: int | None = None
    """Examples per forward pass, where memory allows fewer than the config asks for."""
    losses: list[float] = field(default_factory=list)
    """Of the last steps, to tell a spike by."""
    spikes: list[int] = field(default_factory=list)
    """Steps whose loss was a spike."""


def num_steps(num_examples: int, config: TrainConfig) -> int:
    """Optimizer steps that `fit` will take."""
    return config.max_steps or config.num_epochs * math.ceil(num_examples / config.batch_size)


def steps_at_cost(train: Split, config: TrainConfig, *, ratio: float) -> int:
    """Optimizer steps that a control may take to cost as much as what it is compared with.

    Args:
        train: Split that was trained on.
        config: How it was trained.
        ratio: What the control may cost, over what that training cost.
    """
    return max(1, round(num_steps(len(train), config) * ratio))


def curve(student: TextModel) -> list[records.CurvePoint]:
    """The validations of a model that `fit` trained, for the record."""
    points = student.notes.get("training", {}).get("curve", [])
    return [
        records.CurvePoint(step=p["step"], energy_j=p["energy_j"], cpu_s=p["cpu_s"], value=p["value"]) for p in points
    ]


@processes.together
def fit(
    student: TextModel,
    train: Split,
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    seed: int = 0,
    validate: Validate | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> TextModel:
    """Train a model and return it with its best weights on validation, or its last without `validate`.

    `loss_fn` gives one value per target; they are summed and divided once by the targets of the whole optimizer step,
    so micro-batches give the gradient of the whole batch, and so do several processes: each takes its share of a step.

    Args:
        student: Trained in place.
        train: Tokenised; `with_signals` puts a teacher's rows into `batch.teacher`.
        loss_fn: Called as `loss_fn(model, batch)`.
        config: Learning rate, length, batch.
        seed: Of the order of data and of dropout.
        validate: Called `config.num_evaluations` times; the first of its metrics chooses, higher is better.
        compute: Device and number format; chosen for this machine if None.
        context: Of the run, for checkpoints, logging and progress.

    Raises: TrainingError if a value is not finite or nothing can be trained; RunInterruptedError when asked to stop.
    """
    compute = compute or models.choose_compute()
    if len(train) == 0:
        raise InputError("the training split must have at least one example, found none: check the data set")
    models.require_own_tokens(student, train.require_tokens())
    _require_frozen(loss_fn, student)
    try:
        loop = _Loop(student, train, loss_fn, config, seed, compute, context)
        loop.resume()
        loop.run(validate)
        return loop.finish()
    except (MemoryError, RuntimeError) as error:
        if not memory.is_exhausted(error):
            raise
        raise TrainingError(
            f"weights, gradients and AdamW's two averages ({4 * models.size_bytes(student.model) / 1e6:.0f} MB) should "
            "fit into the memory, but do not: choose a smaller model, or LoRA where the recipe has it"
        ) from error
    finally:
        _unwrap(student.model)


def _require_frozen(loss_fn: LossFn, student: TextModel) -> None:
    """Refuse a model that the loss function holds, such as a teacher, if it would answer at random or be trained.

    Parameters of an `nn.Module` that is the loss itself are trained, and not meant.
    """
    own = set(student.model.modules())
    for name, held in _names_in(loss_fn).items():
        module = held.model if isinstance(held, TextModel) else held
        if not isinstance(module, nn.Module) or module in own:
            continue
        if module.training or any(parameter.requires_grad for parameter in module.parameters()):
            raise InputError(
                f"the model {name!r} in the loss function should be in evaluation mode and without gradients, and is "
                "not: call its eval() and requires_grad_(False) first, or, to train it too, make the loss an nn.Module"
            )


def _names_in(function: Any) -> dict[str, Any]:
    """What a function's own names from outside stand for: its closure, the globals that it reads, bound arguments."""
    if isinstance(function, functools.partial):
        bound = {str(i): value for i, value in enumerate(function.args)} | function.keywords
        return bound | _names_in(function.func)
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    globals_read = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    found = {name: function.__globals__[name] for name in globals_read if name in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a name that has no value yet
            found[name] = cell.cell_contents
    return found


def _evaluation_steps(steps: int, num_evaluations: int) -> set[int]:
    return {math.ceil(steps * (i + 1) / num_evaluations) for i in range(num_evaluations)}


class _Loop:
    """The state of one call of `fit`: model, optimizer, position, and the way to disk and back."""

    def __init__(
        self,
        student: TextModel,
        train: Split,
        loss_fn: LossFn,
        config: TrainConfig,
        seed: int,
        compute: Compute,
        context: Context,
    ) -> None:
        self.student, self.train, self.loss_fn, self.config = student, train, loss_fn, config
        self.seed, self.compute, self.context = seed, compute, context
        self.num_steps = num_steps(len(train), config)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.damaged: set[Path] = set()
        self.parameters = _trainable(student.model, loss_fn, config)
        self.before = {name: float(p.detach().cpu().double().sum()) for name, p in self.parameters.items()}
        self.accelerator = _accelerator(compute)
        # In evaluation mode accelerate leaves out its wrapper for several processes: gradients are added up here,
        # once per step, so that they are those of the whole batch whatever the share of a process.
        self.model = self.accelerator.prepare_model(compute.place(student.model), evaluation_mode=True)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(compute.device)
        fused = compute.device in ("cpu", "cuda")
        groups = _weight_decay_groups(self.parameters, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.buffers = _buffers(self.model, loss_fn)
        self.plan = Plan(train.require_tokens().lengths, batch_size=config.batch_size, seed=seed)
        self.num_processes = processes.count()
        self.stop_is_agreed = False
        self.logger = _Logger(context, self.num_steps)

    def run(self, validate: Validate | None) -> None:
        """Take the steps that are left, with validations and checkpoints between them."""
        stops = _evaluation_steps(self.num_steps, self.config.num_evaluations) if validate else set()
        steps = Steps(self.train, self.plan, processes.rank(), processes.count())
        left = range(self.progress.step, self.num_steps)
        batches = steps.read(left, num_workers=min(self.config.num_workers, len(left)))
        with self._having_workers(steps):
            for batch in batches:
                self.train_step(batch)
                step = self.progress.step
                if validate and step in stops:
                    self.evaluate(validate)
                if self.should_stop():
                    self.save()
                    raise RunInterruptedError(
                        f"training stopped after step {step} of {self.num_steps}, saved, and can resume"
                    )
                if step % self.config.checkpoint_steps == 0 and step < self.num_steps:
                    self.save()

    @contextlib.contextmanager
    def _having_workers(self, steps: Steps) -> Iterator[None]:
        """Say why a data worker failed, which surfaces at any moment, mostly with a traceback as its text; end all."""
        try:
            yield
        except Exception as error:
            cause = "" if isinstance(error, SmallmodelsError) else steps.failure_of_a_worker(error)
            if not cause:
                raise
            if self.context.should_stop():  # the signal that asked us to stop went to the workers too
                raise RunInterruptedError(
                    "training stopped with its workers, and goes on from its checkpoint"
                ) from error
            raise TrainingError(
                f"the data workers should prepare batches, but one failed ({cause}): mend that, or try --num-workers 0"
            ) from error
        finally:
            steps.end_workers()

    def should_stop(self) -> bool:
        """Whether the user asked for it; of several processes all stop after the same step."""
        return self.stop_is_agreed if processes.count() > 1 else self.context.should_stop()

    def train_step(self, batch: Batch | None) -> None:
        """One optimizer update over the whole batch, of which this process has a share."""
        indices = self.plan.indices(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        loss, targets = self.gradients(batch)
        norm = self.divide_and_clip(targets)
        self.require_finite(loss, norm, indices)
        if not self.is_skipped(loss / targets, indices):
            self.optimizer.step()
        elif self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # it was told of this step's gradients, and expects an end of it
        self.optimizer.zero_grad()
        self.progress.step += 1
        seen = [self.progress.examples_sha256, *(self.train.ids[i] for i in indices)]
        self.progress.examples_sha256 = files.sha256_json(seen)
        self.logger.step(self.progress.step, loss / targets, norm, self.learning_rate())

    def learning_rate(self) -> float:
        """Of the step that is next."""
        return self.config.learning_rate * _schedule(self.progress.step, self.num_steps, self.config.warmup_fraction)

    def gradients(self, batch: Batch | None) -> tuple[float, int]:
        """Put the summed gradients of the whole step on the parameters; returns its summed loss and its targets.

        Where the memory does not suffice, the step is repeated with micro-batches of half the size.
        """
        done, buffers = np.zeros(6), {name: buffer.clone() for name, buffer in self.buffers.items()}
        while batch is not None:
            assert batch.ids == self.ids(self.plan.indices(self.progress.step)[processes.rank() :: processes.count()])
            micro_batches = batch.split(self.micro_batch_size(batch))
            try:
                done = np.array([*self.accumulate(micro_batches), *self.work(micro_batches)])
                break
            except (MemoryError, RuntimeError) as error:
                if not memory.is_exhausted(error):
                    raise
                reason = " ".join(str(error).split())[:200]
            self.back_off(batch, reason)  # outside of the handler, whose traceback holds the tensors of the failed pass
            _copy_into(self.buffers, buffers)
        if processes.count() > 1:
            done = self.add_up(done)
        loss, targets, examples, tokens, processed, operations = (float(value) for value in done)
        self.context.counts.add(
            examples=int(examples), tokens=int(tokens), processed=int(processed), operations=operations
        )
        self.logger.num_tokens += int(tokens)
        return loss, int(targets)

    def micro_batch_size(self, batch: Batch) -> int:
        """Examples per forward pass."""
        sizes = (self.config.micro_batch_size, self.progress.micro_batch_size, len(batch))
        return min(size for size in sizes if size is not None)

    def accumulate(self, micro_batches: list[Batch]) -> tuple[float, int]:
        """Add the gradients of these; returns the summed loss and the number of targets."""
        key = [self.seed, self.progress.step, *([processes.rank()] if processes.rank() else [])]
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        torch.manual_seed(seed)
        random.seed(seed)  # a loss may draw from any of the three
        np.random.seed(seed % 2**32)
        self.model.train(self.config.dropout)  # without dropout, a model in evaluation mode trains just as well
        total, targets = 0.0, 0
        for batch in micro_batches:
            batch = batch.to(self.compute.device)
            with self.accelerator.autocast():
                values = _per_target(self.loss_fn(self.model, batch))
            loss = values.float().sum()
            self.accelerator.backward(loss)
            total, targets = total + float(loss.detach()), targets + values.numel()
        return total, targets

    def work(self, micro_batches: list[Batch]) -> tuple[int, int, int, float]:
        """Examples, real tokens, processed tokens and operations of these."""
        lengths = np.concatenate([batch.inputs["attention_mask"].sum(1).numpy() for batch in micro_batches])
        operations = 3 * models.num_operations(self.student.model, lengths)
        processed = sum(batch.num_processed_tokens for batch in micro_batches)
        return len(lengths), int(lengths.sum()), processed, operations

    def add_up(self, done: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Gradients and what was done of all processes together; also what they have to agree on for the next step."""
        parameters = list(self.parameters.values())
        sizes = np.zeros(processes.count())
        sizes[processes.rank()] = self.progress.micro_batch_size or 0
        has_gradient = [parameter.grad is not None for parameter in parameters]
        parts: list[Any] = [done, [self.context.should_stop()], sizes, has_gradient]
        shared = torch.from_numpy(np.concatenate([np.asarray(part, dtype=np.float64) for part in parts]))
        processes.add_up([shared])
        done, stop, sizes, counts = np.split(shared.numpy(), np.cumsum([len(part) for part in parts[:-1]]))
        used = [parameter for parameter, count in zip(parameters, counts, strict=True) if count > 0]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.add_up([p.grad for p in used if p.grad is not None])
        self.stop_is_agreed = bool(stop[0] > 0)
        self.agree_on_micro_batch([int(size) for size in sizes if size > 0])
        return done

    def agree_on_micro_batch(self, sizes: list[int]) -> None:
        """Take the smallest that a process needs, which is the one that a checkpoint has room for."""
        if not sizes or min(sizes) == self.progress.micro_batch_size:
            return
        step, size = self.progress.step + 1, min(sizes)
        message = f"the memory of another process did not suffice at step {step}, so all go on with {size} at once"
        self.context.event("out of memory", message, step=step, micro_batch_size=size)
        self.progress.micro_batch_size = size

    def back_off(self, batch: Batch, reason: str) -> None:
        """Halve the micro-batch after running out of memory, for this step and all that follow.

        Raises: TrainingError if a single example is too much.
        """
        self.release_memory()
        size = self.micro_batch_size(batch)
        if size == 1:
            raise TrainingError(self.too_large(batch))
        self.progress.micro_batch_size = size // 2
        self.context.event(
            "out of memory",
            f"the memory did not suffice for {size} examples at once, so step {self.progress.step + 1} is repeated "
            f"with {size // 2}; the gradient stays that of the whole batch",
            step=self.progress.step + 1,
            micro_batch_size=size // 2,
            reason=reason,
        )

    def release_memory(self) -> None:
        """Drop gradients and whatever a failed pass left behind."""
        self.optimizer.zero_grad(set_to_none=True)
        memory.give_back()
        if self.compute.device == "cuda":
            torch.cuda.empty_cache()

    def too_large(self, batch: Batch) -> str:
        """One sentence on a single example that does not fit; what would fit is tried out, not computed."""
        longest = max(batch.split(1), key=lambda example: example.num_tokens)
        lengths = [longest.num_tokens >> i for i in range(1, longest.num_tokens.bit_length() - 1)]
        fitting = next((length for length in lengths if self.fits(longest.cut(length))), None)
        what = f"one example of {longest.num_tokens} tokens should fit into the memory, but does not"
        if fitting is None:
            return f"{what}, and neither do {lengths[-1] if lengths else 1} tokens: choose a smaller model"
        return f"{what}, while {fitting} tokens do: try --max-length {fitting}, or a smaller model"

    def fits(self, batch: Batch) -> bool:
        """Whether a forward and backward pass over these examples finds enough memory."""
        try:
            self.accumulate([batch])
        except (MemoryError, RuntimeError) as error:
            if not memory.is_exhausted(error):
                raise
            return False
        finally:
            self.release_memory()
        return True

    def divide_and_clip(self, targets: int) -> float:
        """Divide the summed gradients once by the targets of the step, clip them, and return their norm before."""
        if targets == 0:
            raise TrainingError("loss_fn should return one value per target, but a step had none: check the masking")
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        if not gradients:
            raise TrainingError("the loss should depend on the trained weights, but no gradient came: check loss_fn")
        torch._foreach_div_(gradients, float(targets))
        limit = self.config.max_grad_norm or float("inf")
        return float(self.accelerator.clip_grad_norm_(list(self.parameters.values()), limit))

    def require_finite(self, loss: float, norm: float, indices: Indices) -> None:
        """Stop before the optimizer sees a loss or gradient that is not finite."""
        scaler = self.accelerator.scaler  # fp16: it skips such steps by itself, and halves its factor each time
        overflow_is_normal = scaler is not None and scaler.get_scale() >= 1
        if math.isfinite(loss) and (math.isfinite(norm) or overflow_is_normal):
            return
        self.optimizer.zero_grad()
        what = "loss" if not math.isfinite(loss) else "gradient"
        self.context.event("not finite", f"{what} at step {self.progress.step + 1}", examples=self.ids(indices))
        raise TrainingError(
            f"the {what} must be finite, but is not at {self.where(indices)}: "
            "start anew (--fork) with a smaller --learning-rate or --number-format fp32"
        )

    def is_skipped(self, loss: float, indices: Indices) -> bool:
        """Note a loss far above the usual one; True if the optimizer shall not see this step.

        Raises: TrainingError if the run shall stop there.
        """
        known = self.progress.losses
        usual = statistics.median(known) if len(known) >= _SPIKE_WINDOW // 8 else math.inf
        limit = _SPIKE_FACTOR * max(usual, _SPIKE_FLOOR)
        self.progress.losses = [*known, min(loss, limit)][-_SPIKE_WINDOW:]  # so that a new level becomes the usual one
        if loss <= limit:
            return False
        step, policy = self.progress.step + 1, self.config.on_loss_spike
        self.progress.spikes.append(step)
        if policy == "skip" and self.progress.spikes[-_MOST_SKIPPED:] == list(
            range(step - _MOST_SKIPPED + 1, step + 1)
        ):
            policy = "stop"
        what = f"the loss is {loss:.3g} at step {step}, where {usual:.3g} is usual"
        done = {"continue": "training goes on", "skip": "the step is left out", "stop": "training stops"}[policy]
        self.context.event("loss spike", f"{what}: {done}", examples=self.ids(indices), loss=loss, usual=usual)
        if policy == "stop":
            self.optimizer.zero_grad()
            raise TrainingError(
                f"the loss should stay near {usual:.3g}, but is {loss:.3g} at {self.where(indices)}: look at these "
                "examples, or start anew (--fork) with --on-loss-spike continue or a smaller --learning-rate"
            )
        return policy == "skip"

    def ids(self, indices: Indices) -> list[str]:
        """Names of examples, as the data set has them."""
        return [self.train.ids[i] for i in indices]

    def where(self, indices: Indices) -> str:
        """The step under way with its examples and the checkpoint before it, for a message."""
        ids, kept = self.ids(indices), checkpoints.find(self.context.folder)
        named = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
        return f"step {self.progress.step + 1} (examples {named}; last checkpoint: {kept[-1].name if kept else 'none'})"

    def evaluate(self, validate: Validate) -> None:
        """Validate, note the cost so far, and keep the weights if they are the best."""
        metrics = processes.share(lambda: self.validated(validate))
        value = next(iter(metrics.values()))
        reading = self.context.energy()
        point = {"step": self.progress.step, "value": value, "metrics": metrics}
        point["energy_j"] = reading.energy_j if reading else None
        point["cpu_s"] = reading.cpu_s if reading else time.process_time()
        self.progress.curve.append(point)
        self.context.log({"step": self.progress.step, **{f"validation/{k}": v for k, v in metrics.items()}})
        if self.progress.best_value is None or value > self.progress.best_value:
            self.progress.best_value, self.progress.best_step = value, self.progress.step
            self.best = {n: p.detach().cpu().clone() for n, p in self.parameters.items()}

    def validated(self, validate: Validate) -> dict[str, float]:
        """Metrics on validation, refused unless finite."""
        metrics = {key: float(value) for key, value in validate(self.student).items()}
        if bad := [key for key, number in metrics.items() if not math.isfinite(number)]:
            raise TrainingError(
                f"validate should give finite metrics, but {bad[0]} is not at step {self.progress.step}: check validate"
            )
        return metrics

    def finish(self) -> TextModel:
        """Put the best weights back, fold adapters in, and describe the training in the model's notes."""
        moved = any(float(p.detach().cpu().double().sum()) != self.before[name] for name, p in self.parameters.items())
        if not moved and self.progress.step:
            raise TrainingError("training should change weights, but none moved: check the learning rate and loss_fn")
        if self.best is not None:
            self._load_parameters(self.best)
        self.optimizer.zero_grad(set_to_none=True)
        self.student.notes["training"] = _notes(self.progress)
        self.student.model.eval().requires_grad_(False)
        return models.merge_adapter(self.student)

    # Checkpoints

    def save(self) -> None:
        """Write a checkpoint, whole or not at all, and remove the one before the last; the first process does."""
        if self.context.folder is None or processes.rank() > 0:
            return
        with checkpoints.writing(self.context.folder, self.progress.step, self.context.event) as folder:
            save_file(_to_cpu(self.parameters | self.buffers), folder / checkpoints.WEIGHTS)
            save_file(_optimizer_tensors(self.optimizer, self.parameters), folder / checkpoints.OPTIMIZER)
            if self.best is not None:
                save_file(self.best, folder / checkpoints.BEST)
            scaler = self.accelerator.scaler
            state = {
                "format": checkpoints.FORMAT,
                "made_with": self._made_with(),
                "progress": asdict(self.progress),
                "counts": asdict(self.context.counts),
                "scaler": scaler.state_dict() if scaler else None,
            }
            files.write_json(folder / checkpoints.STATE, state)
        self.damaged.discard(checkpoints.path_of(self.context.folder, self.progress.step))
        checkpoints.retire(self.context.folder, self.damaged)

    def resume(self) -> None:
        """Go on from the newest checkpoint that is whole, in every process from the one that the first has found."""
        step = processes.share(self._resume_from_newest)
        if step and processes.rank() > 0:
            assert self.context.folder is not None
            self._load(checkpoints.path_of(self.context.folder, step))

    def _resume_from_newest(self) -> int:
        """Load the newest checkpoint that is whole; a damaged one is skipped with a warning. Gives its step, or 0."""
        found = checkpoints.find(self.context.folder)
        for folder in reversed(found):
            try:
                self._load(folder)
            except DamagedError as error:
                self.context.event("damaged checkpoint", f"{folder.name} is left out, because {error}")
                self.damaged.add(folder)
                continue
            self.context.event("resume", f"training goes on after step {self.progress.step} of {self.num_steps}")
            return self.progress.step
        if found:
            raise DamagedError(
                f"no checkpoint in {found[-1].parent} is whole: delete that folder to train from the start"
            )
        return 0

    def _load(self, folder: Path) -> None:
        """Take over a checkpoint, which is read and compared wholly first: a damaged one changes nothing."""
        state, path = checkpoints.read_state(folder), folder / checkpoints.STATE
        try:
            progress, counts = Progress(**state["progress"]), Counts(**state["counts"])
            scaler, made_with = state["scaler"], dict(state["made_with"])
            agrees = folder.name == checkpoints.path_of(folder, progress.step).name
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path} should hold progress and counts, but {error!r}") from error
        if not agrees:
            raise DamagedError(f"{path} is of step {progress.step}, so somebody renamed its folder")
        shapes = {name: parameter.shape for name, parameter in self.parameters.items()}
        all_shapes = shapes | {name: buffer.shape for name, buffer in self.buffers.items()}
        weights = checkpoints.read_weights(folder / checkpoints.WEIGHTS, all_shapes)
        moments = checkpoints.read_moments(folder / checkpoints.OPTIMIZER, shapes)
        best = None if progress.best_value is None else checkpoints.read_weights(folder / checkpoints.BEST, shapes)
        if self.accelerator.scaler and scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        self._load_parameters(weights)
        _copy_into(self.buffers, weights)
        _load_optimizer(self.optimizer, self.parameters, moments)
        self.best, self.progress = best, progress
        for name, value in asdict(counts).items():
            setattr(self.context.counts, name, value)
        if changes := [
            f"{k} was {made_with.get(k)} and is {v}" for k, v in self._made_with().items() if made_with.get(k) != v
        ]:
            self.context.event("not bitwise", f"the result may differ in its last bits, because {'; '.join(changes)}")

    def _made_with(self) -> dict[str, Any]:
        """What the last bits of a sum depend on, beside the config."""
        compute = {
            name: getattr(self.compute, name) for name in ("device", "number_format", "num_threads", "attention")
        }
        return {**compute, "num_processes": self.num_processes}

    def _load_parameters(self, tensors: Mapping[str, Tensor]) -> None:
        _copy_into(self.parameters, tensors)


def _notes(progress: Progress) -> dict[str, Any]:
    kept = ("best_step", "best_value", "curve", "examples_sha256", "micro_batch_size", "spikes")
    return {"num_steps": progress.step, **{name: getattr(progress, name) for name in kept}}


def _accelerator(compute: Compute) -> Accelerator:
    """An accelerator for this device and number format; accelerate keeps one state per process, which is renewed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = {"fp32": "no"}.get(compute.number_format, compute.number_format)
    # Losses are summed, not averaged, before the scaler of fp16 sees them: its usual 65,536 would overflow at once.
    scaler = GradScalerKwargs(init_scale=128.0)
    return Accelerator(cpu=compute.device == "cpu", mixed_precision=mixed, kwargs_handlers=[scaler])


def _unwrap(model: nn.Module) -> None:
    """Take accelerate's number format off the model again, which would else stay with it and its copies for good."""
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)


def _per_target(values: Tensor) -> Tensor:
    if values.ndim == 0:
        raise TrainingError("loss_fn should return one value per target, but gave a single number: leave out its mean")
    if not values.requires_grad:
        raise TrainingError("the loss should depend on the trained weights, but no gradient came: check loss_fn")
    return values


def _trainable(model: nn.Module, loss_fn: LossFn, config: TrainConfig) -> dict[str, nn.Parameter]:
    """Parameters to train by name; those of the loss carry the prefix `loss.`."""
    chosen = dict(model.named_parameters())
    adapted = hasattr(model, "peft_config")  # peft has already frozen what is not an adapter
    if not adapted:
        table = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        for parameter in chosen.values():
            parameter.requires_grad_(config.train_embeddings or id(parameter) not in table)
    if isinstance(loss_fn, nn.Module):
        chosen |= {f"loss.{name}": p for name, p in loss_fn.named_parameters()}
    chosen = {name: p for name, p in chosen.items() if p.requires_grad}
    if not chosen:
        raise TrainingError("the model should have weights to train, but all are frozen: unfreeze some")
    return chosen


def _buffers(model: nn.Module, loss_fn: LossFn) -> dict[str, Tensor]:
    """What model and loss keep beside their weights, such as running means, by names that no weight has."""
    found = {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
    if isinstance(loss_fn, nn.Module):
        found |= {f"buffer.loss.{name}": buffer for name, buffer in loss_fn.named_buffers()}
    return found


def _copy_into(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def _weight_decay_groups(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and normalisation weights, which are vectors, do not."""
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Factor of the learning rate at a step: a linear rise, then a linear fall that ends above zero."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (steps - step) / max(1, steps - warmup)


def _to_cpu(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in parameters.items()}


def _optimizer_tensors(optimizer: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """AdamW's state as flat names, such as `exp_avg/<parameter>`."""
    tensors = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
    return tensors


def _load_optimizer(optimizer: Any, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    for key_and_name, value in tensors.items():
        key, name = key_and_name.split("/", 1)
        parameter = parameters[name]
        device = "cpu" if key == "step" and parameter.device.type == "cpu" else parameter.device
        optimizer.state[parameter][key] = value.to(device)


class _Logger:
    """Mean loss and tokens per second, about once a second."""

    def __init__(self, context: Context, num_steps: int) -> None:
        self.context, self.num_steps = context, num_steps
        self.losses: list[float] = []
        self.num_tokens, self.since = 0, time.monotonic()

    def step(self, step: int, loss: float, norm: float, learning_rate: float) -> None:
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
