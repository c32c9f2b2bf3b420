"""What a repository's card declares."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallmodels import files, licenses, records
from smallmodels.sources.names import Kind

CARD_FILES = re.compile(r"README\.md|(?:LICEN[CS]E|NOTICE|COPYING)[\w.-]*", re.IGNORECASE)


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

    seen = any(is_license(path.name) for path in folder.iterdir())
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
        declared = [f"other:{re.sub(r'[^a-z0-9.+-]+', '-', named[0].strip().lower()).strip('-')}"]
    known = [value for value in declared if value not in ("", "unknown")]
    notes = {"license_declared": "unknown"} if "unknown" in declared else {}
    languages = [value for value in _strings(data.get("language")) if re.fullmatch(r"[a-z]{2,3}", value)]
    return Card(", ".join(known) or None, languages, seen, notes)


def _strings(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def is_license(name: str) -> bool:
    """Whether a file of this name holds a licence."""
    return bool(re.fullmatch(r"(?:LICEN[CS]E|COPYING)[\w.-]*", name, re.IGNORECASE))


def source_of(
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
    """A line for the record; a data set's rows and fingerprint are for its reader to add."""
    weights = {name: value for name, value in hashes.items() if name.endswith(".safetensors")}
    return records.Source(
        role=role,
        kind=kind,
        name=name,
        revision=revision,
        sha256=hashes,
        license=license_name,
        license_file_seen=license_file_seen,
        duties=licenses.duties_of(licenses.Declared(name, license_name)),
        splits={},
        fingerprint=files.sha256_json(weights) if weights else None,
        notes=dict(notes or {}),
    )
