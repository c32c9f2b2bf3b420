"""The one training loop, on accelerate: `fit()` and its `TrainConfig`.

A position in training is one integer, the optimizer step: the batch of a step and everything random in it follow from
the seed and the step alone. So a run that was killed goes on from its last checkpoint with the same bits.
"""

import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradScalerKwargs
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smallmodels import files, models, records
from smallmodels.data.batches import Batch, Indices, collate, plan_epoch
from smallmodels.data.splits import Split
from smallmodels.errors import DamagedError, InputError, RunInterruptedError, TrainingError, require
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import NO_CONTEXT, Context

LossFn = Callable[[Model, Batch], Tensor]
"""Gives one value per target, masked targets already removed; may be an `nn.Module` with parameters of its own."""

Validate = Callable[[TextModel], Mapping[str, float]]
"""Metrics on validation; training keeps the weights with the highest first one."""

_CHECKPOINT = re.compile(r"step-(\d{8})")
_CHECKPOINT_FORMAT = 1
_LOG_INTERVAL_S = 1.0


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

    def __post_init__(self) -> None:
        positive = ("learning_rate", "num_epochs", "batch_size", "num_evaluations", "checkpoint_steps")
        for name in positive:
            require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        for name in ("max_steps", "micro_batch_size"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "> 0", value)
        for name in ("weight_decay", "max_grad_norm"):
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
    so micro-batches give the gradient of the whole batch.

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
    train.require_tokens()
    loop = _Loop(student, train, loss_fn, config, seed, compute, context)
    try:
        loop.resume()
        loop.run(validate)
    finally:
        _unwrap(student.model)
    return loop.finish()


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
        self.parameters = _trainable(student.model, loss_fn, config)
        self.before = {name: float(p.detach().cpu().double().sum()) for name, p in self.parameters.items()}
        self.accelerator = _accelerator(compute)
        self.model = self.accelerator.prepare_model(compute.place(student.model))
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(compute.device)
        fused = compute.device in ("cpu", "cuda")
        groups = _weight_decay_groups(self.parameters, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.plans: dict[int, list[Indices]] = {}
        self.logger = _Logger(context, self.num_steps)

    def run(self, validate: Validate | None) -> None:
        """Take the steps that are left, with validations and checkpoints between them."""
        stops = _evaluation_steps(self.num_steps, self.config.num_evaluations) if validate else set()
        while self.progress.step < self.num_steps:
            self.train_step()
            step = self.progress.step
            if validate and step in stops:
                self.evaluate(validate)
            if self.context.should_stop():
                self.save()
                raise RunInterruptedError(
                    f"training stopped after step {step} of {self.num_steps}, saved, and can resume"
                )
            if step % self.config.checkpoint_steps == 0 and step < self.num_steps:
                self.save()

    def batch_indices(self, step: int) -> Indices:
        """The examples of a step; a pure function of seed and step."""
        epoch, position = divmod(step, math.ceil(len(self.train) / self.config.batch_size))
        if epoch not in self.plans:
            lengths, size = self.train.require_tokens().lengths, self.config.batch_size
            self.plans = {epoch: plan_epoch(lengths, batch_size=size, seed=self.seed, epoch=epoch)}
        return self.plans[epoch][position]

    def train_step(self) -> None:
        """One optimizer update over the whole batch, in micro-batches."""
        step, config = self.progress.step, self.config
        indices = self.batch_indices(step)
        size = config.micro_batch_size or len(indices)
        torch.manual_seed(int(np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)[0] >> 1))
        self.model.train(config.dropout)  # without dropout, a model in evaluation mode trains just as well
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, self.num_steps, config.warmup_fraction)
        total, targets = 0.0, 0
        for start in range(0, len(indices), size):
            batch = collate(self.train, indices[start : start + size], device=self.compute.device)
            with self.accelerator.autocast():
                values = _per_target(self.loss_fn(self.model, batch))
            loss = values.float().sum()
            self.accelerator.backward(loss)
            total, targets = total + float(loss.detach()), targets + values.numel()
            self.count(batch)
        norm = self.divide_and_clip(targets)
        self.require_finite(total, norm, indices)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        self.logger.step(self.progress.step, total / targets, norm, self.optimizer.param_groups[0]["lr"])

    def count(self, batch: Batch) -> None:
        """Add the work of a micro-batch to the phase's counts."""
        operations = 3 * models.num_operations(self.student.model, batch.inputs["attention_mask"].sum(1).cpu().numpy())
        processed = batch.num_processed_tokens
        examples, tokens = len(batch.ids), batch.num_tokens
        self.context.counts.add(examples=examples, tokens=tokens, processed=processed, operations=operations)
        self.logger.num_tokens += tokens

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
        overflow_is_normal = self.accelerator.scaler is not None  # fp16: the scaler skips such steps by itself
        if math.isfinite(loss) and (math.isfinite(norm) or overflow_is_normal):
            return
        self.optimizer.zero_grad()
        what = "loss" if not math.isfinite(loss) else "gradient"
        ids = [self.train.ids[i] for i in indices]
        kept = _checkpoints(self.context.folder)
        step, last = self.progress.step + 1, kept[-1].name if kept else "none"
        named = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
        self.context.event("not finite", f"{what} at step {step}", examples=ids)
        raise TrainingError(
            f"the {what} must be finite, but is not at step {step} (examples {named}; last checkpoint: {last}): "
            "try a smaller --learning-rate or --number-format fp32"
        )

    def evaluate(self, validate: Validate) -> None:
        """Validate, note the cost so far, and keep the weights if they are the best."""
        metrics = {key: float(value) for key, value in validate(self.student).items()}
        if bad := [key for key, number in metrics.items() if not math.isfinite(number)]:
            raise TrainingError(
                f"validate should give finite metrics, but {bad[0]} is not at step {self.progress.step}: check validate"
            )
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

    def finish(self) -> TextModel:
        """Put the best weights back, fold adapters in, and describe the training in the model's notes."""
        moved = any(float(p.detach().cpu().double().sum()) != self.before[name] for name, p in self.parameters.items())
        if not moved and self.progress.step:
            raise TrainingError("training should change weights, but none moved: check the learning rate and loss_fn")
        if self.best is not None:
            self._load_parameters(self.best)
        self.optimizer.zero_grad(set_to_none=True)
        self.student.notes["training"] = {"num_steps": self.progress.step, **_notes(self.progress)}
        self.student.model.eval().requires_grad_(False)
        return models.merge_adapter(self.student)

    # Checkpoints

    def save(self) -> None:
        """Write a checkpoint, whole or not at all, and remove the one before the last."""
        if self.context.folder is None:
            return
        parent = self.context.folder / "checkpoints"
        parent.mkdir(parents=True, exist_ok=True)
        for torn in parent.glob(".step-*.tmp"):  # left by a process that was killed while it saved
            shutil.rmtree(torn)
        with files.atomic_folder(parent / f"step-{self.progress.step:08d}") as folder:
            save_file(_to_cpu(self.parameters), folder / "weights.safetensors")
            save_file(_optimizer_tensors(self.optimizer, self.parameters), folder / "optimizer.safetensors")
            if self.best is not None:
                save_file(self.best, folder / "best.safetensors")
            scaler = self.accelerator.scaler
            state = {
                "format": _CHECKPOINT_FORMAT,
                "progress": asdict(self.progress),
                "counts": asdict(self.context.counts),
            }
            files.write_json(folder / "state.json", {**state, "scaler": scaler.state_dict() if scaler else None})
        for old in _checkpoints(self.context.folder)[:-2]:
            shutil.rmtree(old)

    def resume(self) -> None:
        """Go on from the newest checkpoint that is whole; a damaged one is skipped with a warning."""
        found = _checkpoints(self.context.folder)
        for folder in reversed(found):
            try:
                files.check_manifest(folder)
                self._load(folder)
            except DamagedError as error:
                self.context.event("damaged checkpoint", str(error))
                continue
            self.context.event("resume", f"training goes on after step {self.progress.step} of {self.num_steps}")
            return
        if found:
            raise DamagedError(
                f"no checkpoint in {found[-1].parent} is whole: delete that folder to train from the start"
            )

    def _load(self, folder: Path) -> None:
        state = files.read_json(folder / "state.json")
        if state["format"] != _CHECKPOINT_FORMAT:
            raise DamagedError(f"{folder} has format {state['format']}, this version reads {_CHECKPOINT_FORMAT}")
        self._load_parameters(load_file(folder / "weights.safetensors"))
        _load_optimizer(self.optimizer, self.parameters, load_file(folder / "optimizer.safetensors"))
        best = folder / "best.safetensors"
        self.best = load_file(best) if best.exists() else None
        self.progress = Progress(**state["progress"])
        for name, value in state["counts"].items():
            setattr(self.context.counts, name, value)
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _load_parameters(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])


def _notes(progress: Progress) -> dict[str, Any]:
    return {"best_step": progress.best_step, "best_value": progress.best_value, "curve": progress.curve}


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


def _checkpoints(folder: Path | None) -> list[Path]:
    """Folders of our checkpoints, oldest first; anything else in the folder is not ours."""
    parent = folder / "checkpoints" if folder else None
    if parent is None or not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and _CHECKPOINT.fullmatch(p.name))


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
