"""Two texts and what holds between them: a class, such as entailment, or a score, such as how similar they are.

From a hub data set or a local CSV, JSON Lines or Parquet file. What is missing is made from train and said so, as for
text classification.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from smallmodels import arrays, sources
from smallmodels.data.drawing import require_limits
from smallmodels.data.labels import LABEL_COLUMNS, names_of, require_two_classes
from smallmodels.data.reading import (
    base_name,
    columns_of,
    open_tables,
    pick_column,
    pick_splits,
    require_columns,
    require_different,
)
from smallmodels.data.rows import (
    Draw,
    Rows,
    draw_rows,
    fill_in,
    make_splits,
    note_dropped,
    number_classes,
    read_classes,
    read_rows,
)
from smallmodels.data.splits import Split, Splits
from smallmodels.data.tables import Table, Values
from smallmodels.errors import InputError
from smallmodels.phases import NO_CONTEXT, Context

PAIRS_OF_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "context"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("sentence_A", "sentence_B"),
    ("query", "document"),
)
"""Names that are tried, in this order, where the user gives none."""

PAIR_LABEL_COLUMNS = (*LABEL_COLUMNS, "score", "similarity_score", "gold_label", "is_duplicate", "final_decision")


def load_text_pairs(
    dataset: str,
    *,
    config: str | None = None,
    first_column: str | None = None,
    second_column: str | None = None,
    label_column: str | None = None,
    regression: bool | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str = "test",
    split_seed: int = 0,
    drop_overlap: bool = False,
    drop_bad_texts: bool = False,
    max_train: int | None = None,
    max_test: int | None = None,
    draw: Draw = draw_rows,
    context: Context = NO_CONTEXT,
) -> Splits:
    """Bring a data set to disk and make train, validation and test of it.

    A column may also hold lists of texts, or objects with such a list under the column's name in the plural, as the
    contexts of PubMedQA do: they become one text with spaces between.

    Args:
        dataset: `org/name`, `org/name@revision`, or a local CSV, JSON Lines or Parquet file.
        config: Configuration of a hub data set that has several.
        first_column: Column with the first text; None takes that of the first of `PAIRS_OF_COLUMNS` that is there.
        second_column: Column with the second text, likewise.
        label_column: Column with the class or the score; None takes the first of `PAIR_LABEL_COLUMNS` that is there.
        regression: Whether labels are scores; None says yes where a row of train has a fraction.
        train_split: Name of the split to train on.
        validation_split: Name of the split to choose on; None takes `validation` or `dev`, else a tenth of train.
        test_split: Name of the split to test on. Where there is no `test`, or its labels are all -1, a fifth of train
            stands in.
        split_seed: Seed of every such draw.
        drop_overlap: Whether pairs of train that also stand in validation or test are dropped.
        drop_bad_texts: Whether rows with a text that is empty, null or a megabyte long are dropped and counted; they
            are refused otherwise.
        max_train: At most so many pairs of train, drawn so that classes, or tenths of the scores, keep their shares;
            None is all.
        max_test: At most so many pairs of test, in the same way.
        draw: Of what stands in; `SameRows` where the same rows are read in several languages.
        context: Of the phase, in whose folder data sets are unpacked and the identity of the data is noted.

    Returns: Splits with `seconds`. Labels are indices into `label_names`, or scores (float32), and there are no names.
        `notes` say what was guessed, dropped, drawn, and how many pairs stand in two splits.

    Raises: InputError in one sentence for whatever cannot be trained on: no such column or split, no rows, one class
        only, a score that is no number, a label in test that train lacks, other data than the run began with.
    """
    require_limits(2, max_train=max_train, max_test=max_test)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {}
    with open_tables(fetched, context.folder) as tables:
        texts = _pick_pair(columns_of(tables), dataset, first_column, second_column, notes)
        label_column = pick_column(tables, dataset, "label", label_column, PAIR_LABEL_COLUMNS, notes)
        require_different(first=texts[0], second=texts[1], label=label_column)
        chosen = pick_splits(tables, dataset, train_split, validation_split, test_split)
        tables = {name: _flat(tables[name], name, texts) for name in chosen.values()}
        if regression is None:
            regression = _has_fractions(tables[chosen["train"]].columns.get(label_column, ()))
            notes["labels_guessed"] = "scores" if regression else "classes"
        read = _read_scores if regression else read_classes
        rows = {role: read(tables[name], name, texts, label_column, drop_bad_texts) for role, name in chosen.items()}
        note_dropped(rows, notes)
        parts = fill_in(rows, dataset, chosen, split_seed, notes, draw)
        names: Mapping[Any, str] = {}
        if not regression:
            names = names_of(parts["train"].present(), tables[chosen["train"]], label_column, dataset)
    if regression:
        splits = {role: dataclasses.replace(part.split, name=role) for role, part in parts.items()}
    else:
        splits = {role: number_classes(part, role, names, dataset, label_column) for role, part in parts.items()}
    return make_splits(
        splits,
        list(names.values()),
        fetched,
        notes,
        drop_overlap=drop_overlap,
        max_train=max_train,
        max_test=max_test,
        split_seed=split_seed,
        check=_require_two_scores if regression else require_two_classes,
        context=context,
    )


def _pick_pair(
    existing: list[str], dataset: str, first: str | None, second: str | None, notes: dict[str, Any]
) -> tuple[str, str]:
    """Both columns: as given, or the first usual pair that is there and fits what is given."""
    given = {"first": first, "second": second}
    for flag, name in given.items():
        if name is not None and name not in existing:
            shown = ", ".join(existing)
            raise InputError(f"{base_name(dataset)} has no column {name!r}: choose --{flag}-column from {shown}")
    if first is not None and second is not None:
        return first, second
    for pair in PAIRS_OF_COLUMNS:
        if all(name in existing for name in pair) and first in (None, pair[0]) and second in (None, pair[1]):
            for (flag, name), found in zip(given.items(), pair, strict=True):
                if name is None:
                    notes[f"{flag}_column_guessed"] = found
            return pair
    flag, shown = next(flag for flag, name in given.items() if name is None), ", ".join(existing)
    raise InputError(f"{base_name(dataset)} has no column for the {flag} text: choose --{flag}-column from {shown}")


# Nested texts


def _flat(table: Table, split_name: str, texts: tuple[str, str]) -> Table:
    """The same table whose texts are strings."""
    require_columns(table, split_name, texts)
    flat = {name: _FlatTexts(table.columns[name], name, split_name) for name in texts}
    return dataclasses.replace(table, columns={**table.columns, **flat})


class _FlatTexts:
    """A column of texts, of lists of texts, or of objects that hold such a list."""

    def __init__(self, values: Values, column: str, split_name: str) -> None:
        self._values, self._column, self._split_name = values, column, split_name

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        for row, value in enumerate(self._values):
            yield self._flat(value, row)

    def _flat(self, value: Any, row: int) -> Any:
        if isinstance(value, dict):
            plural = f"{self._column}s"
            if plural not in value:
                raise InputError(
                    f"column {self._column!r} should hold texts or objects with {plural!r}, found one with "
                    f"{', '.join(map(str, value)) or 'nothing'} in {self._split_name} row {row}: choose another column"
                )
            value = value[plural]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return " ".join(value)
        return value


# Scores


def _has_fractions(values: Iterable[Any]) -> bool:
    """Whether one of the labels is a number that is not whole, so that they are scores."""
    return any((number := _number(value)) is not None and not number.is_integer() for value in values)


def _number(value: Any) -> float | None:
    """A finite number, or a string that is one; None for all else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _read_scores(
    table: Table, split_name: str, texts: tuple[str, str], label_column: str, drop_bad_texts: bool
) -> Rows:
    """Rows with two texts and a score; a split without scores, or with -1 for all, has none."""
    if label_column not in table.columns:
        return Rows.none(split_name, {"unlabelled": len(table)})
    scores = arrays.Growing(np.float32)

    def clean(value: Any, row: int) -> float | None:
        is_missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        number = _number(value)
        if number is None and not is_missing:
            raise InputError(
                f"column {label_column!r} should hold numbers, found {value!r} in {split_name} row {row}: choose "
                "another --label-column, or add --regression False if these are classes"
            )
        return number

    split, dropped = read_rows(
        table,
        split_name,
        texts,
        table.columns[label_column],
        clean=clean,
        add=scores.add,
        drop_bad_texts=drop_bad_texts,
    )
    found = scores.done()
    if len(found) and (found == -1).all():
        return Rows.none(split_name, dropped | {"unlabelled": dropped["unlabelled"] + len(found)})
    return Rows.of(split, found, [], dropped)


def _require_two_scores(splits: dict[str, Split], label_names: list[str]) -> None:
    scores = splits["train"].labels
    assert isinstance(scores, np.ndarray)
    assert not label_names
    if not len(scores) or scores.min() == scores.max():
        found = f"only {scores[0]:g}" if len(scores) else "none"
        raise InputError(
            f"train should have two different scores or more, found {found}: choose another --label-column"
        )
