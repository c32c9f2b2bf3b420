"""What comes of a teacher in one piece, kept in the cache for every run that needs the same."""

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from smallmodels import entries, files
from smallmodels.errors import DamagedError
from smallmodels.phases import Context

T = TypeVar("T")


class Saves(Protocol):
    """Something that writes itself into a folder."""

    def save(self, folder: Path) -> None:
        """Write all of it."""


def read_or_make(
    key: Mapping[str, Any],
    make: Callable[[], Saves],
    load: Callable[[Path], T],
    *,
    name: str,
    context: Context,
    cache: Path | None,
    made: Callable[[T, Path], None] = lambda value, folder: None,
) -> T:
    """Read an entry back and owe what it cost, or make it and keep it with its bill.

    Args:
        key: What makes it what it is; `what` says it in words.
        make: Goes on from what the folder of its phase has of it, which is why all that the phase spent is its cost.
        load: Reads what `save` of the made one wrote.
        name: Of the folder in the entry that it is saved into.
        context: Of the phase.
        cache: Folder of the cache; `cache_folder()` if None.
        made: Told of what was made and is read from its entry, and of the folder of that.

    Raises: As `make`; DamagedError if what is there is damaged and has files of others in it; see `entries` for a cache
        that cannot be written.
    """
    folder = entries.address(key, cache)

    def read() -> T | None:
        try:
            files.check_manifest(folder)
        except DamagedError:
            return None
        if owed := entries.Bill(files.read_json(folder / entries.ENTRY)["parts"], context).settle():
            context.event("cache", f"{key['what']} read back", key=folder.name, **owed)
        return load(folder / name)

    def build() -> T:
        _remove_damaged(folder, name, context)
        bill = entries.Bill([], context)
        bill.begin(since_phase_began=True)
        value = make()
        with entries.writing(folder), files.atomic_folder(folder) as temporary:
            value.save(temporary / name)
            bill.note()
            files.write_json(temporary / entries.ENTRY, {"key": key, "parts": bill.to_json()})
        found = load(folder / name)
        made(found, folder)
        return found

    return entries.read_or_build(folder, read, build, context)


def _remove_damaged(folder: Path, name: str, context: Context) -> None:
    """Remove a damaged entry and what killed builders left of it.

    Raises: DamagedError if the folder holds what is not ours, which stays.
    """
    torn = re.compile(rf"\.{folder.name}\.\d+\.tmp")
    for path in folder.parent.iterdir():
        if torn.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not folder.exists():
        return
    try:
        files.check_manifest(folder)
    except DamagedError as error:
        if _holds_foreign_files(folder, name):
            raise
        context.event("damaged cache", str(error))
        shutil.rmtree(folder)


def _holds_foreign_files(folder: Path, name: str) -> bool:
    with suppress(DamagedError):
        listed = files.read_json(folder / files.MANIFEST)["files"]
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        return bool(names - set(listed) - {files.MANIFEST})
    return bool({path.name for path in folder.iterdir()} - {entries.ENTRY, files.MANIFEST, name})
