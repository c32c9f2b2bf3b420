"""Where the time of a training step goes, what our loop adds to a bare one, and whether ten thousand steps stay even.

Run:       python benchmarks/training_loop.py [--only NAME ...]
           on an idle machine; needs the extra `quickstart`, no network, and about ten minutes.
Reads:     `share`, operations per second over the matmul rate measured in the same run, and real tokens over processed
           ones, at 4,096 real tokens a step or more; `language_share`, the same of a language model. `overhead`, CPU
           time of `fit`, alone and in a run with energy, metrics and journal, over that of the same steps in plain
           torch; in turn, in one process. `linear`, time per token and resident memory early in ten thousand steps and
           in the last thousand; `ratio` is late over early, each over bare steps in plain torch between them, so that
           the machine's own drift is taken out. `profile`, the milliseconds of a step by operation and by part of the
           loop's Python, without the beginning of `fit`; under the profiler they add up to `profiled_step_ms`, and on
           a GPU they are those of its kernels. `teacher_pass`, the same of a pass without gradients. Results go to
           benchmarks/results/training_loop_[<machine>_]<device>_<number format>.json, with the machine and commit of
           each.
"""

import argparse
import contextlib
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from smallmodels import data, files, losses, models, students, teachers, training
from smallmodels.data import Batch, batches
from smallmodels.data.splits import Split
from smallmodels.environment import environment, git_state
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig
from smallmodels.training.logger import StepLogger

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
RESULTS = Path(__file__).parent / "results"
NUM_CLASSES = 77
CONFIG = TrainConfig(learning_rate=1e-4, batch_size=32, train_embeddings=False)


@dataclass(frozen=True)
class Job:
    """A student of three layers with stored logits of a teacher, as in `distill_text_classifier`."""

    student: TextModel
    train: Split
    compute: Compute
    loss_fn: training.LossFn
    trains_embeddings: bool


def distillation() -> Job:
    """The docstrings of Python as texts; labels and logits are drawn, since only time is looked at."""
    teacher, _, _ = models.load_classifier(TEACHER, [str(i) for i in range(NUM_CLASSES)], max_length=64)
    texts = data.load_python_docs().train.tokenize(teacher.tokenizer, max_length=64)
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((len(texts), NUM_CLASSES)).astype(np.float32)
    train = replace(texts, labels=logits.argmax(1), teacher=logits)
    student = students.keep_layers(teacher, 3)
    compute = models.choose_compute(model=student, tokens=train.tokens)
    return Job(student, train, compute, soft_loss, trains_embeddings=False)


def language_distillation() -> Job:
    """Six layers, 384 wide, over the 30,522 tokens of the teacher above, and the stored signal of a tiny teacher."""
    texts = data.load_python_docs().train
    tokenizer = models.load_classifier(TEACHER, ["0", "1"])[0].tokenizer
    rows = data.cut_into_rows(texts, tokenizer, max_length=256)
    sizes = {"max_length": 256, "seed": 0}
    student = models.new_language_model(tokenizer, hidden_size=384, num_layers=6, num_heads=6, **sizes)
    teacher = models.new_language_model(tokenizer, hidden_size=32, num_layers=1, num_heads=2, **sizes)
    compute = models.choose_compute(model=student, tokens=rows.tokens)
    packing = teachers.Packing(32, (1.0,), models.vocabulary_size(student))
    with tempfile.TemporaryDirectory() as cache:
        signals = teachers.store_token_signals(teacher, rows, packing=packing, compute=compute, cache=Path(cache))

    def loss_fn(model: Any, batch: Batch) -> Tensor:
        states, _ = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        told = batch.teacher_top_k
        return losses.by_chunks(
            states,
            model.output_layer,
            lambda logits, chunk: losses.top_k_divergence(logits, told[chunk], losses.kl_divergence, temperature=1.0),
        )

    return Job(student, rows.with_signals(signals), compute, loss_fn, trains_embeddings=True)


def soft_loss(model: Model, batch: Batch) -> Tensor:
    """Of the recipe, without labels."""
    return losses.kl_divergence(model(**batch.inputs).logits, batch.teacher, temperature=2.0)


def fit(job: Job, config: TrainConfig, context: Context = NO_CONTEXT) -> None:
    """Our loop."""
    config = replace(config, train_embeddings=job.trains_embeddings)
    training.fit(job.student.copy(), job.train, job.loss_fn, config, compute=job.compute, context=context)


class Bare:
    """The same steps in plain torch."""

    def __init__(self, job: Job, config: TrainConfig) -> None:
        self.compute, self.loss_fn, self.config = job.compute, job.loss_fn, config
        self.network = job.compute.place(job.student.copy().model).eval().requires_grad_(True)
        for table in (m for m in self.network.modules() if isinstance(m, torch.nn.Embedding)):
            table.requires_grad_(False)
        self.weights = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=config.learning_rate, fused=True)

    def step(self, batch: Batch) -> None:
        """One optimizer update."""
        with self.compute.autocast():
            loss = self.loss_fn(self.network, batch.to(self.compute.device)).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()


def bare(job: Job, config: TrainConfig) -> None:
    """Steps in plain torch over the batches of `fit`."""
    loop, plan = Bare(job, config), plan_of(job, config)
    for step in range(config.max_steps or 0):
        loop.step(batches.collate(job.train, plan.indices(step)))


def plan_of(job: Job, config: TrainConfig) -> batches.Plan:
    """Which examples come together, as in `fit`."""
    return batches.Plan(job.train.require_tokens().lengths, batch_size=config.batch_size, seed=0)


# What is measured


def share() -> dict[str, Any]:
    """Share of the machine and of real tokens, at 4,096 real tokens a step or more; median of three."""
    return share_of(distillation(), batch_size=256, num_steps=26)


def language_share() -> dict[str, Any]:
    """The same of a language model."""
    return share_of(language_distillation(), batch_size=256, num_steps=6)


def share_of(job: Job, *, batch_size: int, num_steps: int) -> dict[str, Any]:
    """Of so many steps, three times."""
    config = replace(CONFIG, batch_size=batch_size, max_steps=num_steps)
    rounds = []
    for _ in range(3):
        rate, context = models.matmul_rate(job.compute.device, job.compute.number_format), Context()
        begin = time.perf_counter()
        fit(job, config, context)
        seconds = time.perf_counter() - begin
        operations, tokens, processed = (float(n or 0) for n in _work(context))
        rounds.append(
            {
                "tokens_per_step": tokens / num_steps,
                "tokens_per_s": tokens / seconds,
                "real_token_fraction": tokens / processed,
                "matmul_rate": rate,
                "utilisation": operations / seconds / rate,
            }
        )
    return {name: spread([r[name] for r in rounds]) for name in rounds[0]} | job.compute.choices


def _work(context: Context) -> tuple[float | None, float | None, float | None]:
    counts = context.counts
    return counts.num_operations, counts.num_tokens, counts.num_processed_tokens


def overhead() -> dict[str, Any]:
    """CPU-seconds of our loop over those of a bare one, five times in turn."""
    job, config = distillation(), replace(CONFIG, max_steps=80)

    def in_a_run() -> None:
        with tempfile.TemporaryDirectory() as folder, Run(Path(folder) / "run") as run:
            run.begin("training_loop", {"seed": 0})
            run.phase("train", lambda context: fit(job, config, context))

    in_a_run()  # starts what is started once in a process
    ratios: dict[str, list[float]] = {"fit": [], "fit in a run": []}
    for _ in range(5):
        least = cpu_s(lambda: bare(job, config))
        ratios["fit"].append(cpu_s(lambda: fit(job, config)) / least)
        ratios["fit in a run"].append(cpu_s(in_a_run) / least)
    return {name: spread(values) for name, values in ratios.items()}


NUM_LINEAR_STEPS, EARLY, LATE = 10_000, (1_000, 2_000), (9_000, 10_000)
NUM_BESIDE = 5
"""Bare steps at each reading."""


class Reading(NamedTuple):
    """Where a training is, about once a second."""

    step: int
    seconds: float
    """Of the clock of `clock_of`, without those of bare steps."""
    num_tokens: int
    resident_mb: float
    bare_step_s: float
    """What a bare step took at that moment."""


def linear() -> dict[str, Any]:
    """Time per thousand real tokens and resident memory, early and late in ten thousand steps of a small student."""
    job = distillation()
    small = students.keep_layers(job.student, 1)
    job = replace(job, student=small, train=job.train.take(np.arange(2048)))
    config = replace(CONFIG, batch_size=8, max_steps=NUM_LINEAR_STEPS)
    clock = "CPU time" if job.compute.device == "cpu" else "time"
    return {"clock": clock} | evenness(readings(job, config), EARLY, LATE)


def readings(job: Job, config: TrainConfig) -> list[Reading]:
    """What `fit` took so far whenever it logs, with a few bare steps, always over the same batch, between its own."""
    beside, counted, clock = Bare(job, config), Context(), clock_of(job.compute)
    batch = batches.collate(job.train, plan_of(job, config).indices(0))
    beside.step(batch)
    found: list[Reading] = []
    paid_s = 0.0

    def note(_: Any) -> None:
        nonlocal paid_s
        begin, counts = clock(), counted.counts
        for _ in range(NUM_BESIDE):
            beside.step(batch)
        bare_step_s = (clock() - begin) / NUM_BESIDE
        step, resident_mb = (counts.num_examples or 0) // config.batch_size, psutil.Process().memory_info().rss / 1e6
        found.append(Reading(step, begin - paid_s, counts.num_tokens or 0, resident_mb, bare_step_s))
        paid_s += clock() - begin

    fit(job, config, replace(counted, log=note))
    return found


def evenness(found: Sequence[Reading], early: tuple[int, int], late: tuple[int, int]) -> dict[str, Any]:
    """Of two windows of steps: time per token, memory, and the ratio of late to early, each over its bare steps."""
    parts: dict[str, dict[str, float]] = {}
    for name, (begin, end) in (("first", early), ("last", late)):
        inside = [reading for reading in found if begin <= reading.step <= end]
        tokens, seconds = inside[-1].num_tokens - inside[0].num_tokens, inside[-1].seconds - inside[0].seconds
        parts[name] = {
            "ms_per_1000_tokens": 1e6 * seconds / tokens,
            "bare_step_ms": 1e3 * statistics.fmean(reading.bare_step_s for reading in inside),
            "resident_mb": statistics.median(reading.resident_mb for reading in inside),
            "num_readings": len(inside),
        }
    of_time, of_bare = (parts["last"][key] / parts["first"][key] for key in ("ms_per_1000_tokens", "bare_step_ms"))
    return {"windows": [early, late], **parts, "ratio": of_time / of_bare, "ratio_of_time": of_time}


def clock_of(compute: Compute) -> Callable[[], float]:
    """CPU-seconds of this process; on a GPU, for which it only waits, seconds once that is idle."""
    if compute.device == "cpu":
        return time.process_time

    def idle_s() -> float:
        compute.synchronize()
        return time.perf_counter()

    return idle_s


KINDS = {
    "matrix products of linear layers": ("mm", "addmm", "linear"),
    "matrix products and softmax of attention": ("bmm", "baddbmm", "softmax", "scaled_dot", "masked_fill"),
    "GELU": ("gelu",),
    "layer norms": ("native_layer_norm",),
    "AdamW": ("fused_adamw",),
    "norm of the gradient": ("linalg_vector_norm", "foreach_norm"),
    "copies and casts": ("copy", "to_copy", "contiguous", "cat", "index", "embedding"),
    "sums and additions": ("add", "sum", "mul", "div"),
}
OTHER_OPERATIONS, AUTOGRAD, REST = "any other operation", "autograd between operations", "the loop's own Python"
LOSS = "Python of model and loss"
PYTHON = {
    "Optimizer.": "Python of the optimizer",
    "enumerate(DataLoader)": "torch's DataLoader",
    **{name: name for name in ("collate", "plan", "hash of the examples", "logger", LOSS, REST)},
}
"""Parts that are no operations, by how their names begin in a profile."""
NAMED = (
    (batches, "collate", "collate"),
    (batches.Plan, "indices", "plan"),
    (files, "sha256_json", "hash of the examples"),
    (StepLogger, "step", "logger"),
)
"""Functions of a step that get a name there."""


def profile_step() -> dict[str, Any]:
    """Milliseconds of a step by operation and by part of the loop's Python."""
    return profile_of(distillation(), short=10, long=40)


def profile_of(job: Job, *, short: int, long: int, num_rounds: int = 3) -> dict[str, Any]:
    """Of the steps by which a long training is longer than a short one, so that the beginning is not counted."""
    job, count = replace(job, loss_fn=_named(job.loss_fn, LOSS)), long - short
    fits = {steps: functools.partial(fit, job, replace(CONFIG, max_steps=steps)) for steps in (short, long)}
    fits[long]()  # meets every length, for which machine code is made
    rounds = [{steps: wall_s(job.compute, function) for steps, function in fits.items()} for _ in range(num_rounds)]
    step_ms = 1e3 * statistics.median(taken[long] - taken[short] for taken in rounds) / count
    of_short, of_long = (parts_ms(job.compute, fits[steps]) for steps in (short, long))
    parts = {name: (of_long[name] - of_short[name]) / count for name in of_long}
    return {"step_ms": step_ms, **_summed(parts, step_ms, job.compute)}


def profile_teacher_pass() -> dict[str, Any]:
    """Milliseconds per 1,000 tokens of a teacher's pass by operation, and what its products need at the matmul rate."""
    teacher, _, _ = models.load_classifier(TEACHER, [str(i) for i in range(NUM_CLASSES)], max_length=64)
    texts = data.load_python_docs().train.take(np.arange(1000))
    tokens = texts.tokenize(teacher.tokenizer, max_length=64).require_tokens()
    compute = models.choose_compute(model=teacher, tokens=tokens)
    thousands, counted = tokens.lengths.sum() / 1000, Context()

    def forward() -> None:
        models.forward_all(teacher, tokens, compute=compute)

    models.forward_all(teacher, tokens, compute=compute, context=counted)
    whole_ms = 1e3 * statistics.median(wall_s(compute, forward) for _ in range(3)) / thousands
    parts = {name: ms / thousands for name, ms in parts_ms(compute, forward).items()}
    rates = [models.matmul_rate(compute.device, compute.number_format) for _ in range(9)]
    floor_ms = 1e3 * (counted.counts.num_operations or 0.0) / statistics.median(rates) / thousands
    return {"ms": whole_ms, "floor_ms": floor_ms, **_summed(parts, whole_ms, compute)}


def _summed(parts: dict[str, float], whole_ms: float, compute: Compute) -> dict[str, Any]:
    """The parts with their sum; on a GPU, where they are its kernels, with the time in which it had none."""
    if compute.device == "cpu":
        return {"profiled_step_ms": sum(parts.values()), "parts_ms": parts}
    return {"kernels_ms": sum(parts.values()), "parts_ms": parts | {"no kernel": whole_ms - sum(parts.values())}}


def parts_ms(compute: Compute, function: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of a call by kind of operation and part of the Python.

    They are those of the GPU if it ran there. Those of the processor add up to the whole call, since all that has no
    name of its own is in the last part.
    """
    on_gpu = compute.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with _names_in_profile(), profile(activities=activities) as seen, record_function(REST):
        function()
        compute.synchronize()
    parts = dict.fromkeys([*KINDS, OTHER_OPERATIONS, AUTOGRAD, *PYTHON.values()], 0.0)
    for event in seen.key_averages():
        if event.device_type.name == "CPU":  # kernels stand there once more, beside the operations that began them
            parts[_part_of(event.key)] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3
    return parts


def _part_of(key: str) -> str:
    """The part that an event of a profile belongs to."""
    if found := next((part for begin, part in PYTHON.items() if key.startswith(begin)), None):
        return found
    if "::" not in key or key.startswith(("autograd::", "torch::autograd")):
        return AUTOGRAD
    name = key.partition("::")[2].lstrip("_").lower()
    return next((kind for kind, words in KINDS.items() if name.startswith(words)), OTHER_OPERATIONS)


@contextlib.contextmanager
def _names_in_profile() -> Iterator[None]:
    """Let a profile tell the functions of `NAMED` apart."""
    with contextlib.ExitStack() as stack:
        for owner, attribute, label in NAMED:
            stack.enter_context(mock.patch.object(owner, attribute, _named(getattr(owner, attribute), label)))
        yield


def _named(function: Callable[..., Any], label: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def named(*args: Any, **options: Any) -> Any:
        with record_function(label):
            return function(*args, **options)

    return named


def wall_s(compute: Compute, function: Callable[[], None]) -> float:
    """Of a call, until the device has done it."""
    begin = time.perf_counter()
    function()
    compute.synchronize()
    return time.perf_counter() - begin


def cpu_s(function: Callable[[], None]) -> float:
    """CPU-seconds of a call."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


MEASUREMENTS = {
    "share": share,
    "language_share": language_share,
    "overhead": overhead,
    "linear": linear,
    "profile": profile_step,
    "teacher_pass": profile_teacher_pass,
}


def machine_of(compute: Compute) -> dict[str, Any]:
    """Device, format and software of a measurement; each has its own, since they may be taken at different times."""
    found, (commit, is_dirty) = environment(energy_labels={}, tracking_mode="none"), git_state()
    return {
        "device": compute.device,
        "number_format": compute.number_format,
        "processor": found.processor,
        "num_cores": found.num_cores,
        "num_threads": compute.num_threads,
        "gpu": torch.cuda.get_device_name() if compute.device == "cuda" else None,
        "vector_instructions": found.vector_instructions,
        "torch": torch.__version__,
        "git_commit": commit,
        "git_dirty": is_dirty,
    }


def main() -> None:
    """Measure what was asked for, print it, and put it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument(
        "--machine", metavar="NAME", help="part of the file's name, where another has been measured too"
    )
    arguments = parser.parse_args()
    compute = models.choose_compute()
    of_machine = f"{arguments.machine}_" if arguments.machine else ""
    path = RESULTS / f"training_loop_{of_machine}{compute.device}_{compute.number_format}.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results["machine"] = machine_of(compute)
    for name in arguments.only:
        results[name] = MEASUREMENTS[name]()
        results.setdefault("measured_on", {})[name] = results["machine"]
        print(json.dumps({name: results[name]}, indent=1))
        files.write_text(path, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
