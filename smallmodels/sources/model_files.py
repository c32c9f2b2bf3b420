"""A model from the hub, an installed package or a local folder, on disk and safe to load."""

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from smallmodels import files, records
from smallmodels.licenses import USER_PROVIDED
from smallmodels.sources.cards import is_license, read_card, source_of
from smallmodels.sources.checks import check_configs, check_folder, check_model, files_to_read
from smallmodels.sources.hub import download, is_offline, resolve
from smallmodels.sources.names import parse_name
from smallmodels.sources.packages import PackagedModel, check_package, installed


@dataclass(frozen=True)
class ModelFiles:
    """A model that passed its checks, on disk."""

    folder: Path
    """Can be given to `from_pretrained`."""
    source: records.Source


def fetch_model(name: str, *, role: str = "teacher") -> ModelFiles:
    """Bring a model to disk and check that it is safe to load.

    Args:
        name: `org/name`, `org/name@revision`, or a local folder. A name without a revision that an installed package
            carries (see `PACKAGED`) is taken from there.
        role: What it is used as, for the record.

    Raises:
        InputError: The name is no such thing, or the hub cannot give it.
        PolicyError: It needs code, pickled weights or a number format that is not ours to load.
        DamagedError: Files are not those that the hub or the table of packages lists.
    """
    if os.path.isdir(local := os.path.expanduser(name)):  # unlike Path's, without errors for names of any kind
        return _local_model(Path(local), role)
    repo_id, revision = parse_name(name, "model")
    if revision is None and (found := installed(repo_id)):
        return _packaged_model(repo_id, *found, role)
    return _hub_model(repo_id, revision, role)


def _local_model(folder: Path, role: str) -> ModelFiles:
    hashes = {name: files.sha256_file(folder / name) for name in check_folder(folder)}
    license_seen = any(map(is_license, hashes))
    source = source_of(role, "model", folder.resolve().name, hashes, USER_PROVIDED, license_seen)
    return ModelFiles(folder, source)


def _packaged_model(repo_id: str, package: PackagedModel, folder: Path, role: str) -> ModelFiles:
    check_package(package, folder, repo_id)
    check_model(folder, list(package.sha256), repo_id)
    card = read_card(folder, "model")
    version = importlib.metadata.version(package.distribution)
    notes = {"package": f"{package.distribution} {version}", "languages": card.languages}
    source = source_of(role, "model", repo_id, dict(package.sha256), card.license, card.license_file_seen, notes=notes)
    return ModelFiles(folder, source)


def _hub_model(repo_id: str, revision: str | None, role: str) -> ModelFiles:
    pin = resolve(repo_id, revision, "model")
    wanted = files_to_read(list(pin.files), repo_id)
    small = [name for name in wanted if not name.endswith(".safetensors")]
    if not is_offline():  # else all that is missing should be named at once
        check_configs(download(pin, small), small, repo_id)  # before the weights, which are the long part
    folder = download(pin, wanted)
    check_model(folder, wanted, repo_id)
    card = read_card(folder, "model")
    hashes = {name: files.sha256_file(folder / name) for name in wanted}
    notes = pin.notes() | {"languages": card.languages} | card.notes
    source = source_of(
        role, "model", repo_id, hashes, card.license, card.license_file_seen, revision=pin.commit, notes=notes
    )
    return ModelFiles(folder, source)
