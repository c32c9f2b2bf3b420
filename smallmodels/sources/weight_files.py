"""Whether a file of weights is what the safetensors format allows, read from its header alone.

The format: eight bytes with the length of the header, the header as JSON, then the bytes of the tensors without gaps
(https://github.com/huggingface/safetensors, section Format).
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smallmodels import files
from smallmodels.errors import DamagedError, PolicyError

MAX_HEADER_BYTES = 10_000_000
"""The format allows ten times as much, which as parsed JSON takes gigabytes; this is room for 80,000 tensors."""

_BYTES_PER_VALUE = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Number formats that are loaded."""

_TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}
"""What torch calls them."""

_FOREIGN = {
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"PK\x03\x04": "a zip archive, as torch.save writes",
    b"PK\x05\x06": "a zip archive, as torch.save writes",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"\x04\x22\x4d\x18": "an lz4 archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x89HDF": "an HDF5 file",
}
_TAR_MARK, _TAR_PLACE = b"ustar", 257


def foreign_format(path: Path) -> str | None:
    """What a file is by its first bytes, if it is a pickle or an archive: `a zip archive, …`; else None."""
    with path.open("rb") as file:
        start = file.read(_TAR_PLACE + len(_TAR_MARK))
    if start[_TAR_PLACE:] == _TAR_MARK:
        return "a tar archive"
    return next((name for magic, name in _FOREIGN.items() if start.startswith(magic)), None)


def check_safetensors(path: Path, where: str) -> None:
    """Check that a file is safetensors: its header, and that its tensors fill the rest without a gap.

    Args:
        path: The file.
        where: How to name its model in a message.

    Raises:
        PolicyError: It is something else, whatever its name says, or uses number formats that are not loaded.
        DamagedError: It is torn, or its header says what cannot be.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 9 or start[8:] != b"{":
            found = foreign_format(path) or "something else"
            raise PolicyError(
                f"{path.name} of {where} should be a safetensors file, found {found}, whatever its name says: "
                "it is not loaded, so choose a model with safetensors"
            )
        if length > MAX_HEADER_BYTES:
            raise _damaged(path, where, f"its header claims {length:,} bytes, of {MAX_HEADER_BYTES:,} allowed")
        if length > size - 8:
            raise _damaged(path, where, f"it ends inside its header, at {size:,} bytes")
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, where, f"its header is not JSON ({type(error).__name__})") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, where, "its metadata are not texts")
    spans = sorted(_span(path, where, name, about) for name, about in header.items())
    _check_spans(path, where, spans, size - 8 - length)


def weights_sha256(paths: Iterable[Path], *, prefix: str = "") -> str:
    """What `TextModel.weights_sha256` of a model says, from its files alone and without torch.

    It differs where the files hold other tensors than the model, such as one for two that are tied.

    Args:
        paths: All files of its weights.
        prefix: What the model has before the names in the files.

    Raises:
        PolicyError: See `check_safetensors`.
        DamagedError: See `check_safetensors`.
    """
    found = {}
    for path in paths:
        check_safetensors(path, path.parent.name)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, about in header.items():
                begin, end = about["data_offsets"]
                file.seek(8 + length + begin)
                digest = files.sha256_bytes(file.read(end - begin))
                found[prefix + name] = f"torch.{_TORCH_NAMES[about['dtype']]}:{tuple(about['shape'])}:{digest}"
    return files.sha256_json([f"{name}:{line}" for name, line in sorted(found.items())])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _span(path: Path, where: str, name: str, about: Any) -> tuple[int, int, str]:
    """First byte of a tensor, the byte after its last, and its name."""
    if (
        not isinstance(about, Mapping)
        or not _is_counts(about.get("shape"))
        or not _is_counts(about.get("data_offsets"))
    ):
        raise _damaged(path, where, f"its header does not describe {name[:80]!r} as a tensor")
    if about.get("dtype") not in _BYTES_PER_VALUE:
        raise PolicyError(
            f"{path.name} of {where} should hold weights of 8 to 64 bits, found {str(about.get('dtype'))[:20]!r} for "
            f"{name[:80]!r}: choose a model that is not quantised"
        )
    begin, end = (about["data_offsets"] + [0, 0])[:2]
    expected = math.prod(about["shape"]) * _BYTES_PER_VALUE[about["dtype"]]
    if len(about["data_offsets"]) != 2 or end - begin != expected:
        raise _damaged(path, where, f"{name[:80]!r} should take {expected:,} bytes and has {end - begin:,}")
    return begin, end, name


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(type(item) is int and item >= 0 for item in value)


def _check_spans(path: Path, where: str, spans: list[tuple[int, int, str]], num_bytes: int) -> None:
    position = 0
    for begin, end, name in spans:
        if begin != position:
            kind = "overlaps the tensor before it" if begin < position else f"leaves {begin - position:,} bytes unused"
            raise _damaged(path, where, f"{name[:80]!r} {kind}")
        position = end
    if position > num_bytes:
        raise _damaged(path, where, f"it ends {position - num_bytes:,} bytes too early")
    if position < num_bytes:
        raise _damaged(path, where, f"it has {num_bytes - position:,} bytes behind its last tensor")


def _damaged(path: Path, where: str, reason: str) -> DamagedError:
    return DamagedError(f"{where} should hold whole weights, but of {path.name}, {reason}: fetch the model again")
