"""Files of a data set as tables of columns, and which of its splits plays which role."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smallmodels import sources
from smallmodels.data.tables import Table, Values, read_table, read_text_files, table_of
from smallmodels.errors import InputError

VALIDATION_SPLITS = ("validation", "dev", "valid", "val", "development")

LONGEST_TEXT = 1_000_000
"""Characters; what is longer is a file that got into a column, not a text."""


@contextlib.contextmanager
def open_tables(
    fetched: sources.DatasetFiles,
    folder: Path | None,
    read_texts: Callable[[Sequence[Path], Path], Table] = read_text_files,
) -> Iterator[dict[str, Table]]:
    """One table for each split, to be read while the block runs.

    Args:
        fetched: The files.
        folder: Of the phase, for what is unpacked.
        read_texts: Makes rows of local text files, whose endings do not say what their lines mean.
    """
    if fetched.source.revision is None:
        yield _read_file(fetched, read_texts)
        return
    with _scratch(folder) as scratch:
        yield _read_hub(fetched, scratch)


def _read_file(fetched: sources.DatasetFiles, read_texts: Callable[[Sequence[Path], Path], Table]) -> dict[str, Table]:
    paths = fetched.data_files["train"]
    is_text = paths[0].suffix.lower() in sources.TEXT_ENDINGS
    table = read_texts(paths, fetched.folder) if is_text else read_table(paths[0])
    if not len(table):
        raise InputError(f"{paths[0].name} should have rows, found none")
    return {"train": table}


@contextlib.contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards; in that of the phase, so that a kill leaves nothing anywhere else."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    path = folder / "scratch"
    shutil.rmtree(path, ignore_errors=True)  # of a process that was killed
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _read_hub(fetched: sources.DatasetFiles, scratch: Path) -> dict[str, Table]:
    """Read the files that were compared with their hashes; `datasets` keeps no copy of its own that could rot."""
    import datasets

    with _without_bars():
        try:
            loaded = datasets.load_dataset(
                str(fetched.folder),
                name=fetched.card_config,
                data_files={split: [str(path) for path in paths] for split, paths in fetched.data_files.items()},
                features=datasets.Features.from_dict(fetched.features) if fetched.features else None,
                cache_dir=str(scratch),
            )
        except Exception as error:
            first_line = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(
                f"the files of {fetched.source.name} should make a data set, but {type(error).__name__}: {first_line}"
            ) from error
        return {str(name): table_of(split) for name, split in loaded.items()}


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def pick_splits(
    tables: dict[str, Table], dataset: str, train: str, validation: str | None, test: str
) -> dict[str, str]:
    """The name of the split for each role; a role that has to be made is absent."""
    chosen = {"train": train, "test": test}
    free = (name for name in VALIDATION_SPLITS if name in tables and name not in (train, test))
    if found := validation or next(free, None):
        chosen["validation"] = found
    if test == "test" and test not in tables:
        del chosen["test"]
    for role, name in chosen.items():
        if name not in tables:
            raise InputError(
                f"{base_name(dataset)} has no split {name!r}: choose --{role}-split from {', '.join(tables)}"
            )
    if len(set(chosen.values())) < len(chosen):
        raise InputError(f"train, validation and test should be different splits, got {', '.join(chosen.values())}")
    return chosen


def pick_column(
    tables: dict[str, Table], dataset: str, flag: str, given: str | None, usual: Sequence[str], notes: dict[str, Any]
) -> str:
    """A column that was asked for, or the first of the usual ones that is there, which is noted.

    Args:
        tables: All splits.
        dataset: For messages.
        flag: What the column is for: `text` stands for `--text-column`.
        given: What the user asked for.
        usual: Names to try.
        notes: Gets what was guessed.

    Raises: InputError that names the columns if there is no such one.
    """
    existing = columns_of(tables)
    found = given or next((name for name in usual if name in existing), None)
    if found not in existing:
        wanted = repr(given) if given else f"for the {flag}"
        shown = ", ".join(existing)
        raise InputError(f"{base_name(dataset)} has no column {wanted}: choose --{flag}-column from {shown}")
    if given is None:
        notes[f"{flag}_column_guessed"] = found
    return found


def columns_of(tables: dict[str, Table]) -> list[str]:
    """Names of the columns of all splits."""
    return list(dict.fromkeys(name for table in tables.values() for name in table.columns))


def require_different(**columns: str) -> None:
    """Refuse one column in two parts, which are named as their flags are."""
    for (one, a), (two, b) in itertools.combinations(columns.items(), 2):
        if a == b:
            raise InputError(f"--{one}-column and --{two}-column should differ, both are {a!r}")


def require_columns(table: Table, split_name: str, columns: Sequence[str]) -> None:
    """Refuse a split that lacks a column."""
    if missing := [name for name in columns if name not in table.columns]:
        raise InputError(f"split {split_name} has no column {missing[0]!r}: it has {', '.join(table.columns)}")


def bad_text(texts: Values, split_name: str, row: int, text: str, bad: str) -> InputError:
    """Says how many texts are empty, or that one is a megabyte long."""
    blank = sum(value is None or (isinstance(value, str) and not value.strip()) for value in texts)
    found = f"{blank} that are empty" if bad == "blank_text" else f"one of {len(text):,} characters"
    return InputError(
        f"every row of split {split_name} should hold a text below a million characters, found {found} "
        f"(row {row + 1} is the first): mend the data, or add --drop-bad-texts to leave such rows out"
    )


def clean_text(value: Any, column: str, split_name: str, row: int, counts: Counter[str], flag: str = "") -> str:
    """A value as text, empty where there is none; what cannot be encoded is repaired and counted.

    Args:
        value: Of any type.
        column: Where it stands, for messages.
        split_name: Likewise.
        row: Likewise.
        counts: Gets `repaired_surrogates`.
        flag: What names the column, such as `text-column`; empty where the caller cannot tell.

    Raises: InputError if it is no text.
    """
    if value is None:
        return ""
    if isinstance(value, list | dict | bytes):
        raise InputError(
            f"column {column!r} should hold texts, found {type(value).__name__} in {split_name} row {row}: "
            f"choose another {f'--{flag}' if flag else 'column'}"
        )
    text = str(value)
    repaired = text.encode(errors="replace").decode()  # a lone surrogate cannot be written to any file
    if repaired != text:
        counts["repaired_surrogates"] += 1
    return repaired


def base_name(dataset: str) -> str:
    """A name for messages: the hub id, or the file's name without its folder."""
    return os.path.basename(dataset) if Path(dataset).suffix and Path(dataset).exists() else dataset
