"""What may stand for a model or a data set: `org/name`, `org/name@revision`."""

import os
import re
from typing import Literal

from smallmodels.errors import InputError

Kind = Literal["model", "dataset"]

HUB = "https://huggingface.co"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.+-]*(?:/[A-Za-z0-9][\w.+-]*)*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


LANGUAGE_PLACE = "{language}"
"""In the path of local files, one for each language."""


def is_path(name: str) -> bool:
    """Whether a name is that of a local file or folder, or of local files, one for each language."""
    return os.path.exists(os.path.expanduser(name)) or LANGUAGE_PLACE in name


def parse_name(name: str, kind: Kind) -> tuple[str, str | None]:
    """Take `org/name@revision` apart.

    Raises: InputError if it is no hub id; so a mistyped path ends here.
    """
    repo_id, at, revision = name.partition("@")
    parts_are_fine = ".." not in name and "--" not in repo_id and not repo_id.endswith((".git", ".ipynb", "-", "."))
    if not _REPO_ID.fullmatch(repo_id) or not parts_are_fine or (at and not _REVISION.fullmatch(revision)):
        local = "a local folder" if kind == "model" else "a local CSV, JSON Lines or Parquet file"
        raise InputError(f"{kind} should be org/name, org/name@revision or {local} that exists, got {name!r}")
    return repo_id, revision or None
