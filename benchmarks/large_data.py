"""What data sets of up to 10 million short texts take: seconds, memory and disk, each size in a fresh process.

Run:       python benchmarks/large_data.py [--rows 100000 1000000 10000000]
Reads:     `anonymous` is resident memory that no file stands behind, the highest during a step: it should hardly grow
           with the rows. `mapped` is resident memory that belongs to files: the system drops such pages when memory is
           short, and until then they save reading. `in files` is what lies in files without a name in the cache folder.
           `load` reads a Parquet file as a recipe does: texts checked, splits drawn, duplicates counted. `keep` is what
           a run keeps of it. `signal` stores and reads back made-up values of a teacher for every row. `plan`, of an
           epoch, should take less than 10 s. Linux only, for the memory.
Writes:    benchmarks/results/large_data.json
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smallmodels import arrays, data, environment, files, records, sources, values
from smallmodels.data.batches import Epoch, Plan, Steps
from smallmodels.teachers import Signals, input_hashes

RESULT = Path(__file__).parent / "results" / "large_data.json"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MAX_LENGTH, BATCH_SIZE, NUM_BATCHES, NUM_CLASSES, SEED = 128, 32, 3000, 3, 0
_ROWS_AT_ONCE = 50_000
_SAMPLE_S = 0.02


def make_file(path: Path, num_rows: int) -> None:
    """Texts of words of the tokenizer's vocabulary, as long as Banking77's, in a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vocabulary = load_tokenizer().get_vocab()
    words = sorted((word for word in vocabulary if word.isalpha()), key=lambda word: vocabulary[word])[:8000]
    generator = np.random.default_rng(SEED)
    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, num_rows - start)
            lengths = generator.lognormal(2.4, 0.43, count).astype(np.int64).clip(3, 60)
            chosen = iter(generator.integers(0, len(words), lengths.sum()).tolist())
            texts = [" ".join(words[next(chosen)] for _ in range(length)) for length in lengths.tolist()]
            labels = generator.integers(0, NUM_CLASSES, count)
            writer.write_table(pa.table({"text": texts, "label": labels}, schema=schema))


def load_tokenizer() -> Any:
    """Of the teacher that recipes use."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(sources.fetch_model(MODEL).folder, local_files_only=True)


class Memory:
    """Resident memory of this process, sampled in a thread."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._peak = {"anonymous_mb": 0.0, "mapped_mb": 0.0}
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            self._note()
            time.sleep(_SAMPLE_S)

    def _note(self) -> dict[str, float]:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        kilobytes = {
            name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines if "kB" in line)
        }
        now = {"anonymous_mb": kilobytes["RssAnon"] * 1.024e-3, "mapped_mb": kilobytes["RssFile"] * 1.024e-3}
        self._peak = {name: max(value, self._peak[name]) for name, value in now.items()}
        return now

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a block."""
        self._peak = self._note()
        began_s, cpu_s = time.monotonic(), time.process_time()
        yield
        took = {"seconds": time.monotonic() - began_s, "cpu_seconds": time.process_time() - cpu_s}
        after = {f"{name}_after": value for name, value in self._note().items()}
        self.steps.append({"step": name, **took, **self._peak, **after, "in_files_mb": _nameless_mb()})


def _nameless_mb() -> float:
    """What lies in open files that have no name."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).endswith("(deleted)"):
                total += os.stat(link).st_size
    return total / 1e6


def measure(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Go through a data set as a recipe does; `folder` stands for that of the run."""
    tokenizer, memory = load_tokenizer(), Memory()
    with memory.step("nothing"):
        time.sleep(5 * _SAMPLE_S)
    with memory.step("load"):
        splits = data.load_text_classification(str(path))
    with memory.step("keep"):
        values.encode(splits, folder)
    with memory.step("tokenise"):
        splits = splits.tokenize(tokenizer, max_length=MAX_LENGTH)
    train = splits.train
    with memory.step("signal"):
        made, generator = arrays.Growing(np.float32, (NUM_CLASSES,)), np.random.default_rng(SEED)
        for part in arrays.pieces(train.require_tokens().lengths):
            made.append(generator.normal(size=(len(part), NUM_CLASSES)))
        Signals(made.done(), input_hashes(train.require_tokens()), "made up").save(folder)
        train = train.with_signals(Signals.load(folder))
    lengths = train.require_tokens().lengths
    with memory.step("plan"):
        Epoch(lengths, batch_size=BATCH_SIZE, seed=SEED, epoch=0)
    steps = Steps(train, Plan(lengths, batch_size=BATCH_SIZE, seed=SEED))
    with memory.step(f"{NUM_BATCHES} batches"):
        for batch in steps.read(range(min(NUM_BATCHES, len(train) // BATCH_SIZE)), num_workers=0):
            assert batch is not None
    return memory.steps


def main() -> None:
    """Measure every size in its own process, print the table and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000], help="sizes")
    parser.add_argument("--output", type=Path, default=RESULT, help="a JSON file")
    parser.add_argument("--one", nargs=3, metavar=("STEP", "FILE", "ARGUMENT"), help="a step of one size, for itself")
    arguments = parser.parse_args()
    if arguments.one:
        step, path, argument = arguments.one
        if step == "make":
            make_file(Path(path), int(argument))
        else:
            print(json.dumps(measure(Path(path), Path(argument))))
        return
    found = environment.environment(energy_labels={}, tracking_mode="none")
    results: dict[str, Any] = {"environment": records.to_json(found), "sizes": []}
    print(f"{'rows':>12}  {'step':<14}{'seconds':>9}{'anonymous':>11}{'mapped':>10}{'in files':>10}   (MB)")
    for num_rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.output.parent) as folder:
            path = Path(folder) / "texts.parquet"
            (Path(folder) / "run").mkdir()
            _child("make", str(path), str(num_rows))
            steps = json.loads(_child("measure", str(path), f"{folder}/run"))
            size = {"num_rows": num_rows, "parquet_mb": path.stat().st_size / 1e6, "steps": steps}
        results["sizes"].append(size)
        for step in steps:
            memory = f"{step['anonymous_mb']:>11,.0f}{step['mapped_mb']:>10,.0f}{step['in_files_mb']:>10,.0f}"
            print(f"{num_rows:>12,}  {step['step']:<14}{step['seconds']:>9.1f}{memory}", flush=True)
    files.write_json(arguments.output, results)


def _child(*words: str) -> str:
    command = [sys.executable, __file__, "--one", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
