"""Which data a run began with, so that it does not go on with other data."""

from typing import Any

from smallmodels import files
from smallmodels.errors import DamagedError, InputError
from smallmodels.phases import Context

_NAME = "data.json"


def require_same(name: str, fingerprint: str, label_names: list[str], context: Context) -> None:
    """Note the rows and the order of the labels in the phase's folder; refuse others when the phase runs again.

    A phase runs again if it was killed, or if what it kept is damaged; a local file may have changed by then, and what
    was trained already would get labels that mean something else.

    Args:
        name: Of the data set, for the message.
        fingerprint: Over the rows of all splits.
        label_names: Names of the classes in the order in which they are numbered; empty where there are none.
        context: Of the phase; outside a run nothing is noted.

    Raises: InputError that says whether labels or rows differ.
    """
    if context.folder is None:
        return
    found: dict[str, Any] = {"fingerprint": fingerprint, "labels": label_names}
    path = context.folder / _NAME
    try:
        before = files.read_json(path)
    except DamagedError:
        context.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(path, found)
        return
    if before == found:
        return
    changed = "rows"
    if before.get("labels") != label_names:
        changed = f"labels, which were {_shown(before.get('labels') or [])} and are {_shown(label_names)},"
    raise InputError(
        f"{name} should be as it was when this run began, but has other {changed} now: "
        "put the data back, or start a new run with --fork"
    )


def _shown(labels: list[str]) -> str:
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(map(str, labels[:5])) + more
