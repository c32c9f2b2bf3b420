"""Which keys and values the JSON files beside a model's weights may have: those that are data, and name no code.

transformers sets every key of a config as an attribute, and some of them make it download or import things. What
follows is therefore a list of what is allowed, not of what is known to be dangerous.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from smallmodels.errors import DamagedError, PolicyError

_PLAIN_KEY = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_PRIVATE_KEYS = frozenset(
    {
        *("_name_or_path", "_num_labels", "_commit_hash", "_attn_implementation", "_attn_implementation_internal"),
        *("_attn_implementation_autoset", "_experts_implementation", "_experts_implementation_internal"),
        *(
            "_remove_final_layer_norm",
            "_flash_attn_2_enabled",
            "_from_model_config",
            "__version__",
            "__type",
            "__float__",
        ),
    }
)
"""Keys with a leading underscore that released models have. Others reach into the objects of transformers, so they may
hold numbers only."""

_CODE_KEY = re.compile(
    r"auto_map|remote_code|quanti[sz]ation|compression|custom|kernel|pipeline|plugin|configuration_files|tokenizer_files"
)
"""A key of this kind may say "no", or be a size, such as `conv_kernel`; anything else would load something."""

_CHOICES = (
    (
        re.compile(r".*_implementation(?:_internal)?"),
        frozenset({None, "eager", "sdpa", "flex_attention", "batched_mm", "grouped_mm", "static", "dynamic", "hybrid"}),
    ),
    (
        re.compile(r"(?:.*_)?dtype"),
        frozenset({None, "auto", "float64", "float32", "float16", "bfloat16", "fp64", "fp32", "fp16", "bf16"}),
    ),
)
"""Values that a key of this kind may have. `flash_attention_2` is not among them, because where its package is absent
transformers takes a kernel from the hub."""

_NAME = re.compile(r"(?!.*(?:--|::|\.\.))[^/\\\x00-\x1f]{0,200}")
"""A string that is neither a path, nor an address, nor a repository."""
_CLASS = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)
_MODULE_CLASS = re.compile(r"sentence_transformers\.(?:\w+\.)*\w+", re.ASCII)

_FREE_TEXT = frozenset(
    ["_name_or_path", "name_or_path", "id2label", "label2id", "task_specific_params", "finetuning_task", "prompts"]
)
"""Under these keys stands what people wrote; nothing is looked up by it."""
_TOKENIZER_FREE_TEXT = _FREE_TEXT | {
    *("chat_template", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "never_split"),
    *("special_tokens_map_file", "model_specific_special_tokens", "language", "task"),
}
"""Tokens may be any text; the file that is named is one of whoever trained the tokenizer, and never read."""


def read_json(path: Path, where: str) -> Any:
    """A JSON file of a model.

    Raises: DamagedError if it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path.name} of {where} should be JSON, found {type(error).__name__}") from error


def check_config(path: Path, name: str, where: str) -> None:
    """Check one JSON file of a model.

    Args:
        path: The file.
        name: Its name inside the model's folder.
        where: How to name the model in a message.

    Raises:
        DamagedError: It is no JSON.
        PolicyError: A key or a value in it is not on the lists of this module.
    """
    value = read_json(path, where)
    if name == "modules.json":
        _check_modules(value, where)
    is_of_tokenizer = name in ("tokenizer_config.json", "special_tokens_map.json")
    if not isinstance(value, dict | list) or (isinstance(value, list) and name != "modules.json"):
        raise PolicyError(f"{name} of {where} should hold a JSON object, found {type(value).__name__}: choose another")
    is_free = _is_text_of_tokenizer if is_of_tokenizer else _FREE_TEXT.__contains__
    try:
        found = [
            (key, item, reason) for key, item in _items(value, is_free) if (reason := _why_not(key, item, is_free))
        ]
    except RecursionError as error:
        raise DamagedError(f"{name} of {where} should be JSON of a few levels, found hundreds") from error
    for key, item, reason in found[:1]:
        raise PolicyError(
            f"{name} of {where} has {key[:80]!r}: {json.dumps(item)[:80]}, {reason}, and only settings that are plain "
            "data are loaded: choose a model without it"
        )


def _is_text_of_tokenizer(key: str) -> bool:
    return key in _TOKENIZER_FREE_TEXT or key.endswith(("_token", "_tokens"))


def _items(value: Any, is_free: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth; what stands under free text is left out, but not its key."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            for key, inner in item.items():
                yield key, inner
                if not is_free(key):
                    yield from _items(inner, is_free)
        elif isinstance(item, list):
            yield from _items(item, is_free)


def _why_not(key: str, value: Any, is_free: Callable[[str], bool]) -> str:
    """What is wrong with a key and its value; empty if nothing is."""
    is_private = key.startswith("_") and _PLAIN_KEY.fullmatch(key[1:]) and (value is None or _is_size(value))
    if not (_PLAIN_KEY.fullmatch(key) or key in _PRIVATE_KEYS or is_private):
        return "which is no key of a setting"
    if _CODE_KEY.search(key) and not (value in (None, False, "", [], {}) or _is_size(value)):
        return "which asks for code or formats that are not loaded"
    for kind, allowed in _CHOICES:
        if kind.fullmatch(key) and not (isinstance(value, str | None) and value in allowed):
            return "which is no choice that transformers brings itself"
    is_class = value is None or (isinstance(value, str) and _CLASS.fullmatch(value))
    if key.endswith("_class") and not (is_class or _is_size(value)):
        return "which is no name of a class"
    if key == "init_inputs" and value not in (None, []):
        return "which sets arguments that are not named"
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    outside = [] if is_free(key) else [text for text in texts if not _NAME.fullmatch(text)]
    if key.endswith("_file"):  # old tokenizers name files of the machine that made them, which then are not here
        outside = [text for text in outside if os.path.exists(os.path.expanduser(text))]
    return "which names something outside the model" if outside else ""


def _is_size(value: Any) -> bool:
    """Whether a value is a number, or lists of numbers."""
    if isinstance(value, list):
        return all(map(_is_size, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_modules(modules: Any, where: str) -> None:
    """The modules of sentence-transformers are classes that it imports by their dotted name."""
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise PolicyError(f"modules.json of {where} should list modules, found {type(modules).__name__}")
    for module in modules:
        if not (isinstance(module.get("type"), str) and _MODULE_CLASS.fullmatch(module["type"])):
            raise PolicyError(
                f"modules.json of {where} names {str(module.get('type'))[:80]!r}, which is code of its own and is not "
                "run: choose another model"
            )
