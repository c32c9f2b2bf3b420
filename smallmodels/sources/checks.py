"""Which files of a model are read, and that what `from_pretrained` reads of them is data only."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smallmodels.errors import DamagedError, InputError, PolicyError
from smallmodels.sources.cards import CARD_FILES

_MODEL_FILES = re.compile(
    r"(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|modules"
    r"|sentence_bert_config|config_sentence_transformers)\.json"
    r"|vocab\.txt|merges\.txt|spiece\.model|sentencepiece\.bpe\.model|tokenizer\.model"
    r"|\d+_[A-Za-z]+/config\.json"
)
"""All that is ever read of a model beside its weights, its card and its licence. Only these are downloaded."""
_WEIGHTS, _WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MODULE_WEIGHTS = re.compile(r"\d+_[A-Za-z]+/model\.safetensors")
_MAX_HEADER_BYTES = 100_000_000
"""Longest header that the safetensors format allows."""

_FORBIDDEN_KEYS = frozenset({"auto_map", "trust_remote_code", "quantization_config", "custom_pipelines"})
_ATTENTION_KEYS = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_internal"})
_ATTENTION_VALUES = frozenset({None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})
"""Anything else, such as `org/kernel`, would be downloaded and run."""


def files_to_read(names: Sequence[str], where: str) -> list[str]:
    """The files of a repository that are used: its config, tokenizer, card and weights."""
    if "config.json" not in names:
        raise InputError(f"{where} should hold a model in the transformers format, found no config.json in it")
    if code := [name for name in names if name.startswith("custom_generate/")]:
        raise PolicyError(f"{where} brings code of its own ({code[0]}), which is not run: choose another model")
    chosen = [name for name in names if _MODEL_FILES.fullmatch(name) or CARD_FILES.fullmatch(name)]
    if _WEIGHTS in names:
        chosen.append(_WEIGHTS)
    elif _WEIGHTS_INDEX in names:
        chosen += [_WEIGHTS_INDEX, *(name for name in names if _SHARD.fullmatch(name))]
    else:
        pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl"))]
        found = f"only {pickled[0]}" if pickled else "none"
        raise PolicyError(
            f"{where} should have its weights as {_WEIGHTS}, found {found}: choose a revision with safetensors "
            "(refs/convert or a pull request often has them), or convert the weights in a place of their own"
        )
    return sorted({*chosen, *(name for name in names if _MODULE_WEIGHTS.fullmatch(name))})


def check_model(folder: Path, names: Sequence[str], where: str) -> None:
    """Check that what `from_pretrained` would read is data only.

    Args:
        folder: Where the files are.
        names: The files that will be read, relative to the folder.
        where: How to name the model in a message.

    Raises:
        PolicyError: A config asks for code or for a number format that we do not load; a file is not safetensors.
        DamagedError: A JSON file cannot be read, or a shard is missing.
    """
    check_configs(folder, names, where)
    if _WEIGHTS_INDEX in names:
        shards = _read_json(folder / _WEIGHTS_INDEX, where).get("weight_map", {})
        for shard in sorted({str(value) for value in shards.values()}):
            if not _SHARD.fullmatch(shard):
                raise PolicyError(f"{_WEIGHTS_INDEX} of {where} names {shard!r}, which is no shard of a model")
            if shard not in names:
                raise DamagedError(f"{where} should hold {shard}, which its index names and which is missing")
    for name in names:
        if name.endswith(".safetensors"):
            _check_safetensors(folder / name, where)


def check_configs(folder: Path, names: Sequence[str], where: str) -> None:
    """The part of `check_model` that needs no weights."""
    for name in names:
        if name.endswith(("config.json", "modules.json")):
            value = _read_json(folder / name, where)
            _check_keys(value, name, where)
            if name == "modules.json":
                _check_modules(value, where)


def _check_keys(value: Any, name: str, where: str) -> None:
    """Refuse keys that make transformers run code or load something else, at any depth."""
    if isinstance(value, list):
        for item in value:
            _check_keys(item, name, where)
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _FORBIDDEN_KEYS and item not in (None, False, {}):
                raise PolicyError(
                    f"{name} of {where} has {key!r}, which asks for code or formats that are not loaded: "
                    "choose a model without it"
                )
            if key in _ATTENTION_KEYS and (isinstance(item, list | dict) or item not in _ATTENTION_VALUES):
                raise PolicyError(f"{name} of {where} has {key} {item!r}, expected one that transformers brings itself")
            _check_keys(item, name, where)


def _check_modules(modules: Any, where: str) -> None:
    kinds = [str(module.get("type")) for module in modules if isinstance(module, dict)]
    if foreign := [kind for kind in kinds if not kind.startswith("sentence_transformers.")]:
        raise PolicyError(f"modules.json of {where} names {foreign[0]!r}, which is code of its own and is not run")


def _check_safetensors(path: Path, where: str) -> None:
    """A header length, then a JSON object: what a pickle or an archive with a false name does not begin with."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{" or length > min(_MAX_HEADER_BYTES, path.stat().st_size - 8):
        raise PolicyError(f"{path.name} of {where} is not a safetensors file, whatever its name says: it is not loaded")


def _read_json(path: Path, where: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path.name} of {where} should be JSON, found {type(error).__name__}") from error
