"""Texts for embedders: sentences of any columns, queries with their documents, sentences with their translations.

None of them needs a label: what they are to learn, a teacher says.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import arrays, files, records, sources
from smallmodels.data import identity
from smallmodels.data.columns import GrowingTexts, RowIds
from smallmodels.data.drawing import (
    TEST_FRACTION,
    VALIDATION_FRACTION,
    among,
    generator,
    hashes_of,
    note_overlap,
    require_limits,
)
from smallmodels.data.languages import bitexts_by_language, in_language, languages_of
from smallmodels.data.reading import LONGEST_TEXT, bad_text, base_name, clean_text, open_tables, pick_splits
from smallmodels.data.rows import SameRows
from smallmodels.data.splits import RetrievalSplit, RetrievalSplits, Split, Splits
from smallmodels.data.tables import Table
from smallmodels.data.text_pairs import load_text_pairs
from smallmodels.errors import InputError, flags_named
from smallmodels.phases import NO_CONTEXT, Context


@dataclass(frozen=True)
class Sentences:
    """Texts to learn to embed, each once, and where they came from."""

    train: Split
    source: records.Source
    languages: list[str] = field(default_factory=list)


def load_sentences(
    dataset: str,
    *,
    config: str | None = None,
    text_columns: Sequence[str] = ("text",),
    train_split: str = "train",
    split_seed: int = 0,
    held_out: Sequence[str] = (),
    drop_overlap: bool = False,
    drop_bad_texts: bool = False,
    max_train: int | None = None,
    context: Context = NO_CONTEXT,
) -> Sentences:
    """Bring a data set to disk and make one list of the texts of some of its columns.

    Args:
        dataset: `org/name`, `org/name@revision`, a local CSV, JSON Lines or Parquet file, or a folder of text files.
        config: Configuration of a hub data set that has several.
        text_columns: Columns, each of whose values is a text of its own.
        train_split: Name of the split that is read.
        split_seed: Seed of the draw where `max_train` leaves some out.
        held_out: Texts of tests, whose overlap with these is counted.
        drop_overlap: Whether such texts are dropped.
        drop_bad_texts: Whether texts that are empty, null or a megabyte long are dropped and counted; they are refused
            otherwise.
        max_train: At most so many texts; None is all.
        context: Of the phase, in whose folder the identity of the data is noted.

    Raises: InputError in one sentence for whatever cannot be trained on.
    """
    if not text_columns:
        raise InputError("text_columns must name one column or more, got none")
    require_limits(1, max_train=max_train)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {"text_columns": list(text_columns)}
    with open_tables(fetched, context.folder) as tables:
        table = _table(tables, train_split, dataset)
        parts, dropped = zip(
            *(_column(table, name, train_split, dataset, drop_bad_texts, "text-columns") for name in text_columns),
            strict=True,
        )
    if counts := sum(dropped, Counter[str]()):
        notes["num_dropped"] = {f"train/{reason}": count for reason, count in counts.items()}
    texts = [text for part in parts for text in part.texts]
    ids = [f"train/{row}/{name}" for name, part in zip(text_columns, parts, strict=True) for row in part.rows]
    train = _each_once(Split("train", ids, texts), held_out, drop_overlap, notes)
    if max_train is not None and len(train) > max_train:
        order = generator(split_seed, "limit train").permutation(len(train))
        train = train.take(np.sort(order[:max_train]))
    if not len(train):
        raise InputError(f"{base_name(dataset)} should have texts to train on, found none: choose other columns")
    source = _source(fetched.source, {"train": train}, notes)
    identity.require_same(base_name(dataset), str(source.fingerprint), [], context)
    return Sentences(train, source, languages_of(fetched.languages, fetched.config))


@dataclass(frozen=True)
class _Column:
    """The texts of a column, and the rows that they stand in."""

    texts: Sequence[str]
    rows: npt.NDArray[np.int64]


def _table(tables: Mapping[str, Table], name: str, dataset: str) -> Table:
    if name not in tables:
        raise InputError(f"{base_name(dataset)} has no split {name!r}: choose --train-split from {', '.join(tables)}")
    return tables[name]


def _column(
    table: Table, name: str, split_name: str, dataset: str, drop_bad_texts: bool, flag: str
) -> tuple[_Column, Counter[str]]:
    """Of each row the text, bad ones left out and counted, or refused."""
    if name not in table.columns:
        raise InputError(
            f"{base_name(dataset)} has no column {name!r}: choose --{flag} from {', '.join(table.columns)}"
        )
    texts, rows, dropped = GrowingTexts(), arrays.Growing(np.int64), Counter[str]()
    for row, value in enumerate(table.columns[name]):
        text = clean_text(value, name, split_name, row, dropped, flag)
        if bad := "blank_text" if not text.strip() else "megabyte_text" if len(text) >= LONGEST_TEXT else "":
            if not drop_bad_texts:
                raise bad_text(table.columns[name], split_name, row, text, bad)
            dropped[bad] += 1
            continue
        texts.append(text)
        rows.add(row)
    return _Column(texts.done(), rows.done()), dropped


def _each_once(split: Split, held_out: Sequence[str], drop_overlap: bool, notes: dict[str, Any]) -> Split:
    """The first of equal texts; those that also stand in a test are counted, and left out if asked."""
    hashes = hashes_of(split.texts)
    _, first = np.unique(hashes, return_index=True)
    kept = np.sort(first)
    notes["num_duplicates_dropped"] = len(hashes) - len(kept)
    overlap = among(hashes[kept], np.unique(hashes_of(held_out)))
    notes["overlap"] = {"train/held out": int(overlap.sum())}
    if not drop_overlap:
        return split.take(kept)
    notes["num_overlap_dropped_from_train"] = int(overlap.sum())
    return split.take(kept[~overlap])


def _source(
    source: records.Source, splits: Mapping[str, Split | RetrievalSplit], notes: dict[str, Any]
) -> records.Source:
    fingerprints = {role: split.fingerprint() for role, split in splits.items()}
    return dataclasses.replace(
        source,
        splits={role: len(split) for role, split in splits.items()},
        fingerprint=files.sha256_json(list(fingerprints.values())),
        notes=source.notes | notes | {"split_fingerprints": fingerprints},
    )


# Queries and documents


def load_search_pairs(
    dataset: str,
    *,
    config: str | None = None,
    query_column: str,
    document_column: str,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str = "test",
    split_seed: int = 0,
    held_out: Sequence[str] = (),
    drop_overlap: bool = False,
    drop_bad_texts: bool = False,
    max_train: int | None = None,
    max_test: int | None = 2000,
    context: Context = NO_CONTEXT,
) -> RetrievalSplits:
    """Bring a data set of queries with their documents to disk, to train on all texts and to search in some.

    A query that occurs twice keeps its first document, since a search counts one. Where splits are missing, a fifth of
    the documents of train stand in for test and a tenth for validation, each with all its queries.

    Args:
        dataset: `org/name`, `org/name@revision`, or a local CSV, JSON Lines or Parquet file.
        config: Configuration of a hub data set that has several.
        query_column: Column with the queries, such as questions or titles.
        document_column: Column with what answers them.
        train_split: Name of the split to train on.
        validation_split: Name of the split to choose on; None takes `validation` or `dev`, else a tenth of train.
        test_split: Name of the split to test on.
        split_seed: Seed of every draw.
        held_out: Texts of other tests, whose overlap with the texts to train on is counted.
        drop_overlap: Whether texts to train on are dropped that also stand there, or in validation or test.
        drop_bad_texts: Whether rows with a text that is empty, null or a megabyte long are dropped and counted; they
            are refused otherwise.
        max_train: At most so many pairs of train; None is all.
        max_test: At most so many queries of validation and of test, with the documents of these alone.
        context: Of the phase, in whose folder the identity of the data is noted.

    Raises: InputError in one sentence for whatever cannot be trained on.
    """
    require_limits(1, max_train=max_train, max_test=max_test)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {"query_column": query_column, "document_column": document_column}
    with open_tables(fetched, context.folder) as tables:
        chosen = pick_splits(tables, dataset, train_split, validation_split, test_split)
        pairs = {
            role: _search_pairs(tables[name], role, dataset, query_column, document_column, drop_bad_texts, notes)
            for role, name in chosen.items()
        }
    for role, fraction in (("test", TEST_FRACTION), ("validation", VALIDATION_FRACTION)):
        if role not in pairs:
            pairs["train"], pairs[role] = _hold_back(pairs["train"], role, fraction, split_seed, dataset)
            notes[f"{role}_split"] = f"{fraction:.0%} of the documents of {chosen['train']}, split_seed {split_seed}"
    limits = {"train": max_train, "validation": max_test, "test": max_test}
    pairs = {role: _limit_pairs(split, limits[role], split_seed) for role, split in pairs.items()}
    validation, test = (_search_task(pairs[role]) for role in ("validation", "test"))
    of_tests = [text for task in (validation, test) for text in (*task.queries.texts, *task.documents.texts)]
    train = _texts_of_pairs(pairs["train"], [*held_out, *of_tests], drop_overlap, notes)
    if not len(train):
        raise InputError(f"{base_name(dataset)} should have texts that no test has, found none: choose other data")
    corpus = _join_documents([pairs[role] for role in ("train", "validation", "test")])
    source = _source(fetched.source, {"train": train, "validation": validation, "test": test}, notes)
    identity.require_same(base_name(dataset), str(source.fingerprint), [], context)
    languages = languages_of(fetched.languages, fetched.config)
    return RetrievalSplits(train, validation, test, corpus, source, languages, notes)


def _search_pairs(
    table: Table,
    role: str,
    dataset: str,
    query_column: str,
    document_column: str,
    drop_bad_texts: bool,
    notes: dict[str, Any],
) -> Split:
    """Rows with two good texts, the first of each query; documents are the second texts."""
    (queries, bad_queries), (documents, bad_documents) = (
        _column(table, name, role, dataset, drop_bad_texts, flag)
        for name, flag in ((query_column, "query-column"), (document_column, "document-column"))
    )
    if counts := bad_queries + bad_documents:
        notes.setdefault("num_dropped", {}).update({f"{role}/{reason}": n for reason, n in counts.items()})
    rows, in_queries, in_documents = np.intersect1d(queries.rows, documents.rows, return_indices=True)
    found = Split(
        role,
        RowIds(role, rows),
        [queries.texts[i] for i in in_queries],
        seconds=[documents.texts[i] for i in in_documents],
    )
    _, first = np.unique(hashes_of(found.texts), return_index=True)
    notes.setdefault("num_duplicate_queries_dropped", {})[role] = len(found) - len(first)
    return found.take(np.sort(first))


def _hold_back(
    train: Split, role: str, fraction: float, split_seed: int, dataset: str, what: str = "documents"
) -> tuple[Split, Split]:
    """Pairs whose second texts stay in train, and the others: no document, or no original, is on both sides."""
    assert train.seconds is not None
    kinds, document = np.unique(hashes_of(train.seconds), return_inverse=True)
    count = round(fraction * len(kinds))
    if not 0 < count < len(kinds):
        raise InputError(
            f"{base_name(dataset)} should have enough {what} to hold some back for {role}, found {len(kinds)}: "
            "choose a --dataset with more"
        )
    held = np.isin(document, generator(split_seed, role).permutation(len(kinds))[:count])
    return train.take(np.flatnonzero(~held)), dataclasses.replace(train.take(np.flatnonzero(held)), name=role)


def _limit_pairs(split: Split, limit: int | None, split_seed: int) -> Split:
    if limit is None or len(split) <= limit:
        return split
    return split.take(np.sort(generator(split_seed, f"limit {split.name}").permutation(len(split))[:limit]))


def _search_task(pairs: Split) -> RetrievalSplit:
    assert pairs.seconds is not None
    _, first, number = np.unique(hashes_of(pairs.seconds), return_index=True, return_inverse=True)
    documents = Split(pairs.name, [f"{pairs.ids[i]}/document" for i in first], [pairs.seconds[i] for i in first])
    queries = dataclasses.replace(pairs, seconds=None)
    return RetrievalSplit(pairs.name, queries, documents, np.asarray(number, dtype=np.int64).reshape(-1))


def _texts_of_pairs(pairs: Split, held_out: Sequence[str], drop_overlap: bool, notes: dict[str, Any]) -> Split:
    """Queries and documents as texts, as `_each_once` leaves them."""
    assert pairs.seconds is not None
    ids = [*(f"{row}/query" for row in pairs.ids), *(f"{row}/document" for row in pairs.ids)]
    return _each_once(Split("train", ids, [*pairs.texts, *pairs.seconds]), held_out, drop_overlap, notes)


def _join_documents(parts: Sequence[Split]) -> Split:
    ids = [f"{row}/document" for part in parts for row in part.ids]
    texts = [text for part in parts for text in part.seconds or ()]
    return _each_once(Split("corpus", ids, texts), (), False, {})


# Translations

_BITEXT_COLUMNS = ("sentence1", "sentence2")


def sentences_of(pairs: Split) -> Split:
    """Both texts of each pair, as texts of their own: the first ones, then the second ones; texts stay as they are."""
    if pairs.seconds is None:
        return pairs
    ids = [f"{row}/{place}" for place in (1, 2) for row in pairs.ids]
    return Split(pairs.name, ids, [*pairs.texts, *pairs.seconds])


def with_originals_rows(translated: Mapping[str, Split], originals: Split) -> Split:
    """The sentences of all languages, each with what the teacher says of its original.

    Args:
        translated: By language, as `load_translated_pairs` or `load_translations` give them: the same rows in all.
        originals: `sentences_of` those in the teacher's language, with its rows.
    """
    parts = {language: sentences_of(split) for language, split in translated.items()}
    assert isinstance(originals.teacher, np.ndarray), "rows of whole texts"
    assert {len(part) for part in parts.values()} == {len(originals)}, "the same rows in all languages"
    ids = [f"{language}/{row}" for language, part in parts.items() for row in part.ids]
    texts = [text for part in parts.values() for text in part.texts]
    return Split(originals.name, ids, texts, teacher=np.concatenate([originals.teacher] * len(parts)))


def join_splits(splits: Iterable[Split]) -> Split:
    """The examples of all splits as one; they have the same columns."""
    return functools.reduce(Split.join, splits)


_NO_FLAGS: dict[str, str | None] = {
    f"--{name}": None
    for name in (
        *("first-column", "second-column", "label-column", "text-column", "regression", "drop-bad-texts"),
        *("train-split", "validation-split", "test-split"),
    )
}
"""Of `load_text_pairs`, where pairs only test and so have no flags of their own."""


def load_similarity_pairs(
    dataset: str,
    *,
    config: str | None = None,
    context: Context = NO_CONTEXT,
    **options: Any,
) -> Splits:
    """`load_text_pairs` with scores, for a recipe whose own data may be others: errors name its similarity flags.

    Args: As there; options are its `split_seed`, `drop_overlap`, `max_train` and `max_test`.
    """
    names = {**_NO_FLAGS, "--dataset-config": "--similarity-config"}
    with flags_named(names, "choose another --similarity-dataset"):
        return load_text_pairs(dataset, config=config, regression=True, context=context, **options)


_OTHER_PAIRS = "choose another --dataset or other --languages, or name --text-columns if there are no scores"


def load_translated_pairs(
    dataset: str,
    languages: Sequence[str],
    *,
    max_rows: int | None = None,
    otherwise: str = _OTHER_PAIRS,
    context: Context = NO_CONTEXT,
    **options: Any,
) -> dict[str, Splits]:
    """The same scored pairs in several languages, each a configuration of one data set.

    Args:
        dataset: `org/name`, `org/name@revision`, or local files with `{language}` in their path.
        languages: Configurations, or what stands in the place of `{language}`; the original language first.
        max_rows: At most so many rows of each split, the same ones in all languages; None is all.
        otherwise: What to do where these data will not do, for errors.
        context: Of the phase.
        options: Of `load_text_pairs`.

    Returns: Splits by language; row i of a split is a translation of row i of the same split in the others.

    Raises: InputError if rows or scores differ between two languages, so that they are no translations row by row.
    """
    places, draw = {language: in_language(dataset, language) for language in languages}, SameRows()
    with flags_named({**_NO_FLAGS, "--dataset-config": "--languages"}, otherwise):
        found = {
            language: load_text_pairs(name, config=config, regression=True, draw=draw, **options)
            for language, (name, config) in places.items()
        }
    original = languages[0]
    for language, splits in found.items():
        for role in ("train", "validation", "test"):
            split, other = getattr(splits, role), getattr(found[original], role)
            _require_same_rows(dataset, role, language, split, original, other)
            _require_same_scores(dataset, language, split, original, other)
    cut = {language: _first_rows(splits, max_rows) for language, splits in found.items()}
    _require_same_data(dataset, cut, context)
    return cut


def load_translations(
    dataset: str,
    languages: Sequence[str],
    *,
    text_columns: Sequence[str],
    held_out: Sequence[str] = (),
    split_seed: int = 0,
    max_rows: int | None = None,
    context: Context = NO_CONTEXT,
) -> dict[str, Splits]:
    """The same texts in several languages, without scores.

    Where splits are missing, a fifth of the originals of train stand in for test and a tenth for validation, the same
    ones in all languages. Bad texts are refused, since leaving out rows would part translations from their originals.

    Args:
        dataset: `org/name`, `org/name@revision`, or local files with `{language}` in their path.
        languages: Configurations, or what stands in the place of `{language}`; the original language first.
        text_columns: Columns, each of whose values is a text of its own.
        held_out: Originals of other tests, whose overlap with those of train is counted.
        split_seed: Of the draws.
        max_rows: At most so many texts of each split, the same ones in all languages; None is all.
        context: Of the phase.

    Returns: Splits by language; text i of a split is a translation of text i of the same split in the others. Those of
        validation and test have their original as their second text.

    Raises: InputError if splits or rows differ between two languages, so that they are no translations row by row.
    """
    require_limits(1, max_rows=max_rows)
    original = languages[0]
    found: dict[str, tuple[sources.DatasetFiles, dict[str, Split]]] = {}
    with flags_named({**_NO_FLAGS, "--dataset-config": "--languages"}, "choose another --dataset or other --languages"):
        for language in languages:
            found[language] = _texts_by_role(*in_language(dataset, language), text_columns, context)
    of_original = found[original][1]
    made: dict[str, Splits] = {}
    for language, (fetched, parts) in found.items():
        if parts.keys() != of_original.keys():
            raise InputError(
                f"{base_name(dataset)} should have the same splits in every language, but has {', '.join(of_original)} "
                f"in {original} and {', '.join(parts)} in {language}: choose other languages"
            )
        for role, split in parts.items():
            _require_same_rows(dataset, role, language, split, original, of_original[role])
        paired = {role: dataclasses.replace(part, seconds=of_original[role].texts) for role, part in parts.items()}
        made[language] = _held_back(dataset, language, fetched, paired, held_out, split_seed, max_rows)
    _require_same_data(dataset, made, context)
    return made


def _texts_by_role(
    name: str, config: str | None, text_columns: Sequence[str], context: Context
) -> tuple[sources.DatasetFiles, dict[str, Split]]:
    """The texts of all columns, one column after the other, of each split that is there."""
    fetched = sources.fetch_dataset(name, config=config)
    parts: dict[str, Split] = {}
    with open_tables(fetched, context.folder) as tables:
        for role, split_name in pick_splits(tables, name, "train", None, "test").items():
            table = tables[split_name]
            columns = {c: _column(table, c, split_name, name, False, "text-columns")[0] for c in text_columns}
            ids = [f"{role}/{row}/{c}" for c, column in columns.items() for row in column.rows]
            parts[role] = Split(role, ids, [text for column in columns.values() for text in column.texts])
    return fetched, parts


def _held_back(
    dataset: str,
    language: str,
    fetched: sources.DatasetFiles,
    parts: dict[str, Split],
    held_out: Sequence[str],
    split_seed: int,
    max_rows: int | None,
) -> Splits:
    """Splits of one language, of texts with their originals; which are held back depends on the originals alone."""
    notes: dict[str, Any] = {}
    for role, fraction in (("test", TEST_FRACTION), ("validation", VALIDATION_FRACTION)):
        if role not in parts:
            parts["train"], parts[role] = _hold_back(parts["train"], role, fraction, split_seed, dataset, "texts")
            notes[f"{role}_split"] = f"{fraction:.0%} of the originals of train, split_seed {split_seed}"
    parts = {role: part if max_rows is None else part.first(max_rows) for role, part in parts.items()}
    tests = [text for role in ("validation", "test") for text in parts[role].seconds or ()]
    overlap = among(hashes_of(parts["train"].seconds or ()), np.unique(hashes_of([*held_out, *tests])))
    notes["overlap"] = {"train/held out": int(overlap.sum())}
    parts["train"] = dataclasses.replace(parts["train"], seconds=None)
    source = _source(fetched.source, {role: parts[role] for role in ("train", "validation", "test")}, notes)
    codes = languages_of(fetched.languages, fetched.config) or languages_of([], language)
    return Splits(parts["train"], parts["validation"], parts["test"], [], source, codes, notes)


def _require_same_data(dataset: str, found: Mapping[str, Splits], context: Context) -> None:
    """Refuse other rows than those that the run began with."""
    fingerprint = files.sha256_json({language: splits.source.fingerprint for language, splits in found.items()})
    identity.require_same(base_name(dataset), fingerprint, [], context)


def _require_same_rows(dataset: str, role: str, language: str, split: Split, original: str, other: Split) -> None:
    if len(split) != len(other):
        raise InputError(
            f"{base_name(dataset)} should have the same rows in every language, but {role} has {len(other):,} in "
            f"{original} and {len(split):,} in {language}: choose other languages"
        )
    rows = enumerate(zip(split.ids, other.ids, strict=True))
    different = next((place for place, (one, two) in rows if one != two), None)
    if different is not None:
        raise InputError(
            f"{base_name(dataset)} should have the same rows in every language, but number "
            f"{different + 1:,} of {role} is {other.ids[different]} in {original} and {split.ids[different]} in "
            f"{language}: give every row its texts and its score in both, or choose other languages"
        )


def _require_same_scores(dataset: str, language: str, split: Split, original: str, other: Split) -> None:
    assert isinstance(split.labels, np.ndarray)
    assert isinstance(other.labels, np.ndarray)
    if len(different := np.flatnonzero(split.labels != other.labels)):
        row = int(different[0])
        raise InputError(
            f"{base_name(dataset)} should have the same scores in every language, but {split.ids[row]} has "
            f"{other.labels[row]:g} in {original} and {split.labels[row]:g} in {language}: choose other languages"
        )


def _first_rows(splits: Splits, count: int | None) -> Splits:
    if count is None:
        return splits
    parts = {part.name: part.first(count) for part in (splits.train, splits.validation, splits.test)}
    notes = dict(splits.notes)
    note_overlap(parts, False, notes)
    source = _source(splits.source, parts, notes)
    train, validation, test = parts.values()
    return dataclasses.replace(splits, train=train, validation=validation, test=test, source=source, notes=source.notes)


def load_bitexts(
    dataset: str,
    configs: Sequence[str],
    languages: Sequence[str],
    *,
    split: str = "test",
    max_rows: int | None = None,
    context: Context = NO_CONTEXT,
) -> dict[str, tuple[Split, records.Source]]:
    """Sentences with their translations into English, which only test.

    Args:
        dataset: `org/name`, `org/name@revision`, with columns `sentence1` and `sentence2`, the latter in English.
        configs: Its configurations, named after the language that is not English: `deu-eng`.
        languages: Those that are wanted; configurations of others are left out.
        split: Name of the split.
        max_rows: At most so many pairs of each language; None is all.
        context: Of the phase.

    Returns: By language pairs, the English sentence second, and where they came from; languages without a configuration
        are left out.

    Raises: InputError for a configuration that is named after no known language.
    """
    wanted = bitexts_by_language(configs, languages)
    names = {"--dataset-config": "--bitexts", "--bitext-column": None, "--drop-bad-texts": None, "--text-column": None}
    with flags_named(names, "choose another --bitext-dataset"):
        return {language: _bitext(dataset, config, split, max_rows, context) for language, config in wanted.items()}


def _bitext(
    dataset: str, config: str, split_name: str, max_rows: int | None, context: Context
) -> tuple[Split, records.Source]:
    fetched = sources.fetch_dataset(dataset, config=config, role="evaluation")
    with open_tables(fetched, context.folder) as tables:
        if split_name not in tables:
            raise InputError(f"{base_name(dataset)} has no split {split_name!r}, only {', '.join(tables)}")
        table = tables[split_name]
        one, two = (_column(table, name, split_name, dataset, False, "bitext-column")[0] for name in _BITEXT_COLUMNS)
    rows = one.rows[:max_rows]
    pairs = Split(split_name, RowIds(split_name, rows), one.texts[: len(rows)], seconds=two.texts[: len(rows)])
    return pairs, _source(fetched.source, {split_name: pairs}, {})
