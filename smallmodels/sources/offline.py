"""What a run without network lacks, of all its sources at once."""

from collections.abc import Sequence

from smallmodels.sources.checks import files_to_read
from smallmodels.sources.hub import Pin, is_local, is_offline, known_pin, not_cached, on_disk
from smallmodels.sources.names import Kind, parse_name


def require_cached(names: Sequence[tuple[str, Kind]]) -> None:
    """Where HF_HUB_OFFLINE is set, refuse sources of the hub that are not in the cache; else nothing is asked.

    Only whether files are there is looked at: what they hold is compared with its hash when they are read.

    Raises: InputError that names every file that is missing, of all sources.
    """
    lacking = {}
    for name, kind in names if is_offline() else ():
        if is_local(name, kind):
            continue
        repo_id, revision = parse_name(name, kind)
        pin = known_pin(repo_id, revision, kind)
        if pin is None:
            lacking[f"{kind} {repo_id}"] = ["the list of its files"]
        elif missing := [file for file in _needed(pin) if not on_disk(pin, file)]:
            lacking[f"{kind} {repo_id}"] = missing
    if lacking:
        raise not_cached(lacking)


def _needed(pin: Pin) -> list[str]:
    """Files that are read in any case; of a data set of which several configurations were read before, none is."""
    if pin.kind == "model":
        return files_to_read(list(pin.files), pin.repo_id)
    read_before = known_pin(pin.repo_id, pin.commit, pin.kind) or pin  # rows are read by the commit, and noted there
    chosen = list(read_before.configs.values()) if len(read_before.configs) == 1 else []
    return [file for config in chosen for files in config["data_files"].values() for file in files]
