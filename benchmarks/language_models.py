"""Does distilling a language model pay? The student against the same one trained on the texts alone, at equal cost.

A teacher is pretrained on questions and answers on health and on old books, then a student a quarter of its size learns
from fewer of these texts: once from what the teacher says of each token, once from the tokens alone for as many steps
as the same cost buys, the teacher's pass included. The teacher's own pretraining is shown beside, not counted.

Run:    python benchmarks/language_texts.py runs/texts.jsonl
        smallmodels run pretrain_language_model --dataset runs/texts.jsonl --text-columns text --max-train 3500
            --max-validation 200 --max-test 200 --hidden-size 320 --num-layers 8 --num-heads 5 --batch-size 4
            --num-evaluations 3
        cp -r runs/pretrain_language_model/…/model runs/teacher
        smallmodels sweep benchmarks/language_models.py        on an otherwise idle machine
        python benchmarks/language_models.py runs              keeps the records, writes the table
        python benchmarks/language_models.py                   writes the table from the records that are kept
Reads:  benchmarks/results/language_models.md. Fewer bits per byte are better. The share of the gap that is closed is
        (texts alone - distilled) / (texts alone - teacher). The cost to reach what the plain student ends with is that
        of the distilled one up to its first validation that is no worse, the teacher's pass included.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from smallmodels import files, metrics, perplexity, records
from smallmodels.cli import gathering
from smallmodels.errors import InputError
from smallmodels.records import RunRecord, Unfinished
from smallmodels.report import formats, words
from smallmodels.report.systems import EQUAL_COST
from smallmodels.sweeps import Sweep

ROOT = Path(__file__).resolve().parents[1]
RESULTS, TABLE = "benchmarks/results/language_models", "benchmarks/results/language_models.md"
METRIC, VALIDATION = "bits_per_byte", "validation/minus_bits_per_byte"
MIN_SEEDS = 3
DISTILLED, PLAIN = ("cache", "train"), ("label_only",)
"""Phases whose costs are compared."""


def job(max_train: int, num_epochs: int, **settings: Any) -> Sweep:
    """Three seeds of a student on so many texts, read so often."""
    axes = {
        "teacher": ("runs/teacher",),
        "dataset": ("runs/texts.jsonl",),
        "text_columns": (("text",),),
        "hidden_size": (192,),
        "num_layers": (4,),
        "max_train": (max_train,),
        "num_epochs": (num_epochs,),
        "max_validation": (150,),
        "max_test": (150,),
        "batch_size": (4,),
        "num_evaluations": (5,),
        **{name: (value,) for name, value in settings.items()},
        "seed": (0, 1, 2),
    }
    return Sweep(recipes=("distill_language_model",), axes=axes, metric=METRIC, margin=0.01)


SWEEPS = {"many_texts": job(500, 2, soft_weight=0.5), "few_texts": job(150, 8, soft_weight=0.9)}
"""Sizes that take a quarter of an hour each on two cores. The first has what were the recipe's defaults; it lost, and
the second became them."""


Unit = Literal["energy_j", "cpu_s"]


@dataclass(frozen=True)
class Trial:
    """One seed: both students, in one run."""

    record: RunRecord
    lines: Sequence[Mapping[str, Any]]
    """Of `metrics.jsonl`."""

    def bits(self, role: str) -> float:
        """Bits per byte of a role on the test texts."""
        result = self.record.result(role)
        assert result is not None, f"no {role} in {self.record.run_id}"
        return result.metrics[METRIC].value

    @property
    def gain(self) -> float:
        """By how many bits per byte the distilled student is better than the plain one."""
        return self.bits("label_only") - self.bits("student")

    @property
    def gap_closed(self) -> float | None:
        """Share of the way from the plain student to the teacher; None where there is no way to go."""
        gap = self.bits("label_only") - self.bits("teacher")
        return self.gain / gap if gap > 0 else None

    def cost(self, phases: Sequence[str], unit: Unit) -> float | None:
        """Of phases, work that another run had paid for included."""
        joules, cpu_s = self.record.cost_of(list(phases))
        return joules if unit == "energy_j" else cpu_s

    def cost_to_match(self, unit: Unit) -> float | None:
        """Share of the plain student's whole cost after which the distilled one is as good; None where it never is."""
        whole, cached = self.cost(PLAIN, unit), self.cost(("cache",), unit)
        wanted = max((value for value, _ in self.validations("label_only", unit)), default=math.inf)
        found = next((spent for value, spent in self.validations("train", unit) if value >= wanted), None)
        return (cached + found) / whole if whole and cached is not None and found is not None else None

    def cost_when_as_good(self, unit: Unit) -> float | None:
        """What the distilled one cost until then, its teacher's pass included."""
        share, whole = self.cost_to_match(unit), self.cost(PLAIN, unit)
        return None if share is None or whole is None else share * whole

    @property
    def share_of_cost(self) -> float | None:
        """What the plain student cost over what the distilled one did, in CPU-seconds; 1 is equal."""
        plain, distilled = self.cost(PLAIN, "cpu_s"), self.cost(DISTILLED, "cpu_s")
        return plain / distilled if plain and distilled else None

    def validations(self, phase: str, unit: Unit) -> list[tuple[float, float | None]]:
        """Quality, and cost since the phase began, of each validation."""
        return [(line[VALIDATION], line[unit]) for line in self.lines if line["phase"] == phase and VALIDATION in line]


ROWS: tuple[tuple[str, Callable[[Trial], float | None]], ...] = (
    ("teacher, bits per byte", lambda trial: trial.bits("teacher")),
    ("distilled student", lambda trial: trial.bits("student")),
    ("the same on the texts alone, at equal cost", lambda trial: trial.bits("label_only")),
    ("the same untrained", lambda trial: trial.bits("untrained_student")),
    ("frequencies of tokens", lambda trial: trial.bits("unigrams")),
    ("distilled better by", lambda trial: trial.gain),
    ("share of the gap to the teacher closed", lambda trial: trial.gap_closed),
    ("CPU-s, distilled: teacher's pass and training", lambda trial: trial.cost(DISTILLED, "cpu_s")),
    ("CPU-s, texts alone", lambda trial: trial.cost(PLAIN, "cpu_s")),
    ("J, distilled", lambda trial: trial.cost(DISTILLED, "energy_j")),
    ("J, texts alone", lambda trial: trial.cost(PLAIN, "energy_j")),
    ("CPU-s, texts alone over distilled", lambda trial: trial.share_of_cost),
    ("CPU-s to be as good as texts alone, share of its own", lambda trial: trial.cost_to_match("cpu_s")),
    ("J to be as good as texts alone, share of its own", lambda trial: trial.cost_to_match("energy_j")),
    ("J to be as good as texts alone", lambda trial: trial.cost_when_as_good("energy_j")),
)


def page(jobs: Mapping[str, Sequence[Trial]], teacher: RunRecord | None, never_ended: Sequence[Unfinished] = ()) -> str:
    """A part for each job, and what they were measured on."""
    parts = [
        "# Language models: distilled against texts alone",
        *(part for job in jobs.items() for part in section(*job)),
    ]
    found = [trial.record for trials in jobs.values() for trial in trials]
    parts += [*([_where(found)] if found else []), *([_teacher_words(teacher)] if teacher else [])]
    if never_ended:
        parts.append(formats.markdown(f"{words.unfinished(never_ended)}; none of these is counted above."))
    return "\n\n".join(parts) + "\n"


def section(name: str, trials: Sequence[Trial]) -> list[str]:
    """What a job found, and its table."""
    title = formats.capital(name.replace("_", " "))
    if not trials:
        return [f"## {title}", "Not measured."]
    config, train = trials[0].record.config, trials[0].record.phase("train")
    size = f"{config['max_train']} texts, {config['train']['num_epochs']} epochs, soft weight {config['soft_weight']:g}"
    tokens = f"{formats.large(train.num_tokens if train else None)} tokens when distilled"
    rows = []
    for name, value in ROWS:
        values = [value(trial) for trial in trials]
        known = [number for number in values if number is not None]
        mean = metrics.student_t_interval(known) if len(known) == len(values) and known else None
        rows.append([name, *map(_shown, values), _with_interval(mean)])
    head = ["", *(f"seed {trial.record.config['seed']}" for trial in trials), "mean, 95 % interval"]
    table = formats.markdown_table(head, rows)
    shares = [trial.share_of_cost for trial in trials]
    said = verdict([trial.gain for trial in trials], [share for share in shares if share is not None])
    return [f"## {title}: {size}", said, table, f"Seen: {tokens}."]


def verdict(gains: Sequence[float], shares: Sequence[float] = ()) -> str:
    """One sentence: whether distillation wins, over the seeds, and where the costs were not equal after all.

    Args:
        gains: Bits per byte by which the distilled student is better.
        shares: What the plain student cost over what the distilled one did.
    """
    if len(gains) < MIN_SEEDS:
        return "Fewer than three seeds: no verdict."
    interval = metrics.student_t_interval(gains)
    assert interval.low is not None
    assert interval.high is not None
    shown = f"{interval.value:.3f} bits per byte ({interval.low:.3f} to {interval.high:.3f}, {len(gains)} seeds)"
    share = statistics.mean(shares) if shares else 1.0
    cost = "At equal cost" if abs(share - 1) <= EQUAL_COST else f"At {share:.2f} of its cost for the texts alone"
    if interval.low > 0:
        return f"{cost}, the distilled student is better by {shown}."
    if interval.high < 0:
        return f"{cost}, **distillation loses**: the distilled student differs by {shown}."
    return f"{cost}, the two cannot be told apart: the distilled student is better by {shown}."


def _shown(value: float | None) -> str:
    return formats.number(value, 4) if value is not None else formats.MISSING


def _with_interval(mean: records.Metric | None) -> str:
    if mean is None:
        return formats.MISSING
    if mean.low is None:
        return _shown(mean.value)
    return f"{_shown(mean.value)} ({_shown(mean.low)} to {_shown(mean.high)})"


def _where(found: Sequence[RunRecord]) -> str:
    record, machine = found[0], found[0].environment
    commits = sorted({(each.git_commit or formats.MISSING)[:8] for each in found})
    joules = "counted" if record.energy_is_counted else "estimated by a model of the processor"
    config, length = record.config, int(record.config["max_length"])
    text = (
        "The texts are questions and answers on health (lavita/MedQuAD, CC-BY-4.0) and passages of old books "
        "(gitenberg/public-domain-books, in the public domain in the United States), as language_texts.py joins them. "
        f"Bits per byte are of {config['max_test']} texts of a tenth that was held out, in rows of {length} tokens "
        f"that move on by {perplexity.usual_stride(length)}. "
        f"Each student has {formats.large(record.model.get('num_parameters'))} parameters. Measured on "
        f"{machine.processor}, {machine.num_cores} cores, {record.model['number_format']}; joules are {joules}. "
        f"Commit {', '.join(commits)}."
    )
    return formats.markdown(text, 1000)


def _teacher_words(teacher: RunRecord) -> str:
    train = teacher.phase("train")
    assert train is not None
    text = (
        f"The teacher, of {formats.large(teacher.model.get('num_parameters'))} parameters, was pretrained on "
        f"{formats.large(train.num_tokens)} tokens in {formats.number(train.cpu_s)} CPU-s, which is not counted above"
    )
    return formats.markdown(text + (", on a machine that did other work too." if teacher.contended else "."), 1000)


# Records on disk


def kept_name(record: RunRecord, _folder: Path) -> str | None:
    """Of the folder that keeps a record; None of one that is no part of this benchmark."""
    if record.recipe == "pretrain_language_model":
        return "teacher"
    for name, sweep in SWEEPS.items():
        if record.recipe in sweep.recipes and (record.config["max_train"],) == sweep.axes["max_train"]:
            return f"{name}/seed-{record.config['seed']}"
    return None


def unfinished_name(run: Unfinished) -> str | None:
    """Of the folder that says what a run without a record has cost; None of one that is of none of these sweeps."""
    name = next((name for name in SWEEPS if (run.sweep_id or "").startswith(f"{name}-")), None)
    return f"{name}/{run.run_id}" if name else None


def read(results: Path) -> tuple[dict[str, list[Trial]], RunRecord | None]:
    """The seeds of each job, and the teacher's record."""
    jobs: dict[str, list[Trial]] = {name: [] for name in SWEEPS}
    for name, trials in jobs.items():
        for folder in sorted((results / name).glob("seed-*")):
            lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            found = records.read_record(folder / records.RECORD_NAME)
            trials.append(Trial(found, [json.loads(line) for line in lines]))
    teacher = results / "teacher" / records.RECORD_NAME
    return jobs, records.read_record(teacher) if teacher.is_file() else None


def main(arguments: list[str] | None = None) -> int:
    """Keep records and write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="?", type=Path, help="folder with runs whose records shall be kept first")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.runs:
            gathering.keep_all(options.runs, options.root / RESULTS, kept_name, unfinished_name)
        results = options.root / RESULTS
        files.write_text(options.root / TABLE, page(*read(results), gathering.unfinished_runs(results)))
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(TABLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
