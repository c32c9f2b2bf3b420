"""Text classification: one text, one label, from a hub data set or a local CSV, JSON Lines or Parquet file.

Strings, integers, booleans and the hub's ClassLabel all become indices into one list of label names, the same for
every split. What is missing is made from train and said so: validation, and test where there is none with labels.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import arrays, files, memory, sources
from smallmodels.data import identity
from smallmodels.data.columns import GrowingTexts, RowIds
from smallmodels.data.drawing import (
    TEST_FRACTION,
    VALIDATION_FRACTION,
    among,
    generator,
    hashes_of,
    note_overlap,
    repeated,
    require_limits,
    stratified,
)
from smallmodels.data.languages import languages_of
from smallmodels.data.reading import (
    LONGEST_TEXT,
    VALIDATION_SPLITS,
    bad_text,
    base_name,
    clean_text,
    open_tables,
    pick_splits,
)
from smallmodels.data.splits import Split, Splits
from smallmodels.data.tables import Table
from smallmodels.errors import InputError
from smallmodels.phases import NO_CONTEXT, Context

TEXT_COLUMNS = ("text", "sentence", "content", "utterance", "question", "review", "document", "body", "message")
LABEL_COLUMNS = ("label", "labels", "category", "intent", "class", "target", "topic", "sentiment")
"""Names that are tried, in this order, where the user gives none."""


@dataclass(frozen=True)
class _Rows:
    """Texts with labels that are not numbered yet, blank texts and unlabelled rows left out."""

    split: Split
    kinds: list[Any]
    """Labels, each once."""
    numbers: npt.NDArray[np.int32]
    """Shape (num_rows,); indices into `kinds`."""
    dropped: dict[str, int]
    """Rows by reason, such as `blank_text`."""

    def take(self, indices: npt.NDArray[np.int64]) -> "_Rows":
        return dataclasses.replace(self, split=self.split.take(indices), numbers=arrays.take(self.numbers, indices))

    def present(self) -> list[Any]:
        """The labels that a row has."""
        return [self.kinds[number] for number in np.flatnonzero(np.bincount(self.numbers))]


def load_text_classification(
    dataset: str,
    *,
    config: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
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
        label_column: Column with the label; None takes the first of `LABEL_COLUMNS` that is there.
        train_split: Name of the split to train on.
        validation_split: Name of the split to choose on; None takes `validation` or `dev`, else a tenth of train.
        test_split: Name of the split to test on. Where there is no `test`, or its labels are all −1, a fifth of train
            stands in.
        split_seed: Seed of every such draw.
        drop_overlap: Whether rows of train whose text also stands in validation or test are dropped.
        drop_bad_texts: Whether rows whose text is empty, null or a megabyte long are dropped and counted; they are
            refused otherwise.
        max_train: At most so many rows of train, drawn so that classes keep their shares; None is all.
        max_test: At most so many rows of test, in the same way.
        context: Of the phase, in whose folder data sets are unpacked and the identity of the data is noted.

    Returns: Splits whose `notes` say what was guessed, dropped, drawn, which classes a split lacks, and how many texts
        stand in two splits.

    Raises: InputError in one sentence for whatever cannot be trained on: no such column or split, no rows, one class
        only, several labels per row, a label in test that train lacks, other data than the run began with.
    """
    require_limits(2, max_train=max_train, max_test=max_test)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {}
    with open_tables(fetched, context.folder) as tables:
        text_column, label_column = _pick_columns(tables, dataset, text_column, label_column, notes)
        chosen = pick_splits(tables, dataset, train_split, validation_split, test_split)
        rows = {
            role: _rows_of(tables[name], name, text_column, label_column, drop_bad_texts)
            for role, name in chosen.items()
        }
        _note_dropped(rows, notes)
        parts = _fill_in(rows, dataset, chosen, split_seed, notes)
        names = _label_names(parts["train"].present(), tables[chosen["train"]], label_column, dataset)
    splits = {role: _number(part, role, names, dataset, label_column) for role, part in parts.items()}
    splits["train"] = note_overlap(splits, drop_overlap, notes)
    splits["train"] = _limit(splits["train"], max_train, split_seed)
    splits["test"] = _limit(splits["test"], max_test, split_seed)
    done = _finish(splits, [names[key] for key in names], fetched, notes)
    identity.require_same(base_name(dataset), str(done.source.fingerprint), done.label_names, context)
    memory.give_back()  # of sorted copies, which the C library would keep for later
    return done


def _finish(
    splits: dict[str, Split], label_names: list[str], fetched: sources.DatasetFiles, notes: dict[str, Any]
) -> Splits:
    _check_classes(splits, label_names)
    _note_missing_classes(splits, label_names, notes)
    fingerprints = {role: split.fingerprint() for role, split in splits.items()}
    notes |= {"split_fingerprints": fingerprints, "label_map_sha256": files.sha256_json(label_names)}
    source = dataclasses.replace(
        fetched.source,
        splits={role: len(split) for role, split in splits.items()},
        fingerprint=files.sha256_json([fingerprints[role] for role in ("train", "validation", "test")] + label_names),
        notes=fetched.source.notes | notes,
    )
    languages = languages_of(fetched.languages, fetched.config)
    return Splits(splits["train"], splits["validation"], splits["test"], label_names, source, languages, notes)


# Columns and splits


def _pick_columns(
    tables: dict[str, Table], dataset: str, text: str | None, label: str | None, notes: dict[str, Any]
) -> tuple[str, str]:
    existing = list(dict.fromkeys(name for table in tables.values() for name in table.columns))
    picked = []
    for flag, given, usual in (("text", text, TEXT_COLUMNS), ("label", label, LABEL_COLUMNS)):
        found = given or next((name for name in usual if name in existing), None)
        if found not in existing:
            wanted = repr(given) if given else f"for the {flag}"
            shown = ", ".join(existing)
            raise InputError(f"{base_name(dataset)} has no column {wanted}: choose --{flag}-column from {shown}")
        picked.append(found)
        if given is None:
            notes[f"{flag}_column_guessed"] = found
    if picked[0] == picked[1]:
        raise InputError(f"--text-column and --label-column should differ, both are {picked[0]!r}")
    return str(picked[0]), str(picked[1])


def _rows_of(table: Table, split_name: str, text_column: str, label_column: str, drop_bad_texts: bool) -> _Rows:
    """Rows with a text and a label; everything else is counted, or refused if it is a bad text."""
    missing = [name for name in (text_column, label_column) if name not in table.columns]
    if missing == [label_column] and text_column in table.columns:
        return _no_rows(split_name, {"unlabelled": len(table)})
    if missing:
        raise InputError(f"split {split_name} has no column {missing[0]!r}: it has {', '.join(table.columns)}")
    raw_texts, raw_labels = table.columns[text_column], table.columns[label_column]
    is_class = label_column in table.class_names
    all_minus_one = len(table) > 0
    dropped: Counter[str] = Counter()
    kinds: dict[tuple[type, Any], int] = {}  # with the type: 1 and True are equal
    texts, rows, numbers = GrowingTexts(), arrays.Growing(np.int64), arrays.Growing(np.int32)
    for row, (raw_text, raw_label) in enumerate(zip(raw_texts, raw_labels, strict=True)):
        all_minus_one = all_minus_one and _is_minus_one(raw_label)
        text = clean_text(raw_text, text_column, split_name, row, dropped)
        label = _clean_label(raw_label, label_column, split_name, row)
        if bad := "blank_text" if not text.strip() else "megabyte_text" if len(text) >= LONGEST_TEXT else "":
            if not drop_bad_texts:
                raise bad_text(raw_texts, split_name, row, text, bad)
            dropped[bad] += 1
        elif label is None or (is_class and _is_minus_one(label)):
            dropped["unlabelled"] += 1
        else:
            texts.append(text)
            rows.add(row)
            numbers.add(kinds.setdefault((type(label), label), len(kinds)))
    split = Split(split_name, RowIds(split_name, rows.done()), texts.done())
    if all_minus_one:
        return _no_rows(split_name, dropped + Counter(unlabelled=len(split)))
    return _Rows(split, [label for _, label in kinds], numbers.done(), dict(dropped))


def _no_rows(split_name: str, dropped: Mapping[str, int]) -> _Rows:
    return _Rows(Split(split_name, [], []), [], np.zeros(0, dtype=np.int32), dict(dropped))


def _clean_label(value: Any, column: str, split_name: str, row: int) -> Any:
    """A string, integer or boolean; None where there is none."""
    if isinstance(value, float):
        if np.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    if isinstance(value, str):
        return value.strip() or None
    if value is None or isinstance(value, bool | int):
        return value
    raise InputError(
        f"column {column!r} should hold one label per row, as a string or an integer, found {type(value).__name__} "
        f"in {split_name} row {row}: choose another --label-column"
    )


def _is_minus_one(label: Any) -> bool:
    return isinstance(label, int) and label == -1


def _note_dropped(rows: dict[str, _Rows], notes: dict[str, Any]) -> None:
    for role, part in rows.items():
        for reason, count in part.dropped.items():
            kind = "num_repaired" if reason == "repaired_surrogates" else "num_dropped"
            notes.setdefault(kind, {})[f"{role}/{reason}"] = count


# Draws from train


def _fill_in(
    rows: dict[str, _Rows], dataset: str, chosen: dict[str, str], split_seed: int, notes: dict[str, Any]
) -> dict[str, _Rows]:
    """All three parts; those that the data set lacks are drawn from train, test before validation."""
    parts = dict(rows)
    if not len(parts["train"].split):
        raise InputError(f"{base_name(dataset)} should have rows with a text and a label to train on, found none")
    if "test" in parts and not len(parts["test"].split):
        if chosen["test"] != "test":
            raise InputError(f"split {chosen['test']!r} has no labelled rows: choose another --test-split")
        notes["test_split"] = f"no row of {chosen['test']} has a label; name another with --test-split"
        del parts["test"]
    if "validation" in parts and not len(parts["validation"].split):
        if chosen["validation"] not in VALIDATION_SPLITS:
            raise InputError(f"split {chosen['validation']!r} has no labelled rows: choose another --validation-split")
        notes["validation_split"] = f"no row of {chosen['validation']} has a label"
        del parts["validation"]
    for role, fraction in (("test", TEST_FRACTION), ("validation", VALIDATION_FRACTION)):
        if role not in parts:
            parts["train"], parts[role] = _draw(parts["train"], role, fraction, split_seed, dataset)
            said = f"{fraction:.0%} of {chosen['train']} stand in, stratified, split_seed {split_seed}"
            notes[f"{role}_split"] = f"{notes[f'{role}_split']}; {said}" if f"{role}_split" in notes else said
    return parts


def _draw(train: _Rows, role: str, fraction: float, split_seed: int, dataset: str) -> tuple[_Rows, _Rows]:
    """Train without the rows that are held back, and those rows; a text that occurs twice stays whole in train."""
    hashes = hashes_of(train.split.texts)
    candidates = np.flatnonzero(~among(hashes, repeated(hashes)))
    _, order = np.unique([str(kind) for kind in train.kinds], return_inverse=True)
    count = min(round(fraction * len(hashes)), len(candidates))
    taken = np.zeros(len(hashes), dtype=bool)
    labels = order.astype(np.int32)[train.numbers[candidates]]
    taken[candidates[stratified(labels, count, generator(split_seed, role))]] = True
    if not taken.any():
        raise InputError(
            f"{base_name(dataset)} should have enough rows to hold some back for {role}, found {len(taken)}: "
            "each class needs two different texts or more"
        )
    return train.take(np.flatnonzero(~taken)), train.take(np.flatnonzero(taken))


def _limit(split: Split, limit: int | None, split_seed: int) -> Split:
    """At most `limit` rows, each class with its share."""
    if limit is None or len(split) <= limit:
        return split
    dropped = stratified(split.class_labels, len(split) - limit, generator(split_seed, f"limit {split.name}"))
    return split.take(np.flatnonzero(~dropped))


# Labels


def _label_names(labels: list[Any], table: Table, column: str, dataset: str) -> dict[Any, str]:
    """Name of each of these labels, in the order in which they are numbered."""
    kinds = {type(label) for label in labels}
    if column in table.class_names:
        return dict(enumerate(table.class_names[column]))
    if len(kinds) > 1:
        shown = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"column {column!r} of {base_name(dataset)} should hold one kind of label, found {shown}")
    values = sorted(set(labels))
    described = _described(table, column, values)
    return {value: described.get(value, str(value)) for value in values}


def _described(table: Table, column: str, values: list[Any]) -> dict[Any, str]:
    """Names for integer labels from a column beside them such as `label_text`, if each has one name of its own."""
    beside = table.columns.get(f"{column}_text") or table.columns.get(f"{column}_name")
    if beside is None or not all(isinstance(value, int) for value in values):
        return {}
    pairs = {(label, str(text)) for label, text in zip(table.columns[column], beside, strict=True) if label in values}
    found = dict(pairs)
    return found if len(pairs) == len(found) == len(set(found.values())) else {}


def _number(part: _Rows, role: str, names: dict[Any, str], dataset: str, column: str) -> Split:
    index = {label: number for number, label in enumerate(names)}
    by_name = {name: number for number, name in enumerate(names.values())}
    numbers = [index.get(label, by_name.get(label) if isinstance(label, str) else None) for label in part.kinds]
    known = dict(zip(part.kinds, numbers, strict=True))
    if unknown := sorted({str(label) for label in part.present() if known[label] is None}):
        shown = ", ".join(unknown[:5])
        raise InputError(
            f"{role} of {base_name(dataset)} should only have labels that train has, found {shown} in column "
            f"{column!r}: add such rows to train or remove them"
        )
    labels = np.asarray([-1 if number is None else number for number in numbers], dtype=np.int64)
    return dataclasses.replace(part.split, name=role, labels=arrays.take(labels, part.numbers))


def _check_classes(splits: dict[str, Split], label_names: list[str]) -> None:
    present = {role: set(np.unique(split.class_labels).tolist()) for role, split in splits.items()}
    if len(present["train"]) < 2:
        only = ", ".join(label_names[i] for i in present["train"])
        raise InputError(f"train should have two classes or more, found only {only or 'none'}")
    for role in ("validation", "test"):
        if lacking := sorted(present[role] - present["train"]):
            shown = ", ".join(label_names[i] for i in lacking[:5])
            raise InputError(
                f"{role} should only have labels that train has, found {shown}: add such rows to train or remove them"
            )


def _note_missing_classes(splits: dict[str, Split], label_names: list[str], notes: dict[str, Any]) -> None:
    """Say which classes a split has no row of: what is measured there says nothing about them."""
    for role, split in splits.items():
        present = set(np.unique(split.class_labels).tolist())
        if missing := [name for number, name in enumerate(label_names) if number not in present]:
            notes.setdefault("classes_without_rows", {})[role] = missing
