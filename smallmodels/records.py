"""The schema of what a run leaves behind: `record.json`. Standard library only, so reports start at once.

Energy is in joules (`energy_j`), time in seconds, memory in MB (10^6 bytes). What could not be measured is None,
never 0. A record is validated when it is written and when it is read: every key known, none missing, every type right.
"""

import dataclasses
import functools
import itertools
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from smallmodels import files
from smallmodels.errors import DamagedError, InputError

SCHEMA_VERSION = 1
RECORD_NAME, PAGE_NAME, CARD_NAME = "record.json", "report.html", "model/README.md"
ADAPTER_CARD_NAME = "adapter/README.md"
UNFINISHED_NAME = "unfinished.json"
"""What is kept of a run without a record, where records are kept."""
JOURNAL_NAME, METRICS_NAME, PREDICTIONS_NAME = "journal.jsonl", "metrics.jsonl", "predictions.parquet"
"""In a run folder. In a published model, whose files are not in a folder of their own, the card is README.md."""

EnergyLabel = Literal["wall", "counter", "sampled", "user", "modelled", "constant", "unknown", "missing"]
"""How a number of joules was obtained; `smallmodels.energy` says what each means."""

IDLE = "idle"
"""Name of the phase in which the machine is watched while it does nothing."""

COUNTED_LABELS = frozenset({"wall", "counter", "sampled"})
"""Labels under which joules may be ranked; under any other, CPU-seconds are (design: equal cost)."""


LOWER_IS_BETTER = frozenset(
    {"bits_per_byte", "perplexity", "divergence", "kl_from_teacher", "area_under_risk_coverage", "spread_of_groups"}
)
"""Metrics in which a smaller value is the better one; in all others a larger one is."""


def goodness(metric: str, value: float) -> float:
    """A value with the sign that makes larger better; called with a goodness, it gives the value back."""
    return -value if metric in LOWER_IS_BETTER else value


def now() -> str:
    """The time in UTC, as a record holds it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_counted(labels: Mapping[str, str]) -> bool:
    """Whether joules may be ranked: those of the processor or of the GPU come from the hardware.

    Memory does not count here, because nearly every machine can only assume its power.
    """
    return any(labels.get(component) in COUNTED_LABELS for component in ("cpu", "gpu"))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model or data set that went into the run."""

    role: str
    """What it was used as: `teacher`, `dataset`, …"""
    kind: Literal["model", "dataset"]
    name: str
    """Hub id, installed package, or file name; never a local folder."""
    revision: str | None
    """Commit on the hub; None for local files and packages, whose hashes stand in `sha256`."""
    sha256: dict[str, str]
    """SHA-256 of the files that were read, by name, where the bytes were at hand."""
    license: str | None
    """As declared by the source (an id of the hub, or several with commas), `user-provided, not checked`, or None."""
    license_file_seen: bool
    duties: list[str]
    """What follows from the licence in plain words, such as attribution."""
    splits: dict[str, int]
    """Rows per split, for data sets."""
    fingerprint: str | None
    """SHA-256 over the rows, for data sets; over the weights, for models."""
    notes: dict[str, Any]
    """Anything else worth knowing, such as overlap between splits or rows that were dropped."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the software.

    `fingerprint` is a hash of exactly the other fields; those that older records lack count where they are known.
    """

    processor: str
    num_cores: int
    num_threads: int
    memory_mb: int
    """Of the machine: whole GB, in older records what the kernel had left of it."""
    gpu: str | None
    gpu_driver: str | None
    operating_system: str
    virtual_machine: bool | None
    power_policy: str | None
    versions: dict[str, str]
    """Versions of Python and of the packages that move numbers."""
    energy_labels: dict[str, str]
    """How each component's joules are obtained here: cpu, gpu, ram."""
    tracking_mode: str
    fingerprint: str
    vector_instructions: str | None = None
    """Widest that PyTorch computes with on the processor, with the variables that cap them where they are set; None
    where PyTorch was not loaded, and in older records."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """Joules of one component (cpu, gpu, ram) and how they were obtained."""

    energy_j: float | None
    label: EnergyLabel


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One measured part of the run; nested phases are counted once, in the inner one."""

    name: str
    duration_s: float
    cpu_s: float
    """CPU time of this process and its finished children."""
    energy_j: float | None
    """Sum over the components that are known."""
    label: EnergyLabel
    """The weakest label that carries 10 % of the joules or more."""
    components: dict[str, Component]
    num_examples: int | None
    num_tokens: int | None
    """Real tokens that went through a model."""
    num_processed_tokens: int | None
    """Real tokens and padding."""
    num_operations: float | None
    """Floating-point operations of the models, without padding's share."""
    utilisation: float | None
    """Operations per second over the matmul rate measured on this machine in the same number format.

    The time of validations during training counts, their operations do not.
    """
    peak_memory_mb: float | None
    """Highest resident memory of the process while the phase ran."""
    shared_energy_j: float | None
    """Joules that an earlier run paid for what this phase took from the cache; 0.0 if it took nothing."""
    shared_cpu_s: float | None
    """CPU-seconds in the same sense."""
    device: str | None = None
    """Where the phase's models ran: `cpu`, `cuda` or `mps`; a phase without models runs on the processor."""
    tokens_per_s: float | None = None
    """Real tokens over the whole time of the phase; None where no model worked, and in older records."""
    real_token_fraction: float | None = None
    """Real tokens over processed ones, the rest being padding; None as above."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measured quality with its 95 % interval."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Test items behind it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Quality of one role on one split."""

    role: str
    """`teacher`, `student`, `untrained_student`, `label_only`, `tfidf`, `majority`, …"""
    split: str
    metrics: dict[str, Metric]
    per_class: list[dict[str, Any]]
    """One row per class: label, precision, recall, f1, support. Empty for tasks without classes."""
    agreement: Metric | None
    """Share of test items on which this role and the teacher give the same answer."""
    calibration_error: float | None
    """Expected calibration error, 15 bins, in [0, 1]."""
    built_by: list[str]
    """Phases whose cost was paid for this role's model alone."""
    teacher_phases: list[str]
    """Phases that made its teacher; a report shows cost with and without them."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    """One row per part of the test items that is measured on its own, such as a language: `group` names it, `n` counts
    its items, and what else is known stands under the keys of `metrics` (with `…_low` and `…_high` for an interval) and
    of `evaluation.language_costs`. None where something could not be measured; empty where there are no parts."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One validation during training."""

    step: int
    energy_j: float | None
    """Joules since the training phase began; where there are rounds, since the first of them did."""
    cpu_s: float
    value: float
    """The metric that training chooses by (`RunRecord.curve_metric`), on validation, with the sign that makes larger
    better."""


@dataclass(frozen=True, kw_only=True)
class InferenceWindow:
    """One repeat of the throughput measurement."""

    duration_s: float
    num_examples: int
    energy_j: float | None
    cpu_s: float


InferenceProtocol = Literal["indicative", "full", "smoke"]
"""How the cost of a use was measured; `smallmodels.evaluation` says what each means."""

TextsKind = Literal["typical", "short", "long"]
"""Texts spread over a split, those of its shortest tenth, those of its longest."""


@dataclass(frozen=True, kw_only=True)
class InferenceVariant:
    """Uses of a model on texts of one kind, in one number format, so many at once."""

    texts: TextsKind
    mean_characters: float
    mean_tokens: float | None
    """As the model cuts them, special tokens included; None for a model that has no such tokens."""
    number_format: str
    batch_size: int
    latency_p50_s: float
    """Of a call with so many texts, median."""
    latency_p95_s: float
    throughput_per_s: float
    energy_j_per_1000: float | None
    cpu_s_per_1000: float
    label: EnergyLabel
    num_windows: int
    duration_s: float
    """Of all windows together."""


@dataclass(frozen=True, kw_only=True)
class TokenCosts:
    """What a language model takes to read a token and to write one, apart, on average over a use.

    The first token of an answer comes with the reading. The interval of a cost is over windows, of which there are `n`.
    None is a cost that is not known, or that the windows do not tell from none.
    """

    num_read: float
    """In a use."""
    num_written: float
    """In a use, the first of the answer included."""
    energy_j_per_read: Metric | None
    energy_j_per_written: Metric | None
    cpu_s_per_read: Metric | None
    cpu_s_per_written: Metric | None
    reading_windows: list[InferenceWindow]
    """Of uses that end with the first token. What writing costs is what whole uses take beyond these."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """What one use of a role's model costs."""

    role: str
    num_parameters: int | None
    size_bytes: int | None
    """Bytes on disk of the weights."""
    latency_p50_s: float | None
    """Batch 1, median."""
    latency_p95_s: float | None
    batch_size: int
    """Batch of the throughput windows."""
    throughput_per_s: float
    energy_j_per_1000: float | None
    cpu_s_per_1000: float
    label: EnergyLabel
    windows: list[InferenceWindow]
    number_format: str
    protocol: InferenceProtocol
    measured_as: str | None = None
    """Role whose measurement this is: models of one shape cost the same, so one of them is measured."""
    measured_in: str | None = None
    """Id of the run that measured it, where this one found a model of the same shape in the cache."""
    start_up_s: float | None = None
    """From the start of a new process until it has imported the library, loaded the saved model and answered a text,
    median; None where that was not measured, as in all protocols but `full`."""
    variants: list[InferenceVariant] = field(default_factory=list)
    """The same for one text and for the best batch, typical, short and long texts, and number formats; `full` alone."""
    tokens: TokenCosts | None = None
    """Of language models, of which a use is an answer or the continuation of a text."""


@dataclass(frozen=True, kw_only=True)
class Payback:
    """After how many uses the energy that built the student is saved again."""

    replaces: str
    """The role that the student replaces."""
    unit: Literal["J", "CPU-s"]
    build: float
    """What was paid: every phase that made and evaluated the student, shared caches included."""
    build_without_shared: float
    """The same without the share of caches that earlier runs paid."""
    saved_per_use: float | None
    uses: float | None
    """None means never."""
    low: float | None
    high: float | None
    """95 % interval of `uses`; None where open or never."""
    reason: str
    """One sentence: why this number, or why never."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something unusual that happened."""

    time_utc: str
    kind: str
    message: str
    details: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A phase that a rule of the user cut short or left out."""

    phase: str
    by: Literal["budget", "gain"]
    limit: str
    """The rule in words, such as `0.5 Wh`."""
    num_steps: int
    """Optimizer steps that the phase took; 0 where it was left out."""
    planned_steps: int | None
    """That it would have taken otherwise; None where it was left out before that was known."""
    gain_per_wh: float | None = None
    """Gain in the metric of validation that was too small, for each Wh; None for a budget."""

    @property
    def is_left_out(self) -> bool:
        """Whether the phase never began."""
        return self.planned_steps is None

    @property
    def sentence(self) -> str:
        """What happened, as the whole of a sentence without its full stop."""
        rule = f"its budget of {self.limit}" if self.by == "budget" else f"its rule of {self.limit}"
        if self.planned_steps is None:
            return f"phase {self.phase} was left out, because the run had spent {rule}"
        found = "" if self.gain_per_wh is None else f", where the gain was {self.gain_per_wh:.3g} per Wh"
        return (
            f"phase {self.phase} was stopped by {rule} after {self.num_steps:,} of {self.planned_steps:,} steps{found}"
        )


@dataclass(frozen=True, kw_only=True)
class Carbon:
    """Grams of CO2e, only where the user named a country or an intensity."""

    emissions_g: float | None
    """None where the joules are not known."""
    intensity_g_per_kwh: float
    year: int | None
    source: str


@dataclass(frozen=True, kw_only=True)
class WallReading:
    """What a meter at the wall socket read for the whole run; somebody typed it in after the run."""

    energy_j: float
    label: Literal["wall"] = "wall"
    attached_utc: str
    ratio: float | None
    """Of it to the run's `energy_j`; None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class WallFactor:
    """What earlier readings at the wall socket say of this machine. An estimate, which no figure of the run holds."""

    factor: float
    """Joules at the wall for each joule that software saw."""
    num_readings: int


@dataclass(frozen=True, kw_only=True)
class ExternalResult:
    """One metric of one task, as another program defines both."""

    task: str
    task_version: str | None
    """Of the task's definition, where it declares one."""
    metric: str
    """In the program's own name, such as `acc_norm`."""
    filter: str | None
    """What was done to the answers before; None where nothing was."""
    value: float | None
    """None where it is not finite."""
    stderr: float | None
    """Standard error over the items, where the program gives one."""
    higher_is_better: bool | None
    n: int
    """Items behind it."""
    num_fewshot: int
    """Solved items in front of each."""


@dataclass(frozen=True, kw_only=True)
class ExternalEvaluation:
    """The finished model on tasks of another program. Paid after the run, so it is in no phase and no sum of it."""

    harness: str
    """Name of the program on the package index."""
    harness_version: str
    started_utc: str
    limit: int | None
    """Items of each task that were looked at, where not all."""
    device: str
    number_format: str
    duration_s: float
    """With the loading of model and tasks, as all costs here."""
    cpu_s: float
    energy_j: float | None
    label: EnergyLabel
    components: dict[str, Component]
    contended: bool
    """True when another run or foreign load shared the machine."""
    fingerprint: str
    """Of the machine and software, as `Environment` has it: not always those of the run."""
    warnings: list[str]
    """What the program warned of, such as texts that it cut; each kind once."""
    results: list[ExternalResult]
    in_chat: bool | None = None
    """Whether requests were written in the model's own form of a dialogue; None is not known."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a sweep declares before its first run, and the record of each of its runs repeats."""

    sweep_id: str
    metric: str
    """See `RunRecord.metric`."""
    margin: float
    """See `RunRecord.margin`."""


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run without a record: it failed, was stopped, or is still going. Its journal says what it has cost so far."""

    run_id: str
    recipe: str
    sweep_id: str | None
    energy_j: float | None
    """None where it was not measured, or the journal is gone or damaged."""
    cpu_s: float | None
    """None where the journal is gone or damaged."""
    energy_label: str | None = None
    """How the joules were obtained; None where there are none."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One complete run. Written last; its presence means that the run is complete."""

    schema_version: int = SCHEMA_VERSION
    # Identity
    run_id: str
    recipe: str
    command: str
    library_version: str
    git_commit: str | None
    git_dirty: bool | None
    started_utc: str
    ended_utc: str
    sweep_id: str | None = None
    """The same in all runs of a sweep; None in a run that belongs to none."""
    margin: float | None = None
    """Difference in the metric below which two models count as equal, where declared before the run."""
    stopped_by: Literal["end", "budget", "gain"] = "end"
    """What ended the first of `stops`; `end` where there are none."""
    stops: list[Stop] = field(default_factory=list)
    """Phases that a budget or a rule on gains cut short or left out, in the order of the run."""
    smoke: bool
    num_processes: int = 1
    """Processes that trained together in the last segment."""
    # What was done
    title: str
    """One line: what was distilled or fine-tuned into what."""
    task: str
    """Pipeline tag of the hub: `text-classification`, `sentence-similarity`, …"""
    metric: str
    """Key of `Result.metrics` that ranks; higher is better, but for those of `LOWER_IS_BETTER`."""
    languages: list[str]
    """Two-letter codes as declared by the data; empty if unknown."""
    limits: list[str]
    """Sentences on what the model is not for and what was not tested."""
    config: dict[str, Any]
    sources: list[Source]
    accepted_licenses: list[str] = field(default_factory=list)
    """Ids of licences that would have been refused and that whoever ran this accepted, named as `licenses` does."""
    environment: Environment
    # What came out
    phases: list[Phase]
    duration_s: float
    cpu_s: float
    energy_j: float | None
    energy_label: EnergyLabel
    num_segments: int
    """1 plus the number of times the run was resumed."""
    energy_truncated: bool
    """True when costs are missing: at most one tick of each segment that was not closed, else what `events` tell of."""
    contended: bool
    """True when another run or foreign load shared the machine."""
    carbon: Carbon | None
    wall: WallReading | None = None
    """Added after the run by `smallmodels energy`; beside `energy_j`, which stays what software saw."""
    wall_factor: WallFactor | None = None
    """As it was when the run ended; None where no reading was known for its environment."""
    results: list[Result]
    curve: list[CurvePoint]
    teacher_on_validation: float | None = None
    """What the teacher reaches where `curve` is measured: on validation, by the same function, with the same sign; None
    where there is no teacher or no curve, and in older records."""
    curve_of: str | None = None
    """Key of the metric that `curve` holds, where training chose by another one than `metric`."""
    inference: list[Inference]
    payback: Payback | None
    examples: list[dict[str, Any]] = field(default_factory=list)
    """Uses of the student that a reader can judge: `input` and `answers`."""
    model: dict[str, Any] = field(default_factory=dict)
    """The student: base model, layers, parameters, number format, how to load it."""
    events: list[Event] = field(default_factory=list)
    label_names: list[str] = field(default_factory=list)
    """Names of the classes in the order of the model's outputs; empty for other tasks and in older records."""
    external_evaluations: list[ExternalEvaluation] = field(default_factory=list)
    """What `smallmodels eval` added after the run, in order."""
    published_as: str | None = None
    """Name on the hub, in the record that is published with the model; None in that of a run folder."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every other file beside the record, by relative path."""
    record_sha256: str | None = None
    """SHA-256 of `record.json` as it is with null here; None in older records."""

    @property
    def template(self) -> str | None:
        """How prompts of a language model were written, `chat` or `plain`; None where there were none."""
        return self.model.get("template") or self.config.get("template")

    @property
    def curve_metric(self) -> str:
        """Key of the metric that `curve` holds."""
        return self.curve_of or self.metric

    @property
    def energy_is_counted(self) -> bool:
        """Whether the run's joules may be ranked (see `is_counted`)."""
        return self.energy_j is not None and is_counted(self.environment.energy_labels)

    def result(self, role: str, split: str = "test") -> Result | None:
        """The result of a role on a split, or None."""
        return next((r for r in self.results if (r.role, r.split) == (role, split)), None)

    def inference_of(self, role: str) -> Inference | None:
        """The inference cost of a role, or None."""
        return next((i for i in self.inference if i.role == role), None)

    def phase(self, name: str) -> Phase | None:
        """The phase of that name, or None."""
        return next((p for p in self.phases if p.name == name), None)

    def cost_of(self, phase_names: list[str]) -> tuple[float | None, float]:
        """Joules (None if any is unknown) and CPU-seconds of these phases, shares of caches included."""
        return cost_of(self.phases, phase_names)


def cost_of(phases: Sequence[Phase], names: Sequence[str], *, caches: bool = True) -> tuple[float | None, float]:
    """Joules (None if any is unknown) and CPU-seconds of the phases with these names.

    Args:
        phases: Of a run.
        names: Of those that count.
        caches: Whether what earlier runs paid for caches is counted.
    """
    chosen = [p for p in phases if p.name in names]
    joules = [p.energy_j for p in chosen] + [p.shared_energy_j for p in chosen if caches]
    return whole_sum(joules), sum(p.cpu_s + (p.shared_cpu_s or 0.0 if caches else 0.0) for p in chosen)


def whole_sum(values: Iterable[float | None]) -> float | None:
    """The sum; None if a part is unknown."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def costs_per_use(windows: Iterable[InferenceWindow], cost: Literal["energy_j", "cpu_s"]) -> list[float]:
    """Joules or CPU-seconds of one use in each window; empty where they are unknown in any."""
    used = [window for window in windows if window.num_examples]
    costs = [window.energy_j if cost == "energy_j" else window.cpu_s for window in used]
    known = [value for value in costs if value is not None]
    if len(known) < len(used):
        return []
    return [value / window.num_examples for value, window in zip(known, used, strict=True)]


def dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every setting of a config by its dotted name, such as `train.learning_rate`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def as_read(record: RunRecord) -> RunRecord:
    """The record as it will be read back: plain values alone, and a float where the schema has one.

    Raises: DamagedError if it would not be valid.
    """
    return from_json(RunRecord, to_json(record))


def statement(record: RunRecord) -> RunRecord:
    """What card and page are made from: the record without the hashes, which are known only after them."""
    return dataclasses.replace(record, files={}, record_sha256=None)


def statement_sha256(record: RunRecord) -> str:
    """SHA-256 of all that a record says but for its hashes; card and page carry it. The same for equal `as_read`."""
    return written_statement_sha256(to_json(record))


def written_statement_sha256(value: Mapping[str, Any]) -> str:
    """The same of a `record.json` as it stands, where another version may have written fewer fields than there are."""
    return files.sha256_json({**value, "files": {}, "record_sha256": None})


def sealed(record: RunRecord) -> RunRecord:
    """The record as it will be read back, with the SHA-256 of its own file."""
    value = to_json(dataclasses.replace(as_read(record), record_sha256=None))
    return from_json(RunRecord, value | {"record_sha256": _seal(value)})


def is_sealed(content: bytes) -> bool:
    """Whether the bytes of a `record.json` are those that were written, to the last space."""
    try:
        value = json.loads(content)
        return files.json_bytes(value) == content and value["record_sha256"] == _seal(value)
    except (ValueError, KeyError, TypeError):
        return False


def _seal(value: Mapping[str, Any]) -> str:
    return files.sha256_bytes(files.json_bytes({**value, "record_sha256": None}))


def write_record(folder: Path, record: RunRecord) -> RunRecord:
    """Validate, seal and write `record.json` into a folder, atomically; returns the record as it will be read."""
    written = sealed(record)
    files.write_json(folder / RECORD_NAME, to_json(written))
    return written


def set_aside(folder: Path) -> Path:
    """Rename the record of a run that goes on to `record-1.json`, or the next number that is free; gives the new path.

    From then on the run is not complete.
    """
    number = next(n for n in itertools.count(1) if not (folder / f"record-{n}.json").exists())
    path = folder / f"record-{number}.json"
    (folder / RECORD_NAME).rename(path)
    files.fsync_folder(folder)
    return path


def read_run(path: Path) -> RunRecord:
    """The record of a complete run, by its folder or by its file.

    Raises:
        InputError: There is none, or the run is not complete.
        DamagedError: See `read_record`.
    """
    file = path / RECORD_NAME if path.is_dir() else path
    if (path / "config.json").is_file() and not file.exists():
        raise InputError(f"the run in {path} is not complete: go on with `smallmodels run --resume {path}`")
    if not file.is_file():
        raise InputError(f"{path} should be a run folder with a {RECORD_NAME}, but has none: check the path")
    return read_record(file)


def require_outside_runs(path: Path, flag: str) -> None:
    """Refuse to write into the folder of a complete run, which would then not be what its record says.

    Raises: InputError that names the flag.
    """
    for folder in (path.absolute(), *path.absolute().parents):
        if (folder / RECORD_NAME).is_file():
            raise InputError(f"{path} lies in a complete run, where nothing may change: choose another with {flag}")


def read_record(path: Path) -> RunRecord:
    """Read and validate a record from its file or its run folder.

    Raises: DamagedError that names the file, the field, what was expected and what was found.
    """
    file = path / RECORD_NAME if path.is_dir() else path
    value = files.read_json(file)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise DamagedError(
            f"{file} should have schema version {SCHEMA_VERSION}, found {version!r}: "
            "read it with the version of smallmodels that wrote it"
        )
    try:
        return from_json(RunRecord, value)
    except DamagedError as error:
        raise DamagedError(f"{file}: {error}") from None


def to_json(value: Any) -> Any:
    """A dataclass as plain JSON values; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item"):  # numpy scalars
        return to_json(value.item())
    raise TypeError(f"a record holds JSON values, got {type(value).__name__}: {value!r}")


T = TypeVar("T")


def from_json(kind: type[T], value: Any) -> T:
    """Build a dataclass of this module from JSON values, checking every key and type.

    Raises: DamagedError that names the field, what was expected and what was found.
    """
    try:
        return typing.cast(T, _reader(typing.cast(Any, kind))(value))
    except _Unfit as unfit:
        raise DamagedError(f"{unfit.where.removeprefix('.') or 'the record'} {unfit.said}") from None


class _Unfit(Exception):  # noqa: N818 - never leaves this module
    """A JSON value that is not of its type; `where` grows on the way out of what holds it."""

    def __init__(self, said: str, where: str = "") -> None:
        super().__init__()
        self.said, self.where = said, where


@functools.cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What checks a JSON value and builds the type from it; made once, since a report reads a thousand records."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if dataclasses.is_dataclass(kind):
        return _reader_of_fields(kind)
    if origin in (typing.Union, types.UnionType):
        inner = _reader(next(a for a in arguments if a is not type(None)))
        is_optional = type(None) in arguments
        return lambda value: None if value is None and is_optional else inner(value)
    if origin is Literal:
        return _reader_of_literal(arguments)
    if origin is list:
        return _reader_of_list(_reader(arguments[0]))
    if origin is dict:
        return _reader_of_object(_reader(arguments[1]))
    return _reader_of_plain(kind)


def _reader_of_fields(kind: Any) -> Callable[[Any], Any]:
    readers = {name: _reader(hint) for name, hint in typing.get_type_hints(kind).items()}
    needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Unfit(f"should be an object, found {value!r}")
        if unknown := value.keys() - readers.keys():
            raise _Unfit(f"is not a field of {kind.__name__}", f".{min(unknown)}")
        if missing := [name for name in needed if name not in value]:
            raise _Unfit("is missing", f".{missing[0]}")
        return kind(**_read_items(value, lambda name, item: readers[name](item)))

    return read


def _read_items(value: dict[str, Any], read: Callable[[str, Any], Any]) -> dict[str, Any]:
    found = {}
    name = ""
    try:
        for name, item in value.items():
            found[name] = read(name, item)
    except _Unfit as unfit:
        unfit.where = f".{name}{unfit.where}"
        raise
    return found


def _reader_of_literal(allowed: tuple[Any, ...]) -> Callable[[Any], Any]:
    expected = f"one of {', '.join(map(repr, allowed))}"

    def read(value: Any) -> Any:
        if value not in allowed:
            raise _Unfit(f"should be {expected}, found {value!r}")
        return value

    return read


def _reader_of_object(read_item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Unfit(f"should be an object, found {value!r}")
        return _read_items(value, lambda _, item: read_item(item))

    return read


def _reader_of_list(read_item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise _Unfit(f"should be a list, found {value!r}")
        found: list[Any] = []
        try:
            for item in value:
                found.append(read_item(item))  # as many as fit, which is the place of the one that does not
        except _Unfit as unfit:
            unfit.where = f"[{len(found)}]{unfit.where}"
            raise
        return found

    return read


def _reader_of_plain(kind: type) -> Callable[[Any], Any]:
    fitting: Any = (int, float) if kind is float else kind

    def read(value: Any) -> Any:
        if not isinstance(value, fitting) or (isinstance(value, bool) and kind in (int, float)):
            raise _Unfit(f"should be {kind.__name__}, found {value!r}")
        return float(value) if kind is float else value

    return read
