"""What a run says while it works: a live bar on a terminal, plain lines elsewhere; all of it on standard error."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from smallmodels import energy, records
from smallmodels.text import printable, shorten

LIVE_INTERVAL_S = 0.2
"""The live bar is drawn when work reports progress, at most this often: a drawing thread would cost energy."""
LINE_INTERVAL_S = 15.0
"""Plain lines come at most this often."""

PHASE_HEAD = f"  {'phase':<21}{'time':>10}{'energy':>11}{'tokens/s':>10}{'utilised':>10}{'real':>7}{'memory':>9}"
"""Names the columns of `phase_row`, in 80 columns; `real` is the share of tokens that are not padding."""


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
        self._has_head = False

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

    def end(self, phase: records.Phase | None = None, *, failed: bool = False, quiet: bool = False) -> None:
        """Close the phase with one line, or without a word.

        Args:
            phase: What it took, as the record will say it; None where it did not finish.
            failed: Whether an error ended it.
            quiet: Whether to say nothing.
        """
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._phase and not quiet:
            duration_s = time.monotonic() - self._started
            row = phase_row(phase) if phase else f"{self._phase:<21}{clock(duration_s):>10}"
            self._say_row(f"{'✗' if failed else '✓'} {row}", style="red" if failed else "")
        self._phase = ""

    def kept(self, phase: str) -> None:
        """Say that a phase was finished before the run was interrupted."""
        self._say_row(f"✓ {phase:<21}{'kept':>10}", style="dim")

    def _say_row(self, row: str, *, style: str) -> None:
        """Print a row of the table of phases, whose head comes before its first."""
        if not self._has_head:
            self._console.print(Text(PHASE_HEAD, style="dim"))
            self._has_head = True
        self._console.print(Text(row, style=style))

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
    return [f"{about(reading.label)}{reading.energy_j / 3600:.2f} Wh"]


def about(label: str) -> str:
    """A tilde before joules that are an estimate, not a measurement."""
    return "" if label in records.COUNTED_LABELS else "~"


def joules(energy_j: float, label: str) -> str:
    """`~34.1 J`, `~12.3 kJ`; the tilde marks an estimate."""
    if energy_j >= 10_000:
        return f"{about(label)}{energy_j / 1000:.1f} kJ"
    return f"{about(label)}{energy_j:.1f} J"


def phase_row(phase: records.Phase) -> str:
    """What a phase took and how well it used the machine, under `PHASE_HEAD`; blank where that is not known."""
    facts = [
        (10, clock(phase.duration_s)),
        (11, "" if phase.energy_j is None else joules(phase.energy_j, phase.label)),
        (10, "" if phase.tokens_per_s is None else short_number(phase.tokens_per_s)),
        (10, "" if phase.utilisation is None else f"{100 * phase.utilisation:.0f} %"),
        (7, "" if phase.real_token_fraction is None else f"{100 * phase.real_token_fraction:.0f} %"),
        (9, "" if phase.peak_memory_mb is None else _memory(phase.peak_memory_mb)),
    ]
    return f"{shorten(phase.name, 21):<21}{''.join(f'{text:>{width}}' for width, text in facts)}".rstrip()


def _memory(memory_mb: float) -> str:
    """`840 MB`, `1.24 GB`."""
    return f"{memory_mb:.0f} MB" if memory_mb < 999.5 else f"{memory_mb / 1000:.2f} GB"


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
