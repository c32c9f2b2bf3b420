"""Who uses the machine while a meter measures it: one owner in a process tree, and a mark when there are others."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

if sys.platform != "win32":
    import fcntl

OWNER_VARIABLE = "SMALLMODELS_ENERGY_OWNER"
"""`run_id:pid` of the process that measures; its children find it in their environment and measure nothing."""
MAX_FOREIGN_FRACTION = 0.05
"""Share of the processors that other programs may use before a run counts as contended."""


class CpuClock:
    """CPU-seconds of this process, all threads, and of its children that have ended and were waited for.

    Args:
        others: Process ids that count as well: of those that work together with this one.
    """

    def __init__(self, others: Sequence[int] = ()) -> None:
        self._others = dict.fromkeys(others, 0.0)

    def __call__(self) -> float:
        """CPU-seconds so far."""
        times = os.times()
        for pid in self._others:
            with suppress(psutil.Error):  # what one had used when it ended stays counted
                found = psutil.Process(pid).cpu_times()
                self._others[pid] = sum(found[:4])  # user, system, and both of ended children
        return time.process_time() + times.children_user + times.children_system + sum(self._others.values())


def measuring_elsewhere() -> str | None:
    """Who measures in place of this process: its parent, or the first of a launch on this machine; None for nobody."""
    for variable in ("LOCAL_RANK", "SLURM_LOCALID"):
        if os.environ.get(variable, "0") not in ("", "0"):
            return "rank 0 of this machine"
    pid = _owner_pid()
    return f"process {pid}" if pid not in (None, os.getpid()) and psutil.pid_exists(pid or 0) else None


def _owner_pid() -> int | None:
    pid = os.environ.get(OWNER_VARIABLE, "").rpartition(":")[2]
    return int(pid) if pid.isdigit() else None


class SharedMachine:
    """Knows whether another meter, or other programs, use the machine while we measure.

    Meters hold a shared lock on one file in the temporary folder, which the kernel releases however they end. A new
    meter sees the locks of those before it; those before it see that the file has grown.

    Args:
        run_id: For the owner variable.
        watch_load: Also compare what the processors did with what we used.
        cpu_clock: CPU-seconds that are ours.
    """

    def __init__(self, run_id: str, *, watch_load: bool, cpu_clock: Callable[[], float]) -> None:
        self._cpu_clock = cpu_clock
        self._shared = False
        self._file: int | None = None
        self._size = 0
        self._watch_load = watch_load
        self._start = (time.monotonic(), _busy_s(), cpu_clock())
        self._foreign_fraction = 0.0
        self._sets_variable = _owner_pid() != os.getpid()
        if self._sets_variable:
            os.environ[OWNER_VARIABLE] = f"{run_id}:{os.getpid()}"
        with suppress(OSError):  # where we may not open another user's file, other meters stay unseen
            self._enter()

    def _enter(self) -> None:
        if sys.platform == "win32":
            return
        path, flags = Path(tempfile.gettempdir()) / "smallmodels-energy.lock", os.O_RDWR | os.O_APPEND
        try:
            self._file = os.open(path, flags)
        except FileNotFoundError:
            self._file = os.open(path, flags | os.O_CREAT, 0o666)
            path.chmod(0o666)  # whatever the umask: other users measure the same machine
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
        except BlockingIOError:
            self._shared = True
        os.write(self._file, b".")
        self._size = os.fstat(self._file).st_size
        fcntl.flock(self._file, fcntl.LOCK_SH)
        os.register_at_fork(after_in_child=self._let_go)  # else a data worker keeps the lock of a killed run

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def is_contended(self) -> bool:
        """True once another meter was seen, or while the share of other programs so far is above the limit."""
        if self._file is not None and os.fstat(self._file).st_size > self._size:
            self._shared = True
        if self._watch_load:
            self._foreign_fraction = self._measure_foreign_fraction()
        return self._shared or self._foreign_fraction > MAX_FOREIGN_FRACTION

    def _measure_foreign_fraction(self) -> float:
        """Share of all processors' time since the start that went to programs that are not ours."""
        started_s, busy_s, own_s = self._start
        capacity_s = (time.monotonic() - started_s) * (psutil.cpu_count() or 1)
        foreign_s = _busy_s() - busy_s - (self._cpu_clock() - own_s)
        if capacity_s < 1 or foreign_s <= MAX_FOREIGN_FRACTION * capacity_s:
            return 0.0
        # Only now the dear part: children that still run, such as data workers, are ours too.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                foreign_s -= sum(child.cpu_times()[:4])
        return max(foreign_s, 0.0) / capacity_s

    def close(self) -> list[str]:
        """Release lock and variable; returns what the user should know."""
        if self._sets_variable:
            os.environ.pop(OWNER_VARIABLE, None)
        if self._file is not None and sys.platform != "win32":
            fcntl.flock(self._file, fcntl.LOCK_UN)  # closing is not enough while a child of C code holds a copy
            self._let_go()
        found = []
        if self._shared:
            found.append("another run measured this machine at the same time: both report the joules of both")
        if self._foreign_fraction > MAX_FOREIGN_FRACTION:
            found.append(f"other programs used {self._foreign_fraction:.0%} of the processors: the joules include them")
        return found


def _busy_s() -> float:
    """Seconds that all processors together were not idle, time stolen by other virtual machines included."""
    times = psutil.cpu_times()
    rest = ("idle", "iowait", "guest", "guest_nice")  # guest time is part of user time already
    return float(sum(times) - sum(getattr(times, name, 0.0) for name in rest))
