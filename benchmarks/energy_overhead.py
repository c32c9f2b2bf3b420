"""What measuring energy costs: CPU time of the tracker, each setting in a fresh and otherwise idle process.

Run:       python benchmarks/energy_overhead.py [--seconds 15]
Reads:     `start`, seconds of CPU once per run, before the account opens: importing CodeCarbon (pandas above all) and
           its search for the processor's name in a child process. `running`, CPU time as a share of one busy core.
           `phase edge`, milliseconds of CPU each. `of 60 s` adds them up for a minute on one core with ten phases;
           `less start` is what longer runs come down to. Tracking should stay below 1 % of a run's CPU time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from smallmodels import energy
from smallmodels.energy.machine import CpuClock

SETTINGS: tuple[tuple[str, float], ...] = (("none", 5.0), ("codecarbon", 5.0), ("codecarbon", 1.0))
RUN_S, NUM_EDGES = 60.0, 20


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
                time.sleep(0.06)  # CodeCarbon measures again only after 50 ms
            time.sleep(0.06)
        edges_s += cpu_clock()
        meter.stop()
    return {
        "start_s": started_s - before_s,
        "running_fraction": running_s / waited_s,
        "edge_s": edges_s / NUM_EDGES,
    }


def main() -> None:
    """Measure every setting in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each setting runs")
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "TICK_S"), help="measure one setting, print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], float(arguments.one[1]), arguments.seconds)))
        return
    print(f"{'backend':<12}{'tick':>6}{'start':>10}{'running':>10}{'phase edge':>12}{'of 60 s':>10}{'less start':>12}")
    for backend, tick_s in SETTINGS:
        command = [sys.executable, __file__, "--seconds", str(arguments.seconds), "--one", backend, str(tick_s)]
        cost = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        later = cost["running_fraction"] + NUM_EDGES * cost["edge_s"] / RUN_S
        total = later + cost["start_s"] / RUN_S
        print(
            f"{backend:<12}{tick_s:>4.0f} s{cost['start_s']:>8.2f} s{cost['running_fraction']:>10.2%}"
            f"{cost['edge_s'] * 1000:>9.1f} ms{total:>10.2%}{later:>12.2%}"
        )


if __name__ == "__main__":
    main()
