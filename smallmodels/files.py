"""Files that are whole or absent: atomic writes, folders with a manifest, hashes. Standard library only."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smallmodels.errors import DamagedError

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20


def sha256_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON-able value, the same for equal values whatever the order of their keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


_FAILURES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "your share of the disk is used up: free some space",
    errno.EFBIG: "a file became larger than this system lets you write: raise the limit (`ulimit -f`)",
    errno.EROFS: "the disk can only be read by now: make it writable",
    errno.EIO: "the disk failed while it was read or written: check it",
}
"""What happened to a disk and what to do, by the system's number of the error."""


def disk_failure(error: BaseException) -> str | None:
    """What happened to the disk and what to do, if that is the cause of an error."""
    return _FAILURES.get(_system_number(error))


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed because a disk, a quota or the limit on a file's size has no room left."""
    return _system_number(error) in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def _system_number(error: BaseException) -> int:
    number = getattr(error, "errno", None)
    if number is None and (said := re.search(r"\(os error (\d+)\)", str(error))):  # of safetensors, written in Rust
        number = said[1]
    return int(number or 0)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can (Windows cannot open a folder)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def _fsync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_folder(path: Path) -> None:
    """Remove a folder; a crash leaves a temporary one, never half a folder under its own name."""
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    os.replace(path, temporary)
    shutil.rmtree(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def json_bytes(value: Any) -> bytes:
    """Indented JSON in UTF-8 as `write_json` writes it; NaN and infinity are refused."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON as `write_bytes` does; NaN and infinity are refused."""
    write_bytes(path, json_bytes(value))


def read_json(path: Path) -> Any:
    """Read a JSON file that we wrote.

    Raises: DamagedError if it cannot be read or parsed.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} should be a readable JSON file, but {error}: delete it or restore it") from error


def drop_torn_line(path: Path) -> None:
    """Cut what a killed process left behind the last whole line of a file that is only appended to."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_bytes(path, whole)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder; when the block ends it gets a manifest, is fsynced and renamed to `path`.

    An existing `path` is replaced, in two renames: a crash between them leaves neither, so what is replaced has to be
    damaged or easy to make again. If the block raises, the old one stays and nothing else is left behind.
    """
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        write_manifest(temporary)
        for entry in [*temporary.rglob("*"), temporary]:
            fsync_folder(entry) if entry.is_dir() else _fsync_file(entry)
        _exchange(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(path.parent)


def _exchange(temporary: Path, path: Path) -> None:
    """Rename a folder over another one, which is removed afterwards, or put back if that fails."""
    old = _temporary(path.with_name(f"{path.name}.old"))
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def entries(folder: Path) -> dict[str, Path]:
    """Everything below a folder that is no folder, links and special files included, by sorted relative path.

    Links are not followed. Folders count only by what is in them: copies by way of git or the hub lose empty ones.

    Raises: OSError if a folder cannot be listed.
    """
    found = {}
    for parent, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for path in (Path(parent, name) for name in [*names, *links]):
            name = path.relative_to(folder).as_posix()
            found[name.encode(errors="replace").decode()] = path  # a name may be no text, and JSON holds text alone
    return dict(sorted(found.items()))


def num_bytes(folder: Path) -> int:
    """Of all files below a folder; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _raise(error: OSError) -> None:
    raise error


def is_plain(path: Path) -> bool:
    """Whether this is a regular file, not a link to one."""
    return stat.S_ISREG(path.lstat().st_mode)


_LEFTOVER = re.compile(r"\.(?P<name>.+?)(?P<old>\.old)?\.[1-9][0-9]*\.tmp", re.DOTALL)


def remove_leftovers(
    folder: Path, *, of_files: Callable[[str], object] | None = None, of_folders: Callable[[str], object] | None = None
) -> None:
    """Remove what a killed process of ours left directly in a folder of what it had begun to write there.

    The rule: `.<name>.<pid>.tmp` goes where the caller writes a file `<name>` into this very folder and it is a file,
    or writes a folder `<name>` here and it is a folder (or was replaced by one: `.<name>.old.<pid>.tmp`). Everything
    else stays, links too. Nobody else may be writing into the folder.

    Args:
        folder: Where to look; it need not exist.
        of_files: Whether we write a file of that name into it.
        of_folders: Whether we write a folder of that name into it.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        found = _LEFTOVER.fullmatch(path.name)
        if found is None or path.is_symlink():
            continue
        if path.is_dir() and of_folders and of_folders(found["name"]):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file() and of_files and of_files(found["name"]) and not found["old"]:
            path.unlink(missing_ok=True)


def write_manifest(folder: Path) -> None:
    """Write `manifest.json` with size and SHA-256 of every other file in the folder."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    write_json(folder / MANIFEST, {"files": files})


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """What a folder should hold: size and SHA-256 by name.

    Raises: DamagedError if the manifest is missing, unreadable, or no list of files of this folder.
    """
    path = folder / MANIFEST
    content = read_json(path)
    listed = content.get("files") if isinstance(content, dict) else None
    entries = list(listed.values()) if isinstance(listed, dict) else [None]
    if not all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in entries):
        raise DamagedError(f"{path} should list files with their sizes and hashes, but does not: delete the folder")
    if outside := [name for name in listed or () if ".." in Path(name).parts or Path(name).is_absolute()]:
        raise DamagedError(f"{path} should list files of its folder, found {outside[0]!r}: delete the folder")
    return listed or {}


def check_manifest(folder: Path) -> None:
    """Compare every file of the folder with its manifest.

    Raises: DamagedError that names the first file that is missing, altered or not listed.
    """
    listed = read_manifest(folder)
    for name, expected in listed.items():
        file = folder / name
        if not file.is_file():
            raise DamagedError(f"{folder} should hold {name}, which is missing: delete the folder to make it again")
        if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
            raise DamagedError(f"{file} is not what its manifest says: delete the folder to make it again")
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    if extra := sorted(found - set(listed) - {MANIFEST}):
        raise DamagedError(f"{folder} holds {extra[0]}, which its manifest does not list: remove that file")
