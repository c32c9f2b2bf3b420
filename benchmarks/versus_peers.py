"""The same jobs with us and with peers, side by side on one machine: who is faster, at what quality and memory.

Each job is a sweep over recipes in benchmarks/peers/, one file per contender, that runs them in turn with several
seeds, each in a fresh process. Data, teacher, student, cut of the texts, number of examples and number of threads are
the same on both sides; both take the number format that is fast on the machine, except where a peer's defaults are the
contender. A pair is two runs of one seed.

Run:    pip install '.[peers,quickstart]'
        smallmodels sweep benchmarks/versus_peers.py      on an otherwise idle machine; into runs/, goes on if stopped
        python benchmarks/versus_peers.py runs            keeps the records, writes the table
        python benchmarks/versus_peers.py                 writes the table from the records that are kept
        Where bf16 is fast, once more with ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 for the rows in fp32.
Reads:  benchmarks/results/versus_peers.md. A ratio is the peer's cost over ours, so more than 1 is in our favour, and
        memory's is ours over the peer's. It is the median over the pairs, with the smallest and largest. Counted are
        the phases `cache` and `train`: all that has to be done again for another student, the teacher's pass included;
        of ours also `setup`, in which we measure what is fast here.
        Epochs after the first are the phase `train` alone.
        Joules are marked as estimated where the machine has no counter for them; time and CPU-seconds are measured.
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import files, records, sweeps
from smallmodels.errors import InputError
from smallmodels.records import Phase, RunRecord
from smallmodels.report import formats
from smallmodels.sweeps import Sweep

ROOT = Path(__file__).resolve().parents[1]
RESULTS, TABLE = "benchmarks/results/versus_peers", "benchmarks/results/versus_peers.md"
COUNTED, ALSO_OURS = ("cache", "train"), "setup"
SUMMARY_BEGIN, SUMMARY_END = "<!-- speed:begin -->", "<!-- speed:end -->"
OTHER_RESULTS = ("large_data.json", "signal_cache.json")
LOOP_RESULTS = "training_loop_*.json"
"""One file for each number format."""
MIN_PAIRS = 3
QUALITY_MARGIN = 0.005
"""By how much ours may be below the peer's quality: half a point."""


NUM_TEXTS, NUM_ENTRIES = 4000, 600
"""Of Banking77 and of Python's documentation to train on, so that three rounds of all end within one and a half hours
on two cores."""

NUM_LM_TEXTS, LM_EPOCHS = 96, 3
"""Of GSM8K for language models; a live teacher that compares whole vocabularies makes a few hundred tokens a second,
and half as many in fp32, whose rows are of 24."""


def job(*contenders: str, metric: str, **settings: int) -> Sweep:
    """Three runs of each contender, in turn, with settings that all have."""
    recipes = tuple(f"benchmarks/peers/{name}.py" for name in contenders)
    axes = {**{name.replace("__", "."): (value,) for name, value in settings.items()}, "seed": (0, 1, 2)}
    return Sweep(recipes=recipes, axes=axes, metric=metric, margin=QUALITY_MARGIN, order="alternate")


SWEEPS = {
    # One epoch is enough for a teacher whose answers are only counted. The first run of a job makes the teacher that
    # its others find in the cache.
    "teacher_pass": job("ours_teacher_pass", "pipeline_teacher_pass", metric="accuracy", teacher_train__num_epochs=1),
    "distillation": job(
        "ours_distillation",
        "trainer_distillation",
        "trainer_distillation_tuned",
        metric="accuracy",
        max_train=NUM_TEXTS,
    ),
    "finetuning": job("ours_finetuning", "trainer_finetuning_tuned", metric="accuracy", max_train=NUM_TEXTS),
    "embedding": job("ours_embedding", "sentence_transformers_embedding", metric="mrr_at_10", max_entries=NUM_ENTRIES),
    "lm_distillation": job(
        "ours_lm_distillation", "trl_distillation", metric="next_token_accuracy", max_train=NUM_LM_TEXTS
    ),
    "lm_finetuning": job("ours_lm_finetuning", "trl_finetuning", metric="next_token_accuracy", max_train=NUM_LM_TEXTS),
}


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A job that we and a peer do, and how many times faster we want to be."""

    job: str
    """With `{texts}` where the number of training texts belongs, which may differ between number formats."""
    against: str
    ours: str
    """Name of our recipe."""
    peer: str
    reach: float
    """Smallest ratio of seconds that is wanted."""
    number_format: str | None = None
    """That the row is for; None is any."""
    reach_cpu: float | None = None
    """Smallest ratio of CPU-seconds that is wanted, where one is."""
    phases: tuple[str, ...] | None = None
    """That are counted, on both sides; None is all that has to be done again for another student."""
    reach_was_for: str | None = None
    """Number format that the target was set for, where that is another one."""


_DISTILLATION = f"Encoder distillation on {NUM_TEXTS:,} texts, the teacher's pass included"
_DEFAULTS = "transformers' Trainer with a live teacher, its defaults"
_TUNED = "the same, everything that makes it faster switched on"
_FINETUNING = f"Encoder fine-tuning on {NUM_TEXTS:,} texts without a teacher"
_GKD = "TRL's GKD with a live teacher, lmbda 0"
_LM_DISTILLATION = "Language-model distillation on {texts} examples, "

_LANGUAGE = (
    Contest(
        job=f"{_LM_DISTILLATION}epochs after the first, the teacher's pass not counted",
        against=_GKD,
        ours="ours_lm_distillation",
        peer="trl_distillation",
        reach=12.0,
        phases=("train",),
    ),
    Contest(
        job=_LM_DISTILLATION + f"{LM_EPOCHS} epochs, the teacher's pass included",
        against=_GKD,
        ours="ours_lm_distillation",
        peer="trl_distillation",
        reach=6.0,
    ),
    Contest(
        job="Language-model fine-tuning on {texts} examples, tokens per second of training",
        against="TRL's SFTTrainer with packing",
        ours="ours_lm_finetuning",
        peer="trl_finetuning",
        reach=2.0,
        phases=("train",),
    ),
)
"""In the number format that the machine has; the targets were set for bf16."""

CONTESTS = (
    Contest(
        job=_DISTILLATION,
        against=_DEFAULTS,
        ours="ours_distillation",
        peer="trainer_distillation",
        reach=8.0,
        reach_cpu=8.0,
        number_format="bf16",
    ),
    Contest(
        job=_DISTILLATION,
        against=_TUNED,
        ours="ours_distillation",
        peer="trainer_distillation_tuned",
        reach=3.0,
        number_format="bf16",
    ),
    Contest(
        job=_FINETUNING,
        against="the tuned Trainer",
        ours="ours_finetuning",
        peer="trainer_finetuning_tuned",
        reach=1.5,
        number_format="bf16",
    ),
    Contest(
        job=f"Embedding distillation, {NUM_ENTRIES:,} entries of quickstart's data",
        against="sentence-transformers with its MSE loss",
        ours="ours_embedding",
        peer="sentence_transformers_embedding",
        reach=2.0,
        number_format="bf16",
    ),
    Contest(
        job=f"Embedding distillation, {NUM_ENTRIES:,} entries of quickstart's data",
        against="sentence-transformers with its MSE loss",
        ours="ours_embedding",
        peer="sentence_transformers_embedding",
        reach=2.0,
        number_format="fp32",
    ),
    Contest(
        job="Teacher's pass over 10,003 short texts",
        against="transformers' pipeline, 32 at once",
        ours="ours_teacher_pass",
        peer="pipeline_teacher_pass",
        reach=5.0,
    ),
    Contest(
        job=_DISTILLATION,
        against=_DEFAULTS,
        ours="ours_distillation",
        peer="trainer_distillation",
        reach=4.0,
        reach_cpu=4.0,
        number_format="fp32",
    ),
    Contest(
        job=_DISTILLATION,
        against=_TUNED,
        ours="ours_distillation",
        peer="trainer_distillation_tuned",
        reach=1.6,
        number_format="fp32",
    ),
    Contest(
        job=_FINETUNING,
        against="the tuned Trainer",
        ours="ours_finetuning",
        peer="trainer_finetuning_tuned",
        reach=1.1,
        number_format="fp32",
    ),
    *(
        dataclasses.replace(
            contest, number_format=number_format, reach_was_for=None if number_format == "bf16" else "bf16"
        )
        for number_format in ("bf16", "fp32")
        for contest in _LANGUAGE
    ),
)

TOKENS_REACH, TOKENS_PER_STEP = 0.95, 4096
MEMORY_REACH = {
    ("ours_distillation", "trainer_distillation_tuned"): ("encoder distillation, against the tuned Trainer", 0.6),
    ("ours_lm_distillation", "trl_distillation"): ("language-model distillation, against TRL's GKD", 0.35),
}
"""Largest share of a peer's memory that is wanted."""
SHARE_REACH = {("cpu", "bf16"): 0.5, ("cuda", "bf16"): 0.45}
"""Smallest share of the matmul rate that is wanted, by device and number format."""


# What a record says


def counted(record: RunRecord, phases: tuple[str, ...] | None = None) -> list[Phase]:
    """The phases whose cost is compared: those of a contest, or `COUNTED` and of ours `ALSO_OURS`.

    Raises: InputError if a part of it was paid by another run.
    """
    names = phases or ((ALSO_OURS, *COUNTED) if record.recipe.startswith("ours_") else COUNTED)
    found = [phase for phase in record.phases if phase.name in names]
    if not any(phase.name in COUNTED for phase in found) or any(phase.shared_cpu_s != 0 for phase in found):
        raise InputError(
            f"{cell_name(record)} should have paid for {' and '.join(COUNTED)} itself, but did not: run it again"
        )
    return found


def seconds(record: RunRecord, phases: tuple[str, ...] | None = None) -> float:
    """Of the counted phases."""
    return sum(phase.duration_s for phase in counted(record, phases))


def cpu_seconds(record: RunRecord, phases: tuple[str, ...] | None = None) -> float:
    """Of the counted phases."""
    return sum(phase.cpu_s for phase in counted(record, phases))


def joules(record: RunRecord, phases: tuple[str, ...] | None = None) -> float | None:
    """Of the counted phases; None if those of one are not known."""
    return records.cost_of(counted(record, phases), (ALSO_OURS, *COUNTED))[0]


def memory_mb(record: RunRecord) -> float | None:
    """Highest resident memory of the counted phases, above what the imports take.

    None where the system does not tell, and where this very process had fine-tuned the teacher, which leaves traces.
    """
    teacher, imports = record.phase("teacher"), record.phase("imports")
    if imports is None or imports.peak_memory_mb is None or (teacher and teacher.num_examples):
        return None
    peaks = Spread.of(phase.peak_memory_mb for phase in counted(record))
    return peaks.high - imports.peak_memory_mb if peaks else None


def real_token_share(record: RunRecord) -> float | None:
    """Real tokens over processed ones in the counted phases that count both."""
    both = [(p.num_tokens, p.num_processed_tokens) for p in counted(record) if p.num_tokens and p.num_processed_tokens]
    return sum(tokens for tokens, _ in both) / sum(processed for _, processed in both) if both else None


def tokens_per_step(record: RunRecord) -> float | None:
    """Mean number of real tokens in an optimizer step of ours."""
    train, config = record.phase("train"), record.config.get("train")
    if train is None or config is None or not train.num_examples or not train.num_tokens:
        return None
    return float(config["batch_size"] * train.num_tokens / train.num_examples)


def utilisation(record: RunRecord) -> float | None:
    """Share of the machine's matmul rate in training, else in the teacher's pass."""
    return counted(record)[-1].utilisation


def quality(record: RunRecord, split: str = "test") -> float | None:
    """The student's metric; a teacher's pass has only the training split."""
    result = record.result("student", split) or record.result("student", "train")
    return result.metrics[record.metric].value if result else None


def device(record: RunRecord) -> tuple[str, str]:
    """Where and in which number format: cpu and fp32."""
    return str(record.model["device"]), str(record.model["number_format"])


def seed(record: RunRecord) -> int:
    """Of the run."""
    return int(record.config["seed"])


def cell_name(record: RunRecord) -> str:
    """Name of the folder that keeps a record."""
    return f"{record.recipe}-{'-'.join(device(record))}-s{seed(record)}"


# Pairs


Pair = tuple[RunRecord, RunRecord]
"""Ours and the peer's, of one seed."""


@dataclass(frozen=True)
class Spread:
    """The median of several values, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of these values; None if there are none, or one is not known."""
        found = list(values)
        known = [value for value in found if value is not None]
        return cls(statistics.median(known), min(known), max(known)) if known and len(known) == len(found) else None

    def __str__(self) -> str:
        return f"{formats.number(self.median)} ({formats.number(self.low)}–{formats.number(self.high)})"


def pairs_of(found: Sequence[RunRecord], ours: str, peer: str, number_format: str | None = None) -> list[Pair]:
    """Ours and the peer's by seed, on a processor, in one number format if it is given.

    Raises: InputError if two runs of a pair are not of one machine and one sweep.
    """
    on_processor = [r for r in found if device(r)[0] == "cpu" and number_format in (None, device(r)[1])]
    by_cell = {(r.recipe, *device(r), seed(r)): r for r in on_processor}
    pairs = []
    for (recipe, *rest), record in sorted(by_cell.items()):
        other = by_cell.get((peer, *rest))  # type: ignore[arg-type]
        if recipe != ours or other is None:
            continue
        if (record.environment.fingerprint, record.sweep_id) != (other.environment.fingerprint, other.sweep_id):
            raise InputError(
                f"{cell_name(record)} and {cell_name(other)} should have run side by side, but are of two machines or "
                "sweeps: run the sweep again"
            )
        pairs.append((record, other))
    return pairs


def job_name(contest: Contest, pairs: Sequence[Pair]) -> str:
    """Of a contest, with the number of texts that its pairs trained on."""
    if "{texts}" not in contest.job:
        return contest.job
    counts = sorted({ours.config["max_train"] for ours, _ in pairs}) or [NUM_LM_TEXTS]
    return contest.job.format(texts=" or ".join(f"{count:,}" for count in counts))


def ratio(
    pairs: Sequence[Pair], cost: Callable[..., float | None], phases: tuple[str, ...] | None = None
) -> Spread | None:
    """The peer's cost over ours, over the pairs; of these phases, if they are given."""
    costs = [(cost(ours, phases), cost(peer, phases)) for ours, peer in pairs]
    return Spread.of(theirs / own if own and theirs is not None else None for own, theirs in costs)


def quality_difference(pairs: Sequence[Pair]) -> Spread | None:
    """Ours minus the peer's."""
    both = [(quality(ours), quality(peer)) for ours, peer in pairs]
    return Spread.of(own - theirs if own is not None and theirs is not None else None for own, theirs in both)


def verdict(contest: Contest, pairs: Sequence[Pair]) -> str:
    """Whether the target is met: enough pairs, no worse quality, fast enough."""
    difference = quality_difference(pairs)
    in_seconds, in_cpu = (ratio(pairs, cost, contest.phases) for cost in (seconds, cpu_seconds))
    assert in_seconds is not None
    assert in_cpu is not None
    missed = []
    if len(pairs) < MIN_PAIRS:
        missed.append(f"{len(pairs)} of {MIN_PAIRS} pairs")
    if difference is None or difference.median < -QUALITY_MARGIN:
        missed.append("quality is lower")
    if in_seconds.median < contest.reach:
        missed.append("seconds")
    if contest.reach_cpu and in_cpu.median < contest.reach_cpu:
        missed.append("CPU-seconds")
    return f"not met: {', '.join(missed)}" if missed else "met"


# The table


def contest_row(contest: Contest, found: Sequence[RunRecord]) -> list[str]:
    """Job, peer, number format, target, what was measured, and whether that is enough."""
    pairs = pairs_of(found, contest.ours, contest.peer, contest.number_format)
    used = {device(ours)[1] for ours, _ in pairs}
    head = [
        job_name(contest, pairs),
        contest.against,
        contest.number_format or ", ".join(sorted(used)) or formats.MISSING,
    ]
    also = ", also in CPU-s" if contest.reach_cpu else ""
    head.append(
        f"≥ {contest.reach:g} ×{also}" + (f", set for {contest.reach_was_for}" if contest.reach_was_for else "")
    )
    if not pairs:
        return [*head, *[formats.MISSING] * 5, "0", _not_measured(contest.number_format, found)]
    metric = pairs[0][0].metric
    qualities = [Spread.of(quality(pair[side]) for pair in pairs) for side in (0, 1)]
    shown = " / ".join(formats.quality(metric, value.median if value else None) for value in qualities)
    difference = quality_difference(pairs)
    return [
        *head,
        str(ratio(pairs, seconds, contest.phases)),
        str(ratio(pairs, cpu_seconds, contest.phases)),
        _joules_words(pairs, contest.phases),
        f"{formats.metric_name(metric)} {shown}",
        _difference_words(metric, difference),
        str(len(pairs)),
        verdict(contest, pairs),
    ]


def _joules_words(pairs: Sequence[Pair], phases: tuple[str, ...] | None) -> str:
    value = ratio(pairs, joules, phases)
    if value is None:
        return formats.MISSING
    are_counted = all(record.energy_is_counted for pair in pairs for record in pair)
    return str(value) if are_counted else f"{value} estimated"


def _difference_words(metric: str, difference: Spread | None) -> str:
    if difference is None:
        return formats.MISSING
    sign = "+" if difference.median >= 0 else "−"
    is_within = abs(difference.median) <= QUALITY_MARGIN
    return f"{sign}{formats.difference(metric, difference.median)}, {'within' if is_within else 'beyond'} half a point"


def _not_measured(number_format: str | None, found: Sequence[RunRecord]) -> str:
    if not found or number_format is None:
        return "not measured"
    if number_format == "bf16":
        return "not measured yet on a processor with bf16 units"
    return "not measured: no runs in fp32"


def own_rows(found: Sequence[RunRecord]) -> list[list[str]]:
    """The targets that are about our runs alone, or about memory."""
    mine = [ours for ours, _ in pairs_of(found, "ours_distillation", "trainer_distillation_tuned")]
    rows = [_memory_row(found, *names, *words) for names, words in MEMORY_REACH.items()]
    tokens = Spread.of(real_token_share(record) for record in mine)
    rows.append(
        [
            "Real tokens over processed tokens, encoder distillation",
            f"≥ {TOKENS_REACH:g}",
            *_judged(tokens, len(mine), tokens is not None and tokens.median >= TOKENS_REACH),
        ]
    )
    for (where, number_format), reach in SHARE_REACH.items():
        name = {"cpu": "processor", "cuda": "GPU"}[where]
        rows.append(
            [
                f"Share of the {name}'s matmul rate in {number_format}, {TOKENS_PER_STEP:,} real tokens a step or more",
                f"≥ {100 * reach:.0f} %",
                *_share_words([r for r in found if r.recipe == "ours_distillation"], where, number_format, reach),
            ]
        )
    by_format = {name: [r for r in found if device(r)[1] == name] for name in sorted({device(r)[1] for r in found})}
    for number_format, some in by_format.items():
        bounds = [_bound_row(contest, some) for contest in _LANGUAGE if pairs_of(some, contest.ours, contest.peer)]
        rows += [[f"{what}, in {number_format}", *rest] for what, *rest in bounds]
    return rows


def _bound_row(contest: Contest, found: Sequence[RunRecord]) -> list[str]:
    """How far faster code alone could bring us: the same operations at the machine's whole matmul rate."""
    pairs = pairs_of(found, contest.ours, contest.peer)
    best = max((rate for ours, _ in pairs for rate in _rates(ours, contest.phases)), default=0.0)
    bounds = Spread.of(
        _over(seconds(peer, contest.phases), _busy_s(ours, contest.phases, best)) for ours, peer in pairs
    )
    words = [str(bounds) if bounds else formats.MISSING, str(len(pairs)), "a bound, no target"]
    return [
        f"Times as fast at all of the matmul rate: {job_name(contest, pairs)}",
        f"≥ {contest.reach:g} × is wanted",
        *words,
    ]


def _rates(record: RunRecord, phases: tuple[str, ...] | None) -> list[float]:
    """The matmul rate that was measured in a run, as its counted phases tell it: low if others worked too."""
    return [
        phase.num_operations / (phase.duration_s * phase.utilisation)
        for phase in counted(record, phases)
        if phase.num_operations and phase.utilisation
    ]


def _busy_s(record: RunRecord, phases: tuple[str, ...] | None, rate: float) -> float | None:
    """Seconds that the operations of the counted phases take at a rate."""
    return sum(phase.num_operations or 0 for phase in counted(record, phases)) / rate if rate else None


def _memory_row(found: Sequence[RunRecord], ours: str, peer: str, job: str, reach: float) -> list[str]:
    shares = [_over(memory_mb(mine), memory_mb(theirs)) for mine, theirs in pairs_of(found, ours, peer)]
    known = [share for share in shares if share is not None]  # not of the pair whose process fine-tuned the teacher
    memory = Spread.of(known)
    judged = _judged(memory, len(known), memory is not None and memory.median <= reach)
    return [f"Peak memory above the imports, {job}", f"≤ {reach:g} ×", *judged]


def _over(own: float | None, theirs: float | None) -> float | None:
    return own / theirs if own is not None and theirs else None


def _judged(value: Spread | None, count: int, is_met: bool) -> list[str]:
    if value is None:
        return [formats.MISSING, str(count), "not measured"]
    enough = "" if count >= MIN_PAIRS else f", by {count} of {MIN_PAIRS} runs"
    return [str(value), str(count), ("met" if is_met else "not met") + enough]


def _share_words(mine: Sequence[RunRecord], where: str, number_format: str, reach: float) -> list[str]:
    there = [record for record in mine if device(record) == (where, number_format)]
    if not there:
        return [formats.MISSING, "0", f"not measured: no such {'GPU' if where == 'cuda' else 'processor'} here"]
    large = [record for record in there if (tokens_per_step(record) or 0) >= TOKENS_PER_STEP]
    if not large:
        return [formats.MISSING, "0", "not measured: the steps of these runs are smaller"]
    share = Spread.of(utilisation(record) for record in large)
    return _judged(share, len(large), share is not None and share.median >= reach)


def run_rows(found: Sequence[RunRecord]) -> list[list[str]]:
    """One row for each run: the numbers behind the ratios."""
    rows = []
    for record in sorted(found, key=lambda r: (r.recipe, *device(r), seed(r))):
        train = record.config.get("train") or record.config
        rows.append(
            [
                cell_name(record),
                formats.number(train.get("learning_rate"), 2),
                formats.number(seconds(record)),
                formats.number(cpu_seconds(record)),
                formats.number(joules(record)),
                formats.number(memory_mb(record)),
                formats.number(real_token_share(record)),
                formats.number(utilisation(record)),
                formats.quality(record.metric, quality(record, "validation")),
                formats.quality(record.metric, quality(record)),
                "yes" if record.contended else "no",
            ]
        )
    return rows


def other_rows(results: Path) -> list[list[str]]:
    """What training_loop.py, large_data.py and signal_cache.py have measured, where they were run."""
    rows = [row for path in sorted(results.glob(LOOP_RESULTS)) for row in _loop_rows(files.read_json(path))]
    large, cache = (files.read_json(p) if (p := results / name).is_file() else {} for name in OTHER_RESULTS)
    if large:
        size = large["sizes"][-1]
        steps = {step["step"]: step for step in size["steps"]}
        peaks = [step["anonymous_mb"] for name, step in steps.items() if name not in ("nothing", "load")]
        what = f"{size['num_rows']:,} texts: peak MB of"
        rows.append([f"{what} loading", "flat", formats.number(steps["load"]["anonymous_mb"])])
        rows.append([f"{what} every other step", "flat", f"{formats.number(min(peaks))}–{formats.number(max(peaks))}"])
        rows.append(
            [
                f"{size['num_rows']:,} texts: seconds of an epoch's plan",
                "< 10",
                formats.number(steps["plan"]["seconds"]),
            ]
        )
    if cache:
        what = f"Stored signal, k {cache['k']}, {cache['vocabulary_size']:,} tokens in the vocabulary:"
        rows.append([f"{what} bytes per token", "≤ 140", formats.number(cache["bytes_per_token"])])
        for name, words in (("from_disk", "from disk"), ("from_memory", "from the page cache")):
            reads = {key: value / 1e6 for key, value in cache.get(name, {}).items()}
            shown = _of_three(reads) if reads else formats.MISSING
            rows.append([f"{what} million tokens per second, read {words}", "≥ 1", shown])
    return rows


def _loop_rows(loop: dict[str, Any]) -> list[list[str]]:
    """What training_loop.py has measured in one number format."""
    rows = []
    for name, student in (("share", "a classifier of 3 layers"), ("language_share", "a language model of 6 layers")):
        if share := loop.get(name):
            where = f"{share['device']}'s matmul rate in {share['number_format']}"
            what = f"Share of the {where}, {student}, {TOKENS_PER_STEP:,} real tokens a step or more"
            rows.append([what, "≥ 50 % in bf16 or 45 % on a GPU", _of_three(share["utilisation"])])
            rows.append(
                ["Real tokens over processed tokens, in these steps", "≥ 0.95", _of_three(share["real_token_fraction"])]
            )
    if overhead := loop.get("overhead"):
        for name, value in overhead.items():
            rows.append(
                [f"CPU time of {name} over that of a bare loop", "≤ 1.01 by energy, metrics, journal", _of_three(value)]
            )
    if linear := loop.get("linear"):
        rows.append(
            ["CPU time per token, last of 10,000 steps over first", "0.97 to 1.03", formats.number(linear["ratio"])]
        )
        memory = " and ".join(formats.number(linear[part]["resident_mb"], 4) for part in ("first", "last"))
        rows.append(["Resident MB in the first and the last thousand of them", "flat", memory])
    return rows


def _of_three(value: dict[str, float]) -> str:
    return str(Spread(value["median"], value["min"], value["max"]))


def page(found: Sequence[RunRecord], others: Sequence[Sequence[str]] = ()) -> str:
    """The whole page, in Markdown."""
    head = [
        "job",
        "against",
        "format",
        "reach",
        "seconds",
        "CPU-s",
        "J",
        "quality, ours / peer's",
        "difference",
        "pairs",
    ]
    parts = ["# The same jobs with us and with peers", SUMMARY_BEGIN, summary(found), SUMMARY_END, "## Targets"]
    rows = [contest_row(contest, found) for contest in CONTESTS]
    parts.append(formats.markdown_table([*head, "verdict"], rows, text_columns=(1, 2, 7, 8, 10)))
    parts.append("Beside the ratios, of the distillation jobs:")
    parts.append(formats.markdown_table(["", "reach", "measured", "runs", "verdict"], own_rows(found), (4,)))
    parts.append(_memory_words())
    if others:
        parts.append("From training_loop_*.json, signal_cache.json and large_data.json (the last of a busy machine):")
        parts.append(formats.markdown_table(["", "reach", "measured"], others))
    parts.append("## Each run")
    head = ["record", "learning rate", "s", "CPU-s", "J", "MB", "real tokens", "utilisation"]
    head += ["validation", "test", "shared machine"]
    parts.append(formats.markdown_table(head, run_rows(found)))
    return "\n\n".join(parts) + "\n"


def summary(found: Sequence[RunRecord]) -> str:
    """What was measured against peers, as a short table, which readme.py copies into the README."""
    rows = []
    for contest in CONTESTS:
        job, against, number_format, _, in_seconds, in_cpu, _, shown, *_ = contest_row(contest, found)
        if pairs := pairs_of(found, contest.ours, contest.peer, contest.number_format):
            few = "" if len(pairs) >= MIN_PAIRS else f", {len(pairs)} of {MIN_PAIRS} pairs"
            rows.append([job + few, against, number_format, in_seconds, in_cpu, shown])
    if not rows:
        return "Nothing measured yet."
    head = ["job", "against", "format", "times as fast", "times fewer CPU-s", "quality, ours / theirs"]
    return f"{_introduction(found)}\n\n{formats.markdown_table(head, rows, text_columns=(1, 2, 5))}"


def _introduction(found: Sequence[RunRecord]) -> str:
    machines = {(r.environment.processor, r.environment.num_cores, r.environment.num_threads) for r in found}
    named = [f"{processor}, {cores} cores, {threads} threads" for processor, cores, threads in sorted(machines)]
    torch = {f"torch {r.environment.versions['torch']}" for r in found}
    peers = {str(r.model["made_with"]) for r in found if "made_with" in r.model}
    text = (
        "Written by benchmarks/versus_peers.py from the records beside it. Ratios are the peer's cost over ours: more "
        "than 1 is in our favour. Each is a median over pairs of runs with the smallest and the largest pair. Counted "
        f"are the phases {' and '.join(COUNTED)}, so the teacher's pass is included and its fine-tuning is not; of "
        "ours also the measuring in setup. Language models without the teacher's pass are counted in train alone. Our "
        "encoders run as our recipes do, without dropout and with token embeddings that stay as they are; their peers "
        "run as they come, train these too and drop. That is a part of the difference."
    )
    where = f"Measured on: {'; '.join(named) or 'nothing yet'}. {', '.join(sorted(torch | peers))}"
    return f"{formats.markdown(text)}\n\n{formats.markdown(where)}"


def _memory_words() -> str:
    return formats.markdown(
        "MB is the highest resident memory of the counted phases above that of the imports; it is left out where the "
        "same process had fine-tuned the teacher. Real tokens and utilisation are shares; a dash was not counted."
    )


# Records on disk


def keep(folder: Path, results: Path) -> None:
    """Copy what is kept of every complete contender's run below a folder; never weights.

    Raises: InputError if there is none, or two would be the same cell.
    """
    contenders = {name for contest in CONTESTS for name in (contest.ours, contest.peer)}
    sweeps.keep_all(folder, results, lambda record, _: cell_name(record) if record.recipe in contenders else None)


def read_kept(results: Path) -> list[RunRecord]:
    """The records that are kept."""
    return [records.read_record(path) for path in sorted(results.glob(f"*/{records.RECORD_NAME}"))]


def main(arguments: list[str] | None = None) -> int:
    """Keep records and write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="?", type=Path, help="folder with runs whose records shall be kept first")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the table is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    results, table = options.root / RESULTS, options.root / TABLE
    if options.check:
        is_same = table.is_file() and table.read_text(encoding="utf-8") == page(
            read_kept(results), other_rows(table.parent)
        )
        if not is_same:
            print(f"{TABLE} is not what its records say: run python benchmarks/versus_peers.py", file=sys.stderr)
        return 0 if is_same else 1
    try:
        if options.runs:
            keep(options.runs, results)
        files.write_text(table, page(read_kept(results), other_rows(table.parent)))
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
