"""Texts without labels, for language models: from a hub data set or a local file, cut into rows of tokens.

What is missing is made from train and said so: validation and test, a tenth each. A text that occurs twice stays whole
in train.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smallmodels import arrays, memory, sources
from smallmodels.data import identity
from smallmodels.data.columns import GrowingTexts, RowIds
from smallmodels.data.drawing import (
    VALIDATION_FRACTION,
    among,
    generator,
    hashes_of,
    note_overlap,
    repeated,
    require_limits,
)
from smallmodels.data.reading import LONGEST_TEXT, bad_text, base_name, clean_text, open_tables, pick_splits
from smallmodels.data.rows import finish
from smallmodels.data.splits import Split, Splits, Tokens, tokenizer_sha256
from smallmodels.data.tables import Table
from smallmodels.errors import InputError, require
from smallmodels.phases import NO_CONTEXT, Context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS_PER_CALL = 200
"""Texts given to the tokenizer at once; they are long."""


def load_texts(
    dataset: str,
    *,
    config: str | None = None,
    text_columns: Sequence[str] = ("text",),
    completion_column: str | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str = "test",
    split_seed: int = 0,
    drop_overlap: bool = False,
    drop_bad_texts: bool = False,
    max_train: int | None = None,
    max_validation: int | None = None,
    max_test: int | None = None,
    context: Context = NO_CONTEXT,
) -> Splits:
    """Bring a data set to disk and make train, validation and test of its texts.

    Args:
        dataset: `org/name`, `org/name@revision`, a local CSV, JSON Lines or Parquet file, or a folder of text files
            (columns `file` and `text`, one row for each).
        config: Configuration of a hub data set that has several.
        text_columns: Columns whose texts make up one text, a line break between them.
        completion_column: Column with what belongs after each text, which is a prompt then; None where there is none.
        train_split: Name of the split to train on.
        validation_split: Name of the split to choose on; None takes `validation` or `dev`, else a tenth of train.
        test_split: Name of the split to test on; a tenth of train where there is no `test`.
        split_seed: Seed of every such draw.
        drop_overlap: Whether rows of train whose text also stands in validation or test are dropped.
        drop_bad_texts: Whether rows in which a column is empty, null or a megabyte long are dropped and counted; they
            are refused otherwise.
        max_train: At most so many texts of train; None is all.
        max_validation: At most so many texts of validation; as many as of test if None.
        max_test: At most so many texts of test; None is all.
        context: Of the phase, in whose folder data sets are unpacked and the identity of the data is noted.

    Returns: Splits without labels, whose `notes` say what was dropped, drawn, how many texts stand in two splits, and
        how many a split had before a limit left some out.

    Raises: InputError in one sentence for whatever cannot be trained on.
    """
    if not text_columns:
        raise InputError("text_columns must name one column or more, got none")
    require_limits(1, max_train=max_train, max_validation=max_validation, max_test=max_test)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {"text_columns": list(text_columns)}
    if completion_column is not None:
        notes["completion_column"] = completion_column
    with open_tables(fetched, context.folder) as tables:
        chosen = pick_splits(tables, dataset, train_split, validation_split, test_split)
        splits = {}
        for role, name in chosen.items():
            split, dropped = _texts_of(tables[name], name, dataset, text_columns, completion_column, drop_bad_texts)
            splits[role] = dataclasses.replace(split, name=role)
            for reason, count in dropped.items():
                notes.setdefault("num_dropped", {})[f"{role}/{reason}"] = count
    for role in ("test", "validation"):
        if role not in splits:
            splits["train"], splits[role] = _draw(splits["train"], role, split_seed, dataset)
            said = f"{VALIDATION_FRACTION:.0%} of {chosen['train']} stand in, split_seed {split_seed}"
            notes[f"{role}_split"] = said
    splits["train"] = note_overlap(splits, drop_overlap, notes)
    limits = {"train": max_train, "validation": max_validation or max_test, "test": max_test}
    whole = {role: len(split) for role, split in splits.items()}
    splits = {role: _limit(split, limits[role], split_seed) for role, split in splits.items()}
    if left_out := {role: count for role, count in whole.items() if count > len(splits[role])}:
        notes["num_before_limit"] = left_out
    done = finish(splits, [], fetched, notes)
    identity.require_same(base_name(dataset), str(done.source.fingerprint), [], context)
    memory.give_back()
    return done


def tested_in_part(splits: Splits) -> list[str]:
    """What the limits of a record have to say of a test split of which a part is tested; nothing where all of it is."""
    whole = splits.notes.get("num_before_limit", {}).get("test")
    if whole is None:
        return []
    return [
        f"Tested on {len(splits.test):,} of the {whole:,} texts of the test split, drawn by a seed: --max-test None "
        "takes all of them."
    ]


def _texts_of(
    table: Table,
    split_name: str,
    dataset: str,
    text_columns: Sequence[str],
    completion_column: str | None,
    drop_bad_texts: bool,
) -> tuple[Split, Counter[str]]:
    """The texts of a split, and how many rows were left out for which reason."""
    columns = [*text_columns, *([completion_column] if completion_column else [])]
    flags = dict.fromkeys(text_columns, "prompt-column" if completion_column else "text-columns")
    if completion_column:
        flags[completion_column] = "completion-column"
    if missing := [name for name in columns if name not in table.columns]:
        flag, shown = flags[missing[0]], ", ".join(table.columns)
        raise InputError(f"{base_name(dataset)} has no column {missing[0]!r}: choose --{flag} from {shown}")
    dropped: Counter[str] = Counter()
    texts, completions, rows = GrowingTexts(), GrowingTexts(), arrays.Growing(np.int64)
    for row, values in enumerate(zip(*(table.columns[name] for name in columns), strict=True)):
        parts = [
            clean_text(value, name, split_name, row, dropped, flags[name])
            for value, name in zip(values, columns, strict=True)
        ]
        is_blank = not all(part.strip() for part in parts)
        if bad := "blank_text" if is_blank else "megabyte_text" if sum(map(len, parts)) >= LONGEST_TEXT else "":
            if not drop_bad_texts:
                column = next((i for i, part in enumerate(parts) if not part.strip()), 0)
                raise bad_text(table.columns[columns[column]], split_name, row, "\n".join(parts), bad)
            dropped[bad] += 1
        else:
            texts.append("\n".join(parts[: len(text_columns)]))
            completions.append("".join(parts[len(text_columns) :]))
            rows.add(row)
    found = Split(split_name, RowIds(split_name, rows.done()), texts.done())
    if completion_column:
        found = dataclasses.replace(found, completions=completions.done())
    return found, dropped


def _draw(train: Split, role: str, split_seed: int, dataset: str) -> tuple[Split, Split]:
    """Train without the texts that are held back, and those texts."""
    hashes = hashes_of(train.texts)
    candidates = np.flatnonzero(~among(hashes, repeated(hashes)))
    count = min(round(VALIDATION_FRACTION * len(hashes)), len(candidates))
    if not 0 < count < len(hashes):
        raise InputError(
            f"{base_name(dataset)} should have enough texts to hold some back for {role}, found {len(hashes)}: "
            f"name a --{role}-split, or cut the texts into smaller ones"
        )
    held = np.zeros(len(hashes), dtype=bool)
    held[generator(split_seed, role).permutation(candidates)[:count]] = True
    return train.take(np.flatnonzero(~held)), dataclasses.replace(train.take(np.flatnonzero(held)), name=role)


def _limit(split: Split, limit: int | None, split_seed: int) -> Split:
    if limit is None or len(split) <= limit:
        return split
    return split.take(np.sort(generator(split_seed, f"limit {split.name}").permutation(len(split))[:limit]))


# Rows of tokens


def cut_into_rows(
    split: Split, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, stride: int | None = None
) -> Split:
    """The texts as rows of at most `max_length` tokens, in which every token but the first of a text is a target once.

    A text has the tokens of `text_edges` around it; a long one makes several rows.

    Args:
        split: Not tokenised.
        tokenizer: Of the model.
        max_length: Tokens of a row, at least 2.
        stride: Tokens from the beginning of a row to that of the next, at most `max_length` - 1, which is what None
            takes. With a smaller one, each target of a later row has at least `max_length` - `stride` tokens before it.

    Returns: A split with one example per row, named after its text and its place in it: `train/17:2`.

    Raises: InputError if a length is out of range.
    """
    step = max_length - 1 if stride is None else stride
    require(max_length >= 2, "max_length", ">= 2", max_length)
    require(1 <= step < max_length, "stride", f"in 1 … {max_length - 1}", step)
    begin, end = text_edges(tokenizer)
    growing, targets, names = arrays.GrowingRows(np.int32), arrays.Growing(np.bool_), []
    for first in range(0, len(split), _TEXTS_PER_CALL):
        texts = list(split.texts[first : first + _TEXTS_PER_CALL])
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        for place, ids in enumerate(encoded):
            for number, (row, num_seen) in enumerate(_rows_of([*begin, *ids, *end], max_length, step)):
                growing.append(np.asarray(row, dtype=np.int32), [len(row)])
                targets.append(np.arange(len(row)) >= num_seen)
                names.append(f"{split.ids[first + place]}:{number}")
    ids, offsets = growing.done()
    tokens = Tokens(ids, offsets, padding_id(tokenizer), max_length, tokenizer_sha256(tokenizer), targets.done())
    return Split(split.name, names, [""] * len(names), tokens=tokens)


def padding_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that fills up rows: the tokenizer's own for that, else its end of a text, else 0."""
    return int(next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0))


def text_edges(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Tokens before and after a text: what the tokenizer begins with by itself, else the end of the text before."""
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    begins_by_itself = bool(begin) and list(tokenizer("a", verbose=False)["input_ids"])[:1] == begin
    return begin if begins_by_itself or not end else end, end


def _rows_of(ids: list[int], max_length: int, stride: int) -> Iterator[tuple[list[int], int]]:
    """Rows, and how many of the first tokens of each are there only to be read."""
    num_done = 1  # the first token of a text has nothing before it
    for start in range(0, max(1, len(ids) - max_length + stride), stride):
        row = ids[start : start + max_length]
        yield row, min(num_done - start, len(row))
        num_done = start + len(row)
