"""Cells of a sweep on other machines: each as a job of submitit, on Slurm or here. The only importer of submitit.

A worker starts the command of its cell in a process of its own, as the sweep does here, and notes where and when. On a
machine with several cells at once, the first measures its energy; the others give time and CPU-seconds, because each
joule would else be there several times. Whether cells shared a machine follows from these notes (`sweeps.Stay`).
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from smallmodels import energy, files, folders, records
from smallmodels.errors import InputError, PolicyError, SmallmodelsError
from smallmodels.stopping import StopSignals
from smallmodels.sweeps import Stay
from smallmodels.text import shorten

_POLL_S = 0.5
LOGS_NAME = "workers"
"""Folder of what submitit writes, in that of a cell."""


class Sent(Protocol):
    """A cell that was given to a worker."""

    def has_ended(self) -> bool:
        """Whether `wait` returns at once."""

    def wait(self) -> int:
        """Wait for its end, and give its exit code."""

    def stop(self) -> None:
        """Ask it to save its work and end."""


Send: TypeAlias = Callable[[Sequence[tuple[list[str], Path]]], Sequence[Sent]]
"""Gives workers the command and the folder of each cell."""


def sender(kind: str, options: Sequence[str]) -> Send:
    """What sends cells to submitit.

    Args:
        kind: `submitit` for Slurm, `submitit-local` for processes of this machine.
        options: Of its executor, `name=value` each.

    Raises: InputError if submitit or Slurm is not there, or an option is none.
    """
    try:
        import submitit
    except ImportError as error:
        raise InputError("--workers needs submitit: pip install 'smallmodels[slurm]'") from error
    cluster = "local" if kind == "submitit-local" else "slurm"
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise InputError(
            "--workers submitit needs Slurm, but there is no sbatch here: log in to its head node, or try "
            "--workers submitit-local"
        )
    given = dict(map(_option, options))

    def send(cells: Sequence[tuple[list[str], Path]]) -> Sequence[Sent]:
        sent = []
        for command, folder in cells:
            folders.make_folder(folder / LOGS_NAME)
            executor: Any = submitit.AutoExecutor(folder=str(folder / LOGS_NAME), cluster=cluster)
            try:
                executor.update_parameters(**{"name": "smallmodels", "timeout_min": 24 * 60, **given})
            except (NameError, TypeError, ValueError) as error:
                raise InputError(f"--worker-options should be those of submitit, but {error}: correct them") from error
            sent.append(_Submitted(executor.submit(run_cell, command, folder)))
        return sent

    return send


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"--worker-options should be name=value, such as timeout_min=600, got {text}: correct it")
    return name, int(value) if value.isdigit() else value


class _Submitted:
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def has_ended(self) -> bool:
        return bool(self._job.done())

    def wait(self) -> int:
        while not self.has_ended():
            time.sleep(_POLL_S)
        error = self._job.exception()
        if error is None:
            return int(self._job.result())
        print(f"! a worker of submitit came to no end: {shorten(str(error), 500)}", file=sys.stderr)
        return SmallmodelsError.exit_code

    def stop(self) -> None:
        self._job.cancel(check=False)


def run_cell(command: Sequence[str], folder: Path) -> int:
    """Run the command of a cell on this machine, and note in the cell's folder that it was here; its exit code.

    Args:
        command: Of `smallmodels run`.
        folder: Of the cell, on a disk that all machines see.
    """
    child: list[subprocess.Popen[bytes]] = []

    def tell(number: int) -> None:
        for process in child:
            process.send_signal(number)

    signals = StopSignals(pass_on=tell)
    signals.take()
    stay = Stay(cell=folder.name, node=_node(), owns_energy=False, started_utc=records.now())
    path = folder / f"stay-{stay.started_utc.replace(':', '')}-{os.getpid()}.json"
    try:
        with _owning_energy() as owner:
            stay = replace(stay, owns_energy=owner is None)
            files.write_json(path, records.to_json(stay))
            marked = {} if owner is None else {energy.OWNER_VARIABLE: f"sweep:{owner}"}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**_own_environment(), **marked})
            child.append(process)
            if signals.asked():
                process.terminate()
            return process.wait()
    finally:
        files.write_json(path, records.to_json(replace(stay, ended_utc=records.now())))
        signals.give_back()


def _own_environment() -> dict[str, str]:
    """Of the child. Slurm's number of the process on its machine is that of the job, not of a part of a run."""
    return {name: value for name, value in os.environ.items() if name != "SLURM_LOCALID"}


def _node() -> str:
    """A name for this machine that does not tell its own."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:16]


@contextlib.contextmanager
def _owning_energy() -> Iterator[int | None]:
    """Measure this machine's energy if no other worker does; else the process id of the one that does."""
    path = Path(tempfile.gettempdir()) / f"smallmodels-sweep-{os.getuid() if sys.platform != 'win32' else 0}"
    folders.make_folder(path)
    lock = folders.FolderLock(path)
    try:
        lock.acquire()
    except PolicyError:
        yield _holder(path)
        return
    try:
        files.write_text(path / "owner", str(os.getpid()))
        yield None
    finally:
        lock.release()


def _holder(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((path / "owner").read_text(encoding="ascii"))
    return os.getppid()
