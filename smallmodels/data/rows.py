"""From the rows of tables to train, validation and test, the same for every task: what is dropped, drawn and noted."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from smallmodels import arrays, files, memory, sources
from smallmodels.arrays import Ragged
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
    strata_of,
    stratified,
)
from smallmodels.data.labels import Kinds, classes_in, clean_label, is_minus_one
from smallmodels.data.languages import languages_of
from smallmodels.data.reading import LONGEST_TEXT, VALIDATION_SPLITS, bad_text, base_name, clean_text, require_columns
from smallmodels.data.splits import Labels, Split, Splits
from smallmodels.data.tables import Table
from smallmodels.errors import InputError
from smallmodels.phases import Context


@dataclass(frozen=True)
class Rows:
    """Texts of one split with labels that are not numbered yet; bad texts and unlabelled rows are left out."""

    split: Split
    """Its labels are indices into `kinds`, or scores where there are none."""
    kinds: list[Any]
    """Labels, each once."""
    dropped: dict[str, int]
    """Rows by reason, such as `blank_text`, and what was repaired."""

    @classmethod
    def of(cls, split: Split, labels: Labels, kinds: list[Any], dropped: Mapping[str, int]) -> "Rows":
        """With these labels; no rows where all are -1, which stands for none in test splits of the hub."""
        if len(split) and len(kinds) == 1 and is_minus_one(kinds[0]):
            return cls.none(split.name, Counter(dropped) + Counter(unlabelled=len(split)))
        return cls(dataclasses.replace(split, labels=labels), kinds, dict(dropped))

    @classmethod
    def none(cls, split_name: str, dropped: Mapping[str, int]) -> "Rows":
        """Of a split without labels."""
        return cls(Split(split_name, [], []), [], dict(dropped))

    def take(self, indices: npt.NDArray[np.int64]) -> "Rows":
        """These rows, in this order."""
        return dataclasses.replace(self, split=self.split.take(indices))

    def present(self) -> list[Any]:
        """The labels that a row has."""
        return [self.kinds[number] for number in classes_in(self.split.labels)]

    def strata(self) -> npt.NDArray[Any]:
        """Shape (num_rows,): what is drawn from in equal shares."""
        labels = self.split.labels
        assert labels is not None
        if not isinstance(labels, np.ndarray) or labels.dtype.kind == "f":
            return strata_of(labels)
        # By the names of classes, so that the order of rows decides nothing.
        _, order = np.unique([str(kind) for kind in self.kinds], return_inverse=True)
        return np.asarray(order.astype(np.int32)[labels])


def read_rows(
    table: Table,
    split_name: str,
    text_columns: Sequence[str],
    labels: Iterable[Any],
    *,
    clean: Callable[[Any, int], Any],
    add: Callable[[Any], None],
    drop_bad_texts: bool,
) -> tuple[Split, Counter[str]]:
    """One or two texts for each row with a label; everything else is counted, or refused if it is a bad text.

    Args:
        table: Of one split.
        split_name: Of that split.
        text_columns: Column of the texts, and of pairs that of the second ones.
        labels: What the table has for each row.
        clean: Takes that and the number of the row; gives a label, or None where there is none.
        add: Takes the label of each row that is kept.
        drop_bad_texts: Whether bad texts are counted.

    Returns: The split without labels, and counts by reason.
    """
    dropped: Counter[str] = Counter()
    growing, rows = [GrowingTexts() for _ in text_columns], arrays.Growing(np.int64)
    raw_columns = [table.columns[name] for name in text_columns]
    flags = ["text-column"] if len(text_columns) == 1 else ["first-column", "second-column"]
    for row, (raw_label, *raw_texts) in enumerate(zip(labels, *raw_columns, strict=True)):
        texts = [
            clean_text(raw, name, split_name, row, dropped, flag)
            for raw, name, flag in zip(raw_texts, text_columns, flags, strict=True)
        ]
        label = clean(raw_label, row)
        bad = next((i for i, text in enumerate(texts) if not text.strip() or len(text) >= LONGEST_TEXT), None)
        if bad is not None:
            reason = "megabyte_text" if texts[bad].strip() else "blank_text"
            if not drop_bad_texts:
                raise bad_text(raw_columns[bad], split_name, row, texts[bad], reason)
            dropped[reason] += 1
        elif label is None:
            dropped["unlabelled"] += 1
        else:
            for column, text in zip(growing, texts, strict=True):
                column.append(text)
            rows.add(row)
            add(label)
    columns = [column.done() for column in growing]
    split = Split(split_name, RowIds(split_name, rows.done()), columns[0])
    return (dataclasses.replace(split, seconds=columns[1]) if len(columns) > 1 else split), dropped


def read_classes(
    table: Table, split_name: str, text_columns: Sequence[str], label_column: str, drop_bad_texts: bool
) -> Rows:
    """Rows with one text or two and one label; a split without the column of the labels has none."""
    require_columns(table, split_name, text_columns)
    if label_column not in table.columns:
        return Rows.none(split_name, {"unlabelled": len(table)})
    is_class = label_column in table.class_names

    def clean(value: Any, row: int) -> Any:
        label = clean_label(value, label_column, split_name, row)
        return None if is_class and is_minus_one(label) else label

    kinds, numbers = Kinds(), arrays.Growing(np.int32)
    split, dropped = read_rows(
        table,
        split_name,
        text_columns,
        table.columns[label_column],
        clean=clean,
        add=lambda label: numbers.add(kinds.number(label)),
        drop_bad_texts=drop_bad_texts,
    )
    return Rows.of(split, numbers.done(), kinds.all(), dropped)


def note_dropped(rows: Mapping[str, Rows], notes: dict[str, Any]) -> None:
    """Say what was dropped and repaired."""
    for role, part in rows.items():
        for reason, count in part.dropped.items():
            kind = "num_repaired" if reason.startswith("repaired_") else "num_dropped"
            notes.setdefault(kind, {})[f"{role}/{reason}"] = count


# Draws from train


Draw: TypeAlias = Callable[[Rows, str, float, int, str], tuple[Rows, Rows]]
"""From train, a role, its share, a seed and the name of the data set: train without what is held back, and that."""


def draw_rows(train: Rows, role: str, fraction: float, split_seed: int, dataset: str) -> tuple[Rows, Rows]:
    """Train without the rows that are held back, and those rows; a text that occurs twice stays whole in train."""
    hashes = hashes_of(train.split.texts, train.split.seconds)
    candidates = np.flatnonzero(~among(hashes, repeated(hashes)))
    count = min(round(fraction * len(hashes)), len(candidates))
    taken = np.zeros(len(hashes), dtype=bool)
    taken[candidates[stratified(train.strata()[candidates], count, generator(split_seed, role))]] = True
    if not taken.any():
        raise InputError(
            f"{base_name(dataset)} should have enough rows to hold some back for {role}, found {len(taken)}: "
            "each class needs two different texts or more"
        )
    return train.take(np.flatnonzero(~taken)), train.take(np.flatnonzero(taken))


class SameRows:
    """`draw_rows` of the first of several languages, and the rows with the same numbers of all others.

    Which texts occur twice differs between languages, and so would draws of their own: a test would have rows whose
    translations are trained on. Rows that the first language lacks stay in train.
    """

    def __init__(self) -> None:
        self._held_back: dict[str, set[str]] = {}

    def __call__(self, train: Rows, role: str, fraction: float, split_seed: int, dataset: str) -> tuple[Rows, Rows]:
        """As `draw_rows`.

        Raises: As there; InputError if a language has none of the rows.
        """
        if role not in self._held_back:
            rest, drawn = draw_rows(train, role, fraction, split_seed, dataset)
            self._held_back[role] = set(drawn.split.ids[:])
            return rest, drawn
        wanted = self._held_back[role]
        taken = np.array([row in wanted for row in train.split.ids[:]], dtype=bool)
        if not taken.any():
            raise InputError(
                f"{base_name(dataset)} should have some of the {len(wanted):,} rows that are held back for {role} in "
                "the first language, found none: leave this language out"
            )
        return train.take(np.flatnonzero(~taken)), train.take(np.flatnonzero(taken))


def fill_in(
    rows: Mapping[str, Rows],
    dataset: str,
    chosen: dict[str, str],
    split_seed: int,
    notes: dict[str, Any],
    draw: Draw = draw_rows,
) -> dict[str, Rows]:
    """All three parts; those that the data set lacks are drawn from train, test before validation.

    Args:
        rows: By role; validation and test may be missing or empty.
        dataset: For messages.
        chosen: Name of the split of each role.
        split_seed: Of the draws.
        notes: Gets what stands in for what.
        draw: Of the rows that are held back; a `SameRows` for one data set in several languages.

    Raises: InputError if there is nothing to train on, too little to draw from, or a split that was asked for is empty.
    """
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
            parts["train"], parts[role] = draw(parts["train"], role, fraction, split_seed, dataset)
            said = f"{fraction:.0%} of {chosen['train']} stand in, stratified, split_seed {split_seed}"
            notes[f"{role}_split"] = f"{notes[f'{role}_split']}; {said}" if f"{role}_split" in notes else said
    return parts


# Numbers for labels


def number_classes(part: Rows, role: str, names: Mapping[Any, str], dataset: str, column: str) -> Split:
    """The part's split, named after its role, its labels numbered as `names` are.

    Raises: InputError if a row has a label that is not among them.
    """
    index = {label: number for number, label in enumerate(names)}
    by_name = {name: number for number, name in enumerate(names.values())}
    numbers = [index.get(label, by_name.get(label) if isinstance(label, str) else None) for label in part.kinds]
    labels = part.split.labels
    assert labels is not None
    unknown = [number for number in classes_in(labels) if numbers[number] is None]
    if unknown:
        shown = ", ".join(sorted(str(part.kinds[number]) for number in unknown)[:5])
        raise InputError(
            f"{role} of {base_name(dataset)} should only have labels that train has, found {shown} in column "
            f"{column!r} ({_first_row(part.split, unknown)} is the first row): add such rows to train or remove them"
        )
    new = np.asarray([-1 if number is None else number for number in numbers], dtype=np.int64)
    if isinstance(labels, Ragged):
        return dataclasses.replace(
            part.split, name=role, labels=Ragged(arrays.take(new, labels.values), labels.offsets)
        )
    return dataclasses.replace(part.split, name=role, labels=arrays.take(new, labels))


def _first_row(split: Split, numbers: Sequence[int]) -> str:
    """Name of the first row with one of these labels, such as `test/17`."""
    labels = split.labels
    if isinstance(labels, Ragged):
        place = np.flatnonzero(np.isin(labels.values, numbers))[0]
        return split.ids[int(np.searchsorted(labels.offsets, place, side="right")) - 1]
    assert labels is not None
    return split.ids[int(np.flatnonzero(np.isin(labels, numbers))[0])]


# The end of every loader


def make_splits(
    splits: dict[str, Split],
    label_names: list[str],
    fetched: sources.DatasetFiles,
    notes: dict[str, Any],
    *,
    drop_overlap: bool,
    max_train: int | None,
    max_test: int | None,
    split_seed: int,
    check: Callable[[dict[str, Split], list[str]], None],
    context: Context,
) -> Splits:
    """Count overlap, cut to the limits, and say what the data are.

    Args:
        splits: By role, labels numbered.
        label_names: Empty where labels are scores.
        fetched: Where the rows came from.
        notes: What was noted so far.
        drop_overlap: Whether rows of train that also stand in validation or test are dropped.
        max_train: At most so many rows of train, each stratum with its share; None is all.
        max_test: At most so many rows of test, likewise.
        split_seed: Of those draws.
        check: Refuses what cannot be trained on.
        context: Of the phase, in whose folder the identity of the data is noted.
    """
    splits["train"] = note_overlap(splits, drop_overlap, notes)
    splits["train"] = limit_rows(splits["train"], max_train, split_seed)
    splits["test"] = limit_rows(splits["test"], max_test, split_seed)
    check(splits, label_names)
    _note_missing_classes(splits, label_names, notes)
    done = finish(splits, label_names, fetched, notes)
    identity.require_same(fetched.source.name, str(done.source.fingerprint), label_names, context)
    memory.give_back()  # of sorted copies, which the C library would keep for later
    return done


def limit_rows(split: Split, limit: int | None, split_seed: int) -> Split:
    """At most `limit` rows, each class with its share."""
    if limit is None or len(split) <= limit:
        return split
    assert split.labels is not None
    strata = strata_of(split.labels)
    return split.take(
        np.flatnonzero(~stratified(strata, len(split) - limit, generator(split_seed, f"limit {split.name}")))
    )


def _note_missing_classes(splits: dict[str, Split], label_names: list[str], notes: dict[str, Any]) -> None:
    """Say which classes a split has no row of: what is measured there says nothing about them."""
    for role, split in splits.items():
        present = set(classes_in(split.labels).tolist())
        if missing := [name for number, name in enumerate(label_names) if number not in present]:
            notes.setdefault("classes_without_rows", {})[role] = missing


def finish(
    splits: dict[str, Split], label_names: list[str], fetched: sources.DatasetFiles, notes: dict[str, Any]
) -> Splits:
    """The three splits with their fingerprints, languages and source."""
    fingerprints = {role: split.fingerprint() for role, split in splits.items()}
    notes["split_fingerprints"] = fingerprints
    if label_names:
        notes["label_map_sha256"] = files.sha256_json(label_names)
    source = dataclasses.replace(
        fetched.source,
        splits={role: len(split) for role, split in splits.items()},
        fingerprint=files.sha256_json([fingerprints[role] for role in ("train", "validation", "test")] + label_names),
        notes=fetched.source.notes | notes,
    )
    languages = languages_of(fetched.languages, fetched.config)
    return Splits(splits["train"], splits["validation"], splits["test"], label_names, source, languages, notes)
