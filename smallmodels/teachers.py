"""What a teacher gives a student: stored signals, and fine-tuned teachers that several runs share.

Both live in the cache folder, addressed by what changes them, with the joules that made them. Using an entry again
costs nothing now and still owes its share.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file

from smallmodels import files, folders, models, training
from smallmodels.data.splits import Split, Tokens
from smallmodels.errors import DamagedError, PolicyError, TrainingError
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_ROWS_PER_SHARD = 4096
_LOCK_WAIT_S = 3600.0
_ENTRY = "entry.json"
_FORMAT = "1"
"""Of the addresses and of what is kept under them; raise it when a fix changes what a teacher gives."""


@dataclass(frozen=True)
class Signals:
    """The teacher's row for each input of a split, read back by the hash of the input's tokens."""

    values: npt.NDArray[np.float32]
    """Shape (num_examples, …): raw logits of a classifier, embeddings of an embedder."""
    inputs: list[str]
    """Hash of each example's token ids."""
    key: str
    """Content address of the entry in the cache."""

    def rows_for(self, split: Split) -> npt.NDArray[np.float32]:
        """Rows aligned with the split's examples, whatever their order.

        Raises: DamagedError if an example has no row, because the data changed since the signal was stored.
        """
        position = {digest: i for i, digest in enumerate(self.inputs)}
        wanted = input_hashes(split.require_tokens())
        for example, digest in zip(split.ids, wanted, strict=True):
            if digest not in position:
                raise DamagedError(
                    f"the stored signal should have a row for {example}, but the input changed: store again"
                )
        return self.values[[position[digest] for digest in wanted]]

    def save(self, folder: Path) -> None:
        """Write values and input hashes."""
        save_file({"values": self.values}, folder / "signals.safetensors")
        files.write_json(folder / "signals.json", {"key": self.key, "inputs": self.inputs})

    @classmethod
    def load(cls, folder: Path) -> "Signals":
        """Read what `save` wrote."""
        about = files.read_json(folder / "signals.json")
        return cls(load_file(folder / "signals.safetensors")["values"], about["inputs"], about["key"])


def input_hashes(tokens: Tokens) -> list[str]:
    """A short SHA-256 of each text's token ids."""
    ends = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    return [files.sha256_bytes(tokens.ids[begin:end].tobytes())[:32] for begin, end in ends]


def store_signals(
    teacher: TextModel,
    split: Split,
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> Signals:
    """One pass of the teacher over a split, stored in the cache; a stored pass is read back.

    Args:
        teacher: A classifier (raw logits are stored) or an embedder (embeddings are).
        split: Tokenised with the teacher's tokenizer.
        compute: Device and number format; chosen for this machine if None.
        context: Counts the work, and the debt of what is read back.
        cache: Folder of the cache; `cache_folder()` if None.

    Raises: TrainingError if the teacher gives values that are not finite.
    """
    tokens = split.require_tokens()
    compute = compute or models.choose_compute()
    inputs = input_hashes(tokens)
    key = {
        "what": "signals",
        **_address(teacher),
        "max_length": tokens.max_length,
        "number_format": compute.number_format,
        "device": compute.device,
        "inputs": files.sha256_json(inputs),
    }

    def build(folder: Path) -> None:
        for number, start in enumerate(range(0, len(inputs), _ROWS_PER_SHARD)):
            rows = np.arange(start, min(start + _ROWS_PER_SHARD, len(inputs)))
            _store_shard(teacher, split, rows, compute, context, folder / f"shard-{number:05d}.safetensors")

    folder = _entry(key, build, context, cache)
    shards = [load_file(shard)["values"] for shard in sorted(folder.glob("shard-*.safetensors"))]
    return Signals(np.concatenate(shards), inputs, folder.name)


def _store_shard(
    teacher: TextModel, split: Split, rows: npt.NDArray[np.int64], compute: Compute, context: Context, path: Path
) -> None:
    values = models.forward_all(teacher, split.require_tokens().take(rows), compute=compute, context=context)
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        example = split.ids[rows[int(bad.argmax())]]
        raise TrainingError(
            f"the teacher should give finite values, but does not for {example}: try --number-format fp32"
        )
    save_file({"values": values}, path)
    context.progress(int(rows[-1]) + 1, len(split))


def fine_tune(
    base: TextModel,
    train: Split,
    loss_fn: training.LossFn,
    config: training.TrainConfig,
    *,
    seed: int = 0,
    validation: Split,
    validate: training.Validate,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> TextModel:
    """Fine-tune a teacher on labels, or read back the one that an earlier run made from the same parts.

    Args:
        base: The model to fine-tune; trained in place.
        train: Tokenised, with labels.
        loss_fn: As `training.fit` takes it; its source and the numbers that it closes over are part of the address.
        config: As `training.fit` takes it.
        seed: The teacher's own seed.
        validation: What `validate` reads; part of the address, because it chooses the weights.
        validate: As `training.fit` takes it.
        compute: Device and number format; chosen for this machine if None.
        context: Of the run.
        cache: Folder of the cache; `cache_folder()` if None.
    """
    compute = compute or models.choose_compute()
    key = {
        "what": "fine-tuned teacher",
        **_address(base),
        "max_length": base.max_length,
        "train": train.fingerprint(),
        "validation": validation.fingerprint(),
        "loss": _code_sha256(loss_fn),
        "validate": _code_sha256(validate),
        "torch": torch.__version__,
        "config": dataclasses.asdict(config),
        "seed": seed,
        "device": compute.device,
        "number_format": compute.number_format,
        "num_threads": compute.num_threads,
    }

    def build(folder: Path) -> None:
        fit = training.fit(base, train, loss_fn, config, seed=seed, validate=validate, compute=compute, context=context)
        fit.save(folder / "model")

    return TextModel.load(_entry(key, build, context, cache, can_resume=True) / "model")


def cache_folder() -> Path:
    """`$SMALLMODELS_CACHE`, else `smallmodels` in the user's cache folder."""
    if chosen := os.environ.get("SMALLMODELS_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "smallmodels"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "smallmodels"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "smallmodels"


def _address(model: TextModel) -> dict[str, str]:
    """What makes a model give what it gives: weights, config, the names of its classes, tokenizer."""
    config: Any = model.model.config
    settings = config.to_dict()
    kept = {name: value for name, value in settings.items() if not name.startswith("_") and name != "name_or_path"}
    return {
        "format": _FORMAT,
        "kind": type(model.model).__name__,
        "weights": model.weights_sha256(),
        "config": files.sha256_json(json.loads(json.dumps(kept, default=str))),
        "tokenizer": _tokenizer_sha256(model),
    }


def _code_sha256(function: Any) -> str:
    """A function's source and the plain values that it closes over; of anything else its class's source."""
    code = function if hasattr(function, "__code__") else type(function)
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):  # typed into a console
        source = getattr(function, "__code__", code).__repr__()
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    plain = [value if isinstance(value, (bool, int, float, str)) else type(value).__qualname__ for value in cells]
    return files.sha256_json([source, plain])


def _tokenizer_sha256(model: TextModel) -> str:
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return files.sha256_json(model.tokenizer.get_vocab())
    settings = json.loads(backend.to_str())
    last_call = ("truncation", "padding")  # of whoever used the tokenizer last; `max_length` says what matters
    return files.sha256_json({name: value for name, value in settings.items() if name not in last_call})


def _entry(
    key: dict[str, Any],
    build: Callable[[Path], None],
    context: Context,
    cache: Path | None,
    *,
    can_resume: bool = False,
) -> Path:
    """The folder of a cache entry: read back if it is whole, else built once, whoever else is building it.

    If `build` goes on from checkpoints of the phase, the entry's cost is that of the phase since it began.
    """
    parent = (cache or cache_folder()) / str(key["what"]).replace(" ", "-")
    folder = parent / files.sha256_json(key)[:40]
    parent.mkdir(parents=True, exist_ok=True)
    with _lock(parent / f".{folder.name}.lock", context):
        if _is_whole(folder, context):
            made = files.read_json(folder / _ENTRY)
            if made["builder"] is not None and made["builder"] == _builder(context):
                return folder  # built in this phase before it was interrupted: its cost is in this run already
            context.counts.add_shared(energy_j=made["energy_j"], cpu_s=made["cpu_s"])
            cost = {name: made[name] for name in ("energy_j", "cpu_s", "label")}
            context.event("cache", f"{key['what']} read back", key=folder.name, **cost)
            return folder
        for torn in parent.glob(f".{folder.name}.*.tmp"):  # left by a builder that was killed
            shutil.rmtree(torn)
        begin, cpu_s = context.energy(), time.process_time()
        with files.atomic_folder(folder) as temporary:
            build(temporary)
            end = context.energy()
            spent = (end if can_resume else end - begin) if begin and end else None
            made = {
                "energy_j": spent.energy_j if spent else None,
                "cpu_s": spent.cpu_s if spent else time.process_time() - cpu_s,
                "label": spent.label if spent else "missing",
                "builder": _builder(context),
            }
            files.write_json(temporary / _ENTRY, {**made, "key": key})
    return folder


def _builder(context: Context) -> str | None:
    """Which phase of which run pays for an entry; None outside a run."""
    return files.sha256_bytes(str(context.folder.resolve()).encode()) if context.folder else None


def _is_whole(folder: Path, context: Context) -> bool:
    """Whether an entry is there and what its manifest says; a damaged one is removed, to be built again."""
    if not folder.exists():
        return False
    try:
        files.check_manifest(folder)
    except DamagedError as error:
        context.event("damaged cache", str(error))
        shutil.rmtree(folder)
        return False
    return True


@contextlib.contextmanager
def _lock(path: Path, context: Context) -> Iterator[None]:
    """Hold a lock that the system releases when its process ends; wait for another builder.

    Raises: PolicyError after an hour of waiting.
    """
    with path.open("w") as file:
        deadline, told = time.monotonic() + _LOCK_WAIT_S, False
        while True:
            try:
                folders.lock_file(file)
                break
            except OSError:
                if not told:
                    context.event("waiting", "another process is building the same cache entry")
                    told = True
                if time.monotonic() > deadline:
                    raise PolicyError(
                        f"{path.name} should become free, but another process holds it: end that one"
                    ) from None
                time.sleep(0.2)
        yield
