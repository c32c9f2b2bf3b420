"""Run: one execution of a recipe, its folder, its phases, and the record that it leaves behind.

    with Run(folder) as run:
        recipe.main(recipe.Config(seed=1), run)

A phase is a function call that is measured and whose value is kept, so that a resumed run loads it instead of paying
again. `record.json` is written last: its presence means that the run is complete.
"""

import functools
import os
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from smallmodels import (
    checkpoints,
    energy,
    environment,
    files,
    finishing,
    idle,
    kept,
    licenses,
    memory,
    parts,
    privacy,
    processes,
    records,
    settings,
    sources,
    trackers,
)
from smallmodels.accounts import Account
from smallmodels.errors import (
    BudgetError,
    DamagedError,
    InputError,
    PolicyError,
    RunInterruptedError,
    require,
)
from smallmodels.folders import RunFolder
from smallmodels.kept import Kept
from smallmodels.limits import NO_LIMITS, Limits, Watch
from smallmodels.log import RunLog
from smallmodels.phases import Context, Counts, Rules, takes_context
from smallmodels.processes import LostProcessError
from smallmodels.settings import Settings, differences, require_same_config
from smallmodels.stopping import StopSignals

__all__ = ["Run", "Saves", "differences", "require_same_config"]

MODEL_NAME = "model"
_COMPUTE = "compute"
"""Name of the choice of how models run."""
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
        resume: Go on with the run in `folder`, which is unfinished or was stopped by a limit.
        smoke: A few steps only; the record says so.
        device: `auto`, `cpu`, `cuda` or `mps`, for recipes to pass on with `run.compute`; None is `auto`, or that of
            the run that is resumed.
        number_format: `auto`, `bf16`, `fp16` or `fp32`, for `run.compute` likewise; `auto` is replaced by what the
            phase `setup` measured.
        num_threads: Of the processor, for `run.compute` likewise; None is one for each core.
        inference_protocol: How the cost of a use is measured (see `evaluation.measure_inference`); None is
            `indicative`, or that of the run that is resumed. A smoke run takes one window.
        idle_seconds: Watch the idle machine for so long before the first phase, as the phase `idle`; 60 is usual. A
            run that is resumed keeps what it began with.
        country: ISO 3166 code of three letters, for grams of CO2e.
        carbon_intensity: Grams of CO2e per kWh, instead of a country.
        choices: Measured choices of an earlier run that shall be used again.
        accept_licenses: Ids of licences that would be refused (see `licenses`) and that the user accepts; a resumed run
            has those of before as well.
        sweep: What was declared by the sweep that the run belongs to; None is none, or that of the run that is resumed.
        limits: A budget and a rule on gains; a resumed run has those that are given now and not those of before.
        log_with: A tracker that gets every line of metrics too, with joules and CPU-seconds; likewise.
        quiet: Say nothing on the terminal.

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
        num_threads: int | None = None,
        inference_protocol: Literal["indicative", "full"] | None = None,
        idle_seconds: float | None = None,
        country: str | None = None,
        carbon_intensity: float | None = None,
        choices: Mapping[str, Any] | None = None,
        accept_licenses: Sequence[str] = (),
        sweep: records.Declaration | None = None,
        limits: Limits = NO_LIMITS,
        log_with: trackers.Name | None = None,
        quiet: bool = False,
    ) -> None:
        if log_with is not None:
            trackers.require_installed(log_with)
        if smoke and inference_protocol == "full":
            raise InputError(
                "a smoke run takes one window of each model, --inference-protocol full ten: leave one of the two out"
            )
        require(idle_seconds is None or idle_seconds > 0, "idle_seconds", "> 0", idle_seconds)
        energy.carbon(0.0, country=country, intensity_g_per_kwh=carbon_intensity)  # refuses what it does not know
        self.folder = Path(folder)
        self.resumed = resume
        self.record = None
        self._settings = Settings(
            command=command,
            smoke=smoke,
            device=device or "auto",
            number_format=number_format or "auto",
            num_threads=num_threads,
            inference_protocol=inference_protocol,
            idle_seconds=idle_seconds,
            country=country,
            carbon_intensity=carbon_intensity,
            choices=dict(choices or {}),
            accepted_licenses=list(dict.fromkeys(accept_licenses)),
            sweep=sweep,
            limits=limits,
        )
        self._run_folder = RunFolder(self.folder, resumed=resume)
        self._stop_signals = StopSignals()
        self._memory = memory.PeakMemory()
        self._meter = meter
        self._log_with = log_with
        self._leads, self._num_processes = True, 1
        self._sources: list[records.Source] = []
        self._licensed: list[licenses.Licensed] = []
        self._used_names: set[str] = set()
        self._used_choices: set[str] = set()
        self._num_steps: dict[str, int] = {}
        self._stops: dict[str, records.Stop] = {}
        self._controls: set[str] = set()
        self._goes_past_a_stop = False
        self._kept: set[str] = set()
        self._announced = False
        self._quiet = quiet

    @property
    def meter(self) -> energy.Meter:
        """What measures the run's energy."""
        assert isinstance(self._meter, energy.Meter), "open the run first: with Run(folder) as run"
        return self._meter

    @property
    def compute(self) -> dict[str, Any]:
        """What was asked of the device, or chosen by the run that is repeated: options of `models.choose_compute`."""
        asked = {name: getattr(self._settings, name) for name in ("device", "number_format", "num_threads")}
        earlier = self._settings.choices.get(_COMPUTE, {})
        return {**earlier, **{name: value for name, value in asked.items() if value not in ("auto", None)}}

    @property
    def smoke(self) -> bool:
        """Whether this is a few steps only."""
        return self._settings.smoke

    # Opening and closing

    def __enter__(self) -> "Run":
        processes.join()
        self._leads, self._num_processes = processes.rank() == 0, processes.count()
        others = [pid for pid in processes.gather(os.getpid()) if pid != os.getpid()]
        processes.share(self._run_folder.take)
        try:
            past = self._take_over() if self.resumed else None
            journal = self.folder / records.JOURNAL_NAME
            if not self._leads:
                self._meter = energy.Meter("none")  # the first process measures for all
            elif not isinstance(self._meter, energy.Meter):
                run_id = self._settings.run_id
                self._meter = energy.Meter(self._meter, journal=journal, run_id=run_id, processes=others)
            self.meter.start()
            if self._leads:
                self._require_energy()
        except BaseException:
            if self._leads:
                self._run_folder.release()
                self._run_folder.undo()
            raise
        self._account = Account(self.meter, journal, past)
        self._watch = Watch(self._settings.limits if self._leads else NO_LIMITS, self._account.so_far)
        self._log = RunLog(self.folder, self._account, leads=self._leads, quiet=self._quiet)
        self._stop_signals.take()
        if self._leads and (loss := self._account.loss(kept.names(self.folder / "phases"))):
            self.event(energy.LOSS, loss[0], **loss[1])
        return self

    def _require_energy(self) -> None:
        """Refuse a limit on energy where there is no reading of it; InputError names the flag."""
        try:
            self._settings.limits.require_energy(self.meter.read())
        except InputError:
            self.meter.stop()
            raise

    def _take_over(self) -> energy.JournalTotals:
        """Go on with the settings of the run that is resumed; returns what its journal says, nothing if it is gone."""
        past = settings.read(self.folder)
        self._settings.take_over(past)
        if self._settings.accepted_licenses != past.get("accepted_licenses", []):
            self._change_config(accepted_licenses=self._settings.accepted_licenses)
        journal = self.folder / records.JOURNAL_NAME
        nothing = energy.JournalTotals(energy.EnergyReading(), {}, 0, True, False, [])
        paid = energy.read_journal(journal) if journal.exists() else nothing
        processes.share(lambda: self._set_record_aside(paid.total))
        if self._leads:
            files.drop_torn_line(self.folder / records.METRICS_NAME)
        return paid

    def _set_record_aside(self, paid: energy.EnergyReading) -> None:
        """Keep the record of a run that was stopped by a limit and goes on, before anything in it changes.

        Raises: InputError if it would be stopped by the same limit again.
        """
        if not (self.folder / records.RECORD_NAME).exists():
            return
        stops, limits = records.read_record(self.folder).stops, self._settings.limits
        if not any(limits.lift(stop, paid) for stop in stops):
            spent = limits.spent(paid)
            why = f"has spent its budget of {spent}" if spent else f"was stopped by its rule of {stops[0].limit}"
            raise InputError(
                f"the run in {self.folder} {why}, so it cannot go on: give it {'more' if spent else 'another rule'}, "
                "or no limit"
            )
        records.set_aside(self.folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._log.display.end(None, failed=kind is not None)
            self._log.end_tracking()
            if isinstance(error, (RunInterruptedError, LostProcessError, KeyboardInterrupt)):
                self.meter.journal_event("interrupted", str(error) or "stopped at once")
            self.meter.stop()
        finally:
            self._stop_signals.give_back()
            self._run_folder.release()
            if self._leads and isinstance(error, (InputError, PolicyError)) and not self._has_trained():
                self._run_folder.undo()
        if error is None:
            processes.leave()

    def _has_trained(self) -> bool:
        """Whether a model has worked in a finished phase, or left a checkpoint: that is worth keeping."""
        has_worked = any(counts.num_operations for counts in self._account.counts.values())
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
        self._settings.recipe, self._settings.config = recipe, config
        if self.resumed:
            past = settings.read(self.folder)
            require_same_config(self.folder, past, recipe, config)
            settings.require_same_recipe_file(past, file)
            if changes := settings.other_versions(past):
                self.event("not bitwise", f"the result may differ in its last bits, because {'; '.join(changes)}")
            if changed := settings.other_limits(past, self._settings.limits):
                self.event("limits", changed)
                self._change_config(limits=records.to_json(self._settings.limits))
        else:
            self._settings.run_id = processes.share(self._settings.new_run_id)
            if self._leads:
                settings.write(self.folder, self._settings, file=file)
        if self._log_with is not None and self._leads:
            self._track(self._log_with)
        _seed_everything(self._settings.seed)

    def _track(self, name: trackers.Name) -> None:
        self._log.track(
            trackers.Tracker(
                name,
                self.folder,
                run_id=self._settings.run_id,
                recipe=self._settings.recipe,
                config=self._settings.config,
                failed=functools.partial(self.event, "tracker"),
            )
        )

    def choose(self, name: str, measure: Callable[[], T]) -> T:
        """A choice that is measured once, written into `config.json`, and used again on resume and repeat.

        Args:
            name: Of the choice, unique in the recipe.
            measure: Gives the choice as a JSON value; called only if it was not made before.
        """
        choices = self._settings.choices
        self._used_choices.add(name)
        if name not in choices:
            choices[name] = processes.share(lambda: records.to_json(measure()))
            self._change_config(choices=records.to_json(choices))
        chosen: T = choices[name]
        return chosen

    def _change_config(self, **changes: Any) -> None:
        if self._leads:
            settings.change(self.folder, **changes)

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
        assert self._settings.recipe, "tell the run what it runs first: run.begin(recipe, config)"
        if self._settings.idle_seconds is not None and name != records.IDLE and not self._used_names:
            self.phase(records.IDLE, idle.rest, self._settings.idle_seconds)
        if not _PHASE_NAME.fullmatch(name) or name in self._used_names:
            raise ValueError(f"a phase's name must be new in the run, of lower-case letters and digits, got {name!r}")
        self._used_names.add(name)
        value = self._value_of_phase(name, functools.partial(self._call_phase, name, function, args, kwargs), function)
        self._adopt_compute(value)
        return value

    def _value_of_phase(self, name: str, call: Callable[[], T], function: Callable[..., T]) -> T:
        """What the phase gives: kept from before, else of the call. Other processes read what the first one kept."""
        found = self._load_phase(name) if self._leads and self.resumed else None
        if processes.share(lambda: self._goes_past_a_stop):
            self._forget_later_choices()
        if processes.share(lambda: self._is_to_be_called(found)):
            if processes.work_together(function):
                found = (call(),)
                processes.share(lambda: None)  # the first one has kept it by now
            else:
                called: list[T] = []
                processes.share(lambda: called.append(call()))
                found = (called[0],) if called else None
        if not self._leads:
            found = self._load_phase(name)
        if found is None:
            raise DamagedError(f"{self.folder / 'phases' / name} should hold the value of the phase: resume the run")
        value: T = found[0]
        return value

    def _is_to_be_called(self, found: tuple[Any] | None) -> bool:
        if found is None:
            self._require_not_stopped()
        return found is None

    def _call_phase(self, name: str, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        memory.give_back()  # what earlier phases have freed is not memory of this one
        folder = self.folder / "phases" / name
        counts, num_sources = Counts(), len(self._sources)
        context = self._context(name, folder, counts)
        if takes_context(function):
            kwargs = {**kwargs, "context": context}
        with self._log.phase(name):
            with self._memory.watch() as seen, self.meter.phase(name) as measured:
                value = function(*args, **kwargs)
            self._account.add(name, counts, seen.peak_mb)
            if self._leads:
                steps, stop = self._num_steps.get(name, 0), self._stops.get(name)
                kept.save(folder, Kept(value, counts, seen.peak_mb, self._sources[num_sources:], steps, stop))
        self._announce()
        self._log.display.end(self._account.finished_phase(name, measured.reading))
        return value

    def _announce(self) -> None:
        """Say once what runs and where, after the first phase: until then bad input may leave no folder."""
        if not self._announced:
            verb = "Going on with" if self.resumed else "Running"
            self.say(f"{verb} {self._settings.recipe} in {self.folder}")
            self._announced = True

    def _context(self, name: str, folder: Path, counts: Counts) -> Context:
        energy_of_phase, limits = self._account.of_phase(name), self._settings.limits
        return Context(
            folder=folder,
            log=lambda metrics: self._log.metrics(metrics, energy_of_phase()),
            event=self.event,
            progress=self._log.progress,
            energy=lambda: energy_of_phase(fresh=True),  # rarely asked for, at edges where a tick is too coarse
            should_stop=self._stop_signals.asked,
            rules=Rules(
                spent=self._watch.spent,
                require_left=self._require_left,
                least_gain_per_wh=None if name in self._controls else limits.stop_when_gain_per_wh_below,
                trained=functools.partial(self._note_training, name),
            ),
            counts=counts,
            inference_protocol=self._settings.protocol,
            run_id=self._settings.run_id,
            fingerprint=self._fingerprint,
            is_contended=lambda: self.meter.contended,
        )

    def _fingerprint(self) -> str:
        """Of the machine and the software, as the record will have it."""
        found = environment.environment(energy_labels=self.meter.labels, tracking_mode=self.meter.tracking_mode)
        return found.fingerprint

    # Limits

    def affords(self, name: str) -> bool:
        """Whether the budget is left for a phase that the run can do without; if not, the record says so.

        Args:
            name: Of the phase. It was left out if this is False, and is made up for when the run goes on with a larger
                budget.
        """
        return processes.share(lambda: self._affords(name))

    def _affords(self, name: str) -> bool:
        limit, folder = self._watch.spent(), self.folder / "phases" / name
        if not limit:
            return True
        found = self._read_kept(name) if self.resumed else None
        if found is not None and not (found.stop and found.stop.is_left_out):
            return True  # it was done before the budget was spent
        stop = records.Stop(phase=name, by="budget", limit=limit, num_steps=0, planned_steps=None)
        if found is None and name not in self._stops:
            kept.save(folder, Kept(None, Counts(), None, [], stop=stop))
            self.event("budget", stop.sentence)
        self._stops[name] = found.stop if found is not None and found.stop else stop
        return False

    def control(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """A phase for a model that the student is only compared with; no rule on gains ends its training.

        Returns: None where the budget was spent before or in it: half a control is no measure of anything.
        """
        if not self.affords(name):
            return None
        self._controls.add(name)
        value = self.phase(name, function, *args, **kwargs)
        is_cut = processes.share(lambda: name in self._stops)
        return None if is_cut else value

    def _note_training(self, phase: str, num_steps: int, planned_steps: int, **cut: Any) -> None:
        """A training of the student, or of a control, has ended.

        Raises: BudgetError if it was cut before there is a student.
        """
        self._num_steps[phase] = num_steps
        if not cut:
            return
        self._require_left()
        self._stops[phase] = records.Stop(phase=phase, num_steps=num_steps, planned_steps=planned_steps, **cut)
        self.event(cut["by"], self._stops[phase].sentence)

    def _require_left(self) -> None:
        spent = self._watch.spent()
        if spent and not any(self._num_steps.values()):
            raise BudgetError(
                f"the budget of {spent} was spent before the first step of the student's training, so there is no "
                "student yet: go on with a larger budget or without one"
            )

    def _go_past_stop(self) -> None:
        """Forget what was kept of the phases after this one, which worked on what it had come to."""
        self._goes_past_a_stop = True
        for folder in (self.folder / "phases").glob("*"):
            if folder.name not in self._used_names:
                kept.drop(folder)
                checkpoints.remove_all(folder)
                parts.remove_all(folder)

    def _forget_later_choices(self) -> None:
        """Forget what was measured after a phase that goes on, such as how long a control is as dear."""
        self._goes_past_a_stop = False
        choices = self._settings.choices
        lasting = (*self._used_choices, _COMPUTE)
        later = [
            name
            for name in choices
            if name not in lasting and not name.startswith((settings.COMMIT_OF, settings.FILES_OF))
        ]
        if later:
            for name in later:
                del choices[name]
            self._change_config(choices=records.to_json(choices))

    def _read_kept(self, name: str) -> Kept | None:
        """What is kept of a phase; None if nothing is, or it is damaged."""
        try:
            return kept.load(self.folder / "phases" / name)
        except DamagedError as error:
            self.event("phase damaged", f"phase {name} runs again, because its kept value is damaged: {error}")
            return None

    def _load_phase(self, name: str) -> tuple[Any] | None:
        """What a finished phase returned, in a tuple; None if it has to be called (again)."""
        found = self._read_kept(name)
        if found is None:
            return None
        if self._leads and found.stop is not None:
            if self._watch.lifts(found.stop):
                self._stops.pop(name, None)
                self._go_past_stop()
                return None
            self._stops[name] = found.stop
        self._num_steps[name] = found.num_steps
        self._account.add(name, found.counts, found.peak_mb)
        for source in found.sources:
            self._note_source(source)
        self._announce()
        self._log.display.kept(name)
        return (found.value,)

    def _adopt_compute(self, value: Any) -> None:
        """If a phase measured what the device can, use it: for the meter, the record, and a repeat of the run."""
        synchronize, rate = getattr(value, "synchronize", None), getattr(value, "operations_per_s", None)
        if callable(synchronize) and isinstance(rate, (int, float)):
            self.meter.set_synchronize(synchronize)
            self._account.operations_per_s = float(rate)
            self._account.device = getattr(value, "device", None)
            chosen = dict(getattr(value, "choices", {}))
            self._settings.number_format = str(chosen.get("number_format", self._settings.number_format))
            self._settings.num_threads = chosen.get("num_threads", self._settings.num_threads)
            if chosen != self._settings.choices.get(_COMPUTE):
                self._settings.choices[_COMPUTE] = chosen
                self._change_config(
                    number_format=self._settings.number_format,
                    num_threads=self._settings.num_threads,
                    choices=records.to_json(self._settings.choices),
                )
            getattr(value, "use_threads", lambda: None)()

    def _require_not_stopped(self) -> None:
        if self._stop_signals.asked():
            raise RunInterruptedError("the run stopped between two phases, has saved its work, and can be resumed")

    # What phases report

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Write one line of metrics, with the joules and CPU-seconds of the run so far."""
        self._log.metrics(metrics, self._account.so_far())

    def say(self, sentence: str) -> None:
        """Tell the user something that the record need not hold."""
        self._log.display.say(sentence)

    def event(self, kind: str, message: str, **details: Any) -> None:
        """Note something unusual, in the record, the journal and on the terminal."""
        self._log.event(kind, message, **details)

    def event_once(self, kind: str, message: str) -> None:
        """The same outside of phases, where a resume comes by again: what was noted already is not noted twice."""
        if not any((event.kind, event.message) == (kind, message) for event in self._log.events):
            self.event(kind, message)

    # Models and data sets

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
        known = [(self._settings.choices.get(f"{settings.COMMIT_OF} {name}", name), kind) for name, kind in names]
        processes.share(lambda: sources.require_cached(known))
        pinned = []
        for name, kind in names:
            pinned.append(
                self.choose(f"{settings.COMMIT_OF} {name}", functools.partial(sources.pinned_name, name, kind))
            )
            if declared := sources.declared_license(pinned[-1], kind):
                self._check_license(declared)
        return pinned

    def add_source(self, source: records.Source) -> None:
        """Note a model or data set that went into the run; the same one twice counts once.

        Raises:
            PolicyError: A licence has to be accepted and was not.
            InputError: A resumed run began with other files of this model. (Of data sets, the rows are compared.)
        """
        if source.kind == "model":
            self._require_same_files(source)
        self._note_source(source)

    def _note_source(self, source: records.Source) -> None:
        self._check_license(source)
        if source not in self._sources:
            self._sources.append(source)

    def _require_same_files(self, source: records.Source) -> None:
        """Refuse a model that was changed since the run began: its parts would not fit what was trained by then."""
        found = files.sha256_json(source.sha256)
        if self.choose(f"{settings.FILES_OF} {source.name} ({source.role})", lambda: found) != found:
            raise InputError(
                f"{source.name} should be the model that this run began with, but its files are others now: "
                "put them back, or start a new run with --fork"
            )

    def _check_license(self, source: licenses.Licensed) -> None:
        self._licensed.append(licenses.Declared(source.name, source.license))
        licenses.require_accepted(self._licensed, self._settings.accepted_licenses)

    # What is paid and what is left behind

    def spent(self) -> energy.EnergyReading:
        """What the run has paid so far, before an interruption too."""
        return self._account.so_far()

    def paid_for(self, phase: str) -> energy.EnergyReading:
        """What a finished phase has cost, in every process; without shares of caches.

        Raises: DamagedError if the journal has lost it.
        """

        def find() -> Any:
            found = self._account.totals().phases.get(phase)
            if found is None:
                raise DamagedError(
                    f"the energy journal should have a reading of {phase}, but has lost it: start a new run with --fork"
                )
            return records.to_json(found)

        told = processes.share(find)  # the first one alone measures
        components = {name: records.from_json(records.Component, part) for name, part in told["components"].items()}
        return energy.EnergyReading(told["duration_s"], told["cpu_s"], components)

    def cost_ratio(self, phases: Sequence[str], to: Sequence[str]) -> float:
        """What some finished phases cost over what others did, shares of caches included: the measure of equal cost.

        In joules where processor or GPU count them here and all are known, else in CPU-seconds.

        Raises: DamagedError if the journal has lost what one of them cost.
        """
        return self._account.cost_ratio(phases, to)

    def share_of_cost(self, phases: Sequence[str]) -> Callable[[energy.EnergyReading], float]:
        """What tells which share a reading is of what some finished phases cost, in the measure of `cost_ratio`.

        Raises: DamagedError if the journal has lost what one of them cost.
        """
        return self._account.share_of_cost(phases)

    def keep(self, name: str, value: Saves) -> Path:
        """Save something beside the model, such as a search index, into a folder of the run; returns that folder."""
        self._kept.add(name)
        if self._leads:
            with files.atomic_folder(self.folder / name) as folder:
                value.save(folder)
            (self.folder / name / files.MANIFEST).unlink()  # the record holds every hash
        return self.folder / name

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
        teacher_on_validation: float | None = None,
        curve_of: str | None = None,
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
            metric: Key of the results' metrics that ranks; higher is better. What a sweep has declared takes its place.
            margin: Difference in it below which two models count as equal, where declared before the run; likewise.
            replaces: Role that the student replaces, for the point of payback.
            results: Quality by role and split.
            inference: Cost of use by role.
            predictions: Columns of `predictions.parquet`, of equal length.
            curve: Validations during training.
            teacher_on_validation: What the teacher reaches where these are measured.
            curve_of: Key of the metric that they hold, where it is not `metric`.
            examples: Uses of the student that a reader can judge: `input` and `answers`.
            model: Facts about the student, for the record.
            languages: Two-letter codes as declared by the data.
            limits: Sentences on what the model is not for and what was not tested.
            label_names: Names of the classes, for the card.

        Raises: InputError if the results lack the metric that the sweep of the run ranks by.
        """
        finishing.require_declared_metric(results, self._settings.sweep)
        about = {
            "title": title,
            "task": task,
            "metric": metric,
            "margin": margin,
            "results": list(results),
            "inference": list(inference),
            "curve": list(curve),
            "teacher_on_validation": teacher_on_validation,
            "curve_of": curve_of,
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
        self._note_idle_protocol(about["inference"])
        with self.meter.phase("export"):
            self.keep(MODEL_NAME, student)
            if predictions is not None:
                finishing.save_predictions(self.folder / records.PREDICTIONS_NAME, predictions)
        if self._log.tracker is not None:
            self._log.tracker.log_results(about["results"])
            self._log.end_tracking()
        self.meter.stop()
        for warning in self.meter.warnings:
            self._log.events.append(records.Event(time_utc=records.now(), kind="energy", message=warning, details={}))
        record = finishing.new_record(
            self._settings,
            self._account,
            folder=self.folder,
            sources=self._sources,
            events=self._log.events,
            num_processes=self._num_processes,
            stopped_by=next((stop.by for stop in self._stops.values()), "end"),
            stops=list(self._stops.values()),
            **about,
        )
        self.record = finishing.complete(self.folder, record, replaces=replaces, kept=self._kept)

    def _note_idle_acceptance(self) -> None:
        """Say which accepted licences no source comes under: else a mistyped id looks like one that was needed."""
        if idle := licenses.without_effect(self._settings.accepted_licenses, self._sources):
            self.event(
                "licence", f"no source of this run comes under {', '.join(idle)}: --accept-license had no effect"
            )

    def _note_idle_protocol(self, inference: Sequence[records.Inference]) -> None:
        """Say that the full protocol was asked for and nothing was measured by it."""
        if self._settings.protocol == "full" and not any(use.protocol == "full" for use in inference):
            self.event(
                "inference", "the recipe measures no use of a model this way: --inference-protocol full had no effect"
            )


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    import numpy as np

    np.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
