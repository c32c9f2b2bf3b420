"""What a teacher says about each input or token, as it is stored and as it reaches a batch, or as it is said live."""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from smallmodels import arrays, files
from smallmodels.arrays import Ragged
from smallmodels.data.batches import Batch
from smallmodels.data.splits import Split, Tokens
from smallmodels.errors import DamagedError, InputError, require
from smallmodels.losses import OutputLayer, TopK, shifted, top_k
from smallmodels.models import Compute, LanguageModel, TextModel

Bytes: TypeAlias = npt.NDArray[np.uint8]

HASH_BYTES = 16


@dataclass(frozen=True)
class Signals:
    """The teacher's row for each input of a split, read back by the hash of the input's tokens."""

    values: npt.NDArray[np.float32]
    """Shape (num_examples, …): raw logits of a classifier, embeddings of an embedder; or (num_words, C) for a token
    classifier. Mapped where they are many."""
    inputs: npt.NDArray[np.bytes_]
    """Shape (num_examples,): hash of each example's token ids, 16 bytes."""
    key: str
    """Content address of the entry in the cache."""
    tokenizer: str = ""
    """SHA-256 of the teacher's tokenizer, empty where it is not known."""
    offsets: npt.NDArray[np.int64] | None = None
    """Shape (num_examples + 1,), where the values are those of words: example i has those from `offsets[i]` on."""

    def rows_for(self, split: Split) -> npt.NDArray[np.float32] | Ragged:
        """Rows aligned with the split's examples, whatever their order.

        Raises:
            InputError: The split was cut into tokens by another tokenizer than the teacher's.
            DamagedError: An example has no row, because the data changed since the signal was stored.
        """
        positions = _positions(split, self.inputs, self.tokenizer)
        if self.offsets is not None:
            rows = Ragged(self.values, self.offsets)
            return rows if positions is None else rows.take(positions)
        return self.values if positions is None else arrays.take(self.values, positions)

    def save(self, folder: Path) -> None:
        """Write values, input hashes and, for words, offsets."""
        arrays.save(folder / "values.npy", self.values)
        arrays.save(folder / "inputs.npy", self.inputs)
        if self.offsets is not None:
            arrays.save(folder / "offsets.npy", self.offsets)
        files.write_json(folder / "signals.json", {"key": self.key, "tokenizer": self.tokenizer})

    @classmethod
    def load(cls, folder: Path) -> "Signals":
        """Read what `save` wrote."""
        about = files.read_json(folder / "signals.json")
        values, inputs = arrays.load(folder / "values.npy"), arrays.load(folder / "inputs.npy")
        path = folder / "offsets.npy"
        return cls(values, inputs, about["key"], about["tokenizer"], arrays.load(path) if path.exists() else None)


@dataclass(frozen=True)
class Packing:
    """How the k most likely tokens and the tails of one target lie in bytes.

    First k log-probabilities and the tails, 16 bits each, then the low 16 bits of each id, then what is above them in
    as many bits as the vocabulary needs.
    """

    k: int
    """Tokens to keep."""
    temperatures: tuple[float, ...]
    """At which the mass of all other tokens is kept; 1 is always among them."""
    num_classes: int
    """Ids that teacher and student both have: the size of the smaller vocabulary."""

    def __post_init__(self) -> None:
        require(1 <= self.k <= self.num_classes, "k", f"in 1 … {self.num_classes}, the vocabulary", self.k)
        for temperature in self.temperatures:
            require(temperature > 0, "temperature", "> 0", temperature)
        object.__setattr__(self, "temperatures", tuple(sorted({1.0, *map(float, self.temperatures)})))

    @property
    def num_bytes(self) -> int:
        """Of one target."""
        return 2 * (self.k + len(self.temperatures) + self.k) + math.ceil(self.k * self._high_bits / 8)

    @property
    def _high_bits(self) -> int:
        """Bits of an id above the first 16: 0, 1, 2, 4 or 8, so that none lies across two bytes."""
        needed = max(0, (self.num_classes - 1).bit_length() - 16)
        return 0 if needed == 0 else 1 << (needed - 1).bit_length()

    def pack(self, top: TopK) -> Bytes:
        """Shape (num_targets, num_bytes)."""
        ids = top.ids.cpu().numpy().astype(np.uint32)
        values = torch.cat([top.log_probs, top.tails], dim=1).cpu().to(torch.float16).numpy()
        parts = [values.view(np.uint8), (ids & 0xFFFF).astype("<u2").view(np.uint8)]
        if bits := self._high_bits:
            per_byte = 8 // bits
            high = np.zeros((len(ids), math.ceil(self.k / per_byte) * per_byte), dtype=np.uint8)
            high[:, : self.k] = ids >> 16
            shifted = high.reshape(len(ids), -1, per_byte) << (np.arange(per_byte, dtype=np.uint8) * bits)
            parts.append(np.bitwise_or.reduce(shifted, axis=2))
        return np.concatenate(parts, axis=1)

    def unpack(self, packed: Bytes) -> TopK:
        """What was packed, its numbers rounded to 16 bits."""
        k, num_values = self.k, self.k + len(self.temperatures)
        values = np.ascontiguousarray(packed[:, : 2 * num_values]).view("<f2")
        ids = np.ascontiguousarray(packed[:, 2 * num_values : 2 * (num_values + k)]).view("<u2").astype(np.int64)
        if bits := self._high_bits:
            high = packed[:, 2 * (num_values + k) :, None] >> (np.arange(8 // bits, dtype=np.uint8) * bits)
            ids |= (high & ((1 << bits) - 1)).reshape(len(packed), -1)[:, :k].astype(np.int64) << 16
        numbers = torch.from_numpy(values)
        return TopK(torch.from_numpy(ids), numbers[:, :k], numbers[:, k:], self.temperatures)


@dataclass(frozen=True)
class TargetRows:
    """A teacher's word on the targets of each example of a split, in their order."""

    packed: Bytes
    """Shape (num_targets, bytes of one)."""
    offsets: npt.NDArray[np.int64]
    """Shape (num_examples + 1,): example i has the targets from `offsets[i]` to `offsets[i + 1]`."""
    packing: Packing

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, indices: npt.NDArray[np.int64]) -> "TargetRows":
        """Of these examples, in this order."""
        width = self.packing.num_bytes
        flat, offsets = arrays.take_rows(self.packed.reshape(-1), self.offsets * width, indices)
        return dataclasses.replace(self, packed=flat.reshape(-1, width), offsets=offsets // width)

    def join(self, other: "TargetRows") -> "TargetRows":
        """Of these examples, and then of others for which as much was stored."""
        assert self.packing == other.packing, "signals that were packed in two ways"
        offsets = arrays.join(self.offsets, other.offsets[1:] + self.offsets[-1])
        return dataclasses.replace(self, packed=arrays.join(self.packed, other.packed), offsets=offsets)

    def batch(self, indices: npt.NDArray[np.int64]) -> TopK:
        """Of the targets of these examples, one after the other."""
        parts = [self.packed[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        return self.packing.unpack(np.concatenate(parts))


@dataclass(frozen=True)
class TokenSignals:
    """The teacher's k most likely tokens for each target of each row of a split, read back by the hash of the row."""

    packed: Bytes
    """Shape (num_targets, bytes of one); mapped where they are many."""
    offsets: npt.NDArray[np.int64]
    """Shape (num_examples + 1,)."""
    packing: Packing
    inputs: npt.NDArray[np.bytes_]
    """Shape (num_examples,): hash of each row's token ids and targets, 16 bytes."""
    key: str
    """Content address of the entry in the cache."""
    tokenizer: str = ""
    """SHA-256 of the teacher's tokenizer, empty where it is not known."""

    def rows_for(self, split: Split) -> TargetRows:
        """As `Signals.rows_for`, for targets."""
        rows = TargetRows(self.packed, self.offsets, self.packing)
        positions = _positions(split, self.inputs, self.tokenizer)
        return rows if positions is None else rows.take(positions)

    def save(self, folder: Path) -> None:
        """Write bytes, offsets and input hashes."""
        arrays.save(folder / "packed.npy", self.packed)
        arrays.save(folder / "offsets.npy", self.offsets)
        arrays.save(folder / "inputs.npy", self.inputs)
        about = {"key": self.key, "tokenizer": self.tokenizer, "packing": dataclasses.asdict(self.packing)}
        files.write_json(folder / "signals.json", about)

    @classmethod
    def load(cls, folder: Path) -> "TokenSignals":
        """Read what `save` wrote."""
        about = files.read_json(folder / "signals.json")
        packing = Packing(**{**about["packing"], "temperatures": tuple(about["packing"]["temperatures"])})
        packed, offsets, inputs = (arrays.load(folder / f"{name}.npy") for name in ("packed", "offsets", "inputs"))
        return cls(packed, offsets, packing, inputs, about["key"], about["tokenizer"])


@dataclass(frozen=True)
class PairedRows:
    """A teacher's word on those targets of each example that one of its own belongs to, and none on the others."""

    packed: Bytes
    """Shape (teacher's targets, bytes of one)."""
    packing: Packing
    places: npt.NDArray[np.int64]
    """Shape (num_targets,): row of `packed`, or -1."""
    offsets: npt.NDArray[np.int64]
    """Shape (num_examples + 1,): example i has the targets from `offsets[i]` to `offsets[i + 1]`."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, indices: npt.NDArray[np.int64]) -> "PairedRows":
        """Of these examples, in this order."""
        places, offsets = arrays.take_rows(self.places, self.offsets, indices)
        return dataclasses.replace(self, places=places, offsets=offsets)

    def join(self, other: "PairedRows") -> "PairedRows":
        """Of these examples, and then of others for which as much was stored."""
        assert self.packing == other.packing, "signals that were packed in two ways"
        moved = np.where(other.places < 0, -1, other.places + len(self.packed))
        return dataclasses.replace(
            self,
            packed=arrays.join(self.packed, other.packed),
            places=arrays.join(self.places, moved),
            offsets=arrays.join(self.offsets, other.offsets[1:] + self.offsets[-1]),
        )

    def batch(self, indices: npt.NDArray[np.int64]) -> TopK:
        """Of the targets of these examples, one after the other; see `TopK.is_told`."""
        places = np.concatenate([self.places[self.offsets[i] : self.offsets[i + 1]] for i in indices])
        top = self.packing.unpack(self.packed[places.clip(min=0)])
        is_told = torch.from_numpy(places >= 0)[:, None]
        untold = float("-inf")
        log_probs, tails = (torch.where(is_told, values, untold) for values in (top.log_probs, top.tails))
        return dataclasses.replace(top, log_probs=log_probs, tails=tails)


@dataclass(frozen=True)
class PairedSignals:
    """A teacher's stored signal for a student with another tokenizer."""

    signals: TokenSignals
    places: npt.NDArray[np.int64]
    """Shape (student's targets,), as `data.pair_targets` gives them."""
    rows: Split
    """Of the student, whose targets these are."""

    def __post_init__(self) -> None:
        found, expected = len(self.places), int(target_offsets(self.rows.require_tokens())[-1])
        if found != expected:
            raise InputError(f"places should be those of {expected} targets, got {found}: pair the texts of these rows")

    def rows_for(self, split: Split) -> PairedRows:
        """As `Signals.rows_for`, for targets of the student."""
        tokens = self.rows.require_tokens()
        paired = PairedRows(self.signals.packed, self.signals.packing, self.places, target_offsets(tokens))
        positions = _positions(split, input_hashes(tokens), tokens.tokenizer)
        return paired if positions is None else paired.take(positions)


@dataclass(frozen=True)
class LiveTopK:
    """A teacher's word on the targets of a batch, made when some are asked for: their logits are never all there."""

    states: torch.Tensor
    """Shape (num_targets, num_dimensions): the teacher's hidden states that predict them."""
    layer: OutputLayer
    packing: Packing

    def __getitem__(self, rows: slice) -> TopK:
        with torch.no_grad():
            return top_k(self.layer(self.states[rows]), self.packing.k, self.packing.temperatures)


class LiveTeacher:
    """Says for each batch, by a pass that is made now, what `store_token_signals` would have stored for its targets.

    Args:
        teacher: A language model; put on the device, into evaluation mode, and without gradients for good.
        packing: How many tokens to keep, and at which temperatures the mass of all others; no bytes are packed.
        compute: Device, attention and number format.
    """

    def __init__(self, teacher: TextModel, packing: Packing, compute: Compute) -> None:
        network = compute.place(teacher.model).eval().requires_grad_(False)
        assert isinstance(network, LanguageModel), "targets are those of a language model"
        self.network, self.packing = network, packing
        self.layer = network.output_layer.cut(packing.num_classes).to(compute.dtype)

    def __call__(self, batch: Batch) -> LiveTopK:
        """What it says about a batch of rows that teacher and student read alike."""
        with torch.no_grad():
            states, _ = shifted(self.network(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        return LiveTopK(states, self.layer, self.packing)


def target_offsets(tokens: Tokens) -> npt.NDArray[np.int64]:
    """Row i has the targets from `offsets[i]` to `offsets[i + 1]`.

    Raises: InputError if the tokens have no targets.
    """
    if tokens.targets is None:
        raise InputError("a language model's signal needs tokens with targets, but there are none: cut them into rows")
    counted = np.concatenate([[0], np.cumsum(tokens.targets, dtype=np.int64)])
    return np.asarray(counted[tokens.offsets])


def _positions(split: Split, inputs: npt.NDArray[np.bytes_], tokenizer: str) -> npt.NDArray[np.int64] | None:
    """Where the row of each example is; None if they are in the same order.

    Raises: InputError or DamagedError, see `Signals.rows_for`.
    """
    if tokenizer and split.require_tokens().tokenizer not in ("", tokenizer):
        raise InputError(
            f"split {split.name} should be tokenised with the teacher's tokenizer when it gets the teacher's rows, "
            "found another: tokenise it with that first, and for the student afterwards, which keeps the rows"
        )
    wanted = input_hashes(split.require_tokens())
    if np.array_equal(wanted, inputs):
        return None
    order = np.argsort(inputs, kind="stable")
    positions = order[np.searchsorted(inputs, wanted, sorter=order).clip(max=len(order) - 1)]
    if len(unknown := np.flatnonzero(inputs[positions] != wanted)):
        raise DamagedError(
            f"the stored signal should have a row for {split.ids[unknown[0]]}, but the input changed: store again"
        )
    return np.asarray(positions, dtype=np.int64)


def input_hashes(tokens: Tokens) -> npt.NDArray[np.bytes_]:
    """The first 16 bytes of SHA-256 of each text's token ids, and of its targets where it has some."""
    growing = arrays.Growing(f"S{HASH_BYTES}")
    for begins, ends in zip(arrays.pieces(tokens.offsets[:-1]), arrays.pieces(tokens.offsets[1:]), strict=True):
        spans = [slice(begin, end) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        growing.append([_sha256(tokens, span) for span in spans])
    return growing.done()


def _sha256(tokens: Tokens, span: slice) -> bytes:
    digest = hashlib.sha256(tokens.ids[span].data)
    if tokens.targets is not None:
        digest.update(tokens.targets[span].data)
    return digest.digest()[:HASH_BYTES]
