"""Highest resident memory of parts of a run, and errors that mean that there is no more. Standard library only."""

import contextlib
import ctypes
import functools
import gc
import os
from pathlib import Path


class PeakMemory:
    """Highest resident memory of this process in parts of a run; parts may nest."""

    _RESET = Path("/proc/self/clear_refs")
    _STATUS = Path("/proc/self/status")

    def __init__(self) -> None:
        self._open: list[MemoryWatch] = []

    def watch(self) -> "MemoryWatch":
        """A context manager; afterwards its `peak_mb` is known, or None where the system cannot tell."""
        return MemoryWatch(self)

    def _enter(self, watch: "MemoryWatch") -> None:
        self._note()
        self._open.append(watch)

    def _leave(self, watch: "MemoryWatch") -> None:
        self._note()
        self._open.remove(watch)

    def _note(self) -> None:
        """Give the peak since the last call to every open part, and start the peak anew."""
        peak_mb = self._read_and_reset()
        for watch in self._open:
            known = peak_mb is not None
            watch.peak_mb = max(watch.peak_mb or 0.0, peak_mb or 0.0) if known else None

    def _read_and_reset(self) -> float | None:
        try:
            status = self._STATUS.read_text(encoding="ascii")
            peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
            self._RESET.write_text("5", encoding="ascii")  # Linux: sets the peak to the present size (man 5 proc)
        except (OSError, StopIteration):
            return None
        return int(peak_kb) * 1024 / 1e6


class MemoryWatch:
    """One measured part; see `PeakMemory.watch`."""

    def __init__(self, owner: PeakMemory) -> None:
        self._owner = owner
        self.peak_mb: float | None = None

    def __enter__(self) -> "MemoryWatch":
        self._owner._enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._owner._leave(self)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's `mallopt` (malloc.h)."""


@functools.cache
def keep_freed() -> None:
    """Let the C library (glibc) keep what is freed for the next tensor, until `give_back`.

    By default it hands large blocks back at once, and the system clears and maps each page of the next tensor anew:
    some 14,000 pages in a step of 4,800 tokens, a tenth to a quarter of its time (benchmarks/README.md). What the user
    has set stands.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)  # else a block above 32 MiB, such as a token table's gradient, goes at once
        library.mallopt(_TRIM_THRESHOLD, -1)  # never by itself


def give_back() -> None:
    """Free what nothing refers to, and hand it back to the system where the C library can (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


_EXHAUSTED = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a",
)
"""What torch says on processors and GPUs, mostly as a plain RuntimeError; the last is oneDNN's, of its primitives."""


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of the device is used up."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(text in str(error).lower() for text in _EXHAUSTED)
