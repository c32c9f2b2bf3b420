"""Models in a comparison, what was paid for them, and what came out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smallmodels import files, models, records
from smallmodels.data.splits import Split
from smallmodels.models import Compute, TextModel
from smallmodels.phases import Context


@dataclass(frozen=True)
class Contender:
    """A model in a comparison, and the phases that were paid for it."""

    model: Any
    """A `TextModel`, or a baseline with `predict_proba(texts)` for labels, `similarities(queries)` for retrieval or
    `predict(split)` for words and pairs, and `num_parameters`, `size_bytes` and `number_format`."""
    built_by: tuple[str, ...] = ()
    teacher_phases: tuple[str, ...] = ()


Contenders = Mapping[str, Contender | TextModel]
"""By role: `teacher`, `student`, `untrained_student`, …"""


@dataclass(frozen=True)
class Evaluation:
    """Results by role, and the predictions behind them as columns of equal length."""

    results: list[records.Result]
    predictions: dict[str, list[Any]] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By role, what a model needs to know to answer as it did here, such as thresholds that validation chose."""

    def save(self, folder: Path) -> None:
        """Write `evaluation.json`."""
        value = {name: records.to_json(getattr(self, name)) for name in ("results", "predictions", "notes")}
        files.write_json(folder / "evaluation.json", value)

    @classmethod
    def load(cls, folder: Path) -> "Evaluation":
        """Read what `save` wrote."""
        value = files.read_json(folder / "evaluation.json")
        return cls(
            [records.from_json(records.Result, r) for r in value["results"]], value["predictions"], value["notes"]
        )


def with_metrics_of(evaluation: Evaluation, others: Evaluation) -> Evaluation:
    """An evaluation whose results have the metrics of another one as well, role by role; its predictions stay alone."""
    more = {result.role: result.metrics for result in others.results}
    results = [replace(r, metrics={**r.metrics, **more.get(r.role, {})}) for r in evaluation.results]
    return replace(evaluation, results=results)


def as_contender(value: Contender | TextModel) -> Contender:
    """The contender itself, or a model that no phase was paid for."""
    return value if isinstance(value, Contender) else Contender(value)


def plain_result(
    role: str, contender: Contender, split_name: str, measured: Mapping[str, records.Metric]
) -> records.Result:
    """The result of a task without classes."""
    return records.Result(
        role=role,
        split=split_name,
        metrics=dict(measured),
        per_class=[],
        agreement=None,
        calibration_error=None,
        built_by=list(contender.built_by),
        teacher_phases=list(contender.teacher_phases),
    )


def forward(model: TextModel, split: Split, compute: Compute | None, context: Context) -> Any:
    """What a model gives by its own tokens: an array with a row for each text, or ragged rows for its words."""
    tokens = split.tokens_for(model.tokenizer, max_length=model.max_length)
    run = models.forward_words if models.is_token_classifier(model.model) else models.forward_all
    return run(model, tokens, compute=compute, context=context)
