"""What a run notes and says while it works: lines of metrics, events for its record, the state of its phases."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smallmodels import energy, privacy, records
from smallmodels.accounts import Account
from smallmodels.errors import InputError, PolicyError
from smallmodels.progress import Display
from smallmodels.trackers import Tracker


class RunLog:
    """Where everything goes that a run or one of its phases reports.

    Args:
        folder: Of the run, for `metrics.jsonl`.
        account: What was paid until any moment; its meter has the journal.
        leads: False in another process than the first, which neither writes nor speaks.
        quiet: Write, and say nothing.
    """

    def __init__(self, folder: Path, account: Account, *, leads: bool, quiet: bool = False) -> None:
        self.display = Display(account.so_far, quiet=quiet or not leads)
        self.events: list[records.Event] = list(account.past.events) if account.past else []
        """For the record; those before an interruption come first."""
        self._path = folder / records.METRICS_NAME
        self._account = account
        self._leads = leads
        self.tracker: Tracker | None = None
        """Gets every line of metrics as well."""
        self._phase: str | None = None
        self._step: float | None = None

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What comes in this block is of a phase. If the block raises, the terminal is told that the phase failed."""
        outer, self._phase = self._phase, name
        self._step = None
        self.display.start(name)
        try:
            yield
        except BaseException as error:
            refused = isinstance(error, (InputError, PolicyError))  # their sentence says all
            self.display.end(None, failed=True, quiet=refused)
            raise
        finally:
            self._phase = outer

    def metrics(self, metrics: Mapping[str, float | int | str], reading: energy.EnergyReading) -> None:
        """Write one line of metrics, with the phase, its last step, and what was paid."""
        line: dict[str, Any] = {"time_utc": records.now(), "phase": self._phase}
        if self._step is not None:
            line["step"] = self._step
        line |= {"duration_s": reading.duration_s, "energy_j": reading.energy_j, "cpu_s": reading.cpu_s}
        line |= privacy.masked(metrics)
        if not self._leads:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(records.to_json(line), allow_nan=False) + "\n")
        if self.tracker is not None:
            self.tracker.log(line, self._account.so_far())

    def track(self, tracker: Tracker) -> None:
        """Send the lines that follow to a tracker too."""
        with contextlib.suppress(OSError, ValueError):  # there are none yet, or somebody changed them
            tracker.continue_after([json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()])
        self.tracker = tracker

    def end_tracking(self) -> None:
        """Close the tracker, if there is one."""
        if self.tracker is not None:
            self.tracker.close()
            self.tracker = None

    def progress(self, done: float, total: float | None = None, **fields: Any) -> None:
        """Show how far the phase is; `done` is the step of the lines that follow."""
        self._step = done
        self.display.update(done, total, **fields)

    def event(self, kind: str, message: str, **details: Any) -> None:
        """Note something unusual, for the record, in the journal and on the terminal."""
        message = privacy.without_secrets(message)
        self.events.append(self._account.meter.journal_event(kind, message, privacy.masked(records.to_json(details))))
        self.display.say(f"! {message}", style="yellow")
