"""Where a training is: what its next step depends on, as a checkpoint holds it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smallmodels import checkpoints, files, models, processes, records
from smallmodels.energy import EnergyReading
from smallmodels.errors import DamagedError, TrainingError
from smallmodels.models import TextModel
from smallmodels.phases import Context, Counts
from smallmodels.training.checks import LossFn
from smallmodels.training.config import TrainConfig
from smallmodels.training.pacing import Pacing


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
    may_split: bool | None = None
    """Whether the loss of an example is the same in a smaller batch; None until a step was large enough to ask."""
    may_pack: bool | None = None
    """Whether the losses are the same with several examples in a row; None until a step could ask."""
    losses: list[float] = field(default_factory=list)
    """Of the last steps, to tell a spike by."""
    spikes: list[int] = field(default_factory=list)
    """Steps whose loss was a spike."""
    pacing: Pacing = field(default_factory=Pacing)
    """What it has cost, where it may cost so much."""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Progress":
        """From the JSON values of a checkpoint.

        Raises: TypeError if they are those of something else.
        """
        return cls(**{**value, "pacing": Pacing(**value.get("pacing", {}))})

    def notes(self) -> dict[str, Any]:
        """What the trained model keeps of it."""
        kept = ("best_step", "best_value", "curve", "examples_sha256", "micro_batch_size", "spikes")
        return {"num_steps": self.step, **{name: getattr(self, name) for name in kept}}


def curve(student: TextModel, *, num_steps: int = 0, before: Sequence[EnergyReading] = ()) -> list[records.CurvePoint]:
    """The validations of a model that `fit` trained, for the record.

    Args:
        student: What `fit` gave.
        num_steps: That it was trained for in earlier rounds.
        before: What was paid since the first of them began, before this training.
    """
    energy_j, cpu_s = records.whole_sum(r.energy_j for r in before), sum(r.cpu_s for r in before)
    return [
        records.CurvePoint(
            step=point["step"] + num_steps,
            energy_j=records.whole_sum([point["energy_j"], energy_j]),
            cpu_s=point["cpu_s"] + cpu_s,
            value=point["value"],
        )
        for point in student.notes.get("training", {}).get("curve", [])
    ]


def best_value(student: TextModel) -> float:
    """Of the validations of a model that `fit` trained, the best, whose weights it kept; -inf where there was none."""
    value = student.notes.get("training", {}).get("best_value")
    return -math.inf if value is None else float(value)


@dataclass
class State:
    """Weights, optimizer and position of a training, which decide all that follows."""

    parameters: dict[str, nn.Parameter]
    """That are trained."""
    buffers: dict[str, Tensor]
    """What model and loss keep beside their weights."""
    optimizer: Any
    scaler: Any
    """Of gradients in fp16, else None."""
    counts: Counts
    """Work done so far, which is counted once although a step may be taken twice."""
    made_with: dict[str, Any]
    """What the last bits of a sum depend on, beside the config."""
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Tensor] | None = None
    """The weights that did best on validation so far."""

    def save(self, folder: Path) -> None:
        """Write all of it into a folder."""
        save_file(_to_cpu(self.parameters | self.buffers), folder / checkpoints.WEIGHTS)
        save_file(_optimizer_tensors(self.optimizer, self.parameters), folder / checkpoints.OPTIMIZER)
        if self.best is not None:
            save_file(self.best, folder / checkpoints.BEST)
        state = {
            "format": checkpoints.FORMAT,
            "made_with": self.made_with,
            "progress": asdict(self.progress),
            "counts": asdict(self.counts),
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }
        files.write_json(folder / checkpoints.STATE, state)

    def load(self, folder: Path) -> list[str]:
        """Take over a checkpoint, which is read and compared wholly first: a damaged one changes nothing.

        Returns: What it was made with and is otherwise here, so that the last bits may differ.

        Raises:
            DamagedError: It is not whole, or not of this training.
            InputError: A newer version wrote it.
        """
        state, path = checkpoints.read_state(folder), folder / checkpoints.STATE
        try:
            progress, counts = Progress.of(state["progress"]), Counts(**state["counts"])
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
        if self.scaler and scaler:
            self.scaler.load_state_dict(scaler)
        copy_into(self.parameters, weights)
        copy_into(self.buffers, weights)
        _load_optimizer(self.optimizer, self.parameters, moments)
        self.best, self.progress = best, progress
        for name, value in asdict(counts).items():
            setattr(self.counts, name, value)
        now = self.made_with
        return [f"{k} was {made_with.get(k)} and is {v}" for k, v in now.items() if made_with.get(k) != v]


class Checkpointer:
    """Saves a state into the folder of a phase, and goes on from what is whole there."""

    def __init__(self, state: State, context: Context) -> None:
        self.state, self.context = state, context
        self._damaged: set[Path] = set()

    def save(self) -> None:
        """Write a checkpoint, whole or not at all, and remove the one before the last; the first process does."""
        folder, step = self.context.folder, self.state.progress.step
        if folder is None or processes.rank() > 0:
            return
        with checkpoints.writing(folder, step, self.context.event) as temporary:
            self.state.save(temporary)
        self._damaged.discard(checkpoints.path_of(folder, step))
        checkpoints.retire(folder, self._damaged)

    def resume(self, num_steps: int) -> None:
        """Go on from the newest checkpoint that is whole, in every process from the one that the first has found.

        Raises: DamagedError if there are checkpoints, and none is whole.
        """
        step = processes.share(lambda: self._resume_from_newest(num_steps))
        if step and processes.rank() > 0:
            assert self.context.folder is not None
            self._load(checkpoints.path_of(self.context.folder, step))

    def _resume_from_newest(self, num_steps: int) -> int:
        """Load the newest checkpoint that is whole; a damaged one is skipped with a warning. Gives its step, or 0."""
        found = checkpoints.find(self.context.folder)
        for folder in reversed(found):
            try:
                self._load(folder)
            except DamagedError as error:
                self.context.event("damaged checkpoint", f"{folder.name} is left out, because {error}")
                self._damaged.add(folder)
                continue
            step = self.state.progress.step
            self.context.event("resume", f"training goes on after step {step} of {num_steps}")
            return step
        if found:
            raise DamagedError(
                f"no checkpoint in {found[-1].parent} is whole: delete that folder to train from the start"
            )
        return 0

    def _load(self, folder: Path) -> None:
        if changes := self.state.load(folder):
            self.context.event("not bitwise", f"the result may differ in its last bits, because {'; '.join(changes)}")


def trainable(model: nn.Module, loss_fn: LossFn, config: TrainConfig) -> dict[str, nn.Parameter]:
    """Parameters to train by name; those of the loss carry the prefix `loss.`."""
    chosen = dict(model.named_parameters())
    adapted = models.is_adapted(model)  # peft has already frozen what is not an adapter
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


def buffers_of(model: nn.Module, loss_fn: LossFn) -> dict[str, Tensor]:
    """What model and loss keep beside their weights, such as running means, by names that no weight has."""
    found = {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
    if isinstance(loss_fn, nn.Module):
        found |= {f"buffer.loss.{name}": buffer for name, buffer in loss_fn.named_buffers()}
    return found


def copy_into(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Give tensors other values, by their names."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


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
