"""One pass of a teacher, stored in shards: it goes on after a kill, and a damaged shard is computed again alone."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from smallmodels import arrays, entries, files, losses, models, trials
from smallmodels.data.splits import Split, Tokens
from smallmodels.errors import DamagedError, InputError, RunInterruptedError, TrainingError, require
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.teachers import addresses
from smallmodels.teachers.signals import (
    HASH_BYTES,
    Bytes,
    Packing,
    Signals,
    TokenSignals,
    input_hashes,
    target_offsets,
)

Stored: TypeAlias = npt.NDArray[Any]
"""Values of a teacher: float32 rows, or packed bytes."""

_ROWS_PER_SHARD = 4096
_TARGET_ROWS_PER_SHARD = 256
"""Rows of a few hundred tokens each, of some 130 bytes."""
_SHARD = re.compile(r"shard-\d{5}\.safetensors")
_LEFTOVER = re.compile(r"\.(?:entry\.json|shard-\d{5}\.safetensors)\.\d+\.tmp")
_METADATA = "smallmodels"
"""One key with all metadata of a shard: safetensors writes several in another order each time."""


def _hex(inputs: npt.NDArray[np.bytes_]) -> list[str]:
    """Hashes in letters, as the addresses in the cache have them."""
    text = inputs.tobytes().hex()
    return [text[i : i + 2 * HASH_BYTES] for i in range(0, len(text), 2 * HASH_BYTES)]


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
        teacher: A classifier of texts or words (raw logits are stored) or an embedder (embeddings are).
        split: Tokenised with the teacher's tokenizer.
        compute: Device and number format; chosen for this machine if None.
        context: Counts the work, and the debt of what is read back.
        cache: Folder of the cache; `cache_folder()` if None.

    Raises:
        TrainingError: The teacher gives values that are not finite, or only zeros, for an example.
        RunInterruptedError: The run was asked to stop, or the disk is full.
        BudgetError: The budget of the run is spent before there is a student; the shards that are done are kept.
        DamagedError: Shards were swapped or copied.
        PolicyError: Another process builds the same entry for more than an hour.
        InputError: There is nothing to store, or the cache cannot be written.
    """
    if not len(split):
        raise InputError(f"split {split.name} should have examples for the teacher, found none: check the data set")
    tokens, is_words = split.require_tokens(), models.is_token_classifier(teacher.model)
    answers = _Words(teacher) if is_words else _WholeTexts(teacher)
    one_pass = _Pass(teacher, split, answers, compute or models.choose_compute(), context, cache)
    offsets = target_offsets(tokens) if is_words else None
    return Signals(one_pass.values(), one_pass.inputs, one_pass.folder.name, tokens.tokenizer, offsets)


def store_token_signals(
    teacher: TextModel,
    split: Split,
    *,
    packing: Packing,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
    cache: Path | None = None,
) -> TokenSignals:
    """The k most likely tokens of a language model for each target of a split, stored as `store_signals` does.

    Args:
        teacher: A language model.
        split: Rows that `data.cut_into_rows` made with the teacher's tokenizer.
        packing: How many tokens to keep for each target, and at which temperatures the mass of all others.
        compute: Device and number format; chosen for this machine if None.
        context: Counts the work, and the debt of what is read back.
        cache: Folder of the cache; `cache_folder()` if None.

    Raises: As `store_signals`; InputError if the teacher has fewer tokens, or the split has no targets.
    """
    if not len(split):
        raise InputError(f"split {split.name} should have rows for the teacher, found none: check the data set")
    offsets = target_offsets(split.require_tokens())
    size = models.vocabulary_size(teacher)
    _require_known_ids(split.require_tokens(), size)
    require(packing.num_classes <= size, "num_classes", f"<= {size}, the teacher's vocabulary", packing.num_classes)
    compute = compute or models.choose_compute()
    one_pass = _Pass(teacher, split, _Targets(teacher, packing), compute, context, cache)
    packed = one_pass.values()
    tokenizer = split.require_tokens().tokenizer
    return TokenSignals(packed, offsets, packing, one_pass.inputs, one_pass.folder.name, tokenizer)


def _require_known_ids(tokens: Tokens, size: int) -> None:
    """A student of one family may have special tokens more, and may have written one."""
    largest = int(tokens.ids.max(initial=0))
    if largest >= size:
        raise InputError(
            f"the teacher should know every token that it reads, but its table has {size} and a text has number "
            f"{largest}: choose a teacher with the tokens of the student"
        )


def require_space(num_rows: int, width: int, *run_folders: Path) -> str:
    """Refuse a signal that the disks have no room for; call it before the teacher is loaded.

    Args:
        num_rows: Examples of the split.
        width: Values per example: classes of a classifier, dimensions of an embedder.
        run_folders: Where a copy is kept beside that in the cache: the folder of the run.

    Returns: One sentence with what is needed and what is free, for the user.

    Raises: InputError that says how much is needed and how much is free.
    """
    return _require_space(num_rows * 4 * width, num_rows, _ROWS_PER_SHARD, run_folders)


def require_space_for_tokens(rows: Split, packing: Packing, *run_folders: Path) -> str:
    """`require_space` for what `store_token_signals` stores of rows."""
    num_targets = int(target_offsets(rows.require_tokens())[-1])
    return _require_space(num_targets * packing.num_bytes, len(rows), _TARGET_ROWS_PER_SHARD, run_folders)


def _require_space(value_bytes: int, num_rows: int, rows_per_shard: int, run_folders: Sequence[Path]) -> str:
    num_bytes = value_bytes + num_rows * (HASH_BYTES + 8) + math.ceil(num_rows / rows_per_shard) * 1024 + 4096
    cache = entries.cache_folder()
    mapped = [cache] if value_bytes > arrays.LARGE_BYTES else []  # the shards in one piece, as long as the run lasts
    return entries.require_space(num_bytes, "the teacher's stored signal", cache, *mapped, *run_folders)


class _Answers(Protocol):
    """What a teacher is asked for, and how the answer is stored."""

    @property
    def dtype(self) -> str:
        """Of the stored values."""

    @property
    def rows_per_shard(self) -> int:
        """How many rows go into one file."""

    @property
    def key(self) -> Mapping[str, Any]:
        """What makes the answer what it is, beside model, inputs and device."""

    def values(self, tokens: Tokens, compute: Compute, context: Context) -> Stored:
        """The answers for these rows of tokens, one after the other."""

    def num_values(self, tokens: Tokens) -> int:
        """How many values these rows of tokens have."""

    def unusable(self, values: Stored) -> list[int]:
        """Places of values that are no teacher's answer."""

    def row_of(self, place: int, tokens: Tokens) -> int:
        """The row that a value belongs to."""


@dataclass(frozen=True)
class _WholeTexts:
    """One row of logits or one embedding for each text."""

    teacher: TextModel
    dtype: str = "float32"
    key: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows_per_shard(self) -> int:
        return _ROWS_PER_SHARD

    def values(self, tokens: Tokens, compute: Compute, context: Context) -> Stored:
        return models.forward_all(self.teacher, tokens, compute=compute, context=context)

    def num_values(self, tokens: Tokens) -> int:
        return len(tokens.lengths)

    def unusable(self, values: Stored) -> list[int]:
        return _empty_rows(values)

    def row_of(self, place: int, tokens: Tokens) -> int:
        return place


@dataclass(frozen=True)
class _Words:
    """A row of logits for each word that a text's tokens begin."""

    teacher: TextModel
    dtype: str = "float32"
    key: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows_per_shard(self) -> int:
        return _ROWS_PER_SHARD

    def values(self, tokens: Tokens, compute: Compute, context: Context) -> Stored:
        return models.forward_words(self.teacher, tokens, compute=compute, context=context).values

    def num_values(self, tokens: Tokens) -> int:
        return int(target_offsets(tokens)[-1])

    def unusable(self, values: Stored) -> list[int]:
        return _empty_rows(values)

    def row_of(self, place: int, tokens: Tokens) -> int:
        return _row_of_target(place, tokens)


def _empty_rows(values: Stored) -> list[int]:
    """Rows that are not finite or all zero: nothing that a student could learn."""
    parts = arrays.pieces(values.reshape(len(values), -1))
    usable = [np.isfinite(part).all(axis=1) & part.any(axis=1) for part in parts]
    return [int(i) for i in np.flatnonzero(~np.concatenate(usable))]


def _row_of_target(place: int, tokens: Tokens) -> int:
    return int(np.searchsorted(target_offsets(tokens), place, side="right")) - 1


@dataclass(frozen=True)
class _Targets:
    """The k most likely tokens and the tails for each target of each row."""

    teacher: TextModel
    packing: Packing
    dtype: str = "uint8"

    @property
    def key(self) -> Mapping[str, Any]:
        return dataclasses.asdict(self.packing)

    @property
    def rows_per_shard(self) -> int:
        return _TARGET_ROWS_PER_SHARD

    def values(self, tokens: Tokens, compute: Compute, context: Context) -> Stored:
        trial = trials.current()
        if trial is None:
            return self._values(tokens, compute, context)
        some = [
            self._values(tokens.take(places), compute, context)
            for places in models.passes_in_part(trial, tokens, compute)
        ]
        return np.resize(np.concatenate(some), (self.num_values(tokens), self.packing.num_bytes))

    def _values(self, tokens: Tokens, compute: Compute, context: Context) -> Stored:
        network = compute.place(self.teacher.model).eval()
        assert isinstance(network, LanguageModel), "targets are those of a language model"
        packing, layer = self.packing, network.output_layer.cut(self.packing.num_classes).to(compute.dtype)
        rows = Split("shard", [""] * len(tokens.lengths), [""] * len(tokens.lengths), tokens=tokens)
        found: dict[int, Bytes] = {}
        for indices, batch, states, _ in models.forward_targets(network, rows, compute=compute, context=context):
            chunks = losses.top_k_by_chunks(states, layer, packing.k, packing.temperatures)
            told = [np.zeros((0, packing.num_bytes), dtype=np.uint8), *map(packing.pack, chunks)]
            counts = batch.is_target[:, 1:].sum(1).cumsum(0)[:-1].tolist()
            found |= dict(zip(indices.tolist(), np.split(np.concatenate(told), counts), strict=True))
        return np.concatenate([found[i] for i in range(len(rows))])

    def num_values(self, tokens: Tokens) -> int:
        return int(target_offsets(tokens)[-1])

    def unusable(self, values: Stored) -> list[int]:
        """Targets whose best token has no finite log-probability, or none at all."""
        best = np.concatenate([np.ascontiguousarray(part[:, :2]).view("<f2")[:, 0] for part in arrays.pieces(values)])
        return [int(i) for i in np.flatnonzero(~np.isfinite(best))]

    def row_of(self, place: int, tokens: Tokens) -> int:
        return _row_of_target(place, tokens)


class _Pass:
    """One pass of a teacher over a split, as an entry of shards that are stored one by one.

    `entry.json` lists the shards that are finished with their SHA-256, and what they cost; the entry is whole once it
    lists all of them. Each shard says itself which rows of which entry it holds.
    """

    def __init__(
        self,
        teacher: TextModel,
        split: Split,
        answers: _Answers,
        compute: Compute,
        context: Context,
        cache: Path | None,
    ) -> None:
        tokens = split.require_tokens()
        self.answers = answers
        self.split, self.compute, self.context = split, compute, context
        self.inputs = input_hashes(tokens)
        self.key = {
            "what": "signals",
            **addresses.of_model(teacher),
            **self.answers.key,
            "max_length": tokens.max_length,
            "number_format": compute.number_format,
            "device": compute.device,
            "rows_per_shard": self.answers.rows_per_shard,
            "inputs": _sha256_of_inputs(self.inputs),
        }
        self.folder = entries.address(self.key, cache)
        self.num_shards = math.ceil(len(split) / self.answers.rows_per_shard)
        self.bill = entries.Bill([], context)
        self.listed: dict[str, str] = {}

    def values(self) -> Stored:
        """Of all rows: read back, or computed and stored.

        Raises: DamagedError if what was stored is no teacher's answer.
        """
        values = entries.read_or_build(self.folder, self.read, self.build, self.context)
        if bad := self.answers.unusable(values):
            row = self.answers.row_of(bad[0], self.split.require_tokens())
            raise DamagedError(
                f"the rows stored in {self.folder} should be finite and not all zero, but {len(bad)} of {len(values)} "
                f"are not (the first is for {self.split.ids[row]}): delete that folder to store them again"
            )
        return values

    def read(self) -> Stored | None:
        """The values of all shards; None if one is missing or damaged."""
        content = self._read_entry()
        if content is None:
            return None
        values = self._joined(self._read_shard(number, content["shards"]) for number in range(self.num_shards))
        if values is None:
            return None
        if owed := entries.Bill(content["parts"], self.context).settle():
            self.context.event("cache", "signals read back", key=self.folder.name, **owed)
        return values

    def build(self) -> Stored:
        """Keep the shards that are finished and whole, and compute the others."""
        found = self._read_entry()
        content = found or {"shards": {}, "parts": []}
        if found is None and any(_SHARD.fullmatch(path.name) for path in self.folder.glob("*")):
            self._tell(entries.ENTRY, "so all of the signal is computed again")
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
        if trial := trials.current():
            return self._in_part(trial, [number for number in numbers if number not in kept])
        values = self._joined(self._read_or_store(number) for number in numbers)
        assert values is not None
        return values

    def _in_part(self, trial: trials.Trial, numbers: Sequence[int]) -> Stored:
        """Values for these shards, which stand for those of the others as well; nothing is stored."""
        tokens = self.split.require_tokens()
        rows = np.concatenate([self._rows(number) for number in numbers])
        values = self.answers.values(tokens.take(rows), self.compute, self.context)
        trial.cache_bytes += values.nbytes
        return np.resize(values, (self.answers.num_values(tokens), *values.shape[1:]))

    def _read_or_store(self, number: int) -> Stored:
        values = self._read_shard(number, self.listed)
        return self._store(number) if values is None else values

    def _store(self, number: int) -> Stored:
        rows = self._rows(number)
        self.context.rules.require_left()
        try:
            tokens = self.split.require_tokens().take(rows)
            values = self.answers.values(tokens, self.compute, self.context)
        except RunInterruptedError as error:
            raise RunInterruptedError(
                f"the teacher's pass stopped after {rows[0]} of {len(self.split)} rows, which are kept, and can resume"
            ) from error
        if bad := self.answers.unusable(values):
            self._discard()
            row = rows[self.answers.row_of(bad[0], tokens)]
            raise TrainingError(
                f"the teacher should give {_fault(values[bad[0]])}, but does not for {self.split.ids[row]}: "
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
        start, size = number * self.answers.rows_per_shard, self.answers.rows_per_shard
        return np.arange(start, min(start + size, len(self.split)))

    def _about(self, number: int) -> dict[str, Any]:
        """What a shard says of itself."""
        rows = self._rows(number)
        inputs = _sha256_of_inputs(self.inputs[rows])
        about = {"entry": self.folder.name, "number": number, "first_row": int(rows[0]), "num_rows": len(rows)}
        return {**about, "inputs": inputs, "dtype": self.answers.dtype}

    def _read_shard(self, number: int, listed: Mapping[str, str]) -> Stored | None:
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
            content: dict[str, Any] = files.read_json(self.folder / entries.ENTRY)
            digest = content.pop("sha256")
            whole = digest == files.sha256_json(content)
        except (DamagedError, KeyError, TypeError, AttributeError, ValueError):
            return None
        if whole and files.sha256_json(content["key"]) != files.sha256_json(self.key):
            raise DamagedError(
                f"{self.folder / entries.ENTRY} should be of this entry, but is of another, so files were swapped or "
                "copied: delete that folder to store the signal again"
            )
        return content if whole else None

    def _write_entry(self) -> None:
        content = {"key": self.key, "shards": self.listed, "parts": self.bill.to_json()}
        files.write_json(self.folder / entries.ENTRY, {"sha256": files.sha256_json(content), **content})

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

    def _joined(self, shards: Iterable[Stored | None]) -> Stored | None:
        """The rows of all shards, one after the other; None as soon as one is missing."""
        growing: arrays.Growing | None = None
        for values in shards:
            if values is None:
                return None
            growing = growing or arrays.Growing(self.answers.dtype, values.shape[1:])
            growing.append(values)
        return None if growing is None else growing.done()

    def _discard(self) -> None:
        """Remove the entry: its rows are of no use without those that are refused."""
        self.listed = {}
        self._remove_others()
        (self.folder / entries.ENTRY).unlink()
        with suppress(OSError):  # somebody else put something there
            self.folder.rmdir()


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _shard_words(about: Mapping[str, Any]) -> str:
    last = about["first_row"] + about["num_rows"] - 1
    return f"rows {about['first_row']} to {last} of the signal {about['entry'][:12]}"


def _shard(values: Stored, about: Mapping[str, Any]) -> bytes:
    """A safetensors file of these rows that says what it holds, with a hash over both."""
    metadata = {"about": dict(about), "sha256": _shard_sha256(values, about)}
    content: bytes = save({"values": values}, metadata={_METADATA: json.dumps(metadata, sort_keys=True)})
    return content


def _open_shard(content: bytes) -> tuple[Stored, dict[str, Any]] | None:
    """Rows, and what they say they are; None unless both are as they were written."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header["__metadata__"][_METADATA])
        values = load(content)["values"]
        whole = metadata["sha256"] == _shard_sha256(values, metadata["about"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return (values, metadata["about"]) if whole else None


def _shard_sha256(values: Stored, about: Mapping[str, Any]) -> str:
    return files.sha256_json([dict(about), str(values.dtype), list(values.shape), files.sha256_bytes(values.tobytes())])


def _fault(row: Stored) -> str:
    is_zero = row.dtype == np.float32 and np.isfinite(row).all()
    return "values that are not all zero" if is_zero else "finite values"
