"""What measuring energy and writing metrics costs: CPU time, each setting in a fresh and otherwise idle process.

Run:       python benchmarks/energy_overhead.py [--seconds 15] [--run FOLDER]
           on an idle machine; about a minute, no network.
Reads:     `start`, seconds of CPU once per run, before the account opens: importing CodeCarbon (pandas above all) and
           its search for the processor's name in a child process. `running`, CPU time as a share of one busy core.
           `phase edge`, milliseconds of CPU each. `of 60 s` adds them up for a minute on one core with ten phases;
           `less start` is what longer runs come down to. `calls` are the CPU-seconds of one line of metrics
           (`context.log`), of one tick of the energy journal and of one step that the training's logger notes;
           `share`, these and the edges, each times how often they came in a run that is kept, over its CPU-seconds.
           Tracking should stay below 1 % of a run's CPU time.
Writes:    benchmarks/results/energy_overhead.json
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from smallmodels import energy, environment, files, records
from smallmodels.energy.machine import CpuClock
from smallmodels.phases import Context
from smallmodels.runs import Run
from smallmodels.training.logger import StepLogger

RESULTS = Path(__file__).parent / "results"
RESULT, USUAL_RUN = RESULTS / "energy_overhead.json", RESULTS / "quickstart"
SETTINGS: tuple[tuple[str, float], ...] = (("none", 5.0), ("codecarbon", 5.0), ("codecarbon", 1.0))
RUN_S, NUM_EDGES = 60.0, 20
_PAUSE_S = 0.06
"""CodeCarbon measures again only after 50 ms."""
_LINE = {"step": 1, "train/loss": 0.5, "train/learning_rate": 1e-4, "train/grad_norm": 1.0, "train/tokens_per_s": 4e3}
"""What the logger writes about once a second."""


def measure(backend: Any, tick_s: float, seconds: float) -> dict[str, float]:
    """CPU time of a meter in this process, which does nothing else.

    Args:
        backend: As for `Meter`.
        tick_s: Seconds between journal lines.
        seconds: How long to watch it run.

    Returns:
        `start_s`, `running_fraction` of one core, `edge_s`; CPU time each.
    """
    with tempfile.TemporaryDirectory() as folder:
        meter = energy.Meter(backend, journal=Path(folder) / "journal.jsonl", tick_s=tick_s)
        cpu_clock = CpuClock()
        before_s = cpu_clock()
        meter.start()
        started_s, clock_s = cpu_clock(), time.monotonic()
        time.sleep(seconds)
        running_s, waited_s = cpu_clock() - started_s, time.monotonic() - clock_s
        edges_s = -cpu_clock()
        for _ in range(NUM_EDGES // 2):
            with meter.phase("phase"):
                time.sleep(_PAUSE_S)
            time.sleep(_PAUSE_S)
        edges_s += cpu_clock()
        meter.stop()
    return {
        "start_s": started_s - before_s,
        "running_fraction": running_s / waited_s,
        "edge_s": edges_s / NUM_EDGES,
    }


def measure_calls(
    meter: Literal["codecarbon", "none"], *, num_lines: int = 1000, num_ticks: int = 40
) -> dict[str, float]:
    """CPU-seconds of a call each, in a run of its own.

    Args:
        meter: Of the run.
        num_lines: How many lines of metrics are written, and a tenth of how many steps are noted.
        num_ticks: How many readings are taken.

    Returns:
        `log`, of a line of metrics; `tick`, of a line of the energy journal; `step`, of a step that the training's
        logger notes, the lines that it writes not counted.
    """
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, Run(Path(folder) / "run", meter=meter, quiet=True) as run:
        run.begin("energy_overhead", {"seed": 0})

        def phase(context: Context) -> None:
            logger = StepLogger(Context(), num_steps=sys.maxsize)
            found["log"] = call_s(lambda: context.log(_LINE), num_lines)
            found["tick"] = call_s(lambda: run.meter.read(fresh=True), num_ticks, pause_s=_PAUSE_S)
            found["step"] = call_s(lambda: logger.step(1, 0.5, 1.0, 1e-4), 10 * num_lines)

        run.phase("train", phase)
    return found


def call_s(function: Callable[[], object], count: int, *, pause_s: float = 0.0) -> float:
    """Mean CPU-seconds of a call after a first one, with pauses between them."""
    function()
    total_s = 0.0
    for _ in range(count):
        time.sleep(pause_s)
        begin_s = time.process_time()
        function()
        total_s += time.process_time() - begin_s
    return total_s / count


def counts_of(run: Path) -> dict[str, int]:
    """How many lines of metrics, ticks, edges of phases and optimizer steps a run had."""
    metrics, journal = (
        [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
        for name in (records.METRICS_NAME, records.JOURNAL_NAME)
    )
    kinds = collections.Counter(line["kind"] for line in journal)
    steps: dict[str, int] = {}
    for line in metrics:
        if "step" in line:
            steps[str(line.get("phase"))] = max(line["step"], steps.get(str(line.get("phase")), 0))
    edges = kinds["phase_start"] + kinds["phase_end"]
    return {"log": len(metrics), "tick": kinds["tick"], "edge": edges, "step": sum(steps.values())}


def share(counts: Mapping[str, int], calls: Mapping[str, float], cpu_s: float) -> float:
    """CPU time of all calls over that of their run."""
    return sum(count * calls[name] for name, count in counts.items()) / cpu_s


def in_fresh_process(*words: str) -> dict[str, float]:
    """What this file prints with these words."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_all(seconds: float, run: Path) -> dict[str, Any]:
    """Every setting and the calls, each in its own process, and what they come to in a run."""
    settings: list[dict[str, Any]] = []
    for backend, tick_s in SETTINGS:
        cost = in_fresh_process("--seconds", str(seconds), "--one", backend, str(tick_s))
        cost["less_start"] = cost["running_fraction"] + NUM_EDGES * cost["edge_s"] / RUN_S
        cost["of_60_s"] = cost["less_start"] + cost["start_s"] / RUN_S
        settings.append({"backend": backend, "tick_s": tick_s, **cost})
    usual = next(cost for cost in settings if cost["backend"] == "codecarbon")
    calls = in_fresh_process("--calls") | {"edge": usual["edge_s"]}
    record, counts = records.read_record(run), counts_of(run)
    return {
        "settings": settings,
        "calls_s": calls,
        "run": {"recipe": record.recipe, "run_id": record.run_id, "cpu_s": record.cpu_s, "counts": counts},
        "share": share(counts, calls, record.cpu_s),
        "share_of_start": usual["start_s"] / record.cpu_s,
    }


def print_table(found: Mapping[str, Any]) -> None:
    """The settings, one a line, the calls, and what they come to."""
    print(f"{'backend':<12}{'tick':>6}{'start':>10}{'running':>10}{'phase edge':>12}{'of 60 s':>10}{'less start':>12}")
    for cost in found["settings"]:
        print(
            f"{cost['backend']:<12}{cost['tick_s']:>4.0f} s{cost['start_s']:>8.2f} s{cost['running_fraction']:>10.2%}"
            f"{cost['edge_s'] * 1000:>9.1f} ms{cost['of_60_s']:>10.2%}{cost['less_start']:>12.2%}"
        )
    print(", ".join(f"{name} {1e6 * cpu_s:.1f} us" for name, cpu_s in found["calls_s"].items()))
    print(f"of a run of {found['run']['recipe']} {found['share']:.2%}, and {found['share_of_start']:.2%} at its start")


def main() -> None:
    """Measure everything, print the table and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each setting runs")
    parser.add_argument("--run", type=Path, default=USUAL_RUN, help="folder of a run with its journal and metrics")
    parser.add_argument("--output", type=Path, default=RESULT, help="a JSON file")
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "TICK_S"), help="measure one setting, print JSON")
    parser.add_argument("--calls", action="store_true", help="measure the calls alone, print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], float(arguments.one[1]), arguments.seconds)))
        return
    if arguments.calls:
        print(json.dumps(measure_calls("codecarbon")))
        return
    found = measure_all(arguments.seconds, arguments.run)
    print_table(found)
    machine = environment.environment(energy_labels={}, tracking_mode="none")
    files.write_json(arguments.output, {"environment": records.to_json(machine), **found})


if __name__ == "__main__":
    main()
