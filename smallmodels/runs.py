"""Run: one execution of a recipe, its folder, its phases, and the record that it leaves behind.

    with Run(folder) as run:
        recipe.main(recipe.Config(seed=1), run)

A phase is a function call that is measured and whose value is kept, so that a resumed run loads it instead of paying
again. `record.json` is written last: its presence means that the run is complete.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Protocol, TypeVar

from smallmodels import (
    __version__,
    accounts,
    checkpoints,
    energy,
    environment,
    files,
    licenses,
    privacy,
    processes,
    records,
    sources,
    values,
)
from smallmodels.errors import DamagedError, InputError, PolicyError, RunInterruptedError
from smallmodels.folders import LOCK_NAME, FolderLock, make_folder, require_private
from smallmodels.memory import PeakMemory
from smallmodels.phases import Context, Counts
from smallmodels.processes import LostProcessError
from smallmodels.progress import Display

CONFIG_NAME = "config.json"
JOURNAL_NAME = "journal.jsonl"
METRICS_NAME = "metrics.jsonl"
PREDICTIONS_NAME = "predictions.parquet"
MODEL_NAME = "model"
_RESULT_NAME = "result.json"
_VALUE_NAME = "value"
_CONFIG_KEYS = (
    *("recipe", "run_id", "started_utc", "command", "smoke", "device", "number_format", "country", "carbon_intensity"),
    *("versions", "choices", "config"),
)
"""What `config.json` has to hold for a run to go on."""
_PHASE_NAME = re.compile(r"[a-z][a-z0-9_]*")

T = TypeVar("T")


class Saves(Protocol):
    """A student, an index: anything that writes itself into a folder."""

    def save(self, folder: Path) -> None:
        """Write its files."""


class Run:
    """One execution of a recipe; a context manager.

    Args:
        folder: The run folder. It must not exist or be empty, unless `resume` is set.
        meter: Measures energy; by default CodeCarbon. A name ("codecarbon", "fake", "none") makes one of that kind.
        command: The command that started the run, for the record.
        resume: Go on with the unfinished run in `folder`.
        smoke: A few steps only; the record says so.
        device: `auto`, `cpu`, `cuda` or `mps`, for recipes to pass on as `run.device`; None is `auto`, or that of the
            run that is resumed.
        number_format: `auto`, `bf16`, `fp16` or `fp32`, passed on as `run.number_format`; `auto` is replaced by what
            the phase `setup` measured.
        country: ISO 3166 code of three letters, for grams of CO2e.
        carbon_intensity: Grams of CO2e per kWh, instead of a country.
        choices: Measured choices of an earlier run that shall be used again.
        accept_licenses: Ids of licences that would be refused (see `licenses`) and that the user accepts; a resumed run
            has those of before as well.

    Raises:
        InputError: the folder cannot be used, or there is nothing to resume.
        PolicyError: another process uses the folder, or somebody else may have written what is to be resumed.
    """

    record: records.RunRecord | None

    def __init__(
        self,
        folder: Path | str,
        *,
        meter: energy.Meter | Literal["codecarbon", "fake", "none"] = "codecarbon",
        command: str = "",
        resume: bool = False,
        smoke: bool = False,
        device: str | None = None,
        number_format: str | None = None,
        country: str | None = None,
        carbon_intensity: float | None = None,
        choices: Mapping[str, Any] | None = None,
        accept_licenses: Sequence[str] = (),
    ) -> None:
        energy.carbon(0.0, country=country, intensity_g_per_kwh=carbon_intensity)  # refuses what it does not know
        self.folder = Path(folder)
        self.device, self.smoke, self.resumed = device or "auto", smoke, resume
        self.number_format = number_format or "auto"
        self._asked = {"device": device, "number_format": number_format}
        self.record = None
        self._meter = meter
        self._command, self._country, self._carbon_intensity = command, country, carbon_intensity
        self.choices = dict(choices or {})
        self.accepted_licenses = list(dict.fromkeys(accept_licenses))
        self._recipe = ""
        self._config: Any = None
        self._started_utc, self._run_id = _now(), ""
        self._sources: list[records.Source] = []
        self._licensed: list[licenses.Licensed] = []
        self._events: list[records.Event] = []
        self._past: energy.JournalTotals | None = None
        self._counts: dict[str, Counts] = {}
        self._peaks_mb: dict[str, float | None] = {}
        self._operations_per_s: float | None = None
        self._device_used: str | None = None
        self._used_names: set[str] = set()
        self._phase, self._announced = "", False
        self._step: float | None = None
        self._stop_asked = threading.Event()
        self._num_interrupts = 0
        self._pid = os.getpid()
        self._leads, self._num_processes = True, 1
        self._made_folders: list[Path] = []
        self._previous_handlers: dict[int, Any] = {}
        self._memory = PeakMemory()

    # Opening and closing

    def __enter__(self) -> "Run":
        processes.join()
        self._leads, self._num_processes = processes.rank() == 0, processes.count()
        self._lock = FolderLock(self.folder)
        others = [pid for pid in processes.gather(os.getpid()) if pid != os.getpid()]
        processes.share(self._take_folder)
        try:
            self._read_past()
            if not self._leads:
                self._meter = energy.Meter("none")  # the first process measures for all
            elif not isinstance(self._meter, energy.Meter):
                journal = self.folder / JOURNAL_NAME
                self._meter = energy.Meter(self._meter, journal=journal, run_id=self._run_id, processes=others)
            self.meter.start()
        except BaseException:
            self._leave_folder()
            raise
        self._display = Display(self._energy_so_far, quiet=not self._leads)
        self._take_signals()
        return self

    def _take_folder(self) -> None:
        self._open_folder()
        self._lock.acquire()

    def _leave_folder(self) -> None:
        if self._leads:
            self._lock.release()
            self._remove_what_was_made()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._display.end(None, failed=kind is not None)
            if isinstance(error, (RunInterruptedError, LostProcessError, KeyboardInterrupt)):
                self.meter.journal_event("interrupted", str(error) or "stopped at once")
            self.meter.stop()
        finally:
            self._give_signals_back()
            self._lock.release()
            if self._leads and isinstance(error, (InputError, PolicyError)) and not self._has_trained():
                self._remove_what_was_made()
        if error is None:
            processes.leave()

    @property
    def meter(self) -> energy.Meter:
        """What measures the run's energy."""
        assert isinstance(self._meter, energy.Meter), "open the run first: with Run(folder) as run"
        return self._meter

    def _open_folder(self) -> None:
        if self.resumed:
            if (self.folder / records.RECORD_NAME).exists():
                raise InputError(f"the run in {self.folder} is complete, so there is nothing to resume")
            if not (self.folder / CONFIG_NAME).is_file():
                raise InputError(f"{self.folder} should be the folder of an unfinished run, but has no {CONFIG_NAME}")
            require_private(self.folder)
            make_folder(self.folder)
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise InputError(f"the run folder {self.folder} must be new or empty: choose another, or resume that run")
        make_folder(self.folder, made=self._made_folders)

    def _remove_what_was_made(self) -> None:
        """Leave nothing half-written behind: empty the run's folder, and remove what this run made of its path."""
        if self.resumed:
            return
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in reversed(self._made_folders):
            with contextlib.suppress(OSError):  # others may have put something beside it
                folder.rmdir()

    def _has_trained(self) -> bool:
        """Whether a model has worked in a finished phase, or left a checkpoint: that is worth keeping."""
        has_worked = any(counts.num_operations for counts in self._counts.values())
        return has_worked or any((self.folder / "phases").glob("*/checkpoints/*"))

    # The recipe and its config

    def begin(self, recipe: str, config: Any, *, file: Path | None = None) -> None:
        """Note what runs, seed Python, NumPy and torch, and write `config.json`. `Recipe.main` calls this.

        Args:
            recipe: Its name.
            config: A dataclass or mapping; its field `seed`, 0 if it has none, seeds everything.
            file: The recipe's file, where it is not a shipped one.

        Raises: InputError if a resumed run had another recipe or config, or the config holds a secret.
        """
        privacy.require_no_secrets(records.to_json(config), "config")
        self._recipe, self._config = recipe, config
        past = files.read_json(self.folder / CONFIG_NAME) if self.resumed else {}
        if self.resumed:
            require_same_config(self.folder, past, recipe, config)
            if changes := differences(past["versions"], environment.versions()):
                self.event("not bitwise", f"the result may differ in its last bits, because {'; '.join(changes)}")
        else:
            seed = getattr(config, "seed", 0)
            stamp = self._started_utc.replace(":", "").replace("-", "")
            self._run_id = processes.share(lambda: f"{recipe}-{stamp}-s{seed}-{uuid.uuid4().hex[:6]}")
            if self._leads:
                self._write_config(file)
        _seed_everything(int(getattr(config, "seed", 0)))

    def _write_config(self, file: Path | None) -> None:
        content = {
            "recipe": self._recipe,
            "file": str(file.resolve()) if file else None,
            "run_id": self._run_id,
            "started_utc": self._started_utc,
            "command": self._command,
            "smoke": self.smoke,
            "device": self.device,
            "number_format": self.number_format,
            "country": self._country,
            "carbon_intensity": self._carbon_intensity,
            "versions": environment.versions(),
            "choices": self.choices,
            "accepted_licenses": self.accepted_licenses,
            "config": records.to_json(self._config),
        }
        files.write_json(self.folder / CONFIG_NAME, content)

    def _read_past_config(self) -> dict[str, Any]:
        path = self.folder / CONFIG_NAME
        past = files.read_json(path)
        lacking = [name for name in _CONFIG_KEYS if not isinstance(past, dict) or name not in past]
        if lacking:
            raise DamagedError(f"{path} should say the {lacking[0]} of the run, but does not: restore it")
        return dict(past)

    def _read_past(self) -> None:
        """Take over identity, settings and events of the run that is resumed."""
        if not self.resumed:
            return
        past = self._read_past_config()
        self._started_utc, self._run_id = past["started_utc"], past["run_id"]
        self._command, self.smoke = past["command"], past["smoke"]
        for name, asked in self._asked.items():
            setattr(self, name, past[name])
            if asked not in (None, "auto", past[name]):
                flag = "--" + name.replace("_", "-")
                raise InputError(f"the run began with {flag} {past[name]} and has to keep it: leave the flag out")
        if self._country is None and self._carbon_intensity is None:
            self._country, self._carbon_intensity = past["country"], past["carbon_intensity"]
        self.choices = past["choices"]
        accepted = past.get("accepted_licenses", [])
        if further := [license_id for license_id in self.accepted_licenses if license_id not in accepted]:
            self._change_config(accepted_licenses=[*accepted, *further])
        self.accepted_licenses = [*accepted, *further]
        if (self.folder / JOURNAL_NAME).exists():
            self._past = energy.read_journal(self.folder / JOURNAL_NAME)
            self._events = list(self._past.events)
        if self._leads:
            _drop_torn_line(self.folder / METRICS_NAME)

    def choose(self, name: str, measure: Callable[[], T]) -> T:
        """A choice that is measured once, written into `config.json`, and used again on resume and repeat.

        Args:
            name: Of the choice, unique in the recipe.
            measure: Gives the choice as a JSON value; called only if it was not made before.
        """
        if name not in self.choices:
            self.choices[name] = processes.share(lambda: records.to_json(measure()))
            self._change_config(choices=records.to_json(self.choices))
        chosen: T = self.choices[name]
        return chosen

    def _change_config(self, **changes: Any) -> None:
        if self._leads:
            files.write_json(self.folder / CONFIG_NAME, files.read_json(self.folder / CONFIG_NAME) | changes)

    # Phases

    def phase(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function as a measured phase, or load what it returned before the run was interrupted.

        A function with a parameter `context` is given a `phases.Context`. A returned `models.Compute` tells the
        meter how to wait for the device, and the record how fast it is.

        Args:
            name: Unique in the run: `setup`, `teacher`, `cache`, `train`, `evaluate`, `inference`, …
            function: Returns plain values, arrays, or objects of this package with `save` and `load`.
            args: Passed on.
            kwargs: Passed on.

        Raises: RunInterruptedError if the user asked the run to stop.
        """
        assert self._recipe, "tell the run what it runs first: run.begin(recipe, config)"
        if not _PHASE_NAME.fullmatch(name) or name in self._used_names:
            raise ValueError(f"a phase's name must be new in the run, of lower-case letters and digits, got {name!r}")
        self._used_names.add(name)
        value = self._value_of_phase(name, functools.partial(self._call_phase, name, function, args, kwargs), function)
        self._adopt_compute(value)
        return value

    def _value_of_phase(self, name: str, call: Callable[[], T], function: Callable[..., T]) -> T:
        """What the phase gives: kept from before, else of the call. Other processes read what the first one kept."""
        kept = self._load_phase(name) if self._leads and self.resumed else None
        if processes.share(lambda: self._is_to_be_called(kept)):
            if processes.work_together(function):
                kept = (call(),)
                processes.share(lambda: None)  # the first one has kept it by now
            else:
                called: list[T] = []
                processes.share(lambda: called.append(call()))
                kept = (called[0],) if called else None
        if not self._leads:
            kept = self._load_phase(name)
        if kept is None:
            raise DamagedError(f"{self.folder / 'phases' / name} should hold the value of the phase: resume the run")
        value: T = kept[0]
        return value

    def _is_to_be_called(self, kept: tuple[Any] | None) -> bool:
        if kept is None:
            self._require_not_stopped()
        return kept is None

    def _call_phase(self, name: str, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        folder = self.folder / "phases" / name
        counts, num_sources = Counts(), len(self._sources)
        context = self._context(name, folder, counts)
        if _takes_context(function):
            kwargs = {**kwargs, "context": context}
        outer, self._phase = self._phase, name
        self._step = None
        self._display.start(name)
        measured = None
        try:
            with self._memory.watch() as memory, self.meter.phase(name) as measured:
                value = function(*args, **kwargs)
            self._counts[name], self._peaks_mb[name] = counts, memory.peak_mb
            if self._leads:
                self._save_phase(folder, value, counts, memory.peak_mb, self._sources[num_sources:])
        except BaseException as error:
            refused = isinstance(error, (InputError, PolicyError))  # their sentence says all
            self._display.end(None, failed=True, quiet=refused)
            raise
        finally:
            self._phase = outer
        self._announce()
        self._display.end(measured.reading)
        return value

    def _announce(self) -> None:
        """Say once what runs and where, after the first phase: until then bad input may leave no folder."""
        if not self._announced:
            self._display.say(f"{'Going on with' if self.resumed else 'Running'} {self._recipe} in {self.folder}")
            self._announced = True

    def _context(self, name: str, folder: Path, counts: Counts) -> Context:
        before = self._past.phases.get(name, energy.EnergyReading()) if self._past else energy.EnergyReading()
        since = self.meter.read(fresh=True)

        def energy_of_phase(*, fresh: bool = False) -> energy.EnergyReading:
            return before + (self.meter.read(fresh=fresh) - since)

        return Context(
            folder=folder,
            log=lambda metrics: self._log(metrics, energy_of_phase()),
            event=self.event,
            progress=self._progress,
            energy=lambda: energy_of_phase(fresh=True),  # rarely asked for, at edges where a tick is too coarse
            should_stop=self._stop_asked.is_set,
            counts=counts,
        )

    def _save_phase(
        self, folder: Path, value: Any, counts: Counts, peak_mb: float | None, sources: Sequence[records.Source]
    ) -> None:
        """Keep a phase's value: its files with a manifest first, `result.json` last."""
        folder.mkdir(parents=True, exist_ok=True)
        with files.atomic_folder(folder / _VALUE_NAME) as value_folder:
            encoded = values.encode(value, value_folder)
        if not any(path.name != files.MANIFEST for path in (folder / _VALUE_NAME).iterdir()):
            shutil.rmtree(folder / _VALUE_NAME)
        content = {
            "value": encoded,
            "counts": records.to_json(counts),
            "peak_memory_mb": peak_mb,
            "sources": records.to_json(list(sources)),
        }
        files.write_json(folder / _RESULT_NAME, {"sha256": files.sha256_json(content), **content})

    def _load_phase(self, name: str) -> tuple[Any] | None:
        """What a finished phase returned, in a tuple; None if it has to be called (again)."""
        folder = self.folder / "phases" / name
        if not (folder / _RESULT_NAME).exists():
            return None
        try:
            content = files.read_json(folder / _RESULT_NAME)
            if content.pop("sha256", None) != files.sha256_json(content):
                raise DamagedError(f"{folder / _RESULT_NAME} is not what was written: the phase has to run again")
            if (folder / _VALUE_NAME).exists():
                files.check_manifest(folder / _VALUE_NAME)
            value = values.decode(content["value"], folder / _VALUE_NAME)
            sources = [records.from_json(records.Source, source) for source in content["sources"]]
        except (DamagedError, OSError, LookupError, TypeError, ValueError, ImportError) as error:
            self.event("phase damaged", f"phase {name} runs again, because its kept value is damaged: {error}")
            return None
        self._counts[name] = accounts.counts_from_json(content["counts"])
        self._peaks_mb[name] = content["peak_memory_mb"]
        for source in sources:
            self.add_source(source)
        self._announce()
        self._display.kept(name)
        return (value,)

    def _adopt_compute(self, value: Any) -> None:
        synchronize, rate = getattr(value, "synchronize", None), getattr(value, "operations_per_s", None)
        if callable(synchronize) and isinstance(rate, (int, float)):
            self.meter.set_synchronize(synchronize)
            self._operations_per_s = float(rate)
            self._device_used = getattr(value, "device", None)
            self._keep_number_format(str(getattr(value, "number_format", self.number_format)))
            getattr(value, "use_threads", lambda: None)()

    def _keep_number_format(self, chosen: str) -> None:
        """Write the measured number format into `config.json`, so that a repeat of the run uses it again."""
        if chosen != self.number_format:
            self.number_format = chosen
            self._change_config(number_format=chosen)

    def _require_not_stopped(self) -> None:
        if self._stop_asked.is_set():
            raise RunInterruptedError("the run stopped between two phases, has saved its work, and can be resumed")

    # What phases report

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Write one line of metrics, with the joules and CPU-seconds of the run so far."""
        self._log(metrics, self._energy_so_far())

    def _log(self, metrics: Mapping[str, float | int | str], reading: energy.EnergyReading) -> None:
        line: dict[str, Any] = {"time_utc": _now(), "phase": self._phase or None}
        if self._step is not None:
            line["step"] = self._step
        line |= {"duration_s": reading.duration_s, "energy_j": reading.energy_j, "cpu_s": reading.cpu_s}
        line |= privacy.masked(metrics)
        if not self._leads:
            return
        with (self.folder / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(records.to_json(line), allow_nan=False) + "\n")

    def say(self, sentence: str) -> None:
        """Tell the user something that the record need not hold."""
        self._display.say(sentence)

    def event(self, kind: str, message: str, **details: Any) -> None:
        """Note something unusual, in the record, the journal and on the terminal."""
        message = privacy.without_secrets(message)
        self._events.append(self.meter.journal_event(kind, message, privacy.masked(records.to_json(details))))
        self._display.say(f"! {message}", style="yellow")

    def pin(self, *names: tuple[str, sources.Kind]) -> list[str]:
        """Names of models and data sets with the commits that they mean now, which a resume or repeat uses again.

        Their licences are checked first, together with those before, while nothing else of them has been read.

        Args:
            names: `(name, "model")` or `(name, "dataset")` of everything that the recipe reads, so that a run without
                network is told of all that it lacks at once.

        Raises:
            PolicyError: A licence has to be accepted and was not.
            InputError: A name is no such thing, or the hub cannot give it.
        """
        kept = [(self.choices.get(f"commit of {name}", name), kind) for name, kind in names]
        processes.share(lambda: sources.require_cached(kept))
        pinned = []
        for name, kind in names:
            pinned.append(self.choose(f"commit of {name}", functools.partial(sources.pinned_name, name, kind)))
            if declared := sources.declared_license(pinned[-1], kind):
                self._check_license(declared)
        return pinned

    def add_source(self, source: records.Source) -> None:
        """Note a model or data set that went into the run; the same one twice counts once.

        Raises: PolicyError if a licence has to be accepted and was not.
        """
        self._check_license(source)
        if source not in self._sources:
            self._sources.append(source)

    def _check_license(self, source: licenses.Licensed) -> None:
        self._licensed.append(licenses.Declared(source.name, source.license))
        licenses.require_accepted(self._licensed, self.accepted_licenses)

    def _note_idle_acceptance(self) -> None:
        """Say which accepted licences no source comes under: else a mistyped id looks like one that was needed."""
        used = {license_id for source in self._sources for license_id in licenses.ids_of(source)}
        if idle := [license_id for license_id in self.accepted_licenses if license_id not in used]:
            self.event(
                "licence", f"no source of this run comes under {', '.join(idle)}: --accept-license had no effect"
            )

    def _progress(self, done: float, total: float | None = None, **fields: Any) -> None:
        self._step = done
        self._display.update(done, total, **fields)

    def _energy_so_far(self) -> energy.EnergyReading:
        """Of the whole run, earlier segments included."""
        now = self.meter.read()
        return self._past.total + now if self._past else now

    def cost_ratio(self, phases: Sequence[str], to: Sequence[str]) -> float:
        """What some finished phases cost over what others did, shares of caches included: the measure of equal cost.

        In joules where processor or GPU count them here and all are known, else in CPU-seconds.
        """
        totals = self._totals()
        lines = accounts.phase_lines(totals, self._counts, self._peaks_mb, self._operations_per_s, self._device_used)
        (joules, cpu_s), (other_joules, other_cpu_s) = records.cost_of(lines, phases), records.cost_of(lines, to)
        if records.is_counted(self.meter.labels) and joules is not None and other_joules:
            return joules / other_joules
        return cpu_s / max(other_cpu_s, 1e-9)

    def keep(self, name: str, value: Saves) -> Path:
        """Save something beside the model, such as a search index, into a folder of the run; returns that folder."""
        if self._leads:
            with files.atomic_folder(self.folder / name) as folder:
                value.save(folder)
            (self.folder / name / files.MANIFEST).unlink()  # the record holds every hash
        return self.folder / name

    # Signals

    def _take_signals(self) -> None:
        """SIGTERM and the first Ctrl-C ask for a stop at the next safe point; the second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous_handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker inherits this handler, and has to end when its pool says so
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if number == signal.SIGINT:
            self._num_interrupts += 1
        self._stop_asked.set()
        if self._num_interrupts > 1:
            raise KeyboardInterrupt
        hint = " (press Ctrl-C again to stop at once)" if number == signal.SIGINT else ""
        # os.write, because a print inside a handler may meet the lock of a print that it interrupted.
        os.write(2, f"\nThe run stops at the next safe point and saves its work{hint}.\n".encode())

    def _give_signals_back(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous_handlers = {}

    # The end

    def finish(
        self,
        student: Saves,
        *,
        title: str,
        task: str,
        metric: str,
        margin: float | None = None,
        replaces: str = "teacher",
        results: Sequence[records.Result],
        inference: Sequence[records.Inference] = (),
        predictions: Mapping[str, Sequence[Any]] | None = None,
        curve: Sequence[records.CurvePoint] = (),
        examples: Sequence[dict[str, Any]] = (),
        model: Mapping[str, Any] | None = None,
        languages: Sequence[str] = (),
        limits: Sequence[str] = (),
        label_names: Sequence[str] | None = None,
    ) -> records.RunRecord:
        """Save the student and its predictions, work out what was paid, write card, report and, last, the record.

        Args:
            student: Saved as `model/`.
            title: One line: what was made of what.
            task: Pipeline tag of the hub.
            metric: Key of the results' metrics that ranks; higher is better.
            margin: Difference in it below which two models count as equal, where declared before the run.
            replaces: Role that the student replaces, for the point of payback.
            results: Quality by role and split.
            inference: Cost of use by role.
            predictions: Columns of `predictions.parquet`, of equal length.
            curve: Validations during training.
            examples: Uses of the student that a reader can judge: `input` and `answers`.
            model: Facts about the student, for the record.
            languages: Two-letter codes as declared by the data.
            limits: Sentences on what the model is not for and what was not tested.
            label_names: Names of the classes, for the card.
        """
        about = {
            "title": title,
            "task": task,
            "metric": metric,
            "margin": margin,
            "results": list(results),
            "inference": list(inference),
            "curve": list(curve),
            "examples": list(examples),
            "model": dict(model or {}),
            "languages": list(languages),
            "limits": list(limits),
            "label_names": list(label_names or []),
        }
        processes.share(lambda: self._complete(student, predictions, replaces, about))
        self.record = self.record or records.read_record(self.folder / records.RECORD_NAME)
        return self.record

    def _complete(
        self, student: Saves, predictions: Mapping[str, Sequence[Any]] | None, replaces: str, about: Mapping[str, Any]
    ) -> None:
        self._require_not_stopped()
        self._note_idle_acceptance()
        with self.meter.phase("export"):
            self.keep(MODEL_NAME, student)
            if predictions is not None:
                self._save_predictions(predictions)
        self.meter.stop()
        for warning in self.meter.warnings:
            self._events.append(records.Event(time_utc=_now(), kind="energy", message=warning, details={}))
        record = self._new_record(self._totals(), **about)
        record = dataclasses.replace(record, payback=accounts.payback(record, replaces=replaces))
        record = records.from_json(records.RunRecord, privacy.masked(records.to_json(record)))
        self._write_pages(record)
        files.remove_leftovers(self.folder)
        self._remove_checkpoints()
        record = dataclasses.replace(record, files=self._file_hashes())
        self.record = records.write_record(self.folder, record)

    def _totals(self) -> energy.JournalTotals:
        """What the run cost, from its journal; without one (a child of a process that measures), from the meter."""
        if (self.folder / JOURNAL_NAME).exists():
            return energy.read_journal(self.folder / JOURNAL_NAME)
        total = self.meter.read()
        return energy.JournalTotals(total, self.meter.phases, 1, False, self.meter.contended, self._events)

    def _save_predictions(self, predictions: Mapping[str, Sequence[Any]]) -> None:
        import pyarrow.parquet as pq

        content = io.BytesIO()
        pq.write_table(accounts.predictions_table(predictions), content)
        files.write_bytes(self.folder / PREDICTIONS_NAME, content.getvalue())

    def _new_record(self, totals: energy.JournalTotals, **about: Any) -> records.RunRecord:
        commit, dirty = environment.git_state()
        total, meter = totals.total, self.meter
        return records.RunRecord(
            run_id=self._run_id,
            recipe=self._recipe,
            command=self._command,
            library_version=__version__,
            git_commit=commit,
            git_dirty=dirty,
            started_utc=self._started_utc,
            ended_utc=_now(),
            smoke=self.smoke,
            num_processes=self._num_processes,
            config=privacy.values(records.to_json(self._config)),
            sources=[self._published(accounts.without_loopback_commit(source)) for source in self._sources],
            accepted_licenses=[i for i in licenses.needing_acceptance(self._sources) if i in self.accepted_licenses],
            environment=environment.environment(energy_labels=meter.labels, tracking_mode=meter.tracking_mode),
            phases=accounts.phase_lines(
                totals, self._counts, self._peaks_mb, self._operations_per_s, self._device_used
            ),
            duration_s=total.duration_s,
            cpu_s=total.cpu_s,
            energy_j=total.energy_j,
            energy_label=total.label,
            num_segments=totals.num_segments,
            energy_truncated=totals.truncated,
            contended=totals.contended,
            carbon=energy.carbon(total.energy_j, country=self._country, intensity_g_per_kwh=self._carbon_intensity),
            payback=None,
            events=[self._published(event) for event in self._events],
            **about,
        )

    def _published(self, line: T) -> T:
        """A source or event without folders and secrets."""
        return records.from_json(type(line), privacy.sentences(records.to_json(line), [self.folder]))

    def _write_pages(self, record: records.RunRecord) -> None:
        from smallmodels import cards, report

        files.write_text(self.folder / records.CARD_NAME, cards.model_card(record))
        files.write_text(self.folder / records.PAGE_NAME, report.run_page(record))

    def _file_hashes(self) -> dict[str, str]:
        """SHA-256 of every file of the run but its lock and its record."""
        own = (LOCK_NAME, records.RECORD_NAME)
        return {
            name: files.sha256_file(path)
            for name, path in files.entries(self.folder).items()
            if name not in own and files.is_plain(path)
        }

    def _remove_checkpoints(self) -> None:
        """Remove what training needed to resume; never a folder that it did not create."""
        for phase in (self.folder / "phases").glob("*"):
            checkpoints.remove_all(phase)


def require_same_config(folder: Path, past: Mapping[str, Any], recipe: str, config: Any) -> None:
    """Refuse to go on with a run under another recipe or config.

    Args:
        folder: Of the run.
        past: Its `config.json`.
        recipe: Name of the recipe that shall go on.
        config: The dataclass that it shall have.

    Raises: InputError that shows every difference.
    """
    if past["recipe"] != recipe:
        raise InputError(f"{folder} is a run of {past['recipe']}, not of {recipe}: resume it with that recipe")
    if changes := differences(past["config"], records.to_json(config)):
        raise InputError(
            f"a resumed run must keep its config, but {'; '.join(changes)}: "
            "leave these flags out, or add --fork to start a new run with them"
        )


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """What changed between two JSON values, as `learning_rate was 0.1 and is 0.2`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        prefix = f"{where}." if where else ""
        keys = [*before, *(key for key in after if key not in before)]
        nested = (differences(before.get(key, "absent"), after.get(key, "absent"), prefix + key) for key in keys)
        return [sentence for sentences in nested for sentence in sentences]
    return [] if before == after else [f"{where} was {before} and is {after}"]


def _takes_context(function: Callable[..., Any]) -> bool:
    try:
        return "context" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C do not say what they take
        return False


def _drop_torn_line(path: Path) -> None:
    """Cut what a killed run left behind the last whole line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        files.write_bytes(path, whole)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    import numpy as np

    np.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
