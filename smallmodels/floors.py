"""The oldest versions of other libraries that are used: those below have published security advisories."""

import importlib.metadata
import re

from smallmodels.errors import PolicyError

FLOORS = {"torch": "2.10", "transformers": "5.3", "jinja2": "3.1.6", "pyarrow": "17"}
"""Lowest version by distribution, equal to the lower bounds in pyproject.toml. They load files and fill in pages that
strangers may have written: below them, a checkpoint, a config, a template or a data file could run code."""


def require_floors() -> None:
    """Refuse to work with a library below its floor; reads what is installed and imports nothing.

    Raises: PolicyError that names the version, the one that is needed, and the command that brings it.
    """
    for name, floor in FLOORS.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # whoever needs it says so when importing it
        if _release(found) < _release(floor):
            raise PolicyError(
                f"{name} should be version {floor} or newer, because older ones have known security holes, found "
                f"{found}: run pip install --upgrade '{name}>={floor}'"
            )


def _release(version: str) -> tuple[tuple[int, ...], bool]:
    """The numbers of a version, and whether it is a release rather than what comes before one: 2.10 above 2.10rc1."""
    numbers, ending = re.fullmatch(r"v?(?:\d+!)?([\d.]*)(.*)", version, re.DOTALL).groups()  # type: ignore[union-attr]
    parts = [int(part) for part in numbers.split(".") if part]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts), not re.match(r"[._-]?(?:a|b|c|rc|alpha|beta|pre|dev)", ending)
