"""How often what a run takes lies in the range that `smallmodels check` has printed for it.

Run:       python benchmarks/predictions.py --out benchmarks/results/predictions.json
Jobs:      drawn by a seed from recipes that distil and fine-tune, of different size; each is checked and then run, with
           a cache of its own, in fresh processes, one after the other. Run it again, and it goes on with the jobs that
           are missing in the file.
Expected:  of twenty runs, eighteen or more take what was foretold, in each of time, energy and memory.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallmodels import files, records
from smallmodels.report import formats

MEASURES = ("duration_s", "cpu_s", "energy_j", "peak_memory_mb")


def jobs(count: int, model: str | None, dataset: str | None, *, max_size: int, seed: int) -> list[list[str]]:
    """What follows `smallmodels run`, for each job.

    Args:
        count: How many.
        model: Teacher or base model; that of the recipes if None.
        dataset: For classification; that of the recipes if None.
        max_size: Most examples; the fewest are 200.
        seed: Of the draw.
    """
    draw = random.Random(seed)
    return [_job(number, draw, model, dataset, max_size) for number in range(count)]


def _job(number: int, draw: random.Random, model: str | None, dataset: str | None, max_size: int) -> list[str]:
    recipe = ("quickstart", "distill_text_classifier", "finetune_text_classifier")[number % 3]
    size = round(math.exp(draw.uniform(math.log(200), math.log(max_size))))
    words = [recipe, "--num-epochs", str(draw.randint(1, 8)), "--batch-size", str(draw.choice((16, 32, 64)))]
    if recipe == "quickstart":
        words += ["--max-entries", str(size)]
    else:
        words += ["--max-train", str(size), *(["--dataset", dataset] if dataset else [])]
    if recipe == "distill_text_classifier":
        words += ["--teacher-train.num-epochs", str(draw.randint(1, 4))]
    named = "--base-model" if recipe == "finetune_text_classifier" else "--teacher"
    return [*words, "--num-layers", str(draw.choice((1, 2))), *([named, model] if model else [])]


def measure(words: Sequence[str]) -> dict[str, Any]:
    """A job, what was foretold for it, and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SMALLMODELS_CACHE": f"{folder}/cache"}
        told = json.loads(_call(["check", *words, "--json"], environment).splitlines()[-1])
        out = Path(_call(["run", *words, "--out", f"{folder}/runs"], environment).splitlines()[-1])
        record = records.read_record(out)
    peaks = [phase.peak_memory_mb for phase in record.phases if phase.peak_memory_mb is not None]
    took = {
        "duration_s": record.duration_s,
        "cpu_s": record.cpu_s,
        "energy_j": record.energy_j,
        "peak_memory_mb": max(peaks, default=None),
    }
    phases = {phase["name"]: [phase["duration_s"]] for phase in told["phases"]}
    for phase in record.phases:
        phases.setdefault(phase.name, [0.0]).append(phase.duration_s)
    return {
        "words": [Path(word).name if os.sep in word else word for word in words],
        "told": {name: told[name] for name in MEASURES},
        "took": took,
        "phases_s": phases,
        "trial_duration_s": told["trial_duration_s"],
        "fingerprint": record.environment.fingerprint,
        "contended": record.contended,
    }


def _call(words: Sequence[str], environment: Mapping[str, str]) -> str:
    command = [sys.executable, "-m", "smallmodels", *words]
    return subprocess.run(command, env=dict(environment), check=True, stdout=subprocess.PIPE, text=True).stdout


def is_inside(job: Mapping[str, Any], name: str) -> bool | None:
    """Whether a job took what was foretold; None where one of the two is not known."""
    told, took = job["told"][name], job["took"][name]
    return None if told is None or took is None else bool(told["low"] <= took <= told["high"])


def summary(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each measure."""
    lines = []
    for name in MEASURES:
        inside = [hit for job in found if (hit := is_inside(job, name)) is not None]
        lines.append(f"{name}: {sum(inside)} of {len(inside)} inside the range")
    return lines


def main() -> None:
    """Measure the jobs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file with the results")
    parser.add_argument("--num-jobs", type=int, default=20)
    parser.add_argument("--model", help="teacher or base model, for all jobs")
    parser.add_argument("--dataset", help="for classification")
    parser.add_argument("--max-size", type=int, default=5000, help="most examples of a job")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: list[dict[str, Any]] = files.read_json(options.out) if options.out.exists() else []
    drawn = jobs(options.num_jobs, options.model, options.dataset, max_size=options.max_size, seed=options.seed)
    for words in drawn[len(found) :]:
        found.append(measure(words))
        job = found[-1]
        told, took = job["told"]["duration_s"], job["took"]["duration_s"]
        span = f"{formats.duration(told['low'])} to {formats.duration(told['high'])}"
        print(f"{' '.join(words)}: {span}, took {formats.duration(took)}", flush=True)
        files.write_json(options.out, found)
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main()
