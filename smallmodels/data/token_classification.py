"""Token classification: a tag for each word, from a hub data set or a local CoNLL, CSV, JSON Lines or Parquet file.

A split's text is its words with one space between two, so that `text.split(" ")` gives them back, and its labels are
the words' tags, row by row. What is missing is made from train and said so, as for text classification.
"""

import json
from collections import Counter
from typing import Any

import numpy as np

from smallmodels import arrays, metrics, sources
from smallmodels.arrays import Ragged
from smallmodels.data.columns import GrowingTexts, RowIds
from smallmodels.data.drawing import require_limits
from smallmodels.data.labels import Kinds, classes_in, is_minus_one
from smallmodels.data.reading import (
    LONGEST_TEXT,
    clean_text,
    open_tables,
    pick_column,
    pick_splits,
    require_columns,
    require_different,
)
from smallmodels.data.rows import Rows, fill_in, make_splits, note_dropped, number_classes
from smallmodels.data.splits import Split, Splits
from smallmodels.data.tables import Table, read_conll_files
from smallmodels.errors import InputError
from smallmodels.phases import NO_CONTEXT, Context

WORDS_COLUMNS = ("tokens", "words", "token", "word")
TAGS_COLUMNS = ("ner_tags", "tags", "ner", "labels", "bio_tags")
"""Names that are tried, in this order, where the user gives none."""


def load_token_classification(
    dataset: str,
    *,
    config: str | None = None,
    words_column: str | None = None,
    tags_column: str | None = None,
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
        dataset: `org/name`, `org/name@revision`, or a local CoNLL (.conll, .bio, .iob, .txt), CSV, JSON Lines or
            Parquet file.
        config: Configuration of a hub data set that has several.
        words_column: Column with lists of words; None takes the first of `WORDS_COLUMNS` that is there.
        tags_column: Column with lists of tags, one for each word: strings, or integers that the data set names. None
            takes the first of `TAGS_COLUMNS` that is there. Where words and tags of a row are both strings, as in CSV,
            each is a list in JSON, or has white space between its items.
        train_split: Name of the split to train on.
        validation_split: Name of the split to choose on; None takes `validation` or `dev`, else a tenth of train.
        test_split: Name of the split to test on. Where there is no `test`, or it has no tags, a fifth of train stands
            in.
        split_seed: Seed of every such draw.
        drop_overlap: Whether sentences of train that also stand in validation or test are dropped.
        drop_bad_texts: Whether sentences of a megabyte are dropped and counted; they are refused otherwise.
        max_train: At most so many sentences of train, drawn so that rare tags keep their shares; None is all.
        max_test: At most so many sentences of test, in the same way.
        context: Of the phase, in whose folder data sets are unpacked and the identity of the data is noted.

    Returns: Splits whose labels are indices into `label_names`, the tags, in a `Ragged` with one row per sentence.
        Empty sentences are left out. `notes` say what was guessed, dropped, repaired, drawn, which tags a split lacks,
        and how many sentences stand in two splits.

    Raises: InputError in one sentence for whatever cannot be trained on: no such column or split, other tags than `O`
        and `B-type`, not one tag for each word, a tag in test that train lacks, other data than the run began with.
    """
    require_limits(1, max_train=max_train, max_test=max_test)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {}
    with open_tables(fetched, context.folder, read_conll_files) as tables:
        words_column = pick_column(tables, dataset, "words", words_column, WORDS_COLUMNS, notes)
        tags_column = pick_column(tables, dataset, "tags", tags_column, TAGS_COLUMNS, notes)
        require_different(words=words_column, tags=tags_column)
        chosen = pick_splits(tables, dataset, train_split, validation_split, test_split)
        rows = {
            role: _rows_of(tables[name], name, words_column, tags_column, drop_bad_texts)
            for role, name in chosen.items()
        }
        note_dropped(rows, notes)
        known = tables[chosen["train"]].class_names.get(tags_column)
        names = {tag: tag for tag in known or sorted(rows["train"].kinds, key=_by_type)}
        parts = fill_in(rows, dataset, chosen, split_seed, notes)
    return make_splits(
        {role: number_classes(part, role, names, dataset, tags_column) for role, part in parts.items()},
        list(names),
        fetched,
        notes,
        drop_overlap=drop_overlap,
        max_train=max_train,
        max_test=max_test,
        split_seed=split_seed,
        check=_require_spans,
        context=context,
    )


def _by_type(tag: str) -> tuple[str, str]:
    """`O` before all others, and the tags of a type beside each other."""
    place, _, kind = tag.partition("-")
    return ("", "") if tag == "O" else (kind, place)


def _rows_of(table: Table, split_name: str, words_column: str, tags_column: str, drop_bad_texts: bool) -> Rows:
    """Sentences with their tags as strings; a split without the column of the tags has none."""
    require_columns(table, split_name, [words_column])
    if tags_column not in table.columns:
        return Rows.none(split_name, {"unlabelled": len(table)})
    read_tag = _TagReader(table.class_names.get(tags_column), tags_column, split_name)
    dropped: Counter[str] = Counter()
    kinds, numbers = Kinds(), arrays.GrowingRows(np.int32)
    texts, kept = GrowingTexts(), arrays.Growing(np.int64)
    columns = table.columns[words_column], table.columns[tags_column]
    for row, cells in enumerate(zip(*columns, strict=True)):
        are_written = all(isinstance(cell, str) for cell in cells)
        raw_words, raw_tags = map(_written_list, cells) if are_written else cells
        words = _list_of(raw_words, words_column, "words", split_name, row)
        tags = _list_of(raw_tags, tags_column, "tags", split_name, row)
        if not words:
            dropped["blank_text"] += 1
        elif tags is None or all(map(is_minus_one, tags)):
            dropped["unlabelled"] += 1
        elif len(words) != len(tags):
            raise InputError(
                f"every row of split {split_name} should have one tag for each word, row {row} has {len(words)} words "
                f"and {len(tags)} tags: mend the data"
            )
        elif len(text := _join(words, words_column, split_name, row, dropped)) >= LONGEST_TEXT:
            if not drop_bad_texts:
                raise InputError(
                    f"every row of split {split_name} should be a sentence below a million characters, found one of "
                    f"{len(text):,} in row {row}: put blank lines between sentences, or add --drop-bad-texts"
                )
            dropped["megabyte_text"] += 1
        else:
            texts.append(text)
            numbers.append([kinds.number(read_tag(tag, row)) for tag in tags], [len(tags)])
            kept.add(row)
    split = Split(split_name, RowIds(split_name, kept.done()), texts.done())
    return Rows.of(split, Ragged(*numbers.done()), kinds.all(), dropped)


def _written_list(cell: str) -> list[Any]:
    """What a string lists: in JSON, else with white space between."""
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return cell.split()
    return found if isinstance(found, list) else cell.split()  # `2019` is JSON, too


def _list_of(value: Any, column: str, flag: str, split_name: str, row: int) -> list[Any] | None:
    if value is None or isinstance(value, list):
        return value
    raise InputError(
        f"column {column!r} should hold a list of {flag} in each row, found {type(value).__name__} in {split_name} row "
        f"{row}: choose another --{flag}-column"
    )


def _join(words: list[Any], column: str, split_name: str, row: int, counts: Counter[str]) -> str:
    """The words with one space between two; white space in a word, and a word of nothing else, becomes `_`."""
    clean = []
    for word in words:
        if not isinstance(word, str):
            raise InputError(
                f"column {column!r} should hold lists of words, found {type(word).__name__} in {split_name} row {row}: "
                "choose another --words-column"
            )
        clean.append("_".join(word.split()) or "_")
        if clean[-1] != word:
            counts["repaired_words"] += 1
    return clean_text(" ".join(clean), column, split_name, row, counts)


class _TagReader:
    """Tags as strings; each that occurs is checked once.

    Args:
        names: Of tags that are integers.
        column: For messages, as the split.
        split_name: Of the rows.
    """

    def __init__(self, names: list[str] | None, column: str, split_name: str) -> None:
        self._names, self._column, self._split_name = names, column, split_name
        self._known: dict[Any, str] = {}

    def __call__(self, value: Any, row: int) -> str:
        """The tag that a value stands for.

        Raises: InputError if it stands for none.
        """
        if isinstance(value, list | dict) or value not in self._known:
            tag = self._read(value)
            try:
                metrics.scheme_of([tag])
            except InputError as error:
                raise InputError(
                    f"column {self._column!r} should hold tags such as O and B-person, found {value!r} in "
                    f"{self._split_name} row {row}: convert the tags, or choose another --tags-column"
                ) from error
            self._known[value] = tag
        return self._known[value]

    def _read(self, value: Any) -> str:
        if isinstance(value, str):
            return value.strip()
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return self._names[value] if self._names and is_number and 0 <= value < len(self._names) else ""


def _require_spans(splits: dict[str, Split], label_names: list[str]) -> None:
    metrics.scheme_of(label_names)  # the hub's names of tags that never occur, too
    if not {label_names[number] for number in classes_in(splits["train"].labels)} - {"O"}:
        raise InputError("train should have a tag besides O, found none: choose another --tags-column")
