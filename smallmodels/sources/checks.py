"""Which files of a model are read, and that what `from_pretrained` reads of them is data only."""

import re
from collections.abc import Sequence
from pathlib import Path

from smallmodels.errors import DamagedError, InputError, PolicyError
from smallmodels.sources.cards import CARD_FILES
from smallmodels.sources.config_files import check_config, read_json
from smallmodels.sources.weight_files import check_safetensors, foreign_format

_MODEL_FILES = re.compile(
    r"(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|modules"
    r"|sentence_[a-z-]+_config|config_sentence_transformers)\.json"
    r"|vocab\.txt|merges\.txt|spiece\.model|sentencepiece\.bpe\.model|tokenizer\.model"
    r"|\d+_[A-Za-z]+/config\.json"
)
"""All that is ever read of a model beside its weights, its card and its licence. Only these are downloaded."""
_WEIGHTS, _WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MODULE_WEIGHTS = re.compile(r"\d+_[A-Za-z]+/model\.safetensors")


def files_to_read(names: Sequence[str], where: str) -> list[str]:
    """The files of a repository that are used: its config, tokenizer, card and weights."""
    if "config.json" not in names:
        raise InputError(f"{where} should hold a model in the transformers format, found no config.json in it")
    if "adapter_config.json" in names:  # transformers would load it on top, with a base that it names itself
        raise PolicyError(f"{where} should hold a whole model, found an adapter: merge it into its base model first")
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


def check_folder(folder: Path) -> list[str]:
    """Check a folder with a model, and give the names of the files in it that are used.

    Raises: As `files_to_read` and `check_model` do.
    """
    wanted = files_to_read(
        [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()], str(folder)
    )
    check_model(folder, wanted, str(folder))
    return wanted


def check_model(folder: Path, names: Sequence[str], where: str) -> None:
    """Check that what `from_pretrained` would read is data only.

    Args:
        folder: Where the files are.
        names: The files that will be read, relative to the folder.
        where: How to name the model in a message.

    Raises:
        PolicyError: A config has what is not on our lists; weights are not safetensors, or of another number format.
        DamagedError: A JSON file cannot be read, a shard is missing, or weights are torn.
    """
    check_configs(folder, names, where)
    if _WEIGHTS_INDEX in names:
        index = read_json(folder / _WEIGHTS_INDEX, where)
        shards = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(shards, dict):
            raise DamagedError(
                f"{_WEIGHTS_INDEX} of {where} should have a weight_map, found none: fetch the model again"
            )
        for shard in sorted({str(value) for value in shards.values()}):
            if not _SHARD.fullmatch(shard):
                raise PolicyError(f"{_WEIGHTS_INDEX} of {where} names {shard!r}, which is no shard of a model")
            if shard not in names:
                raise DamagedError(f"{where} should hold {shard}, which its index names and which is missing")
    for name in names:
        if name.endswith(".safetensors"):
            check_safetensors(folder / name, where)


def check_configs(folder: Path, names: Sequence[str], where: str) -> None:
    """The part of `check_model` that needs no weights."""
    for name in names:
        if name.endswith((".json", ".txt", ".model")) and (found := foreign_format(folder / name)):
            raise PolicyError(
                f"{name} of {where} should be text or data of a tokenizer, found {found}: it is not loaded, so choose "
                "another model"
            )
        if name.endswith(("config.json", "modules.json", "special_tokens_map.json")):
            check_config(folder / name, name, where)
