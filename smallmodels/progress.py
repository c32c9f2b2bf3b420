"""What a run says while it works: a live bar on a terminal, plain lines elsewhere; all of it on standard error."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from smallmodels import energy
from smallmodels.text import printable

LIVE_INTERVAL_S = 0.2
"""The live bar is drawn when work reports progress, at most this often: a drawing thread would cost energy."""
LINE_INTERVAL_S = 15.0
"""Plain lines come at most this often."""


class Display:
    """The state of the current phase, for people; it never touches the record."""

    def __init__(
        self,
        read_energy: Callable[[], energy.EnergyReading | None],
        *,
        console: Console | None = None,
        quiet: bool = False,
    ) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty(), quiet=quiet)
        self._read_energy = read_energy
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._phase = ""
        self._started = self._last = 0.0
        self._first: tuple[float, float] | None = None

    @property
    def is_live(self) -> bool:
        """True on a terminal that can redraw a line."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def say(self, message: str, *, style: str = "") -> None:
        """Print one line, above the bar if there is one."""
        self._console.print(Text(printable(message), style=style))

    def start(self, phase: str) -> None:
        """Begin a phase."""
        self._phase, self._first = phase, None
        self._started = self._last = time.monotonic()
        if self.is_live and self._live is None:
            self._live = _bar(self._console)
            self._task = self._live.add_task(phase, total=None, details="")
            self._live.start()
            self._live.refresh()

    def update(self, done: float, total: float | None, **fields: Any) -> None:
        """Show how far the phase is.

        Args:
            done: Units of work done.
            total: All of them; None if unknown.
            fields: Short facts, such as `loss` and `tokens_per_s`.
        """
        now = time.monotonic()
        if self._first is None or done < self._first[1]:
            self._first = (now, done)
        if now - self._last < (LIVE_INTERVAL_S if self.is_live else LINE_INTERVAL_S):
            return
        self._last = now
        left_s = self._time_left(now, done, total)
        facts = [*_facts(fields), *_energy_fact(self._read_energy())]
        if self._live is not None:
            parts = [*facts, *([f"{clock(left_s, short=True)} left"] if left_s is not None else [])]
            self._live.update(self._task, completed=done, total=total, details="  ".join(parts))
            self._live.refresh()
        else:
            share = f"{done:g} of {total:g}" if total is not None else f"{done:g}"
            parts = [share, *facts, *([f"{clock(left_s)} left"] if left_s is not None else [])]
            self.say(f"{self._phase}: {', '.join(parts)}")

    def end(self, reading: energy.EnergyReading | None, *, failed: bool = False, quiet: bool = False) -> None:
        """Close the phase with one line, its time and joules, or without a word."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if not self._phase or quiet:
            self._phase = ""
            return
        duration_s = reading.duration_s if reading is not None else time.monotonic() - self._started
        parts = [f"{'✗' if failed else '✓'} {self._phase:<18}", f"{clock(duration_s):>10}"]
        if reading is not None and reading.energy_j is not None:
            parts.append(f"{joules(reading.energy_j, reading.label):>16}")
        self._console.print(Text("".join(parts), style="red" if failed else ""))
        self._phase = ""

    def kept(self, phase: str) -> None:
        """Say that a phase was finished before the run was interrupted."""
        self._console.print(Text(f"✓ {phase:<18}{'kept':>10}", style="dim"))

    def _time_left(self, now: float, done: float, total: float | None) -> float | None:
        """Seconds left at the pace since the first report; a resumed phase starts in the middle."""
        if total is None or self._first is None or done <= self._first[1]:
            return None
        return (now - self._first[0]) / (done - self._first[1]) * max(total - done, 0)


class _ShareColumn(ProgressColumn):
    """`120/345`, or nothing where the total is unknown."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:g}/{task.total:g}")


def _bar(console: Console) -> Progress:
    columns = [
        TextColumn("{task.description:<9}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=7, complete_style="cyan", finished_style="cyan", pulse_style="cyan"),
        _ShareColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[details]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
    ]
    return Progress(*columns, console=console, auto_refresh=False, transient=True)


def _facts(fields: dict[str, Any]) -> list[str]:
    """`loss 0.0312`, `12.4k tokens/s`."""
    words = []
    for name, value in fields.items():
        if name == "tokens_per_s":
            words.append(f"{short_number(value)} tokens/s")
        elif isinstance(value, float):
            words.append(f"{name} {value:.3g}" if abs(value) >= 0.1 else f"{name} {value:.2g}")
        else:
            words.append(f"{name} {value}")
    return words


def _energy_fact(reading: energy.EnergyReading | None) -> list[str]:
    if reading is None or reading.energy_j is None:
        return []
    return [f"{_about(reading.label)}{reading.energy_j / 3600:.2f} Wh"]


def _about(label: str) -> str:
    """A tilde before joules that are an estimate, not a measurement."""
    from smallmodels.records import COUNTED_LABELS

    return "" if label in COUNTED_LABELS else "~"


def joules(energy_j: float, label: str) -> str:
    """`~34.1 J`, `~12.3 kJ`; the tilde marks an estimate."""
    if energy_j >= 10_000:
        return f"{_about(label)}{energy_j / 1000:.1f} kJ"
    return f"{_about(label)}{energy_j:.1f} J"


def short_number(value: float) -> str:
    """`950`, `12.4k`, `3.1M`."""
    for divisor, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= divisor:
            return f"{value / divisor:.1f}{suffix}"
    return f"{value:.0f}"


def clock(duration_s: float, *, short: bool = False) -> str:
    """`4.2 s`, `1:05 min`, `2:03:04 h`; without the unit from a minute on if short."""
    if duration_s < 59.95:
        return f"{duration_s:.1f} s"
    whole = round(duration_s)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}{'' if short else ' min'}"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}{'' if short else ' h'}"
