"""How many bytes the stored word of a teacher on a token takes, and how fast a training loop gets it back.

Run:       python benchmarks/signal_cache.py [--tokens 2000000]
           on an idle machine; no network, less than a minute, 0.3 GB of disk.
Reads:     bytes per token are those of all files of a stored signal: the most likely tokens of each place, the mass of
           all others, offsets and hashes. Tokens per second are those of whole epochs in the order of the training
           loop, rows shuffled, unpacked as a batch needs them. `from_memory` is with the file in the system's page
           cache; `from_disk` is without, each epoch after the file was dropped from there, and is kept only where the
           system counted the bytes that it read again (Linux, and a folder on a disk). The teacher's words are drawn at
           random, since only time and size are looked at.
Writes:    benchmarks/results/signal_cache.json
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from smallmodels import arrays, environment, files, records
from smallmodels.data.batches import Plan
from smallmodels.data.splits import Split, Tokens
from smallmodels.losses import top_k
from smallmodels.teachers import Packing, TokenSignals, input_hashes

RESULT = Path(__file__).parent / "results" / "signal_cache.json"
K, VOCABULARY, ROW_TARGETS, BATCH_SIZE, NUM_ROUNDS, SEED = 32, 49_152, 256, 16, 5, 0
_MOST_OF_IT = 0.9
"""Share of the file that has to come from the disk for an epoch to count as read from there."""


def make_split(num_rows: int) -> Split:
    """Rows of random tokens, all but the first of each being targets."""
    length = ROW_TARGETS + 1
    ids = np.random.default_rng(SEED).integers(0, VOCABULARY, num_rows * length, dtype=np.int32)
    targets = np.arange(len(ids)) % length != 0
    tokens = Tokens(ids, np.arange(num_rows + 1, dtype=np.int64) * length, 0, length, targets=targets)
    return Split("train", [str(row) for row in range(num_rows)], [""] * num_rows, tokens=tokens)


def store(split: Split, folder: Path) -> None:
    """What a teacher with random logits says about each target, written as `store_token_signals` keeps it."""
    packing = Packing(K, (1.0,), VOCABULARY)
    generator = torch.Generator().manual_seed(SEED)
    drawn = packing.pack(top_k(3 * torch.randn(ROW_TARGETS, VOCABULARY, generator=generator), K))
    order, growing = np.random.default_rng(SEED), arrays.Growing(np.uint8, (packing.num_bytes,))
    for _ in range(len(split)):
        growing.append(drawn[order.permutation(ROW_TARGETS)])
    offsets = np.arange(len(split) + 1, dtype=np.int64) * ROW_TARGETS
    inputs = input_hashes(split.require_tokens())
    folder.mkdir()
    TokenSignals(growing.done(), offsets, packing, inputs, "drawn at random").save(folder)
    os.sync()  # only what is on the disk can be dropped from memory


def read_epoch(split: Split, folder: Path) -> float:
    """Tokens per second of one epoch, from opening the files on."""
    begin = time.perf_counter()
    rows = TokenSignals.load(folder).rows_for(split)
    plan = Plan(split.require_tokens().lengths, batch_size=BATCH_SIZE, seed=SEED)
    num_read = sum(len(rows.batch(plan.indices(step))) for step in range(-(-len(split) // BATCH_SIZE)))
    assert num_read == len(split) * ROW_TARGETS
    return num_read / (time.perf_counter() - begin)


def drop_from_memory(folder: Path) -> None:
    """Ask the system to forget what it holds of these files."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_epoch_from_disk(split: Split, folder: Path, num_bytes: int) -> float | None:
    """As `read_epoch`; None if the system did not read the files from a disk."""
    if not hasattr(os, "posix_fadvise"):
        return None
    drop_from_memory(folder)
    before = psutil.Process().io_counters().read_bytes
    rate = read_epoch(split, folder)
    return rate if psutil.Process().io_counters().read_bytes - before >= _MOST_OF_IT * num_bytes else None


def measure(num_tokens: int, folder: Path) -> dict[str, Any]:
    """Store and read a signal of so many tokens."""
    split = make_split(max(1, num_tokens // ROW_TARGETS))
    store(split, folder / "signals")
    num_bytes = sum(path.stat().st_size for path in (folder / "signals").iterdir())
    stored = len(split) * ROW_TARGETS
    result: dict[str, Any] = {"k": K, "vocabulary_size": VOCABULARY, "num_tokens": stored}
    result["bytes_per_token"] = num_bytes / stored
    from_disk = [read_epoch_from_disk(split, folder / "signals", num_bytes) for _ in range(NUM_ROUNDS)]
    from_memory = [read_epoch(split, folder / "signals") for _ in range(NUM_ROUNDS)]
    for name, rates in (("from_disk", from_disk), ("from_memory", from_memory)):
        known = [rate for rate in rates if rate is not None]
        if len(known) == NUM_ROUNDS:
            result[name] = {"median": statistics.median(known), "min": min(known), "max": max(known)}
    return result


def main() -> None:
    """Measure, print the numbers and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2_000_000, help="targets of the signal")
    parser.add_argument("--output", type=Path, default=RESULT, help="a JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.output.parent) as folder:
        result = measure(arguments.tokens, Path(folder))
    print(json.dumps(result, indent=1))
    found = environment.environment(energy_labels={}, tracking_mode="none")
    files.write_json(arguments.output, {"environment": records.to_json(found), **result})


if __name__ == "__main__":
    main()
