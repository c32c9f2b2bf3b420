"""Where the time of a training step goes, what our loop adds to a bare one, and whether ten thousand steps stay even.

Run:       python benchmarks/training_loop.py [--only NAME ...]
           on an idle machine; needs the extra `quickstart`, no network, and about ten minutes.
Reads:     `share`, operations per second over the matmul rate measured in the same run, and real tokens over processed
           ones, at 4,096 real tokens a step or more; `language_share`, the same of a language model. `overhead`, CPU
           time of `fit`, alone and in a run with energy, metrics and journal, over that of the same steps in plain
           torch; in turn, in one process. `linear`, time per token and resident memory of the first thousand of ten
           thousand steps, and of the last. `profile`, the milliseconds of a step by operation; `teacher_pass`, those of
           a pass without gradients. Results go to benchmarks/results/training_loop_<number format>.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from smallmodels import data, losses, models, students, teachers, training
from smallmodels.data import Batch, batches
from smallmodels.data.splits import Split
from smallmodels.environment import environment
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig

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


def bare(job: Job, config: TrainConfig) -> None:
    """The same steps in plain torch."""
    network = job.compute.place(job.student.copy().model).eval().requires_grad_(True)
    for table in (m for m in network.modules() if isinstance(m, torch.nn.Embedding)):
        table.requires_grad_(False)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, fused=True)
    plan = batches.Plan(job.train.require_tokens().lengths, batch_size=config.batch_size, seed=0)
    for step in range(config.max_steps or 0):
        batch = batches.collate(job.train, plan.indices(step))
        with job.compute.autocast():
            loss = soft_loss(network, batch).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


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


def linear() -> dict[str, Any]:
    """Milliseconds per thousand real tokens and resident memory, over ten thousand steps of a small student."""
    job = distillation()
    small = students.keep_layers(job.student, 1)
    job = replace(job, student=small, train=job.train.take(np.arange(2048)))
    lines: list[tuple[int, float, int, int]] = []
    counted = Context()

    def note(_: Any) -> None:
        resident = psutil.Process().memory_info().rss
        lines.append((counted.counts.num_examples or 0, time.process_time(), counted.counts.num_tokens or 0, resident))

    config = replace(CONFIG, batch_size=8, max_steps=10_000)
    fit(job, config, replace(counted, log=note))
    parts = {}
    for name, first, last in (("first", 200, 1_000), ("last", 9_000, 10_000)):
        inside = [line for line in lines if first * 8 <= line[0] <= last * 8]
        tokens, seconds = inside[-1][2] - inside[0][2], inside[-1][1] - inside[0][1]
        memory = statistics.median(line[3] for line in inside) / 1e6
        parts[name] = {"cpu_ms_per_1000_tokens": 1e6 * seconds / tokens, "resident_mb": memory}
    return parts | {"ratio": parts["last"]["cpu_ms_per_1000_tokens"] / parts["first"]["cpu_ms_per_1000_tokens"]}


KINDS = {
    "matrix products of linear layers": ("mm", "addmm", "linear"),
    "matrix products and softmax of attention": ("bmm", "baddbmm", "softmax", "scaled_dot", "masked_fill"),
    "GELU": ("gelu",),
    "layer norms": ("native_layer_norm",),
    "AdamW": ("fused_adamw",),
    "norm of the gradient": ("linalg_vector_norm", "foreach_norm"),
    "copies and casts": ("copy", "_to_copy", "contiguous", "cat", "index", "embedding"),
    "sums and additions": ("add", "sum", "mul", "div"),
}


def profile_step() -> dict[str, Any]:
    """Milliseconds of a step by operation, the rest being Python, views and allocation."""
    job, num_steps = distillation(), 30
    fit(job, replace(CONFIG, max_steps=3))
    begin = time.perf_counter()
    fit(job, replace(CONFIG, max_steps=num_steps))
    whole_ms = 1e3 * (time.perf_counter() - begin) / num_steps
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        fit(job, replace(CONFIG, max_steps=num_steps))
    return {"step_ms": whole_ms, "parts_ms": _parts_ms(seen, num_steps)}


def profile_teacher_pass() -> dict[str, Any]:
    """Milliseconds per 1,000 tokens of a teacher's pass by operation, and what its products need at the matmul rate."""
    teacher, _, _ = models.load_classifier(TEACHER, [str(i) for i in range(NUM_CLASSES)], max_length=64)
    texts = data.load_python_docs().train.take(np.arange(1000))
    tokens = texts.tokenize(teacher.tokenizer, max_length=64).require_tokens()
    compute = models.choose_compute(model=teacher, tokens=tokens)
    thousands, counted = tokens.lengths.sum() / 1000, Context()
    models.forward_all(teacher, tokens, compute=compute)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        models.forward_all(teacher, tokens, compute=compute)
        seconds.append(time.perf_counter() - begin)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        models.forward_all(teacher, tokens, compute=compute, context=counted)
    rates = [models.matmul_rate(compute.device, compute.number_format) for _ in range(9)]
    floor_ms = 1e3 * (counted.counts.num_operations or 0.0) / statistics.median(rates) / thousands
    whole_ms = 1e3 * statistics.median(seconds) / thousands
    return {"ms": whole_ms, "floor_ms": floor_ms, "parts_ms": _parts_ms(seen, thousands)}


def _parts_ms(seen: Any, count: float) -> dict[str, float]:
    """Milliseconds by kind of operation, over a count of steps or tokens."""
    parts = dict.fromkeys([*KINDS, "anything else"], 0.0)
    for event in seen.key_averages():
        name = event.key.removeprefix("aten::").lstrip("_").lower()
        kind = next((kind for kind, words in KINDS.items() if any(name.startswith(w) for w in words)), "anything else")
        parts[kind] += event.self_cpu_time_total / 1e3 / count
    return parts


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


def main() -> None:
    """Measure what was asked for, print it, and put it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    path = RESULTS / f"training_loop_{models.choose_compute().number_format}.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in parser.parse_args().only:
        results[name] = MEASUREMENTS[name]()
        print(json.dumps({name: results[name]}, indent=1))
    machine = environment(energy_labels={}, tracking_mode="none")
    results["machine"] = {
        "processor": machine.processor,
        "num_cores": machine.num_cores,
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
