"""What a model is worth and what one use of it costs: quality, agreement with the teacher, size, latency, joules.

Legend: N examples, C classes, Q queries, D documents.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from torch import nn

from smallmodels import energy, files, metrics, models, records, sources
from smallmodels.data.splits import RetrievalSplit, Split, Splits
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Contender:
    """A model in a comparison, and the phases that were paid for it."""

    model: Any
    """A `TextModel`, or a baseline with `predict_proba(texts)` for classes or `similarities(queries)` for retrieval,
    and `num_parameters`, `size_bytes` and `number_format`."""
    built_by: tuple[str, ...] = ()
    teacher_phases: tuple[str, ...] = ()


Contenders = Mapping[str, Contender | TextModel]
"""By role: `teacher`, `student`, `untrained_student`, …"""


@dataclass(frozen=True)
class Evaluation:
    """Results by role, and the predictions behind them as columns of equal length."""

    results: list[records.Result]
    predictions: dict[str, list[Any]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `evaluation.json`."""
        value = {"results": records.to_json(self.results), "predictions": records.to_json(self.predictions)}
        files.write_json(folder / "evaluation.json", value)

    @classmethod
    def load(cls, folder: Path) -> "Evaluation":
        """Read what `save` wrote."""
        value = files.read_json(folder / "evaluation.json")
        return cls([records.from_json(records.Result, r) for r in value["results"]], value["predictions"])


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


# Quality


def evaluate_classifiers(
    contenders: Contenders,
    split: Split,
    label_names: Sequence[str],
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Accuracy and macro F1 with 95 % intervals, calibration, a row per class, agreement with `teacher`.

    Args:
        contenders: Models and baselines by role.
        split: With labels, tokenised; for models with another tokenizer, the texts are tokenised again.
        label_names: Names of the classes.
        compute: Device and number format of the models.
        context: Of the run.
    """
    assert split.labels is not None, "evaluation needs labels"
    compute = compute or models.choose_compute()
    probabilities: dict[str, npt.NDArray[np.float64]] = {}
    for number, (role, value) in enumerate(contenders.items()):
        probabilities[role] = _probabilities(as_contender(value).model, split, compute, context)
        context.progress(number + 1, len(contenders))
    answers = {role: probabilities_NC.argmax(1) for role, probabilities_NC in probabilities.items()}
    results = []
    predictions: dict[str, list[Any]] = {"id": list(split.ids), "label": [label_names[i] for i in split.labels]}
    for role, value in contenders.items():
        teacher = answers.get("teacher") if role != "teacher" else None
        results.append(_classifier_result(role, as_contender(value), split, probabilities[role], label_names, teacher))
        predictions[f"{role}/prediction"] = [label_names[i] for i in answers[role]]
        predictions[f"{role}/score"] = [round(float(p), 6) for p in probabilities[role].max(1)]
    return Evaluation(results, predictions)


def _probabilities(model: Any, split: Split, compute: Compute, context: Context) -> npt.NDArray[np.float64]:
    if isinstance(model, TextModel):
        return softmax(_forward(model, split, compute, context))
    return np.asarray(model.predict_proba(split.texts), dtype=np.float64)


def _forward(model: TextModel, split: Split, compute: Compute | None, context: Context) -> Floats:
    """What a model gives for each text of a split, by its own tokens."""
    tokens = split.tokens_for(model.tokenizer, max_length=model.max_length)
    return models.forward_all(model, tokens, compute=compute, context=context)


def softmax(logits_NC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities of shape (N, C) in float64."""
    shifted = logits_NC.astype(np.float64) - logits_NC.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def _classifier_result(
    role: str,
    contender: Contender,
    split: Split,
    probabilities_NC: npt.NDArray[np.float64],
    label_names: Sequence[str],
    teacher: npt.NDArray[np.int64] | None,
) -> records.Result:
    assert split.labels is not None
    predicted = probabilities_NC.argmax(1)
    return records.Result(
        role=role,
        split=split.name,
        metrics={
            "accuracy": metrics.accuracy(predicted, split.labels),
            "macro_f1": metrics.macro_f1(predicted, split.labels),
        },
        per_class=metrics.per_class_table(predicted, split.labels, label_names),
        agreement=None if teacher is None else metrics.agreement(predicted, teacher),
        calibration_error=metrics.expected_calibration_error(probabilities_NC, split.labels),
        built_by=list(contender.built_by),
        teacher_phases=list(contender.teacher_phases),
    )


def accuracy(model: TextModel, split: Split, *, compute: Compute | None = None) -> float:
    """Share of right answers of a classifier on a tokenised split with labels."""
    assert split.labels is not None
    logits_NC = _forward(model, split, compute, NO_CONTEXT)
    return float((logits_NC.argmax(1) == split.labels).mean())


def evaluate_retrieval(
    contenders: Contenders,
    split: RetrievalSplit,
    *,
    k: int = 10,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Mean reciprocal rank at `k` and recall at 1 and `k` with 95 % intervals; agreement with the teacher's first hit.

    Args:
        contenders: Embedders and retrievers by role.
        split: Tokenised; for embedders with another tokenizer, the texts are tokenised again.
        k: Depth of the list that counts.
        compute: Device and number format of the models.
        context: Of the run.
    """
    compute = compute or models.choose_compute()
    ranks: dict[str, npt.NDArray[np.float64]] = {}
    first: dict[str, npt.NDArray[np.int64]] = {}
    for number, (role, value) in enumerate(contenders.items()):
        similarities_QD = _similarities(as_contender(value).model, split, compute, context)
        ranks[role] = metrics.reciprocal_ranks(similarities_QD, split.relevant, k=k)
        first[role] = similarities_QD.argmax(1)
        context.progress(number + 1, len(contenders))
    results: list[records.Result] = []
    relevant = [split.documents.ids[i] for i in split.relevant]
    predictions: dict[str, list[Any]] = {"id": list(split.queries.ids), "label": relevant}
    for role, value in contenders.items():
        agree = metrics.agreement(first[role], first["teacher"]) if "teacher" in first and role != "teacher" else None
        results.append(_retrieval_result(role, as_contender(value), split, ranks[role], k, agree))
        predictions[f"{role}/prediction"] = [split.documents.ids[i] for i in first[role]]
        predictions[f"{role}/score"] = [round(float(r), 6) for r in ranks[role]]
    return Evaluation(results, predictions)


def _similarities(model: Any, split: RetrievalSplit, compute: Compute, context: Context) -> npt.NDArray[Any]:
    if isinstance(model, TextModel):
        queries_QE = _forward(model, split.queries, compute, context)
        documents_DE = _forward(model, split.documents, compute, context)
        return np.asarray(queries_QE @ documents_DE.T)
    return np.asarray(model.similarities(split.queries.texts))


def _retrieval_result(
    role: str,
    contender: Contender,
    split: RetrievalSplit,
    ranks: npt.NDArray[np.float64],
    k: int,
    agreement: records.Metric | None,
) -> records.Result:
    return records.Result(
        role=role,
        split=split.name,
        metrics={
            f"mrr_at_{k}": metrics.mean_with_interval(ranks),
            "recall_at_1": metrics.mean_with_interval((ranks == 1).astype(np.float64)),
            f"recall_at_{k}": metrics.mean_with_interval((ranks > 0).astype(np.float64)),
        },
        per_class=[],
        agreement=agreement,
        calibration_error=None,
        built_by=list(contender.built_by),
        teacher_phases=list(contender.teacher_phases),
    )


def mean_reciprocal_rank(
    model: TextModel, split: RetrievalSplit, *, k: int = 10, compute: Compute | None = None
) -> float:
    """MRR at `k` of an embedder on a tokenised split."""
    similarities_QD = _similarities(model, split, compute or models.choose_compute(), NO_CONTEXT)
    return float(metrics.reciprocal_ranks(similarities_QD, split.relevant, k=k).mean())


# Cost of a use


@dataclass(frozen=True)
class InferenceCosts:
    """What one use of each role's model costs."""

    inference: list[records.Inference]

    def save(self, folder: Path) -> None:
        """Write `inference.json`."""
        files.write_json(folder / "inference.json", records.to_json(self.inference))

    @classmethod
    def load(cls, folder: Path) -> "InferenceCosts":
        """Read what `save` wrote."""
        return cls([records.from_json(records.Inference, i) for i in files.read_json(folder / "inference.json")])


def measure_inference(
    contenders: Contenders,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    protocol: Literal["indicative", "smoke"] = "indicative",
    window_s: float = 1.0,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> InferenceCosts:
    """Latency at batch 1, throughput and joules per 1,000 texts, tokenising included.

    Three windows of a second or more per role (one in smoke), after a warm-up; `indicative`, never ranked.

    Args:
        contenders: Models and baselines by role; of those with the same shape the first is measured for all.
        texts: Typical inputs; used again and again until the window is full.
        batch_size: Texts per call in the throughput windows.
        protocol: For the record.
        window_s: Shortest window, in seconds; joules of windows under a second are too short to be known.
        compute: Device and number format.
        context: Of the run; its energy reading is taken at the edges of each window.
    """
    compute = compute or models.choose_compute()
    shapes = {role: _shape(as_contender(value).model) for role, value in contenders.items()}
    measured_as = {role: next(r for r in shapes if shapes[r] == shape) for role, shape in shapes.items()}
    models_of = {role: as_contender(contenders[role]).model for role in dict.fromkeys(measured_as.values())}
    uses = {role: _use(model, compute, context) for role, model in models_of.items()}
    latencies = {role: _latencies(use, texts, compute, seconds=window_s / 2) for role, use in uses.items()}
    windows: dict[str, list[records.InferenceWindow]] = {role: [] for role in uses}
    labels: dict[str, records.EnergyLabel] = dict.fromkeys(uses, "missing")
    num_rounds = 1 if protocol == "smoke" else 3
    for number in range(num_rounds):  # in turn, so that a machine that slows down slows all of them
        for role, use in uses.items():
            window, label = _window(use, texts, batch_size, number, window_s, compute, context)
            windows[role].append(window)
            labels[role] = label
        context.progress(number + 1, num_rounds)
    lines = {
        role: _inference(role, model, compute, latencies[role], windows[role], labels[role], batch_size, protocol)
        for role, model in models_of.items()
    }
    return InferenceCosts(
        [dataclasses.replace(lines[like], role=role, measured_as=like) for role, like in measured_as.items()]
    )


def _shape(model: Any) -> Any:
    """Equal for models whose uses cost the same: same architecture, other weights."""
    if not isinstance(model, TextModel):
        return id(model)
    parameters = [(name, tuple(p.shape)) for name, p in model.model.named_parameters()]
    return type(model.model).__name__, model.max_length, tuple(parameters)


def _inference(
    role: str,
    model: Any,
    compute: Compute,
    latencies: list[float],
    windows: list[records.InferenceWindow],
    label: records.EnergyLabel,
    batch_size: int,
    protocol: Literal["indicative", "smoke"],
) -> records.Inference:
    examples = sum(w.num_examples for w in windows)
    joules = [w.energy_j for w in windows if w.energy_j is not None]
    is_text_model = isinstance(model, TextModel)
    return records.Inference(
        role=role,
        num_parameters=models.num_parameters(model.model) if is_text_model else model.num_parameters,
        size_bytes=models.size_bytes(model.model) if is_text_model else model.size_bytes,
        latency_p50_s=float(np.percentile(latencies, 50)),
        latency_p95_s=float(np.percentile(latencies, 95)),
        batch_size=batch_size,
        throughput_per_s=examples / sum(w.duration_s for w in windows),
        energy_j_per_1000=1000 * sum(joules) / examples if len(joules) == len(windows) else None,
        cpu_s_per_1000=1000 * sum(w.cpu_s for w in windows) / examples,
        label=label,
        windows=windows,
        number_format=compute.number_format if is_text_model else str(model.number_format),
        protocol=protocol,
    )


def _use(model: Any, compute: Compute, context: Context) -> Any:
    """A function of a list of texts that uses the model once on them."""
    if isinstance(model, TextModel):
        return lambda texts: models.forward_texts(model, texts, compute=compute, context=context)
    return model.predict_proba if hasattr(model, "predict_proba") else model.similarities


def _latencies(use: Any, texts: Sequence[str], compute: Compute, *, seconds: float) -> list[float]:
    """Wall seconds of single uses, after a warm-up of three."""
    latencies: list[float] = []
    deadline, i = time.perf_counter() + seconds, 0
    while i < 8 or (time.perf_counter() < deadline and i < 400):
        begin = time.perf_counter()
        use([texts[i % len(texts)]])
        compute.synchronize()
        latencies.append(time.perf_counter() - begin)
        i += 1
    return latencies[3:]


def _window(
    use: Any,
    texts: Sequence[str],
    batch_size: int,
    number: int,
    window_s: float,
    compute: Compute,
    context: Context,
) -> tuple[records.InferenceWindow, records.EnergyLabel]:
    """Use a model on batch after batch until the window is full."""
    before, begin, cpu, examples, calls = context.energy(), time.perf_counter(), time.process_time(), 0, number
    while time.perf_counter() - begin < window_s:
        start = calls * batch_size % len(texts)
        batch = texts[start : start + batch_size]
        use(batch)
        examples, calls = examples + len(batch), calls + 1
    compute.synchronize()
    duration, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    spent = _difference(before, context.energy()) if window_s >= energy.MIN_WINDOW_S else None
    window = records.InferenceWindow(
        duration_s=duration, num_examples=examples, energy_j=spent.energy_j if spent else None, cpu_s=cpu_s
    )
    return window, spent.label if spent else "missing"


def _difference(before: energy.EnergyReading | None, after: energy.EnergyReading | None) -> energy.EnergyReading | None:
    return after - before if before is not None and after is not None else None


# Uses


def predict_texts(
    model: TextModel, texts: Sequence[str], *, batch_size: int = 64, compute: Compute | None = None
) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) of a classifier for texts, in batches."""
    compute = compute or models.choose_compute()
    parts = [
        softmax(models.forward_texts(model, texts[i : i + batch_size], compute=compute))
        for i in range(0, len(texts), batch_size)
    ]
    return np.concatenate(parts)


def label_names(model: TextModel) -> list[str]:
    """Names of a classifier's classes in the order of its logits."""
    config: Any = model.model.config
    return [str(config.id2label[i]) for i in range(config.num_labels)]


def example_predictions(evaluation: Evaluation, splits: Splits, *, count: int = 3) -> list[dict[str, Any]]:
    """Test texts with the student's answer, spread over the split, for readers to judge.

    None of a user's own file: reports are passed on, and its texts may not be.
    """
    if splits.source.license == sources.USER_PROVIDED:
        return []
    split, columns = splits.test, evaluation.predictions
    chosen = [i * len(split) // count for i in range(min(count, len(split)))]
    return [
        {
            "input": split.texts[i][:300],
            "answers": [{"text": columns["student/prediction"][i], "score": columns["student/score"][i]}],
            "label": columns["label"][i],
        }
        for i in chosen
    ]


def example_answers(
    model: TextModel, index: "SearchIndex", questions: Sequence[str], *, top: int = 3, compute: Compute | None = None
) -> list[dict[str, Any]]:
    """Questions with the documents that the student finds."""
    hits = {question: index.search(model, question, top=top, compute=compute) for question in questions}
    return [
        {"input": question, "answers": [{"id": h.id, "text": h.text, "score": round(h.score, 4)} for h in found]}
        for question, found in hits.items()
    ]


@dataclass(frozen=True)
class Hit:
    """A document that fits a question, with its cosine similarity."""

    id: str
    text: str
    score: float


@dataclass(frozen=True)
class SearchIndex:
    """Documents with their embeddings, to answer questions by nearest neighbour."""

    ids: list[str]
    texts: list[str]
    embeddings_DE: Floats

    @classmethod
    def build(
        cls, model: TextModel, documents: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
    ) -> "SearchIndex":
        """Embed documents with a trained embedder."""
        embeddings_DE = models.forward_texts(model, documents.texts, compute=compute, context=context)
        return cls(list(documents.ids), list(documents.texts), embeddings_DE)

    def search(self, model: TextModel, question: str, *, top: int = 5, compute: Compute | None = None) -> list[Hit]:
        """The documents nearest to a question, best first."""
        scores = self.embeddings_DE @ models.forward_texts(model, [question], compute=compute)[0]
        best = np.argsort(-scores, kind="stable")[:top]
        return [Hit(self.ids[i], self.texts[i], float(scores[i])) for i in best]

    def save(self, folder: Path) -> None:
        """Write embeddings and documents."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"embeddings": self.embeddings_DE}, folder / "embeddings.safetensors")
        files.write_json(folder / "documents.json", {"ids": self.ids, "texts": self.texts})

    @classmethod
    def load(cls, folder: Path) -> "SearchIndex":
        """Read what `save` wrote."""
        documents = files.read_json(folder / "documents.json")
        return cls(documents["ids"], documents["texts"], load_file(folder / "embeddings.safetensors")["embeddings"])


def is_embedder(model: nn.Module) -> bool:
    """Whether a model gives embeddings and not logits."""
    return isinstance(model, models.Embedder)
