"""The loop itself, on accelerate: one optimizer step after the other, with validations and checkpoints between."""

import contextlib
import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradScalerKwargs
from torch import Tensor, nn

from smallmodels import checkpoints, files, memory, models, processes, trials
from smallmodels.data.batches import Batch, Indices, Plan, StepPlan, Steps
from smallmodels.data.splits import Split
from smallmodels.errors import InputError, RunInterruptedError, SmallmodelsError, TrainingError, WorkerError
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.training import spikes
from smallmodels.training.checks import LossFn, per_target, require_frozen
from smallmodels.training.config import TrainConfig, evaluation_steps, is_due, num_steps, schedule
from smallmodels.training.logger import StepLogger
from smallmodels.training.micro_batches import MicroBatches
from smallmodels.training.outcome import StepOutcome
from smallmodels.training.pacing import Pace, Pacer
from smallmodels.training.rules import Cut, cut_of
from smallmodels.training.state import Checkpointer, Progress, State, buffers_of, copy_into, trainable

_KNOWN_STEPS = 1000
"""In a trial the first steps stand for all: each epoch draws them anew from the same examples."""

Validate = Callable[[TextModel], Mapping[str, float]]
"""Metrics on validation; training keeps the weights with the highest first one."""

MakePlan = Callable[..., StepPlan]
"""Called as `plan(train, batch_size=…, seed=…)`: which examples make up each step."""


@processes.together
def fit(
    student: TextModel,
    train: Split,
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    seed: int = 0,
    validate: Validate | None = None,
    plan: MakePlan | None = None,
    pace: Pace | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> TextModel:
    """Train a model and return it with its best weights on validation, or its last without `validate`.

    `loss_fn` gives one value per target; they are summed and divided once by the targets of the whole optimizer step,
    so micro-batches give the gradient of the whole batch, and so do several processes: each takes its share of a step.
    A rule of the run (`context.rules`) may end it after fewer steps: then it saves a checkpoint, from which it goes on
    with the same bits without that rule, validates once more, and returns the best weights so far.

    Args:
        student: Trained in place.
        train: Tokenised; `with_signals` puts a teacher's rows into `batch.teacher`.
        loss_fn: Called as `loss_fn(model, batch)`.
        config: Learning rate, length, batch.
        seed: Of the order of data and of dropout.
        validate: Called `config.num_evaluations` times; the first of its metrics chooses, higher is better.
        plan: Makes the plan of which examples come together, such as `data.plan_by_class`; every example once an
            epoch, beside others of its length, if None.
        pace: What the training may cost: the number of its steps, at first that of `config`, is fitted to it on the
            way, and the learning rate of a step is that of a schedule over the number as it is by then.
        compute: Device and number format; chosen for this machine if None.
        context: Of the run, for checkpoints, logging and progress.

    Raises:
        TrainingError: A value is not finite, or nothing can be trained.
        RunInterruptedError: It was asked to stop.
        BudgetError: The budget of the run is spent and there is no student yet.
    """
    how: dict[str, Any] = {"seed": seed, "validate": validate, "plan": plan, "pace": pace}
    trained = _trained(student, train, loss_fn, config, **how, compute=compute, context=context)
    return models.merge_adapter(trained)


@processes.together
def fit_with_adapter(
    student: TextModel,
    train: Split,
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    context: Context = NO_CONTEXT,
    **options: Any,
) -> tuple[TextModel, models.Adapter | None]:
    """As `fit`, and with the adapters that were folded into the model; None if it had none."""
    trained = _trained(student, train, loss_fn, config, context=context, **options)
    adapter = models.adapter_of(trained)
    return models.merge_adapter(trained), adapter


def _trained(
    student: TextModel,
    train: Split,
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    seed: int = 0,
    validate: Validate | None = None,
    plan: MakePlan | None = None,
    pace: Pace | None = None,
    compute: Compute | None = None,
    context: Context,
) -> TextModel:
    """The trained model, with adapters that it may have."""
    compute = compute or models.choose_compute()
    if len(train) == 0:
        raise InputError("the training split must have at least one example, found none: check the data set")
    if context.rules.least_gain_per_wh is not None and validate is None:
        raise InputError(
            "--stop-when-gain-per-wh-below needs a training that validates on its way, and this one does not: leave it "
            "out"
        )
    models.require_own_tokens(student, train.require_tokens())
    models.require_layout(compute.layout, student)
    require_frozen(loss_fn, student)
    try:
        loop = Loop(student, train, loss_fn, config, seed, compute, context, plan, pace)
        loop.checkpointer.resume(loop.num_steps)
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


class Loop:
    """One call of `fit`: the model and its state, what goes through it, and what is told of it."""

    def __init__(
        self,
        student: TextModel,
        train: Split,
        loss_fn: LossFn,
        config: TrainConfig,
        seed: int,
        compute: Compute,
        context: Context,
        plan: MakePlan | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.pacer = Pacer(pace, context) if pace else None
        self.student, self.train, self.loss_fn, self.config = student, train, loss_fn, config
        self.seed, self.compute, self.context = seed, compute, context
        self.planned_steps = num_steps(len(train), config)
        self.parameters = trainable(student.model, loss_fn, config)
        self.before = {name: float(p.detach().cpu().double().sum()) for name, p in self.parameters.items()}
        self.accelerator = _accelerator(compute)
        # In evaluation mode accelerate leaves out its wrapper for several processes: gradients are added up here,
        # once per step, so that they are those of the whole batch whatever the share of a process.
        self.model = self.accelerator.prepare_model(compute.place(student.model), evaluation_mode=True)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(compute.device)
        fused = compute.device in ("cpu", "cuda")
        groups = _weight_decay_groups(self.parameters, config.weight_decay)
        self.adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
        self.optimizer = self.accelerator.prepare_optimizer(self.adamw)
        self.divides_in_optimizer = fused and self.accelerator.scaler is None
        # A GPU goes on while what a step came to is on its way back; whatever has to know it at once waits.
        is_judged_first = config.on_loss_spike != "continue" or processes.count() > 1
        self.waits = compute.device != "cuda" or self.accelerator.scaler is not None or is_judged_first
        self.pending: StepOutcome | None = None
        self.operations = models.Operations.of(student.model)
        self.state = State(
            self.parameters,
            buffers_of(self.model, loss_fn),
            self.optimizer,
            self.accelerator.scaler,
            context.counts,
            made_with=_made_with(compute),
        )
        self.checkpointer = Checkpointer(self.state, context)
        self.micro_batches = MicroBatches(config.micro_batch_size, compute, self.state, context)
        self.plan = (plan or _plan_by_length)(train, batch_size=config.batch_size, seed=seed)
        self.stop_is_agreed = self.may_be_spent = False
        if config.dropout and processes.count() > 1:
            told = f"{processes.count()} processes draw other dropout than one: their losses are not those of one"
            context.event("dropout", told)
        self.logger = StepLogger(context, self.num_steps)

    @property
    def progress(self) -> Progress:
        """Where the training is."""
        return self.state.progress

    @property
    def num_steps(self) -> int:
        """Steps of the whole training, as far as they are known by now."""
        return self.progress.pacing.num_steps or self.planned_steps

    def run(self, validate: Validate | None) -> None:
        """Take the steps that are left, with validations and checkpoints between them; in a trial a part of them."""
        if trial := trials.current():
            self.run_in_part(trial, validate)
            return
        if self.pacer:
            self.pacer.begin(self.progress.pacing, self.progress.step)
            self.logger.num_steps = self.num_steps
        cut = self.cut(at_start=True)
        if cut is None:
            cut = self.take_steps(validate)
        if cut is None:
            self.tell_end()
            return
        if self.progress.step:
            self.save()
        self.tell_end(cut)
        if validate and self.progress.step and not self.is_validated:
            self.evaluate(validate)  # after the checkpoint, which a training without the rule would have without it

    def take_steps(self, validate: Validate | None) -> Cut | None:
        """Take the steps that are left; gives the rule by which it took fewer."""
        steps = Steps(self.train, self.plan, processes.rank(), processes.count())
        with self._having_workers(steps):
            while self.progress.step < self.num_steps:
                left = range(self.progress.step, self.next_stop())
                batches = steps.read(left, num_workers=min(self.config.num_workers, len(left))) if left else iter(())
                for batch in batches:
                    if cut := self.take_step(batch, validate):
                        return cut
                self.settle()
                self.fit_num_steps(validate)
        return None

    def take_step(self, batch: Batch | None, validate: Validate | None) -> Cut | None:
        """Take one step and do what comes after it; gives the rule by which the training ends here."""
        self.train_step(batch)
        step = self.progress.step
        if validate and self.is_validation_due():
            self.settle()
            self.evaluate(validate)
        if self.should_stop():
            self.settle()
            self.save()
            raise RunInterruptedError(f"training stopped after step {step} of {self.num_steps}, saved, and can resume")
        if cut := self.cut():
            self.settle()
            return cut
        if step % self.config.checkpoint_steps == 0 and step < self.num_steps:
            self.settle()
            self.save()
        return None

    @property
    def is_validated(self) -> bool:
        """Whether the last step was validated."""
        curve = self.progress.curve
        return bool(curve) and curve[-1]["step"] == self.progress.step

    def is_validation_due(self) -> bool:
        """Whether the next validation comes after the step that was taken last."""
        return not self.is_validated and is_due(
            self.progress.step, self.num_steps, self.config.num_evaluations, done=len(self.progress.curve)
        )

    def next_stop(self) -> int:
        """The step after which the number of steps is fitted, or the last one."""
        return self.pacer.next_point(self.progress.pacing, self.num_steps) if self.pacer else self.num_steps

    def fit_num_steps(self, validate: Validate | None) -> None:
        """Fit the number of steps to what the training may cost, where that is asked for."""
        pacing, step = self.progress.pacing, self.progress.step
        if self.pacer and step < self.num_steps:
            ahead = min(self.config.num_evaluations - len(self.progress.curve), self.num_steps - step)
            self.pacer.fit(pacing, step, self.num_steps, num_validations=max(1, ahead) if validate else 0)
            self.logger.num_steps = self.num_steps

    def save(self) -> None:
        """Write a checkpoint."""
        if self.pacer:
            self.pacer.note(self.progress.pacing)
        self.checkpointer.save()

    def cut(self, *, at_start: bool = False) -> Cut | None:
        """The rule by which the training ends before its last step; of several processes the first one judges."""
        step, curve, rules = self.progress.step, self.progress.curve, self.context.rules
        has_validated = rules.least_gain_per_wh is not None and bool(curve) and curve[-1]["step"] == step
        if step >= self.num_steps or not (at_start or has_validated or self.may_be_spent or processes.count() == 1):
            return None

        def judge() -> dict[str, Any] | None:
            found = cut_of(rules, step, curve)
            return dataclasses.asdict(found) if found else None

        judged = processes.share(judge)
        return Cut(**judged) if judged else None

    def tell_end(self, cut: Cut | None = None) -> None:
        """Tell the run how far the training came."""
        told = dataclasses.asdict(cut) if cut else {}
        processes.share(lambda: self.context.rules.trained(self.progress.step, self.num_steps, **told))

    def run_in_part(self, trial: trials.Trial, validate: Validate | None) -> None:
        """Take a few steps, with one validation and one checkpoint, and note what all others would take."""
        steps, left = Steps(self.train, self.plan), range(self.progress.step, self.num_steps)
        lengths = self.train.require_tokens().lengths
        for step in trial.part(left, lambda step: lengths[self.plan.indices(step)].sum(), first=_KNOWN_STEPS):
            self.progress.step = step
            self.train_step(steps[step])
            self.require_not_stopped()
        self.settle()
        self.progress.step = self.num_steps
        if validate:
            with trial.repeated(len(evaluation_steps(self.num_steps, self.config.num_evaluations))):
                self.evaluate(validate)
        num_checkpoints = (self.num_steps - 1) // self.config.checkpoint_steps
        if num_checkpoints and self.context.folder is not None:
            with trial.repeated(num_checkpoints):
                self.checkpointer.save()
            if num_checkpoints > 1:
                trial.late_bytes += files.num_bytes(checkpoints.find(self.context.folder)[-1])  # two are kept

    def require_not_stopped(self) -> None:
        """Raises: RunInterruptedError if the user asked to stop; nothing is saved."""
        if self.should_stop():
            raise RunInterruptedError("training stopped")

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
            raise WorkerError(
                f"the data workers should prepare batches, but one failed ({cause}): mend that, or go on with "
                "--num-workers 0, which gives the same bits"
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
            group["lr"] = self.learning_rate(self.progress.step + 1)
        losses, targets = self.gradients(batch)
        outcome = self.outcome(indices, losses, targets)
        if not (self.waits and self.judge(outcome)):
            self.update(outcome)
        elif self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # it was told of this step's gradients, and expects an end of it
        self.optimizer.zero_grad()
        self.progress.step += 1
        seen = [self.progress.examples_sha256, *(self.train.ids[i] for i in indices)]
        self.progress.examples_sha256 = files.sha256_json(seen)
        if not self.waits:
            self.settle()
            self.pending = outcome

    def outcome(self, indices: Indices, losses: list[Tensor], targets: int) -> StepOutcome:
        """What the gradients on the parameters are, refused where there are none."""
        if targets == 0:
            raise TrainingError("loss_fn should return one value per target, but a step had none: check the masking")
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimizer)
        gradients = self.summed_gradients()
        if not gradients:
            raise TrainingError("the loss should depend on the trained weights, but no gradient came: check loss_fn")
        return StepOutcome(self.progress.step + 1, indices, losses, targets, gradients)

    def summed_gradients(self) -> list[Tensor]:
        """Of all parameters that have one, not yet divided by the targets."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def update(self, outcome: StepOutcome) -> None:
        """Let the optimizer divide the gradients by the targets, clip them and take its step, in one pass over memory.

        It leaves out a step that is not finite by itself, which on a GPU is known only later.
        """
        divisor = outcome.divisor(self.config.max_grad_norm)
        if self.divides_in_optimizer:
            adamw: Any = self.adamw  # takes these two from whoever scales gradients
            adamw.grad_scale, adamw.found_inf = divisor, (~outcome.is_finite).float()
        else:
            torch._foreach_mul_(self.summed_gradients(), 1 / divisor)
        self.optimizer.step()

    def judge(self, outcome: StepOutcome) -> bool:
        """Look at what a step came to; True if the optimizer shall not see it.

        Raises: TrainingError if the training cannot or shall not go on.
        """
        loss, norm = outcome.read()
        self.require_finite(loss, norm, outcome)
        is_skipped = self.is_skipped(loss, outcome)
        self.logger.step(outcome.step, loss, norm, self.learning_rate(outcome.step))
        return is_skipped

    def settle(self) -> None:
        """Look at the step before, where that was put off: before anything is kept or told of it."""
        if self.pending is not None:
            outcome, self.pending = self.pending, None
            self.judge(outcome)

    def learning_rate(self, step: int) -> float:
        """Of a step, counted from 1."""
        return self.config.learning_rate * schedule(step - 1, self.num_steps, self.config.warmup_fraction)

    def gradients(self, batch: Batch | None) -> tuple[list[Tensor], int]:
        """Put the summed gradients of the whole step on the parameters; returns its losses and number of targets.

        Where the memory does not suffice, the step is repeated with micro-batches of half the size.
        """
        losses: list[Tensor] = []
        targets, work = 0, (0, 0, 0, 0.0)
        buffers = {name: buffer.clone() for name, buffer in self.state.buffers.items()}
        while batch is not None:
            assert batch.ids == self.ids(self.plan.indices(self.progress.step)[processes.rank() :: processes.count()])
            try:
                micro_batches = self.micro_batches.of(batch, self.values)
                copy_into(self.state.buffers, buffers)
                losses, targets = self.accumulate(micro_batches)
                work = self.work(micro_batches)
                break
            except (MemoryError, RuntimeError) as error:
                if not memory.is_exhausted(error):
                    raise
                reason = " ".join(str(error).split())[:200]
            # Outside of the handler, whose traceback holds the tensors of the failed pass.
            losses = []
            self.release_memory()
            self.micro_batches.back_off(batch, reason, self.fits)
        if processes.count() > 1:
            done = self.add_up(np.array([sum(float(loss) for loss in losses), targets, *work]))
            losses, targets = [torch.tensor(done[0])], int(done[1])
            work = (int(done[2]), int(done[3]), int(done[4]), float(done[5]))
        examples, tokens, processed, operations = work
        self.context.counts.add(examples=examples, tokens=tokens, processed=processed, operations=operations)
        self.logger.num_tokens += tokens
        return losses, targets

    def accumulate(self, micro_batches: list[Batch]) -> tuple[list[Tensor], int]:
        """Add the gradients of these; returns the summed loss of each and the number of targets of all."""
        self.seed_everything()
        self.model.train(self.config.dropout)  # without dropout, a model in evaluation mode trains just as well
        losses, targets = [], 0
        with self.compute.autocast():  # around all of them, so that each weight is cast once
            for batch in micro_batches:
                values = per_target(self.loss_fn(self.model, batch.to(self.compute.device)))
                loss = values.float().sum()
                with torch.autocast(self.compute.device, enabled=False):
                    self.accelerator.backward(loss)
                losses.append(loss.detach())
                targets += values.numel()
        return losses, targets

    def seed_everything(self) -> None:
        """Draw whatever is random in a step from the seed and the step alone."""
        key = [self.seed, self.progress.step, *([processes.rank()] if processes.rank() else [])]
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        torch.manual_seed(seed)
        random.seed(seed)  # a loss may draw from any of the three
        np.random.seed(seed % 2**32)

    def values(self, batch: Batch) -> Tensor:
        """The loss of each target, without gradients and dropout."""
        self.seed_everything()
        self.model.eval()
        with torch.no_grad(), self.compute.autocast():
            return self.loss_fn(self.model, batch.to(self.compute.device)).float()

    def work(self, micro_batches: list[Batch]) -> tuple[int, int, int, float]:
        """Examples, real tokens, processed tokens and operations of these."""
        lengths = np.concatenate([batch.lengths for batch in micro_batches])
        targets = [number for batch in micro_batches if (number := batch.num_targets) is not None]
        operations = 3 * self.operations(lengths, sum(targets) if targets else None)
        processed = sum(batch.num_processed_tokens for batch in micro_batches)
        return len(lengths), int(lengths.sum()), processed, operations

    def add_up(self, done: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Gradients and what was done of all processes together; also what they have to agree on for the next step."""
        parameters = list(self.parameters.values())
        sizes = np.zeros(processes.count())
        sizes[processes.rank()] = self.progress.micro_batch_size or 0
        has_gradient = [parameter.grad is not None for parameter in parameters]
        stops = [self.context.should_stop(), bool(self.context.rules.spent())]
        parts: list[Any] = [done, stops, sizes, has_gradient]
        shared = torch.from_numpy(np.concatenate([np.asarray(part, dtype=np.float64) for part in parts]))
        processes.add_up([shared])
        done, stop, sizes, counts = np.split(shared.numpy(), np.cumsum([len(part) for part in parts[:-1]]))
        used = [parameter for parameter, count in zip(parameters, counts, strict=True) if count > 0]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.add_up([p.grad for p in used if p.grad is not None])
        self.stop_is_agreed, self.may_be_spent = bool(stop[0] > 0), bool(stop[1] > 0)
        self.micro_batches.agree([int(size) for size in sizes if size > 0])
        return done

    def release_memory(self) -> None:
        """Drop gradients and whatever a failed pass left behind."""
        self.optimizer.zero_grad(set_to_none=True)
        memory.give_back()
        if self.compute.device == "cuda":
            torch.cuda.empty_cache()

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

    def require_finite(self, loss: float, norm: float, outcome: StepOutcome) -> None:
        """Stop at a loss or gradient that is not finite, which the optimizer has not seen or left out."""
        scaler = self.accelerator.scaler  # fp16: it skips such steps by itself, and halves its factor each time
        overflow_is_normal = scaler is not None and scaler.get_scale() >= 1
        if math.isfinite(loss) and (math.isfinite(norm) or overflow_is_normal):
            return
        self.optimizer.zero_grad()
        what = "loss" if not math.isfinite(loss) else "gradient"
        self.context.event("not finite", f"{what} at step {outcome.step}", examples=self.ids(outcome.indices))
        raise TrainingError(
            f"the {what} must be finite, but is not at {self.where(outcome)}: "
            "start anew (--fork) with a smaller --learning-rate or --number-format fp32"
        )

    def is_skipped(self, loss: float, outcome: StepOutcome) -> bool:
        """Note a loss far above the usual one; True if the optimizer shall not see this step.

        Raises: TrainingError if the run shall stop there.
        """
        spike = spikes.note(loss, outcome.step, self.progress, self.config.on_loss_spike)
        if spike is None:
            return False
        message = f"the loss is {loss:.3g} at step {outcome.step}, {spike}"
        self.context.event("loss spike", message, examples=self.ids(outcome.indices), loss=loss, usual=spike.usual)
        if spike.policy == "stop":
            self.optimizer.zero_grad()
            raise TrainingError(
                f"the loss should stay near {spike.usual:.3g}, but is {loss:.3g} at {self.where(outcome)}: look at "
                "these examples, or start anew (--fork) with --on-loss-spike continue or a smaller --learning-rate"
            )
        return spike.policy == "skip"

    def ids(self, indices: Indices) -> list[str]:
        """Names of examples, as the data set has them."""
        return [self.train.ids[i] for i in indices]

    def where(self, outcome: StepOutcome) -> str:
        """A step with its examples and the last checkpoint, for a message."""
        ids, kept = self.ids(outcome.indices), checkpoints.find(self.context.folder)
        named = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
        return f"step {outcome.step} (examples {named}; last checkpoint: {kept[-1].name if kept else 'none'})"

    def evaluate(self, validate: Validate) -> None:
        """Validate, note the cost so far, and keep the weights if they are the best."""
        if self.pacer:
            self.pacer.note(self.progress.pacing)
        with self.logger.paused():
            metrics = processes.share(lambda: self.validated(validate))
        if self.pacer:
            self.progress.pacing.validation = self.pacer.note(self.progress.pacing, apart=True)
        value = next(iter(metrics.values()))
        reading = self.context.energy()
        point = {"step": self.progress.step, "value": value, "metrics": metrics}
        point["energy_j"] = reading.energy_j if reading else None
        point["cpu_s"] = reading.cpu_s if reading else time.process_time()
        self.progress.curve.append(point)
        self.context.log({"step": self.progress.step, **{f"validation/{k}": v for k, v in metrics.items()}})
        if self.progress.best_value is None or value > self.progress.best_value:
            self.progress.best_value, self.progress.best_step = value, self.progress.step
            self.state.best = {n: p.detach().cpu().clone() for n, p in self.parameters.items()}

    def validated(self, validate: Validate) -> dict[str, float]:
        """Metrics on validation, refused unless finite."""
        metrics = {key: float(value) for key, value in validate(self.student).items()}
        if bad := [key for key, number in metrics.items() if not math.isfinite(number)]:
            raise TrainingError(
                f"validate should give finite metrics, but {bad[0]} is not at step {self.progress.step}: check validate"
            )
        return metrics

    def finish(self) -> TextModel:
        """Put the best weights back, and describe the training in the model's notes."""
        moved = any(float(p.detach().cpu().double().sum()) != self.before[name] for name, p in self.parameters.items())
        if not moved and self.progress.step:
            raise TrainingError("training should change weights, but none moved: check the learning rate and loss_fn")
        if self.state.best is not None:
            copy_into(self.parameters, self.state.best)
        self.optimizer.zero_grad(set_to_none=True)
        self.student.notes["training"] = self.progress.notes()
        self.student.model.eval().requires_grad_(False)
        return self.student


def _plan_by_length(train: Split, *, batch_size: int, seed: int) -> StepPlan:
    return Plan(train.require_tokens().lengths, batch_size=batch_size, seed=seed)


def _accelerator(compute: Compute) -> Accelerator:
    """An accelerator for this device and number format; accelerate keeps one state per process, which is renewed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = {"fp32": "no"}.get(compute.number_format, compute.number_format)
    # Losses are summed, not averaged, before the scaler of fp16 sees them: its usual 65,536 would overflow at once.
    scaler = GradScalerKwargs(init_scale=128.0)
    return Accelerator(cpu=compute.device == "cpu", mixed_precision=mixed, kwargs_handlers=[scaler])


def _made_with(compute: Compute) -> dict[str, Any]:
    """What the last bits of a sum depend on, beside the config."""
    return {**compute.choices, "num_processes": processes.count()}


def _unwrap(model: nn.Module) -> None:
    """Take accelerate's number format off the model again, which would else stay with it and its copies for good."""
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)


def _weight_decay_groups(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and normalisation weights, which are vectors, do not."""
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
