"""A name to a commit of the hub, and files of that commit to disk, compared with the hashes that the hub lists."""

import glob
import hashlib
import re
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smallmodels import files
from smallmodels.errors import DamagedError, InputError
from smallmodels.sources.asking import UnreachableError, ask
from smallmodels.sources.names import COMMIT, HUB, Kind, is_path, parse_name
from smallmodels.sources.packages import installed, is_packaged

_PARQUET_COPY = re.compile(r"[^/]+/[^/]+/\d{4}\.parquet")
"""Configuration, split, number."""


@dataclass(frozen=True)
class File:
    """A file as the hub lists it."""

    size: int | None
    sha256: str | None
    """Of the content, for large files."""
    blob_id: str | None
    """Git's own hash, which is of the content only for files that are not large."""


@dataclass(frozen=True)
class Pin:
    """What a name meant when the hub was asked: a commit and the files in it."""

    repo_id: str
    kind: Kind
    revision: str | None
    commit: str
    files: dict[str, File]
    endpoint: str
    """The server that was asked, without port, user name and password."""
    resolved_utc: str
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Files by split for each configuration that was asked for."""
    from_cache: bool = False

    @property
    def is_parquet_copy(self) -> bool:
        """Whether these are the files of `refs/convert/parquet`, which the hub makes itself: no card, only Parquet."""
        parquet = [name for name in self.files if name.endswith(".parquet")]
        return "README.md" not in self.files and bool(parquet) and all(map(_PARQUET_COPY.fullmatch, parquet))

    def notes(self) -> dict[str, Any]:
        """What the record should say beside the commit."""
        notes: dict[str, Any] = {"revision": self.revision} if self.revision not in (None, self.commit) else {}
        if self.endpoint != HUB:
            notes["endpoint"] = self.endpoint
        is_old = self.from_cache and self.revision != self.commit
        return notes | ({"commit_resolved_utc": self.resolved_utc} if is_old else {})


def pinned_name(name: str, kind: Kind) -> str:
    """The name with the commit that it means now, `org/name@<commit>`; local files and packages keep their name.

    A run asks once and reads by the answer from then on, also when it is resumed or repeated.
    """
    if is_local(name, kind):
        return name
    repo_id, revision = parse_name(name, kind)
    return f"{repo_id}@{resolve(repo_id, revision, kind).commit}"


def is_local(name: str, kind: Kind) -> bool:
    """Whether a name is that of a file or folder, or of a model that an installed package carries."""
    if is_path(name):
        return True
    repo_id, revision = parse_name(name, kind)
    return kind == "model" and revision is None and is_packaged(repo_id)


def size_on_disk(name: str, kind: Kind) -> int | None:
    """Bytes of what a run has read of a model or data set, by its name as `pinned_name` gives it; None if unknown."""
    if is_path(name):
        path = Path(name).expanduser()
        return files.num_bytes(path) if path.is_dir() else path.stat().st_size if path.is_file() else None
    repo_id, revision = parse_name(name, kind)
    if is_local(name, kind):
        found = installed(repo_id)
        return files.num_bytes(found[1]) if found else None
    pin = known_pin(repo_id, revision, kind)
    return sum(pin.files[file].size or 0 for file in pin.files if on_disk(pin, file)) if pin else None


def resolve(repo_id: str, revision: str | None, kind: Kind) -> Pin:
    """Resolve a name to a commit; offline, or when the hub does not answer, as it was resolved last."""
    known = known_pin(repo_id, revision, kind)
    if known and (is_offline() or COMMIT.fullmatch(revision or "")):
        return known
    if is_offline():
        raise not_cached({f"{kind} {repo_id}": ["the list of its files"]})
    from huggingface_hub import HfApi

    try:
        info = ask(
            lambda: HfApi().repo_info(repo_id, repo_type=kind, revision=revision, files_metadata=True),
            repo_id,
            kind,
            revision,
            patient=known is None,
        )
    except UnreachableError as error:
        if known:
            return known
        raise InputError(str(error)) from error
    listed = {
        sibling.rfilename: File(sibling.size, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id)
        for sibling in getattr(info, "siblings", None) or []
    }
    configs = known.configs if known and known.commit == info.sha else {}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pin = Pin(repo_id, kind, revision, str(info.sha), listed, _server(), now, configs)
    write_pin(pin)
    return pin


def _server() -> str:
    endpoint = urllib.parse.urlsplit(_endpoint())
    return f"{endpoint.scheme}://{endpoint.hostname}"


def _pin_path(repo_id: str, revision: str | None, kind: Kind) -> Path:
    """In the folder that the hub's client keeps for other libraries, so both are emptied together."""
    from huggingface_hub import cached_assets_path

    key = hashlib.sha256((revision or "main").encode()).hexdigest()[:16]
    folder = cached_assets_path(library_name="smallmodels", namespace=f"{kind}s", subfolder="revisions")
    return folder / f"{repo_id.replace('/', '--')}--{key}.json"


def known_pin(repo_id: str, revision: str | None, kind: Kind) -> Pin | None:
    """What a name meant when it was resolved last; None if that is not known here."""
    try:
        value = files.read_json(_pin_path(repo_id, revision, kind))
        listed = {name: File(**row) for name, row in value["files"].items()}
        commit, server, resolved = (str(value[key]) for key in ("commit", "endpoint", "resolved_utc"))
        return Pin(repo_id, kind, revision, commit, listed, server, resolved, dict(value["configs"]), from_cache=True)
    except (DamagedError, OSError, KeyError, TypeError, AttributeError, ValueError):
        return None  # absent, or not ours: the hub is asked again


def write_pin(pin: Pin) -> None:
    """Note it under the name that was asked for, and under the commit, which a record repeats."""
    listed = {name: vars(file) for name, file in pin.files.items()}
    value: dict[str, Any] = {"commit": pin.commit, "endpoint": pin.endpoint, "resolved_utc": pin.resolved_utc}
    value |= {"files": listed, "configs": pin.configs}
    with suppress(OSError):  # a cache that cannot be written costs the offline use, not this run
        for revision in (pin.revision, pin.commit):
            files.write_json(_pin_path(pin.repo_id, revision, pin.kind), value)


def download(pin: Pin, names: Sequence[str]) -> Path:
    """Bring files of a commit to disk and compare them with their hashes; what is there and right is not asked for."""
    wrong = [name for name in names if not _is_intact(pin, name)]
    if wrong and is_offline():
        raise not_cached({f"{pin.kind} {pin.repo_id}": wrong})
    if wrong:
        for name in wrong:
            if not _is_intact(pin, name):  # another process may have brought it meanwhile
                _forget(pin, name)
        _check_space(sum(pin.files[name].size or 0 for name in wrong), pin.repo_id)
        _fetch(pin, wrong)
    if altered := [name for name in wrong if not _is_intact(pin, name)]:
        for name in altered:
            _forget(pin, name)
        raise DamagedError(
            f"{altered[0]} of {pin.repo_id} is not what the hub lists for commit {pin.commit[:12]}: "
            "the copy was thrown away, so try again, and if it stays so distrust the mirror or proxy in between"
        )
    anchor = names[0]
    path = _cached_path(pin, anchor)
    assert path is not None
    return path.parents[len(Path(anchor).parts) - 1]


def cached(pin: Pin, names: Sequence[str]) -> bool:
    """Whether these files of a commit are on disk with the bytes that the hub lists."""
    return all(_is_intact(pin, name) for name in names)


def _fetch(pin: Pin, names: Sequence[str]) -> None:
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(name) for name in names]
    try:
        ask(
            lambda: snapshot_download(
                pin.repo_id, repo_type=pin.kind, revision=pin.commit, allow_patterns=patterns, max_workers=4
            ),
            pin.repo_id,
            pin.kind,
        )
    except UnreachableError as error:
        raise InputError(str(error)) from error


def _cached_path(pin: Pin, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(pin.repo_id, name, revision=pin.commit, repo_type=pin.kind)
    return Path(path) if isinstance(path, str) else None


def on_disk(pin: Pin, name: str) -> bool:
    """Whether the file is in the cache, whatever it holds."""
    return _cached_path(pin, name) is not None


def _is_intact(pin: Pin, name: str) -> bool:
    """Whether the file is in the cache with the bytes that the hub lists; its clients compare nothing."""
    path, listed = _cached_path(pin, name), pin.files[name]
    if path is None or (listed.size is not None and path.stat().st_size != listed.size):
        return False
    if listed.sha256:
        return files.sha256_file(path) == listed.sha256
    if listed.blob_id:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == listed.blob_id
    return True


def _forget(pin: Pin, name: str) -> None:
    """Remove a file from the hub's cache, where a link points to the content."""
    if path := _cached_path(pin, name):
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _check_space(num_bytes: int, repo_id: str) -> None:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < num_bytes:
        raise InputError(
            f"{repo_id} needs {num_bytes / 1e6:.0f} MB of disk, {free / 1e6:.0f} MB are free: "
            "make room, or point HF_HOME to a larger disk"
        )


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def not_cached(missing: Mapping[str, Sequence[str]]) -> InputError:
    """The error of an offline run that lacks files; by what they are of, such as `model org/name`."""
    lacking = "; ".join(f"of the {source}: {', '.join(names)}" for source, names in missing.items())
    return InputError(f"HF_HUB_OFFLINE is set and the cache lacks, {lacking}; run once with the network on")
