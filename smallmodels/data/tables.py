"""Local files of rows: CSV, JSON Lines and Parquet as columns, the same for training and for use."""

import csv
import io
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels.errors import InputError


@dataclass(frozen=True)
class Table:
    """One split as it lies in its file."""

    columns: dict[str, list[Any]]
    class_names: dict[str, list[str]]
    """Names of the columns that are ClassLabels."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path) -> Table:
    """The columns of a .csv, .tsv, .jsonl, .json or .parquet file.

    Raises: InputError in one sentence that says what is wrong with the file.
    """
    readers = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".jsonl": _read_json,
        ".json": _read_json,
        ".parquet": _read_parquet,
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path.name} should end in .csv, .tsv, .jsonl, .json or .parquet: rename or convert it")
    return readers[path.suffix.lower()](path)


def table_of(features: Any, columns: dict[str, list[Any]]) -> Table:
    """Columns with the class names that their `datasets.Features` hold."""
    names = {name: list(feature.names) for name, feature in features.items() if hasattr(feature, "int2str")}
    return Table({name: list(values) for name, values in columns.items()}, names)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} should be UTF-8, found byte {error.start} that is not: save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path.name} should be readable, but {error.strerror}") from error


def _read_csv(path: Path) -> Table:
    """All values as strings: a label `01` stays `01`, and a text `NA` stays a text."""
    text = _read_text(path)
    if not text.strip():
        raise InputError(f"{path.name} should begin with a line of column names, found an empty file")
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # of a C long, which is 32 bits on Windows
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path.name} should be CSV, but {error}: check its quotes") from error
    _check_header(header, path)
    for number, row in enumerate(rows, start=2):
        if row and len(row) != len(header):
            raise InputError(
                f"{path.name} should have {len(header)} values per row, found {len(row)} in row {number}: "
                "put quotes around texts that contain the separator"
            )
    return Table({name: [row[i] for row in rows if row] for i, name in enumerate(header)}, {})


def _check_header(header: list[str], path: Path) -> None:
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"{path.name} should name each column once, found {twice[0]!r} twice")


def _read_json(path: Path) -> Table:
    """One object per line, or one array of objects."""
    text = _read_text(path)
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if text.lstrip().startswith("["):
        numbered = [(1, text)]
    rows: list[Any] = []
    for number, line in numbered:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path.name} should have one JSON object per line, line {number} is not JSON") from error
        rows += value if isinstance(value, list) else [value]
    if wrong := [row for row in rows if not isinstance(row, dict)]:
        raise InputError(f"{path.name} should have JSON objects, found {type(wrong[0]).__name__}")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table({name: [row.get(name) for row in rows] for name in columns}, {})


def _read_parquet(path: Path) -> Table:
    import datasets
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        return table_of(datasets.Features.from_arrow_schema(table.schema), table.to_pydict())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path.name} should be a Parquet file, found {type(error).__name__} when reading it"
        ) from error
