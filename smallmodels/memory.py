"""Highest resident memory of parts of a run. Standard library only."""

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
