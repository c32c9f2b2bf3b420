"""Keep folders, user names and secrets out of what people publish: records, cards, reports. Standard library only."""

import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallmodels.errors import InputError

_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:hf|gh[oprsu]|github_pat)_|sk[-_]|glpat-|xox[a-z]-)"
    r"(?:(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{6,}|[a-z0-9]{20,})"
)
"""Access tokens of the hub and of others; a capital letter or their length tells them from names like `hf_data`."""
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY|SECRET_KEY)$", re.IGNORECASE)
_MIN_SECRET_CHARACTERS = 12
"""A shorter value of such a variable is more likely a word than a secret."""
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_FOLDERS = re.compile(r"(?<![\w:/.~-])(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s'\",;:()<>|]+[/\\])+(?=[^/\\\s])")
"""The folders of an absolute path inside a sentence; what follows the last slash stays."""
_FOLDER_VARIABLES = ("SMALLMODELS_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME")
"""Name folders that messages of ours and of other libraries speak of."""
_LOCATION_FLAGS = frozenset({"--out", "--config", "--resume", "--sweep"})
"""Where a run is kept, comes from or belongs to says nothing about what it did."""


def without_secrets(text: str) -> str:
    """The text without access tokens, secrets that stand in the environment, and the user part of addresses."""
    for name, value in os.environ.items():
        if len(value) >= _MIN_SECRET_CHARACTERS and _SECRET_VARIABLE.search(name):
            text = text.replace(value, "***")
    return _USER_IN_URL.sub("", _SECRET.sub("***", text))


def masked(value: Any) -> Any:
    """JSON values with `without_secrets` applied to every text and key in them."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {masked(key): masked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return value


def require_no_secrets(value: Any, name: str) -> None:
    """Refuse settings that hold a secret, so that it is written nowhere.

    Args:
        value: A JSON value.
        name: What to call it, such as `config`.

    Raises: InputError that names the setting, not the secret.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            require_no_secrets(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            require_no_secrets(item, name)
    elif masked(value) != value:
        raise InputError(
            f"{name} must hold no access token or password, but looks as if it does: set HF_TOKEN in its place"
        )


def without_folders(text: str, folders: Sequence[Path] = ()) -> str:
    """A sentence with every absolute path cut to its last name.

    Args:
        text: The sentence.
        folders: Folders known to matter, which are taken out even where their names hold spaces.
    """
    known = [*folders, *(folder.absolute() for folder in folders), Path.cwd(), Path.home(), Path(tempfile.gettempdir())]
    known += [Path(value) for value in map(os.environ.get, _FOLDER_VARIABLES) if value and os.path.isabs(value)]
    for folder in sorted({str(folder) for folder in known if len(folder.parts) > 1}, key=len, reverse=True):
        text = text.replace(folder + os.sep, "").replace(folder, Path(folder).name)
    return _FOLDERS.sub("", without_secrets(text))


def argument(value: str) -> str:
    """One value of a flag or config: a local path is cut to its name, a hub id or anything else stays."""
    path = Path(value)
    looks_local = path.is_absolute() or value.startswith(("~", "./", "../", ".\\", "..\\")) or "\\" in value
    if looks_local or (len(path.parts) > 1 and ("{" in value or _exists(path))):  # a hub id has no braces
        return without_secrets(path.name or value)
    return without_folders(value)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def values(value: Any) -> Any:
    """JSON values with `argument` applied to every text in them."""
    if isinstance(value, str):
        return argument(value)
    if isinstance(value, Mapping):
        return {key: values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [values(item) for item in value]
    return value


def sentences(value: Any, folders: Sequence[Path] = ()) -> Any:
    """JSON values with `without_folders` applied to every text in them."""
    if isinstance(value, str):
        return without_folders(value, folders)
    if isinstance(value, Mapping):
        return {key: sentences(item, folders) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [sentences(item, folders) for item in value]
    return value


def command_line(arguments: Sequence[str]) -> str:
    """A command as one line that can be typed again, without folders."""
    words: list[str] = []
    skip = False
    for word in arguments:
        flag, equals, value = word.partition("=")
        if skip:
            skip = False
        elif flag in _LOCATION_FLAGS:
            skip = not equals
        elif flag.startswith("--") and equals:
            words.append(f"{flag}={argument(value)}")
        else:
            words.append(argument(word))
    return shlex.join(words)
