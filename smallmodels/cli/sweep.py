"""The command `smallmodels sweep`: every cell of a benchmark in a fresh process, one at a time.

    <out>/[<name of the sweep>/]sweep.json                              what was declared, for the runs
    <out>/[<name of the sweep>/]<cell>/<recipe>/<utc time>-s<seed>/     the run of a cell

The name is there where the file holds SWEEPS. A sweep that was stopped or killed goes on when it is run again.
"""

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import configs, files, folders, records, settings, sweeps
from smallmodels.cli import forecasts, workers
from smallmodels.cli.flags import SWEPT_OPTIONS
from smallmodels.cli.forecasts import CellForecast
from smallmodels.cli.recipes import find_recipe, load_file
from smallmodels.cli.terminal import plain_console
from smallmodels.errors import DamagedError, InputError, RunInterruptedError, SmallmodelsError
from smallmodels.stopping import StopSignals
from smallmodels.sweeps import Cell, Sweep
from smallmodels.text import printable, shorten

DECLARATION_NAME = "sweep.json"
_POLL_S = 0.5
"""How often a sweep looks whether another one has left its folder."""
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


_OF_TEACHER = ("teacher", "dataset", "max_train", "max_length", "split")
"""How the names of settings begin that a teacher depends on. One too few makes a cell wait for another's teacher for
nothing, one too many lets two make the same one; neither is wrong."""


@dataclass(kw_only=True, eq=False)
class Job:
    """A cell on its way to a record."""

    name: str
    """Of the sweep."""
    sweep: Sweep
    cell: Cell
    recipe: Path
    """Its file."""
    folder: Path
    """Of the sweep."""
    config: Any = None
    """As `config.json` holds it."""
    declared: records.Declaration | None = None
    """Before the first run of the sweep."""
    record: records.RunRecord | None = None
    """Of its complete run."""
    finished: Path | None = None
    """Folder of that run."""
    unfinished: Path | None = None
    """Folder of a run that can go on."""
    forecast: CellForecast | None = None
    """What it takes after those before it, where somebody asked."""
    state: str = ""
    """For people."""

    @property
    def declaration(self) -> Path:
        """The file that tells the runs what the sweep declares."""
        return self.folder / DECLARATION_NAME

    @property
    def options(self) -> dict[str, Any]:
        """Values of the axes that are options of the run."""
        return {axis: value for axis, value in self.cell.values.items() if axis in SWEPT_OPTIONS}

    @property
    def teacher(self) -> str | None:
        """Equal for cells that share a teacher in the cache, as far as their settings tell; None for one without."""
        settings_of = self.config if isinstance(self.config, Mapping) else {}
        if settings_of.get("teacher") is None:
            return None
        return files.sha256_json({name: settings_of[name] for name in settings_of if name.startswith(_OF_TEACHER)})

    def look(self) -> None:
        """See which runs of the cell there are.

        Raises:
            InputError: A complete one has another config, or is of another sweep.
            DamagedError: A complete one cannot be read.
        """
        self.record = self.finished = self.unfinished = None
        for folder in sorted((self.folder / self.cell.folder_name).glob("*/*")):
            if (folder / records.RECORD_NAME).is_file():
                record = records.read_record(folder)
                changes = self._changes(settings.read(folder))
                if changes:
                    raise InputError(
                        f"{folder} should be a run of this sweep, but {'; '.join(changes)}: choose another folder with "
                        "--out, or remove that run"
                    )
                self.record, self.finished = record, folder
            elif (folder / folders.CONFIG_NAME).is_file() and self._can_go_on(folder):
                self.unfinished = folder
        self.state = "done" if self.record else "to go on" if self.unfinished else "to run"

    def _changes(self, past: Mapping[str, Any]) -> list[str]:
        """What the sweep wants otherwise than a run of the cell has it, given the run's `config.json`."""
        before = {"config": past["config"], "sweep": past.get("sweep")}
        after = {"config": self.config, "sweep": records.to_json(self.declared)}
        return [change.removeprefix("config.") for change in settings.differences(before, after)]

    def _can_go_on(self, folder: Path) -> bool:
        """Whether an unfinished run is still what the cell asks for; else a new one takes its place."""
        try:
            past = settings.read(folder)
            settings.require_same_recipe_file(past, self.recipe)
        except (InputError, DamagedError):
            return False
        return not self._changes(past)

    def command(self) -> list[str]:
        """What runs the cell, or goes on with it."""
        words = [sys.executable, "-m", "smallmodels", "run", str(self.recipe)]
        if self.unfinished:
            return [*words, "--resume", str(self.unfinished)]
        out = self.folder / self.cell.folder_name
        return [*words, *self.cell.flags, "--sweep", str(self.declaration), "--out", str(out)]


def run_sweeps(
    file: Path,
    out: Path | None,
    *,
    only: Sequence[str],
    dry_run: bool,
    debug: bool,
    forecast: bool = False,
    send: workers.Send | None = None,
) -> int:
    """Run the cells of a benchmark file that are not done.

    Args:
        file: Holds SWEEP or SWEEPS.
        out: Folder for all runs; None is `runs/sweeps/<name of the file>`.
        only: Names of the sweeps to take; empty takes all.
        dry_run: Check and list the cells only.
        debug: Show the traceback of an error in a recipe.
        forecast: Say what the cells take that are to run.
        send: Gives cells to workers; one after the other in this machine if None.

    Returns: The exit code.

    Raises:
        InputError: The file, a cell, or what is in the folder does not fit; nothing has run.
        RunInterruptedError: It was asked to stop.
        SmallmodelsError: A cell failed; the others have run.
    """
    if not file.is_file():
        raise InputError(f"there is no sweep file {file}: check the path")
    print(f"Running {printable(str(file))}, which is code: run only sweeps that you trust.", file=sys.stderr)
    out = out or Path("runs") / "sweeps" / file.stem
    records.require_outside_runs(out, "--out")
    jobs = _jobs(load_sweeps(file), only, file, out)
    _check_cells(jobs, debug=debug)
    if dry_run:
        _look(jobs)
        if forecast:
            _foretell(jobs)
    else:
        _Runner(jobs, out, send).run()
    _list(jobs, out)
    if failed := [job for job in jobs if job.state.startswith("failed")]:
        raise SmallmodelsError(
            f"{len(failed)} of {len(jobs)} cells failed and said why: mend that, run the sweep again, and it goes on"
        )
    return 0


# The sweeps of a file and their cells


def load_sweeps(file: Path) -> dict[str, Sweep]:
    """The sweeps of a benchmark file by name; a single one has the empty name. This runs the file's code.

    Raises: InputError if there are none.
    """
    module = load_file(file, "sweep")
    found: Any = getattr(module, "SWEEPS", None)
    if found is None and hasattr(module, "SWEEP"):
        found = {"": module.SWEEP}
    if not (isinstance(found, Mapping) and found and all(isinstance(sweep, Sweep) for sweep in found.values())):
        raise InputError(
            f"{file} should define SWEEP = Sweep(…), or SWEEPS with several of them by name, but does not: "
            "see `smallmodels.sweeps`"
        )
    if bad := [name for name in found if name and not (isinstance(name, str) and _SWEEP_NAME.fullmatch(name))]:
        raise InputError(f"the name of a sweep should be letters, digits and . _ - alone, got {bad[0]!r} in {file}")
    return dict(found)


def _jobs(found: Mapping[str, Sweep], only: Sequence[str], file: Path, out: Path) -> list[Job]:
    if unknown := [name for name in only if name not in found]:
        hint = configs.suggestion(unknown[0], found) or f": it has {', '.join(filter(None, found)) or 'one alone'}"
        raise InputError(f"{file} has no sweep {unknown[0]!r}{hint}")
    chosen = {name: sweep for name, sweep in found.items() if not only or name in only}
    return [
        Job(
            name=name or file.stem,
            sweep=chosen[name],
            cell=cell,
            recipe=_recipe_file(cell.recipe, file),
            folder=out / name,
        )
        for name, cell in sweeps.in_turn(chosen)
    ]


def _recipe_file(name: str, file: Path) -> Path:
    """The file of a recipe that a sweep names."""
    if not name.endswith(".py"):
        return find_recipe(name)
    return find_recipe(str(file.resolve().parent.parent / name))


def _check_cells(jobs: Sequence[Job], *, debug: bool) -> None:
    """Give every job its config, in a process that imports what the recipes import.

    Raises: SystemExit with the exit code of that process, which has said what is wrong.
    """
    asked = [
        {
            "recipe": str(job.recipe),
            "metric": job.sweep.metric,
            "values": records.to_json(job.cell.values),
            "flags": job.cell.flags,
        }
        for job in jobs
    ]
    command = [sys.executable, "-m", "smallmodels.cli.cells", *(["--debug"] if debug else [])]
    done = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    for job, config in zip(jobs, json.loads(done.stdout.splitlines()[-1]), strict=True):
        job.config = config


# What there is already


def _look(jobs: Sequence[Job]) -> None:
    """See what the sweeps have declared, and which runs of the cells there are.

    Raises: InputError if either is something else than is asked for now.
    """
    declared = {folder: _declaration(job) for folder, job in {job.folder: job for job in jobs}.items()}
    for job in jobs:
        job.declared = declared[job.folder]
        job.look()


def _declaration(job: Job) -> records.Declaration:
    """What a sweep has declared before its first run, or declares now.

    Raises: InputError if it was something else then.
    """
    now: dict[str, Any] = {"metric": job.sweep.metric, "margin": float(job.sweep.margin)}
    if not job.declaration.is_file():
        stamp = re.sub(r"[:-]", "", records.now())
        return records.Declaration(sweep_id=f"{job.name}-{stamp}-{uuid.uuid4().hex[:6]}", **now)
    before = sweeps.read_declaration(job.declaration)
    if changes := settings.differences({"metric": before.metric, "margin": before.margin}, now):
        raise InputError(
            f"what a sweep declares has to stand before its first run, but {' and '.join(changes)} "
            f"({job.declaration}): undo that, or start anew with another --out"
        )
    return before


def _foretell(jobs: Sequence[Job]) -> None:
    """Say of every cell that is not done what it would take: by records of its config, else by one trial of it.

    Raises: SystemExit if a trial fails, which has said why.
    """
    known: dict[str, CellForecast] = {}
    keys = [forecasts.config_key(job.recipe, job.config, job.options) for job in jobs]
    for key in dict.fromkeys(keys):
        alike = [job for job, own in zip(jobs, keys, strict=True) if own == key]
        done = [(job.finished, job.record) for job in alike if job.finished and job.record]
        if len(done) == len(alike):
            continue
        if done:
            known[key] = forecasts.from_records(done)
        else:
            known[key] = forecasts.from_trial(alike[0].recipe, alike[0].cell.flags)
    awaited = [(job, known[key]) for job, key in zip(jobs, keys, strict=True) if job.record is None]
    takes = forecasts.one_after_the_other([alone for _, alone in awaited])
    for (job, _), forecast in zip(awaited, takes, strict=True):
        job.forecast = forecast


# Running


class _Runner:
    """Runs jobs in turn, or on workers, and passes on what it is told to those that run."""

    def __init__(self, jobs: Sequence[Job], out: Path, send: workers.Send | None = None) -> None:
        self._jobs = jobs
        self._out = out
        self._send = send
        self._sent: Sequence[workers.Sent] = ()
        self._lock = folders.FolderLock(out)
        self._child: subprocess.Popen[bytes] | None = None
        self._stop = StopSignals(pass_on=self._tell)

    def run(self) -> None:
        """Run what is not done.

        Raises: RunInterruptedError if it was asked to stop before all was done, after listing what is.
        """
        self._stop.take()
        try:
            folders.make_folder(self._out)
            self._wait_for_others()
            self._lock.acquire()
            _look(self._jobs)
            if self._send is not None:
                self._run_on_workers(self._send)
            else:
                for number, job in enumerate(self._jobs, 1):
                    if job.record is None and not self._stop.asked():
                        self._run_one(job, f"{number} of {len(self._jobs)}")
        finally:
            self._lock.release()
            self._stop.give_back()
        if self._stop.asked() and any(job.record is None for job in self._jobs):
            _list(self._jobs, self._out)
            raise RunInterruptedError("the sweep was stopped: run it again, and it goes on")

    def _wait_for_others(self) -> None:
        """Wait for another sweep in this folder, or for the run that one left behind when it was killed."""
        has_said = False
        while holder := folders.holder(self._out):
            if self._stop.asked():
                raise RunInterruptedError("the sweep was stopped before it began")
            if not has_said:
                print(f"Waiting for the run that {holder} has begun in {self._out}.", file=sys.stderr)
            has_said = True
            time.sleep(_POLL_S)

    def _run_on_workers(self, send: workers.Send) -> None:
        """Give all jobs that are not done to workers, and wait for them.

        Of those that share a teacher one goes first, because the others would wait for it on machines of their own,
        and pay for that.
        """
        left = [job for job in self._jobs if job.record is None]
        for job in left:
            _declare(job)
        working: list[_Working] = []
        while working or (left and not self._stop.asked()):
            now = [] if self._stop.asked() else _that_can_go(left, [each.job for each in working], self._jobs)
            if now:
                left = [job for job in left if job not in now]
                after = f"; {len(left)} follow when their teachers are there" if left else ""
                print(f"Sending {len(now)} of {len(self._jobs)} cells{after}", flush=True)
                working += self._give(now, send)
            ended = [each for each in working if each.sent.has_ended()]
            for each in ended:
                self._end(each)
            working = [each for each in working if each not in ended]
            if working and not ended:
                time.sleep(_POLL_S)

    def _give(self, jobs: Sequence[Job], send: workers.Send) -> list["_Working"]:
        sent = send([(job.command(), job.folder / job.cell.folder_name) for job in jobs])
        self._sent = [*self._sent, *sent]
        if self._stop.asked():  # before there was anybody to tell
            for each in sent:
                each.stop()
        return [_Working(job, each, time.monotonic()) for job, each in zip(jobs, sent, strict=True)]

    def _end(self, each: "_Working") -> None:
        code = each.sent.wait()
        each.job.look()
        took_s = time.monotonic() - each.began
        each.job.state = _state(each.job, code, took_s, is_stopped=self._stop.asked())

    def _run_one(self, job: Job, place: str) -> None:
        _declare(job)
        verb = "Going on with" if job.unfinished else "Running"
        print(f"\n{verb} cell {place}: {' '.join([job.cell.name, *job.cell.settings])}", flush=True)
        began = time.monotonic()
        code = self._call(job.command())
        job.look()
        job.state = _state(job, code, time.monotonic() - began, is_stopped=self._stop.asked())

    def _call(self, command: Sequence[str]) -> int:
        """Run a command in a process group of its own, so that Ctrl-C reaches it through us alone, once.

        It inherits the lock of the sweep's folder, so that whoever comes after our sudden death waits for its end.
        """
        kept = () if sys.platform == "win32" else (self._lock.fileno(),)
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=kept, process_group=0)
        if self._stop.asked():  # before there was anybody to tell
            self._child.terminate()
        return self._child.wait()

    def _tell(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)
        for sent in self._sent:
            sent.stop()


@dataclass(frozen=True, eq=False)
class _Working:
    """A job that a worker has."""

    job: Job
    sent: workers.Sent
    began: float


def _that_can_go(left: Sequence[Job], working: Sequence[Job], jobs: Sequence[Job]) -> list[Job]:
    """Those of the jobs that are left that need nobody: their teacher is there, or nobody makes it and they will.

    Args:
        left: Not given to a worker yet.
        working: Given to one.
        jobs: All; what those with a record needed is there.
    """
    there = {job.teacher for job in jobs if job.record is not None}
    in_making = {job.teacher for job in working}
    found = []
    for job in left:
        if job.teacher is None or job.teacher in there or job.teacher not in in_making:
            found.append(job)
            in_making.add(job.teacher)
    return found


def _declare(job: Job) -> None:
    """Write down what the sweep declares, before its first run."""
    folders.make_folder(job.folder)
    if not job.declaration.exists():
        files.write_json(job.declaration, records.to_json(job.declared))


def _state(job: Job, code: int, duration_s: float, *, is_stopped: bool) -> str:
    from smallmodels.report import formats

    if job.record is not None:
        return f"ran {formats.duration(duration_s)}"
    if is_stopped:
        return "stopped"
    return f"failed, signal {-code}" if code < 0 else f"failed, exit {code}"


# What became of the cells


def _list(jobs: Sequence[Job], out: Path) -> None:
    for name in dict.fromkeys(job.name for job in jobs):
        _print_table(name, [job for job in jobs if job.name == name])
    for line in (*_forecast_lines(jobs), *_unfinished_lines(jobs), *_shared_lines(jobs)):
        print(line)
    print(f"{sum(job.record is not None for job in jobs)} of {len(jobs)} cells are done, in")
    print(out)


def _print_table(name: str, jobs: Sequence[Job]) -> None:
    """The cells of one sweep in 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from smallmodels.report import formats, words

    table = Table(title=Text(name, style="bold"), title_justify="left", box=box.SIMPLE, padding=(0, 1))
    metric = jobs[0].sweep.metric
    table.add_column("Recipe", overflow="fold", max_width=26)
    table.add_column("Settings", overflow="fold")
    table.add_column("State", no_wrap=True)
    has_forecast = any(job.forecast for job in jobs)
    if has_forecast:
        for head in ("Time", "Energy", "Disk", "By"):
            table.add_column(head, justify="right", no_wrap=True)
    else:
        table.add_column(Text(shorten(formats.metric_name(metric), 10)), justify="right", no_wrap=True)
    common = _common_settings(jobs)
    for job in jobs:
        result = words.main_result(job.record) if job.record else None
        value = formats.quality(metric, words.metric_value(result, metric))
        own = [setting for setting in job.cell.settings if setting not in common]
        cells = [job.cell.name, printable(" ".join(own)), job.state]
        cells += _forecast_cells(job.forecast) if has_forecast else [value]
        table.add_row(*map(Text, cells), style="red" if job.state.startswith("failed") else None)
    console = plain_console()
    console.print(table)
    if common:
        console.print(Text(f"Of all: {printable(' '.join(common))}"))


def _common_settings(jobs: Sequence[Job]) -> list[str]:
    """What several cells have alike, but for the seed, which need not stand beside each."""
    if len(jobs) == 1:
        return []
    alike = (setting for setting in jobs[0].cell.settings if all(setting in job.cell.settings for job in jobs))
    return [setting for setting in alike if not setting.startswith(f"{sweeps.SEED}=")]


def _forecast_cells(found: CellForecast | None) -> list[str]:
    from smallmodels.progress import about
    from smallmodels.report import formats

    if found is None:
        return ["", "", "", ""]
    energy_j = f"{about(found.label) if found.energy_j is not None else ''}{formats.energy(found.energy_j)}"
    return [formats.duration(found.duration_s), energy_j, formats.size(found.disk_bytes, 2), found.source]


def _forecast_lines(jobs: Sequence[Job]) -> list[str]:
    """What all cells take that are to run."""
    from smallmodels.report import formats

    found = [job.forecast for job in jobs if job.forecast]
    if not found:
        return []
    whole = forecasts.total(found)
    kind = "" if whole.is_counted or whole.energy_j is None else " (an estimate, not a measurement)"
    lines = [
        f"{len(found)} cells take about {formats.duration(whole.duration_s)} ({formats.duration(whole.low_s)} to "
        f"{formats.duration(whole.high_s)}), {formats.energy(whole.energy_j)}{kind} and "
        f"{formats.size(whole.disk_bytes)} of disk."
    ]
    if whole.spared_s > 0:
        lines.append(
            f"What they share in the cache is counted once, for the first that needs it; it spares the others "
            f"{formats.duration(whole.spared_s)}."
        )
    return lines


def _unfinished_lines(jobs: Sequence[Job]) -> list[str]:
    """What was paid for runs that left no record."""
    from smallmodels.cli import gathering
    from smallmodels.report import words

    own = dict.fromkeys(job.folder for job in jobs)
    found = [run for folder in own if folder.is_dir() for run in gathering.unfinished_runs(folder)]
    return [f"{words.unfinished(found)}, as `smallmodels report` counts them."] if found else []


def _shared_lines(jobs: Sequence[Job]) -> list[str]:
    """Which cells were on one machine at the same time."""
    stays = [stay for folder in {job.folder for job in jobs} for stay in sweeps.read_stays(folder)]
    shared = sweeps.shared_nodes(stays)
    if not shared:
        return []
    return [
        f"{len(shared)} cells shared a machine with others, so their times and joules are doubtful: "
        f"{', '.join(sorted(shared))}"
    ]
