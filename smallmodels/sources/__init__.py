"""A name to a commit, its licence, its safety checks, its files on disk.

`fetch_model` and `fetch_dataset` take a hub id (`org/name` or `org/name@revision`), a local folder or file, or a name
that an installed package carries. A hub name is resolved to a commit once; everything is then read at that commit,
compared with the hashes that the hub lists for it, and noted beside the hub's cache, so that the same name works
offline afterwards. Weights are safetensors or nothing; no repository's code is run.
"""

from smallmodels.floors import require_floors
from smallmodels.licenses import USER_PROVIDED
from smallmodels.sources.cards import Card, read_card
from smallmodels.sources.checks import check_folder, check_model
from smallmodels.sources.dataset_files import CONLL_ENDINGS, TEXT_ENDINGS, DatasetFiles, fetch_dataset
from smallmodels.sources.declared import declared_license
from smallmodels.sources.hub import is_offline, pinned_name, size_on_disk
from smallmodels.sources.model_files import ModelFiles, fetch_model
from smallmodels.sources.names import LANGUAGE_PLACE, Kind, parse_name
from smallmodels.sources.offline import require_cached
from smallmodels.sources.packages import PACKAGED, PackagedModel, is_packaged
from smallmodels.sources.weight_files import weights_sha256

__all__ = [
    "CONLL_ENDINGS",
    "LANGUAGE_PLACE",
    "PACKAGED",
    "TEXT_ENDINGS",
    "USER_PROVIDED",
    "Card",
    "DatasetFiles",
    "Kind",
    "ModelFiles",
    "PackagedModel",
    "check_folder",
    "check_model",
    "declared_license",
    "fetch_dataset",
    "fetch_model",
    "is_offline",
    "is_packaged",
    "parse_name",
    "pinned_name",
    "read_card",
    "require_cached",
    "size_on_disk",
    "weights_sha256",
]

require_floors()  # here, because whatever reads or trains a model imports this
