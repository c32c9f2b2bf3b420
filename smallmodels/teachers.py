"""What a teacher gives a student: stored signals, and fine-tuned teachers that several runs share.

Both live in the cache folder, addressed by what changes them, with the joules that made them. Using an entry again
costs nothing now and still owes its share.
"""

import dataclasses
import hashlib
import inspect
import json
import math
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from smallmodels import arrays, entries, files, models, training
from smallmodels.data.splits import Split, Tokens, tokenizer_sha256
from smallmodels.errors import DamagedError, InputError, RunInterruptedError, TrainingError
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

Values: TypeAlias = npt.NDArray[np.float32]

_ROWS_PER_SHARD = 4096
_ENTRY = "entry.json"
_SHARD = re.compile(r"shard-\d{5}\.safetensors")
_LEFTOVER = re.compile(r"\.(?:entry\.json|shard-\d{5}\.safetensors)\.\d+\.tmp")
_METADATA = "smallmodels"
"""One key with all metadata of a shard: safetensors writes several in another order each time."""
_HASH_BYTES = 16
_FORMAT = "2"
"""Of the addresses and of what is kept under them; raise it when a fix changes what a teacher gives."""


@dataclass(frozen=True)
class Signals:
    """The teacher's row for each input of a split, read back by the hash of the input's tokens."""

    values: npt.NDArray[np.float32]
    """Shape (num_examples, …): raw logits of a classifier, embeddings of an embedder; mapped where they are many."""
    inputs: npt.NDArray[np.bytes_]
    """Shape (num_examples,): hash of each example's token ids, 16 bytes."""
    key: str
    """Content address of the entry in the cache."""
    tokenizer: str = ""
    """SHA-256 of the teacher's tokenizer, empty where it is not known."""

    def rows_for(self, split: Split) -> npt.NDArray[np.float32]:
        """Rows aligned with the split's examples, whatever their order.

        Raises:
            InputError: The split was cut into tokens by another tokenizer than the teacher's.
            DamagedError: An example has no row, because the data changed since the signal was stored.
        """
        if self.tokenizer and split.require_tokens().tokenizer not in ("", self.tokenizer):
            raise InputError(
                f"split {split.name} should be tokenised with the teacher's tokenizer when it gets the teacher's rows, "
                "found another: tokenise it with that first, and for the student afterwards, which keeps the rows"
            )
        wanted = input_hashes(split.require_tokens())
        if np.array_equal(wanted, self.inputs):
            return self.values
        order = np.argsort(self.inputs, kind="stable")
        positions = order[np.searchsorted(self.inputs, wanted, sorter=order).clip(max=len(order) - 1)]
        if len(unknown := np.flatnonzero(self.inputs[positions] != wanted)):
            raise DamagedError(
                f"the stored signal should have a row for {split.ids[unknown[0]]}, but the input changed: store again"
            )
        return arrays.take(self.values, positions)

    def save(self, folder: Path) -> None:
        """Write values and input hashes."""
        arrays.save(folder / "values.npy", self.values)
        arrays.save(folder / "inputs.npy", self.inputs)
        files.write_json(folder / "signals.json", {"key": self.key, "tokenizer": self.tokenizer})

    @classmethod
    def load(cls, folder: Path) -> "Signals":
        """Read what `save` wrote."""
        about = files.read_json(folder / "signals.json")
        values, inputs = arrays.load(folder / "values.npy"), arrays.load(folder / "inputs.npy")
        return cls(values, inputs, about["key"], about["tokenizer"])


def input_hashes(tokens: Tokens) -> npt.NDArray[np.bytes_]:
    """The first 16 bytes of SHA-256 of each text's token ids."""
    growing = arrays.Growing(f"S{_HASH_BYTES}")
    for begins, ends in zip(arrays.pieces(tokens.offsets[:-1]), arrays.pieces(tokens.offsets[1:]), strict=True):
        texts = (tokens.ids[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True))
        growing.append([hashlib.sha256(ids.data).digest()[:_HASH_BYTES] for ids in texts])
    return growing.done()


def _hex(inputs: npt.NDArray[np.bytes_]) -> list[str]:
    """Hashes in letters, as the addresses in the cache have them."""
    text = inputs.tobytes().hex()
    return [text[i : i + 2 * _HASH_BYTES] for i in range(0, len(text), 2 * _HASH_BYTES)]


def _sha256_of_inputs(inputs: npt.NDArray[np.bytes_]) -> str:
    """`files.sha256_json` of all hashes in letters, which are never in memory together."""
    digest = hashlib.sha256(b"[")
    for number, part in enumerate(arrays.pieces(inputs)):
        digest.update(b"," * bool(number) + json.dumps(_hex(part), separators=(",", ":"))[1:-1].encode())
    digest.update(b"]")
    return digest.hexdigest()


def store_signals(
    teacher: TextModel,
    split: Split,
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> Signals:
    """One pass of the teacher over a split, stored in the cache; a stored pass is read back.

    Rows are stored in shards, one by one. A pass that is killed, stopped, or out of disk goes on after the last shard
    that it finished, also in another run, and gives the bytes of a pass that was not interrupted. A damaged shard is
    computed again alone.

    Args:
        teacher: A classifier (raw logits are stored) or an embedder (embeddings are).
        split: Tokenised with the teacher's tokenizer.
        compute: Device and number format; chosen for this machine if None.
        context: Counts the work, and the debt of what is read back.
        cache: Folder of the cache; `cache_folder()` if None.

    Raises:
        TrainingError: The teacher gives values that are not finite, or only zeros, for an example.
        RunInterruptedError: The run was asked to stop, or the disk is full.
        DamagedError: Shards were swapped or copied.
        PolicyError: Another process builds the same entry for more than an hour.
        InputError: There is nothing to store, or the cache cannot be written.
    """
    if not len(split):
        raise InputError(f"split {split.name} should have examples for the teacher, found none: check the data set")
    one_pass = _Pass(teacher, split, compute or models.choose_compute(), context, cache)
    values = entries.read_or_build(one_pass.folder, one_pass.read, one_pass.build, context)
    if bad := _unusable(values):
        raise DamagedError(
            f"the rows stored in {one_pass.folder} should be finite and not all zero, but {len(bad)} of {len(values)} "
            f"are not (the first is for {split.ids[bad[0]]}): delete that folder to store them again"
        )
    return Signals(values, one_pass.inputs, one_pass.folder.name, split.require_tokens().tokenizer)


def require_space(num_rows: int, width: int, *run_folders: Path) -> str:
    """Refuse a signal that the disks have no room for; call it before the teacher is loaded.

    Args:
        num_rows: Examples of the split.
        width: Values per example: classes of a classifier, dimensions of an embedder.
        run_folders: Where a copy is kept beside that in the cache: the folder of the run.

    Returns: One sentence with what is needed and what is free, for the user.

    Raises: InputError that says how much is needed and how much is free.
    """
    value_bytes = num_rows * 4 * width
    num_bytes = value_bytes + num_rows * _HASH_BYTES + math.ceil(num_rows / _ROWS_PER_SHARD) * 1024 + 4096
    cache = entries.cache_folder()
    mapped = [cache] if value_bytes > arrays.LARGE_BYTES else []  # the shards in one piece, as long as the run lasts
    return entries.require_space(num_bytes, "the teacher's stored signal", cache, *mapped, *run_folders)


class _Pass:
    """One pass of a teacher over a split, as an entry of shards that are stored one by one.

    `entry.json` lists the shards that are finished with their SHA-256, and what they cost; the entry is whole once it
    lists all of them. Each shard says itself which rows of which entry it holds.
    """

    def __init__(
        self, teacher: TextModel, split: Split, compute: Compute, context: Context, cache: Path | None
    ) -> None:
        tokens = split.require_tokens()
        self.teacher, self.split, self.compute, self.context = teacher, split, compute, context
        self.inputs = input_hashes(tokens)
        self.key = {
            "what": "signals",
            **_address(teacher),
            "max_length": tokens.max_length,
            "number_format": compute.number_format,
            "device": compute.device,
            "rows_per_shard": _ROWS_PER_SHARD,
            "inputs": _sha256_of_inputs(self.inputs),
        }
        self.folder = entries.address(self.key, cache)
        self.num_shards = math.ceil(len(split) / _ROWS_PER_SHARD)
        self.bill = entries.Bill([], context)
        self.listed: dict[str, str] = {}

    def read(self) -> Values | None:
        """The values of all shards; None if one is missing or damaged."""
        content = self._read_entry()
        if content is None:
            return None
        values = _joined(self._read_shard(number, content["shards"]) for number in range(self.num_shards))
        if values is None:
            return None
        if owed := entries.Bill(content["parts"], self.context).settle():
            self.context.event("cache", "signals read back", key=self.folder.name, **owed)
        return values

    def build(self) -> Values:
        """Keep the shards that are finished and whole, and compute the others."""
        found = self._read_entry()
        content = found or {"shards": {}, "parts": []}
        if found is None and any(_SHARD.fullmatch(path.name) for path in self.folder.glob("*")):
            self._tell(_ENTRY, "so all of the signal is computed again")
        numbers = range(self.num_shards)
        kept = [number for number in numbers if self._read_shard(number, content["shards"]) is not None]
        self._tell_damage(content["shards"], kept)
        self.listed = {name: content["shards"][name] for name in map(_shard_name, kept)}
        self.bill = entries.Bill(content["parts"], self.context, only_own=not kept)
        owed = self.bill.settle()
        said = f"{len(kept)} of {self.num_shards} shards of the teacher's signal are there"
        if owed:
            self.context.event("cache", f"{said} and read back", key=self.folder.name, **owed)
        elif kept:
            self.context.event("resume", f"{said}, and its pass goes on with the others")
        self.bill.begin()
        with entries.writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            self._write_entry()
            self._remove_others()
        values = _joined(self._read_or_store(number) for number in numbers)
        assert values is not None
        return values

    def _read_or_store(self, number: int) -> Values:
        values = self._read_shard(number, self.listed)
        return self._store(number) if values is None else values

    def _store(self, number: int) -> Values:
        rows = self._rows(number)
        try:
            tokens = self.split.require_tokens().take(rows)
            values = models.forward_all(self.teacher, tokens, compute=self.compute, context=self.context)
        except RunInterruptedError as error:
            raise RunInterruptedError(
                f"the teacher's pass stopped after {rows[0]} of {len(self.split)} rows, which are kept, and can resume"
            ) from error
        if bad := _unusable(values):
            self._discard()
            raise TrainingError(
                f"the teacher should give {_fault(values[bad[0]])}, but does not for {self.split.ids[rows[bad[0]]]}: "
                "try --number-format fp32, or another teacher"
            )
        name, content = _shard_name(number), _shard(values, self._about(number))
        with entries.writing(self.folder):
            try:
                files.write_bytes(self.folder / name, content)
                self.listed[name] = files.sha256_bytes(content)
                self.bill.note()
                self._write_entry()
            except BaseException:
                with suppress(OSError):
                    (self.folder / name).unlink(missing_ok=True)
                raise
        self.context.progress(int(rows[-1]) + 1, len(self.split))
        return values

    def _rows(self, number: int) -> npt.NDArray[np.int64]:
        start = number * _ROWS_PER_SHARD
        return np.arange(start, min(start + _ROWS_PER_SHARD, len(self.split)))

    def _about(self, number: int) -> dict[str, Any]:
        """What a shard says of itself."""
        rows = self._rows(number)
        inputs = _sha256_of_inputs(self.inputs[rows])
        about = {"entry": self.folder.name, "number": number, "first_row": int(rows[0]), "num_rows": len(rows)}
        return {**about, "inputs": inputs, "dtype": "float32"}

    def _read_shard(self, number: int, listed: Mapping[str, str]) -> Values | None:
        """The values of a shard as they were written; None if it is missing or damaged.

        Raises: DamagedError if the file is whole but holds something else: somebody moved or copied it there.
        """
        path = self.folder / _shard_name(number)
        if path.name not in listed:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        found = _open_shard(content)
        if found is None:
            return None
        values, about = found
        if about != (expected := self._about(number)):
            raise DamagedError(
                f"{path} should hold {_shard_words(expected)}, but holds {_shard_words(about)}, "
                "so files were swapped or copied: delete that folder to store the signal again"
            )
        return values if files.sha256_bytes(content) == listed[path.name] else None

    def _read_entry(self) -> dict[str, Any] | None:
        """What `entry.json` says; None if it is missing or damaged."""
        try:
            content: dict[str, Any] = files.read_json(self.folder / _ENTRY)
            digest = content.pop("sha256")
            whole = digest == files.sha256_json(content)
        except (DamagedError, KeyError, TypeError, AttributeError, ValueError):
            return None
        if whole and files.sha256_json(content["key"]) != files.sha256_json(self.key):
            raise DamagedError(
                f"{self.folder / _ENTRY} should be of this entry, but is of another, so files were swapped or copied: "
                "delete that folder to store the signal again"
            )
        return content if whole else None

    def _write_entry(self) -> None:
        content = {"key": self.key, "shards": self.listed, "parts": self.bill.to_json()}
        files.write_json(self.folder / _ENTRY, {"sha256": files.sha256_json(content), **content})

    def _tell_damage(self, listed: Mapping[str, str], kept: Collection[int]) -> None:
        for number in range(self.num_shards):
            if _shard_name(number) in listed and number not in kept:
                self._tell(_shard_name(number), "so its rows are computed again")

    def _tell(self, name: str, so: str) -> None:
        where = f"{name} of the stored signal {self.folder.name[:12]}"
        self.context.event("damaged cache", f"{where} is missing or not what was written, {so}", file=name)

    def _remove_others(self) -> None:
        """Remove what earlier builders left beside the listed shards; what is not ours stays."""
        for path in self.folder.iterdir():
            if (_SHARD.fullmatch(path.name) and path.name not in self.listed) or _LEFTOVER.fullmatch(path.name):
                path.unlink()

    def _discard(self) -> None:
        """Remove the entry: its rows are of no use without those that are refused."""
        self.listed = {}
        self._remove_others()
        (self.folder / _ENTRY).unlink()
        with suppress(OSError):  # somebody else put something there
            self.folder.rmdir()


def _joined(shards: Iterable[Values | None]) -> Values | None:
    """The rows of all shards, one after the other; None as soon as one is missing."""
    growing: arrays.Growing | None = None
    for values in shards:
        if values is None:
            return None
        growing = growing or arrays.Growing(np.float32, values.shape[1:])
        growing.append(values)
    return None if growing is None else growing.done()


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _shard_words(about: Mapping[str, Any]) -> str:
    last = about["first_row"] + about["num_rows"] - 1
    return f"rows {about['first_row']} to {last} of the signal {about['entry'][:12]}"


def _shard(values: Values, about: Mapping[str, Any]) -> bytes:
    """A safetensors file of these rows that says what it holds, with a hash over both."""
    metadata = {"about": dict(about), "sha256": _shard_sha256(values, about)}
    content: bytes = save({"values": values}, metadata={_METADATA: json.dumps(metadata, sort_keys=True)})
    return content


def _open_shard(content: bytes) -> tuple[Values, dict[str, Any]] | None:
    """Rows, and what they say they are; None unless both are as they were written."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header["__metadata__"][_METADATA])
        values = load(content)["values"]
        whole = metadata["sha256"] == _shard_sha256(values, metadata["about"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return (values, metadata["about"]) if whole else None


def _shard_sha256(values: Values, about: Mapping[str, Any]) -> str:
    return files.sha256_json([dict(about), str(values.dtype), list(values.shape), files.sha256_bytes(values.tobytes())])


def _unusable(values: Values) -> list[int]:
    """Rows that are not finite or all zero: no teacher's answer, and nothing that a student could learn."""
    parts = arrays.pieces(values.reshape(len(values), -1))
    usable = [np.isfinite(part).all(axis=1) & part.any(axis=1) for part in parts]
    return [int(i) for i in np.flatnonzero(~np.concatenate(usable))]


def _fault(row: Values) -> str:
    return "finite values" if not np.isfinite(row).all() else "values that are not all zero"


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

    folder = entries.address(key, cache)

    def read() -> TextModel | None:
        try:
            files.check_manifest(folder)
        except DamagedError:
            return None
        if owed := entries.Bill(files.read_json(folder / _ENTRY)["parts"], context).settle():
            context.event("cache", "fine-tuned teacher read back", key=folder.name, **owed)
        return TextModel.load(folder / "model")

    def build() -> TextModel:
        _remove_damaged(folder, context)
        bill = entries.Bill([], context)
        bill.begin(since_phase_began=True)
        tuned = training.fit(
            base, train, loss_fn, config, seed=seed, validate=validate, compute=compute, context=context
        )
        with entries.writing(folder), files.atomic_folder(folder) as temporary:
            tuned.save(temporary / "model")
            bill.note()
            files.write_json(temporary / _ENTRY, {"key": key, "parts": bill.to_json()})
        return TextModel.load(folder / "model")

    return entries.read_or_build(folder, read, build, context)


def _remove_damaged(folder: Path, context: Context) -> None:
    """Remove a damaged teacher and what killed builders left of it.

    Raises: DamagedError if the folder holds what is not ours, which stays.
    """
    torn = re.compile(rf"\.{folder.name}\.\d+\.tmp")
    for path in folder.parent.iterdir():
        if torn.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not folder.exists():
        return
    try:
        files.check_manifest(folder)
    except DamagedError as error:
        if _holds_foreign_files(folder):
            raise
        context.event("damaged cache", str(error))
        shutil.rmtree(folder)


def _holds_foreign_files(folder: Path) -> bool:
    with suppress(DamagedError):
        listed = files.read_json(folder / files.MANIFEST)["files"]
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        return bool(names - set(listed) - {files.MANIFEST})
    return bool({path.name for path in folder.iterdir()} - {_ENTRY, files.MANIFEST, "model"})


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
        "tokenizer": tokenizer_sha256(model.tokenizer),
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
