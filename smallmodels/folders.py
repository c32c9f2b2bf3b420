"""Run folders: made whole or refused, named after the time, and used by one process at once. Standard library only."""

import contextlib
import errno
import json
import os
import platform
import shlex
import shutil
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from smallmodels import files, records
from smallmodels.errors import InputError, PolicyError, SmallmodelsError

CONFIG_NAME = "config.json"
"""In the folder of a run that has begun."""
LOCK_NAME = ".lock"
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What the system says when another process has the lock."""


class RunFolder:
    """The folder of a run while the run uses it.

    Args:
        path: It must not exist or be empty, unless `resumed` is set.
        resumed: It holds an unfinished run that shall go on.
    """

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self._resumed = resumed
        self._lock = FolderLock(path)
        self._made: list[Path] = []

    def take(self) -> None:
        """Make it, or see that it holds what shall go on, and lock it.

        Raises:
            InputError: It cannot be used, or there is nothing to resume.
            PolicyError: Another process uses it, or somebody else may have written what is to be resumed.
        """
        if self._resumed:
            self._require_unfinished()
            require_private(self.path)
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(f"the run folder {self.path} must be new or empty: choose another, or resume that run")
        make_folder(self.path, made=self._made)
        self._lock.acquire()

    def _require_unfinished(self) -> None:
        if is_finished(self.path):
            raise InputError(f"the run in {self.path} is complete, so there is nothing to resume")
        if not (self.path / CONFIG_NAME).is_file():
            raise InputError(f"{self.path} should be the folder of an unfinished run, but has no {CONFIG_NAME}")

    def release(self) -> None:
        """Unlock it; harmless if it is not locked."""
        self._lock.release()

    def undo(self) -> None:
        """Leave nothing half-written behind: empty a folder that was new, and remove what was made of its path."""
        if self._resumed:
            return
        for path in self.path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # others may have put something beside it
                folder.rmdir()


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder is complete, and no rule of the user stopped it before its end.

    Raises: DamagedError if its record cannot be read.
    """
    return (folder / records.RECORD_NAME).exists() and not records.read_record(folder).stops


class FolderLock:
    """An exclusive advisory lock on `<folder>/.lock`, which names the process that holds it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock or refuse at once.

        Raises: PolicyError if another process holds it, the file system has no locks, or something else has its name.
        """
        while self._file is None:
            file = _open_lock(self.path)
            try:
                lock_file(file)
            except OSError as error:
                holder = _holder(file)
                file.close()
                if error.errno not in _HELD:
                    raise PolicyError(
                        f"{self.path.parent} should be on a file system with locks, but {error}: use a local disk"
                    ) from error
                raise PolicyError(f"{self.path.parent} is in use by {holder}: wait for it or stop it first") from None
            # Between open and lock the last holder may have removed the file; a lock on that is worth nothing.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                self._file = file
            else:
                file.close()
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "host": platform.node()}, self._file)
        self._file.flush()

    def fileno(self) -> int:
        """Of the held lock; a child that inherits it keeps it even if this process is killed."""
        assert self._file is not None, "acquire the lock first"
        return self._file.fileno()

    def release(self) -> None:
        """Give the lock back and remove its file; harmless if it is not held."""
        if self._file is None or self._file.closed:
            return
        with contextlib.suppress(OSError):  # Windows cannot remove an open file; a stale one does no harm
            self.path.unlink(missing_ok=True)
        self._file.close()
        self._file = None


def _open_lock(path: Path) -> IO[str]:
    """Open the file of a lock, made if it is absent, but nothing else: a link would let us write where it leads."""
    try:
        with contextlib.suppress(FileNotFoundError):
            if not files.is_plain(path):
                raise _no_lock(path)
        return open(path, "a+", encoding="utf-8", opener=_open_no_link)
    except OSError as error:
        if error.errno == errno.ELOOP:  # it became a link a moment ago
            raise _no_lock(path) from error
        raise


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)  # Windows lacks it


def _no_lock(path: Path) -> PolicyError:
    return PolicyError(f"{path} should be a plain file and is a link or something else: remove it")


def remove_stale_lock(folder: Path) -> None:
    """Remove the lock that a killed process left in a folder.

    Raises: PolicyError if a process holds it, or it is no plain file.
    """
    if os.path.lexists(folder / LOCK_NAME):
        lock = FolderLock(folder)
        lock.acquire()
        lock.release()


def lock_file(file: IO[str]) -> None:
    """Take an open file's lock, which the system releases when the process ends; OSError if another holds it.

    A forked child, such as a data worker, lets go of its copy, which would else keep the lock after its parent's death.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.register_at_fork(after_in_child=file.close)


def holder(folder: Path) -> str | None:
    """The process that holds a folder's lock, in words; None if none does."""
    try:
        if not files.is_plain(folder / LOCK_NAME):  # a FIFO would make us wait, and no process locks what is none
            return None
        with (folder / LOCK_NAME).open(encoding="utf-8") as file:
            try:
                lock_file(file)
            except OSError as error:
                return _holder(file) if error.errno in _HELD else None
    except OSError:  # there is none, or it cannot be read
        return None
    return None


def _holder(file: IO[str]) -> str:
    try:
        file.seek(0)
        holder = json.load(file)
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def make_folder(folder: Path, *, made: list[Path] | None = None) -> None:
    """Make a folder and its parents.

    Args:
        folder: To be made.
        made: Gets the folders that did not exist before, outermost first.

    Raises: InputError in one sentence if it is a file or cannot be written.
    """
    missing: list[Path] = []
    for candidate in (folder, *folder.parents):
        if os.path.lexists(candidate):
            break
        missing.insert(0, candidate)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        for candidate in reversed(missing):
            if candidate.is_dir():
                candidate.rmdir()
        where = missing[0].parent if missing else folder
        why = f"cannot be written ({(error.strerror or str(error)).lower()})"
        if where.is_file():
            why = "is a file"
        elif where.is_symlink() and not where.exists():
            why = "is a link to nothing"
        raise InputError(f"{where} {why}, so it cannot hold a run: choose another folder or mend this one") from error
    if made is not None:
        made.extend(missing)


def require_private(folder: Path) -> None:
    """Refuse to go on with files that somebody else may have put there or changed; on Windows nothing is checked.

    Raises: PolicyError that names the first file or folder that belongs to another user than us or root, or that
        every user may write.
    """
    if sys.platform == "win32":
        return
    for path in (folder.resolve(), *sorted(folder.resolve().rglob("*"))):
        status = path.lstat()
        if status.st_uid not in (0, os.geteuid()):
            raise PolicyError(
                f"{path} should belong to you, but belongs to user {status.st_uid}: "
                "if you trust what is in it, change its owner with chown"
            )
        if status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode):
            raise PolicyError(
                f"{path} should be yours to write alone, but every user may: "
                f"if you trust what is in it, run chmod -R o-w {shlex.quote(str(folder))}"
            )


def new_folder(parent: Path, recipe: str, seed: int) -> Path:
    """The name of a run folder that does not exist: `<parent>/<recipe>/<utc time>-s<seed>`."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        folder = parent / recipe / (f"{stamp}-s{seed}" if number == 1 else f"{stamp}-s{seed}-{number}")
        if not folder.exists():
            return folder
    raise SmallmodelsError(f"{parent / recipe} should have room for a new run, but a thousand began in this second")
