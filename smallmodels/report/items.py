"""What models did on each test item, from `predictions.parquet`: what a paired comparison is made of."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallmodels import files
from smallmodels.records import PREDICTIONS_NAME, RunRecord
from smallmodels.report import words

if TYPE_CHECKING:
    from smallmodels.metrics import Items

_TOLERANCE = 1e-4
"""By how much a metric may differ from that of the record, absolutely or relatively: predictions are rounded."""


@dataclass(frozen=True)
class Answers:
    """The predictions of one run, in the order of the items' ids."""

    key: str
    """Hash of the ids and the right answers: equal for equal test items."""
    metric: str
    columns: Mapping[str, Sequence[Any]]


def read(path: Path, record: RunRecord) -> Answers | None:
    """The predictions of a run; None where they are not those of its record, or not of this kind of file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = record.files.get(PREDICTIONS_NAME)
    if not path.is_file() or (expected is not None and files.sha256_file(path) != expected):
        return None
    try:
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    except (pa.ArrowException, OSError):
        return None
    if "id" not in columns:
        return None
    ids = [str(each) for each in columns["id"]]
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    ordered = {name: [values[i] for i in order] for name, values in columns.items()}
    shared = [[str(v) for v in ordered[name]] for name in ("id", "label", "right", "num_bytes") if name in ordered]
    return Answers(hashlib.sha256(json.dumps(shared).encode()).hexdigest(), record.metric, ordered)


def items_of(found: Sequence[tuple[Answers | None, RunRecord]], role: str) -> "Items | None":
    """What a role did on each item in these runs.

    Returns: None where a run has no predictions, the test items differ, the metric is not one that they tell, or its
        value is not the one of the record.
    """
    from smallmodels import metrics

    answers = [each for each, _ in found if each is not None]
    if not answers or len(answers) < len(found) or len({each.key for each in answers}) > 1:
        return None
    items = _items(answers, role)
    if items is None:
        return None
    for rows, (_, record) in zip(items.rows, found, strict=True):
        value = words.metric_value(record.result(role), record.metric)
        again = metrics.value_of(dataclasses.replace(items, rows=[rows]))
        if value is None or abs(again - value) > _TOLERANCE * max(1.0, abs(value)):
            return None
    return items


def _items(answers: Sequence[Answers], role: str) -> "Items | None":
    from smallmodels import metrics

    metric = answers[0].metric

    def columns(name: str) -> list[Sequence[Any]]:
        return [each.columns[name] for each in answers if name in each.columns]

    def complete(*found: Sequence[Any]) -> bool:
        return all(len(each) == len(answers) for each in found)

    labels, guesses, scores = columns("label"), columns(f"{role}/prediction"), columns(f"{role}/score")
    right, bits, num_bytes = columns(f"{role}/is_right"), columns(f"{role}/bits"), columns("num_bytes")
    if metric in ("accuracy", "macro_f1") and complete(labels, guesses):
        if metric == "macro_f1":
            return metrics.macro_f1_items([[*map(str, g)] for g in guesses], [*map(str, labels[0])])
        pairs = [zip(guess, label, strict=True) for guess, label in zip(guesses, labels, strict=True)]
        return metrics.mean_items([[float(a == b) for a, b in pair] for pair in pairs])
    if metric in ("micro_f1", "f1") and complete(labels, guesses) and _are((*labels, *guesses), str):
        pairs = [zip(guess, label, strict=True) for guess, label in zip(guesses, labels, strict=True)]
        counts = [[_found(metric, guess, label) for guess, label in pair] for pair in pairs]
        return metrics.ratio_items([[2 * c[0] for c in run] for run in counts], [[c[1] for c in run] for run in counts])
    if metric == "spearman" and complete(labels, guesses) and _are((*labels, *guesses), float):
        return metrics.spearman_items(guesses, labels)
    if metric == "exact_match" and complete(right):
        return metrics.mean_items([[float(r) for r in each] for each in right])
    if metric.startswith(("mrr_at_", "recall_at_")) and complete(scores):  # scores are reciprocal ranks
        return metrics.mean_items([[_of_rank(metric, s) for s in each] for each in scores])
    if metric == "bits_per_byte" and complete(bits, num_bytes):
        return metrics.ratio_items(bits, num_bytes)
    return None


def _are(columns: Sequence[Sequence[Any]], kind: type) -> bool:
    return all(isinstance(value, kind) for column in columns for value in column)


def _found(metric: str, guess: str, label: str) -> tuple[int, int]:
    """How many labels or spans of an item are right, and how many both sides have; as `evaluation` writes them.

    Spans are told apart by their type and words, not by their place. Where that makes a difference, the metric is not
    the record's, and the items are not used.
    """
    between = ", " if metric == "micro_f1" else "; "
    ours, theirs = (Counter(text.split(between)) if text else Counter[str]() for text in (guess, label))
    return (ours & theirs).total(), ours.total() + theirs.total()


def _of_rank(metric: str, score: float) -> float:
    """What a metric makes of a reciprocal rank, which is 0 where the right document is not in the list."""
    if metric.startswith("mrr"):
        return score
    return float(score == 1.0 if metric == "recall_at_1" else score > 0)
