"""One configuration of a data set, from the hub, a local file or a folder of texts."""

import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import files, records
from smallmodels.errors import InputError, PolicyError
from smallmodels.licenses import USER_PROVIDED
from smallmodels.sources.asking import ask
from smallmodels.sources.cards import CARD_FILES, source_of
from smallmodels.sources.declared import read_card_of
from smallmodels.sources.hub import Pin, download, is_offline, not_cached, resolve, write_pin
from smallmodels.sources.names import parse_name
from smallmodels.sources.weight_files import foreign_format

_DATA_ENDINGS = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".arrow")
TEXT_ENDINGS = (".txt", ".md")
CONLL_ENDINGS = (".conll", ".bio", ".iob", ".iob2")


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


def fetch_dataset(name: str, *, config: str | None = None, role: str = "dataset") -> DatasetFiles:
    """Bring one configuration of a data set to disk.

    Args:
        name: `org/name`, `org/name@revision`, a local CSV, JSON Lines, Parquet or CoNLL file, or a folder of texts.
        config: Configuration; None where there is only one.
        role: What it is used as, for the record.

    Raises:
        InputError: The name or the configuration is no such thing, or the hub cannot give it, or it needs a script.
        PolicyError: Its data are archives, or of a format that is not one of rows.
        DamagedError: Files are not those that the hub lists.
    """
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        hashes = {path.name: files.sha256_file(path)}
        source = source_of(role, "dataset", path.name, hashes, USER_PROVIDED, license_file_seen=False)
        return DatasetFiles(path.parent, None, None, None, {"train": [path]}, [], source)
    if os.path.isdir(os.path.expanduser(name)):  # unlike Path's, False for an empty name
        return _text_folder(path, role)
    if path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".parquet", *CONLL_ENDINGS):
        raise InputError(f"{name} should be a data file, found no such file: check the path")
    repo_id, revision = parse_name(name, "dataset")
    pin = resolve(repo_id, revision, "dataset")
    chosen = pin.configs.get(config or "") or _choose_config(pin, config)
    card_files = [n for n in pin.files if CARD_FILES.fullmatch(n) or n in ("dataset_infos.json", ".huggingface.yaml")]
    data = [file for split in chosen["data_files"].values() for file in split]
    if odd := [file for file in data if not file.lower().endswith(_DATA_ENDINGS)]:
        raise PolicyError(
            f"{repo_id} should hold its rows as {', '.join(_DATA_ENDINGS)}, found {odd[0]}, which is not opened: "
            f"try {repo_id}@refs/convert/parquet, the hub's copy of it as Parquet files"
        )
    folder = download(pin, [*card_files, *data])
    for file in data:  # `datasets` unpacks what begins like an archive, whatever its name says
        if found := foreign_format(folder / file):
            raise PolicyError(f"{file} of {repo_id} should be a file of rows, found {found}, which is not unpacked")
    card = read_card_of(pin)
    hashes = {file: pin.files[file].sha256 or files.sha256_file(folder / file) for file in data}
    notes = pin.notes() | ({"config": chosen["config"]} if chosen["config"] else {}) | card.notes
    source = source_of(
        role, "dataset", repo_id, hashes, card.license, card.license_file_seen, revision=pin.commit, notes=notes
    )
    by_split = {split: [folder / file for file in found] for split, found in chosen["data_files"].items()}
    card_config = None if chosen["data_dir"] else chosen["config"]
    return DatasetFiles(folder, chosen["config"], card_config, chosen["features"], by_split, card.languages, source)


def _text_folder(folder: Path, role: str) -> DatasetFiles:
    """Every text file below a folder, in the order of their names."""
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in TEXT_ENDINGS and file.is_file())
    if not found:
        raise InputError(
            f"{folder} should hold text files ({', '.join(TEXT_ENDINGS)}), found none: name a folder that does, or a "
            "data file in it"
        )
    hashes = {file.relative_to(folder).as_posix(): files.sha256_file(file) for file in found}
    source = source_of(role, "dataset", folder.resolve().name, hashes, USER_PROVIDED, license_file_seen=False)
    return DatasetFiles(folder, None, None, None, {"train": found}, [], source)


def _choose_config(pin: Pin, config: str | None) -> dict[str, Any]:
    """Ask `datasets` which files a configuration has, and remember the answer, which holds for the commit."""
    if is_offline():
        raise not_cached({f"{pin.kind} {pin.repo_id}": [f"the files of configuration {config or 'default'}"]})
    script = f"{pin.repo_id.partition('/')[2]}.py"
    if script in pin.files:
        raise _needs_script(pin.repo_id)
    data_dir = _folder_of_config(pin, config)
    builder = ask(lambda: _make_builder(pin, None if data_dir else config, data_dir), pin.repo_id, pin.kind)
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
    write_pin(pin)
    return chosen


def _folder_of_config(pin: Pin, config: str | None) -> str | None:
    """The hub's own copy as Parquet files has no card, only one folder per configuration."""
    if not pin.is_parquet_copy:
        return None
    folders = sorted({name.split("/")[0] for name in pin.files if name.endswith(".parquet") and "/" in name})
    if config is None and len(folders) == 1:
        return folders[0]
    if config not in folders:
        raise _no_such_config(pin.repo_id, config, folders)
    return config


def _make_builder(pin: Pin, config: str | None, data_dir: str | None) -> Any:
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
        names = ask(lambda: datasets.get_dataset_config_names(pin.repo_id, revision=pin.commit), pin.repo_id, pin.kind)
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
