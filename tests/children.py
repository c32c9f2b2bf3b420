"""What children of `forking` do: store a signal or load data, killed meanwhile, or on a full or read-only disk."""

import contextlib
import ctypes
import dataclasses
import functools
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import killing
import sample_records
from small_data import FP32, Events, classifier, cross_entropy, split

from smallmodels import cli, data, entries, files, models, sources, teachers, training
from smallmodels.data import reading, rows, text_classification
from smallmodels.errors import SmallmodelsError
from smallmodels.phases import Context
from smallmodels.runs import Run
from smallmodels.teachers import storing

NUM_ROWS, ROWS_PER_SHARD = 24, 10
TWO_ROWS = dataclasses.replace(FP32, tokens_per_pass=40)


def store(model, cache, *, killed_at_row=None, killed_at=None, wait_for=None, building=None, lock_wait_s=None):
    """Store the signal of the tiny classifier in batches of one or two rows.

    Args:
        model: Folder of the tiny model.
        cache: Folder of the cache.
        killed_at_row: Kill this process when the teacher is asked for this row.
        killed_at: `[call, number, after]`: kill it before or after that call of `os.replace` or `os.fsync`.
        wait_for: Begin with the forward pass only once this file exists.
        building: Make this file once the forward pass begins.
        lock_wait_s: Wait so long for another builder.

    Returns: Error, exit code and sentence, or None three times; SHA-256 of each shard; rows computed; events.
    """
    storing._ROWS_PER_SHARD = ROWS_PER_SHARD
    if lock_wait_s is not None:
        entries._LOCK_WAIT_S = lock_wait_s
    teacher = classifier(model)
    seen = 0

    def look(module, arguments, inputs):
        nonlocal seen
        if building:
            Path(building).touch()
        deadline = time.monotonic() + 30
        while wait_for and not Path(wait_for).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        seen += len(inputs["input_ids"])
        if killed_at_row is not None and seen > killed_at_row:
            os.kill(os.getpid(), signal.SIGKILL)

    teacher.model.register_forward_pre_hook(look, with_kwargs=True)
    if killed_at:
        _kill_at(*killed_at)
    events, failed = Events(), (None, None, None)
    rows = split(teacher.tokenizer, NUM_ROWS)
    try:
        teachers.store_signals(teacher, rows, compute=TWO_ROWS, cache=Path(cache), context=Context(event=events))
    except SmallmodelsError as error:
        failed = (type(error).__name__, error.exit_code, str(error))
    return {"failed": failed, "shards": hashes(cache), "num_rows": seen, "events": events.kinds, "files": names(cache)}


def hashes(cache):
    """SHA-256 of each shard of the only entry."""
    return [files.sha256_file(path) for path in sorted(Path(cache).glob("signals/*/shard-*.safetensors"))]


def names(cache):
    """Of all files in the cache but locks."""
    found = [path for path in Path(cache).rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(path.name for path in found)


def _kill_at(call, number, after):
    """Replace a function of `os` by one that kills this process at its n-th call."""
    original, count = getattr(os, call), 0

    @functools.wraps(original)
    def wrapper(*args, **kwargs):
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args, **kwargs)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, call, wrapper)


# A run


def store_in_run(model, cache, run, *, resume=False, killed_at_row=None):
    """The same as the only phase of a run; returns its cost by the journal and by the entry."""
    storing._ROWS_PER_SHARD = ROWS_PER_SHARD
    seen = 0

    def look(module, arguments, inputs):
        nonlocal seen
        seen += len(inputs["input_ids"])
        if killed_at_row is not None and seen > killed_at_row:
            os.kill(os.getpid(), signal.SIGKILL)

    with Run(Path(run), meter="fake", resume=resume) as opened:
        opened.begin("test", {"seed": 0})
        teacher = classifier(model)
        teacher.model.register_forward_pre_hook(look, with_kwargs=True)
        rows = split(teacher.tokenizer, NUM_ROWS)
        opened.phase("cache", teachers.store_signals, teacher, rows, compute=TWO_ROWS, cache=Path(cache))
        phase, segment = opened._account.totals().phases["cache"], opened.meter.phases["cache"]
        counts = opened._account.counts["cache"]
    (entry,) = Path(cache).glob("signals/*/entry.json")
    return {
        "phase": [phase.energy_j, phase.cpu_s, phase.duration_s],
        "segment": [segment.energy_j, segment.cpu_s, segment.duration_s],
        "parts": files.read_json(entry)["parts"],
        "owed": [counts.shared_energy_j, counts.shared_cpu_s],
        "num_examples": counts.num_examples,
        "num_rows": seen,
        "shards": hashes(cache),
    }


# Data


def load_data(run, dataset, *, resume=False, killed_in=None, hub_files=None, temporary=None):
    """The data phase of a run.

    Args:
        run: Folder of the run.
        dataset: As the phase takes it.
        resume: Go on with that run.
        killed_in: A function of the phase's module in which this process is killed.
        hub_files: Folder of Parquet files, one per split, that the data set's name stands for.
        temporary: For temporary files.
    """
    tempfile.tempdir = temporary
    if hub_files:
        paths = {path.stem: [path] for path in sorted(Path(hub_files).iterdir())}
        source = dataclasses.replace(sample_records.dataset(dataset, "mit", {}), revision="0" * 40)
        found = sources.DatasetFiles(Path(hub_files), None, None, None, paths, ["en"], source)
        sources.fetch_dataset = lambda *_, **__: found
    if killed_in:
        module = next(found for found in (text_classification, rows, reading) if hasattr(found, killed_in))
        setattr(module, killed_in, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with Run(Path(run), meter="none", resume=resume) as opened:
        opened.begin("test", {"seed": 0})
        splits = opened.phase("data", data.load_text_classification, dataset)
        return {"fingerprint": splits.source.fingerprint, "notes": splits.notes, "events": len(opened._log.events)}


# Disks


def store_on_small_disk(model, folder, kilobytes, more_kilobytes):
    """Store on a disk that is too small, and again once it has grown; or "skip" where nothing can be mounted."""
    if not _mount(folder, "tmpfs", f"size={kilobytes}k"):
        return "skip"
    first = store(model, folder)
    _mount(folder, "tmpfs", f"size={more_kilobytes}k", remount=True)
    return [first, store(model, folder)]


def store_with_limit(model, cache, num_bytes):
    """Store while no file may grow beyond a limit, and again without it."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    first = store(model, cache)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return [first, store(model, cache)]


def store_read_only(model, cache):
    """Store in a folder that cannot be written, whoever asks; "skip" where nothing can be mounted."""
    return store(model, cache) if _mount_read_only(cache) else "skip"


def require_space_on_small_disk(folder, kilobytes, num_rows, width):
    """Ask for space on a small disk; the sentence of the refusal, None without one, or "skip"."""
    if not _mount(folder, "tmpfs", f"size={kilobytes}k"):
        return "skip"
    os.environ["SMALLMODELS_CACHE"] = f"{folder}/not/yet/there"
    with contextlib.suppress(SmallmodelsError):
        teachers.require_space(num_rows, width)
        return None
    return "refused"


def recipe_on_small_disk(model, folder, words, loader, kilobytes):
    """Run a recipe whose cache is on a small disk and which may not load its teacher; its exit code, or "skip"."""
    if not _mount(folder, "tmpfs", f"size={kilobytes}k"):
        return "skip"
    os.environ["SMALLMODELS_CACHE"] = folder

    def load(*_, **__):
        raise AssertionError("the teacher was loaded")

    setattr(models, loader, load)
    return cli.main(["run", *words, "--teacher", model])


_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CLONE_NEWNS = 0x20000


def train_on_bad_disk(model, folder, kind):
    """Train on a disk that fills up or turns read-only, and again once it is mended; "skip" where none can be mounted.

    Returns: Exit code and sentence of the first time, checkpoints left by it, events of the second time, and whether
        the second time gave the weights of a training that nothing disturbed.
    """
    room = "size=800k" if kind == "full" else "size=8m"  # a checkpoint of the tiny model has half a megabyte
    if not _mount(folder, "tmpfs", room):
        return "skip"
    config = training.TrainConfig(learning_rate=1e-2, max_steps=6, batch_size=8, checkpoint_steps=2)
    base = classifier(model)
    train = split(base.tokenizer, 24)
    steps = []

    def loss_fn(network, batch):
        steps.append(1)
        if kind == "read-only" and len(steps) == 3:
            assert _call_mount(b"none", folder, None, _MS_REMOUNT | _MS_RDONLY, None)
        return cross_entropy(network, batch)

    def fit(loss, context):
        return training.fit(base.copy(), train, loss, config, compute=FP32, context=context)

    phase = Path(folder) / "train"
    try:
        fit(loss_fn, Context(folder=phase))
        answer = [0, ""]
    except Exception as error:
        answer = list(cli.exits.explain(error))
    left = sorted(path.name for path in (phase / "checkpoints").iterdir())
    _mount(folder, "tmpfs", "size=8m", remount=True)
    events = Events()
    again = fit(cross_entropy, Context(folder=phase, event=events))
    whole = fit(cross_entropy, Context())
    return *answer, left, [message for _, message, _ in events.rows], again.weights_sha256() == whole.weights_sha256()


def _own_mounts():
    """What this process mounts from here on is seen by nobody else, and gone when it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.unshare(_CLONE_NEWNS) == 0 and _call_mount(b"none", "/", None, _MS_REC | _MS_PRIVATE, None)


def _mount(folder, kind, options, *, remount=False):
    if not remount and not _own_mounts():
        return False
    return _call_mount(b"none", folder, kind.encode(), _MS_REMOUNT if remount else 0, options.encode())


def _mount_read_only(folder):
    source = os.fsencode(folder)
    return (
        _own_mounts()
        and _call_mount(source, folder, None, _MS_BIND, None)
        and _call_mount(b"none", folder, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, None)
    )


def _call_mount(source, target, kind, flags, options):
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), options) == 0


# A command


def run_command(request):
    """Run a command of `smallmodels` that may meet its point; ends with its exit code."""
    sys.exit(killing.serve_request(killing.request_from_json(request)))
