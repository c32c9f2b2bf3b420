"""Cards of a model and its adapters: `README.md` of their folders, as the hub reads it. The record says all of it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from smallmodels import licenses
from smallmodels.records import COUNTED_LABELS, Result, RunRecord, Source, statement_sha256
from smallmodels.report import formats, groups, tokens, words

_HUB_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?(?:/[A-Za-z0-9._-]{1,96})?")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_SPECIAL_TOKEN = re.compile(r"(?:<[A-Za-z0-9_|/ .-]{1,40}>)?")
_TASK = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_BASE_LOADERS = (
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
)
"""Of transformers, for what adapters are put on; `AutoModel` for anything else."""
_MAX_LABELS = 200
_MAX_EVALUATIONS, _MAX_ROWS = 5, 100
"""Of other programs, and of groups; the page has more, the record all."""


_PIPELINE_OPTIONS = {
    "multi_label_classification": ', top_k=None, function_to_apply="sigmoid"',
    "regression": ', function_to_apply="none"',
}
"""Of transformers' pipeline, by the problem that a classifier solves."""


def model_card(record: RunRecord) -> str:
    """The card of a run's model: YAML front matter and text, valid for `huggingface_hub.ModelCard`."""
    return _card(record, of_adapter=False)


def adapter_card(record: RunRecord) -> str:
    """The card of the adapters that a run left beside its model, likewise."""
    return _card(record, of_adapter=True)


def _card(record: RunRecord, *, of_adapter: bool) -> str:
    main, names = words.main_result(record), record.label_names
    template = formats.environment("markdown").get_template("card.md.j2")
    text = template.render(
        record=record,
        adapter=_adapter(record) if of_adapter else None,
        front_matter=_front_matter(_metadata(record, main) | (_adapter_metadata(record) if of_adapter else {})),
        made=_made(record),
        embeds=record.task == "sentence-similarity",
        without_torch=_is_static_classifier(record),
        begin=_begin(record),
        options=_PIPELINE_OPTIONS.get(str(record.model.get("problem")), ""),
        license=_license_words(record),
        quality=_quality_table(record),
        further=_further_table(record),
        groups=_groups_table(main),
        external=_external_tables(record),
        energy=_energy_words(record),
        carbon=_carbon_words(record),
        payback=_payback_words(record),
        tokens=_tokens_table(record),
        summary=words.summary(record),
        notices=words.notices(record),
        labels=names[:_MAX_LABELS],
        more_labels=f"{len(names) - _MAX_LABELS:,}" if len(names) > _MAX_LABELS else "",
        sources=_sources_table(record),
        duties=list(dict.fromkeys(f"{s.name}: {d}" for s in record.sources for d in s.duties)),
        thresholds=_thresholds_table(record),
        model=[
            f"{key.replace('_', ' ')}: {words.plain(value)}"
            for key, value in record.model.items()
            if value is not None and key != "thresholds"
        ],
        machine=_machine_words(record),
        coverage=words.COVERAGE,
        where=_where(record),
        statement_sha256=statement_sha256(record),
    )
    return text.encode("utf-8", "replace").decode("utf-8")


# --- front matter -----------------------------------------------------------------------------------------------------


def _metadata(record: RunRecord, main: Result | None) -> dict[str, Any]:
    """The fields that the hub defines, each only where the record knows it."""
    base = _base_model(record)
    data = [s for s in record.sources if s.kind == "dataset"]
    values: dict[str, Any] = {
        "language": [code for code in record.languages if _LANGUAGE.fullmatch(code)],
        **_license_fields(record),
        "base_model": base,
        "base_model_relation": "finetune" if base else None,
        "datasets": list(dict.fromkeys(s.name for s in data if _on_hub(s))),
        "pipeline_tag": record.task if _TASK.fullmatch(record.task) else None,
        "library_name": _library(record),
        "tags": ["smallmodels", _TAGS[_made(record)], "energy"],
        "metrics": [_metric_id(record.metric)] if main and record.metric in main.metrics else None,
        "co2_eq_emissions": _emissions(record),
        "model-index": _model_index(record, main, data),
    }
    return {key: value for key, value in values.items() if value}


def _adapter_metadata(record: RunRecord) -> dict[str, Any]:
    """What the hub is told otherwise of adapters alone."""
    relation = {"base_model_relation": "adapter"} if _base_model(record) else {}
    return {"library_name": "peft", **relation}


def _adapter(record: RunRecord) -> dict[str, Any]:
    """What to write into the code that puts adapters on their base: nothing but a valid id and names of ours."""
    from markupsafe import Markup

    loader = record.model.get("loader")
    return {
        "base": Markup(_base_model(record) or "path/to/the/base/model"),
        "loader": loader if loader in _BASE_LOADERS else "AutoModel",
        "num_labels": str(len(record.label_names) or ""),
    }


def _library(record: RunRecord) -> str:
    """What the code under "Use" loads the model with."""
    if _is_static_classifier(record):
        return "smallmodels"
    return "sentence-transformers" if record.task == "sentence-similarity" else "transformers"


def _is_static_classifier(record: RunRecord) -> bool:
    """Whether it is a classifier that transformers does not know."""
    return record.task == "text-classification" and record.model.get("loader") == "smallmodels.static.StaticModel"


def _made(record: RunRecord) -> str:
    """Distilled where a teacher took part, else trained from scratch or fine-tuned."""
    if record.result("teacher") is not None or any(s.role == "teacher" for s in record.sources):
        return "Distilled"
    return "Trained from scratch" if _is_new(record) else "Fine-tuned"


_TAGS = {"Distilled": "distillation", "Trained from scratch": "from-scratch", "Fine-tuned": "fine-tuning"}


def _is_new(record: RunRecord) -> bool:
    """Whether training began from random weights, so that none come from a base model."""
    return record.model.get("made_from") == "random weights"


def _begin(record: RunRecord) -> Any:
    """What stands before each text of a language model; None where that is not known, or not fit to stand in code."""
    from markupsafe import Markup

    begin = record.model.get("begins_with")
    return Markup(begin) if isinstance(begin, str) and _SPECIAL_TOKEN.fullmatch(begin) else None


def _base_source(record: RunRecord) -> Source | None:
    """The model whose weights the student started from: named by the record, else the only or the teacher's.

    For a student of random weights it is the teacher, whose licence it comes under.
    """
    models = [s for s in record.sources if s.kind == "model"]
    named = record.model.get("base_model")
    by_name = next((s for s in models if s.name == named), None)
    by_role = next((s for role in ("student", "base", "teacher") for s in models if s.role == role), None)
    return by_name or by_role or (models[0] if len(models) == 1 else None)


def _base_model(record: RunRecord) -> str | None:
    if _is_new(record):
        return None
    named = record.model.get("base_model")
    if isinstance(named, str) and "/" in named and _HUB_ID.fullmatch(named):
        return named
    source = _base_source(record)
    return source.name if source is not None and _on_hub(source) else None


def _on_hub(source: Source) -> bool:
    """Whether the source was read from a hub, by a name that the hub allows."""
    from_hub = source.revision is not None or "endpoint" in source.notes
    return from_hub and _HUB_ID.fullmatch(source.name) is not None


def _license_fields(record: RunRecord) -> dict[str, str]:
    """The licence that the weights come under: one that binds them, else that of the base model."""
    found = licenses.license_of_result(_base_source(record), record.sources)
    if found is None:
        return {}
    return (
        {"license": found}
        if licenses.is_known(found)
        else {"license": "other", "license_name": found.removeprefix("other:")}
    )


def _metric_id(key: str) -> str:
    """Our key of a metric as the hub's: `macro_f1` is `f1`, `mrr_at_10` is `mrr`."""
    name = re.sub(r"(_at_|@)\d+$", "", key)
    return "f1" if name in ("macro_f1", "micro_f1") else name


def _emissions(record: RunRecord) -> dict[str, Any] | None:
    """Grams for the whole run, only where a country or an intensity was given. The hub's unit is the gram."""
    carbon = record.carbon
    if carbon is None or carbon.emissions_g is None:
        return None
    year = f", {carbon.year}" if carbon.year else ""
    how = "" if record.energy_label in COUNTED_LABELS else "estimated, not measured: "
    tracker = record.environment.versions.get("codecarbon")
    by = f"CodeCarbon {tracker} through smallmodels" if tracker else "smallmodels"
    hardware = record.environment.processor + (f", {record.environment.gpu}" if record.environment.gpu else "")
    return {
        "emissions": round(carbon.emissions_g, 6),
        "source": f"{how}{by}; energy label {record.energy_label}; {carbon.intensity_g_per_kwh:g} g CO2e per kWh "
        f"({carbon.source}{year})",
        "training_type": "pre-training" if _is_new(record) else "fine-tuning",
        "hardware_used": hardware,
    }


def _model_index(record: RunRecord, main: Result | None, data: Sequence[Source]) -> list[dict[str, Any]] | None:
    """Results of the model on the test split, where data and metrics are known."""
    metrics = [
        {"type": _metric_id(key), "value": round(found.value, 6), "name": f"{formats.metric_name(key)} (test)"}
        for key, found in (main.metrics if main else {}).items()
        if formats.is_number(found.value) and not formats.is_cost(key)
    ]
    if not metrics or not data or not _TASK.fullmatch(record.task):
        return None
    source = data[0]
    dataset: dict[str, Any] = {"name": source.name, "type": source.name, "split": "test"}
    if source.revision:
        dataset["revision"] = source.revision
    results = [{"task": {"type": record.task}, "dataset": dataset, "metrics": metrics}]
    return [{"name": record.title, "results": results}]


def _front_matter(metadata: Mapping[str, Any]) -> Any:
    """Block YAML with every string quoted as JSON, which YAML reads the same way, so that no value can break out."""
    from markupsafe import Markup

    return Markup("---\n" + "\n".join(_yaml(metadata, "")) + "\n---")


def _yaml(value: Any, indent: str) -> list[str]:
    lines = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, (Mapping, list)):
                lines += [f"{indent}{key}:", *_yaml(item, indent + "  ")]
            else:
                lines.append(f"{indent}{key}: {_scalar(item)}")
    else:
        for item in value:
            if isinstance(item, (Mapping, list)):
                inner = _yaml(item, indent + "  ")
                lines += [f"{indent}- {inner[0].lstrip()}", *inner[1:]]
            else:
                lines.append(f"{indent}- {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(formats.clean(value, 500), ensure_ascii=False)
    return json.dumps(value)


def _where(record: RunRecord) -> Any:
    """What to write into the code that loads the model: not escaped, so nothing but a valid id."""
    from markupsafe import Markup

    name = record.published_as or ""
    return Markup(name if _HUB_ID.fullmatch(name) else "path/to/this/folder")


def _thresholds_table(record: RunRecord) -> Any:
    """Each label with the score from which on to give it, all of them; empty where the model has none."""
    thresholds = record.model.get("thresholds")
    if not isinstance(thresholds, list) or len(thresholds) != len(record.label_names):
        return ""
    rows = [
        [name, f"{value:.6g}" if formats.is_number(value) else formats.MISSING]
        for name, value in zip(record.label_names, thresholds, strict=True)
    ]
    return formats.markdown_table(["Label", "from a score of"], rows)


# --- text -------------------------------------------------------------------------------------------------------------


def _license_words(record: RunRecord) -> str:
    """What is known about the licence of the weights, and of the data they learned from."""
    source = _base_source(record)
    comes_from = "what it learned from" if _is_new(record) else "where the weights come from"
    begin = "It learned from" if _is_new(record) else "The weights come from"
    if source is None:
        said = "The record names no base model, so no licence of the weights is stated."
    elif source.license is None:
        said = f"{source.name}, {comes_from}, declares no licence: ask its authors before you share the weights."
    elif not (ids := licenses.ids_of(source)) or not all(map(licenses.is_known, ids)):
        said = f"{begin} {source.name}; its licence: {source.license}."
    else:
        seen = "its licence file was seen" if source.license_file_seen else "as its own card declares"
        said = f"{begin} {source.name}, which is under {source.license} ({seen})."
    data = [f"{s.name}: {s.license or 'no licence declared'}" for s in record.sources if s.kind == "dataset"]
    said += f" Data: {'; '.join(data)}." if data else ""
    return " ".join([said, *_binding_words(record, source), *words.acceptance(record)])


def _binding_words(record: RunRecord, base: Source | None) -> list[str]:
    """What the licences of other sources make of that of the base model."""
    found = licenses.license_of_result(base, record.sources)
    if base is None or not licenses.ids_of(base) or found == base.license:
        return []
    if found is None:
        return ["No single licence can be named for this model, because of what it learned from."]
    return [f"Because of what it learned from, this model comes under {found}."]


def _quality_table(record: RunRecord) -> Any:
    results = words.test_results(record)
    if not results:
        return ""
    keys, _ = words.metric_keys(record)
    calibration = any(r.calibration_error is not None for r in results)
    head = ["Model", *[words.metric_head(record, k) for k in keys]]
    head += [*["calibration error"] * calibration, "test items", "parameters"]
    rows = []
    for result in results:
        use, found = record.inference_of(result.role), result.metrics.get(record.metric)
        cells = [words.metric_words(k, result.metrics.get(k)) for k in keys]
        cells += [formats.quality("calibration_error", result.calibration_error)] * calibration
        counts = [f"{found.n:,}" if found else None, formats.large(use.num_parameters) if use else None]
        rows.append([words.role_name(result.role), *cells, *counts])
    return formats.markdown_table(head, rows)


def _further_table(record: RunRecord) -> Any:
    """Metrics that the first table has no room for; empty where it has them all."""
    head, rows = words.further_metrics(record)
    return formats.markdown_table(head, rows) if rows else ""


def _groups_table(main: Result | None) -> dict[str, Any] | None:
    """Parts of the test items, such as languages, of the model itself; None where there are none."""
    if main is None or not main.groups:
        return None
    found = groups.table_of(main.groups[:_MAX_ROWS])
    table = formats.markdown_table(found.head, found.rows, found.text_columns)
    left = len(main.groups) - len(found.rows)
    cut = [f"{left:,} more stand in record.json."] if left else []
    return {"table": table, "notes": " ".join([*groups.extremes(main.groups), *found.notes, *cut])}


def _external_tables(record: RunRecord) -> list[dict[str, Any]]:
    """The last evaluations by other programs."""
    return [
        {
            "title": words.external_title(evaluation),
            "notes": words.external_notes(evaluation),
            "table": formats.markdown_table(
                words.EXTERNAL_HEAD, [words.external_cells(result) for result in evaluation.results[:_MAX_ROWS]], (1,)
            ),
        }
        for evaluation in record.external_evaluations[-_MAX_EVALUATIONS:]
    ]


def _energy_words(record: RunRecord) -> str:
    """Energy of the run and of one use, with labels."""
    if record.energy_j is None:
        said = "The energy of the run was not measured."
    else:
        kind = "measured" if record.energy_label in COUNTED_LABELS else "estimated, not measured"
        if record.energy_is_counted and record.energy_label not in COUNTED_LABELS:
            kind = "partly estimated"
        said = f"The run that made this model took {formats.energy(record.energy_j)} "
        said += f"({kind}; label: {record.energy_label}), "
        said += f"{formats.cpu_seconds(record.cpu_s)} and {formats.duration(record.duration_s)}."
    main = words.main_result(record)
    use = record.inference_of(main.role) if main else None
    if use is not None and use.energy_j_per_1000 is not None:
        said += (
            f" 1,000 uses take {formats.energy(use.energy_j_per_1000)} (label: {use.label}, protocol: {use.protocol})."
        )
    return " ".join([said, *words.beside_sentences(record)])


def _tokens_table(record: RunRecord) -> dict[str, Any] | None:
    """What reading and writing a token costs; None where no model writes."""
    found = tokens.table_of(record)
    if found is None:
        return None
    return {"table": formats.markdown_table(found.head, found.rows, found.text_columns), "note": found.note}


def _carbon_words(record: RunRecord) -> str:
    if record.carbon is None:
        return "No grams of CO2e are given: no country and no carbon intensity were named, and none is assumed."
    return words.carbon_words(record.carbon)


def _payback_words(record: RunRecord) -> str:
    payback = record.payback
    if payback is None:
        return ""
    if payback.uses is None:
        return f"Building it never pays for itself: {words.reason_words(payback)}."
    name = words.role_name(payback.replaces).lower()
    return f"Used instead of the {name}, it has saved what it cost to build after {words.uses_words(payback)}."


def _sources_table(record: RunRecord) -> Any:
    if not record.sources:
        return ""
    head = ["Used as", "name", "version", "licence", "rows"]
    return formats.markdown_table(head, [words.source_cells(s) for s in record.sources], range(5))


def _machine_words(record: RunRecord) -> str:
    machine = record.environment
    gpu = machine.gpu or "no GPU"
    virtual = ", virtual machine" if machine.virtual_machine else ""
    return f"{machine.processor}, {machine.num_cores} cores, {gpu}, {machine.operating_system}{virtual}"
