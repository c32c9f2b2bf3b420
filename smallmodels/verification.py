"""Whether a run folder, or a copy of a published model, is still what its record says, to the last byte.

The record lists the SHA-256 of every other file and carries that of its own. Card and page carry the SHA-256 of what
the record says, and are rendered again and compared, so an edited record is found even if its own hash was made anew.
Where the record names the SHA-256 of the model's weights, that is worked out again from `model/`.
This finds accidents and edits. It is no signature: whoever writes all files anew has written another run.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smallmodels import cards, files, finishing, folders, records, report, sources
from smallmodels.errors import DamagedError, InputError, PolicyError, SmallmodelsError
from smallmodels.records import RunRecord
from smallmodels.text import printable

_OF_THE_HUB = re.compile(r"\.gitattributes|\.cache/huggingface/.*")
"""What the hub and its client put beside the files of a published model."""
_NOT_PLAIN = "should be a file and is a link or something else"
_REMEDY = "take the folder from a copy, or make the run again"


@dataclass(frozen=True)
class Problem:
    """A file that is not what it should be."""

    file: str
    """Relative to the folder."""
    sentence: str
    """What is the matter, as the part of a sentence that follows the file's name."""


def verify(folder: Path) -> RunRecord:
    """Check every file of a run folder against its record, and card and page against what it says.

    Empty folders count for nothing, because copies by way of git or the hub lose them.

    Args:
        folder: Of a complete run, or a copy of a model that `publishing.push` published.

    Returns: The record.

    Raises:
        InputError: There is no complete run.
        PolicyError: The run is in use.
        DamagedError: A file was added, removed, renamed or altered; names the first and counts the others.
    """
    _require_record(folder)
    record = records.read_run(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is a record alone, which says nothing of the files: name the folder that holds it")
    if holder := folders.holder(folder):
        raise PolicyError(f"{folder} is in use by {holder}: wait for it or stop it first")
    found = list(_file_problems(folder, record)) or list(_page_problems(folder, record))
    if found := found or list(_weights_problems(folder, record)):
        others = len(found) - 1
        more = f" (and {others:,} more {'file' if others == 1 else 'files'})" if others else ""
        first = found[0]
        raise DamagedError(f"{printable(str(folder / first.file))} {first.sentence}{more}: {_REMEDY}")
    return record


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[RunRecord]:
    """Hold a complete run that is whole, for `finishing.amend`; what a killed one left undone is done first.

    Raises: As `verify`; InputError if this is a copy of a published model.
    """
    if (folder / records.RECORD_NAME).is_file() and not folders.holder(folder):
        with _locked(folder):
            mended = finishing.mend(folder)
        for name in mended:
            print(f"{folder / name} was not what the record says, and was written again", file=sys.stderr)
    verified = verify(folder)
    if verified.published_as:
        raise InputError(f"{folder} is a copy of {verified.published_as}: name the run that it was made by")
    with _locked(folder):
        record = records.read_run(folder)
        if record != verified:
            raise PolicyError(f"{folder} should be left alone while its record changes, but was changed: try again")
        yield record


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = folders.FolderLock(folder)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_by_another_version(folder: Path) -> bool:
    """Whether another version wrote card and page of a run, so that `verify` does not compare what they say."""
    return not _is_ours((folder / records.PAGE_NAME).read_text(encoding="utf-8", errors="replace"))


def _is_ours(page: str) -> bool:
    return f'content="{report.writer()}"' in page


def _require_record(folder: Path) -> None:
    """Refuse a run that was complete and has lost its record: card and page are written only as a run ends."""
    if folder.is_file() or (folder / records.RECORD_NAME).exists():
        return
    begins = (folder / folders.CONFIG_NAME, folder / Path(records.CARD_NAME).name)  # of a run, of a published model
    has_page = (folder / records.PAGE_NAME).is_file() and any(path.is_file() for path in begins)
    if not has_page and not (folder / records.CARD_NAME).is_file():
        return
    if holder := folders.holder(folder):
        raise PolicyError(f"{folder} is in use by {holder}: wait for it or stop it first")
    raise DamagedError(
        f"{printable(str(folder / records.RECORD_NAME))} is missing, though the run wrote its card or page: take the "
        "folder from a copy, or, if the run was killed as it ended, go on with `smallmodels run --resume`"
    )


def _file_problems(folder: Path, record: RunRecord) -> Iterator[Problem]:
    """Every file that is not what was written, the record itself first."""
    try:
        entries = files.entries(folder)
    except OSError as error:
        raise DamagedError(f"{folder} should be a folder that can be read, but {error}: {_REMEDY}") from error
    if not files.is_plain(folder / records.RECORD_NAME):
        yield Problem(records.RECORD_NAME, _NOT_PLAIN)
    elif not records.is_sealed((folder / records.RECORD_NAME).read_bytes()):
        yield Problem(records.RECORD_NAME, _seal_words(record))
    ignored = _OF_THE_HUB if record.published_as else re.compile(r"(?!)")
    entries = {name: path for name, path in entries.items() if not ignored.fullmatch(name)}
    for name in sorted({*entries, *record.files} - {records.RECORD_NAME}):
        if sentence := _file_words(entries.get(name), record.files.get(name)):
            yield Problem(name, sentence)


def _seal_words(record: RunRecord) -> str:
    if record.record_sha256 is None:
        return "should carry its own SHA-256 and has none, because an older version wrote it or somebody removed it"
    return "is not what was written: its SHA-256 of itself is another"


def _file_words(path: Path | None, expected: str | None) -> str:
    """What is wrong with a file, or nothing."""
    if path is None:
        return "should be there and is missing"
    if expected is None:
        left = " (left by a process that was killed: it can be removed)" if path.name == folders.LOCK_NAME else ""
        return f"is there and not in {records.RECORD_NAME}{left}"
    try:
        if not files.is_plain(path):
            return _NOT_PLAIN
        found = files.sha256_file(path)
    except OSError as error:
        return f"should be a file that can be read, and is not ({error.strerror})"
    return "" if found == expected else f"should have SHA-256 {expected[:12]}…, and has {found[:12]}…"


# Card and page


def _page_problems(folder: Path, record: RunRecord) -> Iterator[Problem]:
    """What card and page say that the record does not."""
    says = records.statement(record)
    digest = records.written_statement_sha256(files.read_json(folder / records.RECORD_NAME))
    card = Path(records.CARD_NAME).name if record.published_as else records.CARD_NAME
    if absent := [name for name in (card, records.PAGE_NAME) if name not in record.files]:
        yield from (Problem(name, f"should be there and listed in {records.RECORD_NAME}") for name in absent)
        return
    pages = {card: cards.model_card, records.PAGE_NAME: report.run_page}
    if records.ADAPTER_CARD_NAME in record.files:  # older runs have adapters without one
        pages[records.ADAPTER_CARD_NAME] = cards.adapter_card
    texts = {name: (folder / name).read_bytes().decode(errors="replace") for name in pages}
    # Another version may say the same in other words, but not of another record.
    is_ours = _is_ours(texts[records.PAGE_NAME])
    for name, render in pages.items():
        if digest not in texts[name] or (is_ours and texts[name] != render(says)):
            yield Problem(name, f"does not say what {records.RECORD_NAME} says")


# Weights


def _weights_problems(folder: Path, record: RunRecord) -> Iterator[Problem]:
    """Weights that are not those of the model that the record and the card describe."""
    expected = record.model.get("weights_sha256")
    if expected is None:
        return
    model = folder if record.published_as else folder / Path(records.CARD_NAME).parent
    paths = sorted(model.glob("*.safetensors"))
    if not paths:
        yield Problem(model.relative_to(folder).as_posix(), f"should hold the weights that {records.RECORD_NAME} names")
    elif not _are_weights(paths, expected) and not _loads_as(model, expected):
        name = paths[0].relative_to(folder).as_posix()
        yield Problem(name, f"should hold the weights with SHA-256 {str(expected)[:12]}…, and holds others")


def _are_weights(paths: list[Path], expected: str) -> bool:
    try:
        return any(sources.weights_sha256(paths, prefix=prefix) == expected for prefix in ("", "transformer."))
    except (SmallmodelsError, OSError):
        return False


def _loads_as(model: Path, expected: str) -> bool:
    """Whether the model has these weights once it is loaded: files hold tied weights once, and a model twice."""
    from smallmodels.models import TextModel

    try:
        return TextModel.load(model).weights_sha256() == expected
    except (SmallmodelsError, OSError, KeyError, TypeError):
        return False
