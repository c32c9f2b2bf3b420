"""What models did on each test item, from `predictions.parquet`: what a paired comparison is made of."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallmodels import files
from smallmodels.records import PREDICTIONS_NAME, RunRecord
from smallmodels.report import words

if TYPE_CHECKING:
    from smallmodels.metrics import Items
    from smallmodels.metrics.checks import Floats

_TOLERANCE = 1e-4
"""By how much a metric may differ from that of the record, absolutely or relatively: predictions are rounded."""

_COUNTS = ("num_right", "num_found", "num_expected")
"""Columns of a role: spans of each item, which are told apart by their place too; the texts of spans do not tell it."""

_OF_SPANS: "dict[str, Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]]" = {
    "f1": lambda right, found, expected: (2 * right, found + expected),
    "precision": lambda right, found, _: (right, found),
    "recall": lambda right, _, expected: (right, expected),
}
"""What a metric divides by what, of these."""


@dataclass(frozen=True)
class Answers:
    """The predictions of one run, in the order of the items' ids."""

    key: str
    """Hash of the ids and the right answers: equal for equal test items."""
    metric: str
    columns: Any
    """A `pyarrow.Table`."""


def read_all(group: Sequence[RunRecord], paths: Mapping[str, Path]) -> dict[str, Answers | None]:
    """The predictions of runs that have some, by run; files are read beside each other, outside of Python's lock."""
    having = [(paths[record.run_id], record) for record in group if record.run_id in paths]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = pool.map(lambda one: read(*one), having)
    return {record.run_id: answers for (_, record), answers in zip(having, found, strict=True)}


def read(path: Path, record: RunRecord) -> Answers | None:
    """The predictions of a run; None where they are not those of its record, or not of this kind of file."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    expected = record.files.get(PREDICTIONS_NAME)
    if not path.is_file() or (expected is not None and files.sha256_file(path) != expected):
        return None
    key = hashlib.sha256()
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = file.read([n for n in names if not _is_spare(n, record.metric, names)], use_threads=False)
        ids = columns["id"].cast(pa.large_string())
        columns = columns.take(pc.sort_indices(ids))
        for name in ("id", "label", "right", "num_bytes"):
            if name in columns.column_names:
                for part in (name.encode(), *columns[name].cast(pa.large_string()).combine_chunks().buffers()):
                    key.update(b"" if part is None else part)
    except (pa.ArrowException, KeyError, OSError):
        return None
    return Answers(key.hexdigest(), record.metric, columns)


def _is_spare(name: str, metric: str, names: Sequence[str]) -> bool:
    """Whether a column of scores is not looked at, because the predictions beside it tell the metric."""
    role, _, what = name.partition("/")
    return what == "score" and f"{role}/prediction" in names and not metric.startswith(("mrr_at_", "recall_at_"))


def items_of(found: Sequence[tuple[Answers | None, RunRecord]], role: str) -> "Items | None":
    """What a role did on each item in these runs.

    Returns: None where a run has no predictions, the test items differ, the metric is not one that they tell, or its
        value is not the one of the record.
    """
    answers = [each for each, _ in found if each is not None]
    if not answers or len(answers) < len(found) or len({each.key for each in answers}) > 1:
        return None
    items = _items(answers, role)
    if items is None:
        return None
    for rows, (_, record) in zip(items.rows, found, strict=True):
        value = words.metric_value(record.result(role), record.metric)
        again = dataclasses.replace(items, rows=[rows]).value
        if value is None or abs(again - value) > _TOLERANCE * max(1.0, abs(value)):
            return None
    return items


def _items(answers: Sequence[Answers], role: str) -> "Items | None":
    from smallmodels import metrics

    metric = answers[0].metric

    def columns(name: str) -> list[Any]:
        return [each.columns[name] for each in answers if name in each.columns.column_names]

    def complete(*found: Sequence[Any]) -> bool:
        return all(len(each) == len(answers) for each in found)

    labels, guesses, scores = columns("label"), columns(f"{role}/prediction"), columns(f"{role}/score")
    right, bits, num_bytes = columns(f"{role}/is_right"), columns(f"{role}/bits"), columns("num_bytes")
    pairs = list(zip(guesses, labels, strict=True)) if complete(labels, guesses) else []
    if metric == "macro_f1" and pairs:
        return metrics.macro_f1_items([guess.to_pylist() for guess in guesses], labels[0].to_pylist())
    if metric == "accuracy" and pairs:
        return metrics.mean_items([_are_equal(*pair) for pair in pairs])
    of_spans = [columns(f"{role}/{name}") for name in _COUNTS]
    if metric in _OF_SPANS and complete(*of_spans):
        ratios = [_OF_SPANS[metric](*map(_numbers, run)) for run in zip(*of_spans, strict=True)]
        return metrics.ratio_items(*zip(*ratios, strict=True))
    if metric == "micro_f1" and pairs and _are(str, *labels, *guesses):
        return metrics.ratio_items(*zip(*(_labels_found(*pair) for pair in pairs), strict=True))
    if metric == "spearman" and pairs and _are(float, *labels, *guesses):
        return metrics.spearman_items([*map(_numbers, guesses)], _numbers(labels[0]))
    if metric == "exact_match" and complete(right):
        return metrics.mean_items([*map(_numbers, right)])
    if metric.startswith(("mrr_at_", "recall_at_")) and complete(scores):  # scores are reciprocal ranks
        return metrics.mean_items([_of_rank(metric, _numbers(each)) for each in scores])
    if metric == "bits_per_byte" and complete(bits, num_bytes):
        return metrics.ratio_items([*map(_numbers, bits)], [*map(_numbers, num_bytes)])
    return None


def _numbers(column: Any) -> "Floats":
    import numpy as np

    return np.asarray(column.to_numpy(), dtype=np.float64)


def _are_equal(one: Any, two: Any) -> "Floats":
    import pyarrow as pa
    import pyarrow.compute as pc

    if one.type != two.type:
        one, two = one.cast(pa.large_string()), two.cast(pa.large_string())
    return _numbers(pc.equal(one, two).fill_null(False))


def _are(kind: type, *columns: Any) -> bool:
    import pyarrow as pa

    fits = {
        str: lambda found: pa.types.is_string(found) or pa.types.is_large_string(found),
        float: pa.types.is_floating,
    }
    return all(fits[kind](column.type) and not column.null_count for column in columns)


def _labels_found(guesses: Any, labels: Any) -> "tuple[Floats, Floats]":
    """Twice the labels of each item that are right, and all that both sides have; equal pairs are read once."""
    import numpy as np

    guess, label = (column.combine_chunks().dictionary_encode() for column in (guesses, labels))
    codes = guess.indices.to_numpy().astype(np.int64) * len(label.dictionary) + label.indices.to_numpy()
    pairs, place = np.unique(codes, return_inverse=True)
    found, right = ([_labels_of(text) for text in each.dictionary.to_pylist()] for each in (guess, label))
    both, all_ = np.asarray([_counts(found[i // len(right)], right[i % len(right)]) for i in pairs.tolist()]).T
    return both[place], all_[place]


def _counts(found: set[str], right: set[str]) -> tuple[int, int]:
    return 2 * len(found & right), len(found) + len(right)


def _labels_of(text: str) -> set[str]:
    return set(text.split(", ")) if text else set()


def _of_rank(metric: str, scores_N: "Floats") -> "Floats":
    """What a metric makes of reciprocal ranks, which are 0 where the right document is not in the list."""
    import numpy as np

    if metric.startswith("mrr"):
        return scores_N
    return np.asarray(scores_N == 1.0 if metric == "recall_at_1" else scores_N > 0, dtype=np.float64)
