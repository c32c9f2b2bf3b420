"""What a report says in words about a record: names, the summary, the payback, sources. Pages and cards share it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from smallmodels.records import (
    COUNTED_LABELS,
    Carbon,
    ExternalEvaluation,
    ExternalResult,
    Inference,
    Metric,
    Payback,
    Result,
    RunRecord,
    Source,
    Unfinished,
)
from smallmodels.report import formats, idling

Unit = Literal["J", "CPU-s"]

_METRICS_AT_FIRST = 3
"""Of a table that has sizes and speeds as well; the others have a table of their own."""

ROLE_NAMES = {
    "teacher": "Teacher",
    "untuned_teacher": "Untuned teacher",
    "student": "Student",
    "untrained_student": "Untrained student",
    "label_only": "Labels only",
    "label_only_full_cost": "Labels, full cost",
    "tfidf": "TF-IDF",
    "majority": "Majority class",
    "word_tags": "Usual tag of a word",
}

ROLE_MEANINGS = {
    "untuned_teacher": "the teacher's head on embeddings that were not tuned",
    "untrained_student": "the student before training",
    "label_only": "the student's shape, trained on labels alone for what the teacher's signal and the training cost",
    "label_only_full_cost": "the same, for that and the teacher's fine-tuning",
    "majority": "the most frequent class for every text",
    "word_tags": "each word gets the tag that it has most often in train",
}
"""What a row is, where its name does not say it."""

LABEL_MEANINGS = {
    "wall": "read from a meter at the wall socket",
    "counter": "read from an energy counter of the hardware",
    "sampled": "power read at intervals and added up",
    "user": "computed from a power that the user gave",
    "modelled": "computed from a nominal power and the load; not a measurement",
    "constant": "a fixed power multiplied by time; not a measurement",
    "unknown": "obtained in a way that could not be determined",
    "missing": "not available",
}

COVERAGE = (
    "The joules cover what software can see: processor, memory and graphics processor. Losses of the power supply, "
    "fans, disks, screen and network are outside, and so is what others spent on pre-training the base model."
)

REBOUND = (
    "A cheaper use is a saving only if the number of uses stays the same: models that cost less tend to be used more, "
    "and the total can still rise."
)


# --- reading a record -------------------------------------------------------------------------------------------------


def role_name(role: str) -> str:
    """A role as a reader sees it."""
    return ROLE_NAMES.get(role, formats.capital(role.replace("_", " ")))


def role_meanings(results: Sequence[Result]) -> str:
    """One sentence per row whose name does not say what it is."""
    found = [(role_name(r.role), ROLE_MEANINGS[r.role]) for r in results if r.role in ROLE_MEANINGS]
    return " ".join(f"{name}: {meaning}." for name, meaning in found)


def ranking_unit(record: RunRecord) -> Unit:
    """The cost that may be ranked: joules where processor or GPU are counted or sampled, else CPU-seconds."""
    return "J" if record.energy_is_counted else "CPU-s"


def shown_units(ranked: Unit) -> list[Unit]:
    """The unit that is ranked, and joules beside it where they are not it."""
    return ["J"] if ranked == "J" else [ranked, "J"]


def cost_name(record: RunRecord, unit: Unit) -> str:
    """What a cost is called beside an axis: joules are estimated where they were not counted."""
    if unit == "CPU-s":
        return "CPU-seconds"
    return "joules" if record.energy_is_counted else "estimated joules"


def test_results(record: RunRecord) -> list[Result]:
    """Results on the test split, in the order of the record."""
    return [r for r in record.results if r.split == "test"]


def main_result(record: RunRecord) -> Result | None:
    """The result of the model that the run was made for, on test."""
    return record.result("student") or next(iter(test_results(record)), None)


def replaced_result(record: RunRecord) -> Result | None:
    """The result of the model that the student replaces, or None."""
    main = main_result(record)
    other = record.result(record.payback.replaces if record.payback else "teacher")
    return other if other is not main else None


def metric_value(result: Result | None, metric: str) -> float | None:
    """The finite value of a metric, or None."""
    found = result.metrics.get(metric) if result else None
    return found.value if found and formats.is_number(found.value) else None


def metric_keys(record: RunRecord) -> tuple[list[str], list[str]]:
    """Metrics of the results on test: those of the first table, that which ranks in front, and all others."""
    keys = list(dict.fromkeys([record.metric, *(key for result in test_results(record) for key in result.metrics)]))
    return keys[:_METRICS_AT_FIRST], keys[_METRICS_AT_FIRST:]


def further_metrics(record: RunRecord) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of what the first one has no room for; no rows where nothing is left."""
    _, keys = metric_keys(record)
    rows = [
        [role_name(result.role), *(metric_words(key, result.metrics.get(key)) for key in keys)]
        for result in test_results(record)
        if any(key in result.metrics for key in keys)
    ]
    return ["Model", *(metric_head(record, key) for key in keys)], rows


def metric_head(record: RunRecord, key: str) -> str:
    """The name of a metric over its column; joules that are no counted ones are called estimated."""
    is_estimate = key == "energy_j_per_answer" and not record.energy_is_counted
    return ("estimated " if is_estimate else "") + formats.metric_name(key)


def metric_words(key: str, found: Metric | None) -> str:
    """A value with its interval in brackets."""
    if found is None:
        return formats.MISSING
    bounds = formats.interval(key, found.low, found.high)
    return formats.quality(key, found.value) + (f" ({bounds})" if bounds != formats.MISSING else "")


def use_cost(use: Inference | None, unit: Unit) -> float | None:
    """Cost of 1,000 uses, or None where it was not measured."""
    if use is None:
        return None
    cost = use.energy_j_per_1000 if unit == "J" else use.cpu_s_per_1000
    return cost if formats.is_number(cost) else None


def _use_ratio(record: RunRecord, unit: Unit) -> float | None:
    """Cost of one use of the student over that of what it replaces."""
    main, other = main_result(record), replaced_result(record)
    mine = use_cost(record.inference_of(main.role), unit) if main else None
    theirs = use_cost(record.inference_of(other.role), unit) if other else None
    return mine / theirs if mine is not None and theirs else None


# --- sentences --------------------------------------------------------------------------------------------------------


def recommendations(record: RunRecord) -> list[str]:
    """What a search for a student came to: which one it recommends, and which models are on its front."""
    return [f"Of what was tried, {event.message}." for event in record.events if event.kind == "recommended"]


def summary(record: RunRecord) -> str:
    """Two plain sentences: how good the result is, and what it cost."""
    return f"{_quality_sentence(record)}. {_cost_sentence(record)}."


def _quality_sentence(record: RunRecord) -> str:
    main, other, key = main_result(record), replaced_result(record), record.metric
    value, reference = metric_value(main, key), metric_value(other, key)
    name = formats.metric_name(key)
    if main is None or value is None:
        return f"The run gave no {name} on its test split"
    words = (
        f"The {_lower(main.role)} reaches {formats.quality(key, value)} {name} on {main.metrics[key].n:,} test items"
    )
    if other is None or reference is None:
        return words
    theirs = f"the {_lower(other.role)} ({formats.quality(key, reference)})"
    if formats.quality(key, value) == formats.quality(key, reference):
        words += f", the same as {theirs}"
    elif not set("123456789") & set(distance := formats.difference(key, value - reference)):
        words += f", level with {theirs}"
    else:
        words += f", {distance} {'below' if value < reference else 'above'} {theirs}"
    unit = ranking_unit(record)
    ratio = _use_ratio(record, unit)
    if ratio is not None and not record.smoke:
        percent = f"{formats.number(100 * ratio, 2)}\u00a0%"
        words += f", and a use of it takes {percent} of the {'energy' if unit == 'J' else 'processor time'}"
    return words


def _cost_sentence(record: RunRecord) -> str:
    words = f"The run took {formats.duration(record.duration_s)}, {formats.cpu_seconds(record.cpu_s)} and "
    if record.energy_j is None:
        words += "an energy that could not be measured"
    elif record.energy_is_counted:
        words += run_energy_words(record)
    else:
        words += f"an estimated {formats.energy(record.energy_j)} (a model, not a measurement)"
    payback = record.payback
    if payback is None or record.smoke:
        return words
    if payback.uses is None:
        return f"{words}; building the student never pays for itself, because {reason_words(payback)}"
    return f"{words}; building the student pays for itself after about {rounded_large(payback.uses)} uses"


def _lower(role: str) -> str:
    name = role_name(role)
    return name if name[:2].isupper() else name[:1].lower() + name[1:]


def reason_words(payback: Payback) -> str:
    """The reason for the payback as a part of a sentence: without "Never" and without its full stop."""
    return formats.clean(payback.reason, 400).removeprefix("Never: ").rstrip(". ")


def uses_words(payback: Payback) -> str:
    """About how many uses repay the building, with the interval."""
    words = f"about {rounded_large(payback.uses)} uses"
    return f"{words} (95\u00a0% interval {uses_interval(payback)})" if has_interval(payback) else words


def has_interval(payback: Payback) -> bool:
    """Whether at least one end of the interval of uses is known."""
    return payback.low is not None or payback.high is not None


def uses_interval(payback: Payback) -> str:
    """The interval of the number of uses."""
    low = rounded_large(payback.low) if payback.low is not None else "0"
    return f"{low}–{rounded_large(payback.high)}" if payback.high is not None else f"{low} or more, with no upper end"


def rounded_large(value: float | None) -> str:
    """Two significant digits: more would pretend to a precision that the interval denies."""
    if not value or not math.isfinite(value):
        return formats.large(value)
    return formats.large(round(value, 1 - math.floor(math.log10(abs(value)))))


def energy_words(joules: float | None, label: str) -> str:
    """Joules with the words that their label asks for."""
    if joules is None:
        return "energy not measured"
    shown = formats.energy(joules)
    return shown if label in COUNTED_LABELS else f"estimated {shown}, not a measurement"


def run_energy_words(record: RunRecord) -> str:
    """Joules of the whole run with the words that their labels ask for."""
    if record.energy_is_counted and record.energy_label not in COUNTED_LABELS:
        return f"{formats.energy(record.energy_j)}, partly estimated"
    return energy_words(record.energy_j, record.energy_label)


def notices(record: RunRecord) -> list[str]:
    """What a reader must know before believing a number of this run."""
    found = []
    if record.smoke:
        found.append("A smoke run of a few steps: it shows that the path works, and its numbers mean nothing.")
    if record.energy_j is None:
        found.append("Energy was not measured, so costs in joules are not comparable.")
    elif not record.energy_is_counted:
        found.append(
            f"Energy is estimated, not measured (label: {record.energy_label}). Models are compared by processor time; "
            "joules are shown and not ranked."
        )
    elif record.energy_label not in COUNTED_LABELS:
        found.append(f"A part of the joules is estimated, not measured (weakest label: {record.energy_label}).")
    if record.contended:
        found.append("Other work shared the machine during the run, so its costs are not comparable.")
    if record.energy_truncated:
        found.append("The energy journal is not whole: a few seconds are missing, or more where an event says so.")
    if record.num_segments > 1:
        found.append(f"The run was resumed: its cost is the sum of {record.num_segments} parts, pauses left out.")
    found += stop_sentences(record)
    if record.git_dirty:
        found.append("The code had changes that are in no commit, so the commit alone does not repeat the run.")
    return found


def beside_sentences(record: RunRecord) -> list[str]:
    """What stands beside the joules that software saw: those of the idle machine, and those at the wall socket."""
    return [*_idle_sentences(record), *wall_sentences(record)]


def _idle_sentences(record: RunRecord) -> list[str]:
    """Gross, idle and net; empty where the idle machine was not watched."""
    if (found := idling.of(record)) is None:
        return []
    text = (
        f"The idle machine took {formats.number(found.power_w)} W in {formats.duration(found.duration_s)} before the "
        f"run (label: {found.label}). Gross {formats.energy(found.gross_j)}, of which it would have taken "
        f"{formats.energy(found.idle_j)} idle: net {formats.energy(found.net_j)}."
    )
    return [
        text if found.is_meaningful else f"{text} Both come from a model of the processor, so net says nothing here."
    ]


def wall_sentences(record: RunRecord) -> list[str]:
    """What a meter at the wall socket read, or what earlier readings make of the run; empty without either."""
    if (wall := record.wall) is not None:
        words = f"A meter at the wall socket read {formats.energy(wall.energy_j)} for the whole run"
        if wall.ratio is not None:
            words += f", {formats.number(wall.ratio)} times what software saw"
        return [f"{words} (label: wall; typed in on {wall.attached_utc[:10]})."]
    if (found := record.wall_factor) is None or record.energy_j is None:
        return []
    readings = f"{found.num_readings:,} reading{'s' * (found.num_readings > 1)}"
    at_wall = formats.energy(found.factor * record.energy_j)
    return [
        f"By {readings} of a meter at the wall socket, this machine draws {formats.number(found.factor)} times what "
        f"software sees, which would be {at_wall} for this run: an estimate, not a measurement."
    ]


def stop_sentences(record: RunRecord) -> list[str]:
    """What a budget or a rule on gains cut short or left out, a sentence for each."""
    kept = "the best model so far was kept, and what came after the training is paid on top"
    return [
        f"{formats.capital(formats.clean(stop.sentence, 400))}{'' if stop.is_left_out else f'; {kept}'}."
        for stop in record.stops
    ]


EXTERNAL_HEAD = ["Task", "metric", "value", "standard error", "items", "solved items in front"]
EXTERNAL_NOTE = (
    "Evaluated after the run, by another program and in its own terms. What that cost is not in the run's energy."
)


def external_title(evaluation: ExternalEvaluation) -> str:
    """Which program, which version, when, and whether it looked at everything."""
    limit = "" if evaluation.limit is None else f", the first {evaluation.limit:,} items of each task only"
    chat = ", in the model's chat template" if evaluation.in_chat else ""
    return f"{evaluation.harness} {evaluation.harness_version}, {evaluation.started_utc[:10]}{limit}{chat}"


def external_cells(result: ExternalResult) -> list[str]:
    """A row under `EXTERNAL_HEAD`; an arrow says which way is better."""
    arrow = {True: " ↑", False: " ↓", None: ""}[result.higher_is_better]
    chosen = f" ({formats.clean(result.filter, 40)})" if result.filter else ""
    task = formats.clean(result.task, 80) + (f" (version {result.task_version})" if result.task_version else "")
    numbers = [formats.number(result.value, 4), formats.number(result.stderr, 2), f"{result.n:,}"]
    return [task, f"{formats.clean(result.metric, 40)}{chosen}{arrow}", *numbers, str(result.num_fewshot)]


def external_notes(evaluation: ExternalEvaluation) -> list[str]:
    """What an evaluation took, and what the program warned of."""
    took = [formats.duration(evaluation.duration_s), formats.cpu_seconds(evaluation.cpu_s)]
    shared = " Others used the machine meanwhile." if evaluation.contended else ""
    joules = energy_words(evaluation.energy_j, evaluation.label)
    cost = f"It took {', '.join(took)}, {joules}, on {evaluation.device} in {evaluation.number_format}.{shared}"
    return [cost, *(f"It warned: {formats.clean(warning, 400)}" for warning in evaluation.warnings)]


def carbon_words(carbon: Carbon) -> str:
    """Grams of CO2e with the intensity that they follow from."""
    year = f", {carbon.year}" if carbon.year else ""
    grams = "unknown, because the energy is"
    if carbon.emissions_g is not None:
        grams = f"{formats.number(carbon.emissions_g)}\u00a0g CO2e"
    source = formats.clean(carbon.source, 300).rstrip(". ")
    return (
        f"Emissions: {grams}, at {carbon.intensity_g_per_kwh:g}\u00a0g per kWh ({source}{year}). No offsets, no share "
        "of making the hardware, nothing added for the building."
    )


# --- sources and values -----------------------------------------------------------------------------------------------


def source_cells(source: Source) -> list[str]:
    """What a table of sources says of one: role, name, version, licence, rows."""
    version = f"fingerprint {source.fingerprint[:12]}" if source.fingerprint else "not recorded"
    if source.revision:
        version = f"commit {source.revision[:12]}"
    declared = source.license or "none declared"
    if source.license_file_seen:
        declared += " (licence file seen)"
    rows = ", ".join(f"{name} {count:,}" for name, count in source.splits.items()) or formats.MISSING
    return [source.role, source.name, version, declared, rows]


def acceptance(record: RunRecord) -> list[str]:
    """One sentence if somebody accepted licences that would have been refused."""
    if not record.accepted_licenses:
        return []
    shown = ", ".join(formats.clean(license_id, 200) for license_id in record.accepted_licenses)
    return [
        "These licences do not let everybody train a model and share it; whoever made this run accepted them "
        f"(--accept-license): {shown}."
    ]


def plain(value: Any) -> str:
    """A JSON value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return _listed([plain(v) for v in value[:20]], len(value))
    if isinstance(value, Mapping):
        return _listed([f"{formats.clean(k, 100)} {plain(v)}" for k, v in list(value.items())[:20]], len(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else formats.clean(value, 500)


def _listed(items: list[str], total: int) -> str:
    more = f" and {total - len(items):,} more" if total > len(items) else ""
    return (", ".join(items) + more) or "none"


def answer_lines(answers: Any) -> list[str]:
    """The first five answers as lines: strings, or objects with a label or text and a score."""
    if not isinstance(answers, (list, tuple)):
        answers = [answers]
    return [_answer_line(answer) for answer in answers[:5]]


def _answer_line(answer: Any) -> str:
    score = None
    if isinstance(answer, Mapping):
        score = next((answer[k] for k in ("score", "probability", "similarity") if k in answer), None)
        answer = next((answer[k] for k in ("label", "text", "document", "name") if k in answer), plain(answer))
    elif isinstance(answer, (list, tuple)) and len(answer) == 2:
        answer, score = answer
    line = formats.clean(answer, 200)
    return f"{line} ({formats.number(score)})" if formats.is_number(score) else line


def unfinished(found: Sequence[Unfinished]) -> str:
    """How many runs left no record, and what is known to have been paid for them; empty where there are none."""
    if not found:
        return ""
    cpu_s = [run.cpu_s for run in found if run.cpu_s is not None]
    joules = [run.energy_j for run in found if run.energy_j is not None]
    costs = [formats.cpu_seconds(sum(cpu_s))] * bool(cpu_s) + [formats.energy(sum(joules))] * bool(joules)
    known = f"with {' and '.join(costs)} that belong" if costs else "whose costs are not known and belong"
    return f"Runs without a record: {len(found)}, {known} to the account"
