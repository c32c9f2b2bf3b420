"""The same jobs with us and with peers, side by side on one machine: who is faster, at what quality and memory.

Each job is a sweep over recipes in benchmarks/peers/, one file per contender, that runs them in turn with several
seeds, each in a fresh process. Data, teacher, student, cut of the texts, number of examples and number of threads are
the same on both sides; both take the number format that is fast on the machine, except where a peer's defaults are the
contender. A pair is two runs of one seed; the runs of a contender in one number format differ in their seed alone.

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
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import files, records
from smallmodels.cli import gathering
from smallmodels.errors import InputError
from smallmodels.records import Phase, RunRecord, Unfinished
from smallmodels.report import formats
from smallmodels.report.words import unfinished
from smallmodels.sweeps import Sweep

ROOT = Path(__file__).resolve().parents[1]
RESULTS, TABLE = "benchmarks/results/versus_peers", "benchmarks/results/versus_peers.md"
COUNTED, ALSO_OURS = ("cache", "train"), "setup"
SUMMARY_BEGIN, SUMMARY_END = "<!-- speed:begin -->", "<!-- speed:end -->"
LARGE_RESULT, CACHE_RESULT, ENERGY_RESULT = "large_data.json", "signal_cache.json", "energy_overhead.json"
LOOP_RESULTS = "training_loop_*.json"
"""One file for each device and number format."""
MIN_PAIRS = 3
QUALITY_MARGIN = 0.005
"""By how much ours may be below the peer's quality: half a point, and half a per cent of a perplexity."""


NUM_TEXTS, NUM_ENTRIES = 4000, 600
"""Of Banking77 and of Python's documentation to train on, so that three rounds of all end within one and a half hours
on two cores."""

NUM_LM_TEXTS, LM_EPOCHS = 96, 3
"""Of GSM8K for language models; a live teacher that compares whole vocabularies makes a few hundred tokens a second."""


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
    "lm_distillation": job("ours_lm_distillation", "trl_distillation", metric="perplexity", max_train=NUM_LM_TEXTS),
    "lm_finetuning": job("ours_lm_finetuning", "trl_finetuning", metric="perplexity", max_train=NUM_LM_TEXTS),
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
    number_format: str = "bf16"
    """That the row is for: the one that ours computed in."""
    reach_cpu: float | None = None
    """Smallest ratio of CPU-seconds that is wanted, where one is."""
    phases: tuple[str, ...] | None = None
    """That are counted, on both sides; None is all that has to be done again for another student."""


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
"""In bf16, for which their targets were set."""

_TEACHER_PASS = Contest(
    job="Teacher's pass over 10,003 short texts",
    against="transformers' pipeline, 32 at once",
    ours="ours_teacher_pass",
    peer="pipeline_teacher_pass",
    reach=5.0,
)

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
    _TEACHER_PASS,
    dataclasses.replace(_TEACHER_PASS, number_format="fp32"),
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
    *_LANGUAGE,
)

COMPUTE_IN_FP32 = ("trainer_distillation", "pipeline_teacher_pass")
"""Peers whose defaults compute in fp32, although their records carry the number format that was fast on the machine."""

NUMBER_FORMATS = ("bf16", "fp32")
TOKENS_REACH, TOKENS_PER_STEP = 0.95, 4096
TOKENS_JOBS = {
    "ours_distillation": "encoder distillation",
    "ours_lm_distillation": "language-model distillation",
    "ours_lm_finetuning": "language-model fine-tuning",
}
ABOVE_IMPORTS, OF_PROCESS = "above the imports", "of the process"
MEMORY_REACH = {
    ("ours_distillation", "trainer_distillation_tuned", ABOVE_IMPORTS): (
        "encoder distillation, against the tuned Trainer",
        0.6,
    ),
    ("ours_lm_distillation", "trl_distillation", OF_PROCESS): ("language-model distillation, against TRL's GKD", 0.35),
}
"""Largest share of a peer's memory that is wanted, and which memory was meant."""
SHARE_REACH = {("cpu", "bf16"): 0.5, ("cuda", "bf16"): 0.45}
"""Smallest share of the matmul rate that is wanted, by device and number format."""
LOOP_REACH, EVEN_REACH = 1.01, 1.03
"""What energy, metrics and journal may make of a loop's CPU time; late steps of the time and memory of early ones."""
ENERGY_REACH = 0.01
"""What measuring and writing may take of a run's CPU time."""
FLAT_REACH = 1.25
"""What a hundred times the texts may make of the memory; the target says flat, without a number."""

_DEVICE_NAMES = {"cpu": "processor", "cuda": "GPU"}
_STUDENTS = {
    "share": f"a classifier of 3 layers, {TOKENS_PER_STEP:,} real tokens a step or more",
    "language_share": f"a language model of 6 layers, {TOKENS_PER_STEP:,} real tokens a step or more",
}
"""Parts of what training_loop.py writes."""


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


def memory_mb(record: RunRecord, which: str = ABOVE_IMPORTS) -> float | None:
    """Highest resident memory of the counted phases, above what the imports take or of the whole process.

    None where the system does not tell, and where this very process had fine-tuned the teacher, which leaves traces.
    """
    teacher, imports = record.phase("teacher"), record.phase("imports")
    if imports is None or imports.peak_memory_mb is None or (teacher and teacher.num_examples):
        return None
    peaks = Spread.of(phase.peak_memory_mb for phase in counted(record))
    before = imports.peak_memory_mb if which == ABOVE_IMPORTS else 0.0
    return peaks.high - before if peaks else None


def real_token_share(record: RunRecord) -> float | None:
    """Real tokens over processed ones in the counted phases that count both."""
    both = [(p.num_tokens, p.num_processed_tokens) for p in counted(record) if p.num_tokens and p.num_processed_tokens]
    return sum(tokens for tokens, _ in both) / sum(processed for _, processed in both) if both else None


def utilisation(record: RunRecord) -> float | None:
    """Share of the machine's matmul rate in training, else in the teacher's pass.

    None where the rate was measured in another number format than the peer computed in.
    """
    return counted(record)[-1].utilisation if computed_in(record) == device(record)[1] else None


def quality(record: RunRecord, split: str = "test") -> float | None:
    """The student's metric; a teacher's pass has only the training split."""
    result = record.result("student", split) or record.result("student", "train")
    return result.metrics[record.metric].value if result else None


def device(record: RunRecord) -> tuple[str, str]:
    """Where, and the number format that a run chose there: cpu and fp32. Runs that stood side by side have the same."""
    return str(record.model["device"]), str(record.model["number_format"])


def computed_in(record: RunRecord) -> str:
    """The number format of the matrix products: the chosen one, but for peers that keep to their defaults."""
    return "fp32" if record.recipe in COMPUTE_IN_FP32 else device(record)[1]


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


def runs_of(found: Sequence[RunRecord], recipe: str, number_format: str) -> list[RunRecord]:
    """The runs of a contender on a processor in one number format, by seed.

    Raises: InputError if they differ in more than the seed, so that no median may be taken over them.
    """
    runs = [r for r in found if r.recipe == recipe and device(r) == ("cpu", number_format)]
    if differing := differences(runs):
        shown = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in differing.items())
        raise InputError(
            f"runs of {recipe} in {number_format} should differ in their seed alone, but differ in {shown}: "
            "run the sweep again, or take the other ones away"
        )
    return sorted(runs, key=seed)


def differences(runs: Iterable[RunRecord]) -> dict[str, list[Any]]:
    """Settings but for the seed that are not the same in all of these runs, by dotted name, with their values."""
    configs = [records.dotted(record.config) for record in runs]
    values = {name: [config.get(name) for config in configs] for config in configs for name in config}
    return {
        name: list({repr(value): value for value in of_name}.values())
        for name, of_name in values.items()
        if name != "seed" and len(set(map(repr, of_name))) > 1
    }


def pairs_of(found: Sequence[RunRecord], ours: str, peer: str, number_format: str) -> list[Pair]:
    """Ours and the peer's by seed, on a processor, in one number format.

    Raises: InputError if two runs of a pair are not of one machine and one sweep; see also `runs_of`.
    """
    theirs = {seed(record): record for record in runs_of(found, peer, number_format)}
    pairs = [(r, theirs[seed(r)]) for r in runs_of(found, ours, number_format) if seed(r) in theirs]
    for record, other in pairs:
        if (record.environment.fingerprint, record.sweep_id) != (other.environment.fingerprint, other.sweep_id):
            raise InputError(
                f"{cell_name(record)} and {cell_name(other)} should have run side by side, but are of two machines or "
                "sweeps: run the sweep again"
            )
    return pairs


def contest_pairs(contest: Contest, found: Sequence[RunRecord]) -> list[Pair]:
    """Those of a contest, in its number format."""
    return pairs_of(found, contest.ours, contest.peer, contest.number_format)


def job_name(contest: Contest, pairs: Sequence[Pair]) -> str:
    """Of a contest, with the number of texts that its pairs trained on."""
    count = pairs[0][0].config["max_train"] if pairs and "{texts}" in contest.job else NUM_LM_TEXTS
    return contest.job.format(texts=f"{count:,}")


def peer_name(contest: Contest) -> str:
    """What a contest is against, with the number format where it is another one than ours."""
    is_other = contest.peer in COMPUTE_IN_FP32 and contest.number_format != "fp32"
    return contest.against + (", which compute in fp32" if is_other else "")


_TOLD_APART = ("max_train", "train.batch_size", "train.learning_rate")
"""Settings of ours that a row tells anyway."""


def trained_as(pairs: Sequence[Pair], found: Sequence[RunRecord]) -> str:
    """How ours trained: examples in a step, highest learning rate, and what else differs between number formats."""
    if not pairs:
        return formats.MISSING
    own = pairs[0][0]
    train, config = own.config.get("train"), records.dotted(own.config)
    told = [f"steps of {train['batch_size']} at {train['learning_rate']:g}"] if train else []
    others = differences(r for r in found if r.recipe == own.recipe and device(r)[0] == "cpu")
    told += [f"{name} {config.get(name)}" for name in others if name not in _TOLD_APART]
    return ", ".join(told) or formats.MISSING


def ratio(
    pairs: Sequence[Pair], cost: Callable[..., float | None], phases: tuple[str, ...] | None = None
) -> Spread | None:
    """The peer's cost over ours, over the pairs; of these phases, if they are given."""
    costs = [(cost(ours, phases), cost(peer, phases)) for ours, peer in pairs]
    return Spread.of(theirs / own if own and theirs is not None else None for own, theirs in costs)


def quality_difference(pairs: Sequence[Pair]) -> Spread | None:
    """By how much ours is better than the peer's: the difference, or the share of it where lower is better."""
    both = [(ours.metric, quality(ours), quality(peer)) for ours, peer in pairs]
    return Spread.of(
        None if own is None or theirs is None else (theirs - own) / theirs if is_share(metric) else own - theirs
        for metric, own, theirs in both
    )


def is_share(metric: str) -> bool:
    """Whether a difference of qualities is told as a share: perplexities have no points."""
    return metric in records.LOWER_IS_BETTER


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
    """Job, peer, number format, how ours trained, target, what was measured, and whether that is enough."""
    pairs = contest_pairs(contest, found)
    head = [job_name(contest, pairs), peer_name(contest), contest.number_format, trained_as(pairs, found)]
    also = ", also in CPU-s" if contest.reach_cpu else ""
    head.append(f"≥ {contest.reach:g} ×{also}")
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
    within = "within" if abs(difference.median) <= QUALITY_MARGIN else "beyond"
    if is_share(metric):
        way = "lower" if difference.median >= 0 else "higher"
        return f"{100 * abs(difference.median):.1f} % {way}, {within} half a per cent"
    sign = "+" if difference.median >= 0 else "−"
    return f"{sign}{formats.difference(metric, difference.median)}, {within} half a point"


def _not_measured(number_format: str, found: Sequence[RunRecord]) -> str:
    if not found:
        return "not measured"
    if number_format == "bf16":
        return "not measured yet on a processor with bf16 units"
    return "not measured: no runs in fp32"


def own_rows(found: Sequence[RunRecord]) -> list[list[str]]:
    """The targets that are about our runs alone, or about memory, each in one number format."""
    rows = [
        _memory_row(found, *names, *words, number_format)
        for names, words in MEMORY_REACH.items()
        for number_format in _formats_of(names[0])
    ]
    rows += [
        _tokens_row(runs_of(found, recipe, number_format), f"{job}, {number_format}")
        for recipe, job in TOKENS_JOBS.items()
        for number_format in _formats_of(recipe)
    ]
    bounded = [c for c in CONTESTS if c.ours in {of.ours for of in _LANGUAGE} and contest_pairs(c, found)]
    return rows + [_bound_row(contest, found) for contest in bounded]


def _formats_of(ours: str) -> list[str]:
    """Number formats that a recipe of ours has targets in."""
    wanted = {contest.number_format for contest in CONTESTS if contest.ours == ours}
    return [number_format for number_format in NUMBER_FORMATS if number_format in wanted]


def _tokens_row(mine: Sequence[RunRecord], job: str) -> list[str]:
    tokens = Spread.of(real_token_share(record) for record in mine)
    judged = _judged(tokens, len(mine), tokens is not None and tokens.median >= TOKENS_REACH)
    return [f"Real tokens over processed tokens, {job}", f"≥ {TOKENS_REACH:g}", *judged]


def _bound_row(contest: Contest, found: Sequence[RunRecord]) -> list[str]:
    """How far faster code alone could bring us: the same operations at the machine's whole matmul rate."""
    pairs = contest_pairs(contest, found)
    best = max((rate for ours, _ in pairs for rate in _rates(ours, contest.phases)), default=0.0)
    bounds = Spread.of(
        _over(seconds(peer, contest.phases), _busy_s(ours, contest.phases, best)) for ours, peer in pairs
    )
    words = [str(bounds) if bounds else formats.MISSING, str(len(pairs)), "a bound, no target"]
    return [
        f"Times as fast at all of the matmul rate: {job_name(contest, pairs)}, {contest.number_format}",
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


def _memory_row(
    found: Sequence[RunRecord], ours: str, peer: str, which: str, job: str, reach: float, number_format: str
) -> list[str]:
    pairs = pairs_of(found, ours, peer, number_format)
    shares = [_over(memory_mb(mine, which), memory_mb(theirs, which)) for mine, theirs in pairs]
    known = [share for share in shares if share is not None]  # not of the pair whose process fine-tuned the teacher
    memory = Spread.of(known)
    judged = _judged(memory, len(known), memory is not None and memory.median <= reach)
    return [f"Peak memory {which}, {job}, {number_format}", f"≤ {reach:g} ×", *judged]


def _over(own: float | None, theirs: float | None) -> float | None:
    return own / theirs if own is not None and theirs else None


def _judged(value: Spread | None, count: int, is_met: bool) -> list[str]:
    if value is None:
        return [formats.MISSING, str(count), "not measured"]
    enough = "" if count >= MIN_PAIRS else f", by {count} of {MIN_PAIRS} runs"
    return [str(value), str(count), ("met" if is_met else "not met") + enough]


def run_rows(found: Sequence[RunRecord]) -> list[list[str]]:
    """One row for each run: the numbers behind the ratios."""
    rows = []
    for record in sorted(found, key=lambda r: (r.recipe, *device(r), seed(r))):
        train = record.config.get("train") or record.config
        rows.append(
            [
                cell_name(record),
                computed_in(record),
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
    """What the benchmarks without peers have measured, where, and whether that is enough."""
    loops = {path: files.read_json(path) for path in sorted(results.glob(LOOP_RESULTS))}
    rows = [row for path, loop in loops.items() for row in _loop_rows(loop, path.stem.split("_")[-1])]
    known = {(share["device"], share["number_format"]) for loop in loops.values() if (share := loop.get("share"))}
    for where, number_format in SHARE_REACH:
        if (where, number_format) not in known:
            name = _share_name(where, "share")
            rows.append([name, number_format, _share_reach(where, number_format), formats.MISSING, "not measured"])
    others = ((ENERGY_RESULT, _energy_rows), (LARGE_RESULT, _large_rows), (CACHE_RESULT, _cache_rows))
    for name, rows_of in others:
        if (results / name).is_file():
            rows += rows_of(files.read_json(results / name))
    return rows


def _measured_row(
    what: str,
    where: str,
    reach: str,
    value: Spread | None,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    shown: str = "",
) -> list[str]:
    """A row of `other_rows`; met where the median lies between the least and the most that are wanted."""
    if value is None:
        return [what, where, reach, formats.MISSING, "not measured"]
    in_range = [least <= part <= most for part in (value.median, value.low, value.high)]
    words = "met" if in_range[0] else "not met"
    if len(set(in_range)) > 1:
        words += ", by the median; rounds lie on both sides"
    return [
        what,
        where,
        reach,
        shown or (str(value) if value.low < value.high else formats.number(value.median)),
        words,
    ]


def _loop_rows(loop: dict[str, Any], number_format: str) -> list[list[str]]:
    """What training_loop.py has measured on one device in one number format."""
    where = f"{number_format}, {_machine_words(loop['machine'])}"
    rows = [row for name in _STUDENTS if (share := loop.get(name)) for row in _share_rows(share, name, where)]
    for name, value in loop.get("overhead", {}).items():
        what, reach = f"CPU time of {name} over that of a bare loop", f"≤ {LOOP_REACH:g} by energy, metrics, journal"
        rows.append(_measured_row(what, where, reach, _spread(value), most=LOOP_REACH))
    if linear := loop.get("linear"):
        rows += _linear_rows(linear, where)
    return rows


def _share_rows(share: dict[str, Any], name: str, where: str) -> list[list[str]]:
    """Of the machine and of real tokens, in steps that are large enough."""
    device_name, number_format = share["device"], share["number_format"]
    is_large = share["tokens_per_step"]["median"] >= TOKENS_PER_STEP
    of_machine, of_tokens = (
        _spread(share[key]) if is_large else None for key in ("utilisation", "real_token_fraction")
    )
    what, reach = _share_name(device_name, name), _share_reach(device_name, number_format)
    least = SHARE_REACH.get((device_name, "bf16"))
    rows = [_measured_row(what, where, reach, of_machine, least=least or 0.0)]
    if least is None:
        rows[0][-1] = "no target"
    what = f"Real tokens over processed tokens, {_STUDENTS[name]}"
    return [*rows, _measured_row(what, where, f"≥ {TOKENS_REACH:g}", of_tokens, least=TOKENS_REACH)]


def _share_name(where: str, name: str) -> str:
    return f"Share of the {_DEVICE_NAMES.get(where, where)}'s matmul rate, {_STUDENTS[name]}"


def _share_reach(where: str, number_format: str) -> str:
    """The target for a device, which was set for bf16."""
    reach = SHARE_REACH.get((where, "bf16"))
    if reach is None:
        return formats.MISSING
    return f"≥ {100 * reach:.0f} %" + ("" if number_format == "bf16" else ", set for bf16")


def _linear_rows(linear: dict[str, Any], where: str) -> list[list[str]]:
    """Whether ten thousand steps stay even in time and memory."""
    is_beside = "bare_step_ms" in linear["first"]
    what = "Time per token, last thousand of 10,000 steps over an early one" + (
        ", each over bare steps beside it" if is_beside else ", the machine's own drift included"
    )
    ratio, resident = linear["ratio"], [linear[part]["resident_mb"] for part in ("first", "last")]
    return [
        _measured_row(
            what, where, f"{2 - EVEN_REACH:g} to {EVEN_REACH:g}", _once(ratio), least=2 - EVEN_REACH, most=EVEN_REACH
        ),
        _measured_row(
            "Resident MB in the last thousand of them, and in the early one",
            where,
            f"flat: ≤ {EVEN_REACH:g} ×",
            _once(resident[1] / resident[0]),
            most=EVEN_REACH,
            shown=" and ".join(formats.number(value, 4) for value in reversed(resident)),
        ),
    ]


def _energy_rows(overhead: dict[str, Any]) -> list[list[str]]:
    """What energy, metrics and journal take of a run, and the tracker alone of a busy core."""
    where, run = _machine_words(overhead["environment"]), overhead["run"]
    tracker = next(cost for cost in overhead["settings"] if cost["backend"] == "codecarbon")
    values = {
        f"CPU time of energy, metrics and journal over that of a run of {run['recipe']} ({run['cpu_s']:,.0f} CPU-s), "
        "calls counted, the tracker's start not": overhead["share"],
        f"CPU time of the tracker, a tick each {tracker['tick_s']:g} s, over that of a minute on one core, its start "
        "not counted": tracker["less_start"],
    }
    return [
        _measured_row(
            what, where, f"≤ {100 * ENERGY_REACH:g} %", _once(value), most=ENERGY_REACH, shown=f"{100 * value:.2f} %"
        )
        for what, value in values.items()
    ]


def _large_rows(large: dict[str, Any]) -> list[list[str]]:
    """Memory of the largest data set beside that of the smallest, and the plan of an epoch."""
    where, sizes = _machine_words(large["environment"]), [large["sizes"][-1], large["sizes"][0]]
    steps = [{step["step"]: step for step in size["steps"]} for size in sizes]
    many, few = (f"{size['num_rows']:,} texts" for size in sizes)
    peaks = {name: [of_size[name]["anonymous_mb"] for of_size in steps] for name in steps[0] if name != "nothing"}
    rows, others = [], [name for name in peaks if name != "load"]
    for what, names in (("loading", ["load"]), ("every other step", others)):
        shown = [_range_words([peaks[name][i] for name in names]) for i in (0, 1)]
        rows.append(
            _measured_row(
                f"{many}, and {few}: peak MB of {what}",
                where,
                f"flat: ≤ {FLAT_REACH:g} ×",
                _once(max(peaks[name][0] / peaks[name][1] for name in names)),
                most=FLAT_REACH,
                shown=" and ".join(shown),
            )
        )
    plan = _once(steps[0]["plan"]["seconds"])
    return [*rows, _measured_row(f"{many}: seconds of an epoch's plan", where, "< 10", plan, most=10)]


def _cache_rows(cache: dict[str, Any]) -> list[list[str]]:
    """Size and speed of a language model's stored signal."""
    where = _machine_words(cache["environment"]) if "environment" in cache else formats.MISSING
    what = f"Stored signal, k {cache['k']}, {cache['vocabulary_size']:,} tokens in the vocabulary:"
    rows = [_measured_row(f"{what} bytes per token", where, "≤ 140", _once(cache["bytes_per_token"]), most=140)]
    for name, words in (("from_disk", "from disk"), ("from_memory", "from the page cache")):
        reads = {key: value / 1e6 for key, value in cache.get(name, {}).items()}
        told = f"{what} million tokens per second, read {words}"
        rows.append(_measured_row(told, where, "≥ 1", _spread(reads) if reads else None, least=1))
    return rows


def _machine_words(machine: dict[str, Any]) -> str:
    """The processor, or the GPU where that did the work, of what another benchmark says of its machine."""
    if machine.get("device", "cpu") != "cpu" and machine.get("gpu"):
        return str(machine["gpu"])
    instructions = f", {found}" if (found := machine.get("vector_instructions")) else ""
    return f"{machine['processor']}, {machine['num_cores']} cores{instructions}"


def _spread(value: dict[str, float]) -> Spread:
    return Spread(value["median"], value["min"], value["max"])


def _once(value: float) -> Spread:
    """Of what was measured once."""
    return Spread(value, value, value)


def _range_words(values: Sequence[float]) -> str:
    low, high = formats.number(min(values)), formats.number(max(values))
    return low if len(values) == 1 else f"{low}–{high}"


def page(
    found: Sequence[RunRecord], others: Sequence[Sequence[str]] = (), never_ended: Sequence[Unfinished] = ()
) -> str:
    """The whole page, in Markdown."""
    head = [
        "job",
        "against",
        "format",
        "ours trained in",
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
    parts.append(formats.markdown_table([*head, "verdict"], rows, text_columns=(1, 2, 3, 8, 9, 11)))
    parts.append("Beside the ratios:")
    parts.append(formats.markdown_table(["", "reach", "measured", "runs", "verdict"], own_rows(found), (4,)))
    parts.append(_memory_words())
    if others:
        parts.append(
            f"From {LOOP_RESULTS}, {ENERGY_RESULT}, {CACHE_RESULT} and {LARGE_RESULT} (the last of a busy machine), as "
            "far as they were measured:"
        )
        parts.append(formats.markdown_table(["", "where", "reach", "measured", "verdict"], others, (1, 4)))
    parts.append("## Each run")
    head = ["record", "computed in", "learning rate", "s", "CPU-s", "J", "MB", "real tokens", "utilisation"]
    head += ["validation", "test", "shared machine"]
    parts.append(formats.markdown_table(head, run_rows(found), text_columns=(1,)))
    if never_ended:
        parts.append(formats.markdown(f"{unfinished(never_ended)}; no ratio counts them."))
    return "\n\n".join(parts) + "\n"


def summary(found: Sequence[RunRecord]) -> str:
    """What was measured against peers, as a short table, which readme.py copies into the README."""
    rows = []
    for contest in CONTESTS:
        job, against, number_format, trained, _, in_seconds, in_cpu, _, shown, *_ = contest_row(contest, found)
        if pairs := contest_pairs(contest, found):
            few = "" if len(pairs) >= MIN_PAIRS else f", {len(pairs)} of {MIN_PAIRS} pairs"
            rows.append([job + few, against, number_format, trained, in_seconds, in_cpu, shown])
    if not rows:
        return "Nothing measured yet."
    head = ["job", "against", "format", "ours trained in", "times as fast", "times fewer CPU-s"]
    table = formats.markdown_table([*head, "quality, ours / theirs"], rows, text_columns=(1, 2, 3, 6))
    return f"{_introduction(found)}\n\n{table}"


def _introduction(found: Sequence[RunRecord]) -> str:
    machines = {f"{_machine_words(e)}, {e['num_threads']} threads" for e in map(_environment, found)}
    torch = {f"torch {r.environment.versions['torch']}" for r in found}
    peers = {str(r.model["made_with"]) for r in found if "made_with" in r.model}
    text = (
        "Written by benchmarks/versus_peers.py from the records beside it. Ratios are the peer's cost over ours: more "
        "than 1 is in our favour. Each is a median over pairs of runs with the smallest and the largest pair. Counted "
        f"are the phases {' and '.join(COUNTED)}, so the teacher's pass is included and its fine-tuning is not; of "
        "ours also the measuring in setup. Language models without the teacher's pass are counted in train alone. "
        "What ours are distilled by is half cross-entropy with the texts, GKD has the teacher alone. Our encoders run "
        "as our recipes do, without dropout and with token embeddings that stay as they are; their peers run as they "
        "come, train these too and drop. That is a part of the difference. At its defaults the Trainer computes in "
        "fp32, and so does a pipeline with the model as it was loaded: their rows and records in bf16 stand beside "
        "ours in bf16, on a machine where that is fast. A target is met by seconds, and by CPU-seconds where it says "
        "so, with a quality that is at most half a point, or half a per cent of a perplexity, worse than the peer's: "
        "only this side of the quality is judged. A peer that ends worse than ours could have been tuned further."
    )
    where = f"Measured on: {'; '.join(sorted(machines)) or 'nothing yet'}. {', '.join(sorted(torch | peers))}"
    return f"{formats.markdown(text)}\n\n{formats.markdown(where)}"


def _environment(record: RunRecord) -> dict[str, Any]:
    return dict(records.to_json(record.environment))


def _memory_words() -> str:
    return formats.markdown(
        "MB is the highest resident memory of the counted phases above that of the imports; it is left out where the "
        "same process had fine-tuned the teacher. Real tokens and utilisation are shares; a dash was not counted, or "
        "the rate that was measured is not that of the number format in which a peer computed."
    )


# Records on disk


def keep(folder: Path, results: Path) -> None:
    """Copy what is kept of every contender's run below a folder; never weights.

    Raises: InputError if none is complete, or two would be the same cell.
    """
    contenders = {name for contest in CONTESTS for name in (contest.ours, contest.peer)}
    gathering.keep_all(
        folder,
        results,
        lambda record, _: cell_name(record) if record.recipe in contenders else None,
        lambda run: run.run_id if run.recipe in contenders else None,
    )


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
    try:
        if options.runs and not options.check:
            keep(options.runs, results)
        text = page(read_kept(results), other_rows(table.parent), gathering.unfinished_runs(results))
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.check:
        is_same = table.is_file() and table.read_text(encoding="utf-8") == text
        if not is_same:
            print(f"{TABLE} is not what its records say: run python benchmarks/versus_peers.py", file=sys.stderr)
        return 0 if is_same else 1
    files.write_text(table, text)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
