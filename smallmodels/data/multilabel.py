"""Several labels at once: one text, any number of labels, from a hub data set or a local CSV, JSON Lines or Parquet.

The labels of a row are a list, a string with separators, or a column of 0 and 1 for each label. A text without any
label is a row like others. What is missing is made from train and said so, as in text classification.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import arrays, sources
from smallmodels.arrays import Ragged
from smallmodels.data.drawing import require_limits
from smallmodels.data.labels import LABEL_COLUMNS, Kinds, classes_in, clean_label, is_minus_one, names_of
from smallmodels.data.reading import (
    base_name,
    columns_of,
    open_tables,
    pick_column,
    pick_splits,
    require_columns,
    require_different,
)
from smallmodels.data.rows import Rows, fill_in, make_splits, note_dropped, number_classes, read_rows
from smallmodels.data.splits import Split, Splits
from smallmodels.data.tables import Table
from smallmodels.data.text_classification import TEXT_COLUMNS
from smallmodels.errors import InputError
from smallmodels.phases import NO_CONTEXT, Context

SEPARATORS = (";", "|", ",")
"""Between the labels of a string; the first of them that occurs in the column is the one."""

_YES_OR_NO = {"1": True, "0": False, "true": True, "false": False, "1.0": True, "0.0": False}


def load_multilabel_classification(
    dataset: str,
    *,
    config: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    label_columns: Sequence[str] = (),
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str = "test",
    split_seed: int = 0,
    drop_overlap: bool = False,
    drop_bad_texts: bool = False,
    max_train: int | None = None,
    max_test: int | None = None,
    context: Context = NO_CONTEXT,
) -> Splits:
    """Bring a data set to disk and make train, validation and test of it.

    Args:
        dataset: `org/name`, `org/name@revision`, or a local CSV, JSON Lines or Parquet file.
        config: Configuration of a hub data set that has several.
        text_column: Column with the text; None takes the first of `TEXT_COLUMNS` that is there.
        label_column: Column with the labels of a row: a list, or a string with one of `SEPARATORS` between them; None
            takes the first of `LABEL_COLUMNS` that is there.
        label_columns: Columns of 0 and 1, one for each label, in place of `label_column`.
        train_split: Name of the split to train on.
        validation_split: Name of the split to choose on; None takes `validation` or `dev`, else a tenth of train.
        test_split: Name of the split to test on. Where there is no `test`, or it has no labels, a fifth of train stands
            in.
        split_seed: Seed of every such draw.
        drop_overlap: Whether rows of train whose text also stands in validation or test are dropped.
        drop_bad_texts: Whether rows whose text is empty, null or a megabyte long are dropped and counted; they are
            refused otherwise.
        max_train: At most so many rows of train, drawn so that rare labels keep their shares; None is all.
        max_test: At most so many rows of test, in the same way.
        context: Of the phase, in whose folder data sets are unpacked and the identity of the data is noted.

    Returns: Splits whose labels are of shape (num_texts, num_labels), 1 where a label holds, else 0; a null in place of
        labels means that they are not known, and such a row is left out. `notes` say what was guessed, dropped, drawn,
        which labels a split lacks, and how many texts stand in two splits.

    Raises: InputError in one sentence for whatever cannot be trained on: no such column or split, no rows, one label
        only, a label in test that train lacks, other data than the run began with.
    """
    require_limits(1, max_train=max_train, max_test=max_test)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {}
    with open_tables(fetched, context.folder) as tables:
        text_column = pick_column(tables, dataset, "text", text_column, TEXT_COLUMNS, notes)
        if label_columns:
            _require_label_columns(columns_of(tables), dataset, label_columns, label_column)
            columns = tuple(label_columns)
        else:
            columns = (pick_column(tables, dataset, "label", label_column, LABEL_COLUMNS, notes),)
            require_different(text=text_column, label=columns[0])
        chosen = pick_splits(tables, dataset, train_split, validation_split, test_split)
        separator = None if label_columns else _separator(tables[chosen["train"]].columns.get(columns[0], ()))
        if separator:
            notes["label_separator"] = separator
        rows = {}
        for role, name in chosen.items():
            reader = (
                _FlagReader(columns, name) if label_columns else _ListReader(tables[name], columns[0], name, separator)
            )
            rows[role] = _rows_of(tables[name], name, text_column, columns, reader, drop_bad_texts)
        note_dropped(rows, notes)
        if label_columns:
            names = {column: column for column in columns}
        else:
            names = names_of(rows["train"].present(), tables[chosen["train"]], columns[0], dataset)
        parts = fill_in(rows, dataset, chosen, split_seed, notes)
    numbered = {role: number_classes(part, role, names, dataset, ", ".join(columns)) for role, part in parts.items()}
    return make_splits(
        {role: _as_matrix(split, len(names)) for role, split in numbered.items()},
        list(names.values()),
        fetched,
        notes,
        drop_overlap=drop_overlap,
        max_train=max_train,
        max_test=max_test,
        split_seed=split_seed,
        check=_require_two_labels,
        context=context,
    )


def _require_label_columns(existing: list[str], dataset: str, wanted: Sequence[str], label_column: str | None) -> None:
    if label_column is not None:
        raise InputError("labels should be in one column or in one for each: choose --label-column or --label-columns")
    if missing := [name for name in wanted if name not in existing]:
        raise InputError(
            f"{base_name(dataset)} has no column {missing[0]!r}: choose --label-columns from {', '.join(existing)}"
        )
    if len(set(wanted)) < len(wanted):
        raise InputError(f"--label-columns should name each column once, got {', '.join(wanted)}")


def _separator(values: Iterable[Any]) -> str | None:
    """What stands between the labels of strings; None where none of the usual separators occurs."""
    seen = {sign for value in values if isinstance(value, str) for sign in SEPARATORS if sign in value}
    return next((sign for sign in SEPARATORS if sign in seen), None)


def _rows_of(
    table: Table,
    split_name: str,
    text_column: str,
    label_columns: tuple[str, ...],
    reader: "_ListReader | _FlagReader",
    drop_bad_texts: bool,
) -> Rows:
    """Rows whose labels are known; a split without any of their columns has none."""
    require_columns(table, split_name, [text_column])
    if not any(name in table.columns for name in label_columns):
        return Rows.none(split_name, {"unlabelled": len(table)})
    require_columns(table, split_name, label_columns)
    kinds, numbers = Kinds(), arrays.GrowingRows(np.int32)

    def add(labels: list[Any]) -> None:
        row = dict.fromkeys(kinds.number(label) for label in labels)  # each once
        numbers.append(list(row), [len(row)])

    values = zip(*(table.columns[name] for name in label_columns), strict=True)
    split, dropped = read_rows(
        table, split_name, [text_column], values, clean=reader, add=add, drop_bad_texts=drop_bad_texts
    )
    return Rows.of(split, Ragged(*numbers.done()), kinds.all(), dropped)


class _ListReader:
    """The labels of a row from one column: a list, a string with separators, or a single label.

    Args:
        table: Of the split.
        column: With the labels.
        split_name: For messages.
        separator: Between the labels of a string.
    """

    def __init__(self, table: Table, column: str, split_name: str, separator: str | None) -> None:
        self._is_class = column in table.class_names
        self._column, self._split_name, self._separator = column, split_name, separator

    def __call__(self, values: tuple[Any], row: int) -> list[Any] | None:
        """The labels; None where they are not known."""
        (value,) = values
        if value is None:
            return None
        if isinstance(value, str):
            value = value.split(self._separator) if self._separator else [value]
        items = value if isinstance(value, list) else [value]
        if strange := [item for item in items if isinstance(item, list | dict)]:
            raise InputError(
                f"column {self._column!r} should hold lists of labels, each a string or an integer, found "
                f"{type(strange[0]).__name__} in {self._split_name} row {row}: choose another --label-column"
            )
        labels = [clean_label(item, self._column, self._split_name, row) for item in items]
        if self._is_class and labels and all(map(is_minus_one, labels)):
            return None
        return [label for label in labels if label is not None]


class _FlagReader:
    """The labels of a row from one column for each.

    Args:
        columns: Named as the labels are.
        split_name: For messages.
    """

    def __init__(self, columns: tuple[str, ...], split_name: str) -> None:
        self._columns, self._split_name = columns, split_name

    def __call__(self, values: tuple[Any, ...], row: int) -> list[str] | None:
        """The labels; None where a column has no value."""
        if any(value is None or value == "" for value in values):
            return None
        return [column for column, value in zip(self._columns, values, strict=True) if self._holds(column, value, row)]

    def _holds(self, column: str, value: Any, row: int) -> bool:
        found = _YES_OR_NO.get(str(value).strip().lower())
        if found is None:
            raise InputError(
                f"column {column!r} should hold 0 or 1 in each row, found {value!r} in {self._split_name} row {row}: "
                "choose other --label-columns"
            )
        return found


def _as_matrix(split: Split, num_labels: int) -> Split:
    """The same split with labels of shape (num_texts, num_labels)."""
    labels = split.labels
    assert isinstance(labels, Ragged)
    growing = arrays.Growing(np.int64, (num_labels,))
    for part in arrays.pieces(np.arange(len(labels))):
        growing.append(_marks(labels.take(part), num_labels))
    return dataclasses.replace(split, labels=growing.done())


def _marks(labels: Ragged, num_labels: int) -> npt.NDArray[np.int64]:
    marks = np.zeros((len(labels), num_labels), dtype=np.int64)
    marks[np.repeat(np.arange(len(labels)), labels.lengths), labels.values] = 1
    return marks


def _require_two_labels(splits: dict[str, Split], label_names: list[str]) -> None:
    if len(label_names) < 2:
        raise InputError(
            f"train should have two labels or more, found only {', '.join(label_names) or 'none'}: choose another "
            "--label-column"
        )
    if not len(classes_in(splits["train"].labels)):
        raise InputError("train should have texts with a label, found none: choose another --label-column")
