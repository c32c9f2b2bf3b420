"""Which small model for which job, and what did it cost? Students of one teacher on five tasks, three seeds each.

The only pretrained model is all-MiniLM-L6-v2. Its fine-tuning and its answers are made once for each task and shared by
the cells, of which the first pays. Data sets are cut and epochs few, so that all of it ends within three hours on two
cores, in parts where that is too long at once; a teacher and its students see the same texts.

Run:    smallmodels sweep benchmarks/cpu_small.py          on an otherwise idle machine; goes on if it is stopped
        python benchmarks/cpu_small.py runs/sweeps/cpu_small   keeps the records, writes the page and the table
        python benchmarks/cpu_small.py                         writes them from the records that are kept
Reads:  benchmarks/results/cpu_small.md, what was wanted on each task and what came; benchmarks/results/cpu_small/page,
        quality against energy, payback, and which model to ship.
Licences: SST-2 declares none, and the STS benchmark's texts have terms of their own, some for research only; the cells
        accept both by name.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import files, metrics, records, report
from smallmodels.cli import gathering
from smallmodels.errors import InputError
from smallmodels.records import RunRecord, Unfinished
from smallmodels.report import figures, formats, systems, words
from smallmodels.report.drawing import Drawing
from smallmodels.report.systems import MIN_SEEDS, System
from smallmodels.sweeps import Sweep

ROOT = Path(__file__).resolve().parents[1]
RESULTS, TABLE, PAGE = "benchmarks/results/cpu_small", "benchmarks/results/cpu_small.md", "page"
PICTURE = "kept-and-cost"
"""Name of the picture, within the results."""
SIMPLE = ("tfidf", "majority", "word_tags")
"""Roles of models without a network, which a teacher has to beat before a share of its quality means anything."""
SUMMARY_BEGIN, SUMMARY_END = "<!-- small:begin -->", "<!-- small:end -->"
"""Around what benchmarks/readme.py takes into README.md."""


def job(recipe: str, metric: str, margin: float = 0.01, **settings: Any) -> Sweep:
    """Three seeds of a recipe at each place of its settings: a tuple holds the values of an axis."""
    axes = {
        name.replace("__", "."): value if isinstance(value, tuple) else (value,) for name, value in settings.items()
    }
    return Sweep(recipes=(recipe,), axes={**axes, "seed": (0, 1, 2)}, metric=metric, margin=margin)


BANKING77: dict[str, Any] = {
    "trim_vocabulary": True,
    "intermediate_size": 1280,
    "full_cost_control": False,
    "batch_size": 64,
    "learning_rate": 1e-3,
}
FEWER: dict[str, Any] = {**BANKING77, "max_train": 4000, "num_epochs": 6}
OBJECTIVES = ("soft_targets", "hidden_states", "attention_relations")

SWEEPS = {
    "banking77_all": job("distill_text_classifier", "accuracy", **BANKING77, num_layers=(3, 2), num_epochs=10),
    "banking77": job("distill_text_classifier", "accuracy", **FEWER, num_layers=(3, 2)),
    "banking77_objectives": job("distill_text_classifier", "accuracy", **FEWER, num_layers=3, objective=OBJECTIVES),
    "banking77_static": job("distill_static_embedder", "accuracy", max_train=4000, full_cost_control=False),
    "bc5cdr": job(
        "distill_token_classifier",
        "f1",
        max_train=2500,
        full_cost_control=False,
        teacher_train__num_epochs=4,
        num_epochs=6,
    ),
    "sst2": job(
        "distill_text_classifier",
        "accuracy",
        dataset="stanfordnlp/sst2",
        test_split="validation",
        max_train=20_000,
        full_cost_control=False,
        teacher_train__num_epochs=2,
        num_epochs=5,
        batch_size=64,
        learning_rate=1e-3,
        accept_license=(("unknown:stanfordnlp/sst2",),),
    ),
    "go_emotions": job(
        "distill_multilabel_classifier",
        "micro_f1",
        max_train=8000,
        full_cost_control=False,
        teacher_train__num_epochs=3,
        num_epochs=8,
        batch_size=64,
        learning_rate=1e-3,
        inference_protocol="full",
    ),
    "stsb": job("distill_embedder", "spearman", accept_license=(("other:stsbenchmark",),)),
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is wanted of the students of a sweep at one place of its axes."""

    sweep: str
    about: str
    short: str
    """For the picture."""
    settings: Mapping[str, Any]
    """Of the config: those that choose the cells."""
    points: float | None = None
    """By how much the student may be below the teacher; in units of the metric."""
    share: float | None = None
    """Of the teacher's metric that the student should keep."""
    max_parameters: float = math.inf
    times_as_fast: float | None = None
    """Texts per second over the teacher's."""

    def chooses(self, record: RunRecord) -> bool:
        """Whether a run is one of the cells."""
        return all(record.config.get(name) == value for name, value in self.settings.items())

    @property
    def words(self) -> str:
        """What is wanted, for the table."""
        wanted = []
        if self.points is not None:
            wanted.append(f"within {100 * self.points:g} point{'s' * (self.points != 0.01)} of the teacher")
        if self.share is not None:
            wanted.append(f"≥ {100 * self.share:g} % of the teacher")
        if self.max_parameters < math.inf:
            wanted.append(f"< {formats.large(self.max_parameters)} parameters")
        if self.times_as_fast is not None:
            wanted.append(f"≥ {self.times_as_fast:g} × its texts per second")
        return ", ".join(wanted)


TARGETS = (
    Target(
        sweep="banking77",
        about="Banking77, 3 layers, trimmed vocabulary, 1,280 feed-forward units",
        short="Banking77, 3 layers",
        settings={"num_layers": 3},
        points=0.01,
        max_parameters=7e6,
    ),
    Target(
        sweep="banking77",
        about="Banking77, 2 layers, likewise",
        short="Banking77, 2 layers",
        settings={"num_layers": 2},
        points=0.015,
    ),
    *(
        Target(
            sweep="banking77_objectives",
            about=f"Banking77, 3 layers, likewise, objective {objective.replace('_', ' ')}",
            short=f"Banking77, {objective.replace('_', ' ')}",
            settings={"objective": objective},
            points=0.01,
            max_parameters=7e6,
        )
        for objective in OBJECTIVES
    ),
    Target(
        sweep="banking77_all",
        about="Banking77, 3 layers, likewise, all texts",
        short="Banking77, all, 3 layers",
        settings={"num_layers": 3},
        points=0.01,
        max_parameters=7e6,
    ),
    Target(
        sweep="banking77_all",
        about="Banking77, 2 layers, likewise, all texts",
        short="Banking77, all, 2 layers",
        settings={"num_layers": 2},
        points=0.015,
    ),
    Target(
        sweep="banking77_static",
        about="Banking77, one vector per token",
        short="Banking77, static",
        settings={},
        share=0.9,
        times_as_fast=50,
    ),
    Target(sweep="bc5cdr", about="BC5CDR, 3 layers", short="BC5CDR", settings={}, share=0.97),
    Target(sweep="sst2", about="SST-2, 3 layers", short="SST-2", settings={}, share=0.97),
    Target(sweep="go_emotions", about="go_emotions, 3 layers", short="go_emotions", settings={}, share=0.97),
    Target(sweep="stsb", about="STS-B English, embedder of 3 layers", short="STS-B", settings={}, share=0.97),
)


# What the runs of a target say


@dataclass(frozen=True)
class Outcome:
    """The runs of a target, one for each seed."""

    target: Target
    runs: Sequence[RunRecord]

    def system(self, role: str) -> System:
        """A role over the seeds."""
        return System(self.target.about, role, self.runs)

    def values(self, role: str) -> list[float]:
        """The metric of a role, by seed; empty where a run lacks it."""
        return [*(self.system(role).values or {}).values()]

    @property
    def seeds_won(self) -> str:
        """In how many seeds the student beats the one that learned from labels alone at equal cost."""
        won, seeds = systems.seeds_won(self.system("student"), self.system(systems.EQUAL_COST_CONTROL))
        return f"{won} of {seeds}" if seeds else "no control"

    @property
    def did_not_help(self) -> str:
        """A sentence, or nothing."""
        return systems.did_not_help(self.system("student"), self.system(systems.EQUAL_COST_CONTROL))

    @property
    def unequal_cost(self) -> str:
        """What is said of a control that did not cost what the student did."""
        said = systems.at_what_cost(self.system("student"), self.system(systems.EQUAL_COST_CONTROL))
        return "" if said == "at equal cost" else f", {said}"

    @property
    def num_texts(self) -> int | None:
        """That teacher and student learned on."""
        source = next((source for source in self.runs[0].sources if source.role == "dataset"), None)
        return source.splits.get("train") if source else None

    @property
    def num_parameters(self) -> int | None:
        """Of the student."""
        use = self.runs[0].inference_of("student")
        return use.num_parameters if use else None

    @property
    def times_as_fast(self) -> list[float]:
        """Texts per second over the teacher's, by seed."""
        uses = [(run.inference_of("student"), run.inference_of("teacher")) for run in self.runs]
        return [ours.throughput_per_s / theirs.throughput_per_s for ours, theirs in uses if ours and theirs]

    @property
    def shares_kept(self) -> list[float]:
        """The student's metric over the teacher's, by seed."""
        return [a / b for a, b in zip(self.values("student"), self.values("teacher"), strict=True) if b]

    @property
    def cost_shares(self) -> list[float]:
        """Processor time of a use over that of the teacher, by seed."""
        uses = [(run.inference_of("student"), run.inference_of("teacher")) for run in self.runs]
        both = [(words.use_cost(ours, "CPU-s"), words.use_cost(theirs, "CPU-s")) for ours, theirs in uses]
        return [ours / theirs for ours, theirs in both if ours and theirs]

    def point(self) -> figures.Point | None:
        """Of the picture; None where something was not measured."""
        if not self.cost_shares or not self.shares_kept:
            return None
        kept, cost = metrics.student_t_interval(self.shares_kept), mean(self.cost_shares)
        name, low, high = self.target.short, kept.low, kept.high
        return figures.Point(label=name, role="student", x=100 * cost, y=kept.value, y_low=low, y_high=high)

    def missed(self) -> list[str]:
        """Names of what was wanted and not reached, by the means over the seeds."""
        target, found = self.target, []
        student, teacher = mean(self.values("student")), mean(self.values("teacher"))
        if len(self.runs) < MIN_SEEDS:
            found.append(f"{len(self.runs)} of {MIN_SEEDS} seeds")
        if any(teacher <= mean(self.values(role)) for role in SIMPLE):  # its share can be had for nothing
            found.append("a teacher worth learning from")
        if target.points is not None and student < teacher - target.points:
            found.append("points")
        if target.share is not None and student < target.share * teacher:
            found.append("share")
        if (self.num_parameters or math.inf) >= target.max_parameters < math.inf:
            found.append("parameters")
        if target.times_as_fast is not None and mean(self.times_as_fast) < target.times_as_fast:
            found.append("texts per second")
        return found

    def row(self) -> list[str]:
        """Of the table."""
        missed, metric = self.missed(), self.runs[0].metric
        return [
            self.target.about,
            self.target.words,
            formats.large(self.num_texts),
            formats.metric_name(metric),
            formats.quality(metric, mean(self.values("teacher"))),
            _quality(metric, self.values("student")),
            f"{100 * mean(self.shares_kept):.1f} %",
            _quality(metric, self.values("label_only")) + self.unequal_cost,
            self.seeds_won,
            formats.large(self.num_parameters),
            formats.number(mean(self.times_as_fast), 2),
            f"{100 * mean(self.cost_shares):.3g} %" if self.cost_shares else formats.MISSING,
            f"not met: {', '.join(missed)}" if missed else "met",
        ]


def mean(values: Sequence[float]) -> float:
    """Not a number where there are none."""
    return sum(values) / len(values) if values else math.nan


def _quality(metric: str, values: Sequence[float]) -> str:
    """Mean, 95 % Student-t interval and number of seeds."""
    if not values:
        return formats.MISSING
    found = metrics.student_t_interval(values)
    shown = formats.quality(metric, found.value)
    bounds = f"{formats.interval(metric, found.low, found.high)}, " if found.low is not None else ""
    return f"{shown} ({bounds}n {found.n})"


HEAD = (
    "task, student",
    "wanted",
    "texts learned on",
    "metric",
    "teacher",
    "student",
    "share kept",
    "labels alone, equal cost",
    "seeds won",
    "parameters",
    "× as fast",
    "cost of a use",
    "",
)


def table(
    outcomes: Sequence[Outcome],
    found: Sequence[RunRecord],
    never_ended: Sequence[Unfinished] = (),
    *,
    answer: str = "",
) -> str:
    """The Markdown page; `answer` is what the page of all runs says of whether to distil."""
    title = "# Small models on a processor: what was wanted, and what came"
    if not outcomes:
        return "\n\n".join([title, SUMMARY_BEGIN, "Not measured.", SUMMARY_END]) + "\n"
    parts = [title, SUMMARY_BEGIN]
    parts.append(
        "Means over seeds with their 95 % Student-t interval; the teacher is the same for all seeds of a task. Where "
        "*texts learned on* are fewer than the data set has, its teacher is weaker too than it would be with all. "
        "*Seeds won*: in so many the student is better than the same one that learned from labels alone at equal "
        "cost. *× as fast*: its texts per second over the teacher's. *Cost of a use*: its processor time as a share of "
        "the teacher's. What is wanted of the quality is *met* where the mean has it; its interval may reach below."
    )
    parts.append(formats.markdown_table(HEAD, [outcome.row() for outcome in outcomes], text_columns=(1, 3, 12)))
    if answer:
        about = "What is met here is no advice to distil. On that, the page of all runs says: "
        parts.append(formats.markdown(about + answer.replace("the first section", "its first section")))
    parts += [formats.markdown(said) for outcome in outcomes if (said := outcome.did_not_help)]
    measured = [outcome.target.about for outcome in outcomes]
    if others := [target.about for target in TARGETS if target.about not in measured]:
        parts.append(formats.markdown(f"Not measured: {'; '.join(others)}."))
    parts += [_where(found, never_ended), SUMMARY_END]
    return "\n\n".join(parts) + "\n"


def picture(outcomes: Sequence[Outcome]) -> tuple[Drawing, str] | None:
    """Share of the teacher's quality against share of its cost, and the same in words; None without points."""
    points = [point for outcome in outcomes if (point := outcome.point()) is not None]
    if not points:
        return None
    x_label, y_label = "processor time of a use, % of the teacher's", "kept of the teacher's quality"
    figure = figures.scatter(points, x_label=x_label, y_label=y_label, draw_front=False, percent=True)
    said = "; ".join(f"{p.label} {100 * p.y:.1f} % at {p.x:.3g} %" for p in points)
    return figure, f"What small students keep of their teacher's quality, and what a use costs of its: {said}"


def outcomes_of(found: Sequence[RunRecord]) -> list[Outcome]:
    """Of every target that has runs."""
    return [outcome for target in TARGETS if (outcome := outcome_of(target, found)).runs]


def outcome_of(target: Target, found: Sequence[RunRecord]) -> Outcome:
    """The runs of a target among all."""
    runs = [run for run in found if sweep_name(run) == target.sweep and target.chooses(run)]
    return Outcome(target, sorted(runs, key=lambda run: int(run.config["seed"])))


def _where(found: Sequence[RunRecord], never_ended: Sequence[Unfinished]) -> str:
    machines = sorted({f"{r.environment.processor}, {r.environment.num_cores} cores" for r in found})
    formats_used = sorted({str(r.model["number_format"]) for r in found})
    commits = sorted({(r.git_commit or formats.MISSING)[:8] for r in found})
    total_s, total_cpu_s = sum(r.duration_s for r in found), sum(r.cpu_s for r in found)
    text = (
        f"{len(found)} runs on {'; '.join(machines)}, in {' and '.join(formats_used)}: "
        f"{formats.duration(total_s)}, {formats.number(total_cpu_s)} CPU-s, {_joules(found)}. Commit "
        f"{', '.join(commits)}."
    )
    if shared := sum(r.contended for r in found):
        text += f" Other work shared the machine in {shared} of them, so that their times and CPU-s are too high."
    if never_ended:
        text += f" {words.unfinished(never_ended)}."
    return formats.markdown(text, 1000)


def _joules(found: Sequence[RunRecord]) -> str:
    """Of all runs, with how they were obtained."""
    labels = ", ".join(sorted({r.energy_label for r in found}))
    return f"{formats.energy(records.whole_sum(r.energy_j for r in found))} (label: {labels})"


def sweep_name(run: RunRecord | Unfinished) -> str:
    """Of the sweep that a run belongs to; empty where it is none of these."""
    return next((name for name in SWEEPS if (run.sweep_id or "").startswith(f"{name}-")), "")


# Records on disk


def kept_name(record: RunRecord, folder: Path) -> str | None:
    """Of the folder that keeps a run; None of one that is of none of these sweeps."""
    name = sweep_name(record)
    return f"{name}/{folder.name}" if name else None


def unfinished_name(run: Unfinished) -> str | None:
    """Of the folder that says what a run without a record has cost; None of one that is of none of these sweeps."""
    name = sweep_name(run)
    return f"{name}/{run.run_id}" if name else None


def write(root: Path) -> None:
    """The table, and the page of all runs."""
    results = root / RESULTS
    paths = [str(results / name) for name in SWEEPS if (results / name).is_dir()]
    found, evidence = gathering.gather(paths) if paths else ([], None)
    outcomes = outcomes_of(found)
    unfinished = evidence.unfinished if evidence is not None else ()
    answer = report.answer(found, evidence) if evidence is not None else ""
    files.write_text(root / TABLE, table(outcomes, found, unfinished, answer=answer))
    if drawn := picture(outcomes):
        figures.write(drawn[0], results / PICTURE, title=drawn[1])
    if evidence is not None:
        report.write_report(found, results / PAGE, evidence=evidence)


def main(arguments: list[str] | None = None) -> int:
    """Keep records, write table and page; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="?", type=Path, help="folder with runs whose records shall be kept first")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.runs:
            gathering.keep_all(options.runs, options.root / RESULTS, kept_name, unfinished_name)
        write(options.root)
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(TABLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
