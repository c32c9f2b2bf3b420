"""The command `smallmodels check`: everything of a run that comes before training, and what the run would take."""

import json
import sys
from collections.abc import Callable, Sequence

from smallmodels import processes
from smallmodels.cli.recipes import Recipe
from smallmodels.cli.request import read_request
from smallmodels.cli.run import prepare_libraries, run_options
from smallmodels.errors import InputError
from smallmodels.preflight import Forecast, PhaseForecast, Range, check
from smallmodels.progress import about
from smallmodels.records import COUNTED_LABELS
from smallmodels.report import formats
from smallmodels.text import printable, shorten


def check_command(arguments: Sequence[str], recipe: Recipe | None = None) -> int:
    """`smallmodels check NAME_OR_FILE [flags] [--json]`; returns the exit code."""
    words = [word for word in arguments if word != "--json"]
    if not words or words in (["-h"], ["--help"]):
        print(_USAGE)
        return 0 if words else 2
    prepare_libraries()
    as_json = len(words) < len(arguments)
    request = read_request(words, recipe)
    if request.resumed is not None:
        raise InputError("check looks at a run that has not begun: leave --resume out, or add --fork")
    if processes.launched()[1] > 1:
        raise InputError("check tries a run in one process: start it without torchrun or accelerate launch")
    told = _Progress(quiet=as_json)
    try:
        forecast = check(
            request.recipe.main, request.config, out=request.options.out, tell=told.phase, **run_options(request)
        )
    finally:
        told.end()
    if as_json:
        print(json.dumps(forecast.to_json()))
    else:
        print("\n".join(lines(forecast)))
    return 0


_USAGE = """usage: smallmodels check NAME_OR_FILE [flags] [--json]

Resolves names, checks licences and disk, fetches what is missing, and tries a few steps of each phase in a temporary
folder. Prints what the run would take, with ranges that should hold nine runs of ten. Flags are those of
`smallmodels run`; --json prints one object."""


class _Progress:
    """Names of phases on standard error, in one line."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._has_begun = quiet, False

    def phase(self, name: str) -> None:
        """Say that a phase begins."""
        if not self._quiet:
            print("Trying" * (not self._has_begun), name, end="", sep=" ", file=sys.stderr, flush=True)
        self._has_begun = True

    def end(self) -> None:
        """End the line."""
        if self._has_begun and not self._quiet:
            print(file=sys.stderr)


def lines(forecast: Forecast) -> list[str]:
    """A forecast for people."""
    return [
        "",
        *_source_lines(forecast),
        "",
        *_phase_lines(forecast),
        "",
        *_total_lines(forecast),
        *(f"! {printable(note)}" for note in forecast.notes),
    ]


def _source_lines(forecast: Forecast) -> list[str]:
    found = []
    for source in forecast.sources:
        size = "" if source.size_bytes is None else f", {formats.size(source.size_bytes)}"
        commit = f", commit {source.revision[:12]}" if source.revision else ""
        found.append(
            f"{source.role}: {printable(source.name)}{commit}{size}, licence {source.license or 'none declared'}"
        )
        if source.splits:
            found.append("  " + ", ".join(f"{count:,} rows {name}" for name, count in source.splits.items()))
    return found


def _phase_lines(forecast: Forecast) -> list[str]:
    head = f"{'phase':<26}{'time':>14}{'energy':>12}   tried"
    return [head, *(_phase_line(phase, forecast.energy_label) for phase in forecast.phases)]


def _phase_line(phase: PhaseForecast, label: str) -> str:
    share = phase.tried_s / max(phase.duration_s, 1e-9)
    how = "in the cache" if phase.from_cache else "all of it" if share > 0.999 else f"{max(1, round(100 * share))} %"
    joules = "" if phase.energy_j is None else f"{about(label)}{formats.energy(phase.energy_j)}"
    return f"{shorten(phase.name, 25):<26}{formats.duration(phase.duration_s):>14}{joules:>12}   {how}"


def _total_lines(forecast: Forecast) -> list[str]:
    kind = "measured" if forecast.energy_label in COUNTED_LABELS else "an estimate, not a measurement"
    found = [f"Time: {_span(forecast.duration_s, formats.duration)}"]
    if forecast.energy_j is None:
        found.append("Energy: not measured on this machine")
    else:
        found.append(f"Energy: {_span(forecast.energy_j, formats.energy)}, {kind}")
    if forecast.peak_memory_mb is not None:
        peak = _span(forecast.peak_memory_mb, lambda mb: formats.size(1e6 * mb))
        found.append(f"Memory: {peak}; the machine has {formats.size(1e6 * forecast.memory_mb)}")
    found.append(
        f"Disk: {formats.size(forecast.peak_bytes)} while it works and {formats.size(forecast.run_bytes)} when it is "
        f"complete, {formats.size(forecast.cache_bytes)} in the cache; {formats.size(forecast.free_bytes)} are free"
    )
    found.append(f"The trial took {formats.duration(forecast.trial_duration_s)}. Ranges should hold 9 runs of 10.")
    return found


def _span(found: Range, words: Callable[[float], str]) -> str:
    return f"{words(found.value)} ({words(found.low)} to {words(found.high)})"
