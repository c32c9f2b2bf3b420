"""Local files of rows: CSV, JSON Lines, Parquet, CoNLL and folders of texts as columns, for training and for use."""

import contextlib
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from smallmodels.data.columns import GrowingTexts, Texts
from smallmodels.errors import InputError
from smallmodels.sources import CONLL_ENDINGS

if TYPE_CHECKING:
    import datasets

_ROWS_AT_ONCE = 1 << 12

_TAG = re.compile(r"O|[BIESLU](-\S+)?")


class Values(Protocol):
    """Of a column: a list, or something that reads them from disk each time that somebody goes through them."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Table:
    """One split as it lies in its file."""

    columns: Mapping[str, Values]
    class_names: dict[str, list[str]]
    """Names of the columns that are ClassLabels."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path) -> Table:
    """The columns of a .csv, .tsv, .jsonl, .json, .parquet, .conll, .bio or .iob file.

    Raises: InputError in one sentence that says what is wrong with the file.
    """
    readers = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".jsonl": _read_json,
        ".json": _read_json,
        ".parquet": _read_parquet,
    } | dict.fromkeys(CONLL_ENDINGS, _read_conll)
    if path.suffix.lower() not in readers:
        raise InputError(f"{path.name} should end in {', '.join(readers)}: rename or convert it")
    return readers[path.suffix.lower()](path)


def read_text_files(paths: Sequence[Path], folder: Path) -> Table:
    """One row for each file: its name below the folder in column `file`, what stands in it in column `text`.

    Raises: InputError if one is not UTF-8 or cannot be read.
    """
    texts = GrowingTexts()
    for path in paths:
        with _reading_text(path) as file:
            texts.append(file.read())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Table({"file": names, "text": texts.done()}, {})


def read_conll_files(paths: Sequence[Path], folder: Path) -> Table:
    """One row for each sentence of the files: its words in column `tokens`, their tags in column `tags`.

    A line holds a word, then what else is known of it, then its tag, with tabs or spaces between them; a blank line
    ends a sentence. Comments, which begin with `#`, and lines of `-DOCSTART-` are left out.

    Raises: InputError if a line has no tag, or a file is not UTF-8.
    """
    words, tags = GrowingTexts(), GrowingTexts()
    for path in paths:
        for sentence in _sentences(path):
            words.append(json.dumps([word for word, _ in sentence]))
            tags.append(json.dumps([tag for _, tag in sentence]))
    return Table({"tokens": _JsonValues(words.done()), "tags": _JsonValues(tags.done())}, {})


def table_of(rows: "datasets.Dataset") -> Table:
    """The columns of a `datasets.Dataset`, which reads them from its own files."""
    return Table({name: _HubValues(rows, name) for name in rows.column_names}, _class_names(rows.features))


def _class_names(features: Any) -> dict[str, list[str]]:
    """Class names that `datasets.Features` hold, by column; those of the items where a column holds lists."""
    items = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {name: list(item.names) for name, item in items.items() if hasattr(item, "int2str")}


class _HubValues:
    """A column of a `datasets.Dataset`."""

    def __init__(self, rows: "datasets.Dataset", name: str) -> None:
        self._rows, self._name = rows.select_columns([name]), name

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._rows.iter(_ROWS_AT_ONCE):
            yield from batch[self._name]


@contextlib.contextmanager
def _reading_text(path: Path) -> Iterator[IO[str]]:
    """The open file; what is wrong with it as text ends in one sentence."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} should be UTF-8, found byte {_first_bad_byte(path)} that is not: save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path.name} should be readable, but {error.strerror}") from error


def _first_bad_byte(path: Path) -> int:
    """Where a file stops to be UTF-8."""
    done = 0
    with path.open("rb") as file:
        for line in file:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return done + error.start
            done += len(line)
    return done


def _read_csv(path: Path) -> Table:
    """All values as strings: a label `01` stays `01`, and a text `NA` stays a text."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # of a C long, which is 32 bits on Windows
    with _reading_text(path) as file:
        first_line = file.readline()
        if not first_line.strip() and not any(line.strip() for line in file):
            raise InputError(f"{path.name} should begin with a line of column names, found an empty file")
        file.seek(0)
        rows = csv.reader(file, delimiter=max(",;\t", key=first_line.count), strict=True)
        try:
            header = next(rows)
            _check_header(header, path)
            growing = [GrowingTexts() for _ in header]
            for number, row in enumerate(rows, start=2):
                if row and len(row) != len(header):
                    raise InputError(
                        f"{path.name} should have {len(header)} values per row, found {len(row)} in row {number}: "
                        "put quotes around texts that contain the separator"
                    )
                for column, value in zip(growing, row, strict=False):  # a blank line has no values
                    column.append(value)
        except csv.Error as error:
            raise InputError(f"{path.name} should be CSV, but {error}: check its quotes") from error
    return Table({name: column.done() for name, column in zip(header, growing, strict=True)}, {})


def _check_header(header: list[str], path: Path) -> None:
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"{path.name} should name each column once, found {twice[0]!r} twice")


def _read_json(path: Path) -> Table:
    """One object per line, or one array of objects."""
    growing: dict[str, GrowingTexts] = {}
    for count, row in enumerate(_json_rows(path)):
        if not isinstance(row, dict):
            raise InputError(f"{path.name} should have JSON objects, found {type(row).__name__}")
        for name in row:
            if name not in growing:
                growing[name] = GrowingTexts()
                for _ in range(count):
                    growing[name].append("null")
        for name, column in growing.items():
            column.append(json.dumps(row.get(name)))
    return Table({name: _JsonValues(column.done()) for name, column in growing.items()}, {})


def _read_conll(path: Path) -> Table:
    return read_conll_files([path], path.parent)


def _sentences(path: Path) -> Iterator[list[tuple[str, str]]]:
    """The words of each sentence with their tags."""
    with _reading_text(path) as file:
        width = next((len(_fields(line)) for line in file if line.strip() and line[0] not in "#-"), 0)
        file.seek(0)
        sentence: list[tuple[str, str]] = []
        for number, line in enumerate(file, start=1):
            fields = _fields(line)
            # A word may begin with # too, but then its line has a tag and is as wide as others.
            is_comment = line.startswith("#") and not (len(fields) == width and _TAG.fullmatch(fields[-1]))
            if not line.strip():
                if sentence:
                    yield sentence
                sentence = []
            elif is_comment or fields[0] == "-DOCSTART-":
                continue
            elif len(fields) < 2 or not fields[-1]:
                raise InputError(
                    f"every line of {path.name} should be blank or hold a word and its tag, with a tab or space "
                    f"between them, but line {number} has no tag: mend the file"
                )
            else:
                sentence.append((fields[0], fields[-1]))
        if sentence:
            yield sentence


def _fields(line: str) -> list[str]:
    line = line.strip("\r\n ")
    return [field.strip() for field in line.split("\t")] if "\t" in line else line.split()


def _json_rows(path: Path) -> Iterator[Any]:
    with _reading_text(path) as file:
        is_array = next((line.lstrip() for line in file if line.strip()), "").startswith("[")
        file.seek(0)
        for number, line in enumerate([file.read()] if is_array else file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path.name} should have one JSON object per line, line {number} is not JSON"
                ) from error
            yield from value if isinstance(value, list) else [value]


class _JsonValues:
    """A column of any JSON values, kept as texts."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Any]:
        return map(json.loads, self._texts)


def _read_parquet(path: Path) -> Table:
    import datasets
    import pyarrow.parquet

    with _reading_parquet(path):
        file = pyarrow.parquet.ParquetFile(path)
        schema, count = file.schema_arrow, file.metadata.num_rows
        file.close()
        class_names = _class_names(datasets.Features.from_arrow_schema(schema))
    return Table({name: _ParquetValues(path, name, count) for name in schema.names}, class_names)


@contextlib.contextmanager
def _reading_parquet(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path.name} should be a Parquet file, found {type(error).__name__} when reading it"
        ) from error


class _ParquetValues:
    """A column of a Parquet file."""

    def __init__(self, path: Path, name: str, count: int) -> None:
        self._path, self._name, self._count = path, name, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        import pyarrow.parquet

        with _reading_parquet(self._path), pyarrow.parquet.ParquetFile(self._path, memory_map=True) as file:
            for group in range(file.num_row_groups):  # one pass over all groups would keep the bytes of all
                for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[self._name]):
                    yield from batch.column(0).to_pylist()
